package xdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// The verdicts of bpf/include/types.h.
const (
	flowCut  = 1
	flowDrop = 2
)

const (
	batchLookup = 4096            // entries of one BPF_MAP_LOOKUP_BATCH
	linger      = 2 * time.Second // between a FIN or RST and the end of the flow: the last acknowledgements belong to it
)

// flowTable is the agent's side of the map `flows`: verdicts go in from the packet loops, counts come out at each sweep.
type flowTable struct {
	w      *Wire
	flows  *ebpf.Map
	told   *ebpf.Map
	unseen *ebpf.Map
	drops  *ebpf.Map
	filter *flowFilter

	count atomic.Int64 // entries at the last sweep

	mu      sync.Mutex
	evicted []evictedFlow // taken out by install to make place for another verdict; told at the next sweep

	sweepMu sync.Mutex // guards what is below; taken before mu
	memory  map[edgeFlowKey]tally
	ending  map[edgeFlowKey]int64 // FIN or RST seen at, CLOCK_MONOTONIC
	keys    []edgeFlowKey
	values  []edgeFlow
	backlog []wire.FlowRecord // records that found the channel full
	dropped dropTally
}

type evictedFlow struct {
	key  edgeFlowKey
	flow edgeFlow
}

// tally is what of a flow was told already.
type tally struct{ packets, bytes [2]uint64 }

func newFlowTable(w *Wire) (*flowTable, error) {
	t := &flowTable{
		w: w, flows: w.objs.Flows, told: w.objs.Told, unseen: w.objs.Unseen, drops: w.objs.Drops,
		memory: map[edgeFlowKey]tally{}, ending: map[edgeFlowKey]int64{},
		keys: make([]edgeFlowKey, batchLookup), values: make([]edgeFlow, batchLookup),
	}
	t.dropped.init()
	var err error
	if t.filter, err = newFlowFilter(w.objs.FlowFilter, int(t.flows.MaxEntries())); err != nil {
		return nil, err
	}
	atomic.StoreUint32(&w.control.FlowShift, t.filter.shift)
	var present []edgeFlowKey
	if err := t.each(t.flows, func(k *edgeFlowKey, _ *edgeFlow) { present = append(present, *k) }); err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	t.filter.rebuild(present)
	w.control.setStep(stepFlow, len(present) > 0)
	err = t.each(t.told, func(k *edgeFlowKey, v *edgeFlow) {
		t.memory[*k] = tally{v.Packets, v.Bytes}
	})
	if err != nil {
		return nil, fmt.Errorf("read told flows: %w", err)
	}
	if err := t.dropped.start(t.drops); err != nil {
		return nil, err
	}
	return t, nil
}

// flowKey turns the contract's key into the program's.
func flowKey(k *wire.FlowKey) edgeFlowKey {
	var e edgeFlowKey
	e.A.B, e.B.B = k.A.As16(), k.B.As16()
	e.A_port, e.B_port = k.APort, k.BPort
	e.Vlan = k.VLAN
	e.Proto = k.Proto
	return e
}

func wireKey(e *edgeFlowKey) wire.FlowKey {
	return wire.FlowKey{
		A: netip.AddrFrom16(e.A.B), B: netip.AddrFrom16(e.B.B),
		APort: e.A_port, BPort: e.B_port, VLAN: e.Vlan, Proto: e.Proto,
	}
}

// bpfElement is union bpf_attr for BPF_MAP_*_ELEM. The packet loop calls the kernel itself: the library allocates.
type bpfElement struct {
	fd    uint32
	_     uint32
	key   unsafe.Pointer
	value unsafe.Pointer
	flags uint64
}

func bpfElem(cmd uintptr, e *bpfElement) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(e)), unsafe.Sizeof(*e))
	return errno
}

// install puts a verdict into the table. It reports false when the table is full. It runs on the packet loop.
func (t *flowTable) install(key *edgeFlowKey, verdict uint8) bool {
	v := edgeFlow{
		Verdict: verdict, Generation: atomic.LoadUint32(&t.w.control.Generation), Last: uint64(t.w.clock.now()),
	}
	e := bpfElement{fd: uint32(t.flows.FD()), key: unsafe.Pointer(key), value: unsafe.Pointer(&v), flags: unix.BPF_NOEXIST}
	t.filter.add(key)
	t.w.control.setStep(stepFlow, true)
	errno := bpfElem(unix.BPF_MAP_UPDATE_ELEM, &e)
	if errno == unix.EEXIST {
		// Another verdict for a flow that has one: its counts must not be lost.
		t.remove(key)
		errno = bpfElem(unix.BPF_MAP_UPDATE_ELEM, &e)
	}
	if errno != 0 {
		t.filter.remove(key)
	}
	return errno == 0 || errno == unix.EEXIST
}

