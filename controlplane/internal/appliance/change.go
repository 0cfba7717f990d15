package appliance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
)

// Change is what a change of layers did or would do.
type Change struct {
	Revision int64
	Clinics  int    // whose effective policy changes
	Diff     string // grouped by effect
}

var errDryRun = errors.New("dry run")

// change runs mutate, which alters layers, finds out whose effective policy differs afterwards and publishes to these. keep (may be
// nil) runs before publishing and may hold clinics back. With dryRun nothing is kept.
func (p *Publisher) change(ctx context.Context, actor string, dryRun bool,
	mutate func(pgx.Tx) (revision int64, changed bool, entry audit.Entry, err error), keep func(pgx.Tx) error,
) (Change, error) {
	var c Change
	err := p.db.Fleet(ctx, actor, func(tx pgx.Tx) error {
		before, err := policy.Load(ctx, tx, nil)
		if err != nil {
			return err
		}
		revision, changed, entry, err := mutate(tx)
		c.Revision = revision
		if err != nil || !changed {
			return err
		}
		after, err := policy.Load(ctx, tx, nil)
		if err != nil {
			return err
		}
		var ids []int32
		if c.Diff, ids, err = p.diff(before, after); err != nil {
			return err
		}
		c.Clinics = len(ids)
		if dryRun {
			return errDryRun
		}
		if keep != nil {
			if err := keep(tx); err != nil {
				return err
			}
		}
		if len(ids) > 0 {
			if _, err := p.Compile(ctx, tx, Scope{Clinics: ids}, actor, entry.Reason); err != nil {
				return err
			}
		}
		entry.Actor, entry.Detail = actor, map[string]any{"revision": c.Revision, "clinics": c.Clinics, "staged": keep != nil}
		return audit.Append(ctx, tx, entry)
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return Change{}, err
	}
	return c, nil
}

// check refuses a document that can't stand alone over the defaults. Error: policy.ErrInvalid.
func (p *Publisher) check(document, layer string) error {
	values, err := policy.Parse([]byte(document))
	if err != nil {
		return err
	}
	_, err = policy.Merge(p.now(), p.base, &policy.Layer{Name: layer, Values: values}, p.system)
	return err
}

// ApplyPlan validates a plan, stores it and publishes the policies of the clinics that follow it. The same document again changes
// nothing. With stage the clinics stay on the revision before, for a rollout; the change told is what the rollout will do.
// Errors: policy.ErrInvalid, policy.ErrConflict, ErrState while a rollout of the plan is under way.
func (p *Publisher) ApplyPlan(ctx context.Context, plan policy.Plan, dryRun, stage bool) (Change, error) {
	if err := p.check(plan.Document, policy.LayerPlan); err != nil {
		return Change{}, err
	}
	var before, stored policy.Plan
	var held []int32 // clinics, and the revisions they followed
	var at []int64
	mutate := func(tx pgx.Tx) (int64, bool, audit.Entry, error) {
		entry := audit.Entry{Action: "plan.apply", Target: "plan:" + plan.Name, Reason: plan.Reason}
		if err := noRollout(ctx, tx, "policy", plan.Name); err != nil {
			return 0, false, entry, err
		}
		var err error
		if before, err = policy.GetPlan(ctx, tx, plan.Name); err != nil && !errors.Is(err, policy.ErrNotFound) {
			return 0, false, entry, err
		}
		var changed bool
		stored, changed, err = policy.PutPlan(ctx, tx, plan, p.now())
		if err != nil {
			return 0, false, entry, err
		}
		q, err := tx.Query(ctx, `SELECT clinic_id, coalesce(plan_revision, $2) FROM clinic WHERE plan_id = $1`, stored.ID, before.Revision)
		if err != nil {
			return 0, false, entry, fmt.Errorf("read clinics of plan: %w", err)
		}
		var id int32
		var revision int64
		if _, err := pgx.ForEachRow(q, []any{&id, &revision}, func() error {
			held, at = append(held, id), append(at, revision)
			return nil
		}); err != nil {
			return 0, false, entry, fmt.Errorf("read clinics of plan: %w", err)
		}
		// Clinics that an earlier staged document left behind: without stage they follow at last.
		if tag, err := tx.Exec(ctx, `UPDATE clinic SET plan_revision = NULL WHERE plan_id = $1 AND plan_revision IS NOT NULL`, stored.ID); err != nil {
			return 0, false, entry, fmt.Errorf("release clinics: %w", err)
		} else if tag.RowsAffected() > 0 {
			changed = true
		}
		return stored.Revision, changed, entry, nil
	}
	var keep func(pgx.Tx) error
	if stage {
		keep = func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE clinic c SET plan_revision = nullif(h.revision, $3)
				FROM unnest($1::int[], $2::bigint[]) h(clinic_id, revision) WHERE c.clinic_id = h.clinic_id`, held, at, stored.Revision)
			if err != nil {
				return fmt.Errorf("hold clinics back: %w", err)
			}
			return nil
		}
	}
	return p.change(ctx, plan.Author, dryRun, mutate, keep)
}

// ApplyGroup validates a group's document, stores it and publishes. Errors: policy.ErrInvalid, policy.ErrConflict.
func (p *Publisher) ApplyGroup(ctx context.Context, g policy.Group, dryRun bool) (Change, error) {
	if err := p.check(g.Document, policy.LayerGroup); err != nil {
		return Change{}, err
	}
	return p.change(ctx, g.Author, dryRun, func(tx pgx.Tx) (int64, bool, audit.Entry, error) {
		stored, changed, err := policy.PutGroup(ctx, tx, g, p.now())
		return stored.Revision, changed, audit.Entry{Action: "group.apply", Target: "group:" + g.Name, Reason: g.Reason}, err
	}, nil)
}

// MoveClinic makes a clinic follow another plan or group: empty names leave it as it is, group "-" takes it out of its group.
// Errors: policy.ErrNotFound, policy.ErrInvalid, ErrInvalid.
func (p *Publisher) MoveClinic(ctx context.Context, actor string, id int32, plan, group, reason string, dryRun bool) (Change, error) {
	if strings.TrimSpace(reason) == "" && !dryRun {
		return Change{}, fmt.Errorf("%w: a reason is needed to move a clinic", ErrInvalid)
	}
	return p.change(ctx, actor, dryRun, func(tx pgx.Tx) (int64, bool, audit.Entry, error) {
		entry := audit.Entry{Action: "clinic.move", Target: fmt.Sprintf("clinic:%d", id), Clinic: id, Reason: reason}
		var planID, groupID *int32
		if plan != "" {
			found, err := policy.GetPlan(ctx, tx, plan)
			if err != nil {
				return 0, false, entry, err
			}
			planID = &found.ID
		}
		if group != "" && group != "-" {
			found, err := policy.GetGroup(ctx, tx, group)
			if err != nil {
				return 0, false, entry, err
			}
			groupID = &found.ID
		}
		tag, err := tx.Exec(ctx, `UPDATE clinic SET plan_revision = CASE WHEN coalesce($2, plan_id) = plan_id THEN plan_revision END,
			plan_id = coalesce($2, plan_id), group_id = CASE WHEN $4 THEN NULL ELSE coalesce($3, group_id) END WHERE clinic_id = $1`,
			id, planID, groupID, group == "-")
		if err != nil {
			return 0, false, entry, fmt.Errorf("move clinic: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return 0, false, entry, fmt.Errorf("clinic %d: %w", id, policy.ErrNotFound)
		}
		return 0, true, entry, nil
	}, nil)
}

// noRollout refuses while a rollout of the subject is under way: two changes at once could not be told apart.
func noRollout(ctx context.Context, tx pgx.Tx, kind, subject string) error {
	var id int64
	err := tx.QueryRow(ctx, `SELECT rollout_id FROM rollout WHERE kind = $1 AND subject = $2 AND state IN ('running','paused','halted','rolling_back')`,
		kind, subject).Scan(&id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for rollouts: %w", err)
	}
	return fmt.Errorf("%w: rollout %d of it is under way; let it end, or abort or roll it back first", ErrState, id)
}

// diff compares the effective policies and groups the clinics by what changes for them.
func (p *Publisher) diff(before, after []policy.Clinic) (text string, changed []int32, err error) {
	old := map[int32]policy.Clinic{}
	for _, c := range before {
		old[c.ID] = c
	}
	groups := map[string][]string{}
	var order []string
	for _, c := range after {
		b, err := p.merge(c)
		if err != nil {
			return "", nil, err
		}
		a, err := p.merge(old[c.ID])
		if err != nil {
			a = nil // the stored layers contradicted each other before: everything is new
		}
		lines := policy.Diff(a, b)
		if len(lines) == 0 {
			continue
		}
		changed = append(changed, c.ID)
		key := strings.Join(lines, "\n")
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], c.Code)
	}
	slices.SortStableFunc(order, func(a, b string) int { return len(groups[b]) - len(groups[a]) })
	var out strings.Builder
	for _, key := range order {
		codes := groups[key]
		shown := strings.Join(codes[:min(len(codes), 5)], ", ")
		if len(codes) > 5 {
			shown += ", ..."
		}
		noun := "clinics"
		if len(codes) == 1 {
			noun = "clinic"
		}
		fmt.Fprintf(&out, "%d %s (%s):\n  %s\n", len(codes), noun, shown, strings.ReplaceAll(key, "\n", "\n  "))
	}
	return out.String(), changed, nil
}
