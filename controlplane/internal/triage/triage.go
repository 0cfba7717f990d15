// Package triage reads detections the way an analyst works them: grouped by signature, then by clinic. Package web calls it
// inside a transaction that already states which clinics may be seen; row-level security does the rest. The trap: all counts
// here are sum(count), because one row may stand for many folded matches; never count(*).
package triage

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

// Buckets is the number of columns of a shape.
const Buckets = 24

// Group is a signature over its clinics, or a signature at one clinic.
type Group struct {
	filter.Signature
	Clinic        int32 // 0 when over several
	ClinicName    string
	ClinicCode    string
	Title         string // as the appliance wrote it: a rule's msg, a detection's list
	Severity      int    // highest, 1..5
	Category      string
	Certainty     int // highest, 0..3
	Clinics       int
	Alerts        int64
	Passed        int64
	First, Last   time.Time // box time
	FirstReceived time.Time // when the first of them was committed; what "new since" compares
	Shape         [Buckets]int64
	Pairs         []*Group // by clinic, most alerts first; nil for a pair
}

// ID is a short name of the group, fit for an id attribute and the same on every replica.
func (g *Group) ID() string { return ID(g.Signature, g.Clinic) }

// ID names a signature, or a signature at a clinic, for id attributes.
func ID(s filter.Signature, clinic int32) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.String()))
	id := "g" + strconv.FormatUint(h.Sum64(), 36)
	if clinic != 0 {
		id += "-" + strconv.Itoa(int(clinic))
	}
	return id
}

// Snapshot is everything grouped, at one moment.
type Snapshot struct {
	At       time.Time // the moment it was taken
	From, To time.Time // of the period
	Groups   []*Group  // highest severity first, then last seen
	Alerts   int64     // matches
	Rows     int64     // rows of the table, what the flat list shows
	Clinics  int       // with at least one
	Hidden   int64     // matches of the same period that the filter hides
}

// Group looks a group up; nil when it is not (any more) in s. clinic 0 means over all clinics.
func (s *Snapshot) Group(sig filter.Signature, clinic int32) *Group {
	for _, g := range s.Groups {
		if g.Signature != sig {
			continue
		}
		if clinic == 0 {
			return g
		}
		for _, p := range g.Pairs {
			if p.Clinic == clinic {
				return p
			}
		}
	}
	return nil
}

// Pairs are all groups by signature and clinic, in the order of the groups.
func (s *Snapshot) Pairs() []*Group {
	var all []*Group
	for _, g := range s.Groups {
		all = append(all, g.Pairs...)
	}
	Sort(all, "")
	return all
}

// NewSince counts groups whose first alert was committed after t.
func (s *Snapshot) NewSince(t time.Time) int {
	n := 0
	for _, g := range s.Groups {
		if g.FirstReceived.After(t) {
			n++
		}
	}
	return n
}

// Sort orders groups by column: "last", "alerts", "clinics", "passed", "name"; anything else is the default, severity and
// then last seen. Ties always break the same way, so that two replicas agree.
func Sort(gs []*Group, by string) {
	slices.SortStableFunc(gs, func(a, b *Group) int {
		var c int
		switch by {
		case "last":
			c = b.Last.Compare(a.Last)
		case "alerts":
			c = cmp.Compare(b.Alerts, a.Alerts)
		case "clinics":
			c = cmp.Compare(b.Clinics, a.Clinics)
		case "passed":
			c = cmp.Compare(b.Passed, a.Passed)
		case "name":
			c = cmp.Compare(a.Title, b.Title)
		}
		return cmp.Or(c, cmp.Compare(b.Severity, a.Severity), b.Last.Compare(a.Last), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Clinic, b.Clinic))
	})
}

// Take reads a snapshot of what f means at the moment now. One hashed aggregate over the period feeds all groupings.
func Take(ctx context.Context, tx pgx.Tx, f filter.Filter, now time.Time) (*Snapshot, error) {
	return take(ctx, tx, f, now, time.Time{})
}

// TakeAsOf is Take as it was at a moment: of what had been committed by then. Pages of a long list are cut from it, so that
// they don't shift while alerts arrive. Verdicts given since then count.
func TakeAsOf(ctx context.Context, tx pgx.Tx, f filter.Filter, then time.Time) (*Snapshot, error) {
	return take(ctx, tx, f, then, then)
}

