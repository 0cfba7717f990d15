package uplink

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

	"github.com/kadomori/kadomori/dataplane/internal/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub is a real nats-server with JetStream and the centre's permissions.
type hub struct {
	srv *server.Server
	dir string
}

func startHub(t *testing.T, port int, dir, publish string) *hub {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true, SyncInterval: time.Second,
		Users: []*server.User{
			{Username: "box", Password: "x", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{publish}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.1.7.>"}},
			}},
			{Username: "centre", Password: "x"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("hub does not start")
	}
	h := &hub{srv, dir}
	t.Cleanup(h.stop)
	return h
}

func (h *hub) stop() {
	h.srv.Shutdown()
	h.srv.WaitForShutdown()
}

func (h *hub) port() int { return h.srv.Addr().(*net.TCPAddr).Port }

func (h *hub) url(user string) string { return fmt.Sprintf("nats://%s:x@127.0.0.1:%d", user, h.port()) }

// stream makes the centre's stream and returns it with the centre's connection.
func (h *hub) stream(t *testing.T) jetstream.Stream {
	t.Helper()
	nc, err := nats.Connect(h.url("centre"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{
		Name: "EVENTS", Subjects: []string{"evt.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxMsgSize: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// stored returns the numbers of all events in the stream, by how often, and the largest message's count of events.
func stored(t *testing.T, st jetstream.Stream) (map[uint64]int, int) {
	t.Helper()
	info, err := st.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	out, most := map[uint64]int{}, 0
	for n := info.State.FirstSeq; n <= info.State.LastSeq && info.State.Msgs > 0; n++ {
		msg, err := st.GetMsg(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if msg.Header.Get("Content-Encoding") != "zstd" || msg.Subject != "evt.1.7" {
			t.Fatalf("message %d: header %v, subject %s", n, msg.Header, msg.Subject)
		}
		raw, err := dec.DecodeAll(msg.Data, nil)
		if err != nil {
			t.Fatal(err)
		}
		env := &eventv1.Envelope{}
		if err := proto.Unmarshal(raw, env); err != nil {
			t.Fatal(err)
		}
		if env.GetClinicId() != 1 || env.GetApplianceId() != 7 || len(env.GetStreamId()) != 16 || env.GetClockOffsetMs() != -42 {
			t.Fatalf("envelope of %d/%d, stream %x, offset %d", env.GetClinicId(), env.GetApplianceId(), env.GetStreamId(), env.GetClockOffsetMs())
		}
		most = max(most, len(env.GetEvents()))
		var last uint64
		for _, e := range env.GetEvents() {
			if e.GetSeq() <= last {
				t.Fatalf("event %d after %d", e.GetSeq(), last)
			}
			last = e.GetSeq()
			out[last]++
		}
	}
	return out, most
}

func newSpool(t *testing.T) *spool.Spool {
	t.Helper()
	s, err := spool.Open(spool.Config{Dir: t.TempDir(), Delay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fill(t *testing.T, s *spool.Spool, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.Append(&eventv1.Event{Body: &eventv1.Event_Health{Health: &eventv1.Health{PacketsSeen: uint64(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, cfg Config) *Uplink {
	t.Helper()
	cfg.ClinicID, cfg.ApplianceID = 1, 7
	cfg.ClockOffset = func() (int64, bool) { return -42, true }
	cfg.ReconnectMax = 100 * time.Millisecond
	if cfg.MaxBytesPerSecond == 0 {
		cfg.MaxBytesPerSecond = 1 << 30
	}
	u, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := u.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return u
}

func flush(t *testing.T, u *Uplink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := u.Flush(ctx); err != nil {
		t.Fatalf("%v; %+v", err, u.Stats())
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("no %s within 30 s", what)
		case <-tick.C:
		}
	}
}

func wantAll(t *testing.T, got map[uint64]int, n uint64) {
	t.Helper()
	for seq := uint64(1); seq <= n; seq++ {
		if got[seq] == 0 {
			t.Fatalf("event %d of %d did not arrive", seq, n)
		}
	}
}

func TestEventsArriveInBatches(t *testing.T) {
	h := startHub(t, -1, t.TempDir(), "evt.1.7")
	st := h.stream(t)
	s := newSpool(t)
	fill(t, s, 1000)
	u := run(t, Config{URL: h.url("box"), Spool: s})
	flush(t, u)
	got, most := stored(t, st)
	wantAll(t, got, 1001)
	if most > maxEvents || most < 200 {
		t.Errorf("largest message holds %d events", most)
	}
	if st := u.Stats(); !st.Connected || st.AckedSeq != 1001 || st.Error != "" || st.Messages > 8 {
		t.Errorf("stats %+v", st)
	}
	if d := s.Stats().Depth; d != 1001 {
		t.Errorf("depth %d: an acknowledgement trimmed the spool", d)
	}
}

func TestHubAwayAndBack(t *testing.T) {
	dir := t.TempDir()
	h := startHub(t, -1, dir, "evt.1.7")
	h.stream(t)
	s := newSpool(t)
	u := run(t, Config{URL: h.url("box"), Spool: s})
	fill(t, s, 100)
	flush(t, u)
	port := h.port()
	h.stop()
	waitFor(t, "disconnect", func() bool { return !u.Stats().Connected })
	fill(t, s, 500)
	h = startHub(t, port, dir, "evt.1.7")
	st := h.stream(t)
	flush(t, u)
	got, _ := stored(t, st)
	wantAll(t, got, 601)
}

func TestLostHubGetsEverythingUncommittedAgain(t *testing.T) {
	h := startHub(t, -1, t.TempDir(), "evt.1.7")
	h.stream(t)
	s := newSpool(t)
	u := run(t, Config{URL: h.url("box"), Spool: s})
	fill(t, s, 300)
	flush(t, u)
	s.Committed(s.Stream(), 100)
	port := h.port()
	h.stop()
	h = startHub(t, port, t.TempDir(), "evt.1.7") // another disk
	st := h.stream(t)
	waitFor(t, "the events after the watermark", func() bool {
		got, _ := stored(t, st)
		return len(got) == 201
	})
	got, _ := stored(t, st)
	for seq := uint64(101); seq <= 301; seq++ {
		if got[seq] != 1 {
			t.Fatalf("event %d came %d times", seq, got[seq])
		}
	}
}

func TestAcknowledgedButNeverCommittedIsSentAgain(t *testing.T) {
	h := startHub(t, -1, t.TempDir(), "evt.1.7")
	st := h.stream(t)
	s := newSpool(t)
	u := run(t, Config{URL: h.url("box"), Spool: s, Stall: 50 * time.Millisecond})
	fill(t, s, 10)
	flush(t, u)
	waitFor(t, "a second sending", func() bool { got, _ := stored(t, st); return got[1] >= 2 })
	s.Committed(s.Stream(), 11)
}

func TestForbiddenSubjectIsNoticed(t *testing.T) {
	h := startHub(t, -1, t.TempDir(), "evt.1.8")
	h.stream(t)
	s := newSpool(t)
	fill(t, s, 5)
	u := run(t, Config{URL: h.url("box"), Spool: s, AckWait: 200 * time.Millisecond})
	waitFor(t, "a counted violation", func() bool { return u.Stats().Violations > 0 && u.Stats().Refused > 0 })
	if s.Stats().Depth != 6 {
		t.Error("events are gone")
	}
}

func TestFullStreamLosesNothing(t *testing.T) {
	h := startHub(t, -1, t.TempDir(), "evt.1.7")
	st := h.stream(t)
	nc, err := nats.Connect(h.url("centre"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, _ := jetstream.New(nc)
	cfg := st.CachedInfo().Config
	cfg.MaxMsgs = 1
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s := newSpool(t)
	u := run(t, Config{URL: h.url("box"), Spool: s})
	fill(t, s, 600)
	waitFor(t, "a refused publish", func() bool { return u.Stats().Refused > 0 })
	cfg.MaxMsgs = -1
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	flush(t, u)
	got, _ := stored(t, st)
	wantAll(t, got, 601)
}

func TestBandwidthLimitHolds(t *testing.T) {
	h := startHub(t, -1, t.TempDir(), "evt.1.7")
	h.stream(t)
	s := newSpool(t)
	u := run(t, Config{URL: h.url("box"), Spool: s, MaxBytesPerSecond: 1 << 20})
	blob := make([]byte, 100<<10)
	const n = 40
	began := time.Now()
	for i := range n {
		for j := range blob {
			blob[j] = "0123456789abcdefghijklmnopqrstuvwxyz"[(i*7919+j*j*31+j*(i+3))%36]
		}
		rand.Read(blob[:64<<10])
		for j := range blob[:64<<10] {
			blob[j] = 'a' + blob[j]%26
		}
		s.Append(&eventv1.Event{Body: &eventv1.Event_SelfTest{SelfTest: &eventv1.SelfTest{Detail: string(blob)}}})
	}
	fill(t, s, 0)
	flush(t, u)
	sent := u.Stats().SentBytes
	if sent <= burst {
		t.Fatalf("only %d bytes were sent, the burst of %d hides the limit", sent, burst)
	}
	if least := time.Duration(float64(sent-burst) / (1 << 20) * float64(time.Second)); time.Since(began) < least*9/10 {
		t.Errorf("%d bytes in %v, the limit wants at least %v", sent, time.Since(began), least)
	}
}

func TestImpossibleSettingsAreRefused(t *testing.T) {
	s := newSpool(t)
	for name, cfg := range map[string]Config{
		"no clinic": {ApplianceID: 1, URL: "nats://x", Spool: s},
		"no url":    {ClinicID: 1, ApplianceID: 1, Spool: s},
		"no spool":  {ClinicID: 1, ApplianceID: 1, URL: "nats://x"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDuplicateOnFirstSendingIsAnAlarm(t *testing.T) {
	s := newSpool(t)
	u, err := New(Config{ClinicID: 1, ApplianceID: 7, URL: "nats://unused", Spool: s})
	if err != nil {
		t.Fatal(err)
	}
	flight := make(chan sent, 2)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { u.collect(ctx, flight) })
	defer func() { cancel(); wg.Wait() }()
	flight <- sent{ack: fakeAck{ok: &jetstream.PubAck{Duplicate: true}}, last: position{seq: 5}}
	select {
	case why := <-u.rewind:
		if why != "unexpected duplicate" {
			t.Error(why)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was asked to be sent again")
	}
	if st := u.Stats(); st.Duplicates != 1 || st.AckedSeq != 0 {
		t.Errorf("stats %+v", st)
	}
	flight <- sent{ack: fakeAck{ok: &jetstream.PubAck{Duplicate: true}}, last: position{seq: 5}, again: true}
	waitFor(t, "the acknowledgement of a resent batch", func() bool { return u.Stats().AckedSeq == 5 })
}

// fakeAck is an acknowledgement that is there already.
type fakeAck struct{ ok *jetstream.PubAck }

func (f fakeAck) Ok() <-chan *jetstream.PubAck {
	ch := make(chan *jetstream.PubAck, 1)
	ch <- f.ok
	return ch
}
func (f fakeAck) Err() <-chan error { return nil }
func (f fakeAck) Msg() *nats.Msg    { return nil }

func TestSevereEventsOvertakeABacklog(t *testing.T) {
	h := startHub(t, -1, t.TempDir(), "evt.1.7")
	st := h.stream(t)
	s := newSpool(t)
	const waiting = 20_000
	fill(t, s, waiting)
	severe, err := s.Append(&eventv1.Event{Body: &eventv1.Event_Detection{Detection: &eventv1.Detection{Severity: eventv1.Severity_SEVERITY_CRITICAL}}})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 0)
	u := run(t, Config{URL: h.url("box"), Spool: s})
	flush(t, u)
	waitFor(t, "the counted lane", func() bool { return u.Stats().Urgent >= 1 })
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	info, err := st.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); ; n++ {
		if n > info.State.LastSeq/4 {
			t.Fatalf("severe event %d is not among the first messages of %d", severe, info.State.LastSeq)
		}
		msg, err := st.GetMsg(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := dec.DecodeAll(msg.Data, nil)
		if err != nil {
			t.Fatal(err)
		}
		env := &eventv1.Envelope{}
		if err := proto.Unmarshal(raw, env); err != nil {
			t.Fatal(err)
		}
		if len(env.GetEvents()) == 1 && env.GetEvents()[0].GetSeq() == severe {
			break
		}
	}
	got, _ := stored(t, st)
	wantAll(t, got, waiting+2)
}
