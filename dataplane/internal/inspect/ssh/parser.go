// Package ssh reads banners and key exchange offers of SSH (RFC 4253) and makes HASSH fingerprints of them. The engine calls
// it. The trap: after the key exchange everything is encrypted, so the parser says Done as soon as both sides were seen.
package ssh

import (
	"bytes"
	"crypto/md5" //nolint:gosec // HASSH is defined with MD5
	"encoding/binary"
	"encoding/hex"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

const (
	maxBanner  = 255 // RFC 4253 4.2
	maxPacket  = 64 << 10
	msgKexInit = 20
	msgNewKeys = 21
)

type side struct {
	banner, kex, keys bool
	lines             int
	proto, soft       []byte
	hassh, hasshText  []byte
}

// Parser parses one flow, which is one transaction.
type Parser struct {
	tx    inspect.Fields
	txs   []inspect.Tx
	sides [2]side
	began bool
	done  bool
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is SSH.
func (p *Parser) App() rule.App { return rule.AppSSH }

// Probe says whether bytes begin SSH.
func Probe(b []byte) inspect.Certainty {
	const head = "SSH-"
	n := min(len(b), len(head))
	if string(b[:n]) != head[:n] {
		return inspect.No
	}
	if n < len(head) {
		return inspect.Unsure
	}
	return inspect.Yes
}

// Txs is the one transaction.
func (p *Parser) Txs() []inspect.Tx { return p.txs }

// Drop forgets it.
func (p *Parser) Drop(n int) { p.txs = p.txs[:copy(p.txs, p.txs[n:])] }

// Finish completes it.
func (p *Parser) Finish() {
	if p.began && !p.done {
		p.finish()
	}
}

func (p *Parser) finish() {
	p.done = true
	for i, key := range [2]string{"client", "server"} {
		s := &p.sides[i]
		if !s.banner {
			continue
		}
		p.tx.JSONOpen(key, '{')
		p.tx.JSONText("proto_version", s.proto)
		p.tx.JSONText("software_version", s.soft)
		if len(s.hassh) > 0 {
			p.tx.JSONOpen("hassh", '{')
			p.tx.JSONText("hash", s.hassh)
			p.tx.JSONText("string", s.hasshText)
			p.tx.JSONClose('}')
		}
		p.tx.JSONClose('}')
	}
	p.tx.Both()
}

// Reset forgets the flow.
func (p *Parser) Reset() {
	*p = Parser{tx: p.tx, txs: p.txs[:0]}
}

// Gap ends parsing.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status {
	p.Finish()
	return inspect.Done
}

// Opaque is true: what matters of SSH is encrypted.
func (p *Parser) Opaque() bool { return true }

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	if !p.began {
		p.began = true
		p.tx.Clear(rule.AppSSH, "ssh", 0, m.Time)
		p.txs = append(p.txs[:0], &p.tx)
	}
	d := 1
	if toServer {
		d = 0
	}
	s := &p.sides[d]
	used := 0
	for !s.banner {
		i := bytes.IndexByte(b[used:], '\n')
		if i < 0 {
			if len(b)-used > maxBanner*4 {
				p.Finish()
				return len(b), inspect.Failed
			}
			return used, inspect.More
		}
		line := bytes.TrimRight(b[used:used+i], "\r\n")
		used += i + 1
		if s.lines++; s.lines > 32 {
			p.Finish()
			return len(b), inspect.Failed
		}
		if bytes.HasPrefix(line, []byte("SSH-")) {
			p.banner(s, toServer, line[4:])
		}
	}
	for len(b)-used >= 6 && !s.keys {
		n := int(binary.BigEndian.Uint32(b[used:]))
		if n > maxPacket || n < 2 {
			p.Finish()
			return len(b), inspect.Done
		}
		if len(b)-used < 4+n {
			return used, inspect.More
		}
		pk := b[used+4 : used+4+n]
		used += 4 + n
		pad := int(pk[0])
		if 1+pad > len(pk) {
			break
		}
		body := pk[1 : len(pk)-pad]
		switch {
		case len(body) > 0 && body[0] == msgKexInit && !s.kex:
			s.kex = true
			p.kexInit(s, toServer, body[1:])
		case len(body) > 0 && body[0] == msgNewKeys:
			s.keys = true
		}
	}
	if p.sides[0].banner && p.sides[1].banner && (p.sides[0].kex && p.sides[1].kex || s.keys) {
		p.Finish()
		return len(b), inspect.Done
	}
	return used, inspect.More
}

func (p *Parser) banner(s *side, toServer bool, v []byte) {
	s.banner = true
	proto, soft, _ := bytes.Cut(v, []byte("-"))
	if i := bytes.IndexByte(soft, ' '); i >= 0 {
		soft = soft[:i]
	}
	s.proto, s.soft = append(s.proto, proto...), append(s.soft, soft...)
	p.tx.Text(rule.BufSSHProto, toServer, proto)
	p.tx.Text(rule.BufSSHSoftware, toServer, soft)
}

// kexInit makes the HASSH of the offer: key exchange, ciphers, MACs and compressions of the sender's direction.
func (p *Parser) kexInit(s *side, toServer bool, b []byte) {
	if len(b) < 16 {
		return
	}
	b = b[16:]
	var lists [8][]byte
	for i := range lists {
		if len(b) < 4 {
			return
		}
		n := int(binary.BigEndian.Uint32(b))
		if n > len(b)-4 {
			return
		}
		lists[i] = b[4 : 4+n]
		b = b[4+n:]
	}
	pick := [4]int{0, 2, 4, 6} // client to server
	hash, text := rule.BufSSHHassh, rule.BufSSHHasshString
	if !toServer {
		pick = [4]int{0, 3, 5, 7}
		hash, text = rule.BufSSHHasshServer, rule.BufSSHHasshServerString
	}
	for i, k := range pick {
		if i > 0 {
			s.hasshText = append(s.hasshText, ';')
		}
		s.hasshText = append(s.hasshText, lists[k]...)
	}
	sum := md5.Sum(s.hasshText) //nolint:gosec // HASSH is defined with MD5
	s.hassh = hex.AppendEncode(s.hassh, sum[:])
	p.tx.Text(hash, toServer, s.hassh)
	p.tx.Text(text, toServer, s.hasshText)
}
