// Package querytest gives tests of the reporter a real PostgreSQL with the control plane's schema, read from its migration files
// by path, and rows written as ingest writes them. The trap: call Main from TestMain, or the server is left behind.
package querytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// server is the one of this process.
var server struct {
	once   sync.Once
	err    error
	dir    string
	cmd    *exec.Cmd
	exited chan error
	bin    string
	n      int
	mu     sync.Mutex
}

// Main runs the tests and stops the server after them.
func Main(m *testing.M) int {
	code := m.Run()
	if server.cmd != nil {
		_ = server.cmd.Process.Signal(syscall.SIGINT)
		if err := <-server.exited; err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "postgres ended:", err)
		}
	}
	if server.dir != "" {
		_ = os.RemoveAll(server.dir)
	}
	return code
}

// DB is a fresh database.
type DB struct{ Owner, Reporter string }

// New makes a fresh database with the schema in it. Without PostgreSQL's binaries the test is skipped, in CI it fails.
func New(tb testing.TB) DB {
	tb.Helper()
	server.once.Do(func() { server.err = start() })
	if server.err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("start postgres: %v", server.err)
		}
		tb.Skipf("needs Debian's postgresql: %v", server.err)
	}
	server.mu.Lock()
	server.n++
	name := fmt.Sprintf("t%d", server.n)
	server.mu.Unlock()
	ctx := context.Background()
	exec1(tb, dsn("postgres", "kadomori"), "CREATE DATABASE "+name)
	db := DB{Owner: dsn(name, "kadomori"), Reporter: dsn(name, "kadomori_reporter")}
	for _, sql := range migrations(tb) {
		exec1(tb, db.Owner, sql)
	}
	exec1(tb, db.Owner, "CREATE SCHEMA river")
	pool, err := pgxpool.New(ctx, db.Owner)
	if err != nil {
		tb.Fatal(err)
	}
	defer pool.Close()
	m, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: "river", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		tb.Fatal(err)
	}
	exec1(tb, db.Owner, `GRANT USAGE ON SCHEMA river TO kadomori_reporter;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA river TO kadomori_reporter;
		GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA river TO kadomori_reporter;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA river TO kadomori_reporter`)
	return db
}

func dsn(db, role string) string {
	return fmt.Sprintf("host=%s dbname=%s user=%s", filepath.Join(server.dir, "run"), db, role)
}

func exec1(tb testing.TB, dsn, sql string) {
	tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		tb.Fatalf("%v\n%.200s", err, sql)
	}
}

// migrations are the Up parts of the control plane's files, in order. They are read as files: the reporter never imports it.
func migrations(tb testing.TB) []string {
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "../../../../controlplane/internal/postgres/migrations")
	names, err := filepath.Glob(filepath.Join(dir, "*.sql"))
	if err != nil || len(names) == 0 {
		tb.Fatalf("no migrations in %s: %v", dir, err)
	}
	slices.Sort(names)
	var out []string
	for _, n := range names {
		raw, err := os.ReadFile(n)
		if err != nil {
			tb.Fatal(err)
		}
		up, _, _ := strings.Cut(string(raw), "-- +goose Down")
		out = append(out, up)
	}
	return out
}

func start() error {
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(bins) == 0 {
		return errors.New("no /usr/lib/postgresql/*/bin/postgres")
	}
	server.bin = filepath.Dir(bins[len(bins)-1])
	var err error
	if server.dir, err = os.MkdirTemp("", "kadomori-pg-"); err != nil {
		return err
	}
	run := filepath.Join(server.dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := errors.Join(os.Chown(server.dir, uid, gid), os.Chown(run, uid, gid)); err != nil {
			return err
		}
	}
	data := filepath.Join(server.dir, "data")
	initdb := exec.CommandContext(context.Background(), filepath.Join(server.bin, "initdb"), "-D", data, "-U", "kadomori", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
	initdb.SysProcAttr, initdb.Dir = attr, "/"
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	log, err := os.Create(filepath.Join(server.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	server.cmd = exec.CommandContext(context.Background(), filepath.Join(server.bin, "postgres"), "-D", data, "-k", run, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off")
	server.cmd.SysProcAttr, server.cmd.Dir = attr, "/"
	server.cmd.Stdout, server.cmd.Stderr = log, log
	if err := server.cmd.Start(); err != nil {
		server.cmd = nil
		return err
	}
	server.exited = make(chan error, 1)
	go func() { server.exited <- server.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, dsn("postgres", "kadomori"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for postgres: %w", err)
		case err := <-server.exited:
			server.exited <- err
			return fmt.Errorf("postgres ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
