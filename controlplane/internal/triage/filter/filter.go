// Package filter is the one grammar of conditions on detections. Lists, counts, exports, bulk actions and suppressions all
// take a Filter, so what a person sees as chips is exactly what an action touches. It is read from a URL's query, written
// back to one canonical form, turned into SQL, and can be asked about a single event. The trap: a condition added here needs
// all four (Parse, Values, SQL, Match); a property test compares the last two on random events.
package filter

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits that keep a query of a stranger cheap.
const (
	MaxText    = 200                  // characters of q
	MaxClinics = 1000                 // ids in c
	MaxSpan    = 400 * 24 * time.Hour // of from..to
)

// Categories are the words of event.category, in the order of event/v1.
var Categories = []string{"bot", "malware", "intrusion", "bad_site", "scan", "policy", "other"}

// Filter is a conjunction; a zero field does not limit. Slices are sorted and without repeats.
type Filter struct {
	Text       string        // found in title, indicator, rule, addresses or the clinic's name, letter case ignored
	Clinics    []int32       // clinic ids
	Severities []int         // 1 info .. 5 critical
	Categories []string      // of Categories
	Action     string        // "passed", "blocked"
	State      string        // "" without a verdict, "done" with one, "all"
	Rule       Signature     // one signature
	Host       netip.Addr    // source, destination or device address
	Period     time.Duration // length of the window that ends now, when From and To are zero; 0 = 24 h
	From, To   time.Time     // [From, To); a zero end is open: From alone runs to now, To alone is 24 h before it
}

// Signature names what is grouped: an alert's "gid:sid" or a detection's detector.
type Signature struct {
	Kind string // alert, detection
	Rule string
}

// String is the form used in URLs: "alert:1:2100001", "detection:D12-address"; empty for none.
func (s Signature) String() string {
	if s.Kind == "" {
		return ""
	}
	return s.Kind + ":" + s.Rule
}

// ParseSignature reads what String wrote.
func ParseSignature(v string) (Signature, error) {
	kind, rule, ok := strings.Cut(v, ":")
	if !ok || (kind != "alert" && kind != "detection") || rule == "" || len(rule) > 200 || !utf8.ValidString(rule) || strings.ContainsRune(rule, 0) {
		return Signature{}, fmt.Errorf("want alert:GID:SID or detection:NAME")
	}
	return Signature{Kind: kind, Rule: rule}, nil
}

// Error says which parameter could not be read.
type Error struct {
	Name   string // of the parameter
	Value  string
	Reason string
}

func (e *Error) Error() string {
	return fmt.Sprintf("filter %s=%q: %s", e.Name, e.Value, e.Reason)
}

// periods are the relative windows a URL may name.
var periods = map[string]time.Duration{"24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "30d": 30 * 24 * time.Hour}

// Parse reads the parameters it knows and leaves all others alone. The error is an *Error.
func Parse(q url.Values) (Filter, error) {
	var f Filter
	bad := func(name, reason string) (Filter, error) { //nolint:unparam // so that every refusal is one return
		return Filter{}, &Error{Name: name, Value: cut(q.Get(name), 80), Reason: reason}
	}
	if v := strings.TrimSpace(q.Get("q")); v != "" {
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return bad("q", "not valid text")
		}
		if utf8.RuneCountInString(v) > MaxText {
			return bad("q", "longer than "+strconv.Itoa(MaxText)+" characters")
		}
		f.Text = v
	}
	if v := q.Get("c"); v != "" {
		for s := range strings.SplitSeq(v, ",") {
			n, err := strconv.ParseInt(s, 10, 32)
			if err != nil || n < 1 {
				return bad("c", "want clinic ids with commas between")
			}
			f.Clinics = append(f.Clinics, int32(n))
		}
		slices.Sort(f.Clinics)
		f.Clinics = slices.Compact(f.Clinics)
		if len(f.Clinics) > MaxClinics {
			return bad("c", "more than "+strconv.Itoa(MaxClinics)+" clinics")
		}
	}
	if v := q.Get("sev"); v != "" { // 0 critical .. 4 info, as the screen numbers its symbols
		for s := range strings.SplitSeq(v, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n > 4 {
				return bad("sev", "want numbers from 0 (critical) to 4 (info)")
			}
			f.Severities = append(f.Severities, 5-n)
		}
		slices.Sort(f.Severities)
		f.Severities = slices.Compact(f.Severities)
	}
	if v := q.Get("cat"); v != "" {
		for s := range strings.SplitSeq(v, ",") {
			if !slices.Contains(Categories, s) {
				return bad("cat", "want "+strings.Join(Categories, ", "))
			}
			f.Categories = append(f.Categories, s)
		}
		slices.Sort(f.Categories)
		f.Categories = slices.Compact(f.Categories)
	}
	switch v := q.Get("act"); v {
	case "", "passed", "blocked":
		f.Action = v
	default:
		return bad("act", "want passed or blocked")
	}
	switch v := q.Get("state"); v {
	case "", "new":
	case "done", "all":
		f.State = v
	default:
		return bad("state", "want new, done or all")
	}
	if v := q.Get("sig"); v != "" {
		s, err := ParseSignature(v)
		if err != nil {
			return bad("sig", err.Error())
		}
		f.Rule = s
	}
	if v := q.Get("host"); v != "" {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			return bad("host", "want an IPv4 or IPv6 address")
		}
		f.Host = a.Unmap()
	}
	if v := q.Get("last"); v != "" {
		d, ok := periods[v]
		if !ok {
			return bad("last", "want 24h, 7d or 30d")
		}
		if d != 24*time.Hour {
			f.Period = d
		}
	}
	for name, to := range map[string]*time.Time{"from": &f.From, "to": &f.To} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		t, err := parseTime(v)
		if err != nil {
			return bad(name, "want a time as 2026-11-24T14:30:00+09:00 or a day as 2026-11-24 (Japan time)")
		}
		*to = t
	}
	if !f.From.IsZero() && !f.To.IsZero() {
		if !f.From.Before(f.To) {
			return bad("to", "not after from")
		}
		if f.To.Sub(f.From) > MaxSpan {
			return bad("to", "more than 400 days after from")
		}
	}
	if !f.From.IsZero() || !f.To.IsZero() {
		f.Period = 0
	}
	return f, nil
}

