package xdp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

// naiveSet is a set as a plain map from prefix to list: the longest one that holds the address, of equal ones the first.
type naiveSet map[netip.Prefix]uint32

func newNaiveSet(sets []BlockSet) naiveSet {
	n := naiveSet{}
	for _, s := range sets {
		for _, p := range s.Prefixes {
			a, bits := p.Addr(), p.Bits()
			if a.Is4In6() && bits >= 96 {
				a, bits = a.Unmap(), bits-96
			}
			p = netip.PrefixFrom(a, bits).Masked()
			if short := map[bool]int{true: shortestV4, false: shortestV6}[a.Is4()]; bits < short {
				continue
			}
			if _, ok := n[p]; !ok {
				n[p] = s.ID
			}
		}
	}
	return n
}

func (n naiveSet) find(a netip.Addr) (uint32, bool) {
	for bits := a.BitLen(); bits >= 0; bits-- {
		if id, ok := n[netip.PrefixFrom(a, bits).Masked()]; ok {
			return id, true
		}
	}
	return 0, false
}

// asks runs a packet from the address and says which list the program stopped it for.
func (w *Wire) asks(t testing.TB, a netip.Addr) (uint32, bool) {
	t.Helper()
	f := frame(eth(typeIPv4), ip4(protoUDP, a.String(), "192.0.2.1"), udp(1, 2))
	if a.Is6() {
		f = frame(eth(typeIPv6), ip6(protoUDP, a.String(), "100::1"), udp(1, 2))
	}
	before, err := readDrops(w.objs.Drops)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.objs.EdgeWan.Run(&ebpf.RunOptions{Data: f})
	if err != nil {
		t.Fatal(err)
	}
	after, err := readDrops(w.objs.Drops)
	if err != nil {
		t.Fatal(err)
	}
	for k, c := range after {
		if c != before[k] {
			if got != xdpDrop {
				t.Fatalf("%v: counted as dropped, answer %d", a, got)
			}
			return k.List, true
		}
	}
	return 0, false
}

// neighbours are the addresses at which an answer may change.
func neighbours(p netip.Prefix) []netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	var as []netip.Addr
	for _, a := range []netip.Addr{p.Masked().Addr().Prev(), p.Masked().Addr(), last, last.Next()} {
		if a.IsValid() {
			as = append(as, a)
		}
	}
	return as
}

func (w *Wire) checkSet(t testing.TB, sets []BlockSet, addrs []netip.Addr) {
	t.Helper()
	if err := w.SetBlockSets(sets); err != nil {
		t.Fatal(err)
	}
	naive := newNaiveSet(sets)
	for _, a := range addrs {
		want, wantOK := naive.find(a)
		if got, ok := w.asks(t, a); got != want || ok != wantOK {
			t.Fatalf("%v: list %d %v, want %d %v", a, got, ok, want, wantOK)
		}
	}
}

