package page

import (
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// Enrolment is the table of boxes on their way in.
type Enrolment struct {
	List               []store.Entry
	Waiting            int
	Problem            string
	CanClaim, CanAdmit bool   // the program can do it at all
	NoClaim, NoAdmit   string // why this operator may not
}

// WhyNot says why this operator may not approve e: the role, or because they issued the claim themselves.
func (v Enrolment) WhyNot(s Shell, e *store.Entry) string {
	if v.NoAdmit != "" {
		return v.NoAdmit
	}
	if e.By == s.Who.Name {
		return s.NeedsOther()
	}
	return ""
}

func stepKind(step string) string {
	switch step {
	case "service":
		return "ok"
	case "pending", "admitted", "policy":
		return "warn"
	case "expired":
		return "bad"
	}
	return "idle"
}

func boxURL(id int32, act string) templ.SafeURL {
	return templ.SafeURL("/enrolment/" + itoa(id) + "/" + act)
}

// Policy lists plans and overrides.
type Policy struct {
	Plans     []store.Plan
	Overrides []store.Override
}

// ClinicPolicy is one clinic's effective policy.
type ClinicPolicy struct {
	Clinic     int32
	Name, Code string
	Sections   []Section
	Problem    string
}

// Section is a part of a policy.
type Section struct {
	Key      string
	Settings []policy.Setting
}

// sectionOrder puts what people look for first.
var sectionOrder = []string{"zones", "lists", "detectors", "rules", "never_block", "home_net", "uplink", "intervals"}

// SectionsOf cuts settings by the first word of their paths.
func SectionsOf(s policy.Settings) []Section {
	by := map[string]*Section{}
	var keys []string
	for _, x := range s {
		key, _, _ := strings.Cut(x.Path, ".")
		if by[key] == nil {
			by[key] = &Section{Key: key}
			keys = append(keys, key)
		}
		by[key].Settings = append(by[key].Settings, x)
	}
	place := func(k string) int {
		if i := slices.Index(sectionOrder, k); i >= 0 {
			return i
		}
		return len(sectionOrder)
	}
	slices.SortStableFunc(keys, func(a, b string) int { return place(a) - place(b) })
	out := make([]Section, 0, len(keys))
	for _, k := range keys {
		out = append(out, *by[k])
	}
	return out
}

// Rollouts is the list.
type Rollouts struct {
	List            []*rollout.Rollout
	Running, Halted int
}

// Rollout is one rollout's page.
type Rollout struct {
	R       *rollout.Rollout
	Names   map[int32]string
	Problem string
	CanAct  bool
	NoAct   string
	NoBack  string // why this operator may not roll back all
}

// RingView is one ring with its appliances counted.
type RingView struct {
	Name         string
	All, OK, Bad int
	Targets      []rollout.Target
}

// Rings are the rings with their targets.
func (v Rollout) Rings() []RingView {
	out := make([]RingView, len(v.R.Spec.Rings))
	for i, r := range v.R.Spec.Rings {
		out[i].Name = r.Name
	}
	for _, t := range v.R.Targets {
		if t.Ring < 0 || t.Ring >= len(out) {
			continue
		}
		r := &out[t.Ring]
		r.All++
		r.Targets = append(r.Targets, t)
		switch t.State {
		case "ok":
			r.OK++
		case "failed", "reverted":
			r.Bad++
		}
	}
	return out
}

// Kind and Word are the state of ring i.
func (r RingView) Kind(ro *rollout.Rollout, i int) string {
	switch {
	case ro.State == rollout.Done || i < ro.Ring:
		return "ok"
	case i == ro.Ring && ro.State == rollout.Halted:
		return "bad"
	case i == ro.Ring && ro.State == rollout.Running:
		return "warn"
	}
	return "idle"
}

// Word is the state of ring i as a word.
func (r RingView) Word(s Shell, ro *rollout.Rollout, i int) string {
	switch r.Kind(ro, i) {
	case "ok":
		return s.RingDone()
	case "bad":
		return s.RolloutState(rollout.Halted)
	case "warn":
		return s.RingNow()
	}
	return s.RingWait()
}

// Cells draws one square per appliance, each a link with its state in words.
func (r RingView) Cells(s Shell) string {
	const row = 18
	n := min(len(r.Targets), 180)
	lines := max(1, (n+row-1)/row)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="cells" viewBox="0 0 264 %d" role="img" aria-label="%s">`, max(40, lines*15), html.EscapeString(s.RingApplied(r.OK, r.All)))
	for i, t := range r.Targets[:n] {
		x, y := 1+float64(i%row)*14.5, 1+(i/row)*15
		class := "w"
		switch t.State {
		case "ok":
			class = "d"
		case "failed", "reverted":
			class = "x"
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%.1f" y="%d" width="11" height="11" rx="2.5"><title>%s</title></rect>`, class, x, y, html.EscapeString(s.TargetState(t.State)))
		if class == "x" {
			fmt.Fprintf(&b, `<path class="xm" d="M%.1f %dl5 5m0-5l-5 5"/>`, x+3, y+3)
		}
	}
	b.WriteString(`</svg>`)
	return b.String()
}

// Shown are at most 200 targets, those with a problem first.
func (v Rollout) Shown() []rollout.Target {
	var bad, rest []rollout.Target
	for _, t := range v.R.Targets {
		if t.State == "failed" || t.State == "reverted" {
			bad = append(bad, t)
		} else {
			rest = append(rest, t)
		}
	}
	all := append(bad, rest...)
	return all[:min(len(all), 200)]
}

// ClinicName is a clinic's name.
func (v Rollout) ClinicName(id int32) string {
	if n, ok := v.Names[id]; ok {
		return hostile(n)
	}
	return itoa(id)
}

// Acts are what can be done in its state.
func (v Rollout) Acts() []string {
	switch v.R.State {
	case rollout.Draft:
		return []string{rollout.Start, rollout.Abort}
	case rollout.Running:
		return []string{rollout.Pause, rollout.Rollback}
	case rollout.Paused, rollout.Halted:
		return []string{rollout.Resume, rollout.Abort, rollout.Rollback}
	case rollout.Done, rollout.Aborted:
		return []string{rollout.Rollback}
	}
	return nil
}

// WhyNot says why this operator may not do a.
func (v Rollout) WhyNot(a string) string {
	if a == rollout.Rollback {
		return v.NoBack
	}
	return v.NoAct
}

func rolloutKind(state string) string {
	switch state {
	case rollout.Done:
		return "ok"
	case rollout.Halted:
		return "bad"
	case rollout.Running, rollout.Paused, rollout.RollingBack:
		return "warn"
	}
	return "idle"
}

func targetKind(state string) string {
	switch state {
	case "ok":
		return "ok"
	case "failed", "reverted":
		return "bad"
	case "applied":
		return "warn"
	}
	return "idle"
}

func rolloutURL(id int64) templ.SafeURL { return templ.SafeURL("/rollouts/" + itoa(id)) }
