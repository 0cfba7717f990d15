package evidence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// deleteAtOnce is how many rows one transaction deletes: short locks, small WAL.
const deleteAtOnce = 10000

// Deletion is what one rule deleted of one clinic; a row of deletion_log.
type Deletion struct {
	Clinic         int32
	Dataset        string
	Before         time.Time
	Days           int
	Rows           int64
	Oldest, Newest time.Time
}

// datasets: which rows of which tables a dataset of retention_rule is. at is the row's time. Events go when both their box time and their
// receipt are past: a wrong clock neither keeps nor deletes them early.
var datasets = map[string][]struct{ table, at, where string }{
	"security": {{"event", "greatest(t, received_at)", `t < $2 AND received_at < $2 AND kind NOT IN ('traffic','health','device_seen')`}},
	"operation": {{
		"event", "greatest(t, received_at)",
		`t < $2 AND received_at < $2 AND kind IN ('traffic','health','device_seen')`,
	}},
	"traffic_hourly": {{"traffic_hourly", "hour", "hour < $2"}},
	"daily": {
		{"traffic_daily", "day::timestamp AT TIME ZONE 'Asia/Tokyo'", "day < ($2::timestamptz AT TIME ZONE 'Asia/Tokyo')::date"},
		{"finding_daily", "day::timestamp AT TIME ZONE 'Asia/Tokyo'", "day < ($2::timestamptz AT TIME ZONE 'Asia/Tokyo')::date"},
	},
	"coverage":    {{"coverage_hourly", "hour", "hour < $2"}},
	"dead_letter": {{"dead_letter", "received_at", "received_at < $2"}},
}

// Retain deletes what is older than its rule says and under no legal hold, writes the deletion log, and drops months that are empty.
func (k *Keeper) Retain(ctx context.Context) ([]Deletion, error) {
	// A clinic's own rule goes before that for all.
	rows, err := k.cfg.DB.Ingest.Query(ctx, `SELECT c.clinic_id, d.dataset, coalesce(own.days, d.days)
		FROM clinic c CROSS JOIN retention_rule d LEFT JOIN retention_rule own ON own.clinic_id = c.clinic_id AND own.dataset = d.dataset
		WHERE d.clinic_id IS NULL ORDER BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("read retention rules: %w", err)
	}
	type rule struct {
		Clinic  int32
		Dataset string
		Days    int
	}
	rules, err := pgx.CollectRows(rows, pgx.RowToStructByPos[rule])
	if err != nil {
		return nil, fmt.Errorf("read retention rules: %w", err)
	}
	var done []Deletion
	var errs []error
	for _, r := range rules {
		d := Deletion{Clinic: r.Clinic, Dataset: r.Dataset, Days: r.Days, Before: k.now().AddDate(0, 0, -r.Days)}
		if err := k.retain(ctx, &d); err != nil {
			errs = append(errs, fmt.Errorf("delete %s of clinic %d: %w", r.Dataset, r.Clinic, err))
			continue
		}
		if d.Rows > 0 {
			done = append(done, d)
			k.log.Info("deleted by rule", "clinic", d.Clinic, "dataset", d.Dataset, "rows", d.Rows, "before", d.Before)
		}
	}
	if err := k.dropEmpty(ctx); err != nil {
		errs = append(errs, err)
	}
	return done, errors.Join(errs...)
}

func (k *Keeper) retain(ctx context.Context, d *Deletion) error {
	for _, set := range datasets[d.Dataset] {
		sql := fmt.Sprintf(`WITH gone AS (DELETE FROM %[1]s x WHERE (x.tableoid, x.ctid) IN (
			  SELECT tableoid, ctid FROM %[1]s e WHERE clinic_id = $1 AND %[3]s
			    AND NOT EXISTS (SELECT FROM legal_hold h WHERE h.clinic_id = $1 AND h.released_at IS NULL
			      AND %[2]s >= h.from_t AND (h.to_t IS NULL OR %[2]s < h.to_t)) LIMIT %[4]d)
			  RETURNING %[2]s AS at)
			SELECT count(*), coalesce(min(at), now()), coalesce(max(at), now()) FROM gone`, set.table, set.at, set.where, deleteAtOnce)
		for {
			var n int64
			// The log is written with the deletion: neither is without the other.
			err := pgx.BeginFunc(ctx, k.cfg.DB.Ingest, func(tx pgx.Tx) error {
				var oldest, newest time.Time
				if err := tx.QueryRow(ctx, sql, d.Clinic, d.Before).Scan(&n, &oldest, &newest); err != nil || n == 0 {
					return err
				}
				if d.Rows == 0 || oldest.Before(d.Oldest) {
					d.Oldest = oldest
				}
				if newest.After(d.Newest) {
					d.Newest = newest
				}
				d.Rows += n
				_, err := tx.Exec(ctx, `INSERT INTO deletion_log (clinic_id, dataset, before, days, rows, oldest, newest) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
					d.Clinic, d.Dataset, d.Before, d.Days, n, oldest, newest)
				return err
			})
			if err != nil {
				return err
			}
			k.deleted.Add(float64(n))
			if n < deleteAtOnce {
				break
			}
		}
	}
	return nil
}

// dropEmpty drops the empty months before the last, back to where partitions can be.
func (k *Keeper) dropEmpty(ctx context.Context) error {
	now := k.now().UTC()
	month := time.Date(now.Year(), now.Month()-2, 1, 0, 0, 0, 0, time.UTC)
	for range 120 {
		var dropped bool
		if err := k.cfg.DB.Ingest.QueryRow(ctx, "SELECT event_drop_empty_partition($1)", month).Scan(&dropped); err != nil {
			return fmt.Errorf("drop month %s: %w", month.Format("2006-01"), err)
		}
		if dropped {
			k.log.Info("dropped an empty month", "month", month.Format("2006-01"))
		}
		month = month.AddDate(0, -1, 0)
	}
	return nil
}
