package rule

// txSide is what is known about one direction of a transaction.
type txSide struct {
	marks   []scanMark
	settled []uint64 // bit set of the group's always list: judged for good
	closed  bool
	last    bool // closed after this packet
}

// scanMark says how far a buffer was scanned for fast patterns.
type scanMark struct {
	next uint16 // instance
	done bool
	end  uint64 // bytes of a partial instance
}

// txOpen is a rule of which some parts matched and others may yet come.
type txOpen struct {
	rule uint32
	done uint64
}

// TxState is what the Matcher remembers about a transaction between packets. The zero value is a new transaction.
type TxState struct {
	set     *Set // the set the rest is about; another set starts afresh
	side    [2]txSide
	open    []txOpen
	matched []uint32 // rules that matched this transaction
}

// Reset makes it the state of a new transaction; memory is kept.
func (t *TxState) Reset() {
	t.set = nil
	for i := range t.side {
		s := &t.side[i]
		s.marks = s.marks[:0]
		s.settled = s.settled[:0]
		s.closed, s.last = false, false
	}
	t.open = t.open[:0]
	t.matched = t.matched[:0]
}

func (s *txSide) start(g *txGroup) {
	if n := len(g.bufs); cap(s.marks) < n {
		s.marks = make([]scanMark, n)
	} else {
		s.marks = s.marks[:n]
		clear(s.marks)
	}
	if n := (len(g.always) + 63) / 64; cap(s.settled) < n {
		s.settled = make([]uint64, n)
	} else {
		s.settled = s.settled[:n]
		clear(s.settled)
	}
}

// maxInstances bounds how many instances of a buffer are looked at.
const maxInstances = 1024

// overlap is how many bytes of a growing buffer are scanned again, so that a pattern over the seam is found.
const overlap = 256

// collectTx scans what is new in a transaction and gathers the rules to judge.
func (m *Matcher) collectTx(i int, tx Transaction) {
	app := tx.App()
	if app >= appCount {
		return
	}
	g := m.set.tx[app][m.dir]
	if g == nil {
		return
	}
	st := tx.Rules()
	if st.set != m.set {
		st.Reset()
		st.set = m.set
	}
	side := &st.side[m.dir]
	if side.closed {
		return
	}
	if len(side.marks) != len(g.bufs) || len(side.settled) != (len(g.always)+63)/64 {
		side.start(g)
	}
	toServer := m.in.Packet.ToServer
	side.last = tx.Complete(toServer)
	m.nextSeen()
	m.jtx = i
	m.trans.reset()
	for bi := range g.bufs {
		b := &g.bufs[bi]
		mark := &side.marks[bi]
		for !mark.done {
			v := tx.Buffer(b.buf, toServer, int(mark.next))
			if v.State == NotYet {
				break
			}
			if v.State == Absent {
				mark.done = true
				break
			}
			if end := v.Offset + uint64(len(v.Data)); end > mark.end || v.State == Done && len(b.trans) > 0 {
				data := v.Data
				if len(b.trans) > 0 {
					if v.State != Done {
						break // transforms want the whole
					}
					data = m.trans.apply(b.trans, data)
				} else if mark.end > v.Offset+overlap {
					data = data[mark.end-v.Offset-overlap:]
				}
				m.job(b.group, data)
				mark.end = end
			}
			if v.State == Partial {
				break
			}
			mark.next++
			mark.end = 0
			if !b.buf.Many() || mark.next >= maxInstances {
				mark.done = true
			}
		}
	}
	m.flush()
	for _, o := range st.open {
		m.candidate(o.rule, i)
	}
	for k, idx := range g.always {
		if side.settled[k/64]&(1<<(k%64)) == 0 {
			m.candidate(idx, i)
		}
	}
}

// closeTxs notes which directions were complete at this packet.
func (m *Matcher) closeTxs() {
	for _, tx := range m.in.Txs {
		side := &tx.Rules().side[m.dir]
		if side.last {
			side.closed = true
		}
	}
}

// verdict of a part.
type verdict uint8

const (
	vFail verdict = iota // can't match any more
	vWait                // may match later
	vMatch
)

