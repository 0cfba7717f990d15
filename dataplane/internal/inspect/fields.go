package inspect

import (
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Fields is a transaction as a list of named values, for protocols whose transactions are a few texts and numbers. The
// parser fills it and its EVE object at the same time; the matcher asks for values by name. Memory is kept when it is reused.
type Fields struct {
	TxBase
	Proto rule.App
	Type  string // EVE's event type
	// Object is the EVE object without its closing brace.
	Object []byte
	Ended  [2]bool // [0] to the server: the direction is complete
	Raised []rule.Event
	way    int8 // direction of its first value: 1 to the server, 2 to the client, 0 none yet
	mem    []byte
	texts  []textField
	nums   []numField
}

type textField struct {
	b        rule.Buffer
	toServer bool
	from, to int
}

type numField struct {
	k        rule.Number
	toServer bool
	v        uint64
}

// Clear makes it a new transaction.
func (f *Fields) Clear(app rule.App, typ string, id uint64, now int64) {
	f.ResetBase(id, now)
	f.Proto, f.Type = app, typ
	f.Object = append(f.Object[:0], '{')
	f.Ended = [2]bool{}
	f.Raised = f.Raised[:0]
	f.way = 0
	f.mem, f.texts, f.nums = f.mem[:0], f.texts[:0], f.nums[:0]
}

// App is the protocol.
func (f *Fields) App() rule.App { return f.Proto }

// EVEType is EVE's event type.
func (f *Fields) EVEType() string { return f.Type }

// AppendEVE closes and appends the object.
func (f *Fields) AppendEVE(b []byte) []byte { return append(append(b, f.Object...), '}') }

// Complete says whether the direction is.
func (f *Fields) Complete(toServer bool) bool { return f.Ended[index(toServer)] }

// Events are those raised.
func (f *Fields) Events() []rule.Event { return f.Raised }

// Raise adds an event; at most 16 are kept.
func (f *Fields) Raise(e rule.Event) {
	if len(f.Raised) < 16 {
		f.Raised = append(f.Raised, e)
	}
}

func index(toServer bool) int {
	if toServer {
		return 0
	}
	return 1
}

// maxFields bounds the values of one transaction.
const maxFieldValues = 512

// Text adds an instance of a buffer.
func (f *Fields) Text(b rule.Buffer, toServer bool, v []byte) {
	if len(f.texts) >= maxFieldValues {
		return
	}
	f.head(toServer)
	from := len(f.mem)
	f.mem = append(f.mem, v...)
	f.texts = append(f.texts, textField{b, toServer, from, len(f.mem)})
}

// Num adds an instance of a number.
func (f *Fields) Num(k rule.Number, toServer bool, v uint64) {
	f.head(toServer)
	if len(f.nums) < maxFieldValues {
		f.nums = append(f.nums, numField{k, toServer, v})
	}
}

func (f *Fields) head(toServer bool) {
	if f.way == 0 {
		f.way = int8(1 + index(toServer))
	}
}

// Direction is that of the message, for transactions that are one; ok is false when it holds nothing.
func (f *Fields) Direction() (toServer, ok bool) { return f.way == 1, f.way != 0 }

// Both ends both directions and has the transaction told.
func (f *Fields) Both() {
	f.Ended = [2]bool{true, true}
	f.Ready = true
}

// Buffer gives the n-th instance.
func (f *Fields) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	for i := range f.texts {
		t := &f.texts[i]
		if t.b != b || t.toServer != toServer {
			continue
		}
		if n == 0 {
			return rule.Value{Data: f.mem[t.from:t.to], State: rule.Done}
		}
		n--
	}
	if f.Ended[index(toServer)] {
		return rule.Value{State: rule.Absent}
	}
	return rule.Value{State: rule.NotYet}
}

// Number gives the n-th instance.
func (f *Fields) Number(k rule.Number, toServer bool, n int) (uint64, rule.State) {
	for i := range f.nums {
		t := &f.nums[i]
		if t.k != k || t.toServer != toServer {
			continue
		}
		if n == 0 {
			return t.v, rule.Done
		}
		n--
	}
	if f.Ended[index(toServer)] {
		return 0, rule.Absent
	}
	return 0, rule.NotYet
}

// JSONText adds a string to the EVE object; an empty one is left out.
func (f *Fields) JSONText(key string, v []byte) { f.Object = AppendField(f.Object, key, v) }

// JSONUint adds a number.
func (f *Fields) JSONUint(key string, v uint64) {
	f.Object = strconv.AppendUint(AppendKey(f.Object, key), v, 10)
}

// JSONBool adds a truth value.
func (f *Fields) JSONBool(key string, v bool) {
	f.Object = strconv.AppendBool(AppendKey(f.Object, key), v)
}

// JSONOpen begins an object or, with '[', a list; an empty key begins an element of a list.
func (f *Fields) JSONOpen(key string, c byte) {
	if key != "" {
		f.Object = AppendKey(f.Object, key)
	} else if n := len(f.Object); f.Object[n-1] != '[' {
		f.Object = append(f.Object, ',')
	}
	f.Object = append(f.Object, c)
}

// JSONClose ends it.
func (f *Fields) JSONClose(c byte) { f.Object = append(f.Object, c) }

// JSONItem adds a string to a list.
func (f *Fields) JSONItem(v []byte) {
	if n := len(f.Object); f.Object[n-1] != '[' {
		f.Object = append(f.Object, ',')
	}
	f.Object = AppendJSON(f.Object, v)
}

// Queue holds the live transactions of a parser and those to be used again. P is *T.
type Queue[T any, P interface {
	*T
	Tx
}] struct {
	txs    []Tx
	free   []P
	nextID uint64
}

// keepFree is how many transactions a parser keeps for reuse.
const keepFree = 8

// Add gives a transaction to fill: new or used before. The caller resets it with the ID.
func (q *Queue[T, P]) Add() (tx P, id uint64) {
	if n := len(q.free); n > 0 {
		tx = q.free[n-1]
		q.free = q.free[:n-1]
	} else {
		tx = new(T)
	}
	if len(q.txs) >= MaxTxs {
		q.Drop(1)
	}
	q.txs = append(q.txs, tx)
	id = q.nextID
	q.nextID++
	return tx, id
}

// Txs are the live transactions, oldest first.
func (q *Queue[T, P]) Txs() []Tx { return q.txs }

// Len is how many there are, At gives one.
func (q *Queue[T, P]) Len() int { return len(q.txs) }

// At gives the i-th.
func (q *Queue[T, P]) At(i int) P {
	p, _ := q.txs[i].(P)
	return p
}

// Last gives the newest, nil when none.
func (q *Queue[T, P]) Last() P {
	if len(q.txs) == 0 {
		return nil
	}
	return q.At(len(q.txs) - 1)
}

// Drop forgets the first n.
func (q *Queue[T, P]) Drop(n int) {
	for _, t := range q.txs[:n] {
		if p, ok := t.(P); ok && len(q.free) < keepFree {
			q.free = append(q.free, p)
		}
	}
	k := copy(q.txs, q.txs[n:])
	clear(q.txs[k:])
	q.txs = q.txs[:k]
}

// Empty forgets all, for another flow.
func (q *Queue[T, P]) Empty() {
	q.Drop(len(q.txs))
	q.nextID = 0
}
