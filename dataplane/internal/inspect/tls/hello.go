package tls

import (
	"crypto/md5" //nolint:gosec // JA3 is defined with MD5
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
)

// Extensions that are read (IANA TLS ExtensionType).
const (
	extServerName        = 0
	extGroups            = 10
	extPointFormats      = 11
	extSignatureAlgs     = 13
	extALPN              = 16
	extSupportedVersions = 43
)

// maxList bounds cipher, extension and group lists that are kept for fingerprints.
const maxList = 256

// grease says whether a value is one of RFC 8701's.
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

func u16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }

// extensions walks a list of extensions; false when it is broken.
func extensions(b []byte, fn func(typ uint16, body []byte)) bool {
	for len(b) >= 4 {
		n := int(u16(b[2:]))
		if len(b) < 4+n {
			return false
		}
		fn(u16(b), b[4:4+n])
		b = b[4+n:]
	}
	return len(b) == 0
}

func appendU16s(dst []uint16, b []byte) []uint16 {
	for len(b) >= 2 && len(dst) < maxList {
		dst = append(dst, u16(b))
		b = b[2:]
	}
	return dst
}

// HelloBody lets other protocols that carry a ClientHello (QUIC) parse it; b is the message's body.
func (t *Tx) HelloBody(b []byte) bool { return t.clientHello(b) }

func (t *Tx) clientHello(b []byte) bool {
	if len(b) < 35 || t.hello[0] {
		return t.hello[0]
	}
	t.hello[0] = true
	t.clientVersion = u16(b)
	t.random[0] = append(t.random[0][:0], b[2:34]...)
	b = b[34:]
	n := int(b[0])
	if len(b) < 1+n+2 {
		return false
	}
	t.sessionID = append(t.sessionID[:0], b[1:1+n]...)
	b = b[1+n:]
	n = int(u16(b))
	if len(b) < 2+n+1 || n%2 != 0 {
		return false
	}
	t.ciphers = appendU16s(t.ciphers[:0], b[2:2+n])
	b = b[2+n:]
	n = int(b[0])
	if len(b) < 1+n {
		return false
	}
	b = b[1+n:]
	ok := true
	if len(b) >= 2 {
		n = int(u16(b))
		if len(b) < 2+n {
			n = len(b) - 2
			ok = false
		}
		ok = extensions(b[2:2+n], t.clientExtension) && ok
	}
	t.fingerprintClient()
	return ok
}

func (t *Tx) clientExtension(typ uint16, b []byte) {
	if len(t.exts) < maxList {
		t.exts = append(t.exts, typ)
	}
	switch typ {
	case extServerName:
		// server_name_list<2..>, name_type, HostName<2..>
		if len(b) < 5 || b[2] != 0 {
			return
		}
		n := int(u16(b[3:]))
		if len(b) < 5+n || len(t.sniRaw) > 0 || n > 1024 {
			return
		}
		t.sniRaw = append(t.sniRaw[:0], b[5:5+n]...)
		name := b[5 : 5+n]
		for len(name) > 0 && name[len(name)-1] == '.' {
			name = name[:len(name)-1]
		}
		t.sni = inspect.Lower(t.sni[:0], name)
	case extGroups:
		if len(b) >= 2 {
			t.groups = appendU16s(t.groups[:0], b[2:])
		}
	case extPointFormats:
		if len(b) >= 1 {
			t.formats = append(t.formats[:0], b[1:min(len(b), 1+int(b[0]))]...)
		}
	case extSignatureAlgs:
		if len(b) >= 2 {
			t.sigAlgs = appendU16s(t.sigAlgs[:0], b[2:])
		}
	case extALPN:
		t.alpn[0] = appendALPN(t.alpn[0][:0], b)
	case extSupportedVersions:
		if len(b) >= 1 {
			for v := b[1:]; len(v) >= 2; v = v[2:] {
				if x := u16(v); !grease(x) && x > t.offered {
					t.offered = x
				}
			}
		}
	}
}

// appendALPN keeps the list as it is sent: each name with its length before it.
func appendALPN(dst, b []byte) []byte {
	if len(b) < 2 {
		return dst
	}
	b = b[2:min(len(b), 2+int(u16(b)))]
	for len(b) > 0 && len(dst) < 512 {
		n := int(b[0])
		if len(b) < 1+n {
			break
		}
		dst = append(dst, b[:1+n]...)
		b = b[1+n:]
	}
	return dst
}

func (t *Tx) serverHello(b []byte) bool {
	if len(b) < 38 || t.hello[1] {
		return t.hello[1]
	}
	t.hello[1] = true
	t.serverVersion = u16(b)
	t.random[1] = append(t.random[1][:0], b[2:34]...)
	b = b[34:]
	n := int(b[0])
	if len(b) < 1+n+3 {
		return false
	}
	if n > 0 && string(b[1:1+n]) == string(t.sessionID) {
		t.resumed = true
	}
	b = b[1+n:]
	t.cipher = u16(b)
	b = b[3:]
	ok := true
	if len(b) >= 2 {
		n = int(u16(b))
		if len(b) < 2+n {
			n = len(b) - 2
			ok = false
		}
		ok = extensions(b[2:2+n], t.serverExtension) && ok
	}
	t.fingerprintServer()
	if t.chosen == 0x0304 { // TLS 1.3: everything after is encrypted
		t.done[1] = true
	}
	return ok
}

