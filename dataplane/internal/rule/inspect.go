package rule

import (
	"bytes"
)

// maxSteps bounds the steps of looking for the items of one section: Suricata's recursion limit.
const maxSteps = 3000

// maxBase64 bounds what base64_decode gives, in bytes.
const maxBase64 = 65536

// inspection looks for the items of a section in a buffer.
type inspection struct {
	m     *Matcher
	vars  []int64 // results of byte_extract and byte_math
	steps int
	off   int64 // position of the buffer's first byte in the whole
	ends  bool  // the buffer's end is the whole's end
	reach int   // where the last positive content ended
	// little is the byte order that DCE/RPC announced.
	little bool
	caught []caught
	b64    []byte
}

// caught is a group that pcre kept.
type caught struct {
	flow  bool
	name  string
	value []byte
}

func (l *inspection) reset() {
	l.caught = l.caught[:0]
	l.little = false
}

func (l *inspection) dce(tx Transaction) {
	if d, ok := tx.(DCETransaction); ok {
		l.little = d.LittleEndian()
	}
}

// keepVars puts what the rule's expressions caught into the flow.
func (l *inspection) keepVars(f *FlowState) {
	if f == nil {
		return
	}
	for _, c := range l.caught {
		list := &f.pktVars
		if c.flow {
			list = &f.vars
		}
		setVar(list, c.name, c.value)
	}
}

// maxVars bounds the variables of a flow, maxVarBytes the bytes of one.
const (
	maxVars     = 64
	maxVarBytes = 256
)

func setVar(list *[]FlowVar, name string, value []byte) {
	value = value[:min(len(value), maxVarBytes)]
	for i := range *list {
		if v := &(*list)[i]; v.Name == name {
			v.Value = append(v.Value[:0], value...)
			return
		}
	}
	if len(*list) < maxVars {
		*list = append(*list, FlowVar{Name: name, Value: bytes.Clone(value)})
	}
}

// section says whether all items of sec are found in b, which begins at position off of the whole buffer.
func (l *inspection) section(sec *section, b []byte, off uint64, whole bool) bool {
	if len(sec.trans) > 0 && sec.buf < firstTxBuffer {
		l.m.trans.reset()
		b = l.m.trans.apply(sec.trans, b)
	}
	l.steps = maxSteps
	l.off, l.ends = int64(off), whole
	ok := l.run(sec.items, b, 0)
	if l.steps < 0 {
		l.m.ran.StepLimits++
	}
	return ok
}

func (l *inspection) value(o operand) int64 {
	if o.v >= 0 {
		return l.vars[o.v]
	}
	return o.val
}

