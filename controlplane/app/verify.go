package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/doctor"
	"github.com/kadomori/kadomori/controlplane/internal/evidence"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
)

// openRunning reaches the database of a configuration as the control plane does; a private one must be up, that is, served.
func openRunning(ctx context.Context, config string) (*postgres.DB, error) {
	cfg, err := Load(config)
	if err != nil {
		return nil, err
	}
	file, key := cfg.Database.AppDSNFile, "database.app_dsn_file"
	if file == "" {
		file, key = filepath.Join(cfg.DataDir, "app.dsn"), "private database"
	}
	dsn, err := readSecret(key, file)
	if err != nil {
		return nil, fmt.Errorf("%w; is kadomori-control serve running with this configuration?", err)
	}
	db, err := postgres.Open(ctx, postgres.Config{AppDSN: dsn, AppConns: 2, Log: hclog.NewNullLogger()})
	if err != nil {
		return nil, fmt.Errorf("%w; is kadomori-control serve running with this configuration?", err)
	}
	return db, nil
}

// verifyCommands prove that what is stored was not changed, the evidence of the events and the audit log, and list what is wrong.
func verifyCommands() []*cobra.Command {
	var config string
	ev := evidence.Command(func(ctx context.Context, clinic int32, fn func(pgx.Tx) error) error {
		db, err := openRunning(ctx, config)
		if err != nil {
			return err
		}
		defer db.Close()
		return db.As(ctx, []int32{clinic}, fn)
	})
	log := &cobra.Command{Use: "audit", Short: "The audit log", Args: cobra.NoArgs}
	log.AddCommand(&cobra.Command{
		Use: "verify", Short: "Recompute the audit log's hash chain and name the first row that does not fit", Args: cobra.NoArgs,
		Example: "  kadomori-control audit verify --config /etc/kadomori/control.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			db, err := openRunning(cmd.Context(), config)
			if err != nil {
				return err
			}
			defer db.Close()
			var rows int64
			err = db.Fleet(cmd.Context(), "system:verify", func(tx pgx.Tx) (err error) {
				rows, err = audit.Verify(cmd.Context(), tx)
				return err
			})
			if err != nil {
				return errors.Join(fmt.Errorf("%d rows fit", rows), err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "all %d rows fit\n", rows)
			return err
		},
	})
	doc := doctor.Command(func(ctx context.Context, fn func(pgx.Tx) error) error {
		db, err := openRunning(ctx, config)
		if err != nil {
			return err
		}
		defer db.Close()
		return db.Fleet(ctx, "system:doctor", fn)
	})
	doc.Example = "  kadomori-control doctor --config /etc/kadomori/control.yaml"
	for _, c := range []*cobra.Command{ev, log, doc} {
		c.PersistentFlags().StringVar(&config, "config", "", "configuration file (YAML)")
	}
	return []*cobra.Command{ev, log, doc}
}
