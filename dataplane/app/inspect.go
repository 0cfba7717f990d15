package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kadomori/kadomori/dataplane/internal/engine"
	"github.com/kadomori/kadomori/dataplane/internal/eve"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/pcap"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
)

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	rules        []string
	pcaps        []string
	policy       string
	eve          string
	vars         []string
	classes      string
	cache        string
	simulateIPS  bool
	midstream    bool
	streamInline bool
	checksums    string
	thresholds   string
	pcapDir      string
	measure      string
	profile      string
}

// inspectCommand reads capture files through the same engine as the wire.
func inspectCommand() *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use:   "inspect --pcap FILE [--rules FILE] [--policy FILE] [--eve FILE]",
		Short: "Run capture files through the engine and print EVE JSON lines",
		Long: "Runs capture files (pcap, pcapng) through the engine that judges packets on the wire and prints what it finds as\n" +
			"EVE JSON lines with Suricata's field names. A file that is cut off is reported as far as it goes, then as an error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runInspect(cmd, &o) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.rules, "rules", nil, "rule file, repeatable")
	f.StringArrayVar(&o.pcaps, "pcap", nil, "capture file, - is standard input; repeatable")
	f.StringVar(&o.policy, "policy", "", "policy as JSON (kadomori.policy.v1.Policy): home nets, zones, detectors")
	f.StringVar(&o.eve, "eve", "-", "where the lines go: - is standard output, none prints nothing")
	f.StringArrayVar(&o.vars, "var", nil, "address or port variable of the rules, NAME=VALUE; repeatable")
	f.StringVar(&o.classes, "classification", "", "classification.config of the rules")
	f.StringVar(&o.cache, "cache", "", "folder that keeps compiled pattern databases")
	f.BoolVar(&o.simulateIPS, "simulate-ips", false, "treat every zone as in mode prevent")
	f.BoolVar(&o.streamInline, "stream-inline", false, "give stream data to parsers and rules as it comes, not when it is acknowledged")
	f.StringVar(&o.checksums, "checksums", "auto", "none: don't check; all: leave packets with a wrong sum out of streams; auto: as all, unless the first packets are mostly wrong (offloaded at the capturing host)")
	f.StringVar(&o.thresholds, "threshold-file", "", "threshold.config of the rules")
	f.StringVar(&o.pcapDir, "pcap-dir", "", "folder of capture files, read in the order of their names")
	f.StringVar(&o.measure, "measure", "", "write how long packets took, memory and allocations to this file, as JSON")
	f.StringVar(&o.profile, "cpu-profile", "", "write a CPU profile of the packet loop to this file")
	f.BoolVar(&o.midstream, "midstream", false, "look into TCP connections whose start is not in the file")
	return c
}

func runInspect(cmd *cobra.Command, o *inspectOptions) (err error) {
	cmd.SilenceUsage = true
	checks, err := engine.ParseChecksums(o.checksums)
	if err != nil {
		return fmt.Errorf("--checksums: %w", err)
	}
	pcaps := o.pcaps
	if o.pcapDir != "" {
		more, err := captures(o.pcapDir)
		if err != nil {
			return err
		}
		pcaps = append(pcaps, more...)
	}
	if len(pcaps) == 0 {
		return errors.New("inspect: no --pcap or --pcap-dir given")
	}
	out := cmd.OutOrStdout()
	silent := o.eve == "none"
	if o.eve != "-" && !silent {
		file, err := os.Create(o.eve)
		if err != nil {
			return fmt.Errorf("create eve file: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	w := eve.NewWriter(out)
	var sink finding.Sink = w
	if silent {
		sink = nothing{}
	}
	e, err := engine.New(engine.Config{
		Sink: sink, Offline: true, Transactions: !silent, Prevent: o.simulateIPS, NoMidstream: !o.midstream, FirstFlowID: 1,
		Checksums: checks, Inline: o.streamInline || o.simulateIPS,
	})
	if err != nil {
		return err
	}
	if o.policy != "" {
		if err := loadPolicy(e, o.policy); err != nil {
			return err
		}
	}
	began := time.Now()
	set, err := loadRules(cmd.ErrOrStderr(), o)
	if err != nil {
		return err
	}
	m := measurement{CompileSeconds: time.Since(began).Seconds()}
	if set != nil {
		defer set.Close()
		e.SetRules(set)
	}
	stop, err := m.begin(o.profile)
	if err != nil {
		return err
	}
	for i, name := range pcaps {
		src := &pcap.Source{Name: name, Open: opener(cmd, name)}
		if rerr := src.Run(cmd.Context(), e.Worker); rerr != nil {
			err = errors.Join(err, fmt.Errorf("%w (%d packets were read)", rerr, src.Packets))
		}
		if i == len(pcaps)-1 {
			e.Flush()
		}
	}
	stop()
	if o.measure != "" {
		err = errors.Join(err, m.write(o.measure, e.Stats()))
	}
	return errors.Join(err, w.Close())
}

// captures lists the capture files of a folder by name.
func captures(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list captures: %w", err)
	}
	var out []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".pcap", ".pcapng", ".cap":
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("list captures: %s holds no .pcap, .pcapng or .cap", dir)
	}
	return out, nil
}

func opener(cmd *cobra.Command, name string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		if name == "-" {
			return io.NopCloser(cmd.InOrStdin()), nil
		}
		return os.Open(name)
	}
}

func loadPolicy(e *engine.Engine, name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	var pol policyv1.Policy
	if err := protojson.Unmarshal(b, &pol); err != nil {
		return fmt.Errorf("read policy %s: %w", name, err)
	}
	p, err := engine.CompilePolicy(&pol, nil)
	if err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	e.SetPolicy(p)
	return nil
}

// loadRules reads and compiles the rule files. Rules that can't be honoured are named on stderr and left out.
func loadRules(stderr io.Writer, o *inspectOptions) (*rule.Set, error) {
	if len(o.rules) == 0 {
		return nil, nil
	}
	var classes map[string]rule.Class
	if o.classes != "" {
		f, err := os.Open(o.classes)
		if err != nil {
			return nil, fmt.Errorf("read classification: %w", err)
		}
		classes, err = rule.ParseClasses(o.classes, f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("read classification: %w", err)
		}
	}
	vars := map[string]string{}
	for _, v := range o.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--var %q: want NAME=VALUE", v)
		}
		vars[name] = value
	}
	var all []*rule.Rule
	for _, name := range o.rules {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		rules, errs := rule.Parse(name, f, rule.ParseOptions{Classes: classes, Dir: filepath.Dir(name)})
		_ = f.Close()
		for _, e := range errs {
			_, _ = fmt.Fprintln(stderr, e)
		}
		all = append(all, rules...)
	}
	opt := rule.CompileOptions{Vars: vars, CacheDir: o.cache, IPS: o.simulateIPS}
	if o.thresholds != "" {
		f, err := os.Open(o.thresholds)
		if err != nil {
			return nil, fmt.Errorf("read thresholds: %w", err)
		}
		defer f.Close() //nolint:errcheck // read only
		opt.Thresholds = f
	}
	set, err := rule.Compile(all, opt)
	if err != nil {
		return nil, fmt.Errorf("compile rules: %w", err)
	}
	for _, e := range set.Refused() {
		_, _ = fmt.Fprintln(stderr, e)
	}
	return set, nil
}
