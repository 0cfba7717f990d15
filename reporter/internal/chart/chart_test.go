package chart_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/kadomori/kadomori/reporter/internal/chart"
)

// wellFormed parses a chart and returns its texts; every coordinate must be a number with at most two decimals.
func wellFormed(t *testing.T, svg string) []string {
	t.Helper()
	dec := xml.NewDecoder(strings.NewReader(svg))
	var texts []string
	in := ""
	ids := map[string]bool{}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			in = tok.Name.Local
			for _, a := range tok.Attr {
				switch a.Name.Local {
				case "id":
					if ids[a.Value] {
						t.Errorf("id %s twice", a.Value)
					}
					ids[a.Value] = true
				case "x", "y", "x1", "x2", "y1", "y2", "width", "height":
					v := strings.TrimSuffix(a.Value, "mm")
					n, err := strconv.ParseFloat(v, 64)
					if _, decimals, _ := strings.Cut(v, "."); err != nil || len(decimals) > 2 || n != n {
						t.Errorf("%s %s=%q", in, a.Name.Local, a.Value)
					}
				}
			}
		case xml.CharData:
			if in == "text" || in == "title" || in == "desc" {
				texts = append(texts, string(tok))
			}
		case xml.EndElement:
			in = ""
		}
	}
	return texts
}

func TestTextsAreEscaped(t *testing.T) {
	const evil = `"><script>&</text>`
	svg := chart.Ranking("r", evil, evil, chart.Half, 122, []chart.Ranked{{Name: evil, Value: evil, Count: 3}})
	if strings.Contains(svg, "<script>") || strings.Contains(svg, "</text></text>") {
		t.Error(svg)
	}
	if texts := wellFormed(t, svg); texts[0] != evil {
		t.Errorf("title %q", texts[0])
	}
}

func TestHeatmapTellsNoneFromNotWatched(t *testing.T) {
	d := chart.HeatmapData{ID: "h", Title: "t", Desc: "d", Off: "装置停止", Outside: "集計期間外", None: "空白＝検知なし", PerHour: "p", ClinicHours: "診療時間", DayTotal: "x"}
	for i := range 31 {
		d.Days = append(d.Days, chart.Day{Number: i + 1, Weekday: "月"})
		d.Counts = append(d.Counts, [24]int64{})
		d.Seen = append(d.Seen, strings.Repeat("o", 24))
	}
	plain := chart.Heatmap(d)
	wellFormed(t, plain)
	if strings.Contains(plain, "装置停止") || strings.Contains(plain, "集計期間外") || strings.Contains(plain, "h-out") {
		t.Error("a watched month has marks of absence")
	}
	d.Seen[3], d.Seen[30] = strings.Repeat("x", 24), strings.Repeat("-", 24)
	d.Counts[5][7] = 24
	marked := chart.Heatmap(d)
	wellFormed(t, marked)
	if !strings.Contains(marked, "装置停止") || !strings.Contains(marked, "集計期間外") {
		t.Error("hours without a sensor have no legend")
	}
	if got := strings.Count(marked, "<line") - strings.Count(plain, "<line"); got != 2*24+2+1 {
		t.Errorf("%d more lines, want two a crossed cell, two in the legend and one in the pattern", got)
	}
}

func TestZeroAndHugeValuesStayInside(t *testing.T) {
	for _, n := range []int64{0, 1, 7, 1_000_000_000_000} {
		months := make([]chart.TrendMonth, 12)
		for i := range months {
			months[i] = chart.TrendMonth{Name: "1月", Bot: n, Malware: n / 2, Known: i%2 == 0}
		}
		wellFormed(t, chart.Trend("t", "t", "d", "b", "m", "u", months))
		wellFormed(t, chart.Ranking("r", "t", "d", chart.Full, 0, []chart.Ranked{{Name: strings.Repeat("長", 50), Value: strconv.FormatInt(n, 10), Count: n}}))
		d := chart.DailyData{ID: "d", Days: []chart.Day{{Number: 1}}, In: []float64{float64(n)}, Out: []float64{0}, Before: []float64{-1}}
		wellFormed(t, chart.Daily(d))
	}
	for _, parts := range [][]int64{{1000}, {0, 0, 0, 1000}, {990, 4, 3, 3}, {0}} {
		list := make([]chart.Part, len(parts))
		for i, p := range parts {
			list[i] = chart.Part{Name: "業務一般（Web・メール等）", Tenths: p, Fill: chart.Fill(i)}
		}
		wellFormed(t, chart.ShareBar("s", "t", "d", list))
	}
}

func TestTenths(t *testing.T) {
	for n, want := range map[int64]string{0: "0.0", 7: "0.7", 214: "21.4", 1000: "100.0", -3: "-0.3"} {
		if got := chart.Tenths(n); got != want {
			t.Errorf("Tenths(%d) = %s, want %s", n, got, want)
		}
	}
}
