package xdp

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"unsafe"
)

// BlockSet is one list of prefixes under one id.
type BlockSet struct {
	ID       uint32 // counted and told with each drop; below 2^32-1
	Name     string
	Prefixes []netip.Prefix
}

// The shortest prefixes that a set may hold: a list that names more than a 256th of IPv4, or of a 65,536th of IPv6, is a
// mistake (0.0.0.0/0 in a feed), and the box must survive it.
const (
	shortestV4 = 8
	shortestV6 = 16
)

// The image of a set, as bpf/include/types.h and set.h have it.
const (
	lineSize    = 64
	headerLines = 4
	v4Keys      = 16 // keys a line above the leaves
	v6Keys      = 8
	v4LeafKeys  = 8
	v6LeafKeys  = 3
	maxLevelsV4 = 7
	maxLevelsV6 = 9

	wordV4Filter  = 0
	wordV4Shift   = 1
	wordV6Short   = 2
	wordV6Filter  = 3
	wordV6Shift   = 4
	wordV6Anchors = 5
	wordV4Levels  = 6
	wordV6Levels  = 7
	wordV4Leaves  = 8
	wordV6Leaves  = 9

	wordV4Hosts    = 14 // of line 1
	wordV4HostMask = 15

	anchor32 = 1
	anchor48 = 2

	filterHashes = 3 // SET_FILTER_HASHES

	hostFactor = 0x9e3779b1         // 2^32 divided by the golden ratio
	hashFactor = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: Fibonacci hashing
)

type v4Prefix struct {
	addr  uint32
	bits  uint8
	value uint32 // list id plus one
	order uint32 // of the list: the first one to name a prefix has it
}

func (p v4Prefix) last() uint32 { return p.addr | uint32(uint64(0xffffffff)>>p.bits) }

// u128 is an IPv6 address as a number.
type u128 struct{ hi, lo uint64 }

func (a u128) cmp(b u128) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

func (a u128) next() u128 {
	lo, carry := bits.Add64(a.lo, 1, 0)
	return u128{a.hi + carry, lo}
}

type v6Prefix struct {
	addr  u128
	value uint32
	order uint32
	bits  uint8
}

func (p v6Prefix) last() u128 {
	if p.bits >= 64 {
		return u128{p.addr.hi, p.addr.lo | ^uint64(0)>>(p.bits-64)} // a shift by 64 gives 0
	}
	return u128{p.addr.hi | ^uint64(0)>>p.bits, ^uint64(0)}
}

// setPlan is a set ready to be written: sorted, counted, laid out in lines.
type setPlan struct {
	v4      []v4Prefix
	v6      []v6Prefix
	hosts   []uint32       // hash of single IPv4 addresses: lines of eight keys and their eight values
	rest    []v4Prefix     // of v4: what is in the tree
	refused []netip.Prefix // too short; at most 16 are kept
	nRefuse int

	n4                      int // boundaries
	nLeaf6, nOver6          int // lines
	levels4, levels6        []level
	filter4, shift4         uint32
	short6, filter6, shift6 uint32
	anchors                 uint32
	leaves4, leaves6, over6 uint32
	hosts4                  uint32
	lines                   uint32
	extra                   func(w []uint32, d []uint64) // writes tables behind the set
}

type level struct{ line, keys uint32 }

// planSet reads the lists. Prefixes that are too short are refused, others are masked; of equal ones the first list's counts,
// of overlapping ones the longest. An invalid prefix is an error.
func planSet(sets []BlockSet) (*setPlan, error) {
	p := &setPlan{}
	n4, n6 := 0, 0
	for i := range sets {
		if sets[i].ID == ^uint32(0) {
			return nil, fmt.Errorf("list %q: id %d is too big", sets[i].Name, sets[i].ID)
		}
		for _, x := range sets[i].Prefixes {
			if x.Addr().Is4() {
				n4++
			} else {
				n6++
			}
		}
	}
	p.v4, p.v6 = make([]v4Prefix, 0, n4), make([]v6Prefix, 0, n6)
	for i := range sets {
		s := &sets[i]
		for j, x := range s.Prefixes {
			if !x.IsValid() {
				return nil, fmt.Errorf("list %q: prefix %d is not valid", s.Name, j)
			}
			p.add(x, s.ID+1, uint32(i))
		}
	}
	slices.SortFunc(p.v4, func(a, b v4Prefix) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(a.bits, b.bits), cmp.Compare(a.order, b.order))
	})
	slices.SortFunc(p.v6, func(a, b v6Prefix) int {
		return cmp.Or(a.addr.cmp(b.addr), cmp.Compare(a.bits, b.bits), cmp.Compare(a.order, b.order))
	})
	p.v4 = slices.CompactFunc(p.v4, func(a, b v4Prefix) bool { return a.addr == b.addr && a.bits == b.bits })
	p.v6 = slices.CompactFunc(p.v6, func(a, b v6Prefix) bool { return a.addr == b.addr && a.bits == b.bits })
	p.layout()
	return p, nil
}

