package wire

// The reasons of the wire's own drops; enum reason of bpf/include/types.h.
const (
	DropNone               DropReason = iota
	DropFlowVerdict                   // the flow's verdict, given by the Handler
	DropBlockedSource                 // the source is in a block set
	DropBlockedDestination            // the destination is in a block set
	DropQuarantine                    // the inside host is cut off
	DropZone                          // zone policy
	DropRateSYN                       // too many SYNs of one source
	DropRateUDP                       // too many datagrams of one source
	DropRateICMP                      // too much ICMP of one source
	DropRateFlow                      // too many new flows of one source
	ZoneCounted                       // not stopped: passed by a zone rule that counts
)

// String is the reason's name in status, metrics and logs.
func (r DropReason) String() string {
	names := [...]string{
		"none", "flow", "blocked-source", "blocked-destination", "quarantine", "zone",
		"rate-syn", "rate-udp", "rate-icmp", "rate-flow", "zone-counted",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}
