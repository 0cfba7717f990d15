package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
	"github.com/kadomori/kadomori/controlplane/web/chart"
	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// may reports whether a role is among those; otherwise why not, in the operator's words.
func (q *request) may(roles ...string) string {
	if slices.Contains(roles, q.op.Role) {
		return ""
	}
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = q.p.Role(r)
	}
	return q.p.NeedsRole(strings.Join(names, "・"))
}

// Who may do what, console design 1.3. An administrator judges nothing: duties stay apart.
var (
	mayJudge   = []string{"analyst", "lead"}
	mayApprove = []string{"lead", "approver"}
	mayAudit   = []string{"auditor", "admin", "lead", "approver"}
)

// fragment reports whether our script asks for a piece of a page.
func (q *request) fragment() bool { return q.Header.Get("X-Fragment") != "" }

// order reads a verdict from the dialog's fields. Only days and reason may be wrong here; Decide says so.
func (q *request) order() (triage.Order, error) {
	f, err := filter.Parse(q.Form)
	if err != nil {
		return triage.Order{}, badFilter(q, err)
	}
	o := triage.Order{Filter: f, Verdict: q.FormValue("v"), Reason: q.FormValue("why"), Fleet: q.FormValue("fleet") != "", Author: q.op.Name, Now: q.now}
	if o.SeenUpTo, err = parseAsOf(q.FormValue("seen")); err != nil {
		return o, httpError{status: http.StatusBadRequest, title: q.p.Error(), text: q.p.NotFound()}
	}
	if o.SeenUpTo.After(q.now) {
		o.SeenUpTo = q.now
	}
	for _, k := range q.Form["k"] {
		t, err := triage.ParseTarget(k)
		if err != nil {
			return o, badFilter(q, &filter.Error{Name: "k", Value: k, Reason: err.Error()})
		}
		o.Targets = append(o.Targets, t)
	}
	switch days := q.FormValue("days"); days {
	case "date":
		if t, err := time.ParseInLocation("2006-01-02", q.FormValue("until"), msg.JST); err == nil {
			o.Days = int((t.AddDate(0, 0, 1).Sub(q.now) + 23*time.Hour) / (24 * time.Hour))
		}
	default:
		o.Days, _ = strconv.Atoi(days)
	}
	if d := q.FormValue("device"); macForm(d) {
		o.Device = d
	}
	if a, err := netip.ParseAddr(q.FormValue("dst")); err == nil {
		o.Dst = a.Unmap()
	}
	o.DstPort, _ = strconv.Atoi(q.FormValue("port"))
	return o, nil
}

func macForm(s string) bool {
	if len(s) != 17 {
		return false
	}
	for i, c := range []byte(s) {
		if i%3 == 2 && c != ':' || i%3 != 2 && !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return false
		}
	}
	return true
}

// verdictView prepares the dialog, or only its effect.
func (c *Console) verdictView(q *request, tx pgx.Tx, o triage.Order) (page.Verdict, error) {
	if o.Verdict == "" {
		o.Verdict = triage.Expected
	}
	if o.Days < 1 || o.Days > triage.MaxDays {
		o.Days = 30
	}
	v := page.Verdict{
		Order: o, Seen: q.FormValue("seen"), Back: local(q.FormValue("back")), Forbidden: q.may(mayJudge...),
		MinDate: q.now.In(msg.JST).AddDate(0, 0, 1).Format("2006-01-02"), MaxDate: q.now.In(msg.JST).AddDate(0, 0, triage.MaxDays-1).Format("2006-01-02"),
	}
	var err error
	if v.Effect, err = triage.Preview(q.Context(), tx, o); err != nil {
		return v, err
	}
	if v.Common, err = triage.CommonOf(q.Context(), tx, o); err != nil {
		return v, err
	}
	known := map[filter.Signature]bool{}
	for _, r := range v.Effect.Rows {
		if !known[r.Signature] {
			known[r.Signature] = true
			v.Names = append(v.Names, page.SigName(q.p, r.Signature, r.Title))
		}
	}
	for k, xs := range o.Filter.Values() {
		for _, x := range xs {
			v.Hidden = append(v.Hidden, page.Hidden{Name: k, Value: x})
		}
	}
	for _, t := range o.Targets {
		v.Hidden = append(v.Hidden, page.Hidden{Name: "k", Value: t.String()})
	}
	if v.Suppresses() {
		from := q.now.Add(-30 * 24 * time.Hour)
		v.Chart = chart.Replay(v.Effect.Hidden[:], v.Effect.Stays[:], from.In(msg.JST).Format("01-02"), q.now.In(msg.JST).Format("01-02"), q.p.ReplayLabel(v.Effect.HiddenSum(), v.Effect.StaysSum()))
	}
	return v, nil
}

