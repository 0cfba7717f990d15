// Command inspect measures the inspector on one core beside nDPI's own reader: packets and bits a second with no rules and
// with a full rule set, memory, allocations, compile time. `make bench-inspect` runs it. The trap: it measures CPU seconds of
// the process, not wall time, so that a busy machine does not blur the ratio; the ratio to ndpiReader in the same run is
// what to compare between machines.
package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

// result is out/bench/inspect.json.
type result struct {
	Traffic             string  `json:"traffic"` // "corpus" or "generated"
	Packets             uint64  `json:"packets"`
	Bytes               uint64  `json:"bytes"`
	Flows               uint64  `json:"flows"`
	KppsNoRules         float64 `json:"kpps_norules"`
	KppsFullRules       float64 `json:"kpps_fullrules"`
	MbitNoRules         float64 `json:"mbit_s_norules"`
	MbitFullRules       float64 `json:"mbit_s_fullrules"`
	KppsNDPIReader      float64 `json:"kpps_ndpireader"`
	NoRulesVsNDPI       float64 `json:"norules_vs_ndpireader"`
	FullRulesVsNDPI     float64 `json:"fullrules_vs_ndpireader"`
	AllocsPerPacket     float64 `json:"allocs_per_packet"` // of the whole offline run, set-up of flows included
	PeakMBNoRules       float64 `json:"peak_mb_norules"`
	PeakMBFullRules     float64 `json:"peak_mb_fullrules"`
	PeakMBPer100kFlows  float64 `json:"peak_mb_per_100k_flows"`
	CompileSecondsFull  float64 `json:"compile_s_fullrules"`
	LoadCachedSeconds   float64 `json:"load_cached_s"`
	RulesSkippedBecause string  `json:"rules_skipped_because,omitempty"`
}

// measured is what `kadomori-agent inspect --measure` writes.
type measured struct {
	Packets         uint64  `json:"packets"`
	Bytes           uint64  `json:"bytes"`
	Flows           uint64  `json:"flows"`
	CPUSeconds      float64 `json:"cpu_seconds"`
	CompileSeconds  float64 `json:"compile_seconds"`
	PeakBytes       uint64  `json:"peak_bytes"`
	AllocsPerPacket float64 `json:"allocs_per_packet"`
}

func main() { os.Exit(start()) } //nolint:forbidigo // this is main

func start() int {
	agent := flag.String("agent", "bin/kadomori-agent", "the agent's program")
	corpus := flag.String("corpus", "../shared/corpus", "folder of captures and rules; when it is not there traffic is generated")
	out := flag.String("out", "out/bench/inspect.json", "where the figures go")
	flag.Parse()
	if err := run(*agent, *corpus, *out); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench-inspect:", err)
		return 1
	}
	return 0
}

