package triage

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

// Verdicts in the order of their keys 1 to 4.
const (
	Threat     = "threat"      // opens a case
	FalseAlarm = "false_alarm" // to the rule's author
	Expected   = "expected"    // hides until it expires
	NoNotice   = "quiet"       // blocked anyway: hides until it expires
)

// Limits of a verdict.
const (
	MaxReason = 2000                // characters
	MaxDays   = 180                 // of a suppression
	UndoFor   = 30 * time.Second    // afterwards: Reopen, with a reason
	replayFor = 30 * 24 * time.Hour // what a suppression is tried on
)

// Errors of a decision.
var (
	// ErrInvalid: what was asked makes no sense; the text says why.
	ErrInvalid = errors.New("verdict is not valid")
	// ErrNothing: no alert is left to judge.
	ErrNothing = errors.New("nothing to judge")
	// ErrSecond: the second person must be another one.
	ErrSecond = errors.New("approval needs another person")
	// ErrState: the decision is not in the state that the act needs.
	ErrState = errors.New("decision has changed meanwhile")
)

// Target is a signature at one clinic, or (Clinic 0) at all clinics that the filter lets through.
type Target struct {
	filter.Signature
	Clinic int32
}

// ParseTarget reads "alert:1:2100001" or "detection:D19@3", the value of ?focus=.
func ParseTarget(v string) (Target, error) {
	if i := strings.LastIndexByte(v, '@'); i > 0 {
		if n, err := strconv.ParseInt(v[i+1:], 10, 32); err == nil && n > 0 {
			s, err := filter.ParseSignature(v[:i])
			return Target{Signature: s, Clinic: int32(n)}, err
		}
	}
	s, err := filter.ParseSignature(v)
	return Target{Signature: s}, err
}

// String is what ParseTarget reads.
func (t Target) String() string {
	if t.Clinic == 0 {
		return t.Signature.String()
	}
	return t.Signature.String() + "@" + strconv.Itoa(int(t.Clinic))
}

// Order is a verdict as an operator asks for it.
type Order struct {
	Targets  []Target
	Filter   filter.Filter // of the list the targets were chosen in
	SeenUpTo time.Time     // commit time up to which the operator's page showed alerts
	Verdict  string
	Reason   string
	Days     int    // of a suppression, 1..180
	Fleet    bool   // the suppression is for all clinics, also those without an alert yet
	Device   string // MAC; "" any
	Dst      netip.Addr
	DstPort  int // 0 any
	Author   string
	Now      time.Time
}

func (o *Order) suppresses() bool { return o.Verdict == Expected || o.Verdict == NoNotice }

func (o *Order) validate() error {
	switch o.Verdict {
	case Threat, FalseAlarm, Expected, NoNotice:
	default:
		return fmt.Errorf("%w: verdict %q", ErrInvalid, o.Verdict)
	}
	o.Reason = strings.TrimSpace(o.Reason)
	switch {
	case o.Reason == "" || !utf8.ValidString(o.Reason) || strings.ContainsRune(o.Reason, 0):
		return fmt.Errorf("%w: a reason is needed", ErrInvalid)
	case utf8.RuneCountInString(o.Reason) > MaxReason:
		return fmt.Errorf("%w: the reason is longer than %d characters", ErrInvalid, MaxReason)
	case len(o.Targets) == 0 || len(o.Targets) > 5000:
		return fmt.Errorf("%w: %d rows chosen", ErrInvalid, len(o.Targets))
	case o.suppresses() && (o.Days < 1 || o.Days > MaxDays):
		return fmt.Errorf("%w: a suppression lasts 1 to %d days, not %d", ErrInvalid, MaxDays, o.Days)
	case o.DstPort < 0 || o.DstPort > 65535:
		return fmt.Errorf("%w: port %d", ErrInvalid, o.DstPort)
	}
	if !o.suppresses() {
		o.Days, o.Fleet, o.Device, o.Dst, o.DstPort = 0, false, "", netip.Addr{}, 0
	}
	return nil
}

