package app

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	"github.com/kadomori/kadomori/proto/sign"
)

// pkiCommand looks after the keys.
func pkiCommand() *cobra.Command {
	var config string
	root := &cobra.Command{Use: "pki", Short: "Keys and certificates of the internal authority", Args: cobra.NoArgs}
	root.PersistentFlags().StringVar(&config, "config", "", "configuration file (YAML)")
	root.AddCommand(
		&cobra.Command{
			Use: "init", Short: "Make root, issuing key and bundle key where they are missing", Args: cobra.NoArgs,
			Long: "serve does the same at its first start. Run init on another machine to keep the root key offline from the beginning:\n" +
				"take pki/ca.crt, issuing.crt, issuing.key, bundle.key to the control plane and leave ca.key where it is.",
			Example: "  kadomori-control pki init --config control.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := Load(config)
				if err != nil {
					return err
				}
				a, err := pki.Open(pki.Config{Dir: cfg.PKI.Dir})
				if err != nil {
					return err
				}
				if _, err := bundle.LoadOrMakeKey(cfg.PKI.BundleKeyFile); err != nil {
					return err
				}
				return showKeys(cmd.OutOrStdout(), cfg, a)
			},
		},
		&cobra.Command{
			Use: "show", Short: "Say which keys there are and when certificates end", Args: cobra.NoArgs,
			Example: "  kadomori-control pki show --config /etc/kadomori/control.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := Load(config)
				if err != nil {
					return err
				}
				if _, err := os.Stat(filepath.Join(cfg.PKI.Dir, "ca.crt")); err != nil {
					return fmt.Errorf("%w; kadomori-control pki init makes an authority", err)
				}
				a, err := pki.Open(pki.Config{Dir: cfg.PKI.Dir})
				if err != nil {
					return err
				}
				return showKeys(cmd.OutOrStdout(), cfg, a)
			},
		},
		&cobra.Command{
			Use: "rotate", Short: "Make a new issuing key; the old one's certificates stay valid until they end", Args: cobra.NoArgs,
			Long: "Needs ca.key beside ca.crt for the moment. The old pair stays in the directory as issuing-<date>. Restart serve afterwards;\n" +
				"appliances get certificates of the new key as they renew, within three and a half days.",
			Example: "  kadomori-control pki rotate --config /etc/kadomori/control.yaml",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := Load(config)
				if err != nil {
					return err
				}
				cert, err := pki.Rotate(pki.Config{Dir: cfg.PKI.Dir})
				if err != nil {
					return err
				}
				if err := showCert(cmd.OutOrStdout(), "issuing (new)", cert); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "restart kadomori-control serve to use it, and take ca.key away again")
				return err
			},
		},
	)
	return root
}

func showCert(w io.Writer, name string, cert *x509.Certificate) error {
	_, err := fmt.Fprintf(w, "%-14s %s  ends %s  SHA-256 %x\n", name, cert.Subject.CommonName, cert.NotAfter.UTC().Format(time.DateOnly), sha256.Sum256(cert.Raw))
	return err
}

func showKeys(w io.Writer, cfg Config, a *pki.Authority) error {
	where := "beside it: take it offline"
	if _, err := os.Stat(filepath.Join(cfg.PKI.Dir, "ca.key")); errors.Is(err, os.ErrNotExist) {
		where = "offline"
	}
	err := errors.Join(showCert(w, "root", a.Root()), showCert(w, "issuing", a.Issuing()))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%-14s %s\n", "root key", where); err != nil {
		return err
	}
	key, err := bundle.LoadKey(cfg.PKI.BundleKeyFile)
	if err != nil {
		return err
	}
	s, err := bundle.New(bundle.Config{Key: key})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%-14s id %s  public %x\n", "bundle key", sign.KeyID(s.PublicKey()), []byte(s.PublicKey()))
	return err
}
