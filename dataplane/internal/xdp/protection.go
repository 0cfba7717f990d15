package xdp

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// The causes of unprotected time.
const (
	CauseStarting = "agent starting" // the wire was opened and no packet loop runs yet
	CauseStopped  = "agent stopped"  // in order: shutdown or update
	CauseDied     = "agent died"
	CauseLate     = "packet loop late" // hung, stopped, or the box overloaded
	CauseBypass   = "bypass"           // by hand
	CausePortGone = "port gone"
)

// UnprotectedInterval is a span of time in which traffic may have been forwarded without having been looked at.
type UnprotectedInterval struct {
	From, To time.Time
	Cause    string
}

// protection follows the span that is open now, if any. The times are CLOCK_MONOTONIC.
type protection struct {
	mu    sync.Mutex
	since int64 // 0: protected
	cause string
	total int64 // ns of closed spans
}

func (p *protection) open(at int64, cause string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since == 0 {
		p.since, p.cause = at, cause
	}
}

// shut ends the open span.
func (p *protection) shut() (since int64, cause string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since, cause = p.since, p.cause
	p.since, p.cause = 0, ""
	return since, cause
}

func (p *protection) add(ns int64) {
	p.mu.Lock()
	p.total += ns
	p.mu.Unlock()
}

// queueReady ends the unprotected span when a packet loop has started.
func (w *Wire) queueReady() {
	if since, cause := w.gap.shut(); since != 0 {
		w.tellUnprotected(since, w.clock.now(), cause)
	}
}

// tellUnprotected counts and hands on a span. It is called on packet loops and never waits.
func (w *Wire) tellUnprotected(from, to int64, cause string) {
	if to <= from {
		return
	}
	w.gap.add(to - from)
	select {
	case w.unprotected <- UnprotectedInterval{w.clock.wall(from), w.clock.wall(to), cause}:
	default:
		w.lost.unprotected.Add(1)
	}
}

// Bypass makes the program forward everything untouched, block sets included, until limit has passed (1 s..24 h) or it is
// switched off. The kernel keeps the limit: it holds with no agent alive. The time is told as unprotected when it ends.
func (w *Wire) Bypass(on bool, limit time.Duration) error {
	if on && (limit < time.Second || limit > 24*time.Hour) {
		return fmt.Errorf("bypass: limit %v is not in 1s..24h", limit)
	}
	w.life.RLock()
	defer w.life.RUnlock()
	if w.closed {
		return fmt.Errorf("bypass: %w", ErrClosed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.now()
	if !on {
		w.endBypass(now)
		return nil
	}
	if w.bypassUntil.IsZero() {
		w.bypassSince = time.Now()
	}
	w.bypassUntil = time.Now().Add(limit)
	atomic.StoreUint64(&w.control.BypassUntil, uint64(now+int64(limit)))
	w.log.Warn("bypass on", "limit", limit)
	return nil
}

// endBypass tells the bypassed time. w.mu is held.
func (w *Wire) endBypass(now int64) {
	until := int64(atomic.SwapUint64(&w.control.BypassUntil, 0))
	if w.bypassUntil.IsZero() {
		return
	}
	to := min(now, until)
	from := to - int64(w.clock.wall(to).Sub(w.bypassSince.Round(0)))
	w.bypassUntil, w.bypassSince = time.Time{}, time.Time{}
	w.tellUnprotected(from, to, CauseBypass)
	w.log.Warn("bypass off")
}

// checkBypass ends a bypass that ran out, at each sweep.
func (w *Wire) checkBypass() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.now()
	if until := atomic.LoadUint64(&w.control.BypassUntil); until != 0 && now >= int64(until) {
		w.endBypass(now)
	}
}

// checkPorts looks, at Open and at each sweep, if the program can send to both ports on its own. Where it can't, failing open
// and cut-through would lose every packet: the latter is switched off, the former can only be told.
func (w *Wire) checkPorts() {
	if w.features == nil || w.cfg.Mode == Tap {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	deaf := false
	for i, p := range w.ports {
		// The generic path sends like any other packet; what counts is how the other port receives.
		ok, err := w.features.receivesRedirects(p.iface.Index)
		now := err == nil && !ok && w.ports[1-i].attach == AttachNative
		if now != p.deaf {
			if now {
				w.log.Error("the port does not take redirected frames: it does not fail open, and no flow is cut through; "+
					"a veth needs `gro on` at its peer before it is set up", "port", p.name)
			} else {
				w.log.Info("the port takes redirected frames again", "port", p.name)
			}
			p.deaf = now
		}
		deaf = deaf || now
	}
	w.noCut.Store(deaf)
}
