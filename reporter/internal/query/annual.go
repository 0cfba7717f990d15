package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Annual reads a fiscal year's frozen reports (April of that year to March of the next), the latest revision of each month.
func Annual(ctx context.Context, db Beginner, clinic int32, fiscalYear int, issued time.Time) (*month.Annual, error) {
	first, err := month.Parse(fmt.Sprintf("%04d-04", fiscalYear))
	if err != nil {
		return nil, fmt.Errorf("read year: %w", err)
	}
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := state(ctx, tx, clinic); err != nil {
		return nil, err
	}
	r := reader{tx: tx, clinic: clinic}
	if err := r.clinicRow(ctx); err != nil {
		return nil, fmt.Errorf("read clinic %d: %w", clinic, err)
	}
	if err := r.settings(ctx); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	frozen, err := r.frozen(ctx, 12, `SELECT DISTINCT ON (month) month, revision, document_no, facts, data_sha256, created_at FROM report_frozen
	     WHERE clinic_id = $1 AND month >= $2 AND month < $3 ORDER BY month, revision DESC`, first, first.Add(12))
	if err != nil {
		return nil, fmt.Errorf("read frozen reports of clinic %d: %w", clinic, err)
	}
	return month.NewAnnual(r.in.Clinic, r.in.Sender, fiscalYear, issued, frozen)
}

// Frozen reads all revisions of a month's report, oldest first; at most 1,000.
func Frozen(ctx context.Context, db Beginner, clinic int32, m month.Month) ([]month.Frozen, error) {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := state(ctx, tx, clinic); err != nil {
		return nil, err
	}
	r := reader{tx: tx, clinic: clinic}
	frozen, err := r.frozen(ctx, 1000, `SELECT month, revision, document_no, facts, data_sha256, created_at FROM report_frozen
	     WHERE clinic_id = $1 AND month >= $2 AND month < $3 ORDER BY revision`, m, m.Add(1))
	if err != nil {
		return nil, fmt.Errorf("read frozen reports of clinic %d: %w", clinic, err)
	}
	return frozen, nil
}

func (r *reader) frozen(ctx context.Context, limit int, sql string, from, to month.Month) ([]month.Frozen, error) {
	var out []month.Frozen
	err := r.each(ctx, limit, func(rows pgx.Rows) error {
		var f month.Frozen
		var first time.Time
		err := rows.Scan(&first, &f.Revision, &f.DocumentNo, &f.Facts, &f.DataSHA, &f.Created)
		if err != nil {
			return err
		}
		// A date comes as midnight UTC; its text is what counts.
		if f.Month, err = month.Parse(first.Format("2006-01")); err != nil {
			return err
		}
		out = append(out, f)
		return nil
	}, sql, r.clinic, from.Start().Format(time.DateOnly), to.Start().Format(time.DateOnly))
	return out, err
}

// state gives the transaction the right to one clinic's rows, and a limit on time.
func state(ctx context.Context, tx pgx.Tx, clinic int32) error {
	if _, err := tx.Exec(ctx, `SELECT set_config('kadomori.clinics', $1, true), set_config('statement_timeout', '120s', true)`,
		fmt.Sprintf("{%d}", clinic)); err != nil {
		return fmt.Errorf("state clinic %d: %w", clinic, err)
	}
	return nil
}
