package triage_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

// TestCountListAndMatchAgree makes random events and random filters: the number on the group, the rows of the list and the
// filter asked about each event must be the same, or a bulk action would touch something else than the list shows.
func TestCountListAndMatchAgree(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	db := postgrestest.Open(t, dsns)
	ctx := t.Context()
	owner, err := pgx.Connect(ctx, dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.WithoutCancel(ctx)) }()
	r := rand.New(rand.NewPCG(5, 6))
	now := time.Now().UTC().Truncate(time.Second)
	if _, err := owner.Exec(ctx, `INSERT INTO plan (name, document, author) VALUES ('p', '', 'x');
INSERT INTO clinic (code, name, kana, plan_id) VALUES ('C001', 'さくら小児科', 'さくら', 1), ('C002', 'Aoba Clinic', 'あおば', 1), ('C003', '若草眼科', 'わかくさ', 1);
INSERT INTO appliance (clinic_id, name, state) VALUES (1, 'a', 'approved'), (2, 'b', 'approved'), (3, 'c', 'approved')`); err != nil {
		t.Fatal(err)
	}
	names := []filter.Event{{ClinicName: "さくら小児科", Kana: "さくら", Code: "C001"}, {ClinicName: "Aoba Clinic", Kana: "あおば", Code: "C002"}, {ClinicName: "若草眼科", Kana: "わかくさ", Code: "C003"}}
	var events []filter.Event
	var counts []int64
	var rows [][]any
	for i := range 1500 {
		e := names[i%3]
		e.Clinic = int32(i%3) + 1
		e.Signature = []filter.Signature{{Kind: "alert", Rule: "1:10"}, {Kind: "alert", Rule: "1:11"}, {Kind: "detection", Rule: "D19"}, {Kind: "block", Rule: "zone"}}[r.IntN(4)]
		e.T = now.Add(-time.Duration(r.IntN(9*24*3600)) * time.Second)
		e.Severity, e.Category, e.Action = 1+r.IntN(5), filter.Categories[r.IntN(7)], []string{"passed", "blocked"}[r.IntN(2)]
		e.Title, e.Indicator = []string{"SSH brute force", "遠隔操作", "a%b_c"}[r.IntN(3)], []string{"", "Bad.example.net"}[r.IntN(2)]
		e.Src, e.Dst = netip.AddrFrom4([4]byte{192, 168, 10, byte(r.IntN(4))}), netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(4))})
		var dev any
		if r.IntN(2) == 0 {
			e.Device = e.Src
			dev = e.Device
		}
		n := 1 + r.IntN(5)
		events, counts = append(events, e), append(counts, int64(n))
		rows = append(rows, []any{e.Clinic, e.Clinic, [16]byte{1}, int64(i + 1), e.T, e.T, e.Kind, e.Severity, e.Category, e.Action, e.Rule, e.Title, e.Indicator, n, e.Src, e.Dst, dev})
	}
	if _, err := owner.CopyFrom(ctx, pgx.Identifier{"event"}, []string{
		"clinic_id", "appliance_id", "stream_id", "seq", "t", "received_at", "kind", "severity", "category", "action", "rule",
		"title", "indicator", "count", "src_ip", "dst_ip", "device_ip",
	}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	hits := 0
	for i := range 150 {
		f := filter.Filter{Period: []time.Duration{0, 7 * 24 * time.Hour}[r.IntN(2)]}
		pick := func() bool { return r.IntN(4) == 0 }
		if pick() {
			f.Text = []string{"ssh", "BAD.", "%b_", "203.0.113.1", "さくら", "aoba", "1:1", "操作"}[r.IntN(8)]
		}
		if pick() {
			f.Clinics = []int32{1, 3}
		}
		if pick() {
			f.Severities = []int{4, 5}
		}
		if pick() {
			f.Categories = []string{"bot", "scan"}
		}
		if pick() {
			f.Action = "passed"
		}
		if pick() {
			f.Rule = filter.Signature{Kind: "alert", Rule: "1:10"}
		}
		if pick() {
			f.Host = netip.MustParseAddr("192.168.10.2")
		}
		var wantRows, wantAlerts int64
		for j, e := range events {
			if f.Match(e, now) {
				wantRows++
				wantAlerts += counts[j]
			}
		}
		hits += int(wantRows)
		err := db.Fleet(ctx, "system:test", func(tx pgx.Tx) error {
			s, err := triage.Take(ctx, tx, f, now)
			if err != nil {
				return err
			}
			var sum int64
			for _, g := range s.Groups {
				var shape, pairs int64
				for _, n := range g.Shape {
					shape += n
				}
				for _, p := range g.Pairs {
					pairs += p.Alerts
				}
				if shape != g.Alerts || pairs != g.Alerts {
					t.Errorf("%s: group %s has %d alerts, its shape %d, its clinics %d", f.Key(), g.Signature, g.Alerts, shape, pairs)
				}
				sum += g.Alerts
			}
			n, alerts, _, err := triage.CountAlerts(ctx, tx, f, now, now.Add(time.Hour))
			if err != nil {
				return err
			}
			list, err := triage.Alerts(ctx, tx, f, now, time.Time{}, 1000, 0)
			if err != nil {
				return err
			}
			if s.Rows != wantRows || s.Alerts != wantAlerts || sum != wantAlerts || n != wantRows || alerts != wantAlerts || int64(len(list)) != min(wantRows, 1000) {
				return fmt.Errorf("filter %d %s: match %d/%d, groups %d/%d, count %d/%d, list %d", i, f.Key(), wantRows, wantAlerts, s.Rows, s.Alerts, n, alerts, len(list))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if hits < 1000 {
		t.Errorf("the filters matched only %d events: the test proves little", hits)
	}
}

// TestSnapshotStaysWithinItsClinics: a transaction for one clinic sees nothing of another.
func TestSnapshotStaysWithinItsClinics(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	db := postgrestest.Open(t, dsns)
	ctx := t.Context()
	owner, err := pgx.Connect(ctx, dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.WithoutCancel(ctx)) }()
	if _, err := owner.Exec(ctx, `INSERT INTO plan (name, document, author) VALUES ('p', '', 'x');
INSERT INTO clinic (code, name, plan_id) VALUES ('C001', 'one', 1), ('C002', 'two', 1);
INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, severity, rule, action)
SELECT c, c, '00000000-0000-0000-0000-000000000001', 1, now() - interval '1 hour', now(), 'alert', 4, '1:1', 'passed' FROM generate_series(1, 2) c`); err != nil {
		t.Fatal(err)
	}
	err = db.As(ctx, []int32{2}, func(tx pgx.Tx) error {
		s, err := triage.Take(ctx, tx, filter.Filter{Clinics: []int32{1, 2}}, time.Now())
		if err != nil {
			return err
		}
		if s.Clinics != 1 || s.Alerts != 1 || s.Groups[0].Pairs[0].Clinic != 2 {
			t.Errorf("clinic 2 sees %d clinics, %d alerts", s.Clinics, s.Alerts)
		}
		if _, err := triage.One(ctx, tx, 1, [16]byte{15: 1}, 1); err == nil {
			t.Error("clinic 2 reads an alert of clinic 1")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
