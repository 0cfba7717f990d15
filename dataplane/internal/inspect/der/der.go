// Package der walks ASN.1 in BER and DER (X.690) without allocating. Parsers of SNMP, Kerberos, LDAP and certificates call
// it. The trap: lengths are the sender's word; every value is checked against its container.
package der

// Value is one element.
type Value struct {
	Tag   byte // identifier octet; high tag numbers are not supported
	Body  []byte
	Whole []byte // with identifier and length
}

// Read reads the element at the start of b and gives what follows it.
func Read(b []byte) (v Value, rest []byte, ok bool) {
	if len(b) < 2 || b[0]&0x1f == 0x1f {
		return v, nil, false
	}
	n, h := int(b[1]), 2
	if n&0x80 != 0 {
		k := n & 0x7f
		if k == 0 || k > 4 || len(b) < 2+k {
			return v, nil, false
		}
		n = 0
		for _, c := range b[2 : 2+k] {
			n = n<<8 | int(c)
		}
		h += k
	}
	if n < 0 || n > len(b)-h {
		return v, nil, false
	}
	return Value{Tag: b[0], Body: b[h : h+n], Whole: b[:h+n]}, b[h+n:], true
}

// Size gives how long the element at the start of b is, 0 when that can't be said yet, -1 when it is no element.
func Size(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	n, h := int(b[1]), 2
	if n&0x80 != 0 {
		k := n & 0x7f
		if k == 0 || k > 4 {
			return -1
		}
		if len(b) < 2+k {
			return 0
		}
		n = 0
		for _, c := range b[2 : 2+k] {
			n = n<<8 | int(c)
		}
		h += k
	}
	return h + n
}

// Int gives an INTEGER or ENUMERATED; longer ones are cut to 64 bits.
func Int(b []byte) int64 {
	var n int64
	if len(b) > 0 && b[0]&0x80 != 0 {
		n = -1
	}
	for _, c := range b {
		n = n<<8 | int64(c)
	}
	return n
}

// Find gives the first element with a tag among those in b.
func Find(b []byte, tag byte) (Value, bool) {
	for len(b) > 0 {
		v, rest, ok := Read(b)
		if !ok {
			return Value{}, false
		}
		if v.Tag == tag {
			return v, true
		}
		b = rest
	}
	return Value{}, false
}

// AppendOID appends an OBJECT IDENTIFIER in dots.
func AppendOID(dst, b []byte) []byte {
	first := true
	var n uint64
	for _, c := range b {
		n = n<<7 | uint64(c&0x7f)
		if c&0x80 != 0 {
			continue
		}
		if first {
			x := min(n/40, 2)
			dst = appendUint(dst, x)
			n -= x * 40
			first = false
		}
		dst = append(dst, '.')
		dst = appendUint(dst, n)
		n = 0
	}
	return dst
}

func appendUint(dst []byte, n uint64) []byte {
	if n >= 10 {
		dst = appendUint(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}
