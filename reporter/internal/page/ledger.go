package page

import (
	"strconv"

	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Ledger is the page about devices and about what reaches in from outside.
type Ledger struct {
	Title, Lead, Note                      string
	Figures                                []Figure
	UnnamedTitle, UnnamedNone, UnnamedMore string
	NewTitle, GoneTitle                    string
	Unnamed, New, Gone                     []DeviceRow
	RemoteTitle, RemoteNone, RemoteNote    string
	Remote                                 []RemoteRow
	ZonesTitle, UpdatesTitle               string
	Zones, Updates                         Line
}

// DeviceRow is a line of a list of devices.
type DeviceRow struct{ Name, IP, Zone, MAC, First, Last string }

// RemoteRow is a line of remote control.
type RemoteRow struct {
	App, Name, IP, First, Last string
	Volume                     Value
}

func (k *maker) ledger() Ledger {
	l, o := &k.f.Ledger, &k.f.Outside
	out := Ledger{
		Title: k.say("ledger.title"), Note: k.say("ledger.note"), UnnamedTitle: k.say("ledger.unnamed"), UnnamedNone: k.say("ledger.unnamed_none"),
		NewTitle: k.say("ledger.new"), GoneTitle: k.say("ledger.gone"), RemoteTitle: k.say("ledger.remote"), RemoteNone: k.say("ledger.remote_none"),
		RemoteNote: k.say("ledger.remote_note"), ZonesTitle: k.say("ledger.zones"), UpdatesTitle: k.say("ledger.updates"),
		Lead: k.say("ledger.lead", "n", comma(l.Observed.N), "registered", comma(l.Registered.N)),
	}
	fresh := k.say("ledger.fig_new_note")
	if l.FirstMonth {
		fresh = k.say("ledger.fig_new_first")
	}
	rest := l.Observed.N - l.Registered.N
	out.Figures = []Figure{
		{k.say("ledger.fig_observed"), k.num(l.Observed.N), "台", k.say("ledger.fig_observed_note"), l.Observed.Ev},
		{k.say("ledger.fig_registered"), k.num(l.Registered.N), "台", k.say("ledger.fig_registered_note", "rest", comma(rest)), l.Registered.Ev},
		{k.say("ledger.fig_new"), k.num(l.New.N), "台", fresh, l.New.Ev},
		{k.say("ledger.fig_unseen"), k.num(l.Unseen.N), "台", k.say("ledger.fig_unseen_note"), l.Unseen.Ev},
	}
	out.Unnamed, out.New, out.Gone = k.deviceRows(l.Unnamed), k.deviceRows(l.NewDevices), k.deviceRows(l.Gone)
	if n := rest - int64(len(l.Unnamed)); n > 0 {
		out.UnnamedMore = k.say("ledger.more", "n", comma(n))
	}
	for _, r := range o.Remote {
		name, ip := k.device(r.Identity)
		out.Remote = append(out.Remote, RemoteRow{
			k.w.Application(r.App).Name, name, ip, k.short(r.First), k.short(r.Last), Value{volume(r.Bytes.N), r.Bytes.Ev},
		})
	}
	out.Zones = Line{k.say("ledger.zones_text", "n", comma(o.Crossed.N), "blocked", comma(o.Stopped.N), "passed", comma(o.Passed.N)), o.Crossed.Ev}
	if o.Crossed.N == 0 {
		out.Zones.Text = k.say("ledger.zones_none")
	}
	out.Updates = Line{k.say("ledger.updates_text", "n", comma(l.Updating.N), "all", comma(l.Observed.N)), l.Updating.Ev}
	if l.Updating.N == 0 {
		out.Updates.Text = k.say("ledger.updates_none")
	}
	if !k.known() {
		blind := k.say("ledger.lead_blind")
		out.Lead, out.UnnamedNone, out.RemoteNone, out.Zones.Text, out.Updates.Text = blind, blind, blind, blind, blind
	}
	return out
}

func (k *maker) deviceRows(list []month.LedgerDevice) []DeviceRow {
	var rows []DeviceRow
	for _, d := range list {
		name, ip := k.device(d.Identity)
		rows = append(rows, DeviceRow{name, ip, k.zone(d.Zone), d.Key, k.when(d.First).Format("2006/01/02"), k.when(d.Last).Format("2006/01/02")})
	}
	return rows
}

func era(m month.Month) string {
	return "令和" + strconv.Itoa(m.Year()-2018) + "年" + strconv.Itoa(m.Number()) + "月1日〜" + strconv.Itoa(m.Days()) + "日"
}
