package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// GateState is one gate's value beside its limit.
type GateState struct {
	Name, Value, Limit string
	Passed             bool
}

// A rate is judged only past this many events: a handful says nothing.
const enoughEvents = 30

// baseline is the stretch before a ring's first change that its rates are compared with.
const baseline = 7 * 24 * time.Hour

// gates measures the ring under way. A ring that nobody has reached yet has no values, and passes.
func (r *Rollouts) gates(ctx context.Context, tx pgx.Tx, ro *Rollout) ([]GateState, error) {
	var clinics, ids []int32
	var failed, all int
	first := r.Now()
	for _, t := range ro.Targets {
		if t.Ring != ro.Ring {
			continue
		}
		all++
		if t.State == "failed" {
			failed++
		}
		if t.State == "waiting" || t.State == "reverted" {
			continue
		}
		ids = append(ids, t.Appliance)
		clinics = append(clinics, t.Clinic)
		if t.Applied.Before(first) {
			first = t.Applied
		}
	}
	g := ro.Spec.Gates
	share := 0
	if all > 0 {
		share = 100 * failed / all
	}
	out := []GateState{{
		Name: "failed appliances", Value: fmt.Sprintf("%d of %d (%d %%)", failed, all, share), Limit: fmt.Sprintf("%d %%", g.FailedPercent),
		// Even a share below one percent is more than none.
		Passed: failed == 0 || (g.FailedPercent > 0 && 100*failed <= int(g.FailedPercent)*all),
	}}
	if len(ids) == 0 {
		return out, nil
	}
	var unprotected float64 // minutes
	var blocks, blocksBefore, alerts, alertsBefore int64
	err := tx.QueryRow(ctx, `SELECT
		coalesce(sum(extract(epoch FROM (detail->>'to')::timestamptz - greatest((detail->>'from')::timestamptz, $3)) / 60)
		  FILTER (WHERE kind = 'unprotected' AND (detail->>'to')::timestamptz > $3), 0)::float8,
		coalesce(sum(count) FILTER (WHERE kind = 'block' AND t >= $3), 0), coalesce(sum(count) FILTER (WHERE kind = 'block' AND t < $3), 0),
		coalesce(sum(count) FILTER (WHERE kind IN ('alert', 'detection') AND t >= $3), 0), coalesce(sum(count) FILTER (WHERE kind IN ('alert', 'detection') AND t < $3), 0)
		FROM event WHERE clinic_id = ANY ($1) AND appliance_id = ANY ($2) AND kind IN ('alert', 'detection', 'block', 'unprotected') AND t >= $4`,
		clinics, ids, first, first.Add(-baseline)).Scan(&unprotected, &blocks, &blocksBefore, &alerts, &alertsBefore)
	if err != nil {
		return nil, fmt.Errorf("measure gates: %w", err)
	}
	perBox := unprotected / float64(len(ids))
	out = append(out,
		GateState{
			Name: "unprotected time", Value: fmt.Sprintf("%.1f min an appliance", perBox), Limit: fmt.Sprintf("%d min", g.UnprotectedMinutes),
			Passed: perBox <= float64(g.UnprotectedMinutes),
		},
		rate("blocks an hour", blocks, blocksBefore, r.Now().Sub(first), g.BlockRatio),
		rate("alerts an hour", alerts, alertsBefore, r.Now().Sub(first), g.AlertRatio),
	)
	return out, nil
}

// rate compares events an hour since the change with those before it. A quiet past counts as one event an hour.
func rate(name string, since, before int64, span time.Duration, limit float64) GateState {
	hours := max(span.Hours(), 1.0/6) // minutes after a change, a burst is not yet a rate
	now, past := float64(since)/hours, max(float64(before)/baseline.Hours(), 1)
	return GateState{
		Name: name, Value: fmt.Sprintf("%.1f, before %.1f", now, float64(before)/baseline.Hours()), Limit: fmt.Sprintf("%.1f times", limit),
		Passed: since < enoughEvents || now <= limit*past,
	}
}
