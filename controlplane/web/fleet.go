package web

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
	"github.com/kadomori/kadomori/controlplane/web/chart"
	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// scope reads ?c= and ?q=.
func scope(q *request) ([]int32, string, error) {
	f, err := filter.Parse(url.Values{"c": {q.FormValue("c")}, "q": {q.FormValue("q")}})
	if err != nil {
		return nil, "", badFilter(q, err)
	}
	return f.Clinics, f.Text, nil
}

func (c *Console) overview(q *request) error {
	clinics, _, err := scope(q)
	if err != nil {
		return err
	}
	v := page.Overview{LastMonth: store.MonthStart(q.now).AddDate(0, -1, 0)}
	var f *frame
	var critical, high int64
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		ctx := q.Context()
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		for sev, n := range map[int]*int64{5: &critical, 4: &high} {
			snap, err := c.snaps.take(ctx, tx, filter.Filter{Clinics: clinics, Severities: []int{sev}}, q.now)
			if err != nil {
				return err
			}
			*n = snap.Alerts
		}
		if v.Fleet, err = store.FleetOf(ctx, tx, clinics, q.now); err != nil {
			return err
		}
		snap, err := c.snaps.take(ctx, tx, filter.Filter{Clinics: clinics}, q.now)
		if err != nil {
			return err
		}
		v.Top = snap.Groups[:min(6, len(snap.Groups))]
		if v.Coverage, err = triage.CoverageOf(ctx, tx, clinics, snap.From, snap.To, q.now); err != nil {
			return err
		}
		all, err := store.Clinics(ctx, tx, clinics, q.now)
		if err != nil {
			return err
		}
		sortClinics(all, "")
		for i := range all {
			if all[i].Need() > 0 && len(v.Busy) < 6 {
				v.Busy = append(v.Busy, all[i])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s := c.shell(q, q.p.Overview(), f)
	fl := v.Fleet
	need := func(n int64, sev int, text, url string) {
		if n > 0 {
			v.Needs = append(v.Needs, page.Need{URL: url, Text: text, Severity: sev})
		}
	}
	need(critical, 5, q.p.NeedCritical(critical), s.To("/triage", "sev", "0"))
	need(fl.LostUnknown, 5, q.p.NeedLost(fl.LostUnknown), s.To("/appliances", "state", "attention"))
	need(high, 4, q.p.NeedHigh(high), s.To("/triage", "sev", "1"))
	need(int64(fl.Refused), 4, q.p.NeedRefused(fl.Refused), s.To("/appliances", "state", "refused"))
	need(int64(fl.Offline), 3, q.p.NeedOffline(fl.Offline), s.To("/appliances", "state", "offline"))
	need(int64(fl.Pending), 3, q.p.NeedPending(fl.Pending), s.To("/enrolment"))
	c.render(q, page.OverviewPage(s, v))
	return nil
}

func sortClinics(all []store.Clinic, by string) {
	slices.SortStableFunc(all, func(a, b store.Clinic) int {
		var x int
		switch by {
		case "name":
			x = cmp.Compare(cmp.Or(a.Kana, a.Name), cmp.Or(b.Kana, b.Name))
		case "plan":
			x = cmp.Compare(a.Plan, b.Plan)
		case "alerts":
			x = cmp.Compare(b.Alerts, a.Alerts)
		case "passed":
			x = cmp.Compare(b.Passed, a.Passed)
		case "coverage":
			x = cmp.Compare(a.Share(), b.Share())
		case "unprotected":
			x = cmp.Compare(b.Unprotected, a.Unprotected)
		}
		return cmp.Or(x, cmp.Compare(b.Need(), a.Need()), cmp.Compare(a.Code, b.Code))
	})
}

// has finds a word in texts, whatever the case.
func has(word string, texts ...string) bool {
	word = strings.ToLower(word)
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), word) })
}

func (c *Console) clinics(q *request) error {
	ids, text, err := scope(q)
	if err != nil {
		return err
	}
	v := page.Clinics{Sort: q.FormValue("sort"), Q: text}
	only := q.FormValue("need") != ""
	var all []store.Clinic
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		all, err = store.Clinics(q.Context(), tx, ids, q.now)
		return err
	})
	if err != nil {
		return err
	}
	sortClinics(all, v.Sort)
	v.Total = len(all)
	for i := range all {
		n := all[i].Need() > 0
		if n {
			v.Need++
		}
		if (!only || n) && (text == "" || has(text, all[i].Name, all[i].Kana, all[i].Code)) {
			v.List = append(v.List, all[i])
		}
	}
	s := c.shell(q, q.p.Clinics(), f, page.ListKeys(q.p, false, false))
	v.Tabs = []page.Tab{
		{URL: s.With("need", ""), Label: q.p.All(), Count: q.p.N(int64(v.Total)), Current: !only},
		{URL: s.With("need", "1"), Label: q.p.ViewAttention(), Count: q.p.N(int64(v.Need)), Current: only},
	}
	c.render(q, page.ClinicsPage(s, v))
	return nil
}

