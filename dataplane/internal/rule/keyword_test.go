package rule

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestKeywordsAboutPackets has one row for each keyword that looks at a packet: options, a packet that matches, one that
// does not.
func TestKeywordsAboutPackets(t *testing.T) {
	base := func(f func(*Packet)) *Packet {
		p := tcpPacket("hello world")
		if f != nil {
			f(p)
		}
		return p
	}
	udp := func(f func(*Packet)) *Packet {
		return base(func(p *Packet) {
			p.Proto, p.TCPFlags = protoUDP, 0
			if f != nil {
				f(p)
			}
		})
	}
	icmp := func(f func(*Packet)) *Packet {
		return base(func(p *Packet) {
			p.Proto, p.SrcPort, p.DstPort, p.ICMPType, p.HasICMPID, p.ICMPID, p.ICMPSeq = protoICMP, 0, 0, 8, true, 7, 3
			p.L4Header = []byte{8, 0, 1, 2, 0, 7, 0, 3}
			if f != nil {
				f(p)
			}
		})
	}
	text := func(s string) *Packet { return base(func(p *Packet) { p.Payload = []byte(s) }) }
	for _, c := range []struct {
		head, opts string
		yes, no    *Packet
	}{
		{"tcp any any -> any any", `content:"hello";`, base(nil), text("help")},
		{"tcp any any -> any any", `content:"HELLO"; nocase;`, base(nil), text("help")},
		{"tcp any any -> any any", `content:"|68 65|llo";`, base(nil), text("hallo")},
		{"tcp any any -> any any", `content:"a\;b\"c\\d\:e|7c|";`, text(`a;b"c\d:e|`), base(nil)},
		{"tcp any any -> any any", `content:!"evil";`, base(nil), text("evil")},
		{"tcp any any -> any any", `content:"world"; offset:6;`, base(nil), text("world hello")},
		{"tcp any any -> any any", `content:"hello"; depth:5;`, base(nil), text(" hello")},
		{"tcp any any -> any any", `content:"world"; offset:6; depth:5;`, base(nil), text("       world")},
		{"tcp any any -> any any", `content:"hello"; startswith;`, base(nil), text("x hello")},
		{"tcp any any -> any any", `content:"world"; endswith;`, base(nil), text("world hello")},
		{"tcp any any -> any any", `content:!"world"; endswith;`, text("world hello"), base(nil)},
		{"tcp any any -> any any", `content:"hello"; content:"world"; distance:1;`, base(nil), text("helloworld")},
		{"tcp any any -> any any", `content:"hello"; content:"world"; distance:1; within:5;`, base(nil), text("hello  world")},
		{"tcp any any -> any any", `content:"hello"; content:!"world"; distance:0; within:6;`, text("hello      world"), base(nil)},
		{"tcp any any -> any any", `content:"ab"; content:"c"; distance:0; within:1;`, text("ab abc"), text("ab ab c")},
		{"tcp any any -> any any", `content:"a"; content:"b"; distance:0; within:1; content:"c"; distance:0; within:1;`, text("aababc"), text("aabab")},
		{"tcp any any -> any any", `content:"hello"; fast_pattern:1,3;`, base(nil), text("hell")},
		{"tcp any any -> any any", `content:"|00 00|"; content:"x";`, text("\x00\x00x"), text("\x00x")},
		{"tcp any any -> any any", `content:"hello"; isdataat:6,relative;`, base(nil), text("hello")},
		{"tcp any any -> any any", `content:"hello"; isdataat:!1,relative;`, text("hello"), base(nil)},
		{"tcp any any -> any any", `isdataat:10;`, base(nil), text("0123456789")},
		{"tcp any any -> any any", `pcre:"/wor.d$/";`, base(nil), text("word")},
		{"tcp any any -> any any", `pcre:"/WORLD/i";`, base(nil), text("word")},
		{"tcp any any -> any any", `pcre:!"/evil/";`, base(nil), text("evil")},
		{"tcp any any -> any any", `content:"hello"; pcre:"/^ world/R";`, base(nil), text("hello, world")},
		{"tcp any any -> any any", `pcre:"/l/"; content:"d"; distance:0; within:1;`, base(nil), text("hello wor d")},
		{"tcp any any -> any any", `dsize:11;`, base(nil), text("x")},
		{"tcp any any -> any any", `dsize:5<>20;`, base(nil), text("hello")},
		{"tcp any any -> any any", `dsize:!0;`, base(nil), text("")},
		{"tcp any any -> any any", `flags:PA;`, base(nil), base(func(p *Packet) { p.TCPFlags = 2 })},
		{"tcp any any -> any any", `flags:A+;`, base(nil), base(func(p *Packet) { p.TCPFlags = 2 })},
		{"tcp any any -> any any", `flags:S,12;`, base(func(p *Packet) { p.TCPFlags = 2 | 64 | 128 }), base(nil)},
		{"tcp any any -> any any", `flags:!R;`, base(nil), base(func(p *Packet) { p.TCPFlags = 4 })},
		{"tcp any any -> any any", `flags:*SR;`, base(func(p *Packet) { p.TCPFlags = 4 }), base(nil)},
		{"tcp any any -> any any", `flags:0;`, base(func(p *Packet) { p.TCPFlags = 0 }), base(nil)},
		{"tcp any any -> any any", `seq:7;`, base(func(p *Packet) { p.TCPSeq = 7 }), base(nil)},
		{"tcp any any -> any any", `ack:7;`, base(func(p *Packet) { p.TCPAck = 7 }), base(nil)},
		{"tcp any any -> any any", `window:!7;`, base(nil), base(func(p *Packet) { p.TCPWindow = 7 })},
		{"tcp any any -> any any", `tcp.mss:<600;`, base(func(p *Packet) { p.TCPMSS = 536 }), base(func(p *Packet) { p.TCPMSS = 1460 })},
		{"ip any any -> any any", `ttl:<65;`, base(nil), base(func(p *Packet) { p.TTL = 128 })},
		{"ip any any -> any any", `ttl:60-70;`, base(nil), base(func(p *Packet) { p.TTL = 128 })},
		{"ip any any -> any any", `tos:8;`, base(func(p *Packet) { p.TOS = 8 }), base(nil)},
		{"ip any any -> any any", `id:31337;`, base(func(p *Packet) { p.IPID = 31337 }), base(nil)},
		{"ip any any -> any any", `fragbits:M;`, base(func(p *Packet) { p.FragBits = MoreFragments }), base(nil)},
		{"ip any any -> any any", `fragbits:+D;`, base(func(p *Packet) { p.FragBits = DontFragment | ReservedBit }), base(nil)},
		{"ip any any -> any any", `fragoffset:>0;`, base(func(p *Packet) { p.FragOff = 8 }), base(nil)},
		{"ip any any -> any any", `ipopts:lsrr;`, base(func(p *Packet) { p.IPOpts = OptLSRR | OptAny }), base(nil)},
		{"ip any any -> any any", `ip_proto:17;`, udp(nil), base(nil)},
		{"ip any any -> any any", `ip_proto:!tcp;`, udp(nil), base(nil)},
		{"ip any any -> any any", `sameip;`, base(func(p *Packet) { p.Dst = p.Src }), base(nil)},
		{"ip any any -> any any", `l3_proto:ipv6;`, base(func(p *Packet) { p.Version = 6 }), base(nil)},
		{"icmp any any -> any any", `itype:8;`, icmp(nil), icmp(func(p *Packet) { p.ICMPType = 0 })},
		{"icmp any any -> any any", `itype:>7; icode:0;`, icmp(nil), icmp(func(p *Packet) { p.ICMPCode = 3 })},
		{"icmp any any -> any any", `icmp_id:7;`, icmp(nil), icmp(func(p *Packet) { p.ICMPID = 8 })},
		{"icmp any any -> any any", `icmp_seq:3;`, icmp(nil), icmp(func(p *Packet) { p.HasICMPID = false })},
		{"icmp any any -> any any", `icmpv4.hdr; content:"|08 00|"; startswith;`, icmp(nil), icmp(func(p *Packet) { p.L4Header = []byte{0, 0, 0, 0} })},
		{"ip any any -> any any", `ipv4.hdr; byte_test:1,=,6,9;`, base(func(p *Packet) { p.IPHeader[9] = 6 }), base(nil)},
		{"tcp any any -> any any", `tcp.hdr; content:"|ff|";`, base(func(p *Packet) { p.L4Header[4] = 0xff }), base(nil)},
		{"tcp any any -> any any", `stream_size:client,>,100;`, base(func(p *Packet) { p.StreamBytes[0] = 101 }), base(nil)},
		{"tcp any any -> any any", `stream_size:either,=,5;`, base(func(p *Packet) { p.StreamBytes[1] = 5 }), base(nil)},
		{"tcp any any -> any any", `flow.pkts:toserver,>3;`, base(func(p *Packet) { p.FlowPackets[0] = 4 }), base(nil)},
		{"tcp any any -> any any", `vlan.id:100;`, base(func(p *Packet) { p.VLAN[0], p.VLANs = 100, 1 }), base(nil)},
		{"tcp any any -> any any", `vlan.layers:1;`, base(func(p *Packet) { p.VLANs = 1 }), base(nil)},
		{"tcp any any -> any any", `tcpv4-csum:invalid;`, base(func(p *Packet) { p.SumsBad = SumTCPv4 }), base(nil)},
		{"ip any any -> any any", `decode-event:ipv4.pkt_too_small;`, base(func(p *Packet) { p.Events = []Event{EventID("decoder.ipv4.pkt_too_small")} }), base(nil)},
		{"tcp any any -> any any", `flow:established,to_server;`, base(nil), turn(base(nil))},
		{"tcp any any -> any any", `flow:not_established;`, base(func(p *Packet) { p.Established = false }), base(nil)},
		{"tcp any any -> any any", `flow:to_server,no_frag;`, base(nil), base(func(p *Packet) { p.Reassembled = true })},
		{"tcp any any -> any 80", `flags:A+;`, base(nil), base(func(p *Packet) { p.DstPort = 81 })},
		{"tcp any any -> any [79:81,!80]", `flags:A+;`, base(func(p *Packet) { p.DstPort = 81 }), base(nil)},
		{"tcp any any -> any !80", `flags:A+;`, base(func(p *Packet) { p.DstPort = 443 }), base(nil)},
		{"tcp any 1024: -> any any", `flags:A+;`, base(nil), base(func(p *Packet) { p.SrcPort = 20 })},
		{"tcp any any <> 10.0.0.5 any", `flags:A+;`, base(nil), base(func(p *Packet) { p.Src = netip.MustParseAddr("10.0.0.6") })},
		{"tcp 10.0.0.0/24 any -> !10.0.0.0/8 any", `flags:A+;`, base(nil), base(func(p *Packet) { p.Dst = netip.MustParseAddr("10.9.9.9") })},
		{"tcp [10.0.0.0/8,!10.0.0.5] any -> any any", `flags:A+;`, base(func(p *Packet) { p.Src = netip.MustParseAddr("10.0.0.6") }), base(nil)},
		{"tcp $HOME_NET any -> $EXTERNAL_NET any", `flags:A+;`, base(nil), turn(base(nil))},
		{"tcp 10.0.0.1-10.0.0.9 any -> any any", `flags:A+;`, base(nil), base(func(p *Packet) { p.Src = netip.MustParseAddr("10.0.0.10") })},
		{"udp any any -> any any", `content:"hello";`, udp(nil), base(nil)},
		{"tcp-pkt any any -> any any", `content:"hello";`, base(nil), text("help")},
		{"tcp any any -> any any", `content:"|0b|"; byte_test:2,>,256,0,relative;`, text("\x0b\x01\x01"), text("\x0b\x00\x01")},
		{"tcp any any -> any any", `byte_test:2,=,0x0102,0,little;`, text("\x02\x01"), text("\x01\x02")},
		{"tcp any any -> any any", `byte_test:3,=,123,0,string,dec;`, text("123"), text("124")},
		{"tcp any any -> any any", `byte_test:1,&,0x80,0;`, text("\x80"), text("\x7f")},
		{"tcp any any -> any any", `byte_test:1,!&,0x80,0;`, text("\x7f"), text("\x80")},
		{"tcp any any -> any any", `byte_test:2,=,5,0,bitmask 0x0ff0;`, text("\x00\x5f"), text("\x00\x6f")},
		{"tcp any any -> any any", `byte_jump:1,0; content:"x"; distance:0; within:1;`, text("\x02..x"), text("\x01..x")},
		{"tcp any any -> any any", `byte_jump:1,0,multiplier 2,post_offset 1; content:"x"; distance:0; within:1;`, text("\x01...x"), text("\x01..x.")},
		{"tcp any any -> any any", `byte_jump:1,0,from_beginning; content:"x"; distance:0; within:1;`, text("\x03..x"), text("\x02..x")},
		{"tcp any any -> any any", `byte_extract:1,0,len; content:"x"; offset:len;`, text("\x03..x"), text("\x03x..")},
		{"tcp any any -> any any", `byte_extract:1,0,v; byte_test:1,=,v,1;`, text("\x05\x05"), text("\x05\x06")},
		{"tcp any any -> any any", `byte_math:bytes 1,offset 0,oper +,rvalue 2,result r; byte_test:1,=,r,1;`, text("\x03\x05"), text("\x03\x06")},
		{"tcp any any -> any any", `byte_math:bytes 1,offset 0,oper /,rvalue 2,result r; isdataat:r;`, text("\x04.."), text("\x06.")},
		{"tcp any any -> any any", `content:"b="; base64_decode:bytes 8,relative; base64_data; content:"evil"; startswith;`, text("b=ZXZpbA=="), text("b=Z29vZA==")},
	} {
		name := c.head + " " + c.opts
		m := matcher(t, "alert "+c.head+" ("+c.opts+" sid:1;)", CompileOptions{})
		for i, p := range []*Packet{c.yes, c.no} {
			in := &Input{Packet: p, Flow: &FlowState{}}
			if got := len(told(m.Inspect(in))); got != 1-i {
				t.Errorf("%s: packet %d: %d alerts, want %d", name, i, got, 1-i)
			}
		}
	}
}

