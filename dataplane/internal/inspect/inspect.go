// Package inspect says what a protocol parser is. The engine feeds a Parser the bytes of one flow in order and takes
// transactions from it; one folder below per protocol holds parser.go (bytes), state.go (transactions as rules see them) and
// log.go (as EVE prints them). The trap: whatever a transaction hands out must stay unchanged until the Parser's next call.
package inspect

import (
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Status is a Parser's state after data.
type Status uint8

const (
	// More means: go on.
	More Status = iota
	// Done means: nothing more of this flow needs to be parsed; its payload is opaque from here or of no interest.
	Done
	// Failed means: this is not the protocol, or it is broken beyond resynchronising.
	Failed
)

// Certainty is a probe's answer.
type Certainty uint8

const (
	// No means: not this protocol.
	No Certainty = iota
	// Unsure means: too few bytes to say.
	Unsure
	// Yes means: it is.
	Yes
)

// Meta is what a Parser may need to know of the flow.
type Meta struct {
	Time       int64 // of the packet at hand, nanoseconds since the Unix epoch
	ClientPort uint16
	ServerPort uint16
	UDP        bool
	Midstream  bool
}

// Tx is a transaction: rules match it, EVE prints it.
type Tx interface {
	rule.Transaction
	finding.Transaction
	Base() *TxBase
}

// TxBase is what every transaction embeds.
type TxBase struct {
	rules rule.TxState
	// ID counts the flow's transactions from 0.
	ID uint64
	// Inspected says that rules saw the direction after it was complete: [0] to the server.
	Inspected [2]bool
	// Ready is set by the parser when the transaction should be told to the sink; Logged by the engine when it was.
	Ready, Logged bool
	// Time of the packet that began it.
	Time int64
}

// Base gives the embedded part.
func (b *TxBase) Base() *TxBase { return b }

// Rules is the matcher's part.
func (b *TxBase) Rules() *rule.TxState { return &b.rules }

// ResetBase makes it new; memory is kept.
func (b *TxBase) ResetBase(id uint64, now int64) {
	b.rules.Reset()
	b.ID, b.Time = id, now
	b.Inspected = [2]bool{}
	b.Ready, b.Logged = false, false
}

// Parser parses one flow.
type Parser interface {
	// App is the protocol it parses.
	App() rule.App
	// Data takes in-order bytes of a stream, or one datagram, and gives how many it used; the rest comes again with more
	// behind it. end says that nothing follows in this direction.
	Data(m *Meta, toServer bool, b []byte, end bool) (used int, st Status)
	// Gap says that n bytes of the stream are missing.
	Gap(m *Meta, toServer bool, n uint64) Status
	// Txs are the live transactions, oldest first. The engine calls Drop with how many of the first are finished.
	Txs() []Tx
	// Drop forgets the first n transactions.
	Drop(n int)
	// Finish completes what is open, because the flow ended.
	Finish()
	// Reset makes the parser ready for another flow; memory is kept.
	Reset()
}

// Namer is a Parser that knows the name of the server the client asked for (SNI, Host).
type Namer interface {
	// ServerName is lower case, without port and final dot; empty when unknown.
	ServerName() []byte
}

// Upgrader is a Parser after which another protocol may begin on the same connection (101, CONNECT, STARTTLS).
type Upgrader interface {
	// Upgraded says that the bytes after those used are another protocol's.
	Upgraded() bool
}

// Opaquer is a Parser whose payload becomes unreadable (encrypted) at some point.
type Opaquer interface {
	// Opaque says that what follows can't be inspected.
	Opaque() bool
}

// MaxTxs bounds the live transactions of a flow; a Parser that would exceed it finishes the oldest.
const MaxTxs = 512

// AppendJSON appends s as a JSON string. Bytes that are no UTF-8 and control bytes are written as Suricata does: \u00XX.
func AppendJSON(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < 0x80:
			dst = append(dst, c)
		default:
			n := utf8Len(s[i:])
			if n == 0 {
				dst = append(dst, '\\', '\\', 'x', hex[c>>4], hex[c&15])
				break
			}
			dst = append(dst, s[i:i+n]...)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}

// AppendField appends ,"key":"value" (without the comma right after an opening brace) when v is not empty.
func AppendField(dst []byte, key string, v []byte) []byte {
	if len(v) == 0 {
		return dst
	}
	return AppendJSON(AppendKey(dst, key), v)
}

// AppendKey appends ,"key": (without the comma right after an opening brace).
func AppendKey(dst []byte, key string) []byte {
	if n := len(dst); n > 0 && dst[n-1] != '{' && dst[n-1] != '[' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}
