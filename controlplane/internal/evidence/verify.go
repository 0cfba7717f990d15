package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/event"
)

// Problem is a difference between what was sealed and what is there.
type Problem struct {
	Day  Day
	What string // names the place: the appliance, stream and number when they can be told
}

func (p Problem) String() string { return p.Day.String() + ": " + p.What }

// Result of a verification.
type Result struct {
	Clinic   int32
	From, To Day
	Days     int   // links that were looked at
	Events   int64 // events that were read and summed again
	// Deleted are days whose events are gone by a rule of retention, as the deletion log says; their links were verified.
	Deleted  []Day
	Problems []Problem // the first difference first
	Hash     []byte    // of the last link; who wrote it down elsewhere can compare
}

// Verify recomputes the links of [from, to] (both inclusive) of one clinic. tx must see the clinic's rows (DB.As, DB.Fleet, or the owner);
// it should be repeatable read. An error means that it could not be verified, a Problem that it was and is wrong.
func Verify(ctx context.Context, tx pgx.Tx, clinic int32, from, to Day) (*Result, error) {
	res := &Result{Clinic: clinic, From: from, To: to}
	links, err := readLinks(ctx, tx, clinic, from, to)
	if err != nil {
		return nil, fmt.Errorf("verify clinic %d: %w", clinic, err)
	}
	var before *link
	var beforeStreams []stream
	if len(links) > 0 && links[0].day.Before(from.Time) {
		before, links = links[0], links[1:]
		if err := json.Unmarshal([]byte(before.ledger), &beforeStreams); err != nil {
			res.problem(before.day, "the stored ledger can't be read: "+err.Error())
		}
	}
	for _, l := range links {
		streams, err := res.link(ctx, tx, before, l, beforeStreams)
		if err != nil {
			return nil, fmt.Errorf("verify clinic %d, %s: %w", clinic, l.day, err)
		}
		before, beforeStreams = l, streams
		res.Days++
		res.Hash = l.hash
	}
	if before != nil {
		if err := res.ledgerGrew(ctx, tx, before, beforeStreams); err != nil {
			return nil, fmt.Errorf("verify clinic %d: %w", clinic, err)
		}
	}
	return res, nil
}

func (r *Result) problem(d Day, what string) { r.Problems = append(r.Problems, Problem{d, what}) }

// readLinks returns the links of [from, to], with the last one before from in front when there is one.
func readLinks(ctx context.Context, tx pgx.Tx, clinic int32, from, to Day) ([]*link, error) {
	rows, err := tx.Query(ctx, `SELECT day::text, events, events_sha256, ledger::text, ledger_sha256, prev, hash FROM evidence_day
		WHERE clinic_id = $1 AND day <= $3::text::date
		  AND day >= coalesce((SELECT max(day) FROM evidence_day WHERE clinic_id = $1 AND day < $2::text::date), $2::text::date) ORDER BY day`,
		clinic, from.String(), to.String())
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	links, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*link, error) {
		l := &link{}
		var day string
		if err := row.Scan(&day, &l.events, &l.eventsSHA256, &l.ledger, &l.ledgerSHA256, &l.prev, &l.hash); err != nil {
			return nil, err
		}
		var err error
		l.day, err = ParseDay(day)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	return links, nil
}

// link verifies one day and returns its streams.
func (r *Result) link(ctx context.Context, tx pgx.Tx, before, l *link, beforeStreams []stream) ([]stream, error) {
	switch {
	case before == nil && r.Days == 0 && !bytes.Equal(l.prev, first):
		r.problem(l.day, "the chain begins here, but the link says that there was a day before")
	case before != nil && !l.day.Equal(before.day.Next().Time):
		r.problem(before.day.Next(), "the link of this day is missing")
	case before != nil && !bytes.Equal(l.prev, before.hash):
		r.problem(l.day, "the link doesn't follow from that of the day before")
	}
	if sum := sha256.Sum256([]byte(l.ledger)); !bytes.Equal(sum[:], l.ledgerSHA256) {
		r.problem(l.day, "the stored ledger was changed")
	}
	if !bytes.Equal(l.sum(r.Clinic), l.hash) {
		r.problem(l.day, "the link itself was changed")
	}
	var sealed []stream
	if bad := json.Unmarshal([]byte(l.ledger), &sealed); bad != nil {
		r.problem(l.day, "the stored ledger can't be read: "+bad.Error())
		return nil, ctx.Err()
	}
	if n, sum := eventsSum(sealed); n != l.events || !bytes.Equal(sum[:], l.eventsSHA256) {
		r.problem(l.day, "the stored sums of streams were changed")
	}
	return sealed, r.events(ctx, tx, l, sealed, beforeStreams)
}

