package http

import (
	"bytes"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Tx is one request and its response.
type Tx struct {
	inspect.TxBase
	req, res    message
	method      span // of req
	rawURI, uri span
	uriHost     span
	protocol    span
	hostText    span // lower case, without port
	resProtocol span // of res
	statCode    span
	statMsg     span
	status      int
	http09      bool
	h2          bool // filled by package http2
	serverPort  uint16
	events      []rule.Event
	files       []*inspect.File
	spare       []*inspect.File
	mem         inspect.Memory
}

func (t *Tx) reset(id uint64, now int64) {
	t.ResetBase(id, now)
	t.req.reset()
	t.res.reset()
	*t = Tx{TxBase: t.TxBase, req: t.req, res: t.res, events: t.events[:0], files: t.files[:0], spare: t.spare, mem: t.mem}
}

var (
	eventLineTooLong            = rule.EventID("http.request_line_too_long")
	eventHeadersTooLong         = rule.EventID("http.request_field_too_long")
	eventBadChunk               = rule.EventID("http.invalid_response_chunk_len")
	eventHeaderInvalid          = rule.EventID("http.request_header_invalid")
	eventFolding                = rule.EventID("http.response_header_repetition")
	eventBadContentLength       = rule.EventID("http.invalid_content_length_field_in_request")
	eventResponseWithoutRequest = rule.EventID("http.unable_to_match_response_to_request")
	eventNoStatusLine           = rule.EventID("http.response_line_missing")
	eventBadStatus              = rule.EventID("http.invalid_response_line")
)

func (t *Tx) raise(e rule.Event) {
	if len(t.events) < 16 {
		t.events = append(t.events, e)
	}
}

// Events are those raised.
func (t *Tx) Events() []rule.Event { return t.events }

func (t *Tx) side(toServer bool) *message {
	if toServer {
		return &t.req
	}
	return &t.res
}

func (t *Tx) end(toServer bool) {
	m := t.side(toServer)
	if m.started && m.lineDone && !m.headersDone {
		t.headersEnd(toServer)
	}
	t.bodyEnd(toServer)
	m.done, m.headersDone, m.lineDone = true, true, true
}

// interim forgets a 1xx response so that the real one can come.
func (t *Tx) interim() {
	t.res.reset()
	t.resProtocol, t.statCode, t.statMsg, t.status = span{}, span{}, span{}, 0
}

func (t *Tx) headersEnd(toServer bool) {
	t.side(toServer).headersEnd(t, toServer)
	if !toServer {
		return
	}
	t.startMultipart(&t.req)
	h := t.req.find("host")
	if u := t.req.at(t.uriHost); len(u) > 0 {
		h = u
	}
	if i := bytes.LastIndexByte(h, '@'); i >= 0 {
		h = h[i+1:]
	}
	if len(h) > 0 && h[0] == '[' {
		if i := bytes.IndexByte(h, ']'); i > 0 {
			h = h[:i+1]
		}
	} else if i := bytes.IndexByte(h, ':'); i >= 0 {
		h = h[:i]
	}
	from := len(t.req.mem)
	h = append([]byte(nil), h...)
	t.req.mem = inspect.Lower(t.req.mem, h)
	t.hostText = span{from, len(t.req.mem)}
}

// App is HTTP/1.
func (t *Tx) App() rule.App { return rule.AppHTTP1 }

// Method is the request's method.
func (t *Tx) Method() []byte { return t.req.at(t.method) }

// Host is the name the client asked for, lower case, without port.
func (t *Tx) Host() []byte { return t.req.at(t.hostText) }

// URI is the request target as sent.
func (t *Tx) URI() []byte { return t.req.at(t.rawURI) }

// Status is the response's code, 0 when none.
func (t *Tx) Status() int { return t.status }

// Header gives a header's value, nil when absent; lower is its name in lower case.
func (t *Tx) Header(toServer bool, lower string) []byte { return t.side(toServer).find(lower) }

// Complete says whether the message is over.
func (t *Tx) Complete(toServer bool) bool { return t.side(toServer).done }

// when gives b once ready; before it is not there yet.
func when(ready bool, b []byte) rule.Value {
	switch {
	case !ready:
		return rule.Value{State: rule.NotYet}
	case len(b) == 0:
		return rule.Value{State: rule.Absent}
	}
	return rule.Value{Data: b, State: rule.Done}
}

func (m *message) bodyValue() rule.Value {
	switch {
	case len(m.bodyBuf) > 0 && m.done:
		return rule.Value{Data: m.bodyBuf, State: rule.Done}
	case len(m.bodyBuf) > 0:
		return rule.Value{Data: m.bodyBuf, State: rule.Partial}
	case m.done:
		return rule.Value{State: rule.Absent}
	}
	return rule.Value{State: rule.NotYet}
}

// Buffer gives what the http.* keywords look at.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	m := t.side(toServer)
	switch b {
	case rule.BufHTTPRequestHeader, rule.BufHTTPResponseHeader:
		if toServer != (b == rule.BufHTTPRequestHeader) {
			return rule.Value{State: rule.Absent}
		}
		return m.nthHeader(n)
	default:
	}
	if inspect.IsFileBuffer(b) {
		if b == rule.BufFileData && !toServer && n == 0 && len(t.files) == 0 {
			return m.bodyValue()
		}
		return inspect.FileBuffer(t.files, m.done, b, toServer, n)
	}
	if n > 0 {
		return rule.Value{State: rule.Absent}
	}
	switch b {
	case rule.BufHTTPHeader:
		return when(m.headersDone, m.header)
	case rule.BufHTTPHeaderRaw:
		return when(m.headersDone, m.rawHeader())
	case rule.BufHTTPHeaderNames:
		return when(m.headersDone, m.names)
	case rule.BufHTTPStart:
		return when(m.headersDone, m.raw)
	case rule.BufHTTPCookie:
		return when(m.headersDone, m.at(m.cookie))
	case rule.BufHTTPConnection:
		return when(m.headersDone, m.find("connection"))
	case rule.BufHTTPContentLen:
		return when(m.headersDone, m.find("content-length"))
	case rule.BufHTTPContentType:
		return when(m.headersDone, m.find("content-type"))
	default:
	}
	if toServer {
		return t.requestBuffer(b)
	}
	return t.responseBuffer(b)
}

