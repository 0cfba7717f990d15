// Package dcerpc parses DCE/RPC (C706, MS-RPCE) over TCP and UDP, and for package smb over named pipes: which interfaces are
// bound, which operation is called, and the stub data. The engine and package smb call it. The trap: one call may be spread
// over fragments, and one connection may multiplex calls.
package dcerpc

import (
	"encoding/binary"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// PDU types (C706 12.6.4).
const (
	typeRequest    = 0
	typeResponse   = 2
	typeFault      = 3
	typeBind       = 11
	typeBindAck    = 12
	typeBindNak    = 13
	typeAlter      = 14
	typeAlterResp  = 15
	typeAuth3      = 16
	typeShutdown   = 17
	typeCancel     = 18
	typeOrphaned   = 19
	headerLen      = 16
	firstFrag      = 1
	lastFrag       = 2
	maxStub        = 64 << 10
	maxInterfaces  = 64
	maxPDU         = 65535
	objectUUIDFlag = 0x80
)

var typeNames = map[byte]string{
	typeRequest: "REQUEST", typeResponse: "RESPONSE", typeFault: "FAULT", typeBind: "BIND", typeBindAck: "BINDACK",
	typeBindNak: "BINDNAK", typeAlter: "ALTER_CONTEXT", typeAlterResp: "ALTER_CONTEXT_RESP", typeAuth3: "AUTH3",
	typeShutdown: "SHUTDOWN", typeCancel: "CO_CANCEL", typeOrphaned: "ORPHANED",
}

// Iface is a bound interface.
type Iface struct {
	rule.DCEInterface
	result   uint16
	answered bool
}

// Call is what one call adds to a transaction: package smb embeds it in its own.
type Call struct {
	CallID      uint32
	Opnum       uint16
	Context     uint16
	Request     byte
	Response    byte
	HasRequest  bool
	HasResponse bool
	Frags       [2]int
	StubSize    [2]int
	stub        [2][]byte
	little      bool
	ifaces      []rule.DCEInterface
	eve         []Iface
	first       bool
	done        [2]bool
	version     [2]byte
	activity    [16]byte
	seq         uint32
	udp         bool
}

// ResetCall makes it new.
func (c *Call) ResetCall() {
	*c = Call{stub: [2][]byte{c.stub[0][:0], c.stub[1][:0]}, ifaces: c.ifaces[:0], eve: c.eve[:0]}
}

// Conn is the state of one association.
type Conn struct {
	ifaces []Iface
	bound  int // of the last bind, from this index
	pdu    [2][]byte
	// Bytes of a PDU still to be passed over after what is kept.
	skip [2]int
}

// ResetConn forgets the association.
func (c *Conn) ResetConn() {
	c.ifaces = c.ifaces[:0]
	c.bound = 0
	c.pdu = [2][]byte{c.pdu[0][:0], c.pdu[1][:0]}
	c.skip = [2]int{}
}

// Header is the common header of a PDU.
type header struct {
	major, minor, typ, flags byte
	little                   bool
	frag, auth               int
	call                     uint32
}

func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerLen {
		return h, false
	}
	h.major, h.minor, h.typ, h.flags = b[0], b[1], b[2], b[3]
	h.little = b[4]&0x10 != 0
	o := h.order()
	h.frag, h.auth = int(o.Uint16(b[8:])), int(o.Uint16(b[10:]))
	h.call = o.Uint32(b[12:])
	return h, h.major == 5 && h.minor <= 1 && h.frag >= headerLen && b[4]&0xee == 0
}

