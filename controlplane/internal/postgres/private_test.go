package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

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

func TestPrivateKeepsDataOverRestartAndAdoptsRunningServer(t *testing.T) {
	ctx, dir := testContext(t), postgrestest.Dir(t)
	quick := map[string]string{"fsync": "off", "shared_buffers": "16MB"}
	first, err := postgres.Private(ctx, postgres.PrivateConfig{Dir: dir, Settings: quick})
	if err != nil {
		t.Fatal(err)
	}
	run(t, first.DSN(postgres.RoleOwner), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)", "GRANT SELECT ON kept TO kadomori_app")

	adopted, err := postgres.Private(ctx, postgres.PrivateConfig{Dir: dir, Settings: quick})
	if err != nil {
		t.Fatalf("adopt the running server: %v", err)
	}
	if got := queryInt(t, adopted.DSN(postgres.RoleApp), "SELECT n FROM kept"); got != 7 {
		t.Errorf("row read through the adopted server = %d, want 7", got)
	}
	if err := adopted.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		t.Errorf("stop of a server that is stopped already: %v", err)
	}

	again, err := postgres.Private(ctx, postgres.PrivateConfig{Dir: dir, Settings: quick})
	if err != nil {
		t.Fatalf("start again: %v", err)
	}
	defer func() { _ = again.Stop() }()
	if again.DSN(postgres.RoleApp) != first.DSN(postgres.RoleApp) {
		t.Error("the role's address changed over a restart")
	}
	if got := queryInt(t, again.DSN(postgres.RoleApp), "SELECT n FROM kept"); got != 7 {
		t.Errorf("row after restart = %d, want 7", got)
	}
	// Others pass through to the socket and see nothing else.
	for name, mode := range map[string]os.FileMode{".": 0o711, "run": 0o711, "roles.json": 0o600, "data": 0o700, "run/.s.PGSQL.5432": 0o777} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode().Perm(), mode)
		}
	}
}

func TestPrivateStartsAgainWhatWasKilled(t *testing.T) {
	ctx, dir := testContext(t), postgrestest.Dir(t)
	s, err := postgres.Private(ctx, postgres.PrivateConfig{Dir: dir, Settings: map[string]string{"shared_buffers": "16MB"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Stop() }()
	run(t, s.DSN(postgres.RoleOwner), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
	raw, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := pgx.Connect(ctx, s.DSN(postgres.RoleOwner))
		if err == nil {
			var n, now int
			err = conn.QueryRow(ctx, "SELECT n, pg_backend_pid() FROM kept").Scan(&n, &now)
			_ = conn.Close(ctx)
			raw, _ := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
			if err == nil && n == 7 && !strings.HasPrefix(string(raw), first+"\n") {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the killed server did not come back: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestPrivateRefusesClusterOfAnotherVersion(t *testing.T) {
	dir := postgrestest.Dir(t)
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Private(testContext(t), postgres.PrivateConfig{Dir: dir})
	if err == nil {
		_ = s.Stop()
		t.Fatal("a cluster of version 9 was started")
	}
	if !strings.Contains(err.Error(), "pg_upgrade") || !strings.Contains(err.Error(), "PostgreSQL 9") {
		t.Errorf("the error doesn't say how to upgrade: %v", err)
	}
}

func TestPrivateNamesFolderTheServerCannotEnter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: only then the server runs as another user")
	}
	dir := postgrestest.Dir(t)
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Private(testContext(t), postgres.PrivateConfig{Dir: filepath.Join(closed, "pg")})
	if err == nil {
		_ = s.Stop()
		t.Fatal("started below a closed folder")
	}
	if !strings.Contains(err.Error(), "chmod o+x "+closed) {
		t.Errorf("the error doesn't name the closed folder: %v", err)
	}
}

func TestPrivateUsesShortSocketPathForDeepFolder(t *testing.T) {
	dir := filepath.Join(postgrestest.Dir(t), strings.Repeat("d", 60), strings.Repeat("e", 60))
	s, err := postgres.Private(testContext(t), postgres.PrivateConfig{Dir: dir, Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Stop() }()
	if got := queryInt(t, s.DSN(postgres.RoleOwner), "SELECT 1"); got != 1 {
		t.Errorf("SELECT 1 = %d", got)
	}
}

func TestMigrateMayRaceAndRepeat(t *testing.T) {
	ctx := testContext(t)
	dsns := postgrestest.NewDSNs(t)
	run(t, dsns.Owner, "DROP SCHEMA public CASCADE", "DROP SCHEMA river CASCADE", "CREATE SCHEMA public")
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { errs[i] = postgres.Migrate(ctx, dsns.Owner) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("migrate %d: %v", i, err)
		}
	}
	for _, role := range []string{dsns.App, dsns.Reporter} {
		run(t, role, "INSERT INTO river.river_job (kind, args, max_attempts, queue) VALUES ('report_render', '{}', 3, 'report')")
	}
}

func run(t *testing.T, dsn string, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if err := try(t, dsn, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func try(t *testing.T, dsn, statement string) error {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

func queryInt(t *testing.T, dsn, query string) int64 {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var n int64
	if err := conn.QueryRow(ctx, query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}
