package detect

import (
	"slices"
	"sync"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
)

// signalLife is how long a signal counts: domain page D30 scores a device over 24 h.
const signalLife = 24 * 3600 * int64(1e9)

// maxHosts and maxSignals bound the verdict's memory.
const (
	maxHosts   = 4096
	maxSignals = 32
)

type signal struct {
	name string
	at   int64
}

type host struct {
	signals []signal
	told    finding.Certainty
	toldAt  int64
	last    int64
}

// Infected gives the verdict that a device is infected (D30 in its first form): one signal is a suspicion, two independent
// ones make it likely. It is shared by all workers and locks: signals are rare.
type Infected struct {
	mu    sync.Mutex
	hosts map[[6]byte]*host
}

// NewInfected makes it.
func NewInfected() *Infected { return &Infected{hosts: map[[6]byte]*host{}} }

// Signal notes a signal of a device, named as in "D12-address" or "alert:2100001". When the device's rung on the ladder rises,
// or a day has passed since it was told, it gives the verdict and all its signals.
// Signals are independent when their names differ.
func (x *Infected) Signal(mac [6]byte, name string, now int64) (c finding.Certainty, signals []string, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hosts[mac]
	if h == nil {
		if len(x.hosts) >= maxHosts {
			x.evict()
		}
		h = &host{}
		x.hosts[mac] = h
	}
	h.last = now
	h.signals = slices.DeleteFunc(h.signals, func(s signal) bool { return now-s.at > signalLife })
	if len(h.signals) == 0 {
		h.told = 0
	}
	known := false
	for i := range h.signals {
		if h.signals[i].name == name {
			h.signals[i].at = max(h.signals[i].at, now)
			known = true
		}
	}
	if !known && len(h.signals) < maxSignals {
		h.signals = append(h.signals, signal{name, now})
	}
	c = finding.Suspected
	if len(h.signals) >= 2 {
		c = finding.Likely
	}
	if c <= h.told && now-h.toldAt < signalLife {
		return 0, nil, false
	}
	h.told, h.toldAt = c, now
	for i := range h.signals {
		signals = append(signals, h.signals[i].name)
	}
	slices.Sort(signals)
	return c, signals, true
}

func (x *Infected) evict() {
	var oldest [6]byte
	var at int64
	found := false
	for mac, h := range x.hosts {
		if !found || h.last < at {
			oldest, at, found = mac, h.last, true
		}
	}
	delete(x.hosts, oldest)
}
