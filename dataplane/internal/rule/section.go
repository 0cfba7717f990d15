package rule

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// section is what a rule wants to see in one buffer.
type section struct {
	buf   Buffer
	dir   uint8 // 0, or the one direction asked for: maskServer, maskClient
	trans []transform
	items []*item
	at    int // offset in the rule's text, for messages
}

// itemKind is what an item does.
type itemKind uint8

const (
	itContent itemKind = iota
	itPCRE
	itIsDataAt
	itByteTest
	itByteJump
	itByteExtract
	itByteMath
	itBSize
	itBase64
	itAbsent
	itDataset
)

// operand is a number, or the value of a variable made by byte_extract or byte_math.
type operand struct {
	val int64
	v   int16 // number of the variable, -1 for none
}

func fixed(n int64) operand { return operand{val: n, v: -1} }

// item is one step of looking at a buffer.
type item struct {
	kind     itemKind
	neg      bool
	relative bool // counts from where the item before ended
	next     bool // the item after this one is relative to it
	at       int

	// content
	pat, low                                []byte // low: in small letters, with nocase
	nocase                                  bool
	pivot                                   int // place of the rarest byte of low
	raw                                     bool
	starts, ends                            bool
	hasOffset, hasDepth, hasDist, hasWithin bool
	offset, depth, distance, within         operand
	fast, fastOnly, fastChop                bool
	fastOff, fastLen                        int

	pcre   *pcreItem
	num    *byteOp
	size   cmpOp
	b64    *base64Op
	data   *datasetOp
	elseOK bool // absent:or_else
}

// current gives the section that content goes to now, and makes it.
func (p *parser) current() *section {
	if p.section == nil {
		p.use(BufPayload, 0)
	}
	if len(p.trans) > 0 {
		s := p.section
		if len(s.items) > 0 {
			p.newSection(s.buf, s.dir)
			s = p.section
		}
		s.trans = append(s.trans, p.trans...)
		p.trans = nil
		p.mergeSection()
	}
	return p.section
}

// use makes b the sticky buffer. A buffer with instances starts a new section each time, as it may be another instance;
// others go on where they were.
func (p *parser) use(b Buffer, dir uint8) {
	if !b.Many() {
		for _, s := range p.r.sections {
			if s.buf == b && s.dir == dir && len(s.trans) == 0 {
				p.section = s
				return
			}
		}
	}
	p.newSection(b, dir)
}

func (p *parser) newSection(b Buffer, dir uint8) {
	p.section = &section{buf: b, dir: dir, at: p.at}
	p.r.sections = append(p.r.sections, p.section)
}

// mergeSection joins a section that got transforms with an earlier one of the same buffer and transforms.
func (p *parser) mergeSection() {
	s := p.section
	if s.buf.Many() {
		return
	}
	for _, o := range p.r.sections {
		if o == s || o.buf != s.buf || o.dir != s.dir || !sameTransforms(o.trans, s.trans) {
			continue
		}
		p.r.sections = slices.DeleteFunc(p.r.sections, func(x *section) bool { return x == s })
		p.section = o
		return
	}
}

func sameTransforms(a, b []transform) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].name != b[i].name || a[i].arg != b[i].arg {
			return false
		}
	}
	return true
}

// push adds an item to the current section.
func (p *parser) push(it *item) {
	s := p.current()
	if it.relative && it.kind != itContent && !p.sticky && p.lastSec != nil {
		// without a sticky buffer what is relative goes where the item before it went
		s = p.lastSec
	}
	it.at = p.at
	s.items = append(s.items, it)
	p.lastSec = s
}

// moveLast puts the last content into the section of b: what the old-style modifiers do.
func (p *parser) moveLast(b Buffer) error {
	it := p.last
	if it == nil || it.kind != itContent {
		return errors.New("no content before it")
	}
	from := p.sectionOf(it)
	if from == nil || from.buf != BufPayload {
		return errors.New("the content before it is in a sticky buffer already")
	}
	for i, x := range from.items {
		if x == it {
			from.items = append(from.items[:i:i], from.items[i+1:]...)
			break
		}
	}
	if it.raw {
		return errors.New("rawbytes can't be used with it")
	}
	stay := p.section
	p.sectionFor(b)
	p.section.items = append(p.section.items, it)
	p.lastSec = p.section
	p.section = stay
	return nil
}