// verdictNew answers the dialog; verdictPreview its right half, while it is filled in.
func (c *Console) verdictNew(q *request) error { return c.verdictForm(q, false) }

func (c *Console) verdictPreview(q *request) error { return c.verdictForm(q, true) }

func (c *Console) verdictForm(q *request, half bool) error {
	if err := q.ParseForm(); err != nil {
		return httpError{status: http.StatusBadRequest, title: q.p.Error(), text: err.Error()}
	}
	o, err := q.order()
	if err != nil {
		return err
	}
	var v page.Verdict
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if !q.fragment() {
			if f, err = c.frameOf(q, tx); err != nil {
				return err
			}
		}
		v, err = c.verdictView(q, tx, o)
		return err
	})
	if err != nil {
		return err
	}
	c.showVerdict(q, f, v, half, http.StatusOK)
	return nil
}

func (c *Console) showVerdict(q *request, f *frame, v page.Verdict, half bool, status int) {
	s := c.shell(q, q.p.VerdictTitle(), f)
	switch {
	case half:
		c.renderStatus(q, status, page.VerdictEffect(s, v))
	case q.fragment():
		c.renderStatus(q, status, page.VerdictForm(s, v))
	default:
		c.renderStatus(q, status, page.VerdictPage(s, v))
	}
}

// verdict carries the dialog out.
func (c *Console) verdict(q *request) error {
	if why := q.may(mayJudge...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/triage"}
	}
	o, err := q.order()
	if err != nil {
		return err
	}
	var e *triage.Effect
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		e, err = triage.Decide(q.Context(), tx, o)
		return err
	})
	problem := ""
	switch {
	case errors.Is(err, triage.ErrInvalid):
		problem = q.p.VerdictBad()
	case errors.Is(err, triage.ErrNothing):
		problem = q.p.NothingLeft()
	case err != nil:
		return err
	}
	if problem != "" { // the dialog again, with what was typed
		var v page.Verdict
		var f *frame
		err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
			var err error
			if f, err = c.frameOf(q, tx); err != nil {
				return err
			}
			v, err = c.verdictView(q, tx, o)
			return err
		})
		if err != nil {
			return err
		}
		v.Problem = problem
		c.showVerdict(q, f, v, false, http.StatusUnprocessableEntity)
		return nil
	}
	c.snaps.forget()
	c.live.wakeAll()
	text := q.p.Judged(e.Alerts, q.p.VerdictName(o.Verdict))
	if e.Second {
		text = q.p.JudgedPending()
	}
	if q.fragment() {
		q.w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(q.w).Encode(map[string]any{"text": text, "undo": q.p.UndoKey(), "id": e.Decision, "pending": e.Second, "case": e.Case})
	}
	http.Redirect(q.w, q.Request, local(q.PostFormValue("back")), http.StatusSeeOther)
	return nil
}

