package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, cfg Config) *Spool {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Delay == 0 {
		cfg.Delay = time.Millisecond
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func health(n uint64) *eventv1.Event {
	return &eventv1.Event{Body: &eventv1.Event_Health{Health: &eventv1.Health{PacketsSeen: n, Version: strings.Repeat("v", int(n%50))}}}
}

func traffic(size int) *eventv1.Event {
	return &eventv1.Event{Body: &eventv1.Event_Traffic{Traffic: &eventv1.Traffic{Rows: []*eventv1.Traffic_Row{{App: strings.Repeat("a", size)}}}}}
}

func detection(sev eventv1.Severity) *eventv1.Event {
	return &eventv1.Event{Body: &eventv1.Event_Detection{Detection: &eventv1.Detection{Detector: "D12-address", Severity: sev}}}
}

func fill(t testing.TB, s *Spool, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.Append(health(uint64(i))); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			syncNow(t, s) // ends the group, so that segments can end too
		}
	}
	syncNow(t, s)
}

func syncNow(t testing.TB, s *Spool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

type read struct {
	stream StreamID
	seq    uint64
	ev     *eventv1.Event
}

// readAll returns what a fresh reader gets until nothing new comes for the durable end.
func readAll(t testing.TB, s *Spool) []read {
	t.Helper()
	r := s.NewReader()
	defer r.Close()
	var out []read
	for {
		s.mu.Lock()
		more := r.seekLocked() != nil
		s.mu.Unlock()
		if !more {
			return out
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		b, err := r.Next(ctx, 64, 64<<10)
		cancel()
		if err != nil {
			return out
		}
		for _, e := range b.Events {
			ev := &eventv1.Event{}
			if err := proto.Unmarshal(e.Data, ev); err != nil {
				t.Fatalf("event %d: %v", e.Seq, err)
			}
			if ev.GetSeq() != e.Seq {
				t.Fatalf("event %d says %d", e.Seq, ev.GetSeq())
			}
			out = append(out, read{b.Stream, e.Seq, ev})
		}
	}
}

// account checks that every number of the newest stream up to the last one was read or is in a declared gap, exactly once.
func account(t testing.TB, got []read) (missing map[uint64]bool) {
	t.Helper()
	missing = map[uint64]bool{}
	if len(got) == 0 {
		t.Fatal("nothing was read")
	}
	stream, seen, top := got[len(got)-1].stream, map[uint64]bool{}, uint64(0)
	for _, r := range got {
		if r.stream != stream {
			continue
		}
		if seen[r.seq] || r.seq <= top {
			t.Fatalf("event %d was read twice or out of order", r.seq)
		}
		seen[r.seq], top = true, r.seq
	}
	declared := map[uint64]bool{}
	for _, r := range got {
		if g := r.ev.GetSpoolGap(); g != nil && r.stream == stream {
			for n := g.GetFromSeq(); n <= g.GetToSeq(); n++ {
				declared[n] = true
			}
		}
	}
	for n := uint64(1); n <= top; n++ {
		if !seen[n] {
			missing[n] = true
			if !declared[n] {
				t.Errorf("event %d is missing and no gap declares it", n)
			}
		} else if declared[n] {
			t.Errorf("event %d was read and is declared lost", n)
		}
	}
	return missing
}

func TestSpoolGivesBackWhatItTookInOrder(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir, SegmentSize: 4 << 10})
	fill(t, s, 500)
	if got := readAll(t, s); len(got) != 501 || len(account(t, got)) != 0 || got[0].ev.GetStreamStart().GetReason() != "enrolled" {
		t.Fatalf("read %d events, want 501 with a stream start", len(got))
	}
	stream := s.Stream()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir, SegmentSize: 4 << 10})
	if s.Stream() != stream {
		t.Error("stream changed over a restart")
	}
	fill(t, s, 10)
	if got := readAll(t, s); len(got) != 511 || len(account(t, got)) != 0 {
		t.Fatalf("after a restart read %d events, want 511", len(got))
	}
}

