package page

import (
	"strconv"
	"strings"
	"time"

	"github.com/kadomori/kadomori/reporter/internal/month"
)

func (k *maker) verdict() Verdict {
	f := k.f
	v := Verdict{Mark: k.mark(string(f.Verdict))}
	has := func(reason string) bool {
		for _, r := range f.Reasons {
			if r == reason {
				return true
			}
		}
		return false
	}
	switch f.Verdict {
	case month.Act:
		call := false
		for _, d := range f.Infected.Devices {
			call = call || d.CareCritical || d.Key == "guest"
		}
		if len(f.Infected.Devices) == 1 {
			name, ip := k.device(f.Infected.Devices[0].Identity)
			if f.Infected.Devices[0].Name == "" && ip != "" {
				name += " " + ip
			}
			v.Lead = append(v.Lead, k.say("verdict.infected_"+certainty(f.Infected.Devices[0].Certainty), "device", name))
		} else {
			v.Lead = append(v.Lead, k.say("verdict.infected_many", "n", comma(f.Infected.Count.N)))
		}
		if call {
			v.Lead = append(v.Lead, k.say("verdict.infected_call"))
		} else {
			v.Lead = append(v.Lead, k.say("verdict.infected_do"))
		}
	case month.Hold:
		switch {
		case has("no-coverage"):
			v.Lead = []string{k.say("verdict.hold_none"), k.say("verdict.hold_none_do")}
		case has("uptime"):
			v.Lead = []string{k.say("verdict.hold_uptime"), k.say("verdict.hold_uptime_do", "uptime", k.uptime())}
		case k.lost() > 0:
			v.Lead = []string{k.say("verdict.hold_lost"), k.say("verdict.hold_lost_do", "n", comma(k.lost()))}
		default:
			v.Lead = []string{k.say("verdict.hold_ledger"), k.say("verdict.hold_ledger_do")}
		}
	case month.Warn:
		v.Lead = []string{k.say("verdict.warn"), k.say("verdict.warn_do")}
	case month.OK:
		v.Lead = []string{k.say("verdict.ok"), k.say("verdict.ok_do")}
	}
	v.Sub = append(v.Sub, k.attackSentence())
	if f.Verdict == month.Act {
		switch {
		case has("uptime"), has("no-coverage"):
			v.Sub = append(v.Sub, Line{k.say("verdict.sub_also_hold"), f.Coverage.Uptime.Ev})
		case k.lost() > 0:
			v.Sub = append(v.Sub, Line{k.say("verdict.sub_also_lost", "n", comma(k.lost())), f.Coverage.LostSilent.Ev})
		}
	}
	if f.Running {
		v.Sub = append(v.Sub, Line{Text: k.say("verdict.sub_running", "through", k.moment(f.Through))})
	}
	return v
}

func certainty(c int16) string { return strconv.Itoa(int(min(max(c, 1), 3))) }

func (k *maker) attackSentence() Line {
	a := &k.f.Attacks
	l := Line{Ev: a.Detected.Ev}
	switch {
	case a.Detected.N == 0 && !k.known():
		l.Text = k.say("verdict.sub_unknown")
	case a.Detected.N == 0:
		l.Text = k.say("verdict.sub_none")
	case a.Passed.N == 0:
		l.Text = k.say("verdict.sub_blocked", "n", comma(a.Detected.N))
	default:
		l.Text = k.say("verdict.sub_mixed", "n", comma(a.Detected.N), "blocked", comma(a.Blocked.N), "passed", comma(a.Passed.N))
	}
	return l
}

// before is the line about the month before, with the change in sign, number and word.
func (k *maker) before(now int64, was *month.Num, unit string) string {
	if was == nil {
		return k.say("tiles.before_none")
	}
	return k.say("tiles.before", "n", comma(was.N), "unit", unit) + "　" + change(now, was, unit)
}

func (k *maker) tiles() [][]Tile {
	return [][]Tile{
		{k.infectedTile(), k.attackTile(), k.askTile()},
		{k.uptimeTile(), k.lostTile(), k.trafficTile()},
	}
}

