package packet

import (
	"encoding/binary"
	"net/netip"
)

// Limits of reassembly: what a burst of fragmented DNS or VPN traffic needs, not what an attacker may store.
const (
	maxDatagrams  = 512
	maxFragments  = 64 // of one datagram; RFC 5722 and common stacks take fewer
	fragLife      = 60 * int64(1e9)
	maxFragMemory = 8 << 20
)

type fragKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8
	vlan     uint16
}

type fragment struct {
	off  int
	data []byte
}

type datagram struct {
	frags []fragment
	size  int // payload length, known with the last fragment; -1 before
	bytes int
	born  int64
	head  []byte // link and IP header of the first fragment
	ip    int    // where the IP header begins in head
	next  uint8
}

// Defrag puts IP datagrams together (RFC 791, 8200) for one worker. Where fragments overlap, what came first counts, and the
// overlap is told.
type Defrag struct {
	grams map[fragKey]*datagram
	bytes int
	out   []byte
	// Dropped counts fragments that were not kept.
	Dropped uint64
}

// NewDefrag makes it.
func NewDefrag() *Defrag { return &Defrag{grams: map[fragKey]*datagram{}} }

// Add takes a fragment. When it completes its datagram it gives a frame with the whole, valid until the next call; the link
// type is that of p, or LinkRaw for a datagram inside of a tunnel.
func (d *Defrag) Add(p *Packet) (frame []byte, link Link) {
	k := fragKey{p.Src, p.Dst, p.IPID, p.Proto, p.VLAN[0]}
	if p.Version == 6 {
		k.proto = 0
	}
	g := d.grams[k]
	if g != nil && p.Time-g.born > fragLife {
		d.drop(k, g)
		g = nil
	}
	if g == nil {
		if len(d.grams) >= maxDatagrams {
			d.expire(p.Time)
			if len(d.grams) >= maxDatagrams {
				d.Dropped++
				return nil, 0
			}
		}
		g = &datagram{size: -1, born: p.Time}
		d.grams[k] = g
	}
	data := p.IPPayload
	off := int(p.FragOff)
	if len(g.frags) >= maxFragments || d.bytes+len(data) > maxFragMemory || off+len(data) > 65535 {
		d.Dropped++
		d.drop(k, g)
		return nil, 0
	}
	if !p.MF {
		if g.size >= 0 && g.size != off+len(data) {
			p.event(overlapEvent(p.Version))
		}
		if g.size < 0 {
			g.size = off + len(data)
		}
	}
	if off == 0 && g.head == nil {
		start := cap(p.Frame) - cap(p.IPHeader)
		if p.Tunnel > 0 || start < 0 || start > len(p.Frame) {
			g.head = append(g.head, p.IPHeader...)
			g.ip = 0
		} else {
			g.head = append(g.head, p.Frame[:start+len(p.IPHeader)]...)
			g.ip = start
		}
		g.next = p.Proto
	}
	for _, f := range g.frags {
		if off < f.off+len(f.data) && f.off < off+len(data) {
			p.event(overlapEvent(p.Version))
			break
		}
	}
	g.frags = append(g.frags, fragment{off, append([]byte(nil), data...)})
	g.bytes += len(data)
	d.bytes += len(data)
	if g.size < 0 || g.head == nil {
		return nil, 0
	}
	body := d.assemble(g)
	if body == nil {
		return nil, 0
	}
	link = p.Link
	if g.ip == 0 && p.Link == LinkEthernet {
		link = LinkRaw
	}
	frame = d.frame(p, g, body)
	d.drop(k, g)
	return frame, link
}

func overlapEvent(version uint8) Event {
	if version == 6 {
		return EventIPv6FragOverlap
	}
	return EventIPv4FragOverlap
}

// assemble gives the payload, nil while there are holes.
func (d *Defrag) assemble(g *datagram) []byte {
	out := make([]byte, g.size)
	have := make([]bool, g.size)
	n := 0
	for _, f := range g.frags {
		for i, c := range f.data {
			if at := f.off + i; at < g.size && !have[at] {
				out[at], have[at] = c, true
				n++
			}
		}
	}
	if n < g.size {
		return nil
	}
	return out
}

// frame puts the headers before the payload, as if it had never been fragmented.
func (d *Defrag) frame(p *Packet, g *datagram, body []byte) []byte {
	out := append(d.out[:0], g.head...)
	h := out[g.ip:]
	if p.Version == 4 {
		if len(h)+len(body) > 65535 {
			return nil
		}
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(body)))
		h[6] &= 0xc0 // the other flags stay
		h[7] = 0
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], Fold(Sum(0, h)))
	} else {
		// The fragment header is the last of what was before the payload.
		h = h[:len(h)-8]
		out = out[:len(out)-8]
		at := 6
		if len(h) > 40 { // the next header field of the last extension header
			next := h[6]
			for i := 40; i < len(h) && next != protoFragment; {
				at = i
				next = h[i]
				i += (int(h[i+1]) + 1) * 8
			}
		}
		h[at] = g.next
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+len(body)))
	}
	out = append(out, body...)
	d.out = out
	return out
}

func (d *Defrag) drop(k fragKey, g *datagram) {
	d.bytes -= g.bytes
	delete(d.grams, k)
}

func (d *Defrag) expire(now int64) {
	for k, g := range d.grams {
		if now-g.born > fragLife {
			d.drop(k, g)
		}
	}
}
