package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// jst is Japan's time: reports are by its calendar month.
var jst = time.FixedZone("JST", 9*60*60)

// statedEvery is the interval of traffic and health in data/plan.yaml.
const statedEvery = 3 * time.Second

// settle waits until the database holds every event that the appliances have numbered by now, and counts them there.
func (d *run) settle(ctx context.Context, n note) error {
	if err := d.waitForVerdicts(ctx, n); err != nil {
		return err
	}
	// What was driven last is stated at the latest one interval of the plan (3 s) later; the marks are taken after that.
	n("letting the last interval end")
	select {
	case <-time.After(2 * statedEvery):
	case <-ctx.Done():
		return ctx.Err()
	}
	marks := map[int32]agentStatus{}
	for _, c := range d.world.clinics {
		s, err := d.programs.agentStatus(ctx, c)
		if err != nil {
			return err
		}
		if s.LastSeq == 0 {
			return fmt.Errorf("appliance of %s has stated no event", c.name)
		}
		marks[s.ApplianceID] = s
	}
	return until(ctx, 90*time.Second, "the database to hold every event", func() error {
		var ledger operatorv1.GetLedgerResponse
		if err := d.programs.operator(ctx, &ledger, "ledger"); err != nil {
			return err
		}
		d.summary.EventsEmitted, d.summary.EventsStored, d.summary.Duplicates, d.summary.Lost = 0, 0, 0, 0
		var behind []string
		for _, s := range ledger.GetStreams() {
			m, ok := marks[s.GetApplianceId()]
			if !ok || strings.ReplaceAll(m.StreamID, "-", "") != strings.ReplaceAll(s.GetStreamId(), "-", "") {
				return fmt.Errorf("stream %s of appliance %d is none of the demo's", s.GetStreamId(), s.GetApplianceId())
			}
			if s.GetCommittedThrough() < m.LastSeq {
				behind = append(behind, fmt.Sprintf("appliance %d: %d of %d", s.GetApplianceId(), s.GetCommittedThrough(), m.LastSeq))
			}
			// Emitted is what the box has numbered: its mark, or more if it went on meanwhile.
			d.summary.EventsEmitted += max(m.LastSeq, s.GetHighest())
			d.summary.EventsStored += s.GetStored()
			d.summary.Duplicates += s.GetDuplicates()
			d.summary.Lost += s.GetLostDeclared() + s.GetLostUndeclared()
		}
		n("%d stored", d.summary.EventsStored)
		if len(ledger.GetStreams()) != len(marks) {
			return fmt.Errorf("%d of %d appliances have sent events", len(ledger.GetStreams()), len(marks))
		}
		if len(behind) > 0 {
			return errors.New(strings.Join(behind, "; "))
		}
		return nil
	})
}

// waitForVerdicts waits until every clinic's infected devices are those that the demo infected, and its traffic is told of.
func (d *run) waitForVerdicts(ctx context.Context, n note) error {
	d.month = time.Now().In(jst).Format("2006-01")
	return until(ctx, 60*time.Second, "the appliances to tell what they found", func() error {
		for _, c := range d.world.clinics {
			got, err := d.infected(ctx, c)
			if err != nil {
				return err
			}
			n("%s: %d under suspicion", c.name, len(got))
			if len(got) < len(c.infected()) {
				return fmt.Errorf("%s: under suspicion %v, want %v", c.name, got, c.infected())
			}
		}
		return nil
	})
}

func (d *run) infected(ctx context.Context, c *clinic) ([]string, error) {
	var list operatorv1.ListInfectedResponse
	if err := d.programs.operator(ctx, &list, "infected", "--clinic", fmt.Sprint(c.id), "--month", d.month); err != nil {
		return nil, err
	}
	got := []string{}
	for _, dev := range list.GetDevices() {
		got = append(got, dev.GetIp())
	}
	return got, nil
}

// report queues one report a clinic and waits for the PDFs.
func (d *run) report(ctx context.Context, n note) error {
	for _, c := range d.world.clinics {
		if err := d.programs.operator(ctx, nil, "report", "request", "--clinic", fmt.Sprint(c.id), "--month", d.month); err != nil {
			return err
		}
	}
	d.summary.Reports = nil
	for _, c := range d.world.clinics {
		var found *operatorv1.Report
		if err := until(ctx, 180*time.Second, "the report of "+c.name, func() error {
			var list operatorv1.ListReportsResponse
			if err := d.programs.operator(ctx, &list, "report", "list", "--clinic", fmt.Sprint(c.id), "--month", d.month); err != nil {
				return err
			}
			if len(list.GetReports()) == 0 {
				return errors.New("not rendered yet")
			}
			found = list.GetReports()[0]
			return nil
		}); err != nil {
			return err
		}
		path := filepath.Join(d.out, "reports", fmt.Sprintf("%s-C%03d.pdf", d.month, c.n))
		if err := d.programs.operator(ctx, nil, "report", "get", fmt.Sprint(found.GetId()), "--file", path); err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("get the report of %s: %w", c.name, err)
		}
		c.pdf = path
		d.summary.Reports = append(d.summary.Reports, path)
		n("%d of %d", len(d.summary.Reports), d.cfg.Clinics)
	}
	return nil
}
