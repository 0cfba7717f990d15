package app

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// rulesCommand is `kadomori-agent rules`: what an analyst runs on a rule file before it goes into a signature bundle.
func rulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Work with rule files",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(rulesCheckCommand())
	return cmd
}

// rulesCheck are the settings of `rules check`.
type rulesCheck struct {
	json       bool
	classes    string
	vars       []string
	thresholds string
	cache      string
	examples   int
	allow      float64
	noCompile  bool
	ips        bool
}

func rulesCheckCommand() *cobra.Command {
	var c rulesCheck
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Read and compile rule files; tell what is refused and which keyword costs how many rules",
		Long: `Reads rule files in Suricata's language (plain or .gz; - is standard input), compiles them as the engine would, and
prints how many rules are accepted, and for each keyword that is wrong or can't be honoured how many rules it costs, with
the first of them by sid, file, line and column.

The exit status is 0 when at most --allow-refused percent of the rules are refused, else 1.`,
		Args:          cobra.MinimumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: false,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.InOrStdin(), cmd.OutOrStdout(), args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&c.json, "json", false, "print one JSON object instead of tables")
	f.StringVar(&c.classes, "classification", "", "classification.config with the known classtypes")
	f.StringArrayVar(&c.vars, "var", nil, "address or port variable NAME=VALUE (repeatable)")
	f.StringVar(&c.thresholds, "threshold-file", "", "threshold.config to check with the rules")
	f.StringVar(&c.cache, "cache", "", "folder for compiled pattern databases")
	f.IntVar(&c.examples, "examples", 3, "how many refused rules to name for each keyword")
	f.Float64Var(&c.allow, "allow-refused", 0, "percentage of refused rules at which the exit status is still 0")
	f.BoolVar(&c.noCompile, "no-compile", false, "read only: variables and patterns are not checked")
	f.BoolVar(&c.ips, "ips", false, "compile as for a zone in prevent mode")
	return cmd
}

// rulesReport is what `rules check --json` prints.
type rulesReport struct {
	Files     []rulesFile    `json:"files"`
	Accepted  int            `json:"accepted"`
	Refused   int            `json:"refused"`
	Disabled  int            `json:"disabled"`
	Percent   float64        `json:"percent_accepted"`
	Keywords  []rulesKeyword `json:"keywords"`
	Databases int            `json:"databases,omitempty"`
	Bytes     int            `json:"database_bytes,omitempty"`
	Cached    int            `json:"databases_from_cache,omitempty"`
	ReadMS    int64          `json:"read_ms"`
	CompileMS int64          `json:"compile_ms,omitempty"`
}

type rulesFile struct {
	Name     string `json:"name"`
	Accepted int    `json:"accepted"`
	Refused  int    `json:"refused"`
	Disabled int    `json:"disabled"`
}

// rulesKeyword is one line of the table of losses.
type rulesKeyword struct {
	Keyword     string   `json:"keyword"`
	Reason      string   `json:"reason"`
	Unsupported bool     `json:"unsupported"`
	Rules       int      `json:"rules"`
	Examples    []string `json:"examples"`
}

func (c *rulesCheck) run(stdin io.Reader, out io.Writer, files []string) error {
	vars, err := ruleVars(c.vars)
	if err != nil {
		return err
	}
	var classes map[string]rule.Class
	if c.classes != "" {
		if classes, err = readClasses(c.classes); err != nil {
			return err
		}
	}
	var (
		rep   rulesReport
		all   []*rule.Rule
		wrong []*rule.Error
		index = map[string]int{}
	)
	begin := time.Now()
	for _, name := range files {
		disabled := 0
		rules, errs, err := readRuleFile(name, stdin, rule.ParseOptions{Classes: classes, Disabled: &disabled, Dir: filepath.Dir(name)})
		if err != nil {
			return err
		}
		index[name] = len(rep.Files)
		rep.Files = append(rep.Files, rulesFile{Name: name, Accepted: len(rules), Refused: len(errs), Disabled: disabled})
		all = append(all, rules...)
		wrong = append(wrong, errs...)
	}
	rep.ReadMS = time.Since(begin).Milliseconds()
	if !c.noCompile {
		opt := rule.CompileOptions{Vars: vars, CacheDir: c.cache, IPS: c.ips}
		if c.thresholds != "" {
			f, err := os.Open(c.thresholds)
			if err != nil {
				return fmt.Errorf("open threshold file: %w", err)
			}
			defer func() { _ = f.Close() }()
			opt.Thresholds = f
		}
		begin = time.Now()
		set, err := rule.Compile(all, opt)
		if err != nil {
			return fmt.Errorf("compile rules: %w", err)
		}
		defer set.Close()
		rep.CompileMS = time.Since(begin).Milliseconds()
		for _, e := range set.Refused() {
			wrong = append(wrong, e)
			if i, ok := index[e.File]; ok {
				rep.Files[i].Accepted--
				rep.Files[i].Refused++
			}
		}
		st := set.Stats()
		rep.Databases, rep.Bytes, rep.Cached = st.Databases, st.Bytes, st.Cached
	}
	for _, f := range rep.Files {
		rep.Accepted += f.Accepted
		rep.Refused += f.Refused
		rep.Disabled += f.Disabled
	}
	rep.Percent = 100
	if total := rep.Accepted + rep.Refused; total > 0 {
		rep.Percent = 100 * float64(rep.Accepted) / float64(total)
	}
	rep.Keywords = losses(wrong, c.examples)
	if c.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(&rep); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	} else if err := rep.print(out); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if refused := 100 - rep.Percent; refused > c.allow+1e-9 {
		return fmt.Errorf("%d of %d rules refused (%.2f %%, allowed %.2f %%)", rep.Refused, rep.Accepted+rep.Refused, refused, c.allow)
	}
	return nil
}

