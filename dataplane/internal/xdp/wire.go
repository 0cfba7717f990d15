package xdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// The capacity of the channels. What finds no room is counted in Status.
const (
	dropsCapacity       = 4096
	recordsCapacity     = 16384
	unprotectedCapacity = 256
)

// sampleBudget is how many drops of one reason and list each CPU tells of in 256 jiffies (about a second); the counters have
// all of them.
const sampleBudget = 64

// Wire is the open wire. From Open to Close the ports forward, undecided packets included; between the start and the end of
// Run those go to the Handlers.
type Wire struct {
	cfg     Config
	log     hclog.Logger
	objs    edgeObjects
	control *control
	clock   clock
	ports   []*port

	samples  *ringbuf.Reader
	ended    *ringbuf.Reader
	features *featureReader // nil when the kernel does not tell
	noCut    atomic.Bool    // a port is deaf: flows stay with the packet sockets

	drops       chan wire.DropSample
	records     chan wire.FlowRecord
	unprotected chan UnprotectedInterval

	flows *flowTable
	lost  lost
	stop  context.CancelFunc
	wg    sync.WaitGroup

	// life is held for reading by every method that touches maps or the control page, for writing when they go away.
	// Taken before mu.
	life   sync.RWMutex
	closed bool

	mu            sync.Mutex
	last          Status // at Close
	cancelRun     context.CancelFunc
	runEnded      chan struct{}
	queues        []*queue // of the present Run
	running       bool
	loopTotal     LoopStatus // of earlier Runs
	listNames     map[uint32]string
	blockPrefixes int
	bypassSince   time.Time
	bypassUntil   time.Time
	gap           protection
}

// lost counts what found no room in a channel.
type lost struct {
	drops, records, unprotected atomic.Uint64
}

// port is one interface with the program on it.
type port struct {
	id     wire.Port
	name   string
	iface  *net.Interface
	link   link.Link
	attach Attach
	queues int
	// deaf: frames redirected to it are lost, so that nothing but the packet sockets can send there. Guarded by Wire.mu.
	deaf bool
}

var _ wire.Source = (*Wire)(nil)

// ErrClosed says that the wire was closed.
var ErrClosed = errors.New("wire is closed")

// Open loads the program, takes over what an earlier agent pinned, and attaches it to the ports. Traffic flows through the
// whole time if it did before. It needs root.
func Open(cfg Config) (_ *Wire, err error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open wire: %w", err)
	}
	w := &Wire{
		cfg:         cfg,
		log:         cfg.Log.Named("xdp"),
		drops:       make(chan wire.DropSample, dropsCapacity),
		records:     make(chan wire.FlowRecord, recordsCapacity),
		unprotected: make(chan UnprotectedInterval, unprotectedCapacity),
	}
	defer func() {
		if err != nil {
			w.release()
			err = fmt.Errorf("open wire: %w", err)
		}
	}()
	if w.clock, err = newClock(); err != nil {
		return nil, err
	}
	if err := w.findPorts(); err != nil {
		return nil, err
	}
	if err := w.load(); err != nil {
		return nil, err
	}
	if w.control, err = mapControl(w.objs.Control); err != nil {
		return nil, err
	}
	w.takeOver()
	if w.flows, err = newFlowTable(w); err != nil {
		return nil, err
	}
	if w.samples, err = ringbuf.NewReader(w.objs.Samples); err != nil {
		return nil, fmt.Errorf("open drop samples: %w", err)
	}
	if w.ended, err = ringbuf.NewReader(w.objs.Ended); err != nil {
		return nil, fmt.Errorf("open ends of flows: %w", err)
	}
	for _, p := range w.ports {
		if cfg.Mode == Inline {
			if err := w.objs.Devices.Put(uint32(p.id), uint32(p.iface.Index)); err != nil {
				return nil, fmt.Errorf("set device %s: %w", p.name, err)
			}
		}
	}
	for _, p := range w.ports {
		if err := w.attach(p); err != nil {
			return nil, fmt.Errorf("attach to %s: %w", p.name, err)
		}
	}
	if w.features, err = newFeatureReader(); err != nil {
		w.log.Debug("can not ask what ports can do", "err", err)
	}
	w.checkPorts()
	w.removeOldLayouts()
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.wg.Go(func() { w.readSamples() })
	w.wg.Go(func() { w.sweepLoop(ctx) })
	return w, nil
}