func take(ctx context.Context, tx pgx.Tx, f filter.Filter, now, upTo time.Time) (*Snapshot, error) {
	s := &Snapshot{At: now}
	s.From, s.To = f.Window(now)
	width := s.To.Sub(s.From) / Buckets
	where, args := f.SQL(now, nil)
	if !upTo.IsZero() {
		args = append(args, upTo)
		where += fmt.Sprintf(" AND e.received_at <= $%d", len(args))
	}
	n := len(args)
	args = append(args, s.From, width.Seconds())
	rows, err := tx.Query(ctx, fmt.Sprintf(`
SELECT x.*, c.name, c.code FROM (
  SELECT e.kind, e.rule, e.clinic_id, least(%d, greatest(0, floor(extract(epoch FROM e.t - $%d) / $%d)))::int AS bucket,
         max(e.title), max(e.severity), max(e.category), max(e.certainty), sum(e.count), coalesce(sum(e.count) FILTER (WHERE e.action = 'passed'), 0),
         min(e.t), max(e.t), min(e.received_at), count(*)
  FROM event e WHERE %s GROUP BY 1, 2, 3, 4) x
JOIN clinic c USING (clinic_id)`, Buckets-1, n+1, n+2, where), args...)
	if err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	defer rows.Close()
	sigs := map[filter.Signature]*Group{}
	type pair struct {
		sig    filter.Signature
		clinic int32
	}
	pairs := map[pair]*Group{}
	clinics := map[int32]bool{}
	for rows.Next() {
		var r Group
		var bucket int
		var rowCount int64
		if err := rows.Scan(&r.Kind, &r.Rule, &r.Clinic, &bucket, &r.Title, &r.Severity, &r.Category, &r.Certainty, &r.Alerts, &r.Passed,
			&r.First, &r.Last, &r.FirstReceived, &rowCount, &r.ClinicName, &r.ClinicCode); err != nil {
			return nil, fmt.Errorf("read groups: %w", err)
		}
		clinics[r.Clinic] = true
		s.Alerts += r.Alerts
		s.Rows += rowCount
		g := sigs[r.Signature]
		if g == nil {
			g = &Group{Signature: r.Signature}
			sigs[r.Signature] = g
			s.Groups = append(s.Groups, g)
		}
		g.add(&r, bucket)
		k := pair{r.Signature, r.Clinic}
		p := pairs[k]
		if p == nil {
			p = &Group{Signature: r.Signature, Clinic: r.Clinic, ClinicName: r.ClinicName, ClinicCode: r.ClinicCode, Clinics: 1}
			pairs[k] = p
			g.Pairs = append(g.Pairs, p)
			g.Clinics++
		}
		p.add(&r, bucket)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read groups: %w", err)
	}
	s.Clinics = len(clinics)
	Sort(s.Groups, "")
	for _, g := range s.Groups {
		Sort(g.Pairs, "alerts")
	}
	if f.Limits() {
		where, args := f.Unlimited().SQL(now, nil)
		var all int64
		if err := tx.QueryRow(ctx, "SELECT coalesce(sum(e.count), 0) FROM event e WHERE "+where, args...).Scan(&all); err != nil {
			return nil, fmt.Errorf("count hidden: %w", err)
		}
		s.Hidden = all - s.Alerts
	}
	return s, nil
}

func (g *Group) add(r *Group, bucket int) {
	if g.Title == "" || r.Last.After(g.Last) {
		g.Title = r.Title
	}
	if r.Severity >= g.Severity {
		g.Severity, g.Category = r.Severity, r.Category
	}
	g.Certainty = max(g.Certainty, r.Certainty)
	g.Alerts += r.Alerts
	g.Passed += r.Passed
	if g.First.IsZero() || r.First.Before(g.First) {
		g.First = r.First
	}
	if r.Last.After(g.Last) {
		g.Last = r.Last
	}
	if g.FirstReceived.IsZero() || r.FirstReceived.Before(g.FirstReceived) {
		g.FirstReceived = r.FirstReceived
	}
	g.Shape[bucket] += r.Alerts
}
