// Package mime reads mail as it comes (RFC 5322, 2045, 2183, 2231): header fields, parts, attachments in base64 and
// quoted-printable, links in the text. The parsers of SMTP and, later, POP3 and IMAP call it, line by line. The trap: mail is
// written to deceive parsers; what is broken is read as mail programs do and never refused.
package mime

import (
	"bytes"
	"encoding/base64"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
)

// Limits of one message.
const (
	maxHeader  = 64 << 10
	maxDepth   = 8
	maxFiles   = 64
	maxURLs    = 64
	maxList    = 64
	maxURLSize = 1024
)

type encoding uint8

const (
	plain encoding = iota
	base64Coding
	quotedPrintable
)

type state uint8

const (
	inHeader state = iota
	inBody
)

// Message is one mail.
type Message struct {
	From, Subject, Date, ID, XMailer []byte
	To, Cc, Received                 [][]byte
	URLs                             [][]byte
	Attachments                      [][]byte
	Begun                            bool
	Ended                            bool
	mem                              inspect.Memory
	open                             func(name []byte) *inspect.File
	st                               state
	top                              bool // the header is the mail's own
	field                            []byte
	header                           int
	bounds                           [][]byte
	// of the part
	enc      encoding
	ctype    []byte
	name     []byte
	attached bool
	file     *inspect.File
	quad     []byte
	text     bool
	tail     []byte // a link may go on in the next line
	eol      []byte // line end before a boundary belongs to the boundary
}

// Begin makes it a new message; open makes a file of an attachment.
func (m *Message) Begin(mem inspect.Memory, open func(name []byte) *inspect.File) {
	*m = Message{mem: mem, open: open, top: true, Begun: true, text: true}
}

// Line takes one line with its end.
func (m *Message) Line(b []byte) {
	line := bytes.TrimRight(b, "\r\n")
	if i := m.boundary(line); i >= 0 {
		m.endPart()
		closing := bytes.HasPrefix(line[len(m.bounds[i])+2:], []byte("--"))
		if closing {
			m.bounds = m.bounds[:i]
			m.st = inBody
			m.text = false
		} else {
			m.bounds = m.bounds[:i+1]
			m.startPart()
		}
		return
	}
	if m.st == inHeader {
		m.headerLine(line)
		return
	}
	m.body(line, b[len(line):])
}

// boundary gives the index of the boundary that line is, -1 when none.
func (m *Message) boundary(line []byte) int {
	if len(line) < 3 || line[0] != '-' || line[1] != '-' {
		return -1
	}
	for i := len(m.bounds) - 1; i >= 0; i-- {
		if bytes.HasPrefix(line[2:], m.bounds[i]) {
			rest := bytes.TrimRight(line[2+len(m.bounds[i]):], " \t")
			if len(rest) == 0 || string(rest) == "--" {
				return i
			}
		}
	}
	return -1
}

func (m *Message) startPart() {
	m.st, m.top = inHeader, false
	m.enc, m.attached, m.text = plain, false, true
	m.ctype, m.name, m.field = m.ctype[:0], m.name[:0], m.field[:0]
	m.quad, m.tail, m.eol = m.quad[:0], m.tail[:0], m.eol[:0]
}

func (m *Message) endPart() {
	if m.st == inHeader {
		m.flushField()
	}
	m.links(nil)
	if m.file != nil {
		m.file.Close(inspect.FileClosed)
		m.file = nil
	}
}

func (m *Message) headerLine(line []byte) {
	if m.header += len(line); m.header > maxHeader {
		return
	}
	if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') && len(m.field) > 0 {
		m.field = append(append(m.field, ' '), bytes.TrimLeft(line, " \t")...)
		return
	}
	m.flushField()
	if len(line) == 0 {
		m.bodyStart()
		return
	}
	m.field = append(m.field[:0], line...)
}

