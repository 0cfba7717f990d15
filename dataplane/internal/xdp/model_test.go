package xdp

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// model is the policy of the program in plain Go, written to be read and not to be fast: the fuzz target holds the program
// against it.
type model struct {
	block, never, quarantine naiveSet
	macs                     map[[6]byte]bool
	zones                    *ZonePolicy
	zoneSet                  naiveSet
	flows                    map[wire.FlowKey]wire.FlowVerdict
}

// modelPacket is what a frame says.
type modelPacket struct {
	ip               bool
	src, dst         netip.Addr
	srcPort, dstPort uint16
	proto            uint8
	vlan             [2]uint16
	srcMAC, dstMAC   [6]byte
	first, later     bool // fragment
	syn, ack         bool
	notes            map[string]bool
}

// modelAnswer is what the program does: what it returns, the outcome, and the reason and list when it drops or counts.
type modelAnswer struct {
	code  int
	texts []string // as counted and countedDrops say it
}

func (p *modelPacket) note(n string) { p.notes[n] = true }

func readFrame(f []byte) *modelPacket {
	p := &modelPacket{notes: map[string]bool{}}
	copy(p.dstMAC[:], f[0:6])
	copy(p.srcMAC[:], f[6:12])
	kind, rest := binary.BigEndian.Uint16(f[12:]), f[14:]
	for i := 0; kind == typeVLAN || kind == typeQinQ; i++ {
		if i == 2 {
			p.note("too-deep")
			return p
		}
		if len(rest) < 4 {
			p.note("truncated")
			return p
		}
		p.note("vlan")
		p.vlan[i] = binary.BigEndian.Uint16(rest) & 0xfff
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	if kind == typePPPoE {
		if len(rest) < 8 {
			p.note("truncated")
			return p
		}
		p.note("pppoe")
		if rest[0] != 0x11 || rest[1] != 0 {
			p.note("malformed")
			return p
		}
		switch binary.BigEndian.Uint16(rest[6:]) {
		case 0x21:
			kind = typeIPv4
		case 0x57:
			kind = typeIPv6
		}
		rest = rest[8:]
	}
	ok := false
	switch kind {
	case typeIPv4:
		rest, ok = p.readIPv4(rest)
	case typeIPv6:
		rest, ok = p.readIPv6(rest)
		if ok && p.proto == protoIPIP && !p.later {
			p.note("tunnel")
			if inner, innerOK := p.readIPv4(rest); innerOK {
				rest = inner
			}
		}
	default:
		p.note("not-ip")
	}
	if ok {
		p.readPorts(rest)
		if p.first || p.later {
			p.note("fragment")
		}
	} else {
		p.proto = 0
	}
	return p
}

func skip(b []byte, n int) []byte { return b[min(n, len(b)):] }

func (p *modelPacket) readIPv4(b []byte) ([]byte, bool) {
	if len(b) < 20 {
		p.note("truncated")
		return nil, false
	}
	length := int(b[0]&15) * 4
	if b[0]>>4 != 4 || length < 20 {
		p.note("malformed")
		return nil, false
	}
	p.ip = true
	p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	fragment := binary.BigEndian.Uint16(b[6:])
	if fragment&0x1fff != 0 {
		p.first, p.later = false, true
	} else if fragment&0x2000 != 0 {
		p.first, p.later = true, false
	}
	p.proto = b[9]
	return skip(b, length), true
}

func (p *modelPacket) readIPv6(b []byte) ([]byte, bool) {
	if len(b) < 40 {
		p.note("truncated")
		return nil, false
	}
	if b[0]>>4 != 6 {
		p.note("malformed")
		return nil, false
	}
	p.ip = true
	p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, b := b[6], b[40:]
	for i := 0; ; i++ {
		extension := next == 0 || next == 43 || next == 60 || next == 135
		if next != 44 && !extension {
			p.proto = next
			return b, true
		}
		if i == 6 {
			p.note("too-deep")
			return nil, false
		}
		if extension {
			if len(b) < 2 {
				p.note("truncated")
				return nil, false
			}
			next, b = b[0], skip(b, (int(b[1])+1)*8)
			continue
		}
		if len(b) < 8 {
			p.note("truncated")
			return nil, false
		}
		field := binary.BigEndian.Uint16(b[2:])
		if field&0xfff8 != 0 {
			p.first, p.later = false, true
			p.proto = b[0]
			return b[8:], true
		}
		if field&1 != 0 {
			p.first = true
		}
		next, b = b[0], b[8:]
	}
}

func (p *modelPacket) readPorts(b []byte) {
	if p.later {
		return
	}
	need := map[uint8]int{6: 20, 17: 8, 132: 8, 136: 8}[p.proto]
	switch p.proto {
	case 47, 50, 51:
		p.note("opaque")
	}
	if need == 0 {
		return
	}
	if len(b) < need {
		p.note("truncated")
		return
	}
	p.srcPort, p.dstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if p.proto == protoTCP {
		p.syn, p.ack = b[13]&2 != 0, b[13]&16 != 0
	}
}

// key is the packet's flow.
func (p *modelPacket) key() wire.FlowKey {
	k := wire.FlowKey{
		A: netip.AddrFrom16(p.src.As16()), B: netip.AddrFrom16(p.dst.As16()), APort: p.srcPort, BPort: p.dstPort, VLAN: p.vlan, Proto: p.proto,
	}
	if c := k.A.Compare(k.B); c > 0 || c == 0 && k.APort > k.BPort {
		k.A, k.B, k.APort, k.BPort = k.B, k.A, k.BPort, k.APort
	}
	return k
}

// plain takes an address as the program does: an IPv4-mapped one is an IPv4 one.
func plain(a netip.Addr) netip.Addr { return a.Unmap() }

func (m *model) judge(f []byte, port wire.Port) modelAnswer {
	p := readFrame(f)
	answer := m.decide(p, port, len(f))
	for n := range p.notes {
		answer.texts = append(answer.texts, fmt.Sprintf("note %s 1/%d", n, len(f)))
	}
	return answer
}

func (m *model) decide(p *modelPacket, port wire.Port, size int) modelAnswer {
	var extra []string
	pass := func(outcome string) modelAnswer {
		return modelAnswer{xdpRedirect, append(extra, fmt.Sprintf("%s 1/%d", outcome, size))}
	}
	stop := func(reason wire.DropReason, list uint32) modelAnswer {
		return modelAnswer{xdpDrop, append(extra, fmt.Sprintf("drop 1/%d", size), fmt.Sprintf("drop %v list %d 1/%d", reason, list, size))}
	}
	if !p.ip {
		return pass("no-socket")
	}
	src, dst := plain(p.src), plain(p.dst)
	protected := func() bool {
		for _, a := range []netip.Addr{src, dst} {
			if _, ok := m.never.find(a); ok {
				p.note("never-block")
				return true
			}
		}
		return false
	}
	near := p.srcMAC
	if port == wire.WAN {
		near = p.dstMAC
	}
	_, fromCut := m.quarantine.find(src)
	_, toCut := m.quarantine.find(dst)
	if (m.macs[near] || fromCut || toCut) && !protected() {
		return stop(wire.DropQuarantine, 0)
	}
	switch m.flows[p.key()] {
	case wire.DropFlow:
		if !protected() {
			return stop(wire.DropFlowVerdict, 0)
		}
	case wire.Cut:
		if !p.first && !p.later {
			return pass("cut")
		}
	}
	if list, ok := m.block.find(src); ok {
		if !protected() {
			return stop(wire.DropBlockedSource, list)
		}
	} else if list, ok := m.block.find(dst); ok && !protected() {
		return stop(wire.DropBlockedDestination, list)
	}
	if m.zones != nil && !p.later && p.proto != 0 && (p.proto != protoTCP || p.syn && !p.ack) {
		switch action, id := m.judgeZones(p, port); action {
		case ZoneDrop:
			if !protected() {
				return stop(wire.DropZone, id)
			}
		case ZoneCount:
			p.note("zone-counted")
			extra = append(extra, fmt.Sprintf("drop %v list %d 1/%d", wire.ZoneCounted, id, size))
		}
	}
	return pass("no-socket")
}

func (m *model) judgeZones(p *modelPacket, port wire.Port) (ZoneAction, uint32) {
	nearAddr, farAddr, mac := plain(p.src), plain(p.dst), p.srcMAC
	if port == wire.WAN {
		nearAddr, farAddr, mac = farAddr, nearAddr, p.dstMAC
	}
	near := m.nearZone(mac, p.vlan[0], nearAddr)
	far := m.zones.WAN
	if z, ok := m.zoneSet.find(farAddr); ok {
		far = int(z)
	}
	from, to := near, far
	if port == wire.WAN {
		from, to = far, near
	}
	action, id, _ := m.judgePair(from, to, p.proto, p.dstPort)
	if action == ZoneDrop && p.proto != protoTCP {
		if question, _, byRule := m.judgePair(to, from, p.proto, p.srcPort); byRule && question != ZoneDrop {
			return ZonePass, 0
		}
	}
	return action, id
}

func (m *model) nearZone(mac [6]byte, vlan uint16, a netip.Addr) int {
	for i := range m.zones.Zones {
		for _, x := range m.zones.Zones[i].MACs {
			if x == mac {
				return i
			}
		}
	}
	for i := range m.zones.Zones {
		for _, v := range m.zones.Zones[i].VLANs {
			if v == vlan {
				return i
			}
		}
	}
	if z, ok := m.zoneSet.find(a); ok {
		return int(z)
	}
	return m.zones.LAN
}

func (m *model) judgePair(from, to int, proto uint8, port uint16) (ZoneAction, uint32, bool) {
	for i := range m.zones.Pairs {
		pair := &m.zones.Pairs[i]
		if pair.From != from || pair.To != to {
			continue
		}
		for _, r := range pair.Rules {
			all := r.Low == 0 && r.High == 0
			if (r.Proto == 0 || r.Proto == proto) && (all || r.Low <= port && port <= r.High) {
				return r.Action, r.ID, true
			}
		}
		return pair.Default, pair.ID, false
	}
	return ZonePass, 0, false
}
