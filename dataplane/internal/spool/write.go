package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// memorySegment is the size of a segment in memory, in bytes: small, so that what is committed is freed soon.
const memorySegment = 256 << 10

// spillEvery is how often a spool in memory tries the disk again.
const spillEvery = 10 * time.Second

var errMemoryFull = errors.New("memory for events is full")

// flusher is the only goroutine that writes. It ends after a last flush.
func (s *Spool) flusher() {
	defer close(s.done)
	timer := time.NewTimer(s.cfg.Delay)
	defer timer.Stop()
	for stopping := false; !stopping; {
		select {
		case <-timer.C:
		case <-s.kick:
		case <-s.stop:
			stopping = true
		}
		s.flush(stopping)
		timer.Reset(s.cfg.Delay)
	}
	if s.file != nil {
		if err := s.file.Close(); err != nil {
			s.log.Warn("segment can't be closed", "err", err)
		}
		s.file = nil
	}
}

// flush writes one group: everything that waits. final ignores the wait after a failure.
func (s *Spool) flush(final bool) {
	now := time.Now() // elapsed time, not the box's clock
	s.mu.Lock()
	memory := s.memory
	s.mu.Unlock()
	if memory && (final || now.After(s.nextTry)) {
		s.spill(now)
	}
	s.mu.Lock()
	wait := !s.failing.IsZero() && !s.memory && !final && now.Before(s.nextTry)
	s.mu.Unlock()
	if wait {
		return
	}
	err := s.writePending(now)
	if errors.Is(err, syscall.ENOSPC) && s.makeRoom(s.cfg.SegmentSize, classAlert) {
		// Others filled the disk: our less valuable events made room for the newer ones. Detections on disk are not given up
		// for newer ones, which can wait in memory.
		err = s.writePending(now)
	}
	if err != nil {
		return
	}
	s.mu.Lock()
	over := s.size - s.cfg.Limit
	s.mu.Unlock()
	if over > 0 {
		s.makeRoom(over, classes-1)
	}
}

// writePending writes what waits, or puts it back.
func (s *Spool) writePending(now time.Time) error {
	s.mu.Lock()
	if len(s.pending) == 0 {
		s.mu.Unlock()
		return nil
	}
	buf, stream, last := s.pending, s.stream, s.pendingLast
	s.pending, s.spare = s.spare[:0], nil
	s.urgent = false
	s.mu.Unlock()
	err := s.writeGroup(buf, stream, last)
	s.settle(buf, stream, err, now)
	return err
}

// settle tells readers of a group that is durable, or puts it back.
func (s *Spool) settle(buf []byte, stream StreamID, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if cap(buf) <= 1<<20 {
			s.spare = buf[:0]
		}
		if !s.memory {
			if !s.failing.IsZero() {
				s.log.Info("spool can be written again")
			}
			s.failing, s.lastErr = time.Time{}, nil
		}
		s.wakeLocked()
		return
	}
	if s.stream == stream {
		s.pending = append(buf, s.pending...)
	} else {
		s.renumberLocked(buf)
	}
	if errors.Is(err, errMemoryFull) {
		return
	}
	if s.failing.IsZero() {
		s.failing = now
		s.log.Error("spool can't be written", "dir", s.cfg.Dir, "err", err)
	}
	s.lastErr = err
	s.nextTry = now.Add(retryWait)
	if !s.memory && now.Sub(s.failing) >= s.cfg.Degrade {
		s.log.Error("events are kept in memory under a new stream until the disk can be written", "err", err)
		s.memory = true
		s.rotateLocked("spool-lost")
		s.nextTry = now.Add(s.cfg.spill)
		s.kickFlusher()
	}
}

// renumberLocked appends records of another stream anew.
func (s *Spool) renumberLocked(records []byte) {
	scan(records, 1, func(_ uint64, data []byte, _ int) bool {
		e := &eventv1.Event{}
		if err := proto.Unmarshal(data[1:], e); err != nil {
			s.log.Error("event can't be moved to the new stream", "err", err)
			return true
		}
		if _, err := s.appendLocked(e); err != nil {
			s.log.Error("event can't be moved to the new stream", "err", err)
		}
		return true
	}, nil)
}

// activeLocked returns the segment that takes a group of the stream, or nil when a new one is needed.
func (s *Spool) activeLocked(stream StreamID, n int) *segment {
	if len(s.segs) == 0 {
		return nil
	}
	g := s.segs[len(s.segs)-1]
	limit := s.cfg.SegmentSize
	if s.memory {
		limit = memorySegment
	}
	if g.sealed || g.stream != stream || (g.path == "") != s.memory || (g.size > headerSize && g.size+int64(n) > limit) {
		return nil
	}
	return g
}

// writeGroup makes records durable and readable. On an error nothing of them is readable.
func (s *Spool) writeGroup(buf []byte, stream StreamID, last uint64) error {
	s.mu.Lock()
	g, memory := s.activeLocked(stream, len(buf)), s.memory
	s.mu.Unlock()
	first := binary.LittleEndian.Uint64(buf[8:])
	if memory {
		return s.writeMemory(g, buf, stream, first, last)
	}
	if g == nil || s.file == nil {
		return s.writeSegment(buf, stream, first, last)
	}
	_, err := s.cfg.write(s.file, buf)
	if err == nil {
		err = s.cfg.sync(s.file)
	}
	if err != nil {
		// After a failed sync the kernel may have thrown the pages away (fsync reports an error once): the file is left as it
		// is known to be, and the group is written anew elsewhere.
		s.abandon(g)
		return fmt.Errorf("write spool: %w", err)
	}
	s.mu.Lock()
	g.size += int64(len(buf))
	g.last = last
	g.stats = nil
	s.size += int64(len(buf))
	s.mu.Unlock()
	return nil
}

