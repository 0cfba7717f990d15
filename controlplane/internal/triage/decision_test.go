package triage_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

var sshRule = filter.Signature{Kind: "alert", Rule: "1:1"}

// twoClinics has 10 old alerts of one signature at each of two clinics, of the given severity, and one of another signature.
func twoClinics(t *testing.T, severity int) (*postgres.DB, *pgx.Conn, time.Time) {
	t.Helper()
	dsns := postgrestest.NewDSNs(t)
	db := postgrestest.Open(t, dsns)
	owner, err := pgx.Connect(t.Context(), dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(context.Background()) })
	now := time.Now().UTC().Truncate(time.Millisecond)
	if _, err := owner.Exec(t.Context(), `INSERT INTO plan (name, document, author) VALUES ('p', '', 'x');
INSERT INTO clinic (code, name, plan_id) VALUES ('C001', 'one', 1), ('C002', 'two', 1), ('C003', 'three', 1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(t.Context(), `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, severity, rule, title, action, dst_ip, dst_port, device_mac)
SELECT c, c, '00000000-0000-0000-0000-000000000001'::uuid, n, $1::timestamptz - n * interval '1 hour', $1::timestamptz - n * interval '1 hour', 'alert', $2, '1:1', 'SSH', 'passed',
  ('203.0.113.' || (n % 2))::inet, 22, '02:00:00:00:00:01'::macaddr FROM generate_series(1, 2) c, generate_series(1, 10) n
UNION ALL SELECT 1, 1, '00000000-0000-0000-0000-000000000001'::uuid, 99, $1::timestamptz - interval '1 hour', $1::timestamptz - interval '1 hour', 'alert', 2, '1:2', 'other', 'blocked', NULL, NULL, NULL`, now, severity); err != nil {
		t.Fatal(err)
	}
	return db, owner, now
}

func inFleet(t *testing.T, db *postgres.DB, fn func(context.Context, pgx.Tx) error) {
	t.Helper()
	if err := db.Fleet(t.Context(), "system:test", func(tx pgx.Tx) error { return fn(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

// counts are the alerts of the signature that are without a verdict, with one, and all.
func counts(t *testing.T, db *postgres.DB, now time.Time) [3]int64 {
	t.Helper()
	var out [3]int64
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		for i, state := range []string{"", "done", "all"} {
			s, err := triage.Take(ctx, tx, filter.Filter{State: state, Rule: sshRule}, now)
			if err != nil {
				return err
			}
			out[i] = s.Alerts
		}
		return nil
	})
	return out
}

func late(t *testing.T, owner *pgx.Conn, clinic int, now time.Time, dst string) {
	t.Helper()
	if _, err := owner.Exec(t.Context(), `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, severity, rule, title, action, dst_ip, dst_port, device_mac)
