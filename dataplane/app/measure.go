package app

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kadomori/kadomori/dataplane/internal/engine"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
)

// measurement is what inspect --measure writes: the benchmark reads it.
type measurement struct {
	Packets         uint64  `json:"packets"`
	Bytes           uint64  `json:"bytes"`
	Flows           uint64  `json:"flows"`
	Alerts          uint64  `json:"alerts"`
	Seconds         float64 `json:"seconds"`         // of the packet loop, reading the file included
	CPUSeconds      float64 `json:"cpu_seconds"`     // of the process while the packet loop ran
	CompileSeconds  float64 `json:"compile_seconds"` // reading and compiling the rules, or loading them from the cache
	PeakBytes       uint64  `json:"peak_bytes"`      // resident memory of the process
	AllocsPerPacket float64 `json:"allocs_per_packet"`
	start           time.Time
	mallocs         uint64
	cpu             float64
}

// begin starts the clock and, when asked, a CPU profile; the function it gives stops both.
func (m *measurement) begin(profile string) (func(), error) {
	var f *os.File
	if profile != "" {
		var err error
		if f, err = os.Create(profile); err != nil {
			return nil, fmt.Errorf("create profile: %w", err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, fmt.Errorf("start profile: %w", err)
		}
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	m.mallocs = s.Mallocs
	m.cpu = cpuSeconds()
	m.start = time.Now()
	return func() {
		m.Seconds = time.Since(m.start).Seconds()
		m.CPUSeconds = cpuSeconds() - m.cpu
		runtime.ReadMemStats(&s)
		m.mallocs = s.Mallocs - m.mallocs
		if f != nil {
			pprof.StopCPUProfile()
			_ = f.Close()
		}
	}, nil
}

func (m *measurement) write(name string, s engine.Stats) error {
	m.Packets, m.Bytes, m.Flows, m.Alerts = s.Packets, s.Bytes, s.Flows, s.Alerts
	if s.Packets > 0 {
		m.AllocsPerPacket = float64(m.mallocs) / float64(s.Packets)
	}
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err == nil {
		m.PeakBytes = uint64(u.Maxrss) << 10
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write measurement: %w", err)
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil { //nolint:gosec // figures are for everyone
		return fmt.Errorf("write measurement: %w", err)
	}
	return nil
}

// cpuSeconds is what the process has used, user and system.
func cpuSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// nothing is a Sink that takes everything and keeps nothing.
type nothing struct{}

func (nothing) Alert(*finding.Alert)                             {}
func (nothing) Detection(*finding.Detection)                     {}
func (nothing) Transaction(*finding.Packet, finding.Transaction) {}
func (nothing) FlowEnd(*finding.FlowEnd)                         {}
func (nothing) DeviceSeen(*finding.DeviceSeen)                   {}
