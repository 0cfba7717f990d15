package ingest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// gaps are the confirmed gaps of clinic 1 as the reporter sees them, in one line.
func (c *centre) gaps(t *testing.T) string {
	t.Helper()
	var s string
	if err := c.db.As(testContext(t), []int32{1}, func(tx pgx.Tx) error {
		return tx.QueryRow(context.Background(), `SELECT coalesce(string_agg(concat_ws(' ', from_seq, coalesce(to_seq::text, '?'), cause,
			to_char(from_t AT TIME ZONE 'UTC', 'MI:SS'), to_char(to_t AT TIME ZONE 'UTC', 'MI:SS'),
			CASE WHEN closed_at IS NULL THEN 'open' ELSE closed_as END), '; ' ORDER BY gap_id), '') FROM report_gap`).Scan(&s)
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *centre) waitGaps(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := c.gaps(t)
		if got == want {
			t.Logf("gaps:\n  %s", strings.ReplaceAll(got, "; ", "\n  "))
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("gaps\n got %s\nwant %s", got, want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (c *centre) lost(t *testing.T) int64 {
	t.Helper()
	return c.int(t, "SELECT coalesce(sum(lost_events), 0) FROM coverage_hourly")
}

func TestEvidenceGapOpensSplitsAndCloses(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	c.publish(t, s, alerts(1, 50)...)
	c.publish(t, s, alerts(61, 100)...)
	c.drained(t)
	c.waitGaps(t, "51 60 undeclared 00:50 01:01 open")
	if got := c.lost(t); got != 10 {
		t.Errorf("lost events = %d, want 10", got)
	}
	c.publish(t, s, alerts(55, 56)...)
	c.drained(t)
	c.waitGaps(t, "51 60 undeclared 00:50 01:01 split; 51 54 undeclared 00:50 00:55 open; 57 60 undeclared 00:56 01:01 open")
	if got := c.lost(t); got != 8 {
		t.Errorf("lost events = %d, want 8", got)
	}
	c.publish(t, s, append(alerts(51, 54), alerts(57, 60)...)...)
	c.drained(t)
	c.waitGaps(t, "51 60 undeclared 00:50 01:01 split; 51 54 undeclared 00:50 00:55 filled; 57 60 undeclared 00:56 01:01 filled")
	if got := c.lost(t); got != 0 {
		t.Errorf("lost events = %d, want 0", got)
	}
}

func TestEvidenceGapNamesTheCauseTheBoxGave(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	c.publish(t, s, alerts(1, 10)...)
	c.publish(t, s, alerts(31, 40)...)
	c.drained(t)
	c.waitGaps(t, "11 30 undeclared 00:10 00:31 open")
	declare := func(n, from, to uint64, reason string) *eventv1.Event {
		return &eventv1.Event{Seq: n, Time: timestamppb.New(noon.Add(time.Duration(n) * time.Second)), Body: &eventv1.Event_SpoolGap{
			SpoolGap: &eventv1.SpoolGap{FromSeq: from, ToSeq: to, Reason: reason},
		}}
	}
	// Two declarations that touch, and an event nobody can read.
	c.publish(t, s, declare(41, 11, 20, "full"), declare(42, 21, 30, "corrupt"), &eventv1.Event{Seq: 43, Time: timestamppb.New(noon)})
	c.drained(t)
	c.waitGaps(t, "11 30 undeclared 00:10 00:31 split; 11 20 full 00:10 open; 21 30 corrupt 00:31 open; 43 43 refused 00:42 open")
	if got := c.lost(t); got != 21 {
		t.Errorf("lost events = %d, want 21", got)
	}
}

func TestEvidenceLostSpoolEndsTheStreamWithAnUnknownGap(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	old, fresh := newStream(1, 1), newStream(1, 1)
	c.publish(t, old, alerts(1, 5)...)
	c.publish(t, fresh, &eventv1.Event{Seq: 1, Time: timestamppb.New(noon.Add(time.Minute)), Body: &eventv1.Event_StreamStart{
		StreamStart: &eventv1.StreamStart{Reason: "spool-lost", PreviousStreamId: old.id[:]},
	}})
	c.drained(t)
	c.waitGaps(t, "6 ? stream-ended 01:00 open")
}

func TestDailySumsFollowJapanTime(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	before, after := alert(1, "x"), alert(2, "x")
	before.Time = timestamppb.New(time.Date(2026, 11, 25, 14, 59, 59, 0, time.UTC)) // 23:59:59 in Japan
	after.Time = timestamppb.New(time.Date(2026, 11, 25, 15, 0, 0, 0, time.UTC))    // midnight
	off := int64(-1500)
	e := s.envelope(before, after, alert(3, "x"))
	e.ClockOffsetMs = &off
	c.send(t, s.subject(), e)
	c.drained(t)
	if got := c.text(t, "SELECT string_agg(concat_ws(' ', day, kind, rule, title, category, severity, action, events, count), '; ' ORDER BY day) FROM finding_daily"); got != "2026-11-25 alert 1:2100001 x bot 4 blocked 2 4; 2026-11-26 alert 1:2100001 x bot 4 blocked 1 2" {
		t.Errorf("finding_daily = %s", got)
	}
	if got := c.int(t, "SELECT min(clock_offset_ms) FROM event"); got != -1500 {
		t.Errorf("clock offset = %d ms, want -1500", got)
	}
}

func TestEvidenceRestoreToAnOlderPointIsANamedGap(t *testing.T) {
	c := newCentre(t)
	c.start(t)
	s := newStream(1, 1)
	c.publish(t, s, alerts(1, 50)...)
	c.drained(t)
	// As backup.Restore marks the ledger; the box had forgotten up to 100, which the lost database had.
	if _, err := c.db.Ingest.Exec(testContext(t), "UPDATE event_ledger SET restored_top = upper(got)"); err != nil {
		t.Fatal(err)
	}
	c.publish(t, s, alerts(101, 150)...)
	c.drained(t)
	c.waitGaps(t, "51 100 restored 00:50 01:41 open")
}
