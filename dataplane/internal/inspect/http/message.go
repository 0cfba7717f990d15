package http

import (
	"bytes"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
)

// span is a piece of a message's own memory.
type span struct{ from, to int }

// field is one header.
type field struct {
	name, value span // in norm
	hidden      bool // merged into an earlier one of the same name
}

// message is one direction of a transaction.
type message struct {
	started     bool
	lineDone    bool
	headersDone bool
	done        bool
	chunked     bool
	length      int64 // of the body as announced; -1 unknown
	raw         []byte
	line        span // of raw
	mem         []byte
	fields      []field
	lines       []span // "name: value" of each, made when asked for
	header      []byte // normalised header block
	names       []byte
	bodyBuf     []byte // kept part of the body
	bodyLen     uint64 // all of it
	cookie      span
	coding      coding
	file        *inspect.File // open one
	multipart   multipart
}

func (m *message) reset() {
	m.coding.reset()
	*m = message{coding: m.coding, length: -1, raw: m.raw[:0], mem: m.mem[:0], fields: m.fields[:0], lines: m.lines[:0], header: m.header[:0], names: m.names[:0]}
}

func (m *message) keep(b []byte) span {
	from := len(m.mem)
	m.mem = append(m.mem, b...)
	return span{from, len(m.mem)}
}

func (m *message) at(s span) []byte { return m.mem[s.from:s.to] }

// headerLine takes one line; a line that begins with a blank continues the last field (obs-fold).
func (m *message) headerLine(tx *Tx, line, raw []byte) {
	m.raw = append(m.raw, raw...)
	if (line[0] == ' ' || line[0] == '\t') && len(m.fields) > 0 {
		f := &m.fields[len(m.fields)-1]
		old := m.at(f.value)
		joined := make([]byte, 0, 128)
		joined = append(joined, old...)
		if len(joined) > 0 {
			joined = append(joined, ' ')
		}
		joined = append(joined, inspect.TrimSpace(line)...)
		f.value = m.keep(joined)
		tx.raise(eventFolding)
		return
	}
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		tx.raise(eventHeaderInvalid)
		m.fields = append(m.fields, field{name: span{}, value: m.keep(inspect.TrimSpace(line))})
		return
	}
	m.fields = append(m.fields, field{name: m.keep(inspect.TrimSpace(line[:i])), value: m.keep(inspect.TrimSpace(line[i+1:]))})
}

// find gives the value of a header, nil when absent. lower is its name in lower case.
func (m *message) find(lower string) []byte {
	for i := range m.fields {
		if f := &m.fields[i]; !f.hidden && inspect.EqualFold(m.at(f.name), lower) {
			return m.at(f.value)
		}
	}
	return nil
}

// merge joins fields of the same name with a comma, as RFC 9110 5.3 allows.
func (m *message) merge() {
	for i := range m.fields {
		f := &m.fields[i]
		if f.hidden || f.name.from == f.name.to {
			continue
		}
		for j := i + 1; j < len(m.fields); j++ {
			g := &m.fields[j]
			if g.hidden || !bytes.EqualFold(m.at(f.name), m.at(g.name)) {
				continue
			}
			a, b := m.at(f.value), m.at(g.value)
			from := len(m.mem)
			m.mem = append(m.mem, a...)
			m.mem = append(m.mem, ", "...)
			m.mem = append(m.mem, b...)
			f.value = span{from, len(m.mem)}
			g.hidden = true
		}
	}
}

func (m *message) headersEnd(tx *Tx, toServer bool) {
	m.headersDone = true
	if len(m.fields) < 64 {
		m.merge()
	}
	cookie := "set-cookie"
	if toServer {
		cookie = "cookie"
	}
	m.names = append(m.names[:0], "\r\n"...)
	for i := range m.fields {
		f := &m.fields[i]
		if f.hidden {
			continue
		}
		name, value := m.at(f.name), m.at(f.value)
		m.names = append(m.names, name...)
		m.names = append(m.names, "\r\n"...)
		if inspect.EqualFold(name, cookie) {
			m.cookie = f.value
			continue
		}
		m.header = append(m.header, name...)
		m.header = append(m.header, ": "...)
		m.header = append(m.header, value...)
		m.header = append(m.header, "\r\n"...)
	}
	m.names = append(m.names, "\r\n"...)
	if v := m.find("content-length"); v != nil && !tx.h2 {
		n, ok := contentLength(v)
		if !ok {
			tx.raise(eventBadContentLength)
		} else {
			m.length = n
		}
	}
	if v := m.find("transfer-encoding"); v != nil && containsFold(v, "chunked") {
		m.chunked = true
	}
	if v := m.find("content-encoding"); v != nil {
		m.coding.set(v)
	}
}