// losses counts the refused rules by keyword and reason, the dearest first.
func losses(errs []*rule.Error, examples int) []rulesKeyword {
	type key struct{ keyword, reason string }
	by := map[key]*rulesKeyword{}
	for _, e := range errs {
		k := key{e.Keyword, e.Reason}
		if e.Keyword == "" {
			k.keyword = "header"
		}
		x := by[k]
		if x == nil {
			x = &rulesKeyword{Keyword: k.keyword, Reason: e.Reason, Unsupported: e.Unsupported}
			by[k] = x
		}
		x.Rules++
		if len(x.Examples) < examples {
			place := fmt.Sprintf("%s:%d", filepath.Base(e.File), e.Line)
			if e.Column > 0 {
				place += fmt.Sprintf(":%d", e.Column)
			}
			if e.SID != 0 {
				place = fmt.Sprintf("sid %d (%s)", e.SID, place)
			}
			x.Examples = append(x.Examples, place)
		}
	}
	out := make([]rulesKeyword, 0, len(by))
	for _, x := range by {
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b rulesKeyword) int {
		if a.Rules != b.Rules {
			return b.Rules - a.Rules
		}
		return strings.Compare(a.Keyword+a.Reason, b.Keyword+b.Reason)
	})
	return out
}

func (r *rulesReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	say(w, "FILE\tACCEPTED\tREFUSED\tDISABLED")
	for _, f := range r.Files {
		sayf(w, "%s\t%d\t%d\t%d\n", f.Name, f.Accepted, f.Refused, f.Disabled)
	}
	if len(r.Files) > 1 {
		sayf(w, "all\t%d\t%d\t%d\n", r.Accepted, r.Refused, r.Disabled)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	sayf(out, "\n%.2f %% accepted", r.Percent)
	if r.Databases > 0 {
		sayf(out, "; read in %.2f s, compiled in %.2f s: %d databases, %.1f MB", float64(r.ReadMS)/1000, float64(r.CompileMS)/1000, r.Databases, float64(r.Bytes)/1e6)
		if r.Cached > 0 {
			sayf(out, ", %d from the cache", r.Cached)
		}
	}
	say(out)
	if len(r.Keywords) == 0 {
		return nil
	}
	say(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	say(w, "KEYWORD\tRULES\tKIND\tREASON\tFIRST")
	for _, k := range r.Keywords {
		kind := "wrong"
		if k.Unsupported {
			kind = "unsupported"
		}
		sayf(w, "%s\t%d\t%s\t%s\t%s\n", k.Keyword, k.Rules, kind, k.Reason, strings.Join(k.Examples, ", "))
	}
	return w.Flush()
}

// ruleVars reads NAME=VALUE arguments.
func ruleVars(args []string) (map[string]string, error) {
	vars := map[string]string{}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		name = strings.TrimPrefix(strings.TrimSpace(name), "$")
		if !ok || name == "" || strings.TrimSpace(value) == "" {
			return nil, fmt.Errorf("variable %q: expected NAME=VALUE", a)
		}
		vars[name] = strings.TrimSpace(value)
	}
	return vars, nil
}

func readClasses(name string) (map[string]rule.Class, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open classification: %w", err)
	}
	defer func() { _ = f.Close() }()
	classes, err := rule.ParseClasses(name, f)
	if err != nil {
		return nil, fmt.Errorf("read classification: %w", err)
	}
	return classes, nil
}

// readRuleFile reads one file of rules, unpacking it when its name ends in .gz; - is stdin.
func readRuleFile(name string, stdin io.Reader, opt rule.ParseOptions) ([]*rule.Rule, []*rule.Error, error) {
	r := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, fmt.Errorf("open rules: %w", err)
		}
		defer func() { _ = f.Close() }()
		r = bufio.NewReaderSize(f, 256<<10)
	}
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("unpack %s: %w", name, err)
		}
		r = io.LimitReader(z, maxRuleFile)
	}
	rules, errs := rule.Parse(name, r, opt)
	if len(rules) == 0 && len(errs) == 0 {
		return nil, nil, fmt.Errorf("read %s: %w", name, errNoRules)
	}
	return rules, errs, nil
}

// maxRuleFile bounds what a packed rule file may unpack to, in bytes.
const maxRuleFile = 1 << 30

var errNoRules = errors.New("no rules in it")

// say and sayf write lines of a table; an error shows at its Flush, and on a terminal there is nobody to tell.
func say(w io.Writer, a ...any) { _, _ = fmt.Fprintln(w, a...) }

func sayf(w io.Writer, format string, a ...any) { _, _ = fmt.Fprintf(w, format, a...) }
