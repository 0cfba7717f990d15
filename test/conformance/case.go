package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Case is a folder with a capture, rules and an expectation.
type Case struct {
	Suite  string // "ours", "suricata-verify", "suricata-verify-eve"
	Name   string
	Dir    string
	Expect *Expect
}

// Outcome is what became of a case.
type Outcome string

// The outcomes. Unsupported is a failure of a case some of whose rules the engine refuses by name.
const (
	Passed      Outcome = "passed"
	Failed      Outcome = "failed"
	Unsupported Outcome = "unsupported"
)

// Result is a case that was run.
type Result struct {
	Suite      string        `json:"suite"`
	Name       string        `json:"name"`
	Tier       string        `json:"tier,omitempty"`
	Features   []string      `json:"features,omitempty"`
	Outcome    Outcome       `json:"outcome"`
	EVEOutcome Outcome       `json:"eve_outcome,omitempty"` // of the assertions about other records; "" when there are none
	Assertions []Assertion   `json:"assertions"`
	Refused    []string      `json:"refused,omitempty"`
	Error      string        `json:"error,omitempty"`
	Took       time.Duration `json:"took"`
}

// Find lists the cases of a suite: folders below dir with an expectation.
func Find(suite, dir string) ([]*Case, error) {
	var out []*Case
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || d.Name() != "expect.json" && d.Name() != "expect.yaml" {
			return nil
		}
		folder := filepath.Dir(path)
		e, err := readExpect(folder)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, folder)
		if err != nil {
			return err
		}
		out = append(out, &Case{Suite: suite, Name: name, Dir: folder, Expect: e})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find cases: %w", err)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Agent runs the inspector: a program and the arguments that make it kadomori-agent.
type Agent struct {
	Path string
	Args []string
	// flags that this inspector has, from its help
	flags map[string]bool
}

// Probe asks the inspector which options it has.
func (a *Agent) Probe(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, a.Path, append(a.Args, "inspect", "--help")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ask the inspector for its options: %w: %s", err, bytes.TrimSpace(out))
	}
	a.flags = map[string]bool{}
	for _, w := range strings.FieldsFunc(string(out), func(c rune) bool { return c == ' ' || c == '\n' || c == ',' || c == '=' }) {
		if name, ok := strings.CutPrefix(w, "--"); ok {
			a.flags[name] = true
		}
	}
	return nil
}

// caseLimit is how long one capture may take.
const caseLimit = 2 * time.Minute

// maxOutput bounds what is read of one run, in bytes.
const maxOutput = 256 << 20

