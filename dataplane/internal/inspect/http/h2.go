package http

import (
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// The methods here let package http2 fill a transaction field by field: what rules see of it is the same.

// BeginHTTP2 makes it a new transaction of HTTP/2.
func (t *Tx) BeginHTTP2(id uint64, now int64, mem inspect.Memory) {
	t.reset(id, now)
	t.mem = mem
	t.h2 = true
	for _, m := range [2]*message{&t.req, &t.res} {
		m.length = -1
	}
}

// AddField takes one decoded header field.
func (t *Tx) AddField(toServer bool, name, value string) {
	m := t.side(toServer)
	if len(m.fields) >= maxFields || len(m.mem) > maxHeaders {
		return
	}
	m.started = true
	if !m.headersDone {
		m.fields = append(m.fields, field{name: m.keep([]byte(name)), value: m.keep([]byte(value))})
	}
	switch name {
	case ":method":
		t.method = m.keep([]byte(value))
	case ":path":
		t.rawURI = m.keep([]byte(value))
		t.uri, _ = normalizeURI(t, t.req.at(t.rawURI))
	case ":authority":
		t.uriHost = m.keep([]byte(value))
	case ":status":
		t.statCode = m.keep([]byte(value))
		t.status, _ = strconv.Atoi(value)
	}
}

// EndFields ends a header block.
func (t *Tx) EndFields(toServer bool) {
	m := t.side(toServer)
	if m.headersDone {
		return
	}
	if toServer {
		t.protocol = m.keep([]byte("HTTP/2"))
		line := append([]byte(nil), t.req.at(t.method)...)
		line = append(append(append(line, ' '), t.req.at(t.rawURI)...), " HTTP/2\r\n"...)
		m.line = m.keep(line)
	} else {
		t.resProtocol = m.keep([]byte("HTTP/2"))
		line := append([]byte("HTTP/2 "), t.res.at(t.statCode)...)
		m.line = m.keep(append(line, "\r\n"...))
	}
	m.lineDone = true
	t.headersEnd(toServer)
}

// Body takes bytes of a DATA frame.
func (t *Tx) Body(toServer bool, b []byte) { t.body(t.mem, toServer, b) }

// End ends a direction; truncated says that the body should have gone on.
func (t *Tx) End(toServer, truncated bool) {
	t.cutOff(truncated, toServer)
	t.end(toServer)
}

// Release gives bodies back.
func (t *Tx) Release() {
	if t.mem != nil {
		t.release(t.mem)
	}
}

// FieldName gives the n-th header's name (http2.header_name).
func (t *Tx) FieldName(toServer bool, n int) rule.Value {
	m := t.side(toServer)
	if n < len(m.fields) {
		return rule.Value{Data: m.at(m.fields[n].name), State: rule.Done}
	}
	if m.headersDone {
		return rule.Value{State: rule.Absent}
	}
	return rule.Value{State: rule.NotYet}
}

// BodyData is what was kept of a body.
func (t *Tx) BodyData(toServer bool) []byte { return t.side(toServer).bodyBuf }

// AppendHeaders writes request_headers and response_headers.
func (t *Tx) AppendHeaders(b []byte) []byte {
	for i, key := range [2]string{"request_headers", "response_headers"} {
		m := t.side(i == 0)
		if len(m.fields) == 0 {
			continue
		}
		b = append(inspect.AppendKey(b, key), '[')
		for j := range m.fields {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(b, '{')
			b = inspect.AppendJSON(inspect.AppendKey(b, "name"), m.at(m.fields[j].name))
			b = inspect.AppendJSON(inspect.AppendKey(b, "value"), m.at(m.fields[j].value))
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return b
}
