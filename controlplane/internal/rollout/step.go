package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"
)

// box is what an appliance reports now.
type box struct {
	online  bool
	reports int64 // version of the rollout's kind that it runs
	wanted  int64
	refused string
}

// Step moves every rollout that is under way by what is due. The application calls it every few seconds; replicas may call it at
// the same time.
func (r *Rollouts) Step(ctx context.Context) error {
	var ids []int64
	err := r.DB.Fleet(ctx, "system:rollout", func(tx pgx.Tx) error {
		q, err := tx.Query(ctx, `SELECT rollout_id FROM rollout WHERE state IN ('running', 'rolling_back') ORDER BY rollout_id`)
		if err != nil {
			return fmt.Errorf("look for rollouts: %w", err)
		}
		ids, err = pgx.CollectRows(q, pgx.RowTo[int64])
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		err := r.DB.Fleet(ctx, "system:rollout", func(tx pgx.Tx) error {
			ro, err := read(ctx, tx, id, true)
			if err != nil {
				return err
			}
			boxes, err := r.boxes(ctx, tx, ro)
			if err != nil {
				return err
			}
			switch ro.State {
			case Running:
				return r.forward(ctx, tx, ro, boxes)
			case RollingBack:
				return r.back(ctx, tx, ro, boxes)
			}
			return nil // somebody was quicker
		})
		if err != nil {
			return fmt.Errorf("step rollout %d: %w", id, err)
		}
	}
	return nil
}

// boxes reads what the targets report.
func (r *Rollouts) boxes(ctx context.Context, tx pgx.Tx, ro *Rollout) (map[int32]box, error) {
	has, want := `a.policy_version`, `coalesce((SELECT max(version) FROM bundle b WHERE b.kind = 'policy' AND coalesce(b.appliance_id, 0) = a.appliance_id), 0)`
	if ro.Kind == Signature {
		has = `a.signature_version`
		want = `coalesce(nullif(a.signature_target, 0), (SELECT max(version) FROM bundle b WHERE b.kind = 'signature' AND coalesce(b.appliance_id, 0) = 0 AND b.released), 0)`
	}
	q, err := tx.Query(ctx, `SELECT a.appliance_id, a.connected, coalesce(a.last_seen, '0001-01-01Z'), `+has+`, `+want+`, a.refused
		FROM appliance a JOIN rollout_target t USING (clinic_id, appliance_id) WHERE t.rollout_id = $1`, ro.ID)
	if err != nil {
		return nil, fmt.Errorf("read reports of appliances: %w", err)
	}
	out := map[int32]box{}
	var id int32
	var connected bool
	var seen time.Time
	var b box
	if _, err := pgx.ForEachRow(q, []any{&id, &connected, &seen, &b.reports, &b.wanted, &b.refused}, func() error {
		b.online = connected && r.Now().Sub(seen) < appliance.OnlineWithin
		out[id] = b
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read reports of appliances: %w", err)
	}
	return out, nil
}

// forward lets a running rollout go on.
func (r *Rollouts) forward(ctx context.Context, tx pgx.Tx, ro *Rollout, boxes map[int32]box) error {
	if err := r.judge(ctx, tx, ro, boxes); err != nil {
		return err
	}
	gates, err := r.gates(ctx, tx, ro)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(gates, func(g GateState) bool { return !g.Passed }); i >= 0 {
		return r.halt(ctx, tx, ro, fmt.Sprintf("ring %q: %s is %s, limit %s", ro.Spec.Rings[ro.Ring].Name, gates[i].Name, gates[i].Value, gates[i].Limit))
	}
	reached, err := r.reach(ctx, tx, ro, boxes)
	if err != nil || reached > 0 {
		return err
	}
	// Is the ring complete? Offline appliances apply on return; they hold nobody up.
	var waiting, open int
	var last time.Time
	for _, t := range ro.Targets {
		if t.Ring != ro.Ring {
			continue
		}
		switch t.State {
		case "waiting":
			waiting++
		case "applied":
			open++
		case "ok":
			if t.Settled.After(last) {
				last = t.Settled
			}
		}
	}
	name := ro.Spec.Rings[ro.Ring].Name
	switch now := r.Now(); {
	case waiting > 0:
		return r.say(ctx, tx, ro, fmt.Sprintf("ring %q: %d appliances wait for their clinic's quiet hours", name, waiting))
	case open > 0:
		return r.say(ctx, tx, ro, fmt.Sprintf("ring %q: %d appliances have not reported yet", name, open))
	case now.Before(last.Add(ro.Spec.Soak)) && ro.Ring < len(ro.Spec.Rings)-1:
		return r.say(ctx, tx, ro, fmt.Sprintf("ring %q: holds until %s", name, last.Add(ro.Spec.Soak).In(clinic.JST).Format("15:04 MST")))
	}
	if ro.Ring == len(ro.Spec.Rings)-1 {
		return r.finish(ctx, tx, ro)
	}
	ro.Ring++
	return r.set(ctx, tx, ro, Running, fmt.Sprintf("ring %q begins", ro.Spec.Rings[ro.Ring].Name))
}

// say notes why a rollout stands where it stands.
func (r *Rollouts) say(ctx context.Context, tx pgx.Tx, ro *Rollout, detail string) error {
	if ro.Detail == detail {
		return nil
	}
	return r.set(ctx, tx, ro, ro.State, detail)
}

// judge brings the targets' states in line with what the appliances report.
func (r *Rollouts) judge(ctx context.Context, tx pgx.Tx, ro *Rollout, boxes map[int32]box) error {
	now := r.Now()
	for i := range ro.Targets {
		t := &ro.Targets[i]
		b := boxes[t.Appliance]
		state, detail := t.State, t.Detail
		switch t.State {
		case "applied", "offline":
			late := now.Sub(t.Applied) > ro.Spec.Grace
			switch {
			case b.refused != "":
				state, detail = "failed", b.refused
			case b.reports == b.wanted && b.online:
				state, detail = "ok", ""
			case t.State == "offline" || !late:
			case b.online:
				state, detail = "failed", fmt.Sprintf("runs version %d, wanted %d, after %s", b.reports, b.wanted, ro.Spec.Grace)
			default:
				state, detail = "failed", "lost since the change"
			}
		case "ok":
			// A ring that soaks is still under watch: a box may turn back by itself, or go silent.
			if t.Ring != ro.Ring {
				continue
			}
			switch {
			case b.refused != "":
				state, detail = "failed", b.refused
			case b.reports != b.wanted:
				state, detail = "failed", fmt.Sprintf("went back to version %d", b.reports)
			case !b.online:
				state, detail = "failed", "lost since the change"
			}
		}
		if state != t.State {
			if err := r.mark(ctx, tx, ro, t, state, detail); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Rollouts) mark(ctx context.Context, tx pgx.Tx, ro *Rollout, t *Target, state, detail string) error {
	now := r.Now()
	_, err := tx.Exec(ctx, `UPDATE rollout_target SET state = $4, detail = $5, settled_at = $6 WHERE clinic_id = $1 AND rollout_id = $2 AND appliance_id = $3`,
		t.Clinic, ro.ID, t.Appliance, state, detail, now)
	if err != nil {
		return fmt.Errorf("store target's state: %w", err)
	}
	t.State, t.Detail, t.Settled = state, detail, now
	return nil
}

// reach gives the new version to those of the ring whose clinic's hours allow it, and returns how many it reached.
func (r *Rollouts) reach(ctx context.Context, tx pgx.Tx, ro *Rollout, boxes map[int32]box) (int, error) {
	var clinics []int32
	for _, t := range ro.Targets {
		if t.Ring == ro.Ring && t.State == "waiting" && !slices.Contains(clinics, t.Clinic) {
			clinics = append(clinics, t.Clinic)
		}
	}
	if len(clinics) == 0 {
		return 0, nil
	}
	if ro.Spec.Emergency == "" {
		var err error
		if clinics, err = r.quiet(ctx, tx, clinics); err != nil {
			return 0, err
		}
	}
	if len(clinics) == 0 {
		return 0, nil
	}
	var ids, online, offline []int32
	for _, t := range ro.Targets {
		if t.Ring != ro.Ring || t.State != "waiting" || !slices.Contains(clinics, t.Clinic) {
			continue
		}
		ids = append(ids, t.Appliance)
		if boxes[t.Appliance].online {
			online = append(online, t.Appliance)
		} else {
			offline = append(offline, t.Appliance)
		}
	}
	// What was refused before says nothing about the new version.
	if _, err := tx.Exec(ctx, `UPDATE appliance SET refused = '' WHERE appliance_id = ANY ($1)`, ids); err != nil {
		return 0, fmt.Errorf("forget old refusals: %w", err)
	}
	if err := r.want(ctx, tx, ro, clinics, ids, ro.To); err != nil {
		return 0, err
	}
	for state, list := range map[string][]int32{"applied": online, "offline": offline} {
		_, err := tx.Exec(ctx, `UPDATE rollout_target SET state = $3, applied_at = $4 WHERE rollout_id = $1 AND appliance_id = ANY ($2)`, ro.ID, list, state, r.Now())
		if err != nil {
			return 0, fmt.Errorf("store targets' state: %w", err)
		}
	}
	err := audit.Append(ctx, tx, audit.Entry{
		Actor: "system", Action: "rollout.reach", Target: fmt.Sprintf("rollout:%d", ro.ID), Reason: ro.Spec.Emergency,
		Detail: map[string]any{"ring": ro.Spec.Rings[ro.Ring].Name, "clinics": clinics, "appliances": ids},
	})
	return len(ids), err
}

// want makes a version of the rollout's kind the wanted one of some appliances.
func (r *Rollouts) want(ctx context.Context, tx pgx.Tx, ro *Rollout, clinics, ids []int32, version int64) error {
	reason := fmt.Sprintf("rollout %d: %s", ro.ID, ro.Reason)
	if ro.Kind == Policy {
		if err := policy.PinClinics(ctx, tx, clinics, version); err != nil {
			return err
		}
	} else {
		_, err := tx.Exec(ctx, `UPDATE appliance SET signature_target = $2, revision = revision + 1 WHERE appliance_id = ANY ($1)`, ids, version)
		if err != nil {
			return fmt.Errorf("set wanted signatures: %w", err)
		}
	}
	if _, err := r.Publisher.Compile(ctx, tx, appliance.Scope{Clinics: clinics}, ro.Author, reason); err != nil {
		return err
	}
	return appliance.Notify(ctx, tx, appliance.Notice{Appliances: ids})
}

// Quiet hours of a clinic whose hours of care are not known: nothing from 08:30 to 18:30, Japan time. A clinic with known hours is
// left alone while it is open and in the half hour before.
const (
	busyFrom   = 8*60 + 30
	busyTo     = 18*60 + 30
	beforeOpen = 30 * time.Minute
)

// Quiet says whether a change may reach a clinic at t.
func Quiet(hours clinic.Hours, t time.Time) bool {
	if hours.Known() {
		return !hours.Open(t) && !hours.Open(t.Add(beforeOpen))
	}
	t = t.In(clinic.JST)
	m := t.Hour()*60 + t.Minute()
	return m < busyFrom || m >= busyTo
}

// quiet returns those clinics whose hours allow a change now.
func (r *Rollouts) quiet(ctx context.Context, tx pgx.Tx, clinics []int32) ([]int32, error) {
	q, err := tx.Query(ctx, `SELECT clinic_id, hours FROM clinic WHERE clinic_id = ANY ($1) ORDER BY clinic_id`, clinics)
	if err != nil {
		return nil, fmt.Errorf("read clinics' hours: %w", err)
	}
	var out []int32
	var id int32
	var text string
	_, err = pgx.ForEachRow(q, []any{&id, &text}, func() error {
		hours, err := clinic.ParseHours(text)
		if err != nil {
			r.Log.Warn("clinic's hours are unreadable, the default quiet hours apply", "clinic", id, "err", err)
		}
		if Quiet(hours, r.Now()) {
			out = append(out, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read clinics' hours: %w", err)
	}
	return out, nil
}

// halt stops a rollout and, unless told otherwise, turns it back.
func (r *Rollouts) halt(ctx context.Context, tx pgx.Tx, ro *Rollout, why string) error {
	state := RollingBack
	if ro.Spec.NoAutoRollback {
		state = Halted
	}
	if err := r.set(ctx, tx, ro, state, "halted: "+why); err != nil {
		return err
	}
	if state == RollingBack {
		if err := r.turnBack(ctx, tx, ro); err != nil {
			return err
		}
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: "system", Action: "rollout.halt", Target: fmt.Sprintf("rollout:%d", ro.ID), Reason: why})
}

// touched are the appliances that the new version was wanted of.
func touched(ro *Rollout) (ids, clinics []int32) {
	for _, t := range ro.Targets {
		if t.State != "waiting" && t.State != "reverted" {
			ids = append(ids, t.Appliance)
			if !slices.Contains(clinics, t.Clinic) {
				clinics = append(clinics, t.Clinic)
			}
		}
	}
	return ids, clinics
}

// turnBack makes the content from before wanted again, under a new version: appliances refuse an older one.
func (r *Rollouts) turnBack(ctx context.Context, tx pgx.Tx, ro *Rollout) error {
	ids, clinics := touched(ro)
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `UPDATE appliance SET refused = '' WHERE appliance_id = ANY ($1)`, ids); err != nil {
		return fmt.Errorf("forget refusals: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE rollout_target SET applied_at = $3 WHERE rollout_id = $1 AND appliance_id = ANY ($2)`, ro.ID, ids, r.Now()); err != nil {
		return fmt.Errorf("store time of the way back: %w", err)
	}
	if ro.Kind == Policy {
		// Clinics may come from different revisions.
		by := map[int64][]int32{}
		for _, t := range ro.Targets {
			if slices.Contains(clinics, t.Clinic) && !slices.Contains(by[t.From], t.Clinic) {
				by[t.From] = append(by[t.From], t.Clinic)
			}
		}
		for revision, list := range by {
			if err := r.want(ctx, tx, ro, list, ids, revision); err != nil {
				return err
			}
		}
		return nil
	}
	content, err := r.Bundles.SignatureContent(ctx, tx, ro.From)
	if err != nil {
		return err
	}
	msg := &signaturev1.Signatures{}
	if err := proto.Unmarshal(content, msg); err != nil {
		return fmt.Errorf("decode signatures %d: %w", ro.From, err)
	}
	version, _, err := r.Bundles.Publish(ctx, tx, bundle.Publication{
		Kind: bundlev1.Kind_KIND_SIGNATURE, Content: msg, Author: ro.Author, Reason: fmt.Sprintf("rollout %d turned back to %d", ro.ID, ro.From), Held: true,
	})
	if err != nil {
		return err
	}
	return r.want(ctx, tx, ro, clinics, ids, int64(version))
}

// back waits until every touched appliance that is there runs the old content again.
func (r *Rollouts) back(ctx context.Context, tx pgx.Tx, ro *Rollout, boxes map[int32]box) error {
	open := 0
	for i := range ro.Targets {
		t := &ro.Targets[i]
		if t.State == "waiting" || t.State == "reverted" {
			continue
		}
		b := boxes[t.Appliance]
		switch {
		case b.reports == b.wanted && b.refused == "":
			if err := r.mark(ctx, tx, ro, t, "reverted", t.Detail); err != nil {
				return err
			}
		case !b.online && r.Now().Sub(t.Applied) > ro.Spec.Grace:
			// It takes the old content when it returns; nobody waits for it.
		default:
			open++
		}
	}
	if open > 0 {
		return nil
	}
	if err := r.set(ctx, tx, ro, RolledBack, ro.Detail); err != nil {
		return err
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: "system", Action: "rollout.rolled_back", Target: fmt.Sprintf("rollout:%d", ro.ID), Reason: ro.Detail})
}

// finish makes the new version everybody's.
func (r *Rollouts) finish(ctx context.Context, tx pgx.Tx, ro *Rollout) error {
	var clinics []int32
	if ro.Kind == Policy {
		q, err := tx.Query(ctx, `UPDATE clinic SET plan_revision = NULL WHERE plan_id = (SELECT id FROM plan WHERE name = $1) RETURNING clinic_id`, ro.Subject)
		if err != nil {
			return fmt.Errorf("release clinics: %w", err)
		}
		if clinics, err = pgx.CollectRows(q, pgx.RowTo[int32]); err != nil {
			return fmt.Errorf("release clinics: %w", err)
		}
	} else {
		if err := r.Bundles.Release(ctx, tx, bundlev1.Kind_KIND_SIGNATURE, uint64(ro.To)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE appliance SET signature_target = 0, revision = revision + 1 WHERE signature_target <> 0`); err != nil {
			return fmt.Errorf("release appliances: %w", err)
		}
	}
	if _, err := r.Publisher.Compile(ctx, tx, appliance.Scope{Clinics: clinics}, ro.Author, fmt.Sprintf("rollout %d is done", ro.ID)); err != nil {
		return err
	}
	if err := appliance.Notify(ctx, tx, appliance.Notice{}); err != nil {
		return err
	}
	if err := r.set(ctx, tx, ro, Done, "every ring is done"); err != nil {
		return err
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: "system", Action: "rollout.done", Target: fmt.Sprintf("rollout:%d", ro.ID)})
}