// Row is what an order covers at one clinic.
type Row struct {
	Target
	Alerts, Passed int64
	Severity       int
	Title          string
}

// Effect is what an order would do, or did.
type Effect struct {
	Rows     []Row
	Alerts   int64
	Passed   int64
	Clinics  int
	Severity int
	Expires  time.Time // zero when nothing in the future is hidden
	Second   bool      // it needs a second person
	// Of a suppression: what it would have hidden in the 30 days before, by day, oldest first, and what would have stayed.
	Hidden, Stays [30]int64
	Threats       int64 // of the hidden ones, those that were judged a threat
	Decision      int64
	Case          int64 // opened by a threat
	AllClinics    int   // of the fleet
}

// HiddenSum and StaysSum add the replay up.
func (e *Effect) HiddenSum() int64 { return sum(e.Hidden[:]) }

// StaysSum is what the suppression would not have hidden.
func (e *Effect) StaysSum() int64 { return sum(e.Stays[:]) }

func sum(xs []int64) int64 {
	var n int64
	for _, x := range xs {
		n += x
	}
	return n
}

// Preview says what o would do. It changes nothing. An empty verdict or reason is allowed here.
func Preview(ctx context.Context, tx pgx.Tx, o Order) (*Effect, error) {
	e := &Effect{}
	clinics := map[int32]bool{}
	sigs := map[filter.Signature]bool{}
	seen := map[Target]bool{}
	for _, t := range o.Targets {
		f := o.Filter
		f.Rule, f.State = t.Signature, ""
		if t.Clinic != 0 {
			f.Clinics = []int32{t.Clinic}
		}
		where, args := f.SQL(o.Now, nil)
		args = append(args, o.SeenUpTo)
		where += fmt.Sprintf(" AND e.received_at <= $%d", len(args))
		where, args = o.conditions(where, args)
		rows, err := tx.Query(ctx, `SELECT e.clinic_id, sum(e.count), coalesce(sum(e.count) FILTER (WHERE e.action = 'passed'), 0), max(e.severity), max(e.title) FROM event e WHERE `+
			where+` GROUP BY 1 ORDER BY 1`, args...)
		if err != nil {
			return nil, fmt.Errorf("read what a verdict covers: %w", err)
		}
		list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Row, error) {
			r := Row{Target: Target{Signature: t.Signature}}
			err := row.Scan(&r.Clinic, &r.Alerts, &r.Passed, &r.Severity, &r.Title)
			return r, err
		})
		if err != nil {
			return nil, fmt.Errorf("read what a verdict covers: %w", err)
		}
		for _, r := range list {
			if seen[r.Target] {
				continue // chosen as a group and as a clinic of it
			}
			seen[r.Target] = true
			e.Rows = append(e.Rows, r)
			e.Alerts += r.Alerts
			e.Passed += r.Passed
			e.Severity = max(e.Severity, r.Severity)
			clinics[r.Clinic], sigs[r.Signature] = true, true
		}
	}
	e.Clinics = len(clinics)
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM clinic").Scan(&e.AllClinics); err != nil {
		return nil, fmt.Errorf("count clinics: %w", err)
	}
	if !o.suppresses() {
		return e, nil
	}
	e.Expires = o.Now.AddDate(0, 0, o.Days)
	e.Second = o.Fleet && e.Severity >= 4
	return e, e.replay(ctx, tx, &o, sigs, clinics)
}

// conditions adds those of a suppression, so that it judges only what it would hide.
func (o *Order) conditions(where string, args []any) (string, []any) {
	if o.Device != "" {
		args = append(args, o.Device)
		where += fmt.Sprintf(" AND e.device_mac = $%d::text::macaddr", len(args))
	}
	if o.Dst.IsValid() {
		args = append(args, o.Dst)
		where += fmt.Sprintf(" AND e.dst_ip = $%d::inet", len(args))
	}
	if o.DstPort != 0 {
		args = append(args, o.DstPort)
		where += fmt.Sprintf(" AND e.dst_port = $%d", len(args))
	}
	return where, args
}