func (c *Console) suppressions(q *request) error {
	var v page.Suppressions
	var f *frame
	var all []triage.Decision
	err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		all, err = triage.Decisions(q.Context(), tx, true, filter.Signature{}, 0, q.now, 1000)
		return err
	})
	if err != nil {
		return err
	}
	s := c.shell(q, q.p.Suppressions(), f, page.ListKeys(q.p, false, false))
	want := q.FormValue("state")
	n := map[string]int{}
	for i := range all {
		st := all[i].Live(q.now)
		group := "ended"
		switch st {
		case "active", "expiring", "band":
			v.Active++
			group = "active"
			if st == "expiring" {
				v.Soon++
			}
		case "pending":
			group = "pending"
		}
		n[group]++
		if want == group || want == "" && group != "ended" {
			v.List = append(v.List, all[i])
		}
	}
	for _, t := range []struct {
		key, label string
		n          int
	}{{"", q.p.SuppressionState("active"), n["active"] + n["pending"]}, {"pending", q.p.SuppressionState("pending"), n["pending"]}, {"ended", q.p.SuppressionState("expired") + "・" + q.p.SuppressionState("lifted"), n["ended"]}} {
		v.Tabs = append(v.Tabs, page.Tab{URL: s.With("state", t.key), Label: t.label, Count: q.p.N(int64(t.n)), Current: want == t.key})
	}
	c.render(q, page.SuppressionsPage(s, v))
	return nil
}

func pathID64(q *request) (int64, error) {
	n, err := strconv.ParseInt(q.PathValue("id"), 10, 64)
	if err != nil || n < 1 {
		return 0, httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
	}
	return n, nil
}

func (c *Console) suppression(q *request) error { return c.showDecision(q, "", http.StatusOK) }

func (c *Console) showDecision(q *request, problem string, status int) error {
	id, err := pathID64(q)
	if err != nil {
		return err
	}
	v := page.DecisionView{Problem: problem, NoAct: q.may(mayJudge...), NoApprove: q.may(mayApprove...)}
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		ds, err := triage.Decisions(q.Context(), tx, true, filter.Signature{}, id, q.now, 1)
		if err != nil {
			return err
		}
		if len(ds) == 0 {
			return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
		}
		v.D = ds[0]
		return nil
	})
	if err != nil {
		return err
	}
	if v.NoApprove == "" && v.D.Author == q.op.Name {
		v.NoApprove = q.p.NeedsOther()
	}
	c.renderStatus(q, status, page.DecisionPage(c.shell(q, "S-"+q.PathValue("id"), f), v))
	return nil
}

// decisionAct undoes, lifts or approves.
func (c *Console) decisionAct(q *request) error {
	id, err := pathID64(q)
	if err != nil {
		return err
	}
	act, need, done := q.PathValue("act"), mayJudge, ""
	var do func(pgx.Tx) error
	switch act {
	case "undo":
		do, done = func(tx pgx.Tx) error { return triage.Undo(q.Context(), tx, id, q.op.Name, q.FormValue("why"), q.now) }, "undone"
	case "lift":
		do, done = func(tx pgx.Tx) error { return triage.Lift(q.Context(), tx, id, q.op.Name, q.FormValue("why"), q.now) }, "lifted"
	case "approve":
		do, need, done = func(tx pgx.Tx) error { return triage.Approve(q.Context(), tx, id, q.op.Name, q.now) }, mayApprove, "approved"
	default:
		return c.notFound(q)
	}
	if why := q.may(need...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/suppressions/" + q.PathValue("id")}
	}
	err = c.fleet(q.Context(), q.op, do)
	problem := ""
	switch {
	case errors.Is(err, triage.ErrInvalid):
		problem = q.p.VerdictBad()
	case errors.Is(err, triage.ErrState):
		problem = q.p.StateChanged()
	case errors.Is(err, triage.ErrSecond):
		problem = q.p.NeedsOther()
	case err != nil:
		return err
	}
	if problem != "" {
		if q.fragment() {
			http.Error(q.w, problem, http.StatusConflict)
			return nil
		}
		return c.showDecision(q, problem, http.StatusConflict)
	}
	c.snaps.forget()
	c.live.wakeAll()
	if q.fragment() {
		q.w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(q.w).Encode(map[string]any{"text": q.p.Undone()})
	}
	http.Redirect(q.w, q.Request, "/suppressions/"+q.PathValue("id")+"?done="+done, http.StatusSeeOther)
	return nil
}

