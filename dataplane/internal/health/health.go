// Package health tells at intervals what the appliance did and could see, so that a zero in the report means something.
// Package app runs it and gives the sources. The trap: counters of the sources grow for ever and start anew with them; what
// goes into an event is the difference over the interval.
package health

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
)

// Totals are counters since the start of their sources.
type Totals struct {
	PacketsSeen      uint64 // received by the ports
	PacketsInspected uint64 // judged by the engine, or before by a verdict of it
	PacketsDropped   uint64 // by decision
	PacketsLost      uint64 // by us: no room
	Unprotected      time.Duration
	BytesClear       uint64
	BytesName        uint64
	BytesOpaque      uint64
}

// Gauges are values of now.
type Gauges struct {
	SpoolDepth, SpoolBytes          uint64
	Version                         string
	PolicyVersion, SignatureVersion uint64
	WireMode                        string
	RulesLoaded, RulesRefused       uint64
}

// Config of a Reporter.
type Config struct {
	// Totals and Gauges read the sources.
	Totals func() (Totals, error)
	Gauges func() Gauges
	// Traffic takes the rows since the last call; nil: none.
	Traffic func() []finding.TrafficRow
	// Sink receives the events.
	Sink Sink
	// Health and TrafficEvery are the intervals; 0 means one minute. They can be changed by SetIntervals.
	Health, TrafficEvery time.Duration
	Log                  hclog.Logger
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time
}

// Sink takes what is told; *event.Sink is one.
type Sink interface {
	Health(*eventv1.Health)
	Traffic(from, to time.Time, rows []finding.TrafficRow)
}

// Reporter makes health and traffic events.
type Reporter struct {
	cfg Config
	log hclog.Logger

	mu          sync.Mutex
	health      time.Duration
	traffic     time.Duration
	changed     chan struct{}
	last        Totals
	lastHealth  time.Time
	lastTraffic time.Time
}

// New returns a Reporter. Errors: a missing source.
func New(cfg Config) (*Reporter, error) {
	if cfg.Totals == nil || cfg.Gauges == nil || cfg.Sink == nil {
		return nil, errors.New("new health reporter: Totals, Gauges and Sink are required")
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	now := cfg.Now()
	return &Reporter{
		cfg: cfg, log: cfg.Log.Named("health"), changed: make(chan struct{}, 1),
		health: cmp.Or(cfg.Health, time.Minute), traffic: cmp.Or(cfg.TrafficEvery, time.Minute),
		lastHealth: now, lastTraffic: now,
	}, nil
}

// SetIntervals changes the intervals; 0 means one minute. The policy sets them.
func (r *Reporter) SetIntervals(health, traffic time.Duration) {
	r.mu.Lock()
	r.health, r.traffic = cmp.Or(health, time.Minute), cmp.Or(traffic, time.Minute)
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Run tells at the intervals until ctx ends, and then once more for what is left.
func (r *Reporter) Run(ctx context.Context) error {
	for {
		r.mu.Lock()
		h, t := r.health, r.traffic
		r.mu.Unlock()
		ht, tt := time.NewTicker(h), time.NewTicker(t)
		again := true
		for again {
			select {
			case <-ctx.Done():
				ht.Stop()
				tt.Stop()
				r.TrafficOnce()
				r.HealthOnce()
				return nil
			case <-ht.C:
				r.HealthOnce()
			case <-tt.C:
				r.TrafficOnce()
			case <-r.changed:
				again = false
			}
		}
		ht.Stop()
		tt.Stop()
	}
}

// interval returns from and to of an interval that began at last. A clock that was put back gives an empty one at now: an
// interval never ends before it begins.
func interval(last, now time.Time) (from, to time.Time) {
	if now.Before(last) {
		return now, now
	}
	return last, now
}

// HealthOnce tells the interval since the last call.
func (r *Reporter) HealthOnce() {
	now := r.cfg.Now()
	tot, err := r.cfg.Totals()
	if err != nil {
		r.log.Warn("counters can't be read", "err", err)
		return
	}
	g := r.cfg.Gauges()
	r.mu.Lock()
	was := r.last
	from, to := interval(r.lastHealth, now)
	r.last, r.lastHealth = tot, now
	r.mu.Unlock()
	r.cfg.Sink.Health(&eventv1.Health{
		From: timestamppb.New(from), To: timestamppb.New(to),
		UnprotectedMs: uint64(since(was.Unprotected, tot.Unprotected).Milliseconds()),
		PacketsSeen:   since(was.PacketsSeen, tot.PacketsSeen), PacketsInspected: since(was.PacketsInspected, tot.PacketsInspected),
		PacketsDropped: since(was.PacketsDropped, tot.PacketsDropped), PacketsLost: since(was.PacketsLost, tot.PacketsLost),
		BytesClear: since(was.BytesClear, tot.BytesClear), BytesName: since(was.BytesName, tot.BytesName), BytesOpaque: since(was.BytesOpaque, tot.BytesOpaque),
		SpoolDepth: g.SpoolDepth, SpoolBytes: g.SpoolBytes, Version: g.Version, PolicyVersion: g.PolicyVersion, SignatureVersion: g.SignatureVersion,
		WireMode: g.WireMode, RulesLoaded: g.RulesLoaded, RulesRefused: g.RulesRefused,
	})
}

// since is the growth of a counter; one that fell began anew.
func since[T uint64 | time.Duration](was, now T) T {
	if now < was {
		return now
	}
	return now - was
}

// TrafficOnce tells the bytes since the last call.
func (r *Reporter) TrafficOnce() {
	if r.cfg.Traffic == nil {
		return
	}
	rows := r.cfg.Traffic()
	now := r.cfg.Now()
	r.mu.Lock()
	from, to := interval(r.lastTraffic, now)
	r.lastTraffic = now
	r.mu.Unlock()
	if len(rows) > 0 {
		r.cfg.Sink.Traffic(from, to, rows)
	}
}
