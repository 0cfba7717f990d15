// Package clinic keeps the clinics: who they are, which plan they follow, when they are open. The RPC server and the console create
// and list them. The trap: a clinic is never deleted; its evidence must outlive the contract.
package clinic

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
)

// Errors.
var (
	// ErrInvalid: a field is not acceptable; wrapped with which and why.
	ErrInvalid = errors.New("clinic is not valid")
	// ErrExists: the code is taken.
	ErrExists = errors.New("clinic exists already")
	// ErrNotFound: there is no such clinic.
	ErrNotFound = errors.New("no such clinic")
)

// Clinic is a tenant.
type Clinic struct {
	ID       int32
	Code     string // C001; empty at creation: the next free one
	Name     string
	Kana     string
	Director string
	Plan     string // name; empty at creation: the default plan
	PlanID   int32
	Hours    string // as ParseHours reads it; empty: not known
}

const maxText = 200 // runes of a name

var codeForm = regexp.MustCompile(`^[A-Z][A-Z0-9-]{0,15}$`)

func (c *Clinic) validate() error {
	if c.Code != "" && !codeForm.MatchString(c.Code) {
		return fmt.Errorf("%w: code %q: want A-Z, 0-9 and dash, a letter first, at most 16", ErrInvalid, c.Code)
	}
	if strings.TrimSpace(c.Name) == "" {
		return fmt.Errorf("%w: name is empty", ErrInvalid)
	}
	for field, s := range map[string]string{"name": c.Name, "kana": c.Kana, "director": c.Director} {
		if !utf8.ValidString(s) || utf8.RuneCountInString(s) > maxText || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%w: %s: want at most %d printable characters", ErrInvalid, field, maxText)
		}
	}
	if _, err := ParseHours(c.Hours); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Create stores c, whose PlanID the caller has looked up, and returns it with id and code. tx is of the fleet's role.
// Errors: ErrInvalid, ErrExists.
func Create(ctx context.Context, tx pgx.Tx, actor string, c Clinic) (Clinic, error) {
	c.Name, c.Kana, c.Director, c.Hours = strings.TrimSpace(c.Name), strings.TrimSpace(c.Kana), strings.TrimSpace(c.Director), strings.TrimSpace(c.Hours)
	if err := c.validate(); err != nil {
		return c, err
	}
	if c.Code == "" {
		// Creations wait for each other, so that two do not get one number.
		_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('clinic code'))`)
		if err != nil {
			return c, fmt.Errorf("lock clinic codes: %w", err)
		}
		err = tx.QueryRow(ctx, `SELECT 'C' || to_char(1 + coalesce(max(substring(code FROM '^C([0-9]{1,6})$')::int), 0), 'FM9999000') FROM clinic`).Scan(&c.Code)
		if err != nil {
			return c, fmt.Errorf("choose clinic code: %w", err)
		}
	}
	err := tx.QueryRow(ctx, `INSERT INTO clinic (code, name, kana, director, plan_id, hours) VALUES ($1, $2, $3, $4, $5, $6) RETURNING clinic_id`,
		c.Code, c.Name, c.Kana, c.Director, c.PlanID, c.Hours).Scan(&c.ID)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23505" {
		return c, fmt.Errorf("%w: %s", ErrExists, c.Code)
	}
	if err != nil {
		return c, fmt.Errorf("create clinic: %w", err)
	}
	return c, audit.Append(ctx, tx, audit.Entry{
		Actor: actor, Action: "clinic.create", Target: fmt.Sprintf("clinic:%d", c.ID), Clinic: c.ID,
		Detail: map[string]string{"code": c.Code, "name": c.Name, "plan": c.Plan},
	})
}

// List returns at most limit clinics that tx sees with an id above after, in order of id.
func List(ctx context.Context, tx pgx.Tx, after, limit int32) ([]Clinic, error) {
	q, err := tx.Query(ctx, `SELECT c.clinic_id, c.code, c.name, c.kana, c.director, p.name, c.plan_id, c.hours
		FROM clinic c JOIN plan p ON p.id = c.plan_id WHERE c.clinic_id > $1 ORDER BY c.clinic_id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list clinics: %w", err)
	}
	out, err := pgx.CollectRows(q, func(r pgx.CollectableRow) (c Clinic, err error) {
		err = r.Scan(&c.ID, &c.Code, &c.Name, &c.Kana, &c.Director, &c.Plan, &c.PlanID, &c.Hours)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("list clinics: %w", err)
	}
	return out, nil
}

// Require returns ErrNotFound when tx sees no clinic of the id.
func Require(ctx context.Context, tx pgx.Tx, id int32) error {
	var there bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM clinic WHERE clinic_id = $1)`, id).Scan(&there); err != nil {
		return fmt.Errorf("look up clinic: %w", err)
	}
	if !there {
		return fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	return nil
}
