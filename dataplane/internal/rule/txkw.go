package rule

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// txKind is what a txTest looks at.
type txKind uint8

const (
	txNumber    txKind = iota
	txDCEIface         // dcerpc.iface
	txEvent            // app-layer-event
	txExpired          // tls_cert_expired
	txValid            // tls_cert_valid
	txFileStore        // filestore
)

// txTest is a keyword about a transaction that is no buffer.
type txTest struct {
	kind           txKind
	num            Number
	cmp            cmpOp
	alt            []cmpOp // further comparisons, any of which may hold
	index          int     // instance: -1 any, -2 all
	server, client bool
	dir            uint8 // the one direction asked for, 0 for none
	apps           AppSet
	iface          ifaceSpec
	event          Event
}

// ifaceSpec is dcerpc.iface.
type ifaceSpec struct {
	uuid    [16]byte
	version cmpOp
	hasVer  bool
	anyFrag bool
}

// appTest is app-layer-protocol.
type appTest struct {
	apps AppSet
	neg  bool
	mode byte // 0 either, f final, o original, s to server, c to client
}

// iprepTest is iprep.
type iprepTest struct {
	side byte // s source, d destination, a any, b both
	cat  string
	cmp  cmpOp
	set  bool // isset
	neg  bool // isnotset
}

// txNum makes a keyword that compares a number.
func txNum(k Number, limit uint64, words map[string]uint64) {
	info := &numbers[k]
	add(argNeed, func(p *parser, v string) error {
		s, neg, err := unquote(v)
		if err != nil {
			return err
		}
		if neg {
			s = "!" + s
		}
		t := txTest{kind: txNumber, num: k, index: -1}
		if d, rest, ok := strings.Cut(s, ","); ok {
			switch strings.TrimSpace(d) {
			case "to_server", "toserver":
				t.dir, s = maskServer, strings.TrimSpace(rest)
			case "to_client", "toclient":
				t.dir, s = maskClient, strings.TrimSpace(rest)
			}
		}
		if info.many {
			// "value,index"
			if i := strings.LastIndexByte(s, ','); i >= 0 && !strings.HasSuffix(s, "]") {
				switch idx := strings.TrimSpace(s[i+1:]); idx {
				case "any":
				case "all":
					t.index = -2
				case "all1", "or_absent":
					return unsupported("index " + idx)
				default:
					n, err := strconv.ParseInt(idx, 10, 32)
					if err != nil {
						return fmt.Errorf("index %q is none of any, all, or a number", idx)
					}
					if n < 0 {
						n -= 10 // -1 is the last: -11
					}
					t.index = int(n)
				}
				s = s[:i]
			}
		}
		if t.cmp, err = parseCmp(s, limit, words); err != nil {
			return err
		}
		p.txTest(t)
		return nil
	}, append([]string{info.name}, info.aliases...)...)
}

// txTest adds a transaction keyword with the directions and protocols of its number.
func (p *parser) txTest(t txTest) {
	if t.kind == txNumber {
		info := &numbers[t.num]
		t.server, t.client, t.apps = info.server && t.dir != maskClient, info.client && t.dir != maskServer, info.apps
	}
	p.r.tests = append(p.r.tests, t)
}

