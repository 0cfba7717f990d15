package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// packetTest is a keyword about a packet's headers.
type packetTest func(p *Packet) bool

// test adds a packet keyword.
func (p *parser) test(t packetTest) {
	p.r.packet = append(p.r.packet, t)
	p.r.needPacket = true
}

// packetNumber adds a keyword that compares one number of the packet; ok false means the packet has none.
func packetNumber(limit uint64, get func(*Packet) (uint64, bool), names ...string) {
	add(argNeed, func(p *parser, v string) error {
		c, err := parseCmp(v, limit, nil)
		if err != nil {
			return err
		}
		p.test(func(k *Packet) bool {
			n, ok := get(k)
			return ok && c.match(n)
		})
		return nil
	}, names...)
}

func isTCP(p *Packet) bool  { return p.Proto == protoTCP && p.L4Header != nil }
func isICMP(p *Packet) bool { return p.Proto == protoICMP || p.Proto == protoICMPv6 }

func init() {
	packetNumber(255, func(p *Packet) (uint64, bool) { return uint64(p.TTL), p.Version != 0 }, "ttl")
	packetNumber(255, func(p *Packet) (uint64, bool) { return uint64(p.TOS), p.Version == 4 }, "tos")
	packetNumber(1<<32-1, func(p *Packet) (uint64, bool) { return uint64(p.IPID), p.Version == 4 }, "id")
	packetNumber(1<<32-1, func(p *Packet) (uint64, bool) { return uint64(p.TCPSeq), isTCP(p) }, "seq", "tcp.seq")
	packetNumber(1<<32-1, func(p *Packet) (uint64, bool) { return uint64(p.TCPAck), isTCP(p) }, "ack", "tcp.ack")
	packetNumber(65535, func(p *Packet) (uint64, bool) { return uint64(p.TCPWindow), isTCP(p) }, "window", "tcp.window")
	packetNumber(65535, func(p *Packet) (uint64, bool) { return uint64(p.TCPMSS), isTCP(p) && p.TCPMSS != 0 }, "tcp.mss")
	packetNumber(14, func(p *Packet) (uint64, bool) { return uint64(p.TCPWScale), isTCP(p) && p.TCPWScale >= 0 }, "tcp.wscale")
	packetNumber(255, func(p *Packet) (uint64, bool) { return uint64(p.ICMPType), isICMP(p) }, "itype")
	packetNumber(255, func(p *Packet) (uint64, bool) { return uint64(p.ICMPCode), isICMP(p) }, "icode")
	packetNumber(65535, func(p *Packet) (uint64, bool) { return uint64(p.ICMPID), isICMP(p) && p.HasICMPID }, "icmp_id")
	packetNumber(65535, func(p *Packet) (uint64, bool) { return uint64(p.ICMPSeq), isICMP(p) && p.HasICMPID }, "icmp_seq")
	packetNumber(1<<32-1, func(p *Packet) (uint64, bool) {
		if p.Proto != protoICMPv6 || p.ICMPType != 2 || len(p.L4Header) < 8 {
			return 0, false
		}
		b := p.L4Header[4:8]
		return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3]), true
	}, "icmpv6.mtu")
	packetNumber(65535, func(p *Packet) (uint64, bool) { return uint64(len(p.Payload)), true }, "dsize")
	packetNumber(3, func(p *Packet) (uint64, bool) { return uint64(p.VLANs), true }, "vlan.layers")
	add(argNeed, (*parser).vlanID, "vlan.id")
	add(argNeed, (*parser).tcpFlags, "flags", "tcp.flags")
	add(argNeed, (*parser).fragBits, "fragbits")
	packetNumber(65535, func(p *Packet) (uint64, bool) { return uint64(p.FragOff) / 8, p.Version != 0 }, "fragoffset")
	add(argNeed, (*parser).ipOpts, "ipopts")
	add(argNeed, (*parser).ipProto, "ip_proto")
	add(argNone, func(p *parser, _ string) error {
		p.test(func(k *Packet) bool { return k.Version != 0 && k.Src == k.Dst })
		return nil
	}, "sameip")
	add(argNeed, func(p *parser, v string) error {
		t := strings.ToLower(v)
		switch t {
		case "4", "ipv4", "ip4":
			p.r.head.proto.version = 4
		case "6", "ipv6", "ip6":
			p.r.head.proto.version = 6
		default:
			return fmt.Errorf("%q is neither ipv4 nor ipv6", v)
		}
		return nil
	}, "l3_proto")
	for name, sum := range map[string]Sums{
		"ipv4-csum": SumIPv4, "tcpv4-csum": SumTCPv4, "tcpv6-csum": SumTCPv6, "udpv4-csum": SumUDPv4, "udpv6-csum": SumUDPv6,
		"icmpv4-csum": SumICMPv4, "icmpv6-csum": SumICMPv6,
	} {
		add(argNeed, func(p *parser, v string) error {
			s, _, err := unquote(v)
			if err != nil {
				return err
			}
			switch s {
			case "valid":
				p.test(func(k *Packet) bool { return k.SumsGood&sum != 0 })
			case "invalid":
				p.test(func(k *Packet) bool { return k.SumsBad&sum != 0 })
			default:
				return fmt.Errorf("%q is neither valid nor invalid", v)
			}
			return nil
		}, name)
	}
	add(argNeed, func(p *parser, v string) error { return p.event("decoder.", v) }, "decode-event", "engine-event")
	add(argNeed, func(p *parser, v string) error { return p.event("stream.", v) }, "stream-event")
	add(argNeed, (*parser).streamSize, "stream_size")
	add(argNeed, (*parser).flowAge, "flow.age")
	for i, dir := range []string{"toserver", "toclient"} {
		packetNumber(1<<62, func(p *Packet) (uint64, bool) { return p.FlowPackets[i], p.HasFlow }, "flow.pkts_"+dir)
		packetNumber(1<<62, func(p *Packet) (uint64, bool) { return p.FlowBytes[i], p.HasFlow }, "flow.bytes_"+dir)
	}
	add(argNeed, func(p *parser, v string) error { return p.flowCount(v, false) }, "flow.pkts")
	add(argNeed, func(p *parser, v string) error { return p.flowCount(v, true) }, "flow.bytes")
}

