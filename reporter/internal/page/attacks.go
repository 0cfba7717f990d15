package page

import (
	"html/template"
	"strconv"

	"github.com/kadomori/kadomori/reporter/internal/chart"
	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Attacks is page 3.
type Attacks struct {
	Title, Lead, LeadEv, WhenTitle, HeatNote, PeersTitle, TargetsTitle, PeersEv, TargetsEv, Empty, Note string
	Rows                                                                                                []AttackRow
	Others                                                                                              *Line
	Heat, Peers, Targets                                                                                template.HTML
}

// AttackRow is a line of the table.
type AttackRow struct {
	Name, Gloss, Change string
	Counts              Counts
	Was                 Value
	Mark                Mark
	Total               bool
}

func (k *maker) attacks() Attacks {
	a := &k.f.Attacks
	out := Attacks{
		Title: k.say("attacks.title"), LeadEv: a.Detected.Ev, WhenTitle: k.say("attacks.when"), PeersTitle: k.say("attacks.peers"),
		TargetsTitle: k.say("attacks.targets"), Empty: k.say("attacks.none"), Note: k.say("attacks.note"),
	}
	switch {
	case a.Detected.N == 0 && !k.known():
		out.Lead, out.Empty = k.say("attacks.lead_blind"), k.say("attacks.lead_blind")
	case a.Detected.N == 0:
		out.Lead = k.say("attacks.lead_none")
	case a.Passed.N > 0:
		out.Lead = k.say("attacks.lead_mixed", "n", comma(a.Detected.N), "blocked", comma(a.Blocked.N), "passed", comma(a.Passed.N))
	case k.f.Verdict == month.Act:
		out.Lead = k.say("attacks.lead_blocked_act", "n", comma(a.Detected.N))
	default:
		out.Lead = k.say("attacks.lead_blocked", "n", comma(a.Detected.N))
	}
	for _, r := range a.Rows {
		row := k.attackRow(r)
		out.Rows = append(out.Rows, row)
	}
	total := AttackRow{Name: "合計", Total: true, Counts: k.counts(a.Detected, a.Blocked, a.Passed), Was: k.wasValue(a.Was), Change: change(a.Detected.N, a.Was, "件")}
	out.Rows = append(out.Rows, total)
	if p, o := a.Others[0], a.Others[1]; p.Detected.N+o.Detected.N > 0 {
		out.Others = &Line{k.say("attacks.others", "policy", comma(p.Detected.N), "policy_blocked", comma(p.Blocked.N), "other", comma(o.Detected.N)), p.Detected.Ev}
	}
	out.Heat, out.HeatNote = k.heat()
	out.Peers, out.PeersEv = k.ranking("attack-peers", out.PeersTitle, 122, a.Peers)
	out.Targets, out.TargetsEv = k.ranking("attack-targets", out.TargetsTitle, 122, a.Targets)
	return out
}

func (k *maker) wasValue(was *month.Num) Value {
	if was == nil {
		return Value{Text: "－"}
	}
	return Value{comma(was.N), was.Ev}
}

func (k *maker) attackRow(r month.CategoryFacts) AttackRow {
	row := AttackRow{
		Name: k.say("categories." + r.Category + ".name"), Counts: k.counts(r.Detected, r.Blocked, r.Passed),
		Gloss: "（" + k.say("categories."+r.Category+".gloss") + "）",
		Was:   k.wasValue(r.Was), Change: change(r.Detected.N, r.Was, "件"), Mark: k.mark(r.Mark),
	}
	switch {
	case r.Mark == "ok":
		row.Mark = k.noAction()
	case r.Mark == "none" && !k.known():
		row.Mark = k.mark("hold")
	}
	return row
}

func (k *maker) days() []chart.Day {
	days := make([]chart.Day, k.m.Days())
	for i := range days {
		t := k.m.Start().AddDate(0, 0, i)
		days[i] = chart.Day{Number: i + 1, Weekday: weekdays[t.Weekday()], Rest: t.Weekday() == 0}
	}
	for _, h := range k.f.Coverage.Holidays {
		if days[h-1].Weekday != "日" {
			days[h-1].Weekday = "祝"
		}
		days[h-1].Rest = true
	}
	return days
}

func (k *maker) heat() (template.HTML, string) {
	a := &k.f.Attacks
	var top int64
	for _, d := range a.Heat {
		var n int64
		for _, c := range d {
			n += c
		}
		top = max(top, n)
	}
	h := chart.HeatmapData{
		ID: "attack-heatmap", Title: "攻撃検知の日別・時間別の分布", Desc: "四角が大きいほど検知が多い時間帯です。枠で囲んだ部分は診療時間です。",
		Days: k.days(), Counts: a.Heat, Seen: k.f.Coverage.Hours, Open: k.f.Coverage.Open,
		PerHour: "1時間あたりの検知件数", ClinicHours: "診療時間", None: "空白＝検知なし", Off: "装置停止", Outside: "集計期間外",
		DayTotal: "日別合計（最大 " + comma(top) + "件）",
	}
	note := k.say("attacks.note_even")
	switch p := a.Peak; {
	case !k.known():
		note = k.say("attacks.lead_blind")
	case a.Detected.N == 0:
		note = k.say("attacks.note_none")
	case p != nil:
		cat := k.say("categories." + p.Category + ".name")
		from, to := strconv.Itoa(p.FromHour), strconv.Itoa(p.ToHour)
		h.Peak = p.Day
		h.Remark = k.say("attacks.peak", "day", strconv.Itoa(p.Day), "from", from, "to", to, "category", cat)
		date := k.m.Start().AddDate(0, 0, p.Day-1).Format("1月2日")
		note = k.say("attacks.note_peak", "date", date, "from", from, "to", to, "category", cat, "n", comma(p.Count))
	}
	return safe(chart.Heatmap(h)), note
}

func (k *maker) ranking(id, title string, nameWidth float64, rows []month.Ranked) (template.HTML, string) {
	if len(rows) == 0 {
		return "", ""
	}
	lines := make([]chart.Ranked, len(rows))
	evs := ""
	for i, r := range rows {
		name := r.Label
		if name == "" {
			n, ip := k.device(r.Identity)
			if name = n; r.Name == "" && ip != "" {
				name = ip
			}
		}
		lines[i] = chart.Ranked{Name: name, Value: comma(r.Count.N) + "件", Count: r.Count.N}
		if i > 0 {
			evs += " "
		}
		evs += r.Count.Ev
	}
	return safe(chart.Ranking(id, title, "件数の多い順に並べた横棒グラフです。", chart.Half, nameWidth, lines)), evs
}