func init() {
	words := func(kv ...any) map[string]uint64 {
		m := map[string]uint64{}
		name := ""
		for _, x := range kv {
			switch x := x.(type) {
			case string:
				name = x
			case int:
				m[name] = uint64(x)
			}
		}
		return m
	}
	txNum(NumFileSize, 1<<62, nil)
	txNum(NumDNSOpcode, 15, nil)
	txNum(NumDNSRcode, 65535, words("noerror", 0, "formerr", 1, "servfail", 2, "nxdomain", 3, "notimp", 4, "refused", 5, "yxdomain", 6, "yxrrset", 7,
		"nxrrset", 8, "notauth", 9, "notzone", 10, "badvers", 16, "badsig", 16, "badkey", 17, "badtime", 18, "badmode", 19, "badname", 20, "badalg", 21, "badtrunc", 22, "badcookie", 23))
	txNum(NumDNSRRType, 65535, words("a", 1, "ns", 2, "cname", 5, "soa", 6, "ptr", 12, "mx", 15, "txt", 16, "aaaa", 28, "srv", 33, "naptr", 35, "ds", 43,
		"rrsig", 46, "nsec", 47, "dnskey", 48, "tlsa", 52, "svcb", 64, "https", 65, "spf", 99, "tkey", 249, "tsig", 250, "ixfr", 251, "axfr", 252, "any", 255, "null", 10, "hinfo", 13))
	txNum(NumTLSChainLen, 1<<32-1, nil)
	txNum(NumSMBVersion, 2, nil)
	krb := words("as_req", 10, "as_rep", 11, "tgs_req", 12, "tgs_rep", 13, "ap_req", 14, "ap_rep", 15, "krb_error", 30, "error", 30)
	txNum(NumKRB5MsgType, 255, krb)
	txNum(NumKRB5ErrCode, 1<<31, nil)
	txNum(NumSNMPVersion, 3, nil)
	txNum(NumSNMPPDUType, 255, words("get_request", 0, "get_next_request", 1, "response", 2, "set_request", 3, "trap_v1", 4, "get_bulk_request", 5,
		"inform_request", 6, "trap_v2", 7, "report", 8))
	txNum(NumRFBSecType, 1<<32-1, nil)
	txNum(NumRFBSecResult, 1<<32-1, words("ok", 0, "fail", 1, "toomany", 2, "unknown", 0xffffffff))
	txNum(NumHTTP2FrameType, 255, words("data", 0, "headers", 1, "priority", 2, "rststream", 3, "settings", 4, "pushpromise", 5, "ping", 6, "goaway", 7, "windowupdate", 8, "continuation", 9))
	txNum(NumHTTP2ErrorCode, 1<<32-1, words("no_error", 0, "protocol_error", 1, "internal_error", 2, "flow_control_error", 3, "settings_timeout", 4,
		"stream_closed", 5, "frame_size_error", 6, "refused_stream", 7, "cancel", 8, "compression_error", 9, "connect_error", 10, "enhance_your_calm", 11,
		"inadequate_security", 12, "http_1_1_required", 13))
	txNum(NumHTTP2Priority, 255, nil)
	txNum(NumHTTP2Window, 1<<31, nil)
	txNum(NumHTTP2SizeUpdate, 1<<62, nil)
	txNum(NumMQTTType, 15, words("connect", 1, "connack", 2, "publish", 3, "puback", 4, "pubrec", 5, "pubrel", 6, "pubcomp", 7, "subscribe", 8,
		"suback", 9, "unsubscribe", 10, "unsuback", 11, "pingreq", 12, "pingresp", 13, "disconnect", 14, "auth", 15))
	txNum(NumMQTTVersion, 255, nil)
	txNum(NumMQTTQoS, 3, nil)
	txNum(NumMQTTReason, 255, nil)
	txNum(NumMQTTSessionPresent, 1, words("yes", 1, "true", 1, "no", 0, "false", 0))
	txNum(NumIKEExchType, 255, nil)
	txNum(NumIKEKeyLen, 1<<32-1, nil)
	txNum(NumIKENonceLen, 1<<32-1, nil)
	txNum(NumFTPDynPort, 65535, nil)
	txNum(NumFTPReplyReceived, 1, words("yes", 1, "true", 1, "on", 1, "no", 0, "false", 0, "off", 0))
	txNum(NumDHCPLeaseTime, 1<<62, nil)
	txNum(NumDHCPRebindingTime, 1<<62, nil)
	txNum(NumDHCPRenewalTime, 1<<62, nil)
	ldap := words("bind_request", 0, "bind_response", 1, "unbind_request", 2, "search_request", 3, "search_result_entry", 4, "search_result_done", 5,
		"modify_request", 6, "modify_response", 7, "add_request", 8, "add_response", 9, "del_request", 10, "del_response", 11, "mod_dn_request", 12,
		"mod_dn_response", 13, "compare_request", 14, "compare_response", 15, "abandon_request", 16, "search_result_reference", 19, "extended_request", 23,
		"extended_response", 24, "intermediate_response", 25)
	txNum(NumLDAPRequestOp, 255, ldap)
	txNum(NumLDAPResponseOp, 255, ldap)
	refuse("the engine does not give the flags", "mqtt.flags", "mqtt.connect.flags", "ike.chosen_sa_attribute", "http2.settings")

	add(argNone, func(p *parser, _ string) error {
		p.txTest(txTest{kind: txNumber, num: NumFTPBounce, index: -1, cmp: cmpOp{op: '=', lo: 1}})
		return nil
	}, "ftpbounce")
	add(argNeed, func(p *parser, v string) error {
		n, ok := map[string]uint64{"retr": 1, "stor": 2}[strings.ToLower(v)]
		if !ok {
			return fmt.Errorf("%q is neither retr nor stor", v)
		}
		p.txTest(txTest{kind: txNumber, num: NumFTPDataCommand, index: -1, cmp: cmpOp{op: '=', lo: n}})
		return nil
	}, "ftpdata_command")
	add(argNeed, (*parser).krbTicket, "krb5.ticket_encryption")
	add(argNeed, (*parser).opnum, "dcerpc.opnum", "dce_opnum")
	add(argNeed, (*parser).iface, "dcerpc.iface", "dce_iface")
	add(argNeed, (*parser).sslVersion, "ssl_version")
	add(argNeed, (*parser).tlsVersion, "tls.version")
	add(argNeed, (*parser).sslState, "ssl_state")
	add(argNeed, func(p *parser, v string) error { return p.tlsDate(NumTLSNotBefore, v) }, "tls_cert_notbefore")
	add(argNeed, func(p *parser, v string) error { return p.tlsDate(NumTLSNotAfter, v) }, "tls_cert_notafter")
	add(argNone, func(p *parser, _ string) error {
		p.txTest(txTest{kind: txExpired, client: true, apps: appsOf(AppTLS)})
		return nil
	}, "tls_cert_expired")
	add(argNone, func(p *parser, _ string) error {
		p.txTest(txTest{kind: txValid, client: true, apps: appsOf(AppTLS)})
		return nil
	}, "tls_cert_valid")
	add(argNone, func(*parser, string) error { return nil }, "tls.store", "tls_store")
	add(argNeed, (*parser).appEvent, "app-layer-event")
	add(argNeed, (*parser).appProto, "app-layer-protocol")
	add(argNeed, (*parser).iprepKw, "iprep")
	add(argNeed, (*parser).urilen, "urilen")
	add(argNeed, func(p *parser, v string) error { return p.sizeOf(v) }, "bsize")
	add(argMay, (*parser).absent, "absent")
	add(argNeed, func(p *parser, v string) error { return p.fileWord(BufFileName, v, "", false) }, "filename")
	add(argNeed, func(p *parser, v string) error { return p.fileWord(BufFileName, v, ".", true) }, "fileext")
	add(argNeed, func(p *parser, v string) error { return p.fileWord(BufFileMagic, v, "", false) }, "filemagic")
}

