// Package ingest takes events from JetStream and puts each into PostgreSQL exactly once.
//
// The control plane's wiring runs it; any number of processes may share the work. One batch is one transaction: the ledger's rows are
// locked, what is known already is dropped, the rest is copied into table event and added to the roll-ups, the ledger is brought forward.
// Messages are acknowledged after the commit, so a crash in between costs a repetition that the ledger drops.
// Trap: never trust the stream's own sequence or its de-duplication; both start anew when the broker's store is restored.
package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
)

// Consumer is the durable consumer that all processes share.
const Consumer = "ingest"

const (
	// fetchMessages is how many messages one worker takes at once; at 64 to 256 events each that is a batch of 8,000 and more.
	fetchMessages = 128
	// linger is how long a worker waits for company of the first message: a fifth of a second is the reader's patience, this is far less.
	linger = 25 * time.Millisecond
	// idle is how long a fetch waits for a first message.
	idle = 5 * time.Second
	// batchEvents closes a batch: memory of one worker stays around 30 MB.
	batchEvents = 16384
	// ackWait is after how long the broker gives a message to somebody else; a worker that waits for the database says "in progress".
	ackWait = 60 * time.Second
	// maxUnacked over all workers and processes.
	maxUnacked = 16 * fetchMessages
)

// Config of an Ingest.
type Config struct {
	// DB must have its Ingest pool.
	DB *postgres.DB
	// JetStream is on a connection of account STORE.
	JetStream jetstream.JetStream
	// OnCommitted is called after each commit for each stream in it: every event up to through was received, declared lost or refused.
	// It must return quickly. Optional.
	OnCommitted func(clinic, appliance int32, stream [16]byte, through uint64)
	// Workers is how many batches are written at the same time; 0 means 3: while one waits for
	// the disk the others decode.
	Workers int
	// SweepInterval is the time between two looks for gaps; a gap is told after two. 0 means 5 s.
	SweepInterval time.Duration
	// Metrics registers kadomori_ingest_*; nil registers nothing.
	Metrics prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	Log hclog.Logger
}

func (c Config) validate() error {
	switch {
	case c.DB == nil || c.DB.Ingest == nil:
		return errors.New("no database for ingest given")
	case c.JetStream == nil:
		return errors.New("no JetStream given")
	case c.Workers < 0 || c.Workers > 64:
		return fmt.Errorf("%d workers are outside 1 to 64", c.Workers)
	}
	return nil
}

// Ingest is made by New and lives in Run.
type Ingest struct {
	cfg     Config
	log     hclog.Logger
	metrics *metrics
	decoder *decoder
	notify  *notifier
	now     func() time.Time

	mu      sync.Mutex           // guards what follows
	boxes   map[int32]int32      // appliance to clinic
	letters map[int32]*bucket    // dead letters per appliance
	devices map[deviceKey]device // as last written, for leaving out what says nothing new; bounded by maxDevices
}

// key names a stream; ledger rows are locked in its order.
type key struct {
	appliance int32
	stream    [16]byte
}

// New checks the configuration. It talks to nobody yet.
func New(cfg Config) (*Ingest, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("make ingest: %w", err)
	}
	cfg.Workers = cmp.Or(cfg.Workers, 3)
	cfg.SweepInterval = cmp.Or(cfg.SweepInterval, sweepEvery)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dec, err := newDecoder()
	if err != nil {
		return nil, fmt.Errorf("make ingest: %w", err)
	}
	return &Ingest{
		cfg: cfg, log: cfg.Log.Named("ingest"), metrics: newMetrics(cfg.Metrics), decoder: dec, notify: newNotifier(), now: cfg.Now,
		boxes: map[int32]int32{}, letters: map[int32]*bucket{}, devices: map[deviceKey]device{},
	}, nil
}

