package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"go.uber.org/goleak"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
	"github.com/kadomori/kadomori/reporter/internal/query"
	"github.com/kadomori/kadomori/reporter/internal/query/querytest"
)

func TestMain(m *testing.M) {
	code := querytest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // a test's main
}

func needWeasyPrint(t *testing.T) {
	t.Helper()
	if err := exec.Command("/usr/bin/python3", "-I", "-c", "import weasyprint").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs Debian's weasyprint")
		}
		t.Skip("needs Debian's weasyprint")
	}
}

func config(db querytest.DB, now time.Time) Config {
	cfg := Config{DSN: db.Reporter, Now: func() time.Time { return now }}
	cfg.Renderer.Timeout = 5 * time.Minute
	return cfg
}

func TestFreezeStoresWhatIsPrinted(t *testing.T) {
	needWeasyPrint(t)
	db := querytest.New(t)
	c := monthtest.Infected(t)
	clinic := querytest.Insert(t, db, c)
	ctx := context.Background()
	r, err := NewReporter(ctx, config(db, c.In.Now))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for revision := 1; revision <= 2; revision++ {
		out, err := r.Freeze(ctx, clinic, c.In.Month)
		if err != nil {
			t.Fatal(err)
		}
		if out.Facts.Revision != revision || out.Facts.Verdict != month.Act {
			t.Fatalf("revision %d, verdict %s; want %d, act", out.Facts.Revision, out.Facts.Verdict, revision)
		}
		conn, err := pgx.Connect(ctx, db.Owner)
		if err != nil {
			t.Fatal(err)
		}
		var facts, html string
		var pdf, dataSHA, pdfSHA []byte
		var renderer string
		if err := conn.QueryRow(ctx, `SELECT facts::text, html, pdf, data_sha256, pdf_sha256, renderer FROM report WHERE report_id = $1`, out.ID).
			Scan(&facts, &html, &pdf, &dataSHA, &pdfSHA, &renderer); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(ctx)
		// The printed digest can be had again from what the database holds.
		canonical, err := month.Canonical([]byte(facts))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(canonical)
		if !bytes.Equal(sum[:], dataSHA) || !strings.Contains(html, hex.EncodeToString(dataSHA)) {
			t.Error("the stored facts don't give the printed digest")
		}
		if sum := sha256.Sum256(pdf); !bytes.Equal(sum[:], pdfSHA) {
			t.Error("the stored PDF doesn't give the stored digest")
		}
		if !strings.Contains(renderer, "weasyprint") {
			t.Errorf("renderer %q names no versions", renderer)
		}
	}
}

