package rule

import (
	"crypto/md5"  //nolint:gosec // the rule language names it
	"crypto/sha1" //nolint:gosec // the rule language names it
	"crypto/sha256"

	"github.com/kadomori/kadomori/dataplane/internal/pcre"
)

// maxTransformed bounds the bytes a transform works on.
const maxTransformed = 1 << 20

// transformer runs transforms in memory of its own; results stay valid until reset.
type transformer struct {
	mem []byte
	re  *pcre.Scratch
}

func (t *transformer) reset() { t.mem = t.mem[:0] }

// room gives n bytes of memory that earlier results don't lie in.
func (t *transformer) room(n int) []byte {
	if cap(t.mem)-len(t.mem) < n {
		t.mem = make([]byte, 0, max(2*cap(t.mem), n, 4096))
	}
	at := len(t.mem)
	t.mem = t.mem[:at+n]
	return t.mem[at : at : at+n]
}

// apply runs the transforms over b.
func (t *transformer) apply(list []transform, b []byte) []byte {
	if len(b) > maxTransformed {
		b = b[:maxTransformed]
	}
	for i := range list {
		b = t.one(&list[i], b)
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c >= 9 && c <= 13 }

func (t *transformer) one(x *transform, b []byte) []byte {
	switch x.name {
	case "strip_whitespace":
		out := t.room(len(b))
		for _, c := range b {
			if !isSpace(c) {
				out = append(out, c)
			}
		}
		return out
	case "compress_whitespace":
		out := t.room(len(b))
		for i, c := range b {
			if isSpace(c) && i > 0 && isSpace(b[i-1]) {
				continue
			}
			out = append(out, c)
		}
		return out
	case "to_lowercase", "header_lowercase":
		out := t.room(len(b))
		value := false
		for _, c := range b {
			if x.name == "header_lowercase" {
				// names only
				switch c {
				case ':':
					value = true
				case '\n', '\r':
					value = false
				}
			}
			if !value {
				c = fold[c]
			}
			out = append(out, c)
		}
		return out
	case "to_uppercase":
		out := t.room(len(b))
		for _, c := range b {
			if c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			out = append(out, c)
		}
		return out
	case "to_md5":
		s := md5.Sum(b) //nolint:gosec // the rule language names it
		return append(t.room(len(s)), s[:]...)
	case "to_sha1":
		s := sha1.Sum(b) //nolint:gosec // the rule language names it
		return append(t.room(len(s)), s[:]...)
	case "to_sha256":
		s := sha256.Sum256(b)
		return append(t.room(len(s)), s[:]...)
	case "dotprefix":
		return append(append(t.room(len(b)+1), '.'), b...)
	case "strip_pseudo_headers":
		return t.stripPseudo(b)
	case "url_decode":
		return urlDecode(t.room(len(b)), b)
	case "domain", "tld":
		return domainOf(b, x.name == "tld")
	case "xor":
		return x.xor.apply(t.room(len(b)), b)
	case "from_base64":
		return x.b64.transform(t.room(len(b)), b)
	case "pcrexform":
		if t.re == nil {
			t.re = pcre.NewScratch()
		}
		if t.re.Match(x.expr, b, 0) {
			if from, to, ok := t.re.Span(1); ok {
				return b[from:to]
			}
		}
		return b
	}
	return b
}

// stripPseudo leaves out lines that begin with a colon (HTTP/2).
func (t *transformer) stripPseudo(b []byte) []byte {
	out := t.room(len(b))
	for len(b) > 0 {
		n := len(b)
		for i, c := range b {
			if c == '\n' {
				n = i + 1
				break
			}
		}
		if b[0] != ':' {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// urlDecode decodes %XX and + into dst.
func urlDecode(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(b) {
			h, ok1 := unhex(b[i+1])
			l, ok2 := unhex(b[i+2])
			if ok1 && ok2 {
				c = h<<4 | l
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

func (x *xorSpec) apply(dst, b []byte) []byte {
	key := x.key
	if x.extract > 0 {
		if x.at+x.extract > len(b) {
			return b
		}
		key = b[x.at : x.at+x.extract]
	}
	for i, c := range b {
		if i >= x.offset {
			c ^= key[(i-x.offset)%len(key)]
		}
		dst = append(dst, c)
	}
	return dst
}

// domainOf gives the registered domain of a name, or its top-level domain, by the last labels: names under a country code
// with a category in the second place (co.jp, go.jp, com.au) count three.
func domainOf(b []byte, tld bool) []byte {
	dots := [3]int{-1, -1, -1}
	n := 0
	for i := len(b) - 1; i >= 0 && n < 3; i-- {
		if b[i] == '.' {
			dots[n] = i
			n++
		}
	}
	if n == 0 {
		if tld {
			return nil
		}
		return b
	}
	long := false
	if len(b)-dots[0]-1 == 2 && n >= 2 {
		switch string(b[dots[1]+1 : dots[0]]) {
		case "co", "or", "ne", "go", "ac", "ad", "ed", "gr", "lg", "com", "net", "org", "gov", "edu":
			long = true
		}
	}
	switch {
	case tld && long:
		return b[dots[1]+1:]
	case tld:
		return b[dots[0]+1:]
	case long && n == 3:
		return b[dots[2]+1:]
	case long || n == 1:
		return b
	}
	return b[dots[1]+1:]
}

// transform decodes b into dst; when there is nothing to decode b stays as it is.
func (o *base64Op) transform(dst, b []byte) []byte {
	enc := b
	if o.offset > 0 {
		if o.offset >= len(enc) {
			return b
		}
		enc = enc[o.offset:]
	}
	if o.bytes > 0 && o.bytes < len(enc) {
		enc = enc[:o.bytes]
	}
	if out := decodeBase64(dst, enc, o.rfc2045); len(out) > 0 {
		return out
	}
	return b
}
