// Package http2 parses HTTP/2 in clear (RFC 9113, 7541) with prior knowledge or after an upgrade, and DNS over it (RFC 8484).
// The engine calls it. A stream is a transaction, and so is each frame of the connection itself. The trap: header
// compression has a memory; its size and what it expands to are bounded.
package http2

import (
	"encoding/binary"

	"golang.org/x/net/http2/hpack"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Frame types (RFC 9113 6).
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation

	flagEndStream  = 1
	flagEndHeaders = 4
	flagPadded     = 8
	flagPriority   = 0x20

	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	maxFrame    = 1 << 20
	maxBlock    = 64 << 10
	maxTable    = 64 << 10
	maxString   = 16 << 10
	maxStreamID = 1 << 31
)

type side struct {
	dec    *hpack.Decoder
	block  []byte // of a header block that continues
	stream uint32
	flags  byte
	// left bytes of a DATA frame that is passed on as it comes.
	left   int
	pad    int
	dataTx *Tx
	end    bool
}

// Parser parses one flow.
type Parser struct {
	inspect.Queue[Tx, *Tx]
	mem     inspect.Memory
	sides   [2]side
	preface bool
	host    []byte
	doh     bool
	now     int64
}

// New makes a parser.
func New(mem inspect.Memory) *Parser { return &Parser{mem: mem} }

// App is HTTP/2, or DNS over it once a stream carried some.
func (p *Parser) App() rule.App {
	if p.doh {
		return rule.AppDoH2
	}
	return rule.AppHTTP2
}

// Probe says whether bytes begin HTTP/2: the client's preface, or the server's SETTINGS.
func Probe(toServer bool, b []byte) inspect.Certainty {
	if toServer {
		n := min(len(b), len(preface))
		if string(b[:n]) != preface[:n] {
			return inspect.No
		}
		if n < len(preface) {
			return inspect.Unsure
		}
		return inspect.Yes
	}
	if len(b) < 9 {
		if len(b) > 0 && b[0] != 0 {
			return inspect.No
		}
		return inspect.Unsure
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if b[3] == frameSettings && n%6 == 0 && n < 256 && b[4] <= 1 && binary.BigEndian.Uint32(b[5:]) == 0 {
		return inspect.Yes
	}
	return inspect.No
}

// ServerName is the authority of the last request.
func (p *Parser) ServerName() []byte { return p.host }

// Finish completes what is open.
func (p *Parser) Finish() {
	for i := range p.Len() {
		t := p.At(i)
		if !t.Ready {
			t.close(true, true)
			t.close(false, true)
		}
	}
}

// Drop forgets the first n.
func (p *Parser) Drop(n int) {
	for i := range n {
		t := p.At(i)
		for j := range p.sides {
			if p.sides[j].dataTx == t {
				p.sides[j].dataTx = nil
			}
		}
		t.http.Release()
	}
	p.Queue.Drop(n)
}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Drop(p.Len())
	p.Empty()
	p.sides = [2]side{}
	p.preface, p.doh = false, false
	p.host = p.host[:0]
}

// Gap is survived inside of a DATA frame.
func (p *Parser) Gap(_ *inspect.Meta, toServer bool, n uint64) inspect.Status {
	s := &p.sides[dir(toServer)]
	if uint64(s.left) >= n && s.left > 0 {
		s.left -= int(n)
		return inspect.More
	}
	p.Finish()
	return inspect.Failed
}

func dir(toServer bool) int {
	if toServer {
		return 0
	}
	return 1
}

// Data parses frames.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	p.now = m.Time
	s := &p.sides[dir(toServer)]
	used := 0
	if toServer && !p.preface {
		if len(b) >= len(preface) && string(b[:len(preface)]) == preface {
			used = len(preface)
			p.preface = true
		} else if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
			return 0, inspect.More
		} else {
			p.preface = true // picked up in the middle
		}
	}
	for len(b) > used {
		r := b[used:]
		if s.left > 0 {
			n := min(s.left, len(r))
			body := n
			if s.left-n < s.pad {
				body = max(0, s.left-s.pad)
			}
			if s.dataTx != nil && body > 0 {
				s.dataTx.http.Body(toServer, r[:min(body, n)])
			}
			s.left -= n
			used += n
			if s.left == 0 {
				p.dataEnd(s, toServer)
			}
			continue
		}
		if len(r) < 9 {
			break
		}
		n := int(r[0])<<16 | int(r[1])<<8 | int(r[2])
		typ, flags, stream := r[3], r[4], binary.BigEndian.Uint32(r[5:])&(maxStreamID-1)
		if n > maxFrame || typ > 0x20 {
			p.Finish()
			return len(b), inspect.Failed
		}
		if typ == frameData {
			h := 9
			pad := 0
			if flags&flagPadded != 0 {
				if len(r) < 10 {
					break
				}
				pad = int(r[9])
				h, n = 10, n-1
			}
			if n < pad {
				p.Finish()
				return len(b), inspect.Failed
			}
			tx := p.stream(stream)
			tx.frame(toServer, typ)
			s.left, s.pad, s.dataTx, s.end = n, pad, tx, flags&flagEndStream != 0
			used += h
			if n == 0 {
				p.dataEnd(s, toServer)
			}
			continue
		}
		if len(r) < 9+n {
			break
		}
		if !p.frame(s, toServer, typ, flags, stream, r[9:9+n]) {
			p.Finish()
			return len(b), inspect.Failed
		}
		used += 9 + n
	}
	return used, inspect.More
}

