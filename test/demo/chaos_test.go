//go:build chaos

package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// TestChaos lets clinics work for CHAOS_SECONDS (default 240, at most 600) while programs are killed, lines cut and slowed, and a box's disk is full, in an order
// that CHAOS_SEED decides. Afterwards every number that a box gave must be in the table once, or be told as dropped by the box.
func TestChaos(t *testing.T) {
	seed, err := strconv.ParseUint(cmpOr(os.Getenv("CHAOS_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatalf("CHAOS_SEED: %v", err)
	}
	seconds, err := strconv.Atoi(cmpOr(os.Getenv("CHAOS_SECONDS"), "240"))
	if err != nil || seconds < 30 || seconds > 600 {
		t.Fatalf("CHAOS_SECONDS %d is outside 30 to 600", seconds)
	}
	ctx, d := start(t, 2)
	for _, c := range d.world.clinics {
		d.programs.doomed.Store(fmt.Sprintf("agent-%d", c.n), true)
	}
	d.programs.doomed.Store("control", true)
	x := &chaos{t: t, d: d, rnd: rand.New(rand.NewPCG(seed, 0)), counts: map[string]int{}} //nolint:gosec // a seed must repeat
	t.Cleanup(x.mend)

	// Clinics work all the time; what fails in their traffic is not what is asked here.
	workCtx, stopWork := context.WithCancel(ctx)
	var working sync.WaitGroup
	for _, c := range d.world.clinics {
		working.Go(func() {
			for workCtx.Err() == nil {
				_ = c.everyday(workCtx)
				_ = d.world.attack(workCtx, c)
			}
		})
	}
	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		x.strike(ctx)
		x.rest(ctx, time.Duration(2+x.rnd.IntN(6))*time.Second)
	}
	stopWork()
	working.Wait()
	x.mend()
	if err := x.verdict(ctx, seed); err != nil {
		x.dump(ctx)
		t.Fatal(err)
	}
}

// dump has the agents write what each goroutine does, and keeps all logs in CHAOS_DUMP, if that is set.
func (x *chaos) dump(ctx context.Context) {
	dir := os.Getenv("CHAOS_DUMP")
	if dir == "" {
		return
	}
	for _, c := range x.d.world.clinics {
		if pid, err := x.d.agentPID(ctx, c); err == nil {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
	}
	x.rest(ctx, 2*time.Second)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(x.d.state, "log"))); err != nil {
		x.t.Logf("keep logs: %v", err)
	}
}

func cmpOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// chaos is one run.
type chaos struct {
	t      *testing.T
	d      *run
	rnd    *rand.Rand
	counts map[string]int
	undo   []func()
	full   map[int]bool
}

// mend takes everything back that a strike left behind.
func (x *chaos) mend() {
	for i := len(x.undo) - 1; i >= 0; i-- {
		x.undo[i]()
	}
	x.undo = nil
}

func (x *chaos) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// strike does one harm and, unless it is a kill that something mends by itself, takes it back after a while.
func (x *chaos) strike(ctx context.Context) {
	c := x.d.world.clinics[x.rnd.IntN(len(x.d.world.clinics))]
	harms := []struct {
		name string
		do   func(context.Context, *clinic) error
	}{
		{"agent killed", x.killAgent},
		{"control with NATS and ingest killed", x.killControl},
		{"postgres killed", x.killPostgres},
		{"line cut", x.cutLine},
		{"line slow, with loss, reordering and duplicates", x.slowLine},
		{"disk full", x.fillDisk},
	}
	h := harms[x.rnd.IntN(len(harms))]
	if err := h.do(ctx, c); err != nil {
		if ctx.Err() == nil {
			x.t.Errorf("%s: %v", h.name, err)
		}
		return
	}
	x.counts[h.name]++
	x.t.Logf("%s (%s)", h.name, c.name)
}

func (x *chaos) killAgent(ctx context.Context, c *clinic) error {
	pid, err := x.d.agentPID(ctx, c)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	if err := until(ctx, 10*time.Second, "the agent to be gone", func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return errors.New("still there")
		}
		return nil
	}); err != nil {
		return err
	}
	x.rest(ctx, time.Duration(x.rnd.IntN(3000))*time.Millisecond)
	return x.startAgent(ctx, c)
}

func (x *chaos) startAgent(ctx context.Context, c *clinic) error {
	_, _, err := x.d.programs.start(ctx, c.box, fmt.Sprintf("agent-%d", c.n), "kadomori-agent", "run", "--config", x.d.programs.agentConfig(c))
	return err
}

