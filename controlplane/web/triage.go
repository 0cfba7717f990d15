package web

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
	"github.com/kadomori/kadomori/controlplane/web/chart"
	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
)

// snapshots shares what several people or parts of a page ask for at the same time.
type snapshots struct {
	mu sync.Mutex
	m  map[string]shared
}

type shared struct {
	at   time.Time
	snap *triage.Snapshot
}

const (
	snapshotLife = 300 * time.Millisecond
	maxSnapshots = 64
)

// unfiltered is the last 24 hours of everything.
var unfiltered = filter.Filter{}

// take reads the snapshot of f, or gives one that is younger than snapshotLife. All operators may see all clinics, so a
// snapshot is the same for everybody.
func (s *snapshots) take(ctx context.Context, tx pgx.Tx, f filter.Filter, now time.Time) (*triage.Snapshot, error) {
	key := f.Key()
	s.mu.Lock()
	x, ok := s.m[key]
	s.mu.Unlock()
	if d := now.Sub(x.at); ok && d >= 0 && d < snapshotLife {
		return x.snap, nil
	}
	snap, err := triage.Take(ctx, tx, f, now)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= maxSnapshots {
		s.m = map[string]shared{}
	}
	s.m[key] = shared{now, snap}
	return snap, nil
}

// forget drops what is kept, after something was judged.
func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.m)
}

// list is what the triage screen shows of a filter.
type list struct {
	filter filter.Filter
	group  string // sig, pair, none
	sort   string
}

func parseList(q url.Values) (list, error) {
	f, err := filter.Parse(q)
	if err != nil {
		return list{}, err
	}
	l := list{filter: f, group: q.Get("group"), sort: q.Get("sort")}
	switch l.group {
	case "":
		l.group = "sig"
	case "sig", "pair", "none":
	default:
		return list{}, &filter.Error{Name: "group", Value: l.group, Reason: "want sig, pair or none"}
	}
	if !slices.Contains([]string{"", "last", "alerts", "clinics", "passed", "name"}, l.sort) {
		return list{}, &filter.Error{Name: "sort", Value: l.sort, Reason: "want last, alerts, clinics, passed or name"}
	}
	return l, nil
}

func (l list) rows(s *triage.Snapshot) []*triage.Group {
	var gs []*triage.Group
	switch l.group {
	case "sig":
		gs = slices.Clone(s.Groups)
	case "pair":
		gs = s.Pairs()
	default:
		return nil
	}
	triage.Sort(gs, l.sort)
	return gs
}

func (c *Console) triage(q *request) error {
	l, err := parseList(q.URL.Query())
	if err != nil {
		return badFilter(q, err)
	}
	v := page.Triage{Filter: l.filter, Group: l.group, Sort: l.sort, Focus: q.FormValue("focus"), Last: lastOf(l.filter), Since: q.now}
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		ctx := q.Context()
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		if v.Snap, err = c.snaps.take(ctx, tx, l.filter, q.now); err != nil {
			return err
		}
		base, err := c.snaps.take(ctx, tx, l.filter.Unlimited(), q.now)
		if err != nil {
			return err
		}
		if v.Precedents, err = triage.Precedents(ctx, tx); err != nil {
			return err
		}
		done := l.filter.Unlimited()
		done.State = "done"
		judged, err := c.snaps.take(ctx, tx, done, q.now)
		if err != nil {
			return err
		}
		v.Tabs = triageTabs(q, l, base, len(judged.Groups))
		if v.Coverage, err = triage.CoverageOf(ctx, tx, l.filter.Clinics, v.Snap.From, v.Snap.To, q.now); err != nil {
			return err
		}
		if v.Empty() {
			v.Quiet, err = triage.QuietOf(ctx, tx, l.filter.Clinics, q.now)
			return err
		}
		if l.group == "none" {
			return c.flat(q, tx, l, &v)
		}
		v.Groups = l.rows(v.Snap)
		if l.group == "pair" {
			for i := 0; i*page.BlockRows < len(v.Groups); i++ {
				b := page.Cut(v.Groups, i)
				if i > 0 {
					b.Pairs = nil
				}
				v.Blocks = append(v.Blocks, b)
			}
		}
		sig, clinic, ok := parseFocus(v.Focus)
		g := v.Snap.Group(sig, clinic)
		if !ok || g == nil {
			g = v.Groups[0]
			v.Focus = page.FocusKey(g.Signature, g.Clinic)
			if l.group == "sig" {
				v.Focus = page.FocusKey(g.Signature, 0)
			}
		}
		v.Panel, err = c.panel(q, tx, l.filter, v.Snap, g)
		return err
	})
	if err != nil {
		return err
	}
	s := c.shell(q, q.p.Triage(), f, triageKeys(q.p, l.group))
	s.LiveURL = "/events?" + eventsQuery(v)
	v.Chips = chips(q, s, f, l.filter)
	v.PeriodLabel = periodLabel(q.p, l.filter)
	for _, k := range []string{"c", "group", "sort", "last", "from", "to", "sig", "state"} {
		if x := q.URL.Query().Get(k); x != "" {
			v.Keep = append(v.Keep, page.Hidden{Name: k, Value: x})
		}
	}
	c.render(q, page.TriagePage(s, v))
	return nil
}

