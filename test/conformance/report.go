package conformance

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"text/tabwriter"
)

// Known are the failing cases that KNOWN.md names, with their reasons.
type Known map[string]string

// ReadKnown reads the table of a KNOWN.md: lines "| suite/case | reason |". A missing file knows nothing.
func ReadKnown(path string) (Known, error) {
	k := Known{}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read known failures: %w", err)
	}
	defer func() { _ = f.Close() }()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		cells := strings.Split(sc.Text(), "|")
		if len(cells) < 4 {
			continue
		}
		name, reason := strings.Trim(strings.TrimSpace(cells[1]), "`"), strings.TrimSpace(cells[2])
		if !strings.Contains(name, "/") || reason == "" {
			continue
		}
		k[name] = reason
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read known failures: %w", err)
	}
	return k, nil
}

// tally counts results.
type tally struct {
	passed, failed, unsupported  int
	posOK, posAll, negOK, negAll int
}

func (t *tally) add(o Outcome) {
	switch o {
	case Passed:
		t.passed++
	case Unsupported:
		t.unsupported++
	case Failed:
		t.failed++
	}
}

func (t *tally) total() int { return t.passed + t.failed + t.unsupported }

func (t *tally) percent() float64 {
	if t.total() == 0 {
		return 0
	}
	return 100 * float64(t.passed) / float64(t.total())
}

// Report is what a run of all cases came to.
type Report struct {
	Results []*Result
	Known   Known
}

// Suites are the suites in the report, ours first.
func (r *Report) suites() []string {
	seen := map[string]bool{}
	var out []string
	for _, x := range r.Results {
		if !seen[x.Suite] {
			seen[x.Suite] = true
			out = append(out, x.Suite)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i] == "ours" && out[j] != "ours" })
	return out
}

// Surprises are failing cases that are not known, and known ones that pass.
func (r *Report) Surprises() (failing, passing []string) {
	for _, x := range r.Results {
		name := x.Suite + "/" + x.Name
		_, known := r.Known[name]
		switch {
		case x.Outcome != Passed && !known:
			failing = append(failing, name)
		case x.Outcome == Passed && known:
			passing = append(passing, name)
		}
	}
	return failing, passing
}

// Print writes the tables.
func (r *Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	tell(w, "suite\tcases\tpassed\tfailed\tunsupported\tpassed %\tmust fire\tmust not\t")
	for _, s := range r.suites() {
		for _, tier := range []string{"", "core", "extended"} {
			var t tally
			for _, x := range r.Results {
				if x.Suite != s || tier != "" && x.Tier != tier {
					continue
				}
				t.add(x.Outcome)
				for _, a := range x.Assertions {
					if a.EVE && s == "suricata-verify" {
						continue
					}
					if a.Positive {
						t.posAll++
						if a.OK {
							t.posOK++
						}
					} else {
						t.negAll++
						if a.OK {
							t.negOK++
						}
					}
				}
			}
			if t.total() == 0 {
				continue
			}
			name := s
			if tier != "" {
				name += " " + tier
			}
			tellf(w, "%s\t%d\t%d\t%d\t%d\t%.1f\t%d/%d\t%d/%d\t\n", name, t.total(), t.passed, t.failed, t.unsupported, t.percent(), t.posOK, t.posAll, t.negOK, t.negAll)
		}
		var eve tally
		for _, x := range r.Results {
			if x.Suite == s && s == "suricata-verify" && x.EVEOutcome != "" {
				eve.add(x.EVEOutcome)
			}
		}
		if eve.total() > 0 {
			tellf(w, "%s, other records\t%d\t%d\t%d\t%d\t%.1f\t\t\t\n", s, eve.total(), eve.passed, eve.failed, eve.unsupported, eve.percent())
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return r.printFeatures(out)
}

func (r *Report) printFeatures(out io.Writer) error {
	by := map[string]*tally{}
	for _, x := range r.Results {
		for _, f := range x.Features {
			if by[f] == nil {
				by[f] = &tally{}
			}
			by[f].add(x.Outcome)
		}
	}
	if len(by) == 0 {
		return nil
	}
	names := make([]string, 0, len(by))
	for f := range by {
		names = append(names, f)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := by[names[i]], by[names[j]]
		if x, y := a.failed+a.unsupported, b.failed+b.unsupported; x != y {
			return x > y
		}
		if a.total() != b.total() {
			return a.total() > b.total()
		}
		return names[i] < names[j]
	})
	tell(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	tell(w, "feature\tpassed\tfailed\tunsupported")
	for _, f := range names {
		t := by[f]
		tellf(w, "%s\t%d\t%d\t%d\n", f, t.passed, t.failed, t.unsupported)
	}
	return w.Flush()
}

// PrintFailures names each failing case with what failed.
func (r *Report) PrintFailures(out io.Writer) {
	for _, x := range r.Results {
		eveOnly := x.Outcome == Passed && x.EVEOutcome != "" && x.EVEOutcome != Passed
		if x.Outcome == Passed && !eveOnly {
			continue
		}
		kind := string(x.Outcome)
		if eveOnly {
			kind = "other records"
		}
		tellf(out, "%s/%s (%s, %s)\n", x.Suite, x.Name, x.Tier, kind)
		if x.Error != "" {
			tellf(out, "    error: %s\n", x.Error)
		}
		for _, l := range x.Refused {
			tellf(out, "    refused: %s\n", l)
		}
		for _, a := range x.Assertions {
			if !a.OK {
				tellf(out, "    %s\n", a.Text)
			}
		}
	}
}

// tell and tellf write to a table or a buffered file; an error shows at its Flush or Close.
func tell(w io.Writer, a ...any) { _, _ = fmt.Fprintln(w, a...) }

func tellf(w io.Writer, format string, a ...any) { _, _ = fmt.Fprintf(w, format, a...) }
