package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kadomori/kadomori/controlplane/internal/event"
)

const (
	// maxRanges of one ledger row. A box that skips every other number would make it grow without end; a real one has a handful.
	maxRanges = 4096
	// maxStreams of one appliance: a new one is a factory reset or a lost spool. Batches that run together may pass it by a few.
	maxStreams = 256
)

// batch is the messages of one transaction.
type batch struct {
	messages []*message
	events   int
}

func (b *batch) add(m *message) {
	b.messages = append(b.messages, m)
	b.events += len(m.items)
}

// ledger is the row of one stream while its transaction runs.
type ledger struct {
	clinic                 int32
	got, declared, refused event.Ranges
}

func (l *ledger) through() uint64 {
	all := slices.Clone(l.got)
	all.AddAll(l.declared)
	all.AddAll(l.refused)
	return all.Through()
}

// store writes the batch and acknowledges its messages. It tries until it succeeds or ctx ends; then the messages come again.
// Data that the database refuses is found by writing each message alone, and becomes a dead letter.
func (in *Ingest) store(ctx context.Context, b *batch) {
	pause := newPause(50*time.Millisecond, 5*time.Second)
	told := in.now()
	for ctx.Err() == nil {
		began := time.Now()
		res, err := in.write(ctx, b)
		if err == nil {
			for _, m := range b.messages {
				in.ack(m.msg)
			}
			in.metrics.observe(res, time.Since(began))
			in.rememberDevices(res.devices)
			in.committed(res.ledgers)
			return
		}
		if poisoned(err) {
			in.isolate(ctx, b, err)
			return
		}
		in.metrics.failed.Inc()
		in.log.Warn("write batch; trying again", "events", b.events, "err", err)
		if in.now().Sub(told) > ackWait/3 {
			told = in.now()
			for _, m := range b.messages {
				_ = m.msg.InProgress() // at worst it is delivered twice
			}
		}
		pause.wait(ctx)
	}
}

// poisoned says that the database refused the data itself: trying again can't help.
func poisoned(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code[:2] {
	case "21", "22", "23", "42", "44", "54": // data, constraint, and what our statements can't mean
		return true
	}
	return false
}

func (in *Ingest) isolate(ctx context.Context, b *batch, cause error) {
	if len(b.messages) > 1 {
		for _, m := range b.messages {
			one := &batch{}
			one.add(m)
			in.store(ctx, one)
		}
		return
	}
	m := b.messages[0]
	in.log.Error("message refused by the database", "subject", m.msg.Subject(), "refusals", m.refusals, "err", cause)
	m.refusals++
	switch m.refusals {
	case 1: // its rows
		reason := "the database refused it: " + cause.Error()
		m.letters = append(m.letters, letter{m.src.Clinic, m.src.Appliance, m.msg.Subject(), reason, m.msg.Data()})
		for i := range m.items {
			m.items[i].bad = reason
		}
	case 2: // its numbers or its letters
		m.items, m.letters = nil, []letter{{reason: "the database refused a message and the letter about it", subject: m.msg.Subject()}}
	default:
		in.ack(m.msg) // nothing is left to try
		return
	}
	in.store(ctx, b)
}

// result of one transaction.
type result struct {
	ledgers               map[key]*ledger
	stored, duplicates    int
	refused, deadLetters  int
	lag                   time.Duration // of the oldest event stored, box time to now
	unknown, tooManyHoles int
	devices               map[deviceKey]*device
}

func (in *Ingest) write(ctx context.Context, b *batch) (*result, error) {
	res := &result{}
	err := pgx.BeginFunc(ctx, in.cfg.DB.Ingest, func(tx pgx.Tx) error {
		*res = result{}
		// The time of receipt is that of the transaction, so that a day is complete soon after its end: what waits for the database
		// over midnight belongs to the day on which it got in.
		received := in.now().UTC().Truncate(time.Microsecond)
		for _, m := range b.messages {
			for i := range m.items {
				m.items[i].row.Received = received
			}
		}
		known, err := in.boxesOf(ctx, tx, b)
		if err != nil {
			return err
		}
		if res.ledgers, err = lockLedgers(ctx, tx, b, known); err != nil {
			return err
		}
		rows, roll, letters := in.sift(b, known, res)
		if len(rows) > 0 {
			if err := event.Copy(ctx, tx, rows); err != nil {
				return err
			}
			in.dropKnownDevices(roll)
			res.devices = roll.devices
			if err := roll.write(ctx, tx); err != nil {
				return err
			}
		}
		if err := in.writeLetters(ctx, tx, letters, res); err != nil {
			return err
		}
		return writeLedgers(ctx, tx, res.ledgers)
	})
	return res, err
}

// sift splits the batch into new rows and what is dropped, and brings the ledgers forward.
func (in *Ingest) sift(b *batch, known map[int32]int32, res *result) ([]*event.Row, *rollup, []letter) {
	rows := make([]*event.Row, 0, b.events)
	roll := newRollup()
	var letters []letter
	now := in.now()
	for _, m := range b.messages {
		letters = append(letters, m.letters...)
		if len(m.items) == 0 {
			continue
		}
		dead := func(reason string) {
			letters = append(letters, letter{m.src.Clinic, m.src.Appliance, m.msg.Subject(), reason, m.msg.Data()})
		}
		if known[m.src.Appliance] != m.src.Clinic {
			dead(fmt.Sprintf("clinic %d has no appliance %d", m.src.Clinic, m.src.Appliance))
			res.unknown++
			continue
		}
		l := res.ledgers[key{m.src.Appliance, m.src.Stream}]
		if l == nil {
			dead(fmt.Sprintf("more than %d streams of one appliance", maxStreams))
			continue
		}
		for i := range m.items {
			it := &m.items[i]
			seq := it.row.Seq
			switch {
			case l.got.Contains(seq):
				res.duplicates++
				continue
			case it.bad != "":
				if len(l.refused) < maxRanges {
					l.refused.Add(seq, seq)
				}
				res.refused++
				continue
			case len(l.got) >= maxRanges && !l.got.Contains(seq-1) && !l.got.Contains(seq+1):
				res.tooManyHoles++
				if res.tooManyHoles == 1 {
					dead(fmt.Sprintf("the stream has more than %d holes", maxRanges))
				}
				continue
			}
			l.got.Add(seq, seq)
			rows = append(rows, &it.row)
			roll.add(&it.row, it.e)
			if g := it.e.GetSpoolGap(); g != nil && len(l.declared) < maxRanges {
				l.declared.Add(g.GetFromSeq(), g.GetToSeq())
			}
			res.stored++
			res.lag = max(res.lag, now.Sub(it.row.T))
		}
	}
	return rows, roll, letters
}

