package month

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// ledgerLines is how long the lists of devices and of remote control are.
const ledgerLines = 12

// unseenFor is after how many days without a packet a device counts as long unseen (domain page, INV-1).
const unseenFor = 30 * 24 * time.Hour

func (b *Builder) devicesLedger(bk *book, f *Facts) LedgerFacts {
	m := b.in.Month
	end := minTime(b.in.Now, m.End())
	out := LedgerFacts{FirstMonth: f.Coverage.Since != "", Observed: f.Infected.Observed}
	update := map[MAC]bool{}
	for _, u := range b.in.Uses {
		if slices.Contains(b.in.UpdateApps, u.App) && u.In+u.Out > 0 {
			update[u.MAC] = true
		}
	}
	var registered, fresh, unseen, updating int64
	var unnamed, newest, gone []LedgerDevice
	for i := range b.in.Devices {
		d := &b.in.Devices[i]
		if d.Anonymous || d.Zone == guestZone || !d.First.Before(end) {
			continue
		}
		line := LedgerDevice{b.identity(d.MAC, d.IP, d.Zone), d.Hostname, stamp(d.First), stamp(d.Last)}
		if d.Last.Before(m.Start()) {
			if end.Sub(d.Last) >= unseenFor {
				unseen++
				gone = append(gone, line)
			}
			continue
		}
		if d.Name != "" {
			registered++
		} else {
			unnamed = append(unnamed, line)
		}
		if !d.First.Before(m.Start()) {
			fresh++
			if !out.FirstMonth {
				newest = append(newest, line)
			}
		}
		if update[d.MAC] {
			updating++
		}
	}
	out.Registered = bk.rows("ledger/registered", "devices", "report_device", registered, registered, m)
	out.New = bk.rows("ledger/new", "devices", "report_device", fresh, fresh, m)
	out.Unseen = bk.rows("ledger/unseen", "devices", "report_device", unseen, unseen, m)
	out.Updating = bk.rows("ledger/updating", "devices", "report_traffic", updating, updating, m)
	sort := func(list []LedgerDevice, by func(x, y LedgerDevice) int) []LedgerDevice {
		slices.SortFunc(list, func(x, y LedgerDevice) int { return cmp.Or(by(x, y), strings.Compare(x.Key, y.Key)) })
		return list[:min(len(list), ledgerLines)]
	}
	out.Unnamed = sort(unnamed, func(x, y LedgerDevice) int { return strings.Compare(y.First, x.First) })
	out.NewDevices = sort(newest, func(x, y LedgerDevice) int { return strings.Compare(x.First, y.First) })
	out.Gone = sort(gone, func(x, y LedgerDevice) int { return strings.Compare(x.Last, y.Last) })
	return out
}

func (b *Builder) outside(bk *book, f *Facts) OutsideFacts {
	var out OutsideFacts
	for _, o := range f.Attacks.Others {
		if o.Category == "policy" {
			out.Crossed, out.Stopped, out.Passed = o.Detected, o.Blocked, o.Passed
		}
	}
	type key struct{ device, app string }
	type sum struct {
		id          Identity
		app         string
		bytes, rows int64
		first, last time.Time
	}
	by := map[key]*sum{}
	for _, u := range b.in.Uses {
		if !slices.Contains(b.in.RemoteApps, u.App) || u.In+u.Out == 0 {
			continue
		}
		id := b.identity(u.MAC, netipZero, u.Zone)
		k := key{id.Key, u.App}
		s := by[k]
		if s == nil {
			s = &sum{id: id, app: u.App, first: u.First, last: u.Last}
			by[k] = s
		}
		s.bytes, s.rows = s.bytes+u.In+u.Out, s.rows+u.Rows
		s.first = minTime(s.first, u.First)
		if u.Last.After(s.last) {
			s.last = u.Last
		}
	}
	list := make([]*sum, 0, len(by))
	for _, s := range by {
		list = append(list, s)
	}
	slices.SortFunc(list, func(x, y *sum) int {
		return cmp.Or(cmp.Compare(y.bytes, x.bytes), strings.Compare(x.app, y.app), strings.Compare(x.id.Key, y.id.Key))
	})
	for _, s := range list[:min(len(list), ledgerLines)] {
		n := bk.rows("remote/"+s.app+"/"+cmp.Or(s.id.Key, "unknown"), "bytes", "report_traffic", s.bytes, s.rows, b.in.Month)
		out.Remote = append(out.Remote, RemoteFacts{s.id, s.app, n, stamp(s.first), stamp(s.last)})
	}
	return out
}
