package flow

// TCPState is a connection's state (RFC 9293, as an observer sees it).
type TCPState uint8

// The states.
const (
	TCPNone TCPState = iota
	TCPSynSent
	TCPSynRecv
	TCPEstablished
	TCPFinWait // one side has sent FIN
	TCPClosing // both sides have
	TCPClosed  // FINs acknowledged, or RST
)

// TCP is what is known of a connection.
type TCP struct {
	State     TCPState
	Midstream bool // picked up without its handshake
	// ServerFirst says that the server closed first.
	ServerFirst bool
	Streams     [2]Stream
}

// segment is data that came before what precedes it.
type segment struct {
	off  uint64
	data []byte
}

// Stream is one direction of a connection, in order. The zero value is a stream of which nothing was seen.
type Stream struct {
	synced  bool
	nextSeq uint32 // sequence number of the byte at Next
	isn     uint32
	next    uint64 // offset of the next byte that is waited for
	buf     []byte // bytes [base, base+len(buf)) of the stream
	base    uint64
	// Parsed is the offset up to which the parser has read.
	Parsed uint64
	// Inspected is the offset up to which rules have seen the stream.
	Inspected uint64
	segs      []segment // sorted by offset
	held      int       // bytes in segs
	fin       bool
	finOff    uint64
	// FinSeen, RstSeen: the side said that it is done.
	FinSeen, RstSeen bool
	acked            uint64 // offset that the other side acknowledged
	maxEnd           uint64 // highest offset seen
	// Closed: no more data will be looked at: depth reached, or the parser gave up.
	Closed bool
	// Gap is true once bytes were missed.
	Gap   bool
	depth bool
}

// Next is the offset of the byte waited for: how many bytes came in order.
func (s *Stream) Next() uint64 { return s.next }

// Sent is how much sequence space the side has used (stream_size).
func (s *Stream) Sent() uint64 { return max(s.maxEnd, s.next) }

// Synced says whether a sequence number is known.
func (s *Stream) Synced() bool { return s.synced }

// NextSeq is the sequence number of the byte waited for.
func (s *Stream) NextSeq() uint32 { return s.nextSeq }

// Pending gives the bytes the parser has not read yet. Valid until the next call of the Assembler for the flow.
func (s *Stream) Pending() []byte {
	if s.Parsed < s.base {
		return s.buf
	}
	if s.Parsed-s.base > uint64(len(s.buf)) {
		return nil
	}
	return s.buf[s.Parsed-s.base:]
}

// Tail gives at most back bytes before the last n and the last n themselves, and the offset of the first.
func (s *Stream) Tail(n, back int) ([]byte, uint64) {
	want := min(n+back, len(s.buf))
	return s.buf[len(s.buf)-want:], s.base + uint64(len(s.buf)-want)
}

// Done says whether the stream's end came and everything before it.
func (s *Stream) Done() bool { return s.fin && s.next >= s.finOff }

// Depth says whether the inspection depth was reached.
func (s *Stream) Depth() bool { return s.depth }

// Assembler puts the streams of one worker in order.
type Assembler struct {
	pool *Pool
	// Window is how many bytes already inspected are kept for patterns that lie over a seam; see NewAssembler.
	window int
	depth  uint64
	// HoldUntilAcked delivers data when the other side has acknowledged it, as a sniffer does that must know what the
	// receiver took. An inline source must not set it.
	HoldUntilAcked bool
	// Counters.
	Gaps        uint64 // times bytes were missed
	GapBytes    uint64
	OutOfOrder  uint64 // segments that came early
	Dropped     uint64 // bytes not looked at because memory or limits were used up
	Overlaps    uint64 // segments that brought known bytes again
	Conflicting uint64 // … with other content
}

