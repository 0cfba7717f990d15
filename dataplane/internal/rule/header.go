package rule

import (
	"errors"
	"fmt"
	"strings"
)

// ast is a rule's meaning as read, before variables are known.
type ast struct {
	head     header
	sections []*section // payload keywords by buffer, in order of first appearance
	tests    []txTest   // other keywords about transactions
	flow     flowSpec
	packet   []packetTest // keywords about the packet's headers
	bits     []bitOp      // flowbits, xbits, hostbits and flowint tests: judged before anything costly
	post     []bitOp      // what to do after a match
	limits   []*limitSpec // threshold and detection_filter
	appTests []appTest    // app-layer-protocol
	iprep    []iprepTest

	needPacket  bool // a keyword that only a packet has
	bypass      bool
	keepFiles   bool
	alertOnPass bool // the alert keyword: a pass rule that tells
	prefilter   bool // the prefilter keyword
	varNames    []string
}

// header is the part before the parenthesis.
type header struct {
	proto    protoSpec
	src, dst *addrExpr
	sp, dp   *portExpr
	both     bool // <>
	txBoth   bool // =>
}

// protoSpec is what the protocol word stands for.
type protoSpec struct {
	name       string
	any        bool      // ip: whatever is carried
	ether      bool      // frames that are not IP too (ether, arp)
	etherType  uint16    // arp
	version    uint8     // 4 or 6 when fixed
	transport  [4]uint64 // bit set of IANA numbers
	apps       AppSet    // not 0 for application protocols
	packetOnly bool      // tcp-pkt
	streamOnly bool      // tcp-stream
}

func (s *protoSpec) set(n uint8)      { s.transport[n>>6] |= 1 << (n & 63) }
func (s *protoSpec) has(n uint8) bool { return s.any || s.transport[n>>6]&(1<<(n&63)) != 0 }

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// transports of the application protocols; those not listed run over TCP.
var appTransports = map[App][]uint8{
	AppDNS: {protoTCP, protoUDP}, AppMDNS: {protoUDP}, AppLLMNR: {protoUDP, protoTCP}, AppNBNS: {protoUDP}, AppSSDP: {protoUDP},
	AppDHCP: {protoUDP}, AppNTP: {protoUDP}, AppTFTP: {protoUDP}, AppIKE: {protoUDP}, AppSNMP: {protoUDP, protoTCP},
	AppKRB5: {protoTCP, protoUDP}, AppSIP: {protoTCP, protoUDP}, AppQUIC: {protoUDP}, AppLDAP: {protoTCP, protoUDP},
	AppDCERPC: {protoTCP, protoUDP}, AppNFS: {protoTCP, protoUDP}, AppENIP: {protoTCP, protoUDP}, AppDNP3: {protoTCP},
	AppBitTorrentDHT: {protoUDP}, AppRDP: {protoTCP, protoUDP}, AppModbus: {protoTCP},
}

func parseProto(word string) (protoSpec, error) {
	s := protoSpec{name: word}
	switch word {
	case "ip", "pkthdr":
		s.any = true
	case "ip4", "ipv4":
		s.any, s.version = true, 4
	case "ip6", "ipv6":
		s.any, s.version = true, 6
	case "tcp":
		s.set(protoTCP)
	case "tcp-pkt":
		s.set(protoTCP)
		s.packetOnly = true
	case "tcp-stream":
		s.set(protoTCP)
		s.streamOnly = true
	case "udp":
		s.set(protoUDP)
	case "sctp":
		s.set(protoSCTP)
	case "icmp":
		s.set(protoICMP)
		s.set(protoICMPv6)
	case "icmpv4":
		s.set(protoICMP)
	case "icmpv6":
		s.set(protoICMPv6)
	case "ether":
		s.any, s.ether = true, true
	case "arp":
		s.any, s.ether, s.etherType = true, true, 0x0806
	default:
		apps, ok := AppByName(word)
		if !ok {
			return s, unsupported(fmt.Sprintf("unknown protocol %q", word))
		}
		s.apps = apps
		for a := App(0); a < appCount; a++ {
			if !apps.Has(a) {
				continue
			}
			t, ok := appTransports[a]
			if !ok {
				t = []uint8{protoTCP}
			}
			for _, n := range t {
				s.set(n)
			}
		}
	}
	return s, nil
}

