// Package pcap reads capture files, classic pcap and pcapng, as a source of packets for the engine. The offline tool and
// tests call it. The trap: a file that is cut off gives all packets before the cut and then an error; callers must use both.
package pcap

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/kadomori/kadomori/dataplane/internal/packet"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// ErrTruncated says that the file ends in the middle of a packet or block.
var ErrTruncated = errors.New("file is truncated")

// maxPacket bounds a packet's captured length: what any writer's snap length allows (tcpdump's is 256 KiB).
const maxPacket = 1 << 20

// Packet is one packet of a file. Data is valid until the next call of Next.
type Packet struct {
	Data   []byte
	Time   int64 // nanoseconds since the Unix epoch
	Link   packet.Link
	Number uint64 // from 1
	// Len is the length on the wire; more than len(Data) when the capture was cut short.
	Len uint32
}

// iface is one interface of a pcapng section.
type iface struct {
	link   packet.Link
	snap   uint32
	units  uint64 // time units a second
	offset int64  // seconds
}

// Reader reads one file.
type Reader struct {
	r      *bufio.Reader
	order  binary.ByteOrder
	ng     bool
	nano   bool
	link   packet.Link
	ifaces []iface
	buf    []byte
	n      uint64
	off    int64
	name   string
}

// NewReader reads the file's head. name is for errors.
func NewReader(name string, r io.Reader) (*Reader, error) {
	p := &Reader{r: bufio.NewReaderSize(r, 256<<10), name: name, buf: make([]byte, 0, 2048)}
	head, err := p.r.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("read capture %s: no file header: %w", name, ErrTruncated)
	}
	switch binary.LittleEndian.Uint32(head) {
	case 0xa1b2c3d4:
		p.order = binary.LittleEndian
	case 0xd4c3b2a1:
		p.order = binary.BigEndian
	case 0xa1b23c4d:
		p.order, p.nano = binary.LittleEndian, true
	case 0x4d3cb2a1:
		p.order, p.nano = binary.BigEndian, true
	case 0x0a0d0d0a:
		p.ng = true
		p.order = binary.LittleEndian
		return p, nil
	default:
		return nil, fmt.Errorf("read capture %s: magic number %x is neither pcap nor pcapng", name, head)
	}
	b, err := p.take(24)
	if err != nil {
		return nil, fmt.Errorf("read capture %s: file header: %w", name, err)
	}
	if v := p.order.Uint16(b[4:]); v != 2 {
		return nil, fmt.Errorf("read capture %s: version %d is not 2", name, v)
	}
	p.link = packet.Link(p.order.Uint32(b[20:]) & 0xffff)
	if !p.link.Supported() {
		return nil, fmt.Errorf("read capture %s: link type %d is not supported", name, p.link)
	}
	return p, nil
}

// take reads n bytes into the reader's buffer.
func (p *Reader) take(n int) ([]byte, error) {
	if cap(p.buf) < n {
		p.buf = make([]byte, n+n/2)
	}
	b := p.buf[:n]
	got, err := io.ReadFull(p.r, b)
	p.off += int64(got)
	if err != nil {
		if errors.Is(err, io.EOF) && got == 0 {
			return nil, io.EOF
		}
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, ErrTruncated
		}
		return nil, err
	}
	return b, nil
}

func (p *Reader) fail(err error) error {
	return fmt.Errorf("read capture %s: packet %d, offset %d: %w", p.name, p.n+1, p.off, err)
}

// Next gives the next packet; io.EOF at the regular end.
func (p *Reader) Next(out *Packet) error {
	if p.ng {
		return p.nextNG(out)
	}
	h, err := p.take(16)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return p.fail(err)
	}
	sec, frac := p.order.Uint32(h), p.order.Uint32(h[4:])
	n, whole := p.order.Uint32(h[8:]), p.order.Uint32(h[12:])
	if n > maxPacket {
		return p.fail(fmt.Errorf("captured length %d is over %d", n, maxPacket))
	}
	out.Time = int64(sec) * 1e9
	if p.nano {
		out.Time += int64(frac)
	} else {
		out.Time += int64(frac) * 1000
	}
	b, err := p.take(int(n))
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrTruncated
		}
		if n > 0 {
			return p.fail(err)
		}
	}
	p.n++
	out.Data, out.Len, out.Number, out.Link = b, whole, p.n, p.link
	return nil
}

// Block types of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	maxBlock       = 16 << 20
	maxInterfaces  = 1024
)

