// Package chart draws the report's charts as SVG that survives a fax: patterns, direct labels, exact millimetres, no colour that
// carries a meaning alone. Package page calls it; the same SVG stands in the PDF and on the console's page. The trap: page CSS
// does not reach inline SVG in the renderer, so fonts and colours are attributes here; 4 units are 1 mm.
package chart

import (
	"fmt"
	"html"
	"strconv"
	"strings"
)

// Colours of the design.
const (
	ink    = "#17212B"
	soft   = "#4A5663"
	rule   = "#C3CBD3"
	hours  = "#E8EDF2"
	indigo = "#1D4E79"
	act    = "#A61B1B"
)

// Widths in units: the whole measure and half of it.
const (
	Full = 680
	Half = 332
)

const fonts = "BIZ UDPGothic, Noto Sans CJK JP, Hiragino Sans, Yu Gothic, sans-serif"

// Fill is how a series is filled; in order of use.
type Fill int

// The fills.
const (
	Solid Fill = iota
	Hatch
	Dots
	White
)

type svg struct {
	id, title, desc string
	w, h            float64
	hatch, dots, x  bool
	body            strings.Builder
}

func newSVG(id, title, desc string, w, h float64) *svg {
	return &svg{id: id, title: title, desc: desc, w: w, h: h}
}

// f prints a number with at most two decimals, always the same way.
func f(x float64) string {
	s := strconv.FormatFloat(x, 'f', 2, 64)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" {
		return "0"
	}
	return s
}

func (s *svg) put(format string, args ...any) { fmt.Fprintf(&s.body, format, args...) }

func (s *svg) rect(x, y, w, h float64, fill, extra string) {
	if w <= 0 || h <= 0 {
		return
	}
	s.put(`<rect x="%s" y="%s" width="%s" height="%s" fill="%s"%s/>`, f(x), f(y), f(w), f(h), fill, extra)
}

// bar is a rect in one of the fills; patterned ones carry an outline, so that they hold their shape in 1 bit.
func (s *svg) bar(x, y, w, h float64, fill Fill) {
	paint := indigo
	switch fill {
	case Hatch:
		s.hatch = true
		paint = "url(#" + s.id + "-hatch)"
	case Dots:
		s.dots = true
		paint = "url(#" + s.id + "-dots)"
	case White:
		paint = "#fff"
	case Solid:
	}
	s.rect(x, y, w, h, paint, ` stroke="`+indigo+`" stroke-width="1"`)
}

func (s *svg) line(x1, y1, x2, y2 float64, colour string, width float64) {
	s.put(`<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="%s" stroke-width="%s"/>`, f(x1), f(y1), f(x2), f(y2), colour, f(width))
}

type style struct {
	size   float64 // 0: 11
	colour string
	anchor string
	bold   bool
}

func (s *svg) text(x, y float64, text string, st style) {
	s.put(`<text x="%s" y="%s"`, f(x), f(y))
	if st.anchor != "" {
		s.put(` text-anchor="%s"`, st.anchor)
	}
	if st.size != 0 {
		s.put(` font-size="%s"`, f(st.size))
	}
	if st.bold {
		s.put(` font-weight="bold"`)
	}
	if st.colour != "" {
		s.put(` fill="%s"`, st.colour)
	}
	s.put(`>%s</text>`, html.EscapeString(text))
}

func (s *svg) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" id="%[1]s" class="chart" viewBox="0 0 %[2]s %[3]s" width="%[4]smm" height="%[5]smm" `+
		`role="img" aria-labelledby="%[1]s-t %[1]s-d" font-family="%[6]s" font-size="11" fill="%[7]s">`+"\n"+
		`<title id="%[1]s-t">%[8]s</title><desc id="%[1]s-d">%[9]s</desc>`+"\n",
		s.id, f(s.w), f(s.h), f(s.w/4), f(s.h/4), fonts, ink, html.EscapeString(s.title), html.EscapeString(s.desc))
	if s.hatch || s.dots || s.x {
		b.WriteString("<defs>")
		if s.hatch {
			fmt.Fprintf(&b, `<pattern id="%s-hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">`+
				`<rect width="5" height="5" fill="#fff"/><line x1="1" y1="0" x2="1" y2="5" stroke="%s" stroke-width="1.7"/></pattern>`, s.id, indigo)
		}
		if s.dots {
			fmt.Fprintf(&b, `<pattern id="%s-dots" width="5" height="5" patternUnits="userSpaceOnUse">`+
				`<rect width="5" height="5" fill="#fff"/><circle cx="2.5" cy="2.5" r="1.15" fill="%s"/></pattern>`, s.id, indigo)
		}
		if s.x {
			fmt.Fprintf(&b, `<pattern id="%s-out" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">`+
				`<line x1="1" y1="0" x2="1" y2="8" stroke="#8A96A3" stroke-width="0.7"/></pattern>`, s.id)
		}
		b.WriteString("</defs>\n")
	}
	b.WriteString(s.body.String())
	b.WriteString("</svg>")
	return b.String()
}

// Width is about how many units a text takes at a size: full-width characters are one size wide, others a bit over half.
func Width(text string, size float64) float64 {
	w := 0.0
	for _, r := range text {
		switch {
		case r < 0x20:
		case r < 0x7f:
			w += size * .58
		case r < 0x300:
			w += size * .6
		default:
			w += size
		}
	}
	return w
}

// fit cuts a text with an ellipsis so that it takes at most so many units.
func fit(text string, size, limit float64) string {
	if Width(text, size) <= limit {
		return text
	}
	runes := []rune(text)
	for len(runes) > 1 && Width(string(runes)+"…", size) > limit {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

// nice is the smallest of 1, 2, 5, 10, 20, 50, ... that divides limit into at most parts steps.
func nice(limit float64, parts int) float64 {
	if limit <= 0 {
		return 1
	}
	for base := 1e-9; ; base *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if step := base * m; step*float64(parts) >= limit*(1-1e-9) {
				return step
			}
		}
	}
}
