// Package monthtest builds months for tests: rows as the database would give them, invented, with addresses of the
// documentation ranges. The trap: everything is derived from the names given here; there is no randomness.
package monthtest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Month is the month of all cases: October 2026.
func Month(tb testing.TB) month.Month {
	tb.Helper()
	m, err := month.Parse("2026-10")
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// Case is rows in the making.
type Case struct {
	In       month.Input
	Findings []month.Finding
	seq      int64
}

// Stream is the stream of all events of the cases.
var Stream = [16]byte{0x9f, 0x3c, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee}

// MAC is the n-th device's.
func MAC(n int) month.MAC { return month.MAC{0x02, 0, 0x5e, 0, byte(n >> 8), byte(n)} }

// IP is the n-th device's.
func IP(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, byte(10 + n>>8), byte(n)}) }

// Clear is a watched month of a clinic with five devices, traffic and nothing found.
func Clear(tb testing.TB) *Case {
	tb.Helper()
	m := Month(tb)
	c := &Case{In: month.Input{
		Month: m, Now: m.End().Add(33 * time.Hour), Revision: 1,
		Clinic:   month.Clinic{ID: 147, Code: "C147", Name: "さくら通り内科クリニック", Director: "佐倉 真理子", Hours: "月火水金 9:00-13:00 15:00-19:00; 木土 9:00-13:00"},
		Sender:   month.Sender{Name: "みほん保守サポート株式会社", Desk: "医療ネットワーク保守窓口", Phone: "0120-000-000", Hours: "平日 9:00〜18:00"},
		Holidays: []string{"2026-10-12"}, CareWords: []string{"サーバ", "nas", "レセ", "カルテ"},
	}}
	c.In.Appliances = []month.Appliance{{
		ID: 7, Name: "KM-0007", State: "approved", Version: "1.0.0", PolicyVersion: 4, SignatureVersion: 31,
		Created: m.Add(-12).Start(), FirstHour: m.Add(-12).Start(),
	}}
	c.In.Ledger = []month.Ledger{{Appliance: 7, Stream: Stream, First: m.Add(-12).Start(), Last: m.End(), Received: 48211}}
	c.In.Zones = []month.TrafficZone{{Zone: "clinical", In: 1, Out: 1, Rows: 1}, {Zone: "guest", In: 1, Out: 1, Rows: 1}}
	for h := m.Start(); h.Before(m.End()); h = h.Add(time.Hour) {
		c.In.Coverage = append(c.In.Coverage, month.Coverage{
			Appliance: 7, Hour: h, ReportedMS: 3_600_000, PacketsSeen: 90_000, BytesClear: 20, BytesName: 70, BytesOpaque: 10,
		})
	}
	for h := m.Start().AddDate(0, 0, -28); h.Before(m.End()); h = h.Add(time.Hour) {
		n := int64(120_000_000)
		if at := h.In(month.JST); at.Hour() >= 8 && at.Hour() < 20 && at.Weekday() != time.Sunday {
			n = 1_050_000_000 + int64(at.Day()*7%11)*20_000_000
		}
		c.In.Hours = append(c.In.Hours, month.TrafficHour{Hour: h, In: n * 7 / 8, Out: n / 8, Rows: 6})
	}
	for i, name := range []string{"受付PC-1", "受付PC-2", "院長室PC", "診察室PC-1", "検査室NAS"} {
		c.Device(i+21, name, "clinical")
	}
	c.In.Devices = append(c.In.Devices, month.Device{MAC: MAC(900), Zone: "guest", Hostname: "HanakonoiPhone", Anonymous: true, First: m.Start(), Last: m.End()})
	for i := -11; i < 0; i++ {
		past := month.PastMonth{Month: m.Add(i), ReportedMS: 2_600_000_000}
		if i < -8 {
			past.ReportedMS = 0
		}
		c.In.Past = append(c.In.Past, past)
	}
	return c
}

// Device adds a device and traffic of it.
func (c *Case) Device(n int, name, zone string) {
	m := c.In.Month
	c.In.Devices = append(c.In.Devices, month.Device{MAC: MAC(n), IP: IP(n), Zone: zone, Name: name, First: m.Start().AddDate(0, -3, 0), Last: m.End().Add(-time.Hour)})
	c.In.TopDevices = append(c.In.TopDevices, month.TrafficDevice{MAC: MAC(n), Zone: zone, In: int64(n) * 2_100_000_000, Out: int64(n) * 310_000_000, Rows: 744})
}

