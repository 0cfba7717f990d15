// Command kadomori-conformance runs the conformance cases against the inspector and prints a table by feature: our own
// cases, and those of a folder with third-party captures where it is there. `make conformance` calls it. The trap: it starts
// itself again as the inspector, one process a case, so that a case that crashes or hangs costs only itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"

	"github.com/kadomori/kadomori/dataplane/app"
	"github.com/kadomori/kadomori/test/conformance"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		os.Exit(app.Main(os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

type config struct {
	cases, corpus, only, jsonFile, known, failures, agent string
	jobs                                                  int
	strict, attacks                                       bool
}

func run(args []string, stdout, stderr io.Writer) int {
	var c config
	f := flag.NewFlagSet("kadomori-conformance", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.cases, "cases", "test/conformance", "folder of our own cases")
	f.StringVar(&c.corpus, "corpus", "", "folder of third-party cases (suricata-verify, suricata-verify-eve, attacks); none when empty")
	f.StringVar(&c.only, "only", "", "regular expression: only cases whose suite/name matches")
	f.StringVar(&c.jsonFile, "json", "", "file for all results as JSON")
	f.StringVar(&c.known, "known", "test/conformance/KNOWN.md", "failing cases with their reasons")
	f.StringVar(&c.failures, "failures", "", "file for the failing cases with what failed; - prints them")
	f.StringVar(&c.agent, "agent", "", "kadomori-agent to test; this program's own when empty")
	f.IntVar(&c.jobs, "jobs", runtime.GOMAXPROCS(0), "cases at a time")
	f.BoolVar(&c.strict, "strict", true, "fail when a case fails that the list of known failures doesn't name")
	f.BoolVar(&c.attacks, "attacks", true, "run the corpus's rule set on its captures of attacks and of benign traffic too (minutes)")
	if err := f.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := c.run(ctx, stdout); err != nil {
		sayf(stderr, "kadomori-conformance: %v\n", err)
		return 1
	}
	return 0
}

func (c *config) run(ctx context.Context, out io.Writer) error {
	agent := conformance.Agent{Path: c.agent}
	if c.agent == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		agent.Path, agent.Args = self, []string{"agent"}
	}
	if err := agent.Probe(ctx); err != nil {
		return err
	}
	cases, err := conformance.Find("ours", c.cases)
	if err != nil {
		return err
	}
	if c.corpus != "" {
		for _, suite := range []string{"suricata-verify", "suricata-verify-eve"} {
			dir := filepath.Join(c.corpus, suite)
			if _, err := os.Stat(dir); err != nil {
				continue
			}
			more, err := conformance.Find(suite, dir)
			if err != nil {
				return err
			}
			cases = append(cases, more...)
		}
	}
	if c.only != "" {
		re, err := regexp.Compile(c.only)
		if err != nil {
			return fmt.Errorf("read --only: %w", err)
		}
		kept := cases[:0]
		for _, x := range cases {
			if re.MatchString(x.Suite + "/" + x.Name) {
				kept = append(kept, x)
			}
		}
		cases = kept
	}
	known, err := conformance.ReadKnown(c.known)
	if err != nil {
		return err
	}
	rep := &conformance.Report{Results: c.all(ctx, &agent, cases), Known: known}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = c.tell(rep, out)
	if c.corpus != "" && c.attacks {
		err = errors.Join(err, c.captures(ctx, &agent, out))
	}
	return err
}

// captures runs the full rule set on the folder's captures of attacks and of benign traffic.
func (c *config) captures(ctx context.Context, agent *conformance.Agent, out io.Writer) error {
	found, err := conformance.FindCaptures(filepath.Join(c.corpus, "attacks"))
	if err != nil || len(found) == 0 {
		return err
	}
	tmp, err := os.MkdirTemp("", "conformance-*")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	rules, err := conformance.UnpackRules(filepath.Join(c.corpus, "rules"), tmp)
	if err != nil {
		return err
	}
	class := filepath.Join(c.corpus, "rules", "classification.config")
	if _, err := os.Stat(class); err != nil {
		class = ""
	}
	agent.RunCaptures(ctx, found, rules, class, filepath.Join(tmp, "cache"), c.jobs)
	if err := ctx.Err(); err != nil {
		return err
	}
	say(out)
	return conformance.PrintCaptures(out, found)
}

// all runs the cases, some at a time, and keeps their order.
func (c *config) all(ctx context.Context, agent *conformance.Agent, cases []*conformance.Case) []*conformance.Result {
	tmp, err := os.MkdirTemp("", "conformance-*")
	if err != nil {
		tmp = "."
	} else {
		defer func() { _ = os.RemoveAll(tmp) }()
	}
	results := make([]*conformance.Result, len(cases))
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(c.jobs, 1))
	for i, x := range cases {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i] = agent.Run(ctx, x, tmp)
		})
	}
	wg.Wait()
	return results
}

func (c *config) tell(rep *conformance.Report, out io.Writer) error {
	if err := rep.Print(out); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	switch c.failures {
	case "":
	case "-":
		say(out)
		rep.PrintFailures(out)
	default:
		f, err := os.Create(c.failures)
		if err != nil {
			return fmt.Errorf("write failures: %w", err)
		}
		rep.PrintFailures(f)
		if err := f.Close(); err != nil {
			return fmt.Errorf("write failures: %w", err)
		}
	}
	if c.jsonFile != "" {
		b, err := json.MarshalIndent(rep.Results, "", " ")
		if err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(c.jsonFile), 0o750); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		if err := os.WriteFile(c.jsonFile, b, 0o600); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	failing, passing := rep.Surprises()
	if len(passing) > 0 && c.only == "" {
		sayf(out, "\n%d cases of %s pass now; take them off the list:\n", len(passing), c.known)
		for _, n := range passing {
			say(out, "  "+n)
		}
	}
	if len(failing) > 0 {
		sayf(out, "\n%d cases fail that %s does not name:\n", len(failing), c.known)
		for _, n := range failing {
			say(out, "  "+n)
		}
		if c.strict {
			return errors.New("cases fail that are not known to")
		}
	}
	return nil
}

// say and sayf write to the terminal; there is nobody to tell when that fails.
func say(w io.Writer, a ...any) { _, _ = fmt.Fprintln(w, a...) }

func sayf(w io.Writer, format string, a ...any) { _, _ = fmt.Fprintf(w, format, a...) }
