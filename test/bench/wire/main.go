// Command wire is the benchmark of the wire: `make bench-wire`. It runs wirelab's measurement of the program and the lab's tests
// that measure (both need root), holds the figures against the targets, prints ratios, writes out/bench/wire.json and draws
// docs/bench/wire.svg. The trap: absolute figures depend on the machine and on what else runs; compare ratios of one run.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/kadomori/kadomori/test/lab"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench-wire:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// target is what a figure must reach.
type target struct {
	name    string
	value   float64
	atLeast bool // else at most
	what    string
}

// The targets of the product: with 1 M prefixes, random keys, and everything loaded.
var targets = []target{
	{"miss_1m_ns", 100, false, "an unlisted source, 1 M prefixes, ns above an empty program"},
	{"hit_1m_ns", 350, false, "a listed source, 1 M prefixes"},
	{"miss_1m_v6_ns", 200, false, "the same, IPv6"},
	{"hit_1m_v6_ns", 700, false, "the same, IPv6"},
	{"cut_100k_ns", 250, false, "a packet of one of 100 k flows that are cut through"},
	{"xdpfilter_10k_vs_ours", 1, true, "flood of 10 k sources: xdp-filter's cost over ours"},
	{"nft_100k_vs_ours", 1, true, "flood of 100 k prefixes: nftables' cost over ours"},
	{"nft_1m_vs_ours", 1, true, "flood of 1 M prefixes: nftables' cost over ours"},
	{"cut_vs_bridge", 1, true, "throughput of cut-through over a Linux bridge's"},
	{"inspected_vs_bridge", 1.0 / 3, true, "throughput through the agent over a Linux bridge's"},
	{"gap_ms_sigkill", 100, false, "longest gap when the agent is killed, 1 GiB resident"},
	{"gap_ms_sigsegv", 100, false, "... when it crashes"},
	{"gap_ms_sigstop", 100, false, "... when it is stopped"},
	{"upgrade_lost_packets", 0, false, "packets lost at an update"},
	{"swap_1m_wrong_packets", 0, false, "packets judged wrongly while 1 M entries are replaced"},
	{"swap_1m_cpu_s", 1.5, false, "CPU time to replace 1 M entries"},
	{"swap_1m_peak_mb", 250, false, "memory at its peak meanwhile"},
}

func run(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("bench-wire", flag.ContinueOnError)
	root := fs.String("root", "..", "top folder of the repository")
	skipLab := fs.Bool("program-only", false, "measure the program, not the paths through namespaces")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if m := lab.Missing(); m != "" {
		return fmt.Errorf("%s is missing", m)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "bench-wire")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	wirelab := filepath.Join(dir, "wirelab")
	if err := start(ctx, filepath.Join(*root, "dataplane"), nil, "go", "build", "-o", wirelab, "./internal/xdp/wirelab"); err != nil {
		return fmt.Errorf("build wirelab: %w", err)
	}
	figures := map[string]float64{}
	_, _ = fmt.Fprintln(out, "the program, packet by packet ...")
	if err := program(ctx, wirelab, figures); err != nil {
		return fmt.Errorf("measure the program: %w", err)
	}
	var failed error // of the lab's tests: what was measured is written all the same
	if !*skipLab {
		_, _ = fmt.Fprintln(out, "paths, gaps and peers, in namespaces ...")
		if err := paths(ctx, filepath.Join(*root, "test"), filepath.Join(dir, "figures"), figures); err != nil {
			failed = fmt.Errorf("measure paths: %w", err)
		}
	}
	if err := write(*root, figures); err != nil {
		return err
	}
	_, err = out.Write(report(figures))
	return errors.Join(failed, err)
}

// program runs wirelab's own benchmark in a namespace.
func program(ctx context.Context, wirelab string, figures map[string]float64) error {
	l, err := lab.New("bench")
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // the figures count
	box, err := l.Host("box")
	if err != nil {
		return err
	}
	far, err := l.Host("far")
	if err != nil {
		return err
	}
	for _, name := range []string{"lan", "wan"} {
		if err := l.Link(lab.End{Host: far, Name: name}, lab.End{Host: box, Name: name}, lab.LinkOptions{}); err != nil {
			return err
		}
	}
	bpf, err := l.BPFFS()
	if err != nil {
		return err
	}
	var result struct {
		Above  map[string]float64 `json:"above_empty_ns"`
		Median map[string]float64 `json:"median_ns"`
		SwapMS float64            `json:"swap_1m_ms"`
		SwapS  float64            `json:"swap_1m_cpu_s"`
		MapMB  float64            `json:"map_1m_mb"`
		PeakMB float64            `json:"swap_1m_peak_mb"`
		Wrong  float64            `json:"swap_1m_wrong_packets"`
		During float64            `json:"swap_1m_packets"`
	}
	cmd := box.Command(ctx, wirelab, "bench", "-lan", "lan", "-wan", "wan", "-pin", filepath.Join(bpf, "k"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil {
		return err
	}
	for name, ns := range result.Above {
		figures[name+"_ns"] = ns
	}
	for name, ns := range result.Median {
		figures[name+"_with_harness_ns"] = ns
	}
	figures["swap_1m_ms"], figures["swap_1m_cpu_s"] = result.SwapMS, result.SwapS
	figures["map_1m_mb"], figures["swap_1m_peak_mb"] = result.MapMB, result.PeakMB
	figures["swap_1m_wrong_packets"], figures["swap_1m_packets"] = result.Wrong, result.During
	return nil
}

// paths runs the lab's tests that measure.
func paths(ctx context.Context, dir, file string, figures map[string]float64) error {
	testErr := start(ctx, dir, []string{"KADOMORI_FIGURES=" + file}, "go", "test", "-count=1", "-timeout", "30m",
		"-run", "TestWire(Survives|Upgrade|Speed|Flood)", "./lab")
	f, err := os.Open(file)
	if err != nil {
		return errors.Join(testErr, err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var one map[string]float64
		if err := json.Unmarshal(sc.Bytes(), &one); err != nil {
			return err
		}
		maps.Copy(figures, one)
	}
	return testErr
}

func start(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	return nil
}

func write(root string, figures map[string]float64) error {
	path := filepath.Join(root, "out", "bench", "wire.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return err
	}
	docs := filepath.Join(root, "docs", "bench")
	if err := os.MkdirAll(docs, 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "wire.svg"), chart(figures), 0o644) //nolint:gosec // a picture for everybody
}

// report is each target and whether it was reached, and then all figures.
func report(figures map[string]float64) []byte {
	var out bytes.Buffer
	for _, t := range targets {
		v, ok := figures[t.name]
		sign, reached := "<=", v <= t.value
		if t.atLeast {
			sign, reached = ">=", v >= t.value
		}
		verdict := "reached"
		switch {
		case !ok:
			verdict = "not measured"
		case !reached:
			verdict = "MISSED"
		}
		fmt.Fprintf(&out, "%-13s %-24s %10.4g %s %-7.4g %s\n", verdict, t.name, v, sign, t.value, t.what)
	}
	fmt.Fprintln(&out)
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		fmt.Fprintf(&out, "%-40s %10.4g\n", name, figures[name])
	}
	return out.Bytes()
}
