// Package krb5 parses Kerberos 5 messages (RFC 4120) over UDP and TCP: who asks for which ticket, and with which cipher. The
// engine calls it; each message is a transaction. The trap: names are sequences of parts and come from both sides.
package krb5

import (
	"encoding/binary"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/der"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Message types (RFC 4120 7.5.7).
const (
	asReq  = 10
	asRep  = 11
	tgsReq = 12
	tgsRep = 13
	apReq  = 14
	apRep  = 15
	errMsg = 30
)

var msgNames = map[byte]string{
	asReq: "KRB_AS_REQ", asRep: "KRB_AS_REP", tgsReq: "KRB_TGS_REQ", tgsRep: "KRB_TGS_REP", apReq: "KRB_AP_REQ", apRep: "KRB_AP_REP",
	errMsg: "KRB_ERROR",
}

const maxMessage = 64 << 10

// Parser parses one flow.
type Parser struct {
	inspect.Queue[inspect.Fields, *inspect.Fields]
	request byte // the last request, for what an error answers
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is Kerberos.
func (p *Parser) App() rule.App { return rule.AppKRB5 }

// Probe says whether bytes begin a message.
func Probe(b []byte, udp bool) inspect.Certainty {
	if !udp {
		if len(b) < 4 {
			return inspect.Unsure
		}
		if n := binary.BigEndian.Uint32(b); n < 10 || n > maxMessage {
			return inspect.No
		}
		b = b[4:]
		if len(b) == 0 {
			return inspect.Unsure
		}
	}
	if len(b) < 14 {
		if udp {
			return inspect.No
		}
		return inspect.Unsure
	}
	t := b[0]
	if t>>5 != 3 { // application, constructed
		return inspect.No
	}
	if _, ok := msgNames[t&0x1f]; !ok {
		return inspect.No
	}
	h := 2
	if b[1]&0x80 != 0 {
		h += int(b[1] & 0x7f)
	}
	if h >= len(b) || b[h] != 0x30 {
		return inspect.No
	}
	return inspect.Yes
}

// Finish has nothing open.
func (p *Parser) Finish() {}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Empty()
	p.request = 0
}

// Gap ends parsing over TCP.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status { return inspect.Failed }

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	if m.UDP {
		p.message(m, toServer, b)
		return len(b), inspect.More
	}
	used := 0
	for len(b)-used >= 4 {
		n := int(binary.BigEndian.Uint32(b[used:]))
		if n > maxMessage || n < 2 {
			return len(b), inspect.Failed
		}
		if len(b)-used < 4+n {
			break
		}
		p.message(m, toServer, b[used+4:used+4+n])
		used += 4 + n
	}
	return used, inspect.More
}

// ctx gives the element of a context tag without its wrapping.
func ctx(b []byte, n byte) (der.Value, bool) {
	v, ok := der.Find(b, 0xa0|n)
	if !ok {
		return v, false
	}
	in, _, ok := der.Read(v.Body)
	return in, ok
}

func name(dst, b []byte) []byte {
	v, ok := ctx(b, 1)
	if !ok {
		return dst
	}
	for l, n := v.Body, 0; len(l) > 0 && n < 16; n++ {
		part, rest, ok := der.Read(l)
		if !ok {
			break
		}
		if n > 0 {
			dst = append(dst, '/')
		}
		dst = append(dst, part.Body...)
		l = rest
	}
	return dst
}

func (p *Parser) message(m *inspect.Meta, toServer bool, b []byte) {
	app, _, ok := der.Read(b)
	if !ok || app.Tag>>5 != 3 {
		return
	}
	typ := app.Tag & 0x1f
	seq, _, ok := der.Read(app.Body)
	if !ok || seq.Tag != 0x30 || msgNames[typ] == "" {
		return
	}
	tx, id := p.Add()
	tx.Clear(rule.AppKRB5, "krb5", id, m.Time)
	tx.Num(rule.NumKRB5MsgType, toServer, uint64(typ))
	tx.JSONText("msg_type", []byte(msgNames[typ]))
	var text [512]byte
	sname := func(v der.Value, ok bool) []byte {
		if !ok {
			return nil
		}
		s := name(text[:0], v.Body)
		tx.Text(rule.BufKRB5SName, toServer, s)
		return s
	}
	f := seq.Body
	switch typ {
	case asReq, tgsReq:
		p.request = typ
		body, ok := ctx(f, 4)
		if !ok {
			break
		}
		p.client(tx, toServer, body.Body, 1, 2)
		v, ok := ctx(body.Body, 3)
		if s := sname(v, ok); ok {
			tx.JSONText("sname", s)
		}
		tx.JSONText("encryption", []byte("<none>"))
		tx.JSONBool("weak_encryption", false)
	case asRep, tgsRep:
		p.client(tx, toServer, f, 4, 3)
		if t, ok := ctx(f, 5); ok {
			in, _, _ := der.Read(t.Body)
			v, ok := ctx(in.Body, 2)
			if s := sname(v, ok); ok {
				tx.JSONText("sname", s)
			}
			p.etype(tx, toServer, f, 6, "encryption", "weak_encryption", false)
			p.etype(tx, toServer, in.Body, 3, "ticket_encryption", "ticket_weak_encryption", true)
		}
	case errMsg:
		if p.request != 0 {
			tx.JSONText("failed_request", []byte(msgNames[p.request]))
		}
		if v, ok := ctx(f, 6); ok {
			code := der.Int(v.Body)
			tx.Num(rule.NumKRB5ErrCode, toServer, uint64(code))
			tx.JSONText("error_code", []byte(errName(code)))
		}
		p.client(tx, toServer, f, 8, 9)
		v, ok := ctx(f, 10)
		if s := sname(v, ok); ok {
			tx.JSONText("sname", s)
		}
		tx.JSONText("encryption", []byte("<none>"))
		tx.JSONBool("weak_encryption", false)
	case apReq:
		p.request = typ
	}
	tx.Both()
}

