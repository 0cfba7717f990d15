package page

import (
	"fmt"
	"html/template"
	"strconv"

	"github.com/kadomori/kadomori/reporter/internal/chart"
	"github.com/kadomori/kadomori/reporter/internal/checklist"
	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// Annual is the year's report: head and letter as the month's, a table of twelve months, their identities, the checklist.
type Annual struct {
	Page
	Title, Lead, TableTitle, TrendTitle, ListTitle, ListNote, Note string
	Rows                                                           []AnnualRow
	Sum                                                            AnnualRow
	Trend                                                          template.HTML
	List                                                           []AnnualID
	HasChecklist                                                   bool
}

// AnnualRow is a month.
type AnnualRow struct {
	Month, Infected, Detected, Blocked, Passed, Volume, Uptime, Unprotected, Lost string
	Mark                                                                          Mark
}

// AnnualID identifies a month's report.
type AnnualID struct{ Month, DocumentNo, Revision, Digest string }

// BuildAnnual makes the page of a year.
func BuildAnnual(a *month.Annual, w *wording.Set, packs []checklist.Pack, css string) (*Annual, error) {
	first, err := month.Parse(fmt.Sprintf("%04d-04", a.FiscalYear))
	if err != nil {
		return nil, fmt.Errorf("build year's page: %w", err)
	}
	digest, _, err := a.Digest()
	if err != nil {
		return nil, err
	}
	facts := &month.Facts{Clinic: a.Clinic, Sender: a.Sender, Issued: a.Issued, Month: first.String(), DocumentNo: a.DocumentNo}
	k := newMaker(facts, w, first)
	issued := k.when(a.Issued)
	era := "令和" + strconv.Itoa(a.FiscalYear-2018) + "年度"
	period := fmt.Sprintf("%d年4月〜%d年3月", a.FiscalYear, a.FiscalYear+1)
	out := &Annual{Page: Page{
		CSS:    template.CSS(css), //nolint:gosec // our own file, embedded
		Clinic: a.Clinic.Name, Issued: a.Issued, IssuedDate: issued.Format("2006年1月2日"), DocumentNo: a.DocumentNo, MonthName: era,
		Disclaimer: k.say("disclaimer"), Greeting: k.say("annual.greeting", "year", era), RunTitle: k.say("annual.name") + "　" + era,
		PeriodLabel: "対象期間　" + period, Sender: k.sender(),
	}}
	out.DocTitle = k.say("annual.name") + " " + era + " " + a.Clinic.Name
	if a.Clinic.Director != "" {
		out.Director = "院長　" + a.Clinic.Director + " 先生"
	}
	out.Title, out.TableTitle, out.TrendTitle = k.say("annual.title"), k.say("annual.table"), k.say("annual.trend")
	out.ListTitle, out.ListNote, out.Note = k.say("annual.list"), k.say("annual.list_note"), k.say("annual.note")
	k.annualRows(a, out)
	out.Colophon = Colophon{
		Title: k.say("coverage.ids"), Digest: fmt.Sprintf("%x", digest),
		Text: k.say("annual.colophon", "no", a.DocumentNo, "issued", issued.Format("2006年1月2日 15:04")),
	}
	if a.Latest != nil {
		m, err := month.Parse(a.Latest.Month)
		if err != nil {
			return nil, fmt.Errorf("build year's page: %w", err)
		}
		latest := newMaker(a.Latest, w, m)
		out.Checklist, out.HasChecklist = latest.checklist(packs), true
		if latest.err != nil && k.err == nil {
			k.err = latest.err
		}
	}
	return out, k.err
}

func (k *maker) annualRows(a *month.Annual, out *Annual) {
	dash := k.say("tiles.unknown")
	var sum month.AnnualMonth
	var reported int64
	trend := make([]chart.TrendMonth, 0, len(a.Months))
	for _, l := range a.Months {
		m, err := month.Parse(l.Month)
		if err != nil && k.err == nil {
			k.err = err
		}
		name := fmt.Sprintf("%d年%d月", m.Year(), m.Number())
		row := AnnualRow{Month: name, Infected: dash, Detected: dash, Blocked: dash, Passed: dash, Volume: dash, Uptime: dash, Unprotected: dash, Lost: dash}
		row.Mark = Mark{"na", "－", k.say("annual.none")}
		if l.Reported {
			reported++
			row.Mark = k.mark(string(l.Verdict))
			if l.Running {
				row.Month += "（" + k.say("running") + "）"
			}
			if l.Known {
				row.Infected, row.Detected, row.Blocked, row.Passed = comma(l.Infected), comma(l.Detected), comma(l.Blocked), comma(l.Passed)
				row.Volume, row.Uptime, row.Unprotected, row.Lost = volume(l.Bytes), tenths(l.Uptime)+"%", duration(l.Unprotected), comma(l.Lost)
			}
			sum.Infected, sum.Detected, sum.Blocked, sum.Passed = sum.Infected+l.Infected, sum.Detected+l.Detected, sum.Blocked+l.Blocked, sum.Passed+l.Passed
			sum.Bytes, sum.Unprotected, sum.Lost = sum.Bytes+l.Bytes, sum.Unprotected+l.Unprotected, sum.Lost+l.Lost
			out.List = append(out.List, AnnualID{name, l.DocumentNo, strconv.Itoa(l.Revision), l.DataSHA256})
		}
		out.Rows = append(out.Rows, row)
		trend = append(trend, chart.TrendMonth{Name: strconv.Itoa(m.Number()) + "月", Bot: l.Bot, Malware: l.Malware, Known: l.Known})
	}
	out.Sum = AnnualRow{
		Month: "合計", Infected: comma(sum.Infected), Detected: comma(sum.Detected), Blocked: comma(sum.Blocked), Passed: comma(sum.Passed),
		Volume: volume(sum.Bytes), Unprotected: duration(sum.Unprotected), Lost: comma(sum.Lost),
	}
	out.Lead = k.say("annual.lead", "n", comma(reported), "detected", comma(sum.Detected), "blocked", comma(sum.Blocked))
	if reported == 0 {
		out.Lead = k.say("annual.lead_none")
		out.Sum = AnnualRow{Month: "合計", Infected: dash, Detected: dash, Blocked: dash, Passed: dash, Volume: dash, Unprotected: dash, Lost: dash}
	}
	out.Trend = safe(chart.Trend("annual-trend", out.TrendTitle, "ボットとみられる通信とマルウェアの検知件数の月別推移です。数値は表にあります。",
		k.say("found.bot.name"), k.say("found.malware.name"), "－ 記録なし", trend))
}
