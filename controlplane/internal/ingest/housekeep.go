package ingest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
)

const (
	// monthsAhead of partitions: this month, the one before (late events of the turn of the month) and two to come.
	monthsAhead    = 4
	partitionEvery = time.Hour
	purgeEvery     = 10 * time.Second
)

// housekeep makes partitions ahead, keeps the rows of gaps, looks at what fell outside of them, and takes what is committed out of the stream.
func (in *Ingest) housekeep(ctx context.Context) error {
	purge, partition, sweep := time.NewTicker(purgeEvery), time.NewTicker(partitionEvery), time.NewTicker(in.cfg.SweepInterval)
	defer purge.Stop()
	defer sweep.Stop()
	defer partition.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-partition.C:
			if err := in.makePartitions(ctx); err != nil && ctx.Err() == nil {
				in.log.Error("make partitions", "err", err)
			}
		case <-sweep.C:
			if err := in.sweepGaps(ctx); err != nil && ctx.Err() == nil {
				in.log.Warn("sweep", "err", err)
			}
		case <-purge.C:
			if err := in.purge(ctx); err != nil && ctx.Err() == nil {
				in.log.Warn("purge stream", "err", err)
			}
		}
	}
}

func (in *Ingest) makePartitions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var made int
	var outside int64
	from := in.now().UTC().AddDate(0, 0, -in.now().UTC().Day()) // the month before
	if err := in.cfg.DB.Ingest.QueryRow(ctx, "SELECT event_make_partitions($1, $2)", from, monthsAhead).Scan(&made); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	if made > 0 {
		in.log.Info("partitions made", "months", made)
	}
	if err := in.cfg.DB.Ingest.QueryRow(ctx, "SELECT event_outside_partitions()").Scan(&outside); err != nil {
		return fmt.Errorf("count events outside of partitions: %w", err)
	}
	in.metrics.outside.Set(float64(outside))
	if outside > 0 {
		in.log.Warn("events with absurd times lie in event_default", "at_least", outside)
	}
	return nil
}

// purge takes committed messages out of the stream when it is half full, or when one appliance's share is: what is kept is what events can
// be read from again after the database was restored from a backup. A stream that is full refuses new events.
func (in *Ingest) purge(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	stream, err := in.cfg.JetStream.Stream(ctx, broker.Stream)
	if err != nil {
		return fmt.Errorf("find stream: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(broker.SubjectPrefix+">"))
	if err != nil {
		return fmt.Errorf("read stream: %w", err)
	}
	c, err := stream.Consumer(ctx, Consumer)
	if err != nil {
		return fmt.Errorf("find consumer: %w", err)
	}
	ci, err := c.Info(ctx)
	if err != nil {
		return fmt.Errorf("read consumer: %w", err)
	}
	in.metrics.pending.Set(float64(ci.NumPending) + float64(ci.NumAckPending))
	in.metrics.streamBytes.Set(float64(info.State.Bytes))
	// Everything up to the floor is acknowledged, so committed.
	floor := ci.AckFloor.Stream
	if floor < info.State.FirstSeq {
		return nil
	}
	if most := info.Config.MaxBytes; most > 0 && info.State.Bytes > uint64(most)/2 {
		// The older half of what is committed; what remains above half full is taken by the next rounds.
		upTo := info.State.FirstSeq + (floor-info.State.FirstSeq)/2 + 1
		if err := stream.Purge(ctx, jetstream.WithPurgeSequence(upTo)); err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		in.log.Debug("purged", "up_to", upTo)
	}
	most := uint64(max(info.Config.MaxMsgsPerSubject, 0))
	for subject, n := range info.State.Subjects {
		if most == 0 || n <= most/2 {
			continue
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(floor+1)); err != nil {
			return fmt.Errorf("purge %s: %w", subject, err)
		}
		in.log.Debug("purged", "subject", subject)
	}
	return nil
}

// pause waits longer after each failure in a row, with jitter so that several workers don't knock together.
type pause struct{ least, most, next time.Duration }

func newPause(least, most time.Duration) *pause { return &pause{least: least, most: most, next: least} }

func (p *pause) reset() { p.next = p.least }

func (p *pause) wait(ctx context.Context) {
	d := p.next/2 + rand.N(p.next) //nolint:gosec // jitter
	p.next = min(2*p.next, p.most)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
