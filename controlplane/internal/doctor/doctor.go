// Package doctor looks at the database for what is wrong with the fleet and its evidence, and says how to mend it.
//
// The operators' command line mounts [Command]; the transaction it is given must see all clinics (postgres.DB.Fleet). Trap: a check that can't be
// made is a finding itself, never a silent pass.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
)

// Severity of a finding.
type Severity int

// The severities, rising.
const (
	Info     Severity = iota
	Warning           // worse than it should be
	Critical          // events, evidence or protection are being lost
)

func (s Severity) String() string { return [...]string{"info", "WARNING", "CRITICAL"}[s] }

// Finding is one thing that is wrong.
type Finding struct {
	Severity Severity
	What     string
	Fix      string
}

// check is one question to the database. The query returns rows of text, one per thing that is wrong; none is well.
type check struct {
	severity Severity
	name     string
	query    string
	fix      string
}

// most is how many rows of one check are told.
const most = 20

var checks = []check{
	{
		Critical, "events are missing", `SELECT format('clinic %s (%s), appliance %s: events %s to %s are missing since %s', c.code, c.name, g.appliance_id,
		  g.from_seq, coalesce(g.to_seq::text, '?'), to_char(g.opened_at AT TIME ZONE 'Asia/Tokyo', 'YYYY-MM-DD HH24:MI'))
		FROM event_gap g JOIN clinic c USING (clinic_id) WHERE g.closed_at IS NULL AND g.confirmed AND g.cause = 'undeclared' ORDER BY g.opened_at`,
		"the box may still hold them: see its line and 'kadomori-agent status'; if its disk was replaced they are lost and the report says so",
	},
	{
		Warning, "events were dropped or lost for a known reason", `SELECT format('clinic %s (%s), appliance %s: events %s to %s, cause %s', c.code, c.name, g.appliance_id,
		  g.from_seq, coalesce(g.to_seq::text, '?'), g.cause)
		FROM event_gap g JOIN clinic c USING (clinic_id) WHERE g.closed_at IS NULL AND g.confirmed AND g.cause <> 'undeclared'
		  AND g.opened_at > now() - interval '7 days' ORDER BY g.opened_at`,
		"cause full: enlarge the spool or mend the line; corrupt, unreadable: replace the box's disk; refused: see the dead letters",
	},
	{
		Critical, "appliances are silent", `SELECT format('clinic %s (%s), appliance %s %s: last seen %s', c.code, c.name, a.appliance_id, a.name,
		  coalesce(to_char(a.last_seen AT TIME ZONE 'Asia/Tokyo', 'YYYY-MM-DD HH24:MI'), 'never'))
		FROM appliance a JOIN clinic c USING (clinic_id) WHERE a.state = 'approved' AND coalesce(a.last_seen, a.created_at) < now() - interval '15 minutes'
		ORDER BY a.last_seen NULLS FIRST`,
		"call the clinic: power and line of the box; its traffic passes uninspected or not at all meanwhile",
	},
	{
		Critical, "the daily self-test is missing: a zero is no evidence", `SELECT format('clinic %s (%s), appliance %s: %s', c.code, c.name, a.appliance_id,
		  CASE WHEN t.t IS NULL THEN 'no self-test in 26 hours' ELSE 'the last self-test failed' END)
		FROM appliance a JOIN clinic c USING (clinic_id)
		LEFT JOIN LATERAL (SELECT e.t, (e.detail->>'passed')::boolean AS passed FROM event e WHERE e.clinic_id = a.clinic_id AND e.appliance_id = a.appliance_id
		  AND e.kind = 'self_test' AND e.t > now() - interval '26 hours' ORDER BY e.t DESC LIMIT 1) t ON true
		WHERE a.state = 'approved' AND a.created_at < now() - interval '26 hours' AND t.passed IS NOT TRUE`,
		"run 'kadomori-agent selftest' on the box; it names the stage that fails",
	},
	{
		Warning, "messages could not be read", `SELECT format('%s of appliance %s in 24 hours, the last: %s', count(*), coalesce(appliance_id::text, '?'),
		  (array_agg(left(reason, 120) ORDER BY received_at DESC))[1])
		FROM dead_letter WHERE received_at > now() - interval '1 day' GROUP BY appliance_id`,
		"look at the dead letters in the console; a box that sends rubbish is broken or hostile: revoke it",
	},
	{
		Warning, "events lie outside of all months: a box's clock is absurd", `SELECT format('%s events or more', n) FROM event_outside_partitions() n WHERE n > 0`,
		"set the clock of the box (NTP); the events are kept and searched, but deleted by their receipt",
	},
	{
		Critical, "the months ahead have no partition", `SELECT format('no partition for %s', to_char(m, 'YYYY-MM')) FROM generate_series(0, 1) n,
		  LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n) AS m) m
		WHERE to_regclass('event_' || to_char(m, 'YYYY_MM')) IS NULL`,
		"ingest makes them every hour: is kadomori-control running? see its log for 'make partitions'",
	},
	{
		Critical, "days are not sealed", `SELECT format('clinic %s (%s): the last sealed day is %s', c.code, c.name, coalesce(max(e.day)::text, 'none'))
		FROM clinic c LEFT JOIN evidence_day e USING (clinic_id) WHERE c.created_at < now() - interval '50 hours'
		GROUP BY c.clinic_id, c.code, c.name HAVING coalesce(max(e.day), '-infinity') < (now() AT TIME ZONE 'Asia/Tokyo')::date - 2`,
		"see the control plane's log for 'keep evidence'; evidence of those days can still be sealed",
	},
	{
		Warning, "clocks are wrong", `SELECT format('clinic %s (%s), appliance %s: %s ms', c.code, c.name, a.appliance_id, a.clock_offset_ms)
		FROM appliance a JOIN clinic c USING (clinic_id) WHERE a.state = 'approved' AND abs(a.clock_offset_ms) > 30000 ORDER BY abs(a.clock_offset_ms) DESC`,
		"give the box a time server it reaches; times of its events are off by that much",
	},
	{
		Warning, "bundles were refused", `SELECT format('clinic %s (%s), appliance %s: %s', c.code, c.name, a.appliance_id, left(a.refused, 160))
		FROM appliance a JOIN clinic c USING (clinic_id) WHERE a.state = 'approved' AND a.refused <> '' ORDER BY a.appliance_id`,
		"the box keeps its last good policy; mend the policy or the signatures it names and publish again",
	},
	{
		Warning, "certificates run out", `SELECT format('clinic %s (%s), appliance %s: %s', c.code, c.name, a.appliance_id, to_char(max(x.not_after) AT TIME ZONE 'Asia/Tokyo', 'YYYY-MM-DD HH24:MI'))
		FROM appliance a JOIN clinic c USING (clinic_id) JOIN certificate x ON x.clinic_id = a.clinic_id AND x.appliance_id = a.appliance_id AND x.revoked_at IS NULL
		WHERE a.state = 'approved' GROUP BY c.code, c.name, a.appliance_id HAVING max(x.not_after) < now() + interval '2 days'`,
		"boxes renew by themselves while they are connected: see why this one is not",
	},
	{
		Warning, "background work failed", `SELECT format('%s jobs of kind %s were given up, the last: %s', count(*), kind, left((array_agg(errors[array_upper(errors, 1)]->>'error' ORDER BY finalized_at DESC))[1], 160))
		FROM river.river_job WHERE state = 'discarded' AND finalized_at > now() - interval '7 days' GROUP BY kind`,
		"mend what the error says and have it done again, for a report with the console's button",
	},
	{
		Critical, "the database nears the end of its transaction numbers", `SELECT format('database %s: age %s', datname, age(datfrozenxid)) FROM pg_database
		WHERE datname = current_database() AND age(datfrozenxid) > 1000000000`,
		"let autovacuum run; see pg_stat_progress_vacuum and long transactions in pg_stat_activity",
	},
}

