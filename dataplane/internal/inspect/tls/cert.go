package tls

import "github.com/kadomori/kadomori/dataplane/internal/rule"

// maxCerts bounds the chain that is kept.
const maxCerts = 16

// certChain is what one side showed.
type certChain struct {
	mem  []byte // the certificates one after the other
	ends []int
	seen bool
}

func (c *certChain) empty() certChain { return certChain{mem: c.mem[:0], ends: c.ends[:0]} }

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
			return
		}
		c.mem = append(c.mem, b[3:3+n]...)
		c.ends = append(c.ends, len(c.mem))
		b = b[3+n:]
	}
}

func (t *Tx) certBuffer(b rule.Buffer, d, n int) rule.Value {
	c := &t.certs[d]
	if b == rule.BufTLSCerts {
		if der := c.der(n); der != nil {
			return rule.Value{Data: der, State: rule.Done}
		}
		if !c.seen && !t.done[d] {
			return rule.Value{State: rule.NotYet}
		}
	}
	return rule.Value{State: rule.Absent}
}

func (t *Tx) certNumber(k rule.Number, d int) (uint64, rule.State) {
	c := &t.certs[d]
	if k == rule.NumTLSChainLen {
		if c.seen {
			return uint64(len(c.ends)), rule.Done
		}
		if !t.done[d] {
			return 0, rule.NotYet
		}
	}
	return 0, rule.Absent
}
