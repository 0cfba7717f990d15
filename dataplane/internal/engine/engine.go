// Package engine turns packets into findings: decode, flow and TCP reassembly, protocol parsers, rules, detectors, sink. The
// wire and the offline tool call it; each queue gets a Worker of its own that owns its flow table, so the packet loop takes
// no locks. The trap: a Worker's methods must all be called from one goroutine, and everything handed to the Sink is valid
// only during the call.
package engine

import (
	"cmp"
	"errors"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
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
	// ReassemblyMemory bounds the bytes each worker holds for out-of-order and unparsed TCP data; 0: 64 MiB.
	ReassemblyMemory int
	// StreamDepth is how many bytes per direction of a TCP stream are inspected; 0: 1 MiB.
	StreamDepth int
	// Offline: the source is a file. No flow is cut, time is the packets' own, transactions are told to the Sink.
	Offline bool
}

// Engine shares policy, rules and device list among its Workers.
type Engine struct {
	cfg    Config
	log    hclog.Logger
	policy atomic.Pointer[Policy]
}

// Stats are counters since New.
type Stats struct {
	Packets, Bytes    uint64
	Inspected         uint64 // packets that went through parsers and rules
	Dropped           uint64 // packets the engine decided to drop
	DecodeErrors      uint64
	Flows             uint64 // flows begun
	FlowsForced       uint64 // forced out because the table was full
	ReassemblyDropped uint64 // bytes not inspected because memory or depth was used up
	Alerts            uint64
	Detections        uint64
	BytesClear        uint64
	BytesName         uint64
	BytesOpaque       uint64
}

// New makes an Engine with an empty policy and no rules.
func New(cfg Config) (*Engine, error) {
	if cfg.Sink == nil {
		return nil, errors.New("new engine: sink is nil")
	}
	cfg.MaxFlows = cmp.Or(cfg.MaxFlows, 131072)
	cfg.ReassemblyMemory = cmp.Or(cfg.ReassemblyMemory, 64<<20)
	cfg.StreamDepth = cmp.Or(cfg.StreamDepth, 1<<20)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	e := &Engine{cfg: cfg, log: cfg.Log.Named("engine")}
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

// Worker makes the Handler of one queue.
func (e *Engine) Worker(queue int) wire.Handler { return &Worker{engine: e, queue: queue} }

// AddFlowRecord counts traffic that the wire forwarded or dropped by its own flow table.
func (e *Engine) AddFlowRecord(wire.FlowRecord) {}

// AddDrop tells of a packet that the wire's block sets stopped: an inside device that contacts a listed address becomes a
// Detection; the Block event itself is the caller's.
func (e *Engine) AddDrop(wire.DropSample) {}

// TakeTraffic gives the rows since the last call. Their sums equal what the workers saw and the wire told of.
func (e *Engine) TakeTraffic() []finding.TrafficRow { return nil }

// Stats gives the counters of all workers.
func (e *Engine) Stats() Stats { return Stats{} }

// Flush ends all flows and finishes all transactions, after the sources have ended; no Worker may be in use.
func (e *Engine) Flush() {}

// Worker is the engine of one queue.
type Worker struct {
	engine *Engine
	queue  int
}

// Handle judges one frame.
func (w *Worker) Handle(_ []byte, _ wire.Port, _ int64) wire.Decision { return wire.Decision{} }

// Tick runs time-outs.
func (w *Worker) Tick(_ int64) {}
