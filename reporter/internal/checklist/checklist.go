// Package checklist reads the Ministry's checklists, one data file a year, and says of each item what the appliance's facts can
// and can't show. Package page prints it. The trap: it never answers for the clinic. A state speaks about 「はい」: facts that go
// with it, facts against it, nothing seen, or nothing that an appliance could see.
package checklist

import (
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Pack is the checklist of one fiscal year.
type Pack struct {
	Edition    string  `yaml:"edition"`
	Name       string  `yaml:"name"`
	FiscalYear int     `yaml:"fiscal_year"` // begins in April
	Text       string  `yaml:"text"`        // official, draft, unconfirmed: how far the wording was compared
	Note       string  `yaml:"note"`
	Groups     []Group `yaml:"groups"`
}

// Group is a heading and its items.
type Group struct {
	Number string `yaml:"number"`
	Title  string `yaml:"title"`
	Items  []Item `yaml:"items"`
}

// Item is a line of the form.
type Item struct {
	No       string   `yaml:"no"`
	Key      string   `yaml:"key"`
	Title    string   `yaml:"title"`
	Forms    []string `yaml:"forms"`
	Text     string   `yaml:"text"`
	Target   string   `yaml:"target"`
	Required *bool    `yaml:"required"` // nil: the year makes no difference
}

// Keys are the items' stable names, known to Look.
var Keys = []string{
	"SYS-0", "ORG-1", "INV-1", "RMT-1", "DIS-1", "ACC-1", "ACC-2", "PAT-1", "PAT-2", "PWD-1", "PWD-2", "USB-1", "MFA-1", "LOG-1", "SVC-1",
	"NET-1", "INC-1", "BAK-1", "BCP-1", "REG-1",
}

// Load reads all packs, oldest first. A file that names an unknown key, or an item twice in a group, is an error.
func Load(files fs.FS) ([]Pack, error) {
	names, err := fs.Glob(files, "checklist/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("read checklists: %w", err)
	}
	var packs []Pack
	for _, name := range names {
		raw, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read checklists: %w", err)
		}
		var p Pack
		if err := yaml.UnmarshalWithOptions(raw, &p, yaml.Strict()); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if p.Edition+".yaml" != path.Base(name) {
			return nil, fmt.Errorf("read %s: edition %q is not the file's name", name, p.Edition)
		}
		packs = append(packs, p)
	}
	slices.SortFunc(packs, func(a, b Pack) int { return a.FiscalYear - b.FiscalYear })
	return packs, nil
}

func (p *Pack) validate() error {
	texts := []string{"official", "draft", "unconfirmed"}
	if p.Name == "" || p.FiscalYear < 2020 || len(p.Groups) == 0 || !slices.Contains(texts, p.Text) {
		return fmt.Errorf("needs name, fiscal_year, groups and text (one of %v)", texts)
	}
	for _, g := range p.Groups {
		seen := map[string]bool{}
		for _, i := range g.Items {
			switch {
			case i.No == "" || i.Title == "" || seen[i.No]:
				return fmt.Errorf("group %s %s: item %q has no title or is there twice", g.Number, g.Title, i.No)
			case !slices.Contains(Keys, i.Key):
				return fmt.Errorf("item %s: unknown key %q", i.No, i.Key)
			case !slices.Contains(texts, i.Text):
				return fmt.Errorf("item %s: text %q is none of %v", i.No, i.Text, texts)
			}
			seen[i.No] = true
		}
	}
	return nil
}

// For is the pack of the fiscal year (April to March) that the month lies in, else the newest before it; exact tells which.
func For(packs []Pack, m month.Month) (p Pack, exact bool, err error) {
	year := m.Year()
	if m.Number() < 4 {
		year--
	}
	for i := len(packs) - 1; i >= 0; i-- {
		if packs[i].FiscalYear <= year {
			return packs[i], packs[i].FiscalYear == year, nil
		}
	}
	return Pack{}, false, fmt.Errorf("choose checklist: none for %s or before", m)
}

// States of evidence.
const (
	Supported    = "ok"   // 裏付けあり
	Contradicted = "act"  // 矛盾あり
	Unseen       = "none" // 観測なし: no observation, which is not the same as no problem
	Outside      = "na"   // 対象外: an appliance can't see it
)