// run looks for items in b; relative ones count from pos.
func (l *inspection) run(items []*item, b []byte, pos int) bool {
	for i, it := range items {
		l.steps--
		if l.steps < 0 {
			return false
		}
		switch it.kind {
		case itContent:
			lo, hi := l.window(it, len(b), pos)
			at := it.find(b, lo, hi)
			if it.neg {
				if at >= 0 {
					return false
				}
				continue
			}
			if !it.next || i == len(items)-1 {
				if at < 0 {
					return false
				}
				pos = at + len(it.pat)
				l.reach = max(l.reach, pos)
				continue
			}
			for at >= 0 {
				if l.run(items[i+1:], b, at+len(it.pat)) {
					l.reach = max(l.reach, at+len(it.pat))
					return true
				}
				if l.steps < 0 {
					return false
				}
				at = it.find(b, at+1, hi)
			}
			return false
		case itPCRE:
			base := 0
			if it.relative {
				base = min(pos, len(b))
			}
			sub := b[base:]
			start := 0
			kept := len(l.caught)
			for {
				if !l.m.re.Match(it.pcre.expr, sub, start) {
					if it.neg {
						break
					}
					return false
				}
				if it.neg {
					return false
				}
				from, to, _ := l.m.re.Span(0)
				l.catch(it, sub)
				if !it.next || i == len(items)-1 {
					pos = base + to
					l.reach = max(l.reach, pos)
					break
				}
				if l.run(items[i+1:], b, base+to) {
					l.reach = max(l.reach, base+to)
					return true
				}
				l.caught = l.caught[:kept]
				l.steps--
				if l.steps < 0 || from+1 > len(sub) {
					return false
				}
				start = from + 1
			}
		case itIsDataAt:
			n := l.value(it.num.value)
			var ok bool
			if it.relative {
				ok = int64(pos)+n <= int64(len(b))
			} else {
				ok = n < int64(len(b))
			}
			if ok == it.neg {
				return false
			}
		case itByteTest:
			if !l.byteTest(it, b, pos) {
				return false
			}
		case itByteJump:
			var ok bool
			if pos, ok = l.byteJump(it, b, pos); !ok {
				return false
			}
		case itByteExtract:
			v, end, ok := l.number(it, b, pos)
			if !ok {
				return false
			}
			v *= it.num.mult
			if a := it.num.align; a > 0 && v%a != 0 {
				v += a - v%a
			}
			l.vars[it.num.result] = v
			pos = end
		case itByteMath:
			v, end, ok := l.number(it, b, pos)
			if !ok || !l.math(it.num, v) {
				return false
			}
			pos = end
		case itBSize:
			if !it.size.match(uint64(len(b))) {
				return false
			}
		case itBase64:
			from := it.b64.offset
			if it.relative {
				from += pos
			}
			if from >= len(b) {
				return false
			}
			enc := b[from:]
			if it.b64.bytes > 0 && it.b64.bytes < len(enc) {
				enc = enc[:it.b64.bytes]
			}
			l.b64 = decodeBase64(l.b64[:0], enc, true)
			if len(l.b64) == 0 {
				return false
			}
			if it.b64.inner != nil {
				off := l.off
				l.off = 0
				ok := l.run(it.b64.inner.items, l.b64, 0)
				l.off = off
				if !ok {
					return false
				}
			}
		case itAbsent:
			if !it.elseOK {
				return false
			}
		case itDataset:
			if !it.data.match(l.m, b) {
				return false
			}
		}
	}
	return true
}

// window is where a content may lie: from lo up to hi.
func (l *inspection) window(it *item, n, pos int) (lo, hi int) {
	a, z := int64(0), int64(n)
	switch {
	case it.hasDist || it.hasWithin:
		dist := int64(0)
		if it.hasDist {
			dist = l.value(it.distance)
		}
		a = max(int64(pos)+dist, 0)
		if it.hasWithin {
			z = min(z, int64(pos)+dist+l.value(it.within))
		}
	default:
		if it.hasOffset {
			a = l.value(it.offset)
		}
		if it.hasDepth {
			z = a + l.value(it.depth)
		}
		if it.starts {
			z = int64(len(it.pat))
		}
		if l.off != 0 && (it.hasOffset || it.hasDepth || it.starts) {
			// positions are those of the whole, the window begins later
			a -= l.off
			if it.hasDepth || it.starts {
				z -= l.off
			}
		}
		a = max(a, 0)
		z = min(z, int64(n))
	}
	if it.ends && !l.ends && !it.neg {
		return n, 0
	}
	if a > z {
		return n, 0
	}
	return int(a), int(z)
}

// find gives the first place of the content in b[lo:hi], -1 for none.
func (it *item) find(b []byte, lo, hi int) int {
	n := len(it.pat)
	if hi-lo < n {
		return -1
	}
	if it.ends {
		at := len(b) - n
		if at < lo || at+n > hi || !it.equal(b[at:]) {
			return -1
		}
		return at
	}
	w := b[lo:hi]
	if !it.nocase {
		i := bytes.Index(w, it.pat)
		if i < 0 {
			return -1
		}
		return lo + i
	}
	i := it.findFold(w)
	if i < 0 {
		return -1
	}
	return lo + i
}

