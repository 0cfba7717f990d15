package rule

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/kadomori/kadomori/dataplane/internal/mpm"
	"github.com/kadomori/kadomori/dataplane/internal/pcre"
)

// Matcher matches for one worker. Its memory is made once; Inspect allocates nothing once its lists have grown to what
// the traffic needs.
type Matcher struct {
	set  *Set
	scan *mpm.Scanner
	re   *pcre.Scratch

	in   *Input
	dir  int
	gen  uint32
	seen []uint32 // per rule: the generation in which it became a candidate
	cand []uint64 // rule<<32 | transaction+1; 0 there for packet and stream
	out  []Match
	memo [2][]uint32 // per address set: generation<<1 | answer, for source and destination

	gens uint32 // generation of seen
	// passLoad is the place in the files of the first pass rule that matched; noPass for none.
	passLoad uint32
	jobs     [4]mpm.Job
	njob     int
	jtx      int // transaction of the jobs at hand, -1 packet or stream

	look  inspection
	trans transformer
	ran   Counters
}

const noPass = ^uint32(0)

// Counters are what a Matcher did, for tuning; they only grow.
type Counters struct {
	Packets    uint64
	Candidates uint64 // rules judged
	Matches    uint64
	StepLimits uint64 // contents given up after too many steps
	PCRELimits uint64
	ScanLimits uint64
}

// NewMatcher makes a matcher with its own scratch memory. Close frees it.
func (s *Set) NewMatcher() *Matcher {
	m := &Matcher{set: s, re: pcre.NewScratch(), seen: make([]uint32, len(s.crules))}
	dbs := make([]*mpm.DB, 0, len(s.groups))
	for _, g := range s.groups {
		dbs = append(dbs, g.db)
	}
	var err error
	if m.scan, err = mpm.NewScanner(dbs); err != nil {
		panic(fmt.Sprintf("rule: %v", err)) // out of memory for a fixed, small scratch
	}
	for i := range m.memo {
		m.memo[i] = make([]uint32, s.addrSets)
	}
	m.look.vars = make([]int64, max(s.maxVars, 1))
	m.look.m = m
	m.cand = make([]uint64, 0, 256)
	m.out = make([]Match, 0, 16)
	return m
}

// Close frees what lies outside Go's memory.
func (m *Matcher) Close() {
	m.scan.Close()
	m.re.Close()
}

// Counters tell what the matcher did so far.
func (m *Matcher) Counters() Counters {
	c := m.ran
	c.PCRELimits = m.re.Limits()
	c.ScanLimits = m.scan.Lost()
	return c
}

// Inspect judges one packet with all that became known with it.
func (m *Matcher) Inspect(in *Input) Result {
	f := in.Flow
	if f != nil {
		if f.passed {
			return m.passed(in)
		}
		if f.dropped {
			return Result{Drop: m.set.opt.IPS, DropFlow: m.set.opt.IPS, Reject: Alert}
		}
		f.pktVars = f.pktVars[:0]
	}
	m.begin(in)
	m.ran.Packets++
	m.collectPacket()
	for i, tx := range in.Txs {
		m.collectTx(i, tx)
	}
	if len(m.cand) == 0 {
		m.closeTxs()
		return Result{Reject: Alert}
	}
	slices.Sort(m.cand)
	res := Result{Reject: Alert}
	m.judge(&res)
	if f != nil {
		f.ipOnly[m.dir] = true
	}
	m.closeTxs()
	res.Matches = m.out
	m.ran.Matches += uint64(len(m.out))
	return res
}

// passed is for packets of a flow that a pass rule let through: only rules about addresses are still told of, once in
// each direction.
func (m *Matcher) passed(in *Input) Result {
	res := Result{Pass: true, PassFlow: true, Reject: Alert}
	dir := dirServer
	if !in.Packet.ToServer {
		dir = dirClient
	}
	if in.Flow.ipOnly[dir] {
		return res
	}
	m.begin(in)
	in.Flow.ipOnly[dir] = false
	m.nextSeen()
	for _, idx := range m.set.always[classOf(in.Packet.Proto)][dir].all {
		if c := m.set.crules[idx]; c.ipOnly && c.r.Action == Alert {
			m.candidate(idx, -1)
		}
	}
	m.judge(&res)
	in.Flow.ipOnly[dir] = true
	res.Matches = m.out
	return res
}

// begin makes the matcher ready for a packet.
func (m *Matcher) begin(in *Input) {
	m.in = in
	m.dir = dirServer
	if !in.Packet.ToServer {
		m.dir = dirClient
	}
	m.gen++
	if m.gen >= 1<<31 {
		m.gen = 1
		clear(m.memo[0])
		clear(m.memo[1])
	}
	m.cand = m.cand[:0]
	m.out = m.out[:0]
	m.passLoad = noPass
}

