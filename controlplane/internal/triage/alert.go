package triage

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

// Alert is one row of the table as a person sees it.
type Alert struct {
	filter.Signature
	Clinic     int32
	ClinicName string
	ClinicCode string
	Appliance  int32
	Stream     [16]byte
	Seq        int64
	T          time.Time
	Received   time.Time
	Severity   int
	Category   string
	Action     string
	Certainty  int
	Title      string
	Indicator  string
	Count      int64
	Src, Dst   netip.Addr // the zero Addr when absent
	SrcPort    int        // 0 when absent
	DstPort    int
	Device     netip.Addr
	DeviceName string // the clinic's own name, else what DHCP announced; empty for guests
	App        string
	Zone       string
}

// ID names the alert for id attributes: appliance and sequence number, with the start of the stream.
func (a *Alert) ID() string { return fmt.Sprintf("a%d-%x-%d", a.Appliance, a.Stream[:3], a.Seq) }

const alertColumns = `e.kind, e.rule, e.clinic_id, c.name, c.code, e.appliance_id, e.stream_id, e.seq, e.t, e.received_at, e.severity, e.category,
  e.action, e.certainty, e.title, e.indicator, e.count, e.src_ip, coalesce(e.src_port, 0), e.dst_ip, coalesce(e.dst_port, 0), e.device_ip,
  coalesce(CASE WHEN d.anonymous THEN '' ELSE coalesce(nullif(d.name, ''), nullif(d.hostname, ''), '') END, ''), e.app, e.zone`

const alertFrom = ` FROM event e JOIN clinic c USING (clinic_id) LEFT JOIN device d ON d.clinic_id = e.clinic_id AND d.mac = e.device_mac `