func (p *setPlan) add(x netip.Prefix, value, order uint32) {
	addr, n := x.Addr(), x.Bits()
	if addr.Is4In6() {
		if n < 96 {
			p.refuse(x)
			return
		}
		addr, n = addr.Unmap(), n-96
	}
	if addr.Is4() {
		if n < shortestV4 {
			p.refuse(x)
			return
		}
		b := addr.As4()
		a := binary.BigEndian.Uint32(b[:]) &^ uint32(uint64(0xffffffff)>>n)
		p.v4 = append(p.v4, v4Prefix{a, uint8(n), value, order})
		return
	}
	if n < shortestV6 {
		p.refuse(x)
		return
	}
	a := toU128(addr)
	if n >= 64 {
		a.lo &^= ^uint64(0) >> (n - 64)
	} else {
		a.hi &^= ^uint64(0) >> n
		a.lo = 0
	}
	p.v6 = append(p.v6, v6Prefix{a, value, order, uint8(n)})
}

func (p *setPlan) refuse(x netip.Prefix) {
	p.nRefuse++
	if len(p.refused) < 16 {
		p.refused = append(p.refused, x)
	}
}

func toU128(a netip.Addr) u128 {
	b := a.As16()
	return u128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// layout counts boundaries and gives each part its lines.
func (p *setPlan) layout() {
	next := uint32(headerLines)
	take := func(lines int) uint32 {
		at := next
		next += uint32(lines)
		return at
	}
	if len(p.v4) > 0 {
		width := 16 // bits of the address that the filter knows: 8 KiB, 128 KiB or 2 MiB
		switch {
		case len(p.v4) > 1<<16:
			width = 24
		case len(p.v4) > 1<<12:
			width = 20
		}
		p.shift4 = uint32(32 - width)
		p.filter4 = take(1 << (width - 9))
		p.hashHosts()
		if len(p.hosts) > 0 {
			p.hosts4 = take(len(p.hosts) / 16)
		}
	}
	if len(p.rest) > 0 {
		p.boundaries4(func(uint32, uint32) { p.n4++ })
		leaves := (p.n4 + v4LeafKeys - 1) / v4LeafKeys
		p.levels4 = layLevels(leaves, v4Keys, take)
		p.leaves4 = take(leaves)
	}
	if len(p.v6) > 0 {
		p.short6 = take(1 << (16 - 9))
		for _, x := range p.v6 {
			switch {
			case x.bits >= 48:
				p.anchors |= anchor48
			case x.bits >= 32:
				p.anchors |= anchor32
			}
		}
		if p.anchors != 0 {
			width := min(max(bits.Len(uint(len(p.v6)*16-1)), 13), 26) - 9 // 16 bits a prefix, 512 a line
			p.shift6 = uint32(64 - width)
			p.filter6 = take(1 << width)
		}
		p.leafLines6(func(_ []key6, over bool) {
			if over {
				p.nOver6++
			} else {
				p.nLeaf6++
			}
		})
		p.levels6 = layLevels(p.nLeaf6, v6Keys, take)
		p.leaves6 = take(p.nLeaf6)
		p.over6 = take(p.nOver6)
	}
	p.lines = next
}

// hashHosts puts single addresses into a hash when they are most of the list, four a line on average; the few that find their
// line full stay with the rest. A tree of them would be walked over several lines.
func (p *setPlan) hashHosts() {
	n := 0
	for _, x := range p.v4 {
		if x.bits == 32 {
			n++
		}
	}
	p.rest = p.v4
	if n < 64 || n < len(p.v4)/2 {
		return
	}
	lines := 1 << bits.Len(uint(n/4))
	p.hosts = make([]uint32, lines*16)
	p.rest = make([]v4Prefix, 0, len(p.v4)-n+n/16)
	used := make([]uint8, lines)
	for _, x := range p.v4 {
		if x.bits == 32 {
			at := int(x.addr * hostFactor >> 8 & uint32(lines-1))
			if k := int(used[at]); k < 8 {
				p.hosts[at*16+k], p.hosts[at*16+8+k] = x.addr, x.value
				used[at]++
				continue
			}
		}
		p.rest = append(p.rest, x)
	}
}

// layLevels gives the levels above the leaves their lines, from the root. One leaf needs none.
func layLevels(leaves, perLine int, take func(int) uint32) []level {
	var ls []level
	for n := leaves; n > 1; n = (n + perLine - 1) / perLine {
		ls = append(ls, level{keys: uint32(n)})
	}
	slices.Reverse(ls)
	for i := range ls {
		ls[i].line = take((int(ls[i].keys) + perLine - 1) / perLine)
	}
	return ls
}

// boundaries4 calls emit with each address at which the answer changes, in rising order, from 0 on.
func (p *setPlan) boundaries4(emit func(addr, value uint32)) {
	type open struct{ last, value uint32 }
	var stack [33]open
	depth := 0
	var at, value uint32 // the boundary not yet emitted
	told := ^uint32(0)   // value of the last emitted one
	set := func(a, v uint32) {
		if a != at {
			if value != told {
				emit(at, value)
				told = value
			}
			at = a
		}
		value = v
	}
	closeUpTo := func(limit uint32, all bool) {
		for depth > 0 && (all || stack[depth-1].last < limit) {
			end := stack[depth-1].last
			depth--
			if end == ^uint32(0) {
				continue
			}
			v := uint32(0)
			if depth > 0 {
				v = stack[depth-1].value
			}
			set(end+1, v)
		}
	}
	for _, x := range p.rest {
		closeUpTo(x.addr, false)
		set(x.addr, x.value)
		stack[depth] = open{x.last(), x.value}
		depth++
	}
	closeUpTo(0, true)
	if value != told {
		emit(at, value)
	}
}

// boundaries6 is boundaries4 for IPv6.
func (p *setPlan) boundaries6(emit func(addr u128, value uint32)) {
	type open struct {
		last  u128
		value uint32
	}
	var stack [129]open
	depth := 0
	var at u128
	var value uint32
	told := ^uint32(0)
	highest := u128{^uint64(0), ^uint64(0)}
	set := func(a u128, v uint32) {
		if a != at {
			if value != told {
				emit(at, value)
				told = value
			}
			at = a
		}
		value = v
	}
	closeUpTo := func(limit u128, all bool) {
		for depth > 0 && (all || stack[depth-1].last.cmp(limit) < 0) {
			end := stack[depth-1].last
			depth--
			if end == highest {
				continue
			}
			v := uint32(0)
			if depth > 0 {
				v = stack[depth-1].value
			}
			set(end.next(), v)
		}
	}
	for _, x := range p.v6 {
		closeUpTo(x.addr, false)
		set(x.addr, x.value)
		stack[depth] = open{x.last(), x.value}
		depth++
	}
	closeUpTo(u128{}, true)
	if value != told {
		emit(at, value)
	}
}

func (p *setPlan) size() int { return int(p.lines) * lineSize }

// write writes the image into mem, which has size() zero bytes and is aligned to 8.
func (p *setPlan) write(mem []byte) {
	w := unsafe.Slice((*uint32)(unsafe.Pointer(&mem[0])), len(mem)/4)
	d := unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), len(mem)/8)
	bit := func(first, n uint32) { d[first*8+n>>6] |= 1 << (n & 63) }
	w[wordV4Filter], w[wordV4Shift], w[wordV4Levels], w[wordV4Leaves] = p.filter4, p.shift4, uint32(len(p.levels4)), p.leaves4
	w[wordV6Short], w[wordV6Filter], w[wordV6Shift], w[wordV6Anchors] = p.short6, p.filter6, p.shift6, p.anchors
	w[wordV6Levels], w[wordV6Leaves] = uint32(len(p.levels6)), p.leaves6
	for i, l := range p.levels4 {
		w[16+i*2], w[16+i*2+1] = l.line, l.keys
	}
	for i, l := range p.levels6 {
		w[32+i*2], w[32+i*2+1] = l.line, l.keys
	}
	if len(p.v4) > 0 {
		for _, x := range p.v4 {
			for b, end := x.addr>>p.shift4, x.last()>>p.shift4; b <= end; b++ {
				bit(p.filter4, b)
			}
		}
	}
	if len(p.hosts) > 0 {
		w[16+wordV4Hosts], w[16+wordV4HostMask] = p.hosts4, uint32(len(p.hosts)/16-1)
		copy(w[p.hosts4*16:], p.hosts)
	}
	if len(p.rest) > 0 {
		i := uint32(0)
		var last uint32
		put := func(a, v uint32) {
			at := p.leaves4*16 + i/v4LeafKeys*16 + i%v4LeafKeys
			w[at], w[at+v4LeafKeys] = a, v
			i, last = i+1, v
		}
		p.boundaries4(put)
		for i%v4LeafKeys != 0 {
			put(^uint32(0), last)
		}
		p.fillLevels4(w)
	}
	if len(p.v6) > 0 {
		for _, x := range p.v6 {
			switch {
			case x.bits >= 48:
				p.addBloom(d, x.addr.hi>>16)
			case x.bits >= 32:
				p.addBloom(d, x.addr.hi>>32)
			default:
				for b, end := x.addr.hi>>48, x.last().hi>>48; b <= end; b++ {
					bit(p.short6, uint32(b))
				}
			}
		}
		p.writeLeaves6(w, d)
		p.fillLevels6(d)
	}
	if p.extra != nil {
		p.extra(w, d)
	}
}