VALUES ($1, $1, '00000000-0000-0000-0000-000000000001', 1000, $2, $2, 'alert', 4, '1:1', 'SSH', 'passed', $3::inet, 22, '02:00:00:00:00:01')`, clinic, now, dst); err != nil {
		t.Fatal(err)
	}
}

func order(now time.Time, verdict string, days int) triage.Order {
	return triage.Order{Targets: []triage.Target{{Signature: sshRule}}, SeenUpTo: now, Verdict: verdict, Reason: "checked by phone", Days: days, Author: "kato", Now: now}
}

func TestThreatClosesWhatWasSeenAndOpensACase(t *testing.T) {
	db, owner, now := twoClinics(t, 4)
	var e *triage.Effect
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) (err error) {
		e, err = triage.Decide(ctx, tx, order(now, triage.Threat, 0))
		return err
	})
	if e.Alerts != 20 || e.Clinics != 2 || e.Case == 0 {
		t.Fatalf("judged %d alerts at %d clinics, case %d", e.Alerts, e.Clinics, e.Case)
	}
	late(t, owner, 1, now.Add(time.Second), "203.0.113.0")
	if got := counts(t, db, now.Add(2*time.Second)); got != [3]int64{1, 20, 21} {
		t.Errorf("without, with, all = %v: an alert after the verdict must show up again", got)
	}
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		cs, err := triage.Cases(ctx, tx, 0, 10)
		if err != nil {
			return err
		}
		if len(cs) != 1 || cs[0].Clinics != 2 || cs[0].Alerts != 20 || cs[0].Status != "new" {
			t.Errorf("cases: %+v", cs)
		}
		if err := triage.ChangeCase(ctx, tx, e.Case, "kato", "responding", "", "", "", now); !errors.Is(err, triage.ErrState) {
			t.Errorf("new to responding: %v", err)
		}
		if err := triage.ChangeCase(ctx, tx, e.Case, "kato", "closed", "", "", "", now); !errors.Is(err, triage.ErrInvalid) {
			t.Errorf("closing without resolution: %v", err)
		}
		return triage.ChangeCase(ctx, tx, e.Case, "kato", "closed", "threat_handled", "", "cable out, reinstalled", now)
	})
}

func TestSuppressionHidesUntilItExpiresIsLiftedOrUndone(t *testing.T) {
	db, owner, now := twoClinics(t, 3)
	decide := func() int64 {
		var id int64
		inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
			o := order(now, triage.Expected, 30)
			e, err := triage.Decide(ctx, tx, o)
			if err == nil {
				id = e.Decision
			}
			return err
		})
		return id
	}
	id := decide()
	late(t, owner, 1, now.Add(time.Second), "203.0.113.0")
	if got := counts(t, db, now.Add(2*time.Second)); got != [3]int64{0, 21, 21} {
		t.Errorf("running: %v", got)
	}
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		if err := triage.Lift(ctx, tx, id, "kato", "", now.Add(time.Minute)); !errors.Is(err, triage.ErrInvalid) {
			t.Errorf("lift without a reason: %v", err)
		}
		return triage.Lift(ctx, tx, id, "kato", "tablet is gone", now.Add(500*time.Millisecond))
	})
	if got := counts(t, db, now.Add(2*time.Second)); got != [3]int64{1, 20, 21} {
		t.Errorf("lifted: %v: what came after shows, what was judged stays judged", got)
	}
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		if err := triage.Undo(ctx, tx, id, "kato", "x", now); !errors.Is(err, triage.ErrState) {
			t.Errorf("undo of a lifted one: %v", err)
		}
		return nil
	})

	db, owner, now = twoClinics(t, 3)
	id = decide()
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		if err := triage.Undo(ctx, tx, id, "suzuki", "", now.Add(time.Second)); !errors.Is(err, triage.ErrInvalid) {
			t.Errorf("undo by somebody else without a reason: %v", err)
		}
		return triage.Undo(ctx, tx, id, "kato", "", now.Add(time.Second))
	})
	if got := counts(t, db, now.Add(2*time.Second)); got != [3]int64{20, 0, 20} {
		t.Errorf("undone: %v", got)
	}
	late(t, owner, 2, now.Add(time.Second), "203.0.113.1")
}

func TestConditionsNarrowASuppression(t *testing.T) {
	db, _, now := twoClinics(t, 3)
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		o := order(now, triage.NoNotice, 7)
		o.Targets = []triage.Target{{Signature: sshRule, Clinic: 1}, {Signature: sshRule, Clinic: 1}}
		o.DstPort, o.Device = 22, "02:00:00:00:00:01"
		f, err := filter.Parse(map[string][]string{"host": {"203.0.113.1"}})
		if err != nil {
			return err
		}
		o.Dst = f.Host
		e, err := triage.Decide(ctx, tx, o)
		if err != nil {
			return err
		}
		if e.Alerts != 5 || e.Clinics != 1 || e.HiddenSum() != 5 || e.StaysSum() != 15 {
			t.Errorf("judged %d at %d clinics; replay hides %d, leaves %d", e.Alerts, e.Clinics, e.HiddenSum(), e.StaysSum())
		}
		return nil
	})
	if got := counts(t, db, now); got != [3]int64{15, 5, 20} {
		t.Errorf("%v", got)
	}
}

func TestFleetSuppressionOfHighSeverityNeedsASecondPerson(t *testing.T) {
	db, owner, now := twoClinics(t, 4)
	var id int64
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		o := order(now, triage.Expected, 30)
		o.Fleet = true
		e, err := triage.Decide(ctx, tx, o)
		if err != nil {
			return err
		}
		id = e.Decision
		if !e.Second {
			t.Error("no second person asked for")
		}
		return nil
	})
	if got := counts(t, db, now); got != [3]int64{20, 0, 20} {
		t.Errorf("pending must hide nothing: %v", got)
	}
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		if err := triage.Approve(ctx, tx, id, "kato", now); !errors.Is(err, triage.ErrSecond) {
			t.Errorf("approval by the author: %v", err)
		}
		return triage.Approve(ctx, tx, id, "suzuki", now)
	})
	late(t, owner, 3, now.Add(time.Second), "203.0.113.0") // a clinic that had none before
	if got := counts(t, db, now.Add(2*time.Second)); got != [3]int64{0, 21, 21} {
		t.Errorf("approved: %v", got)
	}
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		ds, err := triage.Decisions(ctx, tx, true, filter.Signature{}, 0, now.Add(time.Minute), 10)
		if err != nil {
			return err
		}
		if len(ds) != 1 || ds[0].Approver != "suzuki" || ds[0].Hidden7 != 1 || ds[0].Live(now) != "active" || ds[0].Live(now.AddDate(0, 0, 25)) != "expiring" || ds[0].Live(now.AddDate(0, 0, 31)) != "expired" {
			t.Errorf("%+v", ds)
		}
		ps, err := triage.Precedents(ctx, tx)
		if ps[sshRule] != (triage.Precedent{Verdict: "expected", Times: 1}) {
			t.Errorf("precedents: %v", ps)
		}
		return err
	})
}

func TestVerdictsThatMakeNoSenseAreRefused(t *testing.T) {
	db, _, now := twoClinics(t, 3)
	for name, change := range map[string]func(*triage.Order){
		"verdict": func(o *triage.Order) { o.Verdict = "maybe" }, "reason": func(o *triage.Order) { o.Reason = " \n" }, "long": func(o *triage.Order) { o.Reason = string(make([]rune, 3000)) },
		"for ever": func(o *triage.Order) { o.Days = 0 }, "too long": func(o *triage.Order) { o.Days = 181 }, "none": func(o *triage.Order) { o.Targets = nil }, "port": func(o *triage.Order) { o.DstPort = 70000 },
	} {
		inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
			o := order(now, triage.Expected, 30)
			change(&o)
			if _, err := triage.Decide(ctx, tx, o); !errors.Is(err, triage.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
			return nil
		})
	}
	inFleet(t, db, func(ctx context.Context, tx pgx.Tx) error {
		o := order(now, triage.FalseAlarm, 0)
		o.Targets = []triage.Target{{Signature: filter.Signature{Kind: "alert", Rule: "9:9"}}}
		if _, err := triage.Decide(ctx, tx, o); !errors.Is(err, triage.ErrNothing) {
			t.Errorf("nothing to judge: %v", err)
		}
		return nil
	})
}