func (p *parser) krbTicket(v string) error {
	// RFC 3961 and its registry; "weak" as Suricata: DES, 3DES and RC4
	etypes := map[string]uint64{
		"des-cbc-crc": 1, "des-cbc-md4": 2, "des-cbc-md5": 3, "des-cbc-raw": 4, "des3-cbc-md5": 5, "des3-cbc-raw": 6, "des-hmac-sha1": 8,
		"dsa-sha1-cms": 9, "rsa-md5-cms": 10, "rsa-sha1-cms": 11, "rc2-cbc-env": 12, "rsa-env": 13, "rsa-es-oaep-env": 14, "des-ede3-cbc-env": 15,
		"des3-cbc-sha1": 16, "aes128-cts-hmac-sha1-96": 17, "aes256-cts-hmac-sha1-96": 18, "aes128-cts-hmac-sha256-128": 19,
		"aes256-cts-hmac-sha384-192": 20, "rc4-hmac": 23, "rc4-hmac-exp": 24, "camellia128-cts-cmac": 25, "camellia256-cts-cmac": 26,
	}
	weak := []uint64{1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 23, 24}
	t := txTest{kind: txNumber, num: NumKRB5Ticket, index: -1, cmp: cmpOp{op: 'i'}}
	s := strings.TrimSpace(v)
	if strings.HasPrefix(s, "!") {
		t.cmp.neg = true
		s = strings.TrimSpace(s[1:])
	}
	for _, w := range splitArgs(s) {
		w = strings.ToLower(w)
		if w == "weak" {
			t.cmp.set = append(t.cmp.set, weak...)
			continue
		}
		if n, ok := etypes[w]; ok {
			t.cmp.set = append(t.cmp.set, n)
			continue
		}
		n, err := strconv.ParseInt(w, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is no encryption type", w)
		}
		t.cmp.set = append(t.cmp.set, uint64(uint32(n)))
	}
	p.txTest(t)
	return nil
}

