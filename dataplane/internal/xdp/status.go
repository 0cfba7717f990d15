package xdp

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// Count is packets and bytes; a packet's bytes are those of the whole Ethernet frame without its checksum.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// PortStatus is what a port did since its maps were made.
type PortStatus struct {
	Name     string `json:"name"`
	Index    int    `json:"index"`
	MTU      int    `json:"mtu"`
	Attach   string `json:"attach"`  // native, generic
	Queues   int    `json:"queues"`  // that receive
	Sockets  int    `json:"sockets"` // that serve them; fewer than queues: some traffic is not looked at
	ZeroCopy bool   `json:"zero_copy"`
	// FailsOpen: the program can send out of this port on its own. When not, an agent that dies stops the traffic towards it.
	FailsOpen bool `json:"fails_open"`
	// What became of the packets that came in; their sum is what the port received.
	Handler  Count `json:"handler"`
	Cut      Count `json:"cut"`
	Stale    Count `json:"stale"`
	NoSocket Count `json:"no_socket"`
	Bypass   Count `json:"bypass"`
	Dropped  Count `json:"dropped"`
	// Notes are what packets were beside that, by name.
	Notes map[string]Count `json:"notes"`
	// Lost by our sockets: rings full, frame too long.
	SocketLost uint64 `json:"socket_lost"`
}

// Received is the sum over all that packets became.
func (p PortStatus) Received() Count {
	var c Count
	for _, x := range []Count{p.Handler, p.Cut, p.Stale, p.NoSocket, p.Bypass, p.Dropped} {
		c.Packets += x.Packets
		c.Bytes += x.Bytes
	}
	return c
}

// DropCount is an exact count of one reason and list.
type DropCount struct {
	Reason string `json:"reason"`
	ListID uint32 `json:"list_id"`
	List   string `json:"list"` // name given with the set; "" none
	Held   uint64 `json:"held"` // samples left out because a CPU's budget was spent
	Count
}

// LoopStatus are the packet loops' own counts.
type LoopStatus struct {
	Handled        Count  `json:"handled"` // packets that Handlers saw
	Dropped        Count  `json:"dropped"` // by their verdict
	Crafted        uint64 `json:"crafted"`
	CraftedLost    uint64 `json:"crafted_lost"`
	BacklogDropped uint64 `json:"backlog_dropped"` // thrown away after a gap of the loop
	BacklogBytes   uint64 `json:"backlog_bytes"`
	Cuts           uint64 `json:"cuts"` // verdicts installed
	Drops          uint64 `json:"drops"`
	ForcedCuts     uint64 `json:"forced_cuts"`
	VerdictsLost   uint64 `json:"verdicts_lost"`
}

// Status is a view of the wire.
type Status struct {
	Mode        string        `json:"mode"`
	Layout      int           `json:"layout"`
	Running     bool          `json:"running"`
	Ports       []PortStatus  `json:"ports"`
	Flows       int64         `json:"flows"` // entries at the last sweep
	FlowLimit   int           `json:"flow_limit"`
	Prefixes    int           `json:"prefixes"` // in the block sets
	Generation  uint32        `json:"generation"`
	Drops       []DropCount   `json:"drops"`
	Loop        LoopStatus    `json:"loop"`
	BypassUntil time.Time     `json:"bypass_until"` // zero: none
	Unprotected time.Duration `json:"unprotected"`  // since Open, the span that is open now included
	// UnprotectedCause is of the span that is open now; "" protected.
	UnprotectedCause string `json:"unprotected_cause"`
	// What found no room in a channel; flow records are late, not lost.
	LostDropSamples, LateFlowRecords, LostIntervals uint64
}

// noteNames are the names of enum note.
var noteNames = [...]string{
	"vlan", "pppoe", "tunnel", "opaque", "fragment", "not-ip", "truncated", "malformed", "too-deep", "never-block",
	"sample-lost", "sample-held", "ended-lost", "drop-unlisted", "zone-counted",
}

