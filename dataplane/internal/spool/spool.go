// Package spool keeps events on disk until the centre has them. Package event appends, package uplink reads, and the committed
// watermark that package fleet receives trims. Numbers are given here: within a stream they start at 1 and have no holes; what
// was dropped is itself an event with its range. The trap: an event may be read only after it is durable, or a number could be
// used twice after a power cut and the centre would take the second event for a duplicate.
package spool

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// Errors of Append.
var (
	// ErrClosed: the spool was closed.
	ErrClosed = errors.New("spool is closed")
	// ErrTooLarge: the event is larger than MaxEvent.
	ErrTooLarge = errors.New("event is too large")
)

// Config of a Spool.
type Config struct {
	// Dir holds the segments; it is made with mode 0700 when missing.
	Dir string
	// Limit is the most that the segments may take, in bytes; 0 means 512 MiB, the least is two segments.
	Limit int64
	// SegmentSize is where a segment ends, in bytes; 0 means 8 MiB.
	SegmentSize int64
	// Delay is the longest that an event waits for its group's fsync; 0 means 100 ms.
	Delay time.Duration
	// GroupBytes ends the wait earlier; 0 means 64 KiB.
	GroupBytes int
	// Reason of a new stream when the directory was empty; "" means "enrolled".
	Reason string
	// Degrade is how long writing may fail before events go to memory under a new stream; 0 means 10 s.
	Degrade time.Duration
	Log     hclog.Logger
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time

	// spill is how often a spool in memory tries the disk again; tests shorten it.
	spill time.Duration
	// sync and write are replaced by tests that break the disk.
	sync  func(*os.File) error
	write func(*os.File, []byte) (int, error)
}

const (
	// maxPending bounds what waits for the disk, in bytes; above it events are dropped and declared.
	maxPending = 4 << 20
	// maxMemory bounds the segment in memory while the disk can't be written, in bytes.
	maxMemory = 4 << 20
	// retryWait is the time between two tries to write to a disk that refused.
	retryWait = time.Second
)

// Spool is the log. Its methods are safe for several goroutines.
type Spool struct {
	cfg  Config
	log  hclog.Logger
	lock *os.File
	kick chan struct{} // a group is full, urgent, or the spool closes
	stop chan struct{}
	done chan struct{}

	// Only the flusher touches these.
	file    *os.File  // active segment; nil: the next group opens one
	spare   []byte    // the other buffer
	failing time.Time // since when writing fails; zero: it does not
	nextTry time.Time

	mu          sync.Mutex
	stream      StreamID
	next        uint64        // next number
	pending     []byte        // records not durable yet
	pendingLast uint64        // number of the last one of them
	lastAt      int           // where it begins
	lost        loss          // dropped, not declared yet
	ahead       []urgentEvent // severe events for the priority lane
	segs        []*segment
	ordinal     uint64
	size        int64
	committed   map[StreamID]uint64
	memory      bool          // the disk can't be written
	wake        chan struct{} // closed and renewed when there is more to read
	urgent      bool
	closed      bool
	stats       counters
	lastErr     error
}

// loss is a run of numbers whose events were dropped before they came to disk.
type loss struct {
	from, to uint64
	reason   string
	kinds    map[string]uint64
}

type counters struct {
	appended, dropped, corrupt, gaps uint64
}

// Stats is the spool's state.
type Stats struct {
	Stream StreamID `json:"-"`
	// Next is the number that the next event gets.
	Next uint64 `json:"next_seq"`
	// Durable is the last number on disk, Committed the last that the centre's database holds, of the current stream.
	Durable   uint64 `json:"durable_seq"`
	Committed uint64 `json:"committed_seq"`
	// Depth counts events that the centre does not have yet, over all streams.
	Depth    uint64 `json:"depth"`
	Bytes    int64  `json:"bytes"`
	Limit    int64  `json:"limit_bytes"`
	Segments int    `json:"segments"`
	// Appended, Dropped and Corrupt count events since start; Gaps counts the gap events that declare them.
	Appended uint64 `json:"appended"`
	Dropped  uint64 `json:"dropped"`
	Corrupt  uint64 `json:"corrupt"`
	Gaps     uint64 `json:"gaps"`
	// Memory says that the disk can't be written and events are kept in memory only.
	Memory bool `json:"memory"`
	// Err is why the last write failed; nil when it did not.
	Err error `json:"-"`
}