// blind is the mark of a tile whose number can't be relied on.
func (k *maker) blind() bool { return !k.known() || k.f.Coverage.Uptime.N < month.HoldBelow }

func (k *maker) infectedTile() Tile {
	i := &k.f.Infected
	t := Tile{Name: k.say("tiles.infected"), Value: k.num(i.Count.N), Unit: "台", Ev: i.Count.Ev, Mark: k.mark("ok")}
	note := k.say("tiles.no_device")
	switch {
	case i.Count.N > 0:
		t.Mark = k.mark("act")
		name, ip := k.device(i.Devices[0].Identity)
		if i.Devices[0].Name == "" && ip != "" {
			name = ip
		}
		note = name
		if n := i.Count.N - 1; n > 0 {
			note += "　" + k.say("tiles.and_more", "n", comma(n))
		}
	case k.blind() || k.lost() > 0:
		t.Mark = k.mark("hold")
		if !k.known() {
			note = k.say("tiles.no_record")
		}
	}
	t.Notes = []string{note, k.before(i.Count.N, i.Was, "台")}
	return t
}

func (k *maker) attackTile() Tile {
	a := &k.f.Attacks
	t := Tile{Name: k.say("tiles.attacks"), Value: k.num(a.Detected.N), Unit: "件", Ev: a.Detected.Ev, Mark: k.noAction()}
	for _, r := range a.Rows {
		if r.Mark == "warn" || r.Mark == "act" && t.Mark.Class != "warn" {
			t.Mark = k.mark(r.Mark)
		}
	}
	for _, r := range a.Rows {
		if r.Mark == "act" {
			t.Mark = k.mark("act")
		}
	}
	if t.Mark.Class == "ok" && (k.blind() || k.lost() > 0) {
		t.Mark = k.mark("hold")
	}
	if k.known() {
		t.Notes = append(t.Notes, k.say("tiles.blocked_passed", "blocked", comma(a.Blocked.N), "passed", comma(a.Passed.N)))
	} else {
		t.Notes = append(t.Notes, k.say("tiles.no_record"))
	}
	t.Notes = append(t.Notes, k.before(a.Detected.N, a.Was, "件"))
	return t
}

func (k *maker) askTile() Tile {
	var act, warn int64
	for _, a := range k.f.Asks {
		if a.Mark == "act" {
			act++
		} else {
			warn++
		}
	}
	t := Tile{Name: k.say("tiles.asks"), Value: comma(act + warn), Unit: "件", Mark: k.noAction(), Notes: []string{k.say("tiles.asks_none")}}
	switch {
	case act > 0:
		t.Mark = k.mark("act")
	case warn > 0:
		t.Mark = k.mark("warn")
	case k.f.Verdict == month.Hold:
		t.Mark = k.mark("hold")
	}
	if act+warn > 0 {
		t.Notes = []string{k.say("tiles.asks_split", "act", comma(act), "warn", comma(warn))}
		t.Ev = k.f.Asks[0].Ev
	}
	return t
}

func (k *maker) uptimeTile() Tile {
	c := &k.f.Coverage
	t := Tile{Name: k.say("tiles.uptime"), Value: k.uptime(), Unit: "%", Ev: c.Uptime.Ev, Mark: k.mark("ok")}
	switch {
	case !c.Known:
		t.Mark, t.Value, t.Unit = k.mark("hold"), k.say("tiles.unknown"), ""
		t.Notes = []string{k.say("tiles.no_record")}
		return t
	case c.Uptime.N < month.HoldBelow:
		t.Mark = k.mark("hold")
	case c.Uptime.N < month.WarnBelow:
		t.Mark = k.mark("warn")
	}
	t.Notes = []string{k.say("tiles.down", "down", duration(c.DownMS.N), "unprotected", duration(c.UnprotectedMS.N))}
	if c.Since != "" {
		t.Notes = append(t.Notes, k.say("tiles.since", "date", k.moment(c.Since)))
	}
	return t
}

