package xdp

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The numbers of bpf/include/types.h that the agent writes into the control page.
const (
	stepQuarantine = 1 << iota
	stepBlock
	stepNeverBlock
	stepZone
	stepRate
	stepFlow
)

const (
	agentNone = iota
	agentRunning
	agentClosed
)

// control is the page that the program reads at each packet. Fields are written with atomic stores: the program may read
// them at any moment.
type control struct {
	*edgeControlPage
	mem []byte
}

func mapControl(m *ebpf.Map) (*control, error) {
	mem, err := unix.Mmap(m.FD(), 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map control page: %w", err)
	}
	return &control{edgeControlPage: (*edgeControlPage)(unsafe.Pointer(&mem[0])), mem: mem}, nil
}

func (c *control) close() {
	if c.mem != nil {
		_ = unix.Munmap(c.mem)
		c.mem = nil
	}
}

func (c *control) setStep(bit uint32, on bool) {
	if on {
		atomic.OrUint32(&c.Steps, bit)
	} else {
		atomic.AndUint32(&c.Steps, ^bit)
	}
}

// lastBeat is the latest beat of any queue, CLOCK_MONOTONIC in nanoseconds; 0 when none.
func (c *control) lastBeat() uint64 {
	var last uint64
	for i := range c.Beat {
		last = max(last, atomic.LoadUint64(&c.Beat[i]))
	}
	return last
}

// clock turns the kernel's CLOCK_MONOTONIC into wall time and back. Go's own monotonic clock is the same one, but hidden.
type clock struct {
	start time.Time
	mono  int64 // CLOCK_MONOTONIC at start, ns
}

func newClock() (clock, error) {
	var ts unix.Timespec
	now := time.Now()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return clock{}, fmt.Errorf("read clock: %w", err)
	}
	return clock{start: now, mono: ts.Nano()}, nil
}

// now is CLOCK_MONOTONIC in nanoseconds.
func (c clock) now() int64 { return c.mono + int64(time.Since(c.start)) }

// wall is the wall time of a CLOCK_MONOTONIC value, by the present offset between the two.
func (c clock) wall(mono int64) time.Time {
	return time.Now().Round(0).Add(time.Duration(mono - c.now()))
}