func (h *header) order() binary.ByteOrder {
	if h.little {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// Host gives the transaction that a PDU belongs to: one that waits with that call id, or a new one.
type Host interface {
	// Call finds the open call with an id, or makes one when fresh; nil when there is none and fresh is false.
	Call(id uint32, fresh bool) *Call
}

// Feed takes bytes of one direction of the association and gives how many it used; ok is false when they are no DCE/RPC.
func (c *Conn) Feed(h Host, toServer bool, b []byte) (used int, ok bool) {
	for len(b)-used >= headerLen {
		hd, ok := parseHeader(b[used:])
		if !ok {
			return used, false
		}
		if len(b)-used < hd.frag {
			break
		}
		c.one(h, toServer, &hd, b[used:used+hd.frag])
		used += hd.frag
	}
	return used, true
}

func (c *Conn) one(h Host, toServer bool, hd *header, b []byte) {
	o := hd.order()
	body := b[headerLen:]
	switch hd.typ {
	case typeBind, typeAlter:
		call := h.Call(hd.call, true)
		if call == nil {
			return
		}
		call.begin(hd, true)
		c.bind(call, hd, body)
		call.done[0] = true
	case typeBindAck, typeAlterResp, typeBindNak:
		call := h.Call(hd.call, false)
		if call == nil {
			if call = h.Call(hd.call, true); call == nil {
				return
			}
			call.begin(hd, false)
			call.done[0] = true
		}
		call.Response, call.HasResponse = hd.typ, true
		if hd.typ != typeBindNak {
			c.ack(call, hd, body)
		}
		call.done[0], call.done[1] = true, true
	case typeRequest:
		if len(body) < 8 {
			return
		}
		call := h.Call(hd.call, hd.flags&firstFrag != 0)
		if call == nil {
			if call = h.Call(hd.call, true); call == nil {
				return
			}
		}
		if !call.HasRequest {
			call.begin(hd, true)
			call.Context, call.Opnum = o.Uint16(body[4:]), o.Uint16(body[6:])
			call.pick(c)
			call.first = hd.flags&firstFrag != 0
		}
		stub := body[8:]
		if hd.flags&objectUUIDFlag != 0 && len(stub) >= 16 {
			stub = stub[16:]
		}
		call.add(0, stub, hd)
		if hd.flags&lastFrag != 0 {
			call.done[0] = true
		}
	case typeResponse, typeFault:
		call := h.Call(hd.call, false)
		if call == nil {
			if call = h.Call(hd.call, true); call == nil {
				return
			}
			call.begin(hd, false)
			call.done[0] = true
		}
		call.Response, call.HasResponse = hd.typ, true
		if len(body) >= 8 {
			call.add(1, body[8:], hd)
		}
		if hd.flags&lastFrag != 0 || hd.typ == typeFault {
			call.done[0], call.done[1] = true, true
		}
	case typeAuth3:
		// the third leg of authentication belongs to the bind, which is over
	}
	_ = toServer
}

func (c *Call) begin(hd *header, request bool) {
	c.CallID = hd.call
	c.little = hd.little
	c.version = [2]byte{hd.major, hd.minor}
	if request {
		c.Request, c.HasRequest = hd.typ, true
	}
}

func (c *Call) add(d int, stub []byte, hd *header) {
	if hd.auth > 0 && len(stub) >= hd.auth+8 {
		pad := 0
		trailer := stub[len(stub)-hd.auth-8:]
		pad = int(trailer[2])
		if n := len(stub) - hd.auth - 8 - pad; n >= 0 {
			stub = stub[:n]
		}
	}
	c.Frags[d]++
	c.StubSize[d] += len(stub)
	if n := min(len(stub), maxStub-len(c.stub[d])); n > 0 {
		c.stub[d] = append(c.stub[d], stub[:n]...)
	}
}

// pick finds the interfaces a request may go to: those bound under its context.
func (c *Call) pick(conn *Conn) {
	for i := range conn.ifaces {
		f := &conn.ifaces[i]
		if f.ContextID == c.Context && len(c.eve) < 4 {
			c.ifaces = append(c.ifaces, f.DCEInterface)
			c.eve = append(c.eve, *f)
		}
	}
}

func (c *Conn) bind(call *Call, hd *header, b []byte) {
	if len(b) < 12 {
		return
	}
	n := int(b[8])
	b = b[12:]
	if hd.typ == typeBind {
		c.ifaces = c.ifaces[:0]
	}
	c.bound = len(c.ifaces)
	o := hd.order()
	for range n {
		if len(b) < 24 || len(c.ifaces) >= maxInterfaces {
			return
		}
		f := Iface{}
		f.ContextID = o.Uint16(b)
		transfers := int(b[2])
		f.UUID = uuid(b[4:20], hd.little)
		f.Major, f.Minor = o.Uint16(b[20:]), o.Uint16(b[22:])
		c.ifaces = append(c.ifaces, f)
		call.ifaces = append(call.ifaces, f.DCEInterface)
		call.eve = append(call.eve, f)
		skip := 24 + 20*transfers
		if len(b) < skip {
			return
		}
		b = b[skip:]
	}
}

// uuid puts the fields of a UUID in the order of its text.
func uuid(b []byte, little bool) (u [16]byte) {
	copy(u[:], b)
	if little {
		u[0], u[1], u[2], u[3] = b[3], b[2], b[1], b[0]
		u[4], u[5], u[6], u[7] = b[5], b[4], b[7], b[6]
	}
	return u
}

func (c *Conn) ack(call *Call, hd *header, b []byte) {
	if len(b) < 10 {
		return
	}
	o := hd.order()
	n := int(o.Uint16(b[8:]))
	off := 10 + n
	off = (off + headerLen + 3) &^ 3 // aligned from the PDU's start
	off -= headerLen
	if off+4 > len(b) {
		return
	}
	results := int(b[off])
	b = b[off+4:]
	for i := 0; i < results && len(b) >= 24; i++ {
		if k := c.bound + i; k < len(c.ifaces) {
			f := &c.ifaces[k]
			f.result, f.answered = o.Uint16(b), true
			f.Accepted = f.result == 0
			if i < len(call.eve) {
				call.eve[i].result, call.eve[i].answered, call.eve[i].Accepted = f.result, true, f.Accepted
			}
		}
		b = b[24:]
	}
}

// Stub gives the stub data of a direction.
func (c *Call) Stub(toServer bool) rule.Value {
	d := 1
	if toServer {
		d = 0
	}
	switch {
	case c.done[d] && len(c.stub[d]) > 0:
		return rule.Value{Data: c.stub[d], State: rule.Done}
	case c.done[d]:
		return rule.Value{State: rule.Absent}
	case len(c.stub[d]) > 0:
		return rule.Value{Data: c.stub[d], State: rule.Partial}
	}
	return rule.Value{State: rule.NotYet}
}

// Op gives the operation number.
func (c *Call) Op() (uint64, rule.State) {
	if c.HasRequest && c.Request != typeRequest {
		return 0, rule.Absent
	}
	if c.HasRequest {
		return uint64(c.Opnum), rule.Done
	}
	if c.done[0] {
		return 0, rule.Absent
	}
	return 0, rule.NotYet
}

// Interfaces implements rule.DCETransaction.
func (c *Call) Interfaces() ([]rule.DCEInterface, bool) {
	if c.Request != typeRequest {
		return nil, false
	}
	return c.ifaces, c.first
}

// Little says whether the stub data is little endian.
func (c *Call) Little() bool { return c.little }

// Over says whether a direction is complete.
func (c *Call) Over(d int) bool { return c.done[d] }

// End completes it.
func (c *Call) End() { c.done = [2]bool{true, true} }

// AppendObject writes the members of EVE's dcerpc object; smb leaves version out and flattens the operation.
func (c *Call) AppendObject(b []byte, smb bool) []byte {
	if c.HasRequest {
		b = inspect.AppendField(b, "request", []byte(typeNames[c.Request]))
		if c.Request == typeRequest {
			if smb {
				b = strconv.AppendUint(inspect.AppendKey(b, "opnum"), uint64(c.Opnum), 10)
			}
			b = append(inspect.AppendKey(b, "req"), '{')
			if !smb {
				b = strconv.AppendUint(inspect.AppendKey(b, "opnum"), uint64(c.Opnum), 10)
			}
			b = strconv.AppendInt(inspect.AppendKey(b, "frag_cnt"), int64(c.Frags[0]), 10)
			b = strconv.AppendInt(inspect.AppendKey(b, "stub_data_size"), int64(c.StubSize[0]), 10)
			b = append(b, '}')
		}
	} else {
		b = inspect.AppendField(b, "request", []byte("REQUEST_LOST"))
	}
	if c.HasResponse {
		b = inspect.AppendField(b, "response", []byte(typeNames[c.Response]))
		if c.Response == typeResponse {
			b = append(inspect.AppendKey(b, "res"), '{')
			b = strconv.AppendInt(inspect.AppendKey(b, "frag_cnt"), int64(c.Frags[1]), 10)
			b = strconv.AppendInt(inspect.AppendKey(b, "stub_data_size"), int64(c.StubSize[1]), 10)
			b = append(b, '}')
		}
	} else {
		b = inspect.AppendField(b, "response", []byte("UNREPLIED"))
	}
	if len(c.eve) > 0 {
		b = append(inspect.AppendKey(b, "interfaces"), '[')
		for i := range c.eve {
			f := &c.eve[i]
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"uuid":"`...)
			b = appendUUID(b, f.UUID)
			b = append(b, `","version":"`...)
			b = strconv.AppendUint(b, uint64(f.Major), 10)
			b = append(b, '.')
			b = strconv.AppendUint(b, uint64(f.Minor), 10)
			b = append(b, '"')
			if f.answered && c.Request != typeRequest {
				b = strconv.AppendUint(inspect.AppendKey(b, "ack_result"), uint64(f.result), 10)
			}
			if s, ok := services[f.UUID]; ok {
				b = inspect.AppendField(b, "service", []byte(s.name))
				if c.Request == typeRequest && int(c.Opnum) < len(s.procedures) {
					b = inspect.AppendField(b, "procedure", []byte(s.procedures[c.Opnum]))
				}
			}
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	if c.udp {
		b = inspect.AppendField(b, "activityuuid", appendUUID(nil, c.activity))
		b = strconv.AppendUint(inspect.AppendKey(b, "seqnum"), uint64(c.seq), 10)
	} else {
		b = strconv.AppendUint(inspect.AppendKey(b, "call_id"), uint64(c.CallID), 10)
	}
	if !smb {
		b = append(inspect.AppendKey(b, "rpc_version"), '"')
		b = strconv.AppendUint(b, uint64(c.version[0]), 10)
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(c.version[1]), 10)
		b = append(b, '"')
	}
	return b
}

func appendUUID(b []byte, u [16]byte) []byte {
	const hex = "0123456789abcdef"
	for i, c := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hex[c>>4], hex[c&15])
	}
	return b
}
