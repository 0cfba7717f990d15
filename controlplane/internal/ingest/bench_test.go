//go:build bench

package ingest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/kadomori/kadomori/controlplane/internal/broker/brokertest"
	"github.com/kadomori/kadomori/controlplane/internal/event"
	"github.com/kadomori/kadomori/controlplane/internal/ingest"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// figures of out/bench/ingest.json.
type figures struct {
	EventsS       float64 `json:"events_s"`         // sustained, wall
	EventsCPUS    float64 `json:"events_cpu_s"`     // per second of CPU, Go and database together (NATS is in the Go process)
	CopyS         float64 `json:"copy_s"`           // bare COPY of the same rows
	VsCopy        float64 `json:"vs_copy"`          // events_s / copy_s
	P99MS         float64 `json:"p99_ms"`           // publish to committed, at a third of events_s
	ReportMonthS  float64 `json:"report_month_s"`   // all queries of one clinic's month
	FleetSearchMS float64 `json:"fleet_search_ms"`  // one rule, seven days, all clinics
	TableEvents   int64   `json:"table_events"`     // in the table while the two above ran
	Clinics       int     `json:"clinics"`          // of that table
	Cores         int     `json:"cores"`            // of the machine
	Load1         float64 `json:"load_1min"`        // when the run began: other work on the machine
	GoCPU         float64 `json:"go_us_per_event"`  // CPU
	PostgresCPU   float64 `json:"sql_us_per_event"` // CPU
}

func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

const benchClinics = 1000

