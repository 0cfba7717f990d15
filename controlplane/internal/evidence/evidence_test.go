package evidence_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/kadomori/kadomori/controlplane/internal/evidence"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// now is 12:00 in Japan on the 25th: the 22nd to the 24th are over.
var now = time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)

type archive struct {
	owner  *pgx.Conn
	db     *postgres.DB
	keeper *evidence.Keeper
	now    time.Time
}

// newArchive has clinics 1 and 2 with one appliance each, and 10 events a day of receipt from the 22nd to the 25th of November.
func newArchive(t *testing.T) *archive {
	t.Helper()
	dsns := postgrestest.NewDSNs(t)
	a := &archive{db: postgrestest.Open(t, dsns), now: now}
	var err error
	if a.owner, err = pgx.Connect(testContext(t), dsns.Owner); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.owner.Close(context.Background()) })
	a.exec(t, `INSERT INTO plan (name, document, author) VALUES ('p', '', 'test');
		INSERT INTO clinic (code, name, plan_id, created_at) SELECT 'C' || g, '医院' || g, p.id, '2026-11-21 20:00Z' FROM plan p, generate_series(1, 2) g;
		INSERT INTO appliance (clinic_id, name, state) SELECT clinic_id, 'a', 'approved' FROM clinic ORDER BY 1;
		INSERT INTO event_ledger (clinic_id, appliance_id, stream_id, got, first_at) SELECT clinic_id, appliance_id, ('00000000-0000-0000-0000-00000000000' || clinic_id)::uuid,
		  '{[1,41)}', '2026-11-22 00:00+09' FROM appliance;
		SELECT event_make_partitions('2025-01-01', 24);
		INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, title, detail)
		  SELECT clinic_id, appliance_id, stream_id, n, r - interval '3 hours', r, CASE WHEN n % 2 = 0 THEN 'alert' ELSE 'health' END, '見出し', '{"b":1,"a":"x"}'
		  FROM event_ledger, generate_series(1, 40) n, LATERAL (SELECT '2026-11-22 00:00+09'::timestamptz + ((n - 1) / 10) * interval '1 day' + (n % 10) * interval '2 hours' AS r) r`)
	if a.keeper, err = evidence.NewKeeper(evidence.Config{DB: a.db, Now: func() time.Time { return a.now }}); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *archive) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := a.owner.Exec(testContext(t), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (a *archive) seal(t *testing.T, want int) {
	t.Helper()
	n, err := a.keeper.Seal(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if n != want {
		t.Fatalf("sealed %d days of clinics, want %d", n, want)
	}
}

func (a *archive) verify(t *testing.T, clinic int32, from, to string) *evidence.Result {
	t.Helper()
	first, err := evidence.ParseDay(from)
	if err != nil {
		t.Fatal(err)
	}
	last, err := evidence.ParseDay(to)
	if err != nil {
		t.Fatal(err)
	}
	var res *evidence.Result
	if err := a.db.As(testContext(t), []int32{clinic}, func(tx pgx.Tx) error {
		res, err = evidence.Verify(context.Background(), tx, clinic, first, last)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return res
}

func TestEvidenceIntactChainVerifies(t *testing.T) {
	a := newArchive(t)
	a.seal(t, 6) // three days of two clinics; the 25th isn't over
	a.seal(t, 0)
	for clinic := int32(1); clinic <= 2; clinic++ {
		res := a.verify(t, clinic, "2026-11-22", "2026-11-24")
		if len(res.Problems) > 0 || res.Days != 3 || res.Events != 30 {
			t.Errorf("clinic %d: %d days, %d events, problems %v", clinic, res.Days, res.Events, res.Problems)
		}
	}
	// A part of the chain verifies by itself, and the next day follows.
	if res := a.verify(t, 1, "2026-11-24", "2026-11-24"); len(res.Problems) > 0 || res.Days != 1 || res.Events != 10 {
		t.Errorf("one day: %+v", res)
	}
	a.now = a.now.AddDate(0, 0, 1)
	a.seal(t, 2)
	if res := a.verify(t, 1, "2026-11-22", "2026-11-25"); len(res.Problems) > 0 || res.Days != 4 || res.Events != 40 {
		t.Errorf("with the next day: %+v", res)
	}
}

func TestEvidenceNamesTheFirstDifference(t *testing.T) {
	for name, c := range map[string]struct{ tamper, day, want string }{
		"changed":        {"UPDATE event SET title = 'x' WHERE clinic_id = 1 AND seq = 14", "2026-11-23", "an event was changed"},
		"detail changed": {`UPDATE event SET detail = '{"a":"y","b":1}' WHERE clinic_id = 1 AND seq = 14`, "2026-11-23", "an event was changed"},
		"missing":        {"DELETE FROM event WHERE clinic_id = 1 AND seq = 14", "2026-11-23", "9 events are there, 10 were sealed; the first that is missing is 14"},
		"twice":          {"INSERT INTO event SELECT * FROM event WHERE clinic_id = 1 AND seq = 14", "2026-11-23", "event 14 is there twice"},
		"added":          {"INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind) SELECT 1, 1, gen_random_uuid(), 1, now(), '2026-11-23 12:00+09', 'alert'", "2026-11-23", "a stream that was not sealed"},
		"moved":          {"UPDATE event SET received_at = received_at - interval '1 day' WHERE clinic_id = 1 AND seq = 14", "2026-11-22", "11 events are there, 10 were sealed"},
		"ledger":         {`UPDATE evidence_day SET ledger = '[]' WHERE clinic_id = 1 AND day = '2026-11-23'`, "2026-11-23", "the stored ledger was changed"},
		"count":          {"UPDATE evidence_day SET events = 9 WHERE clinic_id = 1 AND day = '2026-11-23'", "2026-11-23", "the link itself was changed"},
		"link":           {"UPDATE evidence_day SET hash = sha256('x') WHERE clinic_id = 1 AND day = '2026-11-22'", "2026-11-22", "the link itself was changed"},
		"link missing":   {"DELETE FROM evidence_day WHERE clinic_id = 1 AND day = '2026-11-23'", "2026-11-23", "the link of this day is missing"},
		"first missing":  {"DELETE FROM evidence_day WHERE clinic_id = 1 AND day = '2026-11-22'", "2026-11-23", "the link says that there was a day before"},
		"ledger shrunk":  {"UPDATE event_ledger SET got = got - '{[14,15)}' WHERE clinic_id = 1", "2026-11-24", "the ledger of today has lost number 14"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t)
			a.seal(t, 6)
			a.exec(t, c.tamper)
			res := a.verify(t, 1, "2026-11-22", "2026-11-24")
			if len(res.Problems) == 0 {
				t.Fatal("the change was not found")
			}
			if p := res.Problems[0]; p.Day.String() != c.day || !strings.Contains(p.What, c.want) {
				t.Errorf("first difference = %s; want %s: %s", p, c.day, c.want)
			}
			if other := a.verify(t, 2, "2026-11-22", "2026-11-24"); len(other.Problems) > 0 {
				t.Errorf("the other clinic's evidence suffers: %v", other.Problems)
			}
		})
	}
}

func TestEvidenceLateEventsBelongToTheDayOfReceipt(t *testing.T) {
	a := newArchive(t)
	a.seal(t, 6)
	// An event of the 22nd by box time that arrives on the 25th.
	a.exec(t, `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind) SELECT 1, 1, stream_id, 41, '2026-11-22 12:00+09', '2026-11-25 11:00+09', 'alert'
		FROM event_ledger WHERE clinic_id = 1; UPDATE event_ledger SET got = '{[1,42)}' WHERE clinic_id = 1`)
	if res := a.verify(t, 1, "2026-11-22", "2026-11-24"); len(res.Problems) > 0 {
		t.Errorf("sealed days suffer from a late event: %v", res.Problems)
	}
	a.now = a.now.AddDate(0, 0, 1)
	a.seal(t, 2)
	if res := a.verify(t, 1, "2026-11-25", "2026-11-25"); len(res.Problems) > 0 || res.Events != 11 {
		t.Errorf("the day of receipt: %+v", res)
	}
}

func (a *archive) int(t *testing.T, query string) int64 {
	t.Helper()
	var n int64
	if err := a.owner.QueryRow(testContext(t), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestRetentionDeletesByRuleLogsAndRespectsHolds(t *testing.T) {
	a := newArchive(t)
	a.seal(t, 6)
	a.exec(t, `INSERT INTO retention_rule (clinic_id, dataset, days, author) VALUES (2, 'operation', 400, 'suzuki');
		INSERT INTO legal_hold (clinic_id, from_t, to_t, reason, author) VALUES (1, '2026-11-23 00:00+09', '2026-11-24 00:00+09', '調査', 'suzuki')`)
	a.now = a.now.AddDate(0, 0, 100) // operation is kept for 90 days, security for 400
	done, err := a.keeper.Retain(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(done) != 1 || done[0].Clinic != 1 || done[0].Dataset != "operation" || done[0].Rows != 15 {
		t.Errorf("deleted %+v; want 15 rows of operation of clinic 1", done)
	}
	if got := a.int(t, "SELECT count(*) FROM event WHERE clinic_id = 1 AND kind = 'health'"); got != 5 {
		t.Errorf("under the hold %d rows are left, want the 5 of the 23rd", got)
	}
	if got := a.int(t, "SELECT count(*) FROM event WHERE kind = 'alert' OR clinic_id = 2"); got != 60 {
		t.Errorf("of what must stay %d rows are there, want 60", got)
	}
	if got := a.int(t, "SELECT rows FROM deletion_log WHERE clinic_id = 1 AND dataset = 'operation' AND days = 90"); got != 15 {
		t.Errorf("the deletion log says %d rows", got)
	}
	res := a.verify(t, 1, "2026-11-22", "2026-11-24")
	if len(res.Problems) > 0 || len(res.Deleted) != 2 {
		t.Errorf("after deletion by rule: problems %v, deleted %v; want no problem and two days", res.Problems, res.Deleted)
	}
	a.exec(t, "UPDATE legal_hold SET released_at = now(), released_by = 'suzuki'")
	if done, err = a.keeper.Retain(testContext(t)); err != nil || len(done) != 1 || done[0].Rows != 5 {
		t.Errorf("after the release: %+v, %v; want 5 rows", done, err)
	}
	a.now = a.now.AddDate(2, 0, 0)
	if _, err := a.keeper.Retain(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := a.int(t, "SELECT count(*) FROM event"); got != 0 {
		t.Errorf("after two years %d events are left", got)
	}
	if got := a.int(t, "SELECT count(*) FROM pg_class WHERE relname LIKE 'event_2025%' AND relkind = 'r'"); got != 0 {
		t.Errorf("%d empty months of 2025 are left", got)
	}
	// Less than a year for security events needs a written waiver.
	if _, err := a.owner.Exec(testContext(t), "INSERT INTO retention_rule (clinic_id, dataset, days, author) VALUES (1, 'security', 90, 'x')"); err == nil {
		t.Error("security events may be kept for 90 days without a waiver")
	}
}

func TestCommandPrintsTheVerdict(t *testing.T) {
	a := newArchive(t)
	a.seal(t, 6)
	run := func() (string, error) {
		cmd := evidence.Command(func(ctx context.Context, clinic int32, fn func(pgx.Tx) error) error {
			return a.db.As(ctx, []int32{clinic}, fn)
		})
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SilenceUsage = true
		cmd.SetArgs([]string{"verify", "--clinic", "1", "--from", "2026-11-22", "--to", "2026-11-24"})
		err := cmd.ExecuteContext(testContext(t))
		return out.String(), err
	}
	out, err := run()
	if err != nil || !strings.Contains(out, "3 days, 30 events read: intact") {
		t.Errorf("%s, %v", out, err)
	}
	a.exec(t, "DELETE FROM event WHERE clinic_id = 1 AND seq = 14")
	out, err = run()
	if !errors.Is(err, evidence.ErrDifferent) || !strings.HasPrefix(out, "FIRST DIFFERENCE  2026-11-23: appliance 1, stream 00000000000000000000000000000001: 9 events") {
		t.Errorf("%s, %v", out, err)
	}
}
