package app

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/command"
	"github.com/kadomori/kadomori/dataplane/internal/fleet"
	"github.com/kadomori/kadomori/dataplane/internal/spool"
	"github.com/kadomori/kadomori/dataplane/internal/uplink"
	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

func sampleStatus() *Status {
	now := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	offset := int64(-1500)
	return &Status{
		Version: "1.2.3", Started: now.Add(-50 * time.Hour), Time: now, WireMode: "inline-native", Clinic: 3, Appliance: 12, Enrolled: true,
		ClinicName: "やまだ内科", NotAfter: now.Add(72 * time.Hour), KeyInTPM: true, LastSeq: 1234567, Committed: 1234000,
		Uplink: "connected", ControlPlane: "disconnected", PolicyVersion: 7, SigVersion: 9, RulesLoaded: 30000, RulesRefused: 12,
		UnprotectedMs: 1250,
		Drops:         []xdp.DropCount{{Reason: "blocked-destination", List: "c2", Count: xdp.Count{Packets: 4321, Bytes: 1 << 21}}},
		Refused:       []RefusedBundle{{"policy", 8, "bundle is expired"}},
		Wire: xdp.Status{Ports: []xdp.PortStatus{
			{Name: "lan0", Queues: 4, Sockets: 4, Handler: xdp.Count{Packets: 1000, Bytes: 1 << 30}},
			{Name: "wan0", Queues: 4, Sockets: 3, Cut: xdp.Count{Packets: 2000000, Bytes: 1 << 40}, Stale: xdp.Count{Packets: 7}},
		}, FlowLimit: 131072},
		Spool:       spool.Stats{Durable: 1234567, Depth: 567, Bytes: 3 << 20, Limit: 512 << 20, Segments: 2, Dropped: 4, Gaps: 1},
		UplinkStats: &uplink.Stats{Server: "tls://centre:7422", SentEvents: 1234567, Messages: 5000, SentBytes: 9 << 20},
		FleetStats:  &fleet.Stats{Address: "centre:7443", Since: now.Add(-time.Minute), OffsetMs: &offset, Error: "connection refused"},
		SelfTest:    &selfTestResult{Time: now.Add(-time.Hour), Passed: false, Detail: "no match"},
		Quarantined: []command.Device{{Text: "020000000009", Addr: netip.MustParseAddr("10.0.0.9")}},
	}
}

func TestStatusTableSaysWhatMatters(t *testing.T) {
	var b strings.Builder
	if err := writeStatus(&b, sampleStatus()); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	for _, want := range []string{
		"appliance 12 of clinic 3 やまだ内科", "inline-native", "2 days 2 h", "1.3s since start", "FAILED 1h0m0s ago: no match",
		"3/4", "2,000,000", "1.0 TiB", "blocked-destination", "4,321", "numbered", "1,234,567", "567 events", "3.0 MiB of 512.0 MiB",
		"4 dropped", "disconnected to centre:7443", "clock -1500 ms", "connection refused", "connected to tls://centre:7422", "key in TPM",
		"version 7", "30000 rules in force, 12 refused", "policy version 8: bundle is expired", "020000000009 10.0.0.9 until released",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("table lacks %q:\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if len([]rune(line)) > 140 {
			t.Errorf("line of %d columns: %s", len([]rune(line)), line)
		}
		if strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
			t.Errorf("trailing space: %q", line)
		}
	}
}

func TestStatusTellsTroubleFirst(t *testing.T) {
	s := sampleStatus()
	s.Enrolled, s.Enrolment, s.UnprotectedCause = false, "the claim is wrong", "packet loop late"
	s.Spool.Memory, s.SpoolError = true, errors.New("read-only file system").Error()
	s.FleetStats, s.UplinkStats, s.SelfTest, s.Drops = nil, nil, nil, nil
	var b strings.Builder
	if err := writeStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"not enrolled: the claim is wrong", "OFF: packet loop late", "IN MEMORY ONLY: read-only file system", "not yet", "none"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestStatusKeepsItsNames(t *testing.T) {
	b, err := json.Marshal(sampleStatus())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"appliance_id", "clinic_id", "stream_id", "last_seq", "committed_through", "uplink", "control_plane", "wire_mode", "drops",
		"policy_version", "signature_version", "rules_loaded", "rules_refused", "unprotected_ms", "spool", "engine", "wire", "self_test", "quarantined",
	} {
		if _, ok := m[name]; !ok {
			t.Errorf("status has no %s", name)
		}
	}
	var again Status
	if err := json.Unmarshal(b, &again); err != nil {
		t.Errorf("status does not read back: %v", err)
	}
}

func TestCountsAndSizesAreReadable(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %s", n, got)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 30: "1.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s", n, got)
		}
	}
	for d, want := range map[time.Duration]string{1250 * time.Millisecond: "1.3s", 90 * time.Second: "1m30s", 50 * time.Hour: "2 days 2 h"} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %s", d, got)
		}
	}
}