func (p *parser) vlanID(v string) error {
	val, layer := v, "any"
	if i := strings.LastIndexByte(v, ','); i >= 0 && !strings.HasSuffix(v, "]") {
		val, layer = v[:i], strings.TrimSpace(v[i+1:])
	}
	c, err := parseCmp(val, 4095, nil)
	if err != nil {
		return err
	}
	switch layer {
	case "any":
		p.test(func(k *Packet) bool {
			for i := range int(min(k.VLANs, 2)) {
				if c.match(uint64(k.VLAN[i])) {
					return true
				}
			}
			return false
		})
		return nil
	case "all":
		p.test(func(k *Packet) bool {
			for i := range int(min(k.VLANs, 2)) {
				if !c.match(uint64(k.VLAN[i])) {
					return false
				}
			}
			return k.VLANs > 0
		})
		return nil
	}
	n, err := strconv.ParseInt(layer, 10, 8)
	if err != nil || n < -2 || n > 1 {
		return fmt.Errorf("layer %q is none of any, all, 0, 1, -1, -2", layer)
	}
	p.test(func(k *Packet) bool {
		i := int(n)
		if i < 0 {
			i += int(k.VLANs)
		}
		return i >= 0 && i < int(min(k.VLANs, 2)) && c.match(uint64(k.VLAN[i]))
	})
	return nil
}

func (p *parser) flowAge(v string) error {
	c, err := parseCmp(v, 1<<32-1, nil)
	if err != nil {
		return err
	}
	p.test(func(k *Packet) bool { return k.HasFlow && c.match(uint64(max(k.Time-k.FlowStart, 0)/1e9)) })
	return nil
}

// flowCount reads "toserver,>5", "toclient,…", "either,…", "both,…".
func (p *parser) flowCount(v string, bytes bool) error {
	dir, val, ok := strings.Cut(v, ",")
	if !ok {
		return errors.New("expected direction,value")
	}
	c, err := parseCmp(val, 1<<62, nil)
	if err != nil {
		return err
	}
	get := func(k *Packet, i int) uint64 {
		if bytes {
			return k.FlowBytes[i]
		}
		return k.FlowPackets[i]
	}
	switch strings.TrimSpace(dir) {
	case "toserver":
		p.test(func(k *Packet) bool { return k.HasFlow && c.match(get(k, 0)) })
	case "toclient":
		p.test(func(k *Packet) bool { return k.HasFlow && c.match(get(k, 1)) })
	case "either":
		p.test(func(k *Packet) bool { return k.HasFlow && (c.match(get(k, 0)) || c.match(get(k, 1))) })
	case "both":
		p.test(func(k *Packet) bool { return k.HasFlow && c.match(get(k, 0)+get(k, 1)) })
	default:
		return fmt.Errorf("unknown direction %q", dir)
	}
	return nil
}

func (p *parser) tcpFlags(v string) error {
	letters := func(s string) (uint8, error) {
		var out uint8
		for _, c := range s {
			switch c {
			case 'F', 'f':
				out |= 1
			case 'S', 's':
				out |= 2
			case 'R', 'r':
				out |= 4
			case 'P', 'p':
				out |= 8
			case 'A', 'a':
				out |= 16
			case 'U', 'u':
				out |= 32
			case 'E', 'e', '2':
				out |= 64
			case 'C', 'c', '1':
				out |= 128
			case '0', ' ':
			default:
				return 0, fmt.Errorf("%q is no TCP flag", c)
			}
		}
		return out, nil
	}
	main, ignore, _ := strings.Cut(v, ",")
	mode := byte('=')
	main = strings.TrimSpace(main)
	if main != "" && strings.ContainsRune("+*!", rune(main[0])) {
		mode, main = main[0], main[1:]
	} else if n := len(main); n > 1 && strings.ContainsRune("+*!", rune(main[n-1])) {
		mode, main = main[n-1], main[:n-1]
	}
	want, err := letters(main)
	if err != nil {
		return err
	}
	skip, err := letters(ignore)
	if err != nil {
		return err
	}
	p.test(func(k *Packet) bool {
		if !isTCP(k) {
			return false
		}
		f := k.TCPFlags &^ skip
		switch mode {
		case '+':
			return f&want == want
		case '*':
			return f&want != 0
		case '!':
			return f&want != want
		}
		return f == want
	})
	return nil
}

