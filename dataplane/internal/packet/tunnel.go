package packet

// UDP ports of tunnels (IANA).
const (
	portVXLAN  = 4789
	portGeneve = 6081
	portTeredo = 3544
)

// Encapsulated gives the packet inside of GRE (RFC 2784, 2637), VXLAN (RFC 7348), Geneve (RFC 8926) or Teredo (RFC 4380) and
// how it begins; nil when p carries none.
func (p *Packet) Encapsulated() ([]byte, Link) {
	switch {
	case p.Fragment:
	case p.Proto == ProtoGRE && p.Version != 0:
		return p.gre(p.Payload)
	case p.Proto == ProtoUDP && p.HasL4:
		b := p.Payload
		switch {
		case p.DstPort == portVXLAN && len(b) > 8+14 && b[0]&8 != 0:
			return b[8:], LinkEthernet
		case p.DstPort == portGeneve && len(b) > 8 && b[0]>>6 == 0:
			n := 8 + int(b[0]&0x3f)*4
			if n > len(b) {
				return nil, 0
			}
			return byEther(be16(b[2:]), b[n:])
		case p.DstPort == portTeredo || p.SrcPort == portTeredo:
			return teredo(b)
		}
	}
	return nil, 0
}

func byEther(proto uint16, b []byte) ([]byte, Link) {
	if len(b) == 0 {
		return nil, 0
	}
	switch proto {
	case EtherIPv4, EtherIPv6:
		return b, LinkRaw
	case EtherTEB:
		return b, LinkEthernet
	case 0x880b:
		return b, LinkPPP
	}
	return nil, 0
}

func (p *Packet) gre(b []byte) ([]byte, Link) {
	if len(b) < 4 {
		p.event(EventGRETooSmall)
		return nil, 0
	}
	flags, proto := be16(b), be16(b[2:])
	n := 4
	switch flags & 7 {
	case 0:
		if flags&0xc000 != 0 { // checksum or routing: both fields are there
			n += 4
		}
		if flags&0x2000 != 0 {
			n += 4
		}
		if flags&0x1000 != 0 {
			n += 4
		}
	case 1: // PPTP
		n += 4
		if flags&0x1000 != 0 {
			n += 4
		}
		if b[1]&0x80 != 0 {
			n += 4
		}
	default:
		p.event(EventGREWrongVersion)
		return nil, 0
	}
	if n > len(b) {
		p.event(EventGRETooSmall)
		return nil, 0
	}
	b = b[n:]
	switch proto {
	case EtherERSPAN:
		if flags&0x1000 == 0 { // type I has no header of its own
			return byEther(EtherTEB, b)
		}
		if len(b) < 8 {
			return nil, 0
		}
		return byEther(EtherTEB, b[8:])
	case EtherVLAN:
		if len(b) < 4 {
			return nil, 0
		}
		return byEther(be16(b[2:]), b[4:])
	}
	return byEther(proto, b)
}

func teredo(b []byte) ([]byte, Link) {
	if len(b) >= 4 && b[0] == 0 && b[1] == 1 { // authentication
		n := 13 + int(b[2]) + int(b[3])
		if n > len(b) {
			return nil, 0
		}
		b = b[n:]
	}
	if len(b) >= 8 && b[0] == 0 && b[1] == 0 { // origin indication
		b = b[8:]
	}
	if len(b) < 40 || b[0]>>4 != 6 || int(be16(b[4:]))+40 != len(b) {
		return nil, 0
	}
	return b, LinkIPv6
}
