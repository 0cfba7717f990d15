// Package snmp parses SNMP versions 1, 2c and 3 (RFC 1157, 3416, 3412). The engine calls it; each message is a transaction.
// The trap: version 3 may be encrypted, then only the user's name is there.
package snmp

import (
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/der"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

var pdus = [...]string{
	"get_request", "get_next_request", "response", "set_request", "trap_v1", "get_bulk_request", "inform_request", "trap_v2", "report",
}

// Parser parses one flow.
type Parser struct {
	inspect.Queue[inspect.Fields, *inspect.Fields]
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is SNMP.
func (p *Parser) App() rule.App { return rule.AppSNMP }

// Probe says whether a datagram is SNMP.
func Probe(b []byte) inspect.Certainty {
	v, _, ok := der.Read(b)
	if !ok || v.Tag != 0x30 {
		return inspect.No
	}
	ver, rest, ok := der.Read(v.Body)
	if !ok || ver.Tag != 2 || len(ver.Body) != 1 || ver.Body[0] > 3 || ver.Body[0] == 2 {
		return inspect.No
	}
	next, _, ok := der.Read(rest)
	if !ok || ver.Body[0] < 3 && next.Tag != 4 || ver.Body[0] == 3 && next.Tag != 0x30 {
		return inspect.No
	}
	return inspect.Yes
}

// Finish has nothing open.
func (p *Parser) Finish() {}

// Reset forgets the flow.
func (p *Parser) Reset() { p.Empty() }

// Gap does not happen on datagrams.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status { return inspect.Failed }

// Data parses a datagram.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	if Probe(b) != inspect.Yes {
		return len(b), inspect.More
	}
	msg, _, _ := der.Read(b)
	ver, rest, _ := der.Read(msg.Body)
	tx, id := p.Add()
	tx.Clear(rule.AppSNMP, "snmp", id, m.Time)
	version := uint64(ver.Body[0]) + 1
	if ver.Body[0] == 3 {
		version = 3
	}
	tx.JSONUint("version", version)
	tx.Num(rule.NumSNMPVersion, toServer, version)
	var pdu der.Value
	var ok bool
	if version < 3 {
		community, r, _ := der.Read(rest)
		pdu, _, ok = der.Read(r)
		p.pdu(tx, toServer, pdu, ok)
		tx.Text(rule.BufSNMPCommunity, toServer, community.Body)
		tx.JSONText("community", community.Body)
	} else {
		_, r, _ := der.Read(rest) // header data
		sec, r, sok := der.Read(r)
		if seq, _, sok2 := der.Read(sec.Body); sok && sok2 {
			f := seq.Body
			for i := 0; i < 4 && len(f) > 0; i++ {
				v, fr, fok := der.Read(f)
				if !fok {
					break
				}
				if i == 3 {
					tx.Text(rule.BufSNMPUSM, toServer, v.Body)
					tx.JSONText("usm", v.Body)
				}
				f = fr
			}
		}
		if scoped, _, sok := der.Read(r); sok && scoped.Tag == 0x30 {
			_, f, _ := der.Read(scoped.Body)
			_, f, _ = der.Read(f)
			pdu, _, ok = der.Read(f)
			p.pdu(tx, toServer, pdu, ok)
		}
	}
	tx.Both()
	return len(b), inspect.More
}

func (p *Parser) pdu(tx *inspect.Fields, toServer bool, v der.Value, ok bool) {
	if !ok || v.Tag < 0xa0 || int(v.Tag-0xa0) >= len(pdus) {
		return
	}
	tx.Num(rule.NumSNMPPDUType, toServer, uint64(v.Tag-0xa0))
	tx.JSONText("pdu_type", []byte(pdus[v.Tag-0xa0]))
	if v.Tag == 0xa4 {
		return
	}
	f := v.Body
	for range 3 {
		_, r, ok := der.Read(f)
		if !ok {
			return
		}
		f = r
	}
	list, _, ok := der.Read(f)
	if !ok || list.Tag != 0x30 || len(list.Body) == 0 {
		return
	}
	tx.JSONOpen("vars", '[')
	var text [256]byte
	for l, n := list.Body, 0; len(l) > 0 && n < 64; n++ {
		bind, r, ok := der.Read(l)
		if !ok {
			break
		}
		if oid, _, ok := der.Read(bind.Body); ok && oid.Tag == 6 {
			tx.JSONItem(der.AppendOID(text[:0], oid.Body))
		}
		l = r
	}
	tx.JSONClose(']')
}
