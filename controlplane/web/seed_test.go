package web_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

// fleetSeed is an invented MSP: clinics, boxes, devices and a day of detections.
type fleetSeed struct {
	conn   *pgx.Conn // owner
	now    time.Time
	rng    *rand.Rand
	boxes  []seedBox
	seq    map[int32]int64
	stream [16]byte
}

type seedBox struct {
	clinic, appliance int32
	devices           []seedDevice
}

type seedDevice struct {
	mac  string
	ip   netip.Addr
	name string
	zone string
}

var seedNames = []struct{ name, kana string }{
	{"さくら小児科医院", "さくらしょうにかいいん"},
	{"青葉台内科クリニック", "あおばだいないかくりにっく"},
	{"はるの整形外科", "はるのせいけいげか"},
	{"みどり耳鼻咽喉科", "みどりじびいんこうか"},
	{"若草眼科", "わかくさがんか"},
	{"けやき皮膚科", "けやきひふか"},
	{"ひまわり歯科医院", "ひまわりしかいいん"},
	{"みなと内科循環器クリニック", "みなとないかじゅんかんきくりにっく"},
	{"花水木こどもクリニック", "はなみずきこどもくりにっく"},
	{"鈴蘭整形外科", "すずらんせいけいげか"},
	{"しらかば小児科", "しらかばしょうにか"},
	{"日だまり在宅診療所", "ひだまりざいたくしんりょうじょ"},
}

var seedRules = []struct {
	kind, rule, title string
	sev               int
	cat, action       string
	certainty         int
	weight            int
	dir               int
	indicator         string
}{
	{"detection", "infected-host", "感染の疑い", 5, "bot", "passed", 2, 1, 1, ""},
	{"alert", "1:2100301", "KDM EXPLOIT Path traversal to management page", 5, "intrusion", "passed", 0, 2, 2, "nas.example.jp"},
	{"detection", "D12-address", "c2-addresses", 5, "bot", "passed", 1, 3, 1, "203.0.113.66"},
	{"detection", "D12-domain", "c2-domains", 4, "bot", "blocked", 1, 6, 1, "update-check.example.net"},
	{"alert", "1:2100012", "KDM MALWARE Executable behind a picture name", 4, "malware", "blocked", 0, 4, 1, "img.example.org"},
	{"alert", "1:2100044", "KDM POLICY RDP from vendor zone outside of work hours", 4, "policy", "passed", 0, 3, 3, ""},
	{"detection", "D19", "", 4, "scan", "passed", 3, 9, 3, ""},
	{"alert", "1:2100058", "KDM SCAN SSH brute force from outside", 3, "scan", "blocked", 0, 60, 2, ""},
	{"alert", "1:2100060", "KDM WEB Known phishing host", 3, "bad_site", "blocked", 0, 12, 1, "login-mynumber.example.com"},
	{"alert", "1:2100071", "KDM POLICY Remote control tool not in the ledger", 3, "policy", "passed", 0, 14, 1, "relay.example.net"},
	{"alert", "1:2100072", "KDM POLICY Guest Wi-Fi to clinical zone", 3, "policy", "blocked", 0, 30, 3, ""},
	{"alert", "1:2100080", "KDM DNS Lookup burst of names that do not exist", 3, "other", "passed", 0, 20, 1, ""},
	{"alert", "1:2100090", "KDM INFO Cleartext password in FTP", 2, "policy", "passed", 0, 8, 1, "ftp.example.jp"},
	{"alert", "1:2100091", "KDM INFO SMBv1 negotiation", 2, "other", "passed", 0, 11, 3, ""},
	{"alert", "1:2100092", "KDM WEB Old TLS version offered", 2, "other", "passed", 0, 25, 1, ""},
	{"alert", "1:2100099", "KDM INFO New remote update host", 1, "other", "passed", 0, 18, 1, "cdn.example.com"},
}

// seedFleet fills an empty database. clinics and alerts say how much.
func seedFleet(t testing.TB, dsns postgrestest.DSNs, clinics, alerts int) *fleetSeed {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	f := &fleetSeed{conn: conn, now: time.Now().UTC(), rng: rand.New(rand.NewPCG(7, 11)), seq: map[int32]int64{}, stream: [16]byte{0xa1, 0xb2, 0xc3, 0xd4, 5, 6, 7, 8, 9}}
	f.exec(t, `INSERT INTO plan (name, document, author) VALUES ('標準', E'zones:\n  clinical:\n    mode: notify\n', 'seed'), ('厳重', E'zones:\n  clinical:\n    mode: notify\n', 'seed')`)
	f.exec(t, `INSERT INTO setting (name, value) VALUES ('msp.name', '門守サポートセンター'), ('msp.phone', '0120-000-000') ON CONFLICT DO NOTHING`)
	for i := range clinics {
		f.clinic(t, i)
	}
	if clinics > 10 {
		f.rollout(t)
	}
	f.alerts(t, alerts)
	f.exec(t, "ANALYZE")
	return f
}

