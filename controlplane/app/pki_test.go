package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreMadeShownAndRotated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "control.yaml")
	if err := os.WriteFile(config, []byte("data_dir: "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := Main(append(args, "--config", config), "test", &out, &out)
		return code, out.String()
	}
	if code, out := run("pki", "show"); code == 0 || !strings.Contains(out, "pki init") {
		t.Errorf("show of nothing: exit %d\n%s", code, out)
	}
	code, first := run("pki", "init")
	if code != 0 || !strings.Contains(first, "bundle key") || !strings.Contains(first, "take it offline") {
		t.Fatalf("init: exit %d\n%s", code, first)
	}
	if code, out := run("pki", "init"); code != 0 || out != first {
		t.Errorf("a second init changed something: exit %d\n%s", code, out)
	}
	if code, out := run("pki", "rotate"); code != 0 || !strings.Contains(out, "restart") {
		t.Errorf("rotate: exit %d\n%s", code, out)
	}
	code, after := run("pki", "show")
	was, is := strings.Split(first, "\n"), strings.Split(after, "\n")
	if code != 0 || was[0] != is[0] || was[1] == is[1] || was[3] != is[3] {
		t.Errorf("after the rotation: exit %d\n%s\nbefore\n%s", code, after, first)
	}
	if err := os.Remove(filepath.Join(dir, "pki", "ca.key")); err != nil {
		t.Fatal(err)
	}
	if code, out := run("pki", "rotate"); code == 0 || !strings.Contains(out, "root key is needed") {
		t.Errorf("rotate without the root key: exit %d\n%s", code, out)
	}
	if code, out := run("pki", "show"); code != 0 || !strings.Contains(out, "offline") {
		t.Errorf("show without the root key: exit %d\n%s", code, out)
	}
}

func TestNATSConfigurationIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nats")
	var out bytes.Buffer
	if code := Main([]string{"nats-config", "--dir", dir}, "test", &out, &out); code != 0 {
		t.Fatalf("exit %d\n%s", code, out.String())
	}
	for _, f := range []string{"credentials.yaml", "accounts.conf"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("%s: %v %v", f, info, err)
		}
	}
	if code := Main([]string{"nats-config", "--dir", dir}, "test", &out, &out); code == 0 {
		t.Error("existing credentials were overwritten")
	}
}
