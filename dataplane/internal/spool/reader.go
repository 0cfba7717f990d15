package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Event is one encoded event.
type Event struct {
	Seq uint64
	// Data is a kadomori.event.v1.Event. It is valid until the next call of Next.
	Data []byte
}

// Batch is a run of events of one stream in rising order; evicted numbers are left out.
type Batch struct {
	Stream StreamID
	Events []Event
}

// Reader walks the durable events in order. It is for one goroutine.
type Reader struct {
	s       *Spool
	ordinal uint64
	gen     uint64
	stream  StreamID
	last    uint64 // last seq handed out of stream
	off     int64  // in the segment
	f       *os.File
	buf     []byte
	events  []Event
}

// NewReader returns a reader that begins at the first event that is not committed.
func (s *Spool) NewReader() *Reader { return &Reader{s: s} }

// Close releases the reader's file.
func (r *Reader) Close() {
	if r.f != nil {
		r.f.Close() //nolint:errcheck // only read
		r.f = nil
	}
}

// Rewind goes back to the first event that is not committed. Package uplink calls it after a reconnect.
func (r *Reader) Rewind() {
	r.Close()
	r.ordinal, r.gen, r.stream, r.last, r.off = 0, 0, StreamID{}, 0, 0
}

// readChunk is how much is read at once, in bytes; a record that is larger gets what it needs.
const readChunk = 128 << 10

// Next returns the next events: at most maxEvents and about maxBytes, at least one. It waits until there is one. Errors: the
// context's, ErrClosed. What can't be read is logged, declared as a gap, and stepped over.
func (r *Reader) Next(ctx context.Context, maxEvents int, maxBytes int) (Batch, error) {
	for {
		r.s.mu.Lock()
		g := r.seekLocked()
		wake, closed := r.s.wake, r.s.closed
		var size int64
		var last, committed uint64
		var sealed bool
		if g != nil {
			size, last, committed, sealed = g.size, g.last, r.s.committed[g.stream], g.sealed
			r.moveLocked(g)
		}
		r.s.mu.Unlock()
		if g != nil {
			b, err := r.read(g, size, last, committed, sealed, maxEvents, maxBytes)
			if err != nil {
				r.s.unreadable(g, r.last, last, err)
				r.off = size
			}
			if len(b.Events) > 0 {
				return b, nil
			}
			continue
		}
		if closed {
			return Batch{}, ErrClosed
		}
		select {
		case <-ctx.Done():
			return Batch{}, fmt.Errorf("read spool: %w", ctx.Err())
		case <-wake:
		}
	}
}

// seekLocked returns the segment that has something unread, or nil.
func (r *Reader) seekLocked() *segment {
	for _, g := range r.s.segs {
		switch {
		case g.ordinal < r.ordinal:
		case g.ordinal == r.ordinal && g.gen == r.gen && r.off >= g.size:
		case g.ordinal != r.ordinal && g.size <= headerSize:
		case g.last <= r.s.committed[g.stream] && g.sealed:
		default:
			return g
		}
	}
	return nil
}

// moveLocked goes to a segment when it is not the one being read, or was replaced.
func (r *Reader) moveLocked(g *segment) {
	if g.ordinal == r.ordinal && g.gen == r.gen && r.off >= headerSize {
		return
	}
	r.Close()
	if g.stream != r.stream {
		r.last = 0
	}
	r.ordinal, r.gen, r.stream, r.off = g.ordinal, g.gen, g.stream, headerSize
	if r.last < g.first-1 {
		r.last = g.first - 1
	}
}

