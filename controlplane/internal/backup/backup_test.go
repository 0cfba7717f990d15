package backup_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/kadomori/kadomori/controlplane/internal/backup"
	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/broker/brokertest"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

type side struct {
	dsns postgrestest.DSNs
	conn *pgx.Conn
	cfg  backup.Config
}

func newSide(t *testing.T, js jetstream.JetStream) *side {
	t.Helper()
	s := &side{dsns: postgrestest.NewDSNs(t)}
	var err error
	if s.conn, err = pgx.Connect(testContext(t), s.dsns.Owner); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close(context.Background()) })
	s.cfg = backup.Config{OwnerDSN: s.dsns.Owner, Dir: t.TempDir(), Files: []string{"pki", "missing.yaml"}, JetStream: js}
	return s
}

func (s *side) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := s.conn.Exec(testContext(t), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (s *side) text(t *testing.T, query string) string {
	t.Helper()
	var out string
	if err := s.conn.QueryRow(testContext(t), query).Scan(&out); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

func stream(t *testing.T) jetstream.JetStream {
	t.Helper()
	_, nc := brokertest.Start(t, "")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestBackupComesBackWhole(t *testing.T) {
	from := newSide(t, stream(t))
	from.exec(t, `INSERT INTO plan (name, document, author) VALUES ('p', '', 'test');
		INSERT INTO clinic (code, name, plan_id) SELECT 'C1', '門守医院', id FROM plan;
		INSERT INTO appliance (clinic_id, name, state) SELECT clinic_id, 'a', 'approved' FROM clinic;
		INSERT INTO event_ledger (clinic_id, appliance_id, stream_id, got) VALUES (1, 1, '00000000-0000-0000-0000-000000000001', '{[1,501)}');
		SELECT event_make_partitions('2026-11-25', 2);
		INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind) SELECT 1, 1, '00000000-0000-0000-0000-000000000001', n, '2026-11-25', now(), 'alert' FROM generate_series(1, 500) n;
		INSERT INTO audit_log (actor, action, target) VALUES ('suzuki', 'x', 'y'), ('suzuki', 'z', 'y')`)
	if err := os.MkdirAll(filepath.Join(from.cfg.Dir, "pki"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from.cfg.Dir, "pki", "ca.key"), []byte("secret of the fleet"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := from.cfg.JetStream.Publish(testContext(t), "evt.1.1", []byte("waiting")); err != nil {
		t.Fatal(err)
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	m, err := backup.Write(testContext(t), from.cfg, &file, key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if m.Events != 500 || m.Clinics != 1 || m.Messages != 1 {
		t.Errorf("manifest = %+v", m)
	}
	for _, plain := range []string{"secret of the fleet", "門守医院", "waiting", "manifest"} {
		if bytes.Contains(file.Bytes(), []byte(plain)) {
			t.Errorf("the backup shows %q to everybody", plain)
		}
	}

	to := newSide(t, stream(t))
	if _, err := backup.Restore(testContext(t), to.cfg, bytes.NewReader(file.Bytes()), key); !errors.Is(err, backup.ErrNotEmpty) {
		t.Fatalf("restore into a database with tables: %v, want a refusal", err)
	}
	to.exec(t, "DROP SCHEMA public CASCADE; DROP SCHEMA river CASCADE; CREATE SCHEMA public")
	if _, err := backup.Restore(testContext(t), to.cfg, bytes.NewReader(file.Bytes()), key); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"SELECT count(*)::text || md5(string_agg(e::text, ',' ORDER BY seq)) FROM event e",
		"SELECT string_agg(name, ',') FROM clinic",
		"SELECT string_agg(encode(hash, 'hex'), ',' ORDER BY audit_id) FROM audit_log WHERE actor = 'suzuki'",
		"SELECT string_agg(polname || polrelid::regclass::text, ',' ORDER BY polname || polrelid::regclass::text) FROM pg_policy",
		"SELECT string_agg(relname || relforcerowsecurity, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r','p')",
		"SELECT string_agg(table_name || privilege_type || grantee, ',') FROM (SELECT table_name, privilege_type, grantee FROM information_schema.role_table_grants WHERE grantee LIKE 'kadomori\\_%' ORDER BY 1, 2, 3) g",
	} {
		if a, b := from.text(t, q), to.text(t, q); a != b {
			t.Errorf("%s\nbefore %.300s\nafter  %.300s", q, a, b)
		}
	}
	if got := to.text(t, "SELECT got::text || restored_top FROM event_ledger"); got != "{[1,501)}501" {
		t.Errorf("ledger = %s", got)
	}
	if b, err := os.ReadFile(filepath.Join(to.cfg.Dir, "pki", "ca.key")); err != nil || string(b) != "secret of the fleet" {
		t.Errorf("key = %q, %v", b, err)
	}
	st, err := to.cfg.JetStream.Stream(testContext(t), broker.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := st.GetLastMsgForSubject(testContext(t), "evt.1.1"); err != nil || string(raw.Data) != "waiting" {
		t.Errorf("the broker's message = %v, %v", raw, err)
	}
	// The restored database is one that the program opens and migrates.
	if err := postgres.Migrate(testContext(t), to.dsns.Owner); err != nil {
		t.Errorf("migrate after restore: %v", err)
	}
	postgrestest.Open(t, to.dsns)
}

func TestRestoreRefusesWrongKeyAndBrokenFile(t *testing.T) {
	from := newSide(t, nil)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := backup.Write(testContext(t), from.cfg, &file, key.Recipient()); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Write(testContext(t), from.cfg, &bytes.Buffer{}); err == nil {
		t.Error("a backup without a recipient was written")
	}
	from.exec(t, "DROP SCHEMA public CASCADE; DROP SCHEMA river CASCADE; CREATE SCHEMA public")
	if _, err := backup.Restore(testContext(t), from.cfg, bytes.NewReader(file.Bytes()), other); err == nil || !strings.Contains(err.Error(), "decrypt") {
		t.Errorf("another key: %v", err)
	}
	for _, n := range []int{0, 10, 300, file.Len() / 2, file.Len() - 1} {
		from.exec(t, "DROP SCHEMA IF EXISTS public CASCADE; DROP SCHEMA IF EXISTS river CASCADE; CREATE SCHEMA public")
		if _, err := backup.Restore(testContext(t), from.cfg, bytes.NewReader(file.Bytes()[:n]), key); err == nil {
			t.Errorf("a backup cut at byte %d of %d was restored", n, file.Len())
		}
	}
	flipped := bytes.Clone(file.Bytes())
	flipped[len(flipped)/2] ^= 1
	from.exec(t, "DROP SCHEMA IF EXISTS public CASCADE; DROP SCHEMA IF EXISTS river CASCADE; CREATE SCHEMA public")
	if _, err := backup.Restore(testContext(t), from.cfg, bytes.NewReader(flipped), key); err == nil {
		t.Error("a backup with a changed byte was restored")
	}
}