func (f *fleetSeed) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := f.conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (f *fleetSeed) clinic(t testing.TB, i int) {
	t.Helper()
	n := seedNames[i%len(seedNames)]
	name, kana := n.name, n.kana
	if i >= len(seedNames) {
		name = fmt.Sprintf("%s %s院", name, []string{"東", "西", "南", "北", "駅前", "本町"}[(i/len(seedNames)-1)%6])
	}
	var id, box int32
	row := f.conn.QueryRow(context.Background(), `INSERT INTO clinic (code, name, kana, director, plan_id, hours, created_at)
VALUES ($1, $2, $3, $4, $5, 'mon-fri 09:00-12:30 15:00-18:30; sat 09:00-13:00', $6) RETURNING clinic_id`,
		fmt.Sprintf("C%03d", i+1), name, kana, []string{"佐藤 恵", "鈴木 一郎", "高橋 葉子", "田中 誠"}[i%4], 1+i%5/4, f.now.AddDate(0, -3, 0))
	if err := row.Scan(&id); err != nil {
		t.Fatal(err)
	}
	online, refused, wire, state := true, "", "inline-native", "approved"
	seen := f.now.Add(-time.Duration(f.rng.IntN(40)) * time.Second)
	switch i {
	case 3:
		online, seen = false, f.now.Add(-2*time.Hour-3*time.Minute)
	case 5:
		refused = "policy 12: zone clinical: prefix 192.168.10.0/33 is no prefix"
	case 8:
		wire = "tap"
	case 10:
		state, online, wire, seen = "pending", false, "", time.Time{}
	}
	var seenArg any
	if !seen.IsZero() {
		seenArg = seen
	}
	row = f.conn.QueryRow(context.Background(), `INSERT INTO appliance (clinic_id, name, serial, model, state, last_seen, connected, version, wire_mode, policy_version,
 signature_version, refused, clock_offset_ms, spool_depth, created_at) VALUES ($1, $2, $3, 'KDM-100', $4, $5, $6, '0.1.0', $7, 12, 240, $8, $9, $10, $11) RETURNING appliance_id`,
		id, fmt.Sprintf("gate-%03d", i+1), fmt.Sprintf("KDM%06d", 100200+i*7), state, seenArg, online, wire, refused, f.rng.IntN(80)-40, f.rng.IntN(30), f.now.AddDate(0, -3, 0))
	if err := row.Scan(&box); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `INSERT INTO bundle (clinic_id, appliance_id, kind, version, sha256, size, envelope, content, author) VALUES ($1, $2, 'policy', 12, '\x00', 1, '\x00', '\x00', 'seed')`, id, box)
	if i == 0 {
		f.exec(t, `INSERT INTO bundle (kind, version, sha256, size, envelope, content, author) VALUES ('signature', 240, '\x00', 1, '\x00', '\x00', 'seed')`)
	}
	if i == 2 {
		f.exec(t, `INSERT INTO policy_override (clinic_id, document, author, reason, expires_at) VALUES ($1, E'zones:\n  clinical:\n    mode: observe\n', 'kato', '検査機器の入れ替え（作業記録 W-1182）', $2)`, id, f.now.AddDate(0, 0, 20))
	}
	b := seedBox{clinic: id, appliance: box}
	for j, d := range []struct{ name, zone string }{{"受付PC-1", "clinical"}, {"受付PC-2", "clinical"}, {"レセコン", "clinical"}, {"資格確認端末", "eligibility"}, {"画像サーバー", "clinical"}, {"NAS", "clinical"}, {"", "guest"}, {"", "guest"}, {"見守りカメラ", "iot"}} {
		dev := seedDevice{mac: fmt.Sprintf("02:00:5e:%02x:%02x:%02x", i, j, 16+j), ip: netip.AddrFrom4([4]byte{192, 168, 10, byte(20 + j)}), name: d.name, zone: d.zone}
		if d.zone == "guest" {
			dev.ip = netip.AddrFrom4([4]byte{192, 168, 50, byte(20 + j)})
		}
		f.exec(t, `INSERT INTO device (clinic_id, mac, ip, zone, hostname, name, source, anonymous, first_seen, last_seen) VALUES ($1, $2, $3, $4, $5, $6, 'dhcp', $7, $8, $9)`,
			id, dev.mac, dev.ip, dev.zone, strings.ToLower(fmt.Sprintf("host-%d", j)), dev.name, d.zone == "guest", f.now.AddDate(0, -2, -j), f.now.Add(-time.Duration(j*j)*time.Hour))
		b.devices = append(b.devices, dev)
	}
	f.boxes = append(f.boxes, b)
	if state != "approved" {
		return
	}
	var rows [][]any
	for h := range 24 * 28 {
		hour := f.now.Truncate(time.Hour).Add(-time.Duration(h) * time.Hour)
		ms := int64(3600_000)
		if h == 0 {
			ms = f.now.Sub(hour).Milliseconds()
		}
		var un int64
		if i%7 == 1 && h == 30 {
			un = 94_000
		}
		if i == 3 && h < 3 {
			ms = max(0, ms-int64(3600_000/(1+h)))
		}
		if i == 6 && h > 200 && h < 218 {
			continue
		}
		rows = append(rows, []any{id, box, hour, ms, un, 120_000 + f.rng.IntN(90_000), f.rng.IntN(2) * f.rng.IntN(9), 40_000_000, 90_000_000, 30_000_000})
	}
	if _, err := f.conn.CopyFrom(context.Background(), pgx.Identifier{"coverage_hourly"}, []string{
		"clinic_id", "appliance_id", "hour", "reported_ms", "unprotected_ms",
		"packets_seen", "packets_lost", "bytes_clear", "bytes_name", "bytes_opaque",
	}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	f.event(t, b, f.now.Add(-26*time.Minute), "self_test", nil)
	if i%7 == 1 {
		from := f.now.Add(-30 * time.Hour)
		f.exec(t, `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, detail) VALUES ($1, $2, $3, $4, $5, $5, 'unprotected', jsonb_build_object('from', $6::timestamptz, 'to', $7::timestamptz, 'cause', 'agent_stopped'))`,
			id, box, f.stream, f.next(box), from.Add(94*time.Second), from, from.Add(94*time.Second))
	}
	if i%3 == 0 {
		f.report(t, id, i)
	}
}