// jst is the zone of days and of times without one.
var jst = time.FixedZone("JST", 9*60*60)

func parseTime(v string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		if t, err = time.ParseInLocation("2006-01-02T15:04", v, jst); err != nil {
			if t, err = time.ParseInLocation("2006-01-02", v, jst); err != nil {
				return time.Time{}, err
			}
		}
	}
	if y := t.UTC().Year(); y < 2000 || y > 2200 {
		return time.Time{}, fmt.Errorf("year %d", y)
	}
	return t.UTC().Truncate(time.Second), nil
}

// Values writes f in its canonical form: Parse(f.Values()) gives f back.
func (f Filter) Values() url.Values {
	q := url.Values{}
	set := func(k, v string) {
		if v != "" {
			q.Set(k, v)
		}
	}
	set("q", f.Text)
	set("c", join(f.Clinics, func(id int32) string { return strconv.Itoa(int(id)) }))
	desc := slices.Clone(f.Severities)
	slices.Reverse(desc)
	set("sev", join(desc, func(s int) string { return strconv.Itoa(5 - s) }))
	set("cat", strings.Join(f.Categories, ","))
	set("act", f.Action)
	set("state", f.State)
	set("sig", f.Rule.String())
	if f.Host.IsValid() {
		set("host", f.Host.String())
	}
	for name, d := range periods {
		if f.Period == d && d != 24*time.Hour {
			set("last", name)
		}
	}
	if !f.From.IsZero() {
		set("from", f.From.In(jst).Format(time.RFC3339))
	}
	if !f.To.IsZero() {
		set("to", f.To.In(jst).Format(time.RFC3339))
	}
	return q
}

// Key is a canonical text of f, for caches.
func (f Filter) Key() string { return f.Values().Encode() }

// Window is the period f means at the given moment, [from, to). Without a period it is the 24 hours before now. An open
// end is a minute after now, so that boxes whose clocks run ahead a little are not cut off.
func (f Filter) Window(now time.Time) (from, to time.Time) {
	switch {
	case !f.From.IsZero() && !f.To.IsZero():
		return f.From, f.To
	case !f.From.IsZero():
		from = f.From
		if now.Sub(from) > MaxSpan {
			from = now.Add(-MaxSpan)
		}
		return from, now.Add(time.Minute)
	case !f.To.IsZero():
		return f.To.Add(-24 * time.Hour), f.To
	}
	d := f.Period
	if d == 0 {
		d = 24 * time.Hour
	}
	return now.Add(-d), now.Add(time.Minute)
}

// Limits reports whether f hides anything beyond its period, clinics and state.
func (f Filter) Limits() bool {
	return f.Text != "" || len(f.Severities) > 0 || len(f.Categories) > 0 || f.Action != "" || f.Rule.Kind != "" || f.Host.IsValid()
}

// Unlimited is f with its period, clinics and state only.
func (f Filter) Unlimited() Filter {
	return Filter{Clinics: f.Clinics, State: f.State, Period: f.Period, From: f.From, To: f.To}
}

func join[T any](xs []T, str func(T) string) string {
	s := make([]string, len(xs))
	for i, x := range xs {
		s[i] = str(x)
	}
	return strings.Join(s, ",")
}

// cut shortens s to at most n characters.
func cut(s string, n int) string {
	r := []rune(strings.ToValidUTF8(s, "\uFFFD"))
	if len(r) > n {
		return string(r[:n]) + "…"
	}
	return string(r)
}