// contentLength takes the first number, as servers that see "3, 3" or " 3" do.
func contentLength(v []byte) (int64, bool) {
	v = inspect.TrimSpace(v)
	if len(v) > 0 && v[0] == '+' {
		v = v[1:]
	}
	var n int64
	i := 0
	for ; i < len(v) && v[i] >= '0' && v[i] <= '9'; i++ {
		if n > 1<<55 {
			return 0, false
		}
		n = n*10 + int64(v[i]-'0')
	}
	return n, i > 0
}

func containsFold(v []byte, lower string) bool {
	for i := 0; i+len(lower) <= len(v); i++ {
		if inspect.EqualFold(v[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}

// requestLine splits method, target and version.
func (t *Tx) requestLine(line []byte) {
	m := &t.req
	m.line = m.keep(line)
	rest := line
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		rest = rest[1:]
	}
	i := bytes.IndexAny(rest, " \t")
	if i < 0 {
		t.method = m.keep(rest)
		t.http09 = true
		m.lineDone = true
		return
	}
	t.method = m.keep(rest[:i])
	rest = inspect.TrimSpace(rest[i:])
	// The version is the last word when it looks like one; blanks inside the target are the target's.
	target := rest
	if j := bytes.LastIndexAny(rest, " \t"); j >= 0 && bytes.HasPrefix(rest[j+1:], []byte("HTTP/")) {
		t.protocol = m.keep(rest[j+1:])
		target = inspect.TrimSpace(rest[:j])
	} else if bytes.HasPrefix(rest, []byte("HTTP/")) {
		t.protocol = m.keep(rest)
		target = nil
	} else {
		t.http09 = true
	}
	t.rawURI = m.keep(target)
	t.uri, t.uriHost = normalizeURI(t, target)
	m.lineDone = true
}

func (t *Tx) statusLine(line []byte) {
	m := &t.res
	m.line = m.keep(line)
	m.lineDone = true
	rest := line
	i := bytes.IndexByte(rest, ' ')
	if i < 0 {
		t.resProtocol = m.keep(rest)
		return
	}
	t.resProtocol = m.keep(rest[:i])
	rest = inspect.TrimSpace(rest[i:])
	code := rest
	if i = bytes.IndexByte(rest, ' '); i >= 0 {
		code = rest[:i]
		t.statMsg = m.keep(inspect.TrimSpace(rest[i:]))
	}
	t.statCode = m.keep(code)
	n, err := strconv.Atoi(string(code))
	if err != nil || n < 0 || n > 999 {
		t.raise(eventBadStatus)
		n = 0
	}
	t.status = n
}

// normalizeURI decodes percent signs once, joins path segments, and cuts scheme and authority off: what http.uri matches.
func normalizeURI(t *Tx, target []byte) (uri, host span) {
	m := &t.req
	path := target
	if i := bytes.Index(target, []byte("://")); i > 0 && i < 10 {
		rest := target[i+3:]
		j := bytes.IndexAny(rest, "/?#")
		if j < 0 {
			j = len(rest)
		}
		host = m.keep(rest[:j])
		path = rest[j:]
		if len(path) == 0 {
			path = []byte("/")
		}
	}
	q := bytes.IndexByte(path, '?')
	query := []byte(nil)
	if q >= 0 {
		path, query = path[:q], path[q:]
	}
	from := len(m.mem)
	m.mem = appendDecoded(m.mem, path)
	p := m.mem[from:]
	if len(p) > 0 && p[0] == '/' {
		p = cleanPath(p)
	}
	m.mem = m.mem[:from+len(p)]
	m.mem = appendDecoded(m.mem, query)
	return span{from, len(m.mem)}, host
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

func appendDecoded(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			h, ok1 := unhex(s[i+1])
			l, ok2 := unhex(s[i+2])
			if ok1 && ok2 {
				dst = append(dst, h<<4|l)
				i += 2
				continue
			}
		}
		dst = append(dst, s[i])
	}
	return dst
}

// cleanPath resolves "//", "/./" and "/../" in place.
func cleanPath(p []byte) []byte {
	w := 0
	for r := 0; r < len(p); {
		if p[r] == '/' {
			switch {
			case r+1 < len(p) && p[r+1] == '/':
				r++
				continue
			case r+1 < len(p) && p[r+1] == '.' && (r+2 == len(p) || p[r+2] == '/'):
				r += 2
				if r == len(p) {
					p[w] = '/'
					w++
				}
				continue
			case r+2 < len(p) && p[r+1] == '.' && p[r+2] == '.' && (r+3 == len(p) || p[r+3] == '/'):
				for w > 0 {
					w--
					if p[w] == '/' {
						break
					}
				}
				r += 3
				if r == len(p) {
					p[w] = '/'
					w++
				}
				continue
			}
		}
		p[w] = p[r]
		w++
		r++
	}
	return p[:w]
}
