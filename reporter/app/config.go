package app

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/hashicorp/go-hclog"
)

// Config is the file that --config names. Unknown keys are errors. The zero value works when a DSN is given by flag.
type Config struct {
	// DSN of the database as role kadomori_reporter; DSNFile holds one and is read at start. Exactly one of them.
	DSN     string `yaml:"dsn"`
	DSNFile string `yaml:"dsn_file"`
	Listen  struct {
		// Metrics is the address of /metrics and /healthz, such as "127.0.0.1:9464"; "" serves nothing.
		Metrics string `yaml:"metrics"`
	} `yaml:"listen"`
	Log struct {
		Level  string `yaml:"level"`  // trace, debug, info (default), warn, error
		Format string `yaml:"format"` // text (default) or json
	} `yaml:"log"`
	Renderer struct {
		// Python is the interpreter that has WeasyPrint; default /usr/bin/python3, where the Debian package puts it.
		Python string `yaml:"python"`
		// Concurrency is how many reports are made at a time; default the number of cores, at most 4.
		Concurrency int `yaml:"concurrency"`
		// Timeout of one PDF; default 120s.
		Timeout time.Duration `yaml:"timeout"`
	} `yaml:"renderer"`
	// Stdout-independent log; made by Main.
	Logger hclog.Logger `yaml:"-"`
	// Now is the clock; nil means time.Now. Tests set it.
	Now func() time.Time `yaml:"-"`
}

// ReadConfig reads a file; an error names the file, the line and the key.
func ReadConfig(name string) (Config, error) {
	var cfg Config
	if name == "" {
		return cfg, nil
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return cfg, fmt.Errorf("read configuration: %w", err)
	}
	if strings.TrimSpace(string(raw)) == "" {
		return cfg, nil
	}
	if err := yaml.UnmarshalWithOptions(raw, &cfg, yaml.Strict()); err != nil {
		return cfg, fmt.Errorf("read configuration %s: %w", name, err)
	}
	return cfg, nil
}

// Validate checks what can be checked without starting anything.
func (c *Config) Validate() error {
	if c.DSN != "" && c.DSNFile != "" {
		return errors.New("check configuration: dsn and dsn_file are both set")
	}
	if c.DSN == "" && c.DSNFile == "" {
		return errors.New("check configuration: neither dsn nor dsn_file is set")
	}
	if c.Log.Level != "" && hclog.LevelFromString(c.Log.Level) == hclog.NoLevel {
		return fmt.Errorf("check configuration: log.level %q is none of trace, debug, info, warn, error", c.Log.Level)
	}
	if f := cmp.Or(c.Log.Format, "text"); f != "text" && f != "json" {
		return fmt.Errorf("check configuration: log.format %q is neither text nor json", f)
	}
	if c.Renderer.Concurrency < 0 || c.Renderer.Concurrency > 64 {
		return fmt.Errorf("check configuration: renderer.concurrency %d is not 1 to 64", c.Renderer.Concurrency)
	}
	if t := c.Renderer.Timeout; t != 0 && (t < time.Second || t > time.Hour) {
		return fmt.Errorf("check configuration: renderer.timeout %s is not 1s to 1h", t)
	}
	return nil
}

// dsn is the DSN itself.
func (c *Config) dsn() (string, error) {
	if c.DSN != "" {
		return c.DSN, nil
	}
	raw, err := os.ReadFile(c.DSNFile)
	if err != nil {
		return "", fmt.Errorf("read dsn file: %w", err)
	}
	if s := strings.TrimSpace(string(raw)); s != "" {
		return s, nil
	}
	return "", fmt.Errorf("read dsn file %s: it is empty", c.DSNFile)
}

// concurrency is how many reports are made at a time.
func (c *Config) concurrency() int {
	return cmp.Or(c.Renderer.Concurrency, min(runtime.NumCPU(), 4))
}

func (c *Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}