// findPorts looks the interfaces up and refuses those that can't carry the traffic.
func (w *Wire) findPorts() error {
	names := []string{w.cfg.Ports.LAN}
	if w.cfg.Mode == Inline {
		names = append(names, w.cfg.Ports.WAN)
	}
	for i, name := range names {
		iface, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find port %s: %w", name, err)
		}
		if limit := frameSizeFor(iface.MTU) - headroom; iface.MTU+linkHeaders > limit {
			return fmt.Errorf("port %s: MTU %d is above %d", name, iface.MTU, limit-linkHeaders)
		}
		n, err := receiveQueues(name)
		if err != nil {
			return fmt.Errorf("port %s: %w", name, err)
		}
		w.ports = append(w.ports, &port{id: wire.Port(i), name: name, iface: iface, queues: n})
	}
	return nil
}

// linkHeaders is the room for Ethernet, two VLAN tags and PPPoE beside the MTU.
const linkHeaders = 14 + 8 + 8

// frameSizeFor is the size of a frame of the UMEM: 2048 suits MTU 1500, 4096 (a page, the most there is) bigger ones.
func frameSizeFor(mtu int) int {
	if mtu+linkHeaders <= 2048-headroom {
		return 2048
	}
	return 4096
}

// receiveQueues counts the port's receive queues, in the namespace of the calling thread's process.
func receiveQueues(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("count queues: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	ch, err := ethtoolChannels(fd, name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return 1, nil // a driver without channels has one queue
	}
	if err != nil {
		return 0, fmt.Errorf("count queues: %w", err)
	}
	return max(1, int(ch)), nil
}

// layoutDir is where the maps are pinned. Links lie above it: they outlive a change of layout.
func (w *Wire) layoutDir() string {
	return filepath.Join(w.cfg.PinDir, "v"+strconv.Itoa(layoutVersion))
}

func (w *Wire) load() error {
	spec, err := loadEdge()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	for _, name := range []string{edgeMapFlows, edgeMapTold} {
		spec.Maps[name].MaxEntries = uint32(w.cfg.Flows)
	}
	spec.Maps[edgeMapFlowFilter].MaxEntries = filterLines(w.cfg.Flows)
	dir := w.layoutDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin folder: %w", err)
	}
	opts := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}}
	err = spec.LoadAndAssign(&w.objs, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// Another size of the flow table, or maps of a build that forgot to raise the layout: start afresh. The old program
		// keeps its own maps until the links are updated.
		w.log.Warn("pinned maps do not fit, starting with fresh ones", "err", err)
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old maps: %w", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pin folder: %w", err)
		}
		err = spec.LoadAndAssign(&w.objs, opts)
	}
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	return nil
}

// attach puts the program on the port: over the pinned link when there is one that still holds, else afresh.
func (w *Wire) attach(p *port) error {
	prog := w.objs.EdgeLan
	if p.id == wire.WAN {
		prog = w.objs.EdgeWan
	}
	path := w.linkPath(p)
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		if attach, err := retake(l, p, prog); err == nil {
			p.link, p.attach = l, attach
			w.log.Info("port taken over", "port", p.name, "attach", attach)
			return nil
		} else { //nolint:revive // err belongs to this branch
			w.log.Warn("pinned link does not hold, attaching again", "port", p.name, "err", err)
		}
		if err := l.Unpin(); err != nil {
			return fmt.Errorf("unpin old link: %w", err)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("close old link: %w", err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("load pinned link: %w", err)
	}
	l, attach, err := attachFresh(p, prog, w.cfg.Attach)
	if err != nil {
		return err
	}
	if err := l.Pin(path); err != nil {
		_ = l.Close()
		return fmt.Errorf("pin link: %w", err)
	}
	p.link, p.attach = l, attach
	w.log.Info("port attached", "port", p.name, "attach", attach)
	return nil
}

func (w *Wire) linkPath(p *port) string {
	return filepath.Join(w.cfg.PinDir, [...]string{"link_lan", "link_wan"}[p.id])
}

// retake points a pinned link at the new program. It fails when the link's interface is gone or another one.
func retake(l link.Link, p *port, prog *ebpf.Program) (Attach, error) {
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("ask link: %w", err)
	}
	x := info.XDP()
	if x == nil || int(x.Ifindex) != p.iface.Index {
		return 0, errors.New("the link is not of this interface")
	}
	if err := l.Update(prog); err != nil {
		return 0, fmt.Errorf("update link: %w", err)
	}
	if generic, err := attachedGeneric(p.iface.Index); err == nil && generic {
		return AttachGeneric, nil
	}
	return AttachNative, nil
}