// TestKeywordsAboutTransactions is the same for keywords of application protocols.
func TestKeywordsAboutTransactions(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "list.md5"), []byte("# hashes\nd41d8cd98f00b204e9800998ecf8427e  empty\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.lst"), []byte("ZXZpbC5leGFtcGxl\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.rep"), []byte("ZXZpbC5leGFtcGxl,80\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	buf := func(app App, b Buffer, s string) *fakeTx {
		return &fakeTx{app: app, bufs: map[Buffer][]Value{b: done(s)}}
	}
	num := func(app App, k Number, v ...uint64) *fakeTx {
		return &fakeTx{app: app, nums: map[Number][]uint64{k: v}}
	}
	many := func(app App, b Buffer, s ...string) *fakeTx {
		f := &fakeTx{app: app, bufs: map[Buffer][]Value{}}
		for _, x := range s {
			f.bufs[b] = append(f.bufs[b], done(x)...)
		}
		return f
	}
	uuid := [16]byte{0x36, 0x7a, 0xbb, 0x81, 0x98, 0x44, 0x35, 0xf1, 0xad, 0x32, 0x98, 0xf0, 0x38, 0x00, 0x10, 0x03}
	for _, c := range []struct {
		head, opts string
		client     bool
		yes, no    *fakeTx
	}{
		{"http", `http.uri; content:"/a";`, false, buf(AppHTTP1, BufHTTPURI, "/a"), buf(AppHTTP1, BufHTTPURI, "/b")},
		{"http", `content:"/a"; http_uri;`, false, buf(AppHTTP1, BufHTTPURI, "/a"), buf(AppHTTP1, BufHTTPURI, "/b")},
		{"http", `uricontent:"/a"; isdataat:1,relative;`, false, buf(AppHTTP1, BufHTTPURI, "/ab"), buf(AppHTTP1, BufHTTPURI, "/a")},
		{"http", `urilen:>2; http.uri; content:"/";`, false, buf(AppHTTP1, BufHTTPURI, "/ab"), buf(AppHTTP1, BufHTTPURI, "/a")},
		{"http1", `http.uri; content:"/a";`, false, buf(AppHTTP1, BufHTTPURI, "/a"), buf(AppHTTP2, BufHTTPURI, "/a")},
		{"tcp", `http.host; content:"evil.example"; bsize:12;`, false, buf(AppHTTP1, BufHTTPHost, "evil.example"), buf(AppHTTP1, BufHTTPHost, "xevil.example")},
		{"http", `http.uri; pcre:"/^\/[a-f0-9]{4}$/";`, false, buf(AppHTTP1, BufHTTPURI, "/beef"), buf(AppHTTP1, BufHTTPURI, "/beer")},
		{"http", `pcre:"/^\/[a-f0-9]{4}$/U";`, false, buf(AppHTTP1, BufHTTPURI, "/beef"), buf(AppHTTP1, BufHTTPURI, "/beer")},
		{"http", `http.stat_code; content:"500"; flow:to_client;`, true, buf(AppHTTP1, BufHTTPStatCode, "500"), buf(AppHTTP1, BufHTTPStatCode, "200")},
		{"http", `http.user_agent; content:!"Mozilla"; bsize:>0;`, false, buf(AppHTTP1, BufHTTPUserAgent, "curl"), buf(AppHTTP1, BufHTTPUserAgent, "Mozilla")},
		{"http", `http.user_agent; content:!"Mozilla";`, false, buf(AppHTTP1, BufHTTPUserAgent, "curl"), buf(AppHTTP1, BufHTTPHost, "no agent")},
		{"http", `http.referer; absent;`, false, buf(AppHTTP1, BufHTTPHost, "h"), buf(AppHTTP1, BufHTTPReferer, "r")},
		{"http", `http.referer; absent:or_else; content:"x";`, false, buf(AppHTTP1, BufHTTPReferer, "x"), buf(AppHTTP1, BufHTTPReferer, "r")},
		{"http", `http.request_header; content:"a: 1"; http.request_header; content:"b: 2";`, false, many(AppHTTP1, BufHTTPRequestHeader, "a: 1", "b: 2"), many(AppHTTP1, BufHTTPRequestHeader, "a: 1", "c: 3")},
		{"dns", `dns.query; content:"evil"; nocase; endswith;`, false, many(AppDNS, BufDNSQuery, "good", "EVIL"), many(AppDNS, BufDNSQuery, "evil.example")},
		{"dns", `dns.query; dotprefix; content:".evil.example"; endswith;`, false, buf(AppDNS, BufDNSQuery, "evil.example"), buf(AppDNS, BufDNSQuery, "notevil.example")},
		{"dns", `dns.query; dotprefix; content:".evil.example"; endswith;`, false, buf(AppDoH2, BufDNSQuery, "www.evil.example"), buf(AppDNS, BufDNSQuery, "evil.example.org")},
		{"dns", `dns.opcode:4;`, false, num(AppDNS, NumDNSOpcode, 4), num(AppDNS, NumDNSOpcode, 0)},
		{"dns", `dns.rcode:nxdomain;`, true, num(AppDNS, NumDNSRcode, 3), num(AppDNS, NumDNSRcode, 0)},
		{"dns", `dns.rrtype:TXT;`, false, num(AppDNS, NumDNSRRType, 1, 16), num(AppDNS, NumDNSRRType, 1)},
		{"dns", `dns.rrtype:1,all;`, false, num(AppDNS, NumDNSRRType, 1, 1), num(AppDNS, NumDNSRRType, 1, 16)},
		{"dns", `dns.rrtype:1,-1;`, false, num(AppDNS, NumDNSRRType, 16, 1), num(AppDNS, NumDNSRRType, 1, 16)},
		{"tls", `tls.sni; content:".example"; endswith;`, false, buf(AppTLS, BufTLSSNI, "a.example"), buf(AppTLS, BufTLSSNI, "a.example.org")},
		{"tls", `tls.subject:"CN=x";`, true, buf(AppTLS, BufTLSCertSubject, "C=JP, CN=x"), buf(AppTLS, BufTLSCertSubject, "C=JP, CN=y")},
		{"tls", `tls.cert_fingerprint; content:"AB:CD";`, true, buf(AppTLS, BufTLSCertFingerprint, "ab:cd:ef"), buf(AppTLS, BufTLSCertFingerprint, "ab:ce")},
		{"tls", `tls.cert_serial; content:"0abc";`, true, buf(AppTLS, BufTLSCertSerial, "0A:BC"), buf(AppTLS, BufTLSCertSerial, "0A:BD")},
		{"tls", `ja3.hash; content:"ABCDEF";`, false, buf(AppTLS, BufJA3Hash, "abcdef"), buf(AppTLS, BufJA3Hash, "abcdee")},
		{"tls", `ssl_version:tls1.0,tls1.1;`, false, num(AppTLS, NumTLSVersion, 0x302), num(AppTLS, NumTLSVersion, 0x303)},
		{"tls", `ssl_version:!tls1.3;`, false, num(AppTLS, NumTLSVersion, 0x302), num(AppTLS, NumTLSVersion, 0x304)},
		{"tls", `tls.version:1.2;`, false, num(AppTLS, NumTLSVersion, 0x303), num(AppTLS, NumTLSVersion, 0x304)},
		{"tls", `tls.cert_chain_len:>2;`, true, num(AppTLS, NumTLSChainLen, 3), num(AppTLS, NumTLSChainLen, 2)},
		{"tls", `tls_cert_notbefore:<2020-01-01;`, true, num(AppTLS, NumTLSNotBefore, 1_500_000_000), num(AppTLS, NumTLSNotBefore, 1_700_000_000)},
		{"dcerpc", `dcerpc.opnum:15,20-22;`, false, num(AppDCERPC, NumDCEOpnum, 21), num(AppDCERPC, NumDCEOpnum, 16)},
		{"tcp", `dcerpc.iface:367abb81-9844-35f1-ad32-98f038001003,=2;`, false, &fakeTx{app: AppSMB, ifaces: []DCEInterface{{UUID: uuid, Major: 2, Accepted: true}}}, &fakeTx{app: AppSMB, ifaces: []DCEInterface{{UUID: uuid, Major: 1, Accepted: true}}}},
		{"tcp", `dce_stub_data; byte_test:2,=,1,0,dce;`, false, &fakeTx{app: AppDCERPC, little: true, bufs: map[Buffer][]Value{BufDCEStubData: done("\x01\x00")}}, buf(AppDCERPC, BufDCEStubData, "\x01\x00")},
		{"krb5", `krb5_msg_type:AS_REP;`, true, num(AppKRB5, NumKRB5MsgType, 11), num(AppKRB5, NumKRB5MsgType, 10)},
		{"krb5", `krb5.ticket_encryption:weak;`, true, num(AppKRB5, NumKRB5Ticket, 23), num(AppKRB5, NumKRB5Ticket, 18)},
		{"snmp", `snmp.pdu_type:get_next_request;`, false, num(AppSNMP, NumSNMPPDUType, 1), num(AppSNMP, NumSNMPPDUType, 0)},
		{"rfb", `rfb.secresult:ok;`, true, num(AppRFB, NumRFBSecResult, 0), num(AppRFB, NumRFBSecResult, 1)},
		{"mqtt", `mqtt.type:CONNECT;`, false, num(AppMQTT, NumMQTTType, 1), num(AppMQTT, NumMQTTType, 3)},
		{"ftp-data", `ftpdata_command:stor;`, false, num(AppFTPData, NumFTPDataCommand, 2), num(AppFTPData, NumFTPDataCommand, 1)},
		{"http", `filename:"report";`, false, buf(AppHTTP1, BufFileName, "Report.PDF"), buf(AppHTTP1, BufFileName, "x.pdf")},
		{"http", `fileext:"pdf";`, false, buf(AppHTTP1, BufFileName, "Report.PDF"), buf(AppHTTP1, BufFileName, "pdf.txt")},
		{"http", `filesize:10<>20;`, false, num(AppHTTP1, NumFileSize, 15), num(AppHTTP1, NumFileSize, 20)},
		{"http", `filemd5:list.md5;`, false, buf(AppHTTP1, BufFileMD5, "d41d8cd98f00b204e9800998ecf8427e"), buf(AppHTTP1, BufFileMD5, "d41d8cd98f00b204e9800998ecf8427f")},
		{"http", `filemd5:!list.md5;`, false, buf(AppHTTP1, BufFileMD5, "d41d8cd98f00b204e9800998ecf8427f"), buf(AppHTTP1, BufFileMD5, "d41d8cd98f00b204e9800998ecf8427e")},
		{"http", `http.host; dataset:isset,keyword-hosts,type string,load hosts.lst;`, false, buf(AppHTTP1, BufHTTPHost, "evil.example"), buf(AppHTTP1, BufHTTPHost, "good.example")},
		{"http", `http.host; dataset:isnotset,keyword-hosts,type string,load hosts.lst;`, false, buf(AppHTTP1, BufHTTPHost, "good.example"), buf(AppHTTP1, BufHTTPHost, "evil.example")},
		{"http", `http.host; datarep:keyword-rep,>,50,type string,load hosts.rep;`, false, buf(AppHTTP1, BufHTTPHost, "evil.example"), buf(AppHTTP1, BufHTTPHost, "good.example")},
		{"http", `http.uri; to_md5; content:"|d4 1d 8c d9|"; startswith;`, false, buf(AppHTTP1, BufHTTPURI, ""), buf(AppHTTP1, BufHTTPURI, "x")},
		{"http", `http.uri; to_sha256; content:"|e3 b0 c4 42|"; startswith;`, false, buf(AppHTTP1, BufHTTPURI, ""), buf(AppHTTP1, BufHTTPURI, "x")},
		{"http", `http.uri; strip_whitespace; content:"abc";`, false, buf(AppHTTP1, BufHTTPURI, "a b\tc"), buf(AppHTTP1, BufHTTPURI, "a-b-c")},
		{"http", `http.uri; compress_whitespace; content:"a b";`, false, buf(AppHTTP1, BufHTTPURI, "a   b"), buf(AppHTTP1, BufHTTPURI, "ab")},
		{"http", `http.uri; to_lowercase; content:"abc";`, false, buf(AppHTTP1, BufHTTPURI, "ABC"), buf(AppHTTP1, BufHTTPURI, "ABD")},
		{"http", `http.request_body; url_decode; content:"a b&";`, false, buf(AppHTTP1, BufHTTPRequestBody, "a+b%26"), buf(AppHTTP1, BufHTTPRequestBody, "a+b%2")},
		{"http", `http.uri; pcrexform:"id=([0-9]+)"; content:"42"; bsize:2;`, false, buf(AppHTTP1, BufHTTPURI, "/x?id=42&a"), buf(AppHTTP1, BufHTTPURI, "/x?id=421")},
		{"http", `http.request_body; xor:"01"; content:"evil";`, false, buf(AppHTTP1, BufHTTPRequestBody, "dwhm"), buf(AppHTTP1, BufHTTPRequestBody, "evil")},
		{"http", `http.request_body; from_base64; content:"evil";`, false, buf(AppHTTP1, BufHTTPRequestBody, "ZXZpbA=="), buf(AppHTTP1, BufHTTPRequestBody, "Z29vZA==")},
		{"http", `app-layer-event:http.request_header_invalid;`, false, &fakeTx{app: AppHTTP1, events: []Event{EventID("http.request_header_invalid")}}, &fakeTx{app: AppHTTP1}},
	} {
		name := c.head + " " + c.opts
		m := compiled(t, mustParseDir(t, "alert "+c.head+" any any -> any any ("+c.opts+" sid:1;)", dir), CompileOptions{})
		for i, tx := range []*fakeTx{c.yes, c.no} {
			p := tcpPacket("")
			if c.client {
				turn(p)
			}
			p.App = tx.app
			in := &Input{Packet: p, Flow: &FlowState{}, Txs: []Transaction{tx}}
			if got := len(told(m.Inspect(in))); got != 1-i {
				t.Errorf("%s: transaction %d: %d alerts, want %d", name, i, got, 1-i)
			}
			if got := len(told(m.Inspect(in))); got != 0 {
				t.Errorf("%s: transaction %d: told again", name, i)
			}
		}
	}
}