// replay tries a suppression on the 30 days before.
func (e *Effect) replay(ctx context.Context, tx pgx.Tx, o *Order, sigs map[filter.Signature]bool, clinics map[int32]bool) error {
	var kinds, rules []string
	for s := range sigs {
		kinds, rules = append(kinds, s.Kind), append(rules, s.Rule)
	}
	var at []int32
	for c := range clinics {
		at = append(at, c)
	}
	args := []any{o.Now.Add(-replayFor), o.Now, kinds, rules, at, o.Fleet}
	cond, args := o.conditions("true", args)
	rows, err := tx.Query(ctx, `
SELECT least(29, floor(extract(epoch FROM e.t - $1::timestamptz) / 86400))::int, (e.clinic_id = ANY ($5::int[]) OR $6) AND coalesce(`+cond+`, false) AS hidden, sum(e.count),
  coalesce(sum(e.count) FILTER (WHERE EXISTS (SELECT FROM decision_scope s JOIN decision d USING (decision_id) WHERE s.clinic_id = e.clinic_id AND s.kind = e.kind AND s.rule = e.rule
    AND d.verdict = 'threat' AND d.state = 'active' AND e.received_at <= s.hides_through)), 0)
FROM event e JOIN unnest($3::text[], $4::text[]) AS w(kind, rule) ON w.kind = e.kind AND w.rule = e.rule
WHERE e.kind IN ('alert','detection') AND e.t >= $1 AND e.t < $2 GROUP BY 1, 2`, args...)
	if err != nil {
		return fmt.Errorf("replay suppression: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var day int
		var hidden bool
		var n, threats int64
		if err := rows.Scan(&day, &hidden, &n, &threats); err != nil {
			return fmt.Errorf("replay suppression: %w", err)
		}
		if day < 0 {
			continue
		}
		if hidden {
			e.Hidden[day] += n
			e.Threats += threats
		} else {
			e.Stays[day] += n
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("replay suppression: %w", err)
	}
	return nil
}

// Decide carries an order out in tx and records it. tx must be the fleet's. Errors: ErrInvalid, ErrNothing.
func Decide(ctx context.Context, tx pgx.Tx, o Order) (*Effect, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	e, err := Preview(ctx, tx, o)
	if err != nil {
		return nil, err
	}
	if len(e.Rows) == 0 {
		return nil, ErrNothing
	}
	state, hides := "active", o.SeenUpTo
	if o.suppresses() {
		hides = e.Expires
	}
	if e.Second {
		state = "pending"
	}
	var expires *time.Time
	if !e.Expires.IsZero() {
		expires = &e.Expires
	}
	var device, dst any
	var port *int
	if o.Device != "" {
		device = o.Device
	}
	if o.Dst.IsValid() {
		dst = o.Dst
	}
	if o.DstPort != 0 {
		port = &o.DstPort
	}
	err = tx.QueryRow(ctx, `INSERT INTO decision (verdict, state, reason, fleet, severity, alerts, clinics, device_mac, dst_ip, dst_port, expires_at, replay, author, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::macaddr, $9, $10, $11, $12, $13, $14) RETURNING decision_id`,
		o.Verdict, state, o.Reason, o.Fleet, e.Severity, e.Alerts, e.Clinics, device, dst, port, expires, e.HiddenSum(), o.Author, o.Now).Scan(&e.Decision)
	if err != nil {
		return nil, fmt.Errorf("store decision: %w", err)
	}
	for _, r := range e.Rows {
		_, err := tx.Exec(ctx, `INSERT INTO decision_scope (clinic_id, decision_id, kind, rule, alerts, seen_through, hides_through, device_mac, dst_ip, dst_port)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN '-infinity'::timestamptz ELSE $8 END, $9::text::macaddr, $10, $11)`,
			r.Clinic, e.Decision, r.Kind, r.Rule, r.Alerts, o.SeenUpTo, e.Second, hides, device, dst, port)
		if err != nil {
			return nil, fmt.Errorf("store scope of decision: %w", err)
		}
	}
	if o.Fleet {
		if _, err := tx.Exec(ctx, `INSERT INTO decision_scope (clinic_id, decision_id, kind, rule, alerts, seen_through, hides_through, device_mac, dst_ip, dst_port)
SELECT c.clinic_id, s.decision_id, s.kind, s.rule, 0, max(s.seen_through), max(s.hides_through), s.device_mac, s.dst_ip, s.dst_port
FROM decision_scope s CROSS JOIN clinic c WHERE s.decision_id = $1 GROUP BY c.clinic_id, s.decision_id, s.kind, s.rule, s.device_mac, s.dst_ip, s.dst_port ON CONFLICT DO NOTHING`, e.Decision); err != nil {
			return nil, fmt.Errorf("spread decision over the fleet: %w", err)
		}
	}
	if o.Verdict == Threat {
		if e.Case, err = openCase(ctx, tx, &o, e); err != nil {
			return nil, err
		}
	}
	return e, audit.Append(ctx, tx, audit.Entry{
		Actor: o.Author, Action: "verdict." + o.Verdict, Target: fmt.Sprintf("decision:%d", e.Decision), Reason: o.Reason,
		Detail: map[string]any{"alerts": e.Alerts, "clinics": e.Clinics, "state": state, "targets": targets(o.Targets), "filter": o.Filter.Key()},
	})
}

// targets names at most 50 of them, for the audit log.
func targets(ts []Target) []string {
	var out []string
	for _, t := range ts[:min(len(ts), 50)] {
		out = append(out, t.String())
	}
	return out
}

// Approve gives the second signature to a pending decision. Errors: ErrState, ErrSecond.
func Approve(ctx context.Context, tx pgx.Tx, id int64, actor string, now time.Time) error {
	var author string
	err := tx.QueryRow(ctx, `SELECT author FROM decision WHERE decision_id = $1 AND state = 'pending' AND expires_at > $2 FOR UPDATE`, id, now).Scan(&author)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrState
	}
	if err != nil {
		return fmt.Errorf("read decision: %w", err)
	}
	if author == actor {
		return ErrSecond
	}
	if _, err := tx.Exec(ctx, `UPDATE decision SET state = 'active', approver = $2 WHERE decision_id = $1`, id, actor); err != nil {
		return fmt.Errorf("approve decision: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE decision_scope s SET hides_through = d.expires_at FROM decision d WHERE d.decision_id = $1 AND s.decision_id = $1`, id); err != nil {
		return fmt.Errorf("approve decision: %w", err)
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "verdict.approve", Target: fmt.Sprintf("decision:%d", id)})
}

// Undo takes a decision back as if it had not been made: what it hid is shown again. Within UndoFor its author needs no reason;
// later a reason is asked for. Errors: ErrState, ErrInvalid.
func Undo(ctx context.Context, tx pgx.Tx, id int64, actor, reason string, now time.Time) error {
	return end(ctx, tx, id, actor, reason, now, "undone")
}

// Lift ends a suppression now: what it hid so far stays hidden. Errors: ErrState, ErrInvalid.
func Lift(ctx context.Context, tx pgx.Tx, id int64, actor, reason string, now time.Time) error {
	return end(ctx, tx, id, actor, reason, now, "lifted")
}

func end(ctx context.Context, tx pgx.Tx, id int64, actor, reason string, now time.Time, state string) error {
	var author string
	var created time.Time
	var expires *time.Time
	err := tx.QueryRow(ctx, `SELECT author, created_at, expires_at FROM decision WHERE decision_id = $1 AND state IN ('active','pending') FOR UPDATE`, id).Scan(&author, &created, &expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrState
	}
	if err != nil {
		return fmt.Errorf("read decision: %w", err)
	}
	reason = strings.TrimSpace(reason)
	switch {
	case utf8.RuneCountInString(reason) > MaxReason || !utf8.ValidString(reason):
		return fmt.Errorf("%w: the reason is longer than %d characters", ErrInvalid, MaxReason)
	case state == "lifted" && expires == nil:
		return ErrState
	case reason == "" && (state == "lifted" || actor != author || now.Sub(created) > UndoFor):
		return fmt.Errorf("%w: a reason is needed", ErrInvalid)
	}
	if _, err := tx.Exec(ctx, `UPDATE decision SET state = $2, ended_at = $3, ended_by = $4, end_reason = $5 WHERE decision_id = $1`, id, state, now, actor, reason); err != nil {
		return fmt.Errorf("end decision: %w", err)
	}
	through := `'-infinity'::timestamptz`
	if state == "lifted" {
		through = `least(hides_through, $2)`
	}
	args := []any{id}
	if state == "lifted" {
		args = append(args, now)
	}
	if _, err := tx.Exec(ctx, `UPDATE decision_scope SET hides_through = `+through+` WHERE decision_id = $1`, args...); err != nil {
		return fmt.Errorf("end decision: %w", err)
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "verdict." + map[string]string{"undone": "undo", "lifted": "lift"}[state], Target: fmt.Sprintf("decision:%d", id), Reason: reason})
}