// Open reads what is on disk, repairs a torn end, and starts the goroutine that writes. A segment that is damaged is logged
// as one error naming file and range, and everything readable in it stays readable. A directory that can't be written gives no
// error: events are then kept in memory, and Stats says so. Errors: the directory is in use by another process.
func Open(cfg Config) (*Spool, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open spool: no directory given")
	}
	cfg.SegmentSize = cmp.Or(cfg.SegmentSize, 8<<20)
	cfg.Limit = max(cmp.Or(cfg.Limit, 512<<20), 2*cfg.SegmentSize)
	cfg.Delay = cmp.Or(cfg.Delay, 100*time.Millisecond)
	cfg.GroupBytes = cmp.Or(cfg.GroupBytes, 64<<10)
	cfg.Reason = cmp.Or(cfg.Reason, "enrolled")
	cfg.Degrade = cmp.Or(cfg.Degrade, 10*time.Second)
	cfg.spill = cmp.Or(cfg.spill, spillEvery)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.sync == nil {
		cfg.sync = fdatasync
	}
	if cfg.write == nil {
		cfg.write = (*os.File).Write
	}
	s := &Spool{
		cfg: cfg, log: cfg.Log.Named("spool"),
		kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		wake: make(chan struct{}), committed: map[StreamID]uint64{},
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		s.log.Error("spool directory can't be made, events are kept in memory", "dir", cfg.Dir, "err", err)
	}
	if err := s.lockDir(); err != nil {
		return nil, err
	}
	s.recover()
	s.keepReserve()
	go s.flusher()
	return s, nil
}

// lockDir keeps a second process out. A read-only directory has nothing to protect.
func (s *Spool) lockDir() error {
	f, err := os.Open(s.cfg.Dir)
	if err != nil {
		return nil //nolint:nilerr // recover will say so and go on in memory
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // only locked
		return fmt.Errorf("open spool: %s is in use by another process: %w", s.cfg.Dir, err)
	}
	s.lock = f
	return nil
}

func (s *Spool) unlock() {
	if s.lock != nil {
		s.lock.Close() //nolint:errcheck // releases the lock
		s.lock = nil
	}
}

// Append gives the event its number and queues it for the disk; it returns the number. The event's time is set when it has
// none. It waits for no disk: call Sync for that. Errors: ErrClosed, ErrTooLarge (no number is used up).
func (s *Spool) Append(e *eventv1.Event) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	return s.appendLocked(e)
}

func (s *Spool) appendLocked(e *eventv1.Event) (uint64, error) {
	if e.GetTime() == nil {
		e.Time = timestamppb.New(s.cfg.Now())
	}
	kind, class, urgent := kindOf(e)
	if class < classRecord && len(s.pending) > maxPending {
		// The disk does not keep up or refuses: the number is used, the loss will be declared.
		seq := s.next
		s.next++
		s.loseLocked(seq, seq, "full", kind, 1)
		return seq, nil
	}
	if class < classRecord {
		s.declareLocked()
	}
	seq := s.next
	e.Seq = seq
	if err := s.encodeLocked(e, class, seq); err != nil {
		return 0, err
	}
	s.next++
	s.stats.appended++
	if urgent {
		s.urgent = true
		s.noteUrgentLocked(seq)
	}
	if urgent || len(s.pending) >= s.cfg.GroupBytes {
		s.kickFlusher()
	}
	return seq, nil
}

