// Package dns parses the domain name system over UDP and TCP (RFC 1035, 6891), and with other ports multicast DNS and LLMNR.
// The engine calls it. Each message is a transaction of its own direction. The trap: names may be compressed into loops;
// each name is bounded in jumps and length.
package dns

import (
	"encoding/binary"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Limits per message. RFC 1035 bounds a name to 255 bytes; a text form with escapes could be longer, ours writes bytes as sent.
const (
	maxName    = 1025
	maxJumps   = 128
	maxRecords = 256 // kept; the rest is counted
	headerLen  = 12
)

// Parser parses one flow.
type Parser struct {
	app    rule.App
	txs    []inspect.Tx
	free   []*Tx
	nextID uint64
}

// New makes a parser; app is AppDNS, AppMDNS or AppLLMNR.
func New(app rule.App) *Parser { return &Parser{app: app} }

// App is the protocol.
func (p *Parser) App() rule.App { return p.app }

// Probe says whether a datagram, or for TCP a message after its length, looks like DNS.
func Probe(b []byte, udp bool) inspect.Certainty {
	if !udp {
		if len(b) < 2 {
			return inspect.Unsure
		}
		n := int(binary.BigEndian.Uint16(b))
		if n < headerLen {
			return inspect.No
		}
		b = b[2:]
		if len(b) < headerLen {
			return inspect.Unsure
		}
		b = b[:min(n, len(b))]
	} else if len(b) < headerLen {
		return inspect.No
	}
	flags := binary.BigEndian.Uint16(b[2:])
	opcode := flags >> 11 & 15
	qd, an, ns, ar := be(b[4:]), be(b[6:]), be(b[8:]), be(b[10:])
	if opcode == 3 || opcode > 6 || qd > 32 || an > 512 || ns > 512 || ar > 512 {
		return inspect.No
	}
	if qd+an+ns+ar == 0 {
		return inspect.No
	}
	if flags&0x8000 == 0 && (an > 0 && opcode == 0 && qd == 0) {
		return inspect.No
	}
	if flags&0x0040 != 0 && flags&0x8000 == 0 && opcode == 0 { // reserved
		return inspect.No
	}
	if qd > 0 {
		off, ok := skipName(b, headerLen)
		if !ok {
			return inspect.No
		}
		if off+4 > len(b) {
			if udp {
				return inspect.No
			}
			return inspect.Unsure
		}
		class := be(b[off+2:]) & 0x7fff
		if class == 0 || class > 4 && class != 254 && class != 255 {
			return inspect.No
		}
	}
	return inspect.Yes
}

func be(b []byte) int { return int(binary.BigEndian.Uint16(b)) }

func skipName(b []byte, off int) (int, bool) {
	for range maxJumps {
		if off >= len(b) {
			return off, true // cut off: maybe
		}
		n := int(b[off])
		switch {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, true
		case n > 63:
			return 0, false
		}
		off += n + 1
	}
	return 0, false
}

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	if m.UDP {
		p.message(m, toServer, b)
		return len(b), inspect.More
	}
	used := 0
	for len(b)-used >= 2 {
		n := be(b[used:])
		if n < headerLen {
			return used, inspect.Failed
		}
		if len(b)-used < 2+n {
			break
		}
		p.message(m, toServer, b[used+2:used+2+n])
		used += 2 + n
	}
	return used, inspect.More
}

// Gap can't be bridged over TCP: message borders are lost.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status { return inspect.Failed }

// Txs are the live transactions.
func (p *Parser) Txs() []inspect.Tx { return p.txs }

// Drop forgets the first n.
func (p *Parser) Drop(n int) {
	for _, t := range p.txs[:n] {
		if tx, ok := t.(*Tx); ok && len(p.free) < 8 {
			p.free = append(p.free, tx)
		}
	}
	k := copy(p.txs, p.txs[n:])
	clear(p.txs[k:])
	p.txs = p.txs[:k]
}

// Finish has nothing to complete.
func (p *Parser) Finish() {}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Drop(len(p.txs))
	p.nextID = 0
}

func (p *Parser) message(m *inspect.Meta, toServer bool, b []byte) {
	var tx *Tx
	if n := len(p.free); n > 0 {
		tx = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		tx = &Tx{}
	}
	tx.reset(p.nextID, m.Time, p.app, toServer)
	p.nextID++
	if len(p.txs) >= inspect.MaxTxs {
		p.Drop(1)
	}
	p.txs = append(p.txs, tx)
	tx.parse(b)
	tx.Ready = true
}

