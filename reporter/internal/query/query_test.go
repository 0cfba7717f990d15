package query_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
	"github.com/kadomori/kadomori/reporter/internal/query"
	"github.com/kadomori/kadomori/reporter/internal/query/querytest"
)

func TestMain(m *testing.M) {
	os.Exit(querytest.Main(m)) //nolint:forbidigo // a test's main
}

func pool(tb testing.TB, db querytest.DB) *pgxpool.Pool {
	tb.Helper()
	p, err := pgxpool.New(context.Background(), db.Reporter)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// TestFactsFromTheDatabaseAreThoseOfTheRows writes cases into the tables and reads them through the views.
func TestFactsFromTheDatabaseAreThoseOfTheRows(t *testing.T) {
	db := querytest.New(t)
	p := pool(t, db)
	for i, name := range []string{"infected", "gap", "many", "clear"} {
		c := monthtest.Named(t, name)
		want := c.Facts(t)
		c.In.Clinic.Code = "C00" + string(rune('1'+i))
		clinic := querytest.Insert(t, db, c)
		f, err := query.Facts(t.Context(), p, clinic, c.In.Month, query.Options{Now: c.In.Now, Holidays: c.In.Holidays, CareWords: c.In.CareWords})
		if err != nil {
			t.Fatal(err)
		}
		// The tables hold no earlier months, so what is said about them differs, and with it nothing else here.
		for what, n := range map[string][2]int64{
			"detected": {f.Attacks.Detected.N, want.Attacks.Detected.N}, "blocked": {f.Attacks.Blocked.N, want.Attacks.Blocked.N},
			"infected": {f.Infected.Count.N, want.Infected.Count.N}, "observed": {f.Infected.Observed.N, want.Infected.Observed.N},
			"uptime": {f.Coverage.Uptime.N, want.Coverage.Uptime.N}, "unprotected": {f.Coverage.UnprotectedMS.N, want.Coverage.UnprotectedMS.N},
			"lost": {f.Coverage.LostDeclared.N, want.Coverage.LostDeclared.N}, "silent": {f.Coverage.LostSilent.N, want.Coverage.LostSilent.N},
			"traffic": {f.Traffic.Total.N, want.Traffic.Total.N}, "off hours": {f.Traffic.OffHours.N, want.Traffic.OffHours.N},
			"crossed": {f.Outside.Crossed.N, want.Outside.Crossed.N},
		} {
			if n[0] != n[1] {
				t.Errorf("%s: %s is %d, from the rows %d", name, what, n[0], n[1])
			}
		}
		if f.Verdict != want.Verdict || strings.Join(f.Reasons, " ") != strings.Join(want.Reasons, " ") {
			t.Errorf("%s: %s %v, from the rows %s %v", name, f.Verdict, f.Reasons, want.Verdict, want.Reasons)
		}
		for j, d := range f.Infected.Devices {
			if w := want.Infected.Devices[j]; d.Identity != w.Identity || d.Detected.N != w.Detected.N || d.Certainty != w.Certainty || strings.Join(d.Signals, " ") != strings.Join(w.Signals, " ") {
				t.Errorf("%s: device %+v, from the rows %+v", name, d.Identity, w.Identity)
			}
		}
		if len(f.Attacks.Heat) != len(want.Attacks.Heat) || f.Attacks.Heat[13] != want.Attacks.Heat[13] {
			t.Errorf("%s: the 14th is %v, from the rows %v", name, f.Attacks.Heat[13], want.Attacks.Heat[13])
		}
	}
}

func TestUnknownClinic(t *testing.T) {
	db := querytest.New(t)
	m := monthtest.Month(t)
	if _, err := query.Facts(t.Context(), pool(t, db), 5, m, query.Options{Now: m.End()}); !errors.Is(err, query.ErrNoClinic) {
		t.Errorf("got %v", err)
	}
}

// TestMonthsAreJapans puts an event on each side of both ends of the month.
func TestMonthsAreJapans(t *testing.T) {
	db := querytest.New(t)
	c := monthtest.Clear(t)
	start, end := c.In.Month.Start(), c.In.Month.End()
	for _, at := range []time.Time{start.Add(-time.Second), start, end.Add(-time.Second), end} {
		c.Find(month.Finding{T: at, Category: "scan", Action: "blocked"})
	}
	clinic := querytest.Insert(t, db, c)
	f, err := query.Facts(t.Context(), pool(t, db), clinic, c.In.Month, query.Options{Now: c.In.Now})
	if err != nil {
		t.Fatal(err)
	}
	if f.Attacks.Detected.N != 2 || f.Attacks.Heat[0][0] != 1 || f.Attacks.Heat[30][23] != 1 {
		t.Errorf("%d detections, first hour %d, last hour %d", f.Attacks.Detected.N, f.Attacks.Heat[0][0], f.Attacks.Heat[30][23])
	}
	if f.Attacks.Was == nil {
		return // nothing was observed in September
	}
	if f.Attacks.Was.N != 1 {
		t.Errorf("September had %d", f.Attacks.Was.N)
	}
}

// BenchmarkFacts reads one of 200 clinics' months out of a million events.
func BenchmarkFacts(b *testing.B) {
	db := querytest.New(b)
	c := monthtest.Infected(b)
	clinic := querytest.Insert(b, db, c)
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, db.Owner)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, severity, category, action, rule, count, direction, src_ip, dst_ip, dst_port)
		SELECT 1 + i % 200, 1 + i % 200, '9f3c1122-3344-5566-7788-99aabbccdd00', 1000 + i / 200, $1::timestamptz + i * interval '2.6 s', now(),
		       (ARRAY['alert','block','detection','health','traffic'])[1 + i / 200 % 5], 2, (ARRAY['scan','intrusion'])[1 + i / 200 % 2], 'blocked', '1:' || i % 900, 1, 2,
		       ('203.0.113.' || i % 250)::inet, '192.0.2.1', 23
		  FROM generate_series(0, 999999) i`, c.In.Month.Start()); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(ctx, `ANALYZE`); err != nil {
		b.Fatal(err)
	}
	p := pool(b, db)
	for b.Loop() {
		f, err := query.Facts(ctx, p, clinic, c.In.Month, query.Options{Now: c.In.Now})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(f.Attacks.Detected.N), "detections")
	}
}

// TestDeletedHoursAreNoZeros deletes what retention would.
func TestDeletedHoursAreNoZeros(t *testing.T) {
	db := querytest.New(t)
	c := monthtest.Clear(t)
	clinic := querytest.Insert(t, db, c)
	conn, err := pgx.Connect(t.Context(), db.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), `INSERT INTO traffic_daily (clinic_id, day, app, device_mac, zone, visibility, bytes_in, bytes_out, packets, flows)
		SELECT clinic_id, (hour AT TIME ZONE 'UTC' + interval '9 hours')::date, app, device_mac, zone, visibility, sum(bytes_in), sum(bytes_out), sum(packets), sum(flows)
		  FROM traffic_hourly GROUP BY 1, 2, 3, 4, 5, 6`); err != nil {
		t.Fatal(err)
	}
	p := pool(t, db)
	opt := query.Options{Now: c.In.Now}
	if _, err := query.Facts(t.Context(), p, clinic, c.In.Month, opt); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `DELETE FROM traffic_hourly WHERE hour < $1`, c.At(10, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := query.Facts(t.Context(), p, clinic, c.In.Month, opt); !errors.Is(err, query.ErrExpired) {
		t.Errorf("got %v", err)
	}
}

// TestRefusedEventsAreMissing: what ingest refused is no record.
func TestRefusedEventsAreMissing(t *testing.T) {
	db := querytest.New(t)
	c := monthtest.Clear(t)
	clinic := querytest.Insert(t, db, c)
	conn, err := pgx.Connect(t.Context(), db.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), `UPDATE event_ledger SET got = got - int8multirange(int8range(10, 14)), refused = int8multirange(int8range(10, 14))`); err != nil {
		t.Fatal(err)
	}
	f, err := query.Facts(t.Context(), pool(t, db), clinic, c.In.Month, query.Options{Now: c.In.Now})
	if err != nil {
		t.Fatal(err)
	}
	if f.Coverage.LostSilent.N != 4 || f.Verdict != month.Hold {
		t.Errorf("%d missing, verdict %s", f.Coverage.LostSilent.N, f.Verdict)
	}
}