// Limits of out-of-order data per direction: what a bad path reorders, not what an attacker may store.
const (
	maxSegments = 256
	maxHeld     = 256 << 10
	// maxAhead is how far before the expected byte a segment may lie: a large window (RFC 7323 scaled) of a LAN server.
	maxAhead = 8 << 20
	// MaxPending bounds what a parser may leave unread before it is told of a gap.
	MaxPending = 512 << 10
	// maxUninspected bounds what is kept for rules when their turn does not come.
	maxUninspected = 64 << 10
)

// NewAssembler makes an Assembler that borrows from pool; window is how many inspected bytes stay, depth how many bytes of a
// direction are inspected.
func NewAssembler(pool *Pool, window int, depth uint64) *Assembler {
	return &Assembler{pool: pool, window: window, depth: depth}
}

// Delivered says what a segment brought.
type Delivered struct {
	// New is how many bytes were appended in order; they are the last ones of Pending and Tail.
	New int
	// GapBefore says that bytes are missing before the new ones: a parser must resynchronise or give up.
	GapBefore uint64
	// Again: the segment brought nothing but bytes already seen.
	Again bool
	// Conflict: bytes already inspected came again with other content.
	Conflict bool
	// Early: the segment lies after a hole and was kept.
	Early bool
	// More: further data waits behind the hole that a gap would skip.
	Outside bool // out of any window that makes sense
}

// Sync sets the stream's first sequence number, that of the first data byte.
func (s *Stream) Sync(seq uint32) {
	if s.synced {
		return
	}
	s.synced, s.nextSeq, s.isn = true, seq, seq
}

// Resync starts the stream over at a sequence number, for a SYN seen again with another one before data came.
func (s *Stream) Resync(seq uint32) {
	if s.next == 0 && len(s.segs) == 0 {
		s.synced, s.nextSeq, s.isn = true, seq, seq
	}
}

// Segment takes payload at seq. fin says that the stream ends after it. The stream must be synced.
func (a *Assembler) Segment(s *Stream, seq uint32, payload []byte, fin bool) (d Delivered) {
	rel := int32(seq - s.nextSeq) // serial arithmetic (RFC 1982)
	if rel > maxAhead || int64(s.next)+int64(rel) < -1 {
		d.Outside = true
		return d
	}
	off := int64(s.next) + int64(rel)
	end := off + int64(len(payload))
	if end < 0 {
		d.Outside = true
		return d
	}
	if uint64(end) > s.maxEnd {
		s.maxEnd = uint64(end)
	}
	if fin && !s.fin {
		s.fin, s.finOff = true, uint64(end)
		s.FinSeen = true
	}
	if len(payload) == 0 {
		return d
	}
	if uint64(end) <= s.next { // all of it known: a retransmission or a keep-alive
		d.Again = true
		a.Overlaps++
		d.Conflict = a.conflict(s, uint64(max(off, 0)), payload)
		if d.Conflict {
			a.Conflicting++
		}
		return d
	}
	if s.Closed {
		s.skipTo(uint64(end), seq+uint32(len(payload)))
		return d
	}
	if a.HoldUntilAcked {
		if off < int64(s.next) {
			payload = payload[int64(s.next)-off:]
			off = int64(s.next)
		}
		a.hold(s, uint64(off), payload)
		return d
	}
	if uint64(max(off, 0)) > s.next {
		a.hold(s, uint64(off), payload)
		a.OutOfOrder++
		d.Early = true
		return d
	}
	if rel < 0 { // a part is known: what came first counts, it was inspected
		known := -int(rel)
		a.Overlaps++
		if off >= 0 && a.conflict(s, uint64(off), payload[:known]) {
			d.Conflict = true
			a.Conflicting++
		}
		payload = payload[known:]
	}
	d.New = a.append(s, payload)
	if len(s.segs) > 0 {
		d.New += a.drain(s, ^uint64(0))
	}
	return d
}

