package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/web"
)

// consoleAccounts speaks the console's words.
type consoleAccounts struct{ accounts *account.Accounts }

func (c consoleAccounts) Login(ctx context.Context, name, password, kind string) (token string, expires time.Time, err error) {
	token, _, expires, err = c.accounts.Login(ctx, name, password, kind)
	return token, expires, consoleError(err)
}

func (c consoleAccounts) Session(ctx context.Context, token string) (web.Operator, error) {
	op, err := c.accounts.Session(ctx, token)
	return web.Operator{ID: op.ID, Name: op.Name, DisplayName: op.DisplayName, Role: string(op.Role), Language: op.Language, Theme: op.Theme}, consoleError(err)
}

func (c consoleAccounts) Logout(ctx context.Context, token string) error {
	return c.accounts.Logout(ctx, token)
}

func consoleError(err error) error {
	switch {
	case errors.Is(err, account.ErrLogin):
		return fmt.Errorf("%w: %w", web.ErrCredentials, err)
	case errors.Is(err, account.ErrLimited):
		return fmt.Errorf("%w: %w", web.ErrThrottled, err)
	case errors.Is(err, account.ErrSession):
		return fmt.Errorf("%w: %w", web.ErrNoSession, err)
	}
	return err
}

// reports queues jobs that kadomori-reporter works.
type reports struct{ client *river.Client[pgx.Tx] }

// renderArgs is the job the reporter knows: one clinic, one month ("2026-11", Japan's time).
type renderArgs struct {
	ClinicID int32  `json:"clinic_id"`
	Month    string `json:"month"`
}

// Kind implements river.JobArgs.
func (renderArgs) Kind() string { return "report_render" }

func newReports(db *postgres.DB) (*reports, error) {
	client, err := river.NewClient(riverpgxv5.New(db.App), &river.Config{Schema: postgres.RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("open job queue: %w", err)
	}
	return &reports{client: client}, nil
}

// Request queues the report; one that waits already is enough.
func (r *reports) Request(ctx context.Context, tx pgx.Tx, clinic int32, month string) error {
	_, err := r.client.InsertTx(ctx, tx, renderArgs{ClinicID: clinic, Month: month}, &river.InsertOpts{
		Queue: "report",
		UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: []rivertype.JobState{
			rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
		}},
	})
	if err != nil {
		return fmt.Errorf("queue report: %w", err)
	}
	return nil
}
