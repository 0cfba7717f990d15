// Package http parses HTTP/0.9 to 1.1 (RFC 9112): request and status lines, headers, bodies by length, chunks or the
// connection's end, pipelining. The engine calls it. The trap: servers take what the standard forbids, so the parser reads
// like a lenient server: bare line feeds, blanks around names, several Host headers; and tells of it by events.
package http

import (
	"bytes"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Limits. A line or a header block over them ends the parsing of the flow, with an event.
const (
	maxLine    = 32 << 10
	maxHeaders = 64 << 10
	maxFields  = 1024
	// maxBody is how much of a decoded body is kept per direction for rules (Suricata's default is 100 kB).
	maxBody = 100 << 10
)

// phase is what a direction waits for.
type phase uint8

const (
	phaseStart phase = iota
	phaseHeaders
	phaseBody
	phaseChunkSize
	phaseChunkData
	phaseChunkEnd
	phaseTrailers
	phaseToEnd // body lasts until the connection ends
	phaseTunnel
)

type side struct {
	phase phase
	left  int64 // of the body or chunk
	tx    *Tx   // that the direction is at
}

// Parser parses one flow.
type Parser struct {
	mem    inspect.Memory
	txs    []inspect.Tx
	free   []*Tx
	nextID uint64
	req    side
	res    side
	host   []byte // of the last request, for ServerName
	tunnel bool
	// Upgraded to another protocol: what follows is not HTTP/1.
	upgraded bool
}

// New makes a parser that keeps bodies in mem.
func New(mem inspect.Memory) *Parser { return &Parser{mem: mem} }

// App is HTTP/1.
func (p *Parser) App() rule.App { return rule.AppHTTP1 }

var methods = [...]string{
	"GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "CONNECT ", "TRACE ", "PATCH ", "PROPFIND ", "PROPPATCH ", "MKCOL ",
	"COPY ", "MOVE ", "LOCK ", "UNLOCK ", "REPORT ", "SEARCH ", "SUBSCRIBE ", "UNSUBSCRIBE ", "NOTIFY ", "M-SEARCH ", "BITS_POST ",
	"CCM_POST ", "RPC_IN_DATA ", "RPC_OUT_DATA ", "SSTP_DUPLEX_POST ", "VERSION-CONTROL ", "CHECKOUT ", "CHECKIN ", "MKACTIVITY ",
	"MERGE ", "INVALID ", "ORDERPATCH ", "ACL ", "LINK ", "UNLINK ", "DEBUG ", "POLL ", "BPROPFIND ", "BPROPPATCH ", "BCOPY ",
	"BDELETE ", "BMOVE ", "UPDATE ", "LABEL ", "UNCHECKOUT ", "MKWORKSPACE ", "BASELINE-CONTROL ", "QUERY ",
}

// Probe says whether bytes begin HTTP/1 in their direction.
func Probe(toServer bool, b []byte) inspect.Certainty {
	for len(b) > 0 && (b[0] == '\r' || b[0] == '\n' || b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	if len(b) == 0 {
		return inspect.Unsure
	}
	if !toServer {
		return prefix(b, "HTTP/")
	}
	best := inspect.No
	for _, m := range methods {
		switch prefix(b, m) {
		case inspect.Yes:
			return plausible(b[len(m):])
		case inspect.Unsure:
			best = inspect.Unsure
		case inspect.No:
		}
	}
	if best == inspect.No && b[0] >= 'A' && b[0] <= 'Z' { // unknown method, but a version at the end of the line
		if i := bytes.IndexByte(b, '\n'); i > 0 {
			if bytes.Contains(b[:i], []byte(" HTTP/1.")) {
				return inspect.Yes
			}
		}
	}
	return best
}

// plausible refuses other protocols that share a word (SIP's and RTSP's OPTIONS, SUBSCRIBE, NOTIFY).
func plausible(rest []byte) inspect.Certainty {
	line := rest
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		line = rest[:i]
	}
	for _, other := range [...]string{" SIP/2.0", " RTSP/1."} {
		if bytes.Contains(line, []byte(other)) {
			return inspect.No
		}
	}
	if bytes.HasPrefix(rest, []byte("sip:")) || bytes.HasPrefix(rest, []byte("sips:")) || bytes.HasPrefix(rest, []byte("rtsp:")) {
		return inspect.No
	}
	return inspect.Yes
}

func prefix(b []byte, want string) inspect.Certainty {
	n := min(len(b), len(want))
	if !inspectFold(b[:n], want[:n]) {
		return inspect.No
	}
	if n < len(want) {
		return inspect.Unsure
	}
	return inspect.Yes
}

func inspectFold(b []byte, s string) bool {
	for i := range b {
		c := b[i]
		if c >= 'a' && c <= 'z' {
			c &^= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// Txs are the live transactions.
func (p *Parser) Txs() []inspect.Tx { return p.txs }

// Drop forgets the first n.
func (p *Parser) Drop(n int) {
	for _, t := range p.txs[:n] {
		tx, ok := t.(*Tx)
		if !ok {
			continue
		}
		if p.req.tx == tx {
			p.req.tx = nil
		}
		if p.res.tx == tx {
			p.res.tx = nil
		}
		tx.release(p.mem)
		if len(p.free) < 4 {
			p.free = append(p.free, tx)
		}
	}
	k := copy(p.txs, p.txs[n:])
	clear(p.txs[k:])
	p.txs = p.txs[:k]
}

// Finish completes what is open.
func (p *Parser) Finish() {
	for _, t := range p.txs {
		if tx, ok := t.(*Tx); ok {
			for i, s := range [2]*side{&p.req, &p.res} {
				if s.tx == tx {
					tx.cutOff(s.phase != phaseToEnd, i == 0)
				}
			}
			tx.end(true)
			tx.end(false)
			tx.Ready = true
		}
	}
}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Drop(len(p.txs))
	p.nextID = 0
	p.req, p.res = side{}, side{}
	p.host = p.host[:0]
	p.tunnel, p.upgraded = false, false
}

// ServerName is the host of the last request.
func (p *Parser) ServerName() []byte { return p.host }

// Upgraded says that the connection is another protocol from now on (101, CONNECT).
func (p *Parser) Upgraded() bool { return p.upgraded }

// Gap passes over missing bytes inside a body; elsewhere the flow can't be followed any more.
func (p *Parser) Gap(_ *inspect.Meta, toServer bool, n uint64) inspect.Status {
	s := &p.res
	if toServer {
		s = &p.req
	}
	switch s.phase {
	case phaseBody, phaseChunkData:
		if int64(n) <= s.left {
			s.left -= int64(n)
			if s.tx != nil {
				s.tx.gap(toServer)
			}
			if s.left == 0 {
				p.bodyEnd(s, toServer)
			}
			return inspect.More
		}
	case phaseToEnd:
		if s.tx != nil {
			s.tx.gap(toServer)
		}
		return inspect.More
	default:
	}
	p.Finish()
	return inspect.Failed
}

func (p *Parser) newTx(m *inspect.Meta) *Tx {
	var tx *Tx
	if n := len(p.free); n > 0 {
		tx = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		tx = &Tx{}
	}
	tx.reset(p.nextID, m.Time)
	tx.serverPort = m.ServerPort
	p.nextID++
	if len(p.txs) >= inspect.MaxTxs {
		p.Drop(1)
	}
	p.txs = append(p.txs, tx)
	return tx
}

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, end bool) (used int, st inspect.Status) {
	s := &p.res
	if toServer {
		s = &p.req
	}
	for used < len(b) {
		n, st := p.step(m, s, toServer, b[used:], end)
		used += n
		if st == inspect.Done {
			return used, st
		}
		if st != inspect.More {
			return len(b), st
		}
		if n == 0 {
			break
		}
	}
	if end && s.tx != nil {
		s.tx.cutOff(s.phase != phaseToEnd, toServer)
		s.tx.end(toServer)
		if !toServer {
			s.tx.Ready = true
		}
	}
	return used, inspect.More
}

// step handles what the direction waits for and gives how many bytes that took; 0: more are needed.
func (p *Parser) step(m *inspect.Meta, s *side, toServer bool, b []byte, end bool) (int, inspect.Status) {
	switch s.phase {
	case phaseTunnel:
		return 0, inspect.Done
	case phaseToEnd:
		s.tx.body(p.mem, toServer, b)
		return len(b), inspect.More
	case phaseBody, phaseChunkData:
		n := int(min(int64(len(b)), s.left))
		s.tx.body(p.mem, toServer, b[:n])
		s.left -= int64(n)
		if s.left == 0 {
			p.bodyEnd(s, toServer)
		}
		return n, inspect.More
	default:
	}
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) > maxLine {
			if s.tx != nil {
				s.tx.raise(eventLineTooLong)
			}
			p.Finish()
			return len(b), inspect.Failed
		}
		if !end || len(b) == 0 {
			return 0, inspect.More
		}
		i = len(b) - 1
	}
	raw := b[:i+1]
	line := bytes.TrimSuffix(raw, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch s.phase {
	case phaseStart:
		if len(line) == 0 || isBlank(line) {
			return i + 1, inspect.More
		}
		if toServer {
			p.requestLine(m, s, line, raw, looksLikeField(b[i+1:]))
			return i + 1, inspect.More
		}
		return p.statusLine(m, s, line, raw, b)
	case phaseHeaders, phaseTrailers:
		side := s.tx.side(toServer)
		if len(line) == 0 {
			if s.phase == phaseHeaders {
				side.raw = append(side.raw, raw...)
			}
			return i + 1, p.headersEnd(s, toServer)
		}
		if len(side.raw)+len(raw) > maxHeaders || len(side.fields) >= maxFields {
			s.tx.raise(eventHeadersTooLong)
			p.Finish()
			return i + 1, inspect.Failed
		}
		side.headerLine(s.tx, line, raw)
		return i + 1, inspect.More
	case phaseChunkSize:
		n, ok := chunkSize(line)
		if !ok {
			s.tx.raise(eventBadChunk)
			s.phase = phaseToEnd // as browsers do: what follows is taken as it is
			s.tx.body(p.mem, toServer, raw)
			return i + 1, inspect.More
		}
		if n == 0 {
			s.phase = phaseTrailers
			return i + 1, inspect.More
		}
		s.left, s.phase = n, phaseChunkData
		return i + 1, inspect.More
	case phaseChunkEnd:
		if len(line) != 0 { // something between data and the next size: take it as the size line
			s.phase = phaseChunkSize
			return 1, inspect.More
		}
		s.phase = phaseChunkSize
		return i + 1, inspect.More
	default:
	}
	return i + 1, inspect.More
}

func isBlank(b []byte) bool { return len(inspect.TrimSpace(b)) == 0 }

// chunkSize reads a chunk's size line; extensions after a semicolon are passed over.
func chunkSize(line []byte) (int64, bool) {
	line = inspect.TrimSpace(line)
	var n int64
	digits := 0
	for _, c := range line {
		var d int64
		switch {
		case c >= '0' && c <= '9':
			d = int64(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = int64(c|0x20-'a') + 10
		default:
			return n, digits > 0
		}
		digits++
		if n > 1<<40 {
			return 0, false
		}
		n = n<<4 | d
	}
	return n, digits > 0
}

// looksLikeField says whether the next line is a header field: a request line without a version is then a broken one of
// HTTP/1, not HTTP/0.9.
func looksLikeField(b []byte) bool {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		i = len(b)
	}
	name, _, ok := bytes.Cut(b[:i], []byte(":"))
	if !ok || len(name) == 0 {
		return false
	}
	return !bytes.ContainsAny(name, " \t/?")
}

func (p *Parser) requestLine(m *inspect.Meta, s *side, line, raw []byte, fields bool) {
	tx := p.newTx(m)
	s.tx = tx
	tx.req.started = true
	tx.req.raw = append(tx.req.raw, raw...)
	tx.requestLine(line)
	if tx.http09 && !fields {
		tx.req.lineDone = true
		tx.end(true)
		s.tx, s.phase = nil, phaseStart
		return
	}
	s.phase = phaseHeaders
}

func (p *Parser) statusLine(m *inspect.Meta, s *side, line, raw, b []byte) (int, inspect.Status) {
	tx := p.answered()
	if tx == nil {
		tx = p.newTx(m)
		tx.end(true)
		tx.raise(eventResponseWithoutRequest)
	}
	s.tx = tx
	tx.res.started = true
	if !bytes.HasPrefix(bytes.ToUpper(line[:min(5, len(line))]), []byte("HTTP/")) {
		// HTTP/0.9 or a broken server: all of it is the body.
		tx.raise(eventNoStatusLine)
		s.phase = phaseToEnd
		tx.res.lineDone, tx.res.headersDone = true, true
		tx.body(p.mem, false, b)
		return len(b), inspect.More
	}
	tx.res.raw = append(tx.res.raw, raw...)
	tx.statusLine(line)
	s.phase = phaseHeaders
	return len(raw), inspect.More
}

// answered is the oldest transaction without a response.
func (p *Parser) answered() *Tx {
	for _, t := range p.txs {
		if tx, ok := t.(*Tx); ok && !tx.res.done && !tx.res.started {
			return tx
		}
	}
	return nil
}

func (p *Parser) headersEnd(s *side, toServer bool) inspect.Status {
	tx := s.tx
	if s.phase == phaseTrailers {
		p.finishMessage(s, toServer)
		return inspect.More
	}
	side := tx.side(toServer)
	tx.headersEnd(toServer)
	if toServer {
		if h := tx.Host(); len(h) > 0 {
			p.host = append(p.host[:0], h...)
		}
	} else {
		switch {
		case tx.status >= 100 && tx.status < 200 && tx.status != 101:
			tx.interim()
			s.phase = phaseStart
			s.tx = nil
			return inspect.More
		case tx.status == 101, bytes.EqualFold(tx.Method(), []byte("CONNECT")) && tx.status/100 == 2:
			tx.end(false)
			tx.end(true)
			tx.Ready = true
			s.phase = phaseTunnel
			p.req.phase = phaseTunnel
			p.upgraded = true
			return inspect.Done
		case tx.status == 204, tx.status == 304, bytes.EqualFold(tx.Method(), []byte("HEAD")):
			p.finishMessage(s, toServer)
			return inspect.More
		}
	}
	switch {
	case side.chunked:
		s.phase = phaseChunkSize
	case side.length > 0:
		s.left, s.phase = side.length, phaseBody
	case side.length == 0 || toServer:
		p.finishMessage(s, toServer)
	default:
		s.phase = phaseToEnd
	}
	return inspect.More
}

func (p *Parser) bodyEnd(s *side, toServer bool) {
	if s.phase == phaseChunkData {
		s.phase = phaseChunkEnd
		return
	}
	p.finishMessage(s, toServer)
}

func (p *Parser) finishMessage(s *side, toServer bool) {
	s.tx.end(toServer)
	if !toServer {
		s.tx.Ready = true
	}
	s.phase = phaseStart
	s.tx = nil
}