func (s *Spool) encodeLocked(e *eventv1.Event, class byte, seq uint64) error {
	at := len(s.pending)
	var room [recordSize + 1]byte
	room[recordSize] = class
	s.pending = append(s.pending, room[:]...)
	b, err := proto.MarshalOptions{UseCachedSize: false}.MarshalAppend(s.pending, e)
	if err != nil {
		s.pending = s.pending[:at]
		return fmt.Errorf("encode event: %w", err)
	}
	if n := len(b) - at - recordSize - 1; n > MaxEvent {
		s.pending = b[:at]
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, n, MaxEvent)
	}
	s.pending = b
	s.pendingLast = seq
	s.lastAt = at
	sealRecord(s.pending, at, seq)
	return nil
}

// Skip uses up numbers for events that were lost before they came here, and declares the gap. kinds says how many of which
// kind. Package event calls it when its queue overflowed.
func (s *Spool) Skip(reason string, kinds map[string]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for kind, n := range kinds {
		if n > 0 {
			from := s.next
			s.next += n
			s.loseLocked(from, from+n-1, reason, kind, n)
		}
	}
	s.declareLocked()
}

// loseLocked notes numbers from..to, all just given, as lost.
func (s *Spool) loseLocked(from, to uint64, reason, kind string, n uint64) {
	if s.lost.kinds != nil && (s.lost.reason != reason || s.lost.to+1 != from) {
		s.declareLocked()
	}
	if s.lost.kinds == nil {
		s.lost = loss{from: from, reason: reason, kinds: map[string]uint64{}}
	}
	s.lost.to = to
	s.lost.kinds[kind] += n
	s.stats.dropped += n
}

// declareLocked appends the gap event for what was lost.
func (s *Spool) declareLocked() {
	if s.lost.kinds == nil {
		return
	}
	l := s.lost
	s.lost = loss{}
	s.gapLocked(l.from, l.to, l.reason, l.kinds)
}

func (s *Spool) gapLocked(from, to uint64, reason string, kinds map[string]uint64) {
	gap := &eventv1.SpoolGap{FromSeq: from, ToSeq: to, Reason: reason, Kinds: kinds}
	if _, err := s.appendLocked(&eventv1.Event{Body: &eventv1.Event_SpoolGap{SpoolGap: gap}}); err != nil {
		s.log.Error("gap can't be declared", "from", from, "to", to, "err", err)
		return
	}
	s.stats.gaps++
	s.log.Warn("events were lost, gap declared", "from", from, "to", to, "reason", reason)
}

