// Package flow keeps connections: a table of flows per worker with time-outs and bounded memory, and the reassembly of TCP
// streams. The engine calls it for every packet, from one goroutine per table; nothing here locks. The trap: a *Flow is
// reused after it ended, so nothing may keep one beyond the End callback.
package flow

import (
	"math/bits"
	"net/netip"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// Key names a flow the same way for both directions: A is the lower endpoint (address, then port).
type Key struct {
	A, B         [16]byte // IPv4 is v4-mapped
	APort, BPort uint16
	VLAN         [2]uint16
	Proto        uint8
}

// MakeKey makes the key of a packet from src to dst; forward says that src is A.
func MakeKey(src, dst netip.Addr, sport, dport uint16, proto uint8, vlan0, vlan1 uint16) (k Key, forward bool) {
	a, b := src.As16(), dst.As16()
	forward = less(&a, &b, sport, dport)
	if forward {
		k.A, k.B, k.APort, k.BPort = a, b, sport, dport
	} else {
		k.A, k.B, k.APort, k.BPort = b, a, dport, sport
	}
	k.VLAN[0], k.VLAN[1] = vlan0, vlan1
	k.Proto = proto
	return k, forward
}

func less(a, b *[16]byte, ap, bp uint16) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return ap <= bp
}

// Wire gives the wire's form of the key.
func (k *Key) Wire() wire.FlowKey {
	return wire.FlowKey{
		A: netip.AddrFrom16(k.A), B: netip.AddrFrom16(k.B), APort: k.APort, BPort: k.BPort, VLAN: k.VLAN, Proto: k.Proto,
	}
}

func le64(b []byte) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 |
		uint64(b[6])<<48 | uint64(b[7])<<56
}

// hash mixes the key with a secret seed, so that nobody can choose colliding flows (wyhash's multiply and fold).
func (k *Key) hash(seed uint64) uint64 {
	mix := func(a, b uint64) uint64 {
		hi, lo := bits.Mul64(a, b)
		return hi ^ lo
	}
	h := mix(le64(k.A[0:])^seed^0xa0761d6478bd642f, le64(k.A[8:])^0xe7037ed1a0b428db)
	h = mix(h^le64(k.B[0:]), le64(k.B[8:])^0x8ebc6af09c88c6e3^seed)
	return mix(h^uint64(k.APort)<<48^uint64(k.BPort)<<32^uint64(k.VLAN[0])<<16^uint64(k.VLAN[1]), uint64(k.Proto)^0x589965cc75374cc3)
}