// Examine makes all checks. A check that fails is a finding and doesn't stop the others; an error means that nothing could be asked.
func Examine(ctx context.Context, tx pgx.Tx) ([]Finding, error) {
	var found []Finding
	for _, c := range checks {
		rows, err := ask(ctx, tx, c.query)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("examine: %w", ctx.Err())
		}
		if err != nil {
			found = append(found, Finding{Warning, fmt.Sprintf("could not check whether %s: %v", c.name, err), "bring the database's schema up to date: kadomori-control migrate"})
			continue
		}
		for i, what := range rows {
			if i == most {
				found = append(found, Finding{c.severity, fmt.Sprintf("%s: and %d more", c.name, len(rows)-most), c.fix})
				break
			}
			found = append(found, Finding{c.severity, c.name + ": " + what, c.fix})
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return found, nil
}

// ask runs one query inside a savepoint, so that its failure leaves the transaction usable.
func ask(ctx context.Context, tx pgx.Tx, query string) ([]string, error) {
	var out []string
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, query)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return out, err
}

// ErrSick is what Command returns when something critical was found and printed.
var ErrSick = errors.New("something is wrong")

// Command is "doctor". begin runs fn in a transaction that sees all clinics.
func Command(begin func(ctx context.Context, fn func(pgx.Tx) error) error) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "List what is wrong with the fleet and its evidence, and how to mend it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found []Finding
			if err := begin(cmd.Context(), func(tx pgx.Tx) error {
				var err error
				found, err = Examine(cmd.Context(), tx)
				return err
			}); err != nil {
				return err
			}
			return Print(cmd.OutOrStdout(), found)
		},
	}
}

// Print writes findings for people and returns ErrSick when one is critical.
func Print(w io.Writer, found []Finding) error {
	sick := false
	last := ""
	for _, f := range found {
		if _, err := fmt.Fprintf(w, "%-8s  %s\n", f.Severity, f.What); err != nil {
			return err
		}
		if f.Fix != last {
			if _, err := fmt.Fprintf(w, "          -> %s\n", f.Fix); err != nil {
				return err
			}
			last = f.Fix
		}
		sick = sick || f.Severity == Critical
	}
	if len(found) == 0 {
		if _, err := fmt.Fprintf(w, "all %d checks are well\n", len(checks)); err != nil {
			return err
		}
	}
	if sick {
		return ErrSick
	}
	return nil
}
