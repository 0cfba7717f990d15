package rule

import (
	"io"
	"net/netip"
)

// Action is what a rule wants done.
type Action uint8

// The actions. Rules are judged in the order pass, drop, reject, alert.
const (
	Alert Action = iota
	Pass
	Drop
	Reject     // resets or answers the sender of the packet
	RejectDst  // the receiver
	RejectBoth // both
)

// Stops says whether the action ends the packet and, for rules on a flow, the flow.
func (a Action) Stops() bool { return a >= Drop }

// Class is a line of classification.config.
type Class struct {
	Name     string // short name: "trojan-activity"
	Desc     string // "A Network Trojan was detected"
	Priority uint32 // 1 is the most serious
}

// Reference is where an analyst reads on.
type Reference struct{ Type, Value string }

// Metadata is one key and value of the metadata keyword.
type Metadata struct{ Key, Value string }

// Rule is a rule that was read, and after Compile can be matched. Its exported fields are never written after Parse.
type Rule struct {
	Action    Action
	GID       uint32 // 1 unless the rule says otherwise
	SID       uint32
	Rev       uint32
	Msg       string
	Classtype string // short name, "" when none
	ClassDesc string // description from classification.config, "" when unknown
	Priority  uint32 // 1..255; of the class unless the rule says otherwise; 3 when neither does
	Metadata  []Metadata
	Refs      []Reference
	Target    Target // who is the victim, by the target keyword
	NoAlert   bool   // noalert or flowbits:noalert
	File      string // where it was read
	Line      int    // from 1
	Text      string // the rule's text, one line

	ast
}

// Target is the side the rule says is attacked.
type Target uint8

// The sides.
const (
	TargetNone Target = iota
	TargetSrc
	TargetDst
)

// Error is a rule, or a line, that was refused.
type Error struct {
	File    string
	Line    int // from 1
	Column  int // from 1; 0 when the whole rule is meant
	SID     uint32
	Keyword string // the keyword that is at fault, "" for the header
	Reason  string
	// Unsupported is true when the rule is right but this engine can't honour it, false when it is wrong.
	Unsupported bool
}

// ParseOptions are the reader's settings.
type ParseOptions struct {
	// Classes by short name; nil means that every classtype is taken with priority 3.
	Classes map[string]Class
	// Disabled, when not nil, is increased by the number of rules found commented out.
	Disabled *int
	// Dir is where relative file names of dataset and the like are looked for; "" is the current directory.
	Dir string
}

// CompileOptions are the compiler's settings.
type CompileOptions struct {
	// Vars are address and port variables by name without the $: "HOME_NET": "[10.0.0.0/8,192.168.0.0/16]". Names that
	// DefaultVars has and Vars lacks are taken from there.
	Vars map[string]string
	// CacheDir keeps compiled pattern databases by digest; "" keeps none.
	CacheDir string
	// Shared is the state that outlives a Set: thresholds, xbits, hostbits, datasets. nil makes a new one.
	Shared *Shared
	// Thresholds is the content of a threshold.config; nil when none.
	Thresholds io.Reader
	// Reputation is the address reputation for iprep; nil when none.
	Reputation *Reputation
	// Workers bounds the goroutines that compile databases; 0 is GOMAXPROCS.
	Workers int
	// Geo looks up the country (ISO 3166 two letters) of an address for geoip; nil refuses rules with geoip.
	Geo func(netip.Addr) string
	// IPS is true when drop rules can stop packets; without it a drop rule alerts only.
	IPS bool
}

