// Package store reads what the fleet's screens show: clinics, appliances, devices and reports, each as one query per screen.
// Package web calls it inside a transaction that states which clinics may be seen. It writes nothing but an operator's own
// display preferences. The trap: a missing report of a box is not a zero; the types keep "never" apart from 0.
package store

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

// Clinic is a row of the list of clinics.
type Clinic struct {
	ID          int32
	Code        string
	Name        string
	Kana        string
	Director    string
	Plan        string
	Override    bool
	OverrideWhy string
	OverrideTo  time.Time // zero when without end
	Hours       string
	Created     time.Time
	Boxes       int // approved
	Online      int
	Drifted     int // refused a bundle
	Pending     int // wait for approval
	LastSeen    time.Time
	Alerts      int64 // of 24 hours
	Passed      int64
	Severity    int    // highest of 24 hours
	Urgent      int64  // critical, or high and passed, of 24 hours, without a verdict
	Unprotected int64  // ms, this month
	Reported    int64  // ms, this month
	Expected    int64  // ms, this month so far
	Report      string // verdict of the newest report; "" none
	ReportMonth time.Time
	Devices     int64
}

// Share is the part of this month so far that was reported, 0..1; -1 when there is no box.
func (c *Clinic) Share() float64 {
	if c.Boxes == 0 {
		return -1
	}
	if c.Expected <= 0 {
		return min(1, float64(c.Reported)) // nothing is due yet
	}
	return min(1, float64(c.Reported)/float64(c.Expected))
}

// Need orders clinics by how much they need a human: the larger, the sooner.
func (c *Clinic) Need() int {
	n := 0
	if c.Boxes > 0 && c.Online < c.Boxes {
		n += 1000
	}
	if c.Drifted > 0 {
		n += 500
	}
	if c.Pending > 0 {
		n += 300
	}
	if c.Urgent > 0 {
		n += 50 * c.Severity
	}
	return n
}

// MonthStart is the first moment of t's month in Japan.
func MonthStart(t time.Time) time.Time {
	jst := time.FixedZone("JST", 9*60*60)
	t = t.In(jst)
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, jst)
}

// Clinics reads the clinics of the list, or only those of ids when it isn't empty.
func Clinics(ctx context.Context, tx pgx.Tx, ids []int32, now time.Time) ([]Clinic, error) {
	month := MonthStart(now)
	rows, err := tx.Query(ctx, `
WITH box AS (
  SELECT clinic_id, count(*) FILTER (WHERE state = 'approved') AS boxes, count(*) FILTER (WHERE state = 'approved' AND connected) AS online,
         count(*) FILTER (WHERE state = 'approved' AND refused <> '') AS drifted, count(*) FILTER (WHERE state = 'pending') AS pending,
         max(last_seen) AS last_seen,
         coalesce(sum(appliance_expected_ms(appliance_id, created_at, $3, $2, $2)) FILTER (WHERE state = 'approved'), 0)::bigint AS expected
  FROM appliance GROUP BY 1
), ev AS (
  SELECT clinic_id, sum(count) AS alerts, coalesce(sum(count) FILTER (WHERE action = 'passed'), 0) AS passed, max(severity) AS severity,
         coalesce(sum(count) FILTER (WHERE (severity = 5 OR severity = 4 AND action = 'passed') AND NOT `+filter.Judged+`), 0) AS urgent
  FROM event e WHERE kind IN ('alert','detection') AND t >= $2::timestamptz - interval '24 hours' AND t < $2::timestamptz + interval '1 minute' GROUP BY 1
), cov AS (
  SELECT clinic_id, sum(reported_ms)::bigint AS reported, sum(unprotected_ms)::bigint AS unprotected FROM coverage_hourly WHERE hour >= $3 GROUP BY 1
), rep AS (
  SELECT DISTINCT ON (clinic_id) clinic_id, verdict, month FROM report ORDER BY clinic_id, month DESC, revision DESC
), dev AS (
  SELECT clinic_id, count(*) AS devices FROM device GROUP BY 1
)
SELECT c.clinic_id, c.code, c.name, c.kana, c.director, p.name, o.clinic_id IS NOT NULL, coalesce(o.reason, ''), o.expires_at, c.hours, c.created_at,
       coalesce(box.boxes, 0), coalesce(box.online, 0), coalesce(box.drifted, 0), coalesce(box.pending, 0), box.last_seen,
       coalesce(ev.alerts, 0), coalesce(ev.passed, 0), coalesce(ev.severity, 0), coalesce(ev.urgent, 0), coalesce(cov.unprotected, 0), coalesce(cov.reported, 0),
       coalesce(box.expected, 0), coalesce(rep.verdict, ''), rep.month, coalesce(dev.devices, 0)
FROM clinic c JOIN plan p ON p.id = c.plan_id LEFT JOIN policy_override o USING (clinic_id)
LEFT JOIN box USING (clinic_id) LEFT JOIN ev USING (clinic_id) LEFT JOIN cov USING (clinic_id) LEFT JOIN rep USING (clinic_id) LEFT JOIN dev USING (clinic_id)
WHERE $1::int[] IS NULL OR c.clinic_id = ANY ($1)
ORDER BY c.code`, null(ids), now, month)
	if err != nil {
		return nil, fmt.Errorf("read clinics: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Clinic, error) {
		var c Clinic
		var until, seen, month *time.Time
		err := row.Scan(&c.ID, &c.Code, &c.Name, &c.Kana, &c.Director, &c.Plan, &c.Override, &c.OverrideWhy, &until, &c.Hours, &c.Created,
			&c.Boxes, &c.Online, &c.Drifted, &c.Pending, &seen, &c.Alerts, &c.Passed, &c.Severity, &c.Urgent, &c.Unprotected, &c.Reported,
			&c.Expected, &c.Report, &month, &c.Devices)
		c.OverrideTo, c.LastSeen, c.ReportMonth = val(until), val(seen), val(month)
		return c, err
	})
}

