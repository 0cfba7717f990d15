package broker_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
)

// The server doesn't come back by itself after its volume was full; the canary notices and restarts it. A real, small volume.
func TestCanaryRestartsServerAfterFullVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to mount a small volume")
		}
		t.Skip("needs root to mount a small volume")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatalf("mount a small volume: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s := startBroker(t, func(c *broker.Config) {
		c.StoreDir, c.MaxBytes, c.CanaryInterval = dir, 1<<30, 100*time.Millisecond
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	b := s.mustConnect(t, 1, 7)
	body, acked := make([]byte, 256<<10), uint64(0)
	for range 200 {
		if err := b.Publish("evt.1.7", body); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(50 * time.Second)
	for s.counter(t, "kadomori_broker_restarts_total") == 0 {
		if time.Now().After(deadline) {
			t.Skip("the server went on storing on a full volume: nothing to restart")
		}
		acked = max(acked, s.storedIfAnswering(t)["evt.1.7"])
		<-time.After(20 * time.Millisecond)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := s.connect(t, 1, 7)
		if err == nil {
			if _, err = c.js.Publish(testContext(t), "evt.1.7", []byte("after")); err == nil {
				break
			}
		}
		if time.Now().After(deadline.Add(20 * time.Second)) {
			t.Fatalf("the server stores nothing after there is space again: %v", err)
		}
	}
	// The connection inside the process finds the new server by itself.
	kept := s.storedIfAnswering(t)
	for ; kept == nil && time.Now().Before(deadline.Add(20*time.Second)); kept = s.storedIfAnswering(t) {
		<-time.After(20 * time.Millisecond)
	}
	if got := kept["evt.1.7"]; got == 0 || got < acked {
		t.Errorf("%d messages after the restart, %d were stored before", got, acked)
	}
	t.Logf("restarts: %v, messages kept: %d", s.counter(t, "kadomori_broker_restarts_total"), kept["evt.1.7"])
}
