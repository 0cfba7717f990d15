// Package smb parses SMB 1, 2 and 3 (MS-SMB, MS-SMB2) over TCP: negotiation, who logs on, shares, files and named pipes with the
// DCE/RPC inside. The engine calls it; a transaction is a request with its response. The trap: an encrypted session shows
// nothing but that it is one, and a large write is announced by a length that never needs to come.
package smb

import (
	"encoding/binary"
	"unicode/utf16"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/dcerpc"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Limits.
const (
	maxRecord  = 17 << 20 // NBSS length is 24 bits; larger than any negotiated size is nonsense
	bigRecord  = 64 << 10 // records over this are streamed when they carry file data
	maxHandles = 1024
)

var le = binary.LittleEndian

// handle is an open file or pipe.
type handle struct {
	name []byte
	pipe bool
	file [2]*inspect.File // written, read
	conn *dcerpc.Conn
	tree uint32
	// now is the transaction that a PDU being fed belongs to.
	rest [2][]byte
}

type tree struct {
	name []byte
	pipe bool
}

// readKey remembers what a READ asks for until its answer.
type pending struct {
	fid [16]byte
	tx  *Tx
	cmd uint16
}

type side struct {
	stream *inspect.File // a record's rest goes here
	left   int
}

// Parser parses one flow.
type Parser struct {
	inspect.Queue[Tx, *Tx]
	mem      inspect.Memory
	now      int64
	dialect  string
	v1       bool
	trees    map[uint32]*tree
	handles  map[[16]byte]*handle
	wait     map[uint64]*pending
	sides    [2]side
	opaque   bool
	user     []byte
	domain   []byte
	dialects []string
	lastTx   *Tx
}

// New makes a parser.
func New(mem inspect.Memory) *Parser {
	return &Parser{mem: mem, trees: map[uint32]*tree{}, handles: map[[16]byte]*handle{}, wait: map[uint64]*pending{}}
}

// App is SMB.
func (p *Parser) App() rule.App { return rule.AppSMB }

// Probe says whether bytes begin an SMB record, perhaps after a NetBIOS session request.
func Probe(b []byte) inspect.Certainty {
	for len(b) >= 4 && (b[0] == 0x81 || b[0] == 0x82 || b[0] == 0x85) { // session request, response, keep-alive
		n := 4 + int(b[2])<<8 + int(b[3])
		if n > 512 {
			return inspect.No
		}
		if len(b) < n {
			return inspect.Unsure
		}
		b = b[n:]
	}
	if len(b) > 0 && b[0] != 0 {
		return inspect.No
	}
	if len(b) < 8 {
		return inspect.Unsure
	}
	switch string(b[4:8]) {
	case "\xffSMB", "\xfeSMB", "\xfdSMB", "\xfcSMB":
		return inspect.Yes
	}
	return inspect.No
}

// Opaque says that the session is encrypted.
func (p *Parser) Opaque() bool { return p.opaque }

// Finish completes what is open.
func (p *Parser) Finish() {
	for _, h := range p.handles {
		h.close(p.mem, inspect.FileTruncated)
	}
	for i := range p.Len() {
		p.At(i).over()
	}
}

func (h *handle) close(mem inspect.Memory, st inspect.FileState) {
	for i, f := range h.file {
		if f != nil {
			f.Close(st)
			if f.Owner == nil {
				f.Release(mem)
			}
			h.file[i] = nil
		}
	}
}

// Reset forgets the flow.
func (p *Parser) Reset() {
	for _, h := range p.handles {
		h.close(p.mem, inspect.FileTruncated)
	}
	p.Drop(p.Len())
	p.Empty()
	clear(p.trees)
	clear(p.handles)
	clear(p.wait)
	p.dialect, p.v1, p.opaque = "", false, false
	p.sides = [2]side{}
	p.user, p.domain, p.dialects, p.lastTx = nil, nil, nil, nil
}

// Drop forgets the first n transactions.
func (p *Parser) Drop(n int) {
	for i := range n {
		t := p.At(i)
		for _, f := range t.files {
			if f.State != inspect.FileOpen {
				f.Release(p.mem)
			}
			f.Owner = nil // a file still open gives its memory back when its handle is closed
		}
		t.files = nil
		for k, w := range p.wait {
			if w.tx == t {
				delete(p.wait, k)
			}
		}
		if p.lastTx == t {
			p.lastTx = nil
		}
	}
	p.Queue.Drop(n)
}

// Gap is survived inside of a streamed record only.
func (p *Parser) Gap(_ *inspect.Meta, toServer bool, n uint64) inspect.Status {
	s := &p.sides[dir(toServer)]
	if s.stream != nil && n <= uint64(s.left) {
		s.stream.Gaps = true
		s.left -= int(n)
		return inspect.More
	}
	p.Finish()
	return inspect.Failed
}

func dir(toServer bool) int {
	if toServer {
		return 0
	}
	return 1
}

// Data parses records.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	p.now = m.Time
	s := &p.sides[dir(toServer)]
	used := 0
	for len(b) > used {
		r := b[used:]
		if s.left > 0 {
			n := min(s.left, len(r))
			if s.stream != nil {
				s.stream.Append(p.mem, r[:n])
			}
			s.left -= n
			used += n
			continue
		}
		if len(r) < 4 {
			break
		}
		n := int(r[1]&1)<<16 | int(r[2])<<8 | int(r[3])
		if len(r) >= 8 && r[0] == 0 && (string(r[5:8]) == "SMB") {
			n = int(r[1])<<16 | int(r[2])<<8 | int(r[3])
		}
		if n > maxRecord {
			p.Finish()
			return len(b), inspect.Failed
		}
		if r[0] != 0 { // NetBIOS session service
			if r[0] < 0x81 || r[0] > 0x85 {
				p.Finish()
				return len(b), inspect.Failed
			}
			if len(r) < 4+n {
				break
			}
			used += 4 + n
			continue
		}
		if len(r) < 4+n {
			if k := p.streamed(toServer, r[4:], n); k > 0 {
				used += 4 + k
				continue
			}
			break
		}
		p.record(toServer, r[4:4+n])
		used += 4 + n
	}
	return used, inspect.More
}