// eventsQuery is what the page's event stream is asked for.
func eventsQuery(v page.Triage) string {
	x, _ := url.ParseQuery(v.Query())
	x.Set("page", "triage")
	x.Set("asof", v.AsOf())
	return x.Encode()
}

func triageKeys(p msg.P, group string) page.KeyGroup {
	g := page.ListKeys(p, group == "sig", true)
	g.Keys = slices.Insert(g.Keys, len(g.Keys)-3, page.Key{Keys: []string{"e"}, Do: "verdict", Label: p.KeyVerdict()}, page.Key{Keys: []string{"z"}, Do: "undo", Label: p.KeyUndo()})
	foot := map[string]string{"next": p.KeyMove(), "expand": p.KeyOpen(), "select": p.KeySelect(), "new": p.KeyNew(), "verdict": p.FootVerdict(), "undo": p.FootUndo()}
	for i := range g.Keys {
		k := &g.Keys[i]
		k.Foot = foot[k.Do]
	}
	return g
}

// flat fills the list of single alerts: the first block, and places for the others.
func (c *Console) flat(q *request, tx pgx.Tx, l list, v *page.Triage) error {
	rows, _, _, err := triage.CountAlerts(q.Context(), tx, l.filter, q.now, v.Since)
	if err != nil {
		return err
	}
	v.Rows = min(rows, page.MaxRows)
	first, err := triage.Alerts(q.Context(), tx, l.filter, q.now, v.Since, page.BlockRows, 0)
	if err != nil {
		return err
	}
	for i := 0; int64(i*page.BlockRows) < v.Rows; i++ {
		b := page.Block{Index: i, N: int(min(page.BlockRows, v.Rows-int64(i*page.BlockRows)))}
		if i == 0 {
			b.Rows = first
		}
		v.Blocks = append(v.Blocks, b)
	}
	if len(first) == 0 {
		return nil
	}
	a := first[0]
	if app, stream, seq, ok := parseAlertKey(v.Focus); ok {
		switch x, err := triage.One(q.Context(), tx, app, stream, seq); {
		case err == nil:
			a = x
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
	}
	v.Focus = page.AlertKey(a)
	v.Blocks[0].Focus = v.Focus
	v.Panel, err = c.alertPanel(q, tx, l.filter, v.Snap, a)
	return err
}

// alertPanel is the panel of the alert's group at its clinic, with the alert's own indicator.
func (c *Console) alertPanel(q *request, tx pgx.Tx, f filter.Filter, snap *triage.Snapshot, a triage.Alert) (*page.Panel, error) {
	g := snap.Group(a.Signature, a.Clinic)
	if g == nil {
		return nil, nil //nolint:nilnil // no group, no panel: the caller shows that it is gone
	}
	p, err := c.panel(q, tx, f, snap, g)
	if err == nil {
		p.Indicator = a.Indicator
		if p.Indicator != "" && a.Kind == "detection" && a.Title != "" && a.Title != a.Rule {
			p.Indicator += " (" + a.Title + ")" // the list that holds it
		}
	}
	return p, err
}

// panel reads what stands beside a group.
func (c *Console) panel(q *request, tx pgx.Tx, f filter.Filter, snap *triage.Snapshot, g *triage.Group) (*page.Panel, error) {
	ctx := q.Context()
	one := f
	one.Rule = g.Signature
	if g.Clinic != 0 {
		one.Clinics = []int32{g.Clinic}
	}
	v := &page.Panel{Group: g, Name: page.SigName(q.p, g.Signature, g.Title), Alerts0: f.Values()}
	hosts, err := triage.Hosts(ctx, tx, one, q.now)
	if err != nil {
		return nil, err
	}
	for _, n := range hosts {
		v.Hosts += n
	}
	if v.Recent, err = triage.Alerts(ctx, tx, one, q.now, time.Time{}, 5, 0); err != nil {
		return nil, err
	}
	var at []int32
	if g.Clinic != 0 {
		at = []int32{g.Clinic}
		v.ClinicName, v.ClinicCode = g.ClinicName, g.ClinicCode
	} else {
		for _, p := range g.Pairs {
			at = append(at, p.Clinic)
		}
		v.Top = g.Pairs[:min(5, len(g.Pairs))]
	}
	cov, err := triage.CoverageOf(ctx, tx, at, snap.From, snap.To, q.now)
	if err != nil {
		return nil, err
	}
	v.Coverage = q.p.CoverageLine(cov.Boxes, cov.Reporting, cov.Share(), cov.UnprotectedMS)
	v.CoverageURL = "/appliances?c=" + ids(at)
	x := f.Values()
	x.Set("focus", page.FocusKey(g.Signature, g.Clinic))
	if g.Clinic != 0 {
		x.Set("group", "pair")
	}
	v.Link = "/triage?" + x.Encode()
	var open clinic.Hours
	if g.Clinic != 0 {
		var text string
		if err := tx.QueryRow(ctx, "SELECT hours FROM clinic WHERE clinic_id = $1", g.Clinic).Scan(&text); err != nil {
			return nil, err
		}
		if h, err := clinic.ParseHours(text); err == nil {
			open = h // hours in words that nobody can compute with are simply not shaded
		}
	}
	v.Chart = groupChart(q.p, snap, g, open)
	if k, ok := q.p.Detector(g.Rule); ok && g.Kind == "detection" {
		v.Next = k.Next
	} else {
		v.Next = q.p.Next(g.Category)
	}
	return v, nil
}

func ids(clinics []int32) string {
	if len(clinics) > 100 {
		return "" // too long for a link; the list then shows all
	}
	s := make([]string, len(clinics))
	for i, id := range clinics {
		s[i] = strconv.Itoa(int(id))
	}
	return strings.Join(s, ",")
}

func groupChart(p msg.P, snap *triage.Snapshot, g *triage.Group, open clinic.Hours) string {
	width := snap.To.Sub(snap.From) / triage.Buckets
	var ticks []chart.Tick
	top, topAt := int64(-1), 0
	for i, n := range g.Shape {
		if n > top {
			top, topAt = n, i
		}
	}
	if width < 2*time.Hour {
		for i := range triage.Buckets {
			if h := snap.From.Add(time.Duration(i) * width).In(msg.JST).Hour(); h%3 == 0 {
				ticks = append(ticks, chart.Tick{I: i, Text: strconv.Itoa(h)})
			}
		}
		at := snap.From.Add(time.Duration(topAt) * width)
		var bands []bool
		if open.Known() {
			bands = make([]bool, triage.Buckets)
			for i := range bands {
				bands[i] = open.Open(snap.From.Add(time.Duration(i)*width + width/2))
			}
		}
		return chart.Columns(g.Shape[:], bands, p.HoursOpen(), ticks, p.HoursLabel(top, at.In(msg.JST).Format("15:04")))
	}
	for i := 0; i < triage.Buckets; i += 5 {
		ticks = append(ticks, chart.Tick{I: i, Text: snap.From.Add(time.Duration(i) * width).In(msg.JST).Format("01-02")})
	}
	return chart.Columns(g.Shape[:], nil, "", ticks, p.DayLabel(top, snap.From.Add(time.Duration(topAt)*width).In(msg.JST).Format("01-02")))
}

// parseFocus reads "alert:1:2100001" or "detection:D19@3".
func parseFocus(v string) (sig filter.Signature, clinic int32, ok bool) {
	if v == "" {
		return sig, 0, false
	}
	name, at, has := cutLast(v, "@")
	if has {
		n, err := strconv.ParseInt(at, 10, 32)
		if err == nil && n > 0 {
			sig, err := filter.ParseSignature(name)
			return sig, int32(n), err == nil
		}
	}
	sig, err := filter.ParseSignature(v)
	return sig, 0, err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func parseAlertKey(v string) (appliance int32, stream [16]byte, seq int64, ok bool) {
	p := strings.Split(v, ".")
	if len(p) != 3 || len(p[1]) != 32 {
		return 0, stream, 0, false
	}
	a, err1 := strconv.ParseInt(p[0], 10, 32)
	n, err2 := strconv.ParseInt(p[2], 10, 64)
	for i := range stream {
		b, err := strconv.ParseUint(p[1][2*i:2*i+2], 16, 8)
		if err != nil {
			return 0, stream, 0, false
		}
		stream[i] = byte(b)
	}
	return int32(a), stream, n, err1 == nil && err2 == nil
}

// triageRows answers one block of the flat list.
func (c *Console) triageRows(q *request) error {
	l, err := parseList(q.URL.Query())
	if err != nil {
		return badFilter(q, err)
	}
	b, err := strconv.Atoi(q.FormValue("b"))
	if err != nil || b < 0 || b > page.MaxRows/page.BlockRows {
		return httpError{status: http.StatusBadRequest, title: q.p.Error(), text: q.p.NotFound()}
	}
	asof, err := parseAsOf(q.FormValue("asof"))
	if err != nil {
		return httpError{status: http.StatusBadRequest, title: q.p.Error(), text: q.p.NotFound()}
	}
	block := page.Block{Index: b}
	v := page.Triage{Filter: l.filter, Group: l.group}
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if l.group == "pair" {
			snap, err := triage.TakeAsOf(q.Context(), tx, l.filter, asof)
			if err != nil {
				return err
			}
			v.Snap = snap
			block = page.Cut(l.rows(snap), b)
			v.Precedents, err = triage.Precedents(q.Context(), tx)
			return err
		}
		block.Rows, err = triage.Alerts(q.Context(), tx, l.filter, q.now, asof, page.BlockRows, b*page.BlockRows)
		return err
	})
	if err != nil {
		return err
	}
	c.render(q, page.TriageBlock(c.shell(q, "", nil), v, block))
	return nil
}

