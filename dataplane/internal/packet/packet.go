// Package packet decodes frames and builds the few that the appliance sends itself. The engine calls it for every packet;
// it allocates nothing and keeps no state. The trap: a Packet points into the frame it was decoded from, and is valid only
// as long as that frame is.
package packet

import (
	"encoding/binary"
	"net/netip"
)

// Link is how a frame begins. The numbers are the LINKTYPE_ values of capture files (tcpdump.org/linktypes.html).
type Link uint16

// The link types that can be decoded.
const (
	LinkNull     Link = 0 // BSD loopback: four bytes of address family in the writer's byte order
	LinkEthernet Link = 1
	LinkPPP      Link = 9
	LinkRaw      Link = 101 // IPv4 or IPv6 without a link header
	LinkLoop     Link = 108 // as LinkNull, network byte order
	LinkSLL      Link = 113 // Linux cooked capture
	LinkIPv4     Link = 228
	LinkIPv6     Link = 229
	LinkSLL2     Link = 276
	LinkPPPEther Link = 51 // PPPoE session header
	LinkRawBSD   Link = 12 // DLT_RAW as some writers put it into the file
	LinkRawOpen  Link = 14
	LinkPPPHDLC  Link = 50
	LinkCHDLC    Link = 104 // Cisco HDLC
)

// Supported says whether frames of this link type can be decoded.
func (l Link) Supported() bool {
	switch l {
	case LinkNull, LinkEthernet, LinkPPP, LinkRaw, LinkLoop, LinkSLL, LinkIPv4, LinkIPv6, LinkSLL2, LinkPPPEther, LinkRawBSD,
		LinkRawOpen, LinkPPPHDLC, LinkCHDLC:
		return true
	}
	return false
}

// EtherTypes that the decoder knows (IEEE 802 numbers).
const (
	EtherIPv4     = 0x0800
	EtherARP      = 0x0806
	EtherVLAN     = 0x8100
	EtherQinQ     = 0x88a8
	EtherQinQOld  = 0x9100
	EtherIPv6     = 0x86dd
	EtherNSH      = 0x894f // network service header, RFC 8300
	EtherPPPoED   = 0x8863
	EtherPPPoES   = 0x8864
	EtherMPLS     = 0x8847
	EtherMPLSM    = 0x8848
	EtherTEB      = 0x6558 // transparent Ethernet bridging, in GRE
	EtherERSPAN   = 0x88be
	EtherERSPAN3  = 0x22eb
	pppIPv4       = 0x0021
	pppIPv6       = 0x0057
	etherMinProto = 0x0600
)

// IANA protocol numbers.
const (
	ProtoICMP     = 1
	ProtoIPIP     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoIPv6     = 41
	ProtoGRE      = 47
	ProtoESP      = 50
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoSCTP     = 132
	protoHopByHop = 0
	protoRouting  = 43
	protoFragment = 44
	protoNone     = 59
	protoDstOpts  = 60
	protoMobility = 135
	protoHIP      = 139
	protoShim6    = 140
)

// Limits of the decoder: a deeper packet is marked malformed and not decoded further.
const (
	MaxVLANs       = 3
	MaxExtHeaders  = 12
	MaxTunnelDepth = 4
	maxMPLSLabels  = 10
)

// TCP flags.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Problem says why decoding stopped; 0 when it did not.
type Problem uint8

// The problems.
const (
	OK Problem = iota
	Truncated
	BadVersion
	BadHeaderLength
	BadTotalLength
	TooDeep
	UnknownLink
	BadOption
)

// String names the problem as anomaly records print it.
func (p Problem) String() string {
	switch p {
	case OK:
		return "ok"
	case Truncated:
		return "truncated"
	case BadVersion:
		return "bad_version"
	case BadHeaderLength:
		return "bad_header_length"
	case BadTotalLength:
		return "bad_total_length"
	case TooDeep:
		return "too_deep"
	case UnknownLink:
		return "unknown_link"
	case BadOption:
		return "bad_option"
	}
	return "unknown"
}

