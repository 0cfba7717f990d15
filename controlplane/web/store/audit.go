package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// AuditRow is a line of the audit log.
type AuditRow struct {
	ID             int64
	T              time.Time
	Actor, Action  string
	Target, Clinic string
	Reason, Detail string
	Hash           []byte
}

// AuditRows reads the log backwards from before (0: the end). people leaves out machines; text is found in actor, action and target.
func AuditRows(ctx context.Context, tx pgx.Tx, people bool, text string, before int64, limit int) ([]AuditRow, error) {
	rows, err := tx.Query(ctx, `
SELECT a.audit_id, a.t, a.actor, a.action, a.target, coalesce(c.name, ''), a.reason, CASE WHEN a.detail = '{}' THEN '' ELSE a.detail::text END, a.hash
FROM audit_log a LEFT JOIN clinic c USING (clinic_id)
WHERE ($1 = 0 OR a.audit_id < $1) AND (NOT $2 OR a.actor <> 'system' AND a.actor NOT LIKE 'system:%' AND a.actor NOT LIKE 'appliance:%' AND a.action <> 'fleet.read')
  AND ($3 = '' OR strpos(lower(a.actor || ' ' || a.action || ' ' || a.target), lower($3)) > 0)
ORDER BY a.audit_id DESC LIMIT $4`, before, people, text, limit)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[AuditRow])
}
