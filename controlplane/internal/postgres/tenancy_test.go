package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

// noClinic are the tables without rows of clinics, and why. A new table is either here or has clinic_id and policies.
var noClinic = map[string]string{
	"operator":         "people of the MSP",
	"operator_session": "people of the MSP",
	"plan":             "shared by clinics, names none",
	"setting":          "of the MSP",
	"plan_revision":    "shared by clinics, names none",
	"policy_group":     "shared by clinics, names none",
	"rollout":          "of the fleet; its targets are of clinics",
	"audit_head":       "the chain's end: a number and a hash",
	"goose_db_version": "of the migrations",
}

func owner(t *testing.T, dsns postgrestest.DSNs) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(testContext(t), dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func list(t *testing.T, conn *pgx.Conn, query string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(testContext(t), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

// Every table of the schema, partitions too: row-level security on and forced, with a policy for tenants unless it is a partition.
func TestTenancyEveryClinicTableHasForcedPolicies(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	conn := owner(t, dsns)
	if _, err := conn.Exec(testContext(t), "SELECT event_make_partitions('2026-11-25', 2)"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(testContext(t), `
		SELECT c.relname, c.relispartition, c.relrowsecurity, c.relforcerowsecurity,
		       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'clinic_id' AND NOT a.attisdropped),
		       (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND pg_get_expr(p.polqual, p.polrelid) LIKE '%kadomori_clinics%')
		FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var partition, enabled, forced, clinic bool
	var policies, seen int
	if _, err := pgx.ForEachRow(rows, []any{&name, &partition, &enabled, &forced, &clinic, &policies}, func() error {
		seen++
		why, free := noClinic[name]
		switch {
		case free && clinic:
			t.Errorf("table %s has clinic_id and is listed as %q", name, why)
		case !free && !clinic && (!enabled || !forced):
			t.Errorf("table %s has no clinic_id: give it one, or row-level security that follows another table's, or say in noClinic why not", name)
		case clinic && (!enabled || !forced):
			t.Errorf("table %s: row-level security enabled %v, forced %v", name, enabled, forced)
		case clinic && !partition && policies == 0:
			t.Errorf("table %s has no policy that asks for kadomori_clinics()", name)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Errorf("only %d tables were looked at", seen)
	}
}

// A grant on a partition goes round the policy of its parent.
func TestTenancyNobodyIsGrantedAnythingOnPartitions(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	conn := owner(t, dsns)
	if _, err := conn.Exec(testContext(t), "SELECT event_make_partitions('2026-11-25', 2)"); err != nil {
		t.Fatal(err)
	}
	granted := list(t, conn, `SELECT DISTINCT c.relname || ' to ' || g.grantee::regrole::text FROM pg_class c, aclexplode(c.relacl) g
		WHERE c.relispartition AND g.grantee <> c.relowner`)
	if len(granted) > 0 {
		t.Errorf("grants on partitions: %v", granted)
	}
	for _, dsn := range []string{dsns.App, dsns.Ingest, dsns.Reporter} {
		if err := try(t, dsn, "SELECT FROM event_2026_11"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("reading a partition: %v, want a refusal", err)
		}
	}
}

// plant puts a row of clinics 1 and 2 into every clinic table, so that an empty answer means something.
func plant(t *testing.T, dsns postgrestest.DSNs) {
	t.Helper()
	run(t, dsns.Owner, `
		INSERT INTO plan (name, document, author) VALUES ('p', '', 'test');
		INSERT INTO clinic (code, name, plan_id) SELECT 'C' || g, '医院' || g, p.id FROM plan p, generate_series(1, 2) g;
		INSERT INTO policy_override (clinic_id, document, author, reason) SELECT clinic_id, '', 'x', 'x' FROM clinic;
		INSERT INTO appliance (clinic_id, name, state) SELECT clinic_id, 'a', 'approved' FROM clinic ORDER BY 1;
		INSERT INTO claim (clinic_id, appliance_id, secret_hash, auto_approve, created_by, expires_at)
		  SELECT clinic_id, appliance_id, sha256(clinic_id::text::bytea), true, 'x', now() FROM appliance;
		INSERT INTO certificate (clinic_id, appliance_id, serial, not_before, not_after) SELECT clinic_id, appliance_id, clinic_id, now(), now() FROM appliance;
		INSERT INTO bundle (clinic_id, appliance_id, kind, version, sha256, size, envelope, content, author)
		  SELECT clinic_id, appliance_id, 'policy', 1, '', 0, '', '', 'x' FROM appliance;
		INSERT INTO bundle (kind, version, sha256, size, envelope, content, author) VALUES ('signature', 1, '', 0, '', '', 'x');
		INSERT INTO event_ledger (clinic_id, appliance_id, stream_id, got) SELECT clinic_id, appliance_id, gen_random_uuid(), '{[1,3)}' FROM appliance;
		INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, rule, detail)
		  SELECT clinic_id, appliance_id, stream_id, n, '2026-11-25', now(), (ARRAY['alert','detection','unprotected'])[n],
		         (ARRAY['1:1','infected-host',''])[n], '{"from":"2026-11-25T00:00:00Z","to":"2026-11-25T00:00:01Z"}'
		  FROM event_ledger, generate_series(1, 3) n;
		INSERT INTO device (clinic_id, mac, first_seen, last_seen) SELECT clinic_id, '02:00:00:00:00:01', now(), now() FROM clinic;
		INSERT INTO traffic_hourly SELECT clinic_id, '2026-11-25', 'tls', '02:00:00:00:00:01', 'z', 'name', 1, 1, 1, 1 FROM clinic;
		INSERT INTO coverage_hourly SELECT clinic_id, appliance_id, '2026-11-25', 1, 1, 1, 1, 1, 1, 1 FROM appliance;
		INSERT INTO dead_letter (clinic_id, appliance_id, subject, reason, body) SELECT clinic_id, appliance_id, '', '', '' FROM appliance;
		INSERT INTO report (clinic_id, month, revision, document_no, verdict, facts, html, pdf, data_sha256, pdf_sha256, renderer)
		  SELECT clinic_id, '2026-11-01', 1, 'x', 'ok', '{}', '', '', '', '', '' FROM clinic;
		INSERT INTO audit_log (actor, action, target, clinic_id) SELECT 'x', 'x', 'x', clinic_id FROM clinic;
		INSERT INTO audit_log (actor, action, target) VALUES ('x', 'x', 'fleet');
		INSERT INTO event_gap (clinic_id, appliance_id, stream_id, from_seq, to_seq, cause, confirmed)
		  SELECT clinic_id, appliance_id, stream_id, 1, 2, 'full', true FROM event_ledger;
		INSERT INTO traffic_daily SELECT clinic_id, '2026-11-25', 'tls', '02:00:00:00:00:01', 'z', 'name', 1, 1, 1, 1 FROM clinic;
		INSERT INTO finding_daily SELECT clinic_id, '2026-11-25', 'alert', '1:1', 't', 'bot', 1, 'passed', 1, 1 FROM clinic;
		INSERT INTO retention_rule (clinic_id, dataset, days, author) SELECT clinic_id, 'security', 500, 'x' FROM clinic;
		INSERT INTO legal_hold (clinic_id, from_t, reason, author) SELECT clinic_id, now(), 'x', 'x' FROM clinic;
		INSERT INTO deletion_log (clinic_id, dataset, before, days, rows, oldest, newest) SELECT clinic_id, 'security', now(), 1, 1, now(), now() FROM clinic;
		INSERT INTO evidence_day (clinic_id, day, events, events_sha256, ledger, ledger_sha256, prev, hash)
		  SELECT clinic_id, '2026-11-25', 1, '', '[]', '', '', '' FROM clinic;
		INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, detail)
		  SELECT clinic_id, appliance_id, stream_id, 4, '2026-11-25', now(), 'self_test', '{"passed":true}' FROM event_ledger`)
	plantOthers(t, dsns)
}

// plantOthers puts rows into the clinic tables that plant doesn't know, with any values that their constraints take.
func plantOthers(t *testing.T, dsns postgrestest.DSNs) {
	t.Helper()
	conn := owner(t, dsns)
	if _, err := conn.Exec(testContext(t), "SET session_replication_role = replica"); err != nil { // no foreign keys
		t.Fatal(err)
	}
	for _, table := range list(t, conn, `SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'clinic_id'
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition`) {
		var full bool
		if err := conn.QueryRow(testContext(t), "SELECT EXISTS (SELECT FROM "+table+" WHERE clinic_id = 1)").Scan(&full); err != nil {
			t.Fatal(err)
		}
		if full {
			continue
		}
		names := list(t, conn, `SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
			AND (attnotnull AND NOT atthasdef AND attidentity = '' OR attname = 'clinic_id') ORDER BY attnum`, table)
		values := list(t, conn, `SELECT CASE WHEN attname = 'clinic_id' THEN 'c'
			WHEN allowed IS NOT NULL THEN quote_literal(allowed)
			WHEN format_type(atttypid, NULL) IN ('integer', 'bigint', 'smallint', 'double precision', 'numeric', 'real') THEN 'c' ELSE
			CASE format_type(atttypid, NULL) WHEN 'boolean' THEN 'true' WHEN 'bytea' THEN 'sha256(c::text::bytea)' WHEN 'jsonb' THEN $q$'{}'$q$
			WHEN 'timestamp with time zone' THEN 'now()' WHEN 'date' THEN 'current_date' WHEN 'uuid' THEN 'gen_random_uuid()'
			WHEN 'macaddr' THEN $q$'02:00:00:00:00:01'$q$ WHEN 'inet' THEN $q$'192.0.2.1'$q$ WHEN 'text' THEN $q$'x' || c$q$ ELSE $q$'{}'$q$ END END
			FROM pg_attribute a LEFT JOIN LATERAL (SELECT (regexp_match(pg_get_constraintdef(k.oid), $q$ARRAY\['([^']*)'$q$))[1] AS allowed
			  FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND a.attnum = ANY (k.conkey) LIMIT 1) k ON true
			WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
			AND (attnotnull AND NOT atthasdef AND attidentity = '' OR attname = 'clinic_id') ORDER BY attnum`, table)
		sql := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM generate_series(1, 2) c", table, strings.Join(names, ", "), strings.Join(values, ", "))
		if _, err := conn.Exec(testContext(t), sql); err != nil {
			t.Fatalf("no rows for table %s; plant some: %s: %v", table, sql, err)
		}
	}
}

// relations lists what has a column clinic_id and may be read by the role; planted rows make each of them non-empty.
func relations(t *testing.T, conn *pgx.Conn, role string) []string {
	t.Helper()
	return list(t, conn, `SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
		AND NOT c.relispartition AND has_table_privilege($1, c.oid, 'SELECT')
		AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'clinic_id' AND NOT a.attisdropped) ORDER BY 1`, role)
}

// Every table and view that a role may read, with no clinics stated, with the wrong one, and with the right one.
func TestTenancyWrongClinicReadsNothing(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	plant(t, dsns)
	conn := owner(t, dsns)
	for role, dsn := range map[string]string{postgres.RoleApp: dsns.App, postgres.RoleReporter: dsns.Reporter} {
		names := relations(t, conn, role)
		if len(names) < 9 {
			t.Fatalf("%s may read only %v", role, names)
		}
		reader, err := pgx.Connect(testContext(t), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = reader.Close(context.Background()) })
		for _, name := range names {
			count := func(clinics string) (all, own int) {
				t.Helper()
				err := pgx.BeginFunc(testContext(t), reader, func(tx pgx.Tx) error {
					if clinics != "" {
						if _, err := tx.Exec(context.Background(), "SELECT set_config('kadomori.clinics', $1, true)", clinics); err != nil {
							return err
						}
					}
					return tx.QueryRow(context.Background(), fmt.Sprintf("SELECT count(*) FILTER (WHERE clinic_id IS NOT NULL), count(*) FILTER (WHERE clinic_id = 1) FROM %s", name)).Scan(&all, &own)
				})
				if err != nil {
					t.Fatalf("%s reads %s: %v", role, name, err)
				}
				return all, own
			}
			if all, _ := count(""); all != 0 {
				t.Errorf("%s reads %d rows of %s without stating a clinic", role, all, name)
			}
			if all, _ := count("{99}"); all != 0 {
				t.Errorf("%s reads %d rows of %s as a clinic that isn't", role, all, name)
			}
			if all, own := count("{1}"); all == 0 || all != own {
				t.Errorf("%s as clinic 1 reads %d rows of %s, %d of them its own", role, all, name, own)
			}
			if all, own := count("{1,2}"); all != 2*own || own == 0 {
				t.Errorf("%s as both clinics reads %d rows of %s, %d of clinic 1", role, all, name, own)
			}
		}
	}
}

func TestTenancyWrongClinicWritesNothing(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	plant(t, dsns)
	db := postgrestest.Open(t, dsns)
	conn := owner(t, dsns)
	for _, name := range list(t, conn, `SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
		AND NOT c.relispartition AND has_table_privilege('kadomori_app', c.oid, 'DELETE')
		AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'clinic_id' AND NOT a.attisdropped) ORDER BY 1`) {
		var changed int64
		if err := db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
			tag, err := tx.Exec(context.Background(), fmt.Sprintf("DELETE FROM %s WHERE clinic_id IS DISTINCT FROM 1", name))
			changed = tag.RowsAffected()
			return err
		}); err != nil {
			t.Errorf("delete from %s: %v", name, err)
		}
		if changed != 0 {
			t.Errorf("clinic 1 deleted %d rows of others from %s", changed, name)
		}
	}
	for _, sql := range []string{
		"INSERT INTO device (clinic_id, mac, first_seen, last_seen) VALUES (2, '02:00:00:00:00:09', now(), now())",
		"UPDATE device SET clinic_id = 2",
		"INSERT INTO bundle (kind, version, sha256, size, envelope, content, author) VALUES ('signature', 2, '', 0, '', '', 'x')",
		"INSERT INTO audit_log (actor, action, target, clinic_id) VALUES ('x', 'x', 'x', 2)",
	} {
		err := db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
			_, err := tx.Exec(context.Background(), sql)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "row-level security") {
			t.Errorf("as clinic 1, %s: %v; want a refusal", sql, err)
		}
	}
	if err := try(t, dsns.Reporter, `SELECT report_freeze(2, '2026-12-01', 'x', 'ok', '{}', '', '', '', '', '')`); err == nil || !strings.Contains(err.Error(), "not among kadomori.clinics") {
		t.Errorf("freezing a report without rights: %v", err)
	}
}

// The reporter's role reads views and nothing else.
func TestTenancyReporterReadsViewsOnly(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	tables := list(t, owner(t, dsns), `SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
		AND (has_table_privilege('kadomori_reporter', c.oid, 'SELECT') OR has_table_privilege('kadomori_reporter', c.oid, 'INSERT')
		  OR has_table_privilege('kadomori_reporter', c.oid, 'UPDATE') OR has_table_privilege('kadomori_reporter', c.oid, 'DELETE'))`)
	if len(tables) > 0 {
		t.Errorf("kadomori_reporter reaches tables: %v", tables)
	}
	views := list(t, owner(t, dsns), `SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
		AND has_table_privilege('kadomori_reporter', c.oid, 'SELECT') AND c.relname NOT LIKE 'report\_%'`)
	if len(views) > 0 {
		t.Errorf("kadomori_reporter reads views that aren't its own: %v", views)
	}
}

// The fleet's role can't be taken by the roles that aren't meant to.
func TestTenancyOnlyTheAppEntersTheFleetRole(t *testing.T) {
	dsns := postgrestest.NewDSNs(t)
	for name, dsn := range map[string]string{"ingest": dsns.Ingest, "reporter": dsns.Reporter} {
		if err := try(t, dsn, "SET ROLE kadomori_fleet"); err == nil {
			t.Errorf("%s entered the fleet's role", name)
		}
	}
}
