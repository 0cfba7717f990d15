package engine

import (
	"sync"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
)

// foldWindow is how long repeated detections of one device and indicator are told as one.
const foldWindow = 60 * int64(1e9)

// maxFolds bounds the memory; when full the oldest is told and forgotten.
const maxFolds = 2048

type foldKey struct {
	detector, indicator, list string
	mac                       [6]byte
	action                    finding.Action
}

type fold struct {
	first int64
	more  uint32
	last  finding.Detection
}

// folder tells a detection at once and its repetitions within a minute as a second one with their count. A client that
// cannot reach its command server tries every few seconds; the operator needs the number, not the lines.
type folder struct {
	mu    sync.Mutex
	sink  finding.Sink
	folds map[foldKey]*fold
}

func newFolder(sink finding.Sink) *folder { return &folder{sink: sink, folds: map[foldKey]*fold{}} }

// detection tells d, or folds it.
func (f *folder) detection(d *finding.Detection) {
	k := foldKey{d.Detector, d.Indicator, d.List, d.Device.MAC, d.Action}
	f.mu.Lock()
	if x := f.folds[k]; x != nil && d.Packet.Time-x.first < foldWindow && d.Packet.Time >= x.first {
		x.more += max(d.Count, 1)
		x.last = *d
		f.mu.Unlock()
		return
	}
	out := f.closeLocked(k)
	if len(f.folds) >= maxFolds {
		var oldest foldKey
		var at int64
		for k, x := range f.folds {
			if at == 0 || x.first < at {
				oldest, at = k, x.first
			}
		}
		if x := f.closeLocked(oldest); x != nil {
			f.sink.Detection(x)
		}
	}
	f.folds[k] = &fold{first: d.Packet.Time}
	f.mu.Unlock()
	if out != nil {
		f.sink.Detection(out)
	}
	f.sink.Detection(d)
}

func (f *folder) closeLocked(k foldKey) *finding.Detection {
	x := f.folds[k]
	if x == nil {
		return nil
	}
	delete(f.folds, k)
	if x.more == 0 {
		return nil
	}
	d := x.last
	d.Count = x.more
	return &d
}

// expire tells what was folded longer ago than the window.
func (f *folder) expire(now int64) {
	f.mu.Lock()
	var out []*finding.Detection
	for k, x := range f.folds {
		if now-x.first >= foldWindow {
			if d := f.closeLocked(k); d != nil {
				out = append(out, d)
			}
		}
	}
	f.mu.Unlock()
	for _, d := range out {
		f.sink.Detection(d)
	}
}

func (f *folder) flush() { f.expire(1<<63 - 1) }
