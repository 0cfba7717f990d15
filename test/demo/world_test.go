package demo

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kadomori/kadomori/test/lab"
)

// The clinics' networks work on their own: with a plain bridge in the appliance's place every device gets its address by DHCP
// and reaches the Internet. What fails in the demo beyond this is ours.
func TestWorldWorksWithABridgeInPlaceOfTheAppliance(t *testing.T) {
	if m := lab.Missing(); m != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("missing: %s", m)
		}
		t.Skipf("missing: %s", m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := lab.New("world")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w, err := buildWorld(l, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range w.clinics {
		if err := c.box.Bridge("br0"); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"lan0", "wan0"} {
			if err := c.box.Run("ip", "link", "set", p, "master", "br0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	script, err := writeDHCPScript(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := startDNSMasq(ctx, w, filepath.Join(dir, "dnsmasq.log")); err != nil {
		t.Fatal(err)
	}
	if err := lease(ctx, w, script); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "dnsmasq.log"))
		t.Fatalf("%v\n%s", err, log)
	}
	if err := serveWorld(ctx, w, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	finished := 0
	if err := w.drive(ctx, func(*clinic) { finished++ }); err != nil {
		t.Fatal(err)
	}
	if finished != len(w.clinics) {
		t.Fatalf("%d of %d clinics finished their day", finished, len(w.clinics))
	}
}
