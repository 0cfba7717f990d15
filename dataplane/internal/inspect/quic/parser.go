// Package quic reads the Initial packets of QUIC versions 1 and 2 (RFC 9000, 9001, 9369) and drafts 29 to 34: their keys
// follow from the packet itself, so the ClientHello with the server's name can be read. The engine calls it. The trap: the
// hello may come in pieces, out of order and in several packets; and everything after is opaque.
package quic

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/tls"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

const (
	version1   = 1
	version2   = 0x6b3343cf
	maxCrypto  = 16 << 10 // of one ClientHello
	maxCID     = 20
	maxTries   = 16 // packets looked at before the hello is given up
	sampleSize = 16
)

// salts are of RFC 9001 5.2, RFC 9369 3.3.1 and draft 29.
var (
	salt1  = []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}
	salt2  = []byte{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9}
	salt29 = []byte{0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8, 0x99}
)

type keys struct {
	hp   cipher.Block
	aead cipher.AEAD
	iv   []byte
}

// Parser parses one flow.
type Parser struct {
	inspect.Queue[Tx, *Tx]
	dcid   []byte // of the client's first Initial
	keys   [2]*keys
	crypto [2][]byte
	have   [2][]bool
	host   []byte
	tries  int
	hello  bool
}

// Tx is one hello, or one packet of another kind that is worth telling.
type Tx struct {
	inspect.Fields
	hello *tls.Tx
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is QUIC.
func (p *Parser) App() rule.App { return rule.AppQUIC }

func supported(v uint32) bool {
	return v == version1 || v == version2 || v >= 0xff00001d && v <= 0xff000022
}

// Probe says whether a datagram is a long-header packet of a version known.
func Probe(b []byte) inspect.Certainty {
	if len(b) < 7 || b[0]&0xc0 != 0xc0 {
		return inspect.No
	}
	v := binary.BigEndian.Uint32(b[1:])
	if !supported(v) && v != 0 || int(b[5]) > maxCID || v == 0 && len(b) > 256 {
		return inspect.No
	}
	if len(b) < 8+int(b[5]) {
		return inspect.No
	}
	return inspect.Yes
}

// ServerName is the SNI.
func (p *Parser) ServerName() []byte { return p.host }

// Opaque is true: only the hello can be read.
func (p *Parser) Opaque() bool { return true }

// Finish has nothing open.
func (p *Parser) Finish() {}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Empty()
	p.dcid, p.keys, p.crypto, p.have = p.dcid[:0], [2]*keys{}, [2][]byte{}, [2][]bool{}
	p.host, p.tries, p.hello = p.host[:0], 0, false
}

// Gap does not happen on datagrams.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status { return inspect.More }

func varint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n
}

func label(name string, n int) string {
	b := []byte{byte(n >> 8), byte(n), byte(len(name) + 6)}
	b = append(b, "tls13 "...)
	b = append(b, name...)
	return string(append(b, 0))
}

// derive makes the Initial keys of both directions (RFC 9001 5.2).
func (p *Parser) derive(version uint32, dcid []byte) bool {
	salt, prefix := salt1, "quic "
	switch {
	case version == version2:
		salt, prefix = salt2, "quicv2 "
	case version != version1:
		salt = salt29
	}
	secret, err := hkdf.Extract(sha256.New, dcid, salt)
	if err != nil {
		return false
	}
	for i, who := range [2]string{"client in", "server in"} {
		s, err := hkdf.Expand(sha256.New, secret, label(who, 32), 32)
		if err != nil {
			return false
		}
		key, err1 := hkdf.Expand(sha256.New, s, label(prefix+"key", 16), 16)
		iv, err2 := hkdf.Expand(sha256.New, s, label(prefix+"iv", 12), 12)
		hp, err3 := hkdf.Expand(sha256.New, s, label(prefix+"hp", 16), 16)
		if err1 != nil || err2 != nil || err3 != nil {
			return false
		}
		block, err1 := aes.NewCipher(key)
		mask, err2 := aes.NewCipher(hp)
		if err1 != nil || err2 != nil {
			return false
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return false
		}
		p.keys[i] = &keys{mask, aead, iv}
	}
	p.dcid = append(p.dcid[:0], dcid...)
	return true
}

// Data parses a datagram, which may hold several packets.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	n := len(b)
	for len(b) > 0 && b[0]&0x80 != 0 {
		used := p.packet(m, toServer, b)
		if used <= 0 {
			break
		}
		b = b[used:]
	}
	if p.tries++; p.tries > maxTries || p.hello && p.tries > 4 {
		return n, inspect.Done
	}
	return n, inspect.More
}

// packet parses one long-header packet and gives its length.
func (p *Parser) packet(m *inspect.Meta, toServer bool, b []byte) int {
	if len(b) < 7 {
		return 0
	}
	version := binary.BigEndian.Uint32(b[1:])
	at := 5
	if at+1+int(b[at]) >= len(b) {
		return 0
	}
	dcid := b[at+1 : at+1+int(b[at])]
	at += 1 + len(dcid)
	if at+1+int(b[at]) > len(b) {
		return 0
	}
	at += 1 + int(b[at])
	if !supported(version) {
		return 0
	}
	typ := b[0] >> 4 & 3
	if version == version2 { // RFC 9369 3.2: the types are shifted by one
		typ = (typ + 3) & 3
	}
	switch typ {
	case 3: // Retry: the next Initial has new keys
		p.keys = [2]*keys{}
		p.crypto, p.have = [2][]byte{}, [2][]bool{}
		p.hello = false
		tx, id := p.Add()
		tx.begin(id, m.Time, version, toServer)
		tx.Both()
		return len(b)
	case 0:
		v, n := varint(b[at:])
		if n == 0 || v > uint64(len(b)-at-n) {
			return 0
		}
		at += n + int(v)
		if at > len(b) {
			return 0
		}
	}
	v, n := varint(b[at:])
	if n == 0 || v > uint64(len(b)-at-n) {
		return 0
	}
	at += n
	end := at + int(v)
	if typ != 0 {
		return end
	}
	d := 1
	if toServer {
		d = 0
	}
	if p.keys[0] == nil || toServer && string(dcid) != string(p.dcid) && !p.hello {
		if !toServer || !p.derive(version, dcid) {
			return end
		}
	}
	plain, ok := p.keys[d].open(b[:end], at)
	if !ok {
		return end
	}
	p.frames(m, toServer, version, plain)
	return end
}