// streamed begins a large WRITE request or READ response before all of it is there: it gives how many bytes of the record it
// used. Only SMB 2 records that hold one command are taken.
func (p *Parser) streamed(toServer bool, b []byte, n int) int {
	if n < bigRecord || len(b) < 64+48 || string(b[:4]) != "\xfeSMB" || le.Uint32(b[20:]) != 0 {
		return 0
	}
	cmd := le.Uint16(b[12:])
	if toServer && cmd == cmdWrite || !toServer && cmd == cmdRead {
		return p.smb2(toServer, b, n)
	}
	return 0
}

func (p *Parser) record(toServer bool, b []byte) {
	if len(b) < 4 {
		return
	}
	switch string(b[:4]) {
	case "\xfeSMB":
		for len(b) >= 64 {
			next := int(le.Uint32(b[20:]))
			one := b
			if next >= 64 && next < len(b) {
				one = b[:next]
			}
			p.smb2(toServer, one, len(one))
			if next < 64 || next >= len(b) {
				return
			}
			b = b[next:]
		}
	case "\xffSMB":
		p.v1 = true
		p.smb1(toServer, b)
	case "\xfdSMB", "\xfcSMB":
		p.opaque = true
	}
}

// text decodes UTF-16 and gives UTF-8; what follows a NUL is cut.
func text(b []byte) []byte {
	u := make([]uint16, 0, len(b)/2)
	for i := 0; i+1 < len(b); i += 2 {
		c := le.Uint16(b[i:])
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return []byte(string(utf16.Decode(u)))
}

// add makes a transaction.
func (p *Parser) add(cmd uint16, v1 bool) *Tx {
	t, id := p.Add()
	t.Clear(rule.AppSMB, "smb", id, p.now)
	t.call.ResetCall()
	t.hasCall, t.cmd, t.v1, t.parser = false, cmd, v1, p
	t.name, t.files, t.share, t.pipe = nil, nil, nil, nil
	t.ssn, t.tree, t.dialect, t.status, t.hasStatus = 0, 0, p.dialect, 0, false
	p.lastTx = t
	return t
}

func (p *Parser) open(fid [16]byte, h *handle) {
	if len(p.handles) < maxHandles {
		p.handles[fid] = h
	}
}

// data passes bytes written to or read from a handle on: to a pipe's DCE/RPC or to a file.
func (p *Parser) data(toServer bool, h *handle, tx *Tx, off uint64, b []byte) *inspect.File {
	if h.pipe {
		if h.conn == nil {
			h.conn = &dcerpc.Conn{}
		}
		d := dir(toServer)
		h.rest[d] = append(h.rest[d], b...)
		host := &callHost{p: p, tx: tx}
		used, ok := h.conn.Feed(host, toServer, h.rest[d])
		h.rest[d] = h.rest[d][:copy(h.rest[d], h.rest[d][used:])]
		if !ok || len(h.rest[d]) > 128<<10 {
			h.rest[d] = h.rest[d][:0]
		}
		return nil
	}
	d := dir(toServer)
	f := h.file[d]
	if f == nil {
		if off != 0 {
			return nil // not from its start: no hash and no type would be right
		}
		f = new(inspect.File)
		f.Open(h.name, tx.ID, toServer, tx)
		h.file[d] = f
		tx.files = append(tx.files, f)
	} else if off < f.Size {
		return nil // written again
	} else if off > f.Size {
		f.Gaps = true
	}
	f.Append(p.mem, b)
	return f
}

// callHost finds the transaction of a call on a pipe.
type callHost struct {
	p  *Parser
	tx *Tx
}

// Call implements dcerpc.Host.
func (h *callHost) Call(id uint32, fresh bool) *dcerpc.Call {
	p := h.p
	for i := p.Len() - 1; i >= 0; i-- {
		if t := p.At(i); t.hasCall && t.call.CallID == id && !t.Ready && !t.call.Over(1) {
			return &t.call
		}
	}
	if !fresh {
		return nil
	}
	t := h.tx
	if t == nil || t.hasCall {
		t = p.add(0, p.v1)
	}
	t.hasCall = true
	t.call.CallID = id
	return &t.call
}