// nextSeen opens a new generation of candidates.
func (m *Matcher) nextSeen() {
	m.gens++
	if m.gens == 0 {
		clear(m.seen)
		m.gens = 1
	}
}

func (m *Matcher) candidate(idx uint32, tx int) {
	if m.seen[idx] == m.gens {
		return
	}
	m.seen[idx] = m.gens
	m.cand = append(m.cand, uint64(idx)<<32|uint64(tx+1))
}

// job adds a scan; every fourth runs them.
func (m *Matcher) job(g *patGroup, data []byte) {
	if g == nil || len(data) == 0 {
		return
	}
	m.jobs[m.njob] = mpm.Job{DB: g.db, Base: g.base, Data: data}
	m.njob++
	if m.njob == len(m.jobs) {
		m.flush()
	}
}

func (m *Matcher) flush() {
	var ids []uint32
	switch m.njob {
	case 0:
		return
	case 1:
		j := &m.jobs[0]
		ids = m.scan.Scan(j.DB, j.Base, j.Data)
	default:
		for i := m.njob; i < len(m.jobs); i++ {
			m.jobs[i] = mpm.Job{}
		}
		ids = m.scan.Scan4(&m.jobs)
	}
	m.njob = 0
	for _, id := range ids {
		for _, idx := range m.set.pats[id] {
			m.candidate(idx, m.jtx)
		}
	}
}

func (m *Matcher) collectPacket() {
	p := m.in.Packet
	class := classOf(p.Proto)
	m.nextSeen()
	m.jtx = -1
	g := &m.set.payload[class][m.dir]
	port := p.DstPort
	if m.dir == dirClient {
		port = p.SrcPort
	}
	var narrow *patGroup
	if g.byPort != nil {
		if n := g.byPort[port]; n > 0 {
			narrow = g.narrow[n-1]
		}
	}
	payload := p.Payload
	if s := m.in.Stream; len(s) > 0 {
		m.job(g.all, s)
		m.job(narrow, s)
		if len(payload) <= len(s) && bytes.Equal(payload, s[len(s)-len(payload):]) {
			payload = nil // its candidates are among the stream's
		}
	}
	m.job(g.all, payload)
	m.job(narrow, payload)
	m.flush()
	al := &m.set.always[class][m.dir]
	for _, idx := range al.all {
		m.candidate(idx, -1)
	}
	if al.byPort != nil {
		if n := al.byPort[port]; n > 0 {
			for _, idx := range al.narrow[n-1] {
				m.candidate(idx, -1)
			}
		}
	}
}

// judge runs through the candidates in order.
func (m *Matcher) judge(res *Result) {
	for _, c := range m.cand {
		r := m.set.crules[c>>32]
		if m.passLoad != noPass && (r.r.Action != Alert || r.load > m.passLoad) {
			continue // a pass rule lets the packet through; rules before it in the files are told of all the same
		}
		tx := int(c&0xffffffff) - 1
		m.ran.Candidates++
		m.look.reset()
		var (
			ok   bool
			kind Kind
		)
		if tx < 0 {
			ok, kind = m.packetRule(r)
		} else {
			ok, kind = m.txRule(r, m.in.Txs[tx]), ByTx
		}
		if !ok || m.toldBefore(r, kind) {
			continue
		}
		m.matched(r, kind, tx, res)
	}
	if f := m.in.Flow; f != nil && len(m.in.Stream) > 0 {
		f.credits[m.dir] = f.credits[m.dir][:0]
	}
}

// maxCredits bounds the rules of which a flow remembers that a packet matched them.
const maxCredits = 32

// toldBefore says whether a match in the stream is the one that a packet gave a moment ago: rules with offset or depth look
// at a packet when it comes and at the stream when its bytes are acknowledged.
func (m *Matcher) toldBefore(c *crule, kind Kind) bool {
	f := m.in.Flow
	if f == nil || !c.useStream || !c.usePacket || len(c.payload) == 0 || len(c.parts) > 0 {
		return false
	}
	list := &f.credits[m.dir]
	switch kind {
	case ByStream:
		for _, r := range *list {
			if r == c.r {
				return true
			}
		}
	case ByPacket:
		if m.in.Packet.StreamAdded && len(m.in.Stream) == 0 && len(*list) < maxCredits {
			*list = append(*list, c.r)
		}
	case ByTx:
	}
	return false
}