func attachFresh(p *port, prog *ebpf.Program, want Attach) (link.Link, Attach, error) {
	opts := link.XDPOptions{Program: prog, Interface: p.iface.Index, Flags: link.XDPDriverMode}
	var native error
	if want != AttachGeneric {
		l, err := link.AttachXDP(opts)
		if err == nil {
			return l, AttachNative, nil
		}
		if want == AttachNative || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			return nil, 0, fmt.Errorf("native: %w", err)
		}
		native = err
	}
	opts.Flags = link.XDPGenericMode
	l, err := link.AttachXDP(opts)
	if err != nil {
		return nil, 0, errors.Join(native, fmt.Errorf("generic: %w", err))
	}
	return l, AttachGeneric, nil
}

// removeOldLayouts removes maps of other layouts; the links point at ours now.
func (w *Wire) removeOldLayouts() {
	entries, err := os.ReadDir(w.cfg.PinDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "v") && e.Name() != filepath.Base(w.layoutDir()) {
			w.log.Info("removing maps of another layout", "layout", e.Name())
			if err := os.RemoveAll(filepath.Join(w.cfg.PinDir, e.Name())); err != nil {
				w.log.Warn("can not remove maps of another layout", "layout", e.Name(), "err", err)
			}
		}
	}
}

// takeOver reads how the last agent left and writes our settings.
func (w *Wire) takeOver() {
	c := w.control
	now := w.clock.now()
	if last := int64(c.lastBeat()); c.Agent != agentNone && last > 0 && last < now {
		cause := CauseDied
		if c.Agent == agentClosed {
			cause = CauseStopped
		}
		w.gap.open(last, cause)
	} else {
		w.gap.open(now, CauseStarting)
	}
	atomic.StoreUint64(&c.Limit, uint64(w.cfg.Limit))
	atomic.StoreUint32(&c.Mode, uint32(w.cfg.Mode))
	atomic.StoreUint64(&c.SampleInterval, uint64(time.Second))
	atomic.StoreUint32(&c.SampleBudget, sampleBudget)
	atomic.StoreUint32(&c.Agent, agentRunning)
}

// Drops are samples of what the wire stopped on its own, at most one a second and CPU for the same reason, list and ends, and
// at most 64 in 256 jiffies for the same reason and list.
// The channel closes with Close.
func (w *Wire) Drops() <-chan wire.DropSample { return w.drops }

// FlowRecords are the counts of packets that no Handler saw. The channel closes with Close. Records wait while it is full;
// nothing is lost unless the kernel's table overflows.
func (w *Wire) FlowRecords() <-chan wire.FlowRecord { return w.records }

// Unprotected are spans of time in which traffic may have flowed without having been looked at. The channel closes with Close.
func (w *Wire) Unprotected() <-chan UnprotectedInterval { return w.unprotected }

// Close ends the wire's goroutines, a Run that still goes on with them, and leaves program, maps and links in place: traffic
// goes on, block sets and verdicts stay. All other methods may be called after it; they return ErrClosed.
func (w *Wire) Close() error { return w.shut(false) }

// Detach is Close that also takes the program off the ports and removes what is pinned: the ports then forward nothing.
func (w *Wire) Detach() error { return w.shut(true) }

func (w *Wire) shut(detach bool) error {
	w.mu.Lock()
	if w.stop == nil {
		w.mu.Unlock()
		return nil // closed already
	}
	stop, cancelRun, ended := w.stop, w.cancelRun, w.runEnded
	w.stop = nil
	w.mu.Unlock()
	if cancelRun != nil { // a Run that nobody ended
		cancelRun()
		<-ended
	}
	stop()
	_ = w.samples.Close()
	w.wg.Wait()
	w.finalSweep()
	last, _ := w.Status()

	w.life.Lock()
	defer w.life.Unlock()
	w.closed, w.last = true, last
	atomic.StoreUint32(&w.control.Agent, agentClosed)
	var errs []error
	if detach {
		for _, p := range w.ports {
			errs = append(errs, p.link.Unpin())
		}
		errs = append(errs, os.RemoveAll(w.cfg.PinDir))
	}
	w.release()
	close(w.drops)
	close(w.records)
	close(w.unprotected)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close wire: %w", err)
	}
	return nil
}

// release closes what is open; pinned things stay.
func (w *Wire) release() {
	for _, r := range []*ringbuf.Reader{w.samples, w.ended} {
		if r != nil {
			_ = r.Close()
		}
	}
	for _, p := range w.ports {
		if p.link != nil {
			_ = p.link.Close()
		}
	}
	if w.features != nil {
		w.features.close()
	}
	if w.flows != nil {
		w.flows.filter.close()
	}
	if w.control != nil {
		w.control.close()
	}
	_ = w.objs.Close()
}
