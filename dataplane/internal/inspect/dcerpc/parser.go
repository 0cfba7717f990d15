package dcerpc

import (
	"encoding/binary"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Tx is one call.
type Tx struct {
	inspect.TxBase
	Call
}

// Parser parses one flow.
type Parser struct {
	inspect.Queue[Tx, *Tx]
	conn Conn
	now  int64
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is DCE/RPC.
func (p *Parser) App() rule.App { return rule.AppDCERPC }

// Probe says whether bytes begin a PDU of version 5 (TCP) or 4 (UDP).
func Probe(b []byte, udp bool) inspect.Certainty {
	if udp {
		if len(b) < 80 || b[0] != 4 || b[1] > 10 || b[4]&0xee != 0 || b[2]&0xc0 != 0 && b[2]&0x80 != 0 {
			return inspect.No
		}
		if n := int(fieldOrder(b[4]).Uint16(b[74:])); n > len(b)-80 {
			return inspect.No
		}
		return inspect.Yes
	}
	if len(b) > 0 && b[0] != 5 || len(b) > 1 && b[1] > 1 || len(b) > 2 && typeNames[b[2]] == "" {
		return inspect.No
	}
	if len(b) < headerLen {
		return inspect.Unsure
	}
	h, ok := parseHeader(b)
	if !ok || b[6] != 0 || b[7] != 0 || h.flags&firstFrag == 0 && h.typ != typeRequest && h.typ != typeResponse {
		return inspect.No
	}
	return inspect.Yes
}

func fieldOrder(drep byte) binary.ByteOrder {
	if drep&0x10 != 0 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// Call implements Host.
func (p *Parser) Call(id uint32, fresh bool) *Call {
	for i := p.Len() - 1; i >= 0; i-- {
		if t := p.At(i); t.CallID == id && !t.Ready && (!fresh || !t.done[0]) {
			return &t.Call
		}
	}
	if !fresh {
		return nil
	}
	t, txID := p.Add()
	t.ResetBase(txID, p.now)
	t.ResetCall()
	t.CallID = id
	return &t.Call
}

// Finish completes what is open.
func (p *Parser) Finish() {
	for i := range p.Len() {
		t := p.At(i)
		t.End()
		t.Ready = true
	}
}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Empty()
	p.conn.ResetConn()
}

// Gap ends parsing: where the next PDU begins is unknown.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status {
	p.Finish()
	return inspect.Failed
}

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	p.now = m.Time
	if m.UDP {
		p.datagram(toServer, b)
		return len(b), inspect.More
	}
	used, ok := p.conn.Feed(p, toServer, b)
	for i := range p.Len() {
		if t := p.At(i); t.done[0] && t.done[1] {
			t.Ready = true
		}
	}
	if !ok {
		p.Finish()
		return len(b), inspect.Failed
	}
	return used, inspect.More
}

// datagram parses a PDU of version 4 (C706 12.5).
func (p *Parser) datagram(toServer bool, b []byte) {
	if Probe(b, true) != inspect.Yes {
		return
	}
	o := fieldOrder(b[4])
	little := b[4]&0x10 != 0
	n := int(o.Uint16(b[74:]))
	act := uuid(b[40:56], little)
	seq := o.Uint32(b[64:])
	var call *Call
	for i := range p.Len() {
		if t := p.At(i); !t.Ready && t.activity == act && t.seq == seq {
			call = &t.Call
		}
	}
	if call == nil {
		t, id := p.Add()
		t.ResetBase(id, p.now)
		t.ResetCall()
		call = &t.Call
		call.udp, call.activity, call.seq = true, act, seq
		call.version = [2]byte{4, 0}
		call.little = little
	}
	hd := header{little: little}
	switch b[1] {
	case typeRequest:
		call.Request, call.HasRequest = typeRequest, true
		call.Opnum = o.Uint16(b[68:])
		f := Iface{}
		f.UUID = uuid(b[24:40], little)
		f.Major, f.Minor = uint16(o.Uint32(b[60:])), uint16(o.Uint32(b[60:])>>16)
		f.Accepted = true
		call.first = o.Uint16(b[76:]) == 0
		call.ifaces = append(call.ifaces[:0], f.DCEInterface)
		call.add(0, b[80:80+n], &hd)
		if b[2]&4 == 0 || b[2]&2 != 0 { // not a fragment, or the last
			call.done[0] = true
		}
	case typeResponse, typeFault:
		call.Response, call.HasResponse = b[1], true
		call.add(1, b[80:80+n], &hd)
		if b[2]&4 == 0 || b[2]&2 != 0 {
			call.done[0], call.done[1] = true, true
		}
	default:
		call.done[0], call.done[1] = true, true
	}
	for i := range p.Len() {
		if t := p.At(i); t.done[0] && t.done[1] {
			t.Ready = true
		}
	}
	_ = toServer
}

// App is DCE/RPC.
func (t *Tx) App() rule.App { return rule.AppDCERPC }

// Complete says whether a direction is.
func (t *Tx) Complete(toServer bool) bool {
	if toServer {
		return t.done[0]
	}
	return t.done[1]
}

// Buffer gives the stub data.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	if b == rule.BufDCEStubData && n == 0 {
		return t.Stub(toServer)
	}
	return rule.Value{State: rule.Absent}
}

// Number gives the operation.
func (t *Tx) Number(k rule.Number, _ bool, n int) (uint64, rule.State) {
	if k == rule.NumDCEOpnum && n == 0 {
		return t.Op()
	}
	return 0, rule.Absent
}

// DCEInterfaces are those the call may go to.
func (t *Tx) DCEInterfaces() ([]rule.DCEInterface, bool) { return t.Interfaces() }

// LittleEndian is the stub's byte order.
func (t *Tx) LittleEndian() bool { return t.Little() }

// EVEType is "dcerpc".
func (t *Tx) EVEType() string { return "dcerpc" }

// AppendEVE writes the object.
func (t *Tx) AppendEVE(b []byte) []byte { return append(t.AppendObject(append(b, '{'), false), '}') }
