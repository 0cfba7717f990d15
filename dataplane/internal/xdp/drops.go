package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// readSamples hands drop samples on until the reader is closed.
func (w *Wire) readSamples() {
	var r ringbuf.Record
	for {
		if err := w.samples.ReadInto(&r); err != nil {
			if !errors.Is(err, ringbuf.ErrClosed) {
				w.log.Error("can not read drop samples", "err", err)
			}
			return
		}
		if len(r.RawSample) < int(unsafe.Sizeof(edgeDropSample{})) {
			continue
		}
		s := (*edgeDropSample)(unsafe.Pointer(&r.RawSample[0]))
		sample := wire.DropSample{
			Reason: wire.DropReason(s.Reason), ListID: s.List, Port: wire.Port(s.Port), Proto: s.Proto, VLAN: s.Vlan,
			Src:    netip.AddrPortFrom(netip.AddrFrom16(s.Src.B).Unmap(), s.SrcPort),
			Dst:    netip.AddrPortFrom(netip.AddrFrom16(s.Dst.B).Unmap(), s.DstPort),
			SrcMAC: s.SrcMac, DstMAC: s.DstMac, Bytes: s.Bytes, Packets: s.Packets,
			Time: w.clock.wall(int64(s.Time)).UnixNano(),
		}
		w.flows.dropped.sample(&sample)
		select {
		case w.drops <- sample:
		default:
			w.lost.drops.Add(1)
		}
	}
}

// dropTally turns what the program stopped by its own lists into flow records, so that no byte is missing from the sum: a
// record for the packet of each sample, and one without a key for the rest of the exact counter.
type dropTally struct {
	mu      sync.Mutex
	told    map[edgeDropKey]edgeDropTally // in records so far
	pending []wire.FlowRecord             // of samples since the last sweep
	before  map[edgeDropKey]edgeDropTally // exact counters at the last sweep: samples of those packets have been read by now
}

const maxPendingRecords = 8192 // what does not fit is told without a key

func (d *dropTally) init() {
	d.told, d.before = map[edgeDropKey]edgeDropTally{}, map[edgeDropKey]edgeDropTally{}
}

// start takes what an earlier agent left as told: it told it, or it can't be known by whom it was stopped.
func (d *dropTally) start(m *ebpf.Map) error {
	now, err := readDrops(m)
	if err != nil {
		return err
	}
	for k, v := range now {
		d.told[k], d.before[k] = v, v
	}
	return nil
}

func (d *dropTally) sample(s *wire.DropSample) {
	if s.Reason == wire.DropFlowVerdict {
		return // counted in the flow's own entry
	}
	k := edgeDropKey{Reason: uint32(s.Reason), List: s.ListID}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pending) == maxPendingRecords {
		return
	}
	t := d.told[k]
	t.Packets++
	t.Bytes += uint64(s.Bytes)
	d.told[k] = t
	r := wire.FlowRecord{Verdict: wire.DropFlow, LastSeen: s.Time, Ended: true}
	src, dst := netip.AddrFrom16(s.Src.Addr().As16()), netip.AddrFrom16(s.Dst.Addr().As16())
	from := 0
	r.Key = wire.FlowKey{A: src, APort: s.Src.Port(), B: dst, BPort: s.Dst.Port(), VLAN: s.VLAN, Proto: s.Proto}
	if c := src.Compare(dst); c > 0 || c == 0 && r.Key.APort > r.Key.BPort {
		r.Key.A, r.Key.B, r.Key.APort, r.Key.BPort = r.Key.B, r.Key.A, r.Key.BPort, r.Key.APort
		from = 1
	}
	r.Packets[from], r.Bytes[from] = 1, uint64(s.Bytes)
	d.pending = append(d.pending, r)
}

// sweep tells the samples' records and the rest of the counters. A counter is told up to its value at the last sweep, because
// samples of newer packets may still be in the ring; at the end up to now.
func (d *dropTally) sweep(t *flowTable, final bool) error {
	now, err := readDrops(t.drops)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.pending {
		t.record(r)
	}
	d.pending = d.pending[:0]
	upTo := d.before
	if final {
		upTo = now
	}
	for k, v := range upTo {
		told := d.told[k]
		if k.Reason == uint32(wire.DropFlowVerdict) || v.Packets <= told.Packets || v.Bytes <= told.Bytes {
			continue
		}
		r := wire.FlowRecord{Verdict: wire.DropFlow, LastSeen: t.w.clock.wall(t.w.clock.now()).UnixNano(), Ended: true}
		r.Packets[0], r.Bytes[0] = v.Packets-told.Packets, v.Bytes-told.Bytes
		t.record(r)
		d.told[k] = v
	}
	d.before = now
	return nil
}

// readDrops adds the CPUs' counters up.
func readDrops(m *ebpf.Map) (map[edgeDropKey]edgeDropTally, error) {
	all := map[edgeDropKey]edgeDropTally{}
	var k edgeDropKey
	var per []edgeDropTally
	it := m.Iterate()
	for it.Next(&k, &per) {
		var sum edgeDropTally
		for i := range per {
			sum.Packets += per[i].Packets
			sum.Bytes += per[i].Bytes
			sum.Held += per[i].Held
		}
		all[k] = sum
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read drop counters: %w", err)
	}
	return all, nil
}
