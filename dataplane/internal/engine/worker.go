package engine

import (
	"net/netip"
	"sync/atomic"

	"github.com/kadomori/kadomori/dataplane/internal/appid"
	"github.com/kadomori/kadomori/dataplane/internal/detect"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/flow"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inventory"
	"github.com/kadomori/kadomori/dataplane/internal/packet"
	"github.com/kadomori/kadomori/dataplane/internal/pcap"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// window is how many bytes already inspected stay before new ones, so that patterns over a seam are found.
const window = 2 << 10

// flowExt is the engine's part of a flow.
type flowExt struct {
	parser     inspect.Parser
	prev       inspect.Parser // before an upgrade
	appOrig    rule.App
	app        rule.App
	appDir     [2]rule.App
	appChanged bool
	rules      rule.FlowState
	meta       inspect.Meta

	device      finding.Device
	mac         [6]byte // the device's real one
	direction   finding.Direction
	zones       [2]int // of client and server; inventory.NoZone
	inside      [2]bool
	mode        Mode
	neverDrop   bool
	clientIsDev bool

	appID      appid.ID
	visible    appid.Visibility
	classified bool
	row        *finding.TrafficRow
	rowGen     uint32
	pendIn     uint64
	pendOut    uint64
	pendPkts   uint64

	nameHash   uint64 // of the server name that was judged
	txJudged   uint64 // transactions whose names were judged
	tried      [2]int // bytes that probes saw per direction
	probeMask  uint64 // protocols ruled out
	dropped    bool
	passed     bool
	cut        bool
	alerted    bool
	parserDone bool // its transactions live on, bytes go to it no more
	seenEnough bool // the rest is opaque or of no interest
	counted    bool // its beginning was counted in a row
}

type flowT = flow.Flow[flowExt]

// Worker is the engine of one queue.
type Worker struct {
	engine *Engine
	queue  int
	table  *flow.Table[flowExt]
	pool   *flow.Pool
	asm    *flow.Assembler
	scan   *detect.Scan
	defrag *packet.Defrag
	pol    *Policy

	set     *rule.Set
	matcher *rule.Matcher
	inUse   atomic.Pointer[rule.Set]

	pkt         packet.Packet
	saved       packet.Packet
	savedPseudo bool
	in          rule.Input
	rpkt        rule.Packet
	txs         []rule.Transaction
	txRefs      []inspect.Tx
	fpkt        finding.Packet
	parsers     [64][]inspect.Parser
	lower       []byte
	back        [1][]byte
	onward      [1][]byte
	bufs        [2][packet.MaxReply]byte

	rowGen       uint32
	rowTable     trafficTable
	wantRows     atomic.Bool
	rowsOut      chan map[rowKey]*finding.TrafficRow
	done         atomic.Bool
	macSeen      map[macIP]int64
	lastTick     int64
	lastSlow     int64
	count        counters
	events       [8]rule.Event
	alert        finding.Alert
	isPseudo     bool   // w.pkt is made up
	current      *flowT // of the packet at hand
	verdictText  string
	dropAlert    finding.Alert
	hasDropAlert bool
	rateFiltered bool
	established  bool // of a TCP flow, before the packet at hand
	dropper      Dropper
	sums         sumWatch
}

type macIP struct {
	mac [6]byte
	ip  netip.Addr
}

func newWorker(e *Engine, queue int) *Worker {
	w := &Worker{
		engine: e, queue: queue, scan: detect.NewScan(), defrag: packet.NewDefrag(), rowsOut: make(chan map[rowKey]*finding.TrafficRow, 1),
		macSeen: map[macIP]int64{}, pol: e.policy.Load(),
	}
	w.rowTable.rows = map[rowKey]*finding.TrafficRow{}
	w.dropper, _ = e.cfg.Sink.(Dropper)
	w.pool = flow.NewPool(e.cfg.ReassemblyMemory)
	w.asm = flow.NewAssembler(w.pool, window, uint64(e.cfg.StreamDepth))
	w.asm.HoldUntilAcked = e.cfg.Offline && !e.cfg.Inline
	first := e.cfg.FirstFlowID
	if first != 0 {
		first += uint64(queue) << 48
	}
	w.table = flow.NewTable(flow.TableConfig[flowExt]{Max: e.cfg.MaxFlows, End: w.endFlow, FirstID: first})
	return w
}

// Handle judges one frame.
func (w *Worker) Handle(frame []byte, port wire.Port, now int64) (dec wire.Decision) {
	defer w.guard(&dec)
	w.current = nil
	p := &w.pkt
	p.Decode(frame, packet.LinkEthernet)
	p.Time = now
	return w.packet(port, len(frame))
}

// HandlePcap judges one packet of a file. Which side it came from is told by its source address.
func (w *Worker) HandlePcap(c *pcap.Packet) wire.Decision {
	p := &w.pkt
	p.Decode(c.Data, c.Link)
	p.Time, p.PcapCount = c.Time, c.Number
	port := wire.LAN
	if p.Version != 0 && !w.pol.zones.Inside(p.Src) && w.pol.zones.Inside(p.Dst) {
		port = wire.WAN
	}
	dec := w.packet(port, len(c.Data))
	for depth := uint8(1); depth <= packet.MaxTunnelDepth; depth++ {
		inner, link := p.Encapsulated()
		if inner == nil {
			break
		}
		p.Decode(inner, link)
		p.Time, p.PcapCount, p.Tunnel = c.Time, c.Number, p.Tunnel+depth
		if d := w.packet(port, len(inner)); d.Verdict == wire.Drop {
			dec = d
		}
	}
	return dec
}

func (w *Worker) packet(port wire.Port, size int) wire.Decision {
	w.sync()
	w.isPseudo = false
	p := &w.pkt
	bump(&w.count.packets, 1)
	bump(&w.count.bytes, uint64(size))
	if w.engine.cfg.Offline && p.Time-w.lastTick > 1e9 {
		w.lastTick = p.Time
		w.table.Expire(p.Time)
	}
	if p.Problem != packet.OK {
		bump(&w.count.decodeErrors, 1)
	}
	if p.Version == 0 || (p.Problem != packet.OK && !p.HasL4 && !p.Fragment) {
		return w.noFlow(port, size)
	}
	if p.Fragment && p.Problem == packet.OK {
		return w.fragment(port, size)
	}
	return w.ip(port, size)
}

// fragment judges a fragment by itself, and with the one that completes a datagram the whole. The verdict on the whole is
// that on its last fragment: without it the receiver never gets the datagram.
func (w *Worker) fragment(port wire.Port, size int) wire.Decision {
	p := &w.pkt
	frame, link := w.defrag.Add(p)
	dec := w.noFlow(port, size)
	if frame == nil {
		return dec
	}
	now, n := p.Time, p.PcapCount
	p.Decode(frame, link)
	p.Time, p.PcapCount, p.Reassembled = now, n, true
	if p.Version == 0 || p.Fragment {
		return dec
	}
	if d := w.ip(port, 0); d.Verdict == wire.Drop {
		return d
	}
	return dec
}

// sync takes a new policy or new rules over between packets.
func (w *Worker) sync() {
	w.pol = w.engine.policy.Load()
	if s := w.engine.rules.Load(); s != w.set {
		if w.matcher != nil {
			w.matcher.Close()
			w.matcher = nil
		}
		w.set = s
		if s != nil {
			w.matcher = s.NewMatcher()
		}
		w.inUse.Store(s)
	}
	if w.wantRows.Load() {
		w.giveRows()
	}
}

// noFlow handles frames that belong to no flow: not IP, or not decodable.
func (w *Worker) noFlow(port wire.Port, size int) wire.Decision {
	p := &w.pkt
	app := appid.Unknown
	if p.EtherType == packet.EtherARP {
		app = w.engine.vocabulary.ARP
		if mac, ip, ok := inventory.ARP(p); ok && w.isInside(ip, port) {
			w.observe(&inventory.Seen{MAC: mac, IP: ip, Source: "arp", Time: p.Time}, port)
		}
	}
	var dev finding.Device
	mac := p.SrcMAC
	if port == wire.WAN {
		mac = p.DstMAC
	}
	zone := inventory.NoZone
	if d, ok := w.engine.devices.ByMAC(mac); ok && p.HasMAC {
		dev = w.engine.devices.Describe(&d, w.pol.zones, p.Time)
		zone = d.Zone
	}
	r := w.rowTable.row(rowKey{app: app, visible: appid.Opaque, known: dev.Known, mac: dev.MAC, zone: int16(zone)}, w.engine.vocabulary.Name(app), &dev)
	if port == wire.LAN {
		r.BytesOut += uint64(size)
	} else {
		r.BytesIn += uint64(size)
	}
	r.Packets++
	bump(&w.count.visible[appid.Opaque], uint64(size))
	if w.matcher == nil {
		return wire.Decision{}
	}
	bump(&w.count.inspected, 1)
	return w.match(nil, nil, true)
}

func (w *Worker) isInside(a netip.Addr, port wire.Port) bool {
	if w.engine.cfg.Offline {
		return w.pol.zones.Inside(a)
	}
	return port == wire.LAN
}

// observe lists a device and tells of it when it is new or has changed.
func (w *Worker) observe(s *inventory.Seen, port wire.Port) {
	s.Zone = w.pol.zones.Find(s.MAC, w.vlan(), s.IP, port)
	d, changed := w.engine.devices.Observe(s)
	if !changed || w.pol.zones.Undecided(&d) { // the latter is told when it has its address
		return
	}
	w.engine.cfg.Sink.DeviceSeen(&finding.DeviceSeen{
		Device: w.engine.devices.Describe(&d, w.pol.zones, s.Time), First: d.First, Last: d.Last, Source: s.Source,
		VendorClass: d.VendorClass,
	})
}

func (w *Worker) vlan() [2]uint16 { return [2]uint16{w.pkt.VLAN[0], w.pkt.VLAN[1]} }

func (w *Worker) ip(port wire.Port, size int) wire.Decision {
	p := &w.pkt
	sport, dport := p.SrcPort, p.DstPort
	proto := p.Proto
	if p.Fragment { // fragments of one connection have no ports in common: all of a pair are one flow
		sport, dport = 0, 0
	}
	key, forward := flow.MakeKey(p.Src, p.Dst, sport, dport, proto, p.VLAN[0], p.VLAN[1])
	f := w.table.Lookup(&key)
	if f != nil && (w.table.Expired(f, p.Time) || w.restarted(f)) {
		w.table.Remove(f, flow.Timeout)
		f = nil
	}
	if f == nil {
		f = w.newFlow(&key, forward, port)
	}
	w.current = f
	toServer := forward == f.ClientIsA
	d := 1
	if toServer {
		d = 0
	}
	f.Packets[d]++
	f.Bytes[d] += uint64(size)
	f.X.meta.Time = p.Time
	w.learn(f, port)
	w.countBytes(f, toServer, size)
	if f.X.dropped {
		if w.dropper != nil {
			w.packetFinding(f, toServer)
			w.dropper.Drop(&w.fpkt, "flow drop", nil)
		}
		bump(&w.count.dropped, 1)
		w.table.Touch(f, f.Class, p.Time)
		return wire.Decision{Verdict: wire.Drop, Flow: wire.DropFlow, Key: f.Key.Wire()}
	}
	if f.X.cut {
		w.table.Touch(f, f.Class, p.Time)
		return wire.Decision{Flow: wire.Cut, Key: f.Key.Wire()}
	}
	bump(&w.count.inspected, 1)
	if w.badSums() {
		return w.other(f, toServer)
	}
	var dec wire.Decision
	switch {
	case proto == packet.ProtoTCP && p.HasL4:
		dec = w.tcp(f, toServer)
	case proto == packet.ProtoUDP && p.HasL4:
		dec = w.udp(f, toServer)
	default:
		dec = w.other(f, toServer)
	}
	f.X.appChanged = false
	return dec
}

// restarted says whether the packet begins a new connection on the ports of one that is over.
func (w *Worker) restarted(f *flowT) bool {
	p := &w.pkt
	if p.Proto != packet.ProtoTCP || p.TCPFlags&(packet.SYN|packet.ACK|packet.RST) != packet.SYN {
		return false
	}
	return f.TCP.State >= flow.TCPClosing
}

func (w *Worker) newFlow(key *flow.Key, forward bool, port wire.Port) *flowT {
	p := &w.pkt
	class := flow.ClassOtherNew
	switch key.Proto {
	case packet.ProtoTCP:
		class = flow.ClassTCPNew
	case packet.ProtoUDP:
		class = flow.ClassUDPNew
	}
	f := w.table.Insert(key, class, p.Time)
	bump(&w.count.flows, 1)
	reverse := p.Proto == packet.ProtoTCP && p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN|packet.ACK
	if p.Proto == packet.ProtoTCP && p.TCPFlags&packet.SYN == 0 && wellKnown(p.SrcPort) && !wellKnown(p.DstPort) {
		reverse = true // picked up in the middle: the well-known port is the server's
	}
	f.ClientIsA = forward != reverse
	f.Client, f.Server, f.ClientPort, f.ServerPort = p.Src, p.Dst, p.SrcPort, p.DstPort
	clientMAC, serverMAC := p.SrcMAC, p.DstMAC
	clientPort, serverPort := port, wire.WAN-port
	if reverse {
		f.Client, f.Server, f.ClientPort, f.ServerPort = p.Dst, p.Src, p.DstPort, p.SrcPort
		clientMAC, serverMAC = serverMAC, clientMAC
		clientPort, serverPort = serverPort, clientPort
	}
	x := &f.X
	x.meta = inspect.Meta{Time: p.Time, ClientPort: f.ClientPort, ServerPort: f.ServerPort, UDP: key.Proto == packet.ProtoUDP}
	x.inside[0], x.inside[1] = w.isInside(f.Client, clientPort), w.isInside(f.Server, serverPort)
	if !w.engine.cfg.Offline && !x.inside[1] && w.pol.zones.Inside(f.Server) && f.Server.IsPrivate() {
		x.inside[1] = true // another part of the clinic behind the other port
	}
	for i, a := range [2]netip.Addr{f.Client, f.Server} { // a group is nobody's device
		mac := clientMAC
		if i == 1 {
			mac = serverMAC
		}
		if a.IsMulticast() || mac[0]&1 != 0 || a.IsUnspecified() && i == 1 || a == limitedBroadcast {
			x.inside[i] = false
		}
	}
	vlan := w.vlan()
	x.zones = [2]int{inventory.NoZone, inventory.NoZone}
	for i, a := range [2]netip.Addr{f.Client, f.Server} {
		mac, at := clientMAC, clientPort
		if i == 1 {
			mac, at = serverMAC, serverPort
		}
		x.zones[i] = w.pol.zones.Find(mac, vlan, a, at)
	}
	switch {
	case x.inside[0] && x.inside[1]:
		x.direction = finding.Internal
	case x.inside[1]:
		x.direction = finding.Inbound
	default:
		x.direction = finding.Outbound
	}
	x.clientIsDev = x.direction != finding.Inbound
	if x.direction == finding.Outbound && !x.inside[0] && port == wire.WAN {
		x.clientIsDev = false // from outside to a group: bytes in, of no device
	}
	mac, addr, at := clientMAC, f.Client, clientPort
	zone := x.zones[0]
	if !x.clientIsDev {
		mac, addr, at, zone = serverMAC, f.Server, serverPort, x.zones[1]
	}
	x.mac = mac
	if x.inside[0] || x.inside[1] {
		w.listDevice(mac, addr, at, zone)
		x.device = w.engine.describe(w.pol, mac, addr, vlan, at, p.Time)
	}
	x.mode = w.pol.mode(zone)
	if w.engine.cfg.Prevent {
		x.mode = Prevent
	}
	x.app = rule.AppUnknown
	x.appID = appid.Unknown
	w.protect(f)
	w.firstPacket(f)
	return f
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// listDevice lists the device of a new flow, once in a while: ARP may never be seen on a routed or IPv6-only link.
func (w *Worker) listDevice(mac [6]byte, a netip.Addr, port wire.Port, zone int) {
	if mac == ([6]byte{}) || mac[0]&1 != 0 || w.engine.cfg.Offline || (port == wire.WAN && zone == inventory.NoZone) {
		return
	}
	k := macIP{mac, a}
	now := w.pkt.Time
	if at, ok := w.macSeen[k]; ok && now-at < 60e9 {
		return
	}
	if len(w.macSeen) >= 8192 {
		clear(w.macSeen)
	}
	w.macSeen[k] = now
	w.observe(&inventory.Seen{MAC: mac, IP: a, Source: "flow", Time: now}, port)
}

// medicalPorts are those of domain page 3.7 whose traffic inside the clinic must never be stopped, whatever a rule says.
func medicalPort(p uint16) bool {
	switch p {
	case 104, 11112, 2761, 2762, 2575, 8000, 8210, 8211, 9400, 5432:
		return true
	}
	return false
}

// protect decides whether a flow may ever be stopped: eligibility checks never; inside the clinical zone medical traffic,
// time, directory and names never (domain page 3.7).
func (w *Worker) protect(f *flowT) {
	x := &f.X
	zone := [2]string{w.pol.zones.Name(x.zones[0]), w.pol.zones.Name(x.zones[1])}
	if zone[0] == "eligibility" || zone[1] == "eligibility" {
		x.neverDrop = true
		return
	}
	if zone[0] != "clinical" || !x.inside[1] || (zone[1] != "clinical" && zone[1] != "") {
		return
	}
	switch {
	case medicalPort(f.ServerPort):
		x.neverDrop = true
	case f.ServerPort == 123 || f.ServerPort == 88 || f.ServerPort == 389 || f.ServerPort == 636:
		x.neverDrop = true
	}
}

// firstPacket runs what looks at a flow once: listed addresses and scans.
func (w *Worker) firstPacket(f *flowT) {
	p := &w.pkt
	x := &f.X
	if x.inside[0] && !x.inside[1] {
		if id := w.pol.indicators.Address(f.Server); id != 0 {
			if l, ok := w.pol.indicators.Get(id); ok {
				w.packetFinding(f, true)
				bump(&w.count.detections, 1)
				w.engine.listed(&w.fpkt, &x.device, x.mac, "D12-address", f.Server.String(), l, finding.Passed)
			}
		}
	}
	probe := p.Proto == packet.ProtoTCP && p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN ||
		p.Proto == packet.ProtoUDP && x.inside[1]
	if probe && (x.inside[0] || x.inside[1]) {
		if s, ok := w.scan.Attempt(w.pol.scan, f.Client, f.Server, f.ServerPort, p.Time); ok {
			w.packetFinding(f, true)
			w.scanned(f, s)
		}
	}
}

// learn feeds the device list from DHCP and neighbour discovery.
func (w *Worker) learn(f *flowT, port wire.Port) {
	p := &w.pkt
	switch p.Proto {
	case packet.ProtoUDP:
		if (f.ServerPort == 67 || f.ServerPort == 68) && p.HasL4 {
			if l, ok := inventory.DHCP(p); ok && (!l.IP.IsValid() || !w.engine.cfg.Offline || w.pol.zones.Inside(l.IP)) {
				w.observe(&inventory.Seen{
					MAC: l.MAC, IP: l.IP, Hostname: l.Hostname, VendorClass: l.VendorClass, Source: "dhcp", Time: p.Time,
				}, wire.LAN)
			}
		}
	case packet.ProtoICMPv6:
		if mac, ip, ok := inventory.Neighbour(p); ok && w.isInside(ip, port) {
			w.observe(&inventory.Seen{MAC: mac, IP: ip, Source: "nd", Time: p.Time}, port)
		}
	}
}

// other handles protocols without parsers, and fragments.
func (w *Worker) other(f *flowT, toServer bool) wire.Decision {
	class := flow.ClassOtherNew
	if f.Packets[0] > 0 && f.Packets[1] > 0 {
		class = flow.ClassOtherEstablished
		f.State = flow.Established
	}
	w.table.Touch(f, class, w.pkt.Time)
	return w.match(f, nil, toServer)
}

func wellKnown(p uint16) bool { return p < 1024 }

// Tick runs time-outs.
func (w *Worker) Tick(now int64) {
	w.sync()
	w.table.Expire(now)
	if now-w.lastSlow > 1e9 {
		w.lastSlow = now
		w.scan.Expire(w.pol.scan, now)
		w.engine.folds.expire(now)
		w.count.active.Store(uint64(w.table.Len()))
		w.count.forced.Store(w.table.Forced)
		w.count.reasmDropped.Store(w.asm.Dropped)
		w.count.gaps.Store(w.asm.Gaps)
	}
}

func (w *Worker) flush() {
	w.table.Drain()
	w.count.active.Store(0)
	w.count.forced.Store(w.table.Forced)
	w.count.reasmDropped.Store(w.asm.Dropped)
	w.count.gaps.Store(w.asm.Gaps)
	if w.matcher != nil {
		w.matcher.Close()
		w.matcher = nil
		w.set = nil
		w.inUse.Store(nil)
	}
	w.done.Store(true)
}
