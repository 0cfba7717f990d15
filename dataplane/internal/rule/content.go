package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

func init() {
	add(argNeed, (*parser).content, "content")
	add(argNeed, (*parser).uricontent, "uricontent")
	add(argNone, func(p *parser, _ string) error {
		return p.modify(func(it *item) error {
			if it.nocase {
				return errors.New("given twice")
			}
			it.nocase = true
			return nil
		})
	}, "nocase")
	add(argNone, func(p *parser, _ string) error {
		return p.modify(func(it *item) error { it.raw = true; return nil })
	}, "rawbytes")
	add(argNone, func(p *parser, _ string) error {
		return p.modify(func(it *item) error { it.starts = true; return nil })
	}, "startswith")
	add(argNone, func(p *parser, _ string) error {
		return p.modify(func(it *item) error { it.ends = true; return nil })
	}, "endswith")
	add(argNeed, func(p *parser, v string) error {
		return p.modify(func(it *item) (err error) {
			if it.hasOffset {
				return errors.New("given twice")
			}
			it.hasOffset = true
			it.offset, err = p.operand(v, 0, 65535)
			return err
		})
	}, "offset")
	add(argNeed, func(p *parser, v string) error {
		return p.modify(func(it *item) (err error) {
			if it.hasDepth {
				return errors.New("given twice")
			}
			it.hasDepth = true
			it.depth, err = p.operand(v, 0, 65535)
			return err
		})
	}, "depth")
	add(argNeed, func(p *parser, v string) error {
		return p.modify(func(it *item) (err error) {
			if it.hasDist {
				return errors.New("given twice")
			}
			it.hasDist, it.relative = true, true
			it.distance, err = p.operand(v, -1<<20, 1<<20)
			return err
		})
	}, "distance")
	add(argNeed, func(p *parser, v string) error {
		return p.modify(func(it *item) (err error) {
			if it.hasWithin {
				return errors.New("given twice")
			}
			it.hasWithin, it.relative = true, true
			it.within, err = p.operand(v, -1<<20, 1<<20)
			return err
		})
	}, "within")
	add(argMay, (*parser).fastPattern, "fast_pattern")
	refuse("changes packets; this engine never rewrites traffic", "replace")
}

// modify applies f to the content before it.
func (p *parser) modify(f func(*item) error) error {
	if p.last == nil || p.last.kind != itContent {
		return errors.New("no content before it")
	}
	return f(p.last)
}

// operand reads a number or the name of a variable.
func (p *parser) operand(s string, lo, hi int64) (operand, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		if n < lo || n > hi {
			return operand{}, fmt.Errorf("%d is out of range (%d to %d)", n, lo, hi)
		}
		return fixed(n), nil
	}
	for i, name := range p.r.varNames {
		if name == s {
			return operand{v: int16(i)}, nil
		}
	}
	return operand{}, fmt.Errorf("%q is neither a number nor a variable of byte_extract or byte_math before it", s)
}

func (p *parser) content(v string) error {
	it := &item{kind: itContent}
	var err error
	if it.pat, it.neg, err = parsePattern(v); err != nil {
		return err
	}
	p.push(it)
	p.last = it
	return nil
}

func (p *parser) uricontent(v string) error {
	if p.section != nil && p.section.buf != BufPayload {
		return errors.New("can't follow a sticky buffer")
	}
	it := &item{kind: itContent, at: p.at}
	var err error
	if it.pat, it.neg, err = parsePattern(v); err != nil {
		return err
	}
	stay := p.section
	p.sectionFor(BufHTTPURI)
	p.section.items = append(p.section.items, it)
	p.lastSec = p.section
	p.section = stay
	p.last = it
	return nil
}

// unquote takes a value out of its quotes and reads the leading !.
func unquote(v string) (s string, neg bool, err error) {
	v = strings.TrimSpace(v)
	if strings.HasPrefix(v, "!") {
		neg = true
		v = strings.TrimSpace(v[1:])
	}
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1], neg, nil
	}
	if strings.HasPrefix(v, `"`) || strings.HasSuffix(v, `"`) {
		return "", neg, errors.New("quotes don't match")
	}
	return v, neg, nil
}

// parsePattern reads the value of content: text in quotes, |hex bytes|, and \ before " ; : \ |.
func parsePattern(v string) (pat []byte, neg bool, err error) {
	if t := strings.TrimPrefix(strings.TrimSpace(v), "!"); !strings.HasPrefix(strings.TrimSpace(t), `"`) {
		return nil, false, errors.New("the pattern must be in double quotes")
	}
	s, neg, err := unquote(v)
	if err != nil {
		return nil, neg, err
	}
	pat, err = patternBytes(s)
	return pat, neg, err
}

// maxPattern bounds a content in bytes.
const maxPattern = 4096

