// Package page puts a month's facts into words, marks and charts: it makes the value that the template of package render prints.
// Package app calls it. It chooses sentences by what the facts say and never adds a number of its own. The trap: everything
// outside of a chart is a plain string, escaped by html/template; only charts and the style sheet are trusted.
package page

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"github.com/kadomori/kadomori/reporter/internal/checklist"
	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// Mark is a status: class for the style sheet, symbol and word for everyone.
type Mark struct{ Class, Symbol, Word string }

// Value is a number as printed and its evidence id.
type Value struct{ Text, Ev string }

// Line is a sentence and the evidence id of the number in it; Ev may be "".
type Line struct{ Text, Ev string }

// Counts are the three numbers that are never mixed.
type Counts struct{ Detected, Blocked, Passed Value }

// Page is everything the template prints.
type Page struct {
	CSS                                                                                          template.CSS
	DocTitle, Clinic, Director, PeriodLabel, Issued, IssuedDate, RunTitle, DocumentNo, MonthName string
	Disclaimer, Greeting, AsksTitle, AsksNone, Legend, Scope                                     string
	TOC                                                                                          []Link
	Sender                                                                                       Sender
	Verdict                                                                                      Verdict
	TileRows                                                                                     [][]Tile
	Asks                                                                                         []Ask
	Infected                                                                                     Infected
	Attacks                                                                                      Attacks
	Traffic                                                                                      Traffic
	Coverage                                                                                     Coverage
	Appendix                                                                                     Appendix
	Numbers                                                                                      Numbers
	// Short: this is page 1 alone.
	Short     bool
	Flash     Flash
	Ledger    Ledger
	Checklist Checklist
	Colophon  Colophon
}

// Link is an entry of the screen's contents.
type Link struct{ ID, Name string }

// Sender signs the letter.
type Sender struct{ Name, Desk, Line, Phone, Hours string }

// Verdict is the box on page 1.
type Verdict struct {
	Mark Mark
	Lead []string
	Sub  []Line
}

// Tile is one of six figures on page 1.
type Tile struct {
	Mark                  Mark
	Name, Value, Unit, Ev string
	Notes                 []string
}

// Ask is a request.
type Ask struct {
	No                                        int
	Do, Why, Who, When, Minutes, Ref, RefName string
	Ev                                        string
}

// Figure is one of four figures in a strip.
type Figure struct{ Name, Value, Unit, Note, Ev string }

// maker collects the first error, so that sentences can be said in a row.
type maker struct {
	f   *month.Facts
	w   *wording.Set
	m   month.Month
	err error
	// names are the devices' by MAC, for the list of evidence.
	names map[string]string
}

// Build makes the page. The error names the sentence that is missing.
func Build(f *month.Facts, w *wording.Set, packs []checklist.Pack, css string) (*Page, error) {
	m, err := month.Parse(f.Month)
	if err != nil {
		return nil, fmt.Errorf("build page: %w", err)
	}
	k := newMaker(f, w, m)
	digest, err := f.Digest()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%d年%d月", m.Year(), m.Number())
	issued := k.when(f.Issued)
	p := &Page{
		CSS:    template.CSS(css), //nolint:gosec // our own file, embedded
		Clinic: f.Clinic.Name, Issued: f.Issued, IssuedDate: issued.Format("2006年1月2日"), DocumentNo: f.DocumentNo, MonthName: name,
		Disclaimer: k.say("disclaimer"), Greeting: k.say("greeting", "month", name),
		AsksTitle: k.say("asks.title"), AsksNone: k.say("asks.none"), Legend: k.say("scope.legend"), Scope: k.scope(),
		RunTitle: k.say("report_name") + "　" + name + "分",
	}
	p.DocTitle = k.say("report_name") + " " + name + "分 " + f.Clinic.Name
	if f.Clinic.Director != "" {
		p.Director = "院長　" + f.Clinic.Director + " 先生"
	}
	p.PeriodLabel = fmt.Sprintf("対象期間　%s1日〜%d日", name, m.Days())
	if f.Running {
		through := k.when(f.Through)
		p.PeriodLabel = fmt.Sprintf("対象期間　%s1日〜%s（%s）", name, through.Format("2日 15:04"), k.say("running"))
	}
	p.Sender = k.sender()
	p.Verdict = k.verdict()
	p.TileRows = k.tiles()
	p.Asks = k.asks()
	p.Infected = k.infected()
	p.Attacks = k.attacks()
	p.Traffic = k.traffic()
	p.Coverage = k.coverage()
	p.Ledger = k.ledger()
	p.Checklist = k.checklist(packs)
	p.Numbers = k.numbers()
	p.Appendix = k.appendix()
	p.Colophon = Colophon{
		Title: k.say("coverage.ids"), Digest: fmt.Sprintf("%x", digest),
		Text: k.say("coverage.colophon", "no", f.DocumentNo, "rev", strconv.Itoa(f.Revision), "issued", issued.Format("2006年1月2日 15:04")),
	}
	k.unitless(p)
	if f.Verdict == month.Hold {
		p.Legend = k.say("scope.legend_hold")
	}
	p.TOC = []Link{{"summary", "今月のまとめ"}, {"infected", "感染端末"}, {"attacks", "攻撃検知"}, {"traffic", "通信の状況"}, {"ledger", "機器台帳"}, {"checklist", "チェックリスト"}, {"coverage", "観測範囲"}, {"numbers", "図の数値"}, {"appendix", "証跡"}}
	return p, k.err
}