func (p *parser) opnum(v string) error {
	t := txTest{kind: txNumber, num: NumDCEOpnum, index: -1}
	for i, w := range splitArgs(v) {
		var c cmpOp
		if a, b, ok := strings.Cut(w, "-"); ok {
			lo, err1 := strconv.ParseUint(strings.TrimSpace(a), 10, 16)
			hi, err2 := strconv.ParseUint(strings.TrimSpace(b), 10, 16)
			if err1 != nil || err2 != nil || hi < lo {
				return fmt.Errorf("%q is not a range of numbers up to 65535", w)
			}
			c = cmpOp{op: 'i'}
			for n := lo; n <= hi; n++ {
				c.set = append(c.set, n)
			}
		} else {
			var err error
			if c, err = parseCmp(w, 65535, nil); err != nil {
				return err
			}
		}
		if i == 0 {
			t.cmp = c
		} else {
			t.alt = append(t.alt, c)
		}
	}
	p.txTest(t)
	return nil
}

func (p *parser) iface(v string) error {
	t := txTest{kind: txDCEIface, server: true, client: true, apps: appsOf(AppDCERPC, AppSMB)}
	for i, w := range splitArgs(v) {
		switch {
		case i == 0:
			b, err := hex.DecodeString(strings.ReplaceAll(w, "-", ""))
			if err != nil || len(b) != 16 || len(w) != 36 {
				return fmt.Errorf("%q is not a UUID", w)
			}
			copy(t.iface.uuid[:], b)
		case w == "any_frag":
			t.iface.anyFrag = true
		default:
			var err error
			if t.iface.version, err = parseCmp(w, 65535, nil); err != nil {
				return err
			}
			t.iface.hasVer = true
		}
	}
	p.txTest(t)
	return nil
}

var tlsVersions = map[string]uint64{"sslv2": 0x0200, "sslv3": 0x0300, "tls1.0": 0x0301, "tls1.1": 0x0302, "tls1.2": 0x0303, "tls1.3": 0x0304}

func (p *parser) sslVersion(v string) error {
	t := txTest{kind: txNumber, num: NumTLSVersion, index: -1}
	s := strings.ToLower(strings.Trim(strings.TrimSpace(v), `"`))
	yes, no := cmpOp{op: 'i'}, cmpOp{op: 'i', neg: true}
	for _, w := range splitArgs(s) {
		neg := strings.HasPrefix(w, "!")
		n, ok := tlsVersions[strings.TrimPrefix(w, "!")]
		if !ok {
			return fmt.Errorf("unknown version %q", w)
		}
		if neg {
			no.set = append(no.set, n)
		} else {
			yes.set = append(yes.set, n)
		}
	}
	switch {
	case len(yes.set) > 0 && len(no.set) > 0:
		t.cmp, t.alt = yes, []cmpOp{no}
	case len(yes.set) > 0:
		t.cmp = yes
	default:
		t.cmp = no
	}
	p.txTest(t)
	return nil
}

