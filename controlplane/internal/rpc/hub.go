package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
)

// Times of the hub.
const (
	aliveInterval = 60 * time.Second // how often the connected ones are noted
	retryInterval = time.Second      // after a failed read or a lost listening connection
	ackPause      = time.Second      // between two messages that say nothing but what is committed
	readBatch     = 500              // appliances read from the database at once
)

// hub knows the streams of this process, reads desired states for them in batches and hears the other replicas.
type hub struct {
	s    *Server
	kick chan struct{} // size 1: something below is waiting

	mu      sync.Mutex
	closed  bool
	streams map[int32]*watcher
	refresh map[int32]bool // whose desired state is to be read
	joined  map[int32]bool // to be noted as connected
	left    map[int32]bool // to be noted as gone
	places  map[int32]*places
}

// places are from where an appliance took over its own stream. One that moves does so once; two boxes with one key throw each other
// out again and again.
type places struct {
	hosts map[string]bool
	turns int
	since time.Time
	told  time.Time
}

// Takeovers by different hosts within cloneWindow that make a clone, and how often it is told.
const (
	cloneTurns  = 4
	cloneWindow = 10 * time.Minute
	cloneRepeat = time.Hour
)

// watcher is one Watch stream. Its channels have size 1 and newer state overwrites older, so a slow box costs nothing.
type watcher struct {
	id     int32
	clinic int32
	host   string // from where the box calls
	cancel context.CancelCauseFunc
	urgent chan struct{} // desired state changed
	lazy   chan struct{} // committed changed

	mu        sync.Mutex
	desired   appliance.Desired
	fresh     bool // desired was not sent yet
	committed map[[16]byte]uint64
	acked     map[[16]byte]bool // of committed, those to send
}

var (
	errReplaced = errors.New("another connection of this appliance took over")
	errStopping = errors.New("the control plane is stopping; connect again")
)

func newHub(s *Server) *hub {
	return &hub{
		s: s, kick: make(chan struct{}, 1), streams: map[int32]*watcher{},
		refresh: map[int32]bool{}, joined: map[int32]bool{}, left: map[int32]bool{}, places: map[int32]*places{},
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// join registers a stream; an older one of the same appliance ends.
func (h *hub) join(box pki.Identity, host string, cancel context.CancelCauseFunc) *watcher {
	id := box.Appliance
	w := &watcher{
		id: id, clinic: box.Clinic, host: host, cancel: cancel, urgent: make(chan struct{}, 1), lazy: make(chan struct{}, 1),
		committed: map[[16]byte]uint64{}, acked: map[[16]byte]bool{},
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		cancel(errStopping)
		return w
	}
	if old := h.streams[id]; old != nil {
		old.cancel(errReplaced)
		if old.host != host {
			h.tookOver(w, old.host)
		}
	} else {
		h.s.metrics.watches.Inc()
	}
	h.streams[id] = w
	h.refresh[id], h.joined[id] = true, true
	delete(h.left, id)
	poke(h.kick)
	return w
}

// tookOver counts that a live stream was taken over from another host; h.mu is held. The same key at two places is a copied disk or
// a stolen key: a person must look, and revoke.
func (h *hub) tookOver(w *watcher, from string) {
	now := h.s.now()
	p := h.places[w.id]
	if p == nil || now.Sub(p.since) > cloneWindow {
		if len(h.places) >= maxPlaces {
			clear(h.places)
		}
		told := time.Time{}
		if p != nil {
			told = p.told
		}
		p = &places{hosts: map[string]bool{}, since: now, told: told}
		h.places[w.id] = p
	}
	p.hosts[from], p.hosts[w.host] = true, true
	if p.turns++; p.turns < cloneTurns || now.Sub(p.told) < cloneRepeat {
		return
	}
	p.told = now
	hosts := slices.Sorted(maps.Keys(p.hosts))
	h.s.log.Error("one key is used by two boxes; revoke the appliance", "appliance", w.id, "clinic", w.clinic, "hosts", hosts)
	h.s.metrics.clones.Inc()
	go h.s.noteClone(w.clinic, w.id, hosts)
}

// maxPlaces bounds the memory of who moved.
const maxPlaces = 10_000

// noteClone writes a clone into the audit log.
func (s *Server) noteClone(clinic, id int32, hosts []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := s.cfg.DB.As(ctx, []int32{clinic}, func(tx pgx.Tx) error {
		return audit.Append(ctx, tx, audit.Entry{
			Actor: "system", Action: "appliance.cloned", Target: fmt.Sprintf("appliance:%d", id), Clinic: clinic,
			Reason: "one key is used from several places", Detail: map[string][]string{"hosts": hosts},
		})
	})
	if err != nil {
		s.log.Error("clone not written to the audit log", "appliance", id, "err", err)
	}
}

func (h *hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[w.id] != w {
		return
	}
	delete(h.streams, w.id)
	h.s.metrics.watches.Dec()
	h.left[w.id] = true
	delete(h.joined, w.id)
	poke(h.kick)
}

// get returns the stream of an appliance, or nil.
func (h *hub) get(id int32) *watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[id]
}

// apply does what a notice asks for. It is called for notices of all replicas, and at once for those of this one.
func (h *hub) apply(n appliance.Notice) {
	if n.Forget {
		for _, id := range n.Appliances {
			h.s.cfg.Registry.Forget(id)
		}
	}
	if n.Disconnect {
		for _, id := range n.Appliances {
			if w := h.get(id); w != nil {
				w.cancel(errRevokedNow)
			}
			h.s.cfg.Disconnect(id)
		}
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(n.Appliances) == 0 {
		for id := range h.streams {
			h.refresh[id] = true
		}
	}
	for _, id := range n.Appliances {
		if h.streams[id] != nil {
			h.refresh[id] = true
		}
	}
	poke(h.kick)
}

// committed keeps the highest number of a stream and sends it when the box listens here.
func (h *hub) committed(id int32, stream [16]byte, through uint64) {
	w := h.get(id)
	if w == nil {
		return
	}
	w.mu.Lock()
	if through > w.committed[stream] {
		w.committed[stream] = through
		w.acked[stream] = true
	}
	w.mu.Unlock()
	poke(w.lazy)
}

// closeStreams ends all streams, for the stop of the server.
func (h *hub) closeStreams() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, w := range h.streams {
		w.cancel(errStopping)
	}
}

// run reads and notes what is waiting until ctx ends; then it notes once more, so that nobody stays "connected".
func (h *hub) run(ctx context.Context) error {
	var listening sync.WaitGroup
	listening.Go(func() { h.listen(ctx) })
	defer listening.Wait()
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
			defer cancel()
			if err := h.runOnce(last); err != nil {
				h.s.log.Warn("connections not noted at stop", "err", err)
			}
			return nil
		case <-alive.C:
			h.mu.Lock()
			for id := range h.streams {
				h.joined[id] = true
			}
			h.mu.Unlock()
		case <-h.kick:
		}
		if err := h.runOnce(ctx); err != nil && ctx.Err() == nil {
			h.s.log.Warn("desired states not read, trying again", "err", err)
			retry := time.NewTimer(retryInterval)
			select {
			case <-retry.C:
				poke(h.kick)
			case <-ctx.Done():
			}
			retry.Stop()
		}
	}
}

