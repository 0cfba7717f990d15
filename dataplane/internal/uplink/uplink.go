// Package uplink sends spooled events to the centre's JetStream. Package app runs it; it reads the spool and never trims it:
// a publish acknowledgement only moves the send window, what the centre's database holds is told by package fleet. The trap:
// after any doubt (reconnect, refused or missing acknowledgement) it begins again at the committed watermark; the centre's
// ledger drops what it has already.
package uplink

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kadomori/kadomori/dataplane/internal/spool"
)

const (
	// maxEvents and maxBytes bound one message: 256 events, and below the stream's 1 MiB with room for one large event.
	maxEvents = 256
	maxBytes  = 256 << 10
	// window is how many messages may wait for their acknowledgement: 32 full ones are 8 MiB at the hub's slowest.
	window = 32
	// backlog is how many events must wait before severe ones overtake them.
	backlog = 2 * maxEvents
	// maxPatience bounds how long uncommitted events wait to be sent again, when that was in vain before.
	maxPatience = time.Hour
	// burst of the bandwidth limit, in bytes: one message must fit.
	burst = 1 << 20
)

// Config of an Uplink.
type Config struct {
	ClinicID, ApplianceID int32
	// URL of the NATS server, tls://host:port.
	URL string
	// TLS holds the appliance's certificate (GetClientCertificate, so that a renewed one is used at the next connection).
	// nil means no TLS; tests only.
	TLS   *tls.Config
	Spool *spool.Spool
	// MaxBytesPerSecond bounds what is sent, so that a clinic's line is never filled; 0 means 262144.
	MaxBytesPerSecond uint64
	// ClockOffset returns box clock minus centre clock in milliseconds, and false when not measured yet; nil: never.
	ClockOffset func() (int64, bool)
	// AckWait is how long an acknowledgement may take; 0 means 10 s.
	AckWait time.Duration
	// Stall is how long acknowledged events may stay uncommitted before they are sent again; 0 means 2 minutes.
	Stall time.Duration
	// ReconnectMax is the longest wait between two tries to connect; 0 means 60 s.
	ReconnectMax time.Duration
	Log          hclog.Logger
}

// Uplink is one connection's worth of sending.
type Uplink struct {
	cfg     Config
	log     hclog.Logger
	subject string
	limit   *rate.Limiter
	enc     *zstd.Encoder

	rewind chan string // why to begin again; room for one

	connected  atomic.Bool
	sentEvents atomic.Uint64
	sentBytes  atomic.Uint64
	messages   atomic.Uint64
	rewinds    atomic.Uint64
	duplicates atomic.Uint64
	violations atomic.Uint64
	refused    atomic.Uint64
	urgent     atomic.Uint64

	mu     sync.Mutex
	acked  position
	since  time.Time // when acked moved last
	change chan struct{}
	// interrupt ends the sender's wait for new events.
	interrupt context.CancelFunc
	err       string
}

// position is a place in the numbering.
type position struct {
	stream spool.StreamID
	seq    uint64
}

// Stats is the uplink's state.
type Stats struct {
	Connected  bool   `json:"connected"`
	Server     string `json:"server"`
	SentEvents uint64 `json:"sent_events"` // resent ones included
	SentBytes  uint64 `json:"sent_bytes"`  // compressed
	Messages   uint64 `json:"messages"`
	Rewinds    uint64 `json:"rewinds"`
	Duplicates uint64 `json:"duplicates"`
	Violations uint64 `json:"violations"`
	Refused    uint64 `json:"refused"` // publishes that were not acknowledged
	Urgent     uint64 `json:"urgent"`  // messages that overtook a backlog
	AckedSeq   uint64 `json:"acked_seq"`
	Error      string `json:"error,omitempty"` // the last one; empty when all is well
}

// New returns an Uplink. Errors: a missing or impossible setting.
func New(cfg Config) (*Uplink, error) {
	switch {
	case cfg.ClinicID <= 0 || cfg.ApplianceID <= 0:
		return nil, fmt.Errorf("new uplink: clinic %d, appliance %d: must be above 0", cfg.ClinicID, cfg.ApplianceID)
	case cfg.URL == "":
		return nil, errors.New("new uplink: no server address given")
	case cfg.Spool == nil:
		return nil, errors.New("new uplink: no spool given")
	}
	cfg.MaxBytesPerSecond = cmp.Or(cfg.MaxBytesPerSecond, 262144)
	cfg.AckWait = cmp.Or(cfg.AckWait, 10*time.Second)
	cfg.Stall = cmp.Or(cfg.Stall, 2*time.Minute)
	cfg.ReconnectMax = cmp.Or(cfg.ReconnectMax, time.Minute)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10),
		zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	return &Uplink{
		cfg: cfg, log: cfg.Log.Named("uplink"),
		subject: fmt.Sprintf("evt.%d.%d", cfg.ClinicID, cfg.ApplianceID),
		limit:   rate.NewLimiter(rate.Limit(cfg.MaxBytesPerSecond), burst), enc: enc,
		rewind: make(chan string, 1), change: make(chan struct{}), since: time.Now(),
	}, nil
}

