package xdp

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// layoutVersion names the folder of the pinned maps. Raise it with every change of a map's key, value, type or flags: a new
// agent then starts with fresh maps and takes the links over.
const layoutVersion = 1

// The defaults of Config.
const (
	DefaultPinDir = "/sys/fs/bpf/kadomori"
	DefaultLimit  = 50 * time.Millisecond
	DefaultFlows  = 131072
)

// Mode is how the wire takes part in the traffic.
type Mode uint8

const (
	// Inline is a transparent bump between two ports.
	Inline Mode = iota
	// Tap observes a mirror port and sends nothing.
	Tap
)

func (m Mode) String() string {
	if m == Tap {
		return "tap"
	}
	return "inline"
}

// Attach is how the program is attached to a port.
type Attach uint8

const (
	// AttachAuto tries native and falls back to generic.
	AttachAuto Attach = iota
	// AttachNative wants the driver to run the program.
	AttachNative
	// AttachGeneric lets the kernel's stack run it: any port, slower.
	AttachGeneric
)

func (a Attach) String() string {
	return [...]string{"auto", "native", "generic"}[a]
}

// Ports are interface names.
type Ports struct {
	LAN string // towards the clinic; in Tap mode the mirror port
	WAN string // towards the Internet; empty in Tap mode
}

// Config says how to open a Wire. Its zero value but for Ports is good.
type Config struct {
	Ports Ports
	Mode  Mode
	// PinDir is a folder on a BPF file system; "" is DefaultPinDir. What is pinned there goes on with no process alive.
	PinDir string
	// Queues is how many receive queues of each port get a socket, 1..16; 0 takes as many as the port has.
	Queues int
	// Limit is how long the packet loop may be silent before it is passed over; 0 is DefaultLimit, else 10 ms..10 s.
	Limit time.Duration
	// Flows is the capacity of the flow table; 0 is DefaultFlows, else 1024..4194304. About 190 bytes each.
	Flows int
	// Attach says how to attach; AttachAuto by default.
	Attach Attach
	// Sweep is how often flow counts are told; 0 is 5 s, at least 100 ms.
	Sweep time.Duration
	// IdleTCP and IdleOther end flows without packets; 0 is 10 min and 1 min.
	IdleTCP, IdleOther time.Duration
	Log                hclog.Logger
}

func (c *Config) validate() error {
	c.PinDir = cmp.Or(c.PinDir, DefaultPinDir)
	c.Limit = cmp.Or(c.Limit, DefaultLimit)
	c.Flows = cmp.Or(c.Flows, DefaultFlows)
	c.Sweep = cmp.Or(c.Sweep, 5*time.Second)
	c.IdleTCP = cmp.Or(c.IdleTCP, 10*time.Minute)
	c.IdleOther = cmp.Or(c.IdleOther, time.Minute)
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	switch {
	case c.Ports.LAN == "":
		return errors.New("ports.lan: no interface given")
	case c.Mode == Inline && c.Ports.WAN == "":
		return errors.New("ports.wan: no interface given")
	case c.Mode == Inline && c.Ports.WAN == c.Ports.LAN:
		return fmt.Errorf("ports.wan: %s is ports.lan too", c.Ports.WAN)
	case c.Mode == Tap && c.Ports.WAN != "":
		return fmt.Errorf("ports.wan: %s given, but a tap has one port", c.Ports.WAN)
	case c.Queues < 0 || c.Queues > maxQueues:
		return fmt.Errorf("queues: %d is not in 0..%d", c.Queues, maxQueues)
	case c.Limit < 10*time.Millisecond || c.Limit > 10*time.Second:
		return fmt.Errorf("limit: %v is not in 10ms..10s", c.Limit)
	case c.Flows < 1024 || c.Flows > 4194304:
		return fmt.Errorf("flows: %d is not in 1024..4194304", c.Flows)
	case c.Sweep < 100*time.Millisecond:
		return fmt.Errorf("sweep: %v is below 100ms", c.Sweep)
	}
	return c.checkPinDir()
}

// checkPinDir wants the folder, or the nearest one above it that exists, to be on a BPF file system.
func (c *Config) checkPinDir() error {
	if !filepath.IsAbs(c.PinDir) {
		return fmt.Errorf("pin folder %s: not an absolute path", c.PinDir)
	}
	for dir := c.PinDir; ; dir = filepath.Dir(dir) {
		var fs unix.Statfs_t
		err := unix.Statfs(dir, &fs)
		if errors.Is(err, os.ErrNotExist) && dir != "/" {
			continue
		}
		if err != nil {
			return fmt.Errorf("pin folder %s: %w", c.PinDir, err)
		}
		if fs.Type != unix.BPF_FS_MAGIC {
			return fmt.Errorf("pin folder %s: %s is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)", c.PinDir, dir)
		}
		return nil
	}
}
