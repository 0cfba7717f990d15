package xdp

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// passed runs the frame n times and says how often it was not dropped.
func (w *Wire) passed(t testing.TB, port wire.Port, f []byte, n int) int {
	t.Helper()
	ok := 0
	for range n {
		code, err := w.program(port).Run(&ebpf.RunOptions{Data: f})
		if err != nil {
			t.Fatal(err)
		}
		if code != xdpDrop {
			ok++
		}
	}
	return ok
}

func TestRateLimits(t *testing.T) {
	rows := []struct {
		name           string
		source, inside Rates
		frame          []byte
		port           wire.Port
		pass           int // of 20
		reason         wire.DropReason
		list           uint32
	}{
		{"SYN of one source", Rates{SYN: Rate{1, 5}}, Rates{}, frame(eth(typeIPv4), ip4(protoTCP, outside, inside), tcp(1, 2, 2)), wire.WAN, 5, wire.DropRateSYN, 0},
		{"acknowledgement", Rates{SYN: Rate{1, 5}}, Rates{}, frame(eth(typeIPv4), ip4(protoTCP, outside, inside), tcp(1, 2, 0x10)), wire.WAN, 20, 0, 0},
		{"SYN to one inside host", Rates{}, Rates{SYN: Rate{1, 7}}, frame(eth(typeIPv4), ip4(protoTCP, outside, inside), tcp(1, 2, 2)), wire.WAN, 7, wire.DropRateSYN, 1},
		{"SYN from an inside host is no traffic to one", Rates{}, Rates{SYN: Rate{1, 7}}, frame(eth(typeIPv4), ip4(protoTCP, inside, outside), tcp(1, 2, 2)), wire.LAN, 20, 0, 0},
		{"UDP", Rates{UDP: Rate{1, 3}}, Rates{}, frame(eth(typeIPv4), ip4(protoUDP, inside, outside), udp(1, 2)), wire.LAN, 3, wire.DropRateUDP, 0},
		{"UDP that is cut through", Rates{UDP: Rate{1, 3}}, Rates{}, frame(eth(typeIPv4), ip4(protoUDP, inside, outside), udp(7, 8)), wire.LAN, 20, 0, 0},
		{"UDP to a protected destination", Rates{UDP: Rate{1, 3}}, Rates{}, frame(eth(typeIPv4), ip4(protoUDP, inside, "198.51.100.200"), udp(1, 2)), wire.LAN, 20, 0, 0},
		{"ICMPv6", Rates{ICMP: Rate{1, 2}}, Rates{}, frame(eth(typeIPv6), ip6(58, inside6, "2001:db8:2::1"), payload(8)), wire.LAN, 2, wire.DropRateICMP, 0},
		{"one flow is one new flow", Rates{Flow: Rate{1, 2}}, Rates{}, frame(eth(typeIPv4), ip4(protoUDP, inside, outside), udp(1, 2)), wire.LAN, 20, 0, 0},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			w := loadProgram(t)
			w.putFlow(t, key(protoUDP, inside+":7", outside+":8"), flowCut)
			if err := w.SetNeverBlock(prefixes("198.51.100.200/32")); err != nil {
				t.Fatal(err)
			}
			if err := w.SetRates(r.source, r.inside); err != nil {
				t.Fatal(err)
			}
			if got := w.passed(t, r.port, r.frame, 20); got < r.pass || got > r.pass+1 { // a second may end meanwhile
				t.Errorf("%d of 20 passed, want %d", got, r.pass)
			}
			drops, err := readDrops(w.objs.Drops)
			if err != nil {
				t.Fatal(err)
			}
			if n := drops[edgeDropKey{Reason: uint32(r.reason), List: r.list}].Packets; r.pass < 20 && n < uint64(20-r.pass-1) {
				t.Errorf("%d drops under %v/%d: %v", n, r.reason, r.list, drops)
			}
			if err := w.SetRates(Rates{}, Rates{}); err != nil {
				t.Fatal(err)
			}
			if got := w.passed(t, r.port, r.frame, 5); got != 5 {
				t.Errorf("%d of 5 passed without limits", got)
			}
		})
	}
}

func TestRateOfNewFlows(t *testing.T) {
	w := loadProgram(t)
	if err := w.SetRates(Rates{Flow: Rate{1, 4}}, Rates{}); err != nil {
		t.Fatal(err)
	}
	ok := 0
	for port := range uint16(20) {
		ok += w.passed(t, wire.LAN, frame(eth(typeIPv4), ip4(protoUDP, inside, outside), udp(1000+port, 53)), 1)
	}
	if ok < 4 || ok > 5 {
		t.Errorf("%d of 20 flows passed, want 4", ok)
	}
	// Others are not its concern.
	if ok := w.passed(t, wire.LAN, frame(eth(typeIPv4), ip4(protoUDP, "192.168.1.11", outside), udp(1, 53)), 1); ok != 1 {
		t.Error("another source was limited too")
	}
}

func TestZonesRefuseNonsense(t *testing.T) {
	w := loadProgram(t)
	z := []Zone{{Name: "a", VLANs: []uint16{10}, MACs: [][6]byte{guestMAC}}, {Name: "b"}}
	for i, p := range []ZonePolicy{
		{Zones: make([]Zone, 17)},
		{Zones: z, LAN: 2},
		{Zones: z, WAN: -1},
		{Zones: append(z, Zone{VLANs: []uint16{10}})},
		{Zones: append(z, Zone{VLANs: []uint16{4095}})},
		{Zones: append(z, Zone{MACs: [][6]byte{guestMAC}})},
		{Zones: z, Pairs: []ZonePair{{From: 0, To: 5}}},
		{Zones: z, Pairs: []ZonePair{{From: 0, To: 1}, {From: 0, To: 1}}},
		{Zones: z, Pairs: []ZonePair{{From: 0, To: 1, Rules: []ZoneRule{{Low: 9, High: 8}}}}},
		{Zones: z, Pairs: []ZonePair{{From: 0, To: 1, Rules: make([]ZoneRule, 65)}}},
		{Zones: z, Pairs: []ZonePair{{From: 0, To: 1, Rules: []ZoneRule{{Action: 9}}}}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if err := w.SetZones(p); err == nil {
				t.Error("no error")
			}
		})
	}
}

// TestManyMACs fills lines of the hash table.
func TestManyMACs(t *testing.T) {
	w := loadProgram(t)
	p := ZonePolicy{Zones: []Zone{{Name: "a"}, {Name: "b"}}, LAN: 0, WAN: 0, Pairs: []ZonePair{{From: 1, To: 0, Default: ZoneDrop, ID: 5}}}
	for i := range 3000 {
		p.Zones[1].MACs = append(p.Zones[1].MACs, [6]byte{2, 1, 0, byte(i >> 8), byte(i), 3})
	}
	if err := w.SetZones(p); err != nil {
		t.Fatal(err)
	}
	f := frame(eth(typeIPv4), ip4(protoUDP, inside, outside), udp(1, 2))
	for i := 0; i < 3000; i += 7 {
		copy(f[6:12], p.Zones[1].MACs[i][:])
		if w.passed(t, wire.LAN, f, 1) != 0 {
			t.Fatalf("MAC %d is not in its zone", i)
		}
		f[11] = 4
		if w.passed(t, wire.LAN, f, 1) != 1 {
			t.Fatalf("a MAC beside %d is in the zone", i)
		}
	}
}
