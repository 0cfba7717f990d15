package xdp

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

const (
	tickEvery  = 10 * time.Millisecond
	forceCut   = 500 * time.Millisecond // after which a verdict goes in although the pipe never was empty
	maxPending = 4096                   // verdicts that wait for an empty pipe
	drainFor   = time.Second            // at shutdown
	goneEvery  = 500 * time.Millisecond // look if the interfaces are still there
	niceLoop   = -15                    // the packet loop goes before everything else on the box
)

// queue is one receive queue of the ports: the sockets, their memory, and the loop that owns both.
type queue struct {
	w       *Wire
	id      int
	umem    *umem
	sock    []*socket // by port
	handler wire.Handler
	poll    []unix.PollFd

	last      int64 // CLOCK_MONOTONIC of the last turn
	wallShift int64 // wall time minus CLOCK_MONOTONIC, renewed at each tick
	nextTick  int64

	pending  []pendingCut
	waiting  map[edgeFlowKey]struct{} // keys of pending
	counters queueCounters
}

type pendingCut struct {
	key   edgeFlowKey
	since int64
}

// queueCounters are written by the loop and read by Status.
type queueCounters struct {
	handled, handledBytes [2]atomic.Uint64 // by port
	dropped, droppedBytes [2]atomic.Uint64 // by the Handler's verdict
	crafted               atomic.Uint64
	craftedLost           atomic.Uint64 // no frame or no room for them
	backlog, backlogBytes atomic.Uint64 // dropped after a gap of the loop
	cuts, drops           atomic.Uint64 // verdicts installed
	forced                atomic.Uint64 // cuts installed although the pipe was never empty
	verdictsLost          atomic.Uint64 // flow table or waiting list full
}

// newQueue makes and binds the sockets of one queue. An earlier agent that still holds the queue is waited for, until ctx
// ends.
func newQueue(ctx context.Context, w *Wire, id int) (_ *queue, err error) {
	mtu := 0
	for _, p := range w.ports {
		mtu = max(mtu, p.iface.MTU)
	}
	q := &queue{w: w, id: id, waiting: make(map[edgeFlowKey]struct{}, maxPending), pending: make([]pendingCut, 0, maxPending)}
	if q.umem, err = newUmem(frameSizeFor(mtu)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			q.close()
		}
	}()
	for i, p := range w.ports {
		s, err := newSocket(q.umem, i == 0)
		if err != nil {
			return nil, err
		}
		q.sock = append(q.sock, s)
		s.refill(q.umem) // the fill ring must be full before the socket is bound
		var share *socket
		if i > 0 {
			share = q.sock[0]
		}
		if err := bindWait(ctx, s, p, id, share); err != nil {
			return nil, fmt.Errorf("bind to queue %d of %s: %w", id, p.name, err)
		}
		q.poll = append(q.poll, unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN})
	}
	return q, nil
}

// bindWait binds; a queue that is busy is tried again every 5 ms for 10 s: the agent that leaves is draining it.
func bindWait(ctx context.Context, s *socket, p *port, queue int, share *socket) error {
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		err := s.bind(p.iface.Index, queue, share, p.attach == AttachGeneric)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("another process holds it: %w", err)
		case <-retry.C:
		}
	}
}

// insert lets the program hand packets to this queue. The loop must have beaten once.
func (q *queue) insert() error {
	for i, s := range q.sock {
		if err := q.w.objs.Sockets.Put(uint32(i*maxQueues+q.id), uint32(s.fd)); err != nil {
			return fmt.Errorf("insert socket of %s: %w", q.w.ports[i].name, err)
		}
	}
	return nil
}

// remove makes the program forward on its own again.
func (q *queue) remove() error {
	for i := range q.sock {
		err := q.w.objs.Sockets.Delete(uint32(i*maxQueues + q.id))
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove socket of %s: %w", q.w.ports[i].name, err)
		}
	}
	return nil
}

func (q *queue) close() {
	for _, s := range q.sock {
		s.close()
	}
	q.umem.close()
}

func (q *queue) beat(now int64) {
	atomic.StoreUint64(&q.w.control.Beat[q.id], uint64(now))
	q.last = now
}