// packetRule judges a rule about a packet or the stream.
func (m *Matcher) packetRule(c *crule) (bool, Kind) {
	in := m.in
	if c.ipOnly && in.Flow != nil && in.Flow.ipOnly[m.dir] || !m.header(c) {
		return false, ByPacket
	}
	if c.apps != 0 && !c.apps.Has(in.Packet.App) {
		return false, ByPacket
	}
	for _, sec := range c.pktSecs {
		if !m.packetSection(sec) {
			return false, ByPacket
		}
	}
	if len(c.payload) == 0 {
		return true, ByPacket
	}
	if c.useStream && len(in.Stream) > 0 {
		old := len(in.Stream) - in.StreamNew
		ok := true
		reach := 0
		for _, sec := range c.payload {
			m.look.reach = 0
			if !m.look.section(sec, in.Stream, in.StreamOffset, false) {
				ok = false
				break
			}
			reach = max(reach, m.look.reach)
		}
		// what lies in bytes that were seen before was told before
		if ok && (reach > old || c.fast == nil) {
			return true, ByStream
		}
	}
	if !c.looksAtPacket(in.Packet) {
		return false, ByPacket
	}
	for _, sec := range c.payload {
		if !m.look.section(sec, in.Packet.Payload, 0, true) {
			return false, ByPacket
		}
	}
	return true, ByPacket
}

// looksAtPacket says whether the payload of this packet is the rule's business. A rule about the stream looks at packets
// only while they don't become part of it.
func (c *crule) looksAtPacket(p *Packet) bool {
	if len(p.Payload) == 0 && c.fast != nil {
		return false
	}
	switch {
	case c.r.head.proto.streamOnly || c.r.flow.onlyStream:
		return false
	case p.Proto != protoTCP:
		return true
	case !c.useStream:
		return true
	case p.NoPayloadRules:
		return false
	}
	return c.usePacket || !p.StreamAdded
}

func (m *Matcher) packetSection(sec *section) bool {
	p := m.in.Packet
	var b []byte
	switch sec.buf {
	case BufIPv4Hdr:
		if p.Version == 4 {
			b = p.IPHeader
		}
	case BufIPv6Hdr:
		if p.Version == 6 {
			b = p.IPHeader
		}
	case BufTCPHdr:
		if p.Proto == protoTCP {
			b = p.L4Header
		}
	case BufUDPHdr:
		if p.Proto == protoUDP {
			b = p.L4Header
		}
	case BufICMPv4Hdr:
		if p.Proto == protoICMP {
			b = p.L4Header
		}
	case BufICMPv6Hdr:
		if p.Proto == protoICMPv6 {
			b = p.L4Header
		}
	default:
	}
	return b != nil && m.look.section(sec, b, 0, true)
}

// matched does what a match asks for.
func (m *Matcher) matched(c *crule, kind Kind, tx int, res *Result) {
	r := c.r
	p := m.in.Packet
	m.post(c)
	m.look.keepVars(m.in.Flow)
	out := Match{Rule: r, Action: r.Action, Kind: kind, Alert: !r.NoAlert, TxIndex: -1}
	if tx >= 0 {
		out.Tx, out.TxIndex = m.in.Txs[tx], tx
		if c.indicate != 0 {
			if v := out.Tx.Buffer(c.indicate, p.ToServer, 0); v.State == Done || v.State == Partial {
				out.Indicator = v.Data
			}
		}
	}
	if r.Action == Pass && !r.alertOnPass {
		out.Alert = false
	}
	count := true
	for _, l := range c.limits {
		switch m.set.shared.thresholds.judge(l, p, m.in.Flow) {
		case limitQuiet:
			out.Alert = false
		case limitNothing:
			out.Alert = false
			count = false
		case limitTell:
		}
	}
	if !count {
		return
	}
	m.adjust(c, &out)
	if r.bypass {
		res.Bypass = true
	}
	if r.keepFiles {
		res.KeepFiles = true
	}
	m.act(&out, c.load, m.in.Flow != nil && (kind != ByPacket || c.alone()), res)
	m.out = append(m.out, out)
}

// act settles the packet, and the flow where the rule speaks for it.
func (m *Matcher) act(out *Match, load uint32, flow bool, res *Result) {
	switch {
	case out.Action == Pass:
		res.Pass = true
		m.passLoad = min(m.passLoad, load)
		if flow {
			res.PassFlow = true
			m.in.Flow.passed = true
		}
	case out.Action.Stops():
		if flow {
			// also where nothing can be stopped: a flow that a drop rule judged is told of once
			m.in.Flow.dropped = true
		}
		if !m.set.opt.IPS {
			return
		}
		res.Drop = true
		if out.Action != Drop && res.Reject == Alert {
			res.Reject = out.Action
		}
		res.DropFlow = res.DropFlow || flow
	}
}

// alone says whether a rule looks at nothing that differs between the packets of a flow: then its verdict is the flow's.
func (c *crule) alone() bool {
	return len(c.r.packet) == 0 && len(c.payload) == 0 && len(c.pktSecs) == 0 && !c.r.flow.given
}
