package appliance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
)

// Desired is what an appliance should run.
type Desired struct {
	Revision   uint64
	Policy     *bundlev1.Envelope // nil: none yet
	Signatures *bundlev1.Envelope // nil: none yet
	// Commands without a result, oldest first.
	Commands []*bundlev1.Envelope
}

// ReadDesired returns the desired state of the approved ones of some appliances. tx sees their clinics.
func ReadDesired(ctx context.Context, tx pgx.Tx, store *bundle.Store, ids []int32) (map[int32]Desired, error) {
	// Revisions first: a change that commits in between raises them again, and its notice comes after.
	q, err := tx.Query(ctx, `SELECT appliance_id, revision, signature_target FROM appliance WHERE appliance_id = ANY ($1) AND state = 'approved'`, ids)
	if err != nil {
		return nil, fmt.Errorf("read revisions: %w", err)
	}
	out := make(map[int32]Desired, len(ids))
	targets := make(map[int32]int64, len(ids))
	signatures := map[int64]*bundlev1.Envelope{}
	var id int32
	var revision, target int64
	if _, err := pgx.ForEachRow(q, []any{&id, &revision, &target}, func() error {
		out[id] = Desired{Revision: uint64(revision)}
		targets[id], signatures[target] = target, nil
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read revisions: %w", err)
	}
	commands := map[int32][]*bundlev1.Envelope{}
	q, err = tx.Query(ctx, `SELECT appliance_id, envelope FROM appliance_command WHERE appliance_id = ANY ($1) AND state = 'pending' ORDER BY created_at`, ids)
	if err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	var raw []byte
	if _, err := pgx.ForEachRow(q, []any{&id, &raw}, func() error {
		env := &bundlev1.Envelope{}
		if err := proto.Unmarshal(raw, env); err != nil {
			return fmt.Errorf("decode command of appliance %d: %w", id, err)
		}
		commands[id] = append(commands[id], env)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	policies, err := store.Policies(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	for version := range signatures {
		if signatures[version], err = store.Signatures(ctx, tx, version); err != nil {
			return nil, err
		}
	}
	for id, d := range out {
		d.Policy, d.Signatures, d.Commands = policies[id], signatures[targets[id]], commands[id]
		out[id] = d
	}
	return out, nil
}

// Report is what an appliance says of itself.
type Report struct {
	Version          string
	WireMode         string
	PolicyVersion    uint64
	SignatureVersion uint64
	Refused          string // empty: nothing was refused
	ClockOffset      time.Duration
}

// StoreReport keeps a report. tx sees the appliance's clinic.
func StoreReport(ctx context.Context, tx pgx.Tx, id int32, r Report, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE appliance SET last_seen = $2, version = $3, wire_mode = $4, policy_version = $5, signature_version = $6,
		refused = $7, clock_offset_ms = $8 WHERE appliance_id = $1`,
		id, now, clip(r.Version, 64), clip(r.WireMode, 32), int64(r.PolicyVersion), int64(r.SignatureVersion), clip(strings.TrimSuffix(r.Refused, "; "), 500), r.ClockOffset.Milliseconds())
	if err != nil {
		return fmt.Errorf("store report of appliance: %w", err)
	}
	return nil
}

// SetConnected notes that appliances are (not) connected. tx is of the fleet's role.
func SetConnected(ctx context.Context, tx pgx.Tx, ids []int32, connected bool, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE appliance SET connected = $2, last_seen = CASE WHEN $2 THEN $3 ELSE last_seen END WHERE appliance_id = ANY ($1)`,
		ids, connected, now)
	if err != nil {
		return fmt.Errorf("note connection of appliances: %w", err)
	}
	return nil
}

// Committed is how much of a stream the database holds without a hole; what the box declared lost is no hole.
type Committed struct {
	Appliance int32
	Stream    [16]byte
	Through   uint64
}

// maxStreams bounds the streams told of one appliance: a box that resets every day must not make answers grow.
const maxStreams = 8

// ReadCommitted returns the newest streams of an appliance. tx sees its clinic.
func ReadCommitted(ctx context.Context, tx pgx.Tx, id int32) ([]Committed, error) {
	q, err := tx.Query(ctx, `SELECT stream_id, coalesce(event_through(l), 0)
		FROM event_ledger l WHERE appliance_id = $1 ORDER BY last_at DESC LIMIT $2`, id, maxStreams)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	out, err := pgx.CollectRows(q, func(r pgx.CollectableRow) (c Committed, err error) {
		var through int64
		c.Appliance = id
		err = r.Scan(&c.Stream, &through)
		c.Through = uint64(through)
		return c, err
	})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return out, nil
}

func clip(s string, n int) string {
	b := make([]rune, 0, min(n, len(s)))
	for _, r := range s {
		if r != 0 && len(b) < n {
			b = append(b, r)
		}
	}
	return string(b)
}
