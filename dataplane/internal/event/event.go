// Package event turns what the engine states into events and hands them to the spool. The engine calls the Sink's methods on
// the packet loop; one goroutine (Run) folds repeats and appends. The trap: the Sink never blocks; what its queue can't take
// is counted by kind and becomes a declared gap, so that it is missing by name and not silently.
package event

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// Log is where events go; *spool.Spool is one.
type Log interface {
	// Append gives the event its number.
	Append(*eventv1.Event) (uint64, error)
	// Skip uses up numbers for events that were lost, and declares them.
	Skip(reason string, kinds map[string]uint64)
}

// Config of a Sink.
type Config struct {
	Spool Log
	// Queue is how many events may wait between packet loop and spool; 0 means 4096.
	Queue int
	// Fold is the time over which repeats of the same rule and pair are counted; 0 means one minute.
	Fold time.Duration
	// Folds bounds the pairs that are remembered for folding; 0 means 16384. Above it repeats are folded by rule or list alone.
	Folds int
	// Key hashes the MAC addresses of devices in anonymous zones; 32 random bytes that never leave the box.
	Key []byte
	Log hclog.Logger
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time
}

// kind is an event's kind in the counters of what was lost.
type kind int

const (
	kindAlert kind = iota
	kindDetection
	kindBlock
	kindDevice
	kindTraffic
	kindHealth
	kindUnprotected
	kindSelfTest
	kinds
)

var kindNames = [kinds]string{"alert", "detection", "block", "device", "traffic", "health", "unprotected", "self_test"}

// item is what waits in the queue.
type item struct {
	kind kind
	ev   *eventv1.Event
	key  foldKey // zero: not folded
	n    uint32  // how many it stands for
}

// foldKey names a rule or reason and a pair.
type foldKey struct {
	kind     kind
	id       uint64
	src, dst netip.Addr
	name     string
	action   uint8
}

// Sink implements finding.Sink. Its methods are safe for several goroutines.
type Sink struct {
	cfg     Config
	log     hclog.Logger
	queue   chan item
	lost    [kinds]atomic.Uint64
	total   [kinds]atomic.Uint64
	dropped atomic.Uint64
	folded  atomic.Uint64
	period  atomic.Int64      // of folding, ns
	folds   map[foldKey]*fold // only Run
}

// fold counts repeats since the last event of its key.
type fold struct {
	since time.Time
	last  item
	n     uint32
	first time.Time // of the packets counted
}

var _ finding.Sink = (*Sink)(nil)

// New returns a Sink; nothing is appended before Run. Errors: no spool, a key of the wrong length.
func New(cfg Config) (*Sink, error) {
	if cfg.Spool == nil {
		return nil, errors.New("new event sink: no spool given")
	}
	if len(cfg.Key) != 0 && len(cfg.Key) != 32 {
		return nil, errors.New("new event sink: the key for anonymous devices must have 32 bytes")
	}
	cfg.Queue = cmp.Or(cfg.Queue, 4096)
	cfg.Fold = cmp.Or(cfg.Fold, time.Minute)
	cfg.Folds = cmp.Or(cfg.Folds, 16384)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Sink{cfg: cfg, log: cfg.Log.Named("event"), queue: make(chan item, cfg.Queue), folds: map[foldKey]*fold{}}
	s.SetFold(cfg.Fold)
	return s, nil
}

// SetFold changes the time over which repeats are counted; 0 or less means one minute. The policy's health interval shortens it.
func (s *Sink) SetFold(d time.Duration) {
	if d <= 0 {
		d = time.Minute
	}
	s.period.Store(int64(d))
}

// Stats counts events since start.
type Stats struct {
	// Stated counts what the engine stated, by kind; Folded those of them that were counted into another event; Dropped those
	// that found no room in the queue.
	Stated  map[string]uint64 `json:"stated"`
	Folded  uint64            `json:"folded"`
	Dropped uint64            `json:"dropped"`
	Queue   int               `json:"queue"`
}