// Message parses one message that another protocol carries.
func Message(b []byte, id uint64, now int64, toServer bool) *Tx {
	t := &Tx{}
	t.reset(id, now, rule.AppDNS, toServer)
	t.parse(b)
	return t
}

func (t *Tx) parse(b []byte) {
	if len(b) < headerLen {
		t.Malformed = true
		return
	}
	t.MsgID = binary.BigEndian.Uint16(b)
	t.Flags = binary.BigEndian.Uint16(b[2:])
	t.Response = t.Flags&0x8000 != 0
	off := headerLen
	for range be(b[4:]) {
		name, next, ok := t.name(b, off)
		if !ok || next+4 > len(b) {
			t.Malformed = true
			return
		}
		if len(t.questions) < maxRecords {
			t.questions = append(t.questions, record{name: name, typ: binary.BigEndian.Uint16(b[next:]), class: binary.BigEndian.Uint16(b[next+2:])})
		}
		off = next + 4
	}
	for section, n := range [3]int{be(b[6:]), be(b[8:]), be(b[10:])} {
		for range n {
			var ok bool
			if off, ok = t.record(b, off, section); !ok {
				t.Malformed = true
				return
			}
		}
	}
}

func (t *Tx) record(b []byte, off, section int) (int, bool) {
	name, off, ok := t.name(b, off)
	if !ok || off+10 > len(b) {
		return 0, false
	}
	r := record{
		name: name, typ: binary.BigEndian.Uint16(b[off:]), class: binary.BigEndian.Uint16(b[off+2:]),
		ttl: binary.BigEndian.Uint32(b[off+4:]),
	}
	n := be(b[off+8:])
	off += 10
	if off+n > len(b) {
		return 0, false
	}
	data := b[off : off+n]
	switch r.typ {
	case TypeNS, TypeCNAME, TypePTR:
		if nm, _, ok := t.name(b[:off+n], off); ok {
			r.data, r.named = nm, true
		}
	case TypeMX:
		if n > 2 {
			if nm, _, ok := t.name(b[:off+n], off+2); ok {
				r.data, r.named = nm, true
			}
		}
	case TypeSRV:
		if n > 6 {
			if nm, _, ok := t.name(b[:off+n], off+6); ok {
				r.data, r.named = nm, true
				r.prio, r.weight, r.port = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:]), binary.BigEndian.Uint16(data[4:])
			}
		}
	case TypeSOA:
		if nm, next, ok := t.name(b[:off+n], off); ok {
			r.data, r.named = nm, true
			if rn, next, ok := t.name(b[:off+n], next); ok && next+20 <= off+n {
				r.rname = rn
				for i := range r.soa {
					r.soa[i] = binary.BigEndian.Uint32(b[next+4*i:])
				}
			}
		}
	default:
		r.data = t.keep(data)
	}
	list := &t.sections[section]
	if len(*list) < maxRecords {
		*list = append(*list, r)
	}
	return off + n, true
}

// span is a piece of the transaction's memory; memory may move while it grows, a span does not.
type span struct{ from, to int }

func (t *Tx) keep(b []byte) span {
	from := len(t.mem)
	t.mem = append(t.mem, b...)
	return span{from, len(t.mem)}
}

func (t *Tx) at(s span) []byte { return t.mem[s.from:s.to] }

// name expands the name at off and gives where it ends in the message.
func (t *Tx) name(b []byte, off int) (span, int, bool) {
	from := len(t.mem)
	end := -1
	for jumps := 0; ; {
		if off >= len(b) {
			return span{}, 0, false
		}
		n := int(b[off])
		switch {
		case n == 0:
			if end < 0 {
				end = off + 1
			}
			return span{from, len(t.mem)}, end, true
		case n >= 0xc0:
			if off+1 >= len(b) {
				return span{}, 0, false
			}
			if end < 0 {
				end = off + 2
			}
			to := (n&0x3f)<<8 | int(b[off+1])
			if jumps++; jumps > maxJumps {
				return span{}, 0, false
			}
			off = to
			continue
		case n > 63:
			return span{}, 0, false
		}
		if off+1+n > len(b) {
			return span{}, 0, false
		}
		if len(t.mem)-from+n+1 > maxName {
			// Go on without keeping: the rest can only be found by walking.
			if end < 0 {
				e, ok := skipName(b, off)
				if !ok {
					return span{}, 0, false
				}
				end = e
			}
			t.Truncated = true
			return span{from, len(t.mem)}, end, true
		}
		if len(t.mem) > from {
			t.mem = append(t.mem, '.')
		}
		t.mem = append(t.mem, b[off+1:off+1+n]...)
		off += 1 + n
	}
}