func TestServeWorksAJob(t *testing.T) {
	needWeasyPrint(t)
	db := querytest.New(t)
	c := monthtest.Infected(t)
	clinic := querytest.Insert(t, db, c)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pool, err := pgxpool.New(ctx, db.Reporter)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Schema: Schema, Logger: slogFor(hclog.NewNullLogger())})
	if err != nil {
		t.Fatal(err)
	}
	opts := &river.InsertOpts{Queue: Queue}
	good, err := client.Insert(ctx, Job{clinic, "2026-10"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := client.Insert(ctx, Job{clinic, "Oktober"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := client.Insert(ctx, Job{clinic + 1, "2026-10"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(db, c.In.Now)
	cfg.Listen.Metrics = "127.0.0.1:0"
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	want := map[int64]string{good.Job.ID: "completed", bad.Job.ID: "cancelled", unknown.Job.ID: "cancelled"}
	deadline := time.After(5 * time.Minute)
	for len(want) > 0 {
		for id, state := range want {
			var got string
			if err := pool.QueryRow(ctx, `SELECT state FROM river.river_job WHERE id = $1`, id).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got == state {
				delete(want, id)
			}
		}
		select {
		case err := <-done:
			t.Fatalf("serve ended: %v", err)
		case <-deadline:
			t.Fatalf("jobs not as wanted in time: %v", want)
		case <-time.After(50 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRenderCommandWritesFiles(t *testing.T) {
	needWeasyPrint(t)
	db := querytest.New(t)
	c := monthtest.Infected(t)
	querytest.Insert(t, db, c)
	dir := t.TempDir()
	file := filepath.Join(dir, "reporter.dsn")
	if err := os.WriteFile(file, []byte(db.Reporter+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := filepath.Join(dir, "reporter.yaml")
	if err := os.WriteFile(cfg, []byte("dsn_file: "+file+"\nrenderer: {timeout: 5m}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pdf := filepath.Join(dir, "r.pdf")
	var stdout, stderr bytes.Buffer
	args := []string{"render", "--config", cfg, "--clinic", "1", "--month", "2026-10", "--now", "2026-11-02T00:00:00Z", "--out", pdf, "--html", pdf + ".html", "--facts", pdf + ".json"}
	if code := Main(args, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	if !strings.HasPrefix(stdout.String(), "SR-202610-0001 revision 1: act") {
		t.Errorf("said %q", stdout.String())
	}
	for _, name := range []string{pdf, pdf + ".html", pdf + ".json"} {
		if st, err := os.Stat(name); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range [][]string{
		{"render", "--config", cfg, "--clinic", "99", "--month", "2026-10", "--out", pdf},
		{"render", "--config", cfg, "--clinic", "1", "--month", "2026-13", "--out", pdf},
		{"render", "--config", cfg, "--clinic", "1", "--month", "2026-10"},
	} {
		stderr.Reset()
		if code := Main(bad, &stdout, &stderr); code != 1 || stderr.Len() == 0 {
			t.Errorf("%v: exit %d, said %q", bad, code, stderr.String())
		}
	}
}

func TestOneClinicNeverSeesAnother(t *testing.T) {
	db := querytest.New(t)
	quiet, loud := monthtest.Clear(t), monthtest.Infected(t)
	quiet.In.Clinic.Code = "C001"
	a, b := querytest.Insert(t, db, quiet), querytest.Insert(t, db, loud)
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, db.Reporter)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for clinic, attacks := range map[int32]bool{a: false, b: true} {
		f, err := query.Facts(ctx, pool, clinic, quiet.In.Month, query.Options{Now: quiet.In.Now})
		if err != nil {
			t.Fatal(err)
		}
		if (f.Attacks.Detected.N > 0) != attacks || (f.Infected.Count.N > 0) != attacks {
			t.Errorf("clinic %d: %d attacks, %d infected", clinic, f.Attacks.Detected.N, f.Infected.Count.N)
		}
	}
}

func TestShippedConfigurationIsValid(t *testing.T) {
	cfg, err := ReadConfig("../../deploy/systemd/reporter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestConfigRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {"dsn: x\nrender: {}\n", "render"},
		"no dsn":      {"log: {level: debug}\n", "neither dsn nor dsn_file"},
		"two dsn":     {"dsn: a\ndsn_file: b\n", "both set"},
		"level":       {"dsn: a\nlog: {level: loud}\n", "log.level"},
		"concurrency": {"dsn: a\nrenderer: {concurrency: 100}\n", "renderer.concurrency"},
		"timeout":     {"dsn: a\nrenderer: {timeout: 1ms}\n", "renderer.timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "r.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			if code := Main([]string{"validate", "--config", file}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit %d, said %q, want %q in it", code, stderr.String(), c.want)
			}
		})
	}
}

func TestVerifyAndAnnualReadWhatWasFrozen(t *testing.T) {
	needWeasyPrint(t)
	db := querytest.New(t)
	c := monthtest.Infected(t)
	clinic := querytest.Insert(t, db, c)
	ctx := context.Background()
	r, err := NewReporter(ctx, config(db, c.In.Now))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := r.Freeze(ctx, clinic, c.In.Month)
	if err != nil {
		t.Fatal(err)
	}
	year, err := r.Annual(ctx, clinic, 2026)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(year.HTML, []byte(hex.EncodeToString(out.DataSHA[:]))) {
		t.Error("the year doesn't name the month's digest")
	}
	file := filepath.Join(t.TempDir(), "r.yaml")
	if err := os.WriteFile(file, []byte("dsn: \""+db.Reporter+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func() (int, string) {
		var stdout, stderr bytes.Buffer
		code := Main([]string{"verify", "--config", file, "--clinic", "1", "--month", "2026-10"}, &stdout, &stderr)
		return code, stdout.String() + stderr.String()
	}
	if code, said := verify(); code != 0 || !strings.Contains(said, "genuine") {
		t.Errorf("exit %d: %s", code, said)
	}
	conn, err := pgx.Connect(ctx, db.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, `UPDATE report SET facts = jsonb_set(facts, '{infected,count,n}', '0')`); err != nil {
		t.Fatal(err)
	}
	if code, said := verify(); code != 1 || !strings.Contains(said, "ALTERED") {
		t.Errorf("exit %d: %s", code, said)
	}
	if _, err := r.Annual(ctx, clinic, 2026); err == nil {
		t.Error("a year is built on altered facts")
	}
}

// BenchmarkFreeze makes and stores reports one after another, each in a cold renderer.
func BenchmarkFreeze(b *testing.B) {
	db := querytest.New(b)
	c := monthtest.Infected(b)
	clinic := querytest.Insert(b, db, c)
	ctx := context.Background()
	r, err := NewReporter(ctx, config(db, c.In.Now))
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for b.Loop() {
		if _, err := r.Freeze(ctx, clinic, c.In.Month); err != nil {
			b.Fatal(err)
		}
	}
}
