package inventory

import (
	"encoding/binary"
	"net/netip"

	"github.com/kadomori/kadomori/dataplane/internal/packet"
)

// ARP reads an Ethernet/IPv4 ARP packet's sender (RFC 826); ok is false for probes and for what is malformed or forged
// (hardware address other than the frame's source).
func ARP(p *packet.Packet) (mac [6]byte, ip netip.Addr, ok bool) {
	b := p.Payload
	if len(b) < 28 || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return mac, ip, false
	}
	copy(mac[:], b[8:14])
	ip = netip.AddrFrom4([4]byte(b[14:18]))
	if ip.IsUnspecified() || mac != p.SrcMAC {
		return mac, ip, false
	}
	return mac, ip, true
}

// Neighbour reads who speaks in IPv6 neighbour discovery (RFC 4861): solicitations and advertisements with a link-layer
// address option, or the frame's source when there is none.
func Neighbour(p *packet.Packet) (mac [6]byte, ip netip.Addr, ok bool) {
	if p.Proto != packet.ProtoICMPv6 || p.TTL != 255 || !p.HasL4 {
		return mac, ip, false
	}
	mac = p.SrcMAC
	switch p.ICMPType {
	case 135: // solicitation; from :: it is duplicate detection
		if p.Src.IsUnspecified() {
			return mac, ip, false
		}
		return mac, p.Src, true
	case 136: // advertisement: the target is the speaker's
		if len(p.Payload) < 16 {
			return mac, ip, false
		}
		a := netip.AddrFrom16([16]byte(p.Payload[:16]))
		return mac, a, !a.IsMulticast() && !a.IsUnspecified()
	}
	return mac, ip, false
}

// DHCP options (RFC 2132) that are read.
const (
	optHostname    = 12
	optRequestedIP = 50
	optMessageType = 53
	optVendorClass = 60
	dhcpAck        = 5
	dhcpRequest    = 3
)

// Lease is what a DHCP packet says of a client.
type Lease struct {
	MAC         [6]byte
	IP          netip.Addr // of an ACK, or of a client that has one
	Hostname    string
	VendorClass string
}

// DHCP reads a DHCPv4 message (RFC 2131).
func DHCP(p *packet.Packet) (l Lease, ok bool) {
	b := p.Payload
	if len(b) < 240 || (b[0] != 1 && b[0] != 2) || b[1] != 1 || b[2] != 6 || binary.BigEndian.Uint32(b[236:]) != 0x63825363 {
		return l, false
	}
	copy(l.MAC[:], b[28:34])
	var msg byte
	var requested netip.Addr
	for o := b[240:]; len(o) >= 2 && o[0] != 255; {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if len(o) < 2+n {
			break
		}
		v := o[2 : 2+n]
		switch o[0] {
		case optHostname:
			l.Hostname = printable(v)
		case optVendorClass:
			l.VendorClass = printable(v)
		case optMessageType:
			if n == 1 {
				msg = v[0]
			}
		case optRequestedIP:
			if n == 4 {
				requested = netip.AddrFrom4([4]byte(v))
			}
		}
		o = o[2+n:]
	}
	ciaddr, yiaddr := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	switch {
	case b[0] == 2 && msg == dhcpAck && !yiaddr.IsUnspecified():
		l.IP = yiaddr
	case b[0] == 2: // an offer says nothing of what the client will use
		return l, false
	case !ciaddr.IsUnspecified():
		l.IP = ciaddr
	case msg == dhcpRequest && requested.IsValid():
		l.IP = requested
	}
	return l, true
}

// maxText bounds names that devices say of themselves.
const maxText = 64

// printable keeps letters, digits and signs; other bytes become "?", so that a name can be printed anywhere.
func printable(b []byte) string {
	if len(b) > maxText {
		b = b[:maxText]
	}
	out := make([]byte, 0, len(b))
	for _, c := range b {
		switch {
		case c == 0:
			return string(out)
		case c < 0x20 || c >= 0x7f || c == '<' || c == '>' || c == '&' || c == '"':
			out = append(out, '?')
		default:
			out = append(out, c)
		}
	}
	return string(out)
}
