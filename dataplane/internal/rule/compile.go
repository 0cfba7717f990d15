package rule

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kadomori/kadomori/dataplane/internal/mpm"
)

// DefaultVars are the variables that a set gets when its caller doesn't say otherwise: Suricata's defaults.
var DefaultVars = map[string]string{
	"HOME_NET": "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]", "EXTERNAL_NET": "!$HOME_NET",
	"HTTP_SERVERS": "$HOME_NET", "SMTP_SERVERS": "$HOME_NET", "SQL_SERVERS": "$HOME_NET", "DNS_SERVERS": "$HOME_NET",
	"TELNET_SERVERS": "$HOME_NET", "AIM_SERVERS": "$EXTERNAL_NET", "DC_SERVERS": "$HOME_NET", "DNP3_SERVER": "$HOME_NET",
	"DNP3_CLIENT": "$HOME_NET", "MODBUS_CLIENT": "$HOME_NET", "MODBUS_SERVER": "$HOME_NET", "ENIP_CLIENT": "$HOME_NET",
	"ENIP_SERVER": "$HOME_NET",
	"HTTP_PORTS":  "80", "SHELLCODE_PORTS": "!80", "ORACLE_PORTS": "1521", "SSH_PORTS": "22", "DNP3_PORTS": "20000",
	"MODBUS_PORTS": "502", "FILE_DATA_PORTS": "[$HTTP_PORTS,110,143]", "FTP_PORTS": "21", "GENEVE_PORTS": "6081",
	"VXLAN_PORTS": "4789", "TEREDO_PORTS": "3544", "SIP_PORTS": "[5060,5061]",
}

// A direction as an index: 0 to the server, 1 to the client.
const (
	dirServer = 0
	dirClient = 1
)

const (
	maskServer = 1 << dirServer
	maskClient = 1 << dirClient
)

// crule is a rule with its variables resolved and its place in the order of judgement.
type crule struct {
	r        *Rule
	idx      uint32
	load     uint32 // place in the files
	src, dst *addrSet
	sp, dp   *portSet
	dirs     uint8 // directions it can match in
	apps     AppSet

	// packet and stream rules
	payload   []*section // BufPayload
	pktSecs   []*section // headers
	usePacket bool
	useStream bool

	// transaction rules
	parts []part
	need  uint64 // bits of parts that must have matched

	iprep    []cIPRep
	limits   []*limitState
	suppress []suppressSpec
	rates    []rateSpec
	appOnly  bool // about the protocol found and nothing else
	ipOnly   bool // about addresses alone: judged once per flow and direction

	// the fast pattern
	fast     *item
	fastSec  *section
	indicate Buffer // whose content the Match tells as Indicator; 0 none
}

// part is one thing a transaction rule needs.
type part struct {
	sec    *section
	test   *txTest
	server bool
	client bool
}

type cIPRep struct {
	iprepTest
	num uint8
}

// Set is a compiled, read-only set of rules, shared by all workers. Close frees nothing that a Matcher still uses.
type Set struct {
	rules   []*Rule
	crules  []*crule
	refused []*Error
	shared  *Shared
	opt     CompileOptions

	addrSets int
	maxVars  int
	pats     []patRules // by pattern id
	groups   []*patGroup
	payload  [protoClasses][2]portGroups // packets and streams
	always   [protoClasses][2]alwaysList
	tx       [appCount][2]*txGroup
	stats    Stats
}

// patRules are the rules that a pattern is the fast pattern of.
type patRules []uint32

// patGroup is one database.
type patGroup struct {
	base uint32
	pats []mpm.Pattern
	db   *mpm.DB
}

// txGroup is what is looked at in the transactions of one protocol and direction.
type txGroup struct {
	bufs   []txBuf
	always []uint32 // rules without a fast pattern in a buffer
}

// txBuf is a buffer that fast patterns look at.
type txBuf struct {
	buf   Buffer
	trans []transform
	group *patGroup
}