// addBloom puts a key into the IPv6 filter; set_bloom of bpf/include/set.h reads it.
func (p *setPlan) addBloom(d []uint64, prefix uint64) {
	h := prefix * hashFactor
	h ^= h >> 32
	h *= 0xc2b2ae3d27d4eb4f
	line := p.filter6 + uint32(h>>p.shift6)
	for range filterHashes {
		d[line*8+uint32(h>>6&7)] |= 1 << (h & 63)
		h >>= 9
	}
}

// fillLevels4 makes the lowest level above the leaves of every leaf's first key and each further one of every sixteenth key
// below, and fills last lines up with the highest key.
func (p *setPlan) fillLevels4(w []uint32) {
	from, step := p.leaves4*16, uint32(16)
	for _, l := range slices.Backward(p.levels4) {
		for k := range l.keys {
			w[l.line*16+k] = w[from+k*step]
		}
		for k := l.keys; k%v4Keys != 0; k++ {
			w[l.line*16+k] = ^uint32(0)
		}
		from, step = l.line*16, v4Keys
	}
}

func (p *setPlan) fillLevels6(d []uint64) {
	from, step := p.leaves6*8, uint32(8)
	for _, l := range slices.Backward(p.levels6) {
		for k := range l.keys {
			d[l.line*8+k] = d[from+k*step]
		}
		for k := l.keys; k%v6Keys != 0; k++ {
			d[l.line*8+k] = ^uint64(0)
		}
		from, step = l.line*8, v6Keys
	}
}

