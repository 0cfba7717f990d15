package xdp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// The answers of an XDP program.
const (
	xdpDrop     = 1
	xdpRedirect = 4
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("root is missing")
		}
		t.Skip("root is missing")
	}
}

// loadProgram loads the program with maps of its own and both ports set to the loopback device.
func loadProgram(t testing.TB) *Wire {
	t.Helper()
	needRoot(t)
	spec, err := loadEdge()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	w := &Wire{}
	if err := w.cfg.validate(); err == nil {
		t.Fatal("a configuration without ports is good")
	}
	w.log = w.cfg.Log
	if err := spec.LoadAndAssign(&w.objs, nil); err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			t.Fatalf("%+v", v)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.objs.Close() })
	if w.control, err = mapControl(w.objs.Control); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.control.close)
	w.clock, err = newClock()
	if err != nil {
		t.Fatal(err)
	}
	w.control.SampleInterval, w.control.SampleBudget = 1e9, sampleBudget
	if w.flows, err = newFlowTable(w); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.flows.filter.close)
	w.control.Limit = 50e6
	w.control.Beat[0] = 1 << 62 // a loop that beats, but no socket
	for p := range uint32(2) {
		if err := w.objs.Devices.Put(p, uint32(1)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *Wire) program(p wire.Port) *ebpf.Program {
	if p == wire.WAN {
		return w.objs.EdgeWan
	}
	return w.objs.EdgeLan
}

// counted is what all the program's counters say, as text: "cut 1/60", "note vlan 1/60", "drop blocked-source list 7 1/60".
func (w *Wire) counted(t testing.TB, p wire.Port) []string {
	t.Helper()
	var per []edgePortCounters
	if err := w.objs.Counters.Lookup(uint32(p), &per); err != nil {
		t.Fatal(err)
	}
	var sum edgePortCounters
	for i := range per {
		for o := range sum.Outcome {
			sum.Outcome[o].Packets += per[i].Outcome[o].Packets
			sum.Outcome[o].Bytes += per[i].Outcome[o].Bytes
		}
		for n := range sum.Note {
			sum.Note[n].Packets += per[i].Note[n].Packets
			sum.Note[n].Bytes += per[i].Note[n].Bytes
		}
	}
	var out []string
	for o, name := range []string{"handler", "cut", "stale", "no-socket", "bypass", "drop"} {
		if c := sum.Outcome[o]; c.Packets != 0 {
			out = append(out, fmt.Sprintf("%s %d/%d", name, c.Packets, c.Bytes))
		}
	}
	for n, name := range noteNames {
		if c := sum.Note[n]; c.Packets != 0 {
			out = append(out, fmt.Sprintf("note %s %d/%d", name, c.Packets, c.Bytes))
		}
	}
	return out
}

// countedDrops is what the map of drops says, in the same form.
func (w *Wire) countedDrops(t testing.TB) (out []string) {
	t.Helper()
	drops, err := readDrops(w.objs.Drops)
	if err != nil {
		t.Fatal(err)
	}
	for k, c := range drops {
		out = append(out, fmt.Sprintf("drop %v list %d %d/%d", wire.DropReason(k.Reason), k.List, c.Packets, c.Bytes))
	}
	return out
}

// reset empties all counters and forgets which drops were told.
func (w *Wire) reset(t testing.TB) {
	t.Helper()
	w.resetCounters(t)
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(1024) {
		if err := w.objs.DropSlots.Put(i, make([]edgeDropSlot, cpus)); err != nil {
			t.Fatal(err)
		}
	}
}

// resetCounters empties all counters.
func (w *Wire) resetCounters(t testing.TB) {
	t.Helper()
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	for p := range uint32(2) {
		if err := w.objs.Counters.Put(p, make([]edgePortCounters, cpus)); err != nil {
			t.Fatal(err)
		}
	}
	drops, err := readDrops(w.objs.Drops)
	if err != nil {
		t.Fatal(err)
	}
	for k := range drops {
		if err := w.objs.Drops.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *Wire) putFlow(t testing.TB, k edgeFlowKey, verdict uint8) {
	t.Helper()
	if !w.flows.install(&k, verdict) {
		t.Fatal("no room for a flow")
	}
}

// key makes a flow's key from the side of a.
func key(proto uint8, a string, b string, vlans ...uint16) edgeFlowKey {
	x, y := netip.MustParseAddrPort(a), netip.MustParseAddrPort(b)
	k := wire.FlowKey{A: netip.AddrFrom16(x.Addr().As16()), B: netip.AddrFrom16(y.Addr().As16()), APort: x.Port(), BPort: y.Port(), Proto: proto}
	copy(k.VLAN[:], vlans)
	return flowKey(&k)
}

const (
	inside  = "192.168.1.10"
	outside = "203.0.113.7"
	listed  = "198.51.100.66"
	inside6 = "2001:db8:1::10"
	list6   = "2001:db8:bad::66"
)

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// blockTwo is the policy of the table below: two lists, one protected destination inside of one of them.
func (w *Wire) blockTwo(t testing.TB) {
	t.Helper()
	err := w.SetBlockSets([]BlockSet{
		{ID: 7, Name: "c2", Prefixes: prefixes("198.51.100.0/24", "2001:db8:bad::/48")},
		{ID: 9, Name: "one", Prefixes: prefixes("198.51.100.99/32")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetNeverBlock(prefixes("198.51.100.200/32")); err != nil {
		t.Fatal(err)
	}
}

func TestProgramPacketByPacket(t *testing.T) {
	w := loadProgram(t)
	w.blockTwo(t)
	w.putFlow(t, key(protoTCP, inside+":1000", outside+":443"), flowCut)
	w.putFlow(t, key(protoUDP, inside+":1000", outside+":53"), flowDrop)
	w.putFlow(t, key(protoTCP, inside+":1000", outside+":443", 10, 20), flowDrop)
	w.putFlow(t, key(protoUDP, inside+":5000", "198.51.100.200:53"), flowDrop)
	w.putFlow(t, key(protoUDP, "["+inside6+"]:1000", "[2001:db8:2::1]:53"), flowCut)

	udp4 := frame(ip4(protoUDP, inside, outside), udp(1000, 5353), payload(20))
	udp6 := frame(ip6(protoUDP, inside6, "2001:db8:2::1"), udp(1000, 53))
	rows := []struct {
		name  string
		frame []byte
		wan   bool
		want  int
		// counters that must be there, each with the frame's packets and bytes appended; all others must be 0
		counts []string
	}{
		{"udp without a verdict", frame(eth(typeIPv4), udp4), false, xdpRedirect, []string{"no-socket"}},
		{"options", frame(eth(typeIPv4), ip4f(protoUDP, inside, outside, 0, 8), udp(1000, 53)), false, xdpDrop, []string{"drop", "drop flow list 0"}},
		{"cut", frame(eth(typeIPv4), ip4(protoTCP, inside, outside), tcp(1000, 443, 0x10)), false, xdpRedirect, []string{"cut"}},
		{"cut, the other way", frame(eth(typeIPv4), ip4(protoTCP, outside, inside), tcp(443, 1000, 0x10)), true, xdpRedirect, []string{"cut"}},
		{"cut of another port", frame(eth(typeIPv4), ip4(protoTCP, inside, outside), tcp(1001, 443, 0x10)), false, xdpRedirect, []string{"no-socket"}},
		{"cut, first fragment", frame(eth(typeIPv4), ip4f(protoTCP, inside, outside, 0x2000, 5), tcp(1000, 443, 0x10)), false, xdpRedirect, []string{"no-socket", "note fragment"}},
		{"cut, last fragment", frame(eth(typeIPv4), ip4f(protoTCP, inside, outside, 0x0010, 5), payload(20)), false, xdpRedirect, []string{"no-socket", "note fragment"}},
		{"drop", frame(eth(typeIPv4), ip4(protoUDP, inside, outside), udp(1000, 53)), false, xdpDrop, []string{"drop", "drop flow list 0"}},
		{"drop, the other way", frame(eth(typeIPv4), ip4(protoUDP, outside, inside), udp(53, 1000)), true, xdpDrop, []string{"drop", "drop flow list 0"}},
		{"drop, first fragment", frame(eth(typeIPv4), ip4f(protoUDP, inside, outside, 0x2000, 5), udp(1000, 53)), false, xdpDrop, []string{"drop", "drop flow list 0", "note fragment"}},
		{"drop by tags", frame(eth(typeQinQ), vlan(10, typeVLAN), vlan(20, typeIPv4), ip4(protoTCP, inside, outside), tcp(1000, 443, 0x10)), false, xdpDrop, []string{"drop", "drop flow list 0", "note vlan"}},
		{"tags the wrong way round", frame(eth(typeQinQ), vlan(20, typeVLAN), vlan(10, typeIPv4), ip4(protoTCP, inside, outside), tcp(1000, 443, 0x10)), false, xdpRedirect, []string{"no-socket", "note vlan"}},
		{"three tags", frame(eth(typeQinQ), vlan(1, typeVLAN), vlan(2, typeVLAN), vlan(3, typeIPv4), udp4), false, xdpRedirect, []string{"no-socket", "note vlan", "note too-deep"}},
		{"cut off tag", frame(eth(typeVLAN), []byte{0}), false, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"listed source", frame(eth(typeIPv4), ip4(protoUDP, listed, inside), udp(1, 2)), true, xdpDrop, []string{"drop", "drop blocked-source list 7"}},
		{"listed destination", frame(eth(typeIPv4), ip4(protoUDP, inside, listed), udp(1, 2)), false, xdpDrop, []string{"drop", "drop blocked-destination list 7"}},
		{"longest prefix names the list", frame(eth(typeIPv4), ip4(protoUDP, inside, "198.51.100.99"), udp(1, 2)), false, xdpDrop, []string{"drop", "drop blocked-destination list 9"}},
		{"listed, later fragment", frame(eth(typeIPv4), ip4f(protoUDP, listed, inside, 0x0010, 5), payload(30)), true, xdpDrop, []string{"drop", "drop blocked-source list 7", "note fragment"}},
		{"beside the list", frame(eth(typeIPv4), ip4(protoUDP, "198.51.101.0", inside), udp(1, 2)), true, xdpRedirect, []string{"no-socket"}},
		{"listed IPv6", frame(eth(typeIPv6), ip6(protoUDP, inside6, list6), udp(1, 2)), false, xdpDrop, []string{"drop", "drop blocked-destination list 7"}},
		{"beside the IPv6 list", frame(eth(typeIPv6), ip6(protoUDP, inside6, "2001:db8:bae::"), udp(1, 2)), false, xdpRedirect, []string{"no-socket"}},
		{"never block a listed destination", frame(eth(typeIPv4), ip4(protoUDP, inside, "198.51.100.200"), udp(1, 2)), false, xdpRedirect, []string{"no-socket", "note never-block"}},
		{"never block its answer", frame(eth(typeIPv4), ip4(protoUDP, "198.51.100.200", inside), udp(2, 1)), true, xdpRedirect, []string{"no-socket", "note never-block"}},
		{"never block a dropped flow", frame(eth(typeIPv4), ip4(protoUDP, inside, "198.51.100.200"), udp(5000, 53)), false, xdpRedirect, []string{"no-socket", "note never-block"}},
		{"cut IPv6", frame(eth(typeIPv6), udp6), false, xdpRedirect, []string{"cut"}},
		{"cut IPv6 behind extension headers", frame(eth(typeIPv6), ip6(0, inside6, "2001:db8:2::1"), ext6(60, 1), ext6(43, 2), ext6(protoUDP, 3), udp(1000, 53)), false, xdpRedirect, []string{"cut"}},
		{"seven extension headers", frame(eth(typeIPv6), ip6(0, inside6, "2001:db8:2::1"), ext6(60, 1), ext6(60, 1), ext6(60, 1), ext6(60, 1), ext6(60, 1), ext6(60, 1), ext6(protoUDP, 1), udp(1000, 53)), false, xdpRedirect, []string{"no-socket", "note too-deep"}},
		{"cut off extension header", frame(eth(typeIPv6), ip6(0, inside6, "2001:db8:2::1"), []byte{60}), false, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"extension header longer than the packet", frame(eth(typeIPv6), ip6(0, inside6, "2001:db8:2::1"), []byte{protoUDP, 200, 0, 0, 0, 0, 0, 0}), false, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"IPv6 first fragment", frame(eth(typeIPv6), ip6(44, inside6, "2001:db8:2::1"), frag6(protoUDP, 1), udp(1000, 53)), false, xdpRedirect, []string{"no-socket", "note fragment"}},
		{"IPv6 later fragment of a listed one", frame(eth(typeIPv6), ip6(44, list6, inside6), frag6(protoUDP, 8), payload(9)), true, xdpDrop, []string{"drop", "drop blocked-source list 7", "note fragment"}},
		{"IPv6 atomic fragment", frame(eth(typeIPv6), ip6(44, inside6, "2001:db8:2::1"), frag6(protoUDP, 0), udp(1000, 53)), false, xdpRedirect, []string{"cut"}},
		{"PPPoE", frame(eth(typePPPoE), pppoe(0x0021), ip4(protoUDP, listed, inside), udp(1, 2)), true, xdpDrop, []string{"drop", "drop blocked-source list 7", "note pppoe"}},
		{"PPPoE IPv6 in a VLAN", frame(eth(typeVLAN), vlan(30, typePPPoE), pppoe(0x0057), ip6(protoUDP, list6, inside6), udp(1, 2)), true, xdpDrop, []string{"drop", "drop blocked-source list 7", "note pppoe", "note vlan"}},
		{"PPPoE LCP", frame(eth(typePPPoE), pppoe(0xc021), payload(10)), true, xdpRedirect, []string{"no-socket", "note pppoe", "note not-ip"}},
		{"PPPoE of another version", frame(eth(typePPPoE), []byte{0x22, 0, 0, 7, 0, 100, 0, 0x21}, udp4), true, xdpRedirect, []string{"no-socket", "note pppoe", "note malformed"}},
		{"cut off PPPoE", frame(eth(typePPPoE), []byte{0x11, 0}), true, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"DS-Lite", frame(eth(typeIPv6), ip6(protoIPIP, "2001:db8::a", "2001:db8::b"), ip4(protoTCP, inside, outside), tcp(1000, 443, 0x10)), false, xdpRedirect, []string{"cut", "note tunnel"}},
		{"DS-Lite listed", frame(eth(typeIPv6), ip6(protoIPIP, "2001:db8::a", "2001:db8::b"), ip4(protoUDP, listed, inside), udp(1, 2)), true, xdpDrop, []string{"drop", "drop blocked-source list 7", "note tunnel"}},
		{"DS-Lite cut off", frame(eth(typeIPv6), ip6(protoIPIP, "2001:db8::a", "2001:db8::b"), []byte{0x45, 0}), false, xdpRedirect, []string{"no-socket", "note tunnel", "note truncated"}},
		{"GRE", frame(eth(typeIPv4), ip4(47, inside, outside), payload(20)), false, xdpRedirect, []string{"no-socket", "note opaque"}},
		{"ESP of a listed one", frame(eth(typeIPv4), ip4(50, listed, inside), payload(20)), true, xdpDrop, []string{"drop", "drop blocked-source list 7", "note opaque"}},
		{"ARP", frame(eth(typeARP), payload(28)), false, xdpRedirect, []string{"no-socket", "note not-ip"}},
		{"Ethernet without content", eth(typeIPv4), false, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"half an IPv4 header", frame(eth(typeIPv4), ip4(protoUDP, listed, inside)[:12]), true, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"IPv4 header length 4", frame(eth(typeIPv4), ip4f(protoUDP, listed, inside, 0, 4), udp(1, 2)), true, xdpRedirect, []string{"no-socket", "note malformed"}},
		{"IPv4 says version 6", frame(eth(typeIPv4), []byte{0x65}, ip4(protoUDP, listed, inside)[1:], udp(1, 2)), true, xdpRedirect, []string{"no-socket", "note malformed"}},
		{"options longer than the packet", frame(eth(typeIPv4), ip4f(protoUDP, inside, outside, 0, 5)[:0], []byte{0x4f}, ip4(protoUDP, inside, outside)[1:]), false, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"half an IPv6 header", frame(eth(typeIPv6), ip6(protoUDP, list6, inside6)[:30]), true, xdpRedirect, []string{"no-socket", "note truncated"}},
		{"IPv6 says version 4", frame(eth(typeIPv6), []byte{0x40}, ip6(protoUDP, list6, inside6)[1:]), true, xdpRedirect, []string{"no-socket", "note malformed"}},
		{"TCP without ports", frame(eth(typeIPv4), ip4(protoTCP, inside, outside), []byte{0, 1}), false, xdpRedirect, []string{"no-socket", "note truncated"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			w.reset(t)
			port := wire.LAN
			if r.wan {
				port = wire.WAN
			}
			out := make([]byte, len(r.frame)+256)
			opts := &ebpf.RunOptions{Data: r.frame, DataOut: out}
			got, err := w.program(port).Run(opts)
			if err != nil {
				t.Fatal(err)
			}
			if int(got) != r.want {
				t.Errorf("answer %d, want %d", got, r.want)
			}
			if !bytes.Equal(opts.DataOut, r.frame) {
				t.Errorf("the frame was changed:\n%x\n%x", opts.DataOut, r.frame)
			}
			want := map[string]bool{}
			for _, c := range r.counts {
				want[fmt.Sprintf("%s 1/%d", c, len(r.frame))] = true
			}
			for _, c := range slices.Concat(w.counted(t, port), w.counted(t, 1-port), w.countedDrops(t)) {
				if !want[c] {
					t.Errorf("counted %q", c)
				}
				delete(want, c)
			}
			for c := range want {
				t.Errorf("not counted: %q", c)
			}
		})
	}
}

func TestProgramSize(t *testing.T) {
	w := loadProgram(t)
	for _, p := range []*ebpf.Program{w.objs.EdgeLan, w.objs.EdgeWan} {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		verified, ok := info.VerifiedInstructions()
		if !ok {
			t.Skip("the kernel does not count verified instructions")
		}
		jited, _ := info.JitedSize()
		t.Logf("%s: %d instructions verified of 1000000, %d bytes of machine code", p, verified, jited)
		if verified > 500000 {
			t.Errorf("%s: the verifier is half way to its limit", p)
		}
	}
}

// TestTypesMatch holds the sizes that both sides count on.
func TestTypesMatch(t *testing.T) {
	for _, s := range []struct {
		name string
		got  uintptr
		want uintptr
	}{
		{"flow_key", unsafe.Sizeof(edgeFlowKey{}), 48},
		{"flow", unsafe.Sizeof(edgeFlow{}), 48},
		{"drop_sample", unsafe.Sizeof(edgeDropSample{}), 80},
		{"one page of control", unsafe.Sizeof(edgeControlPage{}) / uintptr(unix.Getpagesize()), 0},
	} {
		if s.got != s.want {
			t.Errorf("%s: %d bytes, want %d", s.name, s.got, s.want)
		}
	}
}
