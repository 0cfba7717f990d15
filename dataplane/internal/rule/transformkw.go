package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kadomori/kadomori/dataplane/internal/pcre"
)

// transform changes a buffer's bytes before they are looked at.
type transform struct {
	name string
	arg  string
	expr *pcre.Expr // pcrexform
	xor  xorSpec
	b64  *base64Op // from_base64
}

// xorSpec is the key of xor: bytes given, or taken from the buffer.
type xorSpec struct {
	key     []byte
	extract int // length of the key in the buffer, 0 when given
	at      int // where it lies
	offset  int // where to start
}

func init() {
	for _, n := range []string{
		"strip_whitespace", "compress_whitespace", "to_lowercase", "to_uppercase", "to_md5", "to_sha1", "to_sha256", "dotprefix", "header_lowercase",
		"strip_pseudo_headers", "domain", "tld", "url_decode",
	} {
		add(argMay, func(p *parser, v string) error {
			if v != "" {
				return errors.New("takes no value")
			}
			return p.transform(transform{name: n})
		}, n)
	}
	add(argNeed, func(p *parser, v string) error {
		s, _, err := unquote(v)
		if err != nil {
			return err
		}
		t := transform{name: "pcrexform", arg: s}
		if t.expr, err = pcre.Compile(s, 0); err != nil {
			return fmt.Errorf("expression: %w", err)
		}
		if t.expr.Groups() < 1 {
			return errors.New("the expression needs a group")
		}
		return p.transform(t)
	}, "pcrexform")
	add(argNeed, func(p *parser, v string) error {
		x, err := parseXor(v)
		if err != nil {
			return err
		}
		return p.transform(transform{name: "xor", arg: v, xor: x})
	}, "xor")
	add(argMay, func(p *parser, v string) error {
		o, err := parseBase64(v, true)
		if err != nil {
			return err
		}
		return p.transform(transform{name: "from_base64", arg: fmt.Sprintf("%+v", *o), b64: o})
	}, "from_base64")
	add(argMay, (*parser).base64Decode, "base64_decode")
	add(argNone, (*parser).base64Data, "base64_data")
	refuse("no such transform here", "gunzip", "zlib_deflate", "casechange", "subslice", "decode_utf16")
}

func (p *parser) transform(t transform) error {
	if p.section == nil {
		return errors.New("needs a sticky buffer before it")
	}
	if len(p.trans) >= 16 {
		return errors.New("more than 16 transforms")
	}
	p.trans = append(p.trans, t)
	return nil
}

func parseXor(v string) (xorSpec, error) {
	var x xorSpec
	for _, w := range splitArgs(v) {
		f := strings.Fields(w)
		switch {
		case len(f) == 2 && f[0] == "offset":
			n, err := strconv.ParseUint(f[1], 10, 16)
			if err != nil {
				return x, fmt.Errorf("offset %q is not a number", f[1])
			}
			x.offset = int(n)
		case len(f) == 3 && f[0] == "extract":
			n, err1 := strconv.ParseUint(f[1], 10, 16)
			at, err2 := strconv.ParseUint(f[2], 10, 16)
			if err1 != nil || err2 != nil || n == 0 {
				return x, errors.New("expected extract length offset")
			}
			x.extract, x.at = int(n), int(at)
		case len(f) == 1 && x.key == nil:
			s := strings.Trim(f[0], `"`)
			if len(s)%2 != 0 || s == "" {
				return x, errors.New("the key needs an even number of hex digits")
			}
			for i := 0; i < len(s); i += 2 {
				b, err := strconv.ParseUint(s[i:i+2], 16, 8)
				if err != nil {
					return x, fmt.Errorf("%q is not hex", s[i:i+2])
				}
				x.key = append(x.key, byte(b))
			}
		default:
			return x, fmt.Errorf("unknown option %q", w)
		}
	}
	if (x.key == nil) == (x.extract == 0) {
		return x, errors.New("needs a key or extract")
	}
	return x, nil
}

// base64Op is base64_decode with what base64_data then looks for.
type base64Op struct {
	bytes   int // at most so many encoded bytes; 0 all
	offset  int
	rfc2045 bool // skip what is not of the alphabet
	strict  bool
	inner   *section
}

func parseBase64(v string, transform bool) (*base64Op, error) {
	o := &base64Op{}
	if v == "" {
		return o, nil
	}
	for _, w := range splitArgs(v) {
		f := strings.Fields(w)
		if len(f) == 0 {
			return nil, errors.New("empty option")
		}
		num := func() (int, error) {
			if len(f) != 2 {
				return 0, fmt.Errorf("%s needs a number", f[0])
			}
			n, err := strconv.ParseUint(f[1], 10, 16)
			if err != nil {
				return 0, fmt.Errorf("%s %q is not a number up to 65535", f[0], f[1])
			}
			return int(n), nil
		}
		var err error
		switch f[0] {
		case "bytes":
			o.bytes, err = num()
		case "offset":
			o.offset, err = num()
		case "mode":
			if !transform || len(f) != 2 {
				return nil, fmt.Errorf("unknown option %q", w)
			}
			switch f[1] {
			case "rfc2045":
				o.rfc2045 = true
			case "rfc4648":
			case "strict":
				o.strict = true
			default:
				err = fmt.Errorf("unknown mode %q", f[1])
			}
		default:
			err = fmt.Errorf("unknown option %q", w)
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (p *parser) base64Decode(v string) error {
	it := &item{kind: itBase64}
	var rest []string
	if v != "" {
		for _, w := range splitArgs(v) {
			if w == "relative" {
				it.relative = true
				continue
			}
			rest = append(rest, w)
		}
	}
	var err error
	if it.b64, err = parseBase64(strings.Join(rest, ","), false); err != nil {
		return err
	}
	p.push(it)
	return nil
}

func (p *parser) base64Data(_ string) error {
	for i := len(p.r.sections) - 1; i >= 0; i-- {
		for j := len(p.r.sections[i].items) - 1; j >= 0; j-- {
			it := p.r.sections[i].items[j]
			if it.kind != itBase64 {
				continue
			}
			if it.b64.inner == nil {
				it.b64.inner = &section{buf: BufBase64, at: p.at}
			}
			p.section = it.b64.inner
			p.last = nil
			return nil
		}
	}
	return errors.New("no base64_decode before it")
}