// Finding is what the facts say about an item: a state, the key of a sentence, and what fills it.
type Finding struct {
	State    string
	Sentence string
	Pairs    []string
	Ev       string
}

// Look judges one item. Without coverage nothing is supported or contradicted.
func Look(key string, f *month.Facts) Finding {
	n := func(v int64) string { return fmt.Sprint(v) }
	blind := !f.Coverage.Known || f.Coverage.Uptime.N < month.HoldBelow
	none := Finding{State: Unseen, Sentence: "blind", Ev: f.Coverage.Uptime.Ev}
	switch key {
	case "ORG-1", "DIS-1", "INC-1", "REG-1":
		return Finding{State: Outside, Sentence: "papers"}
	case "BCP-1":
		return Finding{State: Outside, Sentence: "bcp"}
	case "USB-1":
		return Finding{State: Outside, Sentence: "usb"}
	case "PWD-2":
		return Finding{State: Outside, Sentence: "own_keys"}
	case "PWD-1", "MFA-1", "ACC-1", "ACC-2":
		return Finding{State: Outside, Sentence: "cannot"}
	case "SVC-1", "BAK-1":
		return Finding{State: Unseen, Sentence: "not_yet"}
	}
	if blind {
		return none
	}
	switch key {
	case "SYS-0":
		return Finding{State: Unseen, Sentence: "system"}
	case "INV-1":
		l := &f.Ledger
		pairs := []string{"n", n(l.Observed.N), "registered", n(l.Registered.N), "rest", n(l.Observed.N - l.Registered.N)}
		switch {
		case l.Observed.N == 0:
			return Finding{Unseen, "no_device", nil, l.Observed.Ev}
		case l.Registered.N == 0:
			return Finding{Unseen, "ledger_unused", pairs, l.Observed.Ev}
		case l.Registered.N < l.Observed.N:
			return Finding{Contradicted, "ledger_gap", pairs, l.Registered.Ev}
		}
		return Finding{Supported, "ledger_full", pairs, l.Registered.Ev}
	case "RMT-1":
		if len(f.Outside.Remote) == 0 {
			return Finding{Unseen, "no_remote", nil, f.Traffic.Total.Ev}
		}
		return Finding{Unseen, "remote", []string{"n", n(int64(len(f.Outside.Remote)))}, f.Outside.Remote[0].Bytes.Ev}
	case "PAT-1", "PAT-2":
		l := &f.Ledger
		if l.Updating.N == 0 {
			return Finding{Unseen, "no_update", nil, l.Updating.Ev}
		}
		return Finding{Unseen, "update", []string{"n", n(l.Updating.N), "all", n(l.Observed.N)}, l.Updating.Ev}
	case "LOG-1":
		days, all := 0, 0
		for _, d := range f.Coverage.Hours {
			watched, told := false, false
			for _, h := range d {
				watched = watched || h == 'o'
				told = told || h != '-'
			}
			if told {
				all++
			}
			if watched {
				days++
			}
		}
		lost := f.Coverage.LostDeclared.N + f.Coverage.LostSilent.N
		pairs := []string{"days", n(int64(days)), "all", n(int64(all)), "lost", n(lost)}
		if days == all && lost == 0 {
			return Finding{Supported, "log", pairs, f.Coverage.Received.Ev}
		}
		return Finding{Unseen, "log_gap", pairs, f.Coverage.LostSilent.Ev}
	case "NET-1":
		o := &f.Outside
		pairs := []string{"n", n(o.Crossed.N), "blocked", n(o.Stopped.N), "passed", n(o.Passed.N)}
		switch {
		case o.Passed.N > 0:
			return Finding{Contradicted, "crossed", pairs, o.Crossed.Ev}
		case o.Crossed.N > 0:
			return Finding{Supported, "crossed_blocked", pairs, o.Crossed.Ev}
		}
		return Finding{Unseen, "not_crossed", nil, o.Crossed.Ev}
	}
	return Finding{State: Outside, Sentence: "cannot"}
}
