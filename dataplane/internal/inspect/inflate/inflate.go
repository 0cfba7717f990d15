// Package inflate decompresses gzip, zlib and raw deflate (RFC 1950, 1951, 1952) as the bytes come. The parsers of HTTP and
// mail call it; the standard library only reads from a source that blocks. The trap: a few bytes may become megabytes, so the
// caller gives a limit and must look at Bomb.
package inflate

import "errors"

// ErrCorrupt says that the data is not what it claims to be.
var ErrCorrupt = errors.New("corrupt compressed data")

const (
	windowSize = 32 << 10
	maxInput   = 4 << 10 // of bytes kept back: more than the longest block header
	fastBits   = 9
)

// huff is a canonical Huffman code: counts and symbols by length, with a table for short codes.
type huff struct {
	count [16]uint16
	sym   [288]uint16
	fast  [1 << fastBits]uint16 // length<<12 | symbol would not fit 9 bits of symbol and 4 of length: symbol<<4 | length
}

func (h *huff) build(lengths []uint8) bool {
	h.count = [16]uint16{}
	for _, l := range lengths {
		h.count[l]++
	}
	clear(h.fast[:])
	left := 1
	for l := 1; l < 16; l++ {
		left = left<<1 - int(h.count[l])
		if left < 0 {
			return false
		}
	}
	var offs [16]uint16
	for l := 1; l < 15; l++ {
		offs[l+1] = offs[l] + h.count[l]
	}
	var next [16]uint16
	code := uint16(0)
	for l := 1; l < 16; l++ {
		if l > 1 {
			code = (code + h.count[l-1]) << 1
		}
		next[l] = code
	}
	h.count[0] = 0
	for s, l := range lengths {
		if l == 0 {
			continue
		}
		h.sym[offs[l]] = uint16(s)
		offs[l]++
		c := next[l]
		next[l]++
		if l <= fastBits {
			r := reverse(c, l)
			for i := int(r); i < 1<<fastBits; i += 1 << l {
				h.fast[i] = uint16(s)<<4 | uint16(l)
			}
		}
	}
	return true
}

func reverse(c uint16, n uint8) uint16 {
	var r uint16
	for range n {
		r = r<<1 | c&1
		c >>= 1
	}
	return r
}

type state uint8

const (
	stHead state = iota
	stBlock
	stStored
	stCodes
	stTrailer
	stDone
	stRaw
)

// Format is the wrapping.
type Format uint8

// The formats. Deflate takes both zlib's and the raw form, as browsers do.
const (
	Gzip Format = iota
	Deflate
)

// Reader decompresses one stream. The zero value must be Reset.
type Reader struct {
	in       []byte
	pos      int
	bits     uint64
	nbits    uint
	st       state
	format   Format
	last     bool
	left     int // of a stored block, or trailer bytes
	zlib     bool
	lit      huff
	dist     huff
	win      []byte
	w        int
	out      []byte
	produced int
	limit    int
	// Bomb: the limit was reached; what came after it is not decompressed.
	Bomb bool
	any  bool
}

// Reset begins a stream that may give at most limit bytes.
func (r *Reader) Reset(f Format, limit int) {
	r.in, r.pos, r.bits, r.nbits = r.in[:0], 0, 0, 0
	r.st, r.format, r.last, r.left, r.zlib = stHead, f, false, 0, false
	r.w, r.out, r.produced, r.limit, r.Bomb, r.any = 0, r.out[:0], 0, limit, false, false
	if r.win == nil {
		r.win = make([]byte, windowSize)
	}
}

// errMore says that the input ended inside of something.
var errMore = errors.New("more input needed")

// Write takes compressed bytes and gives what they become; valid until the next Write. After an error the stream is over.
func (r *Reader) Write(b []byte) ([]byte, error) {
	r.out = r.out[:0]
	if r.st == stRaw {
		return b, nil
	}
	if r.st == stDone || r.Bomb {
		return nil, nil
	}
	r.in = append(r.in[:copy(r.in, r.in[r.pos:])], b...)
	r.pos = 0
	for {
		pos, bits, nbits := r.pos, r.bits, r.nbits
		err := r.step()
		if errors.Is(err, errMore) {
			if r.st == stHead || r.st == stBlock { // read again as a whole; the others resume where they are
				r.pos, r.bits, r.nbits = pos, bits, nbits
			}
			if len(r.in)-r.pos > maxInput && r.st == stBlock {
				return r.out, ErrCorrupt
			}
			return r.out, nil
		}
		if err != nil {
			return r.out, err
		}
		if r.st == stDone || r.Bomb {
			return r.out, nil
		}
		if r.st == stRaw {
			r.out = append(r.out, r.in[r.pos:]...)
			r.pos = len(r.in)
			return r.out, nil
		}
	}
}

