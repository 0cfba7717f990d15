package chart

import (
	"fmt"
	"strconv"
)

// Day is the head of a column.
type Day struct {
	Number  int
	Weekday string // one character; 祝 on a public holiday
	Rest    bool   // Sundays and holidays stand out
}

// HeatmapData is counts by day and hour.
type HeatmapData struct {
	ID, Title, Desc string
	Days            []Day
	Counts          [][24]int64
	// Seen has a letter for each hour of each day: o observed, x sensor off, - outside the time that can be told of.
	Seen []string
	// Open has a letter for each hour: o clinic hours; empty when they are not known.
	Open   []string
	Remark string // beside the highest bar
	// Peak is the day the remark belongs to, from 1; 0 none.
	Peak int
	// Words of the legend.
	PerHour, ClinicHours, None, Off, Outside, DayTotal string
}

const (
	heatLeft, heatTop = 34.0, 80.0
	cellW, cellH      = 20.8, 12.0
)

var steps = []struct {
	from int64
	size float64
	text string
}{{1, 3.6, "1–2"}, {3, 5.76, "3–5"}, {6, 7.8, "6–11"}, {12, 9.72, "12–23"}, {24, 11.52, "24–"}}

// Heatmap draws days across and hours down; the size of a square is the count in five steps.
func Heatmap(d HeatmapData) string {
	n := len(d.Days)
	right := heatLeft + float64(n)*cellW
	s := newSVG(d.ID, d.Title, d.Desc, Full, 398)
	totals := make([]int64, n)
	var top int64
	for i := range d.Counts {
		for _, c := range d.Counts[i] {
			totals[i] += c
		}
		top = max(top, totals[i])
	}
	for i, t := range totals {
		if top > 0 {
			h := 30 * float64(t) / float64(top)
			s.rect(heatLeft+float64(i)*cellW+4.5, 44-h, 11.8, h, indigo, "")
		}
	}
	s.text(right, 10, d.DayTotal, style{size: 10.5, colour: soft, anchor: "end"})
	s.line(heatLeft, 44, right, 44, ink, 1)
	s.outside(&d)
	s.open(&d)
	for h := 0; h <= 24; h += 3 {
		y := heatTop - 4 + float64(h)*cellH
		s.line(heatLeft, y, right, y, rule, .7)
		s.text(28, y+4, fmt.Sprintf("%d時", h), style{size: 10.5, colour: soft, anchor: "end"})
	}
	s.openFrames(&d)
	for i, day := range d.Days {
		st := style{size: 10.5, anchor: "middle", colour: soft}
		if day.Rest {
			st.bold, st.colour = true, ""
		}
		x := heatLeft + (float64(i)+.5)*cellW
		s.text(x, 56, strconv.Itoa(day.Number), st)
		s.text(x, 69, day.Weekday, st)
	}
	off := false
	for i := range d.Counts {
		for h, c := range d.Counts[i] {
			x, y := heatLeft+float64(i)*cellW, heatTop-4+float64(h)*cellH
			if len(d.Seen) > i && d.Seen[i][h] == 'x' {
				off = true
				s.line(x+6.4, y+2, x+14.4, y+10, soft, .9)
				s.line(x+14.4, y+2, x+6.4, y+10, soft, .9)
			}
			s.square(x+cellW/2, y+cellH/2, c)
		}
	}
	if d.Remark != "" && d.Peak > 0 {
		x, anchor := heatLeft+float64(d.Peak-1)*cellW+21, ""
		if x+Width(d.Remark, 11) > right-Width(d.DayTotal, 10.5) {
			x, anchor = heatLeft+float64(d.Peak-1)*cellW-1, "end"
		}
		s.text(x, 22, d.Remark, style{size: 11, bold: true, anchor: anchor})
	}
	s.heatLegend(&d, off)
	return s.String()
}

func (s *svg) square(x, y float64, c int64) {
	for i := len(steps) - 1; i >= 0; i-- {
		if c >= steps[i].from {
			size := steps[i].size
			s.rect(x-size/2, y-size/2, size, size, indigo, "")
			return
		}
	}
}

// outside hatches the hours before the appliance was there and after the snapshot.
func (s *svg) outside(d *HeatmapData) {
	for i := range d.Seen {
		for h := 0; h < 24; {
			from := h
			for h < 24 && d.Seen[i][h] == '-' {
				h++
			}
			if h > from {
				s.x = true
				s.rect(heatLeft+float64(i)*cellW, heatTop-4+float64(from)*cellH, cellW, float64(h-from)*cellH, "url(#"+s.id+"-out)", "")
			}
			h++
		}
	}
}

func (d *HeatmapData) isOpen(day, hour int) bool {
	return day >= 0 && hour >= 0 && day < len(d.Open) && hour < 24 && d.Open[day][hour] == 'o' && (day >= len(d.Seen) || d.Seen[day][hour] != '-')
}

func (s *svg) open(d *HeatmapData) {
	for i := range d.Open {
		for h := range 24 {
			if d.isOpen(i, h) {
				s.rect(heatLeft+float64(i)*cellW, heatTop-4+float64(h)*cellH, cellW, cellH, hours, "")
			}
		}
	}
}

// openFrames outlines the clinic hours: an edge wherever open meets closed.
func (s *svg) openFrames(d *HeatmapData) {
	for i := range d.Open {
		for h := range 24 {
			if !d.isOpen(i, h) {
				continue
			}
			x, y := heatLeft+float64(i)*cellW, heatTop-4+float64(h)*cellH
			if !d.isOpen(i-1, h) {
				s.line(x, y, x, y+cellH, soft, .8)
			}
			if !d.isOpen(i+1, h) {
				s.line(x+cellW, y, x+cellW, y+cellH, soft, .8)
			}
			if !d.isOpen(i, h-1) {
				s.line(x, y, x+cellW, y, soft, .8)
			}
			if !d.isOpen(i, h+1) {
				s.line(x, y+cellH, x+cellW, y+cellH, soft, .8)
			}
		}
	}
}

func (s *svg) heatLegend(d *HeatmapData, off bool) {
	const y = 390
	s.text(heatLeft, y, d.PerHour, style{colour: soft})
	x := heatLeft + Width(d.PerHour, 11) + 16
	for _, st := range steps {
		s.rect(x, y-4-st.size/2, st.size, st.size, indigo, "")
		s.text(x+st.size+6, y, st.text, style{})
		x += st.size + 6 + Width(st.text, 11) + 12
	}
	if len(d.Open) > 0 {
		s.rect(x, y-11, 20, 14, hours, ` stroke="`+soft+`" stroke-width="0.8"`)
		s.text(x+26, y, d.ClinicHours, style{})
		x += 26 + Width(d.ClinicHours, 11) + 12
	}
	if off {
		s.line(x, y-8, x+8, y, soft, .9)
		s.line(x+8, y-8, x, y, soft, .9)
		s.text(x+13, y, d.Off, style{})
		x += 13 + Width(d.Off, 11) + 12
	}
	if s.x {
		s.rect(x, y-11, 20, 14, "url(#"+s.id+"-out)", ` stroke="#8A96A3" stroke-width="0.6"`)
		s.text(x+26, y, d.Outside, style{})
		x += 26 + Width(d.Outside, 11) + 12
	}
	if x+Width(d.None, 11) <= Full {
		s.text(x, y, d.None, style{})
	}
}
