package xdp

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

var guestMAC = [6]byte{2, 0, 0, 0, 0, 1}

// loadModel gives program and model the same policy, in which everything that a frame of randomFrame says can matter.
func loadModel(t testing.TB) (*Wire, *model) {
	t.Helper()
	w := loadProgram(t)
	block := []BlockSet{
		{ID: 7, Name: "c2", Prefixes: prefixes("198.51.100.0/24", "2001:db8:bad::/48", "2001:db8:bad:1::66/128")},
		{ID: 9, Name: "one", Prefixes: prefixes("198.51.100.99/32", "203.0.113.128/25", "0.0.0.0/0")},
	}
	never := prefixes("198.51.100.200/32", "2001:db8:bad:2::/64")
	cut := Quarantine{MACs: [][6]byte{{2, 0, 0, 0, 0, 9}}, Addrs: []netip.Addr{netip.MustParseAddr("192.168.1.66"), netip.MustParseAddr("2001:db8:1::66")}}
	zones := &ZonePolicy{
		Zones: []Zone{
			{Name: "clinical", Prefixes: prefixes("192.168.1.0/24", "2001:db8:1::/64")},
			{Name: "guest", Prefixes: prefixes("192.168.2.0/24"), VLANs: []uint16{20}, MACs: [][6]byte{{2, 0, 0, 0, 0, 7}}},
			{Name: "wan"},
		},
		Pairs: []ZonePair{
			{From: 1, To: 0, Default: ZoneDrop, ID: 100, Rules: []ZoneRule{{ID: 101, Proto: 17, Low: 53, High: 53, Action: ZonePass}, {ID: 102, Proto: 6, Low: 80, High: 443, Action: ZoneCount}}},
			{From: 2, To: 1, Default: ZoneDrop, ID: 103},
			{From: 0, To: 2, Default: ZonePass, ID: 104, Rules: []ZoneRule{{ID: 105, Proto: 6, Low: 445, High: 445, Action: ZoneDrop}, {ID: 106, Action: ZoneCount}}},
			{From: 2, To: 0, Default: ZoneDrop, ID: 107},
		},
		LAN: 0, WAN: 2,
	}
	for _, err := range []error{w.SetBlockSets(block), w.SetNeverBlock(never), w.SetQuarantine(cut), w.SetZones(*zones)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	m := &model{
		block: newNaiveSet(block), never: newNaiveSet([]BlockSet{{Prefixes: never}}), macs: map[[6]byte]bool{}, zones: zones,
		quarantine: naiveSet{}, zoneSet: naiveSet{}, flows: map[wire.FlowKey]wire.FlowVerdict{},
	}
	for _, mac := range cut.MACs {
		m.macs[mac] = true
	}
	for _, a := range cut.Addrs {
		m.quarantine[netip.PrefixFrom(a, a.BitLen())] = 0
	}
	for i, z := range zones.Zones {
		for _, p := range z.Prefixes {
			m.zoneSet[p] = uint32(i)
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 600 {
		p := readFrame(randomFrame(r))
		if !p.ip {
			continue
		}
		v := wire.Cut
		if i%3 == 0 {
			v = wire.DropFlow
		}
		if err := w.SetFlow(p.key(), v); err != nil {
			t.Fatal(err)
		}
		m.flows[p.key()] = v
	}
	return w, m
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// randomFrame makes a frame of parts that go together, mostly; some are cut off or have a flipped byte.
func randomFrame(r *rand.Rand) []byte {
	hosts4 := []string{"192.168.1.10", "192.168.1.66", "192.168.2.5", "198.51.100.66", "198.51.100.99", "198.51.100.200", "203.0.113.7", "203.0.113.200"}
	hosts6 := []string{"2001:db8:1::10", "2001:db8:1::66", "2001:db8:bad::66", "2001:db8:bad:1::66", "2001:db8:bad:2::1", "2001:db8:2::1", "::ffff:198.51.100.66"}
	ports := []uint16{53, 80, 443, 445, 1000, 5000}
	proto := pick[uint8](r, 1, 6, 6, 6, 17, 17, 17, 47, 50, 58, 132)
	transport := func(p uint8) []byte {
		switch p {
		case protoTCP:
			return tcp(pick(r, ports...), pick(r, ports...), pick[byte](r, 2, 0x12, 0x10, 0x11, 4))
		case protoUDP, 132:
			return udp(pick(r, ports...), pick(r, ports...))
		}
		return payload(8)
	}
	v4 := func() []byte {
		return frame(ip4f(proto, pick(r, hosts4...), pick(r, hosts4...), pick[uint16](r, 0, 0, 0, 0x4000, 0x2000, 0x2001, 1), pick[uint8](r, 5, 5, 5, 6, 15, 4)), transport(proto))
	}
	v6 := func() []byte {
		next, tail := proto, transport(proto)
		if r.IntN(6) == 0 {
			next, tail = protoIPIP, v4()
		}
		for range r.IntN(8) {
			if r.IntN(3) == 0 {
				tail = frame(frag6(next, pick[uint16](r, 0, 1, 8, 9)), tail)
				next = 44
			} else {
				tail = frame(ext6(next, 1+r.IntN(3)), tail)
				next = pick[uint8](r, 0, 43, 60, 135)
			}
		}
		return frame(ip6(next, pick(r, hosts6...), pick(r, hosts6...)), tail)
	}
	kind, body := uint16(typeIPv4), []byte(nil)
	switch r.IntN(8) {
	case 0, 1, 2:
		body = v4()
	case 3, 4, 5:
		kind, body = typeIPv6, v6()
	case 6:
		kind, body = typePPPoE, frame(pppoe(0x21), v4())
		if r.IntN(2) == 0 {
			body = frame(pppoe(pick[uint16](r, 0x57, 0x57, 0xc021)), v6())
		}
	case 7:
		kind, body = pick[uint16](r, typeARP, 0x88cc, 0x0842), payload(28)
	}
	for range pick(r, 0, 0, 0, 1, 1, 2, 3) {
		body = frame(vlan(pick[uint16](r, 0, 10, 20), kind), body)
		kind = pick[uint16](r, typeVLAN, typeQinQ)
	}
	f := frame(eth(kind), body)
	f[5], f[11] = byte(r.IntN(11)), byte(r.IntN(11))
	switch r.IntN(6) {
	case 0:
		f = f[:14+r.IntN(len(f)-13)]
	case 1:
		f[12+r.IntN(len(f)-12)] ^= byte(1 << r.IntN(8))
	}
	return f
}

// compare runs one frame through both.
func compare(t testing.TB, w *Wire, m *model, f []byte, port wire.Port) {
	t.Helper()
	w.resetCounters(t)
	out := make([]byte, len(f)+256)
	opts := &ebpf.RunOptions{Data: f, DataOut: out}
	code, err := w.program(port).Run(opts)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(opts.DataOut, f) {
		t.Errorf("the frame was changed:\n%x\n%x", opts.DataOut, f)
	}
	want := m.judge(f, port)
	got := slices.Concat(w.counted(t, port), w.counted(t, 1-port), w.countedDrops(t))
	// Samples depend on what came before and on who reads them.
	got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "note sample-") })
	slices.Sort(got)
	slices.Sort(want.texts)
	if int(code) != want.code || !slices.Equal(got, want.texts) {
		t.Errorf("port %d, frame %x:\nprogram %d %q\nmodel   %d %q", port, f, code, got, want.code, want.texts)
	}
}

func TestProgramAgreesWithModel(t *testing.T) {
	w, m := loadModel(t)
	r := rand.New(rand.NewPCG(7, 8))
	for range 20000 {
		compare(t, w, m, randomFrame(r), wire.Port(r.IntN(2)))
		if t.Failed() {
			return
		}
	}
}

func FuzzProgram(f *testing.F) {
	w, m := loadModel(f)
	r := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		f.Add(randomFrame(r), r.IntN(2) == 1)
	}
	f.Fuzz(func(t *testing.T, frame []byte, wan bool) {
		if len(frame) < 14 || len(frame) > 1500 {
			t.Skip("the kernel's test run wants a frame of 14 to 1500 bytes")
		}
		port := wire.LAN
		if wan {
			port = wire.WAN
		}
		compare(t, w, m, frame, port)
	})
}