// Stats returns the counters.
func (s *Sink) Stats() Stats {
	st := Stats{Stated: map[string]uint64{}, Folded: s.folded.Load(), Dropped: s.dropped.Load(), Queue: len(s.queue)}
	for k := range kinds {
		st.Stated[kindNames[k]] = s.total[k].Load()
	}
	return st
}

// push hands an event over without waiting.
func (s *Sink) push(it item) {
	s.total[it.kind].Add(1)
	select {
	case s.queue <- it:
	default:
		s.lost[it.kind].Add(1)
		s.dropped.Add(1)
	}
}

// Run appends events until ctx ends; then it empties the queue, tells all folds and returns. The spool must outlive it.
func (s *Sink) Run(ctx context.Context) error {
	tick := time.NewTicker(min(s.cfg.Fold, 500*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case it := <-s.queue:
			s.take(it)
		case <-tick.C:
			s.settle(false)
		case <-ctx.Done():
			for {
				select {
				case it := <-s.queue:
					s.take(it)
					continue
				default:
				}
				break
			}
			s.settle(true)
			return nil
		}
	}
}

// take appends an event, or counts it into its fold.
func (s *Sink) take(it item) {
	if it.key == (foldKey{}) {
		s.append(it)
		return
	}
	f, ok := s.folds[it.key]
	if !ok && len(s.folds) >= s.cfg.Folds {
		// A flood of pairs, such as forged sources: what more comes of the same rule or list is one fold.
		it.key.src, it.key.dst = netip.Addr{}, netip.Addr{}
		f, ok = s.folds[it.key]
	}
	if !ok {
		if len(s.folds) < 2*s.cfg.Folds {
			s.folds[it.key] = &fold{since: s.cfg.Now()}
		}
		s.append(it)
		return
	}
	s.folded.Add(1)
	if f.n == 0 {
		f.first = it.ev.GetTime().AsTime()
	}
	merge(f, it)
}

// merge counts a repeat into a fold.
func merge(f *fold, it item) {
	if b := it.ev.GetBlock(); b != nil && f.n > 0 {
		was := f.last.ev.GetBlock()
		b.Packets += was.GetPackets()
		b.Bytes += was.GetBytes()
		b.First = was.GetFirst()
	}
	f.n += it.n
	f.last = it
}

// settle tells the folds that are due (all when final), forgets those that were quiet, and declares what was lost.
func (s *Sink) settle(final bool) {
	now, period := s.cfg.Now(), time.Duration(s.period.Load())
	for key, f := range s.folds {
		age := now.Sub(f.since)
		if !final && age < period && age >= 0 { // a clock that was put back must not hold a fold for years
			continue
		}
		if f.n == 0 {
			delete(s.folds, key)
			continue
		}
		it := f.last
		switch b := it.ev.GetBody().(type) {
		case *eventv1.Event_Alert:
			b.Alert.Count = f.n
		case *eventv1.Event_Detection:
			b.Detection.Count = f.n
		case *eventv1.Event_Block:
			b.Block.Count = f.n
		default:
		}
		s.append(it)
		f.since, f.n, f.last = now, 0, item{}
	}
	lost := map[string]uint64{}
	for k := range kinds {
		if n := s.lost[k].Swap(0); n > 0 {
			lost[kindNames[k]] = n
		}
	}
	if len(lost) > 0 {
		s.log.Warn("event queue overflowed", "lost", lost)
		s.cfg.Spool.Skip("queue", lost)
	}
}

func (s *Sink) append(it item) {
	if _, err := s.cfg.Spool.Append(it.ev); err != nil {
		s.log.Error("event can't be spooled", "kind", kindNames[it.kind], "err", err)
		s.lost[it.kind].Add(1)
		s.dropped.Add(1)
	}
}

