package health

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type sink struct {
	mu      sync.Mutex
	health  []*eventv1.Health
	traffic int
	spans   [][2]time.Time
}

func (s *sink) Health(h *eventv1.Health) { s.mu.Lock(); s.health = append(s.health, h); s.mu.Unlock() }

func (s *sink) Traffic(from, to time.Time, rows []finding.TrafficRow) {
	s.mu.Lock()
	s.traffic += len(rows)
	s.spans = append(s.spans, [2]time.Time{from, to})
	s.mu.Unlock()
}

func TestIntervalsJoinAndCountersAreDifferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &sink{}
		var mu sync.Mutex
		tot := Totals{}
		r, err := New(Config{
			Totals: func() (Totals, error) {
				mu.Lock()
				defer mu.Unlock()
				tot.PacketsSeen += 10
				tot.Unprotected += 5 * time.Millisecond
				return tot, nil
			},
			Gauges:  func() Gauges { return Gauges{Version: "v", RulesLoaded: 3, WireMode: "inline-native"} },
			Traffic: func() []finding.TrafficRow { return make([]finding.TrafficRow, 2) },
			Sink:    out, Health: 10 * time.Second, TrafficEvery: 20 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(45 * time.Second) //nolint:forbidigo // the clock of this bubble is not real
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(out.health) != 5 || out.traffic != 6 {
			t.Fatalf("%d health events, %d traffic rows", len(out.health), out.traffic)
		}
		for i, h := range out.health {
			if h.GetPacketsSeen() != 10 || h.GetUnprotectedMs() != 5 || h.GetVersion() != "v" || h.GetRulesLoaded() != 3 {
				t.Errorf("health %d: %v", i, h)
			}
			if i > 0 && !h.GetFrom().AsTime().Equal(out.health[i-1].GetTo().AsTime()) {
				t.Errorf("health %d begins at %v, the one before ends at %v", i, h.GetFrom().AsTime(), out.health[i-1].GetTo().AsTime())
			}
		}
		if last := out.health[4]; last.GetTo().AsTime().Sub(last.GetFrom().AsTime()) != 5*time.Second {
			t.Errorf("the last interval is %v", last)
		}
	})
}

func TestClockPutBackGivesNoBackwardsInterval(t *testing.T) {
	out := &sink{}
	now := time.Now()
	tot := Totals{PacketsSeen: 100}
	r, err := New(Config{
		Totals: func() (Totals, error) { return tot, nil }, Gauges: func() Gauges { return Gauges{} },
		Traffic: func() []finding.TrafficRow { return make([]finding.TrafficRow, 1) },
		Sink:    out, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	r.HealthOnce()
	now = now.Add(-time.Hour)
	tot.PacketsSeen = 30 // the source began anew
	r.HealthOnce()
	r.TrafficOnce()
	for _, h := range out.health {
		if h.GetTo().AsTime().Before(h.GetFrom().AsTime()) {
			t.Errorf("backwards: %v", h)
		}
	}
	if out.spans[0][1].Before(out.spans[0][0]) {
		t.Errorf("backwards: %v", out.spans[0])
	}
	if got := out.health[1].GetPacketsSeen(); got != 30 {
		t.Errorf("counter that began anew gives %d, want 30", got)
	}
}

func TestUnreadableCountersGiveNoHealth(t *testing.T) {
	out := &sink{}
	r, err := New(Config{
		Totals: func() (Totals, error) { return Totals{}, errors.New("no") }, Gauges: func() Gauges { return Gauges{} }, Sink: out,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.HealthOnce()
	if len(out.health) != 0 {
		t.Error("a zero stands in for what was not measured")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("missing sources taken")
	}
}
