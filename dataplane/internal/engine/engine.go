// Package engine turns packets into findings: decode, flow and TCP reassembly, protocol parsers, rules, detectors, sink. The
// wire and the offline tool call it; each queue gets a Worker of its own that owns its flow table, so the packet loop takes
// no locks. The trap: a Worker's methods must all be called from one goroutine, and everything handed to the Sink is valid
// only during the call.
package engine

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/kadomori/kadomori/dataplane/internal/appid"
	"github.com/kadomori/kadomori/dataplane/internal/detect"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/inventory"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// Config sets an Engine.
type Config struct {
	// Sink receives what the engine states; required. It is called from all workers and from the callers of AddDrop and
	// AddFlowRecord, so it must be safe for concurrent use.
	Sink finding.Sink
	// Log; nil: none.
	Log hclog.Logger
	// MaxFlows bounds each worker's flow table; 0: 131072. When it is full the flow idle the longest is forced out.
	MaxFlows int
	// ReassemblyMemory bounds the bytes each worker holds for TCP data and bodies; 0: 64 MiB.
	ReassemblyMemory int
	// StreamDepth is how many bytes per direction of a TCP stream are inspected; 0: 1 MiB.
	StreamDepth int
	// Offline: the source is a file. No flow is cut, nothing is replied to, inside is told by prefix alone.
	Offline bool
	// NoMidstream refuses to look into TCP connections whose handshake was not seen. On the wire they are taken up: the
	// appliance may have been started after them, and HL7 links live for days.
	NoMidstream bool
	// Prevent treats every zone as in mode prevent; the offline tool's --simulate-ips.
	Prevent bool
	// Inline gives stream data to parsers and rules as it comes, as the wire must; without it, as a sniffer would, when the
	// other side has acknowledged it. The wire is always inline.
	Inline bool
	// Checksums says what becomes of packets whose checksum is wrong: the receiver would throw them away, so what they
	// carry must not get into streams.
	Checksums Checksums
	// Transactions says that the Sink wants each finished transaction.
	Transactions bool
	// FirstFlowID is the number of the first flow; 0: random.
	FirstFlowID uint64
}

// Engine shares policy, rules and device list among its Workers.
type Engine struct {
	cfg        Config
	log        hclog.Logger
	policy     atomic.Pointer[Policy]
	rules      atomic.Pointer[rule.Set]
	vocabulary *appid.Vocabulary
	devices    *inventory.Table
	infected   *detect.Infected
	folds      *folder
	traffic    *trafficTable // of the wire's own flows
	cuts       *cutTable

	mu      sync.Mutex
	workers []*Worker
}

// Checksums is how wrong checksums are treated.
type Checksums uint8

// The ways: Auto checks, and stops checking when the first packets are mostly wrong, as they are when the capturing host left
// the sums to its network card.
const (
	ChecksumsAuto Checksums = iota
	ChecksumsNone
	ChecksumsAll
)

// ParseChecksums reads none, auto or all.
func ParseChecksums(s string) (Checksums, error) {
	switch s {
	case "auto", "":
		return ChecksumsAuto, nil
	case "none":
		return ChecksumsNone, nil
	case "all":
		return ChecksumsAll, nil
	}
	return 0, fmt.Errorf("%q is not none, auto or all", s)
}

// New makes an Engine with an empty policy and no rules.
func New(cfg Config) (*Engine, error) {
	if cfg.Sink == nil {
		return nil, errors.New("new engine: sink is nil")
	}
	if cfg.MaxFlows < 0 || cfg.ReassemblyMemory < 0 || cfg.StreamDepth < 0 {
		return nil, errors.New("new engine: a limit is negative")
	}
	cfg.MaxFlows = cmp.Or(cfg.MaxFlows, 131072)
	cfg.ReassemblyMemory = cmp.Or(cfg.ReassemblyMemory, 64<<20)
	cfg.StreamDepth = cmp.Or(cfg.StreamDepth, 1<<20)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	e := &Engine{
		cfg: cfg, log: cfg.Log.Named("engine"), vocabulary: appid.Builtin(), devices: inventory.NewTable(),
		infected: detect.NewInfected(), folds: newFolder(cfg.Sink), traffic: newTrafficTable(), cuts: newCutTable(),
	}
	p, err := CompilePolicy(nil, nil)
	if err != nil {
		return nil, err
	}
	e.policy.Store(p)
	return e, nil
}

