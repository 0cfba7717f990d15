package eve

import (
	"crypto/sha1" //nolint:gosec // Community ID is defined with SHA-1
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/packet"
)

func appendMAC(b []byte, key string, m [6]byte) []byte {
	const hex = "0123456789abcdef"
	b = append(inspect.AppendKey(b, key), '"')
	for i, c := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, hex[c>>4], hex[c&15])
	}
	return append(b, '"')
}

// linkNames are libpcap's.
var linkNames = map[uint16]string{0: "NULL", 1: "EN10MB", 9: "PPP", 12: "RAW", 14: "RAW", 101: "RAW", 108: "LOOP", 113: "LINUX_SLL", 228: "IPv4", 229: "IPv6", 276: "LINUX_SLL2"}

// appendRaw writes payload, packet and flow state of an alert.
func appendRaw(b []byte, r *finding.Raw) []byte {
	b = appendFlowState(b, r)
	b = appendBase64(b, "payload", r.Payload)
	b = append(inspect.AppendKey(b, "payload_printable"), '"')
	for _, c := range r.Payload {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c < 0x20 || c >= 0x7f:
			b = append(b, '.')
		default:
			b = append(b, c)
		}
	}
	b = append(b, '"')
	stream := uint64(0)
	if r.Stream {
		stream = 1
	}
	b = appendUint(b, "stream", stream)
	if r.Pseudo {
		return appendString(b, "pkt_src", "stream (flow timeout)")
	}
	b = appendBase64(b, "packet", r.Frame)
	b = append(inspect.AppendKey(b, "packet_info"), '{')
	b = appendUint(b, "linktype", uint64(r.Link))
	if n := linkNames[r.Link]; n != "" {
		b = appendString(b, "linktype_name", n)
	}
	b = append(b, '}')
	return appendString(b, "pkt_src", "wire/pcap")
}

func appendBase64(b []byte, key string, v []byte) []byte {
	b = append(inspect.AppendKey(b, key), '"')
	b = base64.StdEncoding.AppendEncode(b, v)
	return append(b, '"')
}

// appendFlowState writes metadata (flow bits and variables) and traffic (bits that name the traffic).
func appendFlowState(b []byte, r *finding.Raw) []byte {
	if len(r.FlowBits) == 0 && len(r.FlowVars) == 0 {
		return b
	}
	var ids, labels, bits []string
	for _, n := range r.FlowBits {
		if v, ok := strings.CutPrefix(n, "traffic/id/"); ok {
			ids = append(ids, v)
		} else if v, ok := strings.CutPrefix(n, "traffic/label/"); ok {
			labels = append(labels, v)
		} else {
			bits = append(bits, n)
		}
	}
	if len(bits) > 0 || len(r.FlowVars) > 0 {
		b = append(inspect.AppendKey(b, "metadata"), '{')
		b = appendList(b, "flowbits", bits)
		if len(r.FlowVars) > 0 {
			b = append(inspect.AppendKey(b, "flowvars"), '[')
			for i, v := range r.FlowVars {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendString(append(b, '{'), v.Key, v.Value)
				b = append(b, '}')
			}
			b = append(b, ']')
		}
		b = append(b, '}')
	}
	if len(ids) > 0 || len(labels) > 0 {
		b = append(inspect.AppendKey(b, "traffic"), '{')
		b = appendList(b, "id", ids)
		b = appendList(b, "label", labels)
		b = append(b, '}')
	}
	return b
}

func appendList(b []byte, key string, v []string) []byte {
	if len(v) == 0 {
		return b
	}
	b = append(inspect.AppendKey(b, key), '[')
	for i, s := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = inspect.AppendJSON(b, []byte(s))
	}
	return append(b, ']')
}

// appendCommunityID writes version 1 of Corelight's Community ID with seed 0.
func appendCommunityID(b []byte, p *finding.Packet) []byte {
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
	default:
		return b
	}
	src, dst, sp, dp := p.Src.AsSlice(), p.Dst.AsSlice(), p.SrcPort, p.DstPort
	if c := strings.Compare(string(src), string(dst)); c > 0 || c == 0 && sp > dp {
		src, dst, sp, dp = dst, src, dp, sp
	}
	h := []byte{0, 0}
	h = append(append(append(h, src...), dst...), p.Proto, 0)
	h = binary.BigEndian.AppendUint16(h, sp)
	h = binary.BigEndian.AppendUint16(h, dp)
	sum := sha1.Sum(h) //nolint:gosec // Community ID is defined with SHA-1
	b = append(inspect.AppendKey(b, "community_id"), '"', '1', ':')
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	return append(b, '"')
}