func parseAsOf(v string) (time.Time, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("asof %q is no time", v)
	}
	return time.UnixMicro(n), nil
}

// triageChildren answers the rows by clinic of one signature.
func (c *Console) triageChildren(q *request) error {
	l, err := parseList(q.URL.Query())
	if err != nil {
		return badFilter(q, err)
	}
	sig, err := filter.ParseSignature(q.FormValue("of"))
	if err != nil {
		return badFilter(q, &filter.Error{Name: "of", Value: q.FormValue("of"), Reason: err.Error()})
	}
	index, _ := strconv.Atoi(q.FormValue("i"))
	v := page.Triage{Filter: l.filter, Group: "sig", Last: lastOf(l.filter)}
	var g *triage.Group
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if v.Snap, err = c.snaps.take(q.Context(), tx, l.filter, q.now); err != nil {
			return err
		}
		if g = v.Snap.Group(sig, 0); g == nil {
			return nil
		}
		one := l.filter
		one.Rule = sig
		v.Hosts, err = triage.Hosts(q.Context(), tx, one, q.now)
		return err
	})
	if err != nil || g == nil {
		return err
	}
	c.render(q, page.TriageChildren(c.shell(q, "", nil), v, g, index))
	return nil
}

// triagePanel answers the detail of one row.
func (c *Console) triagePanel(q *request) error {
	l, err := parseList(q.URL.Query())
	if err != nil {
		return badFilter(q, err)
	}
	var v *page.Panel
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		snap, err := c.snaps.take(q.Context(), tx, l.filter, q.now)
		if err != nil {
			return err
		}
		focus := q.FormValue("focus")
		if app, stream, seq, ok := parseAlertKey(focus); ok {
			a, err := triage.One(q.Context(), tx, app, stream, seq)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			v, err = c.alertPanel(q, tx, l.filter, snap, a)
			return err
		}
		sig, clinic, ok := parseFocus(focus)
		if !ok {
			return nil
		}
		g := snap.Group(sig, clinic)
		if g == nil {
			return nil
		}
		v, err = c.panel(q, tx, l.filter, snap, g)
		return err
	})
	if err != nil {
		return err
	}
	s := c.shell(q, "", nil)
	if v == nil {
		c.render(q, page.PanelGone(s))
		return nil
	}
	c.render(q, page.TriagePanel(s, *v))
	return nil
}