// read returns events of g from r.off on; it advances r.off, to size when nothing good is left.
func (r *Reader) read(g *segment, size int64, last, committed uint64, sealed bool, maxEvents, maxBytes int) (Batch, error) {
	out := Batch{Stream: g.stream}
	r.events = r.events[:0]
	want := int64(readChunk)
	for r.off < size {
		b, err := r.fill(g, r.off, min(want, size-r.off))
		if err != nil {
			return out, err
		}
		if len(b) == 0 {
			r.off = size // a segment in memory that was freed meanwhile
			return out, nil
		}
		at, bytes := 0, 0
		for at < len(b) && len(r.events) < maxEvents && (bytes < maxBytes || len(r.events) == 0) {
			seq, data, n, ok, need := decodeRecord(b[at:])
			if !ok {
				if need > len(b)-at && r.off+int64(at)+int64(need) <= size && at > 0 {
					break // the rest of this record is behind the chunk
				}
				if need > len(b)-at && int64(need) <= size-r.off && want < int64(need) {
					want = int64(need)
					break
				}
				if len(r.events) > 0 {
					break // hand out what is good; the damage is met again at the start of the next call
				}
				return out, r.damaged(g, size, last, sealed)
			}
			at += n
			if seq <= r.last || seq > last {
				continue // read before the segment was replaced, or left by a failed write
			}
			r.last = seq
			if seq > committed {
				r.events = append(r.events, Event{Seq: seq, Data: data[1:]})
				bytes += n
			}
		}
		r.off += int64(at)
		if len(r.events) > 0 {
			out.Events = r.events
			return out, nil
		}
	}
	return out, nil
}

// fill returns bytes of a segment.
func (r *Reader) fill(g *segment, off, n int64) ([]byte, error) {
	if g.path == "" {
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		if int64(len(g.mem)) < off+n {
			return nil, nil // committed or saved to disk meanwhile
		}
		r.buf = append(r.buf[:0], g.mem[off:off+n]...)
		return r.buf, nil
	}
	if r.f == nil {
		f, err := os.Open(g.path)
		if err != nil {
			return nil, fmt.Errorf("open segment: %w", err)
		}
		r.f = f
	}
	if int64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	b := r.buf[:n]
	if m, err := r.f.ReadAt(b, off); err != nil && (!errors.Is(err, io.EOF) || m == 0) {
		return nil, fmt.Errorf("read segment: %w", err)
	} else if m < len(b) {
		b = b[:m]
	}
	return b, nil
}

// damaged steps over bytes at r.off that are no record, to the next good one, and declares what is missing.
func (r *Reader) damaged(g *segment, size int64, last uint64, sealed bool) error {
	b, err := r.fill(g, r.off, size-r.off)
	defer func() { r.buf = nil }() // as large as the segment
	if err != nil {
		return err
	}
	if len(b) == 0 {
		r.off = size
		return nil
	}
	next, at := last+1, len(b)
	scan(b, r.last+1, func(seq uint64, _ []byte, pos int) bool { next, at = seq, pos; return false }, nil)
	if next > last+1 {
		next = last + 1
	}
	if at == len(b) && sealed && r.last >= last {
		r.off = size // left by a failed write; nothing is missing
		return nil
	}
	r.s.log.Error("spool segment is damaged", "file", filepath.Base(g.path), "offset", r.off, "bytes", at,
		"lost_from", r.last+1, "lost_to", next-1)
	if next > r.last+1 {
		r.s.declareOnce(g, r.last+1, next-1, "corrupt")
	}
	r.off += int64(at)
	r.last = next - 1
	return nil
}

// unreadable declares the rest of a segment that the disk does not give back.
func (s *Spool) unreadable(g *segment, after, last uint64, err error) {
	s.mu.Lock()
	current := false
	for _, h := range s.segs {
		current = current || h == g
	}
	s.mu.Unlock()
	if !current {
		return // committed and removed while it was being opened
	}
	s.log.Error("spool segment can't be read", "file", filepath.Base(g.path), "lost_from", after+1, "lost_to", last, "err", err)
	if last > after {
		s.declareOnce(g, after+1, last, "unreadable")
	}
}

// declareOnce appends a gap event unless the same damage was declared since start.
func (s *Spool) declareOnce(g *segment, from, to uint64, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || g.declared[from] >= to {
		return
	}
	if g.declared == nil {
		g.declared = map[uint64]uint64{}
	}
	g.declared[from] = to
	s.stats.corrupt += to - from + 1
	if g.stream == s.stream {
		s.gapLocked(from, to, reason, nil)
	}
}