// Run hands packets to Handlers until ctx ends, then drains: the program forwards on its own from the first moment of the
// end, and what the sockets hold goes out first. It may be called again after it has returned.
func (w *Wire) Run(ctx context.Context, newHandler func(queue int) wire.Handler) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	if w.stop == nil {
		w.mu.Unlock()
		return fmt.Errorf("run wire: %w", ErrClosed)
	}
	if w.running {
		w.mu.Unlock()
		return errors.New("run wire: it runs already")
	}
	ended := make(chan struct{})
	w.running, w.cancelRun, w.runEnded = true, cancel, ended
	w.mu.Unlock()
	n := w.ports[0].queues
	for _, p := range w.ports {
		n = max(n, p.queues)
	}
	want := n
	if w.cfg.Queues > 0 {
		want = w.cfg.Queues
	}
	var queues []*queue
	defer func() {
		w.mu.Lock()
		w.queues, w.running, w.cancelRun = nil, false, nil
		for _, q := range queues {
			q.counters.addTo(&w.loopTotal)
		}
		w.mu.Unlock()
		for _, q := range queues {
			q.close()
		}
		close(ended)
	}()
	for id := range min(want, maxQueues) {
		q, err := newQueue(ctx, w, id)
		if err != nil {
			return fmt.Errorf("run wire: %w", err)
		}
		queues = append(queues, q)
		q.handler = newHandler(id)
	}
	if len(queues) < n {
		w.log.Error("queues without a socket are forwarded without being looked at", "queues", n, "sockets", len(queues))
	}
	errs := make([]error, len(queues))
	var wg sync.WaitGroup
	for i, q := range queues {
		wg.Go(func() {
			if errs[i] = q.run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	w.mu.Lock()
	w.queues = queues
	w.mu.Unlock()
	wg.Wait()
	w.gap.open(w.clock.now(), CauseStopped)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("run wire: %w", err)
	}
	return nil
}

// run is the packet loop.
func (q *queue) run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), niceLoop); err == nil {
		defer func() { _ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 0) }()
	}
	q.beat(q.w.clock.now())
	if err := q.insert(); err != nil {
		return err
	}
	q.w.queueReady()
	nextCheck := int64(0)
	for ctx.Err() == nil {
		now := q.w.clock.now()
		if gap := now - q.last; gap > int64(q.w.cfg.Limit) {
			q.late(now)
		}
		q.beat(now)
		if !q.turn(now) {
			if err := q.wait(); err != nil {
				return errors.Join(err, q.remove())
			}
		}
		if now > nextCheck {
			nextCheck = now + int64(goneEvery)
			if err := q.checkGone(); err != nil {
				return errors.Join(err, q.remove())
			}
		}
	}
	return q.drain()
}

// wait waits for packets, until the next tick at most.
func (q *queue) wait() error {
	if _, err := unix.Poll(q.poll, int(tickEvery/time.Millisecond)); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}

// checkGone asks the sockets if their interface was removed: poll does not say so.
func (q *queue) checkGone() error {
	for i, s := range q.sock {
		if e, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && unix.Errno(e) == unix.ENETDOWN {
			return fmt.Errorf("port %s: %w", q.w.ports[i].name, ErrPortGone)
		}
	}
	return nil
}

// ErrPortGone ends a Run when an interface was removed. Open the wire again when it is back.
var ErrPortGone = errors.New("the interface is gone")

// turn does one round over the ports and says if there was anything to do.
func (q *queue) turn(now int64) bool {
	if now >= q.nextTick {
		q.nextTick = now + int64(tickEvery)
		q.wallShift = time.Now().UnixNano() - now
		q.handler.Tick(now + q.wallShift)
	}
	busy := false
	for i := range q.sock {
		if q.receive(wire.Port(i), now+q.wallShift) {
			busy = true
		}
	}
	for _, s := range q.sock {
		if s.inflight > 0 {
			s.kick()
			s.reap(q.umem)
			busy = busy || s.inflight > 0
		}
		s.refill(q.umem)
	}
	if len(q.pending) > 0 {
		q.flip(now)
	}
	return busy
}

// receive handles up to a batch of one port.
func (q *queue) receive(id wire.Port, wall int64) bool {
	s := q.sock[id]
	n := min(s.rx.avail(), batch)
	if n == 0 {
		return false
	}
	tap := len(q.sock) == 1
	out := s
	if !tap {
		out = q.sock[1-id]
		if n = min(n, out.tx.room()); n == 0 {
			return true // the other port must send first
		}
	}
	var size, dropped, droppedSize uint64
	for range n {
		d := s.rx.pop()
		frame := q.umem.mem[d.Addr : d.Addr+uint64(d.Len)]
		size += uint64(d.Len)
		decision := q.handler.Handle(frame, id, wall)
		if decision.Flow != wire.Undecided {
			q.decide(&decision)
		}
		if tap {
			q.umem.put(d.Addr)
			continue
		}
		if decision.Verdict == wire.Forward && out.tx.room() > 0 {
			out.send(unix.XDPDesc{Addr: d.Addr, Len: d.Len})
		} else {
			dropped++
			droppedSize += uint64(d.Len)
			q.umem.put(d.Addr)
		}
		for _, b := range decision.Back {
			q.craft(s, b)
		}
		for _, b := range decision.Onward {
			q.craft(out, b)
		}
	}
	s.rx.release()
	q.counters.handled[id].Add(uint64(n))
	q.counters.handledBytes[id].Add(size)
	if dropped > 0 {
		q.counters.dropped[id].Add(dropped)
		q.counters.droppedBytes[id].Add(droppedSize)
	}
	return true
}

