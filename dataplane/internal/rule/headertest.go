package rule

import "net/netip"

// header judges everything about a rule but its contents: protocol, addresses, ports, flow, packet keywords, bits.
func (m *Matcher) header(c *crule) bool {
	p := m.in.Packet
	r := c.r
	h := &r.head
	if p.Version == 0 && !h.proto.ether || h.proto.version != 0 && h.proto.version != p.Version || h.proto.etherType != 0 && h.proto.etherType != p.EtherType {
		return false
	}
	if !h.proto.any && !h.proto.has(p.Proto) {
		return false
	}
	if c.dirs&(1<<m.dir) == 0 {
		return false
	}
	f := &r.flow
	if f.given {
		if (f.toServer || f.toClient) && !p.HasFlow {
			return false
		}
		if f.established && (!p.HasFlow || !p.Established) || f.notEst && p.Established || f.onlyFrag && !p.Reassembled || f.noFrag && p.Reassembled {
			return false
		}
	}
	switch {
	case h.txBoth && m.dir == dirClient:
		if !m.ends(c, true) {
			return false
		}
	case !m.ends(c, false):
		if !h.both || !m.ends(c, true) {
			return false
		}
	}
	if c.appOnly && !p.AppChanged {
		return false // told when the protocol is found, not with each packet
	}
	for i := range r.appTests {
		if !r.appTests[i].match(p) {
			return false
		}
	}
	for _, t := range r.packet {
		if !t(p) {
			return false
		}
	}
	for i := range r.bits {
		if !m.bit(&r.bits[i]) {
			return false
		}
	}
	for i := range c.iprep {
		if !m.reputation(&c.iprep[i]) {
			return false
		}
	}
	return true
}

// ends compares addresses and ports; turned takes the packet's source for the rule's destination.
func (m *Matcher) ends(c *crule, turned bool) bool {
	p := m.in.Packet
	sp, dp := p.SrcPort, p.DstPort
	if turned {
		sp, dp = dp, sp
	}
	if !c.sp.any && !c.sp.has(sp) || !c.dp.any && !c.dp.has(dp) {
		return false
	}
	if p.Version == 0 {
		return true // no addresses to compare
	}
	if turned {
		return m.addr(c.src, 1) && m.addr(c.dst, 0)
	}
	return m.addr(c.src, 0) && m.addr(c.dst, 1)
}

// addr says whether a set has the packet's source (0) or destination (1), and remembers it for the packet.
func (m *Matcher) addr(s *addrSet, side int) bool {
	if s.any {
		return true
	}
	memo := &m.memo[side][s.id]
	if *memo>>1 == m.gen {
		return *memo&1 != 0
	}
	a := m.in.Packet.Src
	if side == 1 {
		a = m.in.Packet.Dst
	}
	*memo = m.gen << 1
	if s.has(a) {
		*memo |= 1
		return true
	}
	return false
}

func (t *appTest) match(p *Packet) bool {
	if !p.HasFlow {
		return false
	}
	var app App
	switch t.mode {
	case 's':
		app = p.AppToServer
	case 'c':
		app = p.AppToClient
	case 'o':
		app = p.AppOrig
	case 'f':
		app = p.App
	default:
		app = p.AppToServer
		if !p.ToServer {
			app = p.AppToClient
		}
		if app == AppUnknown {
			app = p.App
		}
	}
	if app == AppUnknown && !t.apps.Has(AppUnknown) {
		return false // not known yet: neither it nor its negation holds
	}
	return t.apps.Has(app) != t.neg
}

func (m *Matcher) reputation(t *cIPRep) bool {
	one := func(a netip.Addr) bool {
		score, ok := m.set.opt.Reputation.Score(a, t.num)
		switch {
		case t.set:
			return ok
		case t.neg:
			return !ok
		}
		return ok && t.cmp.match(uint64(score))
	}
	p := m.in.Packet
	if p.Version == 0 {
		return false
	}
	switch t.side {
	case 's':
		return one(p.Src)
	case 'd':
		return one(p.Dst)
	case 'b':
		return one(p.Src) && one(p.Dst)
	}
	return one(p.Src) || one(p.Dst)
}

// bit judges a test of flowbits, xbits, hostbits or flowints.
func (m *Matcher) bit(o *bitOp) bool {
	switch o.kind {
	case flowBit:
		any := false
		if f := m.in.Flow; f != nil {
			for _, id := range o.ids {
				if f.hasBit(id) {
					any = true
					break
				}
			}
		}
		if o.op == 'i' {
			return any
		}
		return !any
	case flowIntKind:
		v, ok := m.in.Flow.intValue(o.ids[0])
		switch o.op {
		case 'i':
			return ok
		case 'n':
			return !ok
		}
		if !ok {
			return false
		}
		want := o.value
		if o.other >= 0 {
			w, ok := m.in.Flow.intValue(uint32(o.other))
			if !ok {
				return false
			}
			want = w
		}
		op := o.op
		if op == 'e' {
			op = '='
		}
		c := cmpOp{op: op, lo: uint64(want)}
		return c.match(uint64(v))
	case hostBit:
		has := m.set.shared.bits.has(o, m.in.Packet)
		if o.op == 'i' {
			return has
		}
		return !has
	}
	return false
}

// post does what a matched rule asks: set bits, count.
func (m *Matcher) post(c *crule) {
	for i := range c.r.post {
		o := &c.r.post[i]
		f := m.in.Flow
		switch o.kind {
		case flowBit:
			if f == nil {
				continue
			}
			for _, id := range o.ids {
				f.changeBit(o.op, id)
			}
		case flowIntKind:
			if f == nil {
				continue
			}
			v := o.value
			if o.other >= 0 {
				v, _ = f.intValue(uint32(o.other))
			}
			f.changeInt(o.op, o.ids[0], v)
		case hostBit:
			m.set.shared.bits.change(o, m.in.Packet)
		}
	}
}

func (f *FlowState) hasBit(id uint32) bool {
	for _, b := range f.bits {
		if b == id {
			return true
		}
	}
	return false
}

// maxFlowBits bounds the names set on one flow; rules that set more find the rest unset.
const maxFlowBits = 256

func (f *FlowState) changeBit(op byte, id uint32) {
	for i, b := range f.bits {
		if b != id {
			continue
		}
		if op == 'u' || op == 't' {
			f.bits[i] = f.bits[len(f.bits)-1]
			f.bits = f.bits[:len(f.bits)-1]
		}
		return
	}
	if op != 'u' && len(f.bits) < maxFlowBits {
		f.bits = append(f.bits, id)
	}
}

func (f *FlowState) intValue(id uint32) (uint32, bool) {
	if f == nil {
		return 0, false
	}
	for i := range f.ints {
		if f.ints[i].id == id {
			return f.ints[i].value, true
		}
	}
	return 0, false
}

func (f *FlowState) changeInt(op byte, id, v uint32) {
	for i := range f.ints {
		x := &f.ints[i]
		if x.id != id {
			continue
		}
		switch op {
		case '+':
			x.value += v
		case '-':
			x.value -= v
		default:
			x.value = v
		}
		return
	}
	if len(f.ints) >= maxFlowBits {
		return
	}
	if op == '-' {
		v = -v
	}
	f.ints = append(f.ints, flowInt{id: id, value: v})
}