func TestOnlyTheCommittedWatermarkTrims(t *testing.T) {
	s := open(t, Config{SegmentSize: 2 << 10})
	fill(t, s, 200)
	before := s.Stats()
	r := s.NewReader()
	defer r.Close()
	for n := 0; n < 200; {
		b, err := r.Next(t.Context(), 64, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		n += len(b.Events)
	}
	if after := s.Stats(); after.Segments != before.Segments {
		t.Fatal("reading trimmed the spool")
	}
	s.Committed(StreamID{1}, 150)
	if after := s.Stats(); after.Segments != before.Segments {
		t.Fatal("the watermark of another stream trimmed the spool")
	}
	s.Committed(s.Stream(), 150)
	after := s.Stats()
	if after.Segments >= before.Segments || after.Depth != 51 || after.Bytes >= before.Bytes {
		t.Fatalf("after commit: %+v, before: %+v", after, before)
	}
	r.Rewind()
	if b, err := r.Next(t.Context(), 1, 1); err != nil || b.Events[0].Seq != 151 {
		t.Fatalf("rewind begins at %v, %v, want 151", b.Events, err)
	}
}

func TestOrderSurvivesATornWriteAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	fill(t, s, 12)
	stream := s.Stream()
	s.Close()
	name := segmentName(1, 1, stream)
	whole, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, fillZero := range []bool{false, true} {
		for cut := range whole {
			d := t.TempDir()
			torn := bytes.Clone(whole[:cut])
			if fillZero {
				torn = append(torn, make([]byte, len(whole)-cut)...)
			}
			if err := os.WriteFile(filepath.Join(d, name), torn, 0o600); err != nil {
				t.Fatal(err)
			}
			kept := 0
			scan(torn[min(headerSize, len(torn)):], 1, func(uint64, []byte, int) bool { kept++; return true }, nil)
			s, err := Open(Config{Dir: d, Delay: time.Millisecond})
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			if s.Stream() != stream {
				t.Fatalf("cut at %d: stream changed", cut)
			}
			fill(t, s, 3)
			got := readAll(t, s)
			missing := account(t, got)
			if !fillZero && len(missing) != 0 || len(missing) > 1 {
				t.Fatalf("cut at %d: %d events missing", cut, len(missing))
			}
			if len(got) < kept+3 {
				t.Fatalf("cut at %d: read %d events, want %d", cut, len(got), kept+3)
			}
			s.Close()
		}
	}
}

func TestBitRotIsSteppedOverAndReported(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir, SegmentSize: 2 << 10})
	fill(t, s, 120)
	stream := s.Stream()
	s.Close()
	names, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if len(names) < 3 {
		t.Fatalf("%d segments, want at least 3", len(names))
	}
	for _, name := range []string{names[1], names[len(names)-1]} {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 7 {
			rot := bytes.Clone(whole)
			rot[at] ^= 0x41
			if err := os.WriteFile(name, rot, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			d := t.TempDir()
			if err := os.CopyFS(d, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			s, err := Open(Config{Dir: d, SegmentSize: 2 << 10, Delay: time.Millisecond, Log: hclog.New(&hclog.LoggerOptions{Output: &log})})
			if err != nil {
				t.Fatalf("rot at %d: %v", at, err)
			}
			if s.Stream() != stream {
				t.Fatalf("rot at %d: stream changed", at)
			}
			readAll(t, s) // meets the damage and declares it
			fill(t, s, 2)
			got := readAll(t, s)
			if n := len(account(t, got)); n > 2 {
				t.Fatalf("rot of one byte at %d lost %d events", at, n)
			} else if n > 0 && at >= headerSize && (s.Stats().Corrupt == 0 || strings.Count(log.String(), "damaged") == 0 || !strings.Contains(log.String(), "lost_from=")) {
				t.Fatalf("rot at %d: lost %d events, log:\n%s", at, n, log.String())
			}
			s.Close()
		}
		os.WriteFile(name, whole, 0o600)
	}
}

func TestFullSpoolDropsByValueAndDeclaresIt(t *testing.T) {
	s := open(t, Config{SegmentSize: 64 << 10, Limit: 256 << 10})
	detections := map[uint64]bool{}
	for i := range 6000 {
		ev := traffic(150)
		if i%50 == 0 {
			ev = detection(eventv1.Severity_SEVERITY_HIGH)
		}
		seq, err := s.Append(ev)
		if err != nil {
			t.Fatal(err)
		}
		if ev.GetDetection() != nil {
			detections[seq] = true
		}
		if i%200 == 0 {
			syncNow(t, s)
		}
	}
	syncNow(t, s)
	waitFor(t, "room below the limit", func() bool { return s.Stats().Bytes <= 256<<10 })
	if st := s.Stats(); st.Dropped == 0 || st.Gaps == 0 {
		t.Fatalf("stats %+v", st)
	}
	got := readAll(t, s)
	missing := account(t, got)
	for n := range missing {
		if detections[n] {
			t.Fatalf("detection %d was dropped while traffic was kept", n)
		}
	}
	var kinds uint64
	for _, r := range got {
		kinds += r.ev.GetSpoolGap().GetKinds()["traffic"]
	}
	if kinds != uint64(len(missing)) || kinds != s.Stats().Dropped {
		t.Errorf("gaps name %d events, %d are missing, %d were counted", kinds, len(missing), s.Stats().Dropped)
	}
}

func TestReaderFollowsWhileSegmentsAreEvictedAndCommitted(t *testing.T) {
	s := open(t, Config{SegmentSize: 16 << 10, Limit: 64 << 10})
	const total = 3000
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		for i := range total {
			ev := traffic(100)
			if i%3 == 0 {
				ev = health(uint64(i))
			}
			if _, err := s.Append(ev); err != nil {
				t.Error(err)
			}
			if i%100 == 0 {
				s.Sync(ctx)
			}
		}
		s.Append(&eventv1.Event{Body: &eventv1.Event_SelfTest{SelfTest: &eventv1.SelfTest{Passed: true}}})
	}()
	r := s.NewReader()
	defer r.Close()
	seen, gaps := map[uint64]bool{}, map[uint64]bool{}
	var last uint64
	for done := false; !done; {
		b, err := r.Next(ctx, 64, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			ev := &eventv1.Event{}
			if err := proto.Unmarshal(e.Data, ev); err != nil {
				t.Fatal(err)
			}
			if seen[e.Seq] || e.Seq <= last {
				t.Fatalf("%d twice or out of order", e.Seq)
			}
			seen[e.Seq], last = true, e.Seq
			for n := ev.GetSpoolGap().GetFromSeq(); n > 0 && n <= ev.GetSpoolGap().GetToSeq(); n++ {
				gaps[n] = true
			}
			done = done || ev.GetSelfTest() != nil
		}
		if last%5 == 0 {
			s.Committed(b.Stream, last)
		}
	}
	syncNow(t, s)
	for _, g := range readAll(t, s) {
		for n := g.ev.GetSpoolGap().GetFromSeq(); n > 0 && n <= g.ev.GetSpoolGap().GetToSeq(); n++ {
			gaps[n] = true
		}
	}
	for n := uint64(1); n <= last; n++ {
		if !seen[n] && !gaps[n] {
			t.Errorf("%d neither read nor declared", n)
		}
	}
}