func (t *Tx) requestBuffer(b rule.Buffer) rule.Value {
	m := &t.req
	switch b {
	case rule.BufHTTPURI:
		return when(m.lineDone, m.at(t.uri))
	case rule.BufHTTPURIRaw:
		return when(m.lineDone, m.at(t.rawURI))
	case rule.BufHTTPMethod:
		return when(m.lineDone, m.at(t.method))
	case rule.BufHTTPProtocol:
		return when(m.lineDone, m.at(t.protocol))
	case rule.BufHTTPRequestLine:
		return when(m.lineDone, m.at(m.line))
	case rule.BufHTTPUserAgent:
		return when(m.headersDone, m.find("user-agent"))
	case rule.BufHTTPHost:
		return when(m.headersDone, m.at(t.hostText))
	case rule.BufHTTPHostRaw:
		return when(m.headersDone, m.find("host"))
	case rule.BufHTTPAccept:
		return when(m.headersDone, m.find("accept"))
	case rule.BufHTTPAcceptEnc:
		return when(m.headersDone, m.find("accept-encoding"))
	case rule.BufHTTPAcceptLang:
		return when(m.headersDone, m.find("accept-language"))
	case rule.BufHTTPReferer:
		return when(m.headersDone, m.find("referer"))
	case rule.BufHTTPRequestBody:
		return m.bodyValue()
	default:
	}
	return rule.Value{State: rule.Absent}
}

func (t *Tx) responseBuffer(b rule.Buffer) rule.Value {
	m := &t.res
	switch b {
	case rule.BufHTTPProtocol:
		return when(m.lineDone, m.at(t.resProtocol))
	case rule.BufHTTPResponseLine:
		return when(m.lineDone, m.at(m.line))
	case rule.BufHTTPStatCode:
		return when(m.lineDone, m.at(t.statCode))
	case rule.BufHTTPStatMsg:
		return when(m.lineDone, m.at(t.statMsg))
	case rule.BufHTTPLocation:
		return when(m.headersDone, m.find("location"))
	case rule.BufHTTPServer:
		return when(m.headersDone, m.find("server"))
	case rule.BufHTTPResponseBody:
		return m.bodyValue()
	default:
	}
	return rule.Value{State: rule.Absent}
}

// rawHeader is the header block as sent, with the empty line.
func (m *message) rawHeader() []byte {
	if i := bytes.IndexByte(m.raw, '\n'); i >= 0 {
		return m.raw[i+1:]
	}
	return nil
}

func (m *message) nthHeader(n int) rule.Value {
	if !m.headersDone {
		return rule.Value{State: rule.NotYet}
	}
	if len(m.lines) == 0 {
		for i := range m.fields {
			f := &m.fields[i]
			if f.hidden {
				continue
			}
			from := len(m.mem)
			m.mem = append(m.mem, m.at(f.name)...)
			m.mem = append(m.mem, ": "...)
			m.mem = append(m.mem, m.at(f.value)...)
			m.lines = append(m.lines, span{from, len(m.mem)})
		}
	}
	if n >= len(m.lines) {
		return rule.Value{State: rule.Absent}
	}
	return rule.Value{Data: m.at(m.lines[n]), State: rule.Done}
}

// Number gives the sizes of files.
func (t *Tx) Number(k rule.Number, toServer bool, n int) (uint64, rule.State) {
	if k == rule.NumFileSize {
		return inspect.FileNumber(t.files, t.side(toServer).done, toServer, n)
	}
	return 0, rule.Absent
}

// Files are those the transaction carries.
func (t *Tx) Files() []*inspect.File { return t.files }
