package tls

import (
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Tx is what is known of a connection.
type Tx struct {
	inspect.TxBase
	// QUIC: the hello came in a QUIC Initial.
	QUIC          bool
	done          [2]bool
	hello         [2]bool
	opaque        bool
	ssl2          bool
	resumed       bool
	keyExchange   bool
	clientVersion uint16
	serverVersion uint16
	recordVersion [2]uint16
	offered       uint16 // highest of supported_versions
	chosen        uint16 // of the server's supported_versions
	cipher        uint16
	random        [2][]byte
	sessionID     []byte
	sni, sniRaw   []byte
	ciphers, exts []uint16
	serverExts    []uint16
	groups        []uint16
	sigAlgs       []uint16
	formats       []byte
	alpn          [2][]byte
	ja3, ja3s     []byte
	ja3Hash       [32]byte
	ja3sHash      [32]byte
	ja4           []byte
	sorted        []uint16
	scratch       []byte
	certs         [2]certChain
	events        []rule.Event
}

func (t *Tx) reset(now int64) {
	t.ResetBase(0, now)
	*t = Tx{
		TxBase: t.TxBase, random: [2][]byte{t.random[0][:0], t.random[1][:0]}, sessionID: t.sessionID[:0], sni: t.sni[:0],
		sniRaw: t.sniRaw[:0], ciphers: t.ciphers[:0], exts: t.exts[:0], serverExts: t.serverExts[:0], groups: t.groups[:0],
		sigAlgs: t.sigAlgs[:0], formats: t.formats[:0], alpn: [2][]byte{t.alpn[0][:0], t.alpn[1][:0]}, ja3: t.ja3[:0],
		ja3s: t.ja3s[:0], ja4: t.ja4[:0], sorted: t.sorted[:0], scratch: t.scratch[:0], events: t.events[:0],
		certs: [2]certChain{t.certs[0].empty(), t.certs[1].empty()},
	}
}

var (
	eventInvalidRecordType   = rule.EventID("tls.invalid_record_type")
	eventInvalidRecordLength = rule.EventID("tls.invalid_record_length")
	eventInvalidHandshake    = rule.EventID("tls.invalid_handshake_message")
	eventTooLong             = rule.EventID("tls.invalid_handshake_length")
	eventInvalidCertificate  = rule.EventID("tls.invalid_certificate")
)

func (t *Tx) raise(e rule.Event) {
	if len(t.events) < 16 {
		t.events = append(t.events, e)
	}
}

// Events are those raised.
func (t *Tx) Events() []rule.Event { return t.events }

// App is TLS.
func (t *Tx) App() rule.App { return rule.AppTLS }

// Complete says whether the direction's clear part is over.
func (t *Tx) Complete(toServer bool) bool {
	if toServer {
		return t.done[0]
	}
	return t.done[1]
}

// ServerName is the SNI in lower case, empty when none.
func (t *Tx) ServerName() []byte { return t.sni }

// Version is the version that was agreed on, or offered when no answer came.
func (t *Tx) Version() uint16 {
	switch {
	case t.chosen != 0:
		return t.chosen
	case t.serverVersion != 0:
		return t.serverVersion
	case t.offered != 0:
		return t.offered
	}
	return t.clientVersion
}

func (t *Tx) value(b []byte, hello int) rule.Value {
	switch {
	case len(b) > 0:
		return rule.Value{Data: b, State: rule.Done}
	case t.hello[hello] || t.done[hello]:
		return rule.Value{State: rule.Absent}
	}
	return rule.Value{State: rule.NotYet}
}

// Buffer gives names, fingerprints and certificates.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	d := 1
	if toServer {
		d = 0
	}
	if n > 0 && b != rule.BufTLSCerts && b != rule.BufTLSALPN && b != rule.BufTLSSubjectAltName {
		return rule.Value{State: rule.Absent}
	}
	switch b {
	case rule.BufTLSSNI:
		if toServer {
			return t.value(t.sniRaw, 0)
		}
	case rule.BufJA3Hash:
		if toServer && t.hello[0] {
			return rule.Value{Data: t.ja3Hash[:], State: rule.Done}
		}
		if toServer {
			return t.value(nil, 0)
		}
	case rule.BufJA3String:
		if toServer {
			return t.value(t.ja3, 0)
		}
	case rule.BufJA4Hash:
		if toServer {
			return t.value(t.ja4, 0)
		}
	case rule.BufJA3SHash:
		if !toServer && t.hello[1] {
			return rule.Value{Data: t.ja3sHash[:], State: rule.Done}
		}
		if !toServer {
			return t.value(nil, 1)
		}
	case rule.BufJA3SString:
		if !toServer {
			return t.value(t.ja3s, 1)
		}
	case rule.BufTLSRandom:
		return t.value(t.random[d], d)
	case rule.BufTLSRandomTime:
		if len(t.random[d]) == 32 {
			return t.value(t.random[d][:4], d)
		}
		return t.value(nil, d)
	case rule.BufTLSRandomBytes:
		if len(t.random[d]) == 32 {
			return t.value(t.random[d][4:], d)
		}
		return t.value(nil, d)
	case rule.BufTLSALPN:
		a := t.alpn[d]
		for i := 0; len(a) > 0; i++ {
			k := int(a[0])
			if i == n {
				return rule.Value{Data: a[1 : 1+k], State: rule.Done}
			}
			a = a[1+k:]
		}
		return t.value(nil, d)
	default:
		return t.certBuffer(b, d, n)
	}
	return rule.Value{State: rule.Absent}
}

// Number gives versions and the like.
func (t *Tx) Number(k rule.Number, toServer bool, n int) (uint64, rule.State) {
	d := 1
	if toServer {
		d = 0
	}
	if n > 0 {
		return 0, rule.Absent
	}
	switch k {
	case rule.NumTLSVersion:
		if v := t.Version(); v != 0 {
			return uint64(v), rule.Done
		}
		return 0, rule.NotYet
	case rule.NumSSLState:
		var s uint64
		if t.hello[0] {
			s |= 1
		}
		if t.hello[1] {
			s |= 2
		}
		if t.keyExchange {
			s |= 4
		}
		return s, rule.Partial
	default:
		return t.certNumber(k, d)
	}
}
