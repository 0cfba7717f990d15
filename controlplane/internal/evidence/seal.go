// Package evidence makes what was stored provable: each day of receipt of each clinic gets a digest over its events and its ledger, chained
// to the day before; and it forgets by rule, leaving a record of what was deleted.
//
// The control plane's wiring runs [Keeper.Run]; the operators' command line mounts [Command], which calls [Verify].
// Trap: a day is that of receipt (Japan time), not of box time: what an offline box sends weeks later belongs to the day it arrived, so a
// sealed day never changes.
package evidence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/event"
)

// Japan is the calendar of reports and evidence; no summer time since 1951.
var Japan = time.FixedZone("JST", 9*60*60)

// settle is how long after midnight a day is sealed: longer than a transaction of ingest can last.
const settle = 15 * time.Minute

// version begins everything that is hashed; another way to write the rows needs another one.
const version = "kadomori-evidence-1"

// Day is a date of Japan time at its midnight.
type Day struct{ time.Time }

// DayOf returns the day that t lies in.
func DayOf(t time.Time) Day {
	y, m, d := t.In(Japan).Date()
	return Day{time.Date(y, m, d, 0, 0, 0, 0, Japan)}
}

// ParseDay reads 2026-11-25.
func ParseDay(s string) (Day, error) {
	t, err := time.ParseInLocation(time.DateOnly, s, Japan)
	if err != nil {
		return Day{}, fmt.Errorf("read day %q: want YYYY-MM-DD", s)
	}
	return Day{t}, nil
}

func (d Day) String() string { return d.Format(time.DateOnly) }

// Next is the day after.
func (d Day) Next() Day { return Day{d.AddDate(0, 0, 1)} }

// stream is what a day's link says about one stream.
type stream struct {
	appliance              int32
	id                     [16]byte
	got, declared, refused event.Ranges
	events                 int64
	sum                    [32]byte // over the day's events of the stream
}

// MarshalJSON writes the stream as it is kept in evidence_day.ledger.
func (s stream) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{
		s.appliance, hex.EncodeToString(s.id[:]), s.got.String(), s.declared.String(), s.refused.String(), s.events, hex.EncodeToString(s.sum[:]),
	})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *stream) UnmarshalJSON(b []byte) error {
	var id, got, declared, refused, sum string
	fields := []any{&s.appliance, &id, &got, &declared, &refused, &s.events, &sum}
	if err := json.Unmarshal(b, &fields); err != nil || len(fields) != 7 {
		return fmt.Errorf("read stream of a ledger: %w", errors.Join(err, errors.New("want seven fields")))
	}
	for _, h := range []struct {
		text string
		to   []byte
	}{{id, s.id[:]}, {sum, s.sum[:]}} {
		raw, err := hex.DecodeString(h.text)
		if err != nil || len(raw) != len(h.to) {
			return fmt.Errorf("read stream of a ledger: %q is not %d bytes", h.text, len(h.to))
		}
		copy(h.to, raw)
	}
	for _, r := range []struct {
		text string
		to   *event.Ranges
	}{{got, &s.got}, {declared, &s.declared}, {refused, &s.refused}} {
		var err error
		if *r.to, err = event.ParseRanges(r.text); err != nil {
			return err
		}
	}
	return nil
}

type streamKey struct {
	appliance int32
	id        [16]byte
}

// rowText is the text of an event that is hashed: a JSON array as PostgreSQL prints jsonb, which is canonical. Never change it; a new
// column that must be covered makes a new version.
const rowText = `jsonb_build_array(clinic_id, appliance_id, stream_id, seq, to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
  to_char(received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), clock_offset_ms, kind, severity, category, action, certainty, rule, title,
  indicator, count, direction, src_ip, src_port, dst_ip, dst_port, ip_proto, app, device_mac, device_ip, zone, detail)::text`

