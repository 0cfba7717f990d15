package conformance

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Build makes a capture (pcap, Ethernet) out of a script, so that a case can be written without tools:
//
//	# a comment
//	tcp 10.0.0.5:40000 > 192.0.2.1:80     opens a connection: handshake
//	> "GET / HTTP/1.1\r\nHost: x\r\n\r\n"   data from the left side, acknowledged by the right
//	< "HTTP/1.1 200 OK\r\n\r\n"             data from the right side
//	close                                 FIN from both; another tcp or udp line does it too
//	udp 10.0.0.5:40000 > 192.0.2.1:53     datagrams from here on
//	icmp 10.0.0.5 > 192.0.2.1             echo request for each > line, reply for each <
//	syn 10.0.0.5:40000 > 192.0.2.1:80     a lone SYN
//	wait 5s                               moves the clock
//
// Data is a Go string literal; > x:0102ff gives hex. Addresses may be IPv6. Each packet is one millisecond after the one before.
func Build(name, script string) ([]byte, error) {
	b := &pcapBuilder{now: 1_700_000_000_000_000}
	b.out = binary.LittleEndian.AppendUint32(b.out, 0xa1b2c3d4)
	b.out = append(b.out, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b.out = binary.LittleEndian.AppendUint32(b.out, 65535)
	b.out = binary.LittleEndian.AppendUint32(b.out, 1)
	for i, line := range strings.Split(script, "\n") {
		if err := b.line(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
	}
	b.finish()
	return b.out, nil
}

type pcapBuilder struct {
	out    []byte
	now    int64 // microseconds
	proto  string
	end    [2]netip.AddrPort
	seq    [2]uint32
	opened bool
	echo   uint16
	ipid   uint16
}

func (b *pcapBuilder) line(s string) error {
	if s == "" || s[0] == '#' {
		return nil
	}
	word, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "tcp", "udp", "icmp", "syn":
		b.finish()
		return b.open(word, rest)
	case "close":
		b.finish()
		return nil
	case "wait":
		var n int64
		if _, err := fmt.Sscanf(rest, "%ds", &n); err != nil || n < 0 {
			return fmt.Errorf("wait %q: expected a number of seconds like 5s", rest)
		}
		b.now += n * 1_000_000
		return nil
	case ">", "<":
		data, err := payload(rest)
		if err != nil {
			return err
		}
		if b.proto == "" {
			return fmt.Errorf("data before a tcp, udp or icmp line")
		}
		side := 0
		if word == "<" {
			side = 1
		}
		b.data(side, data)
		return nil
	}
	return fmt.Errorf("unknown word %q", word)
}

func payload(s string) ([]byte, error) {
	if h, ok := strings.CutPrefix(s, "x:"); ok {
		var out []byte
		h = strings.ReplaceAll(h, " ", "")
		if len(h)%2 != 0 {
			return nil, fmt.Errorf("odd number of hex digits")
		}
		for i := 0; i < len(h); i += 2 {
			v, err := strconv.ParseUint(h[i:i+2], 16, 8)
			if err != nil {
				return nil, fmt.Errorf("%q is not hex", h[i:i+2])
			}
			out = append(out, byte(v))
		}
		return out, nil
	}
	t, err := strconv.Unquote(s)
	if err != nil {
		return nil, fmt.Errorf("data %s is neither a string in quotes nor x:hex", s)
	}
	return []byte(t), nil
}

func (b *pcapBuilder) open(proto, s string) error {
	l, r, ok := strings.Cut(s, ">")
	if !ok {
		return fmt.Errorf("expected address:port > address:port")
	}
	for i, t := range []string{l, r} {
		t = strings.TrimSpace(t)
		if proto == "icmp" {
			a, err := netip.ParseAddr(t)
			if err != nil {
				return fmt.Errorf("%q is not an address", t)
			}
			b.end[i] = netip.AddrPortFrom(a, 0)
			continue
		}
		a, err := netip.ParseAddrPort(t)
		if err != nil {
			return fmt.Errorf("%q is not address:port", t)
		}
		b.end[i] = a
	}
	if b.end[0].Addr().Is4() != b.end[1].Addr().Is4() {
		return fmt.Errorf("addresses of two families")
	}
	b.proto = proto
	b.seq = [2]uint32{1000, 5000}
	b.echo = 0
	switch proto {
	case "syn":
		b.tcp(0, 2, nil)
		b.proto = ""
	case "tcp":
		b.tcp(0, 2, nil)
		b.seq[0]++
		b.tcp(1, 2|16, nil)
		b.seq[1]++
		b.tcp(0, 16, nil)
		b.opened = true
	}
	return nil
}

func (b *pcapBuilder) data(side int, data []byte) {
	switch b.proto {
	case "udp":
		h := make([]byte, 8, 8+len(data))
		binary.BigEndian.PutUint16(h[0:], b.end[side].Port())
		binary.BigEndian.PutUint16(h[2:], b.end[1-side].Port())
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
		b.packet(side, 17, append(h, data...), 6)
	case "icmp":
		proto, req, rep := byte(1), byte(8), byte(0)
		if b.end[0].Addr().Is6() {
			proto, req, rep = 58, 128, 129
		}
		h := []byte{req, 0, 0, 0, 0x12, 0x34, 0, 0}
		if side == 1 {
			h[0] = rep
		} else {
			b.echo++
		}
		binary.BigEndian.PutUint16(h[6:], b.echo)
		b.packet(side, proto, append(h, data...), 2)
	case "tcp":
		const mss = 1400
		for len(data) > 0 {
			n := min(len(data), mss)
			b.tcp(side, 8|16, data[:n])
			b.seq[side] += uint32(n)
			data = data[n:]
			b.tcp(1-side, 16, nil)
		}
	}
}

func (b *pcapBuilder) finish() {
	if b.proto == "tcp" && b.opened {
		for side := range 2 {
			b.tcp(side, 1|16, nil)
			b.seq[side]++
			b.tcp(1-side, 16, nil)
		}
	}
	b.opened = false
	b.proto = ""
}

func (b *pcapBuilder) tcp(side int, flags byte, data []byte) {
	h := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(h[0:], b.end[side].Port())
	binary.BigEndian.PutUint16(h[2:], b.end[1-side].Port())
	binary.BigEndian.PutUint32(h[4:], b.seq[side])
	if flags&16 != 0 {
		binary.BigEndian.PutUint32(h[8:], b.seq[1-side])
	}
	h[12] = 5 << 4
	h[13] = flags
	binary.BigEndian.PutUint16(h[14:], 64240)
	b.packet(side, 6, append(h, data...), 16)
}

func sum(s uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	return s
}

func folded(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// packet wraps a transport segment; sumAt is where its checksum goes.
func (b *pcapBuilder) packet(side int, proto byte, seg []byte, sumAt int) {
	src, dst := b.end[side].Addr(), b.end[1-side].Addr()
	s, d := src.AsSlice(), dst.AsSlice()
	pseudo := uint32(0)
	if proto != 1 {
		pseudo = sum(sum(0, s), d) + uint32(proto) + uint32(len(seg))
	}
	v := folded(sum(pseudo, seg))
	if v == 0 && proto == 17 {
		v = 0xffff
	}
	binary.BigEndian.PutUint16(seg[sumAt:], v)
	frame := make([]byte, 0, 14+40+len(seg))
	mac := [2][6]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
	frame = append(frame, mac[1-side][:]...)
	frame = append(frame, mac[side][:]...)
	if src.Is4() {
		b.ipid++
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(seg)))
		binary.BigEndian.PutUint16(h[4:], b.ipid)
		copy(h[12:], s)
		copy(h[16:], d)
		binary.BigEndian.PutUint16(h[10:], folded(sum(0, h)))
		frame = append(append(frame, 8, 0), h...)
	} else {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(seg)))
		copy(h[8:], s)
		copy(h[24:], d)
		frame = append(append(frame, 0x86, 0xdd), h...)
	}
	frame = append(frame, seg...)
	b.now += 1000
	b.out = binary.LittleEndian.AppendUint32(b.out, uint32(b.now/1_000_000))
	b.out = binary.LittleEndian.AppendUint32(b.out, uint32(b.now%1_000_000))
	b.out = binary.LittleEndian.AppendUint32(b.out, uint32(len(frame)))
	b.out = binary.LittleEndian.AppendUint32(b.out, uint32(len(frame)))
	b.out = append(b.out, frame...)
}
