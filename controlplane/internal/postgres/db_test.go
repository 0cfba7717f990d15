package postgres_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

// addClinics makes clinics with ids 1 to n, each with one appliance of the same id.
func addClinics(t *testing.T, db *postgres.DB, n int) {
	t.Helper()
	err := db.Fleet(testContext(t), "system:test", func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), `WITH p AS (INSERT INTO plan (name, document, author) VALUES ('p', '', 'test') RETURNING id),
			c AS (INSERT INTO clinic (code, name, plan_id) SELECT 'C' || g, '医院' || g, p.id FROM p, generate_series(1, $1) g RETURNING clinic_id)
			INSERT INTO appliance (clinic_id, name, state) SELECT clinic_id, 'a', 'approved' FROM c`, n)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAsSeesOnlyStatedClinics(t *testing.T) {
	db := postgrestest.New(t)
	addClinics(t, db, 3)
	for _, c := range []struct {
		clinics []int32
		want    int
	}{{nil, 0}, {[]int32{2}, 1}, {[]int32{1, 3}, 2}, {[]int32{99}, 0}} {
		var n int
		if err := db.As(testContext(t), c.clinics, func(tx pgx.Tx) error {
			return tx.QueryRow(context.Background(), "SELECT count(*) FROM clinic").Scan(&n)
		}); err != nil {
			t.Fatal(err)
		}
		if n != c.want {
			t.Errorf("clinics seen as %v = %d, want %d", c.clinics, n, c.want)
		}
	}
	// The setting and the role end with the transaction: the pool's next user starts with nothing.
	var n int
	var role string
	if err := db.App.QueryRow(testContext(t), "SELECT (SELECT count(*) FROM clinic), current_user").Scan(&n, &role); err != nil {
		t.Fatal(err)
	}
	if n != 0 || role != postgres.RoleApp {
		t.Errorf("outside of As: %d clinics as %s, want 0 as %s", n, role, postgres.RoleApp)
	}
}

func TestAsReturnsTheErrorAndRollsBack(t *testing.T) {
	db := postgrestest.New(t)
	addClinics(t, db, 1)
	stop := errors.New("stop")
	err := db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(context.Background(), "UPDATE clinic SET name = 'x'"); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatalf("err = %v, want the function's own", err)
	}
	var name string
	if err := db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
		return tx.QueryRow(context.Background(), "SELECT name FROM clinic").Scan(&name)
	}); err != nil || name != "医院1" {
		t.Errorf("name after roll-back = %q, %v", name, err)
	}
}

func TestFleetSeesAllAndAuditsPersons(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	now := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	db, err := postgres.Open(testContext(t), postgres.Config{AppDSN: dsns.App, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	addClinics(t, db, 3)
	look := func(actor string) {
		t.Helper()
		var clinics, views int
		if err := db.Fleet(testContext(t), actor, func(tx pgx.Tx) error {
			return tx.QueryRow(context.Background(), "SELECT (SELECT count(*) FROM clinic), (SELECT count(*) FROM report_clinic)").Scan(&clinics, &views)
		}); err != nil {
			t.Fatal(err)
		}
		if clinics != 3 || views != 3 {
			t.Errorf("fleet sees %d clinics, %d through the view, want 3", clinics, views)
		}
	}
	look("system:test")
	look("suzuki")
	look("suzuki")
	look("tanaka")
	now = now.Add(postgres.FleetAuditInterval)
	look("suzuki")
	if got := queryInt(t, dsns.Owner, "SELECT count(*) FROM audit_log WHERE action = 'fleet.read'"); got != 3 {
		t.Errorf("audit rows = %d, want 3: suzuki, tanaka, suzuki again", got)
	}
	if err := db.Fleet(testContext(t), "", func(pgx.Tx) error { return nil }); err == nil {
		t.Error("a nameless actor was let in")
	}
}

func TestOpenRefusesRoleThatBypassesRowSecurity(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	for _, dsn := range []string{dsns.Owner, dsns.Ingest} {
		db, err := postgres.Open(testContext(t), postgres.Config{AppDSN: dsn})
		if err == nil {
			db.Close()
			t.Fatal("a role that goes round row-level security was accepted")
		}
		if !strings.Contains(err.Error(), postgres.RoleApp) {
			t.Errorf("the error doesn't name the role to use: %v", err)
		}
	}
}

func TestAuditLogIsChainedAndAppendOnly(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	db := postgrestest.Open(t, dsns)
	addClinics(t, db, 2)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for range 10 {
				if err := db.As(testContext(t), []int32{1, 2}, func(tx pgx.Tx) error {
					_, err := tx.Exec(context.Background(), `INSERT INTO audit_log (actor, action, target, clinic_id, reason, detail)
						VALUES ('鈴木', 'test.write', 'x', $1, '理由', '{"b":1,"a":[2,"<b>"]}')`, 1+w%2)
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	conn, err := pgx.Connect(testContext(t), dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(testContext(t), "SELECT audit_id, prev_hash, hash, audit_text(a) FROM audit_log a ORDER BY audit_id")
	if err != nil {
		t.Fatal(err)
	}
	prev, n := make([]byte, 32), int64(0)
	for rows.Next() {
		var id int64
		var prevHash, hash []byte
		var text string
		if err := rows.Scan(&id, &prevHash, &hash, &text); err != nil {
			t.Fatal(err)
		}
		n++
		want := sha256.Sum256(append(append([]byte{}, prev...), text...))
		if id != n || string(prevHash) != string(prev) || string(hash) != string(want[:]) {
			t.Fatalf("row %d (id %d) doesn't follow from the row before", n, id)
		}
		prev = hash
	}
	if err := rows.Err(); err != nil || n != 40 {
		t.Fatalf("%d rows, %v; want 40", n, err)
	}
	for _, sql := range []string{"UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"} {
		if err := try(t, dsns.Owner, sql); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v, want a refusal", sql, err)
		}
	}
}

func TestPartitionsTakeRowsOutOfDefault(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	run(t, dsns.Ingest, `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind)
		SELECT 1, 1, gen_random_uuid(), g, '2026-11-15'::timestamptz + g * interval '30 day', now(), 'alert' FROM generate_series(0, 2) g`)
	if got := queryInt(t, dsns.Ingest, "SELECT event_make_partitions('2026-11-25', 2)"); got != 2 {
		t.Errorf("partitions made = %d, want 2", got)
	}
	if got := queryInt(t, dsns.Ingest, "SELECT event_make_partitions('2026-11-25', 2)"); got != 0 {
		t.Errorf("partitions made again = %d, want 0", got)
	}
	if got := queryInt(t, dsns.Owner, "SELECT count(*) FROM event_default"); got != 1 {
		t.Errorf("rows left in event_default = %d, want the one of January", got)
	}
	if got := queryInt(t, dsns.Owner, "SELECT count(*) FROM event"); got != 3 {
		t.Errorf("rows = %d, want 3", got)
	}
	if err := try(t, dsns.App, "SELECT event_make_partitions('2026-11-25', 2)"); err == nil {
		t.Error("kadomori_app may make partitions")
	}
}
