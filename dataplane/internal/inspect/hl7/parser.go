// Package hl7 reads the message types of HL7 version 2 over MLLP (HL7 v2 transport, appendix C). The engine calls it. The
// trap: a message is a patient's data; nothing but MSH-9, the kind of message, is kept.
package hl7

import (
	"bytes"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

const (
	start      = 0x0b
	maxMessage = 4 << 20
	maxHead    = 4 << 10
)

// Parser parses one flow.
type Parser struct {
	inspect.Queue[inspect.Fields, *inspect.Fields]
	skip [2]bool // until the end of the message
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is HL7.
func (p *Parser) App() rule.App { return rule.AppHL7 }

// Probe says whether bytes begin a message.
func Probe(b []byte) inspect.Certainty {
	const head = "\x0bMSH|"
	n := min(len(b), len(head))
	if string(b[:n]) != head[:n] {
		return inspect.No
	}
	if n < len(head) {
		return inspect.Unsure
	}
	return inspect.Yes
}

// Finish has nothing open.
func (p *Parser) Finish() {}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Empty()
	p.skip = [2]bool{}
}

// Gap goes on at the next message.
func (p *Parser) Gap(_ *inspect.Meta, toServer bool, _ uint64) inspect.Status {
	p.skip[dir(toServer)] = true
	return inspect.More
}

func dir(toServer bool) int {
	if toServer {
		return 0
	}
	return 1
}

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	d := dir(toServer)
	used := 0
	for used < len(b) {
		r := b[used:]
		if p.skip[d] {
			i := bytes.Index(r, []byte{0x1c, 0x0d})
			if i < 0 {
				return max(used, len(b)-1), inspect.More
			}
			used += i + 2
			p.skip[d] = false
			continue
		}
		i := bytes.IndexByte(r, start)
		if i < 0 {
			return len(b), inspect.More
		}
		r = r[i:]
		end := bytes.IndexByte(r, '\r')
		if end < 0 {
			if len(r) > maxHead {
				return len(b), inspect.Failed
			}
			return used + i, inspect.More
		}
		f := bytes.SplitN(r[1:end], []byte("|"), 10)
		tx, id := p.Add()
		tx.Clear(rule.AppHL7, "hl7", id, m.Time)
		if len(f) > 8 {
			tx.JSONText("message_type", f[8])
		}
		tx.Both()
		used += i + end
		p.skip[d] = true
	}
	return used, inspect.More
}
