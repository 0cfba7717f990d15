package rule

import (
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
)

// addrExpr is an address of a header as written.
type addrExpr struct {
	text string // as written
	neg  bool
	any  bool
	name string // variable, without $
	lo   netip.Addr
	hi   netip.Addr
	list []*addrExpr
}

// maxNesting bounds lists in lists and variables in variables.
const maxNesting = 32

func parseAddr(s string) (*addrExpr, error) { return parseAddrDepth(s, 0) }

func parseAddrDepth(s string, depth int) (*addrExpr, error) {
	if depth > maxNesting {
		return nil, errors.New("address lists nested too deeply")
	}
	s = strings.TrimSpace(s)
	e := &addrExpr{text: s}
	for strings.HasPrefix(s, "!") {
		e.neg = !e.neg
		s = strings.TrimSpace(s[1:])
	}
	switch {
	case s == "":
		return nil, errors.New("empty address")
	case s == "any":
		if e.neg {
			return nil, errors.New("!any matches nothing")
		}
		e.any = true
	case s[0] == '$':
		e.name = s[1:]
		if e.name == "" {
			return nil, errors.New("$ without a name")
		}
	case s[0] == '[':
		if !strings.HasSuffix(s, "]") {
			return nil, fmt.Errorf("%q is not closed", s)
		}
		parts, err := splitList(s[1 : len(s)-1])
		if err != nil {
			return nil, err
		}
		for _, part := range parts {
			x, err := parseAddrDepth(part, depth+1)
			if err != nil {
				return nil, err
			}
			e.list = append(e.list, x)
		}
	default:
		if err := e.parseOne(s); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *addrExpr) parseOne(s string) error {
	bad := fmt.Errorf("%q is not an address", s)
	if lo, hi, ok := strings.Cut(s, "-"); ok {
		a, err1 := netip.ParseAddr(strings.TrimSpace(lo))
		b, err2 := netip.ParseAddr(strings.TrimSpace(hi))
		if err1 != nil || err2 != nil || a.Is4() != b.Is4() {
			return bad
		}
		if b.Less(a) {
			return fmt.Errorf("range %s ends before it begins", s)
		}
		e.lo, e.hi = a, b
		return nil
	}
	if addr, mask, ok := strings.Cut(s, "/"); ok && strings.Contains(mask, ".") {
		m, err := netip.ParseAddr(mask)
		if err != nil || !m.Is4() {
			return bad
		}
		v := m.As4()
		bits := uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3])
		n := 0
		for bits&0x80000000 != 0 {
			n++
			bits <<= 1
		}
		if bits != 0 {
			return fmt.Errorf("%q is not a contiguous mask", mask)
		}
		s = addr + "/" + strconv.Itoa(n)
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return bad
		}
		e.lo, e.hi = prefixEnds(p)
		return nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return bad
	}
	e.lo, e.hi = a.Unmap(), a.Unmap()
	return nil
}

func prefixEnds(p netip.Prefix) (lo, hi netip.Addr) {
	p = p.Masked()
	lo = p.Addr()
	b := lo.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	hi, _ = netip.AddrFromSlice(b)
	return lo, hi
}

// addrRange is an inclusive range of addresses of one family.
type addrRange struct{ lo, hi netip.Addr }

// addrSet is a set of addresses: sorted, disjoint ranges; IPv4 before IPv6 (the order of netip).
type addrSet struct {
	id     uint32 // number among the sets of a Set, for the per-packet memory
	any    bool
	ranges []addrRange
}

var allAddrs = []addrRange{
	{netip.AddrFrom4([4]byte{}), netip.AddrFrom4([4]byte{255, 255, 255, 255})},
	{netip.IPv6Unspecified(), netip.AddrFrom16([16]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255})},
}

