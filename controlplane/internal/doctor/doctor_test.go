package doctor_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/kadomori/kadomori/controlplane/internal/doctor"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each line makes one thing wrong; the doctor must name it, and nothing when nothing is.
func TestDoctorNamesWhatIsWrong(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dsns := postgrestest.NewDSNs(t)
	db := postgrestest.Open(t, dsns)
	owner, err := pgx.Connect(ctx, dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(context.Background()) })
	exec := func(sql string) {
		t.Helper()
		if _, err := owner.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run := func() (string, error) {
		cmd := doctor.Command(func(ctx context.Context, fn func(pgx.Tx) error) error { return db.Fleet(ctx, "system:test", fn) })
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SilenceUsage = true
		cmd.SetArgs(nil)
		err := cmd.ExecuteContext(ctx)
		return out.String(), err
	}
	exec(`SELECT event_make_partitions(now(), 3);
		INSERT INTO plan (name, document, author) VALUES ('p', '', 'test');
		INSERT INTO clinic (code, name, plan_id, created_at) SELECT 'C1', '門守医院', id, now() - interval '10 days' FROM plan;
		INSERT INTO appliance (clinic_id, name, state, last_seen, created_at) VALUES (1, 'a', 'approved', now(), now() - interval '10 days');
		INSERT INTO event_ledger (clinic_id, appliance_id, stream_id) VALUES (1, 1, '00000000-0000-0000-0000-000000000001');
		INSERT INTO evidence_day (clinic_id, day, events, events_sha256, ledger, ledger_sha256, prev, hash)
		  VALUES (1, (now() AT TIME ZONE 'Asia/Tokyo')::date - 1, 0, '', '[]', '', '', '');
		INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, detail)
		  VALUES (1, 1, '00000000-0000-0000-0000-000000000001', 1, now(), now(), 'self_test', '{"passed":true}')`)
	if out, err := run(); err != nil || !strings.Contains(out, "checks are well") {
		t.Fatalf("a healthy fleet: %s, %v", out, err)
	}
	for _, c := range []struct {
		wrong, want, right string
		critical           bool
	}{
		{
			`INSERT INTO event_gap (clinic_id, appliance_id, stream_id, from_seq, to_seq, cause, confirmed) VALUES (1, 1, '00000000-0000-0000-0000-000000000001', 51, 60, 'undeclared', true)`,
			"clinic C1 (門守医院), appliance 1: events 51 to 60 are missing", "DELETE FROM event_gap", true,
		},
		{
			`INSERT INTO event_gap (clinic_id, appliance_id, stream_id, from_seq, to_seq, cause, confirmed) VALUES (1, 1, '00000000-0000-0000-0000-000000000001', 51, 60, 'full', true)`,
			"events 51 to 60, cause full", "DELETE FROM event_gap", false,
		},
		{"UPDATE appliance SET last_seen = now() - interval '1 hour'", "appliances are silent: clinic C1", "UPDATE appliance SET last_seen = now()", true},
		{`UPDATE event SET detail = '{"passed":false}'`, "the last self-test failed", `UPDATE event SET detail = '{"passed":true}'`, true},
		{`UPDATE event SET kind = 'health'`, "no self-test in 26 hours", `UPDATE event SET kind = 'self_test'`, true},
		{"INSERT INTO dead_letter (clinic_id, appliance_id, subject, reason, body) VALUES (1, 1, 'evt.1.1', 'read envelope', '')", "1 of appliance 1 in 24 hours, the last: read envelope", "DELETE FROM dead_letter", false},
		{
			`INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind) VALUES (1, 1, '00000000-0000-0000-0000-000000000001', 2, '1999-01-01', now(), 'alert')`,
			"1 events or more", "DELETE FROM event WHERE seq = 2", false,
		},
		{"UPDATE evidence_day SET day = day - 5", "the last sealed day is", "UPDATE evidence_day SET day = day + 5", true},
		{"UPDATE appliance SET clock_offset_ms = -90000", "-90000 ms", "UPDATE appliance SET clock_offset_ms = 3", false},
		{"UPDATE appliance SET refused = 'signature is older'", "signature is older", "UPDATE appliance SET refused = ''", false},
		{
			"INSERT INTO certificate (clinic_id, appliance_id, serial, not_before, not_after) VALUES (1, 1, 'ab', now(), now() + interval '1 hour')",
			"certificates run out: clinic C1", "DELETE FROM certificate", false,
		},
		{
			`INSERT INTO river.river_job (kind, args, max_attempts, queue, state, finalized_at, errors) VALUES ('report_render', '{}', 3, 'report', 'discarded', now(), ARRAY['{"error":"no font"}'::jsonb])`,
			"1 jobs of kind report_render were given up, the last: no font", "DELETE FROM river.river_job", false,
		},
	} {
		exec(c.wrong)
		out, err := run()
		if !strings.Contains(out, c.want) || !strings.Contains(out, "-> ") {
			t.Errorf("%s\ngot  %s\nwant %s", c.wrong, out, c.want)
		}
		if c.critical != errors.Is(err, doctor.ErrSick) {
			t.Errorf("%s: err = %v, critical is %v", c.wrong, err, c.critical)
		}
		exec(c.right)
		if out, err := run(); err != nil {
			t.Errorf("after %s: %s, %v", c.right, out, err)
		}
	}
}
