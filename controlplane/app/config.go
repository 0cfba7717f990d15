// Package app wires the control plane: configuration, database, broker, RPC server, console, jobs. The program kadomori-control and
// the tests that need a whole system call it. The trap: order matters when stopping; what others write to stops last.
package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/go-hclog"

	"github.com/kadomori/kadomori/controlplane/internal/command"
)

// Config is kadomori-control's file. The zero value is the all-in-one system on this machine.
type Config struct {
	// DataDir holds everything the program keeps: keys, the private database, the broker's store. Default /var/lib/kadomori-control.
	DataDir  string         `yaml:"data_dir"`
	Listen   ListenConfig   `yaml:"listen"`
	Public   PublicConfig   `yaml:"public"`
	Console  ConsoleConfig  `yaml:"console"`
	Database DatabaseConfig `yaml:"database"`
	NATS     NATSConfig     `yaml:"nats"`
	PKI      PKIConfig      `yaml:"pki"`
	Log      LogConfig      `yaml:"log"`
	// TwoPersons are the commands that a second person must approve: any of quarantine, release, bypass, self_test, diagnostic,
	// factory_reset. Default: factory_reset. [none] asks for nobody.
	TwoPersons []string `yaml:"two_persons"`
	// NeverBlock are addresses and prefixes beside the public addresses that no policy may block, for example those of a NAT gateway.
	NeverBlock []string `yaml:"never_block"`
}

// ListenConfig says where the program listens, host:port each.
type ListenConfig struct {
	GRPC    string `yaml:"grpc"`    // appliances and the command line; default 0.0.0.0:7443
	NATS    string `yaml:"nats"`    // the embedded broker, appliances' events; default 0.0.0.0:7422
	Console string `yaml:"console"` // HTTPS; default 0.0.0.0:8443
	Metrics string `yaml:"metrics"` // HTTP, Prometheus; empty: none
}

// PublicConfig says how appliances reach the program; both stand in claims and identities.
type PublicConfig struct {
	GRPC string `yaml:"grpc"` // host:port; default: listen.grpc
	NATS string `yaml:"nats"` // tls://host:port; default: of listen.nats
}

// ConsoleConfig is about the operators' web pages.
type ConsoleConfig struct {
	// Names are host names and addresses in the console's certificate, beside those of listen.console and public.grpc.
	Names []string `yaml:"names"`
}

// DatabaseConfig names files that hold one DSN each. All empty: a private PostgreSQL in data_dir.
type DatabaseConfig struct {
	AppDSNFile      string `yaml:"app_dsn_file"`      // role kadomori_app
	IngestDSNFile   string `yaml:"ingest_dsn_file"`   // role kadomori_ingest
	MigrateDSNFile  string `yaml:"migrate_dsn_file"`  // the owner; only kadomori-control migrate reads it
	ReporterDSNFile string `yaml:"reporter_dsn_file"` // role kadomori_reporter; only the reporter reads it
}

// NATSConfig is about an external NATS. Empty url: the embedded broker.
type NATSConfig struct {
	URL string `yaml:"url"` // tls://host:port, several separated by commas
	// CredentialsFile holds our users and keys; kadomori-control nats-config makes it, and the servers' configuration beside it.
	CredentialsFile string `yaml:"credentials_file"`
	// CAFile verifies the servers' certificates. Default: our own authority.
	CAFile string `yaml:"ca_file"`
	// Replicas of the event stream; default 3.
	Replicas int `yaml:"replicas"`
}

// PKIConfig says where keys are.
type PKIConfig struct {
	// Dir holds ca.crt, ca.key (may be taken offline), issuing.crt, issuing.key. Default data_dir/pki.
	Dir string `yaml:"dir"`
	// BundleKeyFile is the key that signs bundles. Default <dir>/bundle.key.
	BundleKeyFile string `yaml:"bundle_key_file"`
}

// LogConfig is about the log on standard error.
type LogConfig struct {
	Level  string `yaml:"level"`  // trace, debug, info (default), warn, error
	Format string `yaml:"format"` // text (default), json
}

// Load reads a configuration file. An unknown key is an error with its line; so is a value that Validate refuses. An empty path is
// the zero configuration.
func Load(path string) (Config, error) {
	var c Config
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("read configuration: %w", err)
		}
		if c, err = Parse(b); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
	}
	c.setDefaults()
	return c, c.Validate()
}

