package flow

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
)

// State is how far a flow is, in Suricata's words.
type State uint8

// The states.
const (
	New State = iota
	Established
	Closed
	Bypassed
)

// String gives the word of EVE's flow.state.
func (s State) String() string {
	switch s {
	case New:
		return "new"
	case Established:
		return "established"
	case Closed:
		return "closed"
	case Bypassed:
		return "bypassed"
	}
	return "unknown"
}

// Reason says why a flow ended.
type Reason uint8

// The reasons: idle too long, table full, source ended.
const (
	Timeout Reason = iota
	Forced
	Shutdown
)

// Class is a time-out class: each has its own idle limit and list.
type Class uint8

// The classes.
const (
	ClassTCPNew Class = iota
	ClassTCPEstablished
	ClassTCPClosed
	ClassUDPNew
	ClassUDPEstablished
	ClassOtherNew
	ClassOtherEstablished
	ClassLong // HL7, databases: long idle links that must not be forgotten
	classCount
)

// Timeouts are idle limits in nanoseconds; zero values take the default.
type Timeouts [classCount]int64

const second = int64(1e9)

// defaultTimeouts are Suricata's (suricata.yaml flow-timeouts); ClassLong is domain page 3.7's 24 h.
var defaultTimeouts = Timeouts{
	ClassTCPNew: 60 * second, ClassTCPEstablished: 600 * second, ClassTCPClosed: 60 * second, ClassUDPNew: 30 * second,
	ClassUDPEstablished: 300 * second, ClassOtherNew: 30 * second, ClassOtherEstablished: 300 * second,
	ClassLong: 24 * 3600 * second,
}

// Flow is one connection. X is what the engine adds.
type Flow[T any] struct {
	Key  Key
	ID   uint64
	hash uint64
	// The originator is the client: sender of the SYN, or of the first packet seen.
	Client, Server         netip.Addr
	ClientPort, ServerPort uint16
	ClientIsA              bool
	Proto                  uint8
	State                  State
	Class                  Class
	Start, Last            int64     // nanoseconds since the Unix epoch
	Packets, Bytes         [2]uint64 // [0] to the server, [1] to the client; bytes of whole frames
	TCP                    TCP
	X                      T

	idx        uint32
	chain      uint32 // next in the bucket
	prev, next uint32 // in the class's list, least recently seen first
	live       bool
}

const none = ^uint32(0)

const chunkSize = 256

// Table holds the flows of one worker.
type Table[T any] struct {
	seed     uint64
	buckets  []uint32
	mask     uint64
	chunks   []*[chunkSize]Flow[T]
	free     uint32 // head of the free list, by chain
	used     int
	max      int
	lists    [classCount]struct{ head, tail uint32 }
	timeouts Timeouts
	nextID   uint64
	end      func(*Flow[T], Reason)
	// Forced counts flows that went because the table was full.
	Forced uint64
	// Begun counts flows.
	Begun uint64
}

// TableConfig sets a Table.
type TableConfig[T any] struct {
	// Max flows; 0: 131072.
	Max int
	// Timeouts; zero entries take the default.
	Timeouts Timeouts
	// End is called for each flow that ends, before it is reused; required.
	End func(*Flow[T], Reason)
	// FirstID is the number of the first flow; 0: a random start, so that numbers of two runs differ.
	FirstID uint64
}

// NewTable makes a Table. Memory for flows is taken in steps as they come, up to Max.
func NewTable[T any](cfg TableConfig[T]) *Table[T] {
	cfg.Max = cmp.Or(cfg.Max, 131072)
	n := 1024
	for n < cfg.Max {
		n <<= 1
	}
	t := &Table[T]{
		seed: seed(), buckets: make([]uint32, n), mask: uint64(n - 1), free: none, max: cfg.Max, end: cfg.End,
		nextID: cmp.Or(cfg.FirstID, seed()>>12|1),
	}
	for i := range t.buckets {
		t.buckets[i] = none
	}
	for i := range t.lists {
		t.lists[i].head, t.lists[i].tail = none, none
		t.timeouts[i] = cmp.Or(cfg.Timeouts[i], defaultTimeouts[i])
	}
	return t
}

// seed is a secret number that nobody can guess, so that nobody can choose flows that collide.
func seed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// Len is how many flows are in the table.
func (t *Table[T]) Len() int { return t.used }

func (t *Table[T]) at(i uint32) *Flow[T] { return &t.chunks[i/chunkSize][i%chunkSize] }

