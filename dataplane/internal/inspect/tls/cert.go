package tls

import (
	"crypto/sha1" //nolint:gosec // fingerprints in rules are SHA-1
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/inspect/der"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// maxCerts bounds the chain that is kept.
const maxCerts = 16

// certChain is what one side showed.
type certChain struct {
	mem         []byte // the certificates one after the other
	ends        []int
	seen        bool
	parsed      bool // the fields below are the first certificate's
	subject     []byte
	issuer      []byte
	serial      []byte // "00:AB"
	fingerprint []byte // SHA-1, "ab:cd"
	names       [][]byte
	from, to    int64 // Unix seconds
}

func (c *certChain) empty() certChain {
	return certChain{
		mem: c.mem[:0], ends: c.ends[:0], subject: c.subject[:0], issuer: c.issuer[:0], serial: c.serial[:0],
		fingerprint: c.fingerprint[:0], names: c.names[:0],
	}
}

func (c *certChain) der(n int) []byte {
	if n >= len(c.ends) {
		return nil
	}
	from := 0
	if n > 0 {
		from = c.ends[n-1]
	}
	return c.mem[from:c.ends[n]]
}

// certificates reads a Certificate message of TLS up to 1.2 (RFC 5246 7.4.2).
func (t *Tx) certificates(toServer bool, b []byte) {
	d := 1
	if toServer {
		d = 0
	}
	c := &t.certs[d]
	if c.seen || len(b) < 3 {
		return
	}
	c.seen = true
	total := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	b = b[3:]
	if total > len(b) {
		t.raise(eventInvalidCertificate)
	}
	b = b[:min(total, len(b))]
	for len(b) >= 3 && len(c.ends) < maxCerts {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if n > len(b)-3 {
			t.raise(eventInvalidCertificate)
			break
		}
		c.mem = append(c.mem, b[3:3+n]...)
		c.ends = append(c.ends, len(c.mem))
		b = b[3+n:]
	}
	if len(c.ends) > 0 && !c.parse(c.der(0)) {
		t.raise(eventInvalidCertificate)
	}
}

// parse reads the fields of an X.509 certificate (RFC 5280) that rules and logs know.
func (c *certChain) parse(b []byte) bool {
	sum := sha1.Sum(b) //nolint:gosec // fingerprints in rules are SHA-1
	c.fingerprint = colons(c.fingerprint[:0], sum[:], "0123456789abcdef")
	outer, _, ok := der.Read(b)
	if !ok {
		return false
	}
	tbs, _, ok := der.Read(outer.Body)
	if !ok {
		return false
	}
	rest := tbs.Body
	v, r, ok := der.Read(rest)
	if ok && v.Tag == 0xa0 { // version
		rest = r
	}
	serial, rest, ok := der.Read(rest)
	if !ok || serial.Tag != 2 {
		return false
	}
	c.serial = colons(c.serial[:0], serial.Body, "0123456789ABCDEF")
	_, rest, ok = der.Read(rest) // signature algorithm
	if !ok {
		return false
	}
	issuer, rest, ok := der.Read(rest)
	if !ok {
		return false
	}
	c.issuer = appendDN(c.issuer[:0], issuer.Body)
	validity, rest, ok := der.Read(rest)
	if !ok {
		return false
	}
	from, r, ok := der.Read(validity.Body)
	if !ok {
		return false
	}
	to, _, ok := der.Read(r)
	if !ok {
		return false
	}
	c.from, c.to = asn1Time(from), asn1Time(to)
	subject, rest, ok := der.Read(rest)
	if !ok {
		return false
	}
	c.subject = appendDN(c.subject[:0], subject.Body)
	c.parsed = true
	_, rest, ok = der.Read(rest) // public key
	for ok && len(rest) > 0 {
		v, rest, ok = der.Read(rest)
		if ok && v.Tag == 0xa3 {
			c.extensions(v.Body)
		}
	}
	return true
}

func (c *certChain) extensions(b []byte) {
	list, _, ok := der.Read(b)
	for l := list.Body; ok && len(l) > 0; {
		var ext der.Value
		ext, l, ok = der.Read(l)
		if !ok {
			return
		}
		oid, r, ok := der.Read(ext.Body)
		if !ok || string(oid.Body) != "\x55\x1d\x11" { // subjectAltName
			continue
		}
		v, r, ok := der.Read(r)
		if ok && v.Tag == 1 { // critical
			v, _, ok = der.Read(r)
		}
		if !ok {
			continue
		}
		seq, _, ok := der.Read(v.Body)
		for s := seq.Body; ok && len(s) > 0 && len(c.names) < 64; {
			var name der.Value
			name, s, ok = der.Read(s)
			if ok && name.Tag == 0x82 { // dNSName
				c.names = append(c.names, name.Body)
			}
		}
	}
}

func colons(dst, b []byte, digits string) []byte {
	for i, x := range b {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, digits[x>>4], digits[x&15])
	}
	return dst
}

