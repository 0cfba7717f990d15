package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// wireLab is a client and a server with a box between them, whose two ports are joined by nothing but the wire.
type wireLab struct {
	*Lab
	client, box, server *Host
	pin                 string
	program             string
}

const (
	clientAddr  = "10.7.0.1"
	serverAddr  = "10.7.0.2"
	clientAddr6 = "fd07::1"
	serverAddr6 = "fd07::2"
)

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wirelab")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "wirelab")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./internal/xdp/wirelab")
	cmd.Dir = "../../dataplane"
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build wirelab: %w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := buildOnce(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code) //nolint:forbidigo // TestMain is main
}

// labs numbers the labs of the process.
var labs atomic.Int32

func newWireLab(t testing.TB) *wireLab {
	t.Helper()
	if m := Missing(); m != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", m)
		}
		t.Skipf("%s is missing", m)
	}
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(fmt.Sprint("wire", labs.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &wireLab{Lab: l, program: bin}
	for name, h := range map[string]**Host{"client": &w.client, "box": &w.box, "server": &w.server} {
		if *h, err = l.Host(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range [][2]End{
		{{Host: w.client, Name: "eth0", Addresses: []string{clientAddr + "/24", clientAddr6 + "/64"}}, {Host: w.box, Name: "lan"}},
		{{Host: w.server, Name: "eth0", Addresses: []string{serverAddr + "/24", serverAddr6 + "/64"}}, {Host: w.box, Name: "wan"}},
	} {
		if err := l.Link(link[0], link[1], LinkOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	bpf, err := l.BPFFS()
	if err != nil {
		t.Fatal(err)
	}
	w.pin = filepath.Join(bpf, "kadomori")
	return w
}

// agent is a wirelab process on the box.
type agent struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	done  <-chan struct{}
	lines chan agentLine
	err   *strings.Builder
}

// agentLine is what of wirelab's lines the tests read.
type agentLine struct {
	Event  string          `json:"event"`
	Error  string          `json:"error"`
	TookMS float64         `json:"took_ms"`
	Status *agentStatus    `json:"status"`
	Flows  *agentFlows     `json:"flows"`
	Drop   json.RawMessage `json:"drop"`

	Unprotected struct {
		From, To time.Time
		Cause    string
	} `json:"unprotected"`
}

type agentCount struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

type agentStatus struct {
	Ports []struct {
		Name     string     `json:"name"`
		Attach   string     `json:"attach"`
		Handler  agentCount `json:"handler"`
		Cut      agentCount `json:"cut"`
		Stale    agentCount `json:"stale"`
		NoSocket agentCount `json:"no_socket"`
		Bypass   agentCount `json:"bypass"`
		Dropped  agentCount `json:"dropped"`
		Lost     uint64     `json:"socket_lost"`

		FailsOpen bool `json:"fails_open"`
	} `json:"ports"`
	Drops []struct {
		Reason string `json:"reason"`
		List   string `json:"list"`
		agentCount
	} `json:"drops"`
	Loop struct {
		Handled      agentCount `json:"handled"`
		BacklogBytes uint64     `json:"backlog_bytes"`
		Cuts         uint64     `json:"cuts"`
		ForcedCuts   uint64     `json:"forced_cuts"`
	} `json:"loop"`
	Flows       int64         `json:"flows"`
	Unprotected time.Duration `json:"unprotected"`
}

type agentFlows struct {
	Packets, Bytes [3]uint64
	Records, Ended uint64
}

// startAgent starts wirelab and waits until packets reach it.
func (w *wireLab) startAgent(t testing.TB, args ...string) *agent {
	t.Helper()
	a := w.launchAgent(t, args...)
	a.wait("ready")
	return a
}

// launchAgent starts wirelab.
func (w *wireLab) launchAgent(t testing.TB, args ...string) *agent {
	t.Helper()
	a := &agent{t: t, lines: make(chan agentLine, 1024), err: &strings.Builder{}}
	a.cmd = w.box.Command(context.Background(), w.program, append([]string{"-lan", "lan", "-wan", "wan", "-pin", w.pin}, args...)...)
	a.cmd.Stderr = a.err
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if a.in, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(a.lines)
		sc := bufio.NewScanner(out)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			var l agentLine
			if err := json.Unmarshal(sc.Bytes(), &l); err == nil {
				a.lines <- l
			}
		}
	}()
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		<-read // Wait closes the pipe
		_ = a.cmd.Wait()
		close(done)
	}()
	a.done = done
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		<-done
	})
	return a
}

// wait reads lines up to one of the event.
func (a *agent) wait(event string) agentLine {
	a.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case l, ok := <-a.lines:
			if !ok {
				a.t.Fatalf("the agent ended before %q: %s", event, a.err)
			}
			if l.Event == "error" {
				a.t.Fatalf("the agent says: %s", l.Error)
			}
			if l.Event == event {
				return l
			}
		case <-deadline:
			a.t.Fatalf("no %q from the agent in 30 s: %s", event, a.err)
		}
	}
}

