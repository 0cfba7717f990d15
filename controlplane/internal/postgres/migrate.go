package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // goose speaks database/sql
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed migrations/*.sql
var migrations embed.FS

// RiverSchema is the schema of the job queue's own tables.
const RiverSchema = "river"

// migrateLock keeps replicas that start together from migrating at the same time (pg_advisory_lock; any fixed number).
const migrateLock = 0x6b61646f6d6f7269 >> 1

// Migrate brings the database to this program's schema: ours by goose, the job queue's by River in schema river.
// dsn names a role that may create roles with BYPASSRLS, or finds them made (see 0001_init.sql). Safe to repeat and to race.
func Migrate(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// Held by the session: closing the connection frees it whatever happens.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(migrateLock)); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	if err := migrateOurs(ctx, dsn); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	if err := migrateRiver(ctx, conn, dsn); err != nil {
		return fmt.Errorf("migrate job queue: %w", err)
	}
	return nil
}

// MakeRoles makes the roles that the schema's grants name, where they are missing; a dump of the database doesn't hold them. The first
// migration does the same.
func MakeRoles(ctx context.Context, conn *pgx.Conn) error {
	for _, r := range []struct{ name, attributes string }{
		{RoleApp, "LOGIN NOINHERIT"}, {RoleFleet, "NOLOGIN"}, {RoleIngest, "LOGIN BYPASSRLS"}, {RoleReporter, "LOGIN"},
	} {
		var there bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", r.name).Scan(&there); err != nil {
			return fmt.Errorf("make roles: %w", err)
		}
		if there {
			continue
		}
		if _, err := conn.Exec(ctx, "CREATE ROLE "+r.name+" "+r.attributes); err != nil {
			return fmt.Errorf("make role %s: %w", r.name, err)
		}
	}
	if _, err := conn.Exec(ctx, "GRANT "+RoleFleet+" TO "+RoleApp); err != nil {
		return fmt.Errorf("make roles: %w", err)
	}
	return nil
}

func migrateOurs(ctx context.Context, dsn string) (err error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

func migrateRiver(ctx context.Context, conn *pgx.Conn, dsn string) error {
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+RiverSchema); err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	m, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	// The control plane and the reporter both insert and work jobs.
	for _, grant := range []string{
		"GRANT USAGE ON SCHEMA river TO kadomori_app, kadomori_fleet, kadomori_reporter",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA river TO kadomori_app, kadomori_fleet, kadomori_reporter",
		"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA river TO kadomori_app, kadomori_fleet, kadomori_reporter",
		"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA river TO kadomori_app, kadomori_fleet, kadomori_reporter",
	} {
		if _, err := conn.Exec(ctx, grant); err != nil {
			return err
		}
	}
	return nil
}
