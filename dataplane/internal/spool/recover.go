package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// recover reads the directory and makes the spool ready to append. Only the last segment is read whole: the others were
// synced before the next one began. It runs before any other goroutine.
func (s *Spool) recover() {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, err := s.list()
	if err != nil {
		s.log.Error("spool can't be read, a new stream begins in memory", "dir", s.cfg.Dir, "err", err)
		s.memory, s.lastErr = true, err
		s.newStreamLocked("spool-lost", StreamID{})
		return
	}
	s.headers(names)
	var damages []gap
	for i, g := range s.segs {
		s.size += g.size
		if i+1 < len(s.segs) && s.segs[i+1].stream == g.stream {
			g.last = max(s.segs[i+1].first, 1) - 1
			continue
		}
		damages = append(damages, s.recoverEnd(g, i+1 == len(s.segs))...)
	}
	if len(s.segs) == 0 {
		s.newStreamLocked(s.cfg.Reason, StreamID{})
		return
	}
	active := s.segs[len(s.segs)-1]
	s.stream, s.next = active.stream, active.last+1
	if err := s.reopen(active); err != nil {
		s.log.Error("spool can't be written", "file", filepath.Base(active.path), "err", err)
		active.sealed = true
		s.lastErr = err
		s.memory = true
		s.newStreamLocked("spool-lost", active.stream)
	}
	for _, d := range damages {
		s.stats.corrupt += d.to - d.from + 1
		if d.stream == s.stream {
			s.gapLocked(d.from, d.to, "corrupt", nil)
		}
	}
}

// gap is a run of numbers that can't be read.
type gap struct {
	stream   StreamID
	from, to uint64
}

// list returns the segments' names in order and removes what an interrupted eviction left.
func (s *Spool) list() ([]string, error) {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list spool: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			os.Remove(filepath.Join(s.cfg.Dir, e.Name())) //nolint:errcheck // tried again at the next start
		}
		if _, _, _, ok := parseSegmentName(e.Name()); ok && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// headers fills segs from the names and compares the headers with them.
func (s *Spool) headers(names []string) {
	for _, name := range names {
		ordinal, first, stream, _ := parseSegmentName(name)
		g := &segment{ordinal: ordinal, stream: stream, first: first, last: first - 1, path: filepath.Join(s.cfg.Dir, name), sealed: true}
		s.ordinal = max(s.ordinal, ordinal)
		head := make([]byte, headerSize)
		size, err := readHead(g.path, head)
		g.size = size
		if err == nil {
			var headStream StreamID
			var headFirst uint64
			headStream, headFirst, err = decodeHeader(head)
			if err == nil && (headFirst != first || headStream != stream) {
				err = errors.New("header and name differ")
			}
		}
		if err != nil && size >= headerSize {
			g.badHead = true
			s.log.Error("spool segment has a damaged header, its name is used instead", "file", name, "err", err)
		}
		s.segs = append(s.segs, g)
	}
}

func readHead(path string, head []byte) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat segment: %w", err)
	}
	if _, err := f.ReadAt(head, 0); err != nil {
		return st.Size(), fmt.Errorf("read header: %w", err)
	}
	return st.Size(), nil
}

// recoverEnd finds the last number of a stream's last segment. Only the active one is repaired.
func (s *Spool) recoverEnd(g *segment, active bool) []gap {
	if g.size < headerSize {
		// The file was made and the power went before its header was on disk.
		g.last = g.first - 1
		if active {
			g.size = 0
		}
		return nil
	}
	b, err := g.load(g.size)
	if err != nil {
		// What lies behind an unreadable block is gone; numbers up to there may have been sent, so none is used again.
		s.log.Error("spool segment can't be read to its end", "file", filepath.Base(g.path), "err", err)
	}
	var gaps []gap
	last := g.first - 1
	end := scan(b, g.first, func(seq uint64, _ []byte, _ int) bool { last = seq; return true }, func(d damage, next uint64) {
		s.log.Error("spool segment is damaged", "file", filepath.Base(g.path), "offset", d.offset, "bytes", d.length,
			"lost_from", d.after+1, "lost_to", next-1)
		if next > d.after+1 {
			gaps = append(gaps, gap{g.stream, d.after + 1, next - 1})
		}
	})
	g.last = last
	if tail := b[end:]; len(tail) > 0 || err != nil {
		if n := rotted(tail); n > 0 || err != nil {
			n = max(n, 1)
			s.log.Error("spool segment is damaged at its end", "file", filepath.Base(g.path), "offset", headerSize+end,
				"bytes", len(tail), "lost_from", last+1, "lost_to", last+n)
			gaps = append(gaps, gap{g.stream, last + 1, last + n})
			g.last = last + n
		} else if active {
			s.log.Info("torn end of the spool cut off", "file", filepath.Base(g.path), "offset", headerSize+end, "bytes", len(tail))
		}
	}
	if active {
		g.size = int64(headerSize + end)
	}
	return gaps
}

// rotted tells a tail that was once whole from one that was torn by a power cut: 0 for torn (shorter than its records say, or
// zeros that the file system put there), else how many records it held.
func rotted(tail []byte) uint64 {
	var n uint64
	for len(tail) > 0 {
		if allZero(tail) {
			return n
		}
		_, _, _, _, need := decodeRecord(tail)
		switch {
		case need == 0: // its length is impossible: damaged, and no telling where the next one begins
			return n + 1
		case need > len(tail):
			return n
		}
		tail = tail[need:]
		n++
	}
	return n
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// reopen makes the last segment active again, cutting off what is torn.
func (s *Spool) reopen(g *segment) error {
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	fail := func(verb string, err error) error {
		return errors.Join(fmt.Errorf("%s segment: %w", verb, err), f.Close())
	}
	if g.size < headerSize || g.badHead {
		g.size = max(g.size, headerSize)
		if _, err := f.WriteAt(encodeHeader(g.stream, g.first), 0); err != nil {
			return fail("write header of", err)
		}
	}
	if err := f.Truncate(g.size); err != nil {
		return fail("truncate", err)
	}
	if err := s.cfg.sync(f); err != nil {
		return fail("sync", err)
	}
	if _, err := f.Seek(g.size, 0); err != nil {
		return fail("seek in", err)
	}
	s.file = f
	g.sealed = false
	return nil
}