// SetLimit changes the bandwidth limit, in bytes a second; 0 means the default of 262144.
func (u *Uplink) SetLimit(bytesPerSecond uint64) {
	u.limit.SetLimit(rate.Limit(cmp.Or(bytesPerSecond, 262144)))
}

// Stats returns the state.
func (u *Uplink) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return Stats{
		Connected: u.connected.Load(), Server: u.cfg.URL, SentEvents: u.sentEvents.Load(), SentBytes: u.sentBytes.Load(),
		Messages: u.messages.Load(), Rewinds: u.rewinds.Load(), Duplicates: u.duplicates.Load(), Violations: u.violations.Load(),
		Refused: u.refused.Load(), Urgent: u.urgent.Load(), AckedSeq: u.acked.seq, Error: u.err,
	}
}

// Run connects and sends until ctx ends. It tries for ever: a server that is away is no error.
func (u *Uplink) Run(ctx context.Context) error {
	nc, err := u.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(window+1), jetstream.WithPublishAsyncTimeout(u.cfg.AckWait))
	if err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	reader := u.cfg.Spool.NewReader()
	defer reader.Close()
	ctx, cancel := context.WithCancel(ctx)
	flight := make(chan sent, window)
	var wg sync.WaitGroup
	wg.Go(func() { u.collect(ctx, flight) })
	wg.Go(func() { u.watchStall(ctx) })
	defer wg.Wait()
	defer cancel()
	for {
		err := u.send(ctx, nc, js, reader, flight)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, spool.ErrClosed):
			return nil
		case err != nil:
			u.fail(err)
			if !wait(ctx, jitter(time.Second)) {
				return nil
			}
		}
	}
}

// sent is a message that waits for its acknowledgement.
type sent struct {
	ack    jetstream.PubAckFuture
	last   position
	again  bool // sent before
	urgent bool // ahead of the backlog
}

// send publishes batch after batch until something makes it begin again.
func (u *Uplink) send(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, reader *spool.Reader, flight chan<- sent) error {
	var top position // highest sent
	var err error
	for {
		select {
		case why := <-u.rewind:
			reader.Rewind()
			u.rewinds.Add(1)
			u.log.Debug("sending begins again at the committed watermark", "why", why)
		default:
		}
		if !nc.IsConnected() {
			if !u.waitConnected(ctx, nc) {
				return nil
			}
			continue
		}
		batch, urgent := u.cfg.Spool.Urgent(reader, backlog), true
		if len(batch.Events) == 0 {
			urgent = false
			if batch, err = u.next(ctx, reader); err != nil {
				return err
			}
		}
		if len(batch.Events) == 0 {
			continue // something asked to begin again
		}
		last := position{batch.Stream, batch.Events[len(batch.Events)-1].Seq}
		msg := &nats.Msg{Subject: u.subject, Header: nats.Header{"Content-Encoding": {"zstd"}}}
		msg.Data = u.enc.EncodeAll(u.envelope(batch), nil)
		if err := u.limit.WaitN(ctx, min(len(msg.Data), burst)); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		var ack jetstream.PubAckFuture
		ack, err = js.PublishMsgAsync(msg)
		if err != nil {
			u.begin("publish: " + err.Error())
			return fmt.Errorf("publish events: %w", err)
		}
		s := sent{ack: ack, last: last, again: urgent || last.stream == top.stream && last.seq <= top.seq, urgent: urgent}
		if !s.again {
			top = last
		}
		u.messages.Add(1)
		u.sentEvents.Add(uint64(len(batch.Events)))
		u.sentBytes.Add(uint64(len(msg.Data)))
		select {
		case flight <- s:
		case <-ctx.Done():
			return nil
		}
	}
}

// envelope encodes a kadomori.event.v1.Envelope; the events are in it as they lie in the spool.
func (u *Uplink) envelope(b spool.Batch) []byte {
	n := 64
	for _, e := range b.Events {
		n += len(e.Data) + 8
	}
	out := make([]byte, 0, n)
	out = protowire.AppendTag(out, 1, protowire.VarintType)
	out = protowire.AppendVarint(out, uint64(u.cfg.ClinicID))
	out = protowire.AppendTag(out, 2, protowire.VarintType)
	out = protowire.AppendVarint(out, uint64(u.cfg.ApplianceID))
	out = protowire.AppendTag(out, 3, protowire.BytesType)
	out = protowire.AppendBytes(out, b.Stream[:])
	for _, e := range b.Events {
		out = protowire.AppendTag(out, 4, protowire.BytesType)
		out = protowire.AppendBytes(out, e.Data)
	}
	if u.cfg.ClockOffset != nil {
		if ms, ok := u.cfg.ClockOffset(); ok {
			out = protowire.AppendTag(out, 5, protowire.VarintType)
			out = protowire.AppendVarint(out, protowire.EncodeZigZag(ms))
		}
	}
	return out
}