// Protocol classes that payload rules are grouped by.
const (
	classTCP = iota
	classUDP
	classICMP
	classOther
	protoClasses
)

func classOf(proto uint8) int {
	switch proto {
	case protoTCP:
		return classTCP
	case protoUDP:
		return classUDP
	case protoICMP, protoICMPv6:
		return classICMP
	}
	return classOther
}

// Stats say what a Set is made of.
type Stats struct {
	Rules     int
	Databases int
	Bytes     int // of the databases
	Cached    int // databases that came from the cache
}

// Rules are the rules of the set in order of judgement.
func (s *Set) Rules() []*Rule { return s.rules }

// Refused are the rules that Compile could not honour: a variable that is not defined, an address that matches nothing.
func (s *Set) Refused() []*Error { return s.refused }

// Stats tell what the set is made of.
func (s *Set) Stats() Stats { return s.stats }

// Shared is the state that outlives the set; give it to the next Compile.
func (s *Set) Shared() *Shared { return s.shared }

// Close lets go of the databases; their memory is freed when no Matcher uses them any more.
func (s *Set) Close() {}

// Compile builds a Set. Of rules with the same gid and sid, as two files may have them, the highest revision counts. Rules it can't honour are left out and listed by Refused; an error means that nothing could be
// built (a bad threshold file, the pattern library out of memory).
func Compile(rules []*Rule, opt CompileOptions) (*Set, error) {
	s := &Set{opt: opt, shared: opt.Shared}
	if s.shared == nil {
		s.shared = NewShared(0)
	}
	vars := maps.Clone(DefaultVars)
	maps.Copy(vars, opt.Vars)
	rs := newResolver(vars)
	for _, r := range newest(rules) {
		c, err := s.resolve(rs, r)
		if err != nil {
			e := &Error{File: r.File, Line: r.Line, SID: r.SID, Reason: err.Error()}
			var u unsupported
			e.Unsupported = errors.As(err, &u)
			s.refused = append(s.refused, e)
			continue
		}
		c.load = uint32(len(s.crules))
		s.crules = append(s.crules, c)
		s.maxVars = max(s.maxVars, len(r.varNames))
	}
	s.order()
	if opt.Thresholds != nil {
		if err := s.readThresholds(rs, opt.Thresholds); err != nil {
			return nil, err
		}
	}
	s.addrSets = len(rs.addrs)
	for i, c := range s.crules {
		c.idx = uint32(i)
		s.rules = append(s.rules, c.r)
	}
	s.group()
	if err := s.build(opt); err != nil {
		return nil, err
	}
	s.stats.Rules = len(s.rules)
	s.stats.Databases = len(s.groups)
	for _, g := range s.groups {
		s.stats.Bytes += g.db.Size()
	}
	return s, nil
}

// newest leaves out rules that a later file has in a higher revision, and those that come again in the same one.
func newest(rules []*Rule) []*Rule {
	best := make(map[[2]uint32]*Rule, len(rules))
	for _, r := range rules {
		k := [2]uint32{r.GID, r.SID}
		if b := best[k]; b == nil || r.Rev > b.Rev {
			best[k] = r
		}
	}
	if len(best) == len(rules) {
		return rules
	}
	out := make([]*Rule, 0, len(best))
	for _, r := range rules {
		if best[[2]uint32{r.GID, r.SID}] == r {
			out = append(out, r)
		}
	}
	return out
}