func (r *Reader) need(n uint) error {
	for r.nbits < n {
		if r.pos >= len(r.in) {
			return errMore
		}
		r.bits |= uint64(r.in[r.pos]) << r.nbits
		r.pos++
		r.nbits += 8
	}
	return nil
}

func (r *Reader) take(n uint) (uint32, error) {
	if err := r.need(n); err != nil {
		return 0, err
	}
	v := uint32(r.bits & (1<<n - 1))
	r.bits >>= n
	r.nbits -= n
	return v, nil
}

func (r *Reader) decode(h *huff) (int, error) {
	// Look at what is there; the code may be shorter than fastBits.
	for r.nbits < 15 && r.pos < len(r.in) {
		r.bits |= uint64(r.in[r.pos]) << r.nbits
		r.pos++
		r.nbits += 8
	}
	if e := h.fast[r.bits&(1<<fastBits-1)]; e != 0 {
		l := uint(e & 15)
		if l > r.nbits {
			return 0, errMore
		}
		r.bits >>= l
		r.nbits -= l
		return int(e >> 4), nil
	}
	code, first, index := 0, 0, 0
	bits := r.bits
	for l := uint(1); l < 16; l++ {
		if l > r.nbits {
			return 0, errMore
		}
		code |= int(bits & 1)
		bits >>= 1
		n := int(h.count[l])
		if code-n < first {
			r.bits >>= l
			r.nbits -= l
			return int(h.sym[index+code-first]), nil
		}
		index += n
		first = (first + n) << 1
		code <<= 1
	}
	return 0, ErrCorrupt
}

func (r *Reader) emit(c byte) {
	r.win[r.w&(windowSize-1)] = c
	r.w++
	r.out = append(r.out, c)
	r.produced++
	if r.produced >= r.limit {
		r.Bomb = true
	}
}

func (r *Reader) step() error {
	switch r.st {
	case stHead:
		return r.head()
	case stBlock:
		return r.block()
	case stStored:
		for r.left > 0 {
			c, err := r.take(8)
			if err != nil {
				return err
			}
			r.emit(byte(c))
			r.left--
			if r.Bomb {
				return nil
			}
		}
		r.blockEnd()
		return nil
	case stCodes:
		return r.codes()
	case stTrailer:
		for r.left > 0 {
			if _, err := r.take(8); err != nil {
				return err
			}
			r.left--
		}
		r.st = stHead // another gzip member may follow
		r.any = true
		return nil
	default:
	}
	return nil
}

func (r *Reader) blockEnd() {
	if !r.last {
		r.st = stBlock
		return
	}
	r.bits >>= r.nbits & 7
	r.nbits -= r.nbits & 7
	if r.format == Gzip {
		r.st, r.left = stTrailer, 8
		return
	}
	r.st = stDone
}

func (r *Reader) head() error {
	b := r.in[r.pos:]
	if r.format == Deflate {
		if len(b) < 2 {
			return errMore
		}
		if b[0]&15 == 8 && b[0]>>4 <= 7 && (int(b[0])<<8|int(b[1]))%31 == 0 {
			r.pos += 2
			r.zlib = true
		}
		r.st = stBlock
		return nil
	}
	if r.any { // after a member: more members, or rubbish that everybody ignores
		if len(b) == 0 {
			return errMore
		}
		if b[0] != 0x1f {
			r.st = stDone
			return nil
		}
	}
	if len(b) < 10 {
		if len(b) >= 2 && (b[0] != 0x1f || b[1] != 0x8b) {
			return ErrCorrupt
		}
		return errMore
	}
	if b[0] != 0x1f || b[1] != 0x8b || b[2] != 8 {
		return ErrCorrupt
	}
	n := 10
	if b[3]&4 != 0 {
		if len(b) < n+2 {
			return errMore
		}
		n += 2 + int(b[n]) + int(b[n+1])<<8
		if len(b) < n {
			return errMore
		}
	}
	for _, flag := range [2]byte{8, 16} {
		if b[3]&flag == 0 {
			continue
		}
		for {
			if n >= len(b) {
				return errMore
			}
			n++
			if b[n-1] == 0 {
				break
			}
		}
	}
	if b[3]&2 != 0 {
		n += 2
		if len(b) < n {
			return errMore
		}
	}
	r.pos += n
	r.bits, r.nbits = 0, 0
	r.st = stBlock
	return nil
}

