package app

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := sdNotify(t.Context(), path, "READY=1"); err != nil {
		t.Fatal(err)
	}
	l.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	for usec, want := range map[string]time.Duration{"": time.Minute, "x": time.Minute, "30000000": 15 * time.Second, "-5": time.Minute} {
		if got := watchdogInterval(usec); got != want {
			t.Errorf("watchdogInterval(%q) = %v, want %v", usec, got, want)
		}
	}
}
