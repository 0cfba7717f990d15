// Package postgres is the control plane's door to its database: it starts a private server, migrates, and opens transactions that see
// only the clinics they were given.
//
// Everybody in the control plane who touches a table goes through [DB.As] or [DB.Fleet]; only ingest uses [DB.Ingest].
// Trap: outside of As and Fleet a clinic's table is empty, not an error, because a transaction without stated clinics sees no row.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// FleetAuditInterval is how often one actor's reading across clinics is written to the audit log: a console that refreshes itself
// every few seconds states the same fact again and again.
const FleetAuditInterval = 15 * time.Minute

// Config says how to reach the database.
type Config struct {
	// AppDSN is of role kadomori_app; a role that can go round row-level security is refused.
	AppDSN string
	// IngestDSN is of role kadomori_ingest. Empty: no ingest in this process, DB.Ingest is nil.
	IngestDSN string
	// AppConns and IngestConns limit the pools; 0 means 16 and 8.
	AppConns, IngestConns int32
	// Now is the clock of the audit interval; nil means time.Now.
	Now func() time.Time
	Log hclog.Logger
}

// DB holds the pools. Close it last.
type DB struct {
	// App is the pool of kadomori_app, for tables of no clinic (operator, plan, setting) and for River. Clinic tables need As or Fleet.
	App *pgxpool.Pool
	// Ingest is the pool of kadomori_ingest; nil when no IngestDSN was given.
	Ingest *pgxpool.Pool

	log hclog.Logger
	now func() time.Time

	mu      sync.Mutex
	audited map[string]time.Time // actor to when Fleet last wrote an audit row; bounded by auditedMax
}

// auditedMax bounds the memory of who was audited; past it everybody is audited again.
const auditedMax = 4096

// Open connects both pools and checks that the roles are what they should be.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.AppDSN == "" {
		return nil, errors.New("open database: no AppDSN given")
	}
	db := &DB{log: cfg.Log, now: cfg.Now, audited: map[string]time.Time{}}
	if db.log == nil {
		db.log = hclog.NewNullLogger()
	}
	db.log = db.log.Named("postgres")
	if db.now == nil {
		db.now = time.Now
	}
	var err error
	if db.App, err = openPool(ctx, cfg.AppDSN, cmp.Or(cfg.AppConns, 16), "kadomori-control"); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := db.checkApp(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	if cfg.IngestDSN != "" {
		if db.Ingest, err = openPool(ctx, cfg.IngestDSN, cmp.Or(cfg.IngestConns, 8), "kadomori-ingest"); err != nil {
			db.Close()
			return nil, fmt.Errorf("open database for ingest: %w", err)
		}
	}
	return db, nil
}

func openPool(ctx context.Context, dsn string, conns int32, name string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err // pgx leaves the password out of this error
	}
	c.MaxConns = conns
	c.ConnConfig.RuntimeParams["application_name"] = name
	c.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// checkApp refuses a role for which row-level security is no barrier, and one that can't enter the fleet's role.
func (db *DB) checkApp(ctx context.Context) error {
	var name string
	var bypass, member bool
	err := db.App.QueryRow(ctx, `SELECT rolname, rolsuper OR rolbypassrls,
	      EXISTS (SELECT FROM pg_roles WHERE rolname = 'kadomori_fleet') AND pg_has_role(rolname, 'kadomori_fleet', 'MEMBER')
	    FROM pg_roles WHERE rolname = current_user`).Scan(&name, &bypass, &member)
	switch {
	case err != nil:
		return fmt.Errorf("check role: %w", err)
	case bypass:
		return fmt.Errorf("role %s goes round row-level security (superuser or BYPASSRLS): give the DSN of %s", name, RoleApp)
	case !member:
		return fmt.Errorf("role %s is no member of %s: run kadomori-control migrate with the owner's DSN first", name, RoleFleet)
	}
	return nil
}

// Close closes the pools and waits for their connections.
func (db *DB) Close() {
	if db.Ingest != nil {
		db.Ingest.Close()
	}
	if db.App != nil {
		db.App.Close()
	}
}

// As runs fn in a transaction that sees and changes rows of the given clinics only. The caller has verified that the actor may.
// No clinics: no clinic rows. fn's error rolls back and is returned as it is.
func (db *DB) As(ctx context.Context, clinics []int32, fn func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, db.App, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('kadomori.clinics', $1, true)", clinicList(clinics)); err != nil {
			return fmt.Errorf("state clinics: %w", err)
		}
		return fn(tx)
	})
}

// Fleet runs fn in a transaction over all clinics, in role kadomori_fleet. actor is an operator's name, or "system:<part>" for the
// program itself. The first look of an operator in every FleetAuditInterval is written to the audit log, in a transaction of its own,
// before fn runs: what can't be audited isn't read.
func (db *DB) Fleet(ctx context.Context, actor string, fn func(pgx.Tx) error) error {
	if actor == "" {
		return errors.New("open fleet transaction: no actor named")
	}
	if err := db.auditFleet(ctx, actor); err != nil {
		return fmt.Errorf("audit fleet access of %s: %w", actor, err)
	}
	return pgx.BeginFunc(ctx, db.App, func(tx pgx.Tx) error {
		// The setting is for report_* views, which filter by it whatever the role.
		_, err := tx.Exec(ctx, `SET LOCAL ROLE kadomori_fleet;
			SELECT set_config('kadomori.clinics', coalesce((SELECT array_agg(clinic_id ORDER BY clinic_id)::text FROM clinic), '{}'), true)`)
		if err != nil {
			return fmt.Errorf("enter fleet role: %w", err)
		}
		return fn(tx)
	})
}

func (db *DB) auditFleet(ctx context.Context, actor string) error {
	if strings.HasPrefix(actor, "system:") {
		return nil // no person looks
	}
	now := db.now()
	db.mu.Lock()
	last, known := db.audited[actor]
	if known && now.Sub(last) < FleetAuditInterval {
		db.mu.Unlock()
		return nil
	}
	if len(db.audited) >= auditedMax {
		clear(db.audited)
	}
	db.audited[actor] = now
	db.mu.Unlock()
	_, err := db.App.Exec(ctx, `INSERT INTO audit_log (actor, action, target, reason)
		VALUES ($1, 'fleet.read', 'all clinics', $2)`, actor, "first of "+FleetAuditInterval.String())
	if err != nil {
		db.mu.Lock()
		delete(db.audited, actor)
		db.mu.Unlock()
	}
	return err
}

// clinicList is the text of an int[] in PostgreSQL.
func clinicList(clinics []int32) string {
	b := []byte{'{'}
	for i, c := range clinics {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(c), 10)
	}
	return string(append(b, '}'))
}
