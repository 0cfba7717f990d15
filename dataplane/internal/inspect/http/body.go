package http

import (
	"bytes"
	"io"

	"github.com/andybalholm/brotli"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/inflate"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// maxDecoded bounds what one body may decompress to, maxLayers how often it may be compressed.
const (
	maxDecoded = 16 << 20
	maxLayers  = 3
	// maxBrotli bounds the compressed bytes kept for brotli, which is decompressed at the body's end.
	maxBrotli = 256 << 10
)

var (
	eventBomb        = rule.EventID("http.compression_bomb")
	eventBadEncoding = rule.EventID("http.invalid_encoding")
)

// layer is one content coding.
type layer struct {
	kind   byte // 'g', 'd', 'b'
	inf    *inflate.Reader
	kept   []byte // brotli
	raw    bool   // it was not compressed after all
	broken bool
	seen   int
}

// coding is a body's content codings, outermost last as in the header.
type coding struct {
	layers []layer
	spare  []*inflate.Reader
}

func (c *coding) reset() {
	for i := range c.layers {
		if c.layers[i].inf != nil && len(c.spare) < 2 {
			c.spare = append(c.spare, c.layers[i].inf)
		}
	}
	c.layers = c.layers[:0]
}

// set reads Content-Encoding.
func (c *coding) set(v []byte) {
	for _, w := range bytes.Split(v, []byte(",")) {
		w = bytes.ToLower(inspect.TrimSpace(w))
		var l layer
		switch {
		case bytes.Contains(w, []byte("gzip")):
			l.kind = 'g'
		case bytes.Contains(w, []byte("deflate")):
			l.kind = 'd'
		case string(w) == "br":
			l.kind = 'b'
		default:
			continue
		}
		if len(c.layers) >= maxLayers {
			return
		}
		c.layers = append(c.layers, l)
	}
}

// decode passes bytes through the codings, outermost first, and gives what comes out; end says that nothing follows.
func (t *Tx) decode(c *coding, b []byte, end bool) []byte {
	for i := len(c.layers) - 1; i >= 0; i-- {
		l := &c.layers[i]
		switch {
		case l.raw:
		case l.broken:
			return nil
		case l.kind == 'b':
			l.kept = append(l.kept, b[:min(len(b), maxBrotli-len(l.kept))]...)
			b = nil
			if end && len(l.kept) > 0 {
				out, err := io.ReadAll(io.LimitReader(brotli.NewReader(bytes.NewReader(l.kept)), maxBody))
				if err != nil && len(out) == 0 {
					t.raise(eventBadEncoding)
				}
				b = out
				l.kept = l.kept[:0]
			}
		default:
			if l.inf == nil {
				if n := len(c.spare); n > 0 {
					l.inf = c.spare[n-1]
					c.spare = c.spare[:n-1]
				} else {
					l.inf = new(inflate.Reader)
				}
				f := inflate.Gzip
				if l.kind == 'd' {
					f = inflate.Deflate
				}
				l.inf.Reset(f, maxDecoded)
			}
			if len(b) == 0 {
				continue
			}
			first := l.seen == 0
			l.seen += len(b)
			out, err := l.inf.Write(b)
			if err != nil {
				t.raise(eventBadEncoding)
				if first && len(out) == 0 { // said to be compressed and is not: browsers show it, so must we
					if l.kind == 'g' && b[0] != 0x1f || l.kind == 'd' {
						if retry := t.otherFormat(l, b); retry != nil {
							b = retry
							continue
						}
						l.raw = true
						continue
					}
				}
				l.broken = true
			}
			if l.inf.Bomb {
				t.raise(eventBomb)
			}
			b = out
		}
	}
	return b
}

// otherFormat tries gzip for deflate and the other way round: servers mix them up and browsers take both.
func (t *Tx) otherFormat(l *layer, b []byte) []byte {
	f := inflate.Gzip
	if l.kind == 'g' {
		f = inflate.Deflate
	}
	l.inf.Reset(f, maxDecoded)
	out, err := l.inf.Write(b)
	if err != nil || len(out) == 0 {
		return nil
	}
	return out
}

// body takes the next bytes of a body.
func (t *Tx) body(mem inspect.Memory, toServer bool, b []byte) {
	m := t.side(toServer)
	t.mem = mem
	m.bodyLen += uint64(len(b))
	t.decoded(m, toServer, t.decode(&m.coding, b, false))
}

func (t *Tx) decoded(m *message, toServer bool, b []byte) {
	if len(b) == 0 {
		return
	}
	m.bodyBuf = inspect.Grow(t.mem, m.bodyBuf, b, maxBody)
	if toServer && m.multipart.active {
		t.parts(m, b)
		return
	}
	if m.file == nil && m.bodyStart(t, toServer) {
		m.file = t.openFile(t.fileName(toServer), toServer)
	}
	if m.file != nil {
		m.file.Append(t.mem, b)
	}
}

// bodyStart says whether the body is a file: a response's, or what PUT and POST send.
func (m *message) bodyStart(t *Tx, toServer bool) bool {
	if m.done {
		return false
	}
	if !toServer {
		return true
	}
	meth := t.Method()
	return string(meth) == "PUT" || string(meth) == "POST"
}

// maxFiles bounds the files of one transaction.
const maxFiles = 64

func (t *Tx) openFile(name []byte, toServer bool) *inspect.File {
	if len(t.files) >= maxFiles {
		return nil
	}
	var f *inspect.File
	if n := len(t.spare); n > 0 {
		f = t.spare[n-1]
		t.spare = t.spare[:n-1]
	} else {
		f = new(inspect.File)
	}
	f.Open(name, t.ID, toServer, t)
	t.files = append(t.files, f)
	return f
}

// fileName is that of Content-Disposition, else the request's path.
func (t *Tx) fileName(toServer bool) []byte {
	if n := parameter(t.side(toServer).find("content-disposition"), "filename"); len(n) > 0 {
		return n
	}
	u := t.req.at(t.uri)
	if i := bytes.IndexByte(u, '?'); i >= 0 {
		u = u[:i]
	}
	return u
}

// parameter gives a parameter of a header value, without its quotes.
func parameter(v []byte, lower string) []byte {
	for len(v) > 0 {
		i := bytes.IndexByte(v, ';')
		if i < 0 {
			return nil
		}
		v = bytes.TrimLeft(v[i+1:], " \t")
		if len(v) > len(lower) && inspect.EqualFold(v[:len(lower)], lower) {
			r := bytes.TrimLeft(v[len(lower):], " \t")
			if len(r) == 0 || r[0] != '=' {
				continue
			}
			r = bytes.TrimLeft(r[1:], " \t")
			if len(r) > 0 && (r[0] == '"' || r[0] == '\'') {
				q := r[0]
				r = r[1:]
				if j := bytes.IndexByte(r, q); j >= 0 {
					return r[:j]
				}
				return r
			}
			if j := bytes.IndexByte(r, ';'); j >= 0 {
				r = r[:j]
			}
			return bytes.TrimRight(r, " \t")
		}
	}
	return nil
}

// gap marks that bytes of the body are missing.
func (t *Tx) gap(toServer bool) {
	m := t.side(toServer)
	if m.file != nil {
		m.file.Gaps = true
	}
	for i := range m.coding.layers {
		m.coding.layers[i].broken = true
	}
}

// cutOff closes an open file as truncated when its body should have gone on.
func (t *Tx) cutOff(truncated, toServer bool) {
	m := t.side(toServer)
	if truncated && m.file != nil {
		t.flush(m, toServer)
		m.file.Close(inspect.FileTruncated)
	}
}

// flush takes out what a coding gives only at the end.
func (t *Tx) flush(m *message, toServer bool) {
	if len(m.coding.layers) > 0 && !m.done && t.mem != nil {
		t.decoded(m, toServer, t.decode(&m.coding, nil, true))
	}
}

// bodyEnd closes what is open.
func (t *Tx) bodyEnd(toServer bool) {
	m := t.side(toServer)
	if m.done {
		return
	}
	t.flush(m, toServer)
	if m.file != nil {
		m.file.Close(inspect.FileClosed)
		m.file = nil
	}
	if p := &m.multipart; p.file != nil {
		p.file.Append(t.mem, p.buf)
		p.file.Close(inspect.FileTruncated)
		p.file = nil
	}
	m.coding.reset()
}

func (t *Tx) release(mem inspect.Memory) {
	for _, m := range [2]*message{&t.req, &t.res} {
		if m.bodyBuf != nil {
			mem.Put(m.bodyBuf)
			m.bodyBuf = nil
		}
		m.file = nil
	}
	for _, f := range t.files {
		f.Release(mem)
		if len(t.spare) < 4 {
			t.spare = append(t.spare, f)
		}
	}
	clear(t.files)
	t.files = t.files[:0]
}

// multipart reads multipart/form-data (RFC 7578) as it comes.
type multipart struct {
	active   bool
	boundary []byte // with the two dashes
	buf      []byte
	inPart   bool
	file     *inspect.File
}

// maxPartHead bounds a part's headers.
const maxPartHead = 8 << 10

func (t *Tx) startMultipart(m *message) {
	v := m.find("content-type")
	if !containsFold(v, "multipart/form-data") {
		return
	}
	b := parameter(v, "boundary")
	if len(b) == 0 || len(b) > 200 {
		return
	}
	m.multipart.active = true
	m.multipart.boundary = append(append(m.multipart.boundary[:0], "--"...), b...)
}

func (t *Tx) parts(m *message, b []byte) {
	p := &m.multipart
	p.buf = append(p.buf, b...)
	for {
		if !p.inPart {
			i := bytes.Index(p.buf, p.boundary)
			if i < 0 {
				if n := len(p.buf) - len(p.boundary); n > 0 {
					p.buf = p.buf[:copy(p.buf, p.buf[n:])]
				}
				return
			}
			rest := p.buf[i+len(p.boundary):]
			end := bytes.Index(rest, []byte("\r\n\r\n"))
			if end < 0 {
				if bytes.HasPrefix(rest, []byte("--")) || len(rest) > maxPartHead {
					p.buf = p.buf[:0]
				}
				return
			}
			t.partHead(p, rest[:end+2])
			p.buf = p.buf[:copy(p.buf, rest[end+4:])]
			p.inPart = true
			continue
		}
		i := bytes.Index(p.buf, p.boundary)
		if i < 0 {
			n := len(p.buf) - len(p.boundary) - 2
			if n > 0 {
				if p.file != nil {
					p.file.Append(t.mem, p.buf[:n])
				}
				p.buf = p.buf[:copy(p.buf, p.buf[n:])]
			}
			return
		}
		if p.file != nil {
			p.file.Append(t.mem, bytes.TrimSuffix(p.buf[:i], []byte("\r\n")))
			p.file.Close(inspect.FileClosed)
			p.file = nil
		}
		p.buf = p.buf[:copy(p.buf, p.buf[i:])]
		p.inPart = false
	}
}

// partHead opens a file when the part names one.
func (t *Tx) partHead(p *multipart, head []byte) {
	p.file = nil
	for _, line := range bytes.Split(head, []byte("\r\n")) {
		i := bytes.IndexByte(line, ':')
		if i < 0 || !inspect.EqualFold(inspect.TrimSpace(line[:i]), "content-disposition") {
			continue
		}
		if name := parameter(line[i+1:], "filename"); name != nil {
			p.file = t.openFile(name, true)
		}
	}
}