func TestPassDropRejectAlertInThatOrder(t *testing.T) {
	m := matcher(t, `alert tcp any any -> any any (msg:"tell"; content:"x"; sid:1;)
reject tcp any any -> any any (content:"x"; sid:2;)
drop tcp any any -> any any (content:"x"; sid:3;)
pass tcp any any -> any any (content:"let"; sid:4;)`, CompileOptions{IPS: true})
	f := &FlowState{}
	in := &Input{Packet: tcpPacket("x"), Flow: f, Stream: []byte("x"), StreamNew: 1}
	res := m.Inspect(in)
	if got := told(res); !slices.Equal(got, []uint32{3, 2, 1}) || !res.Drop || !res.DropFlow || res.Reject != Reject || !f.Dropped() {
		t.Errorf("without pass: %v %+v", got, res)
	}
	if res = m.Inspect(in); !res.Drop || !res.DropFlow || len(res.Matches) != 0 {
		t.Errorf("the next packet of a dropped flow: %+v", res)
	}
	f = &FlowState{}
	in = &Input{Packet: tcpPacket("let x"), Flow: f, Stream: []byte("let x"), StreamNew: 5}
	res = m.Inspect(in)
	// the alert stands before the pass rule in the file and is told of
	if got := told(res); !slices.Equal(got, []uint32{1}) || res.Drop || !res.Pass || !res.PassFlow || !f.Passed() {
		t.Errorf("with pass: %v %+v", got, res)
	}
}

