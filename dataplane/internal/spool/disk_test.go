package spool

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// needRoot skips, and fails where everything should be there.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root to mount")
	}
	t.Skip("needs root to mount")
}

// volume mounts a small file system of its own.
func volume(t *testing.T, size string) string {
	t.Helper()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "vol")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("spool-test", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") != "true" {
			t.Skipf("can't mount: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestARealFullDisk lets something else fill the volume that the spool lies on.
func TestARealFullDisk(t *testing.T) {
	dir := volume(t, "4m")
	s := open(t, Config{Dir: filepath.Join(dir, "spool"), SegmentSize: 128 << 10, Limit: 64 << 20, Degrade: time.Hour})
	severe := map[uint64]bool{}
	grow := func(n int) {
		for i := range n {
			ev := traffic(400)
			if i%40 == 0 {
				ev = detection(eventv1.Severity_SEVERITY_HIGH)
			}
			seq, err := s.Append(ev)
			if err != nil {
				t.Fatal(err)
			}
			if ev.GetDetection() != nil {
				severe[seq] = true
			}
			if i%100 == 99 {
				syncNow(t, s)
			}
		}
	}
	grow(2000)
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 64<<10)
	for {
		if _, err := f.Write(chunk); err != nil {
			break // full
		}
	}
	f.Close()
	grow(4000)
	got := readAll(t, s)
	missing := account(t, got)
	if len(missing) == 0 || s.Stats().Dropped == 0 {
		t.Fatalf("nothing was dropped on a full disk: %+v", s.Stats())
	}
	for n := range missing {
		if severe[n] {
			t.Fatalf("detection %d was dropped while traffic was kept", n)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	grow(500)
	account(t, readAll(t, s))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: filepath.Join(dir, "spool"), SegmentSize: 128 << 10, Limit: 64 << 20})
	account(t, readAll(t, s))
}

// TestARealReadOnlyDisk is what a flash with errors becomes: the kernel mounts it read-only.
func TestARealReadOnlyDisk(t *testing.T) {
	dir := volume(t, "16m")
	var log bytes.Buffer
	cfg := Config{Dir: filepath.Join(dir, "spool"), Degrade: time.Millisecond, spill: 10 * time.Millisecond, Log: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Error})}
	s := open(t, cfg)
	fill(t, s, 20)
	old := s.Stream()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	s = open(t, cfg)
	s.Append(detection(eventv1.Severity_SEVERITY_CRITICAL))
	fill(t, s, 5)
	if st := s.Stats(); !st.Memory || s.Stream() == old || st.Err == nil {
		t.Fatalf("on a read-only disk: %+v", st)
	}
	count := map[StreamID]int{}
	for _, r := range readAll(t, s) {
		count[r.stream]++
	}
	if count[old] != 21 || count[s.Stream()] != 7 {
		t.Errorf("read %v, want 21 of the old stream and 7 of the new one", count)
	}
	if n := strings.Count(log.String(), "[ERROR]"); n == 0 || n > 4 {
		t.Errorf("%d errors logged:\n%s", n, log.String())
	}
	remount(0)
	waitFor(t, "the disk in use again", func() bool {
		s.Append(health(1))
		return !s.Stats().Memory
	})
	account(t, readAll(t, s))
}

// TestSpoolSurvivesSIGKILL kills a process in the middle of writing and looks at what it told to be durable.
func TestSpoolSurvivesSIGKILL(t *testing.T) {
	dir := os.Getenv("KADOMORI_SPOOL_CHILD")
	if dir != "" {
		s, err := Open(Config{Dir: dir, SegmentSize: 32 << 10, Delay: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			s.Append(health(uint64(i)))
			if i%50 == 0 {
				if err := s.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				os.Stdout.WriteString("durable\n")
			}
		}
	}
	dir = t.TempDir()
	var told, before int
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestSpoolSurvivesSIGKILL$")
		cmd.Env = append(os.Environ(), "KADOMORI_SPOOL_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		told = 0
		for range 20 + round*7 {
			if _, err := out.Read(b); err != nil {
				t.Fatal(err)
			}
			told++
		}
		cmd.Process.Kill()
		cmd.Wait()
		s := open(t, Config{Dir: dir, SegmentSize: 32 << 10})
		got := readAll(t, s)
		if missing := account(t, got); len(missing) != 0 {
			t.Fatalf("round %d: %d events missing after SIGKILL", round, len(missing))
		}
		if least := before + (told-1)*50; len(got) < least {
			t.Fatalf("round %d: %d events, at least %d were told to be durable", round, len(got), least)
		}
		before = len(got)
		s.Close()
	}
}

// TestFullDiskWithNothingLeftToKeep: the only segment holds nothing but what the centre has, and then the disk is full.
func TestFullDiskWithNothingLeftToKeep(t *testing.T) {
	for _, committed := range []bool{true, false} {
		var full atomic.Bool
		s := open(t, Config{Degrade: time.Hour, write: func(f *os.File, b []byte) (int, error) {
			if full.Load() && !strings.HasSuffix(f.Name(), ".tmp") {
				return 0, syscall.ENOSPC
			}
			return f.Write(b)
		}})
		for range 50 {
			s.Append(traffic(100))
		}
		syncNow(t, s)
		if committed {
			s.Committed(s.Stream(), 51)
		}
		full.Store(true)
		s.Append(traffic(100))
		waitFor(t, "the error in the state", func() bool { return errors.Is(s.Stats().Err, syscall.ENOSPC) })
		full.Store(false)
		s.Append(detection(eventv1.Severity_SEVERITY_HIGH))
		syncNow(t, s)
		got := readAll(t, s)
		last := got[len(got)-1]
		if last.ev.GetDetection() == nil && last.ev.GetSpoolGap() == nil {
			t.Errorf("committed %v: last event read is %v", committed, last.ev)
		}
		s.Close()
	}
}