// TestBenchIngest measures against PostgreSQL with its durable settings. BENCH_EVENTS and BENCH_TABLE set the sizes, BENCH_OUT the file.
func TestBenchIngest(t *testing.T) {
	ctx := context.Background()
	n, table := envInt(t, "BENCH_EVENTS", 400_000), envInt(t, "BENCH_TABLE", 10_000_000)
	f := figures{Clinics: benchClinics, Cores: cores(), Load1: load()}
	dir := postgrestest.Dir(t)
	srv, err := postgres.Private(ctx, postgres.PrivateConfig{Dir: dir, Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop() })
	if err := postgres.Migrate(ctx, srv.DSN(postgres.RoleOwner)); err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(ctx, postgres.Config{AppDSN: srv.DSN(postgres.RoleApp), IngestDSN: srv.DSN(postgres.RoleIngest)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	owner, err := pgx.Connect(ctx, srv.DSN(postgres.RoleOwner))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(ctx) })
	must := func(sql string, args ...any) {
		t.Helper()
		if _, err := owner.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	must(`INSERT INTO plan (name, document, author) VALUES ('p', '', 'bench')`)
	must(`INSERT INTO clinic (code, name, plan_id) SELECT 'C' || g, '医院' || g, p.id FROM plan p, generate_series(1, $1) g`, benchClinics)
	must(`INSERT INTO appliance (clinic_id, name, state) SELECT clinic_id, 'a', 'approved' FROM clinic ORDER BY 1`)
	must(`SELECT event_make_partitions('2026-10-15', 4)`)
	bodies, rows := benchMessages(t, n)

	// The bare COPY: the same rows, the same table and indexes, as many connections as ingest has workers, batches of the same size.
	copyOnce := func() float64 {
		began := time.Now()
		var wg sync.WaitGroup
		var next sync.Mutex
		at := 0
		for range 2 {
			wg.Go(func() {
				for {
					next.Lock()
					lo := at
					hi := min(lo+4096, len(rows))
					at = hi
					next.Unlock()
					if lo == hi {
						return
					}
					if err := pgx.BeginFunc(ctx, db.Ingest, func(tx pgx.Tx) error { return event.Copy(ctx, tx, rows[lo:hi]) }); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return float64(len(rows)) / time.Since(began).Seconds()
	}
	copyGo, copySQL := goCPU(), postgresCPU(t, dir)
	f.CopyS = copyOnce()
	copyGo, copySQL = 1e6*(goCPU()-copyGo)/float64(len(rows)), 1e6*(postgresCPU(t, dir)-copySQL)/float64(len(rows))
	must("TRUNCATE event")
	t.Logf("bare COPY: %.0f events/s (Go %.1f us, SQL %.1f us an event)", f.CopyS, copyGo, copySQL)

	c := &centre{db: db, through: map[[16]byte]uint64{}}
	_, nc := brokertest.Start(t, "")
	if c.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	for _, m := range bodies {
		if _, err := c.js.PublishMsgAsync(&nats.Msg{Subject: m.subject, Data: m.body, Header: nats.Header{"Content-Encoding": []string{"zstd"}}}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-c.js.PublishAsyncComplete():
	case <-time.After(2 * time.Minute):
		t.Fatal("publishing took too long")
	}
	stored := make(chan struct{})
	var once sync.Once
	goBefore, sqlBefore, began := goCPU(), postgresCPU(t, dir), time.Now()
	in := startBench(t, c, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		var total uint64
		for _, th := range c.through {
			total += th
		}
		if total >= uint64(len(rows)) {
			once.Do(func() { close(stored) })
		}
	})
	select {
	case <-stored:
	case <-time.After(5 * time.Minute):
		t.Fatal("ingest took too long")
	}
	wall := time.Since(began).Seconds()
	goUsed, sqlUsed := goCPU()-goBefore, postgresCPU(t, dir)-sqlBefore
	if got := c.int(t, "SELECT count(*) FROM event"); got != int64(len(rows)) {
		t.Fatalf("%d rows stored, want %d", got, len(rows))
	}
	f.EventsS = float64(len(rows)) / wall
	f.EventsCPUS = float64(len(rows)) / (goUsed + sqlUsed)
	f.VsCopy = f.EventsS / f.CopyS
	f.GoCPU, f.PostgresCPU = 1e6*goUsed/float64(len(rows)), 1e6*sqlUsed/float64(len(rows))
	t.Logf("ingest: %.0f events/s, %.0f per CPU second (Go %.1f us, SQL %.1f us an event)", f.EventsS, f.EventsCPUS, f.GoCPU, f.PostgresCPU)

	f.P99MS = benchLatency(t, c, f.EventsS/3)
	t.Logf("p99 at a third of that: %.0f ms", f.P99MS)
	in()
	f.TableEvents = fillTable(t, srv, owner, int64(table))
	f.ReportMonthS = benchReport(t, srv)
	f.FleetSearchMS = benchSearch(t, db)
	t.Logf("with %d events: report month %.2f s, fleet search %.0f ms", f.TableEvents, f.ReportMonthS, f.FleetSearchMS)
	writeFigures(t, f)
}

func startBench(t *testing.T, c *centre, committed func()) func() {
	t.Helper()
	in, err := ingest.New(ingest.Config{DB: c.db, JetStream: c.js, Log: hclog.NewNullLogger(), OnCommitted: func(_, _ int32, stream [16]byte, through uint64) {
		c.mu.Lock()
		c.through[stream] = max(through, c.through[stream])
		c.mu.Unlock()
		committed()
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

type benchMessage struct {
	subject string
	body    []byte
}

// benchMessages makes n events of 100 appliances in messages of 64, and the rows that they are.
func benchMessages(t *testing.T, n int) ([]benchMessage, []*event.Row) {
	t.Helper()
	const appliances, size = 100, 64
	streams := make([]*stream, appliances)
	for i := range streams {
		streams[i] = newStream(int32(i+1), int32(i+1))
	}
	var out []benchMessage
	rows := make([]*event.Row, 0, n)
	for m := 0; m*size < n; m++ {
		s := streams[m%appliances]
		lo := uint64(m/appliances*size) + 1
		var events []*eventv1.Event
		for seq := lo; seq < lo+size; seq++ {
			// A box speaks of few rules and few devices at a time.
			rule := uint64(m)%40 + seq%3
			e := alert(seq, fmt.Sprintf("ET MALWARE Observed Suspicious Domain in TLS SNI (%d)", rule))
			a := e.GetAlert()
			a.Sid = 2100000 + uint32(rule)
			a.Indicator = fmt.Sprintf("host%d.example.org", seq%977)
			a.Flow.SrcPort = 30000 + uint32(seq%20000)
			a.Flow.FlowId = seq * 7919
			a.Device.Mac = []byte{2, 0, 0, 0, byte(m % appliances), byte(seq % 12)}
			row, err := event.New(event.Source{Clinic: s.clinic, Appliance: s.appliance, Stream: s.id, Received: noon}, e)
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, &row)
			events = append(events, e)
		}
		body, err := proto.Marshal(s.envelope(events...))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, benchMessage{s.subject(), encoder.EncodeAll(body, nil)})
	}
	return out, rows
}

// benchLatency publishes at rate events a second for ten seconds and returns the 99th percentile of publish to commit.
func benchLatency(t *testing.T, c *centre, rate float64) float64 {
	t.Helper()
	const size, appliances = 64, 50
	streams := make([]*stream, appliances)
	for i := range streams {
		streams[i] = newStream(int32(i+1), int32(i+1))
	}
	type mark struct {
		stream *stream
		seq    uint64
		at     time.Time
	}
	var marks []mark
	interval := time.Duration(float64(time.Second) * size / rate)
	began := time.Now()
	var delays []time.Duration
	pending := map[[16]byte][]mark{}
	collect := func() {
		now := time.Now()
		c.mu.Lock()
		defer c.mu.Unlock()
		for id, list := range pending {
			for len(list) > 0 && c.through[id] >= list[0].seq {
				delays = append(delays, now.Sub(list[0].at))
				list = list[1:]
			}
			pending[id] = list
		}
	}
	for i := 0; time.Since(began) < 10*time.Second; i++ {
		s := streams[i%appliances]
		lo := uint64(i/appliances*size) + 1
		body, err := proto.Marshal(s.envelope(alerts(lo, lo+size-1)...))
		if err != nil {
			t.Fatal(err)
		}
		m := mark{s, lo + size - 1, time.Now()}
		if _, err := c.js.PublishMsgAsync(&nats.Msg{Subject: s.subject(), Data: encoder.EncodeAll(body, nil), Header: nats.Header{"Content-Encoding": []string{"zstd"}}}); err != nil {
			t.Fatal(err)
		}
		marks = append(marks, m)
		pending[s.id] = append(pending[s.id], m)
		collect()
		if wait := time.Until(began.Add(time.Duration(i+1) * interval)); wait > 0 {
			<-time.After(wait)
		}
	}
	for deadline := time.Now().Add(time.Minute); len(delays) < len(marks) && time.Now().Before(deadline); collect() {
		<-time.After(time.Millisecond)
	}
	if len(delays) < len(marks) {
		t.Fatalf("%d of %d messages were committed", len(delays), len(marks))
	}
	slices.Sort(delays)
	return float64(delays[len(delays)*99/100].Microseconds()) / 1000
}

// fillTable brings the events of November to n, spread over the clinics and the month, by building the partition aside.
func fillTable(t *testing.T, srv *postgres.PrivateServer, owner *pgx.Conn, n int64) int64 {
	t.Helper()
	ctx := context.Background()
	if _, err := owner.Exec(ctx, `TRUNCATE event; CREATE UNLOGGED TABLE filling (LIKE event INCLUDING DEFAULTS)`); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const parts = 2
	for p := range parts {
		wg.Go(func() {
			conn, err := pgx.Connect(ctx, srv.DSN(postgres.RoleOwner))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close(ctx) }()
			// Two in five are findings; the rest are what boxes say every minute.
			if _, err := conn.Exec(ctx, fmt.Sprintf(`INSERT INTO filling SELECT 1 + (n * 7919 %% %d)::int, 1 + (n * 7919 %% %d)::int,
				('00000000-0000-0000-0000-' || lpad(to_hex(n * 7919 %% %d), 12, '0'))::uuid, n, t, t + interval '1 second',
				(ARRAY['alert','block','traffic','health','traffic'])[1 + n / 1000 %% 5], (1 + n %% 5)::int2, (ARRAY['bot','malware','intrusion','scan'])[1 + n %% 4],
				CASE WHEN n / 1000 %% 5 < 2 THEN (ARRAY['passed','blocked'])[1 + n %% 2] ELSE '' END, 0,
				CASE WHEN n / 1000 %% 5 = 0 THEN '1:' || (2100000 + n %% 2000) WHEN n / 1000 %% 5 = 1 THEN 'block_set_dst' ELSE '' END,
				CASE WHEN n / 1000 %% 5 < 2 THEN 'ET MALWARE Observed Suspicious Domain' ELSE '' END, CASE WHEN n / 1000 %% 5 = 0 THEN 'host' || n %% 977 || '.example.org' ELSE '' END,
				1, 1, '192.168.10.5', 40000, '203.0.113.9', 443, 6, 'tls', ('02:00:00:00:00:' || lpad(to_hex(n %% 20), 2, '0'))::macaddr, '192.168.10.5', 'clinical',
				'{"rev": 3, "flow_id": 123456789012, "classtype": "trojan-activity", "hostname": "reception"}'
				FROM (SELECT n, '2026-11-01 00:00Z'::timestamptz + n * interval '30 days' / %d AS t FROM generate_series(%d::bigint, %d::bigint) n) x`,
				benchClinics, benchClinics, benchClinics, n+1, int64(p)*n/parts, int64(p+1)*n/parts-1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, sql := range []string{
		"DROP TABLE event_2026_11", "ALTER TABLE filling RENAME TO event_2026_11", "ALTER TABLE event_2026_11 ENABLE ROW LEVEL SECURITY",
		"ALTER TABLE event ATTACH PARTITION event_2026_11 FOR VALUES FROM ('2026-11-01 00:00Z') TO ('2026-12-01 00:00Z')",
		`INSERT INTO traffic_hourly SELECT c, h, a, ('02:00:00:00:00:' || lpad(to_hex(d), 2, '0'))::macaddr, 'clinical', 'name', 1000000, 100000, 1000, 10
		 FROM generate_series(1, 20) c, generate_series('2026-11-01 00:00Z'::timestamptz, '2026-11-30 23:00Z', '1 hour') h,
		   unnest(ARRAY['tls','dns','http','smb','dicom']) a, generate_series(1, 10) d`,
		`INSERT INTO coverage_hourly (clinic_id, appliance_id, hour, reported_ms, unprotected_ms, packets_seen, packets_lost, bytes_clear, bytes_name, bytes_opaque)
		 SELECT c, c, h, 3600000, 0, 1000, 0, 1, 1, 1 FROM generate_series(1, 1000) c, generate_series('2026-11-01 00:00Z'::timestamptz, '2026-11-30 23:00Z', '1 hour') h`,
		"VACUUM ANALYZE",
	} {
		if _, err := owner.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var have int64
	if err := owner.QueryRow(ctx, "SELECT count(*) FROM event").Scan(&have); err != nil {
		t.Fatal(err)
	}
	return have
}

// reportQueries are what the reporter asks for one month of one clinic, through its views; $1 clinic, $2 and $3 the month.
var reportQueries = []string{
	`SELECT clinic_id, code, name, kana, director, hours FROM report_clinic WHERE clinic_id = $1 AND $2::timestamptz < $3::timestamptz`,
	`SELECT a.appliance_id, (SELECT min(c.hour) FROM report_coverage c WHERE c.clinic_id = a.clinic_id AND c.appliance_id = a.appliance_id AND c.reported_ms > 0)
	 FROM report_appliance a WHERE a.clinic_id = $1 AND a.created_at > $2::timestamptz - interval '100 years' AND $3::timestamptz IS NOT NULL`,
	`SELECT appliance_id, hour, reported_ms, unprotected_ms, packets_seen, packets_lost, bytes_clear, bytes_name, bytes_opaque, lost_events FROM report_coverage WHERE clinic_id = $1 AND hour >= $2 AND hour < $3`,
	`SELECT appliance_id, received, lost_declared, lost_undeclared FROM report_ledger WHERE clinic_id = $1 AND first_at < now() + ($3::timestamptz - $2::timestamptz)`,
	`SELECT from_seq, to_seq, cause FROM report_gap WHERE clinic_id = $1 AND opened_at >= $2 AND opened_at < $3`,
	`SELECT seq, from_t, to_t, cause FROM report_unprotected WHERE clinic_id = $1 AND t >= $2 AND t < $3`,
	`SELECT mac, ip, zone, hostname, name FROM report_device WHERE clinic_id = $1 AND first_seen < $3 AND $2::timestamptz IS NOT NULL`,
	`SELECT seq, t, certainty, device_mac, device_ip FROM report_infected WHERE clinic_id = $1 AND t >= $2 AND t < $3`,
	`SELECT hour, sum(bytes_in), sum(bytes_out) FROM report_traffic WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY hour`,
	`SELECT app, sum(bytes_in), sum(bytes_out) FROM report_traffic WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY app`,
	`SELECT device_mac, zone, sum(bytes_in + bytes_out) FROM report_traffic WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY device_mac, zone`,
	`SELECT appliance_id, stream_id, seq, t, kind, severity, category, action, rule, title, indicator, count, src_ip, dst_ip, device_mac, zone FROM report_finding WHERE clinic_id = $1 AND t >= $2 AND t < $3 ORDER BY t, appliance_id, stream_id, seq`,
	`SELECT kind, category, action, sum(events), sum(count) FROM report_finding_daily WHERE clinic_id = $1 AND day >= $2::timestamptz::date AND day < $3::timestamptz::date GROUP BY 1, 2, 3`,
}

func benchReport(t *testing.T, srv *postgres.PrivateServer) float64 {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, srv.DSN(postgres.RoleReporter))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	began := time.Now()
	findings := 0
	if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('kadomori.clinics', '{7}', true)"); err != nil {
			return err
		}
		for i, q := range reportQueries {
			one := time.Now()
			rows, err := tx.Query(ctx, q, 7, time.Date(2026, 10, 31, 15, 0, 0, 0, time.UTC), time.Date(2026, 11, 30, 15, 0, 0, 0, time.UTC))
			if err != nil {
				return fmt.Errorf("query %d: %w", i, err)
			}
			n := 0
			for rows.Next() {
				n++
			}
			if err := rows.Err(); err != nil {
				return fmt.Errorf("query %d: %w", i, err)
			}
			if strings.Contains(q, "FROM report_finding ") {
				findings = n
			}
			t.Logf("report query %d: %d rows in %s", i, n, time.Since(one).Round(100*time.Microsecond))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if findings == 0 {
		t.Error("the report's month has no findings: nothing was measured")
	}
	return time.Since(began).Seconds()
}

func benchSearch(t *testing.T, db *postgres.DB) float64 {
	t.Helper()
	var took []time.Duration
	for range 5 {
		began := time.Now()
		n := 0
		if err := db.Fleet(context.Background(), "system:bench", func(tx pgx.Tx) error {
			rows, err := tx.Query(context.Background(), `SELECT clinic_id, t, src_ip, dst_ip, indicator, action FROM event
				WHERE rule = '1:2100040' AND kind IN ('alert','detection') AND t >= '2026-11-20' AND t < '2026-11-27' ORDER BY t DESC LIMIT 500`)
			if err != nil {
				return err
			}
			for rows.Next() {
				n++
			}
			return rows.Err()
		}); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Fatal("the search finds nothing: nothing was measured")
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return float64(took[len(took)/2].Microseconds()) / 1000
}

func goCPU() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}

// postgresCPU sums user and system time of the server's processes, those that ended counted by their parent.
func postgresCPU(t *testing.T, dir string) float64 {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	parent := strings.SplitN(string(raw), "\n", 2)[0]
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	ticks := 0
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue // ended
		}
		pid, rest, _ := strings.Cut(string(b), " ")
		_, rest, _ = strings.Cut(rest, ") ")
		f := strings.Fields(rest) // from field 3 of proc(5) on
		if len(f) < 15 || pid != parent && f[1] != parent {
			continue
		}
		for _, i := range []int{11, 12} { // utime, stime
			n, _ := strconv.Atoi(f[i])
			ticks += n
		}
	}
	return float64(ticks) / 100
}

func cores() int {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	return strings.Count(string(b), "processor\t:")
}

func load() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	return n
}

// writeFigures puts the figures into BENCH_OUT beside what other benchmarks wrote there.
func writeFigures(t *testing.T, f figures) {
	t.Helper()
	file := os.Getenv("BENCH_OUT")
	if file == "" {
		return
	}
	all := map[string]any{}
	if b, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	b, err := json.Marshal(f)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	if b, err = json.MarshalIndent(all, "", "  "); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s", file, b)
}
