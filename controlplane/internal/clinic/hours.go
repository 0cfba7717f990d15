package clinic

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Span is one stretch of opening, minutes since midnight, From < To <= 1440.
type Span struct{ From, To int }

// Hours are a clinic's hours of care, Japan time, by day of the week. The zero value is a clinic whose hours are not known.
type Hours [7][]Span

// JST is Japan's time: UTC+9 without daylight saving since 1951.
var JST = time.FixedZone("JST", 9*3600)

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseHours reads "mon-fri 09:00-12:30 14:00-18:30; sat 09:00-13:00". Days may be listed with commas; a day not named is closed.
func ParseHours(s string) (Hours, error) {
	var h Hours
	if strings.TrimSpace(s) == "" {
		return h, nil
	}
	if len(s) > 500 {
		return h, fmt.Errorf("hours: %d bytes, at most 500", len(s))
	}
	for part := range strings.SplitSeq(s, ";") {
		word := strings.Fields(strings.ToLower(part))
		if len(word) == 0 {
			continue
		}
		if len(word) < 2 {
			return Hours{}, fmt.Errorf("hours %q: want days and times, like mon-fri 09:00-18:30", strings.TrimSpace(part))
		}
		on, err := parseDays(word[0])
		if err != nil {
			return Hours{}, err
		}
		for _, w := range word[1:] {
			span, err := parseSpan(w)
			if err != nil {
				return Hours{}, err
			}
			for _, d := range on {
				for _, other := range h[d] {
					if span.From < other.To && other.From < span.To {
						return Hours{}, fmt.Errorf("hours %q: overlaps other hours of %s", w, days[d])
					}
				}
				h[d] = append(h[d], span)
			}
		}
	}
	for d := range h {
		slices.SortFunc(h[d], func(a, b Span) int { return a.From - b.From })
	}
	return h, nil
}

func parseDays(s string) ([]int, error) {
	var on []int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a := slices.Index(days, from)
		b := a
		if isRange {
			b = slices.Index(days, to)
		}
		if a < 0 || b < 0 {
			return nil, fmt.Errorf("hours: day %q: want %s or a range like mon-fri", part, strings.Join(days, ", "))
		}
		for d := a; ; d = (d + 1) % 7 {
			if !slices.Contains(on, d) {
				on = append(on, d)
			}
			if d == b {
				break
			}
		}
	}
	return on, nil
}

func parseSpan(s string) (Span, error) {
	from, to, ok := strings.Cut(s, "-")
	a, err1 := parseClock(from)
	b, err2 := parseClock(to)
	if !ok || err1 != nil || err2 != nil || a >= b {
		return Span{}, fmt.Errorf("hours: time %q: want from-to, like 09:00-18:30", s)
	}
	return Span{a, b}, nil
}

func parseClock(s string) (int, error) {
	if s == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, err
	}
	return t.Hour()*60 + t.Minute(), nil
}

// Known says whether any hours were given.
func (h Hours) Known() bool {
	return slices.ContainsFunc(h[:], func(s []Span) bool { return len(s) > 0 })
}

// Open says whether the clinic cares for patients at t.
func (h Hours) Open(t time.Time) bool {
	t = t.In(JST)
	m := t.Hour()*60 + t.Minute()
	return slices.ContainsFunc(h[t.Weekday()], func(s Span) bool { return s.From <= m && m < s.To })
}