var order = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func (r *Reader) block() error {
	v, err := r.take(3)
	if err != nil {
		return err
	}
	last := v&1 != 0
	switch v >> 1 {
	case 0:
		drop := r.nbits & 7
		r.bits >>= drop
		r.nbits -= drop
		n, err := r.take(16)
		if err != nil {
			return err
		}
		inv, err := r.take(16)
		if err != nil {
			return err
		}
		if n != ^inv&0xffff {
			return ErrCorrupt
		}
		r.left, r.st = int(n), stStored
	case 1:
		var l [288]uint8
		for i := range l {
			switch {
			case i < 144:
				l[i] = 8
			case i < 256:
				l[i] = 9
			case i < 280:
				l[i] = 7
			default:
				l[i] = 8
			}
		}
		r.lit.build(l[:])
		var d [30]uint8
		for i := range d {
			d[i] = 5
		}
		r.dist.build(d[:])
		r.st = stCodes
	case 2:
		if err := r.dynamic(); err != nil {
			return err
		}
		r.st = stCodes
	default:
		return ErrCorrupt
	}
	r.last = last
	return nil
}

func (r *Reader) dynamic() error {
	v, err := r.take(14)
	if err != nil {
		return err
	}
	nlen, ndist, ncode := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if nlen > 286 || ndist > 30 {
		return ErrCorrupt
	}
	var cl [19]uint8
	for i := range ncode {
		c, err := r.take(3)
		if err != nil {
			return err
		}
		cl[order[i]] = uint8(c)
	}
	var lengths [320]uint8
	if !r.lit.build(cl[:]) {
		return ErrCorrupt
	}
	for i := 0; i < nlen+ndist; {
		s, err := r.decode(&r.lit)
		if err != nil {
			return err
		}
		if s < 16 {
			lengths[i] = uint8(s)
			i++
			continue
		}
		var prev uint8
		var n uint32
		switch s {
		case 16:
			if i < 1 || i > len(lengths) {
				return ErrCorrupt
			}
			prev = lengths[i-1] //nolint:gosec // checked above
			n, err = r.take(2)
			n += 3
		case 17:
			n, err = r.take(3)
			n += 3
		default:
			n, err = r.take(7)
			n += 11
		}
		if err != nil {
			return err
		}
		if i+int(n) > nlen+ndist {
			return ErrCorrupt
		}
		for range n {
			lengths[i] = prev
			i++
		}
	}
	if !r.lit.build(lengths[:nlen]) || !r.dist.build(lengths[nlen:nlen+ndist]) {
		return ErrCorrupt
	}
	return nil
}

var (
	lenBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lenExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	dstBase  = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	dstExtra = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// codes decodes symbols until the block's end or the input's; a symbol that is cut off is read again with more input.
func (r *Reader) codes() error {
	for {
		pos, bits, nbits := r.pos, r.bits, r.nbits
		done, err := r.symbol()
		if err != nil {
			if errors.Is(err, errMore) {
				r.pos, r.bits, r.nbits = pos, bits, nbits
				return errMore
			}
			return err
		}
		if done {
			r.blockEnd()
			return nil
		}
		if r.Bomb {
			return nil
		}
	}
}

func (r *Reader) symbol() (done bool, err error) {
	s, err := r.decode(&r.lit)
	if err != nil {
		return false, err
	}
	if s < 256 {
		r.emit(byte(s))
		return false, nil
	}
	if s == 256 {
		return true, nil
	}
	s -= 257
	if s >= 29 {
		return false, ErrCorrupt
	}
	x, err := r.take(uint(lenExtra[s]))
	if err != nil {
		return false, err
	}
	n := int(lenBase[s]) + int(x)
	d, err := r.decode(&r.dist)
	if err != nil {
		return false, err
	}
	if d >= 30 {
		return false, ErrCorrupt
	}
	x, err = r.take(uint(dstExtra[d]))
	if err != nil {
		return false, err
	}
	back := int(dstBase[d]) + int(x)
	if back > r.w {
		return false, ErrCorrupt
	}
	for range n {
		r.emit(r.win[(r.w-back)&(windowSize-1)])
		if r.Bomb {
			return false, nil
		}
	}
	return false, nil
}