func (p *parser) tlsVersion(v string) error {
	s := strings.Trim(strings.TrimSpace(v), `"`)
	n, ok := tlsVersions["tls"+s]
	if !ok {
		if raw, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 16); err == nil && strings.HasPrefix(s, "0x") {
			n, ok = raw, true
		}
	}
	if !ok {
		return fmt.Errorf("%q is none of 1.0, 1.1, 1.2, 1.3", v)
	}
	p.txTest(txTest{kind: txNumber, num: NumTLSVersion, index: -1, cmp: cmpOp{op: '=', lo: n}})
	return nil
}

func (p *parser) sslState(v string) error {
	t := txTest{kind: txNumber, num: NumSSLState, index: -1}
	bits := map[string]uint64{"client_hello": 1, "server_hello": 2, "client_keyx": 4, "server_keyx": 8, "unknown": 16}
	var want, not uint64
	for _, w := range strings.FieldsFunc(v, func(c rune) bool { return c == ',' || c == '|' }) {
		w = strings.TrimSpace(w)
		b, ok := bits[strings.TrimPrefix(w, "!")]
		if !ok {
			return fmt.Errorf("unknown state %q", w)
		}
		if strings.HasPrefix(w, "!") {
			not |= b
		} else {
			want |= b
		}
	}
	switch {
	case want != 0 && not != 0:
		return unsupported("negated and plain states mixed")
	case want != 0:
		t.cmp = cmpOp{op: '+', lo: want}
	default:
		t.cmp = cmpOp{op: '-', lo: not}
	}
	p.txTest(t)
	return nil
}

func (p *parser) tlsDate(k Number, v string) error {
	date := func(s string) (uint64, error) {
		s = strings.TrimSpace(s)
		for _, layout := range []string{"2006", "2006-01", "2006-01-02", "2006-01-02 15", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
			if d, err := time.Parse(layout, s); err == nil && d.Unix() >= 0 {
				return uint64(d.Unix()), nil
			}
		}
		return 0, fmt.Errorf("%q is not a date like 2015-10-22 10:20", s)
	}
	t := txTest{kind: txNumber, num: k, index: -1}
	s := strings.Trim(strings.TrimSpace(v), `"`)
	var err error
	switch a, b, between := strings.Cut(s, "<>"); {
	case between:
		t.cmp.op = 'r'
		if t.cmp.lo, err = date(a); err == nil {
			t.cmp.hi, err = date(b)
		}
	case strings.HasPrefix(s, "<"), strings.HasPrefix(s, ">"):
		t.cmp.op = s[0]
		t.cmp.lo, err = date(s[1:])
	default:
		t.cmp.op = '='
		t.cmp.lo, err = date(s)
	}
	if err != nil {
		return err
	}
	p.txTest(t)
	return nil
}

func (p *parser) appEvent(v string) error {
	name := strings.ToLower(strings.TrimSpace(v))
	proto, _, ok := strings.Cut(name, ".")
	if !ok {
		switch name {
		case "applayer_mismatch_protocol_both_directions", "applayer_wrong_direction_first_data", "applayer_detect_protocol_only_one_direction",
			"applayer_proto_detection_skipped", "applayer_no_tls_after_starttls", "applayer_unexpected_protocol":
			return p.event("applayer.", name)
		}
		return fmt.Errorf("%q is not protocol.event", v)
	}
	apps, known := AppByName(proto)
	if !known {
		return unsupported(fmt.Sprintf("events of %s: the engine has no such parser", proto))
	}
	p.txTest(txTest{kind: txEvent, event: EventID(name), server: true, client: true, apps: apps})
	return nil
}