// Alert implements finding.Sink.
func (s *Sink) Alert(a *finding.Alert) {
	s.push(item{
		kind: kindAlert, n: 1,
		key: foldKey{kind: kindAlert, id: uint64(a.GID)<<32 | uint64(a.SID), src: a.Packet.Src, dst: a.Packet.Dst, action: uint8(a.Action)},
		ev: s.event(a.Packet.Time, &eventv1.Event{Body: &eventv1.Event_Alert{Alert: &eventv1.Alert{
			Flow: flow(&a.Packet), Device: s.device(&a.Device), Gid: a.GID, Sid: a.SID, Rev: a.Rev, Signature: text(a.Msg), Classtype: text(a.Classtype),
			Severity: eventv1.Severity(a.Severity), Category: eventv1.Category(a.Category), Action: eventv1.Action(a.Action), Count: 1,
			Indicator: text(a.Indicator),
		}}}),
	})
}

// Detection implements finding.Sink.
func (s *Sink) Detection(d *finding.Detection) {
	signals := make([]string, len(d.Signals))
	for i, x := range d.Signals {
		signals[i] = text(x)
	}
	n := max(d.Count, 1)
	indicator := text(d.Indicator)
	s.push(item{
		kind: kindDetection, n: n,
		key: foldKey{kind: kindDetection, src: d.Packet.Src, dst: d.Packet.Dst, name: text(d.Detector) + "\x00" + indicator, action: uint8(d.Action)<<4 | uint8(d.Certainty)},
		ev: s.event(d.Packet.Time, &eventv1.Event{Body: &eventv1.Event_Detection{Detection: &eventv1.Detection{
			Flow: flow(&d.Packet), Device: s.device(&d.Device), Detector: text(d.Detector), Severity: eventv1.Severity(d.Severity),
			Category: eventv1.Category(d.Category), Action: eventv1.Action(d.Action), Count: n, Certainty: eventv1.Certainty(d.Certainty),
			Indicator: indicator, List: text(d.List), Signals: signals,
		}}}),
	})
}

// Transaction implements finding.Sink; transactions stay on the box.
func (s *Sink) Transaction(*finding.Packet, finding.Transaction) {}

// FlowEnd implements finding.Sink; flows leave the box as traffic rows only.
func (s *Sink) FlowEnd(*finding.FlowEnd) {}

// DeviceSeen implements finding.Sink.
func (s *Sink) DeviceSeen(d *finding.DeviceSeen) {
	dev := s.device(&d.Device)
	if dev == nil {
		return
	}
	class := text(d.VendorClass)
	if d.Device.Anonymous {
		class = ""
	}
	s.push(item{kind: kindDevice, n: 1, ev: s.event(d.Last, &eventv1.Event{Body: &eventv1.Event_DeviceSeen{DeviceSeen: &eventv1.DeviceSeen{
		Device: dev, First: stamp(d.First), Last: stamp(d.Last), Source: text(d.Source), VendorClass: class,
	}}})})
}

// Block tells of a packet that the wire stopped by its own tables. list and category are those of the list it stands on.
func (s *Sink) Block(d *wire.DropSample, reason eventv1.Block_Reason, list string, category eventv1.Category) {
	n := uint64(max(d.Packets, 1))
	at := stamp(d.Time)
	b := &eventv1.Block{
		Flow: &eventv1.Flow{
			SrcIp: address(d.Src.Addr()), SrcPort: uint32(d.Src.Port()), DstIp: address(d.Dst.Addr()), DstPort: uint32(d.Dst.Port()),
			IpProto: uint32(d.Proto), Vlan: vlans(d.VLAN), Direction: eventv1.Direction_DIRECTION_INBOUND,
		},
		Reason: reason, List: list, Category: category, Packets: n, Bytes: n * uint64(d.Bytes), First: at, Last: at, Count: 1,
	}
	if d.Port == wire.LAN {
		b.Flow.Direction = eventv1.Direction_DIRECTION_OUTBOUND
		b.Device = &eventv1.Device{Mac: append([]byte(nil), d.SrcMAC[:]...), Ip: address(d.Src.Addr())}
	}
	s.push(item{
		kind: kindBlock, n: 1,
		key: foldKey{kind: kindBlock, id: uint64(reason), src: d.Src.Addr(), dst: d.Dst.Addr(), name: list},
		ev:  s.event(d.Time, &eventv1.Event{Body: &eventv1.Event_Block{Block: b}}),
	})
}

// maxRows keeps a traffic event below the spool's limit for one event.
const maxRows = 400

