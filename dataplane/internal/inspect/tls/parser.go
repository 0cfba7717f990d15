// Package tls reads the clear part of TLS and SSL 3 handshakes (RFC 8446, 5246, 6066): names, versions, fingerprints,
// certificates where they are visible. The engine calls it. The trap: a ClientHello may be spread over records and
// segments, and a record's length is the sender's word: everything is bounded.
package tls

import (
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Record and handshake types (RFC 8446 B.1, B.3).
const (
	recChangeCipher = 20
	recAlert        = 21
	recHandshake    = 22
	recData         = 23
	recHeartbeat    = 24

	hsClientHello       = 1
	hsServerHello       = 2
	hsCertificate       = 11
	hsServerKeyExchange = 12
	hsServerHelloDone   = 14
	hsClientKeyExchange = 16
	hsCertificateStatus = 22
)

// Limits. RFC 8446 5.1: 2^14 + 256 per record, older versions 2^14 + 2048. A handshake message may be longer than any sane
// chain; 64 KiB is more than browsers take.
const (
	maxRecord    = 1<<14 + 2048
	maxHandshake = 64 << 10
)

// side is one direction.
type side struct {
	hs        []byte // handshake bytes not parsed yet
	encrypted bool   // after ChangeCipherSpec
	skip      int    // bytes of a record to pass over
}

// Parser parses one flow. A flow is one transaction.
type Parser struct {
	tx    Tx
	live  bool
	txs   []inspect.Tx
	sides [2]side
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is TLS.
func (p *Parser) App() rule.App { return rule.AppTLS }

// Probe says whether bytes begin a TLS or SSL connection in their direction.
func Probe(toServer bool, b []byte) inspect.Certainty {
	if len(b) == 0 {
		return inspect.Unsure
	}
	if b[0] == recHandshake || b[0] == recAlert {
		if len(b) >= 2 && b[1] != 3 {
			return inspect.No
		}
		if len(b) >= 3 && b[2] > 4 {
			return inspect.No
		}
		if len(b) < 6 {
			return inspect.Unsure
		}
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || n > maxRecord {
			return inspect.No
		}
		if b[0] == recAlert {
			if n == 2 && !toServer {
				return inspect.Yes
			}
			return inspect.No
		}
		if toServer && b[5] != hsClientHello || !toServer && b[5] != hsServerHello {
			return inspect.No
		}
		return inspect.Yes
	}
	if toServer && b[0]&0x80 != 0 { // SSL 2 ClientHello (RFC 5246 appendix E.2)
		if len(b) < 5 {
			return inspect.Unsure
		}
		if b[2] == hsClientHello && (b[3] == 3 && b[4] <= 3 || b[3] == 0 && b[4] == 2) {
			return inspect.Yes
		}
	}
	return inspect.No
}

// Txs is the one transaction.
func (p *Parser) Txs() []inspect.Tx { return p.txs }

// Drop forgets it.
func (p *Parser) Drop(n int) { p.txs = p.txs[:copy(p.txs, p.txs[n:])] }

// Finish completes what is open.
func (p *Parser) Finish() {
	if p.live {
		p.tx.done[0], p.tx.done[1] = true, true
		p.tx.Ready = true
	}
}

// Reset forgets the flow; memory is kept.
func (p *Parser) Reset() {
	p.tx.reset(0)
	p.live = false
	p.txs = p.txs[:0]
	for i := range p.sides {
		p.sides[i] = side{hs: p.sides[i].hs[:0]}
	}
}

// ServerName is the SNI.
func (p *Parser) ServerName() []byte { return p.tx.sni }

// Opaque says that application data has begun.
func (p *Parser) Opaque() bool { return p.tx.opaque }

// Gap ends parsing: record borders are lost.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status {
	p.Finish()
	p.tx.opaque = true
	return inspect.Done
}

// Data parses records.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, end bool) (int, inspect.Status) {
	if !p.live {
		p.live = true
		p.tx.reset(m.Time)
		p.txs = append(p.txs[:0], &p.tx)
	}
	d := 1
	if toServer {
		d = 0
	}
	s := &p.sides[d]
	used := 0
	for len(b) > used {
		r := b[used:]
		if s.skip > 0 {
			n := min(s.skip, len(r))
			s.skip -= n
			used += n
			continue
		}
		if len(r) < 5 {
			break
		}
		if toServer && used == 0 && p.tx.clientVersion == 0 && r[0]&0x80 != 0 {
			n := (int(r[0])&0x7f)<<8 | int(r[1])
			if len(r) < n+2 {
				return used, inspect.More
			}
			p.tx.clientVersion = uint16(r[3])<<8 | uint16(r[4])
			p.tx.ssl2 = true
			used += n + 2
			continue
		}
		if r[0] < recChangeCipher || r[0] > recHeartbeat || r[1] != 3 {
			p.tx.raise(eventInvalidRecordType)
			p.Finish()
			return len(b), inspect.Failed
		}
		n := int(r[3])<<8 | int(r[4])
		if n > maxRecord {
			p.tx.raise(eventInvalidRecordLength)
			p.Finish()
			return len(b), inspect.Failed
		}
		p.tx.recordVersion[d] = uint16(r[1])<<8 | uint16(r[2])
		switch {
		case r[0] == recHandshake && !s.encrypted:
			// Take what is there: a handshake message need not wait for the record's end.
			have := min(n, len(r)-5)
			if have < n {
				if len(r)-5 < n && n <= maxRecord {
					return used, inspect.More
				}
			}
			if len(s.hs)+have > maxHandshake {
				p.tx.raise(eventTooLong)
				p.Finish()
				return len(b), inspect.Done
			}
			s.hs = append(s.hs, r[5:5+have]...)
			p.handshakes(m, toServer, s)
			used += 5 + have
		case r[0] == recChangeCipher:
			s.encrypted = true
			p.tx.done[d] = true
			used += 5
			s.skip = n
		case r[0] == recData:
			p.tx.done[0], p.tx.done[1] = true, true
			p.tx.opaque = true
			p.tx.Ready = true
			return len(b), inspect.Done
		case r[0] == recAlert:
			if len(r) >= 7 && n == 2 && r[5] == 2 {
				p.tx.done[0], p.tx.done[1] = true, true
				p.tx.Ready = true
			}
			used += 5
			s.skip = n
		default: // encrypted handshake, heartbeat
			if r[0] == recHandshake {
				p.tx.done[d] = true
				if p.tx.done[0] && p.tx.done[1] {
					p.tx.Ready = true
				}
			}
			used += 5
			s.skip = n
		}
	}
	if end {
		p.tx.done[d] = true
	}
	if p.tx.done[0] && p.tx.done[1] {
		p.tx.Ready = true
	}
	return used, inspect.More
}

// handshakes parses the whole messages in s.hs.
func (p *Parser) handshakes(m *inspect.Meta, toServer bool, s *side) {
	b := s.hs
	for len(b) >= 4 {
		n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		if n > maxHandshake {
			p.tx.raise(eventTooLong)
			s.hs = s.hs[:0]
			return
		}
		if len(b) < 4+n {
			break
		}
		body := b[4 : 4+n]
		switch {
		case b[0] == hsClientHello && toServer:
			if !p.tx.clientHello(body) {
				p.tx.raise(eventInvalidHandshake)
			}
		case b[0] == hsServerHello && !toServer:
			if !p.tx.serverHello(body) {
				p.tx.raise(eventInvalidHandshake)
			}
		case b[0] == hsCertificate:
			p.tx.certificates(toServer, body)
			if !toServer {
				p.tx.Ready = true
			}
		case b[0] == hsServerHelloDone && !toServer:
			p.tx.done[1] = true
		case b[0] == hsClientKeyExchange && toServer:
			p.tx.keyExchange = true
		}
		b = b[4+n:]
	}
	s.hs = s.hs[:copy(s.hs, b)]
	_ = m
}
