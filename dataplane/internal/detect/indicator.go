// Package detect holds detectors that are no rules: contact with listed addresses and names, scans, and the verdict that a
// device is infected. The engine calls it from the packet loop. The trap: state is bounded; a detector forgets the oldest
// source first and counts it.
package detect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Kind is what a list holds; the numbers are those of signature/v1 ListKind.
type Kind uint8

// The kinds of lists.
const (
	KindUnspecified Kind = iota
	KindC2
	KindMalware
	KindBadSite
	KindScanner
)

// Infection says whether contact of an inside device with a list of this kind is a signal of infection.
func (k Kind) Infection() bool { return k == KindC2 || k == KindMalware }

// List names a list of indicators.
type List struct {
	Name  string
	Kind  Kind
	Block bool
}

// UnpackPrefixes reads signature/v1 AddressList.prefixes: per entry one byte address length (4 or 16), one byte prefix
// length, the address. The error names the offset of the bad entry.
func UnpackPrefixes(b []byte) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(b)/6)
	for off := 0; off < len(b); {
		n := int(b[off])
		if n != 4 && n != 16 {
			return nil, fmt.Errorf("unpack prefixes: offset %d: address length %d is neither 4 nor 16", off, n)
		}
		if off+2+n > len(b) {
			return nil, fmt.Errorf("unpack prefixes: offset %d: entry is cut off", off)
		}
		bits := int(b[off+1])
		if bits > n*8 {
			return nil, fmt.Errorf("unpack prefixes: offset %d: prefix length %d is over %d", off, bits, n*8)
		}
		a, _ := netip.AddrFromSlice(b[off+2 : off+2+n])
		out = append(out, netip.PrefixFrom(a.Unmap(), bits).Masked())
		off += 2 + n
	}
	return out, nil
}

// PackPrefixes writes what UnpackPrefixes reads.
func PackPrefixes(ps []netip.Prefix) []byte {
	var out []byte
	for _, p := range ps {
		a := p.Addr().AsSlice()
		out = append(out, byte(len(a)), byte(p.Bits()))
		out = append(out, a...)
	}
	return out
}

// Indicators answers whether an address or a name is listed. It is read-only after Build and allocates nothing.
type Indicators struct {
	lists   []List
	v4, v6  []addressTable
	domains map[string]uint32 // id; lower case
	// shortest and longest name, so that most names are refused without hashing
	minLen int
}

// addressTable holds the prefixes of one length.
type addressTable struct {
	bits int
	ids  map[netip.Addr]uint32
}

// IndicatorsBuilder collects lists.
type IndicatorsBuilder struct {
	lists   []List
	v4, v6  map[int]map[netip.Addr]uint32
	domains map[string]uint32
}

// NewIndicatorsBuilder makes an empty builder.
func NewIndicatorsBuilder() *IndicatorsBuilder {
	return &IndicatorsBuilder{
		v4: map[int]map[netip.Addr]uint32{}, v6: map[int]map[netip.Addr]uint32{}, domains: map[string]uint32{},
	}
}

// Add adds a list and gives its id, from 1. An indicator in several lists belongs to the first of the worst kind added.
func (b *IndicatorsBuilder) Add(l List, prefixes []netip.Prefix, domains []string) uint32 {
	b.lists = append(b.lists, l)
	id := uint32(len(b.lists))
	for _, p := range prefixes {
		m := b.v6
		if p.Addr().Is4() {
			m = b.v4
		}
		t := m[p.Bits()]
		if t == nil {
			t = map[netip.Addr]uint32{}
			m[p.Bits()] = t
		}
		if old, ok := t[p.Addr()]; !ok || b.worse(id, old) {
			t[p.Addr()] = id
		}
	}
	for _, d := range domains {
		d = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(d, "*."), "."))
		if old, ok := b.domains[d]; !ok || b.worse(id, old) {
			b.domains[d] = id
		}
	}
	return id
}

// worse says whether list a should own an indicator rather than list b: a signal of infection beats none, blocking beats telling.
func (b *IndicatorsBuilder) worse(a, c uint32) bool {
	la, lc := b.lists[a-1], b.lists[c-1]
	if la.Kind.Infection() != lc.Kind.Infection() {
		return la.Kind.Infection()
	}
	return la.Block && !lc.Block
}

// Build makes the read-only form.
func (b *IndicatorsBuilder) Build() *Indicators {
	x := &Indicators{lists: b.lists, domains: b.domains}
	sorted := func(m map[int]map[netip.Addr]uint32) []addressTable {
		var out []addressTable
		for bits, ids := range m {
			out = append(out, addressTable{bits, ids})
		}
		slices.SortFunc(out, func(p, q addressTable) int { return q.bits - p.bits })
		return out
	}
	x.v4, x.v6 = sorted(b.v4), sorted(b.v6)
	x.minLen = 1 << 30
	for d := range b.domains {
		x.minLen = min(x.minLen, len(d))
	}
	return x
}

// Len gives the number of lists.
func (x *Indicators) Len() int {
	if x == nil {
		return 0
	}
	return len(x.lists)
}

// Get gives the list of an id, false when there is none.
func (x *Indicators) Get(id uint32) (List, bool) {
	if x == nil || id == 0 || int(id) > len(x.lists) {
		return List{}, false
	}
	return x.lists[id-1], true
}

// Address gives the id of the list that holds an address, 0 when none: longest prefix first.
func (x *Indicators) Address(a netip.Addr) uint32 {
	if x == nil {
		return 0
	}
	a = a.Unmap()
	tables := x.v6
	if a.Is4() {
		tables = x.v4
	}
	for i := range tables {
		p, err := a.Prefix(tables[i].bits)
		if err != nil {
			continue
		}
		if id, ok := tables[i].ids[p.Addr()]; ok {
			return id
		}
	}
	return 0
}

// Domain gives the id of the list that holds a name or a parent of it, 0 when none. name must be lower case.
func (x *Indicators) Domain(name []byte) uint32 {
	if x == nil || len(x.domains) == 0 {
		return 0
	}
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	for len(name) >= x.minLen {
		if id, ok := x.domains[string(name)]; ok {
			return id
		}
		dot := -1
		for i, c := range name {
			if c == '.' {
				dot = i
				break
			}
		}
		if dot < 0 {
			return 0
		}
		name = name[dot+1:]
	}
	return 0
}
