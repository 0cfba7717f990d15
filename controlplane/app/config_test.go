package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	f := filepath.Join(t.TempDir(), "control.yaml")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(f)
}

func TestEmptyConfigurationIsTheAllInOneSystem(t *testing.T) {
	t.Parallel()
	c, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir == "" || c.Listen.GRPC == "" || c.PKI.BundleKeyFile != c.DataDir+"/pki/bundle.key" || c.Listen.Metrics != "" {
		t.Errorf("defaults %+v", c)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("zero value: %v", err)
	}
}

func TestBadConfigurationNamesTheKey(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"data_dri: /x": `unknown field "data_dri"`,
		"listen:\n  grpc: 0.0.0.0:1\n  gprc: x\n": "[3:",
		"data_dir: x":                              "data_dir",
		"listen: {grpc: localhost}":                "listen.grpc",
		"listen: {nats: ':99999'}":                 "listen.nats",
		"public: {nats: 'host:1'}":                 "public.nats",
		"database: {app_dsn_file: /x}":             "ingest_dsn_file",
		"nats: {ca_file: /x}":                      "need url",
		"nats: {url: 'tls://n:4222'}":              "public.nats",
		"nats: {url: 'tls://n:4222', replicas: 9}": "nats.replicas",
		"log: {level: loud}":                       "log.level",
		"log: {format: xml}":                       "log.format",
		"console: {names: ['a b']}":                "console.names",
		"never_block: [10.0.0.1/8]":                "never_block",
		"data_dir: x\nlog: {level: loud}":          "log.level",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
	if _, err := Load("/does/not/exist.yaml"); err == nil || !strings.Contains(err.Error(), "exist.yaml") {
		t.Errorf("missing file: %v", err)
	}
}
