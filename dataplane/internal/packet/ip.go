package packet

import "net/netip"

// ipv4 decodes RFC 791.
func (p *Packet) ipv4(b []byte) {
	if len(b) < 20 {
		p.fail(Truncated, EventIPv4TooSmall)
		return
	}
	if b[0]>>4 != 4 {
		p.fail(BadVersion, EventIPv4WrongVersion)
		return
	}
	hl := int(b[0]&0x0f) * 4
	if hl < 20 {
		p.fail(BadHeaderLength, EventIPv4HeaderTooSmall)
		return
	}
	total := int(be16(b[2:]))
	if total < hl {
		p.fail(BadTotalLength, EventIPv4LenSmallerThanHeader)
		return
	}
	if total > len(b) {
		p.fail(Truncated, EventIPv4Truncated)
		return
	}
	b = b[:total] // Ethernet padding goes
	p.Version = 4
	p.Src = netip.AddrFrom4([4]byte(b[12:16]))
	p.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	p.TOS = b[1]
	p.TTL = b[8]
	p.Proto = b[9]
	p.IPID = uint32(be16(b[4:]))
	frag := be16(b[6:])
	p.RF, p.DF, p.MF = frag&0x8000 != 0, frag&0x4000 != 0, frag&0x2000 != 0
	p.FragOff = (frag & 0x1fff) << 3
	p.Fragment = p.MF || p.FragOff != 0
	p.IPOpts = 0
	p.IPHeader = b[:hl]
	p.IPPayload = b[hl:]
	if hl > 20 {
		p.ipv4Options(b[20:hl])
	}
	if p.Fragment {
		if int(p.FragOff)+len(p.IPPayload) > 65535 {
			p.fail(BadTotalLength, EventIPv4FragTooLarge)
			return
		}
		p.Payload = p.IPPayload
		if p.FragOff == 0 {
			p.fragmentPorts()
		}
		return
	}
	p.transport(p.Proto, p.IPPayload)
}

func (p *Packet) ipv4Options(b []byte) {
	for i := 0; i < len(b); {
		kind := b[i]
		switch kind {
		case 0:
			p.IPOpts |= OptEOL | OptAny
			return
		case 1:
			p.IPOpts |= OptNOP | OptAny
			i++
			continue
		}
		if i+1 >= len(b) || b[i+1] < 2 || i+int(b[i+1]) > len(b) {
			p.event(EventIPv4OptInvalidLen)
			return
		}
		bit := OptAny
		switch kind {
		case 7:
			bit |= OptRR
		case 68:
			bit |= OptTS
		case 130:
			bit |= OptSec
		case 131:
			bit |= OptLSRR
		case 133:
			bit |= OptESec
		case 136:
			bit |= OptSatID
		case 137:
			bit |= OptSSRR
		}
		p.IPOpts |= bit
		i += int(b[i+1])
	}
}

