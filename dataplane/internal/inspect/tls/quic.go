package tls

import (
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
)

// ServerHelloBody lets QUIC parse a ServerHello; b is the message's body.
func (t *Tx) ServerHelloBody(b []byte) bool { return t.serverHello(b) }

var extensionNames = map[uint16]string{
	0: "server_name", 1: "max_fragment_length", 5: "status_request", 10: "supported_groups", 11: "ec_point_formats",
	13: "signature_algorithms", 14: "use_srtp", 15: "heartbeat", 16: "alpn", 18: "signed_certificate_timestamp", 21: "padding",
	22: "encrypt_then_mac", 23: "extended_master_secret", 27: "compress_certificate", 28: "record_size_limit", 34: "delegated_credentials",
	35: "session_ticket", 41: "pre_shared_key", 42: "early_data", 43: "supported_versions", 44: "cookie", 45: "psk_key_exchange_modes",
	47: "certificate_authorities", 48: "oid_filters", 49: "post_handshake_auth", 50: "signature_algorithms_cert", 51: "key_share",
	57: "quic_transport_parameters", 17513: "application_settings", 65281: "renegotiation_info",
}

// AppendQUIC writes the members that EVE's quic object has of a ClientHello.
func (t *Tx) AppendQUIC(b []byte) []byte {
	b = append(inspect.AppendKey(b, "ja3"), '{')
	b = inspect.AppendField(b, "hash", t.ja3Hash[:])
	b = append(inspect.AppendField(b, "string", t.ja3), '}')
	b = inspect.AppendField(b, "ja4", t.ja4)
	return t.appendExtensions(b, t.exts, 0)
}

// AppendQUICServer does for a ServerHello.
func (t *Tx) AppendQUICServer(b []byte) []byte {
	b = append(inspect.AppendKey(b, "ja3s"), '{')
	b = inspect.AppendField(b, "hash", t.ja3sHash[:])
	b = append(inspect.AppendField(b, "string", t.ja3s), '}')
	return t.appendExtensions(b, t.serverExts, 1)
}

func (t *Tx) appendExtensions(b []byte, exts []uint16, d int) []byte {
	b = append(inspect.AppendKey(b, "extensions"), '[')
	for i, e := range exts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if n, ok := extensionNames[e]; ok {
			b = inspect.AppendField(b, "name", []byte(n))
		}
		b = strconv.AppendUint(inspect.AppendKey(b, "type"), uint64(e), 10)
		switch {
		case e == extServerName && len(t.sniRaw) > 0:
			b = append(inspect.AppendKey(b, "values"), '[')
			b = append(inspect.AppendJSON(b, t.sniRaw), ']')
		case e == extALPN && len(t.alpn[d]) > 0:
			b = append(inspect.AppendKey(b, "values"), '[')
			for a, k := t.alpn[d], 0; len(a) > 0; k++ {
				n := int(a[0])
				if k > 0 {
					b = append(b, ',')
				}
				b = inspect.AppendJSON(b, a[1:1+n])
				a = a[1+n:]
			}
			b = append(b, ']')
		}
		b = append(b, '}')
	}
	return append(b, ']')
}
