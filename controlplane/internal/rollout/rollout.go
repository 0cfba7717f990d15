// Package rollout carries a staged plan or staged signatures to the clinics in rings, inside their quiet hours, and turns back when
// they do harm. The RPC server creates and controls rollouts, the application calls Step on a timer. The trap: all state is in the
// database and any replica may make the next step, so a step must be right whatever happened since the last.
package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
)

// Errors.
var (
	// ErrNotFound: there is no such rollout.
	ErrNotFound = errors.New("no such rollout")
	// ErrInvalid: the request is not acceptable; wrapped with why.
	ErrInvalid = errors.New("rollout is not valid")
	// ErrState: the rollout is in a state in which this can't be done; wrapped with which.
	ErrState = errors.New("rollout is in the wrong state")
)

// Kinds of rollout.
const (
	Policy    = "policy"
	Signature = "signature"
)

// States of a rollout.
const (
	Draft       = "draft"
	Running     = "running"
	Paused      = "paused"
	Halted      = "halted"
	RollingBack = "rolling_back"
	RolledBack  = "rolled_back"
	Done        = "done"
	Aborted     = "aborted"
)

// Ring is a group of clinics that are reached together.
type Ring struct {
	Name    string  `json:"name"`
	Clinics []int32 `json:"clinics,omitempty"`
	// Percent of all clinics reached when this ring is done; used when no clinics are named.
	Percent uint32 `json:"percent,omitempty"`
}

// Gates are limits; a value beyond one halts the rollout. The zero value takes the defaults.
type Gates struct {
	FailedPercent      uint32  `json:"failed_percent"`      // of the ring's appliances; 0: none may fail
	UnprotectedMinutes uint32  `json:"unprotected_minutes"` // per appliance reached; 0: 5
	BlockRatio         float64 `json:"block_ratio"`         // blocks an hour against the last 7 days; 0: 3
	AlertRatio         float64 `json:"alert_ratio"`         // alerts and detections likewise; 0: 3
}

// Spec is how a rollout goes.
type Spec struct {
	Rings          []Ring        `json:"rings"`
	Gates          Gates         `json:"gates"`
	Soak           time.Duration `json:"soak"`  // how long a ring must hold; 0: 30 min
	Grace          time.Duration `json:"grace"` // how long an appliance may take; 0: 10 min
	Emergency      string        `json:"emergency,omitempty"`
	NoAutoRollback bool          `json:"no_auto_rollback,omitempty"`
}

// Defaults and bounds of a Spec.
const (
	defaultSoak  = 30 * time.Minute
	defaultGrace = 10 * time.Minute
	maxSpan      = 30 * 24 * time.Hour
	maxRings     = 20
)

func (s *Spec) setDefaults() {
	if len(s.Rings) == 0 {
		s.Rings = []Ring{{Name: "canary", Percent: 5}, {Name: "early", Percent: 25}, {Name: "all", Percent: 100}}
	}
	for i := range s.Rings {
		if s.Rings[i].Name == "" {
			s.Rings[i].Name = fmt.Sprintf("ring %d", i+1)
		}
	}
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&s.Soak, defaultSoak)
	def(&s.Grace, defaultGrace)
	if s.Gates.UnprotectedMinutes == 0 {
		s.Gates.UnprotectedMinutes = 5
	}
	if s.Gates.BlockRatio == 0 {
		s.Gates.BlockRatio = 3
	}
	if s.Gates.AlertRatio == 0 {
		s.Gates.AlertRatio = 3
	}
}

