// Package sip parses the Session Initiation Protocol (RFC 3261) over UDP and TCP. The engine calls it; each message is a
// transaction of its own direction. The trap: over TCP a message ends where Content-Length says, and without one at its
// empty line.
package sip

import (
	"bytes"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

const (
	maxHead = 64 << 10
	maxBody = 1 << 20
)

// Parser parses one flow.
type Parser struct {
	inspect.Queue[inspect.Fields, *inspect.Fields]
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is SIP.
func (p *Parser) App() rule.App { return rule.AppSIP }

var methods = [...]string{
	"REGISTER ", "INVITE ", "ACK ", "BYE ", "CANCEL ", "OPTIONS ", "UPDATE ", "REFER ", "PRACK ", "SUBSCRIBE ", "NOTIFY ", "PUBLISH ",
	"MESSAGE ", "INFO ", "SIP/2.0 ",
}

// Probe says whether bytes begin a SIP message.
func Probe(b []byte) inspect.Certainty {
	best := inspect.No
	for _, m := range methods {
		n := min(len(b), len(m))
		if string(b[:n]) != m[:n] {
			continue
		}
		if n < len(m) {
			best = inspect.Unsure
			continue
		}
		if m == "SIP/2.0 " {
			return inspect.Yes
		}
		line, _, whole := bytes.Cut(b, []byte("\n"))
		if bytes.HasSuffix(bytes.TrimRight(line, "\r"), []byte(" SIP/2.0")) {
			return inspect.Yes
		}
		if !whole && len(line) < 1024 {
			return inspect.Unsure
		}
		return inspect.No
	}
	return best
}

// Finish has nothing open.
func (p *Parser) Finish() {}

// Reset forgets the flow.
func (p *Parser) Reset() { p.Empty() }

// Gap ends parsing over TCP.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status { return inspect.Failed }

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, end bool) (int, inspect.Status) {
	used := 0
	for used < len(b) {
		r := b[used:]
		for len(r) > 0 && (r[0] == '\r' || r[0] == '\n') {
			r = r[1:]
			used++
		}
		if len(r) == 0 {
			break
		}
		head := bytes.Index(r, []byte("\r\n\r\n"))
		size := head + 4
		if head < 0 {
			if !m.UDP && !end && len(r) < maxHead {
				return used, inspect.More
			}
			if !m.UDP && len(r) >= maxHead {
				return len(b), inspect.Failed
			}
			head, size = len(r), len(r)
		}
		body := contentLength(r[:head])
		if body > maxBody {
			return len(b), inspect.Failed
		}
		if m.UDP {
			body = len(r) - size
		}
		if len(r) < size+body {
			if !end {
				return used, inspect.More
			}
			body = len(r) - size
		}
		if !p.message(m, toServer, r[:head], r[size:size+body]) {
			return len(b), inspect.Failed
		}
		used += size + body
	}
	return used, inspect.More
}

func contentLength(head []byte) int {
	for _, line := range bytes.Split(head, []byte("\r\n")) {
		name, v, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		name = inspect.TrimSpace(name)
		if inspect.EqualFold(name, "content-length") || inspect.EqualFold(name, "l") {
			n, err := strconv.Atoi(string(inspect.TrimSpace(v)))
			if err == nil && n >= 0 {
				return n
			}
		}
	}
	return 0
}

var headers = map[string]rule.Buffer{
	"from": rule.BufSIPFrom, "f": rule.BufSIPFrom, "to": rule.BufSIPTo, "t": rule.BufSIPTo, "via": rule.BufSIPVia, "v": rule.BufSIPVia,
	"user-agent": rule.BufSIPUserAgent, "content-type": rule.BufSIPContentType, "c": rule.BufSIPContentType,
	"content-length": rule.BufSIPContentLength, "l": rule.BufSIPContentLength,
}

func (p *Parser) message(m *inspect.Meta, toServer bool, head, body []byte) bool {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	tx, id := p.Add()
	tx.Clear(rule.AppSIP, "sip", id, m.Time)
	if bytes.HasPrefix(line, []byte("SIP/")) {
		f := bytes.SplitN(line, []byte(" "), 3)
		if len(f) < 2 {
			p.Drop(p.Len())
			return false
		}
		var msg []byte
		if len(f) == 3 {
			msg = f[2]
		}
		tx.Text(rule.BufSIPProtocol, toServer, f[0])
		tx.Text(rule.BufSIPStatCode, toServer, f[1])
		tx.Text(rule.BufSIPStatMsg, toServer, msg)
		tx.Text(rule.BufSIPResponseLine, toServer, line)
		tx.JSONText("version", f[0])
		tx.JSONText("code", f[1])
		tx.JSONText("reason", msg)
		tx.JSONText("response_line", line)
	} else {
		f := bytes.SplitN(line, []byte(" "), 3)
		if len(f) != 3 {
			p.Drop(p.Len())
			return false
		}
		tx.Text(rule.BufSIPMethod, toServer, f[0])
		tx.Text(rule.BufSIPUri, toServer, f[1])
		tx.Text(rule.BufSIPProtocol, toServer, f[2])
		tx.Text(rule.BufSIPRequestLine, toServer, line)
		tx.JSONText("method", f[0])
		tx.JSONText("uri", f[1])
		tx.JSONText("version", f[2])
		tx.JSONText("request_line", line)
	}
	sdp := false
	for _, l := range bytes.Split(rest, []byte("\r\n")) {
		name, v, ok := bytes.Cut(l, []byte(":"))
		if !ok {
			continue
		}
		key := string(bytes.ToLower(inspect.TrimSpace(name)))
		v = inspect.TrimSpace(v)
		if b, ok := headers[key]; ok {
			tx.Text(b, toServer, v)
		}
		if (key == "content-type" || key == "c") && bytes.Contains(v, []byte("application/sdp")) {
			sdp = true
		}
	}
	if sdp && len(body) > 0 {
		sdpObject(tx, body)
	}
	tx.Both()
	return true
}

// sdpObject prints the session description (RFC 8866) as EVE does.
func sdpObject(tx *inspect.Fields, body []byte) {
	tx.JSONOpen("sdp", '{')
	var bw, attrs [][]byte
	media := false
	flush := func() {
		for _, l := range [2]struct {
			key string
			v   [][]byte
		}{{"bandwidths", bw}, {"attributes", attrs}} {
			if len(l.v) > 0 {
				tx.JSONOpen(l.key, '[')
				for _, x := range l.v {
					tx.JSONItem(x)
				}
				tx.JSONClose(']')
			}
		}
		bw, attrs = nil, nil
	}
	lines := bytes.Split(body, []byte("\n"))
	for i := 0; i < len(lines); i++ {
		l := bytes.TrimRight(lines[i], "\r")
		if len(l) < 2 || l[1] != '=' {
			continue
		}
		v := l[2:]
		switch l[0] {
		case 'v':
			if n, err := strconv.ParseUint(string(v), 10, 32); err == nil {
				tx.JSONUint("version", n)
			}
		case 'o':
			tx.JSONText("origin", v)
		case 's':
			tx.JSONText("session_name", v)
		case 'i':
			if media {
				tx.JSONText("media_info", v)
			} else {
				tx.JSONText("session_info", v)
			}
		case 'u':
			tx.JSONText("uri", v)
		case 'e':
			tx.JSONText("email", v)
		case 'p':
			tx.JSONText("phone_number", v)
		case 'c':
			tx.JSONText("connection_data", v)
		case 'b':
			bw = append(bw, v)
		case 't':
			flush()
			tx.JSONOpen("time_descriptions", '[')
			for ; i < len(lines); i++ {
				l = bytes.TrimRight(lines[i], "\r")
				if len(l) < 2 || l[0] != 't' {
					break
				}
				tx.JSONOpen("", '{')
				tx.JSONText("time", l[2:])
				if i+1 < len(lines) && bytes.HasPrefix(lines[i+1], []byte("r=")) {
					i++
					tx.JSONText("repeat_time", bytes.TrimRight(lines[i][2:], "\r"))
				}
				tx.JSONClose('}')
			}
			i--
			tx.JSONClose(']')
		case 'z':
			tx.JSONText("timezone", v)
		case 'k':
			tx.JSONText("encryption_key", v)
		case 'a':
			attrs = append(attrs, v)
		case 'm':
			flush()
			if media {
				tx.JSONClose('}')
				tx.JSONOpen("", '{')
			} else {
				tx.JSONOpen("media_descriptions", '[')
				tx.JSONOpen("", '{')
				media = true
			}
			tx.JSONText("media", v)
		}
	}
	flush()
	if media {
		tx.JSONClose('}')
		tx.JSONClose(']')
	}
	tx.JSONClose('}')
}