// unitless takes the unit off a value that isn't known: 「－」 is not a number of anything.
func (k *maker) unitless(p *Page) {
	dash := k.say("tiles.unknown")
	for _, row := range p.TileRows {
		for i := range row {
			if row[i].Value == dash {
				row[i].Unit = ""
			}
		}
	}
	for _, figures := range [][]Figure{p.Infected.Figures, p.Traffic.Figures, p.Ledger.Figures} {
		for i := range figures {
			if figures[i].Value == dash {
				figures[i].Unit = ""
			}
		}
	}
}

func newMaker(f *month.Facts, w *wording.Set, m month.Month) *maker {
	k := &maker{f: f, w: w, m: m, names: map[string]string{}}
	add := func(id month.Identity) {
		if id.Name != "" {
			k.names[id.Key] = id.Name
		}
	}
	for _, d := range f.Infected.Devices {
		add(d.Identity)
	}
	for _, d := range f.Infected.Rows {
		add(d.Identity)
	}
	for _, d := range f.Attacks.Targets {
		add(d.Identity)
	}
	for _, d := range f.Traffic.Devices {
		add(d.Identity)
	}
	return k
}

func (k *maker) say(key string, pairs ...string) string {
	s, err := k.w.Say(key, pairs...)
	if err != nil && k.err == nil {
		k.err = err
	}
	return s
}

func (k *maker) mark(class string) Mark {
	return Mark{class, k.say("marks." + class + ".symbol"), k.say("marks." + class + ".word")}
}

// noAction is the green mark where nothing has to be done, which says more than 良好 beside a number of attacks.
func (k *maker) noAction() Mark {
	m := k.mark("ok")
	m.Word = k.say("no_action")
	return m
}

func (k *maker) sender() Sender {
	s := k.f.Sender
	or := func(v, key string) string {
		if v == "" {
			return k.say(key)
		}
		return v
	}
	out := Sender{Name: or(s.Name, "fallback_sender"), Desk: or(s.Desk, "fallback_desk"), Phone: or(s.Phone, "fallback_phone"), Hours: or(s.Hours, "fallback_hours")}
	switch {
	case s.Phone == "":
		out.Line = out.Phone
	case s.Hours == "":
		out.Line = "電話 " + s.Phone
	default:
		out.Line = "電話 " + s.Phone + "（" + s.Hours + "）"
	}
	return out
}

// known tells whether zeros may be printed: only with coverage.
func (k *maker) known() bool { return k.f.Coverage.Known }

func (k *maker) lost() int64 { return k.f.Coverage.LostDeclared.N + k.f.Coverage.LostSilent.N }

func (k *maker) zoneNames() string {
	z := k.f.Coverage.Zones
	if len(z) == 0 {
		return k.say("scope.no_zones")
	}
	names := make([]string, len(z))
	for i := range z {
		names[i] = k.zone(z[i])
	}
	return k.say("scope.zones", "list", strings.Join(names, "・"), "n", strconv.Itoa(len(z)))
}

func (k *maker) zone(z string) string {
	if k.w.Has("zones." + z) {
		return k.say("zones." + z)
	}
	return z
}

func (k *maker) uptime() string { return tenths(k.f.Coverage.Uptime.N) }

func (k *maker) scope() string {
	if !k.known() {
		return k.say("scope.none")
	}
	return k.say("scope.text", "zones", k.zoneNames(), "uptime", k.uptime())
}

// device is how a device is called on paper, with the address beside it.
func (k *maker) device(id month.Identity) (name, ip string) {
	switch {
	case id.Key == "guest":
		return k.say("guest_device"), ""
	case id.Name != "":
		return id.Name, id.IP
	case id.IP != "":
		return k.say("unnamed_device"), id.IP
	case id.Key != "":
		return k.say("unnamed_device"), "MAC " + id.Key
	}
	return k.say("unknown_device"), ""
}

func (k *maker) when(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil && k.err == nil {
		k.err = fmt.Errorf("build page: %w", err)
	}
	return t.In(month.JST)
}

func (k *maker) moment(s string) string { return k.when(s).Format("1月2日 15:04") }
func (k *maker) short(s string) string  { return k.when(s).Format("01/02 15:04") }

var weekdays = [...]string{"日", "月", "火", "水", "木", "金", "土"}

func (k *maker) counts(detected, blocked, passed month.Num) Counts {
	v := func(n month.Num) Value { return Value{k.num(n.N), n.Ev} }
	return Counts{v(detected), v(blocked), v(passed)}
}

// num prints a count; a zero that nobody watched is not one.
func (k *maker) num(n int64) string {
	if n == 0 && !k.known() {
		return k.say("tiles.unknown")
	}
	return comma(n)
}

// change is sign, number and word against the month before.
func change(now int64, was *month.Num, unit string) string {
	if was == nil {
		return "－"
	}
	switch d := now - was.N; {
	case d > 0:
		return "▲ " + comma(d) + unit + " 増"
	case d < 0:
		return "▼ " + comma(-d) + unit + " 減"
	}
	return "±0"
}