// arguments are those of inspect for a case.
func (a *Agent) arguments(c *Case, pcap string) []string {
	args := append([]string(nil), a.Args...)
	args = append(args, "inspect", "--pcap", pcap, "--eve", "-")
	rules := filepath.Join(c.Dir, "test.rules")
	if _, err := os.Stat(rules); err != nil {
		rules = filepath.Join(c.Dir, "rules")
	}
	if _, err := os.Stat(rules); err == nil {
		args = append(args, "--rules", rules)
	}
	o := &c.Expect.Options
	flag := func(name string, value ...string) {
		if a.flags == nil || a.flags[name] {
			args = append(args, "--"+name)
			args = append(args, value...)
		}
	}
	switch o.Checksum {
	case "none":
		flag("checksums", "none")
	case "yes", "all":
		flag("checksums", "all")
	default:
		flag("checksums", "auto")
	}
	if o.Midstream {
		flag("midstream")
	}
	if o.StreamInline {
		flag("stream-inline")
	}
	if o.Mode == "ips" || c.Expect.Mode == "ips" {
		flag("simulate-ips")
	}
	names := make([]string, 0, len(o.Vars))
	for n := range o.Vars {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		flag("var", n+"="+o.Vars[n])
	}
	if th := filepath.Join(c.Dir, "threshold.config"); exists(th) {
		flag("threshold-file", th)
	}
	return args
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Run runs a case. tmp is where a capture that is written as a script is put.
func (a *Agent) Run(ctx context.Context, c *Case, tmp string) *Result {
	begin := time.Now()
	r := &Result{Suite: c.Suite, Name: c.Name, Tier: c.Expect.Tier, Features: c.Expect.Features}
	defer func() { r.Took = time.Since(begin) }()
	pcap, err := c.capture(tmp)
	if err != nil {
		r.Outcome, r.Error = Failed, err.Error()
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, caseLimit)
	defer cancel()
	records, stderr, err := a.inspect(ctx, a.arguments(c, pcap))
	for _, line := range strings.Split(stderr, "\n") {
		if strings.Contains(line, ".rules:") || strings.Contains(line, "/rules:") {
			r.Refused = append(r.Refused, line)
		}
	}
	if err != nil {
		r.Error = err.Error()
	}
	r.Assertions = c.Expect.Judge(records)
	want := 0
	if c.Expect.Refused != nil {
		want = *c.Expect.Refused
	}
	if c.Suite == "ours" && len(r.Refused) != want {
		r.Assertions = append(r.Assertions, Assertion{Text: fmt.Sprintf("refused rules: want %d, got %d", want, len(r.Refused)), Got: len(r.Refused)})
	}
	if len(r.Assertions) == 0 {
		r.Error = strings.TrimSpace(r.Error + " the case asserts nothing")
	}
	r.Outcome, r.EVEOutcome = r.judge(false), r.judge(true)
	if r.Suite == "suricata-verify-eve" {
		r.Outcome = r.EVEOutcome
	}
	if c.Suite == "ours" && r.EVEOutcome == Failed {
		r.Outcome = Failed
	}
	if r.Error != "" && r.Outcome == "" {
		r.Outcome = Failed
	}
	if r.Outcome == "" {
		r.Outcome = Passed
	}
	return r
}

// judge adds up the assertions about alerts, or those about other records.
func (r *Result) judge(eve bool) Outcome {
	out := Outcome("")
	for _, a := range r.Assertions {
		if a.EVE != eve {
			continue
		}
		if !a.OK {
			if len(r.Refused) > 0 {
				return Unsupported
			}
			return Failed
		}
		out = Passed
	}
	return out
}

// inspect runs the program and reads its records.
func (a *Agent) inspect(ctx context.Context, args []string) (records []map[string]any, stderr string, err error) {
	cmd := exec.CommandContext(ctx, a.Path, args...)
	var out, errs limited
	out.left, errs.left = maxOutput, 1<<20
	cmd.Stdout, cmd.Stderr = &out, &errs
	runErr := cmd.Run()
	sc := bufio.NewScanner(&out.buf)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		dec := json.NewDecoder(bytes.NewReader(sc.Bytes()))
		dec.UseNumber()
		var m map[string]any
		if err := dec.Decode(&m); err != nil {
			return records, errs.buf.String(), fmt.Errorf("read record %d: %w", len(records)+1, err)
		}
		records = append(records, m)
	}
	if err := sc.Err(); err != nil {
		return records, errs.buf.String(), fmt.Errorf("read records: %w", err)
	}
	if runErr != nil {
		return records, errs.buf.String(), fmt.Errorf("run inspector: %w: %s", runErr, lastLine(errs.buf.String()))
	}
	return records, errs.buf.String(), nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	return s
}

// limited keeps the first bytes written to it.
type limited struct {
	buf  bytes.Buffer
	left int
}

var errTooMuch = errors.New("more output than a case may have")

func (l *limited) Write(b []byte) (int, error) {
	if len(b) > l.left {
		return 0, errTooMuch
	}
	l.left -= len(b)
	return l.buf.Write(b)
}

// capture gives the case's capture file; one that is written as a script (input.flow) is made first.
func (c *Case) capture(tmp string) (string, error) {
	for _, name := range []string{"input.pcap", "input.pcapng"} {
		if p := filepath.Join(c.Dir, name); exists(p) {
			return p, nil
		}
	}
	script, err := os.ReadFile(filepath.Join(c.Dir, "input.flow"))
	if err != nil {
		return "", fmt.Errorf("read capture: %w", err)
	}
	b, err := Build(filepath.Join(c.Name, "input.flow"), string(script))
	if err != nil {
		return "", err
	}
	p := filepath.Join(tmp, strings.ReplaceAll(c.Name, string(filepath.Separator), "-")+".pcap")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		return "", fmt.Errorf("write capture: %w", err)
	}
	return p, nil
}
