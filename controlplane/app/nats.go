package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
)

// natsCredentials is the file nats.credentials_file names.
type natsCredentials struct {
	Store      natsLogin `yaml:"store"`
	Auth       natsLogin `yaml:"auth"`
	System     natsLogin `yaml:"system"`
	IssuerSeed string    `yaml:"issuer_seed"` // account nkey, SA...
	XKeySeed   string    `yaml:"xkey_seed"`   // curve nkey, SX...
}

type natsLogin struct {
	User     string `yaml:"user"`
	Password string `yaml:"password"`
}

// connectNATS reaches an external cluster as broker.External does.
func connectNATS(ctx context.Context, cfg NATSConfig, authority *pki.Authority, authorise func(*x509.Certificate) (int32, int32, error),
	metrics prometheus.Registerer, log hclog.Logger,
) (*broker.External, error) {
	b, err := os.ReadFile(cfg.CredentialsFile)
	if err != nil {
		return nil, fmt.Errorf("nats.credentials_file: %w", err)
	}
	var c natsCredentials
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&c); err != nil {
		return nil, fmt.Errorf("nats.credentials_file: %s does not read; kadomori-control nats-config makes one", cfg.CredentialsFile) // the error would show secrets
	}
	pool := authority.Pool()
	if cfg.CAFile != "" {
		text, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("nats.ca_file: %w", err)
		}
		if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("nats.ca_file: %s holds no certificate", cfg.CAFile)
		}
	}
	return broker.Connect(ctx, broker.ExternalConfig{
		URL: cfg.URL, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, GetClientCertificate: authority.Client("kadomori-control")},
		Store: broker.Login(c.Store), Auth: broker.Login(c.Auth), System: broker.Login(c.System),
		IssuerSeed: c.IssuerSeed, XKeySeed: c.XKeySeed, Replicas: cfg.Replicas, Authorise: authorise, Metrics: metrics, Log: log,
	})
}

// natsCommand makes credentials for an external cluster and the configuration its servers need.
func natsCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "nats-config", Short: "Make credentials and server configuration for an external NATS", Args: cobra.NoArgs,
		Long: "Writes credentials.yaml (for nats.credentials_file, secret) and accounts.conf (include it in nats-server's configuration).\n" +
			"Existing files are never overwritten. What the servers' operator adds: listen, cluster, jetstream store_dir, and tls with\n" +
			"verify: true and our ca.crt as ca_file.",
		Example: "  kadomori-control nats-config --dir /etc/kadomori/nats",
		RunE: func(cmd *cobra.Command, _ []string) error {
			login := func(user string) natsLogin {
				b := make([]byte, 24)
				_, _ = rand.Read(b) // crypto/rand never fails since Go 1.24
				return natsLogin{User: user, Password: base64.RawURLEncoding.EncodeToString(b)}
			}
			issuer, err1 := nkeys.CreateAccount()
			xkey, err2 := nkeys.CreateCurveKeys()
			if err := errors.Join(err1, err2); err != nil {
				return fmt.Errorf("make keys: %w", err)
			}
			issuerSeed, err1 := issuer.Seed()
			xkeySeed, err2 := xkey.Seed()
			issuerPub, err3 := issuer.PublicKey()
			xkeyPub, err4 := xkey.PublicKey()
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				return fmt.Errorf("encode keys: %w", err)
			}
			cred := natsCredentials{Store: login("store"), Auth: login("auth"), System: login("system"), IssuerSeed: string(issuerSeed), XKeySeed: string(xkeySeed)}
			text, err := yaml.Marshal(cred)
			if err != nil {
				return fmt.Errorf("encode credentials: %w", err)
			}
			conf := broker.ServerConfig(issuerPub, xkeyPub, broker.Login(cred.Store), broker.Login(cred.Auth), broker.Login(cred.System))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("make directory: %w", err)
			}
			for name, content := range map[string][]byte{"credentials.yaml": text, "accounts.conf": []byte(conf)} {
				f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return fmt.Errorf("write %s: %w", name, err)
				}
				_, err = f.Write(content)
				if err := errors.Join(err, f.Close()); err != nil {
					return fmt.Errorf("write %s: %w", name, err)
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "written: %s, %s\n", filepath.Join(dir, "credentials.yaml"), filepath.Join(dir, "accounts.conf"))
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "directory to write into (needed)")
	_ = c.MarkFlagRequired("dir")
	return c
}