// abandon ends a segment whose file can't be trusted behind its durable size.
func (s *Spool) abandon(g *segment) {
	if err := s.file.Truncate(g.size); err != nil {
		s.log.Debug("segment can't be truncated after a failed write", "err", err)
	}
	s.file.Close() //nolint:errcheck // the error that matters is the write's
	s.file = nil
	s.mu.Lock()
	g.sealed = true
	s.mu.Unlock()
}

// writeSegment opens a new segment with the records in it.
func (s *Spool) writeSegment(buf []byte, stream StreamID, first, last uint64) error {
	s.mu.Lock()
	s.ordinal++
	ordinal := s.ordinal
	s.mu.Unlock()
	if s.file != nil {
		if err := s.file.Close(); err != nil {
			s.log.Warn("segment can't be closed", "err", err)
		}
		s.file = nil
	}
	g := &segment{
		ordinal: ordinal, stream: stream, first: first, last: last,
		size: int64(headerSize + len(buf)), path: filepath.Join(s.cfg.Dir, segmentName(ordinal, first, stream)),
	}
	f, err := s.create(g.path, encodeHeader(stream, first), buf)
	if err != nil {
		return fmt.Errorf("make segment: %w", err)
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		f.Close()         //nolint:errcheck // removed
		os.Remove(g.path) //nolint:errcheck // a leftover is recovered like any segment
		return err
	}
	s.file = f
	s.mu.Lock()
	if n := len(s.segs); n > 0 {
		s.segs[n-1].sealed = true
	}
	s.segs = append(s.segs, g)
	s.size += g.size
	s.trimLocked()
	s.mu.Unlock()
	return nil
}

// create writes a whole file and syncs it; on an error no file is left.
func (s *Spool) create(path string, parts ...[]byte) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if _, err = s.cfg.write(f, p); err != nil {
			break
		}
	}
	if err == nil {
		err = s.cfg.sync(f)
	}
	if err != nil {
		f.Close()       //nolint:errcheck // removed
		os.Remove(path) //nolint:errcheck // a leftover is recovered like any segment
		return nil, err
	}
	return f, nil
}

// writeMemory is writeGroup while the disk can't be written.
func (s *Spool) writeMemory(g *segment, buf []byte, stream StreamID, first, last uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var used int64
	for _, m := range s.segs {
		used += int64(len(m.mem))
	}
	if used+int64(len(buf)) > maxMemory {
		return errMemoryFull
	}
	if g == nil {
		if n := len(s.segs); n > 0 {
			s.segs[n-1].sealed = true
		}
		s.ordinal++
		g = &segment{ordinal: s.ordinal, stream: stream, first: first, size: headerSize, mem: make([]byte, headerSize, headerSize+len(buf))}
		s.segs = append(s.segs, g)
		s.size += headerSize
	}
	g.mem = append(g.mem, buf...)
	g.size += int64(len(buf))
	g.last = last
	s.size += int64(len(buf))
	return nil
}

// spill moves the segments in memory to the disk when it can be written again.
func (s *Spool) spill(now time.Time) {
	s.nextTry = now.Add(s.cfg.spill)
	s.mu.Lock()
	var mem []*segment
	var parts [][]byte
	for _, g := range s.segs {
		if g.path == "" {
			mem = append(mem, g)
			parts = append(parts, g.mem[headerSize:g.size])
		}
	}
	s.ordinal++
	ordinal, stream := s.ordinal, s.stream
	s.mu.Unlock()
	if len(mem) == 0 {
		// Nothing to save: leave memory mode when a file can be made at all.
		probe := filepath.Join(s.cfg.Dir, "probe.tmp")
		f, err := s.create(probe, magic)
		if err != nil {
			return
		}
		f.Close()        //nolint:errcheck // removed
		os.Remove(probe) //nolint:errcheck // removed at the next start
		s.endMemory(nil, nil)
		return
	}
	if mem[len(mem)-1].stream != stream || mem[0].stream != stream {
		return // a rotation is under way; the next try sees one stream
	}
	first := mem[0].first
	g := &segment{ordinal: ordinal, stream: stream, first: first, last: mem[len(mem)-1].last, path: filepath.Join(s.cfg.Dir, segmentName(ordinal, first, stream)), size: headerSize, sealed: true}
	for _, p := range parts {
		g.size += int64(len(p))
	}
	f, err := s.create(g.path, append([][]byte{encodeHeader(stream, first)}, parts...)...)
	if err != nil {
		return
	}
	f.Close() //nolint:errcheck // synced; appended to no more
	if err := syncDir(s.cfg.Dir); err != nil {
		return
	}
	s.endMemory(g, mem)
}

// endMemory replaces the segments in memory by g and lets the flusher write to the disk.
func (s *Spool) endMemory(g *segment, mem []*segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := s.segs[:0]
	for _, m := range s.segs {
		if m.path != "" {
			keep = append(keep, m)
			continue
		}
		s.size -= m.size
		m.gen++
	}
	clear(s.segs[len(keep):])
	s.segs = keep
	if g != nil {
		s.segs = append(s.segs, g)
		s.size += g.size
	}
	s.memory, s.failing, s.lastErr = false, time.Time{}, nil
	s.log.Info("spool can be written again", "events_saved", len(mem) > 0)
	s.trimLocked()
	s.wakeLocked()
}
