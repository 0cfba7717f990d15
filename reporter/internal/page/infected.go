package page

import (
	"html/template"
	"strconv"
	"strings"

	"github.com/kadomori/kadomori/reporter/internal/chart"
	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Infected is page 2.
type Infected struct {
	Title, Lead, Empty, MoreTitle, RowsTitle, RowsMore, RowsEmpty, TrendTitle, TrendEv, Note string
	Figures                                                                                  []Figure
	Cards                                                                                    []Card
	More                                                                                     []MoreDevice
	Rows                                                                                     []FoundRow
	Trend                                                                                    template.HTML
}

// Card is one device under suspicion.
type Card struct {
	Mark                                                       Mark
	Name, Where, SeenTitle, TodoTitle, HandoverTitle, Handover string
	Seen                                                       []Line
	Facts                                                      []Fact
	Steps                                                      []string
}

// Fact is a line of the card.
type Fact struct{ Name, Text, Ev string }

// MoreDevice is a device under suspicion beyond the cards.
type MoreDevice struct {
	Mark                             Mark
	Name, IP, Certainty, First, Last string
	Counts                           Counts
}

// FoundRow is a line of the table by device.
type FoundRow struct {
	Mark                        Mark
	Name, IP, What, Gloss, Last string
	Counts                      Counts
}

// rowsBeside is how many lines of the table fit on the page beside so many cards.
var rowsBeside = [...]int{8, 4, 4, 4}

func (k *maker) infected() Infected {
	f := &k.f.Infected
	out := Infected{
		Title: k.say("infected.title"), MoreTitle: k.say("infected.more_title"), RowsTitle: k.say("infected.rows"),
		TrendTitle: k.say("infected.trend"), Note: k.say("infected.note"), Trend: k.trend(),
	}
	evs := make([]string, 0, len(k.f.Trend))
	for _, t := range k.f.Trend {
		if t.Known {
			evs = append(evs, t.Bot.Ev)
		}
	}
	out.TrendEv = strings.Join(evs, " ")
	care := false
	for _, d := range f.Devices {
		care = care || d.CareCritical || d.Key == "guest"
	}
	switch {
	case f.Count.N > 0 && care:
		out.Lead = k.say("infected.lead_call", "n", comma(f.Count.N))
	case f.Count.N > 0:
		out.Lead = k.say("infected.lead", "n", comma(f.Count.N))
	case k.blind():
		out.Lead = k.say("infected.lead_blind")
		out.Empty = k.say("infected.rows_blind")
		if k.known() {
			out.Empty = k.say("verdict.hold_uptime") + k.say("verdict.hold_uptime_do", "uptime", k.uptime())
		}
	default:
		out.Lead = k.say("infected.lead_none")
		out.Empty = k.say("infected.none", "zones", k.zoneNames(), "uptime", k.uptime())
	}
	cards := f.Devices
	if len(cards) > 3 {
		cards = cards[:2]
		for _, d := range f.Devices[2:] {
			name, ip := k.device(d.Identity)
			out.More = append(out.More, MoreDevice{
				k.mark("act"), name, ip, k.say("certainty.c" + certainty(d.Certainty)), k.short(d.First), k.short(d.Last),
				k.counts(d.Detected, d.Blocked, d.Passed),
			})
		}
	}
	for i := range cards {
		out.Cards = append(out.Cards, k.card(&cards[i]))
	}
	rows := f.Rows[:min(len(f.Rows), rowsBeside[min(len(out.Cards), 3)])] // the rest is in the file
	for _, r := range rows {
		name, ip := k.device(r.Identity)
		m := k.mark(r.Mark)
		if r.Mark == "ok" {
			m = k.noAction()
		}
		out.Rows = append(out.Rows, FoundRow{
			m, name, ip, k.say("found." + r.Category + ".name"), k.say("found." + r.Category + ".gloss"), k.short(r.Last),
			k.counts(r.Detected, r.Blocked, r.Passed),
		})
	}
	if n := f.MoreRows + len(f.Rows) - len(rows); n > 0 {
		out.RowsMore = k.say("infected.rows_more", "n", strconv.Itoa(n))
	}
	out.RowsEmpty = k.say("infected.rows_none")
	if k.blind() {
		out.RowsEmpty = k.say("infected.rows_hold")
	}
	if !k.known() {
		out.RowsEmpty = k.say("infected.rows_blind")
	}
	out.Figures = k.infectedFigures()
	return out
}

func (k *maker) infectedFigures() []Figure {
	f := &k.f.Infected
	note := tight(k.before(f.Count.N, f.Was, "台"))
	figs := []Figure{{k.say("tiles.infected"), k.num(f.Count.N), "台", note, f.Count.Ev}}
	for _, r := range k.f.Attacks.Rows {
		if r.Category == "malware" || r.Category == "bot" {
			note := k.say("tiles.blocked_passed", "blocked", comma(r.Blocked.N), "passed", comma(r.Passed.N))
			if !k.known() {
				note = k.say("tiles.no_record")
			}
			figs = append(figs, Figure{k.say("infected.fig_" + r.Category), k.num(r.Detected.N), "件", note, r.Detected.Ev})
		}
	}
	// Bots come before malware on this page.
	figs[1], figs[2] = figs[2], figs[1]
	return append(figs, Figure{k.say("infected.fig_devices"), k.num(f.Observed.N), "台", k.say("infected.fig_devices_note"), f.Observed.Ev})
}

func (k *maker) card(d *month.DeviceFacts) Card {
	name, ip := k.device(d.Identity)
	c := Card{
		Mark: k.mark("act"), Name: name, Where: strings.TrimSpace(ip + "　" + k.zone(d.Zone)),
		SeenTitle: k.say("infected.seen"), TodoTitle: k.say("infected.todo"), HandoverTitle: k.say("infected.handover"),
	}
	for i, x := range d.Contacts {
		if i == 2 {
			break
		}
		every := ""
		if d.Every > 0 && len(d.Contacts) == 1 {
			every = k.say("infected.every", "n", comma(d.Every))
		}
		c.Seen = append(c.Seen, Line{k.say("infected.contact_"+x.Kind, "peer", x.Peer, "every", every, "n", comma(x.Count)), d.Detected.Ev})
	}
	if n := len(d.Contacts) + d.MoreContacts - 2; n > 0 {
		c.Seen = append(c.Seen, Line{k.say("infected.contact_more", "n", strconv.Itoa(n)), d.Detected.Ev})
	}
	if len(c.Seen) == 0 {
		c.Seen = []Line{{k.say("infected.no_contact"), d.Ev}}
	}
	done := "infected.done_mixed"
	switch {
	case d.Detected.N == 0:
		done = "infected.done_none"
	case d.Passed.N == 0:
		done = "infected.done_blocked"
	case d.Blocked.N == 0:
		done = "infected.done_passed"
	}
	c.Facts = []Fact{
		{k.say("infected.certainty"), k.say("certainty_signals", "word", k.say("certainty.c"+certainty(d.Certainty)), "n", strconv.Itoa(max(len(d.Signals), 1))), d.Ev},
		{k.say("infected.signals"), k.signals(d.Signals), d.Ev},
		{k.say("infected.first"), k.moment(d.First), ""},
		{k.say("infected.last"), k.moment(d.Last), ""},
		{k.say("infected.done"), k.say(done, "n", comma(d.Detected.N), "blocked", comma(d.Blocked.N), "passed", comma(d.Passed.N)), d.Detected.Ev},
	}
	if len(d.Signals) == 0 {
		c.Facts = append(c.Facts[:1], c.Facts[2:]...)
	}
	phone := k.f.Sender.Phone
	switch {
	case d.Key == "guest":
		c.Steps = []string{k.say("infected.step_call", "phone", phone), k.say("infected.step_guest")}
	case d.CareCritical:
		c.Steps = []string{k.say("infected.step_call_first", "phone", phone), k.say("infected.step_power"), k.say("infected.step_no_cable")}
	default:
		c.Steps = []string{k.say("infected.step_cable"), k.say("infected.step_power"), k.say("infected.step_call", "phone", phone)}
	}
	c.Handover = k.handover(d, name, ip)
	return c
}

// signals names what the suspicion rests on, each kind once.
func (k *maker) signals(signals []string) string {
	var names []string
	seen := map[string]bool{}
	for _, s := range signals {
		name := s
		head, id, alert := strings.Cut(s, ":")
		switch {
		case k.w.Has("signal_names." + s):
			name = k.say("signal_names." + s)
		case alert && head == "alert":
			name = k.say("signal_names.alert", "id", id)
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	if len(names) > 4 {
		names = append(names[:4], "ほか")
	}
	return strings.Join(names, "、")
}

func (k *maker) handover(d *month.DeviceFacts, name, ip string) string {
	if d.Key == "guest" {
		return k.say("infected.handover_guest")
	}
	first, last := k.moment(d.First), k.moment(d.Last)
	if len(d.Contacts) == 0 {
		return k.say("infected.handover_bare", "device", name, "ip", ip, "first", first, "last", last)
	}
	var peers []string
	for _, c := range d.Contacts {
		if c.Port > 0 {
			peers = append(peers, k.say("infected.handover_peer", "peer", c.Peer, "port", strconv.Itoa(int(c.Port))))
		} else {
			peers = append(peers, c.Peer)
		}
	}
	if d.MoreContacts > 0 {
		peers = append(peers, "ほか")
	}
	return k.say("infected.handover_text", "device", name, "ip", ip, "peers", strings.Join(peers, "、"), "first", first, "last", last,
		"n", comma(d.Detected.N), "blocked", comma(d.Blocked.N))
}

func (k *maker) trend() template.HTML {
	months := make([]chart.TrendMonth, 0, len(k.f.Trend))
	for _, t := range k.f.Trend {
		m, err := month.Parse(t.Month)
		if err != nil && k.err == nil {
			k.err = err
		}
		months = append(months, chart.TrendMonth{
			Name: strconv.Itoa(m.Number()) + "月", Bot: t.Bot.N, Malware: t.Malware.N, Known: t.Known, Now: t.Month == k.f.Month,
		})
	}
	return safe(chart.Trend("detections-trend", "検知の12か月推移", "ボットとみられる通信とマルウェアの検知件数の月別推移です。数値は巻末の証跡番号の一覧にあります。",
		k.say("found.bot.name"), k.say("found.malware.name"), "－ 記録なし", months))
}

// safe marks a chart as HTML: package chart escapes every text it is given.
func safe(svg string) template.HTML { return template.HTML(svg) } //nolint:gosec // charts escape their texts