// conflict compares payload with the bytes that are still in the buffer.
func (a *Assembler) conflict(s *Stream, off uint64, payload []byte) bool {
	if off < s.base {
		skip := s.base - off
		if skip >= uint64(len(payload)) {
			return false
		}
		payload, off = payload[skip:], s.base
	}
	i := off - s.base
	if i >= uint64(len(s.buf)) {
		return false
	}
	n := min(uint64(len(payload)), uint64(len(s.buf))-i)
	return string(s.buf[i:i+n]) != string(payload[:n])
}

// append adds in-order bytes to the buffer and gives how many.
func (a *Assembler) append(s *Stream, b []byte) int {
	if s.next+uint64(len(b)) > a.depth {
		keep := int(max(int64(a.depth)-int64(s.next), 0))
		a.Dropped += uint64(len(b) - keep)
		s.advance(len(b) - keep)
		b = b[:keep]
		s.depth = true
		if keep == 0 {
			return 0
		}
	}
	if len(s.buf)+len(b) > cap(s.buf) {
		a.makeRoom(s, len(b))
		if len(s.buf)+len(b) > cap(s.buf) { // no memory: the bytes are lost to inspection
			a.Dropped += uint64(len(b))
			a.Release(s)
			s.advance(len(b))
			s.base = s.next
			s.Parsed = s.next
			s.Gap = true
			return 0
		}
	}
	s.buf = append(s.buf, b...)
	s.advance(len(b))
	return len(b)
}

func (s *Stream) advance(n int) {
	s.next += uint64(n)
	s.nextSeq += uint32(n)
}

// makeRoom slides the window, or moves to a larger buffer.
func (a *Assembler) makeRoom(s *Stream, n int) {
	drop := 0
	if over := len(s.buf) - a.window; over > 0 {
		drop = over
	}
	if keep := min(s.Parsed, max(s.Inspected, s.next-min(s.next, maxUninspected))); keep >= s.base {
		drop = min(drop, int(min(keep-s.base, uint64(len(s.buf)))))
	} else {
		drop = 0
	}
	rest := len(s.buf) - drop
	if rest+n <= cap(s.buf) {
		copy(s.buf, s.buf[drop:])
		s.buf = s.buf[:rest]
		s.base += uint64(drop)
		return
	}
	nb := a.pool.Get(max(rest+n, min(2*cap(s.buf), 64<<10)))
	if nb == nil {
		return
	}
	nb = append(nb, s.buf[drop:]...)
	a.pool.Put(s.buf)
	s.buf = nb
	s.base += uint64(drop)
}

// hold keeps a segment that came early. What came first wins where two overlap.
func (a *Assembler) hold(s *Stream, off uint64, payload []byte) {
	if len(s.segs) >= maxSegments || s.held+len(payload) > maxHeld {
		a.Dropped += uint64(len(payload))
		return
	}
	if off > a.depth {
		return
	}
	i := len(s.segs)
	for i > 0 && s.segs[i-1].off > off {
		i--
	}
	if i < len(s.segs) && s.segs[i].off == off && len(s.segs[i].data) >= len(payload) {
		return
	}
	if i > 0 && s.segs[i-1].off+uint64(len(s.segs[i-1].data)) >= off+uint64(len(payload)) {
		return // covered
	}
	b := a.pool.Get(len(payload))
	if b == nil {
		a.Dropped += uint64(len(payload))
		return
	}
	b = append(b, payload...)
	s.segs = append(s.segs, segment{})
	copy(s.segs[i+1:], s.segs[i:])
	s.segs[i] = segment{off, b}
	s.held += len(payload)
}

// drain appends the held segments that are in order now, up to an offset.
func (a *Assembler) drain(s *Stream, to uint64) (n int) {
	k := 0
	for ; k < len(s.segs); k++ {
		g := &s.segs[k]
		if g.off > s.next || s.next >= to {
			break
		}
		if end := g.off + uint64(len(g.data)); end > s.next {
			if end > to { // a part of it
				n += a.append(s, g.data[s.next-g.off:to-g.off])
				break
			}
			n += a.append(s, g.data[s.next-g.off:])
		}
		s.held -= len(g.data)
		a.pool.Put(g.data)
		g.data = nil
	}
	if k > 0 {
		s.segs = s.segs[:copy(s.segs, s.segs[k:])]
	}
	return n
}