func run(agent, corpus, out string) error {
	dir, err := os.MkdirTemp("", "kadomori-bench")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	var r result
	mix := filepath.Join(dir, "mix.pcap")
	if err := corpusMix(corpus, mix); err == nil {
		r.Traffic = "corpus"
	} else {
		_, _ = fmt.Fprintf(os.Stderr, "corpus not used: %v\n", err)
		r.Traffic = "generated"
		if err := generate(mix); err != nil {
			return err
		}
	}
	bare, err := inspect(agent, dir, mix)
	if err != nil {
		return err
	}
	r.Packets, r.Bytes, r.Flows = bare.Packets, bare.Bytes, bare.Flows
	r.KppsNoRules, r.MbitNoRules = rates(bare)
	r.PeakMBNoRules = float64(bare.PeakBytes) / 1e6
	r.AllocsPerPacket = bare.AllocsPerPacket
	if bare.Flows > 0 {
		r.PeakMBPer100kFlows = r.PeakMBNoRules / float64(bare.Flows) * 100_000
	}
	if rules, classes, err := fullRules(corpus, dir); err != nil {
		r.RulesSkippedBecause = err.Error()
	} else {
		args := []string{"--rules", rules, "--classification", classes, "--cache", filepath.Join(dir, "cache")}
		full, err := inspect(agent, dir, mix, args...)
		if err != nil {
			return err
		}
		again, err := inspect(agent, dir, mix, args...)
		if err != nil {
			return err
		}
		r.CompileSecondsFull, r.LoadCachedSeconds = full.CompileSeconds, again.CompileSeconds
		r.KppsFullRules, r.MbitFullRules = rates(again)
		r.PeakMBFullRules = float64(again.PeakBytes) / 1e6
	}
	if cpu, err := ndpiReader(mix); err == nil && cpu > 0 {
		r.KppsNDPIReader = float64(r.Packets) / cpu / 1000
		r.NoRulesVsNDPI = r.KppsNoRules / r.KppsNDPIReader
		r.FullRulesVsNDPI = r.KppsFullRules / r.KppsNDPIReader
	} else {
		_, _ = fmt.Fprintf(os.Stderr, "ndpiReader not measured (Debian package libndpi-bin): %v\n", err)
	}
	b, err := json.MarshalIndent(&r, "", "  ")
	if err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil { //nolint:gosec // figures are for everyone
		return fmt.Errorf("write figures: %w", err)
	}
	_, _ = fmt.Fprintf(os.Stdout, "%s\n", b)
	if err := os.WriteFile(out, append(b, '\n'), 0o644); err != nil { //nolint:gosec // figures are for everyone
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}

func rates(m measured) (kpps, mbit float64) {
	if m.CPUSeconds <= 0 {
		return 0, 0
	}
	return float64(m.Packets) / m.CPUSeconds / 1000, float64(m.Bytes) * 8 / m.CPUSeconds / 1e6
}

// corpusMix merges the corpus' Ethernet captures, one after the other, into one file with mergecap (Debian: wireshark-common).
func corpusMix(corpus, out string) error {
	var files []string
	for _, pattern := range []string{"ndpi/*.pcap", "ndpi/*.pcapng", "attacks/*/*.pcap", "attacks/*/*.pcapng"} {
		found, err := filepath.Glob(filepath.Join(corpus, pattern))
		if err != nil {
			return fmt.Errorf("list captures: %w", err)
		}
		for _, f := range found {
			if exec.Command("sh", "-c", `capinfos -E -T -r "$1" 2>/dev/null | grep -qi ether`, "sh", f).Run() == nil { //nolint:noctx // a short helper
				files = append(files, f)
			}
		}
	}
	if len(files) == 0 {
		return errors.New("no captures there")
	}
	slices.Sort(files)
	if b, err := exec.Command("mergecap", append([]string{"-a", "-F", "pcap", "-w", out}, files...)...).CombinedOutput(); err != nil { //nolint:noctx // a short helper
		if st, serr := os.Stat(out); serr != nil || st.Size() < 1<<20 {
			return fmt.Errorf("merge captures: %w: %s", err, b)
		}
	}
	return nil
}

func fullRules(corpus, dir string) (rules, classes string, err error) {
	in, err := os.Open(filepath.Join(corpus, "rules", "et-open-2023-05-15.rules.gz"))
	if err != nil {
		return "", "", fmt.Errorf("open rule set: %w", err)
	}
	defer in.Close() //nolint:errcheck // read only
	z, err := gzip.NewReader(in)
	if err != nil {
		return "", "", fmt.Errorf("open rule set: %w", err)
	}
	rules = filepath.Join(dir, "full.rules")
	f, err := os.Create(rules)
	if err != nil {
		return "", "", fmt.Errorf("unpack rule set: %w", err)
	}
	if _, err := io.Copy(f, z); err != nil { //nolint:gosec // our own corpus
		return "", "", fmt.Errorf("unpack rule set: %w", err)
	}
	return rules, filepath.Join(corpus, "rules", "classification.config"), f.Close()
}

func inspect(agent, dir, mix string, more ...string) (m measured, err error) {
	name := filepath.Join(dir, "measure.json")
	args := append([]string{"inspect", "--pcap", mix, "--eve", "none", "--stream-inline", "--midstream", "--checksums", "none", "--measure", name}, more...)
	cmd := exec.Command(agent, args...) //nolint:noctx // runs to its end
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	cmd.Stderr = io.Discard // rules that are not supported are named there
	if err := cmd.Run(); err != nil {
		return m, fmt.Errorf("run %s inspect: %w", agent, err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return m, fmt.Errorf("read measurement: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("read measurement: %w", err)
	}
	return m, nil
}

// ndpiReader gives the CPU seconds that nDPI's own program takes for the file.
func ndpiReader(mix string) (float64, error) {
	cmd := exec.Command("ndpiReader", "-i", mix, "-q") //nolint:noctx // runs to its end
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("run ndpiReader: %w", err)
	}
	u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, errors.New("no usage")
	}
	sec := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return sec(u.Utime) + sec(u.Stime), nil
}
