package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// SQL writes f as a condition on table event under the alias e, for the moment now. It appends its arguments to args, so
// that placeholders go on from len(args)+1. Only alerts and detections are meant, and row-level security still decides which
// clinics exist at all.
func (f Filter) SQL(now time.Time, args []any) (string, []any) {
	var b strings.Builder
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	from, to := f.Window(now)
	fmt.Fprintf(&b, "e.kind IN ('alert','detection') AND e.t >= %s AND e.t < %s", arg(from), arg(to))
	if len(f.Clinics) > 0 {
		fmt.Fprintf(&b, " AND e.clinic_id = ANY (%s::int[])", arg(f.Clinics))
	}
	if len(f.Severities) > 0 {
		fmt.Fprintf(&b, " AND e.severity = ANY (%s::int[])", arg(f.Severities))
	}
	if len(f.Categories) > 0 {
		fmt.Fprintf(&b, " AND e.category = ANY (%s::text[])", arg(f.Categories))
	}
	if f.Action != "" {
		fmt.Fprintf(&b, " AND e.action = %s", arg(f.Action))
	}
	switch f.State {
	case "":
		b.WriteString(" AND NOT " + Judged)
	case "done":
		b.WriteString(" AND " + Judged)
	}
	if f.Rule.Kind != "" {
		fmt.Fprintf(&b, " AND e.kind = %s AND e.rule = %s", arg(f.Rule.Kind), arg(f.Rule.Rule))
	}
	if f.Host.IsValid() {
		p := arg(f.Host)
		fmt.Fprintf(&b, " AND (e.device_ip = %s::inet OR e.src_ip = %[1]s::inet OR e.dst_ip = %[1]s::inet)", p)
	}
	if f.Text != "" {
		p := arg(strings.ToLower(f.Text))
		fmt.Fprintf(&b, ` AND (strpos(lower(e.title), %[1]s) > 0 OR strpos(lower(e.indicator), %[1]s) > 0 OR strpos(lower(e.rule), %[1]s) > 0
  OR strpos(coalesce(host(e.src_ip), ''), %[1]s) > 0 OR strpos(coalesce(host(e.dst_ip), ''), %[1]s) > 0 OR strpos(coalesce(host(e.device_ip), ''), %[1]s) > 0
  OR e.clinic_id IN (SELECT clinic_id FROM clinic WHERE strpos(lower(name), %[1]s) > 0 OR strpos(lower(kana), %[1]s) > 0 OR strpos(lower(code), %[1]s) > 0))`, p)
	}
	return b.String(), args
}

// Judged is a condition on table event, alias e. It holds for an alert that a verdict covers: it was seen by who judged, or a suppression that came of it still runs.
const Judged = `EXISTS (SELECT FROM decision_scope s WHERE s.clinic_id = e.clinic_id AND s.kind = e.kind AND s.rule = e.rule
  AND e.received_at <= s.hides_through AND (s.device_mac IS NULL OR s.device_mac = e.device_mac)
  AND (s.dst_ip IS NULL OR s.dst_ip = e.dst_ip) AND (s.dst_port IS NULL OR s.dst_port = e.dst_port))`

// Event is what Match looks at.
type Event struct {
	Signature
	Judged                 bool
	T                      time.Time
	Clinic                 int32
	ClinicName, Kana, Code string
	Severity               int
	Category, Action       string
	Title, Indicator       string
	Src, Dst, Device       netip.Addr // the zero Addr when absent
}

// Match reports whether f holds for e at the moment now; it agrees with SQL.
func (f Filter) Match(e Event, now time.Time) bool {
	from, to := f.Window(now)
	if e.Kind != "alert" && e.Kind != "detection" || e.T.Before(from) || !e.T.Before(to) {
		return false
	}
	if len(f.Clinics) > 0 && !slices.Contains(f.Clinics, e.Clinic) ||
		len(f.Severities) > 0 && !slices.Contains(f.Severities, e.Severity) ||
		len(f.Categories) > 0 && !slices.Contains(f.Categories, e.Category) ||
		f.Action != "" && f.Action != e.Action ||
		f.State == "" && e.Judged || f.State == "done" && !e.Judged ||
		f.Rule.Kind != "" && f.Rule != e.Signature {
		return false
	}
	if f.Host.IsValid() && f.Host != e.Src && f.Host != e.Dst && f.Host != e.Device {
		return false
	}
	if f.Text == "" {
		return true
	}
	want := strings.ToLower(f.Text)
	for _, s := range []string{e.Title, e.Indicator, e.Rule, addr(e.Src), addr(e.Dst), addr(e.Device), e.ClinicName, e.Kana, e.Code} {
		if strings.Contains(strings.ToLower(s), want) {
			return true
		}
	}
	return false
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