func (t *Tx) serverExtension(typ uint16, b []byte) {
	if len(t.serverExts) < maxList {
		t.serverExts = append(t.serverExts, typ)
	}
	switch typ {
	case extSupportedVersions:
		if len(b) == 2 {
			t.chosen = u16(b)
		}
	case extALPN:
		t.alpn[1] = appendALPN(t.alpn[1][:0], b)
	}
}

func appendDashed(dst []byte, vs []uint16) []byte {
	first := true
	for _, v := range vs {
		if grease(v) {
			continue
		}
		if !first {
			dst = append(dst, '-')
		}
		dst = strconv.AppendUint(dst, uint64(v), 10)
		first = false
	}
	return dst
}

func (t *Tx) fingerprintClient() {
	s := strconv.AppendUint(t.ja3[:0], uint64(t.clientVersion), 10)
	s = append(s, ',')
	s = appendDashed(s, t.ciphers)
	s = append(s, ',')
	s = appendDashed(s, t.exts)
	s = append(s, ',')
	s = appendDashed(s, t.groups)
	s = append(s, ',')
	for i, f := range t.formats {
		if i > 0 {
			s = append(s, '-')
		}
		s = strconv.AppendUint(s, uint64(f), 10)
	}
	t.ja3 = s
	sum := md5.Sum(s) //nolint:gosec // JA3 is defined with MD5
	hex.Encode(t.ja3Hash[:], sum[:])
	t.fingerprintJA4()
}

func (t *Tx) fingerprintServer() {
	s := strconv.AppendUint(t.ja3s[:0], uint64(t.serverVersion), 10)
	s = append(s, ',')
	s = strconv.AppendUint(s, uint64(t.cipher), 10)
	s = append(s, ',')
	s = appendDashed(s, t.serverExts)
	t.ja3s = s
	sum := md5.Sum(s) //nolint:gosec // JA3S is defined with MD5
	hex.Encode(t.ja3sHash[:], sum[:])
}

func appendHex4(dst []byte, v uint16) []byte {
	const d = "0123456789abcdef"
	return append(dst, d[v>>12], d[v>>8&15], d[v>>4&15], d[v&15])
}

// fingerprintJA4 follows FoxIO's technical description of JA4 (BSD-3 licensed part: the TLS client).
func (t *Tx) fingerprintJA4() {
	out := t.ja4[:0]
	if t.QUIC {
		out = append(out, 'q')
	} else {
		out = append(out, 't')
	}
	v := t.clientVersion
	if t.offered != 0 {
		v = t.offered
	}
	switch v {
	case 0x0304:
		out = append(out, "13"...)
	case 0x0303:
		out = append(out, "12"...)
	case 0x0302:
		out = append(out, "11"...)
	case 0x0301:
		out = append(out, "10"...)
	case 0x0300:
		out = append(out, "s3"...)
	case 0x0002:
		out = append(out, "s2"...)
	default:
		out = append(out, "00"...)
	}
	if len(t.sniRaw) > 0 {
		out = append(out, 'd')
	} else {
		out = append(out, 'i')
	}
	cs := t.sorted[:0]
	for _, c := range t.ciphers {
		if !grease(c) {
			cs = append(cs, c)
		}
	}
	two := func(n int) {
		n = min(n, 99)
		out = append(out, byte('0'+n/10), byte('0'+n%10))
	}
	two(len(cs))
	ne := 0
	for _, e := range t.exts {
		if !grease(e) {
			ne++
		}
	}
	two(ne)
	if a := t.alpn[0]; len(a) >= 2 && int(a[0]) > 0 && len(a) > int(a[0]) {
		first, last := a[1], a[int(a[0])]
		if alnum(first) && alnum(last) {
			out = append(out, first, last)
		} else {
			const d = "0123456789abcdef"
			out = append(out, d[first>>4], d[last&15])
		}
	} else {
		out = append(out, "00"...)
	}
	out = append(out, '_')
	list := func(vs []uint16) []byte {
		b := t.scratch[:0]
		for i, v := range vs {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendHex4(b, v)
		}
		t.scratch = b
		return b
	}
	sum12 := func(b []byte) {
		if len(b) == 0 {
			out = append(out, "000000000000"...)
			return
		}
		h := sha256.Sum256(b)
		out = hex.AppendEncode(out, h[:6])
	}
	slices.Sort(cs)
	sum12(list(cs))
	out = append(out, '_')
	es := cs[:0]
	for _, e := range t.exts {
		if !grease(e) && e != extServerName && e != extALPN {
			es = append(es, e)
		}
	}
	slices.Sort(es)
	b := list(es)
	if len(b) > 0 || len(t.sigAlgs) > 0 {
		sep := byte('_')
		for _, a := range t.sigAlgs {
			if grease(a) {
				continue
			}
			b = append(b, sep)
			b = appendHex4(b, a)
			sep = ','
		}
	}
	t.scratch = b
	sum12(b)
	t.sorted = es
	t.ja4 = out
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
