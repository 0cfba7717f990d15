package ingest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/event"
)

// Causes of a gap beside those that the box declares.
const (
	causeUndeclared = "undeclared"
	causeRefused    = "refused"
	causeEnded      = "stream-ended"
	causeRestored   = "restored" // the centre was restored to an older point, and the spool had forgotten it
)

const (
	sweepEvery = 5 * time.Second
	// sweepLock keeps replicas from sweeping at the same time (pg_try_advisory_xact_lock; any fixed number).
	sweepLock = 0x6b6d67617073
)

// gap is a range of numbers of one stream that is missing, for one reason.
type gap struct {
	event.Range
	cause string
}

// openGap is a row of event_gap that is not closed.
type openGap struct {
	gap
	id        int64
	to        *int64
	confirmed bool
	fromT     *time.Time
	opened    time.Time
}

// sweepGaps brings event_gap in line with the ledger: new holes open, filled ones close. A hole must be there in two sweeps before it is
// confirmed. It runs beside ingest, not inside: batches that are written side by side make holes which close by themselves.
func (in *Ingest) sweepGaps(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := pgx.BeginFunc(ctx, in.cfg.DB.Ingest, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(sweepLock)).Scan(&mine); err != nil || !mine {
			return err
		}
		streams, err := holedStreams(ctx, tx)
		if err != nil {
			return err
		}
		open, err := openGaps(ctx, tx)
		if err != nil {
			return err
		}
		for _, k := range sorted(streams, compareKeys) {
			if err := in.sweepStream(ctx, tx, k, streams[k], open[k]); err != nil {
				return fmt.Errorf("appliance %d: %w", k.appliance, err)
			}
		}
		return endedStreams(ctx, tx, in.now())
	})
	if err != nil {
		return fmt.Errorf("sweep gaps: %w", err)
	}
	var n int64
	if err := in.cfg.DB.Ingest.QueryRow(ctx, "SELECT count(*) FROM event_gap WHERE closed_at IS NULL AND confirmed").Scan(&n); err != nil {
		return fmt.Errorf("count gaps: %w", err)
	}
	in.metrics.gaps.Set(float64(n))
	return nil
}

// holedStreams reads the ledgers that have holes or open gaps; a healthy stream is one range and has neither.
func holedStreams(ctx context.Context, tx pgx.Tx) (map[key]*ledger, error) {
	rows, err := tx.Query(ctx, `SELECT l.clinic_id, l.appliance_id, l.stream_id, l.got::text, l.declared::text, l.refused::text FROM event_ledger l
		WHERE l.got + l.declared + l.refused <> '{}' AND l.got <> int8multirange(int8range(1, upper(l.got + l.declared + l.refused)))
		   OR EXISTS (SELECT FROM event_gap g WHERE g.appliance_id = l.appliance_id AND g.stream_id = l.stream_id
		              AND g.closed_at IS NULL AND g.to_seq IS NOT NULL)`)
	if err != nil {
		return nil, fmt.Errorf("read ledgers: %w", err)
	}
	out := map[key]*ledger{}
	if err := collectLedgers(rows, out); err != nil {
		return nil, fmt.Errorf("read ledgers: %w", err)
	}
	return out, nil
}