func patternBytes(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '|':
			j := strings.IndexByte(s[i+1:], '|')
			if j < 0 {
				return nil, errors.New("hex bytes are not closed with |")
			}
			digits := 0
			var b byte
			for _, h := range []byte(s[i+1 : i+1+j]) {
				var d byte
				switch {
				case h >= '0' && h <= '9':
					d = h - '0'
				case h >= 'a' && h <= 'f':
					d = h - 'a' + 10
				case h >= 'A' && h <= 'F':
					d = h - 'A' + 10
				case h == ' ' || h == '\t' || h == ',':
					continue
				default:
					return nil, fmt.Errorf("%q is not a hex digit", h)
				}
				b = b<<4 | d
				if digits++; digits%2 == 0 {
					out = append(out, b)
					b = 0
				}
			}
			if digits%2 != 0 {
				return nil, errors.New("odd number of hex digits")
			}
			i += j + 1
		case '\\':
			if i+1 >= len(s) {
				return nil, errors.New(`\ at the end of the pattern`)
			}
			i++
			switch s[i] {
			case '"', ';', ':', '\\', '|':
				out = append(out, s[i])
			default:
				// Suricata refuses it too
				return nil, fmt.Errorf(`\%c is no escape of content`, s[i])
			}
		case '"':
			return nil, errors.New(`" must be written as |22|`)
		default:
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("empty pattern")
	}
	if len(out) > maxPattern {
		return nil, fmt.Errorf("pattern of %d bytes: %d is the most", len(out), maxPattern)
	}
	return out, nil
}

func (p *parser) fastPattern(v string) error {
	return p.modify(func(it *item) error {
		for _, s := range p.r.sections {
			for _, x := range s.items {
				if x.fast && x != it {
					return errors.New("only one content can be the fast pattern")
				}
			}
		}
		if it.neg && (it.hasOffset || it.hasDepth || it.hasDist || it.hasWithin) {
			return errors.New("a negated content with a position can't be the fast pattern")
		}
		it.fast = true
		switch v {
		case "":
		case "only":
			it.fastOnly = true
		default:
			a, b, ok := strings.Cut(v, ",")
			off, err1 := strconv.ParseUint(strings.TrimSpace(a), 10, 16)
			n, err2 := strconv.ParseUint(strings.TrimSpace(b), 10, 16)
			if !ok || err1 != nil || err2 != nil || n == 0 {
				return errors.New("expected nothing, only, or offset,length")
			}
			if int(off+n) > len(it.pat) {
				return fmt.Errorf("offset %d and length %d reach past the content's %d bytes", off, n, len(it.pat))
			}
			it.fastChop, it.fastOff, it.fastLen = true, int(off), int(n)
		}
		return nil
	})
}

func init() {
	for b := BufPktData; b < bufferCount; b++ {
		info := &buffers[b]
		if b == BufBase64 {
			continue // base64_data
		}
		arg := argNone
		if b >= firstTxBuffer {
			arg = argMay
		}
		add(arg, func(p *parser, v string) error { return p.stick(b, v) }, append([]string{info.name}, info.aliases...)...)
		for _, m := range info.modifiers {
			if m == "uricontent" {
				continue // with a value of its own
			}
			add(argNone, func(p *parser, _ string) error { return p.moveLast(b) }, m)
		}
	}
}

// valued are sticky buffers whose old form takes the text itself: tls.subject:"CN=…".
func (p *parser) valued(b Buffer, v string) error {
	s, neg, err := unquote(v)
	if err != nil {
		return err
	}
	pat, err := patternBytes(s)
	if err != nil {
		return err
	}
	p.section = nil
	p.newSection(b, 0)
	p.push(&item{kind: itContent, pat: pat, neg: neg})
	p.section, p.sticky = nil, false
	return nil
}

// stick makes b the buffer that contents after it look at. v may name a direction.
func (p *parser) stick(b Buffer, v string) error {
	if len(p.trans) > 0 {
		return fmt.Errorf("transform %s without a content after it", p.trans[0].name)
	}
	if s := p.section; s != nil && s.buf != BufPayload && len(s.items) == 0 && s.buf != b {
		return fmt.Errorf("the sticky buffer %s before it has nothing to look for", s.buf)
	}
	p.last = nil
	var dir uint8
	if v != "" {
		if b == BufTLSCertSubject || b == BufTLSCertIssuer || b == BufTLSCertFingerprint {
			return p.valued(b, v)
		}
		info := &buffers[b]
		switch v {
		case "to_server", "toserver":
			dir = maskServer
		case "to_client", "toclient":
			dir = maskClient
		default:
			return fmt.Errorf("%q is neither to_server nor to_client", v)
		}
		if dir == maskServer && !info.server || dir == maskClient && !info.client {
			return fmt.Errorf("there is no %s %s", b, v)
		}
	}
	if b == BufPktData {
		b = BufPayload // back to the payload
	}
	p.sticky = b != BufPayload
	p.use(b, dir)
	return nil
}
