package spool

import "bytes"

// maxAhead bounds the severe events that wait for the priority lane. More are not lost: they lie in the log as well.
const maxAhead = 256

// urgentEvent is a severe event that may overtake a backlog.
type urgentEvent struct {
	stream StreamID
	seq    uint64
	data   []byte
}

// noteUrgentLocked keeps a copy of the record that was appended last.
func (s *Spool) noteUrgentLocked(seq uint64) {
	if len(s.ahead) >= maxAhead {
		s.ahead = append(s.ahead[:0], s.ahead[1:]...)
	}
	s.ahead = append(s.ahead, urgentEvent{s.stream, seq, bytes.Clone(s.lastRecord())})
}

// lastRecord returns the encoded event of the record that was appended last.
func (s *Spool) lastRecord() []byte { return s.pending[s.lastAt+recordSize+1:] }

// Urgent returns and forgets the severe events that are durable and lie more than backlog numbers beyond what r has handed
// out, so that they can overtake it; the reader still comes to them in their turn, and the centre's ledger takes them once.
// Package uplink calls it. It returns an empty batch when there is no such backlog.
func (s *Spool) Urgent(r *Reader, backlog uint64) Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ahead) == 0 {
		return Batch{}
	}
	out := Batch{Stream: s.ahead[0].stream}
	durable := s.durableLocked()
	keep := s.ahead[:0]
	for _, e := range s.ahead {
		switch {
		case e.stream == s.stream && e.seq > durable:
			keep = append(keep, e) // its turn comes
		case e.seq <= s.committed[e.stream], r.stream == e.stream && e.seq <= r.last+backlog:
			// The centre has it, or it is next anyway.
		case e.stream == out.Stream:
			out.Events = append(out.Events, Event{Seq: e.seq, Data: e.data})
		default:
			keep = append(keep, e)
		}
	}
	clear(s.ahead[len(keep):])
	s.ahead = keep
	return out
}