func (k *maker) lostTile() Tile {
	c := &k.f.Coverage
	t := Tile{Name: k.say("tiles.lost"), Value: comma(k.lost()), Unit: "件", Ev: c.LostSilent.Ev, Mark: k.mark("ok")}
	if !c.LedgerKnown {
		t.Mark, t.Value, t.Unit = k.mark("hold"), k.say("tiles.unknown"), ""
		t.Notes = []string{k.say("tiles.no_record")}
		return t
	}
	t.Notes = []string{k.say("tiles.received", "n", comma(c.Received.N))}
	if k.lost() > 0 {
		t.Mark = k.mark("hold")
		t.Notes = append(t.Notes, k.say("tiles.lost_split", "declared", comma(c.LostDeclared.N), "silent", comma(c.LostSilent.N)))
	} else {
		t.Notes = append(t.Notes, k.say("tiles.lost_none"))
	}
	return t
}

func (k *maker) trafficTile() Tile {
	tr := &k.f.Traffic
	u := unitOf(tr.Total.N)
	t := Tile{Name: k.say("tiles.traffic"), Value: u.in(tr.Total.N), Unit: u.name, Ev: tr.Total.Ev, Mark: k.mark("ok")}
	if !k.known() && tr.Total.N == 0 {
		t.Mark, t.Value, t.Unit = k.mark("hold"), k.say("tiles.unknown"), ""
		t.Notes = []string{k.say("tiles.no_record")}
		return t
	}
	if k.blind() {
		t.Mark = k.mark("hold")
	}
	t.Notes = []string{k.say("tiles.inout", "in", volume(tr.In.N), "out", volume(tr.Out.N)), k.trafficBefore()}
	return t
}

// trafficBefore is the change of traffic in percent. A running month isn't compared with a whole one.
func (k *maker) trafficBefore() string {
	tr := &k.f.Traffic
	if tr.Was == nil || tr.Was.N == 0 {
		return k.say("tiles.before_none")
	}
	text := "前月 " + volume(tr.Was.N)
	if k.f.Running {
		return text
	}
	switch d := percentChange(tr.Total.N, tr.Was.N); {
	case d > 0:
		return text + "　▲ " + tenths(d) + "% 増"
	case d < 0:
		return text + "　▼ " + tenths(-d) + "% 減"
	}
	return text + "　±0"
}

// percentChange is in tenths of a percent, rounded.
func percentChange(now, was int64) int64 {
	d := float64(now-was) / float64(was) * 1000
	if d < 0 {
		return int64(d - .5)
	}
	return int64(d + .5)
}

func (k *maker) asks() []Ask {
	var out []Ask
	for i, a := range k.f.Asks {
		key := map[string]string{
			"infected": "infected", "infected-care": "infected_care", "infected-guest": "infected_guest", "infected-many": "infected_many",
			"passed": "passed", "bot": "bot", "appliance": "appliance",
		}[a.Kind]
		ref := map[string]string{"passed": "attacks", "bot": "attacks", "appliance": "coverage"}[a.Kind]
		who := "asks.who_safety"
		if a.Mark == "act" {
			ref, who = "infected", "asks.who_staff"
		}
		when := k.say("asks.today")
		if a.Due != "" {
			t, err := time.ParseInLocation(time.DateOnly, a.Due, month.JST)
			if err != nil && k.err == nil {
				k.err = err
			}
			when = dateWithDay(t)
		}
		n := comma(a.Count)
		out = append(out, Ask{
			No: i + 1, Do: k.say("asks."+key+".do", "subject", a.Subject, "n", n), Why: k.say("asks."+key+".why", "subject", a.Subject, "n", n),
			Who: k.say(who), When: when, Minutes: strconv.Itoa(a.Minutes) + "分", Ref: ref, RefName: "月次", Ev: a.Ev,
		})
	}
	return out
}

// tight is the change as it is set in narrow columns.
func tight(s string) string {
	return strings.NewReplacer("　▲ ", " ▲", "　▼ ", " ▼", "　±", " ±").Replace(s)
}
