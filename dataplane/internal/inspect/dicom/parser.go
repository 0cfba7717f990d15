// Package dicom reads the association requests of DICOM (PS3.8): who calls whom, under which application entity titles. The
// engine calls it. The trap: everything else is a patient's data and is neither kept nor printed.
package dicom

import (
	"bytes"
	"encoding/binary"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// PDU types (PS3.8 9.3).
const (
	associateRequest = 1
	associateAccept  = 2
	associateReject  = 3
	maxAssociate     = 64 << 10
	associateHead    = 74
)

// Parser parses one flow.
type Parser struct {
	inspect.Queue[inspect.Fields, *inspect.Fields]
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is DICOM.
func (p *Parser) App() rule.App { return rule.AppDICOM }

// Probe says whether bytes begin an association.
func Probe(toServer bool, b []byte) inspect.Certainty {
	want := byte(associateRequest)
	if !toServer {
		want = associateAccept
	}
	if len(b) > 0 && b[0] != want && (toServer || b[0] != associateReject) || len(b) > 1 && b[1] != 0 {
		return inspect.No
	}
	if len(b) < 10 {
		return inspect.Unsure
	}
	n := binary.BigEndian.Uint32(b[2:])
	if n < 4 || n > maxAssociate || binary.BigEndian.Uint16(b[6:])&1 == 0 && b[0] != associateReject {
		return inspect.No
	}
	return inspect.Yes
}

// Finish completes what is open.
func (p *Parser) Finish() {
	for i := range p.Len() {
		p.At(i).Both()
	}
}

// Reset forgets the flow.
func (p *Parser) Reset() { p.Empty() }

// Gap ends parsing.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status {
	p.Finish()
	return inspect.Done
}

// Data parses the association and then says Done: images are long and of no interest.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	if len(b) < 6 {
		return 0, inspect.More
	}
	n := int(binary.BigEndian.Uint32(b[2:]))
	if n > maxAssociate {
		p.Finish()
		return len(b), inspect.Done
	}
	if len(b) < 6+n {
		return 0, inspect.More
	}
	switch {
	case b[0] == associateRequest && 6+n >= associateHead:
		tx, id := p.Add()
		tx.Clear(rule.AppDICOM, "dicom", id, m.Time)
		tx.JSONText("called_ae", bytes.TrimSpace(b[10:26]))
		tx.JSONText("calling_ae", bytes.TrimSpace(b[26:42]))
		tx.Ended[0] = true
	case b[0] == associateAccept || b[0] == associateReject:
		if tx := p.Last(); tx != nil && !tx.Ready {
			tx.JSONBool("accepted", b[0] == associateAccept)
		}
		p.Finish()
		return len(b), inspect.Done
	}
	return 6 + n, inspect.More
}