// runOnce handles what is waiting. What fails waits again.
func (h *hub) runOnce(ctx context.Context) error {
	h.mu.Lock()
	refresh, joined, left := keys(h.refresh), keys(h.joined), keys(h.left)
	clear(h.refresh)
	clear(h.joined)
	clear(h.left)
	h.mu.Unlock()
	for len(refresh) > 0 {
		batch := refresh[:min(len(refresh), readBatch)]
		if err := h.read(ctx, batch); err != nil {
			h.mu.Lock()
			defer h.mu.Unlock()
			again(h.refresh, refresh)
			again(h.joined, joined)
			again(h.left, left)
			return err
		}
		refresh = refresh[len(batch):]
	}
	if len(joined)+len(left) == 0 {
		return nil
	}
	err := h.s.cfg.DB.Fleet(ctx, "system:fleet", func(tx pgx.Tx) error {
		if err := appliance.SetConnected(ctx, tx, left, false, h.s.now()); err != nil {
			return err
		}
		return appliance.SetConnected(ctx, tx, joined, true, h.s.now())
	})
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		again(h.joined, joined)
		again(h.left, left)
	}
	return err
}

func keys(m map[int32]bool) []int32 {
	out := make([]int32, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	return out
}

func again(m map[int32]bool, ids []int32) {
	for _, id := range ids {
		m[id] = true
	}
}

// read hands the desired states of some appliances to their streams.
func (h *hub) read(ctx context.Context, ids []int32) error {
	var states map[int32]appliance.Desired
	err := h.s.cfg.DB.Fleet(ctx, "system:fleet", func(tx pgx.Tx) (err error) {
		states, err = appliance.ReadDesired(ctx, tx, h.s.cfg.Bundles, ids)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		w := h.get(id)
		d, ok := states[id]
		switch {
		case w == nil:
		case !ok: // not approved any more
			w.cancel(errRevokedNow)
		default:
			w.mu.Lock()
			if d.Revision >= w.desired.Revision {
				w.desired, w.fresh = d, true
			}
			w.mu.Unlock()
			poke(w.urgent)
		}
	}
	return nil
}

// listen hears notices until ctx ends. After a lost connection everything is read again: notices may have been missed.
func (h *hub) listen(ctx context.Context) {
	for ctx.Err() == nil {
		if err := h.listenOnce(ctx); err != nil && ctx.Err() == nil {
			h.s.log.Warn("lost the database's notices, connecting again", "err", err)
			retry := time.NewTimer(retryInterval)
			select {
			case <-retry.C:
			case <-ctx.Done():
			}
			retry.Stop()
		}
	}
}

func (h *hub) listenOnce(ctx context.Context) error {
	pooled, err := h.s.cfg.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack() // a connection that listens must not go back to the pool
	defer func() {
		shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(shut)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+appliance.Channel); err != nil {
		return err
	}
	h.apply(appliance.Notice{})
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		var notice appliance.Notice
		if err := json.Unmarshal([]byte(n.Payload), &notice); err != nil {
			h.s.log.Warn("ignored a notice", "err", err)
			continue
		}
		h.apply(notice)
	}
}