func (c *Console) cases(q *request) error {
	var v page.Cases
	var f *frame
	err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		v.List, err = triage.Cases(q.Context(), tx, 0, 1000)
		return err
	})
	if err != nil {
		return err
	}
	for i := range v.List {
		if v.List[i].Status != "closed" {
			v.Open++
		}
	}
	c.render(q, page.CasesPage(c.shell(q, q.p.Cases(), f, page.ListKeys(q.p, false, false)), v))
	return nil
}

func (c *Console) caseOne(q *request) error { return c.showCase(q, "", http.StatusOK) }

func (c *Console) showCase(q *request, problem string, status int) error {
	id, err := pathID64(q)
	if err != nil {
		return err
	}
	v := page.Case{Problem: problem, NoAct: q.may(mayJudge...)}
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		ctx := q.Context()
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		one, err := triage.Cases(ctx, tx, id, 1)
		if err != nil {
			return err
		}
		if len(one) == 0 {
			return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
		}
		v.C = one[0]
		if v.Scope, err = triage.CaseScope(ctx, tx, id); err != nil {
			return err
		}
		v.Entries, err = triage.CaseEntries(ctx, tx, id)
		return err
	})
	if err != nil {
		return err
	}
	c.renderStatus(q, status, page.CasePage(c.shell(q, q.p.CaseNo(id), f), v))
	return nil
}

// caseChange adds to a case or moves it on.
func (c *Console) caseChange(q *request) error {
	id, err := pathID64(q)
	if err != nil {
		return err
	}
	if why := q.may(mayJudge...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/cases/" + q.PathValue("id")}
	}
	owner := ""
	if q.PostFormValue("owner") != "" {
		owner = q.op.Name // one takes a case over; nobody is given one
	}
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		return triage.ChangeCase(q.Context(), tx, id, q.op.Name, q.PostFormValue("status"), q.PostFormValue("resolution"), owner, q.PostFormValue("note"), q.now)
	})
	switch {
	case errors.Is(err, triage.ErrInvalid):
		return c.showCase(q, q.p.VerdictBad(), http.StatusUnprocessableEntity)
	case errors.Is(err, triage.ErrState):
		return c.showCase(q, q.p.StateChanged(), http.StatusConflict)
	case isNone(err):
		return c.notFound(q)
	case err != nil:
		return err
	}
	http.Redirect(q.w, q.Request, "/cases/"+q.PathValue("id")+"?done=saved", http.StatusSeeOther)
	return nil
}

// auditPage is how many rows one page of the audit log holds.
const auditPage = 200

func (c *Console) audit(q *request) error {
	if why := q.may(mayAudit...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/"}
	}
	_, text, err := scope(q)
	if err != nil {
		return err
	}
	before, _ := strconv.ParseInt(q.FormValue("before"), 10, 64)
	machines := q.FormValue("all") != ""
	v := page.Audit{Q: text}
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		if v.Rows, err = audit.Verify(q.Context(), tx); errors.Is(err, audit.ErrBroken) {
			v.Broken = err.Error()
			c.log.Error("audit log is broken", "err", err)
		} else if err != nil {
			return err
		}
		v.List, err = store.AuditRows(q.Context(), tx, !machines, text, max(0, before), auditPage)
		return err
	})
	if err != nil {
		return err
	}
	s := c.shell(q, q.p.Audit(), f, page.ListKeys(q.p, false, false))
	if len(v.List) == auditPage {
		v.Next = s.With("before", fmt.Sprint(v.List[auditPage-1].ID))
	}
	v.Tabs = []page.Tab{{URL: s.With("all", "", "before", ""), Label: q.p.AuditPeople(), Current: !machines}, {URL: s.With("all", "1", "before", ""), Label: q.p.AuditNoise(), Current: machines}}
	c.render(q, page.AuditPage(s, v))
	return nil
}