// Lookup finds the flow of a key, nil when there is none.
func (t *Table[T]) Lookup(k *Key) *Flow[T] {
	h := k.hash(t.seed)
	for i := t.buckets[h&t.mask]; i != none; {
		f := t.at(i)
		if f.hash == h && f.Key == *k {
			return f
		}
		i = f.chain
	}
	return nil
}

// Insert makes a new flow for a key that Lookup did not find. When the table is full the flow idle the longest is forced out.
// The flow's own fields but Key, ID, Start and Last are zero; X is as the End callback left it.
func (t *Table[T]) Insert(k *Key, class Class, now int64) *Flow[T] {
	if t.used >= t.max {
		t.forceOldest()
	}
	if t.free == none {
		t.grow()
	}
	i := t.free
	f := t.at(i)
	t.free = f.chain
	x := f.X
	*f = Flow[T]{Key: *k, ID: t.nextID, hash: k.hash(t.seed), Start: now, Last: now, Class: class, idx: i, X: x, live: true}
	f.Proto = k.Proto
	t.nextID++
	b := &t.buckets[f.hash&t.mask]
	f.chain = *b
	*b = i
	t.used++
	t.Begun++
	t.link(f)
	return f
}

func (t *Table[T]) grow() {
	c := new([chunkSize]Flow[T])
	base := uint32(len(t.chunks) * chunkSize)
	t.chunks = append(t.chunks, c)
	for j := chunkSize - 1; j >= 0; j-- {
		c[j].chain = t.free
		t.free = base + uint32(j)
	}
}

// Touch notes a packet of the flow and its time-out class.
func (t *Table[T]) Touch(f *Flow[T], class Class, now int64) {
	if now > f.Last {
		f.Last = now
	}
	if class == f.Class && t.lists[class].tail == f.idx {
		return
	}
	t.unlink(f)
	f.Class = class
	t.link(f)
}

func (t *Table[T]) link(f *Flow[T]) {
	l := &t.lists[f.Class]
	f.prev, f.next = l.tail, none
	if l.tail != none {
		t.at(l.tail).next = f.idx
	} else {
		l.head = f.idx
	}
	l.tail = f.idx
}

func (t *Table[T]) unlink(f *Flow[T]) {
	l := &t.lists[f.Class]
	if f.prev != none {
		t.at(f.prev).next = f.next
	} else {
		l.head = f.next
	}
	if f.next != none {
		t.at(f.next).prev = f.prev
	} else {
		l.tail = f.prev
	}
}

// Remove ends a flow now.
func (t *Table[T]) Remove(f *Flow[T], why Reason) {
	if !f.live {
		return
	}
	t.end(f, why)
	f.live = false
	t.unlink(f)
	p := &t.buckets[f.hash&t.mask]
	for *p != f.idx {
		p = &t.at(*p).chain
	}
	*p = f.chain
	f.chain = t.free
	t.free = f.idx
	t.used--
}

// expireBatch bounds the work of one Expire.
const expireBatch = 512

// Expire ends flows that were idle longer than their class allows.
func (t *Table[T]) Expire(now int64) {
	n := 0
	for c := range t.lists {
		limit := t.timeouts[c]
		for i := t.lists[c].head; i != none && n < expireBatch; i = t.lists[c].head {
			f := t.at(i)
			if now-f.Last < limit {
				break
			}
			t.Remove(f, Timeout)
			n++
		}
	}
}

// Expired says whether a flow that was found is over its limit already, so that a packet now begins a new one.
func (t *Table[T]) Expired(f *Flow[T], now int64) bool { return now-f.Last >= t.timeouts[f.Class] }

// forceOldest makes room: closed flows first, then unanswered ones, then the longest idle of the rest.
func (t *Table[T]) forceOldest() {
	order := [...]Class{
		ClassTCPClosed, ClassTCPNew, ClassUDPNew, ClassOtherNew, ClassUDPEstablished, ClassOtherEstablished, ClassTCPEstablished,
		ClassLong,
	}
	for _, c := range order {
		if i := t.lists[c].head; i != none {
			t.Forced++
			t.Remove(t.at(i), Forced)
			return
		}
	}
}

// Drain ends all flows, oldest flow first, so that records come in the order of flows.
func (t *Table[T]) Drain() {
	for c := range t.lists {
		for i := t.lists[c].head; i != none; i = t.lists[c].head {
			t.Remove(t.at(i), Shutdown)
		}
	}
}

// Each calls fn for every flow in the table.
func (t *Table[T]) Each(fn func(*Flow[T])) {
	for c := range t.lists {
		for i := t.lists[c].head; i != none; {
			f := t.at(i)
			i = f.next
			fn(f)
		}
	}
}
