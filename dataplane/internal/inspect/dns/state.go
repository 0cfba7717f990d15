package dns

import (
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Record types that are read (IANA DNS parameters).
const (
	TypeA     = 1
	TypeNS    = 2
	TypeCNAME = 5
	TypeSOA   = 6
	TypePTR   = 12
	TypeMX    = 15
	TypeTXT   = 16
	TypeAAAA  = 28
	TypeSRV   = 33
	TypeOPT   = 41
	typeSSHFP = 44
)

type record struct {
	name               span
	typ, class         uint16
	ttl                uint32
	data               span
	named              bool // data is a name
	rname              span
	soa                [5]uint32
	prio, weight, port uint16
}

// Tx is one message.
type Tx struct {
	inspect.TxBase
	app       rule.App
	toServer  bool
	MsgID     uint16
	Flags     uint16
	Response  bool
	Malformed bool
	Truncated bool
	questions []record
	sections  [3][]record // answers, authorities, additionals
	mem       []byte
}

func (t *Tx) reset(id uint64, now int64, app rule.App, toServer bool) {
	t.ResetBase(id, now)
	q, s, mem := t.questions[:0], t.sections, t.mem[:0]
	base := t.TxBase
	*t = Tx{TxBase: base, app: app, toServer: toServer, questions: q, mem: mem}
	for i := range s {
		t.sections[i] = s[i][:0]
	}
}

// App is the protocol.
func (t *Tx) App() rule.App { return t.app }

// Complete is always true: a message is whole.
func (t *Tx) Complete(bool) bool { return true }

// Direction is that of the message.
func (t *Tx) Direction() (toServer, ok bool) { return t.toServer, true }

// Opcode and Rcode are those of the header.
func (t *Tx) Opcode() int { return int(t.Flags >> 11 & 15) }

// Rcode is the response code of the header.
func (t *Tx) Rcode() int { return int(t.Flags & 15) }

// Questions is how many there are.
func (t *Tx) Questions() int { return len(t.questions) }

// Question gives the n-th name and its type.
func (t *Tx) Question(n int) ([]byte, uint16) { return t.at(t.questions[n].name), t.questions[n].typ }

func done(b []byte) rule.Value { return rule.Value{Data: b, State: rule.Done} }

var absent = rule.Value{State: rule.Absent}

// Buffer gives names.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	if toServer != t.toServer {
		return absent
	}
	nth := func(rs []record) rule.Value {
		if n >= len(rs) {
			return absent
		}
		return done(t.at(rs[n].name))
	}
	switch b {
	case rule.BufDNSQuery, rule.BufMDNSQuery:
		if t.Response {
			return absent
		}
		return nth(t.questions)
	case rule.BufDNSQueriesName:
		return nth(t.questions)
	case rule.BufDNSAnswersName:
		return nth(t.sections[0])
	case rule.BufDNSAuthoritiesName:
		return nth(t.sections[1])
	case rule.BufDNSAdditionalsName:
		return nth(t.sections[2])
	case rule.BufDNSResponseName, rule.BufMDNSResponse:
		if !t.Response {
			return absent
		}
		if n < len(t.questions) {
			return done(t.at(t.questions[n].name))
		}
		n -= len(t.questions)
		for _, rs := range t.sections {
			for i := range rs {
				if n == 0 {
					return done(t.at(rs[i].name))
				}
				n--
				if rs[i].named {
					if n == 0 {
						return done(t.at(rs[i].data))
					}
					n--
				}
			}
		}
	default:
	}
	return absent
}

// Number gives header fields and record types.
func (t *Tx) Number(k rule.Number, toServer bool, n int) (uint64, rule.State) {
	if toServer != t.toServer {
		return 0, rule.Absent
	}
	switch k {
	case rule.NumDNSOpcode:
		if n == 0 {
			return uint64(t.Opcode()), rule.Done
		}
	case rule.NumDNSRcode:
		if n == 0 {
			return uint64(t.Rcode()), rule.Done
		}
	case rule.NumDNSRRType:
		if !t.Response {
			if n < len(t.questions) {
				return uint64(t.questions[n].typ), rule.Done
			}
			return 0, rule.Absent
		}
		if rs := t.sections[0]; n < len(rs) {
			return uint64(rs[n].typ), rule.Done
		}
	default:
	}
	return 0, rule.Absent
}

var (
	eventMalformed   = rule.EventID("dns.malformed_data")
	eventNameTooLong = rule.EventID("dns.name_too_long")
)

// Events tells of malformed messages.
func (t *Tx) Events() []rule.Event {
	switch {
	case t.Malformed:
		return malformedEvents
	case t.Truncated:
		return longEvents
	}
	return nil
}

var (
	malformedEvents = []rule.Event{eventMalformed}
	longEvents      = []rule.Event{eventNameTooLong}
)
