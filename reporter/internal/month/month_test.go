package month_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
)

var update = flag.Bool("update", false, "write the golden facts anew")

func TestParse(t *testing.T) {
	m, err := month.Parse("2028-02")
	if err != nil {
		t.Fatal(err)
	}
	if m.Days() != 29 || m.String() != "2028-02" || m.Add(-2).String() != "2027-12" || m.Add(11).String() != "2029-01" {
		t.Errorf("%s has %d days, %s before, %s after", m, m.Days(), m.Add(-2), m.Add(11))
	}
	if got := m.Start().UTC().Format(time.RFC3339); got != "2028-01-31T15:00:00Z" {
		t.Errorf("starts at %s", got)
	}
	for _, bad := range []string{"", "2026-13", "2026-1", "26-01", "2026-01-01", "1999-01", "2100-01", "２０２６-01"} {
		if _, err := month.Parse(bad); err == nil || !strings.Contains(err.Error(), "YYYY-MM") {
			t.Errorf("Parse(%q): %v", bad, err)
		}
	}
}

// TestGoldenFacts compares every fact of every case with the reviewed ones.
func TestGoldenFacts(t *testing.T) {
	for _, name := range monthtest.Names {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(monthtest.Named(t, name).Facts(t), "", " ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				a, b := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
				for i := range min(len(a), len(b)) {
					if a[i] != b[i] {
						t.Fatalf("line %d: got %s, want %s (run with -update if this is meant)", i+1, a[i], b[i])
					}
				}
				t.Fatalf("got %d lines, want %d", len(a), len(b))
			}
		})
	}
}

// TestEveryNumberNamesItsRows walks all facts: each number has an entry of evidence with the same value or one that covers it.
func TestEveryNumberNamesItsRows(t *testing.T) {
	for _, name := range monthtest.Names {
		f := monthtest.Named(t, name).Facts(t)
		raw, err := f.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		entries := map[string]month.Evidence{}
		for _, e := range f.Evidence {
			entries[e.ID] = e
			var n int64
			for _, s := range e.Of {
				n += s.Count
			}
			if len(e.Of) > 0 && n != e.Rows {
				t.Errorf("%s: %s names %d events, says %d", name, e.What, n, e.Rows)
			}
			if e.Value > 0 && e.Unit == "count" && e.Rows == 0 {
				t.Errorf("%s: %s is %d out of no rows", name, e.What, e.Value)
			}
		}
		var walk func(path string, v any)
		walk = func(path string, v any) {
			switch v := v.(type) {
			case map[string]any:
				if n, ok := v["n"].(float64); ok {
					ev, _ := v["ev"].(string)
					e, known := entries[ev]
					// A month of the trend shares one entry, and a month without observation has none.
					if strings.Contains(path, "/trend") {
						if n != 0 && !known {
							t.Errorf("%s: %s = %v without evidence", name, path, n)
						}
						return
					}
					if !known || e.Value != int64(n) {
						t.Errorf("%s: %s = %v, its evidence %q says %d", name, path, n, ev, e.Value)
					}
					return
				}
				for k, x := range v {
					walk(path+"/"+k, x)
				}
			case []any:
				for _, x := range v {
					walk(path, x)
				}
			}
		}
		walk("", v)
	}
}

func TestVerdicts(t *testing.T) {
	for name, want := range map[string]struct {
		verdict month.Verdict
		reasons string
	}{
		"clear": {month.OK, ""}, "infected": {month.Act, "infected"}, "many": {month.Act, "infected"}, "gap": {month.Hold, "lost"},
		"hold": {month.Hold, "uptime"}, "blind": {month.Hold, "no-coverage"}, "empty": {month.Hold, "no-coverage"}, "running": {month.OK, ""},
		"passed": {month.Warn, "passed"}, "care": {month.Act, "infected"},
	} {
		f := monthtest.Named(t, name).Facts(t)
		if got := strings.Join(f.Reasons, " "); f.Verdict != want.verdict || got != want.reasons {
			t.Errorf("%s: %s (%s), want %s (%s)", name, f.Verdict, got, want.verdict, want.reasons)
		}
	}
}

func TestInfectedDeviceOutweighsMissingCoverage(t *testing.T) {
	c := monthtest.Named(t, "hold")
	c.Infect(22, "clinical", 1, "D12-address")
	if f := c.Facts(t); f.Verdict != month.Act || strings.Join(f.Reasons, " ") != "infected uptime" {
		t.Errorf("%s, %v", f.Verdict, f.Reasons)
	}
}

func TestOrderOfRowsChangesNothing(t *testing.T) {
	c := monthtest.Named(t, "many")
	want, err := c.Facts(t).Digest()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(c.Findings), func(i, j int) { c.Findings[i], c.Findings[j] = c.Findings[j], c.Findings[i] })
	r.Shuffle(len(c.In.Infected), func(i, j int) { c.In.Infected[i], c.In.Infected[j] = c.In.Infected[j], c.In.Infected[i] })
	r.Shuffle(len(c.In.Coverage), func(i, j int) { c.In.Coverage[i], c.In.Coverage[j] = c.In.Coverage[j], c.In.Coverage[i] })
	r.Shuffle(len(c.In.Apps), func(i, j int) { c.In.Apps[i], c.In.Apps[j] = c.In.Apps[j], c.In.Apps[i] })
	if got, err := c.Facts(t).Digest(); err != nil || got != want {
		t.Errorf("digest %x, want %x (%v)", got, want, err)
	}
}

func TestSharesAddUpToTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		c := monthtest.Clear(t)
		n := r.IntN(40)
		for i := range n {
			c.In.Apps = append(c.In.Apps, month.TrafficApp{App: string(rune('a' + i)), Guest: r.IntN(3) == 0, In: r.Int64N(1 << uint(r.IntN(45))), Out: r.Int64N(1000), Rows: 1})
		}
		var sum, bytes int64
		f := c.Facts(t)
		for _, s := range f.Traffic.Shares {
			sum += s.Tenths
			bytes += s.Bytes.N
		}
		if bytes > 0 && sum != 1000 || len(f.Traffic.Shares) > 11 {
			t.Fatalf("%d shares add up to %d tenths", len(f.Traffic.Shares), sum)
		}
	}
}

func TestGuestsAreNeverNamed(t *testing.T) {
	c := monthtest.Named(t, "many")
	raw, err := c.Facts(t).Canonical()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{monthtest.MAC(900).String(), monthtest.IP(900).String(), "HanakonoiPhone", "Hanako"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("facts hold the guest's %s", secret)
		}
	}
}

func TestCareCriticalDevicesAreCalledAboutFirst(t *testing.T) {
	f := monthtest.Named(t, "care").Facts(t)
	if !f.Infected.Devices[0].CareCritical || f.Asks[0].Kind != "infected-care" {
		t.Errorf("care %v, ask %s", f.Infected.Devices[0].CareCritical, f.Asks[0].Kind)
	}
	if f := monthtest.Infected(t).Facts(t); f.Infected.Devices[0].CareCritical {
		t.Error("a reception PC counts as care-critical")
	}
}

func TestCoverageCountsFromInstallation(t *testing.T) {
	f := monthtest.Named(t, "running").Facts(t)
	if f.Coverage.Uptime.N != 1000 || !strings.HasPrefix(f.Coverage.Since, "2026-10-04T09:12") || !f.Running {
		t.Errorf("uptime %d since %s, running %v", f.Coverage.Uptime.N, f.Coverage.Since, f.Running)
	}
	day := f.Coverage.Hours[3]
	if day != "---------ooooooooooooooo" {
		t.Errorf("hours of the 4th: %s", day)
	}
	if f.Coverage.Hours[8] != "ooooooooooooooo---------" {
		t.Errorf("hours of the 9th: %s", f.Coverage.Hours[8])
	}
}

func TestGroupAddressesAreNoDevices(t *testing.T) {
	c := monthtest.Clear(t)
	before := c.Facts(t)
	c.In.Devices = append(c.In.Devices,
		month.Device{MAC: month.MAC{0x01, 0, 0x5e, 0, 0, 0xfb}, Zone: "clinical", First: c.In.Month.Start(), Last: c.In.Month.End()},
		month.Device{MAC: month.MAC{0x02, 9}, IP: netip.MustParseAddr("ff02::fb"), Zone: "clinical", First: c.In.Month.Start(), Last: c.In.Month.End()})
	c.In.TopDevices = append(c.In.TopDevices, month.TrafficDevice{MAC: month.MAC{0x01, 0, 0x5e, 0, 0, 0xfb}, Zone: "clinical", In: 5, Rows: 1})
	f := c.Facts(t)
	if f.Infected.Observed.N != before.Infected.Observed.N {
		t.Errorf("observed %d, want %d", f.Infected.Observed.N, before.Infected.Observed.N)
	}
	for _, d := range f.Traffic.Devices {
		if strings.HasPrefix(d.Key, "01:00:5e") {
			t.Error("a group address is ranked as a device")
		}
	}
}

func TestUptimeIsRoundedDown(t *testing.T) {
	c := monthtest.Clear(t)
	c.In.Coverage[5].ReportedMS -= 1
	if f := c.Facts(t); f.Coverage.Uptime.N != 999 {
		t.Errorf("uptime %d: one lost millisecond must not read 100.0%%", f.Coverage.Uptime.N)
	}
}

func TestUnprotectedTimeIsJoinedAndTakenOff(t *testing.T) {
	f := monthtest.Named(t, "gap").Facts(t)
	if got := f.Coverage.UnprotectedMS.N; got != (4*60+12)*60_000 {
		t.Errorf("unprotected %d ms, want 4h12m", got)
	}
	c := monthtest.Clear(t)
	c.In.Coverage[5].UnprotectedMS = 3_600_000
	f = c.Facts(t)
	if f.Coverage.Uptime.N != 998 || f.Coverage.UnprotectedMS.N != 3_600_000 {
		t.Errorf("uptime %d, unprotected %d", f.Coverage.Uptime.N, f.Coverage.UnprotectedMS.N)
	}
}

func TestRefusesWhatIsNotOfTheMonth(t *testing.T) {
	c := monthtest.Clear(t)
	c.Find(month.Finding{T: c.In.Month.End(), Category: "scan"})
	b, err := month.NewBuilder(c.In)
	if err != nil {
		t.Fatal(err)
	}
	b.Finding(&c.Findings[0])
	if _, err := b.Facts(); err == nil || !strings.Contains(err.Error(), "is not in 2026-10") {
		t.Errorf("got %v", err)
	}
	in := c.In
	in.Now = in.Month.Start().Add(-time.Second)
	if _, err := month.NewBuilder(in); err == nil || !strings.Contains(err.Error(), "has not begun") {
		t.Errorf("got %v", err)
	}
	in = c.In
	in.Clinic.ID = 0
	if _, err := month.NewBuilder(in); err == nil {
		t.Error("no clinic is taken")
	}
}

func TestCanonicalSurvivesAnotherOrder(t *testing.T) {
	a, err := month.Canonical([]byte(`{"b": 1, "a": {"y": "<&>", "x": [12345678901234567]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != `{"a":{"x":[12345678901234567],"y":"<&>"},"b":1}` {
		t.Errorf("got %s", a)
	}
}