func (p *parser) fragBits(v string) error {
	v = strings.TrimSpace(v)
	mode := byte('=')
	if v != "" && strings.ContainsRune("+*!", rune(v[0])) {
		mode, v = v[0], v[1:]
	}
	var want FragBits
	for _, c := range v {
		switch c {
		case 'M', 'm':
			want |= MoreFragments
		case 'D', 'd':
			want |= DontFragment
		case 'R', 'r':
			want |= ReservedBit
		case ' ':
		case '+', '*', '!':
			mode = byte(c)
		default:
			return fmt.Errorf("%q is none of M, D, R", c)
		}
	}
	p.test(func(k *Packet) bool {
		if k.Version != 4 {
			return false
		}
		switch mode {
		case '+':
			return k.FragBits&want == want
		case '*':
			return k.FragBits&want != 0
		case '!':
			return k.FragBits&want != want
		}
		return k.FragBits == want
	})
	return nil
}

func (p *parser) ipOpts(v string) error {
	want, ok := map[string]IPOpts{
		"rr": OptRR, "eol": OptEOL, "nop": OptNOP, "ts": OptTS, "sec": OptSec, "esec": OptESec, "lsrr": OptLSRR, "ssrr": OptSSRR,
		"satid": OptSatID, "any": OptAny,
	}[v]
	if !ok {
		return fmt.Errorf("%q is no IP option", v)
	}
	p.test(func(k *Packet) bool { return k.IPOpts&want != 0 })
	return nil
}

// protoNames are the words of /etc/protocols that rules use.
var protoNames = map[string]uint64{
	"icmp": 1, "igmp": 2, "ipip": 4, "ip-in-ip": 4, "tcp": 6, "egp": 8, "udp": 17, "ipv6": 41, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51,
	"ipv6-icmp": 58, "icmpv6": 58, "eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112, "sctp": 132,
}

func (p *parser) ipProto(v string) error {
	v = strings.TrimSpace(v)
	op := byte('=')
	if v != "" && strings.ContainsRune("!<>", rune(v[0])) {
		op, v = v[0], strings.TrimSpace(v[1:])
	}
	n, ok := protoNames[strings.ToLower(v)]
	if !ok {
		var err error
		if n, err = strconv.ParseUint(v, 10, 8); err != nil {
			return fmt.Errorf("%q is no IP protocol", v)
		}
	}
	c := cmpOp{op: op, lo: n}
	p.test(func(k *Packet) bool { return k.Version != 0 && c.match(uint64(k.Proto)) })
	return nil
}

func (p *parser) event(prefix, v string) error {
	name := strings.ToLower(strings.TrimSpace(v))
	for _, x := range []string{"decoder.", "stream."} {
		if strings.HasPrefix(name, x) {
			prefix = ""
		}
	}
	id := EventID(prefix + name)
	p.test(func(k *Packet) bool {
		for _, e := range k.Events {
			if e == id {
				return true
			}
		}
		return false
	})
	return nil
}

func (p *parser) streamSize(v string) error {
	w := splitArgs(v)
	if len(w) != 3 {
		return errors.New("expected side,operator,size")
	}
	n, err := strconv.ParseUint(w[2], 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not a size", w[2])
	}
	op, ok := map[string]byte{"<": '<', ">": '>', "=": '=', "!=": '!', "<=": 'L', ">=": 'G'}[w[1]]
	if !ok {
		return fmt.Errorf("unknown operator %q", w[1])
	}
	c := cmpOp{op: op, lo: n}
	var t packetTest
	client := func(k *Packet) bool { return c.match(uint64(k.StreamBytes[0])) }
	server := func(k *Packet) bool { return c.match(uint64(k.StreamBytes[1])) }
	switch w[0] {
	case "client":
		t = client
	case "server":
		t = server
	case "both":
		t = func(k *Packet) bool { return client(k) && server(k) }
	case "either":
		t = func(k *Packet) bool { return client(k) || server(k) }
	default:
		return fmt.Errorf("%q is none of client, server, both, either", w[0])
	}
	// Not a keyword that forces packet inspection: it goes with stream contents.
	p.r.packet = append(p.r.packet, func(k *Packet) bool { return k.Proto == protoTCP && k.HasFlow && t(k) })
	return nil
}