// sectionFor makes the one section of b that old-style modifiers share the current one.
func (p *parser) sectionFor(b Buffer) {
	for _, s := range p.r.sections {
		if s.buf == b && s.dir == 0 && len(s.trans) == 0 {
			p.section = s
			return
		}
	}
	p.newSection(b, 0)
}

func (p *parser) sectionOf(it *item) *section {
	for _, s := range p.r.sections {
		for _, x := range s.items {
			if x == it {
				return s
			}
		}
	}
	return nil
}

// check looks at a section when the rule is read whole, and links relative items.
func (s *section) check() error {
	for i, it := range s.items {
		if it.relative && i > 0 {
			// an item that moves nothing passes on the position of the one before
			s.items[i-1].next = true
		}
		if it.kind == itBase64 && it.b64.inner != nil {
			if len(it.b64.inner.items) == 0 {
				return errors.New("base64_data has nothing to look for")
			}
			if err := it.b64.inner.check(); err != nil {
				return err
			}
		}
		if it.kind != itContent {
			continue
		}
		it.pat = canonical(s.buf, it.pat)
		if it.nocase {
			it.low = make([]byte, len(it.pat))
			for i, c := range it.pat {
				it.low[i] = fold[c]
			}
			it.pivot = rarest(it.low)
		}
		if it.hasDist || it.hasWithin {
			if it.fastOnly {
				return errors.New("fast_pattern:only with distance or within")
			}
		}
		if it.starts && (it.hasOffset || it.hasDepth || it.hasDist || it.hasWithin) {
			return errors.New("startswith can't be used with offset, depth, distance or within")
		}
		n := int64(len(it.pat))
		if it.hasDepth && it.depth.v < 0 && it.depth.val < n {
			return fmt.Errorf("depth %d is smaller than the content (%d bytes)", it.depth.val, n)
		}
		if it.hasWithin && it.within.v < 0 && it.within.val < n {
			return fmt.Errorf("within %d is smaller than the content (%d bytes)", it.within.val, n)
		}
		if (it.hasOffset || it.hasDepth) && (it.hasDist || it.hasWithin) {
			return errors.New("offset or depth with distance or within")
		}
	}
	// Links over items that don't move the position: content A; isdataat:1,relative; content B; distance:0
	linked := false
	for i := len(s.items) - 1; i >= 0; i-- {
		it := s.items[i]
		if linked && !it.moves() {
			it.next = true
		}
		if linked && it.moves() {
			it.next = true
			linked = false
		}
		if it.relative {
			linked = true
		}
	}
	return nil
}

// moves says whether the item sets the position that relative items count from.
func (it *item) moves() bool {
	switch it.kind {
	case itContent, itPCRE:
		return !it.neg
	case itByteJump, itByteExtract, itByteMath:
		return true
	default:
		return false
	}
}

// canonical brings a content into the form in which the buffer is written: hashes in small letters, serial numbers in
// capitals with colons.
func canonical(b Buffer, pat []byte) []byte {
	switch b {
	case BufTLSCertFingerprint, BufJA3Hash, BufJA3SHash, BufSSHHassh, BufSSHHasshServer, BufFileMD5, BufFileSHA1, BufFileSHA256, BufEmailBodyMD5:
		return bytes.ToLower(pat)
	case BufTLSCertSerial:
		pat = bytes.ToUpper(pat)
		if len(pat) > 2 && !bytes.ContainsRune(pat, ':') {
			var out []byte
			for i, c := range pat {
				if i > 0 && i%2 == 0 {
					out = append(out, ':')
				}
				out = append(out, c)
			}
			return out
		}
	default:
	}
	return pat
}