func (s *Spec) validate() error {
	if len(s.Rings) > maxRings {
		return fmt.Errorf("%w: %d rings, at most %d", ErrInvalid, len(s.Rings), maxRings)
	}
	last := uint32(0)
	for _, r := range s.Rings {
		if len(r.Clinics) == 0 {
			if r.Percent <= last || r.Percent > 100 {
				return fmt.Errorf("%w: ring %q reaches %d %%: want more than the %d %% before it, at most 100", ErrInvalid, r.Name, r.Percent, last)
			}
			last = r.Percent
		}
	}
	for name, d := range map[string]time.Duration{"soak": s.Soak, "grace": s.Grace} {
		if d < time.Second || d > maxSpan {
			return fmt.Errorf("%w: %s of %s: want 1s to %s", ErrInvalid, name, d, maxSpan)
		}
	}
	if g := s.Gates; g.FailedPercent > 100 || g.BlockRatio < 1 || g.AlertRatio < 1 {
		return fmt.Errorf("%w: gates: want failed_percent of 0 to 100 and ratios of at least 1", ErrInvalid)
	}
	return nil
}

// Rollout is one with its targets.
type Rollout struct {
	ID       int64
	Kind     string
	Subject  string
	From, To int64
	State    string
	Spec     Spec
	Ring     int
	Detail   string
	Author   string
	Reason   string
	Created  time.Time
	Changed  time.Time
	Targets  []Target
	Gates    []GateState // of the ring under way, when read by Get
}

// Target is one appliance of a rollout.
type Target struct {
	Appliance, Clinic int32
	Ring              int
	From              int64
	State             string // waiting, applied, ok, failed, offline, reverted
	Detail            string
	Applied, Settled  time.Time
}

// DB runs transactions; *postgres.DB is one.
type DB interface {
	Fleet(ctx context.Context, actor string, fn func(pgx.Tx) error) error
}

// Config of New.
type Config struct {
	DB        DB
	Publisher *appliance.Publisher
	Bundles   *bundle.Store
	Now       func() time.Time // nil: time.Now
	Log       hclog.Logger
}

// Rollouts plans and drives rollouts. Safe for use by many goroutines and replicas.
type Rollouts struct {
	Config
}