// Apps gives the month an application mix like a clinic's, guests included, and the month before one slightly different.
func (c *Case) Apps() {
	for i, a := range []struct {
		app   string
		guest bool
		mb    int64
	}{
		{"https", false, 100_834},
		{"windows-update", false, 79_110},
		{"rsync", false, 66_900},
		{"youtube", true, 56_021},
		{"zoom", false, 39_100},
		{"orca", false, 35_807},
		{"imap", false, 23_110},
		{"eligibility", false, 17_900},
		{"line", true, 14_604},
		{"smb", false, 11_300},
		{"dns", false, 9_001},
		{"http", false, 7_350},
		{"unknown", false, 6_007},
		{"ntp", false, 403},
	} {
		b := a.mb * 1_000_000
		c.In.Apps = append(c.In.Apps, month.TrafficApp{App: a.app, Guest: a.guest, In: b * 7 / 8, Out: b - b*7/8, Rows: 700})
		was := b * int64(95+i%5) / 100
		c.In.AppsWas = append(c.In.AppsWas, month.TrafficApp{App: a.app, Guest: a.guest, In: was * 7 / 8, Out: was - was*7/8, Rows: 690})
	}
	c.In.TopDevices = append(c.In.TopDevices, month.TrafficDevice{MAC: MAC(900), Zone: "guest", In: 60_000_000_000, Out: 10_600_000_000, Rows: 700})
}

// ID is the next event's.
func (c *Case) ID() month.EventID {
	c.seq++
	return month.EventID{Appliance: 7, Stream: Stream, Seq: c.seq}
}

// Find adds a finding.
func (c *Case) Find(f month.Finding) {
	f.ID = c.ID()
	if f.Kind == "" {
		f.Kind = "alert"
	}
	if f.Count == 0 {
		f.Count = 1
	}
	c.Findings = append(c.Findings, f)
}

// At is a moment of the month.
func (c *Case) At(day, hour, minute int) time.Time {
	s := c.In.Month.Start()
	return time.Date(s.Year(), s.Month(), day, hour, minute, 0, 0, month.JST)
}

// Attacks adds the noise of the Internet, all of it blocked: scans with a burst in the night of the 14th, and exploit attempts.
func (c *Case) Attacks() {
	sources := []string{"198.51.100.9", "203.0.113.77", "198.51.100.201", "203.0.113.5", "2001:db8:77::9", "192.0.2.44"}
	for d := 1; d <= 31; d++ {
		for h := range 24 {
			n := int64((d*31+h*17+d*h)%13) - 8
			if d == 14 && h >= 2 && h < 5 {
				n = 120
			}
			if n <= 0 {
				continue
			}
			src := netip.MustParseAddr(sources[(d+h*h)%len(sources)])
			f := month.Finding{
				T: c.At(d, h, (d*7+h)%60), Kind: "block", Category: "scan", Action: "blocked", Count: n, Severity: 2, Direction: month.Inbound,
				Src: src, Dst: netip.MustParseAddr("192.0.2.1"), DstPort: 23,
			}
			if h%5 == 0 {
				f.Kind, f.Category, f.Severity, f.Rule, f.Title = "alert", "intrusion", 4, "1:2100498", "EXPLOIT attempt"
				f.MAC, f.IP, f.Dst, f.Count = MAC(21+d%4), IP(21+d%4), IP(21+d%4), 1
			}
			c.Find(f)
		}
	}
	for i := range 7 {
		n := 21 + i%4
		c.Find(month.Finding{
			T: c.At(3+i*4, 10+i, 15), Category: "malware", Action: "blocked", Severity: 4, Rule: "1:2200001", Title: "MALWARE download",
			Direction: month.Outbound, Src: IP(n), Dst: netip.MustParseAddr("203.0.113.88"), DstPort: 80, Indicator: "dl.example.net", MAC: MAC(n), IP: IP(n), Zone: "clinical",
		})
	}
	for i := -11; i < 0; i++ {
		m := c.In.Month.Add(i)
		c.In.PastFindings = append(c.In.PastFindings,
			month.PastFindings{Month: m, Category: "malware", Action: "blocked", Count: int64(-i * 5 % 7), Rows: int64(-i * 5 % 7)},
			month.PastFindings{Month: m, Category: "scan", Action: "blocked", Count: 968, Rows: 500},
			month.PastFindings{Month: m, Category: "intrusion", Action: "blocked", Count: 302, Rows: 302})
	}
}