func pathID(q *request, name string) (int32, error) {
	n, err := strconv.ParseInt(q.PathValue(name), 10, 32)
	if err != nil || n < 1 {
		return 0, httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
	}
	return int32(n), nil
}

func (c *Console) clinic(q *request) error { return c.showClinic(q, q.FormValue("tab"), "") }

// showClinic shows a clinic's page; pass is a new one, shown this once.
func (c *Console) showClinic(q *request, tab, pass string) error {
	id, err := pathID(q, "id")
	if err != nil {
		return err
	}
	v := page.Clinic{Tab: tab, Pass: pass, Month: store.MonthStart(q.now), NoAsk: q.may(mayAsk...), NoAccess: q.may(mayPass...)}
	var f *frame
	var days []store.Day
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		ctx := q.Context()
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		one, err := store.Clinics(ctx, tx, []int32{id}, q.now)
		if err != nil {
			return err
		}
		if len(one) == 0 {
			return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
		}
		v.C = one[0]
		if v.Boxes, err = store.Appliances(ctx, tx, []int32{id}, 0, q.now); err != nil {
			return err
		}
		switch v.Tab {
		case "devices":
			v.Devices, err = store.Devices(ctx, tx, id, q.now, 2000)
			return err
		case "reports":
			v.Months, err = c.months(q, tx, store.Name{ID: v.C.ID, Code: v.C.Code, Name: v.C.Name}, 12)
			return err
		case "ask":
			v.Cards, err = store.Cards(ctx, tx, id, false)
			return err
		case "coverage":
			if v.Unprotected, err = store.UnprotectedOf(ctx, tx, id, v.Month, 100); err != nil {
				return err
			}
		default:
			v.Tab = ""
			snap, err := c.snaps.take(ctx, tx, filter.Filter{Clinics: []int32{id}}, q.now)
			if err != nil {
				return err
			}
			v.Top = snap.Groups[:min(8, len(snap.Groups))]
			if v.Coverage, err = triage.CoverageOf(ctx, tx, []int32{id}, snap.From, snap.To, q.now); err != nil {
				return err
			}
		}
		days, err = store.Days(ctx, tx, id, v.Month)
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range days {
		v.Lost += d.Lost
		v.Clear += d.Clear
		v.Named += d.Named
		v.Opaque += d.Opaque
	}
	s := c.shell(q, v.C.Name, f)
	v.Chart = monthChart(q.p, &v, days, q.now)
	base := "/clinics/" + q.PathValue("id")
	v.Tabs = []page.Tab{
		{URL: base, Label: q.p.TabSummary(), Current: v.Tab == ""},
		{URL: base + "?tab=devices", Label: q.p.TabDevices(), Count: q.p.N(v.C.Devices), Current: v.Tab == "devices"},
		{URL: base + "?tab=coverage", Label: q.p.TabCoverage(), Current: v.Tab == "coverage"},
		{URL: base + "?tab=reports", Label: q.p.TabReports(), Current: v.Tab == "reports"},
		{URL: base + "?tab=ask", Label: q.p.TabAsk(), Current: v.Tab == "ask"},
	}
	c.render(q, page.ClinicPage(s, v))
	return nil
}

// monthChart draws the month's coverage by day, of all boxes in service.
func monthChart(p msg.P, v *page.Clinic, days []store.Day, now time.Time) string {
	n := int(v.Month.AddDate(0, 1, 0).Sub(v.Month).Hours() / 24)
	boxes := max(1, v.C.Boxes)
	cols := make([]chart.Day, n)
	for i := range cols {
		cols[i].Future = v.Month.AddDate(0, 0, i).After(now)
	}
	for _, d := range days {
		i := int(d.Day.Sub(v.Month).Hours() / 24)
		if i < 0 || i >= n {
			continue
		}
		whole := float64(24*time.Hour/time.Millisecond) * float64(boxes)
		if end := d.Day.AddDate(0, 0, 1); end.After(now) && now.After(d.Day) {
			whole = float64(now.Sub(d.Day).Milliseconds()) * float64(boxes)
		}
		cols[i].Up = float64(d.Reported-d.Unprotected) / whole
		cols[i].Unprotected = float64(d.Unprotected) / whole
	}
	share := v.C.Share()
	text := p.Percent(max(0, share))
	return chart.Coverage(cols, 1, p.CoverChart(p.Month(v.Month), text, p.Millis(v.C.Unprotected)))
}

