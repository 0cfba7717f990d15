package xdp

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inNamespace runs the test on a thread in a network namespace of its own with two veth pairs, and gives it a folder on a BPF
// file system.
func inNamespace(t *testing.T, test func(t *testing.T, pin string)) {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is missing")
	}
	pin := t.TempDir()
	if err := unix.Mount("bpf", pin, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(pin, unix.MNT_DETACH) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		for _, args := range [][]string{
			{"link", "add", "lan", "type", "veth", "peer", "name", "host"},
			{"link", "add", "wan", "type", "veth", "peer", "name", "net"},
			{"link", "set", "lan", "up"},
			{"link", "set", "wan", "up"},
			{"link", "set", "host", "up"},
			{"link", "set", "net", "up"},
		} {
			if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
				t.Errorf("ip %v: %v %s", args, err, out)
				return
			}
		}
		test(t, filepath.Join(pin, "k"))
	}()
	<-done
}

type passAll struct{ frames int }

func (*passAll) Tick(int64) {}

func (p *passAll) Handle([]byte, wire.Port, int64) wire.Decision {
	p.frames++
	return wire.Decision{}
}

func TestMethodsAfterClose(t *testing.T) {
	inNamespace(t, func(t *testing.T, pin string) {
		w, err := Open(Config{Ports: Ports{LAN: "lan", WAN: "wan"}, PinDir: pin})
		if err != nil {
			t.Error(err)
			return
		}
		// As the agent does: the health loop asks while the wire goes away.
		stop := make(chan struct{})
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						if _, err := w.Status(); err != nil && !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
					}
				}
			})
		}
		closed := make(chan error, 1)
		go func() {
			<-w.Unprotected() // the loop beats
			closed <- w.Close()
		}()
		if err := w.Run(context.Background(), func(int) wire.Handler { return &passAll{} }); err != nil {
			t.Error(err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		close(stop)
		asking.Wait()
		if s, err := w.Status(); !errors.Is(err, ErrClosed) || len(s.Ports) != 2 {
			t.Errorf("status after close: %+v, %v", s, err)
		}
		for name, err := range map[string]error{
			"Bypass":        w.Bypass(true, time.Minute),
			"SetBlockSets":  w.SetBlockSets([]BlockSet{{Prefixes: prefixes("10.0.0.0/8")}}),
			"SetNeverBlock": w.SetNeverBlock(nil),
			"SetZones":      w.SetZones(ZonePolicy{}),
			"SetRates":      w.SetRates(Rates{}, Rates{}),
			"SetQuarantine": w.SetQuarantine(Quarantine{}),
			"SetFlow":       w.SetFlow(wire.FlowKey{}, wire.Cut),
			"ForgetDrops":   w.ForgetDrops(),
			"Run":           w.Run(context.Background(), nil),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	inNamespace(t, func(t *testing.T, pin string) {
		good := Config{Ports: Ports{LAN: "lan", WAN: "wan"}, PinDir: pin}
		for name, change := range map[string]func(*Config){
			"no LAN port":              func(c *Config) { c.Ports.LAN = "" },
			"no WAN port":              func(c *Config) { c.Ports.WAN = "" },
			"one port twice":           func(c *Config) { c.Ports.WAN = "lan" },
			"unknown port":             func(c *Config) { c.Ports.WAN = "nowhere" },
			"tap with two ports":       func(c *Config) { c.Mode = Tap },
			"limit too short":          func(c *Config) { c.Limit = time.Millisecond },
			"too many queues":          func(c *Config) { c.Queues = 17 },
			"relative pin folder":      func(c *Config) { c.PinDir = "k" },
			"pin folder on a disk":     func(c *Config) { c.PinDir = filepath.Join(os.TempDir(), "k") },
			"flow table far too small": func(c *Config) { c.Flows = 1 },
		} {
			cfg := good
			change(&cfg)
			if w, err := Open(cfg); err == nil {
				t.Errorf("%s: no error", name)
				_ = w.Detach()
			} else {
				t.Logf("%s: %v", name, err)
			}
		}
		if out, err := exec.CommandContext(t.Context(), "ip", "link", "set", "lan", "mtu", "9000").CombinedOutput(); err != nil {
			t.Errorf("set MTU: %v %s", err, out)
			return
		}
		if w, err := Open(good); err == nil {
			t.Error("MTU 9000: no error")
			_ = w.Detach()
		} else {
			t.Logf("MTU 9000: %v", err)
		}
	})
}

// someFlow is TCP from inside:1 to outside:2.
func someFlow() wire.FlowKey {
	k := key(protoTCP, inside+":1", outside+":2")
	return wireKey(&k)
}

func TestOpenTakesOver(t *testing.T) {
	inNamespace(t, func(t *testing.T, pin string) {
		cfg := Config{Ports: Ports{LAN: "lan", WAN: "wan"}, PinDir: pin}
		first, err := Open(cfg)
		if err != nil {
			t.Error(err)
			return
		}
		if err := first.SetBlockSets([]BlockSet{{ID: 1, Name: "x", Prefixes: prefixes("198.51.100.0/24")}}); err != nil {
			t.Error(err)
		}
		if err := first.SetFlow(someFlow(), wire.DropFlow); err != nil {
			t.Error(err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		second, err := Open(cfg)
		if err != nil {
			t.Error(err)
			return
		}
		if _, ok := second.asks(t, netip.MustParseAddr(listed)); !ok {
			t.Error("the block set is gone")
		}
		if n := second.passed(t, wire.LAN, frame(eth(typeIPv4), ip4(protoTCP, inside, outside), tcp(1, 2, 2)), 1); n != 0 {
			t.Error("the verdict of the flow is gone")
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		// Another size of the flow table does not fit the pinned maps: fresh ones, the same links.
		cfg.Flows = 4096
		third, err := Open(cfg)
		if err != nil {
			t.Error(err)
			return
		}
		if _, ok := third.asks(t, netip.MustParseAddr(listed)); ok {
			t.Error("fresh maps know the old block set")
		}
		if err := third.Detach(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(pin); !os.IsNotExist(err) {
			t.Errorf("left: %v", err)
		}
	})
}
