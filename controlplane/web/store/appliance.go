package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Appliance is a box with its three states kept apart: its line, whether it runs what we want, and whether it inspects.
type Appliance struct {
	ID            int32
	Clinic        int32
	ClinicName    string
	ClinicCode    string
	Name          string
	Serial        string
	Model         string
	State         string // claimed, pending, approved, rejected, revoked, retired
	LastSeen      time.Time
	Connected     bool
	Version       string
	WireMode      string // inline-native, inline-generic, tap, pcap; "" not reported
	Policy        int64
	Signature     int64
	Refused       string
	Clock         *int64 // ms, box minus centre; nil not measured
	Spool         *int64 // events not yet committed; nil not reported
	Revision      int64
	Created       time.Time
	WantPolicy    int64 // newest bundle for it; 0 none
	WantSignature int64
	Unprotected   int64     // ms of the last 24 hours
	Reported      int64     // ms of the last 24 hours
	SelfTest      time.Time // last passed
	SelfTestBad   time.Time // last failed
	Bypass        time.Time // end of the newest unprotected interval within the last 24 hours
	Received      int64     // events
	LostDeclared  int64
	LostUnknown   int64
	CertEnds      time.Time // of the newest valid certificate
}

// Link is the state of its line: "online", "offline", "never".
func (a *Appliance) Link() string {
	switch {
	case a.Connected:
		return "online"
	case a.LastSeen.IsZero():
		return "never"
	}
	return "offline"
}

// Intent is whether it runs what we want: "refused", "drifted" (runs another content than it should), "pending" (still taking over), "same", "none" (nothing published).
func (a *Appliance) Intent() string {
	switch {
	case strings.HasPrefix(a.Refused, "drifted: "): // appliance.DriftMark
		return "drifted"
	case a.Refused != "":
		return "refused"
	case a.WantPolicy == 0 && a.WantSignature == 0:
		return "none"
	case a.Policy < a.WantPolicy || a.Signature < a.WantSignature:
		return "pending"
	}
	return "same"
}

// Protection is whether traffic is inspected: "inspecting", "observing" (mirror port: sees, can't stop), "interrupted" (within
// the last 24 hours some traffic passed uninspected), "unknown" (no line or no report).
func (a *Appliance) Protection() string {
	switch {
	case a.WireMode == "" || !a.Connected:
		return "unknown"
	case a.WireMode == "tap" || a.WireMode == "pcap":
		return "observing"
	case a.Unprotected > 0:
		return "interrupted"
	}
	return "inspecting"
}

// Attention reports whether a human should look.
func (a *Appliance) Attention() bool {
	switch a.State {
	case "pending":
		return true
	case "approved":
		return a.Link() == "offline" || a.Refused != "" || a.LostUnknown > 0 || a.SelfTestBad.After(a.SelfTest)
	}
	return false
}