// New returns the rollouts of a database.
func New(cfg Config) (*Rollouts, error) {
	if cfg.DB == nil || cfg.Publisher == nil || cfg.Bundles == nil {
		return nil, errors.New("open rollouts: database, publisher and bundle store are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	cfg.Log = cfg.Log.Named("rollout")
	return &Rollouts{cfg}, nil
}

// Order is what an operator wants rolled out.
type Order struct {
	Kind   string
	Plan   string // for Policy
	Spec   Spec
	Reason string
}

// Create plans a rollout of what was staged and returns it as a draft. Errors: ErrInvalid, policy.ErrNotFound, ErrState.
func (r *Rollouts) Create(ctx context.Context, actor string, o Order) (Rollout, error) {
	if strings.TrimSpace(o.Reason) == "" {
		return Rollout{}, fmt.Errorf("%w: a reason is needed", ErrInvalid)
	}
	o.Spec.setDefaults()
	if err := o.Spec.validate(); err != nil {
		return Rollout{}, err
	}
	out := Rollout{Kind: o.Kind, State: Draft, Spec: o.Spec, Author: actor, Reason: o.Reason, Created: r.Now(), Changed: r.Now()}
	err := r.DB.Fleet(ctx, actor, func(tx pgx.Tx) error {
		var err error
		switch o.Kind {
		case Policy:
			out.Targets, err = r.planTargets(ctx, tx, &out, o.Plan)
		case Signature:
			out.Targets, err = r.signatureTargets(ctx, tx, &out)
		default:
			err = fmt.Errorf("%w: kind %q: want policy or signature", ErrInvalid, o.Kind)
		}
		if err != nil {
			return err
		}
		if len(out.Targets) == 0 {
			return fmt.Errorf("%w: nothing to roll out: stage a change first (plan apply --stage, signature publish --stage)", ErrInvalid)
		}
		if err := assign(out.Targets, o.Spec.Rings, out.Subject); err != nil {
			return err
		}
		spec, err := json.Marshal(out.Spec)
		if err != nil {
			return fmt.Errorf("encode rollout: %w", err)
		}
		err = tx.QueryRow(ctx, `INSERT INTO rollout (kind, subject, from_version, to_version, state, spec, author, reason, created_at, changed_at)
			VALUES ($1, $2, $3, $4, 'draft', $5, $6, $7, $8, $8) RETURNING rollout_id`,
			out.Kind, out.Subject, out.From, out.To, string(spec), actor, o.Reason, out.Created).Scan(&out.ID)
		if err != nil {
			return fmt.Errorf("store rollout: %w", err)
		}
		clinics, ids, rings, before := make([]int32, len(out.Targets)), make([]int32, len(out.Targets)), make([]int32, len(out.Targets)), make([]int64, len(out.Targets))
		for i, t := range out.Targets {
			clinics[i], ids[i], rings[i], before[i] = t.Clinic, t.Appliance, int32(t.Ring), t.From
		}
		_, err = tx.Exec(ctx, `INSERT INTO rollout_target (clinic_id, rollout_id, appliance_id, ring, from_version, state)
			SELECT c, $1, a, r, f, 'waiting' FROM unnest($2::int[], $3::int[], $4::int[], $5::bigint[]) x(c, a, r, f)`, out.ID, clinics, ids, rings, before)
		if err != nil {
			return fmt.Errorf("store rollout's targets: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Actor: actor, Action: "rollout.create", Target: fmt.Sprintf("rollout:%d", out.ID), Reason: o.Reason,
			Detail: map[string]any{"kind": out.Kind, "subject": out.Subject, "from": out.From, "to": out.To, "appliances": len(out.Targets)},
		})
	})
	if err != nil {
		return Rollout{}, err
	}
	for i := range out.Targets {
		out.Targets[i].State = "waiting"
	}
	return out, nil
}

// planTargets are the approved appliances of the clinics that follow an older revision of the plan.
func (r *Rollouts) planTargets(ctx context.Context, tx pgx.Tx, out *Rollout, name string) ([]Target, error) {
	plan, err := policy.GetPlan(ctx, tx, name)
	if err != nil {
		return nil, err
	}
	out.Subject, out.To = plan.Name, plan.Revision
	targets, err := readTargets(ctx, tx, `SELECT a.appliance_id, a.clinic_id, c.plan_revision FROM appliance a JOIN clinic c USING (clinic_id)
		WHERE a.state = 'approved' AND c.plan_id = $1 AND c.plan_revision < $2 ORDER BY a.appliance_id`, plan.ID, plan.Revision)
	for _, t := range targets {
		out.From = max(out.From, t.From)
	}
	return targets, err
}

// signatureTargets are all approved appliances, when newer signatures than the released ones are held.
func (r *Rollouts) signatureTargets(ctx context.Context, tx pgx.Tx, out *Rollout) ([]Target, error) {
	out.Subject = "signatures"
	err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0), coalesce(max(version) FILTER (WHERE released), 0) FROM bundle
		WHERE kind = 'signature' AND coalesce(appliance_id, 0) = 0`).Scan(&out.To, &out.From)
	if err != nil {
		return nil, fmt.Errorf("look up signatures: %w", err)
	}
	if out.From == 0 && out.To > 0 {
		return nil, fmt.Errorf("%w: no signatures are released yet, so there is nothing to go back to: publish the first without --stage", ErrInvalid)
	}
	return readTargets(ctx, tx, `SELECT appliance_id, clinic_id, coalesce(nullif(signature_target, 0), $1) FROM appliance
		WHERE state = 'approved' AND coalesce(nullif(signature_target, 0), $1) < $2 ORDER BY appliance_id`, out.From, out.To)
}

func readTargets(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]Target, error) {
	q, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read appliances: %w", err)
	}
	out, err := pgx.CollectRows(q, func(row pgx.CollectableRow) (t Target, err error) {
		err = row.Scan(&t.Appliance, &t.Clinic, &t.From)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read appliances: %w", err)
	}
	return out, nil
}

// assign puts each clinic into a ring. Percentages take clinics in an order that is the same each time and mixes old with new ones.
func assign(targets []Target, rings []Ring, salt string) error {
	ring := map[int32]int{}
	var clinics []int32
	for _, t := range targets {
		if _, ok := ring[t.Clinic]; !ok {
			ring[t.Clinic] = -1
			clinics = append(clinics, t.Clinic)
		}
	}
	for i, r := range rings {
		for _, c := range r.Clinics {
			at, ok := ring[c]
			if !ok {
				return fmt.Errorf("%w: ring %q names clinic %d, which the change does not reach", ErrInvalid, r.Name, c)
			}
			if at >= 0 {
				return fmt.Errorf("%w: clinic %d is in two rings", ErrInvalid, c)
			}
			ring[c] = i
		}
	}
	mix := func(c int32) uint64 {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%s %d", salt, c)
		return h.Sum64()
	}
	slices.SortFunc(clinics, func(a, b int32) int {
		if x, y := mix(a), mix(b); x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return int(a - b)
	})
	reached := 0
	for i, r := range rings {
		reached += len(r.Clinics)
		want := (len(clinics)*int(r.Percent) + 99) / 100
		if i == len(rings)-1 {
			want = len(clinics) // nobody is forgotten
		}
		for _, c := range clinics {
			if reached >= want {
				break
			}
			if ring[c] < 0 {
				ring[c] = i
				reached++
			}
		}
	}
	for i := range targets {
		targets[i].Ring = ring[targets[i].Clinic]
	}
	return nil
}

// Actions of Control.
const (
	Start    = "start"
	Pause    = "pause"
	Resume   = "resume"
	Abort    = "abort"
	Rollback = "rollback"
)

// from says in which states an action may be taken, and to what it leads.
var from = map[string]struct {
	states []string
	to     string
}{
	Start:    {[]string{Draft}, Running},
	Pause:    {[]string{Running}, Paused},
	Resume:   {[]string{Paused, Halted}, Running},
	Abort:    {[]string{Draft, Running, Paused, Halted}, Aborted},
	Rollback: {[]string{Running, Paused, Halted, Aborted, Done}, RollingBack},
}

// Control takes an action on a rollout. Resuming a halted one leaves out the appliances that failed. Errors: ErrNotFound, ErrState,
// ErrInvalid.
func (r *Rollouts) Control(ctx context.Context, actor string, id int64, action, reason string) error {
	rule, ok := from[action]
	if !ok {
		return fmt.Errorf("%w: action %q", ErrInvalid, action)
	}
	if strings.TrimSpace(reason) == "" && action != Start {
		return fmt.Errorf("%w: a reason is needed to %s", ErrInvalid, action)
	}
	return r.DB.Fleet(ctx, actor, func(tx pgx.Tx) error {
		ro, err := read(ctx, tx, id, true)
		if err != nil {
			return err
		}
		if !slices.Contains(rule.states, ro.State) {
			return fmt.Errorf("%w: it is %s, %s needs %s", ErrState, ro.State, action, strings.Join(rule.states, " or "))
		}
		if action == Rollback && ro.State == Done {
			if err := r.newest(ctx, tx, ro); err != nil {
				return err
			}
		}
		detail := action + " by " + actor
		if reason != "" {
			detail += ": " + reason
		}
		if err := r.set(ctx, tx, ro, rule.to, detail); err != nil {
			return err
		}
		if action == Rollback {
			if err := r.turnBack(ctx, tx, ro); err != nil {
				return err
			}
		}
		return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "rollout." + action, Target: fmt.Sprintf("rollout:%d", id), Reason: reason})
	})
}

// newest refuses to roll back a finished rollout when something newer was published since.
func (r *Rollouts) newest(ctx context.Context, tx pgx.Tx, ro *Rollout) error {
	var now int64
	var err error
	if ro.Kind == Policy {
		err = tx.QueryRow(ctx, `SELECT revision FROM plan WHERE name = $1`, ro.Subject).Scan(&now)
	} else {
		now, _, err = r.Bundles.SignatureDigest(ctx, tx, 0)
	}
	if err != nil {
		return fmt.Errorf("look up newest version: %w", err)
	}
	if now != ro.To {
		return fmt.Errorf("%w: version %d was published since; roll that back instead", ErrState, now)
	}
	return nil
}

// set moves a rollout to a state.
func (r *Rollouts) set(ctx context.Context, tx pgx.Tx, ro *Rollout, state, detail string) error {
	_, err := tx.Exec(ctx, `UPDATE rollout SET state = $2, detail = $3, ring = $4, changed_at = $5 WHERE rollout_id = $1`, ro.ID, state, detail, ro.Ring, r.Now())
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23505" {
		return fmt.Errorf("%w: another rollout of %s is under way", ErrState, ro.Subject)
	}
	if err != nil {
		return fmt.Errorf("store rollout's state: %w", err)
	}
	if ro.State != state {
		r.Log.Info("rollout moved", "rollout", ro.ID, "from", ro.State, "to", state, "detail", detail)
	}
	ro.State, ro.Detail = state, detail
	return nil
}

const columns = `rollout_id, kind, subject, from_version, to_version, state, spec, ring, detail, author, reason, created_at, changed_at`

func scan(row pgx.CollectableRow) (*Rollout, error) {
	ro := &Rollout{}
	var spec []byte
	err := row.Scan(&ro.ID, &ro.Kind, &ro.Subject, &ro.From, &ro.To, &ro.State, &spec, &ro.Ring, &ro.Detail, &ro.Author, &ro.Reason, &ro.Created, &ro.Changed)
	if err != nil {
		return nil, err
	}
	return ro, json.Unmarshal(spec, &ro.Spec)
}

func read(ctx context.Context, tx pgx.Tx, id int64, lock bool) (*Rollout, error) {
	sql := `SELECT ` + columns + ` FROM rollout WHERE rollout_id = $1`
	if lock {
		sql += ` FOR UPDATE`
	}
	q, err := tx.Query(ctx, sql, id)
	if err != nil {
		return nil, fmt.Errorf("read rollout: %w", err)
	}
	ro, err := pgx.CollectExactlyOneRow(q, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	if err != nil {
		return nil, fmt.Errorf("read rollout: %w", err)
	}
	q, err = tx.Query(ctx, `SELECT appliance_id, clinic_id, ring, from_version, state, detail, coalesce(applied_at, '0001-01-01Z'), coalesce(settled_at, '0001-01-01Z')
		FROM rollout_target WHERE rollout_id = $1 ORDER BY ring, appliance_id`, id)
	if err != nil {
		return nil, fmt.Errorf("read rollout's targets: %w", err)
	}
	ro.Targets, err = pgx.CollectRows(q, func(row pgx.CollectableRow) (t Target, err error) {
		err = row.Scan(&t.Appliance, &t.Clinic, &t.Ring, &t.From, &t.State, &t.Detail, &t.Applied, &t.Settled)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read rollout's targets: %w", err)
	}
	return ro, nil
}

// Get returns a rollout with its targets and gates; tx is of the fleet's role. Error: ErrNotFound.
func (r *Rollouts) Get(ctx context.Context, tx pgx.Tx, id int64) (*Rollout, error) {
	ro, err := read(ctx, tx, id, false)
	if err != nil {
		return nil, err
	}
	ro.Gates, err = r.gates(ctx, tx, ro)
	return ro, err
}

// List returns the newest rollouts first, without targets.
func (r *Rollouts) List(ctx context.Context, tx pgx.Tx, limit int32) ([]*Rollout, error) {
	q, err := tx.Query(ctx, `SELECT `+columns+` FROM rollout ORDER BY rollout_id DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	out, err := pgx.CollectRows(q, scan)
	if err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	return out, nil
}