// ipv6 decodes RFC 8200 with its extension headers.
func (p *Packet) ipv6(b []byte) {
	if len(b) < 40 {
		p.fail(Truncated, EventIPv6TooSmall)
		return
	}
	if b[0]>>4 != 6 {
		p.fail(BadVersion, EventIPv6WrongVersion)
		return
	}
	plen := int(be16(b[4:]))
	if plen+40 > len(b) {
		p.fail(Truncated, EventIPv6Truncated)
		return
	}
	if plen == 0 && b[6] == protoHopByHop && len(b) > 40 {
		plen = len(b) - 40 // jumbogram: the frame is all there is
	}
	p.Version = 6
	p.Src = netip.AddrFrom16([16]byte(b[8:24]))
	p.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	p.TOS = b[0]<<4 | b[1]>>4
	p.TTL = b[7]
	p.IPID = 0
	p.DF, p.MF, p.RF, p.Fragment, p.FragOff, p.IPOpts = false, false, false, false, 0, 0
	next := b[6]
	whole := b[:40+plen]
	rest := whole[40:]
	p.IPHeader = whole[:40]
	for range MaxExtHeaders {
		switch next {
		case protoHopByHop, protoRouting, protoDstOpts, protoMobility, protoHIP, protoShim6:
			if len(rest) < 8 {
				p.Proto = next
				p.Payload = rest
				p.fail(Truncated, EventIPv6ExtTruncated)
				return
			}
			n := (int(rest[1]) + 1) * 8
			if n > len(rest) {
				p.Proto = next
				p.Payload = rest
				p.fail(Truncated, EventIPv6ExtTruncated)
				return
			}
			if next == protoRouting && rest[2] == 0 {
				p.event(EventIPv6RouteHeader0)
			}
			next = rest[0]
			rest = rest[n:]
		case ProtoAH:
			if len(rest) < 12 {
				p.Proto = next
				p.Payload = rest
				p.fail(Truncated, EventIPv6ExtTruncated)
				return
			}
			n := (int(rest[1]) + 2) * 4
			if n > len(rest) {
				p.Proto = next
				p.Payload = rest
				p.fail(Truncated, EventIPv6ExtTruncated)
				return
			}
			next = rest[0]
			rest = rest[n:]
		case protoFragment:
			if len(rest) < 8 {
				p.Proto = next
				p.Payload = rest
				p.fail(Truncated, EventIPv6ExtTruncated)
				return
			}
			f := be16(rest[2:])
			p.FragOff = f & 0xfff8
			p.MF = f&1 != 0
			p.IPID = be32(rest[4:])
			next = rest[0]
			rest = rest[8:]
			if p.MF || p.FragOff != 0 {
				p.Fragment = true
				p.Proto = next
				p.IPHeader = whole[:len(whole)-len(rest)]
				p.IPPayload = rest
				p.Payload = rest
				if p.FragOff == 0 {
					p.fragmentPorts()
				}
				return
			}
		case protoNone:
			p.Proto = next
			p.IPPayload = rest
			p.Payload = rest
			p.IPHeader = whole[:len(whole)-len(rest)]
			return
		default:
			p.Proto = next
			p.IPHeader = whole[:len(whole)-len(rest)]
			p.IPPayload = rest
			p.transport(next, rest)
			return
		}
	}
	p.Proto = next
	p.Payload = rest
	p.fail(TooDeep, EventIPv6ExtTooMany)
}

// fragmentPorts reads the ports of a first fragment, for telling of it; the transport header is not decoded.
func (p *Packet) fragmentPorts() {
	b := p.IPPayload
	if (p.Proto == ProtoTCP || p.Proto == ProtoUDP) && len(b) >= 4 {
		p.SrcPort, p.DstPort = be16(b), be16(b[2:])
	}
}

func (p *Packet) transport(proto uint8, b []byte) {
	switch proto {
	case ProtoTCP:
		p.tcp(b)
	case ProtoUDP:
		p.udp(b)
	case ProtoICMP:
		if p.Version == 4 {
			p.icmp(b, EventICMPv4TooSmall)
			return
		}
		p.Payload = b
	case ProtoICMPv6:
		if p.Version == 6 {
			p.icmp(b, EventICMPv6TooSmall)
			return
		}
		p.Payload = b
	case ProtoIPIP, ProtoIPv6:
		p.inner(proto, b)
	case ProtoSCTP:
		if len(b) < 12 {
			p.Payload = b
			p.fail(Truncated, EventSCTPTooSmall)
			return
		}
		p.SrcPort, p.DstPort = be16(b), be16(b[2:])
		p.L4Header, p.Payload = b[:12], b[12:]
		p.HasL4 = true
	default:
		p.Payload = b
	}
}