// Packet is one decoded frame. For a tunnel that Decode looks into, addresses and transport are those of the innermost packet.
type Packet struct {
	Frame     []byte
	Time      int64 // nanoseconds since the Unix epoch
	PcapCount uint64
	Link      Link

	SrcMAC, DstMAC [6]byte
	HasMAC         bool
	EtherType      uint16
	VLAN           [MaxVLANs]uint16 // outermost first
	VLANs          uint8
	PPPoE          uint16 // session id, 0 none
	Tunnel         uint8  // number of encapsulating IP headers looked through

	// Network layer; Version is 0 for non-IP.
	Version         uint8
	Src, Dst        netip.Addr // IPv4 as Is4
	Proto           uint8
	TTL             uint8
	TOS             uint8
	IPID            uint32
	DF, MF, RF      bool
	Fragment        bool
	FragOff         uint16 // bytes
	IPOpts          uint16 // bits as OptX below
	EtherHeader     []byte
	IPHeader        []byte
	IPPayload       []byte // after the IP header and the extension headers
	L4Header        []byte
	Payload         []byte
	SrcPort         uint16
	DstPort         uint16
	TCPFlags        uint8
	Seq, Ack        uint32
	Window          uint16
	MSS             uint16
	WScale          int8 // -1 none
	TSVal, TSEcr    uint32
	HasTS           bool
	SACKPermitted   bool
	ICMPType        uint8
	ICMPCode        uint8
	ICMPID, ICMPSeq uint16
	HasICMPID       bool
	HasL4           bool // transport header decoded
	Problem         Problem
	// Events are decoder events by Suricata's names, bounded.
	Events  [4]Event
	NEvents uint8
	// Reassembled: the frame was put together from fragments.
	Reassembled bool
}

// IPv4 options seen; the numbers follow package rule.
const (
	OptRR uint16 = 1 << iota
	OptEOL
	OptNOP
	OptTS
	OptSec
	OptESec
	OptLSRR
	OptSSRR
	OptSatID
	OptAny
)

// Reset clears p for the next frame.
func (p *Packet) Reset() { *p = Packet{WScale: -1} }

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// Decode decodes frame into p. It never fails as a whole: what could be decoded is there, p.Problem says why it stopped.
func (p *Packet) Decode(frame []byte, link Link) {
	p.Reset()
	p.Frame = frame
	p.Link = link
	switch link {
	case LinkEthernet:
		p.ethernet(frame)
	case LinkRaw, LinkRawBSD, LinkRawOpen, LinkIPv4, LinkIPv6:
		p.ip(frame)
	case LinkNull, LinkLoop:
		if len(frame) < 4 {
			p.fail(Truncated, EventNullTooSmall)
			return
		}
		// The family numbers differ by system; the version nibble is what counts.
		p.ip(frame[4:])
	case LinkPPP, LinkPPPHDLC:
		p.ppp(frame)
	case LinkCHDLC:
		if len(frame) < 4 {
			p.fail(Truncated, EventNone)
			return
		}
		p.ether(be16(frame[2:]), frame[4:])
	case LinkPPPEther:
		p.pppoe(frame)
	case LinkSLL:
		if len(frame) < 16 {
			p.fail(Truncated, EventSLLTooSmall)
			return
		}
		p.cooked(frame[6:14], be16(frame[4:]), be16(frame[14:]), frame[16:])
	case LinkSLL2:
		if len(frame) < 20 {
			p.fail(Truncated, EventSLL2TooSmall)
			return
		}
		p.cooked(frame[12:20], uint16(frame[11]), be16(frame), frame[20:])
	default:
		p.fail(UnknownLink, EventNone)
	}
}

func (p *Packet) cooked(addr []byte, alen, proto uint16, rest []byte) {
	if alen == 6 {
		copy(p.SrcMAC[:], addr)
		p.HasMAC = true
	}
	p.ether(proto, rest)
}

func (p *Packet) fail(why Problem, ev Event) {
	p.Problem = why
	p.event(ev)
}

func (p *Packet) event(ev Event) {
	if ev != EventNone && int(p.NEvents) < len(p.Events) {
		p.Events[p.NEvents] = ev
		p.NEvents++
	}
}

func (p *Packet) ethernet(b []byte) {
	if len(b) < 14 {
		p.fail(Truncated, EventEthernetTooSmall)
		return
	}
	copy(p.DstMAC[:], b)
	copy(p.SrcMAC[:], b[6:])
	p.HasMAC = true
	p.EtherHeader = b[:14]
	p.ether(be16(b[12:]), b[14:])
}