func (c *Console) appliances(q *request) error {
	ids, text, err := scope(q)
	if err != nil {
		return err
	}
	var all []store.Appliance
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		all, err = store.Appliances(q.Context(), tx, ids, 0, q.now)
		return err
	})
	if err != nil {
		return err
	}
	s := c.shell(q, q.p.Appliances(), f, page.ListKeys(q.p, false, false))
	v := page.Appliances{Q: text, Total: len(all)}
	want := q.FormValue("state")
	views := []struct {
		key, label string
		in         func(*store.Appliance) bool
		n          int
	}{
		{"", q.p.All(), func(*store.Appliance) bool { return true }, 0},
		{"attention", q.p.ViewAttention(), (*store.Appliance).Attention, 0},
		{"offline", q.p.ViewOffline(), func(a *store.Appliance) bool { return a.State == "approved" && !a.Connected }, 0},
		{"refused", q.p.ViewRefused(), func(a *store.Appliance) bool { return a.State == "approved" && a.Refused != "" }, 0},
		{"pending", q.p.ViewPending(), func(a *store.Appliance) bool { return a.State == "pending" }, 0},
	}
	chosen := 0
	for i := range views {
		if views[i].key == want {
			chosen = i
		}
	}
	for i := range all {
		a := &all[i]
		for j := range views {
			if views[j].in(a) {
				views[j].n++
			}
		}
		if views[chosen].in(a) && (text == "" || has(text, a.Name, a.Serial, a.ClinicName, a.ClinicCode)) {
			v.List = append(v.List, *a)
		}
	}
	v.Attention = views[1].n
	slices.SortStableFunc(v.List, func(a, b store.Appliance) int { return boolDesc(a.Attention(), b.Attention()) })
	for i, x := range views {
		v.Tabs = append(v.Tabs, page.Tab{URL: s.With("state", x.key), Label: x.label, Count: q.p.N(int64(x.n)), Current: i == chosen})
	}
	c.render(q, page.AppliancesPage(s, v))
	return nil
}

func boolDesc(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (c *Console) appliance(q *request) error {
	id, err := pathID(q, "id")
	if err != nil {
		return err
	}
	var v page.Appliance
	var f *frame
	var hours []store.Hour
	since := q.now.Add(-47 * time.Hour).Truncate(time.Hour)
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		ctx := q.Context()
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		one, err := store.Appliances(ctx, tx, nil, id, q.now)
		if err != nil {
			return err
		}
		if len(one) == 0 {
			return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
		}
		v.A = one[0]
		if v.Streams, err = store.Streams(ctx, tx, id); err != nil {
			return err
		}
		if v.Health, err = store.LastHealth(ctx, tx, v.A.Clinic, id, q.now); err != nil {
			return err
		}
		hours, err = store.Hours(ctx, tx, id, since)
		return err
	})
	if err != nil {
		return err
	}
	v.Chart = hoursChart(q.p, hours, since, q.now)
	c.render(q, page.AppliancePage(c.shell(q, v.A.Name, f), v))
	return nil
}

// hoursChart draws 48 hours of one box.
func hoursChart(p msg.P, hours []store.Hour, since, now time.Time) string {
	cols := make([]chart.Day, 48)
	var sum, of float64
	for _, h := range hours {
		i := int(h.Hour.Sub(since) / time.Hour)
		if i < 0 || i >= len(cols) {
			continue
		}
		whole := float64(time.Hour / time.Millisecond)
		if end := h.Hour.Add(time.Hour); end.After(now) {
			whole = max(1, float64(now.Sub(h.Hour).Milliseconds()))
		}
		cols[i].Up = float64(h.Reported-h.Unprotected) / whole
		cols[i].Unprotected = float64(h.Unprotected) / whole
		sum += float64(h.Reported)
	}
	of = float64(now.Sub(since).Milliseconds())
	var ticks []chart.Tick
	for i := range cols {
		if h := since.Add(time.Duration(i) * time.Hour).In(msg.JST).Hour(); h%6 == 0 {
			ticks = append(ticks, chart.Tick{I: i, Text: fmt.Sprintf("%d:00", h)})
		}
	}
	return chart.CoverageTicks(cols, ticks, p.Hours48Label(p.Percent(min(1, sum/of))))
}

var errNoRow = pgx.ErrNoRows

func isNone(err error) bool { return errors.Is(err, errNoRow) }