// digestEvents reads the clinic's events received in [from, to), in order, and sums each stream.
func digestEvents(ctx context.Context, tx pgx.Tx, clinic int32, from, to time.Time, each func(k streamKey, seq uint64)) (map[streamKey]*stream, error) {
	rows, err := tx.Query(ctx, `SELECT appliance_id, stream_id, seq, `+rowText+`
		FROM event WHERE clinic_id = $1 AND received_at >= $2 AND received_at < $3 ORDER BY appliance_id, stream_id, seq, t`, clinic, from, to)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	out := map[streamKey]*stream{}
	sums := map[streamKey]hash.Hash{}
	var k streamKey
	var seq int64
	var text string
	if _, err := pgx.ForEachRow(rows, []any{&k.appliance, &k.id, &seq, &text}, func() error {
		s := out[k]
		if s == nil {
			s = &stream{appliance: k.appliance, id: k.id}
			out[k] = s
			sums[k] = sha256.New()
		}
		s.events++
		row := sha256.Sum256([]byte(text))
		sums[k].Write(row[:])
		if each != nil {
			each(k, uint64(seq))
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	for k, s := range out {
		sums[k].Sum(s.sum[:0])
	}
	return out, nil
}

// eventsSum binds the sums of the streams, in their order.
func eventsSum(streams []stream) (n int64, sum [32]byte) {
	h := sha256.New()
	h.Write([]byte(version))
	for _, s := range streams {
		if s.events == 0 {
			continue
		}
		n += s.events
		h.Write([]byte(strconv.FormatInt(int64(s.appliance), 10)))
		h.Write(s.id[:])
		h.Write([]byte(strconv.FormatInt(s.events, 10)))
		h.Write(s.sum[:])
	}
	h.Sum(sum[:0])
	return n, sum
}

// link is a row of evidence_day.
type link struct {
	day          Day
	events       int64
	eventsSHA256 []byte
	ledger       string // text of the jsonb
	ledgerSHA256 []byte
	prev, hash   []byte
}

// sum is the hash of the link.
func (l *link) sum(clinic int32) []byte {
	h := sha256.New()
	h.Write(fmt.Appendf(nil, "%s\n%d\n%s\n%d\n", version, clinic, l.day, l.events))
	h.Write(l.eventsSHA256)
	h.Write(l.ledgerSHA256)
	h.Write(l.prev)
	return h.Sum(nil)
}

// sealDay writes the link of one day. The transaction sees one moment (repeatable read).
func sealDay(ctx context.Context, tx pgx.Tx, clinic int32, day Day, prev []byte) (*link, error) {
	end := day.Next().Time
	streams, err := digestEvents(ctx, tx, clinic, day.Time, end, nil)
	if err != nil {
		return nil, err
	}
	// The ledger as it was at the end of the day: without what has come since.
	rows, err := tx.Query(ctx, `SELECT l.appliance_id, l.stream_id,
		  (l.got - coalesce((SELECT range_agg(int8range(e.seq, e.seq + 1)) FROM event e WHERE e.clinic_id = l.clinic_id
		    AND e.appliance_id = l.appliance_id AND e.stream_id = l.stream_id AND e.received_at >= $2), '{}'))::text,
		  l.declared::text, l.refused::text
		FROM event_ledger l WHERE l.clinic_id = $1 AND l.first_at < $2`, clinic, end)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	var list []stream
	var s stream
	var got, declared, refused string
	if _, err := pgx.ForEachRow(rows, []any{&s.appliance, &s.id, &got, &declared, &refused}, func() error {
		one := stream{appliance: s.appliance, id: s.id}
		for _, r := range []struct {
			text string
			to   *event.Ranges
		}{{got, &one.got}, {declared, &one.declared}, {refused, &one.refused}} {
			var err error
			if *r.to, err = event.ParseRanges(r.text); err != nil {
				return err
			}
		}
		if d := streams[streamKey{one.appliance, one.id}]; d != nil {
			one.events, one.sum = d.events, d.sum
			delete(streams, streamKey{one.appliance, one.id})
		}
		list = append(list, one)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	for k := range streams { // events without a ledger: ingest never makes them; they are sealed as they are, and verify tells
		list = append(list, *streams[k])
	}
	slices.SortFunc(list, func(a, b stream) int {
		if a.appliance != b.appliance {
			return int(a.appliance) - int(b.appliance)
		}
		return slices.Compare(a.id[:], b.id[:])
	})
	l := &link{day: day, prev: prev}
	var sum [32]byte
	l.events, sum = eventsSum(list)
	l.eventsSHA256 = sum[:]
	raw, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write ledger: %w", err)
	}
	if list == nil {
		raw = []byte("[]")
	}
	if err := tx.QueryRow(ctx, "SELECT $1::jsonb::text", string(raw)).Scan(&l.ledger); err != nil {
		return nil, fmt.Errorf("write ledger: %w", err)
	}
	ledgerSum := sha256.Sum256([]byte(l.ledger))
	l.ledgerSHA256 = ledgerSum[:]
	l.hash = l.sum(clinic)
	if _, err := tx.Exec(ctx, `INSERT INTO evidence_day (clinic_id, day, events, events_sha256, ledger, ledger_sha256, prev, hash)
		VALUES ($1, $2::text::date, $3, $4, $5::text::jsonb, $6, $7, $8)`,
		clinic, day.String(), l.events, l.eventsSHA256, l.ledger, l.ledgerSHA256, l.prev, l.hash); err != nil {
		return nil, fmt.Errorf("write link: %w", err)
	}
	return l, nil
}

// first is the prev of a clinic's first link.
var first = make([]byte, sha256.Size)

// sealClinic writes all links that are due, up to the day before now's.
func (k *Keeper) sealClinic(ctx context.Context, clinic int32, created time.Time) (int, error) {
	last := DayOf(k.now().Add(-settle)) // this day isn't over
	sealed := 0
	for {
		done := false
		err := pgx.BeginTxFunc(ctx, k.cfg.DB.Ingest, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			day, prev, err := nextLink(ctx, tx, clinic, created)
			if err != nil {
				return err
			}
			if !day.Before(last.Time) {
				done = true
				return nil
			}
			_, err = sealDay(ctx, tx, clinic, day, prev)
			return err
		})
		if err != nil {
			return sealed, fmt.Errorf("seal clinic %d: %w", clinic, err)
		}
		if done {
			return sealed, nil
		}
		sealed++
	}
}

func nextLink(ctx context.Context, tx pgx.Tx, clinic int32, created time.Time) (Day, []byte, error) {
	var text string
	var prev []byte
	err := tx.QueryRow(ctx, "SELECT day::text, hash FROM evidence_day WHERE clinic_id = $1 ORDER BY day DESC LIMIT 1", clinic).Scan(&text, &prev)
	if errors.Is(err, pgx.ErrNoRows) {
		return DayOf(created), first, nil
	}
	if err != nil {
		return Day{}, nil, fmt.Errorf("read last link: %w", err)
	}
	day, err := ParseDay(text)
	return day.Next(), prev, err
}