// maxExport bounds one export, in rows.
const maxExport = 100_000

// triageExport writes exactly the alerts of the filter, as CSV or JSON lines.
func (c *Console) triageExport(q *request) error {
	l, err := parseList(q.URL.Query())
	if err != nil {
		return badFilter(q, err)
	}
	format := q.FormValue("format")
	if format != "csv" && format != "json" {
		return badFilter(q, &filter.Error{Name: "format", Value: format, Reason: "want csv or json"})
	}
	var all []triage.Alert
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		for len(all) < maxExport {
			part, err := triage.Alerts(q.Context(), tx, l.filter, q.now, q.now, 1000, len(all))
			if err != nil {
				return err
			}
			all = append(all, part...)
			if len(part) < 1000 {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	name := "kadomori-alerts-" + q.now.In(msg.JST).Format("20060102-150405")
	q.w.Header().Set("Content-Disposition", `attachment; filename="`+name+"."+format+`"`)
	if format == "json" {
		q.w.Header().Set("Content-Type", "application/jsonl; charset=utf-8")
		enc := json.NewEncoder(q.w)
		for i := range all {
			if err := enc.Encode(exported(&all[i])); err != nil {
				return nil //nolint:nilerr // the browser went away
			}
		}
		return nil
	}
	q.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w := csv.NewWriter(q.w)
	_ = w.Write(exportColumns)
	for i := range all {
		m := exported(&all[i])
		row := make([]string, len(exportColumns))
		for j, k := range exportColumns {
			row[j] = cell(fmt.Sprint(m[k]))
		}
		_ = w.Write(row)
	}
	w.Flush()
	return nil
}

var exportColumns = []string{
	"id", "time", "received", "clinic_id", "clinic", "appliance_id", "kind", "rule", "title", "severity", "category", "action",
	"certainty", "indicator", "count", "src_ip", "src_port", "dst_ip", "dst_port", "device_ip", "device", "zone", "app",
}

func exported(a *triage.Alert) map[string]any {
	ip := func(s string) string { return strings.TrimPrefix(s, "invalid IP") }
	return map[string]any{
		"id": page.AlertKey(*a), "time": a.T.In(msg.JST).Format(time.RFC3339), "received": a.Received.In(msg.JST).Format(time.RFC3339), "clinic_id": a.Clinic,
		"clinic": a.ClinicName, "appliance_id": a.Appliance, "kind": a.Kind, "rule": a.Rule, "title": a.Title, "severity": a.Severity, "category": a.Category,
		"action": a.Action, "certainty": a.Certainty, "indicator": a.Indicator, "count": a.Count, "src_ip": ip(a.Src.String()), "src_port": a.SrcPort,
		"dst_ip": ip(a.Dst.String()), "dst_port": a.DstPort, "device_ip": ip(a.Device.String()), "device": a.DeviceName, "zone": a.Zone, "app": a.App,
	}
}

// cell keeps a spreadsheet from taking a text from the network for a formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