// tell sends a command and waits for its answer.
func (a *agent) tell(command, answer string) agentLine {
	a.t.Helper()
	if _, err := io.WriteString(a.in, command+"\n"); err != nil {
		a.t.Fatal(err)
	}
	return a.wait(answer)
}

// stop ends the agent in order and returns its last line: all its flow records, and its last status.
func (a *agent) stop() agentLine {
	a.t.Helper()
	a.signal(syscall.SIGTERM)
	l := a.wait("done")
	<-a.done
	if code := a.cmd.ProcessState.ExitCode(); code != 0 {
		a.t.Fatalf("the agent ended with %d: %s", code, a.err)
	}
	return l
}

func (a *agent) signal(s syscall.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Fatal(err)
	}
}

// probe sends a numbered datagram from client to server and back at each interval, and knows which came back and the longest
// time in which none did.
type probe struct {
	conn     net.Conn
	echo     net.PacketConn
	interval time.Duration
	stopSend chan struct{}
	wg       sync.WaitGroup
	sent     atomic.Uint64
	got      atomic.Uint64
	gap      atomic.Int64 // ns, longest
}

func (w *wireLab) startProbe(t testing.TB, interval time.Duration) *probe {
	t.Helper()
	echo, err := w.server.ListenPacket(t.Context(), "udp4", serverAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := echo.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(b[:n], from)
		}
	}()
	conn, err := w.client.Dial(t.Context(), "udp4", echo.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{conn: conn, echo: echo, interval: interval, stopSend: make(chan struct{})}
	p.wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		b := make([]byte, 172) // as a voice packet of 20 ms
		for {
			select {
			case <-p.stopSend:
				return
			case <-tick.C:
				if _, err := conn.Write(b); err == nil {
					p.sent.Add(1)
				}
			}
		}
	})
	p.wg.Go(func() {
		b := make([]byte, 2048)
		last := time.Now()
		for {
			if _, err := conn.Read(b); err != nil {
				return
			}
			now := time.Now()
			if d := now.Sub(last); int64(d) > p.gap.Load() {
				p.gap.Store(int64(d))
			}
			last = now
			p.got.Add(1)
		}
	})
	p.waitFor(t, 10)
	p.gap.Store(0)
	return p
}

// waitFor waits until n more answers have come.
func (p *probe) waitFor(t testing.TB, n uint64) {
	t.Helper()
	want := p.got.Load() + n
	until(t, fmt.Sprintf("%d answers to the probe", n), func() bool { return p.got.Load() >= want })
}

// longestGap is the longest time without an answer since the last call.
func (p *probe) longestGap() time.Duration { return time.Duration(p.gap.Swap(0)) }

// stop ends the probe and returns what was lost and the longest gap.
func (p *probe) stop(t testing.TB) (lost uint64, gap time.Duration) {
	t.Helper()
	close(p.stopSend)
	deadline := time.Now().Add(300 * time.Millisecond)
	waitUntil(deadline, func() bool { return p.got.Load() >= p.sent.Load() })
	_ = p.conn.Close()
	_ = p.echo.Close()
	p.wg.Wait()
	sent, got := p.sent.Load(), p.got.Load()
	if got > sent {
		t.Errorf("%d answers to %d probes", got, sent)
		return 0, time.Duration(p.gap.Load())
	}
	return sent - got, time.Duration(p.gap.Load())
}

// transfer sends size bytes from server to client over one TCP connection, as fast as limit (bytes a second) allows, and
// reports on the channel.
func (w *wireLab) transfer(t testing.TB, size, limit int) <-chan error {
	t.Helper()
	ln, err := w.server.Listen(t.Context(), "tcp4", serverAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		const chunk = 64 << 10
		b := make([]byte, chunk)
		tick := time.NewTicker(time.Second * chunk / time.Duration(limit))
		defer tick.Stop()
		for sent := 0; sent < size; sent += chunk {
			<-tick.C
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	conn, err := w.client.Dial(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(60 * time.Second))
		n, err := io.Copy(io.Discard, conn)
		if err == nil && n < int64(size) {
			err = fmt.Errorf("%d of %d bytes", n, size)
		}
		done <- err
	}()
	return done
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !waitUntil(time.Now().Add(20*time.Second), cond) {
		t.Fatalf("waited 20 s for %s", what)
	}
}

// waitUntil asks every millisecond.
func waitUntil(deadline time.Time, cond func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}

// reach says if the server answers a ping of the client.
func (w *wireLab) reach(address string) bool {
	return w.client.Run("ping", "-n", "-c1", "-W1", address) == nil
}

var errTimeout = errors.New("no end of the transfer in 90 s")

func waitTransfer(done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-time.After(90 * time.Second):
		return errTimeout
	}
}
