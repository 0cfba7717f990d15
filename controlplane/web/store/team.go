package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
)

// ErrMember says that there is no such operator, or it may not be switched off.
var ErrMember = errors.New("operator can't be changed")

// Member is an operator as the team's page lists them.
type Member struct {
	Name, Display, Role string
	Disabled            bool
	Created             time.Time
	Seen                time.Time // last session's start; zero: never
}

// Team reads all operators.
func Team(ctx context.Context, tx pgx.Tx) ([]Member, error) {
	rows, err := tx.Query(ctx, `SELECT o.name, o.display_name, o.role, o.disabled, o.created_at, (SELECT max(created_at) FROM operator_session s WHERE s.operator_id = o.id) FROM operator o ORDER BY o.disabled, o.name`)
	if err != nil {
		return nil, fmt.Errorf("read team: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Member, error) {
		var m Member
		var seen *time.Time
		err := row.Scan(&m.Name, &m.Display, &m.Role, &m.Disabled, &m.Created, &seen)
		m.Seen = val(seen)
		return m, err
	})
}

// SwitchMember turns an operator off, ending their sessions, or on again. The last administrator stays. The error is ErrMember.
func SwitchMember(ctx context.Context, tx pgx.Tx, actor, name string, disabled bool) error {
	if name == actor {
		return ErrMember
	}
	var id int32
	err := tx.QueryRow(ctx, `UPDATE operator SET disabled = $2 WHERE name = $1 AND disabled <> $2
AND (NOT $2 OR role <> 'admin' OR EXISTS (SELECT FROM operator x WHERE x.role = 'admin' AND NOT x.disabled AND x.name <> $1)) RETURNING id`, name, disabled).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrMember
	}
	if err != nil {
		return fmt.Errorf("switch operator: %w", err)
	}
	act := "operator.enable"
	if disabled {
		act = "operator.disable"
		if _, err := tx.Exec(ctx, `DELETE FROM operator_session WHERE operator_id = $1`, id); err != nil {
			return fmt.Errorf("end sessions: %w", err)
		}
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: act, Target: "operator:" + name})
}