// SetPolicy swaps the policy between packets; p must come from CompilePolicy.
func (e *Engine) SetPolicy(p *Policy) { e.policy.Store(p) }

// Policy gives the policy in force.
func (e *Engine) Policy() *Policy { return e.policy.Load() }

// SetRules swaps the rules between packets; nil: none. The old set may be closed once every Worker has handled a packet or a
// tick since: see RulesInUse.
func (e *Engine) SetRules(s *rule.Set) { e.rules.Store(s) }

// RulesInUse says whether a worker still matches with s.
func (e *Engine) RulesInUse(s *rule.Set) bool {
	if e.rules.Load() == s {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.workers {
		if w.inUse.Load() == s {
			return true
		}
	}
	return false
}

// Devices is the list of inside devices.
func (e *Engine) Devices() *inventory.Table { return e.devices }

// Vocabulary names the applications.
func (e *Engine) Vocabulary() *appid.Vocabulary { return e.vocabulary }

// Worker makes the Handler of one queue.
func (e *Engine) Worker(queue int) wire.Handler {
	w := newWorker(e, queue)
	e.mu.Lock()
	e.workers = append(e.workers, w)
	e.mu.Unlock()
	return w
}

// Flush ends all flows and finishes all transactions, after the sources have ended; no Worker may be in use.
func (e *Engine) Flush() {
	e.mu.Lock()
	workers := append([]*Worker(nil), e.workers...)
	e.mu.Unlock()
	for _, w := range workers {
		w.flush()
	}
	for _, c := range e.cuts.takeAll() {
		e.cfg.Sink.FlowEnd(&c.end)
	}
	e.folds.flush()
}

// Stats are counters since New.
type Stats struct {
	Packets, Bytes    uint64
	Inspected         uint64 // packets that went through flow and rules
	Dropped           uint64 // packets the engine decided to drop
	DecodeErrors      uint64
	Flows             uint64 // flows begun
	FlowsForced       uint64 // forced out because the table was full
	FlowsActive       uint64
	FlowsCut          uint64
	ReassemblyDropped uint64 // bytes not inspected because memory or limits were used up
	ReassemblyGaps    uint64
	Alerts            uint64
	Panics            uint64 // bugs met and survived; each is in the log
	Detections        uint64
	BytesClear        uint64
	BytesName         uint64
	BytesOpaque       uint64
}

// counters are a worker's own; only it writes them, others read.
type counters struct {
	packets, bytes, inspected, dropped, decodeErrors, flows, forced, active, cut, reasmDropped, gaps, alerts, detections, panics atomic.Uint64
	visible                                                                                                                      [appid.VisibilityCount]atomic.Uint64
}

// bump adds without the cost of a locked instruction: there is one writer.
func bump(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }

// Stats gives the sum over all workers.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	var s Stats
	for _, w := range e.workers {
		c := &w.count
		s.Packets += c.packets.Load()
		s.Bytes += c.bytes.Load()
		s.Inspected += c.inspected.Load()
		s.Dropped += c.dropped.Load()
		s.DecodeErrors += c.decodeErrors.Load()
		s.Flows += c.flows.Load()
		s.FlowsForced += c.forced.Load()
		s.FlowsActive += c.active.Load()
		s.FlowsCut += c.cut.Load()
		s.ReassemblyDropped += c.reasmDropped.Load()
		s.ReassemblyGaps += c.gaps.Load()
		s.Alerts += c.alerts.Load()
		s.Panics += c.panics.Load()
		s.Detections += c.detections.Load()
		s.BytesClear += c.visible[appid.Clear].Load()
		s.BytesName += c.visible[appid.NameOnly].Load()
		s.BytesOpaque += c.visible[appid.Opaque].Load()
	}
	s.BytesClear += e.traffic.visible[appid.Clear].Load()
	s.BytesName += e.traffic.visible[appid.NameOnly].Load()
	s.BytesOpaque += e.traffic.visible[appid.Opaque].Load()
	return s
}
