package appliance

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
)

// ExpireOverrides takes away the overrides whose time is over and publishes the policies without them. It returns the clinics.
// The application calls it every half minute on one replica.
func (p *Publisher) ExpireOverrides(ctx context.Context) (clinics []int32, err error) {
	err = p.db.Fleet(ctx, "system:expire", func(tx pgx.Tx) error {
		q, err := tx.Query(ctx, `DELETE FROM policy_override WHERE expires_at <= $1 RETURNING clinic_id, author, reason`, p.now())
		if err != nil {
			return fmt.Errorf("find expired overrides: %w", err)
		}
		var id int32
		var author, reason string
		var entries []audit.Entry
		if _, err := pgx.ForEachRow(q, []any{&id, &author, &reason}, func() error {
			clinics = append(clinics, id)
			entries = append(entries, audit.Entry{
				Actor: "system", Action: "override.expire", Target: fmt.Sprintf("clinic:%d", id), Clinic: id, Reason: reason, Detail: map[string]string{"author": author},
			})
			return nil
		}); err != nil {
			return fmt.Errorf("find expired overrides: %w", err)
		}
		if len(clinics) == 0 {
			return nil
		}
		if _, err := p.Compile(ctx, tx, Scope{Clinics: clinics}, "system", "override expired"); err != nil {
			return err
		}
		for _, e := range entries {
			if err := audit.Append(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return clinics, err
}

// Refresh compiles everything anew: bundles past half their life are signed again, settings that expired by themselves go.
func (p *Publisher) Refresh(ctx context.Context) error {
	return p.db.Fleet(ctx, "system:refresh", func(tx pgx.Tx) error {
		_, err := p.Compile(ctx, tx, Scope{}, "system", "refresh")
		return err
	})
}