// Infect lets a device talk to a command server every hour, three times, stopped each time.
func (c *Case) Infect(n int, zone string, certainty int16, signals ...string) {
	ip := IP(n)
	for i := range 3 {
		c.Find(month.Finding{
			T: c.At(27, 21, 41).Add(time.Duration(i) * time.Hour), Kind: "detection", Category: "bot", Action: "blocked", Severity: 5,
			Rule: "D12-address", Title: "c2", Indicator: "198.51.100.77", Direction: month.Outbound, Src: ip, Dst: netip.MustParseAddr("198.51.100.77"), DstPort: 443,
			MAC: MAC(n), IP: ip, Zone: zone,
		})
	}
	c.In.Infected = append(c.In.Infected, month.Infected{ID: c.ID(), T: c.At(27, 22, 41), Certainty: certainty, MAC: MAC(n), IP: ip, Zone: zone, Signals: signals})
}

// Infected is the month of the sample: attacks, and one device under suspicion.
func Infected(tb testing.TB) *Case {
	c := Clear(tb)
	c.Apps()
	c.Attacks()
	c.Devices()
	c.Infect(22, "clinical", 1, "D12-address")
	return c
}

// Devices adds what the page about devices tells: one without a name, a new one, one long gone, remote control, updates, and
// guests who knocked at the clinical zone.
func (c *Case) Devices() {
	m := c.In.Month
	c.In.Devices = append(c.In.Devices,
		month.Device{MAC: MAC(61), IP: IP(61), Zone: "clinical", Hostname: "RICOH-MP-C3004", First: m.Start().AddDate(0, -2, 0), Last: m.End().Add(-time.Hour)},
		month.Device{MAC: MAC(62), IP: IP(62), Zone: "iot", First: c.At(20, 11, 5), Last: m.End().Add(-time.Hour)},
		month.Device{MAC: MAC(63), IP: IP(63), Zone: "clinical", Name: "旧レセコン", First: m.Start().AddDate(0, -4, 0), Last: m.Start().AddDate(0, 0, -12)})
	c.In.RemoteApps, c.In.UpdateApps = []string{"anydesk", "teamviewer"}, []string{"windows-update"}
	for i := range 3 {
		c.In.Uses = append(c.In.Uses, month.TrafficUse{App: "windows-update", MAC: MAC(21 + i), Zone: "clinical", In: 26_000_000_000, Out: 370_000_000, Rows: 300, First: c.At(2, 2, 0), Last: c.At(30, 3, 0)})
	}
	c.In.Uses = append(c.In.Uses,
		month.TrafficUse{App: "teamviewer", MAC: MAC(24), Zone: "clinical", In: 31_000_000, Out: 240_000_000, Rows: 3, First: c.At(12, 2, 0), Last: c.At(12, 3, 0)},
		month.TrafficUse{App: "anydesk", MAC: MAC(900), Zone: "guest", In: 1_000_000, Out: 2_000_000, Rows: 1, First: c.At(13, 12, 0), Last: c.At(13, 12, 0)})
	for i := range 4 {
		c.Find(month.Finding{
			T: c.At(5+i*5, 13, 20), Kind: "block", Category: "policy", Action: "blocked", Count: int64(7 + i), Direction: month.Internal,
			Src: netip.MustParseAddr("192.168.20.31"), Dst: IP(25), DstPort: 445, MAC: MAC(900), Zone: "guest",
		})
	}
}