// Packet is what the engine knows of the packet at hand. The engine reuses one value; slices point into its buffers.
// Addresses are never v4-mapped: IPv4 has Is4.
type Packet struct {
	Time     int64 // nanoseconds since the Unix epoch
	Src, Dst netip.Addr
	SrcPort  uint16
	DstPort  uint16
	Proto    uint8 // IANA number of the transport; 0 for a frame that is not IP
	Version  uint8 // 4, 6, or 0 for a frame that is not IP
	// ToServer is true for packets from the flow's originator; without a flow it is true.
	ToServer bool
	// HasFlow, Established: the flow's state after this packet. Established means both directions seen (UDP) or the
	// handshake done (TCP; with midstream pick-up: taken as done).
	HasFlow     bool
	Established bool
	// Pseudo is true for a packet that the engine made up at the end of a flow so that the rest is inspected.
	Pseudo bool
	// Reassembled is true for a packet rebuilt from IP fragments; Fragment for one that is a fragment itself.
	Reassembled bool
	Fragment    bool
	// NoPayloadRules is true when the data is a retransmission or out of window: only rules that are about packets by
	// their header or keywords look at Payload then.
	NoPayloadRules bool
	// StreamAdded is true when the payload, or a part of it, went into the reassembly: then rules without dsize, depth
	// or offset look at the stream only.
	StreamAdded bool

	EtherType uint16
	VLAN      [2]uint16 // outermost first
	VLANs     uint8     // how many tags

	TTL      uint8 // hop limit in IPv6
	TOS      uint8 // whole byte: DSCP and ECN
	IPID     uint32
	FragBits FragBits
	FragOff  uint16 // in bytes
	IPOpts   IPOpts

	TCPFlags  uint8 // FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128
	TCPSeq    uint32
	TCPAck    uint32
	TCPWindow uint16
	TCPMSS    uint16 // 0 when the option is absent
	TCPWScale int8   // -1 when the option is absent
	ICMPType  uint8
	ICMPCode  uint8
	ICMPID    uint16
	ICMPSeq   uint16
	HasICMPID bool // the type has an id and a sequence number

	// Sums that were checked and found right or wrong; not set when not checked or not applicable.
	SumsGood, SumsBad Sums

	EtherHeader []byte
	IPHeader    []byte // with options / extension headers
	L4Header    []byte // TCP with options, UDP, ICMP
	Payload     []byte // of the transport; for a protocol the engine doesn't decode: of IP

	// StreamBytes is how many bytes of sequence space each side has sent: [0] client, [1] server (stream_size).
	StreamBytes [2]uint32

	// Counts of the flow up to and with this packet: [0] to the server, [1] to the client.
	FlowPackets, FlowBytes [2]uint64
	FlowStart              int64 // nanoseconds since the Unix epoch

	// App is the flow's protocol as known now; AppUnknown while it is looked for, AppFailed when it was given up.
	// AppToServer and AppToClient are what each direction alone looks like, AppOrig what it was before an upgrade
	// (STARTTLS, HTTP CONNECT).
	App                               App
	AppToServer, AppToClient, AppOrig App
	// AppChanged is true on the first packet after App became known or changed.
	AppChanged bool

	// Events of the decoder and of the stream engine at this packet, from EventID.
	Events []Event
	// Tunnel is the depth of encapsulation, 0 for none.
	Tunnel uint8
}

// FragBits are the IPv4 flags.
type FragBits uint8

// The flags.
const (
	MoreFragments FragBits = 1 << iota
	DontFragment
	ReservedBit
)

// IPOpts are the IPv4 options (and, where they exist, the IPv6 ones) a packet carries.
type IPOpts uint16

// The options, as the ipopts keyword names them.
const (
	OptRR IPOpts = 1 << iota
	OptEOL
	OptNOP
	OptTS
	OptSec
	OptESec
	OptLSRR
	OptSSRR
	OptSatID
	OptAny // any option at all
)

// Sums are checksums, by layer.
type Sums uint8

// The checksums.
const (
	SumIPv4 Sums = 1 << iota
	SumTCPv4
	SumTCPv6
	SumUDPv4
	SumUDPv6
	SumICMPv4
	SumICMPv6
)

// State says how far a buffer or number of a transaction is.
type State uint8

// The states. A buffer goes NotYet → Partial → Done, or → Absent.
const (
	// NotYet: nothing there, may come.
	NotYet State = iota
	// Partial: Data is there and may grow (a body, a file).
	Partial
	// Done: Data is whole (as far as the engine's limits go).
	Done
	// Absent: this transaction has none, or no instance of that number, and never will.
	Absent
)

// Value is one instance of a buffer.
type Value struct {
	// Data may point into the parser's memory; it must stay unchanged until Inspect returns.
	Data []byte
	// Offset is the position of Data[0] in the whole buffer: not 0 when a window slides over a long body.
	Offset uint64
	State  State
}

