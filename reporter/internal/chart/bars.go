package chart

import (
	"math"
	"strconv"
)

// DailyData is traffic by day.
type DailyData struct {
	ID, Title, Desc         string
	Days                    []Day
	In, Out, Before         []float64 // in Unit; Before below 0 = unknown
	Unit                    string
	Received, Sent, Earlier string
	// NoData has true for days outside the time that can be told of.
	NoData []bool
}

// Daily stacks sent on received, with a tick for the same weekday four weeks before.
func Daily(d DailyData) string {
	const left, base, top = 34.0, 138.0, 24.0
	s := newSVG(d.ID, d.Title, d.Desc, Full, 172)
	limit := 0.0
	earlier := false
	for i := range d.In {
		limit = max(limit, d.In[i]+d.Out[i], d.Before[i])
		earlier = earlier || d.Before[i] >= 0
	}
	step := nice(limit, 4)
	scale := 0.0
	if limit > 0 {
		scale = (base - top) / limit
	}
	for v := 0.0; v <= limit*(1+1e-9); v += step {
		y := base - v*scale
		s.line(left, y, Full, y, rule, .7)
		s.text(28, y+4, strconv.FormatFloat(v, 'f', -1, 64), style{size: 10.5, colour: soft, anchor: "end"})
		if limit == 0 {
			break
		}
	}
	s.text(28, 10, d.Unit, style{size: 10.5, colour: soft, anchor: "end"})
	col := (Full - left) / float64(max(len(d.Days), 1))
	w := col * .663
	for i, day := range d.Days {
		x := left + float64(i)*col + (col-w)/2
		if i < len(d.NoData) && d.NoData[i] {
			s.x = true
			s.rect(left+float64(i)*col, top, col, base-top, "url(#"+s.id+"-out)", "")
		}
		in, out := d.In[i]*scale, d.Out[i]*scale
		s.rect(x, base-in, w, in, indigo, "")
		if out > .4 {
			s.bar(x, base-in-out, w, out, Hatch)
		}
		if d.Before[i] >= 0 {
			y := base - d.Before[i]*scale
			s.line(x-2.5, y, x+w+2.5, y, "#fff", 4)
			s.line(x-2, y, x+w+2, y, ink, 2)
		}
		st := style{size: 10.5, anchor: "middle", colour: soft}
		if day.Rest {
			st.bold, st.colour = true, ""
		}
		s.text(x+w/2, 152, strconv.Itoa(day.Number), st)
		s.text(x+w/2, 165, day.Weekday, st)
	}
	s.line(left, base, Full, base, ink, 1)
	x := Full - 144.0
	if earlier {
		x = Full - 268
		s.line(Full-134, 8, Full-114, 8, ink, 2)
		s.text(Full-106, 12, d.Earlier, style{})
	}
	s.rect(x, 2, 20, 11, indigo, "")
	s.text(x+26, 12, d.Received, style{})
	s.bar(x+66, 2, 20, 11, Hatch)
	s.text(x+92, 12, d.Sent, style{})
	return s.String()
}

// Part is a group of the one-hundred-percent bar.
type Part struct {
	Name   string
	Tenths int64
	Fill   Fill
}

// ShareBar is one 100 % bar, each part labelled below; parts that are too narrow for their words hand them to the next line.
func ShareBar(id, title, desc string, parts []Part) string {
	s := newSVG(id, title, desc, Full, 74)
	x, freeAt := 1.0, [2]float64{}
	level2 := false
	for _, p := range parts {
		if p.Tenths <= 0 {
			continue
		}
		w := 678 * float64(p.Tenths) / 1000
		s.bar(x, 2, w, 30, p.Fill)
		pct := Tenths(p.Tenths) + "%"
		need := max(Width(p.Name, 11.5), Width(pct, 15)) + 12
		at := min(x+6, Full-need+6)
		lane := 0
		if at < freeAt[0] {
			lane, level2 = 1, true
			at = max(at, min(freeAt[1], Full-need+6))
		}
		drop := float64(lane) * 42
		s.line(x+.5, 32, x+.5, 42+drop, soft, .9)
		s.text(at, 48+drop, p.Name, style{size: 11.5})
		s.text(at, 66+drop, pct, style{size: 15, bold: true})
		freeAt[lane] = at + need
		x += w
	}
	if level2 {
		s.h += 42
	}
	return s.String()
}

// Tenths prints tenths with one decimal: 214 is "21.4".
func Tenths(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	return sign + strconv.FormatInt(n/10, 10) + "." + strconv.FormatInt(n%10, 10)
}

// RankRow is a line of the application ranking.
type RankRow struct {
	Name, Amount, Change string
	Tenths               int64
	Fill                 Fill
}

