package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kadomori/kadomori/controlplane/internal/postgres"
)

// keeperLock keeps replicas from sealing and deleting at the same time (pg_try_advisory_lock; any fixed number).
const keeperLock = 0x6b6d6b656570

// Config of a Keeper.
type Config struct {
	// DB must have its Ingest pool.
	DB *postgres.DB
	// Interval between two looks for days to seal; 0 means 10 min. Retention runs every twelfth time.
	Interval time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Metrics registers kadomori_evidence_*; nil registers nothing.
	Metrics prometheus.Registerer
	Log     hclog.Logger
}

// Keeper seals days and deletes what is older than its rule says.
type Keeper struct {
	cfg             Config
	log             hclog.Logger
	now             func() time.Time
	sealed, deleted prometheus.Counter
	failed          prometheus.Counter
}

// NewKeeper checks the configuration.
func NewKeeper(cfg Config) (*Keeper, error) {
	if cfg.DB == nil || cfg.DB.Ingest == nil {
		return nil, errors.New("make evidence keeper: no database for ingest given")
	}
	cfg.Interval = cmp.Or(cfg.Interval, 10*time.Minute)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kadomori", Subsystem: "evidence", Name: name, Help: help})
	}
	k := &Keeper{
		cfg: cfg, log: cfg.Log.Named("evidence"), now: cfg.Now,
		sealed:  counter("sealed_days_total", "Days of clinics that were sealed."),
		deleted: counter("deleted_rows_total", "Rows deleted by rules of retention."),
		failed:  counter("failures_total", "Rounds of sealing or deleting that failed."),
	}
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(k.sealed, k.deleted, k.failed)
	}
	return k, nil
}

// Run seals and deletes until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.cfg.Interval)
	defer tick.Stop()
	for round := 0; ; round++ {
		if err := k.runOnce(ctx, round%12 == 0); err != nil && ctx.Err() == nil {
			k.failed.Inc()
			k.log.Error("keep evidence", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (k *Keeper) runOnce(ctx context.Context, retain bool) error {
	conn, err := k.cfg.DB.Ingest.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer conn.Release()
	var mine bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(keeperLock)).Scan(&mine); err != nil || !mine {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", int64(keeperLock)); err != nil {
			_ = conn.Conn().Close(ctx) // its end frees the lock
		}
	}()
	if _, err := k.Seal(ctx); err != nil {
		return err
	}
	if !retain {
		return nil
	}
	_, err = k.Retain(ctx)
	return err
}

// Seal writes the links of all clinics that are due and returns how many it wrote. One clinic's fault doesn't hold up the others.
func (k *Keeper) Seal(ctx context.Context) (int, error) {
	rows, err := k.cfg.DB.Ingest.Query(ctx, "SELECT clinic_id, created_at FROM clinic ORDER BY clinic_id")
	if err != nil {
		return 0, fmt.Errorf("read clinics: %w", err)
	}
	type clinic struct {
		ID        int32
		CreatedAt time.Time
	}
	clinics, err := pgx.CollectRows(rows, pgx.RowToStructByPos[clinic])
	if err != nil {
		return 0, fmt.Errorf("read clinics: %w", err)
	}
	total := 0
	var errs []error
	for _, c := range clinics {
		n, err := k.sealClinic(ctx, c.ID, c.CreatedAt)
		total += n
		if err != nil {
			errs = append(errs, err)
		}
	}
	k.sealed.Add(float64(total))
	if total > 0 {
		k.log.Info("sealed", "days", total)
	}
	return total, errors.Join(errs...)
}