func (f *fleetSeed) next(box int32) int64 { f.seq[box]++; return f.seq[box] }

func (f *fleetSeed) event(t testing.TB, b seedBox, at time.Time, kind string, _ any) {
	t.Helper()
	f.exec(t, `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, '{"passed": true}')`,
		b.clinic, b.appliance, f.stream, f.next(b.appliance), at, at.Add(1200*time.Millisecond), kind)
}

func (f *fleetSeed) report(t testing.TB, clinic int32, i int) {
	t.Helper()
	month := time.Date(f.now.Year(), f.now.Month()-1, 1, 0, 0, 0, 0, time.UTC)
	html := `<!doctype html><html lang="ja"><head><meta charset="utf-8"><title>月次報告</title><style>body{font-family:sans-serif;margin:40px;color:#17202b}h1{font-size:24px}</style></head>` +
		`<body><h1>今月のまとめ</h1><p>平素より大変お世話になっております。対応が必要な事象は観測されませんでした。</p><p style="color:#17693f">● 良好</p></body></html>`
	pdf := []byte("%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj 3 0 obj<</Type/Page/MediaBox[0 0 595 842]/Parent 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n")
	sum := sha256.Sum256(pdf)
	for rev := 1; rev <= 1+i%2; rev++ {
		f.exec(t, `INSERT INTO report (clinic_id, month, revision, document_no, verdict, facts, html, pdf, data_sha256, pdf_sha256, renderer, created_at)
VALUES ($1, $2, $3, $4, $5, '{}', $6, $7, $8, $8, 'seed 1', $9)`, clinic, month, rev, fmt.Sprintf("KDM-%s-C%03d-%d", month.Format("200601"), i+1, rev),
			[]string{"ok", "warn", "act", "hold"}[i/3%4], html, pdf, sum[:], f.now.AddDate(0, 0, -3+rev))
	}
}

// alerts spreads n rows over the last 24 hours, more of them near the end.
func (f *fleetSeed) alerts(t testing.TB, n int) {
	t.Helper()
	total := 0
	for _, r := range seedRules {
		total += r.weight
	}
	var rows [][]any
	for range n {
		w := f.rng.IntN(total)
		k := 0
		for w >= seedRules[k].weight {
			w -= seedRules[k].weight
			k++
		}
		u := f.rng.Float64()
		at := f.now.Add(-time.Duration(u*u*23.8*float64(time.Hour)) - 5*time.Second)
		rows = append(rows, f.alertRow(k, f.boxes[f.rng.IntN(min(len(f.boxes), 2+seedRules[k].weight*2))], at, at.Add(1100*time.Millisecond)))
	}
	if n > 0 {
		f.copy(t, rows)
	}
	f.exec(t, `INSERT INTO event_ledger (clinic_id, appliance_id, stream_id, got, first_at) SELECT clinic_id, appliance_id, stream_id, int8multirange(int8range(1, max(seq) + 1)), now() - interval '90 days' FROM event GROUP BY 1, 2, 3
ON CONFLICT (appliance_id, stream_id) DO UPDATE SET got = excluded.got`)
}