// open takes header protection off and decrypts (RFC 9001 5.3, 5.4).
func (k *keys) open(b []byte, at int) ([]byte, bool) {
	if len(b) < at+4+sampleSize {
		return nil, false
	}
	var mask [16]byte
	k.hp.Encrypt(mask[:], b[at+4:at+4+sampleSize])
	head := append([]byte(nil), b[:at+4]...)
	head[0] ^= mask[0] & 0x0f
	pn := int(head[0]&3) + 1
	var num uint64
	for i, x := range mask[1 : 1+pn] {
		head[at+i] ^= x
		num = num<<8 | uint64(head[at+i])
	}
	head = head[:at+pn]
	nonce := append([]byte(nil), k.iv...)
	for i := range 8 {
		nonce[11-i] ^= byte(num >> (8 * i))
	}
	out, err := k.aead.Open(nil, nonce, b[at+pn:], head)
	return out, err == nil
}

// frames walks the frames of an Initial packet (RFC 9000 12.4) and collects CRYPTO data.
func (p *Parser) frames(m *inspect.Meta, toServer bool, version uint32, b []byte) {
	d := 1
	if toServer {
		d = 0
	}
	for len(b) > 0 {
		switch b[0] {
		case 0, 1: // PADDING, PING
			b = b[1:]
		case 2, 3: // ACK
			ecn := b[0] == 3
			b = b[1:]
			var f [4]uint64
			for i := range f {
				v, n := varint(b)
				if n == 0 {
					return
				}
				f[i] = v
				b = b[n:]
			}
			more := f[2] * 2
			if ecn {
				more += 3
			}
			for range min(more, 512) {
				_, n := varint(b)
				if n == 0 {
					return
				}
				b = b[n:]
			}
		case 6: // CRYPTO
			off, n := varint(b[1:])
			if n == 0 {
				return
			}
			b = b[1+n:]
			size, n := varint(b)
			if n == 0 || size > uint64(len(b)-n) {
				return
			}
			data := b[n : n+int(size)]
			b = b[n+int(size):]
			if off+size > maxCrypto {
				return
			}
			for len(p.crypto[d]) < int(off+size) {
				p.crypto[d] = append(p.crypto[d], 0)
				p.have[d] = append(p.have[d], false)
			}
			copy(p.crypto[d][off:], data)
			for i := range data {
				p.have[d][int(off)+i] = true
			}
		default:
			b = nil
		}
	}
	p.handshake(m, toServer, version)
}

func (p *Parser) handshake(m *inspect.Meta, toServer bool, version uint32) {
	d := 1
	if toServer {
		d = 0
	}
	c := p.crypto[d]
	if len(c) < 4 || toServer && p.hello {
		return
	}
	n := int(c[1])<<16 | int(c[2])<<8 | int(c[3])
	if len(c) < 4+n {
		return
	}
	for _, ok := range p.have[d][:4+n] {
		if !ok {
			return
		}
	}
	tx, id := p.Add()
	tx.begin(id, m.Time, version, toServer)
	tx.hello = &tls.Tx{QUIC: true}
	if toServer {
		p.hello = true
		tx.hello.HelloBody(c[4 : 4+n])
		p.host = append(p.host[:0], tx.hello.ServerName()...)
		tx.Text(rule.BufQUICSNI, true, tx.hello.ServerName())
		tx.JSONText("sni", tx.hello.ServerName())
		tx.Object = tx.hello.AppendQUIC(tx.Object)
	} else {
		tx.hello.ServerHelloBody(c[4 : 4+n])
		tx.Object = tx.hello.AppendQUICServer(tx.Object)
	}
	tx.Both()
}

func (t *Tx) begin(id uint64, now int64, version uint32, toServer bool) {
	t.Clear(rule.AppQUIC, "quic", id, now)
	t.hello = nil
	name := "1"
	switch {
	case version == version2:
		name = "2"
	case version != version1:
		name = "draft-" + string(rune('0'+(version&0xff)/10)) + string(rune('0'+(version&0xff)%10))
	}
	t.JSONText("version", []byte(name))
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], version)
	t.Text(rule.BufQUICVersion, toServer, raw[:])
}

// Buffer gives the hello's fingerprints beside QUIC's own values.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	switch b {
	case rule.BufJA3Hash, rule.BufJA3String, rule.BufJA3SHash, rule.BufJA3SString, rule.BufJA4Hash, rule.BufTLSSNI, rule.BufTLSALPN:
		if t.hello != nil {
			return t.hello.Buffer(b, toServer, n)
		}
		return rule.Value{State: rule.Absent}
	default:
	}
	return t.Fields.Buffer(b, toServer, n)
}
