package packet

import "encoding/binary"

// MaxReply is the largest frame that the builders make; callers keep a buffer of that size.
const MaxReply = 1514

// header copies link header and addresses of p's innermost IP packet into dst, turned around when back is true, and gives the
// frame so far and where the IP header begins. Replies to packets in IP tunnels can't be made (nil): the outer headers are
// not ours to answer for.
func (p *Packet) header(dst []byte, back bool, proto uint8, payload int) ([]byte, int) {
	if p.Tunnel != 0 || p.Version == 0 || len(p.IPHeader) == 0 || !p.HasMAC || p.Link != LinkEthernet {
		return nil, 0
	}
	linkLen := cap(p.Frame) - cap(p.IPHeader)
	if linkLen < 14 || linkLen > 64 || len(p.Frame) < linkLen {
		return nil, 0
	}
	b := append(dst[:0], p.Frame[:linkLen]...)
	if back {
		copy(b[0:6], p.SrcMAC[:])
		copy(b[6:12], p.DstMAC[:])
	}
	src, dstA := p.Src, p.Dst
	if back {
		src, dstA = dstA, src
	}
	at := len(b)
	total := payload
	if p.Version == 4 {
		var h [20]byte
		h[0] = 0x45
		total += 20
		binary.BigEndian.PutUint16(h[2:], uint16(total))
		h[6] = 0x40 // don't fragment
		h[8] = 64
		h[9] = proto
		s, d := src.As4(), dstA.As4()
		copy(h[12:], s[:])
		copy(h[16:], d[:])
		binary.BigEndian.PutUint16(h[10:], Fold(Sum(0, h[:])))
		b = append(b, h[:]...)
	} else {
		var h [40]byte
		h[0] = 0x60
		binary.BigEndian.PutUint16(h[4:], uint16(payload))
		h[6] = proto
		h[7] = 64
		s, d := src.As16(), dstA.As16()
		copy(h[8:], s[:])
		copy(h[24:], d[:])
		b = append(b, h[:]...)
		total += 40
	}
	if p.PPPoE != 0 && at >= 8 { // RFC 2516: length of what follows, with the PPP protocol field
		binary.BigEndian.PutUint16(b[at-4:], uint16(total+2))
	}
	return b, at
}

// seal writes the transport checksum at off of the transport header, which begins at l4.
func seal(b []byte, ip, l4, off int, proto uint8) {
	var s uint64
	if b[ip]>>4 == 4 {
		s = Sum(0, b[ip+12:ip+20])
	} else {
		s = Sum(0, b[ip+8:ip+40])
	}
	s += uint64(proto) + uint64(len(b)-l4)
	c := Fold(Sum(s, b[l4:]))
	if c == 0 && proto == ProtoUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[l4+off:], c)
}

// ResetFrame makes a TCP reset in answer to the segment p: back to its sender, or, when back is false, onward to its receiver in
// the sender's name. The frame is in dst's memory; nil when p can't be answered (not TCP, itself a reset, tunnelled).
// Sequence numbers follow RFC 9293 3.10.7.
func (p *Packet) ResetFrame(dst []byte, back bool) []byte {
	if p.Proto != ProtoTCP || !p.HasL4 || p.TCPFlags&RST != 0 {
		return nil
	}
	b, ip := p.header(dst, back, ProtoTCP, 20)
	if b == nil {
		return nil
	}
	l4 := len(b)
	var h [20]byte
	sport, dport := p.SrcPort, p.DstPort
	flags := byte(RST)
	var seq, ack uint32
	if back {
		sport, dport = dport, sport
		n := uint32(len(p.Payload))
		if p.TCPFlags&SYN != 0 {
			n++
		}
		if p.TCPFlags&FIN != 0 {
			n++
		}
		if p.TCPFlags&ACK != 0 {
			seq = p.Ack
		}
		ack = p.Seq + n
		flags |= ACK
	} else {
		seq = p.Seq // where the receiver expects the next byte: the segment itself is dropped
		if p.TCPFlags&ACK != 0 {
			ack = p.Ack
			flags |= ACK
		}
	}
	binary.BigEndian.PutUint16(h[0:], sport)
	binary.BigEndian.PutUint16(h[2:], dport)
	binary.BigEndian.PutUint32(h[4:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	h[12] = 5 << 4
	h[13] = flags
	b = append(b, h[:]...)
	seal(b, ip, l4, 16, ProtoTCP)
	return b
}

// DNSAnswerFrame makes the answer to the DNS query in the UDP datagram p: NXDOMAIN (RFC 8020), the question repeated. The
// client learns at once that the name leads nowhere. The frame is in dst's memory; nil when p can't be answered.
func (p *Packet) DNSAnswerFrame(dst []byte) []byte {
	q := p.Payload
	if p.Proto != ProtoUDP || !p.HasL4 || len(q) < 17 || q[2]&0x80 != 0 || binary.BigEndian.Uint16(q[4:]) == 0 {
		return nil
	}
	end := 12
	for end < len(q) && q[end] != 0 {
		if q[end] > 63 {
			return nil // a compressed name in a question: nobody sends that
		}
		end += int(q[end]) + 1
	}
	end += 5
	if end > len(q) || end > 512 {
		return nil
	}
	b, ip := p.header(dst, true, ProtoUDP, 8+end)
	if b == nil {
		return nil
	}
	l4 := len(b)
	var h [8]byte
	binary.BigEndian.PutUint16(h[0:], p.DstPort)
	binary.BigEndian.PutUint16(h[2:], p.SrcPort)
	binary.BigEndian.PutUint16(h[4:], uint16(8+end))
	b = append(b, h[:]...)
	m := len(b)
	b = append(b, q[:end]...)
	b[m+2] = 0x80 | q[2]&0x79 // response, opcode and recursion desired kept
	b[m+3] = 0x80 | 3         // recursion available, NXDOMAIN
	copy(b[m+4:m+12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	seal(b, ip, l4, 6, ProtoUDP)
	return b
}

// UnreachableFrame makes an ICMP "administratively prohibited" in answer to p (RFC 1812 5.2.7.1, RFC 4443 3.1). nil when p
// can't be answered: ICMP itself, group addresses, fragments.
func (p *Packet) UnreachableFrame(dst []byte) []byte {
	if p.Proto == ProtoICMP || p.Proto == ProtoICMPv6 || p.Dst.IsMulticast() || p.Src.IsMulticast() || p.Src.IsUnspecified() ||
		p.FragOff != 0 {
		return nil
	}
	limit, proto := len(p.IPHeader)+8, uint8(ProtoICMP)
	if p.Version == 6 {
		limit, proto = 1232, ProtoICMPv6 // up to the minimum MTU
	}
	quote := p.Frame[cap(p.Frame)-cap(p.IPHeader):]
	quote = quote[:min(limit, len(p.IPHeader)+len(p.IPPayload), len(quote))]
	b, ip := p.header(dst, true, proto, 8+len(quote))
	if b == nil {
		return nil
	}
	l4 := len(b)
	var h [8]byte
	if proto == ProtoICMP {
		h[0], h[1] = 3, 13
	} else {
		h[0], h[1] = 1, 1
	}
	b = append(b, h[:]...)
	b = append(b, quote...)
	if proto == ProtoICMP {
		binary.BigEndian.PutUint16(b[l4+2:], Fold(Sum(0, b[l4:])))
	} else {
		seal(b, ip, l4, 2, proto)
	}
	return b
}
