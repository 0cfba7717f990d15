package rule

import (
	"net/netip"
	"sync"
)

// limitAnswer is what a threshold says of a match.
type limitAnswer uint8

const (
	limitTell    limitAnswer = iota // tell and act
	limitQuiet                      // act, don't tell
	limitNothing                    // as if it had not matched
)

// limitState is a threshold of a rule with its number in the shared table.
type limitState struct {
	id   uint32
	spec limitSpec
}

// hostKey names whose count or bit an entry is.
type hostKey struct {
	id   uint32
	a, b netip.Addr
}

func trackKey(id uint32, t tracking, p *Packet) hostKey {
	k := hostKey{id: id}
	switch t {
	case trackSrc:
		k.a = p.Src
	case trackDst:
		k.a = p.Dst
	case trackPair:
		k.a, k.b = p.Src, p.Dst
		if k.b.Less(k.a) {
			k.a, k.b = k.b, k.a
		}
	case trackRule, trackFlow, trackTx:
	}
	return k
}

// limitEntry is one count.
type limitEntry struct {
	count uint32
	next  uint32 // backoff: the count of the next telling
	start int64
	until int64     // rate_filter: new action holds until then
	ports [2]uint64 // distinct ports, by hash
	extra map[uint16]struct{}
}

// thresholdTable counts matches for thresholds.
type thresholdTable struct {
	mu      sync.Mutex
	ids     map[[3]uint32]uint32
	entries map[hostKey]*limitEntry
	limit   int
}

func (t *thresholdTable) init(limit int) {
	t.ids = map[[3]uint32]uint32{}
	t.entries = map[hostKey]*limitEntry{}
	t.limit = limit
}

// state numbers a rule's threshold; the same rule in a later set gets the same number and so keeps its counts.
func (t *thresholdTable) state(r *Rule, l *limitSpec) *limitState {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := [3]uint32{r.GID, r.SID, uint32(l.kind)}
	id, ok := t.ids[k]
	if !ok {
		id = uint32(len(t.ids) + 1)
		t.ids[k] = id
	}
	return &limitState{id: id, spec: *l}
}

// entry finds or makes a count; the caller holds the lock.
func (t *thresholdTable) entry(k hostKey, now, window int64) *limitEntry {
	e := t.entries[k]
	if e == nil {
		if len(t.entries) >= t.limit {
			t.shrink(now, window)
		}
		e = &limitEntry{}
		t.entries[k] = e
	}
	return e
}

// shrink makes room: what is over first, then whatever comes.
func (t *thresholdTable) shrink(now, window int64) {
	for k, e := range t.entries {
		if now-e.start > window && e.until < now {
			delete(t.entries, k)
		}
	}
	for k := range t.entries {
		if len(t.entries) < t.limit {
			return
		}
		delete(t.entries, k)
	}
}

// judge counts a match and says what comes of it.
func (t *thresholdTable) judge(l *limitState, p *Packet, f *FlowState) limitAnswer {
	s := &l.spec
	now := p.Time
	if s.track == trackFlow {
		if f == nil {
			return limitTell
		}
		for i := range f.thresholds {
			if f.thresholds[i].rule == l.id {
				e := &f.thresholds[i]
				le := limitEntry{count: e.count, start: e.start, next: e.next}
				a := s.count1(&le, now, p)
				e.count, e.start, e.next = le.count, le.start, le.next
				return a
			}
		}
		var le limitEntry
		a := s.count1(&le, now, p)
		if len(f.thresholds) < maxFlowBits {
			f.thresholds = append(f.thresholds, flowThreshold{rule: l.id, count: le.count, start: le.start, next: le.next})
		}
		return a
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.count1(t.entry(trackKey(l.id, s.track, p), now, s.window), now, p)
}

// count1 adds one match to e.
func (s *limitSpec) count1(e *limitEntry, now int64, p *Packet) limitAnswer {
	if s.kind == limitBackoff {
		if e.next == 0 {
			e.next = s.count
		}
		e.count++
		if e.count == e.next {
			if e.next <= 1<<31/s.multiplier {
				e.next *= s.multiplier
			}
			return limitTell
		}
		return limitQuiet
	}
	if e.count == 0 || now-e.start > s.window || now < e.start {
		e.count, e.start = 0, now
		e.ports = [2]uint64{}
		e.extra = nil
	}
	if s.unique != 0 {
		port := p.SrcPort
		if s.unique == 'd' {
			port = p.DstPort
		}
		if _, seen := e.extra[port]; !seen && len(e.extra) < 4096 {
			if e.extra == nil {
				e.extra = map[uint16]struct{}{}
			}
			e.extra[port] = struct{}{}
			e.count++
		}
	} else if e.count < 1<<31 {
		e.count++
	}
	switch s.kind {
	case limitLimit:
		if e.count <= s.count {
			return limitTell
		}
		return limitQuiet
	case limitThreshold:
		if e.count >= s.count {
			e.count = 0
			return limitTell
		}
		return limitNothing
	case limitBoth:
		switch {
		case e.count == s.count:
			return limitTell
		case e.count > s.count:
			return limitQuiet
		}
		return limitNothing
	case limitFilter:
		if e.count > s.count {
			return limitTell
		}
		return limitNothing
	case limitBackoff:
	}
	return limitTell
}

// bitTable keeps xbits and hostbits.
type bitTable struct {
	mu    sync.Mutex
	until map[hostKey]int64
	limit int
}

func (t *bitTable) init(limit int) {
	t.until = map[hostKey]int64{}
	t.limit = limit
}

func (t *bitTable) has(o *bitOp, p *Packet) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range o.ids {
		if end, ok := t.until[trackKey(id, o.track, p)]; ok && p.Time <= end {
			return true
		}
	}
	return false
}

func (t *bitTable) change(o *bitOp, p *Packet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range o.ids {
		k := trackKey(id, o.track, p)
		end, ok := t.until[k]
		ok = ok && p.Time <= end
		if o.op == 'u' || o.op == 't' && ok {
			delete(t.until, k)
			continue
		}
		if len(t.until) >= t.limit {
			for k, end := range t.until {
				if end < p.Time {
					delete(t.until, k)
				}
			}
			for k := range t.until {
				if len(t.until) < t.limit {
					break
				}
				delete(t.until, k)
			}
		}
		t.until[k] = p.Time + o.expire
	}
}
