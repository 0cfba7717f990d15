package tls

import (
	"fmt"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
)

// EVEType is "tls".
func (t *Tx) EVEType() string { return "tls" }

// VersionName is the version in Suricata's words.
func VersionName(v uint16) string {
	switch v {
	case 0x0002, 0x0200:
		return "SSLv2"
	case 0x0300:
		return "SSLv3"
	case 0x0301:
		return "TLSv1"
	case 0x0302:
		return "TLS 1.1"
	case 0x0303:
		return "TLS 1.2"
	case 0x0304:
		return "TLS 1.3"
	case 0:
		return "UNDETERMINED"
	}
	if v>>8 == 0x7f {
		return fmt.Sprintf("TLS 1.3 draft-%02d", v&0xff)
	}
	return fmt.Sprintf("0x%04x", v)
}

// AppendEVE writes the extended tls object.
func (t *Tx) AppendEVE(b []byte) []byte {
	b = append(b, '{')
	b = t.appendCertEVE(b)
	b = inspect.AppendField(b, "sni", t.sniRaw)
	b = inspect.AppendField(b, "version", []byte(VersionName(t.Version())))
	if t.hello[0] {
		b = append(b, `,"ja3":{"hash":"`...)
		b = append(b, t.ja3Hash[:]...)
		b = append(b, `","string":"`...)
		b = append(b, t.ja3...)
		b = append(b, `"}`...)
	}
	if t.hello[1] {
		b = append(b, `,"ja3s":{"hash":"`...)
		b = append(b, t.ja3sHash[:]...)
		b = append(b, `","string":"`...)
		b = append(b, t.ja3s...)
		b = append(b, `"}`...)
	}
	b = inspect.AppendField(b, "ja4", t.ja4)
	for d, key := range [2]string{"client_alpns", "server_alpns"} {
		if a := t.alpn[d]; len(a) > 0 {
			b = append(inspect.AppendKey(b, key), '[')
			for i := 0; len(a) > 0; i++ {
				n := int(a[0])
				if i > 0 {
					b = append(b, ',')
				}
				b = inspect.AppendJSON(b, a[1:1+n])
				a = a[1+n:]
			}
			b = append(b, ']')
		}
	}
	if t.resumed {
		b = append(inspect.AppendKey(b, "session_resumed"), "true"...)
	}
	return append(b, '}')
}

func (t *Tx) appendCertEVE(b []byte) []byte {
	c := &t.certs[1]
	if c.parsed {
		b = inspect.AppendField(b, "subject", c.subject)
		b = inspect.AppendField(b, "issuerdn", c.issuer)
		b = inspect.AppendField(b, "serial", c.serial)
		b = inspect.AppendField(b, "fingerprint", c.fingerprint)
		b = inspect.AppendField(b, "notbefore", []byte(time.Unix(c.from, 0).UTC().Format("2006-01-02T15:04:05")))
		b = inspect.AppendField(b, "notafter", []byte(time.Unix(c.to, 0).UTC().Format("2006-01-02T15:04:05")))
		if len(c.names) > 0 {
			b = append(inspect.AppendKey(b, "subjectaltname"), '[')
			for i, n := range c.names {
				if i > 0 {
					b = append(b, ',')
				}
				b = inspect.AppendJSON(b, n)
			}
			b = append(b, ']')
		}
	}
	if k := &t.certs[0]; k.parsed {
		b = append(inspect.AppendKey(b, "client"), '{')
		b = inspect.AppendField(b, "subject", k.subject)
		b = inspect.AppendField(b, "issuerdn", k.issuer)
		b = inspect.AppendField(b, "fingerprint", k.fingerprint)
		b = inspect.AppendField(b, "serial", k.serial)
		b = inspect.AppendField(b, "notbefore", []byte(time.Unix(k.from, 0).UTC().Format("2006-01-02T15:04:05")))
		b = inspect.AppendField(b, "notafter", []byte(time.Unix(k.to, 0).UTC().Format("2006-01-02T15:04:05")))
		b = append(b, '}')
	}
	return b
}
