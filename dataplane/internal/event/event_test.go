package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a Log that keeps everything.
type memory struct {
	mu     sync.Mutex
	events []*eventv1.Event
	lost   map[string]uint64
	fail   error
	gate   chan struct{} // when set, Append waits for it
}

func (m *memory) Append(e *eventv1.Event) (uint64, error) {
	if m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return 0, m.fail
	}
	m.events = append(m.events, proto.CloneOf(e))
	return uint64(len(m.events)), nil
}

func (m *memory) Skip(_ string, kinds map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost == nil {
		m.lost = map[string]uint64{}
	}
	for k, n := range kinds {
		m.lost[k] += n
	}
}

func (m *memory) all() []*eventv1.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]*eventv1.Event(nil), m.events...)
}

func alert(sid uint32, src string) *finding.Alert {
	return &finding.Alert{
		Packet: finding.Packet{Time: time.Now().UnixNano(), Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("192.0.2.9"), SrcPort: 1000, DstPort: 80, Proto: 6},
		Device: finding.Device{Known: true, MAC: [6]byte{2, 1, 2, 3, 4, 5}, IP: netip.MustParseAddr(src), Zone: "clinical"},
		GID:    1, SID: sid, Rev: 2, Msg: "ET TEST", Severity: finding.High, Category: finding.Intrusion, Action: finding.Passed,
	}
}

// start runs a sink until the returned function is called.
func start(t *testing.T, cfg Config) (*Sink, func()) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestRepeatsAreToldAtOnceAndThenCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s, stop := start(t, Config{Spool: m})
		for range 100 {
			s.Alert(alert(1, "10.0.0.5"))
		}
		s.Alert(alert(1, "10.0.0.6"))
		s.Alert(alert(2, "10.0.0.5"))
		synctest.Wait()
		if got := m.all(); len(got) != 3 || got[0].GetAlert().GetCount() != 1 {
			t.Fatalf("%d events at once, want 3", len(got))
		}
		time.Sleep(61 * time.Second) //nolint:forbidigo // the clock of this bubble is not real
		synctest.Wait()
		got := m.all()
		if len(got) != 4 || got[3].GetAlert().GetCount() != 99 || got[3].GetAlert().GetSid() != 1 {
			t.Fatalf("after a minute: %d events, last %v", len(got), got[len(got)-1])
		}
		s.Alert(alert(2, "10.0.0.5")) // its minute was quiet: told at once again
		synctest.Wait()
		if got := m.all(); len(got) != 5 || got[4].GetAlert().GetCount() != 1 {
			t.Fatalf("a new alert after a quiet minute is not told at once: %d events", len(got))
		}
		s.Alert(alert(1, "10.0.0.5"))
		stop()
		var sum uint32
		for _, e := range m.all() {
			sum += e.GetAlert().GetCount()
		}
		if sum != 104 {
			t.Errorf("events stand for %d alerts, want 104", sum)
		}
		if st := s.Stats(); st.Stated["alert"] != 104 || st.Folded != 100 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestBlocksAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s, stop := start(t, Config{Spool: m})
		first := time.Now()
		for i := range 10 {
			s.Block(&wire.DropSample{
				Reason: wire.DropBlockedDestination, Port: wire.LAN, Src: netip.MustParseAddrPort("10.0.0.5:4000"),
				Dst: netip.MustParseAddrPort("203.0.113.1:443"), Proto: 6, Bytes: 60, Packets: 2, Time: first.Add(time.Duration(i) * time.Second).UnixNano(),
			}, eventv1.Block_REASON_BLOCK_SET_DST, "c2", eventv1.Category_CATEGORY_BOT)
		}
		synctest.Wait()
		stop()
		got := m.all()
		if len(got) != 2 {
			t.Fatalf("%d events, want 2", len(got))
		}
		b := got[1].GetBlock()
		if b.GetPackets() != 18 || b.GetBytes() != 18*60 || b.GetCount() != 9 || !b.GetFirst().AsTime().Equal(first.Add(time.Second)) || !b.GetLast().AsTime().Equal(first.Add(9*time.Second)) {
			t.Errorf("fold is %v", b)
		}
		if d := got[0].GetBlock(); d.GetDevice() == nil || d.GetFlow().GetDirection() != eventv1.Direction_DIRECTION_OUTBOUND {
			t.Errorf("first block names no inside device: %v", d)
		}
	})
}

func TestFullQueueNeverBlocksAndIsDeclared(t *testing.T) {
	m := &memory{gate: make(chan struct{})}
	s, stop := start(t, Config{Spool: m, Queue: 4})
	for i := range 100 {
		s.Alert(alert(uint32(i), "10.0.0.5")) // returns though nobody takes
	}
	dropped := s.Stats().Dropped
	if dropped < 90 {
		t.Fatalf("%d dropped", dropped)
	}
	close(m.gate)
	stop()
	if m.lost["alert"] != dropped || uint64(len(m.all()))+dropped != 100 {
		t.Errorf("%d events, %d dropped, declared %v", len(m.all()), dropped, m.lost)
	}
}

func TestWhatTheSpoolRefusesIsDeclared(t *testing.T) {
	m := &memory{fail: errors.New("no")}
	s, stop := start(t, Config{Spool: m})
	s.Alert(alert(1, "10.0.0.5"))
	stop()
	if m.lost["alert"] != 1 {
		t.Errorf("declared %v", m.lost)
	}
}

