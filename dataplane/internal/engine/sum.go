package engine

import (
	"github.com/kadomori/kadomori/dataplane/internal/packet"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// sumWatch decides in Auto whether checksums mean anything: Suricata looks at the first 1000 packets and stops checking when
// more than one in ten is wrong.
type sumWatch struct {
	seen, wrong int
	off         bool
	good, bad   rule.Sums // of the packet at hand
}

const (
	sumSample = 1000
	sumLimit  = 10 // one in so many
)

// badSums checks the packet at hand; true when its receiver would throw it away, so that it must not get into a stream.
func (w *Worker) badSums() bool {
	s := &w.sums
	s.good, s.bad = 0, 0
	p := &w.pkt
	if w.engine.cfg.Checksums == ChecksumsNone || s.off || p.Fragment || !p.HasL4 || (p.Proto != packet.ProtoTCP && p.Proto != packet.ProtoUDP &&
		p.Proto != packet.ProtoICMP && p.Proto != packet.ProtoICMPv6) {
		return false
	}
	ip, l4 := p.Checksums()
	v4, v6 := rule.SumTCPv4, rule.SumTCPv6
	switch p.Proto {
	case packet.ProtoUDP:
		v4, v6 = rule.SumUDPv4, rule.SumUDPv6
	case packet.ProtoICMP, packet.ProtoICMPv6:
		v4, v6 = rule.SumICMPv4, rule.SumICMPv6
	}
	own := v4
	if p.Version == 6 {
		own = v6
	} else {
		mark(&s.good, &s.bad, rule.SumIPv4, ip)
	}
	mark(&s.good, &s.bad, own, l4)
	wrong := !ip || !l4
	if w.engine.cfg.Checksums == ChecksumsAuto && s.seen < sumSample {
		s.seen++
		if wrong {
			s.wrong++
		}
		if s.seen == sumSample && s.wrong > sumSample/sumLimit {
			s.off = true
		}
	}
	// Only TCP is kept out: there a packet that the receiver drops would shift what it takes later. A datagram stands alone.
	return wrong && p.Proto == packet.ProtoTCP
}

func mark(good, bad *rule.Sums, k rule.Sums, ok bool) {
	if ok {
		*good |= k
	} else {
		*bad |= k
	}
}