// Facts adds the case up.
func (c *Case) Facts(tb testing.TB) *month.Facts {
	tb.Helper()
	b, err := month.NewBuilder(c.In)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range c.Findings {
		b.Finding(&c.Findings[i])
	}
	f, err := b.Facts()
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// Names of all cases, for tests that render every one of them.
var Names = []string{"clear", "infected", "many", "hostile", "gap", "hold", "blind", "empty", "running", "passed", "care"}

// Named builds a case by its name.
func Named(tb testing.TB, name string) *Case {
	tb.Helper()
	switch name {
	case "clear":
		c := Clear(tb)
		c.Apps()
		return c
	case "infected":
		return Infected(tb)
	case "many": // twelve devices under suspicion, a guest among them
		c := Infected(tb)
		for i := range 10 {
			c.Device(40+i, fmt.Sprintf("診察室PC-%d", i+2), "clinical")
			c.Infect(40+i, "clinical", int16(1+i%3), "D12-address", "alert:2100001")
		}
		c.Infect(900, "guest", 2, "D12-address", "D12-domain")
		return c
	case "hostile":
		c := Infected(tb)
		c.In.Clinic.Name = `𠮷田"><script>alert(1)</script><img src=http://example.com/x>` + "\u202e" + `医療法人社団長い名前のクリニックでございますよ`
		c.In.Clinic.Director = "髙﨑 邉子\u0000\u2066"
		c.In.Devices[1].Name = `𠮷"><style>@import url(http://example.com/)</style></title>とても長い端末の名前`
		c.In.Devices[0].Name, c.In.Devices[0].Hostname = "", "花子のiPhone"
		c.In.Devices[2].Name = `=HYPERLINK("http://example.com")`
		c.In.Sender.Name = "</style><script>x</script>"
		c.Find(month.Finding{
			T: c.At(9, 9, 9), Kind: "detection", Category: "bad_site", Action: "blocked", Direction: month.Outbound, Src: IP(22), MAC: MAC(22), IP: IP(22),
			Dst: netip.MustParseAddr("203.0.113.9"), Indicator: `"><script>.example.net`, Zone: "clinical", Count: 9999,
		})
		return c
	case "gap": // unprotected time, an outage and lost records
		c := Infected(tb)
		c.In.Infected = nil
		c.Findings = c.Findings[:len(c.Findings)-3]
		for i := 400; i < 404; i++ {
			c.In.Coverage[i].ReportedMS = 0
		}
		c.In.Unprotected = []month.Unprotected{
			{ID: c.ID(), From: c.At(17, 16, 0), To: c.At(17, 20, 0), Cause: "agent_died"},
			{ID: c.ID(), From: c.At(17, 19, 30), To: c.At(17, 20, 12), Cause: "bypass"},
		}
		c.In.Ledger[0].LostDeclared, c.In.Ledger[0].LostUndeclared = 120, 3
		return c
	case "hold":
		c := Clear(tb)
		c.Apps()
		for i := 100; i < 200; i++ {
			c.In.Coverage[i].ReportedMS = 0
		}
		return c
	case "blind": // the appliance is there and said nothing all month
		c := Clear(tb)
		c.In.Coverage, c.In.Ledger, c.In.Hours, c.In.TopDevices, c.In.Zones, c.In.Devices = nil, nil, nil, nil, nil, nil
		return c
	case "empty": // a new clinic: no appliance, no director, no sender, nothing
		m := Month(tb)
		return &Case{In: month.Input{Month: m, Now: m.End().Add(time.Hour), Clinic: month.Clinic{ID: 1, Name: "新しい医院"}}}
	case "running": // on the 9th, five days after the appliance came
		c := Infected(tb)
		c.In.Now = c.At(9, 14, 23)
		c.In.Appliances[0].Created, c.In.Appliances[0].FirstHour = c.At(4, 9, 10), c.At(4, 9, 0)
		c.In.Ledger[0].First = c.At(4, 9, 12)
		kept := c.In.Coverage[:0]
		for _, r := range c.In.Coverage {
			if !r.Hour.Before(c.At(4, 9, 0)) && r.Hour.Before(c.In.Now) {
				kept = append(kept, r)
			}
		}
		kept[len(kept)-1].ReportedMS = 22 * 60_000
		kept[0].ReportedMS = 48 * 60_000
		c.In.Coverage = kept
		hours := c.In.Hours[:0]
		for _, h := range c.In.Hours {
			if !h.Hour.Before(c.At(4, 9, 0)) && h.Hour.Before(c.In.Now) {
				hours = append(hours, h)
			}
		}
		c.In.Hours = hours
		findings := c.Findings[:0]
		for _, f := range c.Findings {
			if !f.T.Before(c.At(4, 9, 0)) && f.T.Before(c.In.Now) {
				findings = append(findings, f)
			}
		}
		c.Findings, c.In.Infected, c.In.PastFindings, c.In.AppsWas = findings, nil, nil, nil
		for i := range c.In.Past {
			c.In.Past[i].ReportedMS = 0
		}
		return c
	case "passed": // in a zone that only notifies
		c := Clear(tb)
		c.Apps()
		for i := range 4 {
			c.Find(month.Finding{
				T: c.At(5+i, 11, 3), Category: "intrusion", Action: "passed", Severity: 4, Rule: "1:2100498", Direction: month.Inbound,
				Src: netip.MustParseAddr("203.0.113.77"), Dst: IP(21), DstPort: 80, MAC: MAC(21), IP: IP(21), Zone: "clinical",
			})
		}
		return c
	case "care":
		c := Infected(tb)
		c.In.Infected = nil
		c.Findings = nil
		c.Infect(25, "clinical", 2, "D12-address", "D12-domain")
		return c
	}
	tb.Fatalf("no case %q", name)
	return nil
}