func TestFlowbitsTieRulesTogether(t *testing.T) {
	m := matcher(t, `alert tcp any any -> any any (content:"two"; flowbits:isset,seen; flowbits:unset,seen; sid:2;)
alert tcp any any -> any any (content:"one"; flowbits:set,seen; flowbits:noalert; sid:1;)
alert tcp any any -> any any (content:"three"; flowbits:isnotset,seen|other; sid:3;)
alert tcp any any -> any any (content:"count"; flowint:n,+,1; flowint:n,>,1; sid:4;)
alert tcp any any -> any any (content:"count"; flowint:n,notset; flowint:n,=,0; noalert; sid:5;)`, CompileOptions{})
	f := &FlowState{}
	step := func(s string, want ...uint32) {
		t.Helper()
		if got := told(m.Inspect(&Input{Packet: tcpPacket(s), Flow: f, Stream: []byte(s), StreamNew: len(s)})); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	step("two")
	step("three", 3)
	step("one")
	if got := f.Bits(nil); !slices.Equal(got, []string{"seen"}) {
		t.Errorf("bits %v", got)
	}
	step("three")
	step("two", 2)
	step("two")
	f.Reset()
	step("one two", 2)
}

func TestXbitsReachAcrossFlows(t *testing.T) {
	m := matcher(t, `alert tcp any any -> any any (content:"first"; xbits:set,bad,track ip_src,expire 10; sid:1;)
alert tcp any any -> any any (content:"then"; xbits:isset,bad,track ip_src; sid:2;)`, CompileOptions{})
	p := tcpPacket("first")
	m.Inspect(&Input{Packet: p, Flow: &FlowState{}})
	q := tcpPacket("then")
	if got := told(m.Inspect(&Input{Packet: q, Flow: &FlowState{}})); !slices.Equal(got, []uint32{2}) {
		t.Errorf("another flow of the host: %v", got)
	}
	q.Time += 11e9
	if got := told(m.Inspect(&Input{Packet: q, Flow: &FlowState{}})); len(got) != 0 {
		t.Errorf("after its time: %v", got)
	}
}

func TestThresholdsCount(t *testing.T) {
	for opts, want := range map[string][]int{
		"threshold:type limit,track by_src,count 2,seconds 60;":     {1, 1, 0, 0, 0, 0},
		"threshold:type threshold,track by_src,count 3,seconds 60;": {0, 0, 1, 0, 0, 1},
		"threshold:type both,track by_src,count 3,seconds 60;":      {0, 0, 1, 0, 0, 0},
		"threshold:type backoff,track by_src,count 1,multiplier 2;": {1, 1, 0, 1, 0, 0},
		"detection_filter:track by_dst,count 4,seconds 60;":         {0, 0, 0, 0, 1, 1},
		"threshold:type limit,track by_flow,count 1,seconds 60;":    {1, 0, 0, 0, 0, 0},
	} {
		m := matcher(t, `alert udp any any -> any any (content:"x"; `+opts+` sid:1;)`, CompileOptions{})
		f := &FlowState{}
		for i, n := range want {
			p := tcpPacket("x")
			p.Proto = protoUDP
			p.Time += int64(i) * 1e6
			if got := len(told(m.Inspect(&Input{Packet: p, Flow: f}))); got != n {
				t.Errorf("%s packet %d: %d alerts, want %d", opts, i, got, n)
			}
		}
	}
}