func openGaps(ctx context.Context, tx pgx.Tx) (map[key][]openGap, error) {
	rows, err := tx.Query(ctx, `SELECT appliance_id, stream_id, gap_id, from_seq, to_seq, cause, confirmed, from_t, opened_at
		FROM event_gap WHERE closed_at IS NULL AND to_seq IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("read gaps: %w", err)
	}
	out := map[key][]openGap{}
	var k key
	var g openGap
	var from int64
	_, err = pgx.ForEachRow(rows, []any{&k.appliance, &k.stream, &g.id, &from, &g.to, &g.cause, &g.confirmed, &g.fromT, &g.opened}, func() error {
		g.Range = event.Range{Lo: uint64(from), Hi: uint64(*g.to)}
		out[k] = append(out[k], g)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read gaps: %w", err)
	}
	return out, nil
}

// wantedGaps are the holes below the highest number that was received, declared or refused, cut where the cause changes.
func wantedGaps(l *ledger, restored uint64, reasons map[event.Range]string) []gap {
	all := slices.Clone(l.got)
	all.AddAll(l.declared)
	all.AddAll(l.refused)
	if all.Top() == 0 {
		return nil
	}
	missing := event.Ranges{{Lo: 1, Hi: all.Top()}}.Minus(l.got)
	var out []gap
	for _, r := range missing.Minus(l.declared).Minus(l.refused) {
		cause := causeUndeclared
		if restored >= r.Lo && restored <= r.Hi {
			cause = causeRestored
		}
		out = append(out, gap{r, cause})
	}
	inside := func(set event.Ranges) event.Ranges { return missing.Minus(missing.Minus(set)) }
	for _, r := range inside(l.refused) {
		out = append(out, gap{r, causeRefused})
	}
	// Neighbouring declarations with different reasons are one range in the ledger; the events tell them apart.
	declared := inside(l.declared).Minus(l.refused)
	for _, d := range sorted(reasons, func(a, b event.Range) int { return cmp.Or(cmp.Compare(a.Lo, b.Lo), cmp.Compare(a.Hi, b.Hi)) }) {
		said := event.Ranges{d}
		for _, r := range declared.Minus(declared.Minus(said)) {
			out = append(out, gap{r, reasons[d]})
		}
		declared = declared.Minus(said)
	}
	for _, r := range declared { // its event is gone by retention
		out = append(out, gap{r, "declared"})
	}
	return out
}

func (in *Ingest) sweepStream(ctx context.Context, tx pgx.Tx, k key, l *ledger, open []openGap) error {
	var reasons map[event.Range]string
	if len(l.declared) > 0 {
		var err error
		if reasons, err = declaredReasons(ctx, tx, k, l.clinic); err != nil {
			return err
		}
	}
	var restored uint64
	if err := tx.QueryRow(ctx, "SELECT coalesce(restored_top, 0) FROM event_ledger WHERE appliance_id = $1 AND stream_id = $2",
		k.appliance, k.stream).Scan(&restored); err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	wanted := map[gap]bool{}
	for _, g := range wantedGaps(l, restored, reasons) {
		wanted[g] = true
	}
	var closed []openGap
	for _, o := range open {
		if wanted[o.gap] {
			delete(wanted, o.gap)
			if !o.confirmed {
				if err := confirm(ctx, tx, k, l.clinic, o); err != nil {
					return err
				}
			}
			continue
		}
		closed = append(closed, o)
	}
	var fresh []gap
	for g := range wanted {
		fresh = append(fresh, g)
	}
	slices.SortFunc(fresh, func(a, b gap) int { return cmp.Compare(a.Lo, b.Lo) })
	for _, o := range closed {
		if err := closeGap(ctx, tx, k, l, o, fresh); err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	times, err := boundaryTimes(ctx, tx, k, l, fresh)
	if err != nil {
		return err
	}
	for _, g := range fresh {
		// The rest of a gap that was filled in part goes on where that stood.
		opened, confirmed := in.now(), false
		for _, o := range closed {
			if o.Lo <= g.Lo && g.Hi <= o.Hi {
				opened, confirmed = o.opened, o.confirmed
			}
		}
		if _, err := tx.Exec(ctx, `INSERT INTO event_gap (clinic_id, appliance_id, stream_id, from_seq, to_seq, cause, from_t, to_t, confirmed, opened_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, l.clinic, k.appliance, k.stream, int64(g.Lo), int64(g.Hi), g.cause,
			times[g.Lo-1], times[g.Hi+1], confirmed, opened); err != nil {
			return fmt.Errorf("open gap: %w", err)
		}
		if confirmed {
			if err := countLost(ctx, tx, k, l.clinic, times[g.Lo-1], opened, int64(g.Hi-g.Lo+1)); err != nil {
				return err
			}
		}
		in.log.Debug("hole in a stream", "appliance", k.appliance, "from", g.Lo, "to", g.Hi, "cause", g.cause)
	}
	return nil
}

func confirm(ctx context.Context, tx pgx.Tx, k key, clinic int32, o openGap) error {
	if _, err := tx.Exec(ctx, "UPDATE event_gap SET confirmed = true WHERE clinic_id = $1 AND gap_id = $2", clinic, o.id); err != nil {
		return fmt.Errorf("confirm gap: %w", err)
	}
	return countLost(ctx, tx, k, clinic, o.fromT, o.opened, int64(o.Hi-o.Lo+1))
}

// closeGap ends a gap that is no more; one that was never confirmed leaves no trace.
func closeGap(ctx context.Context, tx pgx.Tx, k key, l *ledger, o openGap, fresh []gap) error {
	if !o.confirmed {
		_, err := tx.Exec(ctx, "DELETE FROM event_gap WHERE clinic_id = $1 AND gap_id = $2", l.clinic, o.id)
		return err
	}
	as := "filled"
	for _, g := range fresh {
		if g.Lo <= o.Hi && g.Hi >= o.Lo {
			as = "split"
			if g.Lo <= o.Lo && g.Hi >= o.Hi {
				as = "cause"
			}
		}
	}
	if _, err := tx.Exec(ctx, "UPDATE event_gap SET closed_at = now(), closed_as = $3 WHERE clinic_id = $1 AND gap_id = $2", l.clinic, o.id, as); err != nil {
		return fmt.Errorf("close gap: %w", err)
	}
	return countLost(ctx, tx, k, l.clinic, o.fromT, o.opened, -int64(o.Hi-o.Lo+1))
}