// resolve makes the compiled form of a rule.
func (s *Set) resolve(rs *resolver, r *Rule) (*crule, error) {
	c := &crule{r: r, dirs: maskServer | maskClient, apps: r.head.proto.apps}
	var err error
	if c.src, err = rs.addr(r.head.src); err != nil {
		return nil, fmt.Errorf("source address: %w", err)
	}
	if c.dst, err = rs.addr(r.head.dst); err != nil {
		return nil, fmt.Errorf("destination address: %w", err)
	}
	if c.sp, err = rs.port(r.head.sp); err != nil {
		return nil, fmt.Errorf("source port: %w", err)
	}
	if c.dp, err = rs.port(r.head.dp); err != nil {
		return nil, fmt.Errorf("destination port: %w", err)
	}
	for _, t := range r.iprep {
		if s.opt.Reputation == nil {
			return nil, unsupported("iprep: no reputation is given")
		}
		n, ok := s.opt.Reputation.Categories[t.cat]
		if !ok {
			return nil, fmt.Errorf("iprep: unknown category %q", t.cat)
		}
		c.iprep = append(c.iprep, cIPRep{t, n})
	}
	if r.flow.toServer {
		c.dirs = maskServer
	}
	if r.flow.toClient {
		c.dirs = maskClient
	}
	for _, sec := range r.sections {
		switch {
		case sec.buf == BufPayload:
			c.payload = append(c.payload, sec)
		case sec.buf < firstTxBuffer:
			c.pktSecs = append(c.pktSecs, sec)
		default:
			b := &buffers[sec.buf]
			c.parts = append(c.parts, part{sec: sec, server: b.server && sec.dir != maskClient, client: b.client && sec.dir != maskServer})
			c.narrow(b.apps)
		}
	}
	for i := range r.tests {
		t := &r.tests[i]
		c.parts = append(c.parts, part{test: t, server: t.server, client: t.client})
		c.narrow(t.apps)
	}
	if len(c.parts) > 0 {
		if !r.head.txBoth {
			for _, p := range c.parts {
				if !p.server {
					c.dirs &^= maskServer
				}
				if !p.client {
					c.dirs &^= maskClient
				}
			}
		}
		if c.dirs == 0 {
			return nil, errors.New("no direction in which all keywords hold")
		}
		for _, sec := range c.payload {
			c.parts = append(c.parts, part{sec: sec, server: true, client: true})
		}
		if len(c.parts) > 64 {
			return nil, unsupported("more than 64 buffers in one rule")
		}
		c.need = 1<<len(c.parts) - 1
	}
	c.inspection()
	c.appOnly = len(r.appTests) > 0 && len(r.packet) == 0 && len(c.payload) == 0 && len(c.pktSecs) == 0 && len(c.parts) == 0 && len(r.bits) == 0
	c.ipOnly = c.alone() && len(c.parts) == 0 && c.apps == 0 && len(r.appTests) == 0 && len(r.bits) == 0 && c.sp.any && c.dp.any
	c.chooseFast()
	for _, l := range r.limits {
		c.limits = append(c.limits, s.shared.thresholds.state(r, l))
	}
	return c, nil
}

func (c *crule) narrow(apps AppSet) {
	if c.apps == 0 {
		c.apps = apps
		return
	}
	c.apps &= apps
}

// inspection settles whether payload contents look at packets, at the stream, or both, as Suricata does: keywords about
// packets force packets; otherwise TCP contents look at the stream, and those with offset or depth at packets as well.
func (c *crule) inspection() {
	p := &c.r.head.proto
	tcp := p.has(protoTCP)
	switch {
	case !tcp || p.packetOnly || c.r.needPacket || c.r.flow.noStream:
		c.usePacket = true
		if c.r.flow.onlyStream && tcp {
			c.useStream, c.usePacket = true, false
		}
	case p.streamOnly || c.r.flow.onlyStream:
		c.useStream = true
	default:
		c.useStream = true
		for _, sec := range c.payload {
			for _, it := range sec.items {
				if it.kind == itContent && (it.hasOffset || it.hasDepth || it.starts) {
					c.usePacket = true
				}
			}
		}
	}
}

