package web

import (
	"slices"
	"strings"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
)

// triageTabs are the fixed views with what they hold right now, counted on the snapshot without conditions.
func triageTabs(q *request, l list, base *triage.Snapshot, judged int) []page.Tab {
	views := []struct {
		label string
		set   func(*filter.Filter)
		has   func(*triage.Group) bool
	}{
		{q.p.ViewUntriaged(), func(*filter.Filter) {}, func(*triage.Group) bool { return true }},
		{q.p.ViewUrgent(), func(f *filter.Filter) { f.Severities = []int{4, 5} }, func(g *triage.Group) bool { return g.Severity >= 4 }},
		{q.p.ViewPassed(), func(f *filter.Filter) { f.Action = "passed" }, func(g *triage.Group) bool { return g.Passed > 0 }},
		{q.p.ViewBot(), func(f *filter.Filter) { f.Categories = []string{"bot", "malware"} }, func(g *triage.Group) bool { return g.Category == "bot" || g.Category == "malware" }},
		{q.p.ViewPolicy(), func(f *filter.Filter) { f.Categories = []string{"policy"} }, func(g *triage.Group) bool { return g.Category == "policy" }},
	}
	var tabs []page.Tab
	for _, v := range views {
		f := l.filter.Unlimited()
		f.State = ""
		v.set(&f)
		x := f.Values()
		if l.group != "sig" {
			x.Set("group", l.group)
		}
		n := 0
		for _, g := range base.Groups {
			if v.has(g) {
				n++
			}
		}
		u := "/triage"
		if len(x) > 0 {
			u += "?" + x.Encode()
		}
		tabs = append(tabs, page.Tab{URL: u, Label: v.label, Count: q.p.N(int64(n)), Current: f.Key() == l.filter.Key()})
	}
	f := l.filter.Unlimited()
	f.State = "done"
	x := f.Values()
	if l.group != "sig" {
		x.Set("group", l.group)
	}
	return append(tabs, page.Tab{URL: "/triage?" + x.Encode(), Label: q.p.ViewDone(), Count: q.p.N(int64(judged)), Current: f.Key() == l.filter.Key()})
}

// chips are the conditions of f, each with the address of the list without it.
func chips(q *request, s page.Shell, f *frame, fl filter.Filter) []page.Chip {
	var out []page.Chip
	add := func(label, value string, without ...string) {
		pairs := make([]string, 0, 2*len(without))
		for _, k := range without {
			pairs = append(pairs, k, "")
		}
		out = append(out, page.Chip{Label: label, Value: value, Without: s.With(pairs...)})
	}
	if len(fl.Clinics) > 0 {
		add(q.p.ChipClinic(), s.ScopeLabel(), "c")
	}
	if len(fl.Severities) > 0 {
		var w []string
		for _, x := range slices.Backward(fl.Severities) {
			w = append(w, q.p.Severity(x))
		}
		add(q.p.ChipSev(), strings.Join(w, "・"), "sev")
	}
	if len(fl.Categories) > 0 {
		var w []string
		for _, x := range fl.Categories {
			w = append(w, q.p.Category(x))
		}
		add(q.p.ChipCat(), strings.Join(w, "・"), "cat")
	}
	if fl.Action != "" {
		add(q.p.ChipAction(), q.p.Action(fl.Action), "act")
	}
	if fl.State != "" {
		label := q.p.ViewDone()
		if fl.State == "all" {
			label = q.p.ViewEverything()
		}
		add(q.p.ChipState(), label, "state")
	}
	if fl.Rule.Kind != "" {
		add(q.p.ChipRule(), page.SigName(q.p, fl.Rule, ""), "sig")
	}
	if fl.Host.IsValid() {
		add(q.p.ChipHost(), fl.Host.String(), "host")
	}
	if fl.Text != "" {
		add(q.p.ChipText(), fl.Text, "q")
	}
	if !fl.From.IsZero() {
		add(q.p.ChipFrom(), q.p.Minute(fl.From), "from")
	}
	if !fl.To.IsZero() {
		add(q.p.ChipTo(), q.p.Minute(fl.To), "to")
	}
	_ = f
	return out
}

func lastOf(f filter.Filter) string {
	switch {
	case !f.From.IsZero() || !f.To.IsZero():
		return ""
	case f.Period == 0:
		return "24h"
	}
	return f.Values().Get("last")
}

func periodLabel(p msg.P, f filter.Filter) string {
	switch lastOf(f) {
	case "24h":
		return p.Last24()
	case "7d":
		return p.Last7d()
	case "30d":
		return p.Last30d()
	}
	return p.PeriodLabel()
}
