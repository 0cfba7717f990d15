package engine

import (
	"net/netip"
	"sync"

	"github.com/kadomori/kadomori/dataplane/internal/appid"
	"github.com/kadomori/kadomori/dataplane/internal/detect"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/inventory"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// maxCuts bounds the flows remembered while the wire forwards them; it is the wire's own flow map's size.
const maxCuts = 131072

// cut is what is known of a flow that the wire was told to forward or drop by itself.
type cut struct {
	key       rowKey
	app       string
	device    finding.Device
	deviceIsA bool // the device is the key's lower endpoint
	clientIsA bool
	end       finding.FlowEnd // the worker's part, filled when its flow went
	released  bool            // the worker's flow went
	ended     bool            // the wire said so
	last      int64
}

type cutTable struct {
	mu sync.Mutex
	m  map[wire.FlowKey]*cut
}

func newCutTable() *cutTable { return &cutTable{m: map[wire.FlowKey]*cut{}} }

func (t *cutTable) put(k wire.FlowKey, c *cut) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.m) >= maxCuts {
		for k := range t.m { // any: the table is as large as the wire's, so this is a flood
			delete(t.m, k)
			break
		}
	}
	t.m[k] = c
}

// release hands over the worker's last word on a flow. When the wire has ended it already, or never had it, the word is for
// the caller to tell.
func (t *cutTable) release(k wire.FlowKey, end *finding.FlowEnd) (tell bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.m[k]
	if c == nil {
		return true
	}
	end.Counts = add(end.Counts, c.end.Counts)
	end.Last = max(end.Last, c.last)
	if c.ended {
		delete(t.m, k)
		return true
	}
	c.end = *end
	c.released = true
	return false
}

func add(a, b finding.Counts) finding.Counts {
	a.PacketsToServer += b.PacketsToServer
	a.PacketsToClient += b.PacketsToClient
	a.BytesToServer += b.BytesToServer
	a.BytesToClient += b.BytesToClient
	return a
}

func (t *cutTable) takeAll() (out []*cut) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, c := range t.m {
		if c.released {
			out = append(out, c)
		}
		delete(t.m, k)
	}
	return out
}

// AddFlowRecord counts traffic that the wire forwarded or dropped by its own flow table.
func (e *Engine) AddFlowRecord(r wire.FlowRecord) {
	e.cuts.mu.Lock()
	c := e.cuts.m[r.Key]
	if c == nil {
		e.cuts.mu.Unlock()
		e.addUnknownRecord(&r)
		return
	}
	toServer, toClient := 0, 1
	if !c.clientIsA {
		toServer, toClient = 1, 0
	}
	c.end.Counts.PacketsToServer += r.Packets[toServer]
	c.end.Counts.PacketsToClient += r.Packets[toClient]
	c.end.Counts.BytesToServer += r.Bytes[toServer]
	c.end.Counts.BytesToClient += r.Bytes[toClient]
	c.last = max(c.last, r.LastSeen)
	c.end.Last = max(c.end.Last, r.LastSeen)
	out, in := r.Bytes[0], r.Bytes[1]
	if !c.deviceIsA {
		out, in = in, out
	}
	key, name, dev := c.key, c.app, c.device
	var end *finding.FlowEnd
	if r.Ended {
		if c.released {
			delete(e.cuts.m, r.Key)
			end = &c.end
		} else {
			c.ended = true
		}
	}
	e.cuts.mu.Unlock()
	if r.Packets[0]+r.Packets[1] > 0 {
		e.traffic.add(key, name, &dev, in, out, r.Packets[0]+r.Packets[1])
	}
	if end != nil {
		end.State = "bypassed"
		e.cfg.Sink.FlowEnd(end)
	}
}

// addUnknownRecord counts a flow nobody remembers: one of a run before this one, whose verdict was pinned.
func (e *Engine) addUnknownRecord(r *wire.FlowRecord) {
	n := r.Packets[0] + r.Packets[1]
	if n == 0 {
		return
	}
	pol := e.policy.Load()
	a, b := r.Key.A.Unmap(), r.Key.B.Unmap()
	aInside := pol.zones.Inside(a)
	out, in := r.Bytes[0], r.Bytes[1]
	addr := a
	if !aInside {
		out, in, addr = in, out, b
	}
	app := e.vocabulary.Port(r.Key.Proto, r.Key.BPort)
	if app == appid.Unknown {
		app = e.vocabulary.Port(r.Key.Proto, r.Key.APort)
	}
	k := rowKey{app: app, visible: appid.Opaque, zone: inventory.NoZone}
	var dev finding.Device
	if d, ok := e.devices.ByIP(addr); ok {
		dev = e.devices.Describe(&d, pol.zones, r.LastSeen)
		k.known, k.mac, k.zone = true, dev.MAC, int16(d.Zone)
	}
	e.traffic.add(k, e.vocabulary.Name(app), &dev, in, out, n)
}

