package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// makeRoom drops the least valuable events until need bytes are free below what is used now. It declares the gaps first, so
// that a power cut between the two leaves a gap declared too early (late events close it) and never one undeclared.
// Classes above top are spared. Only the flusher calls it. It returns whether anything was freed.
func (s *Spool) makeRoom(need int64, top byte) bool {
	var freed int64
	for class := byte(0); class <= top && freed < need; class++ {
		for freed < need {
			g := s.victim(class)
			if g == nil {
				break
			}
			n, err := s.evict(g, class)
			if err != nil {
				s.log.Error("events can't be evicted", "file", filepath.Base(g.path), "err", err)
				break
			}
			freed += n
		}
	}
	s.keepReserve()
	return freed > 0
}

// reservePath is a file whose blocks are given up when the disk is so full that a segment can't be rewritten.
func (s *Spool) reservePath() string { return filepath.Join(s.cfg.Dir, "reserve") }

// keepReserve makes the reserve when it is missing and there is room.
func (s *Spool) keepReserve() {
	f, err := os.OpenFile(s.reservePath(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it exists, or the disk takes nothing now
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, s.cfg.SegmentSize)
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(s.reservePath()) //nolint:errcheck // tried again at the next eviction
	}
}

func (s *Spool) releaseReserve() bool { return os.Remove(s.reservePath()) == nil }

// victim returns the oldest sealed segment in which records of up to class take a share that is worth a rewrite (1/32, so
// that freeing a byte never costs more than 32 written). The active segment is spared while there is another.
func (s *Spool) victim(class byte) *segment {
	s.mu.Lock()
	segs := slices.DeleteFunc(slices.Clone(s.segs), func(g *segment) bool {
		return g.path == "" || !g.sealed || g.size <= headerSize
	})
	s.mu.Unlock()
	for _, g := range segs {
		st, err := s.count(g)
		if err != nil {
			s.log.Error("segment can't be counted", "file", filepath.Base(g.path), "err", err)
			continue
		}
		var b int64
		for c := byte(0); c <= class; c++ {
			b += st.bytes[c]
		}
		if b > 0 && b >= g.size/32 {
			return g
		}
	}
	return nil
}

// count returns what a sealed segment holds.
func (s *Spool) count(g *segment) (*classStats, error) {
	if g.stats != nil {
		return g.stats, nil
	}
	b, err := g.load(g.size)
	if err != nil && len(b) == 0 {
		return nil, err
	}
	st := &classStats{}
	scan(b, g.first, func(_ uint64, data []byte, _ int) bool {
		st.events[data[0]]++
		st.bytes[data[0]] += int64(recordSize + len(data))
		return true
	}, nil)
	g.stats = st
	return st, nil
}

// evict rewrites a segment without the records of up to class, or removes it when none is left.
func (s *Spool) evict(g *segment, class byte) (int64, error) {
	b, err := g.load(g.size)
	if err != nil && len(b) == 0 {
		return 0, err
	}
	s.mu.Lock()
	committed := s.committed[g.stream]
	s.mu.Unlock()
	var keep []byte
	var gaps []dropped
	last := g.first - 1
	scan(b, g.first, func(seq uint64, data []byte, at int) bool {
		if seq > g.last {
			return false
		}
		switch {
		case seq <= committed: // the centre has it: no gap, nothing to keep
		case data[0] > class:
			keep = append(keep, b[at:at+recordSize+len(data)]...)
			last = seq
		default:
			gaps = addDropped(gaps, last, seq, data)
		}
		return true
	}, nil)
	// The new file first: what can't be rewritten is not dropped, and must not be declared again at each try.
	tmp, err := s.rewrite(g, keep)
	if errors.Is(err, syscall.ENOSPC) && s.releaseReserve() {
		tmp, err = s.rewrite(g, keep)
	}
	if err != nil {
		return 0, err
	}
	s.declareDropped(g, gaps)
	return s.replace(g, tmp, len(keep))
}

// dropped is a run of evicted numbers with no kept one between.
type dropped struct {
	from, to, keptBefore uint64
	kinds                map[string]uint64
}

func addDropped(gaps []dropped, kept, seq uint64, data []byte) []dropped {
	kind := "unknown"
	e := &eventv1.Event{}
	if proto.Unmarshal(data[1:], e) == nil {
		kind, _, _ = kindOf(e)
	}
	if n := len(gaps); n > 0 && gaps[n-1].keptBefore == kept {
		gaps[n-1].to = seq
		gaps[n-1].kinds[kind]++
		return gaps
	}
	return append(gaps, dropped{from: seq, to: seq, keptBefore: kept, kinds: map[string]uint64{kind: 1}})
}

// declareDropped appends the gaps and waits until they are durable. A gap of an older stream can't be declared in this one.
func (s *Spool) declareDropped(g *segment, gaps []dropped) {
	if len(gaps) == 0 {
		return
	}
	s.mu.Lock()
	for _, d := range gaps {
		for _, n := range d.kinds {
			s.stats.dropped += n
		}
		if g.stream == s.stream {
			s.gapLocked(d.from, d.to, "full", d.kinds)
		} else {
			s.log.Error("events of an ended stream were dropped", "from", d.from, "to", d.to)
		}
	}
	s.mu.Unlock()
	if err := s.writePending(time.Now()); err != nil {
		// The disk has no room even for the gap events. They wait in memory; going on frees the room they need.
		s.log.Debug("gap events wait for room", "err", err)
	}
}

// removeWhole removes a segment of which nothing is kept; the last one stays, because it carries stream and number.
func (s *Spool) removeWhole(g *segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.segs, g)
	if i < 0 || i+1 == len(s.segs) {
		return false
	}
	s.segs = slices.Delete(s.segs, i, i+1)
	s.removeLocked(g)
	return true
}

// rewrite writes what is kept of a segment beside it.
func (s *Spool) rewrite(g *segment, keep []byte) (string, error) {
	tmp := g.path + ".tmp"
	os.Remove(tmp) //nolint:errcheck // of an interrupted eviction
	f, err := s.create(tmp, encodeHeader(g.stream, g.first), keep)
	if err != nil {
		return "", fmt.Errorf("rewrite segment: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("close segment: %w", err)
	}
	return tmp, nil
}

// replace swaps a segment's file for the rewritten one with kept bytes of records, or removes both when there is none.
func (s *Spool) replace(g *segment, tmp string, kept int) (int64, error) {
	old := g.size
	if kept == 0 && s.removeWhole(g) {
		os.Remove(tmp) //nolint:errcheck // removed at the next start at the latest
		return old, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.segs, g) {
		os.Remove(tmp) //nolint:errcheck // committed meanwhile; removed at the next start at the latest
		return old, nil
	}
	if err := os.Rename(tmp, g.path); err != nil {
		return 0, fmt.Errorf("rename segment: %w", err)
	}
	g.size = int64(headerSize + kept)
	g.gen++
	g.stats = nil
	s.size += g.size - old
	if err := syncDir(s.cfg.Dir); err != nil {
		return old - g.size, err
	}
	return old - g.size, nil
}