func TestUrgentEventsDoNotWaitForTheGroup(t *testing.T) {
	s := open(t, Config{Delay: time.Hour})
	r := s.NewReader()
	defer r.Close()
	if _, err := s.Append(health(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(detection(eventv1.Severity_SEVERITY_HIGH)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for n := 0; n < 3; {
		b, err := r.Next(ctx, 64, 1<<20)
		if err != nil {
			t.Fatalf("after %d events: %v", n, err)
		}
		n += len(b.Events)
	}
}

func TestOverflowOfAQueueBecomesADeclaredGap(t *testing.T) {
	s := open(t, Config{})
	fill(t, s, 3)
	s.Skip("queue", map[string]uint64{"alert": 5, "block": 2})
	fill(t, s, 3)
	if missing := account(t, readAll(t, s)); len(missing) != 7 {
		t.Errorf("%d events missing, want the 7 declared", len(missing))
	}
}

func TestFullDiskLosesNothingThatFits(t *testing.T) {
	var full atomic.Bool
	s := open(t, Config{Degrade: time.Hour, write: func(f *os.File, b []byte) (int, error) {
		if full.Load() {
			return 0, syscall.ENOSPC
		}
		return f.Write(b)
	}})
	fill(t, s, 10)
	full.Store(true)
	for i := range 10 {
		s.Append(health(uint64(i)))
	}
	waitFor(t, "the error in the state", func() bool { return errors.Is(s.Stats().Err, syscall.ENOSPC) })
	if got := readAll(t, s); len(got) != 11 {
		t.Fatalf("%d events readable while the disk is full, want the 11 that are durable", len(got))
	}
	full.Store(false)
	syncNow(t, s)
	if got := readAll(t, s); len(got) != 21 || len(account(t, got)) != 0 {
		t.Fatalf("%d events, want 21", len(got))
	}
}

func TestFailedSyncIsNotTrusted(t *testing.T) {
	var bad atomic.Bool
	s := open(t, Config{Degrade: time.Hour, sync: func(f *os.File) error {
		if bad.Swap(false) {
			return syscall.EIO
		}
		return fdatasync(f)
	}})
	fill(t, s, 10)
	bad.Store(true)
	fill(t, s, 10)
	if st := s.Stats(); st.Segments != 2 {
		t.Errorf("%d segments, want a second one after a failed sync", st.Segments)
	}
	if got := readAll(t, s); len(got) != 21 || len(account(t, got)) != 0 {
		t.Fatalf("%d events, want 21", len(got))
	}
}

func TestBrokenDiskKeepsEventsInMemoryUnderANewStream(t *testing.T) {
	dir := t.TempDir()
	var broken atomic.Bool
	s := open(t, Config{Dir: dir, Degrade: time.Millisecond, write: func(f *os.File, b []byte) (int, error) {
		if broken.Load() {
			return 0, syscall.EROFS
		}
		return f.Write(b)
	}})
	fill(t, s, 10)
	old := s.Stream()
	broken.Store(true)
	s.Append(detection(eventv1.Severity_SEVERITY_CRITICAL))
	waitFor(t, "memory mode", func() bool { return s.Stats().Memory })
	fill(t, s, 5)
	got := readAll(t, s)
	var oldN, newN int
	for _, r := range got {
		if r.stream == old {
			oldN++
		} else {
			newN++
		}
	}
	if oldN != 11 || newN != 7 || s.Stream() == old {
		t.Fatalf("%d events of the old stream and %d of the new one, want 11 and 7", oldN, newN)
	}
	account(t, got)
	broken.Store(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir})
	if again := readAll(t, s); len(again) != len(got) {
		t.Fatalf("after the disk was back and a restart: %d events, want %d", len(again), len(got))
	}
}

func TestUnknownHighWatermarkStartsANewStream(t *testing.T) {
	s := open(t, Config{})
	fill(t, s, 5)
	old := s.Stream()
	s.Committed(old, 1000)
	fill(t, s, 5)
	if s.Stream() == old {
		t.Fatal("stream goes on with numbers that the centre already holds")
	}
	got := readAll(t, s)
	if len(got) != 6 || got[0].seq != 1 || !bytes.Equal(got[0].ev.GetStreamStart().GetPreviousStreamId(), old[:]) {
		t.Fatalf("read %d events, first %v", len(got), got[0].ev)
	}
}

func TestSecondProcessIsKeptOut(t *testing.T) {
	s := open(t, Config{})
	if _, err := Open(Config{Dir: s.cfg.Dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second Open: %v", err)
	}
}

func TestTooLargeEventUsesNoNumber(t *testing.T) {
	s := open(t, Config{})
	if _, err := s.Append(traffic(MaxEvent + 1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("Append = %v", err)
	}
	fill(t, s, 1)
	if got := readAll(t, s); len(got) != 2 {
		t.Fatalf("%d events", len(got))
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("no %s within 20 s", what)
		case <-tick.C:
		}
	}
}

func FuzzScan(f *testing.F) {
	var whole []byte
	for seq := uint64(1); seq < 5; seq++ {
		at := len(whole)
		whole = append(whole, make([]byte, recordSize)...)
		whole = append(whole, classAlert)
		whole = append(whole, fmt.Sprint("event ", seq)...)
		sealRecord(whole, at, seq)
	}
	f.Add(whole, uint64(1))
	f.Add(whole[:len(whole)-3], uint64(1))
	f.Add(append([]byte{1, 2, 3}, whole...), uint64(1))
	f.Add(binary.LittleEndian.AppendUint32(nil, MaxEvent), uint64(9))
	f.Fuzz(func(t *testing.T, b []byte, first uint64) {
		if first == 0 {
			first = 1
		}
		last := first - 1
		end := scan(b, first, func(seq uint64, data []byte, at int) bool {
			if seq <= last || len(data) == 0 || at+recordSize+len(data) > len(b) {
				t.Fatalf("record %d at %d after %d", seq, at, last)
			}
			last = seq
			return true
		}, func(d damage, next uint64) {
			if d.length <= 0 || next <= d.after {
				t.Fatalf("damage %+v next %d", d, next)
			}
		})
		if end > len(b) {
			t.Fatal("end behind the input")
		}
		rotted(b)
		decodeHeader(b)
	})
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, Config{Delay: 100 * time.Millisecond})
	ev := traffic(400)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Append(ev); err != nil {
			b.Fatal(err)
		}
	}
	s.Sync(context.Background())
	b.ReportMetric(float64(s.Stats().Dropped), "dropped")
}