// attributes are the short names of RFC 4519 and what is used beside them.
var attributes = map[string]string{
	"\x55\x04\x03": "CN", "\x55\x04\x04": "SN", "\x55\x04\x05": "serialNumber", "\x55\x04\x06": "C", "\x55\x04\x07": "L",
	"\x55\x04\x08": "ST", "\x55\x04\x09": "street", "\x55\x04\x0a": "O", "\x55\x04\x0b": "OU", "\x55\x04\x0c": "title",
	"\x55\x04\x0d": "description", "\x55\x04\x0f": "businessCategory", "\x55\x04\x11": "postalCode", "\x55\x04\x2a": "GN",
	"\x55\x04\x2b": "initials", "\x55\x04\x61": "organizationIdentifier",
	"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01": "emailAddress", "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x02": "unstructuredName",
	"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19": "DC", "\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01": "UID",
	"\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x01": "jurisdictionL", "\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x02": "jurisdictionST",
	"\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x03": "jurisdictionC",
}

// appendDN writes a distinguished name in the order it is in: "C=US, O=Example, CN=www.example.com".
func appendDN(dst, b []byte) []byte {
	start := len(dst)
	for len(b) > 0 {
		set, rest, ok := der.Read(b)
		if !ok {
			break
		}
		b = rest
		for s, n := set.Body, 0; len(s) > 0; n++ {
			at, r, ok := der.Read(s)
			if !ok {
				break
			}
			s = r
			oid, r, ok := der.Read(at.Body)
			if !ok {
				break
			}
			v, _, ok := der.Read(r)
			if !ok {
				break
			}
			switch {
			case n > 0:
				dst = append(dst, " + "...)
			case len(dst) > start:
				dst = append(dst, ", "...)
			}
			if name, ok := attributes[string(oid.Body)]; ok {
				dst = append(dst, name...)
			} else {
				dst = der.AppendOID(dst, oid.Body)
			}
			dst = append(dst, '=')
			dst = appendString(dst, v)
		}
	}
	return dst
}

func appendString(dst []byte, v der.Value) []byte {
	if v.Tag == 30 { // BMPString
		for i := 0; i+1 < len(v.Body); i += 2 {
			dst = append(dst, string(rune(v.Body[i])<<8|rune(v.Body[i+1]))...)
		}
		return dst
	}
	return append(dst, v.Body...)
}

// asn1Time reads UTCTime and GeneralizedTime.
func asn1Time(v der.Value) int64 {
	s := string(v.Body)
	for _, f := range [...]string{"060102150405Z", "0601021504Z", "20060102150405Z", "060102150405-0700", "20060102150405-0700"} {
		if t, err := time.Parse(f, s); err == nil {
			if len(f) > 2 && f[:2] == "06" && t.Year() >= 2050 { // RFC 5280 4.1.2.5.1
				t = t.AddDate(-100, 0, 0)
			}
			return t.Unix()
		}
	}
	return 0
}

func (t *Tx) certBuffer(b rule.Buffer, d, n int) rule.Value {
	c := &t.certs[d]
	var v []byte
	switch b {
	case rule.BufTLSCerts:
		v = c.der(n)
	case rule.BufTLSSubjectAltName:
		if n < len(c.names) {
			v = c.names[n]
		}
	case rule.BufTLSCertSubject:
		v = c.subject
	case rule.BufTLSCertIssuer:
		v = c.issuer
	case rule.BufTLSCertSerial:
		v = c.serial
	case rule.BufTLSCertFingerprint:
		v = c.fingerprint
	default:
		return rule.Value{State: rule.Absent}
	}
	if len(v) > 0 {
		return rule.Value{Data: v, State: rule.Done}
	}
	if !c.seen && !t.done[d] {
		return rule.Value{State: rule.NotYet}
	}
	return rule.Value{State: rule.Absent}
}

func (t *Tx) certNumber(k rule.Number, d int) (uint64, rule.State) {
	c := &t.certs[d]
	var v uint64
	have := c.parsed
	switch k {
	case rule.NumTLSChainLen:
		v, have = uint64(len(c.ends)), c.seen
	case rule.NumTLSNotBefore:
		v = uint64(c.from)
	case rule.NumTLSNotAfter:
		v = uint64(c.to)
	default:
		return 0, rule.Absent
	}
	if have {
		return v, rule.Done
	}
	if !c.seen && !t.done[d] {
		return 0, rule.NotYet
	}
	return 0, rule.Absent
}
