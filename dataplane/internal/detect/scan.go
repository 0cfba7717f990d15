package detect

import (
	"cmp"
	"math/bits"
	"net/netip"
)

// ScanConfig sets detector D19 (domain page 3.6: 20 hosts or 30 ports in 60 s).
type ScanConfig struct {
	Enabled       bool
	Hosts         uint32 // distinct destination hosts of one source on one port; 0: 20
	Ports         uint32 // distinct destination ports of one source on one host; 0: 30
	WindowSeconds uint32 // 0: 60
}

func (c ScanConfig) withDefaults() ScanConfig {
	c.Hosts = cmp.Or(c.Hosts, 20)
	c.Ports = cmp.Or(c.Ports, 30)
	c.WindowSeconds = cmp.Or(c.WindowSeconds, 60)
	return c
}

// Limits of the scan detector's memory: sources, and targets remembered per source. A source over the latter is a scanner
// long since.
const (
	maxSources = 1024
	maxTargets = 512
)

// target is one host and port that a source tried.
type target struct {
	addr netip.Addr
	port uint16
	at   int64
}

type source struct {
	addr    netip.Addr
	targets []target // ring, oldest first from pos
	last    int64
	told    int64
}

// Scan is detector D19 of one worker: one source tries many hosts, or many ports of a host, within a window, without being
// answered. Answered connections are forgotten, so a busy client of many servers is no scanner.
type Scan struct {
	sources map[netip.Addr]*source
	free    []*source
	// Forgotten counts sources dropped because the table was full.
	Forgotten uint64
}

// NewScan makes a detector.
func NewScan() *Scan { return &Scan{sources: map[netip.Addr]*source{}} }

// ScanFound is a verdict.
type ScanFound struct {
	Hosts, Ports uint32 // distinct ones in the window; of the two the one over its limit decided
	ByPorts      bool   // many ports of one host; else many hosts
	Host         netip.Addr
}

// Attempt notes that src tried dst:port (a new flow) and says whether that makes src a scanner. Each source is told of once
// a window. now is nanoseconds since the Unix epoch.
func (s *Scan) Attempt(cfg ScanConfig, src, dst netip.Addr, port uint16, now int64) (ScanFound, bool) {
	if !cfg.Enabled || dst.IsMulticast() {
		return ScanFound{}, false
	}
	cfg = cfg.withDefaults()
	window := int64(cfg.WindowSeconds) * 1e9
	e := s.sources[src]
	if e == nil {
		e = s.newSource(src, now)
	}
	e.last = now
	e.expire(now - window)
	for i := range e.targets {
		if e.targets[i].addr == dst && e.targets[i].port == port {
			e.targets[i].at = now
			return ScanFound{}, false
		}
	}
	if len(e.targets) >= maxTargets {
		copy(e.targets, e.targets[1:])
		e.targets = e.targets[:maxTargets-1]
	}
	e.targets = append(e.targets, target{dst, port, now})
	if len(e.targets) < int(min(cfg.Hosts, cfg.Ports)) || (e.told != 0 && now-e.told < window) {
		return ScanFound{}, false
	}
	var ports uint32
	for i := range e.targets {
		if e.targets[i].addr == dst {
			ports++
		}
	}
	hosts := e.distinctHosts()
	found := ScanFound{Hosts: hosts, Ports: ports, Host: dst}
	switch {
	case ports >= cfg.Ports:
		found.ByPorts = true
	case hosts >= cfg.Hosts:
	default:
		return ScanFound{}, false
	}
	e.told = now
	return found, true
}

// Answered takes back an attempt that was answered: it was no probe.
func (s *Scan) Answered(src, dst netip.Addr, port uint16) {
	e := s.sources[src]
	if e == nil {
		return
	}
	for i := range e.targets {
		if e.targets[i].addr == dst && e.targets[i].port == port {
			e.targets = append(e.targets[:i], e.targets[i+1:]...)
			return
		}
	}
}

func (e *source) expire(before int64) {
	w := 0
	for i := range e.targets {
		if e.targets[i].at > before {
			e.targets[w] = e.targets[i]
			w++
		}
	}
	e.targets = e.targets[:w]
}

// distinctHosts counts with a small set on the stack; 512 targets at most.
func (e *source) distinctHosts() uint32 {
	var set [2 * maxTargets]uint16 // index+1 of a target, open addressing
	var n uint32
	for i := range e.targets {
		a := e.targets[i].addr.As16()
		var h uint64 = 0x9e3779b97f4a7c15
		for j := 0; j < 16; j += 8 {
			var v uint64
			for k := range 8 {
				v = v<<8 | uint64(a[j+k])
			}
			h = bits.RotateLeft64(h^v, 29) * 0xbf58476d1ce4e5b9
		}
		for k := h % uint64(len(set)); ; k = (k + 1) % uint64(len(set)) {
			if set[k] == 0 {
				set[k] = uint16(i + 1)
				n++
				break
			}
			if e.targets[set[k]-1].addr == e.targets[i].addr {
				break
			}
		}
	}
	return n
}

func (s *Scan) newSource(a netip.Addr, now int64) *source {
	if len(s.sources) >= maxSources {
		var oldest *source
		for _, e := range s.sources {
			if oldest == nil || e.last < oldest.last {
				oldest = e
			}
		}
		delete(s.sources, oldest.addr)
		s.free = append(s.free, oldest)
		s.Forgotten++
	}
	var e *source
	if n := len(s.free); n > 0 {
		e = s.free[n-1]
		s.free = s.free[:n-1]
		*e = source{targets: e.targets[:0]}
	} else {
		e = &source{}
	}
	e.addr = a
	e.last = now
	s.sources[a] = e
	return e
}

// Expire forgets sources not seen for a window.
func (s *Scan) Expire(cfg ScanConfig, now int64) {
	window := int64(cfg.withDefaults().WindowSeconds) * 1e9
	for a, e := range s.sources {
		if now-e.last > window {
			delete(s.sources, a)
			if len(s.free) < 64 {
				s.free = append(s.free, e)
			}
		}
	}
}