// AddDrop tells of a packet that the wire's block sets stopped: an inside device that contacts a listed address becomes a
// Detection; the Block event itself is the caller's. The bytes are not traffic: they never passed.
func (e *Engine) AddDrop(s wire.DropSample) {
	pol := e.policy.Load()
	l, ok := pol.indicators.Get(s.ListID)
	if !ok {
		return
	}
	outbound := s.Port == wire.LAN
	if !outbound {
		return // from outside: the block is the whole story
	}
	indicated := s.Dst.Addr().Unmap()
	dev := e.describe(pol, s.SrcMAC, s.Src.Addr(), s.VLAN, s.Port, s.Time)
	p := finding.Packet{
		Time: s.Time, Src: s.Src.Addr().Unmap(), Dst: indicated, SrcPort: s.Src.Port(), DstPort: s.Dst.Port(), Proto: s.Proto,
		VLAN: s.VLAN, SrcMAC: s.SrcMAC, DstMAC: s.DstMAC, Port: s.Port, Direction: finding.Outbound, ToServer: true,
	}
	e.listed(&p, &dev, s.SrcMAC, "D12-address", indicated.String(), l, finding.Blocked)
}

// listed tells of a contact with a listed indicator and, when the list is of that kind, counts it as a signal of infection.
func (e *Engine) listed(p *finding.Packet, dev *finding.Device, mac [6]byte, detector, indicator string, l detect.List, act finding.Action) {
	d := finding.Detection{
		Packet: *p, Device: *dev, Detector: detector, Action: act, Certainty: finding.Confirmed, Indicator: indicator,
		List: l.Name, Count: 1,
	}
	d.Severity, d.Category = gravity(l.Kind)
	e.folds.detection(&d)
	if l.Kind.Infection() && dev.Known {
		e.signal(p, dev, mac, detector)
	}
}

func gravity(k detect.Kind) (finding.Severity, finding.Category) {
	switch k {
	case detect.KindC2:
		return finding.High, finding.Bot
	case detect.KindMalware:
		return finding.High, finding.Malware
	case detect.KindBadSite:
		return finding.Medium, finding.BadSite
	case detect.KindScanner:
		return finding.Medium, finding.Scan
	default:
		return finding.Medium, finding.Other
	}
}

// signal counts a signal of infection and tells the verdict when it changed.
func (e *Engine) signal(p *finding.Packet, dev *finding.Device, mac [6]byte, name string) {
	c, signals, ok := e.infected.Signal(mac, name, p.Time)
	if !ok {
		return
	}
	sev := finding.High
	if c >= finding.Likely {
		sev = finding.Critical
	}
	e.cfg.Sink.Detection(&finding.Detection{
		Packet: *p, Device: *dev, Detector: "infected-host", Severity: sev, Category: finding.Bot, Action: finding.Passed,
		Certainty: c, Signals: signals, Count: 1,
	})
}

// describe finds the inside device of a MAC and an address, and lists it when it is new.
func (e *Engine) describe(pol *Policy, mac [6]byte, a netip.Addr, vlan [2]uint16, port wire.Port, now int64) finding.Device {
	zone := pol.zones.Find(mac, vlan, a, port)
	d, ok := e.devices.ByMAC(mac)
	if !ok || mac == ([6]byte{}) {
		if byIP, found := e.devices.ByIP(a); found {
			d, ok = byIP, true
		}
	}
	if !ok {
		d = inventory.Device{MAC: mac, IP: a.Unmap(), Zone: zone}
	}
	if d.Zone == inventory.NoZone {
		d.Zone = zone
	}
	if !d.IP.IsValid() {
		d.IP = a.Unmap()
	}
	return e.devices.Describe(&d, pol.zones, now)
}
