package triage

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

// Decision is a verdict on record, for the list of suppressions and for histories.
type Decision struct {
	ID                     int64
	Verdict, State, Reason string
	Fleet                  bool
	Severity               int
	Alerts                 int64
	Clinics                int
	Device                 string // MAC; "" any
	Dst                    netip.Addr
	DstPort                int
	Expires                time.Time
	Replay                 int64
	Author, Approver       string
	Created, Ended         time.Time
	EndedBy, EndReason     string
	Signatures             []filter.Signature
	Title                  string
	Hidden7                int64 // alerts hidden within the last 7 days
	Where                  []string
}

// Live is the state a person sees: pending, active, expiring (within 7 days), expired, lifted, undone, band (hides more than three
// times what the replay promised).
func (d *Decision) Live(now time.Time) string {
	switch {
	case d.State != "active":
		return d.State
	case d.Expires.IsZero():
		return "active"
	case !d.Expires.After(now):
		return "expired"
	case d.Hidden7 > 20 && float64(d.Hidden7) > 3*float64(d.Replay)*7/30:
		return "band"
	case d.Expires.Sub(now) < 7*24*time.Hour:
		return "expiring"
	}
	return "active"
}

// Decisions reads verdicts, the newest first: only those that suppress, or all of a signature. id 0 means all.
func Decisions(ctx context.Context, tx pgx.Tx, suppressions bool, sig filter.Signature, id int64, now time.Time, limit int) ([]Decision, error) {
	rows, err := tx.Query(ctx, `
SELECT d.decision_id, d.verdict, d.state, d.reason, d.fleet, d.severity, d.alerts, d.clinics, coalesce(d.device_mac::text, ''), d.dst_ip, coalesce(d.dst_port, 0), d.expires_at, d.replay,
  d.author, d.approver, d.created_at, d.ended_at, d.ended_by, d.end_reason, s.kinds, s.rules, s.title, s.hidden, s.names
FROM decision d CROSS JOIN LATERAL (
  SELECT array_agg(DISTINCT x.kind || ':' || x.rule) AS kinds, array_agg(DISTINCT x.rule) AS rules,
    coalesce((SELECT max(e.title) FROM event e WHERE e.kind = min(x.kind) AND e.rule = min(x.rule) AND e.kind IN ('alert','detection') AND e.t > $4::timestamptz - interval '60 days'), '') AS title,
    CASE WHEN d.expires_at IS NULL OR NOT $1 THEN 0 ELSE coalesce((SELECT sum(e.count) FROM event e JOIN decision_scope y ON y.decision_id = d.decision_id AND y.clinic_id = e.clinic_id AND y.kind = e.kind AND y.rule = e.rule
      WHERE e.kind IN ('alert','detection') AND e.t > $4::timestamptz - interval '7 days' AND e.received_at > y.seen_through AND e.received_at <= y.hides_through
        AND (y.device_mac IS NULL OR y.device_mac = e.device_mac) AND (y.dst_ip IS NULL OR y.dst_ip = e.dst_ip) AND (y.dst_port IS NULL OR y.dst_port = e.dst_port)), 0) END AS hidden,
    (array_agg(DISTINCT c.name ORDER BY c.name) FILTER (WHERE x.alerts > 0))[1:20] AS names
  FROM decision_scope x JOIN clinic c USING (clinic_id) WHERE x.decision_id = d.decision_id) s
WHERE ($1 = false OR d.expires_at IS NOT NULL) AND ($2 = '' OR EXISTS (SELECT FROM decision_scope z WHERE z.decision_id = d.decision_id AND z.kind || ':' || z.rule = $2)) AND ($3 = 0 OR d.decision_id = $3)
ORDER BY d.decision_id DESC LIMIT $5`, suppressions, sig.String(), id, now, limit)
	if err != nil {
		return nil, fmt.Errorf("read decisions: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Decision, error) {
		var d Decision
		var dst *netip.Prefix
		var expires, ended *time.Time
		var keys, rules []string
		err := row.Scan(&d.ID, &d.Verdict, &d.State, &d.Reason, &d.Fleet, &d.Severity, &d.Alerts, &d.Clinics, &d.Device, &dst, &d.DstPort, &expires, &d.Replay, &d.Author, &d.Approver,
			&d.Created, &ended, &d.EndedBy, &d.EndReason, &keys, &rules, &d.Title, &d.Hidden7, &d.Where)
		d.Dst = ip(dst)
		if expires != nil {
			d.Expires = *expires
		}
		if ended != nil {
			d.Ended = *ended
		}
		for _, k := range keys {
			if s, err := filter.ParseSignature(k); err == nil {
				d.Signatures = append(d.Signatures, s)
			}
		}
		return d, err
	})
}