func (p *Reader) nextNG(out *Packet) error {
	for {
		h, err := p.take(8)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return io.EOF
			}
			return p.fail(err)
		}
		typ := p.order.Uint32(h)
		raw := [4]byte(h[4:8])
		if typ == blockSection {
			m, err := p.take(4)
			if err != nil {
				return p.fail(eofTruncated(err))
			}
			switch binary.LittleEndian.Uint32(m) {
			case 0x1a2b3c4d:
				p.order = binary.LittleEndian
			case 0x4d3c2b1a:
				p.order = binary.BigEndian
			default:
				return p.fail(fmt.Errorf("byte-order magic %x is wrong", m))
			}
			p.ifaces = p.ifaces[:0]
		}
		n := p.order.Uint32(raw[:])
		if n < 12 || n%4 != 0 || n > maxBlock {
			return p.fail(fmt.Errorf("block length %d is wrong", n))
		}
		rest := int(n) - 8
		if typ == blockSection {
			rest -= 4
			if rest < 4 {
				return p.fail(fmt.Errorf("section block length %d is wrong", n))
			}
		}
		b, err := p.take(rest)
		if err != nil {
			return p.fail(eofTruncated(err))
		}
		if p.order.Uint32(b[len(b)-4:]) != n {
			return p.fail(fmt.Errorf("block's two lengths differ: %d and %d", n, p.order.Uint32(b[len(b)-4:])))
		}
		b = b[:len(b)-4]
		switch typ {
		case blockInterface:
			if err := p.addInterface(b); err != nil {
				return p.fail(err)
			}
		case blockEnhanced, blockPacket:
			ok, err := p.enhanced(b, typ == blockPacket, out)
			if err != nil {
				return p.fail(err)
			}
			if ok {
				return nil
			}
		case blockSimple:
			if len(p.ifaces) == 0 || len(b) < 4 {
				return p.fail(errors.New("simple packet block without an interface"))
			}
			n := min(p.order.Uint32(b), uint32(len(b)-4))
			if s := p.ifaces[0].snap; s > 0 {
				n = min(n, s)
			}
			p.n++
			*out = Packet{Data: b[4 : 4+n], Link: p.ifaces[0].link, Number: p.n, Len: p.order.Uint32(b)}
			return nil
		}
	}
}

func eofTruncated(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrTruncated
	}
	return err
}

func (p *Reader) addInterface(b []byte) error {
	if len(b) < 8 {
		return errors.New("interface block is too short")
	}
	if len(p.ifaces) >= maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	f := iface{link: packet.Link(p.order.Uint16(b)), snap: p.order.Uint32(b[4:]), units: 1e6}
	for o := b[8:]; len(o) >= 4; {
		code, n := p.order.Uint16(o), int(p.order.Uint16(o[2:]))
		padded := (n + 3) &^ 3
		if code == 0 || len(o) < 4+padded {
			break
		}
		v := o[4 : 4+n]
		switch {
		case code == 9 && n == 1: // if_tsresol
			f.units = resolution(v[0])
		case code == 14 && n == 8: // if_tsoffset
			f.offset = int64(p.order.Uint64(v))
		}
		o = o[4+padded:]
	}
	p.ifaces = append(p.ifaces, f)
	return nil
}

func resolution(v byte) uint64 {
	if v&0x80 != 0 {
		return 1 << min(v&0x7f, 62)
	}
	u := uint64(1)
	for range min(v, 18) {
		u *= 10
	}
	return u
}

func (p *Reader) enhanced(b []byte, old bool, out *Packet) (bool, error) {
	if len(b) < 20 {
		return false, errors.New("packet block is too short")
	}
	id := p.order.Uint32(b)
	if old {
		id = uint32(p.order.Uint16(b))
	}
	if int(id) >= len(p.ifaces) {
		return false, fmt.Errorf("interface %d is not described", id)
	}
	f := &p.ifaces[id]
	if !f.link.Supported() {
		return false, fmt.Errorf("link type %d is not supported", f.link)
	}
	ts := uint64(p.order.Uint32(b[4:]))<<32 | uint64(p.order.Uint32(b[8:]))
	n, whole := p.order.Uint32(b[12:]), p.order.Uint32(b[16:])
	if int(n) > len(b)-20 {
		return false, fmt.Errorf("captured length %d is over the block's", n)
	}
	p.n++
	sec, frac := ts/f.units, ts%f.units
	nanos := frac
	if f.units != 1e9 {
		nanos = uint64(float64(frac) * 1e9 / float64(f.units))
		if f.units <= 1e9 && 1e9%f.units == 0 {
			nanos = frac * (1e9 / f.units)
		}
	}
	out.Time = (int64(sec)+f.offset)*1e9 + int64(nanos)
	out.Data, out.Len, out.Number, out.Link = b[20:20+n], whole, p.n, f.link
	return true, nil
}

// Handler is what a file source can tell more to than wire.Handler: number and link type of each packet.
type Handler interface {
	wire.Handler
	HandlePcap(p *Packet) wire.Decision
}

// Source plays a file to a Handler.
type Source struct {
	// Name for errors.
	Name string
	// Open gives the file.
	Open func() (io.ReadCloser, error)
	// Packets is set to how many packets were read.
	Packets uint64
}

// Run reads the file to its end. For Handlers that are no pcap Handlers only Ethernet files can be played, all as from the LAN.
func (s *Source) Run(ctx context.Context, newHandler func(queue int) wire.Handler) error {
	f, err := s.Open()
	if err != nil {
		return fmt.Errorf("open capture: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	r, err := NewReader(s.Name, f)
	if err != nil {
		return err
	}
	h := newHandler(0)
	ph, isPcap := h.(Handler)
	var p Packet
	var lastTick int64
	for {
		err := r.Next(&p)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.Packets++
		if s.Packets%1024 == 0 && ctx.Err() != nil {
			return fmt.Errorf("read capture %s: %w", s.Name, ctx.Err())
		}
		switch {
		case isPcap:
			ph.HandlePcap(&p)
		case p.Link == packet.LinkEthernet:
			h.Handle(p.Data, wire.LAN, p.Time)
		default:
			return fmt.Errorf("read capture %s: link type %d needs a pcap handler", s.Name, p.Link)
		}
		if p.Time-lastTick >= 10e6 || p.Time < lastTick {
			lastTick = p.Time
			h.Tick(p.Time)
		}
	}
}