// Acked notes the other side's acknowledgement. When it covers bytes that never came here, they are a gap: the stream goes on
// after it.
func (a *Assembler) Acked(s *Stream, ack uint32) (d Delivered) {
	if !s.synced {
		return d
	}
	rel := int32(ack - s.nextSeq)
	if rel <= 0 {
		if o := int64(s.next) + int64(rel); o > int64(s.acked) {
			s.acked = uint64(o)
		}
		return d
	}
	if rel > maxAhead {
		return d
	}
	to := s.next + uint64(rel)
	if s.fin && to == s.finOff+1 { // the FIN's own number
		to--
	}
	s.acked = to
	if to <= s.next {
		return d
	}
	if s.Closed {
		s.skipTo(to, s.nextSeq+uint32(to-s.next))
		return d
	}
	if a.HoldUntilAcked && len(s.segs) > 0 && s.segs[0].off <= s.next {
		d.New = a.drain(s, to)
		if s.next >= to || len(s.segs) > 0 && s.segs[0].off <= s.next {
			return d
		}
		// What is acknowledged beyond the held data is a gap, unless it is the FIN's own number.
		if to-s.next == 1 && s.maxEnd <= s.next {
			return d
		}
		more := a.Acked(s, ack)
		more.New += d.New
		return more
	}
	// Go on at the first segment held, or at the acknowledged byte when none was held before it.
	if len(s.segs) > 0 && s.segs[0].off < to {
		to = s.segs[0].off
	}
	if to > s.maxEnd && to > s.next && len(s.segs) == 0 && s.maxEnd <= s.next {
		// Acknowledged without ever being seen: bytes that took another way, or a stray ACK. One byte is a keep-alive or a
		// SYN we missed.
		if to-s.next == 1 && s.next == 0 {
			return d
		}
	}
	d.GapBefore = to - s.next
	a.skip(s, to)
	limit := ^uint64(0)
	if a.HoldUntilAcked {
		limit = s.acked
	}
	d.New = a.drain(s, limit)
	return d
}

func (a *Assembler) skip(s *Stream, to uint64) {
	n := to - s.next
	a.Gaps++
	a.GapBytes += n
	s.Gap = true
	s.nextSeq += uint32(n)
	s.next = to
	s.buf = s.buf[:0]
	s.base = to
	s.Parsed = to
	s.Inspected = to
}

func (s *Stream) skipTo(off uint64, seq uint32) {
	if off > s.next {
		s.next, s.nextSeq = off, seq
	}
}

// Flush gives what is still held at the end of a flow, as if its gap was acknowledged.
func (a *Assembler) Flush(s *Stream) (d Delivered) {
	if len(s.segs) == 0 || s.Closed {
		return d
	}
	if s.segs[0].off > s.next {
		d.GapBefore = s.segs[0].off - s.next
		a.skip(s, s.segs[0].off)
	}
	d.New = a.drain(s, ^uint64(0))
	return d
}

// Skip tells that the parser read n bytes; it is an error of the parser to say more than Pending holds.
func (s *Stream) Skip(n int) {
	s.Parsed = min(max(s.Parsed, s.base)+uint64(n), s.next)
}

// Close stops inspection of the stream and gives its memory back; sequence numbers are still followed.
func (a *Assembler) Close(s *Stream) {
	s.Closed = true
	a.Release(s)
}

// Release gives the stream's memory back.
func (a *Assembler) Release(s *Stream) {
	a.pool.Put(s.buf)
	s.buf = nil
	s.base = s.next
	for i := range s.segs {
		a.pool.Put(s.segs[i].data)
		s.segs[i].data = nil
	}
	s.segs = s.segs[:0]
	s.held = 0
}
