package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// figuresFile is where the benchmark (test/bench/wire) collects what these tests measure, one JSON object a line. Without it
// the tests are short, and only ask whether all this works.
var figuresFile = os.Getenv("KADOMORI_FIGURES")

// figure notes a measured number.
func figure(t testing.TB, name string, value float64) {
	t.Helper()
	t.Logf("%s = %.4g", name, value)
	if figuresFile == "" {
		return
	}
	f, err := os.OpenFile(figuresFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := json.NewEncoder(f).Encode(map[string]float64{name: value}); err != nil {
		t.Fatal(err)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// span is a time for the benchmark, and a short one for the test.
func span(long time.Duration) time.Duration {
	if figuresFile == "" {
		return long / 10
	}
	return long
}

// throughput is what one TCP stream from server to client carries, in Mbit/s.
func (w *wireLab) throughput(t testing.TB, d time.Duration) float64 {
	t.Helper()
	ln, err := w.server.Listen(t.Context(), "tcp4", serverAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 256<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	c, err := w.client.Dial(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 256<<10)
	read := func(until time.Time) (n int64) {
		_ = c.SetReadDeadline(until)
		for {
			k, err := c.Read(b)
			n += int64(k)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	read(time.Now().Add(d / 5)) // the window opens, the flow is cut
	start := time.Now()
	n := read(start.Add(d))
	return float64(n) * 8 / 1e6 / time.Since(start).Seconds()
}

// roundTrips are the times of an echo over UDP, the median and the 99th of a hundred, in ms.
func (w *wireLab) roundTrips(t testing.TB, d time.Duration) (p50, p99 float64) {
	t.Helper()
	echo, err := w.server.ListenPacket(t.Context(), "udp4", serverAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
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
	c, err := w.client.Dial(t.Context(), "udp4", echo.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var times []float64
	b := make([]byte, 64)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < d; {
		sent := time.Now()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(sent.Add(time.Second))
		if _, err := c.Read(b); err == nil {
			times = append(times, milliseconds(time.Since(sent)))
		}
		<-tick.C
	}
	if len(times) == 0 {
		t.Fatal("no answer")
	}
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100]
}

// load sends datagrams from client to server at about 200 Mbit/s until stopped.
func (w *wireLab) load(t testing.TB) (stop func()) {
	t.Helper()
	sink, err := w.server.ListenPacket(t.Context(), "udp4", serverAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, readFrom{sink}) }()
	c, err := w.client.Dial(t.Context(), "udp4", sink.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 1400)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				for range 18 {
					_, _ = c.Write(b)
				}
			}
		}
	}()
	return func() {
		close(done)
		<-ended
		_ = c.Close()
		_ = sink.Close()
	}
}

type readFrom struct{ net.PacketConn }

func (r readFrom) Read(b []byte) (int, error) {
	n, _, err := r.ReadFrom(b)
	return n, err
}

// TestWireSpeed compares what is cut through, what goes through the agent, and a plain Linux bridge, in the same namespaces.
func TestWireSpeed(t *testing.T) {
	w := newWireLab(t)
	rates := map[string]float64{}
	measure := func(name string) {
		var rounds []float64
		for range 3 {
			rounds = append(rounds, w.throughput(t, span(3*time.Second)))
		}
		slices.Sort(rounds)
		rates[name] = rounds[1]
		figure(t, name+"_mbit", rounds[1])
		p50, p99 := w.roundTrips(t, span(4*time.Second))
		figure(t, name+"_rtt_p50_ms", p50)
		figure(t, name+"_rtt_p99_ms", p99)
		stop := w.load(t)
		p50, p99 = w.roundTrips(t, span(4*time.Second))
		stop()
		figure(t, name+"_rtt_p50_loaded_ms", p50)
		figure(t, name+"_rtt_p99_loaded_ms", p99)
	}
	run := func(args ...string) {
		t.Helper()
		if err := w.box.Run(args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	// A bridge as it comes: its ports are veths without GRO.
	if err := w.box.Bridge("br0"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"lan", "wan"} {
		run("ethtool", "-K", p, "gro", "off")
		run("ip", "link", "set", p, "master", "br0")
	}
	measure("bridge")
	run("ip", "link", "del", "br0")

	a := w.startAgent(t, "-cut-after", "10")
	measure("cut")
	if s := a.tell("status", "status").Status; s.Ports[1].Cut.Packets == 0 {
		t.Error("nothing was cut through")
	}
	a.stop()
	a = w.startAgent(t)
	measure("inspected")
	a.stop()
	figure(t, "cut_vs_bridge", rates["cut"]/rates["bridge"])
	figure(t, "inspected_vs_bridge", rates["inspected"]/rates["bridge"])
}

// flood measures what one packet of a flood costs, generator included, in ns of CPU time. The flood has random sources out of
// the list and comes in at port wan of the box.
func (w *wireLab) flood(t testing.TB, list string) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := w.server.Command(ctx, w.program, "flood", "-dev", "eth0", "-list", list).Output()
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		NS float64 `json:"ns"`
	}
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatal(err)
	}
	return f.NS
}

// list makes a file of n random prefixes, or single addresses.
func (w *wireLab) list(t testing.TB, n int, hosts bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	args := []string{"list", "-n", fmt.Sprint(n), "-o", path}
	if hosts {
		args = append(args, "-hosts")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, w.program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// nft loads a ruleset that drops the list at the ingress of port wan, the earliest that nftables can.
func (w *wireLab) nft(t testing.TB, list string) {
	t.Helper()
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	elements := strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
	rules := "table netdev flood { set blocked { type ipv4_addr; flags interval; auto-merge; elements = { " + elements + " } }\n" +
		"chain in { type filter hook ingress device \"wan\" priority 0; ip saddr @blocked counter drop\n}\n}\n"
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := w.box.Command(ctx, "nft", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

// ours is what the flood costs when our program drops it.
func ours(t *testing.T, list string) float64 {
	w := newWireLab(t)
	a := w.startAgent(t)
	a.tell("block-file "+list, "set")
	ns := w.flood(t, list)
	if s := a.tell("status", "status").Status; s.Ports[1].Dropped.Packets == 0 {
		t.Error("the flood was not dropped")
	}
	a.stop()
	return ns
}

func needFigures(t *testing.T) {
	t.Helper()
	if figuresFile == "" {
		t.Skip("KADOMORI_FIGURES is missing: the benchmark runs this")
	}
}

// TestWireFloodAgainstNFTables drops the same floods by our program and by an interval set of nftables.
func TestWireFloodAgainstNFTables(t *testing.T) {
	needFigures(t)
	lists := newWireLab(t)
	for _, n := range []int{100_000, 1_000_000} {
		size := map[int]string{100_000: "100k", 1_000_000: "1m"}[n]
		list := lists.list(t, n, false)
		own := ours(t, list)
		figure(t, "flood_ours_"+size+"_ns", own)
		w := newWireLab(t)
		w.nft(t, list)
		peer := w.flood(t, list)
		figure(t, "flood_nft_"+size+"_ns", peer)
		figure(t, "nft_"+size+"_vs_ours", peer/own)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestWireFloodAgainstXDPFilter drops the same flood by our program and by xdp-filter, which holds 10,000 addresses at most.
func TestWireFloodAgainstXDPFilter(t *testing.T) {
	needFigures(t)
	lists := newWireLab(t)
	hosts := lists.list(t, 10_000, true)
	own := ours(t, hosts)
	figure(t, "flood_ours_10k_ns", own)
	w := newWireLab(t)
	// xdp-filter wants its maps in /sys/fs/bpf: a private mount, which goes with the shell; the program stays on the port.
	script := "mount -t bpf bpf /sys/fs/bpf && xdp-filter load wan -m native -f ipv4 -p allow && exec \"$0\" xdp-filter-fill -list \"$1\""
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := w.box.Command(ctx, "unshare", "-m", "sh", "-c", script, w.program, hosts).CombinedOutput(); err != nil {
		t.Fatalf("xdp-filter: %v: %s", err, out)
	}
	peer := w.flood(t, hosts)
	figure(t, "flood_xdpfilter_10k_ns", peer)
	figure(t, "xdpfilter_10k_vs_ours", peer/own)
}