// Run works until ctx ends. A batch that is being written then is finished, within ten seconds.
func (in *Ingest) Run(ctx context.Context) error {
	if err := in.makePartitions(ctx); err != nil {
		return fmt.Errorf("run ingest: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for range in.cfg.Workers {
		g.Go(func() error { return in.work(ctx) })
	}
	g.Go(func() error { return in.housekeep(ctx) })
	g.Go(func() error { return in.notify.run(ctx, in) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run ingest: %w", err)
	}
	return nil
}

// consumer finds or makes the durable consumer. It is asked for again whenever a fetch fails: a restored broker has forgotten it.
func (in *Ingest) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return in.cfg.JetStream.CreateOrUpdateConsumer(ctx, broker.Stream, jetstream.ConsumerConfig{
		Durable: Consumer, AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
		AckWait: ackWait, MaxAckPending: maxUnacked, MaxDeliver: -1,
	})
}

func (in *Ingest) work(ctx context.Context) error {
	pause := newPause(100*time.Millisecond, 5*time.Second)
	var c jetstream.Consumer
	for ctx.Err() == nil {
		var err error
		if c == nil {
			if c, err = in.consumer(ctx); err != nil {
				in.log.Warn("no consumer", "err", err)
				c = nil
				pause.wait(ctx)
				continue
			}
		}
		msgs, err := fetch(ctx, c)
		if len(msgs) > 0 {
			in.take(ctx, msgs)
		}
		if err != nil && ctx.Err() == nil {
			in.log.Warn("fetch failed", "err", err)
			c = nil
			pause.wait(ctx)
			continue
		}
		pause.reset()
	}
	return ctx.Err()
}

// fetch waits for a first message and lingers for more. It returns what it has also with an error.
func fetch(ctx context.Context, c jetstream.Consumer) ([]jetstream.Msg, error) {
	wait, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	first, err := c.Fetch(1, jetstream.FetchContext(wait))
	if err != nil {
		return nil, err
	}
	msgs := collect(nil, first)
	if len(msgs) == 0 {
		return nil, quiet(first.Error())
	}
	rest, err := c.Fetch(fetchMessages-1, jetstream.FetchMaxWait(linger))
	if err != nil {
		return msgs, err
	}
	return collect(msgs, rest), quiet(rest.Error())
}

func collect(msgs []jetstream.Msg, b jetstream.MessageBatch) []jetstream.Msg {
	for m := range b.Messages() {
		msgs = append(msgs, m)
	}
	return msgs
}

// quiet drops the errors that only say that no message came in time.
func quiet(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// take decodes messages and stores them in batches; every message is acknowledged or left to be delivered again.
func (in *Ingest) take(ctx context.Context, msgs []jetstream.Msg) {
	// The batch in hand is finished though the program stops; not for ever.
	ctx, cancel := grace(ctx, 10*time.Second)
	defer cancel()
	b := &batch{}
	for _, m := range msgs {
		if m.Subject() == broker.CanarySubject {
			in.ack(m)
			continue
		}
		b.add(in.decode(m))
		if b.events >= batchEvents {
			in.store(ctx, b)
			b = &batch{}
		}
	}
	if len(b.messages) > 0 {
		in.store(ctx, b)
	}
}

// grace returns a context that ends d after parent does.
func grace(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	var timer atomic.Pointer[time.Timer]
	stop := context.AfterFunc(parent, func() { timer.Store(time.AfterFunc(d, cancel)) })
	return ctx, func() {
		stop()
		if t := timer.Load(); t != nil {
			t.Stop()
		}
		cancel()
	}
}

func (in *Ingest) ack(m jetstream.Msg) {
	if err := m.Ack(); err != nil {
		in.log.Debug("acknowledge", "err", err) // it will come again and be dropped
	}
}

// committed tells what became durable.
func (in *Ingest) committed(ledgers map[key]*ledger) {
	clinics := map[int32]bool{}
	for k, l := range ledgers {
		if l == nil {
			continue
		}
		clinics[l.clinic] = true
		if in.cfg.OnCommitted != nil {
			in.cfg.OnCommitted(l.clinic, k.appliance, k.stream, l.through())
		}
	}
	in.notify.add(clinics)
}
