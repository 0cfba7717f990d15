package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// randomV4 makes n different prefixes of /8../32 over the whole address space: a few short ones (each length below /24 covers
// at most 1.6 % of the space), the rest evenly /24../32, in random order.
func randomV4(r *rand.Rand, n int) []netip.Prefix {
	seen := make(map[netip.Prefix]bool, n)
	out := make([]netip.Prefix, 0, n)
	add := func(bits, count int) {
		for count > 0 && len(out) < n {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], r.Uint32())
			p := netip.PrefixFrom(netip.AddrFrom4(a), bits).Masked()
			if p.Contains(netip.MustParseAddr(insideV4)) || seen[p] {
				continue
			}
			seen[p] = true
			out = append(out, p)
			count--
		}
	}
	for bits := 8; bits < 24; bits++ {
		add(bits, min(1<<(bits-6), n/200))
	}
	for bits := 24; bits < 32; bits++ {
		add(bits, n/9)
	}
	add(32, n-len(out))
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// randomV6 makes n prefixes in 2000::/3, of the lengths that registries give and lists name.
func randomV6(r *rand.Rand, n int) []netip.Prefix {
	out := make([]netip.Prefix, 0, n)
	weights := []struct{ bits, percent int }{{32, 20}, {40, 5}, {48, 35}, {56, 5}, {64, 20}, {128, 15}}
	for _, w := range weights {
		for range n * w.percent / 100 {
			out = append(out, netip.PrefixFrom(randomAddr6(r), w.bits).Masked())
		}
	}
	for i := range 100 {
		out[i] = netip.PrefixFrom(randomAddr6(r), 20+i%12).Masked()
	}
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func randomAddr6(r *rand.Rand) netip.Addr {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], r.Uint64()>>3|1<<61)
	binary.BigEndian.PutUint64(a[8:], r.Uint64())
	return netip.AddrFrom16(a)
}

// ranges are the covered spans of a list, merged, for telling members from others.
type ranges struct{ from, to []netip.Addr }

func newRanges(nets []netip.Prefix) ranges {
	sorted := slices.Clone(nets)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	var r ranges
	for _, p := range sorted {
		last := lastAddr(p)
		if n := len(r.to); n > 0 && p.Addr().Compare(r.to[n-1]) <= 0 {
			if last.Compare(r.to[n-1]) > 0 {
				r.to[n-1] = last
			}
			continue
		}
		r.from, r.to = append(r.from, p.Addr()), append(r.to, last)
	}
	return r
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (r ranges) contains(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(r.from, a, netip.Addr.Compare)
	if found {
		return true
	}
	return i > 0 && a.Compare(r.to[i-1]) <= 0
}

// within is a random address of the prefix.
func within(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		if r.Uint32()&1 != 0 {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func setKey(k *benchBenchKey, a netip.Addr, r *rand.Rand) {
	*k = benchBenchKey{Port: uint16(r.Uint32()) | 1}
	copy(k.Address[:], a.AsSlice())
}

// missV4 makes keys that are in no prefix.
func (b *bencher) missV4(nets []netip.Prefix) func(*benchBenchKey) {
	covered := newRanges(nets)
	return func(k *benchBenchKey) {
		for {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], b.rand.Uint32())
			if addr := netip.AddrFrom4(a); !covered.contains(addr) {
				setKey(k, addr, b.rand)
				return
			}
		}
	}
}

// hitV4 makes keys each in a random prefix.
func (b *bencher) hitV4(nets []netip.Prefix) func(*benchBenchKey) {
	return func(k *benchBenchKey) { setKey(k, within(b.rand, nets[b.rand.IntN(len(nets))]), b.rand) }
}

func (b *bencher) missV6(nets []netip.Prefix) func(*benchBenchKey) {
	covered := newRanges(nets)
	return func(k *benchBenchKey) {
		for {
			if a := randomAddr6(b.rand); !covered.contains(a) {
				setKey(k, a, b.rand)
				return
			}
		}
	}
}

func (b *bencher) hitV6(nets []netip.Prefix) func(*benchBenchKey) { return b.hitV4(nets) }

// frameV4 is a UDP packet of 64 bytes or more to the inside; tags replace the EtherType of IPv4.
func frameV4(tags []byte) []byte {
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	if tags == nil {
		tags = []byte{0x08, 0}
	}
	f = append(f, tags...)
	f = append(f, 0x45, 0, 0, 50, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0)
	f = append(f, netip.MustParseAddr(insideV4).AsSlice()...)
	f = append(f, 0, 0, benchPort>>8, benchPort&255, 0, 30, 0, 0)
	return append(f, make([]byte, 22)...)
}

func frameV6() []byte {
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 30, 17, 64}
	f = append(f, make([]byte, 16)...)
	f = append(f, netip.MustParseAddr(insideV6).AsSlice()...)
	f = append(f, 0, 0, benchPort>>8, benchPort&255, 0, 30, 0, 0)
	return append(f, make([]byte, 22)...)
}