func (m *Message) flushField() {
	if len(m.field) == 0 {
		return
	}
	name, v, ok := bytes.Cut(m.field, []byte(":"))
	if ok {
		v = inspect.TrimSpace(v)
		name = inspect.TrimSpace(name)
		m.partField(name, v)
		if m.top {
			m.topField(name, v)
		}
	}
	m.field = m.field[:0]
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

func (m *Message) topField(name, v []byte) {
	switch {
	case inspect.EqualFold(name, "from"):
		m.From = clone(v)
	case inspect.EqualFold(name, "subject"):
		m.Subject = clone(v)
	case inspect.EqualFold(name, "date"):
		m.Date = clone(v)
	case inspect.EqualFold(name, "message-id"):
		m.ID = clone(v)
	case inspect.EqualFold(name, "x-mailer"):
		m.XMailer = clone(v)
	case inspect.EqualFold(name, "to"):
		m.To = addresses(m.To, v)
	case inspect.EqualFold(name, "cc"):
		m.Cc = addresses(m.Cc, v)
	case inspect.EqualFold(name, "received"):
		if len(m.Received) < maxList {
			m.Received = append(m.Received, clone(v))
		}
	}
}

func addresses(dst [][]byte, v []byte) [][]byte {
	quoted := false
	start := 0
	for i := 0; i <= len(v); i++ {
		if i < len(v) && v[i] == '"' {
			quoted = !quoted
		}
		if i == len(v) || v[i] == ',' && !quoted {
			if a := inspect.TrimSpace(v[start:i]); len(a) > 0 && len(dst) < maxList {
				dst = append(dst, clone(a))
			}
			start = i + 1
		}
	}
	return dst
}

func (m *Message) partField(name, v []byte) {
	switch {
	case inspect.EqualFold(name, "content-type"):
		t := v
		if i := bytes.IndexByte(v, ';'); i >= 0 {
			t = v[:i]
		}
		m.ctype = inspect.Lower(m.ctype[:0], inspect.TrimSpace(t))
		if b := Param(v, "boundary"); len(b) > 0 && bytes.HasPrefix(m.ctype, []byte("multipart/")) && len(m.bounds) < maxDepth {
			m.bounds = append(m.bounds, clone(b))
		}
		if n := Param(v, "name"); len(n) > 0 && len(m.name) == 0 {
			m.name = append(m.name[:0], n...)
		}
	case inspect.EqualFold(name, "content-transfer-encoding"):
		switch {
		case inspect.EqualFold(v, "base64"):
			m.enc = base64Coding
		case inspect.EqualFold(v, "quoted-printable"):
			m.enc = quotedPrintable
		default:
			m.enc = plain
		}
	case inspect.EqualFold(name, "content-disposition"):
		m.attached = len(v) >= 10 && inspect.EqualFold(v[:10], "attachment")
		if n := Param(v, "filename"); len(n) > 0 {
			m.name = append(m.name[:0], n...)
		}
	}
}

// Param gives a parameter's value, joined of the pieces of RFC 2231 where it is cut into such.
func Param(v []byte, lower string) []byte {
	var out []byte
	for len(v) > 0 {
		i := bytes.IndexByte(v, ';')
		if i < 0 {
			break
		}
		v = bytes.TrimLeft(v[i+1:], " \t")
		key, rest, ok := bytes.Cut(v, []byte("="))
		if !ok {
			break
		}
		var val []byte
		rest = bytes.TrimLeft(rest, " \t")
		if len(rest) > 0 && rest[0] == '"' {
			j := 1
			for j < len(rest) && rest[j] != '"' {
				if rest[j] == '\\' && j+1 < len(rest) {
					j++
				}
				val = append(val, rest[j])
				j++
			}
			v = rest[min(j, len(rest)):]
		} else {
			j := bytes.IndexByte(rest, ';')
			if j < 0 {
				j = len(rest)
			}
			val = bytes.TrimRight(rest[:j], " \t")
			v = rest[j:]
		}
		key = inspect.TrimSpace(key)
		base := key
		star := bytes.IndexByte(key, '*')
		if star >= 0 {
			base = key[:star]
		}
		if !inspect.EqualFold(base, lower) {
			continue
		}
		if star < 0 {
			return append([]byte(nil), val...)
		}
		if key[len(key)-1] == '*' {
			if k := bytes.Index(val, []byte("''")); k >= 0 {
				val = val[k+2:]
			}
			val = unpercent(val)
		}
		out = append(out, val...)
	}
	return out
}

func unpercent(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			h, ok1 := hexDigit(b[i+1])
			l, ok2 := hexDigit(b[i+2])
			if ok1 && ok2 {
				out = append(out, h<<4|l)
				i += 2
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

func (m *Message) bodyStart() {
	if string(m.ctype) == "message/rfc822" {
		m.startPart() // a mail inside: its header follows
		return
	}
	m.st = inBody
	m.text = len(m.ctype) == 0 || bytes.HasPrefix(m.ctype, []byte("text/"))
	if bytes.HasPrefix(m.ctype, []byte("multipart/")) {
		m.text = false
		return
	}
	if len(m.name) > 0 && len(m.Attachments) < maxFiles {
		m.Attachments = append(m.Attachments, clone(m.name))
		m.file = m.open(m.name)
	}
}

func (m *Message) body(line, eol []byte) {
	switch m.enc {
	case base64Coding:
		for _, c := range line {
			if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '=' {
				m.quad = append(m.quad, c)
			}
		}
		n := len(m.quad) &^ 3
		out := make([]byte, base64.StdEncoding.DecodedLen(n))
		k, _ := base64.StdEncoding.Decode(out, m.quad[:n])
		m.quad = m.quad[:copy(m.quad, m.quad[n:])]
		m.give(out[:k])
	case quotedPrintable:
		out := make([]byte, 0, len(line)+2)
		soft := false
		for i := 0; i < len(line); i++ {
			if line[i] != '=' {
				out = append(out, line[i])
				continue
			}
			if i+2 < len(line) {
				h, ok1 := hexDigit(line[i+1])
				l, ok2 := hexDigit(line[i+2])
				if ok1 && ok2 {
					out = append(out, h<<4|l)
					i += 2
					continue
				}
			}
			if i >= len(line)-1 {
				soft = true
				break
			}
			out = append(out, '=')
		}
		m.give(m.eol)
		m.eol = m.eol[:0]
		m.give(out)
		if !soft {
			m.eol = append(m.eol, eol...)
		}
	default:
		m.give(m.eol)
		m.give(line)
		m.eol = append(m.eol[:0], eol...)
	}
}

func (m *Message) give(b []byte) {
	if m.file != nil {
		m.file.Append(m.mem, b)
	}
	if m.text {
		m.links(b)
	}
}

var schemes = [...]string{"http://", "https://", "ftp://"}

// links finds links in text; nil ends it.
func (m *Message) links(b []byte) {
	if b != nil && len(b) == 0 {
		return
	}
	m.tail = append(m.tail, b...)
	for {
		at, skip := -1, 0
		for _, s := range schemes {
			if i := indexFold(m.tail, s); i >= 0 && (at < 0 || i < at) {
				at, skip = i, len(s)
			}
		}
		if at < 0 {
			if n := len(m.tail) - 8; n > 0 {
				m.tail = m.tail[:copy(m.tail, m.tail[n:])]
			}
			return
		}
		rest := m.tail[at+skip:]
		end := bytes.IndexAny(rest, " \t\r\n\"'<>")
		if end < 0 {
			if b != nil && len(rest) < maxURLSize {
				m.tail = m.tail[:copy(m.tail, m.tail[at:])]
				return
			}
			end = len(rest)
		}
		if end > 0 && len(m.URLs) < maxURLs {
			m.URLs = append(m.URLs, inspect.Lower(nil, rest[:min(end, maxURLSize)]))
		}
		m.tail = m.tail[:copy(m.tail, rest[end:])]
	}
}

func indexFold(b []byte, lower string) int {
	for i := 0; i+len(lower) <= len(b); i++ {
		if inspect.EqualFold(b[i:i+len(lower)], lower) {
			return i
		}
	}
	return -1
}

// End ends the message.
func (m *Message) End(truncated bool) {
	if m.Ended || !m.Begun {
		return
	}
	m.Ended = true
	if m.st == inHeader {
		m.flushField()
	}
	if n := len(m.quad); n > 1 && m.file != nil { // unpadded end
		out, err := base64.RawStdEncoding.DecodeString(string(bytes.TrimRight(m.quad, "=")))
		if err == nil {
			m.file.Append(m.mem, out)
		}
	}
	m.links(nil)
	if m.file != nil {
		st := inspect.FileClosed
		if truncated {
			st = inspect.FileTruncated
		}
		m.file.Close(st)
		m.file = nil
	}
}