func (p *parser) appProto(v string) error {
	w := splitArgs(v)
	t := appTest{}
	name := w[0]
	if strings.HasPrefix(name, "!") {
		t.neg, name = true, strings.TrimSpace(name[1:])
	}
	exact := false
	for _, m := range w[1:] {
		switch m {
		case "either":
		case "final":
			t.mode = 'f'
		case "original":
			t.mode = 'o'
		case "to_server", "toserver":
			t.mode = 's'
		case "to_client", "toclient":
			t.mode = 'c'
		case "exact":
			exact = true
		default:
			return fmt.Errorf("unknown mode %q", m)
		}
	}
	switch name {
	case "failed":
		t.apps = appsOf(AppFailed)
	case "unknown":
		t.apps = appsOf(AppUnknown)
	default:
		set, ok := AppByName(name)
		if !ok {
			return fmt.Errorf("unknown protocol %q", name)
		}
		t.apps = set
		if exact {
			for a := AppHTTP1; a < appCount; a++ {
				if appNames[a] == name {
					t.apps = appsOf(a)
				}
			}
		}
	}
	if slices.ContainsFunc(p.r.appTests, func(o appTest) bool { return o.neg != t.neg }) {
		return errors.New("negated and plain protocols can't be mixed")
	}
	p.r.appTests = append(p.r.appTests, t)
	return nil
}

func (p *parser) iprepKw(v string) error {
	w := splitArgs(v)
	if len(w) < 3 {
		return errors.New("expected side,category,operator,score")
	}
	t := iprepTest{cat: w[1]}
	switch w[0] {
	case "any":
		t.side = 'a'
	case "src":
		t.side = 's'
	case "dst":
		t.side = 'd'
	case "both":
		t.side = 'b'
	default:
		return fmt.Errorf("unknown side %q", w[0])
	}
	switch {
	case w[2] == "isset":
		t.set = true
	case w[2] == "isnotset":
		t.neg = true
	case len(w) == 4:
		var err error
		if t.cmp, err = parseCmp(w[2]+w[3], 127, nil); err != nil {
			return err
		}
	default:
		return errors.New("expected side,category,operator,score")
	}
	p.r.iprep = append(p.r.iprep, t)
	return nil
}

func (p *parser) urilen(v string) error {
	buf := BufHTTPURI
	if s, mode, ok := strings.Cut(v, ","); ok {
		v = s
		switch strings.TrimSpace(mode) {
		case "raw":
			buf = BufHTTPURIRaw
		case "norm":
		default:
			return fmt.Errorf("%q is neither raw nor norm", mode)
		}
	}
	c, err := parseCmp(v, 65535, nil)
	if err != nil {
		return err
	}
	stay, last := p.section, p.last
	p.sectionFor(buf)
	p.section.items = append(p.section.items, &item{kind: itBSize, size: c, at: p.at})
	p.section, p.last = stay, last
	return nil
}

func (p *parser) sizeOf(v string) error {
	if p.section == nil || p.section.buf == BufPayload {
		return errors.New("needs a sticky buffer before it")
	}
	c, err := parseCmp(v, 1<<62, nil)
	if err != nil {
		return err
	}
	p.push(&item{kind: itBSize, size: c})
	return nil
}

func (p *parser) absent(v string) error {
	if p.section == nil || p.section.buf < firstTxBuffer {
		return errors.New("needs a sticky buffer before it")
	}
	it := &item{kind: itAbsent}
	switch v {
	case "":
	case "or_else":
		it.elseOK = true
	default:
		return fmt.Errorf("unknown option %q", v)
	}
	p.push(it)
	return nil
}

// fileWord reads filename, fileext and filemagic: a text without regard to case.
func (p *parser) fileWord(b Buffer, v, prefix string, ends bool) error {
	s, neg, err := unquote(v)
	if err != nil {
		return err
	}
	pat, err := patternBytes(s)
	if err != nil {
		return err
	}
	stay, last := p.section, p.last
	p.newSection(b, 0)
	p.section.items = append(p.section.items, &item{kind: itContent, pat: append([]byte(prefix), pat...), neg: neg, nocase: true, ends: ends, at: p.at})
	p.section, p.last = stay, last
	return nil
}