// Traffic tells the bytes of an interval.
func (s *Sink) Traffic(from, to time.Time, rows []finding.TrafficRow) {
	for len(rows) > 0 {
		n := min(len(rows), maxRows)
		t := &eventv1.Traffic{From: timestamppb.New(from), To: timestamppb.New(to), Rows: make([]*eventv1.Traffic_Row, n)}
		for i := range t.Rows {
			r := &rows[i]
			t.Rows[i] = &eventv1.Traffic_Row{
				App: text(r.Application), Device: s.device(&r.Device), BytesIn: r.BytesIn, BytesOut: r.BytesOut,
				Packets: r.Packets, Flows: r.Flows, Visibility: text(r.Visibility),
			}
		}
		s.push(item{kind: kindTraffic, n: 1, ev: s.event(to.UnixNano(), &eventv1.Event{Body: &eventv1.Event_Traffic{Traffic: t}})})
		rows = rows[n:]
	}
}

// Health tells what the appliance did in an interval.
func (s *Sink) Health(h *eventv1.Health) {
	s.push(item{kind: kindHealth, n: 1, ev: s.event(0, &eventv1.Event{Body: &eventv1.Event_Health{Health: h}})})
}

// Unprotected tells that traffic was forwarded without inspection.
func (s *Sink) Unprotected(u *eventv1.Unprotected) {
	s.push(item{kind: kindUnprotected, n: 1, ev: s.event(0, &eventv1.Event{Body: &eventv1.Event_Unprotected{Unprotected: u}})})
}

// SelfTest tells the outcome of a synthetic detection.
func (s *Sink) SelfTest(t *eventv1.SelfTest) {
	s.push(item{kind: kindSelfTest, n: 1, ev: s.event(0, &eventv1.Event{Body: &eventv1.Event_SelfTest{SelfTest: t}})})
}

// event sets the time: that of the packet, or now.
func (s *Sink) event(ns int64, e *eventv1.Event) *eventv1.Event {
	if ns > 0 {
		e.Time = stamp(ns)
	} else {
		e.Time = timestamppb.New(s.cfg.Now())
	}
	return e
}

func stamp(ns int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(0, ns)) }

func address(a netip.Addr) []byte {
	if !a.IsValid() {
		return nil
	}
	return a.Unmap().AsSlice()
}

func vlans(v [2]uint16) []uint32 {
	var out []uint32
	for _, id := range v {
		if id != 0 {
			out = append(out, uint32(id))
		}
	}
	return out
}

func flow(p *finding.Packet) *eventv1.Flow {
	return &eventv1.Flow{
		SrcIp: address(p.Src), SrcPort: uint32(p.SrcPort), DstIp: address(p.Dst), DstPort: uint32(p.DstPort), IpProto: uint32(p.Proto),
		App: text(p.App), Vlan: vlans(p.VLAN), FlowId: p.FlowID, Direction: eventv1.Direction(p.Direction),
	}
}

// device returns nil when none is known. A device of an anonymous zone keeps its zone and a hashed MAC, so that it can be
// counted and never named.
func (s *Sink) device(d *finding.Device) *eventv1.Device {
	if !d.Known {
		return nil
	}
	if d.Anonymous {
		return &eventv1.Device{Mac: s.hashMAC(d.MAC), Zone: text(d.Zone)}
	}
	out := &eventv1.Device{Ip: address(d.IP), Zone: text(d.Zone), Hostname: text(d.Hostname)}
	if d.MAC != [6]byte{} {
		out.Mac = append([]byte(nil), d.MAC[:]...)
	}
	return out
}

// hashMAC returns a stand-in that stays the same on this box: HMAC-SHA256, cut to 6 bytes, marked as locally administered
// (IEEE 802, bit 1 of the first byte) so that it is no vendor's.
func (s *Sink) hashMAC(mac [6]byte) []byte {
	h := hmac.New(sha256.New, s.cfg.Key)
	h.Write(mac[:])
	sum := h.Sum(nil)[:6]
	sum[0] = sum[0]&^1 | 2
	return sum
}
