// Package packettest builds frames for tests: plain headers with right checksums, one function per kind of packet. Tests of
// the engine and of the parsers call it. The trap: it checks nothing; what is asked for is built.
package packettest

import (
	"encoding/binary"
	"net/netip"

	"github.com/kadomori/kadomori/dataplane/internal/packet"
)

// Host is one end: addresses and, for its frames, a MAC.
type Host struct {
	MAC  [6]byte
	IP   netip.Addr
	Port uint16
}

// At makes a Host.
func At(mac byte, addr string, port uint16) Host {
	return Host{MAC: [6]byte{0x02, 0, 0, 0, 0, mac}, IP: netip.MustParseAddr(addr), Port: port}
}

// TCP builds a segment.
func TCP(src, dst Host, seq, ack uint32, flags byte, payload []byte) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, src.Port)
	binary.BigEndian.PutUint16(h[2:], dst.Port)
	binary.BigEndian.PutUint32(h[4:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	h[12], h[13] = 5<<4, flags
	binary.BigEndian.PutUint16(h[14:], 65535)
	return IP(src, dst, packet.ProtoTCP, append(h, payload...), 16)
}

// UDP builds a datagram.
func UDP(src, dst Host, payload []byte) []byte {
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h, src.Port)
	binary.BigEndian.PutUint16(h[2:], dst.Port)
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	return IP(src, dst, packet.ProtoUDP, append(h, payload...), 6)
}

// IP builds an Ethernet frame around a transport; sumAt is where its checksum lies, -1 when it has none.
func IP(src, dst Host, proto byte, l4 []byte, sumAt int) []byte {
	b := append(dst.MAC[:], src.MAC[:]...)
	b = append([]byte(nil), b...)
	var sum uint64
	if src.IP.Is4() {
		b = append(b, 0x08, 0)
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
		copy(h[12:], src.IP.AsSlice())
		copy(h[16:], dst.IP.AsSlice())
		binary.BigEndian.PutUint16(h[10:], packet.Fold(packet.Sum(0, h)))
		sum = packet.Sum(0, h[12:20])
		b = append(b, h...)
	} else {
		b = append(b, 0x86, 0xdd)
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
		copy(h[8:], src.IP.AsSlice())
		copy(h[24:], dst.IP.AsSlice())
		sum = packet.Sum(0, h[8:40])
		b = append(b, h...)
	}
	if sumAt >= 0 {
		sum += uint64(proto) + uint64(len(l4))
		binary.BigEndian.PutUint16(l4[sumAt:], packet.Fold(packet.Sum(sum, l4)))
	}
	return append(b, l4...)
}

// ARP builds an ARP reply in which src tells its address.
func ARP(src, dst Host) []byte {
	b := append(append([]byte(nil), dst.MAC[:]...), src.MAC[:]...)
	b = append(b, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(b, src.MAC[:]...)
	b = append(b, src.IP.AsSlice()...)
	b = append(b, dst.MAC[:]...)
	return append(b, dst.IP.AsSlice()...)
}

// DNSQuery builds a query for an A record.
func DNSQuery(id uint16, name string) []byte {
	b := []byte{byte(id >> 8), byte(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			b = append(b, byte(i-start))
			b = append(b, name[start:i]...)
			start = i + 1
		}
	}
	return append(b, 0, 0, 1, 0, 1)
}

// ClientHello builds a TLS 1.2 record with a ClientHello that names a server.
func ClientHello(sni string) []byte {
	ext := []byte{0, 0}
	ext = binary.BigEndian.AppendUint16(ext, uint16(len(sni)+5))
	ext = binary.BigEndian.AppendUint16(ext, uint16(len(sni)+3))
	ext = append(ext, 0)
	ext = binary.BigEndian.AppendUint16(ext, uint16(len(sni)))
	ext = append(ext, sni...)
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(len(ext)))
	body = append(body, ext...)
	hs := append([]byte{1, 0}, byte(len(body)>>8), byte(len(body)))
	hs = append(hs, body...)
	rec := []byte{22, 3, 1}
	rec = binary.BigEndian.AppendUint16(rec, uint16(len(hs)))
	return append(rec, hs...)
}
