package demo

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kadomori/kadomori/test/lab"
)

// testWriter sends the demo's progress to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// start brings a demo up to the point where devices have their addresses, and takes it down when the test ends.
func start(t *testing.T, clinics int) (context.Context, *run) {
	t.Helper()
	missing := lab.Missing()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "kadomori-agent")); err != nil {
		missing = "bin/kadomori-agent (make build)"
	}
	for _, p := range []string{"dnsmasq", "udhcpc", "nmap", "dig", "curl"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = p
		}
	}
	if missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("missing: %s", missing)
		}
		t.Skipf("missing: %s", missing)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	d := &run{
		cfg: Config{Clinics: clinics, Bin: bin, Out: t.TempDir(), Output: testWriter{t}},
		p:   newProgress(testWriter{t}, false), fail: func(err error) { cancel(err) },
	}
	d.out = d.cfg.Out
	t.Cleanup(func() {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			t.Errorf("a program ended: %v", cause)
		}
		cancel(nil)
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(d.state, "log", "*.log"))
			for _, l := range logs {
				t.Logf("%s:\n%s", filepath.Base(l), lastLines(l, 25))
			}
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	for _, step := range []func(context.Context, note) error{d.buildWorld, d.startControl, d.writePolicy, d.enrol, d.lease} {
		if err := step(ctx, func(string, ...any) {}); err != nil {
			t.Fatal(err)
		}
	}
	return ctx, d
}

// probe sends a UDP datagram every 5 ms from a device through the wire to a host outside, which answers, and measures the
// longest time without an answer.
type probe struct {
	sent, answered atomic.Int64
	gap            atomic.Int64 // nanoseconds
}

const probeEvery = 5 * time.Millisecond

func startProbe(ctx context.Context, t *testing.T, d *device, server *lab.Host, addr string) *probe {
	t.Helper()
	l, err := server.ListenPacket(ctx, "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = l.WriteTo(buf[:n], from)
		}
	}()
	conn, err := d.host.Dial(ctx, "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &probe{}
	go func() {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		var b [8]byte
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			binary.BigEndian.PutUint64(b[:], uint64(p.sent.Add(1)))
			_, _ = conn.Write(b[:])
		}
	}()
	go func() {
		last := time.Time{}
		buf := make([]byte, 64)
		for {
			if _, err := conn.Read(buf); err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue // ICMP errors of a moment without a path
			}
			now := time.Now()
			if !last.IsZero() {
				if gap := int64(now.Sub(last)); gap > p.gap.Load() {
					p.gap.Store(gap)
				}
			}
			last = now
			p.answered.Add(1)
		}
	}()
	return p
}

// agentPID finds the agent's own process: nsenter has become it.
func (d *run) agentPID(ctx context.Context, c *clinic) (int, error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "pids", filepath.Base(c.box.Netns())).Output()
	if err != nil {
		return 0, err
	}
	for f := range strings.FieldsSeq(string(out)) {
		exe, err := os.Readlink("/proc/" + f + "/exe")
		if err == nil && filepath.Base(exe) == "kadomori-agent" {
			return strconv.Atoi(f)
		}
	}
	return 0, fmt.Errorf("no agent in the appliance of %s", c.name)
}

// A clinic's transfer goes on when the agent is killed in the middle of it; the gap that a 5 ms probe sees is printed.
func TestFlowTransferOutlivesTheAgent(t *testing.T) {
	ctx, d := start(t, 1)
	c := d.world.clinics[0]
	d.programs.doomed.Store(fmt.Sprintf("agent-%d", c.n), true)
	p := startProbe(ctx, t, c.reception, d.world.internet, webIP+":9999")

	const size = 60_000_000
	cmd := c.reception.host.Command(ctx, "curl", "--silent", "--show-error", "--fail", "--max-time", "60", "--limit-rate", "20M",
		"--output", "/dev/null", "--write-out", "%{size_download}\n", fmt.Sprintf("http://%s/file/%d", webIP, size))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid, err := d.agentPID(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := until(ctx, 10*time.Second, "the probe to be answered", func() error {
		if p.answered.Load() < 200 {
			return fmt.Errorf("%d answers", p.answered.Load())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before := time.Duration(p.gap.Swap(0))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if werr := cmd.Wait(); werr != nil {
		t.Fatalf("the transfer broke: %v", werr)
	}
	if err != nil || strings.TrimSpace(line) != strconv.Itoa(size) {
		t.Fatalf("transferred %q bytes, want %d (%v)", strings.TrimSpace(line), size, err)
	}
	gap := time.Duration(p.gap.Load())
	t.Logf("longest gap of a %s probe: %s before, %s after SIGKILL; %d of %d probes answered", probeEvery, before, gap,
		p.answered.Load(), p.sent.Load())
	fmt.Printf("MEASURED gap after SIGKILL of the agent: %s (probe every %s)\n", gap, probeEvery) //nolint:forbidigo // a figure for whoever runs the tests
}

// The centre, with its NATS and its database, is dead for 30 s while a clinic works and is attacked. Afterwards every event
// that the box has numbered is in the table exactly once.
func TestFlowEveryEventArrivesOnceAfterAnOutage(t *testing.T) {
	ctx, d := start(t, 1)
	c := d.world.clinics[0]
	work := func(ctx context.Context) error {
		if err := c.everyday(ctx); err != nil {
			return err
		}
		return d.world.attack(ctx, c)
	}
	if err := work(ctx); err != nil {
		t.Fatal(err)
	}
	before, err := d.programs.agentStatus(ctx, c)
	if err != nil {
		t.Fatal(err)
	}

	restart, err := d.programs.killControl(ctx)
	if err != nil {
		t.Fatal(err)
	}
	outage, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	rounds := 0
	for outage.Err() == nil {
		if err := work(outage); err != nil && outage.Err() == nil {
			t.Fatalf("the clinic doesn't work while the centre is away: %v", err)
		}
		rounds++
	}
	during, err := d.programs.agentStatus(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if during.LastSeq <= before.LastSeq {
		t.Fatalf("no event was stated during the outage: %d, then %d", before.LastSeq, during.LastSeq)
	}
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	if err := d.settle(ctx, func(string, ...any) {}); err != nil {
		t.Fatal(err)
	}
	s := d.summary
	t.Logf("%d rounds of work during the outage, events %d to %d stated in it; %d emitted, %d stored, %d duplicates, %d lost", rounds,
		before.LastSeq+1, during.LastSeq, s.EventsEmitted, s.EventsStored, s.Duplicates, s.Lost)
	if s.EventsStored != s.EventsEmitted || s.Duplicates != 0 || s.Lost != 0 {
		t.Errorf("emitted %d, stored %d, duplicates %d, lost %d", s.EventsEmitted, s.EventsStored, s.Duplicates, s.Lost)
	}
	got, err := d.infected(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, c.infected()) {
		t.Errorf("under suspicion %v, want %v", got, c.infected())
	}
}