// txRule judges a rule about a transaction.
func (m *Matcher) txRule(c *crule, tx Transaction) bool {
	st := tx.Rules()
	key := c.idx<<1 | uint32(m.dir)
	for _, x := range st.matched {
		if x == key {
			return false
		}
	}
	at := -1
	var done uint64
	for i := range st.open {
		if st.open[i].rule == c.idx {
			at, done = i, st.open[i].done
			break
		}
	}
	if !m.header(c) {
		return false
	}
	side := &st.side[m.dir]
	result := vMatch
	for i := range c.parts {
		if done&(1<<i) != 0 {
			continue
		}
		p := &c.parts[i]
		toServer := m.dir == dirServer
		if toServer && !p.server || !toServer && !p.client {
			// only with =>: the other side's buffers may be there already
			toServer = !toServer
		}
		v := m.part(p, tx, toServer)
		if v == vWait && side.last && !c.r.head.txBoth {
			v = vFail
		}
		if v == vFail {
			result = vFail
			break
		}
		if v == vWait {
			result = vWait
			continue
		}
		done |= 1 << i
	}
	switch result {
	case vMatch:
		st.matched = append(st.matched, key)
		m.settle(c, tx, side)
		if at >= 0 {
			st.drop(at)
		}
		return true
	case vFail:
		m.settle(c, tx, side)
		if at >= 0 {
			st.drop(at)
		}
	case vWait:
		switch {
		case at >= 0:
			st.open[at].done = done
		case done != 0 || c.fast != nil:
			st.open = append(st.open, txOpen{c.idx, done})
		}
	}
	return false
}

func (t *TxState) drop(i int) {
	t.open[i] = t.open[len(t.open)-1]
	t.open = t.open[:len(t.open)-1]
}

// settle notes that a rule without a fast pattern needs no further look in this direction.
func (m *Matcher) settle(c *crule, tx Transaction, side *txSide) {
	if c.fast != nil {
		return
	}
	g := m.set.tx[tx.App()][m.dir]
	lo, hi := 0, len(g.always)
	for lo < hi {
		k := int(uint(lo+hi) >> 1)
		if g.always[k] < c.idx {
			lo = k + 1
		} else {
			hi = k
		}
	}
	if lo < len(g.always) && g.always[lo] == c.idx {
		side.settled[lo/64] |= 1 << (lo % 64)
	}
}

func (m *Matcher) part(p *part, tx Transaction, toServer bool) verdict {
	if p.test != nil {
		return m.txTest(p.test, tx, toServer)
	}
	sec := p.sec
	if sec.buf == BufPayload {
		in := m.in
		if len(in.Stream) > 0 && m.look.section(sec, in.Stream, in.StreamOffset, false) {
			return vMatch
		}
		if len(in.Packet.Payload) > 0 && m.look.section(sec, in.Packet.Payload, 0, true) {
			return vMatch
		}
		return vWait
	}
	for n := 0; n < maxInstances; n++ {
		v := tx.Buffer(sec.buf, toServer, n)
		switch v.State {
		case NotYet:
			return vWait
		case Absent:
			if n == 0 && sec.absent() {
				return vMatch
			}
			return vFail
		case Partial:
			if sec.whole() || len(sec.trans) > 0 {
				return vWait
			}
			m.look.dce(tx)
			if m.look.section(sec, v.Data, v.Offset, false) {
				return vMatch
			}
			if !sec.buf.Many() {
				return vWait
			}
			// the next instance may be there already
			if next := tx.Buffer(sec.buf, toServer, n+1); next.State == NotYet || next.State == Absent {
				return vWait
			}
		case Done:
			data := v.Data
			if len(sec.trans) > 0 {
				m.trans.reset()
				data = m.trans.apply(sec.trans, data)
			}
			m.look.dce(tx)
			if !sec.onlyAbsent() && m.look.section(sec, data, v.Offset, true) {
				return vMatch
			}
			if !sec.buf.Many() {
				return vFail
			}
		}
	}
	return vFail
}

// absent says whether the section holds when there is no such buffer.
func (s *section) absent() bool {
	for _, it := range s.items {
		if it.kind == itAbsent {
			return true
		}
	}
	return false
}

