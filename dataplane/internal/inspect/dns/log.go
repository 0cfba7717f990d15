package dns

import (
	"net/netip"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// EVEType is "dns" (multicast DNS has its own).
func (t *Tx) EVEType() string {
	if t.app == rule.AppMDNS {
		return "mdns"
	}
	return "dns"
}

// AppendEVE writes version 3 of Suricata's dns object.
func (t *Tx) AppendEVE(b []byte) []byte {
	b = append(b, `{"version":3,"type":"`...)
	if t.Response {
		b = append(b, `response","id":`...)
	} else {
		b = append(b, `request","tx_id":`...)
		b = strconv.AppendUint(b, t.ID, 10)
		b = append(b, `,"id":`...)
	}
	b = strconv.AppendUint(b, uint64(t.MsgID), 10)
	if t.Response {
		b = append(b, `,"flags":"`...)
		b = strconv.AppendUint(b, uint64(t.Flags), 16)
		b = append(b, '"', ',', '"', 'q', 'r', '"', ':', 't', 'r', 'u', 'e')
		b = appendFlag(b, "aa", t.Flags&0x0400 != 0)
	}
	b = appendFlag(b, "tc", t.Flags&0x0200 != 0)
	b = appendFlag(b, "rd", t.Flags&0x0100 != 0)
	b = appendFlag(b, "ra", t.Flags&0x0080 != 0)
	b = appendFlag(b, "z", t.Flags&0x0040 != 0)
	b = append(b, `,"opcode":`...)
	b = strconv.AppendInt(b, int64(t.Opcode()), 10)
	if t.Response {
		b = append(b, `,"rcode":"`...)
		b = append(b, rcodeName(t.Rcode())...)
		b = append(b, '"')
	}
	if len(t.questions) > 0 {
		b = append(b, `,"queries":[`...)
		for i := range t.questions {
			q := &t.questions[i]
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"rrname":`...)
			b = inspect.AppendJSON(b, t.at(q.name))
			b = append(b, `,"rrtype":"`...)
			b = appendType(b, q.typ)
			b = append(b, `"}`...)
		}
		b = append(b, ']')
	}
	for i, key := range [3]string{"answers", "authorities", "additionals"} {
		if len(t.sections[i]) > 0 && t.Response {
			b = inspect.AppendKey(b, key)
			b = append(b, '[')
			for j := range t.sections[i] {
				if j > 0 {
					b = append(b, ',')
				}
				b = t.appendRecord(b, &t.sections[i][j])
			}
			b = append(b, ']')
		}
	}
	if t.Response && len(t.sections[0]) > 0 {
		b = t.appendGrouped(b)
	}
	return append(b, '}')
}

// AppendPair writes a query and its answer as one object, as DNS over HTTP/2 is told; either may be nil.
func AppendPair(b []byte, q, a *Tx) []byte {
	t := a
	if t == nil {
		t = q
	}
	return t.AppendEVE(b)
}

func appendFlag(b []byte, key string, on bool) []byte {
	if !on {
		return b
	}
	return append(inspect.AppendKey(b, key), "true"...)
}

// appendGrouped writes the answers' data by type: {"A":[…],"CNAME":[…]}.
func (t *Tx) appendGrouped(b []byte) []byte {
	start := len(b)
	b = append(inspect.AppendKey(b, "grouped"), '{')
	empty := len(b)
	for _, typ := range [...]uint16{TypeA, TypeAAAA, TypeCNAME, TypeMX, TypeNS, TypePTR, TypeTXT} {
		first := true
		for i := range t.sections[0] {
			r := &t.sections[0][i]
			if r.typ != typ {
				continue
			}
			d := t.at(r.data)
			var v []byte
			switch {
			case r.named:
				v = d
			case typ == TypeA && len(d) == 4, typ == TypeAAAA && len(d) == 16:
				a, _ := netip.AddrFromSlice(d)
				v = a.AppendTo(nil)
			case typ == TypeTXT && len(d) > 0:
				v = d[1:min(len(d), 1+int(d[0]))]
			default:
				continue
			}
			if first {
				b = append(inspect.AppendKey(b, typeNames[typ]), '[')
				first = false
			} else {
				b = append(b, ',')
			}
			b = inspect.AppendJSON(b, v)
		}
		if !first {
			b = append(b, ']')
		}
	}
	if len(b) == empty {
		return b[:start]
	}
	return append(b, '}')
}

func (t *Tx) appendRecord(b []byte, r *record) []byte {
	b = append(b, `{"rrname":`...)
	b = inspect.AppendJSON(b, t.at(r.name))
	b = append(b, `,"rrtype":"`...)
	b = appendType(b, r.typ)
	b = append(b, `","ttl":`...)
	b = strconv.AppendUint(b, uint64(r.ttl), 10)
	d := t.at(r.data)
	switch {
	case r.typ == TypeSOA && r.named:
		b = append(b, `,"soa":{"mname":`...)
		b = inspect.AppendJSON(b, d)
		b = append(b, `,"rname":`...)
		b = inspect.AppendJSON(b, t.at(r.rname))
		for i, k := range [5]string{"serial", "refresh", "retry", "expire", "minimum"} {
			b = inspect.AppendKey(b, k)
			b = strconv.AppendUint(b, uint64(r.soa[i]), 10)
		}
		b = append(b, '}')
	case r.typ == TypeSRV && r.named:
		b = append(b, `,"srv":{"priority":`...)
		b = strconv.AppendUint(b, uint64(r.prio), 10)
		b = append(b, `,"weight":`...)
		b = strconv.AppendUint(b, uint64(r.weight), 10)
		b = append(b, `,"port":`...)
		b = strconv.AppendUint(b, uint64(r.port), 10)
		b = append(b, `,"name":`...)
		b = append(inspect.AppendJSON(b, d), '}')
	case r.named:
		b = append(b, `,"rdata":`...)
		b = inspect.AppendJSON(b, d)
	case r.typ == TypeA && len(d) == 4, r.typ == TypeAAAA && len(d) == 16:
		a, _ := netip.AddrFromSlice(d)
		b = append(b, `,"rdata":"`...)
		b = a.AppendTo(b)
		b = append(b, '"')
	case r.typ == typeSSHFP && len(d) > 2:
		b = append(b, `,"sshfp":{"fingerprint":"`...)
		const hex = "0123456789abcdef"
		for i, c := range d[2:] {
			if i > 0 {
				b = append(b, ':')
			}
			b = append(b, hex[c>>4], hex[c&15])
		}
		b = append(b, '"')
		b = strconv.AppendUint(inspect.AppendKey(b, "algo"), uint64(d[0]), 10)
		b = strconv.AppendUint(inspect.AppendKey(b, "type"), uint64(d[1]), 10)
		b = append(b, '}')
	case r.typ == TypeTXT:
		// Character strings, each with its length before it.
		for first := true; len(d) > 0; first = false {
			n := min(int(d[0]), len(d)-1)
			if first {
				b = append(b, `,"rdata":`...)
				b = inspect.AppendJSON(b, d[1:1+n])
			}
			d = d[1+n:]
		}
	}
	return append(b, '}')
}

var typeNames = map[uint16]string{
	1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL", 11: "WKS", 12: "PTR",
	13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 17: "RP", 18: "AFSDB", 19: "X25", 20: "ISDN", 21: "RT", 22: "NSAP",
	23: "NSAPPTR", 24: "SIG", 25: "KEY", 26: "PX", 27: "GPOS", 28: "AAAA", 29: "LOC", 30: "NXT", 31: "EID", 32: "NIMLOC",
	33: "SRV", 34: "ATMA", 35: "NAPTR", 36: "KX", 37: "CERT", 38: "A6", 39: "DNAME", 40: "SINK", 41: "OPT", 42: "APL",
	43: "DS", 44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID", 50: "NSEC3", 51: "NSEC3PARAM",
	52: "TLSA", 53: "SMIMEA", 55: "HIP", 59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD", 64: "SVCB",
	65: "HTTPS", 99: "SPF", 249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 253: "MAILB", 254: "MAILA", 255: "ANY",
	256: "URI", 257: "CAA",
}

func appendType(b []byte, t uint16) []byte {
	if s, ok := typeNames[t]; ok {
		return append(b, s...)
	}
	return strconv.AppendUint(b, uint64(t), 10)
}

var rcodeNames = [...]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
}

func rcodeName(c int) string {
	if c < len(rcodeNames) {
		return rcodeNames[c]
	}
	return "RCODE" + strconv.Itoa(c)
}
