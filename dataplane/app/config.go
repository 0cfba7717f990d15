// Package app wires the appliance's program: configuration, commands, and Run, which builds wire, engine, spool and the link to
// the control plane in one straight function. Package main and the tests call it. The trap: order. What takes is built before
// what gives and ends after it, so that nothing stated on the way down is lost.
package app

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/go-hclog"

	"github.com/kadomori/kadomori/dataplane/internal/enrol"
)

// Version of the agent; main sets it from the build.
var Version = "0.1.0-dev"

// DefaultConfig is where the commands look for the configuration.
const DefaultConfig = "/etc/kadomori/agent.yaml"

// Config is the agent's configuration file. Its zero value but for ports works.
type Config struct {
	// StateDir keeps keys, bundles and the spool; "" means /var/lib/kadomori.
	StateDir string `yaml:"state_dir"`
	// PinDir is the folder on the BPF file system; "" means /sys/fs/bpf/kadomori.
	PinDir string `yaml:"pin_dir"`
	// ClaimFile holds the enrolment claim; read when the box has no identity, and no more afterwards.
	ClaimFile string `yaml:"claim_file"`
	// Ports are the two sides of the wire.
	Ports Ports `yaml:"ports"`
	// Mode is inline (default) or tap.
	Mode string `yaml:"mode"`
	// Attach is auto (default), native or generic.
	Attach string `yaml:"attach"`
	// Queues is how many receive queues get a socket; 0 means all.
	Queues int `yaml:"queues"`
	// MaxFlows bounds each worker's flow table; 0 means 131072.
	MaxFlows int `yaml:"max_flows"`
	// MetricsListen is host:port for Prometheus; "" serves none.
	MetricsListen string `yaml:"metrics_listen"`
	// Serial and Model describe the box; "" reads them from the firmware's tables.
	Serial string      `yaml:"serial"`
	Model  string      `yaml:"model"`
	Spool  SpoolConfig `yaml:"spool"`
	Log    LogConfig   `yaml:"log"`
	// Keys says where the private key is kept.
	Keys Keys `yaml:"keys"`
	// Management is how the box reaches the control plane.
	Management Management `yaml:"management"`
	// SelfTestEvery is the time between two synthetic detections; 0 means 24h.
	SelfTestEvery Duration `yaml:"self_test_every"`
}

// Ports are interface names.
type Ports struct {
	// LAN is the port towards the clinic; in tap mode the mirror port.
	LAN string `yaml:"lan"`
	// WAN is the port towards the Internet; empty in tap mode.
	WAN string `yaml:"wan"`
}

// SpoolConfig bounds the events on disk.
type SpoolConfig struct {
	// MaxBytes is the size limit; 0 means 512 MiB.
	MaxBytes int64 `yaml:"max_bytes"`
}

// LogConfig says what is logged to standard error.
type LogConfig struct {
	// Level is trace, debug, info (default), warn or error.
	Level string `yaml:"level"`
	// Format is text (default) or json.
	Format string `yaml:"format"`
}

// Keys says where the private key is kept.
type Keys struct {
	// Store is auto (default: the TPM when there is one), tpm or file.
	Store string `yaml:"store"`
	// Device is the TPM's; "" means /dev/tpmrm0.
	Device string `yaml:"device"`
}

// Management is how the box reaches the control plane.
type Management struct {
	// FleetAddress and NATSURL replace those of the identity; "" keeps them. For a box behind a relay.
	FleetAddress string `yaml:"fleet_address"`
	NATSURL      string `yaml:"nats_url"`
	// MaxBytesPerSecond bounds the events' bandwidth until a policy says otherwise; 0 means 262144.
	MaxBytesPerSecond uint64 `yaml:"max_bytes_per_second"`
	// RevertAfter is how long a new bundle may keep the control plane out of reach before the box goes back; 0 means 5m.
	RevertAfter Duration `yaml:"revert_after"`
	// ReportEvery is the time between two reports of state; 0 means 1m.
	ReportEvery Duration `yaml:"report_every"`
}

// Duration is a time such as 90s or 24h in the file.
type Duration time.Duration

// UnmarshalYAML implements yaml.BytesUnmarshaler.
func (d *Duration) UnmarshalYAML(b []byte) error {
	s := strings.Trim(strings.TrimSpace(string(b)), `"'`)
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration such as 90s or 24h", s)
	}
	*d = Duration(v)
	return nil
}

