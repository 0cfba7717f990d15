package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Channel is where PostgreSQL tells that clinics have new rows; the payload is {"clinics":[1,2]}.
const Channel = "kadomori_event"

const (
	// notifyEvery bounds the notifications to four a second.
	notifyEvery = 250 * time.Millisecond
	// notifyClinics of one notification: a payload has at most 8000 bytes.
	notifyClinics = 600
)

// notifier gathers clinics that have new rows and tells them together.
type notifier struct {
	mu      sync.Mutex
	clinics map[int32]bool // bounded by the clinics that exist
}

func newNotifier() *notifier { return &notifier{clinics: map[int32]bool{}} }

func (n *notifier) add(clinics map[int32]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range clinics {
		n.clinics[c] = true
	}
}

func (n *notifier) take() []int32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []int32
	for c := range n.clinics {
		if len(out) == notifyClinics {
			break
		}
		out = append(out, c)
		delete(n.clinics, c)
	}
	slices.Sort(out)
	return out
}

func (n *notifier) run(ctx context.Context, in *Ingest) error {
	tick := time.NewTicker(notifyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		clinics := n.take()
		if len(clinics) == 0 {
			continue
		}
		if err := in.tell(ctx, clinics); err != nil && ctx.Err() == nil {
			in.log.Warn("notify", "err", err)
			again := map[int32]bool{}
			for _, c := range clinics {
				again[c] = true
			}
			n.add(again)
		}
	}
}

func (in *Ingest) tell(ctx context.Context, clinics []int32) error {
	payload, err := json.Marshal(struct {
		Clinics []int32 `json:"clinics"`
	}{clinics})
	if err != nil {
		return fmt.Errorf("write payload: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = in.cfg.DB.Ingest.Exec(ctx, "SELECT pg_notify($1, $2)", Channel, string(payload))
	return err
}
