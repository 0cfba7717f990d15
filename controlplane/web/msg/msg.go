// Package msg holds every word the console shows, Japanese and English side by side, one file per screen. Each message is a
// method of P whose arguments the compiler checks; a message without one of its languages does not compile, because pick takes
// both. Templates call it. The trap: a counter (件, 台, 院) belongs into the message, never glued on by the caller.
package msg

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// P prints messages in one language. The zero value prints Japanese.
type P struct{ english bool }

// For returns the printer of a language: "en" is English, everything else Japanese.
func For(lang string) P { return P{english: lang == "en"} }

// Lang is the language tag, for lang attributes: "ja" or "en".
func (p P) Lang() string { return p.pick("ja", "en") }

// Other is the language one may change to.
func (p P) Other() string { return p.pick("en", "ja") }

// English reports whether p prints English.
func (p P) English() bool { return p.english }

func (p P) pick(ja, en string) string {
	if p.english {
		return en
	}
	return ja
}

// f formats with fmt verbs; both texts name their arguments by index where the order differs.
func (p P) f(ja, en string, args ...any) string { return fmt.Sprintf(p.pick(ja, en), args...) }

// N prints a whole number with groups of three digits.
func (p P) N(n int64) string { return Number(n) }

// Number prints a whole number with groups of three digits, the same in both languages.
func Number(n int64) string {
	s := strconv.FormatInt(n, 10)
	neg := s[0] == '-'
	if neg {
		s = s[1:]
	}
	if len(s) > 3 {
		var b strings.Builder
		for i, c := range s {
			if i > 0 && (len(s)-i)%3 == 0 {
				b.WriteByte(',')
			}
			b.WriteRune(c)
		}
		s = b.String()
	}
	if neg {
		return "-" + s
	}
	return s
}

// en1 picks the English singular or plural.
func en1(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// JST is the zone of every time that is shown. Japan has no summer time since 1951.
var JST = time.FixedZone("JST", 9*60*60)

// Time prints the time of day when t lies within the last 20 hours of now, the month and day otherwise.
func (p P) Time(t, now time.Time) string {
	if t.IsZero() {
		return "—"
	}
	t = t.In(JST)
	if d := now.Sub(t); d > -time.Hour && d < 20*time.Hour {
		return t.Format("15:04")
	}
	if t.Year() == now.In(JST).Year() {
		return t.Format("01-02")
	}
	return t.Format("2006-01")
}

// Clock prints the time of day to the second.
func (p P) Clock(t time.Time) string { return t.In(JST).Format("15:04:05") }

// Stamp prints date and time to the second.
func (p P) Stamp(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	return t.In(JST).Format("2006-01-02 15:04:05")
}

// Minute prints date and time to the minute.
func (p P) Minute(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	return t.In(JST).Format("2006-01-02 15:04")
}

// ISO prints t for the datetime attribute.
func ISO(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Date prints a day as 2026-11-24.
func (p P) Date(t time.Time) string {
	if t.IsZero() {
		return "—"
	}
	return t.In(JST).Format("2006-01-02")
}

// Month prints a calendar month: 2026年11月, November 2026.
func (p P) Month(t time.Time) string {
	if p.english {
		return t.Format("January 2006")
	}
	return t.Format("2006年1月")
}

// Percent prints a share of 0..1 with one decimal, never rounding up to 100.
func (p P) Percent(x float64) string {
	if x >= 1 {
		return p.pick("100%", "100 %")
	}
	v := float64(int(x*1000)) / 10
	return p.f("%.1f%%", "%.1f %%", v)
}

// Ago prints a duration with its largest unit.
func (p P) Ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return p.f("%d秒", "%d s", int(d.Seconds()))
	case d < time.Hour:
		return p.f("%d分", "%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return p.f("%d時間", "%d h", int(d.Hours()))
	}
	return p.f("%d日", "%d d", int(d.Hours()/24))
}

// Seconds prints a short duration with one decimal: 1.2秒.
func (p P) Seconds(d time.Duration) string {
	if d < 10*time.Second {
		return p.f("%.1f秒", "%.1f s", d.Seconds())
	}
	return p.Ago(d)
}

// Millis prints a number of milliseconds as minutes and seconds of time.
func (p P) Millis(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case ms == 0:
		return p.pick("0分", "0 min")
	case d < time.Second:
		return p.f("%dミリ秒", "%d ms", ms)
	case d < time.Minute:
		return p.f("%.1f秒", "%.1f s", d.Seconds())
	case d < time.Hour:
		return p.f("%d分%02d秒", "%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return p.f("%d時間%02d分", "%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// Bytes prints a volume with a binary prefix of three significant digits at most.
func (p P) Bytes(n int64) string {
	const k = 1024
	if n < k {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/k, 0
	for v >= k && i < 4 {
		v, i = v/k, i+1
	}
	unit := []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[i]
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}
