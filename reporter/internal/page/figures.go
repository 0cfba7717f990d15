package page

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// Numbers are the charts as tables, for those who read with their ears and for those who want to check.
type Numbers struct {
	Title, Lead, DaysTitle, HoursTitle, MonthsTitle string
	Days                                            []DayRow
	HourHead, HourCounts                            []string
	MonthHead                                       []string
	Months                                          []NumberRow
	Ev                                              string
}

// DayRow is one day of the month.
type DayRow struct{ Day, Detected, In, Out, Before, Seen string }

// NumberRow is a row of twelve months.
type NumberRow struct {
	Name   string
	Values []string
}

func (k *maker) numbers() Numbers {
	f := k.f
	out := Numbers{
		Title: k.say("numbers.title"), Lead: k.say("numbers.lead"), DaysTitle: k.say("numbers.days"), HoursTitle: k.say("numbers.hours"),
		MonthsTitle: k.say("numbers.months"), Ev: f.Attacks.Detected.Ev,
	}
	dash := k.say("tiles.unknown")
	var hours [24]int64
	for d, t := range f.Traffic.Days {
		var n int64
		for h, c := range f.Attacks.Heat[d] {
			n += c
			hours[h] += c
		}
		at := k.m.Start().AddDate(0, 0, d)
		row := DayRow{
			Day: fmt.Sprintf("%d日（%s）", d+1, weekdays[at.Weekday()]), Detected: comma(n), In: volume(t.In), Out: volume(t.Out), Before: dash,
			Seen: strconv.Itoa(strings.Count(f.Coverage.Hours[d], "o")) + "時間",
		}
		if t.Before >= 0 {
			row.Before = volume(t.Before)
		}
		// A day that nobody watched has no numbers; what came in nevertheless is printed.
		if !strings.Contains(f.Coverage.Hours[d], "o") {
			for _, v := range []struct {
				text *string
				n    int64
			}{{&row.Detected, n}, {&row.In, t.In}, {&row.Out, t.Out}} {
				if v.n == 0 {
					*v.text = dash
				}
			}
		}
		out.Days = append(out.Days, row)
	}
	for h, n := range hours {
		out.HourHead = append(out.HourHead, strconv.Itoa(h))
		out.HourCounts = append(out.HourCounts, k.num(n))
	}
	rows := []NumberRow{
		{Name: k.say("found.bot.name")}, {Name: k.say("found.malware.name")}, {Name: k.say("numbers.attacks")}, {Name: k.say("tiles.infected")},
	}
	for _, t := range f.Trend {
		m, err := month.Parse(t.Month)
		if err != nil && k.err == nil {
			k.err = err
		}
		out.MonthHead = append(out.MonthHead, strconv.Itoa(m.Number())+"月")
		for i, n := range []month.Num{t.Bot, t.Malware, t.Attacks, t.Infected} {
			text := dash
			if t.Known {
				text = comma(n.N)
			}
			rows[i].Values = append(rows[i].Values, text)
		}
	}
	out.Months = rows
	return out
}

// Files are what goes along with the PDF: evidence of every number, and the findings by device in full.
func Files(f *month.Facts, w *wording.Set) (evidence, devices []byte, err error) {
	m, err := month.Parse(f.Month)
	if err != nil {
		return nil, nil, fmt.Errorf("write csv: %w", err)
	}
	k := newMaker(f, w, m)
	rows := [][]string{{"証跡番号", "数字", "値", "単位", "元の記録", "行数", "期間（始）", "期間（終）", "装置", "記録列", "通し番号"}}
	for _, e := range f.Evidence {
		head := []string{e.ID, k.evidenceName(e.What), strconv.FormatInt(e.Value, 10), e.Unit, e.View, strconv.FormatInt(e.Rows, 10), e.From, e.To}
		if len(e.Of) == 0 {
			rows = append(rows, append(head, "", "", ""))
		}
		for _, s := range e.Of {
			for _, seqs := range chunks(s.Seqs) {
				rows = append(rows, append(head[:8:8], strconv.Itoa(int(s.Appliance)), s.Stream, seqs))
			}
		}
	}
	if evidence, err = table(rows); err != nil {
		return nil, nil, err
	}
	rows = [][]string{{"端末", "IPアドレス", "区画", "見つかったもの", "検知", "遮断", "通過", "最後の観測", "判定", "証跡番号"}}
	for _, r := range f.Infected.Rows {
		name, ip := k.device(r.Identity)
		mark := k.mark(r.Mark)
		rows = append(rows, []string{
			name, ip, k.zone(r.Zone), k.say("found." + r.Category + ".name"), strconv.FormatInt(r.Detected.N, 10), strconv.FormatInt(r.Blocked.N, 10),
			strconv.FormatInt(r.Passed.N, 10), r.Last, mark.Word, r.Detected.Ev,
		})
	}
	if devices, err = table(rows); err != nil {
		return nil, nil, err
	}
	return evidence, devices, k.err
}

// maxCell is what spreadsheets take in a cell (32,767 characters), with room.
const maxCell = 30_000

// chunks cuts a list of runs at commas, so that no cell is too long.
func chunks(seqs string) []string {
	var out []string
	for len(seqs) > maxCell {
		cut := strings.LastIndexByte(seqs[:maxCell], ',')
		out = append(out, seqs[:cut])
		seqs = seqs[cut+1:]
	}
	return append(out, seqs)
}

// table writes CSV as spreadsheets here want it: with a byte order mark, CRLF, and no cell that could be taken for a formula.
func table(rows [][]string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("\ufeff")
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	for _, row := range rows {
		for i, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				row[i] = "'" + cell
			}
		}
		if err := w.Write(row); err != nil {
			return nil, fmt.Errorf("write csv: %w", err)
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return nil, fmt.Errorf("write csv: %w", err)
	}
	return b.Bytes(), nil
}
