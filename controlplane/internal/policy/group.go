package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Group is a policy layer between the plan and the clinics that belong to it.
type Group struct {
	ID       int32
	Name     string
	Document string
	Revision int64
	Author   string
	Reason   string
}

// GetGroup reads a group by name. Error: ErrNotFound.
func GetGroup(ctx context.Context, tx pgx.Tx, name string) (Group, error) {
	g := Group{Name: name}
	err := tx.QueryRow(ctx, `SELECT id, document, revision, author, reason FROM policy_group WHERE name = $1`, name).
		Scan(&g.ID, &g.Document, &g.Revision, &g.Author, &g.Reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return g, fmt.Errorf("group %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return g, fmt.Errorf("read group: %w", err)
	}
	return g, nil
}

// PutGroup stores a group's document that Parse took; the same document again changes nothing. g.Revision is the one the editor
// saw, 0 for whatever there is. Errors: ErrConflict, Problems.
func PutGroup(ctx context.Context, tx pgx.Tx, g Group, now time.Time) (out Group, changed bool, err error) {
	if !planName.MatchString(g.Name) {
		return g, false, Problems{{Path: "name", Value: g.Name, Why: "want 1 to 63 of a-z, 0-9 and dash, a letter first"}}
	}
	old, err := GetGroup(ctx, tx, g.Name)
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return g, false, err
	case g.Revision != 0 && g.Revision != old.Revision:
		return g, false, fmt.Errorf("group %q: %w: it is at revision %d, you edited revision %d", g.Name, ErrConflict, old.Revision, g.Revision)
	case err == nil && old.Document == g.Document:
		return old, false, nil
	}
	err = tx.QueryRow(ctx, `INSERT INTO policy_group (name, document, author, reason, updated_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (name) DO UPDATE SET document = EXCLUDED.document, author = EXCLUDED.author, reason = EXCLUDED.reason,
		updated_at = EXCLUDED.updated_at, revision = policy_group.revision + 1 RETURNING id, revision`,
		g.Name, g.Document, g.Author, g.Reason, now).Scan(&g.ID, &g.Revision)
	if err != nil {
		return g, false, fmt.Errorf("store group: %w", err)
	}
	return g, true, nil
}

func loadGroups(ctx context.Context, tx pgx.Tx) (map[int32]*Layer, error) {
	q, err := tx.Query(ctx, `SELECT id, name, document, author, reason FROM policy_group`)
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	out := map[int32]*Layer{}
	var g Group
	_, err = pgx.ForEachRow(q, []any{&g.ID, &g.Name, &g.Document, &g.Author, &g.Reason}, func() error {
		v, err := Parse([]byte(g.Document))
		if err != nil {
			return fmt.Errorf("group %q: %w", g.Name, err)
		}
		out[g.ID] = &Layer{Name: LayerGroup, Author: g.Author, Reason: g.Reason, Values: v}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	return out, nil
}
