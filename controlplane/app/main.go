package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/proto/sign"
)

// Main is the program kadomori-control; it returns the exit code. args are without the program's name.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := rootCommand(version)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintln(stderr, "kadomori-control:", err)
		return 1
	}
	return 0
}

func rootCommand(version string) *cobra.Command {
	root := &cobra.Command{
		Use: "kadomori-control", Short: "The control plane of Kadomori: fleet, events, console",
		SilenceUsage: true, SilenceErrors: true, Version: version, Args: cobra.NoArgs,
	}
	var config string
	withConfig := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&config, "config", "", "configuration file (YAML); without it everything has its default")
		return c
	}
	root.AddCommand(
		withConfig(&cobra.Command{
			Use: "serve", Short: "Serve until told to stop", Args: cobra.NoArgs,
			Long: "Serves appliances (gRPC, NATS), operators (gRPC, console) and the database's jobs.\n" +
				"With nothing configured it starts a private PostgreSQL and an embedded NATS in the data directory.\n" +
				"At the first start the operator \"admin\" is made; its password lies in <data_dir>/admin-password.",
			Example: "  kadomori-control serve --config /etc/kadomori/control.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := Load(config)
				if err != nil {
					return err
				}
				return Run(cmd.Context(), cfg, logger(cfg.Log, cmd.ErrOrStderr()).With("version", version), nil)
			},
		}),
		withConfig(&cobra.Command{
			Use: "migrate", Short: "Bring an external database to this version's schema", Args: cobra.NoArgs,
			Long: "Runs the migrations with the owner's DSN (database.migrate_dsn_file). Run it before the new version serves;\n" +
				"the old version keeps working with the new schema. A private database is migrated by serve itself.",
			Example: "  kadomori-control migrate --config /etc/kadomori/control.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := Load(config)
				if err != nil {
					return err
				}
				if cfg.Database.MigrateDSNFile == "" {
					return errors.New("database.migrate_dsn_file is not set: give the owner's DSN; a private database is migrated by serve")
				}
				dsn, err := readSecret("database.migrate_dsn_file", cfg.Database.MigrateDSNFile)
				if err != nil {
					return err
				}
				if err := postgres.Migrate(cmd.Context(), dsn); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "database is up to date")
				return err
			},
		}),
		withConfig(&cobra.Command{
			Use: "validate", Short: "Check the configuration without starting", Args: cobra.NoArgs,
			Example: "  kadomori-control validate --config /etc/kadomori/control.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				if _, err := Load(config); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "configuration is valid")
				return err
			},
		}),
		bundleKeyCommand(),
		natsCommand(),
		pkiCommand(),
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
				return err
			},
		},
	)
	root.AddCommand(verifyCommands()...)
	root.AddCommand(backupCommands()...)
	return root
}

func bundleKeyCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "bundle-key", Short: "Make the key that signs bundles", Args: cobra.NoArgs,
		Long:    "Writes a new Ed25519 key (PKCS#8, PEM, mode 0600) and prints its id and public half. An existing file is never overwritten.",
		Example: "  kadomori-control bundle-key --out /etc/kadomori/pki/bundle.key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := bundle.MakeKey(out)
			if err != nil {
				return err
			}
			s, err := bundle.New(bundle.Config{Key: key})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key id     %s\npublic key %x\n", sign.KeyID(s.PublicKey()), []byte(s.PublicKey()))
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write (needed)")
	_ = c.MarkFlagRequired("out")
	return c
}

func logger(cfg LogConfig, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "kadomori-control", Level: hclog.LevelFromString(cfg.Level), JSONFormat: cfg.Format == "json", Output: w})
}