// SetFlow gives a flow a verdict from outside of the packet loops; Undecided takes its verdict away. A Cut given here may let
// packets overtake those that are on their way through a Handler. ErrFull says that the table has no room.
func (w *Wire) SetFlow(key wire.FlowKey, v wire.FlowVerdict) error {
	w.life.RLock()
	defer w.life.RUnlock()
	if w.closed {
		return fmt.Errorf("set flow: %w", ErrClosed)
	}
	k := flowKey(&key)
	if v == wire.Undecided {
		w.flows.remove(&k)
		return nil
	}
	if !w.flows.install(&k, uint8(v)) {
		return ErrFull
	}
	return nil
}

// ForgetDrops takes the verdict of every dropped flow away: call it when the policy that they were made under is gone.
// Their next packets go to the Handler.
func (w *Wire) ForgetDrops() error {
	w.life.RLock()
	defer w.life.RUnlock()
	if w.closed {
		return fmt.Errorf("forget drops: %w", ErrClosed)
	}
	w.flows.sweepMu.Lock()
	defer w.flows.sweepMu.Unlock()
	var keys []edgeFlowKey
	err := w.flows.each(w.flows.flows, func(k *edgeFlowKey, v *edgeFlow) {
		if v.Verdict == flowDrop {
			keys = append(keys, *k)
		}
	})
	for i := range keys {
		w.flows.remove(&keys[i])
	}
	if err != nil {
		return fmt.Errorf("forget drops: %w", err)
	}
	return nil
}

// ErrFull says that the flow table has no room.
var ErrFull = errors.New("flow table is full")

// remove takes a flow out of the table; its counts are told at the next sweep.
func (t *flowTable) remove(k *edgeFlowKey) {
	var v edgeFlow
	take := bpfElement{fd: uint32(t.flows.FD()), key: unsafe.Pointer(k), value: unsafe.Pointer(&v)}
	if bpfElem(unix.BPF_MAP_LOOKUP_AND_DELETE_ELEM, &take) != 0 {
		return
	}
	t.filter.remove(k)
	t.mu.Lock()
	t.evicted = append(t.evicted, evictedFlow{*k, v})
	t.mu.Unlock()
}

