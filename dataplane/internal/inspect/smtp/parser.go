// Package smtp parses SMTP (RFC 5321) with pipelining, chunking (RFC 3030) and STARTTLS: who sends to whom, and through
// package mime what. The engine calls it; a mail is a transaction. The trap: commands may be pipelined before their answers,
// so the data phase begins with the command, not with the server's 354.
package smtp

import (
	"bytes"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

const (
	maxLine = 4 << 10 // commands; data lines longer than that are taken in pieces
	maxRcpt = 256
)

// command kinds whose replies matter, in the order they were sent
const (
	cmdOther byte = iota
	cmdData
	cmdStartTLS
	cmdBody // end of data
	cmdReset
)

// Parser parses one flow.
type Parser struct {
	inspect.Queue[Tx, *Tx]
	mem     inspect.Memory
	helo    []byte
	data    bool // in the data phase
	bdat    int  // bytes of a chunk still to come; -1 none
	last    bool
	replies []byte
	tls     bool
	cur     *Tx
	wrap    []byte // of a data line cut into pieces
	now     int64
}

// New makes a parser.
func New(mem inspect.Memory) *Parser { return &Parser{mem: mem, bdat: -1} }

// App is SMTP.
func (p *Parser) App() rule.App { return rule.AppSMTP }

// Probe says whether bytes begin SMTP in their direction.
func Probe(toServer bool, b []byte, port uint16) inspect.Certainty {
	if toServer {
		best := inspect.No
		for _, w := range [...]string{"EHLO ", "HELO ", "LHLO "} {
			n := min(len(b), len(w))
			if !inspect.EqualFold(b[:n], string(bytes.ToLower([]byte(w[:n])))) {
				continue
			}
			if n == len(w) {
				return inspect.Yes
			}
			best = inspect.Unsure
		}
		if best == inspect.No && (port == 25 || port == 587) && len(b) > 5 && (inspect.EqualFold(b[:4], "mail") || inspect.EqualFold(b[:4], "quit")) {
			return inspect.Yes
		}
		return best
	}
	if len(b) < 4 {
		return inspect.Unsure
	}
	if string(b[:3]) != "220" && string(b[:3]) != "554" || b[3] != ' ' && b[3] != '-' {
		return inspect.No
	}
	if port == 25 || port == 587 {
		return inspect.Yes
	}
	if i := bytes.IndexByte(b, '\n'); i > 0 {
		if bytes.Contains(bytes.ToUpper(b[:i]), []byte("SMTP")) {
			return inspect.Yes
		}
		return inspect.No
	}
	return inspect.Unsure
}

// Upgraded says that TLS follows.
func (p *Parser) Upgraded() bool { return p.tls }

// Finish completes what is open.
func (p *Parser) Finish() {
	for i := range p.Len() {
		p.At(i).finish(true)
	}
	p.cur = nil
}

// Drop forgets the first n.
func (p *Parser) Drop(n int) {
	for i := range n {
		t := p.At(i)
		if t == p.cur {
			p.cur = nil
		}
		for _, f := range t.files {
			f.Release(p.mem)
		}
		t.files = nil
	}
	p.Queue.Drop(n)
}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Drop(p.Len())
	p.Empty()
	p.helo, p.data, p.bdat, p.last, p.tls, p.cur = nil, false, -1, false, false, nil
	p.replies, p.wrap = p.replies[:0], p.wrap[:0]
}

// Gap is survived inside of a mail.
func (p *Parser) Gap(_ *inspect.Meta, toServer bool, n uint64) inspect.Status {
	if toServer && p.data && p.cur != nil {
		for _, f := range p.cur.files {
			if f.State == inspect.FileOpen {
				f.Gaps = true
			}
		}
		if p.bdat >= 0 {
			p.bdat = max(0, p.bdat-int(n))
		}
		return inspect.More
	}
	if !toServer {
		return inspect.More
	}
	p.Finish()
	return inspect.Failed
}

func (p *Parser) tx() *Tx {
	if p.cur == nil {
		t, id := p.Add()
		t.begin(id, p.now, p)
		p.cur = t
	}
	return p.cur
}

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, end bool) (int, inspect.Status) {
	p.now = m.Time
	if !toServer {
		return p.answers(b)
	}
	used := 0
	for used < len(b) {
		r := b[used:]
		if p.bdat > 0 {
			n := min(p.bdat, len(r))
			p.chunk(r[:n])
			p.bdat -= n
			used += n
			if p.bdat == 0 {
				p.chunkEnd()
			}
			continue
		}
		i := bytes.IndexByte(r, '\n')
		if i < 0 {
			if len(r) > maxLine && p.data {
				p.mail(r[:maxLine], false)
				used += maxLine
				continue
			}
			if len(r) > maxLine {
				p.tx().raise(eventLongCommand)
				p.command(r[:maxLine])
				return len(b), inspect.More
			}
			if !end {
				break
			}
			i = len(r) - 1
		}
		line := r[:i+1]
		used += i + 1
		if p.data && p.bdat < 0 {
			if string(bytes.TrimRight(line, "\r\n")) == "." && len(p.wrap) == 0 {
				p.dataEnd()
				continue
			}
			p.mail(line, true)
			continue
		}
		p.command(bytes.TrimRight(line, "\r\n"))
		if p.tls {
			return used, inspect.More
		}
	}
	return used, inspect.More
}