// Common is what all alerts of an order share; a suppression may be narrowed to it. Zero fields are not shared.
type Common struct {
	Device     string // MAC
	DeviceName string // of the clinic's own, or its address
	Dst        netip.Addr
	DstPort    int
}

// CommonOf reads it.
func CommonOf(ctx context.Context, tx pgx.Tx, o Order) (Common, error) {
	var c Common
	first := true
	for _, t := range o.Targets {
		f := o.Filter
		f.Rule, f.State = t.Signature, ""
		if t.Clinic != 0 {
			f.Clinics = []int32{t.Clinic}
		}
		where, args := f.SQL(o.Now, nil)
		args = append(args, o.SeenUpTo)
		var mac, name *string
		var dst *netip.Prefix
		var port *int
		err := tx.QueryRow(ctx, `SELECT CASE WHEN count(DISTINCT e.device_mac) = 1 AND count(*) = count(e.device_mac) AND count(DISTINCT e.clinic_id) = 1 THEN min(e.device_mac::text) END,
  max(coalesce(nullif(d.name, ''), nullif(d.hostname, ''), host(e.device_ip))), CASE WHEN min(e.dst_ip) = max(e.dst_ip) AND count(*) = count(e.dst_ip) THEN min(e.dst_ip) END,
  CASE WHEN min(e.dst_port) = max(e.dst_port) AND count(*) = count(e.dst_port) THEN min(e.dst_port) END
FROM event e LEFT JOIN device d ON d.clinic_id = e.clinic_id AND d.mac = e.device_mac AND NOT d.anonymous WHERE `+where+fmt.Sprintf(" AND e.received_at <= $%d", len(args)), args...).Scan(&mac, &name, &dst, &port)
		if err != nil {
			return Common{}, fmt.Errorf("read what alerts share: %w", err)
		}
		var one Common
		if mac != nil {
			one.Device, one.DeviceName = *mac, *mac
			if name != nil {
				one.DeviceName = *name
			}
		}
		one.Dst = ip(dst)
		if port != nil {
			one.DstPort = *port
		}
		if first {
			c, first = one, false
			continue
		}
		if c.Device != one.Device {
			c.Device, c.DeviceName = "", ""
		}
		if c.Dst != one.Dst {
			c.Dst = netip.Addr{}
		}
		if c.DstPort != one.DstPort {
			c.DstPort = 0
		}
	}
	return c, nil
}