var seedColumns = []string{
	"clinic_id", "appliance_id", "stream_id", "seq", "t", "received_at", "kind", "severity", "category", "action", "certainty", "rule", "title", "indicator",
	"count", "direction", "src_ip", "src_port", "dst_ip", "dst_port", "ip_proto", "app", "device_mac", "device_ip", "zone",
}

func (f *fleetSeed) copy(t testing.TB, rows [][]any) {
	t.Helper()
	if _, err := f.conn.CopyFrom(context.Background(), pgx.Identifier{"event"}, seedColumns, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
}

func (f *fleetSeed) alertRow(k int, b seedBox, at, received time.Time) []any {
	r := seedRules[k]
	d := b.devices[f.rng.IntN(len(b.devices))]
	out := netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + f.rng.IntN(250))})
	src, dst, port := d.ip, out, []int{443, 80, 53, 7080, 8443}[f.rng.IntN(5)]
	switch r.dir {
	case 2:
		src, dst, port = out, d.ip, []int{22, 443, 3389}[f.rng.IntN(3)]
	case 3:
		dst, port = b.devices[f.rng.IntN(6)].ip, []int{445, 3389}[f.rng.IntN(2)]
	}
	action := r.action
	if r.weight > 8 && f.rng.IntN(6) == 0 && r.sev < 4 {
		action = map[string]string{"passed": "blocked", "blocked": "passed"}[action]
	}
	return []any{
		b.clinic, b.appliance, f.stream, f.next(b.appliance), at, received, r.kind, r.sev, r.cat, action, r.certainty, r.rule, r.title, r.indicator,
		1 + f.rng.IntN(3)/2, r.dir, src, 40000 + f.rng.IntN(9999), dst, port, 6, "tls", d.mac, d.ip, d.zone,
	}
}

// late commits one more alert of rule k at the first clinic, as ingest would, and tells everybody.
func (f *fleetSeed) late(t testing.TB, k int, title string) {
	t.Helper()
	now := time.Now().UTC()
	row := f.alertRow(k, f.boxes[0], now.Add(-300*time.Millisecond), now)
	if title != "" {
		row[11], row[12] = "1:"+title, "KDM TEST "+title
	}
	f.copy(t, [][]any{row})
	f.exec(t, `SELECT pg_notify('kadomori_event', '{"clinics":[1]}')`)
}

// rollout is one of rules that halted by itself in its second ring.
func (f *fleetSeed) rollout(t testing.TB) {
	t.Helper()
	f.exec(t, `INSERT INTO rollout (kind, subject, from_version, to_version, state, spec, ring, detail, author, reason, created_at, changed_at)
VALUES ('signature', 'signatures', 239, 240, 'halted', '{"rings":[{"name":"canary","percent":10},{"name":"early","percent":40},{"name":"all","percent":100}],"gates":{"failed_percent":0,"unprotected_minutes":5,"block_ratio":3,"alert_ratio":3},"soak":1800000000000,"grace":600000000000}',
  1, 'gate failed appliances: 1 of 8 (12 %), limit 0 %', 'kato', '2026-11 の検知ルール更新', $1, $2)`, f.now.Add(-3*time.Hour), f.now.Add(-40*time.Minute))
	for i, b := range f.boxes {
		ring, state, detail := 0, "ok", ""
		switch {
		case i == 5:
			ring, state, detail = 1, "reverted", "self-test failed: sid 9000001 was not seen"
		case i > 9:
			ring, state = 2, "waiting"
		case i > 6:
			ring, state = 1, "waiting"
		case i > 2:
			ring = 1
		}
		var at any
		if state != "waiting" {
			at = f.now.Add(-time.Duration(120-i*7) * time.Minute)
		}
		f.exec(t, `INSERT INTO rollout_target (clinic_id, rollout_id, appliance_id, ring, from_version, state, detail, applied_at, settled_at) VALUES ($1, 1, $2, $3, 239, $4, $5, $6, $6)`, b.clinic, b.appliance, ring, state, detail, at)
	}
	f.exec(t, `UPDATE plan SET reason = '全院の標準'`)
	f.exec(t, `INSERT INTO claim (clinic_id, appliance_id, secret_hash, auto_approve, created_by, created_at, expires_at, used_at) SELECT clinic_id, appliance_id, '\x01', false, 'tanaka', $1, $2, $1 FROM appliance WHERE state = 'pending'`, f.now.Add(-time.Hour), f.now.AddDate(0, 0, 6))
	f.exec(t, `UPDATE appliance SET key_sha256 = decode(md5('key') || md5('yek'), 'hex') WHERE state = 'pending'`)
}