func (p *Parser) dataEnd(s *side, toServer bool) {
	if s.end && s.dataTx != nil {
		s.dataTx.close(toServer, false)
	}
	s.dataTx, s.end = nil, false
}

// stream finds or makes the transaction of a stream.
func (p *Parser) stream(id uint32) *Tx {
	for i := p.Len() - 1; i >= 0; i-- {
		if t := p.At(i); t.stream == id && id != 0 && !t.Ready {
			return t
		}
	}
	t, n := p.Add()
	t.begin(n, p.now, id, p)
	return t
}

func (p *Parser) frame(s *side, toServer bool, typ, flags byte, stream uint32, b []byte) bool {
	if typ == frameContinuation {
		if s.stream == 0 || len(s.block)+len(b) > maxBlock {
			return false
		}
		s.block = append(s.block, b...)
		if flags&flagEndHeaders != 0 {
			return p.headers(s, toServer)
		}
		return true
	}
	tx := p.stream(stream)
	tx.frame(toServer, typ)
	d := dir(toServer)
	switch typ {
	case frameHeaders, framePush:
		pad := 0
		if flags&flagPadded != 0 {
			if len(b) < 1 {
				return false
			}
			pad = int(b[0])
			b = b[1:]
		}
		if typ == frameHeaders && flags&flagPriority != 0 {
			if len(b) < 5 {
				return false
			}
			tx.num(rule.NumHTTP2Priority, toServer, uint64(b[4]))
			tx.priority[d], tx.hasPriority[d] = b[4], true
			b = b[5:]
		}
		if typ == framePush {
			if len(b) < 4 {
				return false
			}
			b = b[4:]
		}
		if len(b) < pad {
			return false
		}
		b = b[:len(b)-pad]
		if len(b) > maxBlock {
			return false
		}
		s.block = append(s.block[:0], b...)
		s.stream, s.flags = stream, flags
		if flags&flagEndHeaders != 0 {
			return p.headers(s, toServer)
		}
		return true
	case framePriority:
		if len(b) >= 5 {
			tx.num(rule.NumHTTP2Priority, toServer, uint64(b[4]))
			tx.priority[d], tx.hasPriority[d] = b[4], true
		}
	case frameReset:
		if len(b) >= 4 {
			c := binary.BigEndian.Uint32(b)
			tx.num(rule.NumHTTP2ErrorCode, toServer, uint64(c))
			tx.errorCode[d], tx.hasError[d] = c, true
		}
		tx.close(true, true)
		tx.close(false, true)
		return true
	case frameSettings:
		for i := 0; i+6 <= len(b) && i < 6*32; i += 6 {
			id, v := binary.BigEndian.Uint16(b[i:]), binary.BigEndian.Uint32(b[i+2:])
			tx.settings[d] = append(tx.settings[d], setting{id, v})
			tx.num(rule.NumHTTP2Settings, toServer, uint64(id)<<32|uint64(v))
		}
	case frameGoAway:
		if len(b) >= 8 {
			c := binary.BigEndian.Uint32(b[4:])
			tx.num(rule.NumHTTP2ErrorCode, toServer, uint64(c))
			tx.errorCode[d], tx.hasError[d] = c, true
		}
	case frameWindow:
		if len(b) >= 4 {
			tx.num(rule.NumHTTP2Window, toServer, uint64(binary.BigEndian.Uint32(b)&0x7fffffff))
		}
	}
	if stream == 0 {
		tx.close(true, false)
		tx.close(false, false)
	}
	return true
}

func (p *Parser) headers(s *side, toServer bool) bool {
	tx := p.stream(s.stream)
	if s.dec == nil {
		s.dec = hpack.NewDecoder(4096, nil)
		s.dec.SetAllowedMaxDynamicTableSize(maxTable)
		s.dec.SetMaxStringLength(maxString)
	}
	size := 0
	s.dec.SetEmitFunc(func(f hpack.HeaderField) {
		if size += len(f.Name) + len(f.Value); size > maxBlock {
			return
		}
		tx.http.AddField(toServer, f.Name, f.Value)
		if f.Name == ":authority" {
			p.host = inspect.Lower(p.host[:0], []byte(f.Value))
			for i, c := range p.host {
				if c == ':' {
					p.host = p.host[:i]
					break
				}
			}
		}
		if f.Name == "content-type" && f.Value == "application/dns-message" || f.Name == "accept" && f.Value == "application/dns-message" {
			p.doh = true
			tx.doh = true
		}
	})
	_, err := s.dec.Write(s.block)
	if err == nil {
		err = s.dec.Close()
	}
	s.block = s.block[:0]
	if err != nil {
		tx.raise(eventBadHeaders)
		return false
	}
	tx.http.EndFields(toServer)
	end := s.flags&flagEndStream != 0
	s.stream = 0
	if end {
		tx.close(toServer, false)
	}
	return true
}
