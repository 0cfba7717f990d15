// Package rfb reads the handshake of the remote framebuffer protocol of VNC (RFC 6143). The engine calls it. The trap: after
// the handshake it is screen content; the parser says Done.
package rfb

import (
	"encoding/binary"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

type phase uint8

const (
	phaseVersion phase = iota
	phaseTypes
	phaseType33
	phaseChallenge
	phaseResult
	phaseInit
	phaseDone
)

const (
	versionLen = 12
	maxName    = 1 << 12
	typeNone   = 1
	typeVNC    = 2
)

// Parser parses one flow, which is one transaction.
type Parser struct {
	tx     inspect.Fields
	txs    []inspect.Tx
	began  bool
	server phase
	client int // what the client has sent: 0 nothing, 1 version, 2 security type, 3 response, 4 init
	minor  int
	chosen byte
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is RFB.
func (p *Parser) App() rule.App { return rule.AppRFB }

// Probe says whether bytes begin RFB.
func Probe(b []byte) inspect.Certainty {
	const head = "RFB "
	n := min(len(b), len(head))
	if string(b[:n]) != head[:n] {
		return inspect.No
	}
	if len(b) < versionLen {
		return inspect.Unsure
	}
	return inspect.Yes
}

// Txs is the one transaction.
func (p *Parser) Txs() []inspect.Tx { return p.txs }

// Drop forgets it.
func (p *Parser) Drop(n int) { p.txs = p.txs[:copy(p.txs, p.txs[n:])] }

// Finish completes it.
func (p *Parser) Finish() {
	if p.began {
		p.tx.Both()
	}
}

// Reset forgets the flow.
func (p *Parser) Reset() { *p = Parser{tx: p.tx, txs: p.txs[:0]} }

// Gap ends parsing.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status {
	p.Finish()
	return inspect.Done
}

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	if !p.began {
		p.began = true
		p.tx.Clear(rule.AppRFB, "rfb", 0, m.Time)
		p.txs = append(p.txs[:0], &p.tx)
	}
	if toServer {
		return p.fromClient(b), inspect.More
	}
	used := 0
	for {
		n, st := p.fromServer(b[used:])
		used += n
		if st != inspect.More || n == 0 {
			return used, st
		}
	}
}

func (p *Parser) fromClient(b []byte) int {
	used := 0
	for {
		r := b[used:]
		n := 0
		switch p.client {
		case 0:
			n = versionLen
			if len(r) >= n {
				p.minor = int(r[8]-'0')*100 + int(r[9]-'0')*10 + int(r[10]-'0')
			}
		case 1:
			if p.minor < 7 {
				p.client++
				continue
			}
			n = 1
			if len(r) >= n {
				p.chosen = r[0]
				p.security()
			}
		case 2:
			if p.chosen != typeVNC {
				return len(b)
			}
			n = 16
		default:
			return len(b)
		}
		if len(r) < n {
			return used
		}
		used += n
		p.client++
	}
}

func (p *Parser) security() {
	p.tx.Num(rule.NumRFBSecType, false, uint64(p.chosen))
	p.tx.JSONUint("security_type", uint64(p.chosen))
}

func (p *Parser) fromServer(b []byte) (int, inspect.Status) {
	switch p.server {
	case phaseVersion:
		if len(b) < versionLen {
			return 0, inspect.More
		}
		p.tx.JSONText("server_version", b[4:11])
		p.server = phaseTypes
		return versionLen, inspect.More
	case phaseTypes:
		if p.client < 1 {
			return 0, inspect.More
		}
		if p.minor < 7 {
			if len(b) < 4 {
				return 0, inspect.More
			}
			p.chosen = byte(binary.BigEndian.Uint32(b))
			p.security()
			p.server = phaseChallenge
			return 4, inspect.More
		}
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return 0, inspect.More
		}
		p.server = phaseChallenge
		return 1 + int(b[0]), inspect.More
	case phaseChallenge:
		if p.chosen == 0 {
			return 0, inspect.More
		}
		p.server = phaseResult
		if p.chosen != typeVNC {
			if p.chosen == typeNone && p.minor < 8 {
				p.server = phaseInit
			}
			if p.chosen > typeVNC { // other ways of logging on are not followed
				p.Finish()
				return len(b), inspect.Done
			}
			return p.fromServer(b)
		}
		if len(b) < 16 {
			p.server = phaseChallenge
			return 0, inspect.More
		}
		return 16, inspect.More
	case phaseResult:
		if len(b) < 4 {
			return 0, inspect.More
		}
		v := binary.BigEndian.Uint32(b)
		p.tx.Num(rule.NumRFBSecResult, false, uint64(v))
		p.tx.JSONUint("security_result", uint64(v))
		if v != 0 {
			p.Finish()
			return len(b), inspect.Done
		}
		p.server = phaseInit
		return 4, inspect.More
	case phaseInit:
		if len(b) < 24 {
			return 0, inspect.More
		}
		n := int(binary.BigEndian.Uint32(b[20:]))
		if n > maxName {
			p.Finish()
			return len(b), inspect.Done
		}
		if len(b) < 24+n {
			return 0, inspect.More
		}
		p.tx.Text(rule.BufRFBName, false, b[24:24+n])
		p.tx.JSONText("name", b[24:24+n])
		p.server = phaseDone
		p.Finish()
		return len(b), inspect.Done
	default:
	}
	return len(b), inspect.Done
}
