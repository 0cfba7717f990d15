package rule

import (
	"net/netip"
	"sync"
)

// Event is an anomaly that the decoder, the stream engine or a parser raised, as rules name it:
// "decoder.ipv4.pkt_too_small", "stream.3whs_ack_in_wrong_dir", "http.request_header_invalid".
type Event uint16

var events = struct {
	sync.RWMutex
	ids   map[string]Event
	names []string
}{ids: map[string]Event{}}

// EventID gives the number of an event's name, the same for the life of the process. Parsers call it at start and keep
// the number. Rules may name events that nothing raises: then they never match. At most 65535 names are kept; after that
// 0 is returned, which no rule names.
func EventID(name string) Event {
	events.Lock()
	defer events.Unlock()
	if id, ok := events.ids[name]; ok {
		return id
	}
	if len(events.names) >= 65535 {
		return 0
	}
	events.names = append(events.names, name)
	id := Event(len(events.names))
	events.ids[name] = id
	return id
}

// String is the event's name.
func (e Event) String() string {
	events.RLock()
	defer events.RUnlock()
	if e == 0 || int(e) > len(events.names) {
		return ""
	}
	return events.names[e-1]
}

// FlowState is what rules remember about a flow: flowbits, flowints, flow variables, and whether a pass or drop rule
// settled it. It is a field of the engine's flow; the zero value is a new flow; Reset makes it new again and keeps its
// memory.
type FlowState struct {
	bits    []uint32 // numbers of the names that are set; few, so a linear search
	ints    []flowInt
	vars    []FlowVar
	pktVars []FlowVar  // of the last packet
	credits [2][]*Rule // rules that a packet matched whose bytes the stream has not shown yet
	ipOnly  [2]bool    // rules about addresses alone were judged in this direction
	passed  bool
	dropped bool
	// counted by threshold types that track by flow
	thresholds []flowThreshold
}

type flowInt struct{ id, value uint32 }

type flowThreshold struct {
	rule  uint32
	count uint32
	next  uint32
	start int64
}

// FlowVar is a value that pcre captured into a flow or packet variable (EVE: metadata.flowvars).
type FlowVar struct {
	Name  string
	Value []byte
}

// Passed says whether a pass rule settled the flow.
func (f *FlowState) Passed() bool { return f.passed }

// Dropped says whether a drop or reject rule settled the flow.
func (f *FlowState) Dropped() bool { return f.dropped }

// Bits appends the names of the flowbits that are set to dst (EVE: metadata.flowbits). It returns the extended slice.
func (f *FlowState) Bits(dst []string) []string {
	for _, id := range f.bits {
		dst = append(dst, names.name(id))
	}
	return dst
}

// Vars are the flow's variables; valid until the flow's next Inspect.
func (f *FlowState) Vars() []FlowVar { return f.vars }

// PacketVars are the variables of the last packet that was inspected (EVE: metadata.pktvars); valid until the flow's next
// Inspect.
func (f *FlowState) PacketVars() []FlowVar { return f.pktVars }

// Reset makes it the state of a new flow; memory is kept.
func (f *FlowState) Reset() {
	f.bits = f.bits[:0]
	f.ints = f.ints[:0]
	f.vars = f.vars[:0]
	f.thresholds = f.thresholds[:0]
	f.pktVars = f.pktVars[:0]
	f.ipOnly = [2]bool{}
	f.credits[0], f.credits[1] = f.credits[0][:0], f.credits[1][:0]
	f.passed, f.dropped = false, false
}

// Shared is the state of rules that outlives a Set and is common to all workers: thresholds, xbits and hostbits by
// address, datasets, the numbers of flowbit names. All methods are safe for concurrent use.
type Shared struct {
	thresholds thresholdTable
	bits       bitTable
	datasets   datasetTable
}

// NewShared makes an empty state. maxHosts bounds the entries of each table (0: 65536); the oldest go first.
func NewShared(maxHosts int) *Shared {
	if maxHosts == 0 {
		maxHosts = 65536
	}
	s := &Shared{}
	s.thresholds.init(maxHosts)
	s.bits.init(maxHosts)
	s.datasets.init()
	return s
}

// Reputation holds categories and scores of addresses (iprep).
type Reputation struct {
	Categories map[string]uint8 // name → number
	Score      func(addr netip.Addr, category uint8) (score uint8, ok bool)
}

// interner numbers names for the life of the process.
type interner struct {
	mu  sync.RWMutex
	ids map[string]uint32
	all []string
}

var names = interner{ids: map[string]uint32{}}

func (t *interner) id(name string) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id, ok := t.ids[name]; ok {
		return id
	}
	id := uint32(len(t.all))
	t.all = append(t.all, name)
	t.ids[name] = id
	return id
}

func (t *interner) name(id uint32) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if int(id) >= len(t.all) {
		return ""
	}
	return t.all[id]
}
