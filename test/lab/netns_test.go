package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// needLab skips, or in CI fails, when this machine can't build a lab.
func needLab(t *testing.T) {
	t.Helper()
	if m := Missing(); m != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", m)
		}
		t.Skipf("%s is missing", m)
	}
}

func TestLabLeavesNothingBehind(t *testing.T) {
	needLab(t)
	l, err := New("selftest")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var hosts []*Host
	for _, n := range []string{"a", "sw", "b"} {
		h, err := l.Host(n)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	if err := hosts[1].Bridge("br0"); err != nil {
		t.Fatal(err)
	}
	for i, h := range []*Host{hosts[0], hosts[2]} {
		addr := []string{"10.9.0.1/24", "10.9.0.2/24"}[i]
		err := l.Link(End{Host: h, Name: "eth0", Addresses: []string{addr}},
			End{Host: hosts[1], Name: "p" + h.Name(), Bridge: "br0"}, LinkOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := hosts[0].Run("ping", "-c1", "-W5", "10.9.0.2"); err != nil {
		t.Fatal(err)
	}
	bpf, err := l.BPFFS()
	if err != nil {
		t.Fatal(err)
	}
	done, err := hosts[0].Start(hosts[0].Command(t.Context(), "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	if left, _ := filepath.Glob(filepath.Join(netnsDir, l.name+"-*")); len(left) != 0 {
		t.Errorf("namespaces left: %v", left)
	}
	if m, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(m), bpf) {
		t.Errorf("mount left (%v): %s", err, bpf)
	}
	if _, err := os.Stat(l.Dir()); !os.IsNotExist(err) {
		t.Errorf("folder left: %v", err)
	}
}