// header reads action, protocol, addresses, ports and direction.
func (p *parser) header(open int) *Error {
	type word struct {
		s  string
		at int
	}
	var words []word
	depth, start := 0, -1
	for i := 0; i <= open; i++ {
		c := p.text[i]
		if i == open {
			c = ' '
		}
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		}
		space := (c == ' ' || c == '\t') && (depth <= 0 || i == open)
		if !space && start < 0 {
			start = i
		}
		if space && start >= 0 {
			words = append(words, word{p.text[start:i], start})
			start = -1
		}
	}
	if depth != 0 {
		return p.fail(0, "", errors.New("brackets of the header don't match"))
	}
	if len(words) == 0 {
		return p.fail(0, "", errors.New("no header"))
	}
	act, ok := actions[words[0].s]
	if !ok {
		err := fmt.Errorf("unknown action %q", words[0].s)
		if name, _, scoped := strings.Cut(words[0].s, ":"); scoped {
			if _, known := actions[name]; known || name == "accept" {
				err = unsupported(fmt.Sprintf("action with a scope (%s)", words[0].s))
			}
		} else if words[0].s == "config" || words[0].s == "accept" {
			err = unsupported("action " + words[0].s)
		}
		return p.fail(words[0].at, "", err)
	}
	p.r.Action = act
	if len(words) < 2 {
		return p.fail(open, "", errors.New("no protocol"))
	}
	h := &p.r.head
	var err error
	if name, _, hook := strings.Cut(words[1].s, ":"); hook {
		if _, e := parseProto(name); e == nil {
			return p.fail(words[1].at, "", unsupported(fmt.Sprintf("protocol with a hook (%s)", words[1].s)))
		}
	}
	if h.proto, err = parseProto(words[1].s); err != nil {
		return p.fail(words[1].at, "", err)
	}
	if len(words) == 2 {
		// "alert pkthdr (…)" and the like: any to any
		h.src, h.dst = &addrExpr{any: true}, &addrExpr{any: true}
		h.sp, h.dp = &portExpr{any: true}, &portExpr{any: true}
		return nil
	}
	if len(words) != 7 {
		return p.fail(words[len(words)-1].at, "", fmt.Errorf("the header has %d words, expected 7: action protocol source port direction destination port", len(words)))
	}
	if h.src, err = parseAddr(words[2].s); err != nil {
		return p.fail(words[2].at, "", err)
	}
	if h.sp, err = parsePort(words[3].s); err != nil {
		return p.fail(words[3].at, "", err)
	}
	switch words[4].s {
	case "->":
	case "<>":
		h.both = true
	case "=>":
		h.txBoth = true
	default:
		return p.fail(words[4].at, "", fmt.Errorf("unknown direction %q: expected -> or <> or =>", words[4].s))
	}
	if h.dst, err = parseAddr(words[5].s); err != nil {
		return p.fail(words[5].at, "", err)
	}
	if h.dp, err = parsePort(words[6].s); err != nil {
		return p.fail(words[6].at, "", err)
	}
	return nil
}

// splitList splits "[a,b,[c,d]]" at the commas of its own level. s is without the outer brackets.
func splitList(s string) ([]string, error) {
	var out []string
	depth, start := 0, 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) {
			switch s[i] {
			case '[':
				depth++
				continue
			case ']':
				depth--
				if depth < 0 {
					return nil, errors.New("] without [")
				}
				continue
			case ',':
				if depth > 0 {
					continue
				}
			default:
				continue
			}
		}
		part := strings.TrimSpace(s[start:i])
		if part == "" {
			return nil, errors.New("empty entry in a list")
		}
		out = append(out, part)
		start = i + 1
	}
	if depth != 0 {
		return nil, errors.New("[ without ]")
	}
	return out, nil
}