func (s *Spool) kickFlusher() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Sync waits until everything appended before is durable (or in memory, when the disk can't be written), or ctx ends.
func (s *Spool) Sync(ctx context.Context) error {
	s.mu.Lock()
	want, stream := s.next-1, s.stream
	s.urgent = true
	s.mu.Unlock()
	for {
		s.mu.Lock()
		ok := s.durableLocked() >= want || s.stream != stream
		wake := s.wake
		s.mu.Unlock()
		if ok {
			return nil
		}
		s.kickFlusher()
		select {
		case <-ctx.Done():
			return fmt.Errorf("sync spool: %w", ctx.Err())
		case <-wake:
		case <-s.done:
			return ErrClosed
		}
	}
}

// durableLocked is the last number of the current stream that is on disk.
func (s *Spool) durableLocked() uint64 {
	if n := len(s.segs); n > 0 && s.segs[n-1].stream == s.stream {
		return s.segs[n-1].last
	}
	return 0
}

// Committed forgets what the centre's database holds: whole segments with numbers up to through go. An unknown stream is
// ignored. When the centre holds numbers that were never given here (a disk image was put back), the stream ends and a new one
// begins, because further numbers of the old one would be taken for duplicates.
func (s *Spool) Committed(stream StreamID, through uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	known := stream == s.stream
	for _, g := range s.segs {
		known = known || g.stream == stream
	}
	if !known || through <= s.committed[stream] {
		return
	}
	s.committed[stream] = through
	if stream == s.stream && through >= s.next {
		s.log.Error("the centre holds numbers that this spool never gave; a new stream begins", "through", through, "next", s.next)
		s.rotateLocked("spool-lost")
	}
	s.trimLocked()
	s.wakeLocked()
}

func (s *Spool) wakeLocked() {
	close(s.wake)
	s.wake = make(chan struct{})
}

// trimLocked removes segments that are wholly committed. The active one stays: it carries stream and number.
func (s *Spool) trimLocked() {
	keep := s.segs[:0]
	for _, g := range s.segs {
		if !g.sealed || g.last > s.committed[g.stream] {
			keep = append(keep, g)
			continue
		}
		s.removeLocked(g)
	}
	clear(s.segs[len(keep):])
	s.segs = keep
	for st := range s.committed {
		if st != s.stream && !s.holdsLocked(st) {
			delete(s.committed, st)
		}
	}
}

func (s *Spool) holdsLocked(st StreamID) bool {
	for _, g := range s.segs {
		if g.stream == st {
			return true
		}
	}
	return false
}

func (s *Spool) removeLocked(g *segment) {
	s.size -= g.size
	g.gen++
	if g.path == "" {
		g.mem = nil
		return
	}
	if err := os.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("segment can't be removed", "file", g.path, "err", err)
	}
}

// rotateLocked ends the current stream and begins a new one; its StreamStart has number 1. Records that wait for the disk
// belong to the old stream and were never readable: they get new numbers in the new one.
func (s *Spool) rotateLocked(reason string) {
	old, waiting := s.stream, s.pending
	s.pending = nil
	if n := len(s.segs); n > 0 {
		s.segs[n-1].sealed = true // the flusher opens a segment of the new stream
	}
	s.newStreamLocked(reason, old)
	s.renumberLocked(waiting)
}

func (s *Spool) newStreamLocked(reason string, previous StreamID) {
	if _, err := rand.Read(s.stream[:]); err != nil {
		panic("spool: the kernel gives no random numbers: " + err.Error())
	}
	s.next = 1
	s.lost = loss{}
	start := &eventv1.StreamStart{Reason: reason}
	if previous != (StreamID{}) {
		start.PreviousStreamId = previous[:]
	}
	if _, err := s.appendLocked(&eventv1.Event{Body: &eventv1.Event_StreamStart{StreamStart: start}}); err != nil {
		s.log.Error("stream start can't be appended", "err", err)
	}
	s.urgent = true
}

// Stream returns the current stream.
func (s *Spool) Stream() StreamID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream
}

// Stats returns the spool's state.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Stream: s.stream, Next: s.next, Durable: s.durableLocked(), Committed: s.committed[s.stream],
		Bytes: s.size, Limit: s.cfg.Limit, Segments: len(s.segs),
		Appended: s.stats.appended, Dropped: s.stats.dropped, Corrupt: s.stats.corrupt, Gaps: s.stats.gaps,
		Err: s.lastErr,
	}
	st.Memory = s.memory
	for _, g := range s.segs {
		if g.stream != s.stream && g.last > max(s.committed[g.stream], g.first-1) {
			st.Depth += g.last - max(s.committed[g.stream], g.first-1)
		}
	}
	if s.next-1 > st.Committed {
		st.Depth += s.next - 1 - st.Committed
	}
	return st
}

// Close makes everything durable that was appended, and ends the writer. Readers get ErrClosed. Error: the last write failed.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.declareLocked()
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.done
	s.mu.Lock()
	s.wakeLocked()
	err, left := s.lastErr, len(s.pending)
	s.mu.Unlock()
	s.unlock()
	if left > 0 {
		return fmt.Errorf("close spool: %d bytes of events are not on disk: %w", left, err)
	}
	return nil
}
