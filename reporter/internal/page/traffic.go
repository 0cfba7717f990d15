package page

import (
	"html/template"
	"slices"
	"strconv"
	"strings"

	"github.com/kadomori/kadomori/reporter/internal/chart"
	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Traffic is page 4.
type Traffic struct {
	Title, Lead, LeadEv, DailyTitle, SharesTitle, SharesEv, Note, Empty, DevicesTitle, DevicesEv string
	Figures                                                                                      []Figure
	Daily, ShareBar, ShareRank, Devices                                                          template.HTML
}

func (k *maker) traffic() Traffic {
	t := &k.f.Traffic
	out := Traffic{
		Title: k.say("traffic.title"), LeadEv: t.Total.Ev, DailyTitle: k.say("traffic.daily"), SharesTitle: k.say("traffic.shares"),
		Note: k.say("traffic.note"), Empty: k.say("traffic.none"), DevicesTitle: k.say("traffic.devices"),
	}
	d := int64(0)
	if t.Was != nil && t.Was.N > 0 {
		d = percentChange(t.Total.N, t.Was.N)
	}
	switch {
	case t.Total.N == 0 && !k.known():
		out.Lead, out.Empty = k.say("traffic.lead_none"), k.say("traffic.lead_none")
	case k.f.Running:
		out.Lead = k.say("traffic.lead_running", "through", k.moment(k.f.Through), "total", volume(t.Total.N))
	case t.Was == nil || t.Was.N == 0:
		out.Lead = k.say("traffic.lead_first", "total", volume(t.Total.N))
	case d >= 10:
		out.Lead = k.say("traffic.lead_up", "pct", tenths(d))
	case d <= -10:
		out.Lead = k.say("traffic.lead_down", "pct", tenths(-d))
	default:
		out.Lead = k.say("traffic.lead_same")
	}
	out.Figures = k.trafficFigures()
	if t.Total.N > 0 {
		out.Daily = k.daily()
		out.ShareBar, out.ShareRank = k.shareCharts()
		evs := make([]string, len(t.Shares))
		for i, s := range t.Shares {
			evs[i] = s.Bytes.Ev
		}
		out.SharesEv = strings.Join(evs, " ")
		out.Devices, out.DevicesEv = k.topDevices()
	}
	return out
}

func (k *maker) trafficFigures() []Figure {
	t := &k.f.Traffic
	fig := func(name string, n month.Num, note string) Figure {
		u := unitOf(n.N)
		if n.N == 0 && !k.known() {
			return Figure{name, k.say("tiles.unknown"), "", k.say("tiles.no_record"), n.Ev}
		}
		return Figure{name, u.in(n.N), u.name, note, n.Ev}
	}
	share := func(n int64) string {
		if t.Total.N == 0 {
			return k.say("tiles.unknown")
		}
		return k.say("traffic.share", "pct", tenths((n*1000+t.Total.N/2)/t.Total.N))
	}
	figs := []Figure{
		fig(k.say("traffic.total"), t.Total, tight(k.trafficBefore())),
		fig(k.say("traffic.in"), t.In, share(t.In.N)), fig(k.say("traffic.out"), t.Out, share(t.Out.N)),
	}
	if t.OffHours != nil {
		return append(figs, fig(k.say("traffic.off"), *t.OffHours, share(t.OffHours.N)))
	}
	return append(figs, Figure{k.say("traffic.off"), k.say("tiles.unknown"), "", k.say("traffic.off_unknown"), ""})
}

func (k *maker) daily() template.HTML {
	t := &k.f.Traffic
	var top int64
	for _, d := range t.Days {
		top = max(top, d.In+d.Out, d.Before)
	}
	u := unitOf(top)
	d := chart.DailyData{
		ID: "traffic-daily", Title: "日別の通信量", Desc: "受信と送信を積み上げた棒に、4週前の同じ曜日の合計を横線で重ねています。",
		Days: k.days(), Unit: u.name, Received: "受信", Sent: "送信", Earlier: "4週前の同じ曜日",
	}
	for i, x := range t.Days {
		d.In = append(d.In, float64(x.In)/float64(u.size))
		d.Out = append(d.Out, float64(x.Out)/float64(u.size))
		before := -1.0
		if x.Before >= 0 {
			before = float64(x.Before) / float64(u.size)
		}
		d.Before = append(d.Before, before)
		d.NoData = append(d.NoData, !strings.ContainsAny(k.f.Coverage.Hours[i], "ox"))
	}
	return safe(chart.Daily(d))
}

// groups in the order of the fills.
var groups = []string{"work", "keep", "guest", "care"}

func (k *maker) groupOf(s month.ShareFacts) (name string, group int) {
	switch {
	case s.App == "":
		return k.say("traffic.rest"), 2
	case s.Guest:
		return k.w.Application(s.App).Name + k.say("traffic.guest_suffix"), 2
	}
	a := k.w.Application(s.App)
	return a.Name, slices.Index(groups, a.Group)
}

func (k *maker) shareCharts() (bar, rank template.HTML) {
	t := &k.f.Traffic
	u := unitOf(t.Total.N)
	parts := make([]chart.Part, len(groups))
	for i, g := range groups {
		parts[i] = chart.Part{Name: k.w.Group(g), Fill: chart.Fill(i)}
	}
	rows := make([]chart.RankRow, 0, len(t.Shares))
	sum := chart.RankRow{Name: "合計", Amount: u.in(t.Total.N)}
	for _, s := range t.Shares {
		name, g := k.groupOf(s)
		parts[g].Tenths += s.Tenths
		sum.Tenths += s.Tenths
		row := chart.RankRow{Name: name, Tenths: s.Tenths, Fill: chart.Fill(g), Amount: u.in(s.Bytes.N), Change: "－"}
		if s.Change != nil {
			switch c := *s.Change; {
			case c > 0:
				row.Change = "▲ " + tenths(c) + " 増"
			case c < 0:
				row.Change = "▼ " + tenths(-c) + " 減"
			default:
				row.Change = "±0.0"
			}
		}
		rows = append(rows, row)
	}
	bar = safe(chart.ShareBar("share-bar", "用途別の通信量の割合", "用途を4つにまとめた帯グラフです。", parts))
	rank = safe(chart.ShareRank("share-rank", k.say("traffic.shares"), "割合の大きい順に並べた横棒グラフです。合計は100.0%です。",
		[4]string{"アプリケーション", "割合", "通信量 " + u.name, "前月比（ポイント）"}, rows, sum))
	return bar, rank
}

func (k *maker) topDevices() (template.HTML, string) {
	t := &k.f.Traffic
	lines := make([]chart.Ranked, 0, len(t.Devices)+1)
	evs := make([]string, 0, len(t.Devices)+1)
	for _, d := range t.Devices {
		name, ip := k.device(d.Identity)
		if ip != "" {
			name += "　" + ip
		}
		lines = append(lines, chart.Ranked{Name: name, Value: volume(d.Bytes.N), Count: d.Bytes.N})
		evs = append(evs, d.Bytes.Ev)
	}
	if t.MoreCount > 0 {
		lines = append(lines, chart.Ranked{Name: k.say("traffic.devices_rest", "n", strconv.Itoa(t.MoreCount)), Value: volume(t.More.N), Count: t.More.N})
		evs = append(evs, t.More.Ev)
	}
	if len(lines) == 0 {
		return "", ""
	}
	return safe(chart.Ranking("traffic-devices", k.say("traffic.devices"), "通信量の多い順に並べた横棒グラフです。", chart.Full, 290, lines)), strings.Join(evs, " ")
}