// ReadConfig reads a configuration file. An unknown key or a wrong value is an error with its line.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := ParseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return cfg, nil
}

// ParseConfig is ReadConfig on bytes.
func ParseConfig(b []byte) (Config, error) {
	var cfg Config
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, err
	}
	return cfg, cfg.validate()
}

// validate fills defaults and says what is impossible.
func (c *Config) validate() error {
	c.StateDir = cmp.Or(c.StateDir, "/var/lib/kadomori")
	c.PinDir = cmp.Or(c.PinDir, "/sys/fs/bpf/kadomori")
	c.Mode = cmp.Or(c.Mode, "inline")
	c.Attach = cmp.Or(c.Attach, "auto")
	c.Keys.Store = cmp.Or(c.Keys.Store, "auto")
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "text")
	c.SelfTestEvery = cmp.Or(c.SelfTestEvery, Duration(24*time.Hour))
	switch {
	case !filepath.IsAbs(c.StateDir):
		return fmt.Errorf("state_dir: %q is not an absolute path", c.StateDir)
	case !filepath.IsAbs(c.PinDir):
		return fmt.Errorf("pin_dir: %q is not an absolute path", c.PinDir)
	case c.Mode != "inline" && c.Mode != "tap":
		return fmt.Errorf("mode: %q is neither inline nor tap", c.Mode)
	case c.Attach != "auto" && c.Attach != "native" && c.Attach != "generic":
		return fmt.Errorf("attach: %q is none of auto, native, generic", c.Attach)
	case c.Keys.Store != "auto" && c.Keys.Store != "tpm" && c.Keys.Store != "file":
		return fmt.Errorf("keys.store: %q is none of auto, tpm, file", c.Keys.Store)
	case c.Mode == "tap" && c.Ports.WAN != "":
		return errors.New("ports.wan: there is none in tap mode")
	case c.Ports.LAN != "" && c.Ports.LAN == c.Ports.WAN:
		return fmt.Errorf("ports: lan and wan are both %q", c.Ports.LAN)
	case c.Queues < 0 || c.Queues > 16:
		return fmt.Errorf("queues: %d is not in 0..16", c.Queues)
	case c.MaxFlows < 0 || c.MaxFlows > 1<<22:
		return fmt.Errorf("max_flows: %d is not in 0..4194304", c.MaxFlows)
	case c.Spool.MaxBytes < 0 || (c.Spool.MaxBytes > 0 && c.Spool.MaxBytes < 16<<20):
		return fmt.Errorf("spool.max_bytes: %d is below 16777216", c.Spool.MaxBytes)
	case hclog.LevelFromString(c.Log.Level) == hclog.NoLevel:
		return fmt.Errorf("log.level: %q is none of trace, debug, info, warn, error", c.Log.Level)
	case c.Log.Format != "text" && c.Log.Format != "json":
		return fmt.Errorf("log.format: %q is neither text nor json", c.Log.Format)
	}
	for key, v := range map[string]string{"metrics_listen": c.MetricsListen, "management.fleet_address": c.Management.FleetAddress} {
		if v == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(v); err != nil {
			return fmt.Errorf("%s: %q is not host:port", key, v)
		}
	}
	return nil
}

// checkPorts is what Run needs beside validate: a file without ports is good for every command but run.
func (c *Config) checkPorts() error {
	switch {
	case c.Ports.LAN == "":
		return errors.New("ports.lan: no interface given")
	case c.Mode == "inline" && c.Ports.WAN == "":
		return errors.New("ports.wan: no interface given")
	}
	return nil
}

func (c *Config) keyStore() enrol.KeyStore {
	return enrol.KeyStore{Kind: c.Keys.Store, Device: c.Keys.Device}
}

func (c *Config) identityDir() string { return filepath.Join(c.StateDir, "identity") }
func (c *Config) spoolDir() string    { return filepath.Join(c.StateDir, "spool") }
func (c *Config) bundleDir() string   { return filepath.Join(c.StateDir, "bundles") }
func (c *Config) cacheDir() string    { return filepath.Join(c.StateDir, "cache") }
func (c *Config) socket() string      { return filepath.Join(c.StateDir, "agent.sock") }

// logger returns the program's log on w.
func (c *Config) logger(w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "kadomori-agent", Level: hclog.LevelFromString(c.Log.Level), Output: w, JSONFormat: c.Log.Format == "json",
	})
}
