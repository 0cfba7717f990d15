package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfigTellsWhatIsWrongAndWhere(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":        {"state_dir: /x\nstate_dri: /y\n", "[2:1]"},
		"unknown nested key": {"ports: {lan: a, wan: b, dmz: c}\n", "dmz"},
		"wrong type":         {"ports: 3\n", "ports"},
		"relative path":      {"state_dir: here\n", "state_dir"},
		"mode":               {"mode: bridge\n", "inline nor tap"},
		"attach":             {"attach: fast\n", "attach"},
		"same port":          {"ports: {lan: eth0, wan: eth0}\n", "both"},
		"tap with wan":       {"mode: tap\nports: {lan: a, wan: b}\n", "ports.wan"},
		"queues":             {"queues: 17\n", "queues"},
		"key store":          {"keys: {store: hsm}\n", "keys.store"},
		"small spool":        {"spool: {max_bytes: 5}\n", "spool.max_bytes"},
		"log level":          {"log: {level: loud}\n", "log.level"},
		"log format":         {"log: {format: xml}\n", "log.format"},
		"listen":             {"metrics_listen: nine\n", "metrics_listen"},
		"duration":           {"self_test_every: soon\n", "soon"},
		"not yaml":           {"a: [", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseConfig([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("ParseConfig = %v, want it to name %q", err, tc.want)
			}
		})
	}
}

func TestZeroConfigWorks(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "ports: {lan: lan0, wan: wan0}\n"} {
		cfg, err := ParseConfig([]byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if cfg.StateDir != "/var/lib/kadomori" || cfg.Mode != "inline" || time.Duration(cfg.SelfTestEvery) != 24*time.Hour {
			t.Errorf("%q: %+v", text, cfg)
		}
	}
	cfg, err := ParseConfig([]byte("self_test_every: 90s\nmanagement: {report_every: \"2m\"}\n"))
	if err != nil || time.Duration(cfg.SelfTestEvery) != 90*time.Second || time.Duration(cfg.Management.ReportEvery) != 2*time.Minute {
		t.Errorf("durations: %+v, %v", cfg, err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("ports: {lan: lan0, wan: wan0}\nmode: inline\n"))
	f.Add([]byte("spool:\n  max_bytes: 999999999999999999999\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4<<10 {
			return
		}
		ParseConfig(b)
	})
}

func run(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = Main(args, &out, &err)
	return code, out.String(), err.String()
}

func TestCommandsGiveOneClearError(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		config string
		args   []string
		want   string
	}{
		"run without ports":       {"state_dir: " + dir + "\n", []string{"run", "-f", file}, "ports.lan"},
		"run with unknown key":    {"prots: 1\n", []string{"run", "-f", file}, "prots"},
		"validate":                {"state_dir: " + dir + "\n", []string{"validate", "-f", file}, "ports.lan"},
		"missing file":            {"", []string{"validate", "-f", filepath.Join(dir, "none.yaml")}, "none.yaml"},
		"status of nothing":       {"state_dir: " + dir + "\n", []string{"status", "-f", file}, "does it run"},
		"bypass of nothing":       {"state_dir: " + dir + "\n", []string{"bypass", "on", "-f", file}, "does it run"},
		"bypass what":             {"", []string{"bypass", "maybe", "-f", file}, "maybe"},
		"enroll without claim":    {"state_dir: " + dir + "\n", []string{"enroll", "-f", file}, "claim"},
		"enroll with a bad claim": {"state_dir: " + dir + "\n", []string{"enroll", "-f", file, "--claim", "kdm1-zzz"}, "claim"},
		"unknown command":         {"", []string{"fly"}, "fly"},
	} {
		t.Run(name, func(t *testing.T) {
			write(tc.config)
			code, _, stderr := run(tc.args...)
			if code != 1 || !strings.Contains(stderr, tc.want) || strings.Count(strings.TrimSpace(stderr), "kadomori-agent: ") != 1 {
				t.Errorf("code %d, stderr %q, want it to name %q", code, stderr, tc.want)
			}
		})
	}
	write("ports: {lan: lan-x, wan: wan-x}\n")
	if code, out, stderr := run("validate", "-f", file); code != 0 || !strings.Contains(out, "good") || !strings.Contains(out, "lan-x") {
		t.Errorf("validate: %d, %q, %q", code, out, stderr)
	}
	if code, out, _ := run("version"); code != 0 || !strings.Contains(out, Version) {
		t.Errorf("version: %d, %q", code, out)
	}
}

func TestShippedConfigurationIsGood(t *testing.T) {
	cfg, err := ReadConfig(filepath.Join("..", "..", "deploy", "systemd", "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.checkPorts(); err != nil {
		t.Error(err)
	}
}
