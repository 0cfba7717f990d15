package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/controlplane/internal/backup"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
)

// connectLimit is how long a database may take to answer before it counts as not running.
const connectLimit = 3 * time.Second

// ownerDatabase reaches the database as its owner: the external one, the private one of a serving control plane, or (alone) the
// private one started for the moment. close ends what was started.
func ownerDatabase(ctx context.Context, cfg Config, log hclog.Logger) (dsn, binaries string, serving bool, closeIt func() error, err error) {
	nothing := func() error { return nil }
	if cfg.Database.AppDSNFile != "" {
		if cfg.Database.MigrateDSNFile == "" {
			return "", "", false, nothing, errors.New("database.migrate_dsn_file is not set: a backup needs the owner's DSN")
		}
		dsn, err = readSecret("database.migrate_dsn_file", cfg.Database.MigrateDSNFile)
		return dsn, "", false, nothing, err
	}
	if dsn, err = readSecret("private database", filepath.Join(cfg.DataDir, "owner.dsn")); err == nil {
		short, cancel := context.WithTimeout(ctx, connectLimit)
		conn, err := pgx.Connect(short, dsn)
		cancel()
		if err == nil {
			return dsn, "", true, nothing, conn.Close(ctx)
		}
	}
	private, err := postgres.Private(ctx, postgres.PrivateConfig{Dir: filepath.Join(cfg.DataDir, "postgresql"), Log: log})
	if err != nil {
		return "", "", false, nothing, fmt.Errorf("start private database: %w", err)
	}
	return private.DSN(postgres.RoleOwner), private.Binaries(), false, private.Stop, nil
}

// backupFiles are what belongs to the control plane beside its database, below data_dir.
func backupFiles(cfg Config) ([]string, error) {
	rel, err := filepath.Rel(cfg.DataDir, cfg.PKI.Dir)
	if err != nil || strings.HasPrefix(rel, "..") {
		return nil, fmt.Errorf("pki.dir %s lies outside of data_dir: such keys come from elsewhere and are kept there", cfg.PKI.Dir)
	}
	return []string{rel, "admin-password"}, nil
}

func backupCommands() []*cobra.Command {
	var config, out, in, identity string
	var recipients []string
	write := &cobra.Command{
		Use: "backup", Short: "Write database and keys into one encrypted file", Args: cobra.NoArgs,
		Long: "Works while the control plane serves. The file is encrypted for the recipients (age, https://age-encryption.org); make a pair\n" +
			"with age-keygen and keep the identity elsewhere. Events that come later are still on the appliances and arrive again.",
		Example: "  kadomori-control backup --config /etc/kadomori/control.yaml --out /backup/kadomori-$(date +%F).age --recipient age1...",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			cfg, err := Load(config)
			if err != nil {
				return err
			}
			var to []age.Recipient
			for _, r := range recipients {
				x, err := age.ParseX25519Recipient(r)
				if err != nil {
					return fmt.Errorf("--recipient %.20q: %w", r, err)
				}
				to = append(to, x)
			}
			files, filesErr := backupFiles(cfg)
			log := logger(cfg.Log, cmd.ErrOrStderr())
			if filesErr != nil {
				log.Warn("keys are not in the backup", "why", filesErr)
			}
			dsn, binaries, _, closeIt, err := ownerDatabase(ctx, cfg, log)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, closeIt()) }()
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			m, err := backup.Write(ctx, backup.Config{OwnerDSN: dsn, Binaries: binaries, Dir: cfg.DataDir, Files: files, Log: log}, f, to...)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return errors.Join(err, os.Remove(out)) // half a backup would be taken for one
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "written %s: schema %d, %d clinics, %d events\n", out, m.Schema, m.Clinics, m.Events)
			return err
		},
	}
	write.Flags().StringVar(&out, "out", "", "file to write, must not exist (needed)")
	write.Flags().StringArrayVar(&recipients, "recipient", nil, "age recipient, age1... (needed, may be repeated)")
	_, _ = write.MarkFlagRequired("out"), write.MarkFlagRequired("recipient")
	read := &cobra.Command{
		Use: "restore", Short: "Bring a backup into an empty system", Args: cobra.NoArgs,
		Long: "The control plane must be stopped, database and data directory empty. Afterwards start it: it takes up the appliances again,\n" +
			"and they send once more what the backup did not hold.",
		Example: "  kadomori-control restore --config /etc/kadomori/control.yaml --in kadomori-2026-11-25.age --identity key.txt",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			cfg, err := Load(config)
			if err != nil {
				return err
			}
			key, err := os.Open(identity)
			if err != nil {
				return fmt.Errorf("--identity: %w", err)
			}
			ids, err := age.ParseIdentities(key)
			if err = errors.Join(err, key.Close()); err != nil {
				return fmt.Errorf("--identity: %w", err)
			}
			f, err := os.Open(in)
			if err != nil {
				return fmt.Errorf("--in: %w", err)
			}
			defer func() { _ = f.Close() }()
			if err := os.MkdirAll(cfg.DataDir, 0o711); err != nil { //nolint:gosec // postgres, another user, passes through
				return fmt.Errorf("make data directory: %w", err)
			}
			log := logger(cfg.Log, cmd.ErrOrStderr())
			dsn, binaries, serving, closeIt, err := ownerDatabase(ctx, cfg, log)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, closeIt()) }()
			if serving {
				return errors.New("the control plane is running: stop it first")
			}
			files, err := backupFiles(cfg)
			if err != nil {
				log.Warn("keys are not restored", "why", err)
			}
			m, err := backup.Restore(ctx, backup.Config{OwnerDSN: dsn, Binaries: binaries, Dir: cfg.DataDir, Files: files, Log: log}, f, ids...)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored the backup of %s: schema %d, %d clinics, %d events\n", m.MadeAt.Format(time.RFC3339), m.Schema, m.Clinics, m.Events)
			return err
		},
	}
	read.Flags().StringVar(&in, "in", "", "backup to read (needed)")
	read.Flags().StringVar(&identity, "identity", "", "file with the age identity (needed)")
	_, _ = read.MarkFlagRequired("in"), read.MarkFlagRequired("identity")
	for _, c := range []*cobra.Command{write, read} {
		c.Flags().StringVar(&config, "config", "", "configuration file (YAML)")
	}
	return []*cobra.Command{write, read}
}