// events compares what is in the table with what was sealed, stream by stream.
func (r *Result) events(ctx context.Context, tx pgx.Tx, l *link, sealed, beforeStreams []stream) error {
	seen := map[streamKey]*event.Ranges{}
	twice := map[streamKey]uint64{}
	now, err := digestEvents(ctx, tx, r.Clinic, l.day.Time, l.day.Next().Time, func(k streamKey, seq uint64) {
		if seen[k] == nil {
			seen[k] = &event.Ranges{}
		}
		if seen[k].Contains(seq) && twice[k] == 0 {
			twice[k] = seq
		}
		seen[k].Add(seq, seq)
	})
	if err != nil {
		return err
	}
	deleted, err := r.deleted(ctx, tx, l.day)
	if err != nil {
		return err
	}
	gone := false
	for _, s := range sealed {
		k := streamKey{s.appliance, s.id}
		have := now[k]
		delete(now, k)
		if have == nil {
			have = &stream{}
		}
		r.Events += have.events
		if have.events == s.events && have.sum == s.sum {
			r.numbers(l.day, s, beforeStreams, seen[k], deleted)
			continue
		}
		if deleted && have.events < s.events {
			gone = true
			continue
		}
		name := fmt.Sprintf("appliance %d, stream %s", s.appliance, hex.EncodeToString(s.id[:]))
		switch {
		case twice[k] != 0:
			r.problem(l.day, fmt.Sprintf("%s: event %d is there twice", name, twice[k]))
		case have.events == s.events:
			r.problem(l.day, name+": an event was changed")
		default:
			r.problem(l.day, fmt.Sprintf("%s: %d events are there, %d were sealed%s", name, have.events, s.events, firstMissing(s, beforeStreams, seen[k])))
		}
	}
	for k, s := range now {
		r.Events += s.events
		r.problem(l.day, fmt.Sprintf("appliance %d, stream %s: %d events of a stream that was not sealed", k.appliance, hex.EncodeToString(k.id[:]), s.events))
	}
	if gone {
		r.Deleted = append(r.Deleted, l.day)
	}
	return nil
}

// numbers checks that the ledger grew by exactly the day's events.
func (r *Result) numbers(day Day, s stream, beforeStreams []stream, seen *event.Ranges, deleted bool) {
	if deleted {
		return
	}
	grown := s.got.Minus(gotBefore(s, beforeStreams))
	var have event.Ranges
	if seen != nil {
		have = *seen
	}
	if missing := grown.Minus(have); len(missing) > 0 && gotKnown(s, beforeStreams, r.Days) {
		r.problem(day, fmt.Sprintf("appliance %d, stream %s: the ledger has number %d, which isn't among the day's events",
			s.appliance, hex.EncodeToString(s.id[:]), missing[0].Lo))
	}
	if extra := have.Minus(s.got); len(extra) > 0 {
		r.problem(day, fmt.Sprintf("appliance %d, stream %s: event %d isn't in the ledger", s.appliance, hex.EncodeToString(s.id[:]), extra[0].Lo))
	}
}

func gotBefore(s stream, before []stream) event.Ranges {
	for _, b := range before {
		if b.appliance == s.appliance && b.id == s.id {
			return b.got
		}
	}
	return nil
}

// gotKnown says whether the state before the day is known: a day was verified before it, or its link was read.
func gotKnown(_ stream, before []stream, days int) bool { return before != nil || days > 0 }

func firstMissing(s stream, before []stream, seen *event.Ranges) string {
	var have event.Ranges
	if seen != nil {
		have = *seen
	}
	if missing := s.got.Minus(gotBefore(s, before)).Minus(have); len(missing) > 0 {
		return fmt.Sprintf("; the first that is missing is %d", missing[0].Lo)
	}
	return ""
}

// deleted says whether retention has deleted events of that day.
func (r *Result) deleted(ctx context.Context, tx pgx.Tx, day Day) (bool, error) {
	var yes bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM deletion_log WHERE clinic_id = $1 AND dataset IN ('security', 'operation') AND rows > 0
		AND before > $2)`, r.Clinic, day.Time).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("read deletions: %w", err)
	}
	return yes, nil
}

// ledgerGrew checks that today's ledger still has everything that the last link says was received.
func (r *Result) ledgerGrew(ctx context.Context, tx pgx.Tx, l *link, sealed []stream) error {
	rows, err := tx.Query(ctx, "SELECT appliance_id, stream_id, got::text FROM event_ledger WHERE clinic_id = $1", r.Clinic)
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	now := map[streamKey]event.Ranges{}
	var k streamKey
	var text string
	if _, err := pgx.ForEachRow(rows, []any{&k.appliance, &k.id, &text}, func() error {
		got, err := event.ParseRanges(text)
		now[k] = got
		return err
	}); err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	for _, s := range sealed {
		if lost := s.got.Minus(now[streamKey{s.appliance, s.id}]); len(lost) > 0 {
			r.problem(l.day, fmt.Sprintf("appliance %d, stream %s: the ledger of today has lost number %d", s.appliance, hex.EncodeToString(s.id[:]), lost[0].Lo))
		}
	}
	return nil
}