// weight of the buffers as a place for the fast pattern: how much a hit there tells, against how often it is scanned.
func weight(b Buffer) int {
	switch b {
	case BufHTTPMethod, BufHTTPStatCode, BufHTTPStatMsg, BufHTTPProtocol, BufHTTPConnection, BufHTTPAccept, BufHTTPAcceptEnc, BufHTTPAcceptLang:
		return 2
	case BufHTTPHeaderNames, BufHTTPStart, BufHTTPRequestLine, BufHTTPResponseLine, BufHTTPContentLen, BufHTTPContentType, BufHTTPHeaderRaw:
		return 5
	case BufHTTPHeader, BufHTTPUserAgent:
		return 8
	case BufPayload, BufFileData, BufHTTPRequestBody, BufHTTPResponseBody:
		return 9
	case BufHTTPURI, BufHTTPURIRaw, BufHTTPHost, BufDNSQuery, BufTLSSNI:
		return 12
	default:
		return 10
	}
}

// strength is how rare a pattern is likely to be.
func strength(pat []byte) int {
	var seen [256]bool
	n := 0
	for _, b := range pat {
		switch {
		case seen[b]:
			n++
		case b == 0 || b == 1 || b == 0xff:
			n += 2
		case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == ' ':
			n += 3
		default:
			n += 4
		}
		seen[b] = true
	}
	return n
}

func (c *crule) chooseFast() {
	best := 0
	consider := func(sec *section) {
		for _, it := range sec.items {
			if it.kind != itContent || it.neg || len(it.pattern()) == 0 {
				continue
			}
			score := strength(it.pattern()) * weight(sec.buf)
			if it.fast {
				score += 1 << 30
			}
			if score > best {
				best, c.fast, c.fastSec = score, it, sec
			}
		}
	}
	for _, p := range c.parts {
		if p.sec != nil && p.sec.buf != BufPayload {
			consider(p.sec)
		}
	}
	if len(c.parts) == 0 {
		for _, sec := range c.payload {
			if len(sec.trans) == 0 {
				consider(sec)
			}
		}
	}
	for _, p := range c.parts {
		if p.sec != nil && buffers[p.sec.buf].names {
			c.indicate = p.sec.buf
		}
	}
}

// pattern is the bytes to look for first. The library takes no literal that begins with a zero byte, so those are left
// off: what is found is looked at whole anyway.
func (it *item) pattern() []byte {
	pat := it.pat
	if it.fastChop {
		pat = pat[it.fastOff : it.fastOff+it.fastLen]
	}
	return bytes.TrimLeft(pat, "\x00")
}

// order sorts the rules into their order of judgement: pass, drop, reject, alert; then those that set a bit before those
// that test it; then by priority; then as they came.
func (s *Set) order() {
	rank := func(a Action) int {
		switch a {
		case Pass:
			return 0
		case Drop:
			return 1
		case Reject, RejectDst, RejectBoth:
			return 2
		default:
			return 3
		}
	}
	// level of a bit: how many rules in a chain must come before one that tests it
	type bit struct {
		kind bitKind
		id   uint32
	}
	level := map[bit]int{}
	levels := make([]int, len(s.crules))
	for range 8 {
		changed := false
		for i, c := range s.crules {
			for _, o := range c.r.bits {
				for _, id := range o.ids {
					if l := level[bit{o.kind, id}]; l > levels[i] {
						levels[i] = l
						changed = true
					}
				}
			}
			for _, o := range c.r.post {
				for _, id := range o.ids {
					k := bit{o.kind, id}
					if levels[i]+1 > level[k] && levels[i] < 8 {
						level[k] = levels[i] + 1
						changed = true
					}
				}
			}
		}
		if !changed {
			break
		}
	}
	at := make(map[*crule]int, len(s.crules))
	for i, c := range s.crules {
		at[c] = levels[i]
	}
	slices.SortStableFunc(s.crules, func(a, b *crule) int {
		return cmp.Or(
			cmp.Compare(rank(a.r.Action), rank(b.r.Action)),
			cmp.Compare(at[a], at[b]),
			cmp.Compare(a.r.Priority, b.r.Priority),
		)
	})
}