// countLost adds to the hour in which the gap begins; a gap without an event before it counts in the hour it was found.
func countLost(ctx context.Context, tx pgx.Tx, k key, clinic int32, from *time.Time, opened time.Time, n int64) error {
	at := opened
	if from != nil {
		at = *from
	}
	if _, err := tx.Exec(ctx, `INSERT INTO coverage_hourly AS c (clinic_id, appliance_id, hour, reported_ms, unprotected_ms, packets_seen, packets_lost,
		  bytes_clear, bytes_name, bytes_opaque, lost_events) VALUES ($1, $2, $3, 0, 0, 0, 0, 0, 0, 0, greatest($4::bigint, 0))
		ON CONFLICT (clinic_id, appliance_id, hour) DO UPDATE SET lost_events = greatest(0, c.lost_events + $4::bigint)`,
		clinic, k.appliance, at.UTC().Truncate(time.Hour), n); err != nil {
		return fmt.Errorf("count lost events: %w", err)
	}
	return nil
}

func declaredReasons(ctx context.Context, tx pgx.Tx, k key, clinic int32) (map[event.Range]string, error) {
	rows, err := tx.Query(ctx, `SELECT (detail->>'from_seq')::bigint, (detail->>'to_seq')::bigint, coalesce(nullif(detail->>'reason', ''), 'declared')
		FROM event WHERE clinic_id = $1 AND appliance_id = $2 AND stream_id = $3 AND kind = 'spool_gap'`, clinic, k.appliance, k.stream)
	if err != nil {
		return nil, fmt.Errorf("read declared gaps: %w", err)
	}
	out := map[event.Range]string{}
	var lo, hi int64
	var reason string
	if _, err := pgx.ForEachRow(rows, []any{&lo, &hi, &reason}, func() error {
		out[event.Range{Lo: uint64(lo), Hi: uint64(hi)}] = reason
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read declared gaps: %w", err)
	}
	return out, nil
}

// boundaryTimes finds the box times of the events next to the gaps, in one scan of the clinic's events.
func boundaryTimes(ctx context.Context, tx pgx.Tx, k key, l *ledger, gaps []gap) (map[uint64]*time.Time, error) {
	var seqs []int64
	for _, g := range gaps {
		for _, n := range []uint64{g.Lo - 1, g.Hi + 1} {
			if l.got.Contains(n) {
				seqs = append(seqs, int64(n))
			}
		}
	}
	out := map[uint64]*time.Time{}
	if len(seqs) == 0 {
		return out, nil
	}
	rows, err := tx.Query(ctx, `SELECT seq, t FROM event WHERE clinic_id = $1 AND appliance_id = $2 AND stream_id = $3 AND seq = ANY ($4)`,
		l.clinic, k.appliance, k.stream, seqs)
	if err != nil {
		return nil, fmt.Errorf("read times beside gaps: %w", err)
	}
	var seq int64
	var t time.Time
	if _, err := pgx.ForEachRow(rows, []any{&seq, &t}, func() error {
		at := t
		out[uint64(seq)] = &at
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read times beside gaps: %w", err)
	}
	return out, nil
}

// endedStreams opens a gap of unknown length at the end of a stream that a later one says it lost: the spool's disk was replaced.
func endedStreams(ctx context.Context, tx pgx.Tx, now time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO event_gap (clinic_id, appliance_id, stream_id, from_seq, to_seq, cause, to_t, confirmed)
		SELECT l.clinic_id, l.appliance_id, l.stream_id, upper(l.got), NULL, $1, e.t, true
		FROM event e JOIN event_ledger l ON l.appliance_id = e.appliance_id AND l.clinic_id = e.clinic_id
		  AND l.stream_id::text = regexp_replace(e.detail->>'previous_stream_id', '(.{8})(.{4})(.{4})(.{4})(.{12})', '\1-\2-\3-\4-\5')
		WHERE e.kind = 'stream_start' AND e.detail->>'reason' = 'spool-lost' AND e.received_at > $2::timestamptz - interval '2 days'
		  AND NOT isempty(l.got)
		  AND NOT EXISTS (SELECT FROM event_gap g WHERE g.appliance_id = l.appliance_id AND g.stream_id = l.stream_id AND g.cause = $1)`, causeEnded, now)
	if err != nil {
		return fmt.Errorf("end streams: %w", err)
	}
	return nil
}

// collectLedgers reads rows of clinic_id, appliance_id, stream_id and the three sets as text.
func collectLedgers(rows pgx.Rows, into map[key]*ledger) error {
	var k key
	var clinic int32
	var got, declared, refused string
	_, err := pgx.ForEachRow(rows, []any{&clinic, &k.appliance, &k.stream, &got, &declared, &refused}, func() error {
		l := &ledger{clinic: clinic}
		for _, f := range []struct {
			text string
			set  *event.Ranges
		}{{got, &l.got}, {declared, &l.declared}, {refused, &l.refused}} {
			var err error
			if *f.set, err = event.ParseRanges(f.text); err != nil {
				return fmt.Errorf("ledger of appliance %d: %w", k.appliance, err)
			}
		}
		into[k] = l
		return nil
	})
	return err
}

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.appliance, b.appliance), bytes.Compare(a.stream[:], b.stream[:]))
}