// Name is what the scope picker needs of a clinic.
type Name struct {
	ID               int32
	Code, Name, Kana string
}

// Names reads all clinics' names.
func Names(ctx context.Context, tx pgx.Tx) ([]Name, error) {
	rows, err := tx.Query(ctx, "SELECT clinic_id, code, name, kana FROM clinic ORDER BY code")
	if err != nil {
		return nil, fmt.Errorf("read clinic names: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Name])
}

// Device is a row of a clinic's ledger of devices.
type Device struct {
	MAC       net.HardwareAddr
	IP        netip.Addr // the zero Addr when unknown
	Zone      string
	Hostname  string
	Name      string
	Source    string
	Anonymous bool
	First     time.Time
	Last      time.Time
	Alerts    int64 // of 30 days
	Suspicion int   // highest certainty of an infection within 30 days, 0..3
}

// Devices reads a clinic's devices, suspicious ones first, then the last seen. limit bounds them.
func Devices(ctx context.Context, tx pgx.Tx, clinic int32, now time.Time, limit int) ([]Device, error) {
	rows, err := tx.Query(ctx, `
WITH ev AS (
  SELECT device_mac AS mac, coalesce(sum(count) FILTER (WHERE rule <> 'infected-host' OR kind <> 'detection'), 0) AS alerts,
         coalesce(max(certainty) FILTER (WHERE kind = 'detection' AND rule = 'infected-host'), 0) AS suspicion
  FROM event WHERE clinic_id = $1 AND kind IN ('alert','detection') AND t > $2::timestamptz - interval '30 days' AND device_mac IS NOT NULL GROUP BY 1
)
SELECT d.mac, d.ip, d.zone, d.hostname, d.name, d.source, d.anonymous, d.first_seen, d.last_seen, coalesce(ev.alerts, 0), coalesce(ev.suspicion, 0)
FROM device d LEFT JOIN ev USING (mac) WHERE d.clinic_id = $1
ORDER BY coalesce(ev.suspicion, 0) DESC, d.anonymous, d.last_seen DESC, d.mac LIMIT $3`, clinic, now, limit)
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Device, error) {
		var d Device
		var ip *netip.Prefix
		err := row.Scan(&d.MAC, &ip, &d.Zone, &d.Hostname, &d.Name, &d.Source, &d.Anonymous, &d.First, &d.Last, &d.Alerts, &d.Suspicion)
		if ip != nil {
			d.IP = ip.Addr().Unmap()
		}
		return d, err
	})
}

// Day is the coverage of one day in Japan, summed over a clinic's boxes.
type Day struct {
	Day         time.Time
	Reported    int64 // ms
	Unprotected int64 // ms
	Lost        int64 // packets
	Clear       int64 // bytes
	Named       int64
	Opaque      int64
}

// Days reads the coverage of a month by day. Days without a row are absent.
func Days(ctx context.Context, tx pgx.Tx, clinic int32, month time.Time) ([]Day, error) {
	rows, err := tx.Query(ctx, `
SELECT date_trunc('day', hour AT TIME ZONE 'Asia/Tokyo') AT TIME ZONE 'Asia/Tokyo', sum(reported_ms)::bigint, sum(unprotected_ms)::bigint, sum(packets_lost)::bigint,
       sum(bytes_clear)::bigint, sum(bytes_name)::bigint, sum(bytes_opaque)::bigint
FROM coverage_hourly WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY 1 ORDER BY 1`, clinic, month, month.AddDate(0, 1, 0))
	if err != nil {
		return nil, fmt.Errorf("read coverage by day: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Day])
}

// Unprotected is an interval in which a box forwarded without inspection.
type Unprotected struct {
	Appliance string
	From, To  time.Time
	Cause     string
}

// UnprotectedOf reads the newest such intervals of a clinic since a moment.
func UnprotectedOf(ctx context.Context, tx pgx.Tx, clinic int32, since time.Time, limit int) ([]Unprotected, error) {
	rows, err := tx.Query(ctx, `
SELECT a.name, u.from_t, u.to_t, coalesce(u.cause, '') FROM report_unprotected u JOIN appliance a USING (clinic_id, appliance_id)
WHERE u.clinic_id = $1 AND u.t >= $2 AND u.from_t IS NOT NULL AND u.to_t IS NOT NULL ORDER BY u.t DESC LIMIT $3`, clinic, since, limit)
	if err != nil {
		return nil, fmt.Errorf("read unprotected intervals: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Unprotected])
}

func null(ids []int32) any {
	if len(ids) == 0 {
		return nil
	}
	return ids
}

func val(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
