// Package dhcp parses DHCPv4 (RFC 2131, 2132): each message is a transaction. The engine calls it; the device list reads the
// same packets by itself. The trap: options may go on in the file and server-name fields (option 52).
package dhcp

import (
	"encoding/binary"
	"net/netip"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

const (
	magic     = 0x63825363
	optionsAt = 240
)

// Parser parses one flow.
type Parser struct {
	inspect.Queue[inspect.Fields, *inspect.Fields]
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is DHCP.
func (p *Parser) App() rule.App { return rule.AppDHCP }

// Probe says whether a datagram is DHCP.
func Probe(b []byte) inspect.Certainty {
	if len(b) < optionsAt || b[0] != 1 && b[0] != 2 || binary.BigEndian.Uint32(b[236:]) != magic {
		return inspect.No
	}
	return inspect.Yes
}

// Finish has nothing open.
func (p *Parser) Finish() {}

// Reset forgets the flow.
func (p *Parser) Reset() { p.Empty() }

// Gap does not happen on datagrams.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status { return inspect.More }

var types = [...]string{"", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform"}

var params = map[byte]string{1: "subnet_mask", 3: "router", 6: "dns_server", 15: "domain", 35: "arp_timeout", 42: "ntp_server", 66: "tftp_server_name", 120: "sip_server"}

// Data parses a datagram.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	if Probe(b) != inspect.Yes {
		return len(b), inspect.More
	}
	tx, id := p.Add()
	tx.Clear(rule.AppDHCP, "dhcp", id, m.Time)
	kind := "request"
	if b[0] == 2 {
		kind = "reply"
	}
	tx.JSONText("type", []byte(kind))
	tx.JSONUint("id", uint64(binary.BigEndian.Uint32(b[4:])))
	tx.JSONText("client_mac", mac(b[28:34]))
	tx.JSONText("assigned_ip", addr(b[16:20]))
	if b[0] == 1 || binary.BigEndian.Uint32(b[12:]) != 0 {
		tx.JSONText("client_ip", addr(b[12:16]))
	}
	if b[0] == 2 {
		tx.JSONText("relay_ip", addr(b[24:28]))
		tx.JSONText("next_server_ip", addr(b[20:24]))
	}
	overload := p.options(tx, toServer, b[optionsAt:])
	if overload&1 != 0 {
		p.options(tx, toServer, b[108:236])
	}
	if overload&2 != 0 {
		p.options(tx, toServer, b[44:108])
	}
	tx.Both()
	return len(b), inspect.More
}

func (p *Parser) options(tx *inspect.Fields, toServer bool, o []byte) (overload byte) {
	for len(o) >= 2 && o[0] != 255 {
		if o[0] == 0 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if len(o) < 2+n {
			break
		}
		v := o[2 : 2+n]
		switch o[0] {
		case 1:
			if n == 4 {
				tx.JSONText("subnet_mask", addr(v))
			}
		case 3, 6:
			key := "routers"
			if o[0] == 6 {
				key = "dns_servers"
			}
			tx.JSONOpen(key, '[')
			for i := 0; i+4 <= n; i += 4 {
				tx.JSONItem(addr(v[i : i+4]))
			}
			tx.JSONClose(']')
		case 12:
			tx.JSONText("hostname", v)
			tx.Text(rule.BufDHCPHostname, toServer, v)
		case 50:
			if n == 4 {
				tx.JSONText("requested_ip", addr(v))
			}
		case 51, 58, 59:
			if n == 4 {
				x := uint64(binary.BigEndian.Uint32(v))
				switch o[0] {
				case 51:
					tx.JSONUint("lease_time", x)
					tx.Num(rule.NumDHCPLeaseTime, toServer, x)
				case 58:
					tx.JSONUint("renewal_time", x)
					tx.Num(rule.NumDHCPRenewalTime, toServer, x)
				default:
					tx.JSONUint("rebinding_time", x)
					tx.Num(rule.NumDHCPRebindingTime, toServer, x)
				}
			}
		case 52:
			if n == 1 {
				overload = v[0]
			}
		case 53:
			if n == 1 && int(v[0]) < len(types) && v[0] > 0 {
				tx.JSONText("dhcp_type", []byte(types[v[0]]))
			}
		case 55:
			tx.JSONOpen("params", '[')
			for _, c := range v {
				if s, ok := params[c]; ok {
					tx.JSONItem([]byte(s))
				}
			}
			tx.JSONClose(']')
		case 60:
			tx.JSONText("vendor_class_identifier", v)
		case 61:
			if n == 7 && v[0] == 1 {
				tx.JSONText("client_id", mac(v[1:]))
			}
		}
		o = o[2+n:]
	}
	return overload
}

func addr(b []byte) []byte { return netip.AddrFrom4([4]byte(b)).AppendTo(nil) }

func mac(b []byte) []byte {
	const hex = "0123456789abcdef"
	var out []byte
	for i, c := range b {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, hex[c>>4], hex[c&15])
	}
	return out
}