// key6 is a boundary and what holds from it on.
type key6 struct {
	at    u128
	value uint32
}

// leafLines6 calls emit with the keys of each line of IPv6 leaves, one to three, in rising order. No high half is in two
// leaves, and each leaf starts at a low half of 0: so the levels above need high halves only. A high half with more keys than
// fit has lines of its own in the overflow (over); after them comes its leaf, with no keys.
func (p *setPlan) leafLines6(emit func(keys []key6, over bool)) {
	var leaf [v6LeafKeys]key6
	n := 0
	var group []key6 // keys of one high half
	flush := func() {
		if n > 0 {
			emit(leaf[:n], false)
			n = 0
		}
	}
	endGroup := func() {
		if len(group) > v6LeafKeys {
			flush()
			for rest := group; len(rest) > 0; {
				k := min(len(rest), v6LeafKeys)
				emit(rest[:k], true)
				rest = rest[k:]
			}
			emit(nil, false)
		} else {
			if n+len(group) > v6LeafKeys {
				flush()
			}
			n += copy(leaf[n:], group)
		}
		group = group[:0]
	}
	var before uint32 // the value of the last key
	p.boundaries6(func(a u128, v uint32) {
		if len(group) > 0 && group[0].at.hi != a.hi {
			endGroup()
		}
		if len(group) == 0 && a.lo != 0 {
			group = append(group, key6{u128{a.hi, 0}, before})
		}
		group = append(group, key6{a, v})
		before = v
	})
	endGroup()
	flush()
}

func (p *setPlan) writeLeaves6(w []uint32, d []uint64) {
	leaf, over := p.leaves6, p.over6
	first := over // of the present group
	put := func(line uint32, keys []key6) {
		for i := range uint32(v6LeafKeys) {
			k := key6{u128{^uint64(0), ^uint64(0)}, keys[len(keys)-1].value} // fill up
			if int(i) < len(keys) {
				k = keys[i]
			}
			d[line*8+i*2], d[line*8+i*2+1], w[line*16+12+i] = k.at.hi, k.at.lo, k.value
		}
	}
	p.leafLines6(func(keys []key6, isOver bool) {
		switch {
		case isOver:
			put(over, keys)
			over++
		case len(keys) == 0:
			d[leaf*8] = d[first*8]
			w[leaf*16+12], w[leaf*16+15] = first, over-first
			first = over
			leaf++
		default:
			put(leaf, keys)
			leaf++
		}
	})
}