// Appliances reads boxes of the given clinics (none given: all), or one box when id isn't 0.
func Appliances(ctx context.Context, tx pgx.Tx, clinics []int32, id int32, now time.Time) ([]Appliance, error) {
	rows, err := tx.Query(ctx, `
WITH cov AS (
  SELECT appliance_id, sum(unprotected_ms)::bigint AS unprotected, sum(reported_ms)::bigint AS reported
  FROM coverage_hourly WHERE hour > $3::timestamptz - interval '24 hours' GROUP BY 1
), st AS (
  SELECT appliance_id, max(t) FILTER (WHERE detail->>'passed' = 'true') AS good, max(t) FILTER (WHERE detail->>'passed' IS DISTINCT FROM 'true') AS bad
  FROM event WHERE kind = 'self_test' AND t > $3::timestamptz - interval '30 days' GROUP BY 1
), led AS (
  SELECT appliance_id, sum(received)::bigint AS received, sum(lost_declared)::bigint AS declared, sum(lost_undeclared)::bigint AS undeclared FROM report_ledger GROUP BY 1
), cert AS (
  SELECT appliance_id, max(not_after) AS ends FROM certificate WHERE revoked_at IS NULL GROUP BY 1
)
SELECT a.appliance_id, a.clinic_id, c.name, c.code, a.name, a.serial, a.model, a.state, a.last_seen, a.connected, a.version, a.wire_mode,
       a.policy_version, a.signature_version, a.refused, a.clock_offset_ms,
       coalesce(a.spool_depth, (SELECT (e.detail->>'spool_depth')::bigint FROM event e WHERE e.clinic_id = a.clinic_id AND e.appliance_id = a.appliance_id AND e.kind = 'health'
                                AND e.t > $3::timestamptz - interval '1 day' ORDER BY e.t DESC LIMIT 1)), a.revision, a.created_at,
       coalesce((SELECT max(version) FROM bundle b WHERE b.kind = 'policy' AND b.appliance_id = a.appliance_id), 0),
       coalesce(nullif(a.signature_target, 0), (SELECT max(version) FROM bundle b WHERE b.kind = 'signature' AND b.appliance_id IS NULL AND b.released), 0),
       coalesce(cov.unprotected, 0), coalesce(cov.reported, 0), st.good, st.bad, coalesce(led.received, 0), coalesce(led.declared, 0),
       coalesce(led.undeclared, 0), cert.ends
FROM appliance a JOIN clinic c USING (clinic_id) LEFT JOIN cov USING (appliance_id) LEFT JOIN st USING (appliance_id)
LEFT JOIN led USING (appliance_id) LEFT JOIN cert USING (appliance_id)
WHERE ($1::int[] IS NULL OR a.clinic_id = ANY ($1)) AND ($2 = 0 OR a.appliance_id = $2)
ORDER BY c.code, a.appliance_id`, null(clinics), id, now)
	if err != nil {
		return nil, fmt.Errorf("read appliances: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Appliance, error) {
		var a Appliance
		var seen, good, bad, ends *time.Time
		err := row.Scan(&a.ID, &a.Clinic, &a.ClinicName, &a.ClinicCode, &a.Name, &a.Serial, &a.Model, &a.State, &seen, &a.Connected, &a.Version,
			&a.WireMode, &a.Policy, &a.Signature, &a.Refused, &a.Clock, &a.Spool, &a.Revision, &a.Created, &a.WantPolicy, &a.WantSignature,
			&a.Unprotected, &a.Reported, &good, &bad, &a.Received, &a.LostDeclared, &a.LostUnknown, &ends)
		a.LastSeen, a.SelfTest, a.SelfTestBad, a.CertEnds = val(seen), val(good), val(bad), val(ends)
		return a, err
	})
}

// Hour is one hour of a box.
type Hour struct {
	Hour        time.Time
	Reported    int64 // ms
	Unprotected int64 // ms
	Packets     int64
	Lost        int64
}

// Hours reads a box's hours since a moment; hours without a report are absent.
func Hours(ctx context.Context, tx pgx.Tx, appliance int32, since time.Time) ([]Hour, error) {
	rows, err := tx.Query(ctx, `SELECT hour, reported_ms, unprotected_ms, packets_seen, packets_lost FROM coverage_hourly
WHERE appliance_id = $1 AND hour >= $2 ORDER BY hour`, appliance, since)
	if err != nil {
		return nil, fmt.Errorf("read hours: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Hour])
}

// Stream is one numbered sequence of events of a box.
type Stream struct {
	ID                             [16]byte
	First, Last                    time.Time
	Received, Declared, Undeclared int64
}

// Streams reads a box's streams, the newest first.
func Streams(ctx context.Context, tx pgx.Tx, appliance int32) ([]Stream, error) {
	rows, err := tx.Query(ctx, `SELECT stream_id, first_at, last_at, received, lost_declared, lost_undeclared FROM report_ledger
WHERE appliance_id = $1 ORDER BY last_at DESC LIMIT 20`, appliance)
	if err != nil {
		return nil, fmt.Errorf("read streams: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Stream, error) {
		var s Stream
		err := row.Scan(&s.ID, &s.First, &s.Last, &s.Received, &s.Declared, &s.Undeclared)
		return s, err
	})
}

// Health is what a box said of itself last.
type Health struct {
	T      time.Time
	Detail map[string]any
}

// LastHealth reads it; the zero value when there is none of the last 30 days.
func LastHealth(ctx context.Context, tx pgx.Tx, clinic, appliance int32, now time.Time) (Health, error) {
	var h Health
	var raw []byte
	err := tx.QueryRow(ctx, `SELECT t, detail FROM event WHERE clinic_id = $1 AND appliance_id = $2 AND kind = 'health' AND t > $3
ORDER BY t DESC LIMIT 1`, clinic, appliance, now.Add(-30*24*time.Hour)).Scan(&h.T, &raw)
	if err == pgx.ErrNoRows { //nolint:errorlint // pgx returns it bare
		return Health{}, nil
	}
	if err != nil {
		return Health{}, fmt.Errorf("read health: %w", err)
	}
	if err := json.Unmarshal(raw, &h.Detail); err != nil {
		return Health{}, fmt.Errorf("read health: %w", err)
	}
	return h, nil
}
