// Package wire says what a source of packets is: the contract between the wire (XDP and AF_XDP inline, a mirror port,
// a capture file) and the engine that judges packets. The trap: a Handler runs on the packet loop of one queue; it must
// not block, allocate per packet, or keep the frame after it returns.
package wire

import (
	"context"
	"net/netip"
)

// Port is the side of the appliance a packet came in at.
type Port uint8

const (
	// LAN is the port towards the clinic's devices.
	LAN Port = 0
	// WAN is the port towards the Internet.
	WAN Port = 1
)

// Verdict says what becomes of one packet.
type Verdict uint8

const (
	// Forward sends the packet on, out of the other port.
	Forward Verdict = iota
	// Drop stops it.
	Drop
)

// FlowVerdict says what the wire should do with all further packets of the flow, without asking again.
type FlowVerdict uint8

const (
	// Undecided keeps asking the Handler.
	Undecided FlowVerdict = iota
	// Cut forwards at kernel speed what was seen enough of; it is still counted.
	Cut
	// DropFlow stops all further packets of the flow.
	DropFlow
)

// FlowKey names a flow the same way for both directions: A is the lower endpoint (address bytes, then port).
type FlowKey struct {
	A, B         netip.Addr // 16-byte form; IPv4 is v4-mapped
	APort, BPort uint16     // 0 for protocols without ports
	VLAN         [2]uint16  // outermost first, 0 when none
	Proto        uint8      // IANA protocol number
}

// Decision is a Handler's answer for one packet.
type Decision struct {
	Verdict Verdict
	// Flow is applied to Key when it isn't Undecided. The wire installs Cut only when nothing of the flow is in flight.
	Flow FlowVerdict
	Key  FlowKey
	// Replies are frames to send: Back out of the port the packet came in at, Onward out of the other one. They are valid
	// until the next call of the Handler.
	Back, Onward [][]byte
}

// Handler judges packets. One Handler serves one queue; all its calls come from one goroutine.
type Handler interface {
	// Handle judges one frame (Ethernet, whole). now is the capture time in nanoseconds since the Unix epoch.
	Handle(frame []byte, port Port, now int64) Decision
	// Tick is called about every 10 ms, also without traffic, so that time-outs can run.
	Tick(now int64)
}

// FlowRecord is the final or interim count of a flow that the wire forwarded or dropped by its own table: traffic that the
// Handler did not see. Counts are differences since the last record of the same flow.
type FlowRecord struct {
	Key            FlowKey
	Verdict        FlowVerdict
	Packets, Bytes [2]uint64 // [0] from A to B, [1] from B to A
	LastSeen       int64     // nanoseconds since the Unix epoch
	Ended          bool      // FIN/RST, idle or evicted
}

// DropReason says which step of the wire stopped a packet. The numbers are those of bpf/include/types.h.
type DropReason uint8

// DropSample is one packet that the wire stopped without asking the Handler.
type DropSample struct {
	Reason   DropReason
	ListID   uint32 // id given with the block set; 0 when none
	Port     Port
	Src, Dst netip.AddrPort
	Proto    uint8
	VLAN     [2]uint16
	SrcMAC   [6]byte
	DstMAC   [6]byte
	Bytes    uint32
	Time     int64 // nanoseconds since the Unix epoch
	// Packets is how many packets the sample stands for: itself and those of the same key that the rate limit left out.
	Packets uint32
}

// Source delivers packets to Handlers until its context ends or, for a file, until its end.
type Source interface {
	// Run blocks. newHandler is called once per queue before its first packet.
	Run(ctx context.Context, newHandler func(queue int) Handler) error
}