func (p *Parser) client(tx *inspect.Fields, toServer bool, f []byte, nameTag, realmTag byte) {
	var text [512]byte
	if v, ok := ctx(f, nameTag); ok {
		s := name(text[:0], v.Body)
		tx.Text(rule.BufKRB5CName, toServer, s)
		tx.JSONText("cname", s)
	} else {
		tx.JSONText("cname", []byte("<empty>"))
	}
	if v, ok := ctx(f, realmTag); ok {
		tx.JSONText("realm", v.Body)
	} else {
		tx.JSONText("realm", []byte("<empty>"))
	}
}

// etype reads the cipher of an EncryptedData.
func (p *Parser) etype(tx *inspect.Fields, toServer bool, f []byte, tag byte, key, weakKey string, ticket bool) {
	v, ok := ctx(f, tag)
	if !ok {
		return
	}
	e, ok := ctx(v.Body, 0)
	if !ok {
		return
	}
	n := der.Int(e.Body)
	if ticket {
		tx.Num(rule.NumKRB5Ticket, toServer, uint64(uint32(int32(n))))
	}
	tx.JSONText(key, []byte(etypeName(n)))
	tx.JSONBool(weakKey, weak(n))
}

// etypes are the IANA Kerberos encryption types.
var etypes = map[int64]string{
	1: "des-cbc-crc", 2: "des-cbc-md4", 3: "des-cbc-md5", 5: "des3-cbc-md5", 7: "des3-cbc-sha1", 9: "dsaWithSHA1-CmsOID",
	10: "md5WithRSAEncryption-CmsOID", 11: "sha1WithRSAEncryption-CmsOID", 12: "rc2CBC-EnvOID", 13: "rsaEncryption-EnvOID",
	14: "rsaES-OAEP-ENV-OID", 15: "des-ede3-cbc-Env-OID", 16: "des3-cbc-sha1-kd", 17: "aes128-cts-hmac-sha1-96",
	18: "aes256-cts-hmac-sha1-96", 19: "aes128-cts-hmac-sha256-128", 20: "aes256-cts-hmac-sha384-192", 23: "rc4-hmac",
	24: "rc4-hmac-exp", 25: "camellia128-cts-cmac", 26: "camellia256-cts-cmac", -128: "rc4-md4", -133: "rc4-hmac-old", -135: "rc4-hmac-old-exp",
}

func etypeName(n int64) string {
	if s, ok := etypes[n]; ok {
		return s
	}
	return "unknown encryption " + strconv.FormatInt(n, 10)
}

func weak(n int64) bool { return n < 16 || n == 23 || n == 24 }

var errs = map[int64]string{
	6: "KDC_ERR_C_PRINCIPAL_UNKNOWN", 7: "KDC_ERR_S_PRINCIPAL_UNKNOWN", 12: "KDC_ERR_POLICY", 14: "KDC_ERR_ETYPE_NOSUPP",
	18: "KDC_ERR_CLIENT_REVOKED", 23: "KDC_ERR_KEY_EXPIRED", 24: "KDC_ERR_PREAUTH_FAILED", 25: "KDC_ERR_PREAUTH_REQUIRED",
	31: "KRB_AP_ERR_BAD_INTEGRITY", 32: "KRB_AP_ERR_TKT_EXPIRED", 37: "KRB_AP_ERR_SKEW", 52: "KRB_ERR_RESPONSE_TOO_BIG",
	60: "KRB_ERR_GENERIC", 68: "KDC_ERR_WRONG_REALM",
}

func errName(n int64) string {
	if s, ok := errs[n]; ok {
		return s
	}
	return strconv.FormatInt(n, 10)
}
