package packet

import "encoding/binary"

// Sum adds up b in ones' complement (RFC 1071), starting from s.
func Sum(s uint64, b []byte) uint64 {
	for len(b) >= 8 {
		v := binary.BigEndian.Uint64(b)
		s += v>>32 + v&0xffffffff
		b = b[8:]
	}
	if len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

// Fold makes the 16-bit checksum of a sum.
func Fold(s uint64) uint16 {
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func (p *Packet) pseudo(n int) uint64 {
	var s uint64
	if p.Version == 4 {
		a, b := p.Src.As4(), p.Dst.As4()
		s = Sum(Sum(0, a[:]), b[:])
	} else {
		a, b := p.Src.As16(), p.Dst.As16()
		s = Sum(Sum(0, a[:]), b[:])
	}
	return s + uint64(p.Proto) + uint64(n)
}

// Checksums says whether the IPv4 header's and the transport's checksum are right; a layer without a checksum is right. Call
// it for whole packets only (no fragments).
func (p *Packet) Checksums() (ip, transport bool) {
	ip, transport = true, true
	if p.Version == 4 && len(p.IPHeader) >= 20 {
		ip = Fold(Sum(0, p.IPHeader)) == 0
	}
	if !p.HasL4 || p.Version == 0 {
		return ip, transport
	}
	n := len(p.L4Header) + len(p.Payload)
	switch p.Proto {
	case ProtoTCP, ProtoICMPv6:
		transport = Fold(Sum(p.pseudo(n), p.IPPayload[:n])) == 0
	case ProtoUDP:
		if be16(p.L4Header[6:]) == 0 {
			return ip, p.Version == 4
		}
		transport = Fold(Sum(p.pseudo(n), p.IPPayload[:n])) == 0
	case ProtoICMP:
		transport = Fold(Sum(0, p.IPPayload[:n])) == 0
	}
	return ip, transport
}