// craft sends a frame of the Handler's own.
func (q *queue) craft(s *socket, b []byte) {
	if uint64(len(b)) > q.umem.frameSize-headroom || s.tx.room() == 0 {
		q.counters.craftedLost.Add(1)
		return
	}
	a, ok := q.umem.take()
	if !ok {
		q.counters.craftedLost.Add(1)
		return
	}
	copy(q.umem.mem[a+headroom:], b)
	s.send(unix.XDPDesc{Addr: a + headroom, Len: uint32(len(b))})
	q.counters.crafted.Add(1)
}

// decide takes a flow's verdict: DROP goes in at once, CUT waits for an empty pipe, or packets that are cut through would
// overtake those that are still on their way through the sockets.
func (q *queue) decide(d *wire.Decision) {
	key := flowKey(&d.Key)
	tap := len(q.sock) == 1
	if d.Flow == wire.DropFlow && !tap {
		if !q.w.flows.install(&key, flowDrop) {
			q.counters.verdictsLost.Add(1)
			return
		}
		q.counters.drops.Add(1)
		return
	}
	if q.w.noCut.Load() {
		return // the program can't send to one of the ports
	}
	if _, ok := q.waiting[key]; ok {
		return
	}
	if len(q.pending) == maxPending {
		q.counters.verdictsLost.Add(1)
		return
	}
	q.waiting[key] = struct{}{}
	q.pending = append(q.pending, pendingCut{key, q.last})
}

// flip installs the waiting cuts when nothing is on its way through the sockets, or those that have waited too long.
func (q *queue) flip(now int64) {
	empty := true
	for _, s := range q.sock {
		empty = empty && s.inflight == 0 && s.rx.avail() == 0
	}
	n := 0
	for n < len(q.pending) && n < batch {
		p := &q.pending[n]
		if !empty {
			if now-p.since < int64(forceCut) {
				break // those behind it are younger
			}
			q.counters.forced.Add(1)
		}
		if q.w.flows.install(&p.key, flowCut) {
			q.counters.cuts.Add(1)
		} else {
			q.counters.verdictsLost.Add(1)
		}
		delete(q.waiting, p.key)
		n++
	}
	q.pending = q.pending[:copy(q.pending, q.pending[n:])]
}

// late is called after a turn that took longer than the limit: the program has forwarded on its own since. What lies in the
// receive rings is old; TCP has sent it again, and old datagrams do more harm than lost ones.
func (q *queue) late(now int64) {
	for _, s := range q.sock {
		n := s.rx.avail()
		for range n {
			d := s.rx.pop()
			q.umem.put(d.Addr)
			q.counters.backlogBytes.Add(uint64(d.Len))
		}
		s.rx.release()
		q.counters.backlog.Add(uint64(n))
	}
	q.w.tellUnprotected(q.last+int64(q.w.cfg.Limit), now, CauseLate)
}

// drain takes the sockets out of the program's way, and hands on what they hold.
func (q *queue) drain() error {
	err := q.remove()
	for deadline := q.w.clock.now() + int64(drainFor); ; {
		now := q.w.clock.now()
		busy := q.turn(now)
		for _, s := range q.sock {
			busy = busy || s.inflight > 0
		}
		if !busy || now > deadline {
			break
		}
	}
	// A packet that was redirected just before the removal may still be on its way into the ring.
	if _, perr := unix.Poll(q.poll, 5); perr == nil {
		for range 64 {
			if !q.turn(q.w.clock.now()) {
				break
			}
		}
	}
	for n := range len(q.pending) { // nothing is on its way any more
		if q.w.flows.install(&q.pending[n].key, flowCut) {
			q.counters.cuts.Add(1)
		}
	}
	q.pending = q.pending[:0]
	clear(q.waiting)
	return err
}