// findFold looks for a content without regard to case: it jumps from one place of the content's rarest byte, in either
// case, to the next, and compares there.
func (it *item) findFold(w []byte) int {
	n, at := len(it.low), it.pivot
	last := len(w) - n // the last place where the content may begin
	if last < 0 {
		return -1
	}
	small := it.low[at]
	big := small
	if small >= 'a' && small <= 'z' {
		big -= 'a' - 'A'
	}
	span := w[at : last+at+1]
	nextSmall, nextBig := -1, -1
	for i := 0; i <= last; i++ {
		if nextSmall < i {
			nextSmall = indexFrom(span, small, i)
		}
		next := nextSmall
		if big != small {
			if nextBig < i {
				nextBig = indexFrom(span, big, i)
			}
			next = min(next, nextBig)
		}
		if next > last {
			return -1
		}
		i = next
		if it.equal(w[i:]) {
			return i
		}
	}
	return -1
}

// indexFrom gives the first place of c in b from i on; len(b) for none.
func indexFrom(b []byte, c byte, i int) int {
	j := bytes.IndexByte(b[i:], c)
	if j < 0 {
		return len(b)
	}
	return i + j
}

// rarest gives the place of the byte of a content in small letters that is likely to be the rarest in traffic.
func rarest(low []byte) int {
	const common = "etaoinsrhldcumfpgwybvkxjqz"
	best, score := 0, -1
	for i, c := range low {
		n := 0
		switch k := bytes.IndexByte([]byte(common), c); {
		case c == ' ' || c == 0 || c == 0xff:
			n = 5
		case k >= 0:
			n = k
		case c >= '0' && c <= '9' || c == '.' || c == '/' || c == '-' || c == '=' || c == ':' || c == '\r' || c == '\n':
			n = 22
		default:
			n = 40
		}
		if n > score {
			best, score = i, n
		}
	}
	return best
}

// fold maps capital ASCII letters to small ones.
var fold = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}()

// equal says whether b begins with the content.
func (it *item) equal(b []byte) bool {
	if !it.nocase {
		return bytes.HasPrefix(b, it.pat)
	}
	if len(b) < len(it.low) {
		return false
	}
	for i, c := range it.low {
		if fold[b[i]] != c {
			return false
		}
	}
	return true
}

func (l *inspection) catch(it *item, b []byte) {
	for i := range it.pcre.captures {
		c := &it.pcre.captures[i]
		from, to, ok := l.m.re.Span(c.group)
		if ok {
			l.caught = append(l.caught, caught{c.flow, c.name, b[from:to]})
		}
	}
}

// number reads the value of a byte keyword; end is behind its bytes.
func (l *inspection) number(it *item, b []byte, pos int) (v int64, end int, ok bool) {
	o := it.num
	at := l.value(o.offset)
	if it.relative {
		at += int64(pos)
	}
	n := l.value(o.bytes)
	if at < 0 || n < 0 || n > 23 || at+n > int64(len(b)) {
		return 0, 0, false
	}
	raw := b[at : at+n]
	end = int(at + n)
	if o.str {
		if v, ok = parseDigits(raw, o.base); !ok {
			return 0, 0, false
		}
	} else {
		if n > 8 {
			return 0, 0, false
		}
		little := o.little
		if o.dce {
			little = l.little
		}
		var u uint64
		if little {
			for i := len(raw) - 1; i >= 0; i-- {
				u = u<<8 | uint64(raw[i])
			}
		} else {
			for _, c := range raw {
				u = u<<8 | uint64(c)
			}
		}
		v = int64(u)
	}
	if o.hasMask {
		v = int64((uint64(v) & uint64(o.mask)) >> o.shift)
	}
	return v, end, true
}