// Alerts reads one page of single alerts, newest first. Only what was committed up to asOf is listed, so that pages do not
// shift while new alerts arrive; the zero asOf means everything. limit is 1..1000.
func Alerts(ctx context.Context, tx pgx.Tx, f filter.Filter, now, asOf time.Time, limit, offset int) ([]Alert, error) {
	where, args := f.SQL(now, nil)
	if !asOf.IsZero() {
		args = append(args, asOf)
		where += fmt.Sprintf(" AND e.received_at <= $%d", len(args))
	}
	args = append(args, limit, offset)
	rows, err := tx.Query(ctx, "SELECT "+alertColumns+alertFrom+"WHERE "+where+
		fmt.Sprintf(" ORDER BY e.t DESC, e.appliance_id, e.seq DESC LIMIT $%d OFFSET $%d", len(args)-1, len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	return pgx.CollectRows(rows, scanAlert)
}

// One reads the alert of that name; pgx.ErrNoRows when there is none within the transaction's clinics.
func One(ctx context.Context, tx pgx.Tx, appliance int32, stream [16]byte, seq int64) (Alert, error) {
	rows, err := tx.Query(ctx, "SELECT "+alertColumns+alertFrom+
		"WHERE e.kind IN ('alert','detection') AND e.appliance_id = $1 AND e.stream_id = $2 AND e.seq = $3 LIMIT 1", appliance, stream, seq)
	if err != nil {
		return Alert{}, fmt.Errorf("read alert: %w", err)
	}
	return pgx.CollectExactlyOneRow(rows, scanAlert)
}

// CountAlerts counts the rows Alerts pages through, and of them those committed after since.
func CountAlerts(ctx context.Context, tx pgx.Tx, f filter.Filter, now, since time.Time) (rows, alerts, fresh int64, err error) {
	where, args := f.SQL(now, nil)
	args = append(args, since)
	err = tx.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) FILTER (WHERE e.received_at <= $%[1]d), coalesce(sum(e.count) FILTER (WHERE e.received_at <= $%[1]d), 0),
  count(*) FILTER (WHERE e.received_at > $%[1]d) FROM event e WHERE %[2]s`, len(args), where), args...).Scan(&rows, &alerts, &fresh)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("count alerts: %w", err)
	}
	return rows, alerts, fresh, nil
}

func scanAlert(row pgx.CollectableRow) (Alert, error) {
	var a Alert
	var src, dst, dev *netip.Prefix
	err := row.Scan(&a.Kind, &a.Rule, &a.Clinic, &a.ClinicName, &a.ClinicCode, &a.Appliance, &a.Stream, &a.Seq, &a.T, &a.Received, &a.Severity,
		&a.Category, &a.Action, &a.Certainty, &a.Title, &a.Indicator, &a.Count, &src, &a.SrcPort, &dst, &a.DstPort, &dev, &a.DeviceName, &a.App, &a.Zone)
	if err != nil {
		return Alert{}, fmt.Errorf("read alert: %w", err)
	}
	a.Src, a.Dst, a.Device = ip(src), ip(dst), ip(dev)
	return a, nil
}

func ip(p *netip.Prefix) netip.Addr {
	if p == nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap()
}

// Coverage is what a period's counts stand on: the boxes of some clinics and how long they reported and inspected.
type Coverage struct {
	Boxes         int   // approved appliances
	Reporting     int   // of them, with a health report in the period
	ReportedMS    int64 // sum over boxes
	ExpectedMS    int64 // what appliance_expected_ms says, summed over boxes
	UnprotectedMS int64
	PacketsLost   int64
}

// Share is the part of the expected time that was reported, 0..1.
func (c Coverage) Share() float64 {
	if c.ReportedMS > c.ExpectedMS {
		return 1 // also in the first minute, when nothing is due yet
	}
	if c.ExpectedMS <= 0 {
		return 0
	}
	return float64(c.ReportedMS) / float64(c.ExpectedMS)
}

// CoverageOf reads the coverage of the given clinics over [from, to); nil means all that the transaction may see. The
// hour that contains from counts by its part within the period, as if it had been reported evenly.
func CoverageOf(ctx context.Context, tx pgx.Tx, clinics []int32, from, to, now time.Time) (Coverage, error) {
	var c Coverage
	err := tx.QueryRow(ctx, `
WITH box AS (
  SELECT appliance_id, appliance_expected_ms(appliance_id, created_at, $2, $3, $4) AS expected FROM appliance
  WHERE state = 'approved' AND created_at < $3 AND ($1::int[] IS NULL OR clinic_id = ANY ($1))
), seen AS (
  SELECT h.appliance_id, sum(h.reported_ms * least(1, extract(epoch FROM h.hour + interval '1 hour' - $2) / 3600))::bigint AS reported, sum(h.unprotected_ms)::bigint AS unprotected, sum(h.packets_lost)::bigint AS lost
  FROM coverage_hourly h JOIN box USING (appliance_id)
  WHERE h.hour >= date_trunc('hour', $2::timestamptz) AND h.hour < $3 AND ($1::int[] IS NULL OR h.clinic_id = ANY ($1)) GROUP BY 1
)
SELECT count(*), count(seen.appliance_id) FILTER (WHERE reported > 0), coalesce(sum(reported), 0)::bigint,
       coalesce(sum(expected), 0)::bigint, coalesce(sum(unprotected), 0)::bigint, coalesce(sum(lost), 0)::bigint
FROM box LEFT JOIN seen USING (appliance_id)`, clinics, from, to, now).
		Scan(&c.Boxes, &c.Reporting, &c.ReportedMS, &c.ExpectedMS, &c.UnprotectedMS, &c.PacketsLost)
	if err != nil {
		return Coverage{}, fmt.Errorf("read coverage: %w", err)
	}
	return c, nil
}

// Hosts counts distinct inside devices of a signature by clinic, within f.
func Hosts(ctx context.Context, tx pgx.Tx, f filter.Filter, now time.Time) (map[int32]int64, error) {
	where, args := f.SQL(now, nil)
	rows, err := tx.Query(ctx, `SELECT e.clinic_id, count(DISTINCT coalesce(e.device_mac::text, host(e.device_ip))) FROM event e WHERE `+where+` GROUP BY 1`, args...)
	if err != nil {
		return nil, fmt.Errorf("count hosts: %w", err)
	}
	defer rows.Close()
	m := map[int32]int64{}
	for rows.Next() {
		var c int32
		var n int64
		if err := rows.Scan(&c, &n); err != nil {
			return nil, fmt.Errorf("count hosts: %w", err)
		}
		m[c] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("count hosts: %w", err)
	}
	return m, nil
}

// Quiet is what stands beside an empty list: the last passed self-test and how many boxes are not connected.
type Quiet struct {
	SelfTest time.Time // zero when none is on record
	Offline  int
	Boxes    int
}

// QuietOf reads it for the given clinics; nil means all.
func QuietOf(ctx context.Context, tx pgx.Tx, clinics []int32, now time.Time) (Quiet, error) {
	var q Quiet
	var st *time.Time
	err := tx.QueryRow(ctx, `
SELECT (SELECT max(t) FROM event WHERE kind = 'self_test' AND t > $2 AND detail->>'passed' = 'true' AND ($1::int[] IS NULL OR clinic_id = ANY ($1))),
       count(*) FILTER (WHERE NOT connected), count(*)
FROM appliance WHERE state = 'approved' AND ($1::int[] IS NULL OR clinic_id = ANY ($1))`, clinics, now.Add(-30*24*time.Hour)).Scan(&st, &q.Offline, &q.Boxes)
	if err != nil {
		return Quiet{}, fmt.Errorf("read self-tests: %w", err)
	}
	if st != nil {
		q.SelfTest = *st
	}
	return q, nil
}