// Parse reads the text of a configuration file without defaults.
func Parse(b []byte) (Config, error) {
	var c Config
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("parse configuration: %s", yaml.FormatError(err, false, true))
	}
	return c, nil
}

func (c *Config) setDefaults() {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.DataDir, "/var/lib/kadomori-control")
	def(&c.Listen.GRPC, "0.0.0.0:7443")
	def(&c.Listen.NATS, "0.0.0.0:7422")
	def(&c.Listen.Console, "0.0.0.0:8443")
	def(&c.PKI.Dir, filepath.Join(c.DataDir, "pki"))
	def(&c.PKI.BundleKeyFile, filepath.Join(c.PKI.Dir, "bundle.key"))
	def(&c.Log.Level, "info")
	def(&c.Log.Format, "text")
	if len(c.TwoPersons) == 0 {
		c.TwoPersons = []string{command.FactoryReset}
	}
}

// Validate says what is wrong with the configuration, all of it, by key. Empty values stand for their defaults.
func (c Config) Validate() error {
	c.setDefaults()
	var errs []error
	wrong := func(key, format string, args ...any) { errs = append(errs, fmt.Errorf(key+": "+format, args...)) }
	if !filepath.IsAbs(c.DataDir) {
		wrong("data_dir", "%q is not an absolute path", c.DataDir)
	}
	for key, v := range map[string]string{"listen.grpc": c.Listen.GRPC, "listen.nats": c.Listen.NATS, "listen.console": c.Listen.Console, "listen.metrics": c.Listen.Metrics} {
		if v == "" {
			continue
		}
		if _, err := splitHostPort(v); err != nil {
			wrong(key, "%q: %w", v, err)
		}
	}
	if v := c.Public.GRPC; v != "" {
		if host, err := splitHostPort(v); err != nil || host == "" {
			wrong("public.grpc", "%q: want host:port", v)
		}
	}
	if v := c.Public.NATS; v != "" {
		rest, ok := strings.CutPrefix(v, "tls://")
		if host, err := splitHostPort(rest); !ok || err != nil || host == "" {
			wrong("public.nats", "%q: want tls://host:port", v)
		}
	}
	d := c.Database
	if (d.AppDSNFile == "") != (d.IngestDSNFile == "") {
		wrong("database", "app_dsn_file and ingest_dsn_file go together; give both for an external database or none for a private one")
	}
	if c.NATS.URL == "" && (c.NATS.CredentialsFile != "" || c.NATS.CAFile != "") {
		wrong("nats", "credentials_file and ca_file need url")
	}
	if c.NATS.URL != "" && c.NATS.CredentialsFile == "" {
		wrong("nats.credentials_file", "is needed with nats.url; kadomori-control nats-config makes one")
	}
	if c.NATS.Replicas < 0 || c.NATS.Replicas > 5 {
		wrong("nats.replicas", "%d: want 1 to 5", c.NATS.Replicas)
	}
	if c.NATS.URL != "" && c.Public.NATS == "" {
		wrong("public.nats", "is needed with nats.url: appliances must know where to connect")
	}
	if hclog.LevelFromString(c.Log.Level) == hclog.NoLevel {
		wrong("log.level", "%q: want trace, debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		wrong("log.format", "%q: want text or json", c.Log.Format)
	}
	for _, n := range c.Console.Names {
		if n == "" || strings.ContainsAny(n, " /:*") && net.ParseIP(n) == nil {
			wrong("console.names", "%q: want a host name or an address", n)
		}
	}
	for _, a := range c.twoPersons() {
		if !slices.Contains(command.Actions, a) {
			wrong("two_persons", "%q: want none, or any of %s", a, strings.Join(command.Actions, ", "))
		}
	}
	for _, n := range c.NeverBlock {
		if _, err := parseProtected(n); err != nil {
			wrong("never_block", "%q: %w", n, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("configuration is not valid:\n%w", errors.Join(errs...))
	}
	return nil
}

// twoPersons are the actions for which a second person is asked.
func (c Config) twoPersons() []string {
	if len(c.TwoPersons) == 1 && c.TwoPersons[0] == "none" {
		return nil
	}
	return c.TwoPersons
}

func splitHostPort(s string) (host string, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", errors.New("want host:port")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("port %q: want 0 to 65535", port)
	}
	return host, nil
}