func (p *Packet) ether(proto uint16, b []byte) {
	for {
		switch proto {
		case EtherVLAN, EtherQinQ, EtherQinQOld:
			if len(b) < 4 {
				p.fail(Truncated, EventVLANTooSmall)
				return
			}
			if p.VLANs == MaxVLANs {
				p.fail(TooDeep, EventVLANTooManyLayers)
				return
			}
			p.VLAN[p.VLANs] = be16(b) & 0x0fff
			p.VLANs++
			proto = be16(b[2:])
			b = b[4:]
		case EtherMPLS, EtherMPLSM:
			p.mpls(b)
			return
		default:
			p.EtherType = proto
			switch proto {
			case EtherIPv4:
				p.ipv4(b)
			case EtherIPv6:
				p.ipv6(b)
			case EtherNSH:
				p.nsh(b)
			case EtherPPPoES:
				p.pppoe(b)
			case EtherARP, EtherPPPoED:
				p.Payload = b
			default:
				if proto < etherMinProto && int(proto) <= len(b) {
					b = b[:proto] // IEEE 802.3 length
				} else if proto >= etherMinProto {
					p.event(EventUnknownEthertype)
				}
				p.Payload = b
			}
			return
		}
	}
}

func (p *Packet) nsh(b []byte) {
	if len(b) < 8 {
		p.fail(Truncated, EventNone)
		return
	}
	n := int(b[1]&0x3f) * 4
	if n < 8 || n > len(b) {
		p.fail(BadHeaderLength, EventNone)
		return
	}
	switch b[3] {
	case 1:
		p.ether(EtherIPv4, b[n:])
	case 2:
		p.ether(EtherIPv6, b[n:])
	case 3:
		p.ethernet(b[n:])
	default:
		p.Payload = b[n:]
	}
}

func (p *Packet) mpls(b []byte) {
	for range maxMPLSLabels {
		if len(b) < 4 {
			p.fail(Truncated, EventMPLSTooSmall)
			return
		}
		bottom := b[2]&1 != 0
		b = b[4:]
		if bottom {
			if len(b) == 0 {
				p.fail(Truncated, EventMPLSTooSmall)
				return
			}
			switch b[0] >> 4 {
			case 4, 6:
				p.ip(b)
			default:
				p.Payload = b
			}
			return
		}
	}
	p.fail(TooDeep, EventMPLSUnknownPayload)
}

// pppoe decodes RFC 2516 session frames.
func (p *Packet) pppoe(b []byte) {
	if len(b) < 8 {
		p.fail(Truncated, EventPPPoETooSmall)
		return
	}
	if b[0] != 0x11 || b[1] != 0 {
		p.Payload = b
		p.event(EventPPPoEMalformed)
		return
	}
	p.PPPoE = be16(b[2:])
	n := int(be16(b[4:]))
	b = b[6:]
	if n < len(b) {
		b = b[:n]
	}
	p.pppProto(b)
}

func (p *Packet) ppp(b []byte) {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 { // RFC 1662 address and control
		b = b[2:]
	}
	p.pppProto(b)
}

func (p *Packet) pppProto(b []byte) {
	if len(b) < 1 {
		p.fail(Truncated, EventPPPTooSmall)
		return
	}
	proto, n := uint16(b[0]), 1
	if b[0]&1 == 0 { // not compressed to one byte
		if len(b) < 2 {
			p.fail(Truncated, EventPPPTooSmall)
			return
		}
		proto, n = be16(b), 2
	}
	b = b[n:]
	switch proto {
	case pppIPv4:
		p.EtherType = EtherIPv4
		p.ipv4(b)
	case pppIPv6:
		p.EtherType = EtherIPv6
		p.ipv6(b)
	default:
		p.Payload = b
	}
}

func (p *Packet) ip(b []byte) {
	if len(b) == 0 {
		p.fail(Truncated, EventIPRawInvalid)
		return
	}
	switch b[0] >> 4 {
	case 4:
		p.EtherType = EtherIPv4
		p.ipv4(b)
	case 6:
		p.EtherType = EtherIPv6
		p.ipv6(b)
	default:
		p.fail(BadVersion, EventIPRawInvalid)
	}
}

// ICMPUnreachableHeader says whether the ICMP message carries the packet that caused it, and gives that packet.
func (p *Packet) ICMPUnreachableHeader() []byte {
	switch {
	case p.Proto == ProtoICMP && p.Version == 4:
		switch p.ICMPType {
		case 3, 4, 5, 11, 12:
			return p.Payload
		}
	case p.Proto == ProtoICMPv6 && p.Version == 6:
		if p.ICMPType >= 1 && p.ICMPType <= 4 {
			return p.Payload
		}
	}
	return nil
}