func TestSetEdges(t *testing.T) {
	w := loadProgram(t)
	for i, ps := range [][]netip.Prefix{
		prefixes("8.0.0.0/8"),
		prefixes("0.0.0.0/8", "255.0.0.0/8", "255.255.255.255/32", "0.0.0.0/32"),
		prefixes("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32", "10.1.1.2/31", "10.255.255.255/32"),
		prefixes("1.2.3.4/32", "1.2.3.5/32", "1.2.3.6/32", "1.2.3.7/32", "1.2.3.8/32", "1.2.3.9/32", "1.2.3.10/32", "1.2.3.11/32", "1.2.3.12/32"),
		prefixes("2000::/16", "2000:1::/32", "2000:1:2::/48", "2000:1:2:3::/64", "2000:1:2:3::4/128", "2000:1:2:3::5/128"),
		prefixes("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "ffff::/16", "0::1/128", "2001:db8::/33", "2001:db8:8000::/33"),
		prefixes("2000::/127", "2000::4/126", "2000::8/125", "2000::10/124", "2000::20/123", "2000::33/128", "2000::1:0:0:0/128", "2000:0:0:1::/128"),
		prefixes("::ffff:9.9.9.0/120", "0.0.0.0/0", "::/0", "128.0.0.0/1", "8000::/1"),
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var sets []BlockSet
			var addrs []netip.Addr
			for j, p := range ps {
				sets = append(sets, BlockSet{ID: uint32(j * 3), Name: "x", Prefixes: []netip.Prefix{p, ps[0]}})
				for _, a := range neighbours(p) {
					addrs = append(addrs, a.Unmap())
				}
			}
			addrs = append(addrs, netip.MustParseAddr("9.9.9.255"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"))
			w.checkSet(t, sets, addrs)
		})
	}
}

// randomSets makes lists whose prefixes overlap a lot: addresses come from few bits.
func randomSets(r *rand.Rand, n int) ([]BlockSet, []netip.Addr) {
	sets := make([]BlockSet, 1+r.IntN(4))
	var addrs []netip.Addr
	for i := range sets {
		sets[i] = BlockSet{ID: r.Uint32() >> 1, Name: fmt.Sprint("list ", i)}
	}
	for range n {
		var p netip.Prefix
		if r.IntN(2) == 0 {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], r.Uint32()&0x83ff0fff)
			p = netip.PrefixFrom(netip.AddrFrom4(b), 8+r.IntN(25))
		} else {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], r.Uint64()&0x2003_0003_0000_f00f)
			binary.BigEndian.PutUint64(b[8:], r.Uint64()&0x8000_0000_0000_0007)
			p = netip.PrefixFrom(netip.AddrFrom16(b), []int{16, 20, 32, 33, 48, 56, 64, 65, 127, 128}[r.IntN(10)])
		}
		s := &sets[r.IntN(len(sets))]
		s.Prefixes = append(s.Prefixes, p)
		addrs = append(addrs, neighbours(p)...)
	}
	return sets, addrs
}

func TestSetAgainstNaive(t *testing.T) {
	w := loadProgram(t)
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 2, 3, 7, 8, 9, 24, 25, 130, 1000, 5000, 70000} {
		sets, addrs := randomSets(r, n)
		r.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		w.checkSet(t, sets, addrs[:min(len(addrs), 2000)])
	}
}

// TestSetOfHosts has lists that are mostly single addresses, dense enough that lines of the hash overflow.
func TestSetOfHosts(t *testing.T) {
	w := loadProgram(t)
	r := rand.New(rand.NewPCG(15, 16))
	for _, n := range []int{63, 64, 100, 3000, 40000} {
		s := []BlockSet{{ID: 4, Name: "hosts", Prefixes: prefixes("0.0.0.0/32", "255.255.255.255/32", "11.0.0.0/24", "::1/128")}, {ID: 5, Name: "more"}}
		addrs := neighbours(s[0].Prefixes[2])
		for range n {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], r.Uint32()&0x0f00ffff)
			a := netip.AddrFrom4(b)
			k := r.IntN(2)
			s[k].Prefixes = append(s[k].Prefixes, netip.PrefixFrom(a, 32))
			addrs = append(addrs, a)
			if next := a.Next(); next.IsValid() {
				addrs = append(addrs, next)
			}
		}
		addrs = append(addrs, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("255.255.255.254"))
		r.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		w.checkSet(t, s, addrs[:min(len(addrs), 2000)])
	}
}

func TestSetRefusesABadPrefix(t *testing.T) {
	w := loadProgram(t)
	good := []BlockSet{{ID: 1, Name: "good", Prefixes: prefixes("198.51.100.0/24")}}
	if err := w.SetBlockSets(good); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]BlockSet{
		{{ID: 2, Name: "bad", Prefixes: []netip.Prefix{{}}}},
		{{ID: ^uint32(0), Name: "bad", Prefixes: prefixes("10.0.0.0/8")}},
	} {
		if err := w.SetBlockSets(bad); err == nil {
			t.Error("no error")
		}
		if _, ok := w.asks(t, netip.MustParseAddr(listed)); !ok {
			t.Error("the old lists are gone")
		}
	}
}