// each calls fn with every entry of a map of flows.
func (t *flowTable) each(m *ebpf.Map, fn func(*edgeFlowKey, *edgeFlow)) error {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, t.keys, t.values, nil)
		for i := range n {
			fn(&t.keys[i], &t.values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sweepLoop tells the counts of flows at each interval.
func (w *Wire) sweepLoop(ctx context.Context) {
	tick := time.NewTicker(w.cfg.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.checkBypass()
			w.checkPorts()
			if err := w.flows.sweep(false); err != nil {
				w.log.Error("can not read the flow table", "err", err)
			}
		}
	}
}

// finalSweep tells all there is, before the channels close; nobody may be reading, so it does not wait.
func (w *Wire) finalSweep() {
	if err := w.flows.sweep(true); err != nil {
		w.log.Error("can not read the flow table", "err", err)
	}
}

// sweep tells what was counted since the last one, and takes ended and idle flows out of the table. final tells drops up to
// the present moment: nobody adds samples any more.
func (t *flowTable) sweep(final bool) error {
	t.sweepMu.Lock()
	defer t.sweepMu.Unlock()
	if !t.flush() {
		return nil // the reader is behind: the counts stay where they are
	}
	now := t.w.clock.now()
	t.readEnded(now)
	t.tellEvicted()
	var over []edgeFlowKey // ended or idle
	var changedKeys []edgeFlowKey
	var changedValues []edgeFlow
	n := int64(0)
	err := t.each(t.flows, func(k *edgeFlowKey, v *edgeFlow) {
		n++
		if t.isOver(k, v, now) {
			over = append(over, *k)
			return
		}
		told := t.memory[*k]
		if told.packets == v.Packets {
			return
		}
		if v.Packets[0] < told.packets[0] || v.Packets[1] < told.packets[1] {
			return // a new entry in the place of one evicted this moment, whose counts are told first
		}
		t.tell(k, v, told, false)
		t.memory[*k] = tally{v.Packets, v.Bytes}
		changedKeys, changedValues = append(changedKeys, *k), append(changedValues, *v)
	})
	if err != nil {
		return err
	}
	t.count.Store(n - int64(len(over)))
	for i := range over {
		var v edgeFlow
		if err := t.flows.LookupAndDelete(&over[i], &v); err != nil {
			continue // gone already
		}
		t.filter.remove(&over[i])
		t.tell(&over[i], &v, t.memory[over[i]], true)
		t.forget(&over[i])
	}
	if err := t.sweepUnseen(); err != nil {
		return err
	}
	if len(changedKeys) > 0 {
		if _, err := t.told.BatchUpdate(changedKeys, changedValues, nil); err != nil {
			t.w.log.Warn("can not note told flows", "err", err)
		}
	}
	if err := t.dropped.sweep(t, final); err != nil {
		return err
	}
	t.flush()
	return nil
}

// tellEvicted tells flows that a new verdict took out of the table. The new entry of the same key starts from nothing.
func (t *flowTable) tellEvicted() {
	t.mu.Lock()
	evicted := t.evicted
	t.evicted = nil
	t.mu.Unlock()
	for i := range evicted {
		e := &evicted[i]
		t.tell(&e.key, &e.flow, t.memory[e.key], true)
		t.forget(&e.key)
	}
}

func (t *flowTable) forget(k *edgeFlowKey) {
	delete(t.memory, *k)
	delete(t.ending, *k)
	_ = t.told.Delete(k) // may not be there
}

func (t *flowTable) isOver(k *edgeFlowKey, v *edgeFlow, now int64) bool {
	if at, ok := t.ending[*k]; ok && now-at > int64(linger) {
		return true
	}
	idle := t.w.cfg.IdleOther
	if k.Proto == unix.IPPROTO_TCP {
		idle = t.w.cfg.IdleTCP
	}
	return now-int64(v.Last) > int64(idle)
}

// readEnded takes the keys of flows that ended out of the ring.
func (t *flowTable) readEnded(now int64) {
	t.w.ended.SetDeadline(time.Unix(1, 0)) // in the past: read what is there
	var r ringbuf.Record
	for {
		if err := t.w.ended.ReadInto(&r); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, ringbuf.ErrClosed) {
				t.w.log.Warn("can not read ends of flows", "err", err)
			}
			return
		}
		if len(r.RawSample) >= int(unsafe.Sizeof(edgeFlowKey{})) {
			k := *(*edgeFlowKey)(unsafe.Pointer(&r.RawSample[0]))
			if _, ok := t.ending[k]; !ok {
				t.ending[k] = now
			}
		}
	}
}

// sweepUnseen takes out what was forwarded while no Handler was there.
func (t *flowTable) sweepUnseen() error {
	var keys []edgeFlowKey
	if err := t.each(t.unseen, func(k *edgeFlowKey, _ *edgeFlow) { keys = append(keys, *k) }); err != nil {
		return err
	}
	for i := range keys {
		var v edgeFlow
		if err := t.unseen.LookupAndDelete(&keys[i], &v); err == nil {
			t.tell(&keys[i], &v, tally{}, true)
		}
	}
	return nil
}

// tell makes the record of a flow's new counts.
func (t *flowTable) tell(k *edgeFlowKey, v *edgeFlow, told tally, ended bool) {
	r := wire.FlowRecord{
		Key: wireKey(k), Verdict: wire.FlowVerdict(v.Verdict), LastSeen: t.w.clock.wall(int64(v.Last)).UnixNano(), Ended: ended,
	}
	for i := range 2 {
		r.Packets[i], r.Bytes[i] = v.Packets[i]-told.packets[i], v.Bytes[i]-told.bytes[i]
	}
	if r.Packets[0]+r.Packets[1] == 0 && !ended {
		return
	}
	t.record(r)
}

// record sends one record, or keeps it for the next sweep when the reader is behind.
func (t *flowTable) record(r wire.FlowRecord) {
	if len(t.backlog) == 0 {
		select {
		case t.w.records <- r:
			return
		default:
		}
	}
	t.backlog = append(t.backlog, r)
}

// flush sends kept records; it reports true when none is left. One sweep's records are kept at most, so the backlog is
// bounded by the tables' sizes.
func (t *flowTable) flush() bool {
	for i := range t.backlog {
		select {
		case t.w.records <- t.backlog[i]:
		default:
			t.backlog = t.backlog[:copy(t.backlog, t.backlog[i:])]
			t.w.lost.records.Add(1)
			return false
		}
	}
	t.backlog = t.backlog[:0]
	return true
}