// inner goes on with the packet inside of RFC 2003, RFC 2473 (DS-Lite) and RFC 4213 (6in4).
func (p *Packet) inner(proto uint8, b []byte) {
	small, version := EventIPv4InIPv6TooSmall, EventIPv4InIPv6WrongVersion
	want := byte(4)
	if proto == ProtoIPv6 {
		small, version = EventIPv6InIPv6TooSmall, EventIPv6InIPv6WrongVersion
		want = 6
	}
	if p.Version == 4 { // the named events are those of IPv6 carriers
		small, version = EventNone, EventNone
	}
	if len(b) == 0 || (want == 4 && len(b) < 20) || (want == 6 && len(b) < 40) {
		p.Payload = b
		p.fail(Truncated, small)
		return
	}
	if b[0]>>4 != want {
		p.Payload = b
		p.fail(BadVersion, version)
		return
	}
	if p.Tunnel >= MaxTunnelDepth {
		p.Payload = b
		p.fail(TooDeep, EventTooManyLayers)
		return
	}
	p.Tunnel++
	p.ip(b)
}

func (p *Packet) tcp(b []byte) {
	if len(b) < 20 {
		p.Payload = b
		p.fail(Truncated, EventTCPTooSmall)
		return
	}
	hl := int(b[12]>>4) * 4
	if hl < 20 || hl > len(b) {
		p.Payload = b
		p.fail(BadHeaderLength, EventTCPHeaderTooSmall)
		return
	}
	p.SrcPort, p.DstPort = be16(b), be16(b[2:])
	p.Seq, p.Ack = be32(b[4:]), be32(b[8:])
	p.TCPFlags = b[13]
	p.Window = be16(b[14:])
	p.L4Header, p.Payload = b[:hl], b[hl:]
	p.HasL4 = true
	if hl > 20 {
		p.tcpOptions(b[20:hl])
	}
}

func (p *Packet) tcpOptions(b []byte) {
	for i := 0; i < len(b); {
		switch b[i] {
		case 0:
			return
		case 1:
			i++
			continue
		}
		if i+1 >= len(b) || b[i+1] < 2 || i+int(b[i+1]) > len(b) {
			p.event(EventTCPInvalidOptLen)
			return
		}
		n := int(b[i+1])
		switch b[i] {
		case 2:
			if n == 4 {
				p.MSS = be16(b[i+2:])
			}
		case 3:
			if n == 3 {
				p.WScale = int8(min(b[i+2], 14)) // RFC 7323: 14 at most
			}
		case 4:
			p.SACKPermitted = n == 2
		case 8:
			if n == 10 {
				p.TSVal, p.TSEcr, p.HasTS = be32(b[i+2:]), be32(b[i+6:]), true
			}
		}
		i += n
	}
}

func (p *Packet) udp(b []byte) {
	if len(b) < 8 {
		p.Payload = b
		p.fail(Truncated, EventUDPHeaderTooSmall)
		return
	}
	p.SrcPort, p.DstPort = be16(b), be16(b[2:])
	n := int(be16(b[4:]))
	if n == 0 && p.Version == 6 {
		n = len(b) // RFC 2675
	}
	if n < 8 || n > len(b) {
		p.Payload = b[8:]
		p.L4Header = b[:8]
		p.fail(BadTotalLength, EventUDPLenInvalid)
		return
	}
	p.L4Header, p.Payload = b[:8], b[8:n]
	p.HasL4 = true
}

func (p *Packet) icmp(b []byte, small Event) {
	if len(b) < 8 {
		if len(b) >= 2 {
			p.ICMPType, p.ICMPCode = b[0], b[1]
		}
		p.Payload = b
		p.fail(Truncated, small)
		return
	}
	p.ICMPType, p.ICMPCode = b[0], b[1]
	p.L4Header, p.Payload = b[:8], b[8:]
	p.HasL4 = true
	switch {
	case p.Version == 4:
		switch p.ICMPType {
		case 0, 8, 13, 14, 15, 16, 17, 18:
			p.HasICMPID = true
		}
	case p.ICMPType == 128 || p.ICMPType == 129:
		p.HasICMPID = true
	}
	if p.HasICMPID {
		p.ICMPID, p.ICMPSeq = be16(b[4:]), be16(b[6:])
	}
}