// boxesOf returns the clinic of each appliance in the batch that exists. Appliances never change their clinic, so the memory holds.
func (in *Ingest) boxesOf(ctx context.Context, tx pgx.Tx, b *batch) (map[int32]int32, error) {
	known, ask := map[int32]int32{}, []int32{}
	in.mu.Lock()
	for _, m := range b.messages {
		a := m.src.Appliance
		if _, seen := known[a]; seen || a == 0 {
			continue
		}
		c, ok := in.boxes[a]
		known[a] = c
		if !ok {
			ask = append(ask, a)
		}
	}
	in.mu.Unlock()
	if len(ask) == 0 {
		return known, nil
	}
	rows, err := tx.Query(ctx, "SELECT appliance_id, clinic_id FROM appliance WHERE appliance_id = ANY ($1)", ask)
	if err != nil {
		return nil, fmt.Errorf("read appliances: %w", err)
	}
	var a, c int32
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, err := pgx.ForEachRow(rows, []any{&a, &c}, func() error {
		known[a], in.boxes[a] = c, c
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read appliances: %w", err)
	}
	return known, nil
}

// lockLedgers makes the missing rows and locks all of the batch, in the order of their keys, so that no two batches wait for each other.
// A stream beyond maxStreams has no entry in the answer.
func lockLedgers(ctx context.Context, tx pgx.Tx, b *batch, known map[int32]int32) (map[key]*ledger, error) {
	ledgers := map[key]*ledger{}
	var keys []key
	for _, m := range b.messages {
		k := key{m.src.Appliance, m.src.Stream}
		if _, seen := ledgers[k]; seen || len(m.items) == 0 || known[k.appliance] != m.src.Clinic {
			continue
		}
		ledgers[k] = nil
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	if len(keys) == 0 {
		return ledgers, nil
	}
	if err := readLedgers(ctx, tx, keys, ledgers); err != nil {
		return nil, err
	}
	missing := slices.DeleteFunc(slices.Clone(keys), func(k key) bool { return ledgers[k] != nil })
	if len(missing) == 0 {
		return ledgers, nil
	}
	clinics, appliances, streams := make([]int32, len(missing)), make([]int32, len(missing)), make([][16]byte, len(missing))
	for i, k := range missing {
		clinics[i], appliances[i], streams[i] = known[k.appliance], k.appliance, k.stream
	}
	if _, err := tx.Exec(ctx, `INSERT INTO event_ledger (clinic_id, appliance_id, stream_id)
		SELECT c, a, s FROM (SELECT *, row_number() OVER (PARTITION BY a ORDER BY i) AS nth
		    FROM unnest($1::int4[], $2::int4[], $3::uuid[]) WITH ORDINALITY AS n (c, a, s, i)) n
		WHERE (SELECT count(*) FROM event_ledger l WHERE l.appliance_id = a) + nth <= $4
		ORDER BY i ON CONFLICT DO NOTHING`, clinics, appliances, streams, maxStreams); err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	return ledgers, readLedgers(ctx, tx, missing, ledgers)
}

func readLedgers(ctx context.Context, tx pgx.Tx, keys []key, into map[key]*ledger) error {
	appliances, streams := make([]int32, len(keys)), make([][16]byte, len(keys))
	for i, k := range keys {
		appliances[i], streams[i] = k.appliance, k.stream
	}
	rows, err := tx.Query(ctx, `SELECT l.clinic_id, l.appliance_id, l.stream_id, l.got::text, l.declared::text, l.refused::text
		FROM event_ledger l JOIN unnest($1::int4[], $2::uuid[]) AS n (a, s) ON l.appliance_id = n.a AND l.stream_id = n.s
		ORDER BY l.appliance_id, l.stream_id FOR UPDATE OF l`, appliances, streams)
	if err != nil {
		return fmt.Errorf("lock ledger: %w", err)
	}
	if err := collectLedgers(rows, into); err != nil {
		return fmt.Errorf("lock ledger: %w", err)
	}
	return nil
}

func writeLedgers(ctx context.Context, tx pgx.Tx, ledgers map[key]*ledger) error {
	var appliances []int32
	var streams [][16]byte
	var got, declared, refused []string
	for k, l := range ledgers {
		if l == nil {
			continue
		}
		appliances, streams = append(appliances, k.appliance), append(streams, k.stream)
		got, declared, refused = append(got, l.got.String()), append(declared, l.declared.String()), append(refused, l.refused.String())
	}
	if len(appliances) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `UPDATE event_ledger l SET got = n.g::int8multirange, declared = n.d::int8multirange, refused = n.r::int8multirange,
			last_at = now()
		FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::text[], $5::text[]) AS n (a, s, g, d, r)
		WHERE l.appliance_id = n.a AND l.stream_id = n.s`, appliances, streams, got, declared, refused); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}
