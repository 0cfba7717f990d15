// Package postgrestest gives a test a database of its own on a real server.
//
// Tests of the control plane call [New]; the first call in a process starts one private server (the Debian package must be installed),
// migrates a template once, and every test gets a copy of it. The server ends with the test process, also when that is killed.
// Trap: roles belong to the server, not to the database; a test must not change them.
package postgrestest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/postgres"
)

const template = "kadomori_template"

var (
	start    sync.Once
	server   *postgres.PrivateServer
	startErr error
	// kept open: its closing tells the guard that the test process is gone
	guard   *os.File //nolint:unused // held, not read
	counter atomic.Int64
)

// DSNs reach one database under each role.
type DSNs struct {
	Owner, App, Ingest, Reporter string
}

// New returns a migrated, empty database that is dropped when the test ends.
func New(t testing.TB) *postgres.DB {
	t.Helper()
	return Open(t, NewDSNs(t))
}

// Open opens a database that NewDSNs made, for tests that also need its addresses.
func Open(t testing.TB, dsns DSNs) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(context.Background(), postgres.Config{AppDSN: dsns.App, IngestDSN: dsns.Ingest, Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatalf("open test database: %v", err)
	}
	t.Cleanup(db.Close)
	return db
}

// NewDSNs makes a migrated, empty database and returns its addresses. It is dropped when the test ends.
func NewDSNs(t testing.TB) DSNs {
	t.Helper()
	start.Do(func() { server, startErr = run() })
	if startErr != nil {
		if os.Getenv("CI") != "true" && strings.Contains(startErr.Error(), "apt-get install") {
			t.Skipf("needs PostgreSQL: %v", startErr)
		}
		t.Fatalf("start test database server: %v", startErr)
	}
	name := fmt.Sprintf("kadomori_t%d", counter.Add(1))
	statement(t, "CREATE DATABASE "+name+" TEMPLATE "+template+" STRATEGY file_copy")
	t.Cleanup(func() { statement(t, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return DSNs{
		Owner:    server.DSNFor(postgres.RoleOwner, name),
		App:      server.DSNFor(postgres.RoleApp, name),
		Ingest:   server.DSNFor(postgres.RoleIngest, name),
		Reporter: server.DSNFor(postgres.RoleReporter, name),
	}
}

// Dir is a folder for a private server: unlike t.TempDir it lets the user postgres in when the test runs as root.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := makeDir()
	if err != nil {
		t.Fatalf("make server folder: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "kadomori-pg-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711) //nolint:gosec // the server's user must pass through
}

func statement(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := execOn(ctx, "postgres", sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func execOn(ctx context.Context, database, statement string) error {
	conn, err := pgx.Connect(ctx, server.DSNFor(postgres.RoleOwner, database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

func run() (*postgres.PrivateServer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	// Nothing here must survive a power cut, so nothing waits for the disk.
	server, err = postgres.Private(ctx, postgres.PrivateConfig{Dir: dir, Unwatched: true, Log: hclog.NewNullLogger(), Settings: map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "1GB", "shared_buffers": "64MB",
		"autovacuum": "off", "checkpoint_timeout": "1h",
	}})
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	if err := watch(dir); err != nil {
		_ = server.Stop()
		return nil, err
	}
	if err := execOn(ctx, "postgres", "CREATE DATABASE "+template); err != nil {
		return nil, err
	}
	return server, postgres.Migrate(ctx, server.DSNFor(postgres.RoleOwner, template))
}

// watch starts a shell that waits for this process to end, however it ends, then stops the server and removes its folder.
func watch(dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	pidfile := filepath.Join(dir, "data", "postmaster.pid")
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", `cat >/dev/null
pid=$(head -n 1 "$1" 2>/dev/null) && kill -QUIT "$pid" && while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
rm -rf "$2"`, "sh", pidfile, dir)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C in the terminal is for the test, not for the guard
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		return fmt.Errorf("start guard: %w", err)
	}
	guard = w
	return cmd.Process.Release()
}
