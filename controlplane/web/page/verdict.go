package page

import (
	"strings"

	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// VerdictOrder are the verdicts in the order of their keys.
var VerdictOrder = []string{triage.Threat, triage.FalseAlarm, triage.Expected, triage.NoNotice}

// Verdict is the dialog.
type Verdict struct {
	Order            triage.Order
	Effect           *triage.Effect
	Common           triage.Common
	Names            []string // of the signatures
	Hidden           []Hidden // filter and targets
	Seen, Back       string
	Chart            string
	Problem          string
	Forbidden        string // why this operator may not
	MinDate, MaxDate string
}

// Lead says what is judged.
func (v Verdict) Lead(s Shell) string {
	name := s.VerdictSeveral(len(v.Names))
	if len(v.Names) == 1 {
		name = v.Names[0]
	}
	return s.VerdictLead(name, v.Effect.Alerts, v.Effect.Clinics)
}

// Suppresses reports whether the chosen verdict hides future alerts.
func (v Verdict) Suppresses() bool {
	return v.Order.Verdict == triage.Expected || v.Order.Verdict == triage.NoNotice
}

// EffectClinics is how many clinics a suppression would reach.
func (v Verdict) EffectClinics() int {
	if v.Order.Fleet {
		return v.Effect.AllClinics
	}
	return v.Effect.Clinics
}

// ByDate reports whether the expiry is none of the offered ones.
func (v Verdict) ByDate() bool { return v.Order.Days != 7 && v.Order.Days != 30 && v.Order.Days != 90 }

// UntilText is the expiry for the date field.
func (v Verdict) UntilText() string {
	if v.Effect == nil || v.Effect.Expires.IsZero() {
		return ""
	}
	return v.Effect.Expires.In(msg.JST).Format("2006-01-02")
}

// Suppressions is the list.
type Suppressions struct {
	List         []triage.Decision
	Active, Soon int
	Tabs         []Tab
}

// DecisionView is one verdict's page.
type DecisionView struct {
	D                triage.Decision
	Problem          string
	NoAct, NoApprove string // why this operator may not; empty when they may
}

// Open reports whether something can still be done with it.
func (v DecisionView) Open() bool { return v.D.State == "active" || v.D.State == "pending" }

// DecisionName is what a decision is about.
func DecisionName(s Shell, d *triage.Decision) string {
	if len(d.Signatures) == 0 {
		return "—"
	}
	name := SigName(s.P, d.Signatures[0], d.Title)
	if len(d.Signatures) > 1 {
		name += " +" + itoa(len(d.Signatures)-1)
	}
	return name
}

func joinNames(names []string) string { return strings.Join(names, "、") }

func actURL(id int64, act string) templ.SafeURL {
	return templ.SafeURL("/suppressions/" + itoa(id) + "/" + act)
}

func caseURL(id int64) templ.SafeURL { return templ.SafeURL("/cases/" + itoa(id)) }

// Cases is the list.
type Cases struct {
	List []triage.Case
	Open int
}

// Case is one case's page.
type Case struct {
	C       triage.Case
	Scope   []triage.CaseClinic
	Entries []triage.CaseEntry
	Problem string
	NoAct   string
}

// CaseTitle is a case's title, in the reader's language when the catalogue knows it.
func CaseTitle(s Shell, title string) string {
	if k, ok := s.Detector(title); ok {
		return k.Name
	}
	return hostile(title)
}

// Steps are the statuses it can go to without a resolution.
func (v Case) Steps() []string {
	var out []string
	for _, st := range triage.Statuses[v.C.Status] {
		if st != "closed" {
			out = append(out, st)
		}
	}
	return out
}

// CanClose reports whether it may be closed now.
func (v Case) CanClose() bool { return v.C.Status != "closed" }

// Line says what an entry is, in the reader's words.
func (v Case) Line(s Shell, e triage.CaseEntry) string {
	switch e.Kind {
	case "opened":
		return s.CaseOpenedBy()
	case "status":
		st, res, _ := strings.Cut(e.Body, ":")
		if res != "" {
			return s.CaseStatusTo(s.CaseStatus(st) + "・" + s.CaseResolution(res))
		}
		return s.CaseStatusTo(s.CaseStatus(st))
	case "owner":
		return s.CaseOwnerTo(e.Body)
	}
	return ""
}

// Body is an entry's own text.
func (v Case) Body(e triage.CaseEntry) string {
	if e.Kind == "note" || e.Kind == "opened" {
		return e.Body
	}
	return ""
}

// Audit is the audit log's page.
type Audit struct {
	List   []store.AuditRow
	Rows   int64
	Broken string
	Tabs   []Tab
	Next   string
	Q      string
}

// PrecedentText is the last verdict of a signature and how often it was given.
func (v Triage) PrecedentText(s Shell, sig filter.Signature) (string, string) {
	p, ok := v.Precedents[sig]
	if !ok {
		return "", ""
	}
	return s.VerdictName(p.Verdict), "×" + itoa(p.Times)
}
