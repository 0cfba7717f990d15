package appliance_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	"github.com/kadomori/kadomori/controlplane/internal/signature"
)

// fleet is a few clinics with one approved appliance each.
type fleet struct {
	*appliance.Publisher
	t       *testing.T
	db      *postgres.DB
	now     time.Time
	clinics []int32
	boxes   []int32
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{t: t, db: postgrestest.New(t), now: time.Now()}
	clock := func() time.Time { return f.now }
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := bundle.New(bundle.Config{Key: key, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	f.Publisher, err = appliance.NewPublisher(appliance.Config{DB: f.db, Bundles: bundles, Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	f.tx(func(ctx context.Context, tx pgx.Tx) error {
		plan, err := policy.EnsureDefaultPlan(ctx, tx)
		if err != nil {
			return err
		}
		for range n {
			c, err := clinic.Create(ctx, tx, "tester", clinic.Clinic{Name: "x", PlanID: plan})
			if err != nil {
				return err
			}
			var id int32
			if err := tx.QueryRow(ctx, `INSERT INTO appliance (clinic_id, name, state) VALUES ($1, 'x', 'pending') RETURNING appliance_id`, c.ID).Scan(&id); err != nil {
				return err
			}
			if err := f.Approve(ctx, tx, "tester", id); err != nil {
				return err
			}
			f.clinics, f.boxes = append(f.clinics, c.ID), append(f.boxes, id)
		}
		return nil
	})
	return f
}

func (f *fleet) tx(fn func(context.Context, pgx.Tx) error) {
	f.t.Helper()
	ctx := context.Background()
	if err := f.db.Fleet(ctx, "system:test", func(tx pgx.Tx) error { return fn(ctx, tx) }); err != nil {
		f.t.Fatal(err)
	}
}

// versions returns the newest policy version of each box.
func (f *fleet) versions() (out []int64) {
	f.t.Helper()
	f.tx(func(ctx context.Context, tx pgx.Tx) error {
		q, err := tx.Query(ctx, `SELECT max(version) FROM bundle WHERE kind = 'policy' GROUP BY appliance_id ORDER BY appliance_id`)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(q, pgx.RowTo[int64])
		return err
	})
	return out
}

func (f *fleet) mode(i int) (mode string) {
	f.t.Helper()
	f.tx(func(ctx context.Context, tx pgx.Tx) error {
		s, err := f.Explain(ctx, tx, f.clinics[i])
		for _, x := range s {
			if x.Path == "zones.guest.mode" {
				mode = policy.Format(x.Value) + " by " + x.Layer.Name
			}
		}
		return err
	})
	return mode
}

func TestOverrideEndsByItselfAndPublishesForItsClinicAlone(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	ctx := context.Background()
	if err := f.SetOverride(ctx, "yamada", f.clinics[0], "zones: {guest: {mode: observe}}", "vendor", f.now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if v := f.versions(); v[0] != 2 || v[1] != 1 || f.mode(0) != "observe by clinic" || f.mode(1) != "prevent by default" {
		t.Errorf("versions %v, modes %s, %s", v, f.mode(0), f.mode(1))
	}
	f.now = f.now.Add(59 * time.Minute)
	if ended, err := f.ExpireOverrides(ctx); err != nil || len(ended) != 0 {
		t.Errorf("ended before its time: %v %v", ended, err)
	}
	f.now = f.now.Add(time.Minute)
	if ended, err := f.ExpireOverrides(ctx); err != nil || len(ended) != 1 || ended[0] != f.clinics[0] {
		t.Errorf("ended: %v %v", ended, err)
	}
	if v := f.versions(); v[0] != 3 || v[1] != 1 || f.mode(0) != "prevent by default" {
		t.Errorf("after the end: versions %v, mode %s", v, f.mode(0))
	}
	if ended, err := f.ExpireOverrides(ctx); err != nil || len(ended) != 0 {
		t.Errorf("ended twice: %v %v", ended, err)
	}
}

func TestGroupLiesBetweenPlanAndClinic(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	ctx := context.Background()
	if _, err := f.ApplyPlan(ctx, policy.Plan{Name: policy.DefaultPlan, Document: "zones: {guest: {mode: observe}}", Author: "a", Reason: "r"}, false, false); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ApplyGroup(ctx, policy.Group{Name: "dialysis", Document: "zones: {guest: {mode: notify}}", Author: "a"}, false); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 2} {
		if _, err := f.MoveClinic(ctx, "a", f.clinics[i], "", "dialysis", "ward", false); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetOverride(ctx, "a", f.clinics[2], "zones: {guest: {mode: prevent}}", "r", time.Time{}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"observe by plan", "notify by group", "prevent by clinic"} {
		if got := f.mode(i); got != want {
			t.Errorf("clinic %d: %s, want %s", i, got, want)
		}
	}
	c, err := f.ApplyGroup(ctx, policy.Group{Name: "dialysis", Document: "zones: {guest: {mode: observe}}", Author: "a"}, true)
	if err != nil || c.Clinics != 1 || c.Diff != "1 clinic (C002):\n  ~ zones.guest.mode: notify -> observe\n" || f.mode(1) != "notify by group" {
		t.Errorf("dry run: %+v %v, mode %s", c, err, f.mode(1))
	}
	if _, err := f.MoveClinic(ctx, "a", f.clinics[1], "nowhere", "", "r", false); !errors.Is(err, policy.ErrNotFound) {
		t.Errorf("unknown plan: %v", err)
	}
	if _, err := f.ApplyPlan(ctx, policy.Plan{Name: policy.DefaultPlan, Document: "{}", Revision: 1, Author: "b"}, false, false); !errors.Is(err, policy.ErrConflict) {
		t.Errorf("two editors: %v", err)
	}
}

// TestContradictionWithOneClinicRefusesThePlan: a plan that is good alone and bad over one clinic's override reaches nobody.
func TestContradictionWithOneClinicRefusesThePlan(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	ctx := context.Background()
	if err := f.SetOverride(ctx, "a", f.clinics[1], "home_net: [192.168.11.0/24]", "r", time.Time{}); err != nil {
		t.Fatal(err)
	}
	before := f.versions()
	_, err := f.ApplyPlan(ctx, policy.Plan{Name: policy.DefaultPlan, Document: "zones: {iot: {prefixes: [10.9.0.0/16]}}", Author: "a"}, false, false)
	if !errors.Is(err, policy.ErrInvalid) || !strings.Contains(err.Error(), "clinic C002") {
		t.Errorf("error %v", err)
	}
	if after := f.versions(); after[0] != before[0] || after[1] != before[1] {
		t.Errorf("half applied: %v, before %v", after, before)
	}
	var p policy.Plan
	f.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		p, err = policy.GetPlan(ctx, tx, policy.DefaultPlan)
		return err
	})
	if p.Document != "" {
		t.Errorf("the refused document was kept: %q", p.Document)
	}
}

func TestSignaturesAreCheckedAgainstEveryClinicsProtection(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	ctx := context.Background()
	if err := f.SetOverride(ctx, "a", f.clinics[1], "never_block: [198.51.100.0/24]", "hospital", time.Time{}); err != nil {
		t.Fatal(err)
	}
	list := func(text string) []signature.File {
		return []signature.File{{Name: "bots.addresses", Kind: "c2", Content: []byte(text)}}
	}
	for _, bad := range []string{"198.51.100.7", "192.0.2.1"} { // a clinic's, and the control plane's own address
		if _, _, err := f.PublishSignatures(ctx, "a", "r", list(bad), false); !errors.Is(err, signature.ErrInvalid) || !strings.Contains(err.Error(), "never_block") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	v1, _, err := f.PublishSignatures(ctx, "a", "r", list("203.0.113.9"), false)
	if err != nil {
		t.Fatal(err)
	}
	first := f.versions() // the new list is in every policy
	again, _, err := f.PublishSignatures(ctx, "a", "r", list("203.0.113.9"), false)
	if err != nil || again != v1 {
		t.Errorf("equal files made version %d, before %d, %v", again, v1, err)
	}
	v2, _, err := f.PublishSignatures(ctx, "a", "r", list("203.0.113.10"), false)
	if err != nil || v2 != v1+1 {
		t.Errorf("other addresses: version %d, %v", v2, err)
	}
	if after := f.versions(); after[0] != first[0] {
		t.Errorf("the same list name made a new policy: %v, before %v", after, first)
	}
}

func TestBundlesAreSignedAnewBeforeTheyEnd(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	if err := f.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if v := f.versions(); v[0] != 1 {
		t.Errorf("a young policy was published again: %v", v)
	}
	f.now = f.now.Add(bundle.Life/2 + time.Hour)
	if err := f.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if v := f.versions(); v[0] != 2 {
		t.Errorf("a policy past half its life was not signed anew: %v", v)
	}
}