// Status reads the counters. After Close it returns the last ones and ErrClosed.
func (w *Wire) Status() (Status, error) {
	w.life.RLock()
	defer w.life.RUnlock()
	if w.closed {
		return w.last, fmt.Errorf("read status: %w", ErrClosed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{
		Mode: w.cfg.Mode.String(), Layout: layoutVersion, Running: w.running, Flows: w.flows.count.Load(), FlowLimit: w.cfg.Flows,
		Prefixes: w.blockPrefixes, Generation: atomic.LoadUint32(&w.control.Generation), BypassUntil: w.bypassUntil,
		LostDropSamples: w.lost.drops.Load(), LateFlowRecords: w.lost.records.Load(), LostIntervals: w.lost.unprotected.Load(),
	}
	for _, p := range w.ports {
		ps, err := w.portStatus(p)
		if err != nil {
			return s, err
		}
		s.Ports = append(s.Ports, ps)
	}
	drops, err := readDrops(w.objs.Drops)
	if err != nil {
		return s, fmt.Errorf("read status: %w", err)
	}
	for k, v := range drops {
		s.Drops = append(s.Drops, DropCount{
			Reason: wire.DropReason(k.Reason).String(), ListID: k.List, List: w.listNames[k.List], Held: v.Held, Count: Count{v.Packets, v.Bytes},
		})
	}
	slices.SortFunc(s.Drops, func(a, b DropCount) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.ListID, b.ListID))
	})
	s.Loop = w.loopTotal
	for _, q := range w.queues {
		q.counters.addTo(&s.Loop)
	}
	w.gap.mu.Lock()
	s.Unprotected, s.UnprotectedCause = time.Duration(w.gap.total), w.gap.cause
	if w.gap.since != 0 {
		s.Unprotected += time.Duration(w.clock.now() - w.gap.since)
	}
	w.gap.mu.Unlock()
	return s, nil
}

func (w *Wire) portStatus(p *port) (PortStatus, error) {
	var per []edgePortCounters
	if err := w.objs.Counters.Lookup(uint32(p.id), &per); err != nil {
		return PortStatus{}, fmt.Errorf("read counters of %s: %w", p.name, err)
	}
	s := PortStatus{
		Name: p.name, Index: p.iface.Index, MTU: p.iface.MTU, Attach: p.attach.String(), Queues: p.queues, Sockets: len(w.queues),
		FailsOpen: !p.deaf, Notes: map[string]Count{},
	}
	outcomes := [...]*Count{&s.Handler, &s.Cut, &s.Stale, &s.NoSocket, &s.Bypass, &s.Dropped}
	for i := range per {
		for o, c := range outcomes {
			c.Packets += per[i].Outcome[o].Packets
			c.Bytes += per[i].Outcome[o].Bytes
		}
		for n, name := range noteNames {
			if per[i].Note[n].Packets > 0 {
				c := s.Notes[name]
				c.Packets += per[i].Note[n].Packets
				c.Bytes += per[i].Note[n].Bytes
				s.Notes[name] = c
			}
		}
	}
	for _, q := range w.queues {
		sock := q.sock[p.id]
		s.ZeroCopy = q.sock[0].zeroCopy
		st, err := sock.statistics()
		if err != nil {
			return s, fmt.Errorf("read socket of %s: %w", p.name, err)
		}
		s.SocketLost += st.Rx_dropped + st.Rx_ring_full
	}
	return s, nil
}

func (c *queueCounters) addTo(s *LoopStatus) {
	for i := range 2 {
		s.Handled.Packets += c.handled[i].Load()
		s.Handled.Bytes += c.handledBytes[i].Load()
		s.Dropped.Packets += c.dropped[i].Load()
		s.Dropped.Bytes += c.droppedBytes[i].Load()
	}
	s.Crafted += c.crafted.Load()
	s.CraftedLost += c.craftedLost.Load()
	s.BacklogDropped += c.backlog.Load()
	s.BacklogBytes += c.backlogBytes.Load()
	s.Cuts += c.cuts.Load()
	s.Drops += c.drops.Load()
	s.ForcedCuts += c.forced.Load()
	s.VerdictsLost += c.verdictsLost.Load()
}
