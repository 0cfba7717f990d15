package web

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// Timing of event streams.
const (
	patchEvery = 500 * time.Millisecond // at most two patches a second for one client
	tickEvery  = 10 * time.Second       // the badge, and a look even if a notification was lost
	maxStreams = 500                    // at one time; a further one is refused and tries again by itself
)

// hub listens for committed events while at least one stream is open, and wakes the streams.
type hub struct {
	pool *pgxpool.Pool
	log  hclog.Logger

	mu      sync.Mutex
	streams map[chan struct{}]bool
	stop    context.CancelFunc // of the listener; nil when none runs
	done    chan struct{}      // closed when the listener has ended
	closed  chan struct{}
	ended   bool
}

func newHub(pool *pgxpool.Pool, log hclog.Logger) *hub {
	return &hub{pool: pool, log: log, streams: map[chan struct{}]bool{}, closed: make(chan struct{})}
}

// join returns a channel that gets a value after every commit; several commits may fall into one value. ok is false when
// there are too many streams or the console is closing.
func (h *hub) join() (wake chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended || len(h.streams) >= maxStreams {
		return nil, false
	}
	wake = make(chan struct{}, 1)
	h.streams[wake] = true
	if h.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h.stop, h.done = cancel, make(chan struct{})
		go h.listen(ctx, h.done)
	}
	return wake, true
}

// leave ends the listener with the last stream.
func (h *hub) leave(wake chan struct{}) {
	h.mu.Lock()
	delete(h.streams, wake)
	var done chan struct{}
	if len(h.streams) == 0 && h.stop != nil {
		h.stop()
		h.stop, done = nil, h.done
	}
	h.mu.Unlock()
	if done != nil {
		<-done
	}
}

func (h *hub) close() {
	h.mu.Lock()
	h.ended = true
	close(h.closed)
	var done chan struct{}
	if h.stop != nil {
		h.stop()
		done = h.done
	}
	h.mu.Unlock()
	if done != nil {
		<-done
	}
}

func (h *hub) wakeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.streams {
		select {
		case w <- struct{}{}:
		default: // it has one waiting already
		}
	}
}

// listen holds one connection of the pool. A lost connection is opened again after a pause; until then tickEvery helps.
func (h *hub) listen(ctx context.Context, done chan struct{}) {
	defer close(done)
	for ctx.Err() == nil {
		err := h.listenOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		h.log.Warn("listen for events", "err", err)
		pause := time.NewTimer(time.Second + rand.N(time.Second)) //nolint:gosec // spreads replicas, no secret
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

func (h *hub) listenOnce(ctx context.Context) error {
	c, err := h.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("get connection: %w", err)
	}
	conn := c.Hijack() // a connection that listens must not go back
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(end)
	}()
	if _, err := conn.Exec(ctx, "LISTEN kadomori_event"); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	h.wakeAll() // something may have come while nobody listened
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("wait for notification: %w", err)
		}
		h.wakeAll()
	}
}

// patch is what a client gets: texts for rows it shows, and how many are new. It never carries markup.
type patch struct {
	Live  [3]string  `json:"live"` // class, word, detail
	Rows  []rowPatch `json:"rows,omitempty"`
	New   int64      `json:"new"`
	Nav   string     `json:"nav"` // groups, for the badge of the navigation
	Clock string     `json:"clock"`
}

type rowPatch struct {
	K string            `json:"k"`
	C map[string]string `json:"c"`
}

// stream is the state of one client.
type stream struct {
	l     list
	show  bool // the triage list is on the page
	asof  time.Time
	since map[string][4]string // what the client was told of each row
}

// events is the stream of one page.
func (c *Console) events(q *request) error {
	st := &stream{since: map[string][4]string{}}
	if q.FormValue("page") == "triage" {
		var err error
		if st.l, err = parseList(q.URL.Query()); err != nil {
			return badFilter(q, err)
		}
		if st.asof, err = parseAsOf(q.FormValue("asof")); err != nil {
			return httpError{status: http.StatusBadRequest, title: q.p.Error(), text: q.p.NotFound()}
		}
		st.show = true
	}
	wake, ok := c.live.join()
	if !ok {
		q.w.Header().Set("Retry-After", "5")
		http.Error(q.w, "too many streams", http.StatusServiceUnavailable)
		return nil
	}
	defer c.live.leave(wake)
	rc := http.NewResponseController(q.w)
	_ = rc.SetWriteDeadline(time.Time{}) // it lasts as long as the page
	q.w.Header().Set("Content-Type", "text/event-stream")
	q.w.Header().Set("X-Accel-Buffering", "no")
	if _, err := fmt.Fprint(q.w, "retry: 3000\n\n"); err != nil {
		return nil // the browser went away
	}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	pending := true
	for {
		select {
		case <-q.Context().Done():
			return nil
		case <-c.live.closed:
			return nil
		case <-wake:
			pending = true
			continue
		case <-tick.C:
			pending = true
			continue
		case <-next.C:
		}
		if pending {
			pending = false
			if _, err := c.cfg.Accounts.Session(q.Context(), q.token); err != nil {
				return nil // signed out elsewhere: the client's next try is sent to the login
			}
			p, err := c.look(q, st)
			if err != nil {
				if q.Context().Err() == nil {
					c.log.Warn("read for stream", "operator", q.op.Name, "err", err)
				}
				return nil // the client shows that it is cut off, and comes back
			}
			b, err := json.Marshal(p)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(q.w, "event: patch\ndata: %s\n\n", b); err != nil {
				return nil // the browser went away
			}
			if err := rc.Flush(); err != nil {
				return nil // the browser went away
			}
		}
		next.Reset(patchEvery)
	}
}

// look reads the present state and says what differs from what the client was told.
func (c *Console) look(q *request, st *stream) (*patch, error) {
	now := c.now()
	p := &patch{Clock: q.p.Minute(now)}
	err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		ctx := q.Context()
		lag, err := store.LagOf(ctx, tx, now)
		if err != nil {
			return err
		}
		word, detail, class := liveText(q.p, lag, now)
		p.Live = [3]string{class, word, detail}
		all, err := c.snaps.take(ctx, tx, unfiltered, now)
		if err != nil {
			return err
		}
		p.Nav = q.p.N(int64(len(all.Groups)))
		if !st.show {
			return nil
		}
		if st.l.group == "none" {
			_, _, p.New, err = triage.CountAlerts(ctx, tx, st.l.filter, now, st.asof)
			return err
		}
		snap, err := c.snaps.take(ctx, tx, st.l.filter, now)
		if err != nil {
			return err
		}
		groups := snap.Groups
		if st.l.group == "pair" {
			groups = snap.Pairs()
		}
		for _, g := range groups {
			if g.FirstReceived.After(st.asof) {
				p.New++
			}
			p.row(q, st, g, now)
			if st.l.group == "sig" {
				for _, pair := range g.Pairs {
					p.row(q, st, pair, now)
				}
			}
		}
		return nil
	})
	return p, err
}

func (p *patch) row(q *request, st *stream, g *triage.Group, now time.Time) {
	id := g.ID()
	v := [4]string{q.p.N(g.Alerts), q.p.N(g.Passed), q.p.N(int64(g.Clinics)), q.p.Time(g.Last, now)}
	old, known := st.since[id]
	st.since[id] = v
	if !known && !g.Last.After(st.asof.Add(-time.Minute)) {
		return // as the page was made
	}
	if known && old == v {
		return
	}
	p.Rows = append(p.Rows, rowPatch{K: id, C: map[string]string{"n": v[0], "p": v[1], "k": v[2], "t": v[3]}})
}