// parseDigits reads a number in text as strtoull does: blanks, then digits up to the first other byte.
func parseDigits(b []byte, base int) (int64, bool) {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] >= 9 && b[i] <= 13) {
		i++
	}
	neg := false
	if i < len(b) && (b[i] == '-' || b[i] == '+') {
		neg = b[i] == '-'
		i++
	}
	if (base == 16 || base == 0) && i+2 < len(b) && b[i] == '0' && b[i+1]|0x20 == 'x' {
		base = 16
		i += 2
	}
	if base == 0 {
		base = 10
	}
	var v uint64
	any := false
	for ; i < len(b); i++ {
		var d int
		switch c := b[i]; {
		case c >= '0' && c <= '9':
			d = int(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = int(c|0x20-'a') + 10
		default:
			d = 99
		}
		if d >= base {
			break
		}
		if v > (1<<64-1-uint64(d))/uint64(base) {
			return 0, false
		}
		v = v*uint64(base) + uint64(d)
		any = true
	}
	if neg {
		v = -v
	}
	return int64(v), any
}

func (l *inspection) byteTest(it *item, b []byte, pos int) bool {
	v, _, ok := l.number(it, b, pos)
	if !ok {
		return false
	}
	a, w := uint64(v), uint64(l.value(it.num.value))
	var hit bool
	switch it.num.oper {
	case '<':
		hit = a < w
	case '>':
		hit = a > w
	case '=':
		hit = a == w
	case 'L':
		hit = a <= w
	case 'G':
		hit = a >= w
	case '&':
		hit = a&w != 0
	case '^':
		hit = a^w != 0
	}
	return hit != it.num.neg
}

func (l *inspection) byteJump(it *item, b []byte, pos int) (int, bool) {
	o := it.num
	v, end, ok := l.number(it, b, pos)
	if !ok {
		return 0, false
	}
	if l.value(o.bytes) == 0 {
		v = 0
	}
	v *= o.mult
	if o.align > 0 && v%o.align != 0 {
		v += o.align - v%o.align
	}
	to := int64(end)
	switch {
	case o.begin:
		to = 0
	case o.fromEnd:
		to = int64(len(b))
	}
	to += v + l.value(o.post)
	if to < 0 {
		if l.value(o.post) >= 0 {
			return 0, false
		}
		to = 0 // a negative post_offset ends at the buffer's start
	}
	if to > int64(len(b)) || to == int64(len(b)) && !o.fromEnd {
		return 0, false
	}
	return int(to), true
}

func (l *inspection) math(o *byteOp, v int64) bool {
	a, w := uint64(v), uint64(l.value(o.value))
	switch o.oper {
	case '+':
		a += w
	case '-':
		a -= w
	case '*':
		a *= w
	case '/':
		if w == 0 {
			return false
		}
		a /= w
	case 'l':
		if w < 64 {
			a <<= w
		} else {
			a = 0
		}
	case 'r':
		if w < 64 {
			a >>= w
		} else {
			a = 0
		}
	}
	l.vars[o.result] = int64(a)
	return true
}

// decodeBase64 decodes as much of enc as is well-formed and appends it to dst. lax skips bytes that are not of the
// alphabet (RFC 2045), else the first of them ends it (RFC 4648).
func decodeBase64(dst, enc []byte, lax bool) []byte {
	var (
		acc  uint32
		have int
	)
	for _, c := range enc {
		d := b64digit[c]
		if d == 0xff {
			if c == '=' {
				break
			}
			if lax && (c == '\r' || c == '\n' || c == ' ' || c == '\t') {
				continue
			}
			break
		}
		acc = acc<<6 | uint32(d)
		if have++; have == 4 {
			dst = append(dst, byte(acc>>16), byte(acc>>8), byte(acc))
			acc, have = 0, 0
			if len(dst) >= maxBase64 {
				return dst
			}
		}
	}
	switch have {
	case 2:
		dst = append(dst, byte(acc>>4))
	case 3:
		dst = append(dst, byte(acc>>10), byte(acc>>2))
	}
	return dst
}

var b64digit = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range alphabet {
		t[alphabet[i]] = byte(i)
	}
	return t
}()
