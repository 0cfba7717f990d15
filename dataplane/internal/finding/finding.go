// Package finding holds what the engine states about traffic: plain values that package eve prints and package event turns
// into events. It imports nothing of ours but wire. The trap: slices and strings of a value given to a Sink may point into
// engine buffers; a Sink that keeps them must copy.
package finding

import (
	"net/netip"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// Severity is how bad a thing is; the numbers are those of event/v1.
type Severity uint8

// The severities, in rising order.
const (
	Info Severity = iota + 1
	Low
	Medium
	High
	Critical
)

// Action is what became of the traffic; the numbers are those of event/v1.
type Action uint8

const (
	// Passed means told of and let through.
	Passed Action = iota + 1
	// Blocked means stopped before it was forwarded.
	Blocked
)

// Category is the row of the report; the numbers are those of event/v1.
type Category uint8

// The categories.
const (
	Bot Category = iota + 1
	Malware
	Intrusion
	BadSite
	Scan
	Policy
	Other
)

// Certainty is the rung of the report's ladder; the numbers are those of event/v1.
type Certainty uint8

// The rungs: one signal, two or more independent signals, a fact on the wire.
const (
	Suspected Certainty = iota + 1
	Likely
	Confirmed
)

// Direction of a packet as seen from the clinic; the numbers are those of event/v1.
type Direction uint8

// The directions.
const (
	Outbound Direction = iota + 1
	Inbound
	Internal
)

// Packet is the packet that decided.
type Packet struct {
	Time      int64  // nanoseconds since the Unix epoch
	PcapCount uint64 // number in the capture file, from 1; 0 on the wire
	Src, Dst  netip.Addr
	SrcPort   uint16 // ICMP: type
	DstPort   uint16 // ICMP: code
	Proto     uint8
	VLAN      [2]uint16
	SrcMAC    [6]byte
	DstMAC    [6]byte
	Port      wire.Port
	Direction Direction
	FlowID    uint64
	// ToServer: from the flow's originator.
	ToServer bool
	AppOrig  string // before an upgrade (CONNECT, STARTTLS, h2c); "" none
	App      string // application protocol in Suricata's words: http, dns, tls, ...; "" unknown
}

// Device is the inside device a finding is about.
type Device struct {
	MAC       [6]byte
	IP        netip.Addr
	Zone      string
	Hostname  string
	Anonymous bool // of a zone whose devices are never named
	Known     bool
}

// Alert is a signature match.
type Alert struct {
	Packet    Packet
	Device    Device
	GID, SID  uint32
	Rev       uint32
	Msg       string
	Classtype string // short name
	ClassDesc string // description of classification.config
	Priority  uint32
	Severity  Severity
	Category  Category
	Action    Action
	// Verdict is what became of the packet by all its rules: "alert", "drop" or "pass"; "" unknown.
	Verdict string
	// Raw is given to sinks of the offline tool only; nil on the wire: payload never leaves a clinic.
	Raw       *Raw
	Metadata  []KeyValue
	Indicator string // host name the match was about; "" none
	// Tx is the transaction the match was about, for EVE's http/dns/tls objects; nil when none.
	Tx Transaction
	// Flow counters at the time of the alert.
	Counts Counts
}

// Raw is what the offline tool prints beside an alert or a flow's end.
type Raw struct {
	Frame    []byte
	Link     uint16 // LINKTYPE_ number
	Payload  []byte // what the rule looked at: the packet's payload or the stream's bytes
	Stream   bool   // Payload is the stream's
	Pseudo   bool   // the packet was made up at the flow's end
	FlowBits []string
	FlowVars []KeyValue
}

// KeyValue is one entry of a rule's metadata.
type KeyValue struct{ Key, Value string }

// Counts are a flow's packets and bytes by direction.
type Counts struct {
	PacketsToServer, PacketsToClient uint64
	BytesToServer, BytesToClient     uint64
	Start                            int64 // nanoseconds since the Unix epoch
}

// Detection is a behaviour or a contact with a listed indicator.
type Detection struct {
	Packet    Packet
	Device    Device
	Detector  string // "D12-address", "D12-domain", "D19", "infected-host"
	Severity  Severity
	Category  Category
	Action    Action
	Certainty Certainty
	Indicator string
	List      string
	Signals   []string // infected-host: the independent signals
	Count     uint32
}

// Transaction is one exchange of an application protocol. The concrete types live in the parsers' packages; each knows its
// EVE name and writes its own EVE object.
type Transaction interface {
	// EVEType is EVE's event_type: "dns", "http", "tls", ...
	EVEType() string
	// AppendEVE appends the JSON object of EVE's field of that name to dst. It returns the extended slice.
	AppendEVE(dst []byte) []byte
}

// FlowEnd is a flow's last word.
type FlowEnd struct {
	Packet Packet // the originator's view: Src is the client
	Device Device
	Counts Counts
	Last   int64  // nanoseconds since the Unix epoch
	Reason string // "timeout", "finished", "forced", "shutdown"
	State  string // "new", "established", "closed", "bypassed"
	// Application is the name in the vocabulary, e.g. "line", "orca", "https"; "unknown" is a value of its own.
	Application string
	// Visibility is "clear", "name" or "opaque".
	Visibility string
	Alerted    bool
	Raw        *Raw   // flow bits and variables, for the offline tool
	Action     string // "drop" or "pass" when a rule settled the flow; "" otherwise
}

// DeviceSeen tells of a new device or of a change.
type DeviceSeen struct {
	Device      Device
	First, Last int64
	Source      string // "arp", "dhcp", "nd"
	VendorClass string
}

// TrafficRow is a count of bytes since the last row of the same key.
type TrafficRow struct {
	Application       string
	Device            Device
	BytesIn, BytesOut uint64 // towards the clinic, towards the world
	Packets, Flows    uint64
	Visibility        string
}

// Sink receives what the engine states, on the packet loop: an implementation must hand over fast and never block; what it
// cannot take it counts.
type Sink interface {
	Alert(*Alert)
	Detection(*Detection)
	// Transaction is called for each finished transaction; only EVE wants it.
	Transaction(*Packet, Transaction)
	FlowEnd(*FlowEnd)
	DeviceSeen(*DeviceSeen)
}
