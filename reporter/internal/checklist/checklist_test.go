package checklist_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/kadomori/kadomori/reporter/data"
	"github.com/kadomori/kadomori/reporter/internal/checklist"
	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

func load(t *testing.T) []checklist.Pack {
	t.Helper()
	packs, err := checklist.Load(data.Files)
	if err != nil {
		t.Fatal(err)
	}
	return packs
}

// TestPacksHaveTheKnownNumberOfItems: 1 + 14 + 3 for 令和5 and 6 besides the item about having a system at all, 18 for 令和7.
func TestPacksHaveTheKnownNumberOfItems(t *testing.T) {
	want := map[string]int{"r5": 19, "r6": 19, "r7": 18}
	required := map[string]int{"r5": 11, "r6": 19}
	for _, p := range load(t) {
		n, must := 0, 0
		for _, g := range p.Groups {
			n += len(g.Items)
			for _, i := range g.Items {
				if i.Required != nil && *i.Required {
					must++
				}
			}
		}
		if n != want[p.Edition] || must != required[p.Edition] {
			t.Errorf("%s has %d items, %d required; want %d, %d", p.Edition, n, must, want[p.Edition], required[p.Edition])
		}
		delete(want, p.Edition)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestForChoosesByFiscalYear(t *testing.T) {
	packs := load(t)
	for text, want := range map[string]string{"2024-03": "r5 true", "2024-04": "r6 true", "2025-12": "r7 true", "2026-03": "r7 true", "2026-04": "r7 false"} {
		m, err := month.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		p, exact, err := checklist.For(packs, m)
		got := p.Edition + " false"
		if exact {
			got = p.Edition + " true"
		}
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	m, err := month.Parse("2022-01")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := checklist.For(packs, m); err == nil {
		t.Error("2022 has a pack")
	}
}

// TestLookNeverClaimsWithoutCoverage walks all keys over all cases.
func TestLookNeverClaimsWithoutCoverage(t *testing.T) {
	w, err := wording.Load(data.Files)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range monthtest.Names {
		f := monthtest.Named(t, name).Facts(t)
		blind := !f.Coverage.Known || f.Coverage.Uptime.N < month.HoldBelow
		for _, key := range checklist.Keys {
			got := checklist.Look(key, f)
			text, err := w.Say("checklist.obs."+got.Sentence, got.Pairs...)
			if err != nil || text == "" {
				t.Errorf("%s %s: %v", name, key, err)
			}
			if blind && (got.State == checklist.Supported || got.State == checklist.Contradicted) {
				t.Errorf("%s %s: %s without coverage", name, key, got.State)
			}
		}
	}
}

func TestLook(t *testing.T) {
	f := monthtest.Infected(t).Facts(t)
	for key, want := range map[string]string{
		"INV-1": "act ledger_gap", "NET-1": "ok crossed_blocked", "LOG-1": "ok log", "RMT-1": "none remote", "PAT-1": "none update", "USB-1": "na usb", "REG-1": "na papers",
	} {
		if got := checklist.Look(key, f); got.State+" "+got.Sentence != want {
			t.Errorf("%s: %s %s, want %s", key, got.State, got.Sentence, want)
		}
	}
}

func TestLoadRefusesBrokenPacks(t *testing.T) {
	const good = `{edition: x, name: n, fiscal_year: 2025, text: draft, note: "", groups: [{number: "1", title: t, items: [{no: "1", key: ORG-1, title: t, forms: [clinic], text: draft}]}]}`
	for change, to := range map[string]string{"key: ORG-1": "key: ORG-9", "text: draft, note": "text: sure, note", "edition: x": "edition: y", "fiscal_year": "year", `no: "1"`: `no: ""`} {
		fs := fstest.MapFS{"checklist/x.yaml": &fstest.MapFile{Data: []byte(strings.Replace(good, change, to, 1))}}
		if _, err := checklist.Load(fs); err == nil || !strings.Contains(err.Error(), "x.yaml") {
			t.Errorf("%s → %s: %v", change, to, err)
		}
	}
	if _, err := checklist.Load(fstest.MapFS{"checklist/x.yaml": &fstest.MapFile{Data: []byte(good)}}); err != nil {
		t.Error(err)
	}
}