// onlyAbsent says whether the section holds only when there is no such buffer.
func (s *section) onlyAbsent() bool {
	for _, it := range s.items {
		if it.kind == itAbsent && !it.elseOK {
			return true
		}
	}
	return false
}

// whole says whether the section can be judged on the whole buffer only.
func (s *section) whole() bool {
	for _, it := range s.items {
		switch it.kind {
		case itContent, itPCRE, itIsDataAt:
			if it.neg || it.ends {
				return true
			}
		case itBSize, itDataset, itAbsent:
			return true
		default:
		}
	}
	return false
}

func (m *Matcher) txTest(t *txTest, tx Transaction, toServer bool) verdict {
	switch t.kind {
	case txNumber:
		return t.number(tx, toServer)
	case txDCEIface:
		d, ok := tx.(DCETransaction)
		if !ok {
			return vFail
		}
		ifaces, first := d.DCEInterfaces()
		if !t.iface.anyFrag && !first {
			return vWait
		}
		for i := range ifaces {
			x := &ifaces[i]
			if x.Accepted && x.UUID == t.iface.uuid && (!t.iface.hasVer || t.iface.version.match(uint64(x.Major))) {
				return vMatch
			}
		}
		return vWait
	case txEvent:
		e, ok := tx.(EventTransaction)
		if !ok {
			return vFail
		}
		for _, x := range e.Events() {
			if x == t.event {
				return vMatch
			}
		}
		return vWait
	case txExpired, txValid:
		from, s1 := tx.Number(NumTLSNotBefore, toServer, 0)
		to, s2 := tx.Number(NumTLSNotAfter, toServer, 0)
		if s1 == Absent || s2 == Absent {
			return vFail
		}
		if s1 != Done || s2 != Done {
			return vWait
		}
		now := uint64(max(m.in.Packet.Time, 0)) / 1e9
		if t.kind == txExpired && to < now || t.kind == txValid && from <= now && now <= to {
			return vMatch
		}
		return vFail
	case txFileStore:
		return vMatch
	}
	return vFail
}

// number compares the instances of a number.
func (t *txTest) number(tx Transaction, toServer bool) verdict {
	ok := func(v uint64) bool {
		if t.cmp.match(v) {
			return true
		}
		for i := range t.alt {
			if t.alt[i].match(v) {
				return true
			}
		}
		return false
	}
	if t.index >= 0 {
		v, s := tx.Number(t.num, toServer, t.index)
		return judgeNumber(t, v, s, ok(v))
	}
	if t.index < -2 {
		// from the end: -11 is the last
		n := 0
		for n < maxInstances {
			if _, s := tx.Number(t.num, toServer, n); s == NotYet {
				return vWait
			} else if s == Absent {
				break
			}
			n++
		}
		n += t.index + 10
		if n < 0 {
			return vFail
		}
		v, s := tx.Number(t.num, toServer, n)
		return judgeNumber(t, v, s, ok(v))
	}
	some, wait := false, false
	for n := range maxInstances {
		v, s := tx.Number(t.num, toServer, n)
		if s == NotYet {
			wait = true
			break
		}
		if s == Absent {
			break
		}
		r := judgeNumber(t, v, s, ok(v))
		some = true
		switch {
		case r == vMatch && t.index == -1:
			return vMatch
		case r == vFail && t.index == -2:
			return vFail
		case r == vWait:
			wait = true
		}
		if !numbers[t.num].many {
			break
		}
	}
	switch {
	case wait:
		return vWait
	case t.index == -2 && some:
		return vMatch
	}
	return vFail
}

// judgeNumber decides on one value; a number that still grows (a file's size) can only be past a limit for good.
func judgeNumber(t *txTest, v uint64, s State, ok bool) verdict {
	switch s {
	case NotYet:
		return vWait
	case Absent:
		return vFail
	case Partial:
		if ok && (t.cmp.op == '>' || t.cmp.op == 'G') {
			return vMatch
		}
		if limit, has := t.cmp.atMost(); has && v > limit {
			return vFail
		}
		return vWait
	case Done:
	}
	if ok {
		return vMatch
	}
	return vFail
}
