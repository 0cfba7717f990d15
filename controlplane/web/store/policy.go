package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Plan is a row of the list of plans.
type Plan struct {
	ID        int32
	Name      string
	Revision  int64
	Author    string
	Reason    string
	Updated   time.Time
	Clinics   int
	Overrides int
}

// Plans reads all plans.
func Plans(ctx context.Context, tx pgx.Tx) ([]Plan, error) {
	rows, err := tx.Query(ctx, `SELECT p.id, p.name, p.revision, p.author, p.reason, p.updated_at, count(c.clinic_id), count(o.clinic_id)
FROM plan p LEFT JOIN clinic c ON c.plan_id = p.id LEFT JOIN policy_override o USING (clinic_id) GROUP BY p.id ORDER BY p.name`)
	if err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Plan])
}

// Override is a clinic's deviation from its plan.
type Override struct {
	Clinic     int32
	Name, Code string
	Plan       string
	Author     string
	Reason     string
	Expires    time.Time // zero: never
	Updated    time.Time
}

// Overrides reads all of them, the soonest to end first.
func Overrides(ctx context.Context, tx pgx.Tx) ([]Override, error) {
	rows, err := tx.Query(ctx, `SELECT o.clinic_id, c.name, c.code, p.name, o.author, o.reason, o.expires_at, o.updated_at
FROM policy_override o JOIN clinic c USING (clinic_id) JOIN plan p ON p.id = c.plan_id ORDER BY o.expires_at NULLS LAST, c.code`)
	if err != nil {
		return nil, fmt.Errorf("read overrides: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Override, error) {
		var o Override
		var until *time.Time
		err := row.Scan(&o.Clinic, &o.Name, &o.Code, &o.Plan, &o.Author, &o.Reason, &until, &o.Updated)
		o.Expires = val(until)
		return o, err
	})
}

// Entry is a box on its way in: its claim, and how far it came.
type Entry struct {
	Appliance  int32
	Name       string
	Clinic     int32
	ClinicName string
	ClinicCode string
	Plan       string
	State      string // of the appliance
	Serial     string // as the box says
	Model      string
	Bound      string // serial the claim is bound to; "" any
	Auto       bool   // approved beforehand
	By         string // who made the claim
	Created    time.Time
	Expires    time.Time // of the claim
	Used       time.Time // zero: not yet
	KeySHA     []byte    // of the box's key; nil: not shown yet
	Policy     int64     // version it runs; 0: none yet
	SelfTest   time.Time // last passed; zero: none
	LastSeen   time.Time
}

// Step is how far it came: "claimed", "expired", "pending", "admitted" (no policy yet), "policy" (no self-test yet), "service",
// "rejected".
func (e *Entry) Step(now time.Time) string {
	switch e.State {
	case "claimed":
		if e.Expires.Before(now) {
			return "expired"
		}
		return "claimed"
	case "pending":
		return "pending"
	case "approved":
		switch {
		case e.Policy == 0:
			return "admitted"
		case e.SelfTest.IsZero():
			return "policy"
		}
		return "service"
	}
	return "rejected"
}

// Entries reads boxes that are on their way, and those that came in within the last 30 days.
func Entries(ctx context.Context, tx pgx.Tx, clinics []int32, now time.Time) ([]Entry, error) {
	rows, err := tx.Query(ctx, `
SELECT a.appliance_id, a.name, a.clinic_id, c.name, c.code, p.name, a.state, a.serial, a.model, coalesce(k.serial, ''), coalesce(k.auto_approve, false), coalesce(k.created_by, ''),
  a.created_at, k.expires_at, k.used_at, a.key_sha256, a.policy_version,
  (SELECT max(t) FROM event e WHERE e.clinic_id = a.clinic_id AND e.appliance_id = a.appliance_id AND e.kind = 'self_test' AND e.detail->>'passed' = 'true' AND e.t > $2::timestamptz - interval '30 days'), a.last_seen
FROM appliance a JOIN clinic c USING (clinic_id) JOIN plan p ON p.id = c.plan_id
LEFT JOIN LATERAL (SELECT serial, auto_approve, created_by, expires_at, used_at FROM claim WHERE appliance_id = a.appliance_id ORDER BY claim_id DESC LIMIT 1) k ON true
WHERE ($1::int[] IS NULL OR a.clinic_id = ANY ($1)) AND (a.state IN ('claimed','pending') OR a.created_at > $2::timestamptz - interval '30 days')
ORDER BY a.state = 'pending' DESC, a.state = 'claimed' DESC, a.created_at DESC LIMIT 500`, null(clinics), now)
	if err != nil {
		return nil, fmt.Errorf("read enrolments: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Entry, error) {
		var e Entry
		var expires, used, test, seen *time.Time
		err := row.Scan(&e.Appliance, &e.Name, &e.Clinic, &e.ClinicName, &e.ClinicCode, &e.Plan, &e.State, &e.Serial, &e.Model, &e.Bound, &e.Auto, &e.By, &e.Created, &expires, &used,
			&e.KeySHA, &e.Policy, &test, &seen)
		e.Expires, e.Used, e.SelfTest, e.LastSeen = val(expires), val(used), val(test), val(seen)
		return e, err
	})
}

// FleetBadges counts boxes that wait for approval, and rollouts under way or halted.
func FleetBadges(ctx context.Context, tx pgx.Tx) (pending, rolling int, err error) {
	err = tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM appliance WHERE state = 'pending'), (SELECT count(*) FROM rollout WHERE state IN ('running','paused','halted','rolling_back'))`).Scan(&pending, &rolling)
	if err != nil {
		return 0, 0, fmt.Errorf("count what is under way: %w", err)
	}
	return pending, rolling, nil
}
