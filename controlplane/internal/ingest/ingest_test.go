package ingest_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/broker/brokertest"
	"github.com/kadomori/kadomori/controlplane/internal/event"
	"github.com/kadomori/kadomori/controlplane/internal/ingest"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)

// centre is a database and a broker without ingest; tests start that as they like.
type centre struct {
	dsns postgrestest.DSNs
	db   *postgres.DB
	js   jetstream.JetStream

	mu      sync.Mutex
	through map[[16]byte]uint64
}

// newCentre has clinics 1 and 2; appliance 1 is of clinic 1, appliances 2 and 3 of clinic 2.
func newCentre(t *testing.T) *centre {
	t.Helper()
	c := &centre{dsns: postgrestest.NewDSNs(t), through: map[[16]byte]uint64{}}
	c.db = postgrestest.Open(t, c.dsns)
	_, nc := brokertest.Start(t, "")
	var err error
	if c.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	if err := c.db.Fleet(testContext(t), "system:test", func(tx pgx.Tx) error {
		_, err := tx.Exec(context.Background(), `INSERT INTO plan (name, document, author) VALUES ('p', '', 'test');
			INSERT INTO clinic (code, name, plan_id) SELECT 'C' || g, '医院' || g, p.id FROM plan p, generate_series(1, 2) g;
			INSERT INTO appliance (clinic_id, name, state) VALUES (1, 'a', 'approved'), (2, 'b', 'approved'), (2, 'c', 'approved')`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// start runs one ingest until stop is called or the test ends.
func (c *centre) start(t *testing.T) (stop func()) {
	t.Helper()
	cfg := ingest.Config{
		DB: c.db, JetStream: c.js, Log: hclog.NewNullLogger(), Now: func() time.Time { return noon.Add(time.Minute) }, SweepInterval: 50 * time.Millisecond,
		OnCommitted: func(_, _ int32, stream [16]byte, through uint64) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.through[stream] = max(through, c.through[stream])
		},
	}
	in, err := ingest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("ingest: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// stream is one appliance's numbered events.
type stream struct {
	clinic, appliance int32
	id                [16]byte
}

func newStream(clinic, appliance int32) *stream {
	s := &stream{clinic: clinic, appliance: appliance}
	_, _ = rand.Read(s.id[:])
	return s
}

func (s *stream) subject() string { return fmt.Sprintf("evt.%d.%d", s.clinic, s.appliance) }

func (s *stream) envelope(events ...*eventv1.Event) *eventv1.Envelope {
	return &eventv1.Envelope{ClinicId: s.clinic, ApplianceId: s.appliance, StreamId: s.id[:], Events: events}
}

// alerts are the events lo to hi, one a second of box time.
func alerts(lo, hi uint64) []*eventv1.Event {
	var out []*eventv1.Event
	for n := lo; n <= hi; n++ {
		out = append(out, alert(n, "ET MALWARE test"))
	}
	return out
}

func alert(n uint64, title string) *eventv1.Event {
	return &eventv1.Event{Seq: n, Time: timestamppb.New(noon.Add(time.Duration(n%3600) * time.Second)), Body: &eventv1.Event_Alert{Alert: &eventv1.Alert{
		Gid: 1, Sid: 2100001, Rev: 3, Signature: title, Classtype: "trojan-activity", Severity: eventv1.Severity_SEVERITY_HIGH,
		Category: eventv1.Category_CATEGORY_BOT, Action: eventv1.Action_ACTION_BLOCKED, Count: 2, Indicator: "c2.example.org",
		Flow: &eventv1.Flow{
			SrcIp: []byte{192, 168, 10, 5}, SrcPort: 40000, DstIp: []byte{203, 0, 113, 9}, DstPort: 443, IpProto: 6, App: "tls",
			Direction: eventv1.Direction_DIRECTION_OUTBOUND, FlowId: 77,
		},
		Device: &eventv1.Device{Mac: []byte{2, 0, 0, 0, 0, 5}, Ip: []byte{192, 168, 10, 5}, Zone: "clinical", Hostname: "reception"},
	}}}
}

var encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))

func (c *centre) publish(t *testing.T, s *stream, events ...*eventv1.Event) {
	t.Helper()
	c.send(t, s.subject(), s.envelope(events...))
}

func (c *centre) send(t *testing.T, subject string, e *eventv1.Envelope) {
	t.Helper()
	body, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	c.sendRaw(t, subject, encoder.EncodeAll(body, nil), "zstd")
}

func (c *centre) sendRaw(t *testing.T, subject string, body []byte, encoding string) {
	t.Helper()
	h := nats.Header{}
	if encoding != "" {
		h.Set("Content-Encoding", encoding)
	}
	if _, err := c.js.PublishMsg(testContext(t), &nats.Msg{Subject: subject, Data: body, Header: h}); err != nil {
		t.Fatal(err)
	}
}

// drained waits until the consumer has nothing left: everything published is committed and acknowledged.
func (c *centre) drained(t *testing.T) {
	t.Helper()
	ctx := testContext(t)
	for {
		st, err := c.js.Stream(ctx, broker.Stream)
		if err != nil {
			t.Fatal(err)
		}
		last, err := st.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cons, err := st.Consumer(ctx, ingest.Consumer)
		if err == nil {
			info, err := cons.Info(ctx)
			if err == nil && info.NumPending == 0 && info.NumAckPending == 0 && info.Delivered.Stream >= last.State.LastSeq {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("the stream was not drained in time")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *centre) int(t *testing.T, query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := c.db.Ingest.QueryRow(testContext(t), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (c *centre) text(t *testing.T, query string, args ...any) string {
	t.Helper()
	var s string
	if err := c.db.Ingest.QueryRow(testContext(t), query, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

func (c *centre) got(t *testing.T, s *stream) string {
	t.Helper()
	return c.text(t, "SELECT got::text FROM event_ledger WHERE appliance_id = $1 AND stream_id = $2", s.appliance, s.id)
}

// exactly checks that the stream's rows are the wanted numbers, each once.
func (c *centre) exactly(t *testing.T, s *stream, rows int64) {
	t.Helper()
	all := c.int(t, "SELECT count(*) FROM event WHERE appliance_id = $1 AND stream_id = $2", s.appliance, s.id)
	distinct := c.int(t, "SELECT count(DISTINCT seq) FROM event WHERE appliance_id = $1 AND stream_id = $2", s.appliance, s.id)
	if all != rows || distinct != rows {
		t.Errorf("stream of appliance %d: %d rows, %d distinct numbers, want %d", s.appliance, all, distinct, rows)
	}
}

func (c *centre) committed(s *stream) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.through[s.id]
}

func TestEventsBecomeRows(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	c.publish(t, s, alerts(1, 3)...)
	c.drained(t)
	c.exactly(t, s, 3)
	if got := c.got(t, s); got != "{[1,4)}" {
		t.Errorf("ledger = %s", got)
	}
	if got := c.committed(s); got != 3 {
		t.Errorf("committed through %d, want 3", got)
	}
	var kind, category, action, rule, title, indicator, zone, mac, app, detail string
	var severity, direction, proto int16
	var src, dst netip.Addr
	var port, count int32
	var at time.Time
	err := c.db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
		return tx.QueryRow(context.Background(), `SELECT kind, category, action, rule, title, indicator, zone, device_mac::text, app, detail::text,
			severity, direction, ip_proto, src_ip, dst_ip, dst_port, count, t FROM event WHERE seq = 2`).Scan(&kind, &category, &action, &rule, &title, &indicator,
			&zone, &mac, &app, &detail, &severity, &direction, &proto, &src, &dst, &port, &count, &at)
	})
	if err != nil {
		t.Fatal(err)
	}
	have := fmt.Sprintln(kind, category, action, rule, title, indicator, zone, mac, app, severity, direction, proto, src, dst, port, count, at.UTC())
	want := fmt.Sprintln("alert", "bot", "blocked", "1:2100001", "ET MALWARE test", "c2.example.org", "clinical", "02:00:00:00:00:05", "tls", 4, 1, 6,
		"192.168.10.5", "203.0.113.9", 443, 2, noon.Add(2*time.Second))
	if have != want {
		t.Errorf("row\n%s, want\n%s", have, want)
	}
	var d map[string]any
	if err := json.Unmarshal([]byte(detail), &d); err != nil || d["flow_id"] != 77.0 || d["classtype"] != "trojan-activity" || d["hostname"] != "reception" {
		t.Errorf("detail = %s, %v", detail, err)
	}
	// The other clinic sees nothing of it.
	if err := c.db.As(testContext(t), []int32{2}, func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(context.Background(), "SELECT count(*) FROM event").Scan(&n); err != nil || n != 0 {
			t.Errorf("clinic 2 sees %d events of clinic 1, %v", n, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// What the fleet's service tells the appliance.
	if err := c.db.Fleet(testContext(t), "system:test", func(tx pgx.Tx) error {
		w, err := event.Committed(context.Background(), tx, 1)
		if err != nil || len(w) != 1 || w[0] != (event.Watermark{Stream: s.id, Through: 3}) {
			t.Errorf("watermarks = %v, %v", w, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestDuplicatesAndOtherCutsAreStoredOnce(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	for lo := uint64(1); lo <= 1000; lo += 64 {
		c.publish(t, s, alerts(lo, min(lo+63, 1000))...)
	}
	// Again with other borders, as after a lost hub; and one message twice over.
	for lo := uint64(201); lo <= 1200; lo += 100 {
		c.publish(t, s, alerts(lo, lo+99)...)
	}
	c.publish(t, s, append(alerts(1150, 1200), alerts(1150, 1200)...)...)
	c.drained(t)
	c.exactly(t, s, 1200)
	if got := c.got(t, s); got != "{[1,1201)}" {
		t.Errorf("ledger = %s", got)
	}
}

func TestHoleStaysOpenUntilLateFill(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	c.publish(t, s, alerts(1, 50)...)
	c.publish(t, s, alerts(61, 100)...)
	c.drained(t)
	if got := c.got(t, s); got != "{[1,51),[61,101)}" || c.committed(s) != 50 {
		t.Errorf("with a hole: ledger %s, committed through %d", got, c.committed(s))
	}
	lost := func() int64 {
		var n int64
		if err := c.db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
			return tx.QueryRow(context.Background(), "SELECT lost_undeclared FROM report_ledger").Scan(&n)
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := lost(); got != 10 {
		t.Errorf("lost undeclared = %d, want 10", got)
	}
	c.publish(t, s, alerts(51, 60)...)
	c.drained(t)
	if got := c.got(t, s); got != "{[1,101)}" || c.committed(s) != 100 || lost() != 0 {
		t.Errorf("after the fill: ledger %s, committed through %d, lost %d", got, c.committed(s), lost())
	}
	c.exactly(t, s, 100)
}

func TestDeclaredGapLetsTheSpoolTrimAndTakesLateEvents(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	gap := &eventv1.Event{Seq: 61, Time: timestamppb.New(noon), Body: &eventv1.Event_SpoolGap{SpoolGap: &eventv1.SpoolGap{
		FromSeq: 51, ToSeq: 60, Reason: "full", Kinds: map[string]uint64{"traffic": 10},
	}}}
	c.publish(t, s, alerts(1, 50)...)
	c.publish(t, s, append([]*eventv1.Event{gap}, alerts(62, 70)...)...)
	c.drained(t)
	if c.committed(s) != 70 {
		t.Errorf("committed through %d, want 70: the gap was declared", c.committed(s))
	}
	read := func() (declared, undeclared int64) {
		if err := c.db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
			return tx.QueryRow(context.Background(), "SELECT lost_declared, lost_undeclared FROM report_ledger").Scan(&declared, &undeclared)
		}); err != nil {
			t.Fatal(err)
		}
		return declared, undeclared
	}
	if d, u := read(); d != 10 || u != 0 {
		t.Errorf("lost declared %d, undeclared %d; want 10, 0", d, u)
	}
	c.publish(t, s, alerts(55, 56)...)
	c.drained(t)
	c.exactly(t, s, 62)
	if d, _ := read(); d != 8 {
		t.Errorf("lost declared after two came late = %d, want 8", d)
	}
}

func TestTwoIngestersShareOneAppliance(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	c.start(t)
	streams := []*stream{newStream(1, 1), newStream(2, 2), newStream(2, 3)}
	for lo := uint64(1); lo <= 3000; lo += 30 {
		for _, s := range streams {
			c.publish(t, s, alerts(lo, lo+29)...)
			if lo%90 == 1 {
				c.publish(t, s, alerts(lo, lo+19)...) // and some twice
			}
		}
	}
	c.drained(t)
	for _, s := range streams {
		c.exactly(t, s, 3000)
		if got := c.got(t, s); got != "{[1,3001)}" {
			t.Errorf("ledger = %s", got)
		}
	}
}

func TestCrashBetweenCommitAndAckRepeatsNothing(t *testing.T) {
	c := newCentre(t)
	s := newStream(1, 1)
	for lo := uint64(1); lo <= 500; lo += 50 {
		c.publish(t, s, alerts(lo, lo+49)...)
	}
	stop := c.start(t)
	c.drained(t)
	stop()
	// The consumer forgets every acknowledgement, as if none had been sent.
	if err := c.js.DeleteConsumer(testContext(t), broker.Stream, ingest.Consumer); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	c.drained(t)
	c.exactly(t, s, 500)
}

func TestBatchWaitsForTheDatabase(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	c.publish(t, s, alerts(1, 10)...)
	c.drained(t)
	// Connections are cut, one of them in the middle of a batch; what is sent meanwhile arrives afterwards.
	owner, err := pgx.Connect(testContext(t), c.dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.Background()) }()
	if _, err := owner.Exec(testContext(t), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(testContext(t), "BEGIN; LOCK TABLE event_ledger IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	c.publish(t, s, alerts(11, 20)...)
	// From another connection: inside its own transaction a session sees pg_stat_activity as it was at the first look.
	watcher, err := pgx.Connect(testContext(t), c.dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close(context.Background()) }()
	ctx := testContext(t)
	for cut := false; !cut; {
		if err := watcher.QueryRow(ctx, `SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&cut); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := owner.Exec(testContext(t), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	c.drained(t)
	c.exactly(t, s, 20)
}

func TestHostileContentIsStoredSafelyOrRefused(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	names := []string{
		"'; DROP TABLE event; --", "<script>alert(1)</script>", "nul\x00inside", "\u202egnp.exe", strings.Repeat("医", 4000), "\x1b[31mred", `\u0000 "quoted"\`,
	}
	n := uint64(0)
	for _, name := range names {
		n++
		e := alert(n, name)
		e.GetAlert().Indicator, e.GetAlert().Classtype, e.GetAlert().Device.Hostname = name, name, name
		c.publish(t, s, e)
	}
	odd := []*eventv1.Event{
		alert(n+1, "odd addresses"), alert(n+2, "far future"), alert(n+3, "long past"), alert(n+4, "numbers out of range"), {Seq: n + 5, Time: timestamppb.New(noon)}, // no body
		{Seq: n + 6, Body: alert(1, "x").Body}, // no time
	}
	odd[0].GetAlert().Flow.SrcIp, odd[0].GetAlert().Device.Mac, odd[0].GetAlert().Flow.DstPort = []byte{1, 2, 3}, []byte{1}, 1<<31
	odd[1].Time = timestamppb.New(time.Date(8999, 1, 1, 0, 0, 0, 0, time.UTC))
	odd[2].Time = timestamppb.New(time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC))
	odd[3].GetAlert().Severity, odd[3].GetAlert().Category, odd[3].GetAlert().Count = 99, 99, 1<<32-1
	c.publish(t, s, odd...)
	c.drained(t)
	c.exactly(t, s, int64(n)+4)
	if got := c.text(t, "SELECT refused::text FROM event_ledger WHERE stream_id = $1", s.id); got != fmt.Sprintf("{[%d,%d)}", n+5, n+7) {
		t.Errorf("refused = %s: want the events without a body and without a time", got)
	}
	if c.committed(s) != n+6 {
		t.Errorf("committed through %d, want %d: a refused event must not hold up the spool", c.committed(s), n+6)
	}
	if got := c.text(t, "SELECT title FROM event WHERE seq = 1 AND stream_id = $1", s.id); got != names[0] {
		t.Errorf("title = %q", got)
	}
	if got := c.text(t, "SELECT title FROM event WHERE seq = 3 AND stream_id = $1", s.id); got != "nul\uFFFDinside" {
		t.Errorf("title with a NUL = %q", got)
	}
	if got := c.int(t, "SELECT length(title) FROM event WHERE seq = 5 AND stream_id = $1", s.id); got != 170 {
		t.Errorf("the long title has %d characters, want the 170 that fit into 512 bytes", got)
	}
	if got := c.int(t, "SELECT event_outside_partitions()"); got != 2 {
		t.Errorf("events outside of partitions = %d, want 2", got)
	}
}

func TestUnreadableMessagesBecomeDeadLetters(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s, foreign := newStream(1, 1), newStream(2, 2)
	valid, err := proto.Marshal(s.envelope(alerts(1, 2)...))
	if err != nil {
		t.Fatal(err)
	}
	bomb := encoder.EncodeAll(make([]byte, 64<<20), nil)
	for _, x := range []struct {
		subject, encoding string
		body              []byte
		reason            string
	}{
		{"evt.1.1", "", []byte("not a protobuf at all"), "read envelope"},
		{"evt.1.1", "zstd", []byte("not compressed"), "decompress"},
		{"evt.1.1", "zstd", bomb, "decompress"},
		{"evt.1.1", "gzip", valid, "content encoding"},
		{"evt.1.1", "", nil, "envelope says clinic 0"},
		{"evt.2.2", "", valid, "envelope says clinic 1, appliance 1"},
		{"evt.1.x", "", valid, "is no id"},
		{"evt.01.1", "", valid, "is no id"},
		{"evt.99999999999.1", "", valid, "is no id"},
		{"evt.1.1", "", valid[:len(valid)-3], "read envelope"},
	} {
		c.sendRaw(t, x.subject, x.body, x.encoding)
		c.drained(t)
		var reason string
		if err := c.db.Ingest.QueryRow(testContext(t), "SELECT reason FROM dead_letter ORDER BY dead_letter_id DESC LIMIT 1").Scan(&reason); err != nil {
			t.Fatalf("%s: %v", x.reason, err)
		}
		if !strings.Contains(reason, x.reason) {
			t.Errorf("reason = %q, want %q in it", reason, x.reason)
		}
	}
	// An appliance of another clinic than the subject says: only possible when the broker's gate fails, and then stopped here.
	wrong := &stream{clinic: 1, appliance: foreign.appliance, id: foreign.id}
	c.publish(t, wrong, alerts(1, 5)...)
	// Streams that are not of 16 bytes, no events, a number that is none.
	c.send(t, "evt.1.1", &eventv1.Envelope{ClinicId: 1, ApplianceId: 1, StreamId: []byte("short"), Events: alerts(1, 1)})
	c.send(t, "evt.1.1", s.envelope())
	c.send(t, "evt.1.1", s.envelope(alert(0, "x"), alert(1<<63, "x")))
	c.drained(t)
	if got := c.int(t, "SELECT count(*) FROM event"); got != 0 {
		t.Errorf("%d events were stored, want none", got)
	}
	if got := c.int(t, "SELECT count(*) FROM dead_letter"); got != 15 {
		t.Errorf("dead letters = %d, want 15", got)
	}
	// And a good message afterwards is stored as ever.
	c.publish(t, s, alerts(1, 2)...)
	c.drained(t)
	c.exactly(t, s, 2)
}

func TestDeadLettersOfOneApplianceAreBounded(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	for range 300 {
		c.sendRaw(t, "evt.1.1", []byte("garbage!"), "")
	}
	c.sendRaw(t, "evt.2.2", []byte("garbage!"), "")
	c.drained(t)
	if got := c.int(t, "SELECT count(*) FROM dead_letter WHERE appliance_id = 1"); got != 100 {
		t.Errorf("dead letters of the mad box = %d, want 100", got)
	}
	if got := c.int(t, "SELECT count(*) FROM dead_letter WHERE appliance_id = 2"); got != 1 {
		t.Errorf("dead letters of the other = %d, want 1", got)
	}
}

func TestHolesAndStreamsOfAMadBoxAreBounded(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	for lo := uint64(1); lo <= 9000; lo += 1000 {
		var every []*eventv1.Event
		for n := lo; n < lo+1000; n += 2 {
			every = append(every, alert(n, "every other"))
		}
		c.publish(t, s, every...)
	}
	c.drained(t)
	if got := c.int(t, "SELECT count(*) FROM event_ledger, unnest(got) WHERE stream_id = $1", s.id); got != 4096 {
		t.Errorf("ranges = %d, want 4096", got)
	}
	for range 700 {
		c.publish(t, newStream(2, 2), alerts(1, 1)...)
	}
	c.drained(t)
	if got := c.int(t, "SELECT count(*) FROM event_ledger WHERE appliance_id = 2"); got < 256 || got > 256+3*128 {
		t.Errorf("streams = %d, want 256 or a few more", got)
	}
	good := newStream(2, 3)
	c.publish(t, good, alerts(1, 5)...)
	c.drained(t)
	c.exactly(t, good, 5)
}

func TestRollUpsAddUpOnce(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	dev := &eventv1.Device{Mac: []byte{2, 0, 0, 0, 0, 5}, Ip: []byte{192, 168, 10, 5}, Zone: "clinical", Hostname: "reception"}
	ts := timestamppb.New
	before := noon.Add(-30 * time.Second)
	after := noon.Add(30 * time.Second)
	events := []*eventv1.Event{
		{Seq: 1, Time: ts(noon), Body: &eventv1.Event_DeviceSeen{DeviceSeen: &eventv1.DeviceSeen{Device: dev, First: ts(before), Last: ts(noon), Source: "dhcp"}}},
		{Seq: 2, Time: ts(after), Body: &eventv1.Event_Traffic{Traffic: &eventv1.Traffic{From: ts(noon), To: ts(after), Rows: []*eventv1.Traffic_Row{
			{App: "tls", Device: dev, BytesIn: 1000, BytesOut: 100, Packets: 10, Flows: 1, Visibility: "name"},
			{App: "tls", Device: dev, BytesIn: 10, BytesOut: 1, Packets: 2, Flows: 1, Visibility: "name"},
			{App: "", BytesIn: 5, BytesOut: 5, Packets: 1, Visibility: "??"},
		}}}},
		{Seq: 3, Time: ts(after), Body: &eventv1.Event_Health{Health: &eventv1.Health{
			From: ts(before), To: ts(after), PacketsSeen: 13, PacketsLost: 1, BytesClear: 7, BytesName: 8, BytesOpaque: 9, Version: "1.0",
		}}},
		{Seq: 4, Time: ts(after), Body: &eventv1.Event_Unprotected{Unprotected: &eventv1.Unprotected{
			From: ts(noon.Add(-1500 * time.Millisecond)), To: ts(noon.Add(500 * time.Millisecond)), Cause: eventv1.Unprotected_CAUSE_AGENT_DIED,
		}}},
	}
	for range 3 {
		c.publish(t, s, events...)
		c.drained(t)
	}
	for query, want := range map[string]string{
		"SELECT string_agg(concat_ws(' ', app, device_mac, zone, visibility, bytes_in, bytes_out, packets, flows), '; ' ORDER BY app) FROM traffic_hourly":                                                                     "tls 02:00:00:00:00:05 clinical name 1010 101 12 2; unknown 00:00:00:00:00:00 opaque 5 5 1 0",
		"SELECT string_agg(concat_ws(' ', to_char(hour AT TIME ZONE 'UTC', 'HH24'), reported_ms, unprotected_ms, packets_seen, packets_lost, bytes_clear, bytes_name, bytes_opaque), '; ' ORDER BY hour) FROM coverage_hourly": "02 30000 1500 13 1 7 8 9; 03 30000 500 0 0 0 0 0",
		"SELECT concat_ws(' ', mac, ip, zone, hostname, source, first_seen = '2026-11-25 02:59:30Z', last_seen = '2026-11-25 03:00:30Z') FROM device":                                                                          "02:00:00:00:00:05 192.168.10.5 clinical reception dhcp t t",
		"SELECT detail->>'cause' FROM event WHERE kind = 'unprotected'":                                                   "agent_died",
		"SELECT concat_ws(' ', detail->>'rows', detail->>'bytes_in', detail->>'flows') FROM event WHERE kind = 'traffic'": "3 1015 2",
	} {
		if got := c.text(t, query); strings.ReplaceAll(got, "00:00  ", "00:00 ") != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
}

func TestNotifyTellsClinics(t *testing.T) {
	c := newCentre(t)
	conn, err := pgx.Connect(testContext(t), c.dsns.App)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(testContext(t), "LISTEN "+ingest.Channel); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	c.publish(t, newStream(2, 2), alerts(1, 1)...)
	n, err := conn.WaitForNotification(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if n.Payload != `{"clinics":[2]}` {
		t.Errorf("payload = %s", n.Payload)
	}
}

func TestNewRefusesBadConfig(t *testing.T) {
	if _, err := ingest.New(ingest.Config{}); err == nil {
		t.Error("no database and no stream, and no error")
	}
}