// mail gives a line of the mail on; pieces of a long line are joined to lines of a bounded length.
func (p *Parser) mail(line []byte, whole bool) {
	t := p.tx()
	if len(p.wrap) == 0 && len(line) > 1 && line[0] == '.' && line[1] == '.' { // dot stuffing
		line = line[1:]
	}
	t.msg.Line(line)
	p.wrap = p.wrap[:0]
	if !whole {
		p.wrap = append(p.wrap, 1)
	}
}

// chunk gives bytes of a BDAT chunk on, line by line.
func (p *Parser) chunk(b []byte) {
	t := p.tx()
	p.wrap = append(p.wrap, b...)
	for {
		i := bytes.IndexByte(p.wrap, '\n')
		if i < 0 && len(p.wrap) < maxLine {
			return
		}
		if i < 0 {
			i = len(p.wrap) - 1
		}
		t.msg.Line(p.wrap[:i+1])
		p.wrap = p.wrap[:copy(p.wrap, p.wrap[i+1:])]
	}
}

func (p *Parser) chunkEnd() {
	p.bdat = -1
	if !p.last {
		return
	}
	if len(p.wrap) > 0 {
		p.tx().msg.Line(p.wrap)
		p.wrap = p.wrap[:0]
	}
	p.dataEnd()
}

func (p *Parser) dataEnd() {
	t := p.tx()
	t.msg.End(false)
	t.seal()
	p.data = false
	p.replies = append(p.replies, cmdBody)
	t.done[0] = true
	p.cur = nil
}

func (p *Parser) command(line []byte) {
	t := p.tx()
	t.command(line)
	verb, arg, _ := bytes.Cut(line, []byte(" "))
	kind := cmdOther
	switch {
	case inspect.EqualFold(verb, "ehlo"), inspect.EqualFold(verb, "helo"), inspect.EqualFold(verb, "lhlo"):
		if t.from != nil {
			t.finish(false)
			p.cur = nil
			t = p.tx()
		}
		p.helo = append([]byte(nil), inspect.TrimSpace(arg)...)
		t.helo = p.helo
	case inspect.EqualFold(verb, "mail"):
		if len(t.from) > 0 {
			t.raise(eventDuplicate)
		}
		t.from = address(line)
	case inspect.EqualFold(verb, "rcpt"):
		if len(t.to) < maxRcpt {
			t.to = append(t.to, address(line))
		}
	case inspect.EqualFold(verb, "data"):
		kind = cmdData
		p.beginMail(t)
	case inspect.EqualFold(verb, "bdat"):
		f := bytes.Fields(arg)
		if len(f) > 0 {
			if n, err := strconv.Atoi(string(f[0])); err == nil && n >= 0 {
				p.last = len(f) > 1 && inspect.EqualFold(f[1], "last")
				if !t.msg.Begun {
					p.beginMail(t)
				}
				p.data = true
				p.bdat = n
				if n == 0 {
					p.chunkEnd()
				}
			}
		}
	case inspect.EqualFold(verb, "rset"):
		kind = cmdReset
		if t.from != nil || t.msg.Begun {
			t.finish(false)
			p.cur = nil
		}
	case inspect.EqualFold(verb, "starttls"):
		kind = cmdStartTLS
	}
	if len(p.replies) < 1024 {
		p.replies = append(p.replies, kind)
	}
}

func (p *Parser) beginMail(t *Tx) {
	p.data = true
	t.msg.Begin(p.mem, func(name []byte) *inspect.File {
		f := new(inspect.File)
		f.Open(name, t.ID, true, t)
		t.files = append(t.files, f)
		return f
	})
}

// address is what MAIL FROM and RCPT TO name, as sent.
func address(line []byte) []byte {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return []byte{}
	}
	v := inspect.TrimSpace(line[i+1:])
	if j := bytes.IndexByte(v, ' '); j >= 0 {
		v = v[:j]
	}
	return append([]byte{}, v...)
}

// answers reads replies: they settle whether DATA is accepted and TLS begins.
func (p *Parser) answers(b []byte) (int, inspect.Status) {
	used := 0
	for {
		i := bytes.IndexByte(b[used:], '\n')
		if i < 0 {
			break
		}
		line := bytes.TrimRight(b[used:used+i], "\r")
		used += i + 1
		if len(line) < 3 || len(line) > 3 && line[3] == '-' {
			continue
		}
		if len(p.replies) == 0 {
			continue // the greeting
		}
		kind := p.replies[0]
		p.replies = p.replies[:copy(p.replies, p.replies[1:])]
		switch {
		case kind == cmdStartTLS && line[0] == '2':
			p.tls = true
			p.Finish()
			return used, inspect.Done
		case kind == cmdData && line[0] != '3' && p.data && p.cur != nil && !p.cur.msg.Ended:
			p.data = false // refused: commands go on
			p.cur.msg.Begun = false
		case kind == cmdBody:
			for i := range p.Len() {
				if t := p.At(i); t.done[0] && !t.done[1] {
					t.finish(false)
					break
				}
			}
		}
	}
	return used, inspect.More
}
