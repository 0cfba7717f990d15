package xdp

import (
	"encoding/binary"
	"net/netip"
)

// Builders of packets, outermost first: frame(eth(0x0800), ip4(17, a, b), udp(1, 2), payload).

func frame(parts ...[]byte) []byte {
	var f []byte
	for _, p := range parts {
		f = append(f, p...)
	}
	return f
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

const (
	typeIPv4  = 0x0800
	typeARP   = 0x0806
	typeVLAN  = 0x8100
	typeIPv6  = 0x86dd
	typePPPoE = 0x8864
	typeQinQ  = 0x88a8
)

const (
	protoIPIP = 4
	protoTCP  = 6
	protoUDP  = 17
)

func eth(proto uint16) []byte {
	return frame([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}, be16(proto))
}

func vlan(id, proto uint16) []byte { return frame(be16(0x6000|id), be16(proto)) }

func pppoe(proto uint16) []byte { return frame([]byte{0x11, 0, 0, 7, 0, 100}, be16(proto)) }

func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

func ip4(proto uint8, src, dst string) []byte { return ip4f(proto, src, dst, 0, 5) }

// ip4f has a fragment field and a header length in words; options are no-operations.
func ip4f(proto uint8, src, dst string, fragment uint16, ihl uint8) []byte {
	h := frame([]byte{0x40 | ihl, 0, 0, 60, 0, 1}, be16(fragment), []byte{64, proto, 0, 0}, addr(src), addr(dst))
	for len(h) < int(ihl)*4 {
		h = append(h, 1)
	}
	return h
}

func ip6(next uint8, src, dst string) []byte {
	return frame([]byte{0x60, 0, 0, 0, 0, 40, next, 64}, addr(src), addr(dst))
}

// ext6 is an extension header of n times 8 bytes.
func ext6(next uint8, n int) []byte {
	h := make([]byte, 8*n)
	h[0], h[1] = next, byte(n-1)
	return h
}

func frag6(next uint8, field uint16) []byte {
	return frame([]byte{next, 0}, be16(field), []byte{0, 0, 0, 9})
}

func udp(src, dst uint16) []byte { return frame(be16(src), be16(dst), be16(8), be16(0)) }

func tcp(src, dst uint16, flags byte) []byte {
	return frame(be16(src), be16(dst), make([]byte, 8), []byte{0x50, flags}, make([]byte, 6))
}

func payload(n int) []byte { return make([]byte, n) }