func TestFoldsAreBounded(t *testing.T) {
	m := &memory{}
	s, stop := start(t, Config{Spool: m, Folds: 10, Queue: 1 << 12})
	for i := range 1000 {
		s.Alert(alert(uint32(i), "10.0.0.5"))
	}
	stop()
	if len(m.all()) != 1000 || len(s.folds) > 20 {
		t.Errorf("%d events, %d folds", len(m.all()), len(s.folds))
	}
}

func TestFloodOfForgedSourcesStaysSmall(t *testing.T) {
	m := &memory{}
	s, stop := start(t, Config{Spool: m, Folds: 100, Queue: 1 << 14})
	const n = 10_000
	for i := range n {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1)
		s.Block(&wire.DropSample{Port: wire.WAN, Src: src, Dst: netip.MustParseAddrPort("10.0.0.5:80"), Packets: 1, Bytes: 60, Time: 1}, eventv1.Block_REASON_BLOCK_SET_SRC, "scanners", eventv1.Category_CATEGORY_SCAN)
	}
	stop()
	var flows uint32
	var packets uint64
	for _, e := range m.all() {
		flows += e.GetBlock().GetCount()
		packets += e.GetBlock().GetPackets()
	}
	if len(m.all()) > 110 || flows != n || packets != n {
		t.Errorf("%d events stand for %d flows and %d packets, want few for %d", len(m.all()), flows, packets, n)
	}
}

func TestAnonymousDevicesAreCountedAndNotNamed(t *testing.T) {
	m := &memory{}
	s, stop := start(t, Config{Spool: m, Key: bytes.Repeat([]byte{7}, 32)})
	mac := [6]byte{0xaa, 1, 2, 3, 4, 5}
	d := finding.Device{Known: true, Anonymous: true, MAC: mac, IP: netip.MustParseAddr("10.9.0.7"), Zone: "guest", Hostname: "taro-phone"}
	s.DeviceSeen(&finding.DeviceSeen{Device: d, First: 1, Last: 2, Source: "dhcp", VendorClass: "android"})
	s.Traffic(time.Now(), time.Now(), []finding.TrafficRow{{Application: "tls", Device: d}})
	stop()
	for _, e := range m.all() {
		b, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range [][]byte{mac[:], []byte("taro"), {10, 9, 0, 7}, []byte("android")} {
			if bytes.Contains(b, secret) {
				t.Errorf("event holds %q", secret)
			}
		}
	}
	seen, row := m.all()[0].GetDeviceSeen().GetDevice(), m.all()[1].GetTraffic().GetRows()[0].GetDevice()
	if !bytes.Equal(seen.GetMac(), row.GetMac()) || len(seen.GetMac()) != 6 || seen.GetMac()[0]&3 != 2 {
		t.Errorf("stand-ins %x and %x", seen.GetMac(), row.GetMac())
	}
}

func TestTrafficIsSplitBelowTheSpoolsLimit(t *testing.T) {
	m := &memory{}
	s, stop := start(t, Config{Spool: m})
	rows := make([]finding.TrafficRow, 2*maxRows+1)
	for i := range rows {
		rows[i] = finding.TrafficRow{
			Application: strings.Repeat("a", 40), BytesIn: 1,
			Device: finding.Device{Known: true, Hostname: strings.Repeat("h", 255), MAC: [6]byte{2}, IP: netip.MustParseAddr("2001:db8::1")},
		}
	}
	s.Traffic(time.Now(), time.Now(), rows)
	stop()
	var sum uint64
	for _, e := range m.all() {
		if n := proto.Size(e); n > 200<<10 {
			t.Errorf("event of %d bytes", n)
		}
		for _, r := range e.GetTraffic().GetRows() {
			sum += r.GetBytesIn()
		}
	}
	if sum != uint64(len(rows)) || len(m.all()) != 3 {
		t.Errorf("%d rows in %d events", sum, len(m.all()))
	}
}

func TestKeyMustBeWhole(t *testing.T) {
	if _, err := New(Config{Spool: &memory{}, Key: []byte("short")}); err == nil {
		t.Error("short key taken")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no spool taken")
	}
}

func TestClockPutBackDoesNotHoldAFold(t *testing.T) {
	now := time.Now()
	m := &memory{}
	s, err := New(Config{Spool: m, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	s.Alert(alert(1, "10.0.0.5"))
	s.Alert(alert(1, "10.0.0.5"))
	s.take(<-s.queue)
	s.take(<-s.queue)
	now = now.Add(-24 * time.Hour)
	s.settle(false)
	if len(m.all()) != 2 {
		t.Errorf("%d events, want the fold told after the clock was put back", len(m.all()))
	}
}

// FuzzText feeds hostile strings through an alert: the event must encode.
func FuzzText(f *testing.F) {
	f.Add("www.example.jp")
	f.Add("\xff\xfe")
	f.Add(strings.Repeat("あ", 400))
	f.Add(strings.Repeat("a", 1023) + "é")
	f.Fuzz(func(t *testing.T, in string) {
		out := text(in)
		if !utf8.ValidString(out) || len(out) > 3*maxText {
			t.Fatalf("text(%q) = %q", in, out)
		}
		if utf8.ValidString(in) && len(in) <= maxText && out != in {
			t.Fatalf("good text changed: %q", out)
		}
		e := &eventv1.Event{Body: &eventv1.Event_Alert{Alert: &eventv1.Alert{Indicator: out}}}
		if _, err := proto.Marshal(e); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkAlertOnThePacketLoop(b *testing.B) {
	m := &memory{fail: fmt.Errorf("nothing is kept")}
	s, err := New(Config{Spool: m, Queue: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	a := alert(1, "10.0.0.5")
	b.ReportAllocs()
	for b.Loop() {
		s.Alert(a)
	}
}