// Transaction is one exchange of an application protocol as the rules see it. The parsers' transaction types implement it.
// n counts instances from 0 (dns.query 0, 1, ...; for file.* it is the number of the file in that direction); single
// buffers have the instance 0 only. The Matcher asks for n = 0, 1, 2 ... until the State is NotYet or Absent.
type Transaction interface {
	// App is the protocol, e.g. AppHTTP1.
	App() App
	// Buffer gives the n-th instance of b in the direction toServer. An unknown b is Absent.
	Buffer(b Buffer, toServer bool, n int) Value
	// Number gives the n-th instance of an integer keyword's value. An unknown one is Absent.
	Number(k Number, toServer bool, n int) (uint64, State)
	// Complete is true when the direction will not change any more.
	Complete(toServer bool) bool
	// Rules is where the Matcher keeps what it knows about this transaction. It is a field of the transaction, zero at
	// the start, and may be reset with Reset and reused.
	Rules() *TxState
}

// EventTransaction is implemented by transactions whose parser raises events (app-layer-event).
type EventTransaction interface {
	Transaction
	// Events are those raised so far, from EventID("http.…").
	Events() []Event
}

// DCEInterface is one interface bound in a DCE/RPC conversation.
type DCEInterface struct {
	UUID         [16]byte // in the order of its text form
	Major, Minor uint16
	Accepted     bool
	ContextID    uint16
}

// DCETransaction is implemented by transactions that carry DCE/RPC requests (over SMB, TCP, UDP), for dcerpc.iface.
type DCETransaction interface {
	Transaction
	// DCEInterfaces are the interfaces that the transaction's request may go to; firstFrag is true when the request's
	// PDU carries the first-fragment flag.
	DCEInterfaces() (ifaces []DCEInterface, firstFrag bool)
	// LittleEndian is the data representation of the stub data (byte_test's dce).
	LittleEndian() bool
}

// Input is everything known at one packet, in the packet's direction.
type Input struct {
	Packet *Packet
	// Flow is the rules' part of the flow; nil for packets without one.
	Flow *FlowState
	// Stream is the reassembled TCP data of the packet's direction that is to be inspected now: the new bytes, preceded
	// by bytes already seen (as many as the engine keeps, so that a pattern over the seam is found; 2 kB is good). nil
	// when nothing new. Gaps end a chunk. For UDP leave it nil.
	Stream []byte
	// StreamOffset is the position of Stream[0] in the direction's stream; StreamNew is how many bytes at the end of
	// Stream were never given before. StreamStart is true when Stream begins at the stream's first byte, StreamEnd when
	// no byte follows (FIN, reset, depth reached).
	StreamOffset uint64
	StreamNew    int
	StreamStart  bool
	StreamEnd    bool
	// Txs are the transactions that may have moved on, in order. Those whose direction is Complete and were given once
	// after that need not be given again.
	Txs []Transaction
}

// Kind is what a match rests on.
type Kind uint8

// The kinds.
const (
	ByPacket Kind = iota
	ByStream
	ByTx
)

// Match is one rule that matched.
type Match struct {
	Rule *Rule
	// Action is the rule's, or what rate_filter made of it. Whether anything is stopped says Result.
	Action Action
	// Tx is the transaction it is about, nil for ByPacket and ByStream. TxIndex is its place in Input.Txs.
	Tx      Transaction
	TxIndex int
	Kind    Kind
	// RateFiltered: Action is not the rule's but that of a rate_filter.
	RateFiltered bool
	// Alert is false when nothing should be told: noalert, a threshold, suppress, or a pass rule. The action counts.
	Alert bool
	// Indicator is the text the fast pattern's buffer held when it names something (host, SNI, query); nil otherwise.
	Indicator []byte
}

// Result is the answer for one packet.
type Result struct {
	// Matches in the order of judgement. Valid until the next Inspect.
	Matches []Match
	// Pass: a pass rule matched; no drop or reject rule counts for this packet. Drop: stop this packet. Reject says whom to tell. DropFlow and
	// PassFlow: the same for all further packets of the flow; the FlowState remembers it too.
	Pass, Drop         bool
	PassFlow, DropFlow bool
	Reject             Action // Reject, RejectDst, RejectBoth, or Alert for none
	// Bypass: a rule asked that the flow be inspected no more (bypass keyword).
	Bypass bool
	// KeepFiles: filestore matched.
	KeepFiles bool
}
