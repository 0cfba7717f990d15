package policy

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
)

// DefaultPlan is the plan of clinics that name none; it says nothing, so the built-in defaults apply.
const DefaultPlan = "standard"

// Errors of the store.
var (
	// ErrNotFound: there is no such plan or clinic.
	ErrNotFound = errors.New("not found")
	// ErrConflict: somebody else changed the plan in between.
	ErrConflict = errors.New("plan was changed in between")
)

var planName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Plan is a policy shared by clinics.
type Plan struct {
	ID       int32
	Name     string
	Document string
	Revision int64
	Author   string
	Reason   string
}

// GetPlan reads a plan by name. Error: ErrNotFound.
func GetPlan(ctx context.Context, tx pgx.Tx, name string) (Plan, error) {
	p := Plan{Name: name}
	err := tx.QueryRow(ctx, `SELECT id, document, revision, author, reason FROM plan WHERE name = $1`, name).
		Scan(&p.ID, &p.Document, &p.Revision, &p.Author, &p.Reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, fmt.Errorf("plan %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return p, fmt.Errorf("read plan: %w", err)
	}
	return p, nil
}

// EnsureDefaultPlan makes the default plan when it is missing and returns its id.
func EnsureDefaultPlan(ctx context.Context, tx pgx.Tx) (int32, error) {
	_, err := tx.Exec(ctx, `INSERT INTO plan (name, document, author, reason) VALUES ($1, '', 'kadomori', 'built-in') ON CONFLICT (name) DO NOTHING`, DefaultPlan)
	if err != nil {
		return 0, fmt.Errorf("make default plan: %w", err)
	}
	p, err := GetPlan(ctx, tx, DefaultPlan)
	if err != nil {
		return 0, err
	}
	return p.ID, keepRevision(ctx, tx, p)
}

// keepRevision writes a plan's document into its history.
func keepRevision(ctx context.Context, tx pgx.Tx, p Plan) error {
	_, err := tx.Exec(ctx, `INSERT INTO plan_revision (plan_id, revision, document, author, reason) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		p.ID, p.Revision, p.Document, p.Author, p.Reason)
	if err != nil {
		return fmt.Errorf("keep plan's revision: %w", err)
	}
	return nil
}

// PutPlan stores a document that Parse took and returns the plan with its new revision; the same document again changes nothing.
// p.Revision is the one the editor saw, 0 for whatever there is. Errors: ErrConflict, Problems.
func PutPlan(ctx context.Context, tx pgx.Tx, p Plan, now time.Time) (out Plan, changed bool, err error) {
	if !planName.MatchString(p.Name) {
		return p, false, Problems{{Path: "name", Value: p.Name, Why: "want 1 to 63 of a-z, 0-9 and dash, a letter first"}}
	}
	var old Plan
	err = tx.QueryRow(ctx, `SELECT id, document, revision FROM plan WHERE name = $1 FOR UPDATE`, p.Name).Scan(&old.ID, &old.Document, &old.Revision)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if p.Revision != 0 {
			return p, false, fmt.Errorf("plan %q: %w: it does not exist, you edited revision %d", p.Name, ErrConflict, p.Revision)
		}
		err = tx.QueryRow(ctx, `INSERT INTO plan (name, document, author, reason, updated_at) VALUES ($1, $2, $3, $4, $5) RETURNING id, revision`,
			p.Name, p.Document, p.Author, p.Reason, now).Scan(&p.ID, &p.Revision)
		if err != nil {
			return p, false, fmt.Errorf("store plan: %w", err)
		}
		return p, true, keepRevision(ctx, tx, p)
	case err != nil:
		return p, false, fmt.Errorf("read plan: %w", err)
	case p.Revision != 0 && p.Revision != old.Revision:
		return p, false, fmt.Errorf("plan %q: %w: it is at revision %d, you edited revision %d", p.Name, ErrConflict, old.Revision, p.Revision)
	}
	p.ID, p.Revision = old.ID, old.Revision
	if p.Document == old.Document {
		return p, false, nil
	}
	err = tx.QueryRow(ctx, `UPDATE plan SET document = $2, author = $3, reason = $4, updated_at = $5, revision = revision + 1 WHERE id = $1 RETURNING revision`,
		p.ID, p.Document, p.Author, p.Reason, now).Scan(&p.Revision)
	if err != nil {
		return p, false, fmt.Errorf("store plan: %w", err)
	}
	return p, true, keepRevision(ctx, tx, p)
}

// PutOverride replaces a clinic's override; an empty document lifts it.
func PutOverride(ctx context.Context, tx pgx.Tx, clinic int32, document, author, reason string, expires, now time.Time) error {
	if document == "" {
		if _, err := tx.Exec(ctx, `DELETE FROM policy_override WHERE clinic_id = $1`, clinic); err != nil {
			return fmt.Errorf("lift override: %w", err)
		}
		return nil
	}
	var until *time.Time
	if !expires.IsZero() {
		until = &expires
	}
	_, err := tx.Exec(ctx, `INSERT INTO policy_override (clinic_id, document, author, reason, expires_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (clinic_id) DO UPDATE SET document = EXCLUDED.document, author = EXCLUDED.author, reason = EXCLUDED.reason,
		expires_at = EXCLUDED.expires_at, updated_at = EXCLUDED.updated_at`, clinic, document, author, reason, until, now)
	if err != nil {
		return fmt.Errorf("store override: %w", err)
	}
	return nil
}

// Clinic is a clinic with the layers that make its policy.
type Clinic struct {
	ID       int32
	Code     string
	Name     string
	PlanID   int32
	Revision int64 // of the plan; 0: the newest
	Plan     *Layer
	Group    *Layer
	Override *Layer
}

// Layers returns the clinic's layers between the built-in ones, lowest first.
func (c Clinic) Layers() []*Layer { return []*Layer{c.Plan, c.Group, c.Override} }

// Load reads the layers of the clinics that tx sees; ids nil: all of them. Plans are parsed once each.
func Load(ctx context.Context, tx pgx.Tx, ids []int32) ([]Clinic, error) {
	type row struct {
		Clinic
		group                    *int32
		override, author, reason *string
		expires                  *time.Time
	}
	q, err := tx.Query(ctx, `SELECT c.clinic_id, c.code, c.name, c.plan_id, coalesce(c.plan_revision, 0), c.group_id, o.document, o.author, o.reason, o.expires_at
		FROM clinic c LEFT JOIN policy_override o USING (clinic_id) WHERE $1::int[] IS NULL OR c.clinic_id = ANY ($1) ORDER BY c.clinic_id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read clinics: %w", err)
	}
	rows, err := pgx.CollectRows(q, func(r pgx.CollectableRow) (x row, err error) {
		err = r.Scan(&x.ID, &x.Code, &x.Name, &x.PlanID, &x.Revision, &x.group, &x.override, &x.author, &x.reason, &x.expires)
		return x, err
	})
	if err != nil {
		return nil, fmt.Errorf("read clinics: %w", err)
	}
	plans, err := loadPlans(ctx, tx)
	if err != nil {
		return nil, err
	}
	groups, err := loadGroups(ctx, tx)
	if err != nil {
		return nil, err
	}
	out := make([]Clinic, 0, len(rows))
	for _, r := range rows {
		c := r.Clinic
		c.Plan = plans[planKey{c.PlanID, c.Revision}]
		if c.Plan == nil {
			return nil, fmt.Errorf("plan %d revision %d of clinic %s: %w", c.PlanID, c.Revision, c.Code, ErrNotFound)
		}
		if r.group != nil {
			c.Group = groups[*r.group]
		}
		if r.override != nil {
			v, err := Parse([]byte(*r.override))
			if err != nil {
				return nil, fmt.Errorf("override of clinic %s: %w", c.Code, err)
			}
			c.Override = &Layer{Name: LayerClinic, Author: *r.author, Reason: *r.reason, Values: v}
			if r.expires != nil {
				c.Override.Expires = *r.expires
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// planKey names a plan's document; revision 0 is the newest.
type planKey struct {
	id       int32
	revision int64
}

// loadPlans reads the plans' newest documents, and the older ones that clinics follow.
func loadPlans(ctx context.Context, tx pgx.Tx) (map[planKey]*Layer, error) {
	q, err := tx.Query(ctx, `SELECT id, name, 0::bigint, document, author, reason FROM plan
		UNION ALL SELECT r.plan_id, p.name, r.revision, r.document, r.author, r.reason FROM plan_revision r JOIN plan p ON p.id = r.plan_id
		WHERE EXISTS (SELECT FROM clinic c WHERE c.plan_id = r.plan_id AND c.plan_revision = r.revision)`)
	if err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	out := map[planKey]*Layer{}
	var p Plan
	_, err = pgx.ForEachRow(q, []any{&p.ID, &p.Name, &p.Revision, &p.Document, &p.Author, &p.Reason}, func() error {
		v, err := Parse([]byte(p.Document))
		if err != nil {
			return fmt.Errorf("plan %q: %w", p.Name, err)
		}
		out[planKey{p.ID, p.Revision}] = &Layer{Name: LayerPlan, Author: p.Author, Reason: p.Reason, Values: v}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	return out, nil
}

// PinClinics makes clinics follow a revision of their plan; 0: the newest.
func PinClinics(ctx context.Context, tx pgx.Tx, clinics []int32, revision int64) error {
	if _, err := tx.Exec(ctx, `UPDATE clinic SET plan_revision = nullif($2, 0) WHERE clinic_id = ANY ($1)`, clinics, revision); err != nil {
		return fmt.Errorf("pin clinics to plan's revision: %w", err)
	}
	return nil
}