// ShareRank is the ranked bars with their figures, closed by the sum.
func ShareRank(id, title, desc string, head [4]string, rows []RankRow, sum RankRow) string {
	const line = 17.6
	h := 26 + line*float64(len(rows)+1)
	s := newSVG(id, title, desc, Full, h)
	st := style{size: 10.5, colour: soft}
	end := st
	end.anchor = "end"
	s.text(0, 12, head[0], st)
	s.text(190, 12, head[1], st)
	s.text(580, 12, head[2], end)
	s.text(Full, 12, head[3], end)
	s.line(0, 19, Full, 19, ink, 1)
	top := int64(1)
	for _, r := range rows {
		top = max(top, r.Tenths)
	}
	for i, r := range rows {
		y := 35 + float64(i)*line
		if i > 0 {
			s.line(0, y-13, Full, y-13, rule, .6)
		}
		w := max(290*float64(r.Tenths)/float64(top), .8)
		s.text(0, y, fit(r.Name, 11.5, 184), style{size: 11.5})
		s.bar(190, y-9.5, w, 11, r.Fill)
		s.text(190+w+7, y, Tenths(r.Tenths)+"%", style{size: 11.5, bold: true})
		s.text(580, y, r.Amount, style{size: 11.5, anchor: "end"})
		s.text(Full, y, r.Change, style{size: 11.5, anchor: "end"})
	}
	y := 35 + float64(len(rows))*line
	s.line(0, y-13, Full, y-13, ink, 1)
	s.text(0, y+1, sum.Name, style{size: 11.5, bold: true})
	s.text(190, y+1, Tenths(sum.Tenths)+"%", style{size: 11.5, bold: true})
	s.text(580, y+1, sum.Amount, style{size: 11.5, bold: true, anchor: "end"})
	return s.String()
}

// Ranked is a line of a plain ranking.
type Ranked struct {
	Name, Value string
	Count       int64
}

// Ranking is half a page wide: name, bar, number at its end. nameWidth is how many units the names may take, 0 for 100.
func Ranking(id, title, desc string, width, nameWidth float64, rows []Ranked) string {
	const line = 19
	if nameWidth == 0 {
		nameWidth = 100
	}
	s := newSVG(id, title, desc, width, float64(len(rows))*line+4)
	var top int64 = 1
	room := 0.0
	for _, r := range rows {
		top = max(top, r.Count)
		room = max(room, Width(r.Value, 11.5)*1.2)
	}
	span := width - nameWidth - 4 - 7 - room
	for i, r := range rows {
		y := 13 + float64(i)*line
		w := max(span*float64(r.Count)/float64(top), .8)
		s.text(0, y, fit(r.Name, 11.5, nameWidth), style{size: 11.5})
		s.rect(nameWidth+4, y-9.5, w, 11, indigo, "")
		s.text(nameWidth+4+w+7, y, r.Value, style{size: 11.5, bold: true})
	}
	return s.String()
}

// TrendMonth is one column of the twelve months.
type TrendMonth struct {
	Name         string
	Bot, Malware int64
	Known        bool
	Now          bool
}

// Trend stacks bots on malware for twelve months. A month without observation has a dash, not a zero.
func Trend(id, title, desc, bot, malware, unknown string, months []TrendMonth) string {
	const left, base = 34.0, 76.0
	s := newSVG(id, title, desc, Full, 110)
	var top int64
	hole := false
	for _, m := range months {
		top = max(top, m.Bot+m.Malware)
		hole = hole || !m.Known
	}
	step := math.Max(nice(float64(top), 2), 1)
	scale := 50 / math.Max(float64(top), step)
	for v := step; v <= float64(top)*(1+1e-9) || v == step; v += step {
		y := base - v*scale
		s.line(left, y, Full, y, rule, .7)
		s.text(28, y+4, strconv.FormatFloat(v, 'f', -1, 64), style{size: 10.5, colour: soft, anchor: "end"})
	}
	s.text(28, 80, "0", style{size: 10.5, colour: soft, anchor: "end"})
	col := (Full - left) / float64(len(months))
	for i, m := range months {
		x := left + (float64(i)+.5)*col
		st := style{size: 11, anchor: "middle", bold: m.Now}
		if m.Known {
			hm, hb := float64(m.Malware)*scale, float64(m.Bot)*scale
			if hm > 0 {
				s.bar(x-12, base-hm, 24, hm, Hatch)
			}
			s.rect(x-12, base-hm-hb, 24, hb, act, "")
			s.text(x, base-hm-hb-5, strconv.FormatInt(m.Bot+m.Malware, 10), st)
		} else {
			s.text(x, base-5, "－", style{size: 11, anchor: "middle", colour: soft})
		}
		s.text(x, 91, m.Name, style{size: 10.5, anchor: "middle", bold: m.Now})
	}
	s.line(left, base, Full, base, ink, 1)
	s.rect(left, 98, 20, 10, act, "")
	s.text(60, 107.5, bot, style{})
	x := 60 + Width(bot, 11) + 20
	s.bar(x, 98, 20, 10, Hatch)
	s.text(x+26, 107.5, malware, style{})
	if hole {
		s.text(x+26+Width(malware, 11)+20, 107.5, unknown, style{colour: soft})
	}
	return s.String()
}