func (s *addrSet) has(a netip.Addr) bool {
	if s.any {
		return true
	}
	r := s.ranges
	lo, hi := 0, len(r)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if r[m].hi.Less(a) {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo < len(r) && !a.Less(r[lo].lo)
}

func unionAddrs(in []addrRange) []addrRange {
	sort.Slice(in, func(i, j int) bool { return in[i].lo.Less(in[j].lo) })
	var out []addrRange
	for _, x := range in {
		if n := len(out); n > 0 && out[n-1].hi.Is4() == x.lo.Is4() {
			last := &out[n-1]
			next := last.hi.Next()
			if !next.IsValid() || !next.Less(x.lo) {
				if last.hi.Less(x.hi) {
					last.hi = x.hi
				}
				continue
			}
		}
		out = append(out, x)
	}
	return out
}

func complementAddrs(in []addrRange) []addrRange {
	var out []addrRange
	for _, whole := range allAddrs {
		at := whole.lo
		done := false
		for _, x := range in {
			if x.lo.Is4() != whole.lo.Is4() {
				continue
			}
			if at.Less(x.lo) {
				out = append(out, addrRange{at, x.lo.Prev()})
			}
			at = x.hi.Next()
			if !at.IsValid() || at.Is4() != whole.lo.Is4() {
				done = true
				break
			}
		}
		if !done {
			out = append(out, addrRange{at, whole.hi})
		}
	}
	return out
}

func intersectAddrs(a, b []addrRange) []addrRange {
	return complementAddrs(unionAddrs(append(complementAddrs(a), complementAddrs(b)...)))
}

// resolver turns expressions into sets with the variables at hand and remembers what it made.
type resolver struct {
	vars  map[string]string
	addrs map[string]*addrSet // by ranges
	ports map[string]*portSet
	// by text: most rules say the same few things
	addrText map[string]*addrSet
	portText map[string]*portSet
}

func newResolver(vars map[string]string) *resolver {
	return &resolver{vars: vars, addrs: map[string]*addrSet{}, ports: map[string]*portSet{}, addrText: map[string]*addrSet{}, portText: map[string]*portSet{}}
}

// eval gives the ranges of e; a list is the union of its positive entries (or everything, when there are none) without
// its negative ones, as Suricata reads it.
func (rs *resolver) eval(e *addrExpr, depth int) ([]addrRange, error) {
	if depth > maxNesting {
		return nil, errors.New("address variables refer to each other without end")
	}
	var out []addrRange
	switch {
	case e.any:
		out = allAddrs
	case e.name != "":
		text, ok := rs.vars[e.name]
		if !ok {
			return nil, fmt.Errorf("variable $%s is not defined", e.name)
		}
		x, err := parseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("variable $%s: %w", e.name, err)
		}
		if out, err = rs.eval(x, depth+1); err != nil {
			return nil, err
		}
	case e.list != nil:
		var pos, neg []addrRange
		positives := false
		for _, x := range e.list {
			y := *x
			y.neg = false
			r, err := rs.eval(&y, depth+1)
			if err != nil {
				return nil, err
			}
			if x.neg {
				neg = append(neg, r...)
			} else {
				positives = true
				pos = append(pos, r...)
			}
		}
		if !positives {
			pos = append(pos, allAddrs...)
		}
		out = unionAddrs(pos)
		if len(neg) > 0 {
			out = intersectAddrs(out, complementAddrs(unionAddrs(neg)))
		}
	default:
		out = []addrRange{{e.lo, e.hi}}
	}
	if e.neg {
		out = complementAddrs(unionAddrs(append([]addrRange(nil), out...)))
	}
	return out, nil
}

// addr resolves e. Equal sets are one.
func (rs *resolver) addr(e *addrExpr) (*addrSet, error) {
	if s, ok := rs.addrText[e.text]; ok && e.text != "" {
		return s, nil
	}
	s, err := rs.makeAddr(e)
	if err == nil && e.text != "" {
		rs.addrText[e.text] = s
	}
	return s, err
}

func (rs *resolver) makeAddr(e *addrExpr) (*addrSet, error) {
	ranges, err := rs.eval(e, 0)
	if err != nil {
		return nil, err
	}
	if len(ranges) == 0 {
		return nil, errors.New("the address matches nothing")
	}
	var key strings.Builder
	for _, r := range ranges {
		key.WriteString(r.lo.String())
		key.WriteByte('-')
		key.WriteString(r.hi.String())
		key.WriteByte(' ')
	}
	if s, ok := rs.addrs[key.String()]; ok {
		return s, nil
	}
	s := &addrSet{id: uint32(len(rs.addrs)), ranges: ranges}
	s.any = len(ranges) == 2 && ranges[0] == allAddrs[0] && ranges[1] == allAddrs[1]
	rs.addrs[key.String()] = s
	return s, nil
}
