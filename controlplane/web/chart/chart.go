// Package chart draws the console's small pictures as inline SVG from numbers alone. Templates call it. The trap: nothing that
// came from a network may enter these strings except through the escaped label.
package chart

import (
	"fmt"
	"html"
	"strconv"
	"strings"
)

// Spark draws one bar per value, in the text's colour at reduced strength. It is decoration: the row states its numbers.
func Spark(values []int64) string {
	var b strings.Builder
	b.WriteString(`<svg class="spark" viewBox="0 0 96 18" preserveAspectRatio="none" aria-hidden="true"><path d="`)
	m := maxOf(values)
	step := 96.0 / float64(max(1, len(values)))
	for i, v := range values {
		if v <= 0 {
			continue
		}
		h := height(v, m, 17)
		fmt.Fprintf(&b, "M%s 18V%sh%sV18z", num(float64(i)*step), num(18-h), num(step*0.75))
	}
	b.WriteString(`"/></svg>`)
	return b.String()
}

// Tick is a label under column I.
type Tick struct {
	I    int
	Text string
}

// Columns draws the panel's bar chart, 372 x 64, with an axis and labels below. Columns whose band is set are shaded, and bandWord
// names the shade; nil shades nothing. label is its text alternative.
func Columns(values []int64, bands []bool, bandWord string, ticks []Tick, label string) string {
	const w, h, axis = 372.0, 64.0, 50.0
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="hours" viewBox="0 0 %s %s" role="img" aria-label="%s">`, num(w), num(h), html.EscapeString(label))
	m := maxOf(values)
	step := w / float64(max(1, len(values)))
	last := -1
	for i, on := range bands {
		if on {
			fmt.Fprintf(&b, `<rect class="band" x="%s" y="0" width="%s" height="50"/>`, num(float64(i)*step), num(step+0.3))
			last = i
		}
	}
	if last >= 0 {
		fmt.Fprintf(&b, `<text x="%s" y="9" text-anchor="end">%s</text>`, num(float64(last+1)*step-3), html.EscapeString(bandWord))
	}
	for i, v := range values {
		if v <= 0 {
			continue
		}
		bar := height(v, m, 44)
		fmt.Fprintf(&b, `<rect class="bar" x="%s" y="%s" width="%s" height="%s" rx="1.5"/>`, num(float64(i)*step+2), num(axis-bar), num(step-4), num(bar))
	}
	fmt.Fprintf(&b, `<path class="ax" d="M0 50.5H%s"/>`, num(w))
	for _, t := range ticks {
		fmt.Fprintf(&b, `<text x="%s" y="62">%s</text>`, num(float64(t.I)*step+2), html.EscapeString(t.Text))
	}
	b.WriteString(`</svg>`)
	return b.String()
}

// Day is one column of Coverage, in shares of the day that sum to 1 or less; what is missing was not reported.
type Day struct {
	Up          float64 // reported and inspecting
	Unprotected float64 // reported, not inspecting
	Future      bool    // not begun yet
}

// Coverage draws a month as one column per day: inspected, not inspected, not reported. label is its text alternative.
func Coverage(days []Day, first int, label string) string {
	var ticks []Tick
	for i := range days {
		if day := first + i; day == 1 || day%5 == 0 {
			ticks = append(ticks, Tick{I: i, Text: strconv.Itoa(day)})
		}
	}
	return CoverageTicks(days, ticks, label)
}

// CoverageTicks is Coverage with labels of the caller's.
func CoverageTicks(days []Day, ticks []Tick, label string) string {
	const h, axis = 56.0, 42.0
	w := float64(max(1, len(days))) * 20
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="covm" viewBox="0 0 %s %s" role="img" aria-label="%s">`, num(w), num(h), html.EscapeString(label))
	for i, d := range days {
		x := float64(i)*20 + 2
		if d.Future {
			fmt.Fprintf(&b, `<rect class="fut" x="%s" y="2" width="16" height="40" rx="2"/>`, num(x))
			continue
		}
		fmt.Fprintf(&b, `<rect class="mis" x="%s" y="2" width="16" height="40" rx="2"/>`, num(x))
		up, un := clamp(d.Up)*40, clamp(d.Unprotected)*40
		if d.Unprotected > 0 {
			un = max(un, 2) // a minute of a day must not vanish
			up = min(up, 40-un)
		}
		if up > 0 {
			fmt.Fprintf(&b, `<rect class="upt" x="%s" y="%s" width="16" height="%s" rx="2"/>`, num(x), num(axis-up), num(up))
		}
		if un > 0 {
			fmt.Fprintf(&b, `<rect class="unp" x="%s" y="%s" width="16" height="%s"/>`, num(x), num(axis-up-un), num(un))
		}
	}
	for _, t := range ticks {
		fmt.Fprintf(&b, `<text x="%s" y="54" text-anchor="middle">%s</text>`, num(float64(t.I)*20+10), html.EscapeString(t.Text))
	}
	b.WriteString(`</svg>`)
	return b.String()
}

// Bar draws a share of 0..1 as a filled line, 120 x 6; class chooses its colour.
func Bar(share float64, class string) string {
	return fmt.Sprintf(`<svg class="barl" viewBox="0 0 120 6" preserveAspectRatio="none" aria-hidden="true"><rect class="bg" width="120" height="6" rx="3"/><rect class="%s" width="%s" height="6" rx="3"/></svg>`,
		html.EscapeString(class), num(clamp(share)*120))
}

func clamp(x float64) float64 { return max(0, min(1, x)) }

func maxOf(values []int64) int64 {
	var m int64
	for _, v := range values {
		m = max(m, v)
	}
	return m
}

// height gives v of m as a height up to full, and at least an eighth, so that one among thousands still shows.
func height(v, m int64, full float64) float64 {
	if m == 0 {
		return 0
	}
	return max(full/8, full*float64(v)/float64(m))
}

func num(x float64) string { return strconv.FormatFloat(float64(int64(x*10+0.5))/10, 'f', -1, 64) }

// Replay draws 30 days, oldest first: below what stays, above what a suppression would have hidden. first and last label the axis.
func Replay(hidden, stays []int64, first, last, label string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="replay" viewBox="0 0 340 74" role="img" aria-label="%s">`, html.EscapeString(label))
	var m int64
	for i := range hidden {
		m = max(m, hidden[i]+stays[i])
	}
	for i := range hidden {
		x, y := 1+float64(i)*11.3, 60.0
		if stays[i] > 0 {
			h := max(1.5, 54*float64(stays[i])/float64(m))
			y -= h
			fmt.Fprintf(&b, `<rect class="b" x="%s" y="%s" width="8.6" height="%s"/>`, num(x), num(y), num(h))
		}
		if hidden[i] > 0 {
			h := max(1.5, 54*float64(hidden[i])/float64(m))
			fmt.Fprintf(&b, `<rect class="a" x="%s" y="%s" width="8.6" height="%s"/>`, num(x), num(y-h), num(h))
		}
	}
	fmt.Fprintf(&b, `<path class="ax" d="M0 60.5H340"/><text x="1" y="72">%s</text><text x="338" y="72" text-anchor="end">%s</text></svg>`, html.EscapeString(first), html.EscapeString(last))
	return b.String()
}
