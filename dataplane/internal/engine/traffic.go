package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/appid"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
)

// rowKey names a traffic row.
type rowKey struct {
	app     appid.ID
	visible appid.Visibility
	known   bool
	mac     [6]byte
	zone    int16
}

// maxRows bounds a table; what comes after it is counted as unknown of no device.
const maxRows = 16384

// trafficTable adds up bytes. A worker's own is used without the lock and swapped whole; the engine's is shared.
type trafficTable struct {
	mu      sync.Mutex
	rows    map[rowKey]*finding.TrafficRow
	visible [appid.VisibilityCount]atomic.Uint64
}

func newTrafficTable() *trafficTable { return &trafficTable{rows: map[rowKey]*finding.TrafficRow{}} }

func (t *trafficTable) row(k rowKey, name string, dev *finding.Device) *finding.TrafficRow {
	r := t.rows[k]
	if r != nil {
		return r
	}
	if len(t.rows) >= maxRows {
		k = rowKey{}
		if r = t.rows[k]; r != nil {
			return r
		}
		name = "unknown"
		dev = &finding.Device{}
	}
	r = &finding.TrafficRow{Application: name, Device: *dev, Visibility: k.visible.String()}
	t.rows[k] = r
	return r
}

// add counts under the lock.
func (t *trafficTable) add(k rowKey, name string, dev *finding.Device, in, out, packets uint64) {
	t.mu.Lock()
	r := t.row(k, name, dev)
	r.BytesIn += in
	r.BytesOut += out
	r.Packets += packets
	t.mu.Unlock()
	t.visible[k.visible].Add(in + out)
}

func (t *trafficTable) take() []finding.TrafficRow {
	t.mu.Lock()
	old := t.rows
	t.rows = map[rowKey]*finding.TrafficRow{}
	t.mu.Unlock()
	return collect(nil, old)
}

func collect(out []finding.TrafficRow, rows map[rowKey]*finding.TrafficRow) []finding.TrafficRow {
	for _, r := range rows {
		if r.Packets > 0 || r.Flows > 0 || r.BytesIn+r.BytesOut > 0 {
			out = append(out, *r)
		}
	}
	return out
}

// takeTimeout bounds how long TakeTraffic waits for a busy worker; its rows then come with the next call.
const takeTimeout = 200 * time.Millisecond

// TakeTraffic gives the rows since the last call. Their sums equal what the workers saw and the wire told of. It waits for
// each worker's next tick, at most 200 ms; what a worker could not give comes with the next call.
func (e *Engine) TakeTraffic() []finding.TrafficRow {
	out := e.traffic.take()
	e.mu.Lock()
	workers := append([]*Worker(nil), e.workers...)
	e.mu.Unlock()
	deadline := time.NewTimer(takeTimeout)
	defer deadline.Stop()
	for _, w := range workers {
		if w.done.Load() {
			out = collect(out, w.takeRows())
			continue
		}
		w.wantRows.Store(true)
	}
	expired := false
	for _, w := range workers {
		if w.done.Load() && len(w.rowsOut) == 0 {
			continue
		}
		if expired {
			select {
			case rows := <-w.rowsOut:
				out = collect(out, rows)
			default:
			}
			continue
		}
		select {
		case rows := <-w.rowsOut:
			out = collect(out, rows)
		case <-deadline.C:
			expired = true
		}
	}
	return merge(out)
}

// merge adds rows of the same key from several workers.
func merge(rows []finding.TrafficRow) []finding.TrafficRow {
	type key struct {
		app, vis, zone string
		mac            [6]byte
		known          bool
	}
	seen := make(map[key]int, len(rows))
	out := rows[:0]
	for i := range rows {
		r := rows[i]
		k := key{r.Application, r.Visibility, r.Device.Zone, r.Device.MAC, r.Device.Known}
		if j, ok := seen[k]; ok {
			out[j].BytesIn += r.BytesIn
			out[j].BytesOut += r.BytesOut
			out[j].Packets += r.Packets
			out[j].Flows += r.Flows
			continue
		}
		seen[k] = len(out)
		out = append(out, r)
	}
	return out
}
