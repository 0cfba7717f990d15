package engine

import (
	"bytes"
	"net/netip"
	"testing"

	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"

	"github.com/kadomori/kadomori/dataplane/internal/detect"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/packet"
	pt "github.com/kadomori/kadomori/dataplane/internal/packet/packettest"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// sink keeps what it is given.
type sink struct {
	alerts     []finding.Alert
	detections []finding.Detection
	flows      []finding.FlowEnd
	devices    []finding.DeviceSeen
	txs        []string
}

func (s *sink) Alert(a *finding.Alert)         { s.alerts = append(s.alerts, *a) }
func (s *sink) Detection(d *finding.Detection) { s.detections = append(s.detections, *d) }
func (s *sink) Transaction(_ *finding.Packet, t finding.Transaction) {
	s.txs = append(s.txs, t.EVEType())
}
func (s *sink) FlowEnd(f *finding.FlowEnd)       { s.flows = append(s.flows, *f) }
func (s *sink) DeviceSeen(d *finding.DeviceSeen) { s.devices = append(s.devices, *d) }
func (s *sink) find(detector string) []finding.Detection {
	var out []finding.Detection
	for _, d := range s.detections {
		if d.Detector == detector {
			out = append(out, d)
		}
	}
	return out
}

var (
	pc     = pt.At(1, "192.168.11.10", 50000)
	phone  = pt.At(2, "192.168.20.7", 40000)
	server = pt.At(9, "203.0.113.5", 443)
	dnsSrv = pt.At(9, "203.0.113.53", 53)
)

const t0 = int64(1_800_000_000_000_000_000)

func testPolicy(t testing.TB, mode policyv1.Mode) *Policy {
	t.Helper()
	p, err := CompilePolicy(&policyv1.Policy{
		HomeNet: []string{"192.168.11.0/24", "192.168.20.0/24"},
		Zones: []*policyv1.Zone{
			{Name: "clinical", Mode: mode, Prefixes: []string{"192.168.11.0/24"}},
			{Name: "guest", Mode: mode, Prefixes: []string{"192.168.20.0/24"}, Anonymous: true},
		},
		Lists: []*policyv1.ListUse{{Name: "c2", Block: true}, {Name: "c2-names", Block: true}},
	}, &signaturev1.Signatures{
		Addresses: []*signaturev1.AddressList{{
			Name: "c2", Kind: signaturev1.ListKind_LIST_KIND_C2, Prefixes: detect.PackPrefixes([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}),
		}},
		Domains: []*signaturev1.DomainList{{Name: "c2-names", Kind: signaturev1.ListKind_LIST_KIND_C2, Domains: []string{"evil.example"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newTest(t testing.TB, mode policyv1.Mode) (*Engine, *Worker, *sink) {
	t.Helper()
	s := &sink{}
	e, err := New(Config{Sink: s, Transactions: true})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(testPolicy(t, mode))
	w, ok := e.Worker(0).(*Worker)
	if !ok {
		t.Fatal("not a Worker")
	}
	return e, w, s
}

func handshake(w *Worker, c, s pt.Host, now int64) {
	w.Handle(pt.TCP(c, s, 100, 0, packet.SYN, nil), wire.LAN, now)
	w.Handle(pt.TCP(s, c, 500, 101, packet.SYN|packet.ACK, nil), wire.WAN, now+1)
	w.Handle(pt.TCP(c, s, 101, 501, packet.ACK, nil), wire.LAN, now+2)
}

func TestListedNameInDNSIsAnsweredOnlyInPrevent(t *testing.T) {
	for _, mode := range []policyv1.Mode{policyv1.Mode_MODE_NOTIFY, policyv1.Mode_MODE_PREVENT} {
		_, w, s := newTest(t, mode)
		d := w.Handle(pt.UDP(pc, dnsSrv, pt.DNSQuery(7, "WWW.evil.example")), wire.LAN, t0)
		got := s.find("D12-domain")
		if len(got) != 1 || got[0].Indicator != "www.evil.example" || got[0].List != "c2-names" || got[0].Category != finding.Bot {
			t.Fatalf("mode %v: detections %+v", mode, got)
		}
		if len(s.find("infected-host")) != 1 || s.find("infected-host")[0].Certainty != finding.Suspected {
			t.Fatalf("mode %v: want one suspicion, got %+v", mode, s.find("infected-host"))
		}
		if mode == policyv1.Mode_MODE_NOTIFY {
			if d.Verdict != wire.Forward || len(d.Back) != 0 || got[0].Action != finding.Passed {
				t.Fatalf("notify must pass: %+v", d)
			}
			continue
		}
		if d.Verdict != wire.Drop || len(d.Back) != 1 || got[0].Action != finding.Blocked {
			t.Fatalf("prevent must answer: %+v", d)
		}
		var p packet.Packet
		p.Decode(d.Back[0], packet.LinkEthernet)
		if ip, l4 := p.Checksums(); !ip || !l4 || p.Dst != pc.IP || p.DstMAC != pc.MAC || p.DstPort != pc.Port || p.Payload[3]&15 != 3 || p.Payload[1] != 7 {
			t.Fatalf("answer is wrong: sums %v %v, %+v", ip, l4, p)
		}
		if d := w.Handle(pt.UDP(pc, dnsSrv, pt.DNSQuery(8, "good.example")), wire.LAN, t0+1); d.Verdict != wire.Forward {
			t.Fatal("another name over the same ports must pass")
		}
	}
}

func TestNameInClientHelloSplitOverSegmentsIsStopped(t *testing.T) {
	_, w, s := newTest(t, policyv1.Mode_MODE_PREVENT)
	handshake(w, pc, server, t0)
	hello := pt.ClientHello("c2.evil.example")
	if d := w.Handle(pt.TCP(pc, server, 101, 501, packet.ACK, hello[:40]), wire.LAN, t0+10); d.Verdict != wire.Forward {
		t.Fatal("first half has no name yet")
	}
	d := w.Handle(pt.TCP(pc, server, 141, 501, packet.ACK, hello[40:]), wire.LAN, t0+11)
	if d.Verdict != wire.Drop || d.Flow != wire.DropFlow || len(d.Back) != 1 || len(d.Onward) != 1 {
		t.Fatalf("want drop and resets both ways, got %+v", d)
	}
	var p packet.Packet
	p.Decode(d.Back[0], packet.LinkEthernet)
	if p.TCPFlags&packet.RST == 0 || p.Seq != 501 || p.Dst != pc.IP {
		t.Fatalf("reset to the client is wrong: %+v", p)
	}
	p.Decode(d.Onward[0], packet.LinkEthernet)
	if p.TCPFlags&packet.RST == 0 || p.Seq != 141 || p.Dst != server.IP {
		t.Fatalf("reset to the server is wrong: seq %d dst %v", p.Seq, p.Dst)
	}
	if got := s.find("D12-domain"); len(got) != 1 || got[0].Action != finding.Blocked {
		t.Fatalf("detections %+v", got)
	}
	if d := w.Handle(pt.TCP(pc, server, 141, 501, packet.ACK, hello[40:]), wire.LAN, t0+12); d.Verdict != wire.Drop {
		t.Fatal("the flow is over")
	}
}

func TestTwoIndependentSignalsMakeInfectionLikely(t *testing.T) {
	e, w, s := newTest(t, policyv1.Mode_MODE_NOTIFY)
	w.Handle(pt.UDP(pc, dnsSrv, pt.DNSQuery(7, "evil.example")), wire.LAN, t0)
	e.AddDrop(wire.DropSample{
		ListID: 1, Port: wire.LAN, Src: netip.AddrPortFrom(pc.IP, 1025), Dst: netip.MustParseAddrPort("198.51.100.9:80"), Proto: 6,
		SrcMAC: pc.MAC, Time: t0 + 5, Packets: 1,
	})
	got := s.find("infected-host")
	if len(got) != 2 || got[1].Certainty != finding.Likely || len(got[1].Signals) != 2 || got[1].Device.IP != pc.IP {
		t.Fatalf("verdicts %+v", got)
	}
	if d := s.find("D12-address"); len(d) != 1 || d[0].Action != finding.Blocked || d[0].Indicator != "198.51.100.9" {
		t.Fatalf("address %+v", d)
	}
}

func TestGuestIsNeverNamed(t *testing.T) {
	_, w, s := newTest(t, policyv1.Mode_MODE_NOTIFY)
	w.Handle(pt.ARP(phone, pt.At(9, "192.168.20.1", 0)), wire.LAN, t0)
	w.Handle(pt.UDP(phone, dnsSrv, pt.DNSQuery(7, "evil.example")), wire.LAN, t0)
	if len(s.devices) == 0 || len(s.detections) == 0 {
		t.Fatal("nothing was told")
	}
	for _, d := range s.devices {
		if d.Device.MAC == phone.MAC || d.Device.IP.IsValid() || !d.Device.Anonymous {
			t.Fatalf("device told: %+v", d.Device)
		}
	}
	for _, d := range s.detections {
		if d.Device.MAC == phone.MAC || d.Device.IP.IsValid() || d.Packet.SrcMAC == phone.MAC {
			t.Fatalf("detection names the device: %+v", d)
		}
	}
}

func TestScanOfThirtyPortsIsToldOnce(t *testing.T) {
	_, w, s := newTest(t, policyv1.Mode_MODE_NOTIFY)
	for i := range 100 {
		victim := pt.At(3, "192.168.20.99", uint16(1000+i))
		w.Handle(pt.TCP(pc, victim, 1, 0, packet.SYN, nil), wire.LAN, t0+int64(i)*1e6)
	}
	got := s.find("D19")
	if len(got) != 1 || got[0].Category != finding.Scan || got[0].Device.IP != pc.IP {
		t.Fatalf("scan %+v", got)
	}
}

func TestBusyClientIsNoScanner(t *testing.T) {
	_, w, s := newTest(t, policyv1.Mode_MODE_NOTIFY)
	for i := range 100 {
		srv := pt.At(9, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String(), 443)
		c := pc
		c.Port += uint16(i)
		handshake(w, c, srv, t0+int64(i)*1e6)
	}
	if got := s.find("D19"); len(got) != 0 {
		t.Fatalf("scan %+v", got)
	}
}

func TestMedicalTrafficIsNeverStoppedInsideTheClinicalZone(t *testing.T) {
	_, w, _ := newTest(t, policyv1.Mode_MODE_PREVENT)
	orca := pt.At(5, "192.168.11.5", 8000)
	handshake(w, pc, orca, t0)
	f := w.table.Lookup(keyOf(pc, orca))
	if f == nil || w.mayStop(f) {
		t.Fatal("an ORCA connection may be stopped")
	}
	handshake(w, pc, server, t0)
	if f := w.table.Lookup(keyOf(pc, server)); f == nil || !w.mayStop(f) {
		t.Fatal("a web connection in prevent may not be stopped")
	}
}

func TestTrafficRowsAddUpToWhatWasSeen(t *testing.T) {
	e, w, _ := newTest(t, policyv1.Mode_MODE_NOTIFY)
	var bytesIn, bytesOut, n uint64
	give := func(b []byte, port wire.Port) {
		w.Handle(b, port, t0+int64(n))
		n++
		if port == wire.LAN {
			bytesOut += uint64(len(b))
		} else {
			bytesIn += uint64(len(b))
		}
	}
	give(pt.ARP(pc, pt.At(9, "192.168.11.1", 0)), wire.LAN)
	give(pt.TCP(pc, server, 100, 0, packet.SYN, nil), wire.LAN)
	give(pt.TCP(server, pc, 500, 101, packet.SYN|packet.ACK, nil), wire.WAN)
	give(pt.TCP(pc, server, 101, 501, packet.ACK, pt.ClientHello("www.line.me")), wire.LAN)
	give(pt.UDP(pc, dnsSrv, pt.DNSQuery(1, "line.me")), wire.LAN)
	give(pt.UDP(phone, pt.At(9, "203.0.113.8", 9999), bytes.Repeat([]byte{0xfe}, 100)), wire.LAN)
	half := sumRows(takeNow(e, w))
	give(pt.TCP(server, pc, 501, 900, packet.ACK, bytes.Repeat([]byte{0x16, 3, 3}, 50)), wire.WAN)
	e.Flush()
	rows := e.TakeTraffic()
	rest := sumRows(rows)
	if half[0]+rest[0] != bytesIn || half[1]+rest[1] != bytesOut || half[2]+rest[2] != n {
		t.Fatalf("rows %v + %v, seen in %d out %d packets %d", half, rest, bytesIn, bytesOut, n)
	}
	if r := e.TakeTraffic(); len(r) != 0 {
		t.Fatalf("taken twice: %+v", r)
	}
	st := e.Stats()
	if st.BytesClear+st.BytesName+st.BytesOpaque != bytesIn+bytesOut {
		t.Fatalf("visibility %+v of %d", st, bytesIn+bytesOut)
	}
}

// takeNow takes rows while the worker's goroutine ticks.
func takeNow(e *Engine, w *Worker) []finding.TrafficRow {
	done := make(chan []finding.TrafficRow)
	go func() { done <- e.TakeTraffic() }()
	for {
		select {
		case r := <-done:
			return r
		default:
			w.Tick(t0)
		}
	}
}

func sumRows(rows []finding.TrafficRow) (s [3]uint64) {
	for _, r := range rows {
		s[0] += r.BytesIn
		s[1] += r.BytesOut
		s[2] += r.Packets
	}
	return s
}

func TestEncryptedFlowIsCutAndStillCounted(t *testing.T) {
	e, w, s := newTest(t, policyv1.Mode_MODE_NOTIFY)
	handshake(w, pc, server, t0)
	hello := pt.ClientHello("www.youtube.com")
	w.Handle(pt.TCP(pc, server, 101, 501, packet.ACK, hello), wire.LAN, t0+10)
	d := w.Handle(pt.TCP(server, pc, 501, 101+uint32(len(hello)), packet.ACK, []byte{23, 3, 3, 0, 2, 1, 2}), wire.WAN, t0+11)
	if d.Flow != wire.Cut {
		t.Fatalf("want cut, got %+v", d)
	}
	d2 := w.Handle(pt.TCP(server, pc, 508, 101+uint32(len(hello)), packet.ACK, []byte{1}), wire.WAN, t0+12)
	if d2.Flow != wire.Cut || d2.Key != d.Key {
		t.Fatalf("want cut again, got %+v", d2)
	}
	ab := 0 // bytes from A to B
	if d.Key.A.Unmap() != pc.IP {
		ab = 1
	}
	rec := wire.FlowRecord{Key: d.Key, Verdict: wire.Cut, LastSeen: t0 + 20, Ended: true}
	rec.Packets[ab], rec.Bytes[ab], rec.Packets[1-ab], rec.Bytes[1-ab] = 10, 1000, 20, 30000
	e.AddFlowRecord(rec)
	e.Flush()
	var youtube *finding.TrafficRow
	rows := e.TakeTraffic()
	for i := range rows {
		if rows[i].Application == "youtube" {
			youtube = &rows[i]
		}
	}
	if youtube == nil || youtube.Visibility != "name" || youtube.BytesIn < 30000 || youtube.BytesOut < 1000 || youtube.BytesOut > 2000 {
		t.Fatalf("rows %+v", rows)
	}
	if len(s.flows) != 1 || s.flows[0].State != "bypassed" || s.flows[0].Counts.BytesToClient < 30000 {
		t.Fatalf("flow ends %+v", s.flows)
	}
}

func TestPolicyErrorsNameTheField(t *testing.T) {
	for _, p := range []*policyv1.Policy{
		{HomeNet: []string{"192.168.0.0/33"}},
		{Zones: []*policyv1.Zone{{Name: "x", Vlans: []uint32{5000}}}},
		{Zones: []*policyv1.Zone{{Name: "x", Macs: []string{"zz"}}}},
		{Zones: []*policyv1.Zone{{}}},
	} {
		if _, err := CompilePolicy(p, nil); err == nil {
			t.Errorf("policy %v was taken", p)
		}
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	_, w, _ := newTest(t, policyv1.Mode_MODE_NOTIFY)
	handshake(w, pc, server, t0)
	payload := bytes.Repeat([]byte("GET"), 400)
	seq := uint32(101)
	now := t0 + 100
	udp := pt.UDP(pc, dnsSrv, pt.DNSQuery(3, "www.example.jp"))
	for range 300 { // warm the pools
		w.Handle(pt.TCP(pc, server, seq, 501, packet.ACK, payload), wire.LAN, now)
		w.Handle(udp, wire.LAN, now)
		seq += uint32(len(payload))
		now += 1e6
	}
	frame := pt.TCP(pc, server, seq, 501, packet.ACK, payload)
	if n := testing.AllocsPerRun(200, func() {
		now += 1e6
		w.Handle(frame, wire.LAN, now)
		w.Handle(udp, wire.LAN, now)
	}); n != 0 {
		t.Fatalf("%v allocations for two packets", n)
	}
}

// broken is a parser with a bug.
type broken struct{ inspect.Parser }

func (broken) App() rule.App     { return rule.AppTLS }
func (broken) Txs() []inspect.Tx { panic("bug") }

func TestBugInAParserForwardsThePacketAndIsCounted(t *testing.T) {
	e, w, _ := newTest(t, policyv1.Mode_MODE_PREVENT)
	handshake(w, pc, server, t0)
	w.table.Lookup(keyOf(pc, server)).X.parser = broken{}
	for i := range 3 {
		if d := w.Handle(pt.TCP(pc, server, 101, 501, packet.ACK, []byte("x")), wire.LAN, t0+int64(i)); d.Verdict != wire.Forward {
			t.Fatalf("packet %d: %+v", i, d)
		}
	}
	if n := e.Stats().Panics; n != 1 {
		t.Fatalf("%d panics counted", n)
	}
	e.Flush()
}

func FuzzHandle(f *testing.F) {
	f.Add(pt.UDP(pc, dnsSrv, pt.DNSQuery(7, "www.evil.example")))
	f.Add(pt.TCP(pc, server, 101, 501, packet.ACK, pt.ClientHello("c2.evil.example")))
	f.Add(pt.TCP(pc, server, 101, 501, packet.ACK, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")))
	f.Add(pt.ARP(pc, server))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, w, _ := newTest(t, policyv1.Mode_MODE_PREVENT)
		w.Handle(b, wire.LAN, t0)
		w.Handle(b, wire.WAN, t0+1)
		w.Tick(t0 + 2e9)
		w.flush()
	})
}