// killControl leaves the database running, so that the next start must adopt it; ingest dies between commit and acknowledgement as often as not.
func (x *chaos) killControl(ctx context.Context, _ *clinic) error {
	p := x.d.programs
	if err := p.control.Process.Kill(); err != nil {
		return err
	}
	select {
	case <-p.controlDone:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := os.Remove(filepath.Join(p.state, "control", "ready")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	x.rest(ctx, time.Duration(x.rnd.IntN(8000))*time.Millisecond)
	return p.startControl(ctx)
}

func (x *chaos) killPostgres(_ context.Context, _ *clinic) error {
	files, err := filepath.Glob(filepath.Join(x.d.programs.state, "control", "*", "data", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("find the database: %v, %w", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil // the control plane starts it again
}

// uplink is the box's interface towards the centre.
func uplink(c *clinic) (string, error) {
	out, err := c.box.Output("ip", "-o", "route", "get", mspIP)
	if err != nil {
		return "", err
	}
	f := strings.Fields(out)
	for i := range f {
		if f[i] == "dev" && i+1 < len(f) {
			return f[i+1], nil
		}
	}
	return "", fmt.Errorf("no way to the centre in %q", out)
}

func (x *chaos) cutLine(ctx context.Context, c *clinic) error {
	if err := c.box.Run("ip", "route", "add", "blackhole", mspIP+"/32"); err != nil {
		return err
	}
	x.rest(ctx, time.Duration(1000+x.rnd.IntN(9000))*time.Millisecond)
	return c.box.Run("ip", "route", "del", "blackhole", mspIP+"/32")
}

func (x *chaos) slowLine(ctx context.Context, c *clinic) error {
	dev, err := uplink(c)
	if err != nil {
		return err
	}
	if err := c.box.Run("tc", "qdisc", "add", "dev", dev, "root", "netem", "rate", "512kbit", "delay", "120ms", "40ms", "loss", "3%", "duplicate", "2%", "reorder", "10%"); err != nil {
		// A kernel without netem: a token bucket is still slow.
		if err := c.box.Run("tc", "qdisc", "add", "dev", dev, "root", "tbf", "rate", "256kbit", "burst", "8kb", "latency", "800ms"); err != nil {
			return err
		}
	}
	x.rest(ctx, time.Duration(3000+x.rnd.IntN(9000))*time.Millisecond)
	return c.box.Run("tc", "qdisc", "del", "dev", dev, "root")
}

// fillDisk moves the box's spool to a small volume (once) and fills that for a while.
func (x *chaos) fillDisk(ctx context.Context, c *clinic) error {
	dir := filepath.Join(x.d.programs.agentDir(c), "spool")
	if x.full == nil {
		x.full = map[int]bool{}
	}
	if !x.full[c.n] {
		pid, err := x.d.agentPID(ctx, c)
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		if err := until(ctx, 10*time.Second, "the agent to be gone", func() error {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return errors.New("still there")
			}
			return nil
		}); err != nil {
			return err
		}
		old := dir + ".old"
		if err := os.Rename(dir, old); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m,mode=0700"); err != nil {
			return err
		}
		x.t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		if err := os.CopyFS(dir, os.DirFS(old)); err != nil {
			return err
		}
		x.full[c.n] = true
		if err := x.startAgent(ctx, c); err != nil {
			return err
		}
		x.rest(ctx, 2*time.Second)
	}
	ballast := filepath.Join(dir, "ballast")
	x.undo = append(x.undo, func() { _ = os.Remove(ballast) })
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	_ = f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	x.rest(ctx, time.Duration(3000+x.rnd.IntN(6000))*time.Millisecond)
	return os.Remove(ballast)
}

// verdict waits until the centre has what the boxes have, compares the numbers, and prints the last line.
func (x *chaos) verdict(ctx context.Context, seed uint64) error {
	marks := map[int32]agentStatus{}
	if err := until(ctx, 60*time.Second, "the boxes to answer", func() error {
		for _, c := range x.d.world.clinics {
			s, err := x.d.programs.agentStatus(ctx, c)
			if err != nil {
				return err
			}
			marks[s.ApplianceID] = s
		}
		return nil
	}); err != nil {
		return err
	}
	var emitted, stored, dups, declared, undeclared uint64
	err := until(ctx, 3*time.Minute, "the database to hold every event", func() error {
		var ledger operatorv1.GetLedgerResponse
		if err := x.d.programs.operator(ctx, &ledger, "ledger"); err != nil {
			return err
		}
		emitted, stored, dups, declared, undeclared = 0, 0, 0, 0, 0
		seen := map[int32]bool{}
		for _, s := range ledger.GetStreams() {
			m := marks[s.GetApplianceId()]
			if strings.ReplaceAll(m.StreamID, "-", "") == strings.ReplaceAll(s.GetStreamId(), "-", "") {
				seen[s.GetApplianceId()] = true
				if s.GetCommittedThrough() < m.LastSeq {
					return fmt.Errorf("appliance %d: %d of %d", s.GetApplianceId(), s.GetCommittedThrough(), m.LastSeq)
				}
			}
			emitted += s.GetHighest()
			stored += s.GetStored()
			dups += s.GetDuplicates()
			declared += s.GetLostDeclared()
			undeclared += s.GetLostUndeclared()
		}
		if len(seen) != len(marks) {
			return fmt.Errorf("%d of %d boxes have sent", len(seen), len(marks))
		}
		return nil
	})
	word := "PASS"
	if err != nil || dups != 0 || undeclared != 0 || emitted != stored+declared {
		word = "FAIL"
	}
	var harms []string
	for name, n := range x.counts {
		harms = append(harms, fmt.Sprintf("%s %d", name, n))
	}
	x.t.Logf("harms: %s", strings.Join(harms, "; "))
	fmt.Printf("CHAOS %s seed=%d emitted=%d stored=%d dropped_by_box=%d duplicates=%d lost=%d\n", word, seed, emitted, stored, declared, dups, undeclared) //nolint:forbidigo // the verdict
	if word == "FAIL" {
		if b, rerr := os.ReadFile(filepath.Join(x.d.state, "log", "control.log")); rerr == nil {
			for line := range strings.Lines(string(b)) {
				if strings.Contains(line, "dead letter") || strings.Contains(line, "panic") {
					x.t.Log(strings.TrimSpace(line))
				}
			}
		}
	}
	if err == nil && word == "FAIL" {
		err = errors.New("rows and numbers differ")
	}
	return err
}