// Precedent is what was judged before of a signature.
type Precedent struct {
	Verdict string
	Times   int
}

// Precedents reads the last verdict of each signature and how often it was given.
func Precedents(ctx context.Context, tx pgx.Tx) (map[filter.Signature]Precedent, error) {
	rows, err := tx.Query(ctx, `
SELECT kind, rule, (array_agg(verdict ORDER BY decision_id DESC))[1], count(*) FROM (
  SELECT DISTINCT s.kind, s.rule, d.verdict, d.decision_id FROM decision_scope s JOIN decision d USING (decision_id) WHERE d.state IN ('active','lifted')) x GROUP BY 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("read precedents: %w", err)
	}
	defer rows.Close()
	m := map[filter.Signature]Precedent{}
	for rows.Next() {
		var s filter.Signature
		var p Precedent
		if err := rows.Scan(&s.Kind, &s.Rule, &p.Verdict, &p.Times); err != nil {
			return nil, fmt.Errorf("read precedents: %w", err)
		}
		m[s] = p
	}
	return m, rows.Err()
}

// Case is a unit of work on a threat.
type Case struct {
	ID                 int64
	Title              string
	Severity           int
	Status, Resolution string
	Owner, Author      string
	Clinics            int
	Alerts             int64
	Opened, Changed    time.Time
	Closed             time.Time
}

// openCase makes the case of a threat.
func openCase(ctx context.Context, tx pgx.Tx, o *Order, e *Effect) (int64, error) {
	title := e.Rows[0].Title
	if title == "" {
		title = e.Rows[0].Rule
	}
	var id int64
	if err := tx.QueryRow(ctx, `INSERT INTO cases (title, severity, owner, author, opened_at, changed_at) VALUES ($1, $2, $3, $3, $4, $4) RETURNING case_id`,
		clip(title, 200), e.Severity, o.Author, o.Now).Scan(&id); err != nil {
		return 0, fmt.Errorf("open case: %w", err)
	}
	for _, r := range e.Rows {
		if _, err := tx.Exec(ctx, `INSERT INTO case_scope (clinic_id, case_id, kind, rule, decision_id, added_at) VALUES ($1, $2, $3, $4, $5, $6)`,
			r.Clinic, id, r.Kind, r.Rule, e.Decision, o.Now); err != nil {
			return 0, fmt.Errorf("store scope of case: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, `INSERT INTO case_entry (case_id, t, author, kind, body) VALUES ($1, $2, $3, 'opened', $4)`, id, o.Now, o.Author, o.Reason); err != nil {
		return 0, fmt.Errorf("store entry of case: %w", err)
	}
	return id, nil
}

func clip(s string, n int) string {
	r := []rune(s)
	if len(r) > n {
		return string(r[:n])
	}
	return s
}

// Cases reads cases: open ones before closed ones, the last touched first. id 0 means all.
func Cases(ctx context.Context, tx pgx.Tx, id int64, limit int) ([]Case, error) {
	rows, err := tx.Query(ctx, `
SELECT k.case_id, k.title, k.severity, k.status, k.resolution, k.owner, k.author, count(DISTINCT s.clinic_id), k.opened_at, k.changed_at, k.closed_at,
  coalesce(sum((SELECT x.alerts FROM decision_scope x WHERE x.decision_id = s.decision_id AND x.clinic_id = s.clinic_id AND x.kind = s.kind AND x.rule = s.rule)), 0)::bigint
FROM cases k LEFT JOIN case_scope s USING (case_id) WHERE $1 = 0 OR k.case_id = $1 GROUP BY k.case_id ORDER BY k.status = 'closed', k.changed_at DESC LIMIT $2`, id, limit)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Case, error) {
		var c Case
		var closed *time.Time
		err := row.Scan(&c.ID, &c.Title, &c.Severity, &c.Status, &c.Resolution, &c.Owner, &c.Author, &c.Clinics, &c.Opened, &c.Changed, &closed, &c.Alerts)
		if closed != nil {
			c.Closed = *closed
		}
		return c, err
	})
}

// CaseClinic is what a case is about at one clinic.
type CaseClinic struct {
	Clinic     int32
	Name, Code string
	filter.Signature
	Title    string
	Decision int64
}

// CaseScope reads it.
func CaseScope(ctx context.Context, tx pgx.Tx, id int64) ([]CaseClinic, error) {
	rows, err := tx.Query(ctx, `SELECT s.clinic_id, c.name, c.code, s.kind, s.rule,
  coalesce((SELECT max(title) FROM event e WHERE e.clinic_id = s.clinic_id AND e.kind = s.kind AND e.rule = s.rule AND e.kind IN ('alert','detection')), ''), coalesce(s.decision_id, 0)
FROM case_scope s JOIN clinic c USING (clinic_id) WHERE s.case_id = $1 ORDER BY c.code, s.rule`, id)
	if err != nil {
		return nil, fmt.Errorf("read scope of case: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (CaseClinic, error) {
		var c CaseClinic
		err := row.Scan(&c.Clinic, &c.Name, &c.Code, &c.Kind, &c.Rule, &c.Title, &c.Decision)
		return c, err
	})
}

// CaseEntry is a line of a case's history.
type CaseEntry struct {
	T            time.Time
	Author, Kind string
	Body         string
}

// CaseEntries reads a case's history, the oldest first.
func CaseEntries(ctx context.Context, tx pgx.Tx, id int64) ([]CaseEntry, error) {
	rows, err := tx.Query(ctx, `SELECT t, author, kind, body FROM case_entry WHERE case_id = $1 ORDER BY case_entry_id LIMIT 2000`, id)
	if err != nil {
		return nil, fmt.Errorf("read entries of case: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[CaseEntry])
}

// Statuses are the ways of a case: from each to which.
var Statuses = map[string][]string{
	"new":           {"investigating", "closed"},
	"investigating": {"responding", "waiting", "closed"},
	"responding":    {"waiting", "closed"},
	"waiting":       {"investigating", "responding", "closed"},
	"closed":        {"investigating"},
}

// ChangeCase adds a note, takes the case over or moves it on. Errors: ErrInvalid, ErrState.
func ChangeCase(ctx context.Context, tx pgx.Tx, id int64, actor, status, resolution, owner, note string, now time.Time) error {
	var old string
	if err := tx.QueryRow(ctx, `SELECT status FROM cases WHERE case_id = $1 FOR UPDATE`, id).Scan(&old); err != nil {
		return err
	}
	note = strings.TrimSpace(note)
	if len([]rune(note)) > MaxReason {
		return fmt.Errorf("%w: the note is longer than %d characters", ErrInvalid, MaxReason)
	}
	entry := func(kind, body string) error {
		_, err := tx.Exec(ctx, `INSERT INTO case_entry (case_id, t, author, kind, body) VALUES ($1, $2, $3, $4, $5)`, id, now, actor, kind, body)
		return err
	}
	changed := ""
	if status != "" && status != old {
		ok := false
		for _, s := range Statuses[old] {
			ok = ok || s == status
		}
		if !ok {
			return fmt.Errorf("%w: a case can't go from %s to %s", ErrState, old, status)
		}
		if (status == "closed") != (resolution != "") {
			return fmt.Errorf("%w: closing needs a resolution", ErrInvalid)
		}
		if _, err := tx.Exec(ctx, `UPDATE cases SET status = $2, resolution = $3, closed_at = CASE WHEN $2 = 'closed' THEN $4::timestamptz END, changed_at = $4 WHERE case_id = $1`, id, status, resolution, now); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := entry("status", strings.TrimSuffix(status+":"+resolution, ":")); err != nil {
			return fmt.Errorf("store entry of case: %w", err)
		}
		changed = "status"
	}
	if owner != "" {
		if _, err := tx.Exec(ctx, `UPDATE cases SET owner = $2, changed_at = $3 WHERE case_id = $1`, id, owner, now); err != nil {
			return fmt.Errorf("take case over: %w", err)
		}
		if err := entry("owner", owner); err != nil {
			return fmt.Errorf("store entry of case: %w", err)
		}
		changed = "owner"
	}
	if note != "" {
		if err := entry("note", note); err != nil {
			return fmt.Errorf("store entry of case: %w", err)
		}
		if _, err := tx.Exec(ctx, `UPDATE cases SET changed_at = $2 WHERE case_id = $1`, id, now); err != nil {
			return fmt.Errorf("touch case: %w", err)
		}
		changed = "note"
	}
	if changed == "" {
		return fmt.Errorf("%w: nothing to change", ErrInvalid)
	}
	return audit.Append(ctx, tx, audit.Entry{
		Actor: actor, Action: "case." + changed, Target: fmt.Sprintf("case:%d", id), Reason: note,
		Detail: map[string]any{"status": status, "resolution": resolution, "owner": owner},
	})
}

// Badges counts open cases, and suppressions that end within 7 days.
func Badges(ctx context.Context, tx pgx.Tx, now time.Time) (cases, expiring int, err error) {
	err = tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM cases WHERE status <> 'closed'),
  (SELECT count(*) FROM decision WHERE state = 'active' AND expires_at > $1 AND expires_at < $1::timestamptz + interval '7 days')`, now).Scan(&cases, &expiring)
	if err != nil {
		return 0, 0, fmt.Errorf("count cases: %w", err)
	}
	return cases, expiring, nil
}