// collect waits for acknowledgements in the order of sending.
func (u *Uplink) collect(ctx context.Context, flight <-chan sent) {
	for {
		var s sent
		select {
		case s = <-flight:
		case <-ctx.Done():
			return
		}
		select {
		case ack := <-s.ack.Ok():
			if ack.Duplicate && !s.again {
				// Nothing of ours was sent under this id: somebody else's message took its place, so ours is not stored.
				u.duplicates.Add(1)
				u.log.Error("hub took a first sending for a duplicate; sending it again", "seq", s.last.seq)
				u.begin("unexpected duplicate")
				continue
			}
			if s.urgent {
				u.urgent.Add(1)
			} else {
				u.ack(s.last)
			}
		case err := <-s.ack.Err():
			u.refused.Add(1)
			u.fail(fmt.Errorf("publish up to %d: %w", s.last.seq, err))
			u.begin("not acknowledged: " + err.Error())
			// A hub that is full or has no such stream answers at once: give it air.
			if !wait(ctx, jitter(2*time.Second)) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (u *Uplink) ack(p position) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.acked, u.since, u.err = p, time.Now(), ""
	close(u.change)
	u.change = make(chan struct{})
}

// fail keeps an error for Stats and logs it once.
func (u *Uplink) fail(err error) {
	u.mu.Lock()
	was := u.err
	u.err = err.Error()
	u.mu.Unlock()
	if was != err.Error() {
		u.log.Warn("events can't be sent", "err", err)
	}
}

// begin asks the sender to go back to the committed watermark.
func (u *Uplink) begin(why string) {
	select {
	case u.rewind <- why:
	default:
	}
	u.mu.Lock()
	interrupt := u.interrupt
	u.mu.Unlock()
	if interrupt != nil {
		interrupt()
	}
}

// next waits for events; it returns none when begin was called meanwhile.
func (u *Uplink) next(ctx context.Context, reader *spool.Reader) (spool.Batch, error) {
	rctx, cancel := context.WithCancel(ctx)
	defer cancel()
	u.mu.Lock()
	u.interrupt = cancel
	u.mu.Unlock()
	if len(u.rewind) > 0 {
		return spool.Batch{}, nil
	}
	b, err := reader.Next(rctx, maxEvents, maxBytes)
	if err != nil && rctx.Err() != nil && ctx.Err() == nil {
		return spool.Batch{}, nil
	}
	return b, err
}

// watchStall notices a hub that acknowledged events and lost them: they stay uncommitted.
func (u *Uplink) watchStall(ctx context.Context) {
	tick := time.NewTicker(max(u.cfg.Stall/4, 10*time.Millisecond))
	defer tick.Stop()
	var committed uint64
	moved, patience := time.Now(), u.cfg.Stall
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st := u.cfg.Spool.Stats()
		u.mu.Lock()
		acked, since := u.acked, u.since
		u.mu.Unlock()
		if st.Committed != committed {
			patience = u.cfg.Stall
		}
		if st.Committed != committed || acked.stream != st.Stream || acked.seq <= st.Committed || !u.connected.Load() {
			committed, moved = st.Committed, time.Now()
			continue
		}
		if time.Since(moved) > patience && time.Since(since) > patience {
			u.log.Warn("events were acknowledged and not committed; sending them again", "acked", acked.seq, "committed", st.Committed)
			u.begin("not committed")
			// The watermark may just not come through while FleetService is away: the line is not filled with the same again.
			moved, patience = time.Now(), min(2*patience, maxPatience)
		}
	}
}

// Flush waits until everything durable was acknowledged or committed, or ctx ends. Package app calls it before it stops.
func (u *Uplink) Flush(ctx context.Context) error {
	for {
		st := u.cfg.Spool.Stats()
		u.mu.Lock()
		done := st.Committed >= st.Durable || (u.acked.stream == st.Stream && u.acked.seq >= st.Durable)
		change := u.change
		u.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("flush events: %w", ctx.Err())
		case <-change:
		case <-time.After(100 * time.Millisecond): // the watermark may move instead
		}
	}
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// jitter returns a random time between half of d and one and a half.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) } //nolint:gosec // spreads load, no secret
