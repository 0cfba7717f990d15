package rule

import (
	"fmt"
	"strings"
	"testing"
)

func TestReaderTakesFilesAsTheyAre(t *testing.T) {
	disabled := 0
	rules, errs := Parse("a.rules", strings.NewReader("\r\n# prose (with a word)\n"+
		"alert tcp any any -> any any (msg:\"one\"; \\\n   content:\"x\"; \\\r\n   sid:1; rev:2; gid:3;)\r\n"+
		"#alert tcp any any -> any any (msg:\"off\"; sid:2;)\n# alert udp any any -> any any (msg:\"off\"; sid:3;)\n"+
		"drop http any any -> any any (msg:\"a\\;b \\\"c\\\"\"; http.uri; content:\"x\"; priority:2; reference:url,example.org; metadata:a b, c; target:dest_ip; sid:4;) # tail\n"+
		"alert tcp any any -> any any (sid:5;)"), ParseOptions{Disabled: &disabled})
	for _, e := range errs {
		t.Error(e)
	}
	if len(rules) != 3 || disabled != 2 {
		t.Fatalf("%d rules, %d disabled", len(rules), disabled)
	}
	r := rules[0]
	if r.SID != 1 || r.Rev != 2 || r.GID != 3 || r.Line != 3 || r.Msg != "one" || r.Priority != 3 {
		t.Errorf("first: %+v", r)
	}
	r = rules[1]
	if r.Action != Drop || r.Msg != `a;b "c"` || r.Priority != 2 || len(r.Refs) != 1 || len(r.Metadata) != 2 || r.Metadata[0] != (Metadata{"a", "b"}) || r.Target != TargetDst || r.Line != 8 {
		t.Errorf("second: %+v", r)
	}
}

func TestReaderNamesPlaceKeywordAndReason(t *testing.T) {
	for text, want := range map[string]string{
		`alert tcp any any -> any any`:                                                               "no options",
		`alrt tcp any any -> any any (sid:1;)`:                                                       `a.rules:1:1: sid 1: unknown action "alrt"`,
		`alert tcp any any any any (sid:1;)`:                                                         "the header has 6 words",
		`alert foo any any -> any any (sid:1;)`:                                                      `a.rules:1:7: sid 1: unknown protocol "foo"`,
		`alert tcp 10.0.0.256 any -> any any (sid:1;)`:                                               `a.rules:1:11: sid 1: "10.0.0.256" is not an address`,
		`alert tcp any 70000 -> any any (sid:1;)`:                                                    `"70000" is not a port`,
		`alert tcp any any => any any (sid:1;)`:                                                      "=> needs an application protocol",
		`alert tcp [1.1.1.1 any -> any any (sid:1;)`:                                                 "brackets",
		`alert tcp any any -> any any (msg:"x";)`:                                                    "sid: missing",
		`alert tcp any any -> any any (content:"x; sid:1;)`:                                          "a.rules:1:39: sid 1: content: quotes don't match",
		"alert tcp any any -> any any ( \\\n  foo:1; sid:7;)":                                        "a.rules:2:3: sid 7: foo: unknown keyword",
		`alert tcp any any -> any any (content:"|0g|"; sid:1;)`:                                      "is not a hex digit",
		`alert tcp any any -> any any (content:"|0|"; sid:1;)`:                                       "odd number of hex digits",
		`alert tcp any any -> any any (nocase; sid:1;)`:                                              "nocase: no content before it",
		`alert tcp any any -> any any (content:"abc"; depth:2; sid:1;)`:                              "depth 2 is smaller than the content",
		`alert tcp any any -> any any (content:"abc"; offset:x; sid:1;)`:                             `"x" is neither a number nor a variable`,
		`alert tcp any any -> any any (content:"a"; offset:1; distance:1; sid:1;)`:                   "offset or depth with distance or within",
		`alert tcp any any -> any any (pcre:"/(/"; sid:1;)`:                                          "expression:",
		`alert tcp any any -> any any (pcre:"/a/q"; sid:1;)`:                                         "unknown flag",
		`alert udp any any -> any any (http.uri; content:"x"; flow:to_client; sid:1;)`:               "flow's direction",
		`alert smtp any any -> any any (http.uri; content:"x"; sid:1;)`:                              "keywords that smtp does not have",
		`alert http any any -> any any (http.uri; sid:1;)`:                                           "nothing to look for",
		`alert http any any -> any any (http.uri; content:"a"; http.stat_code; content:"2"; sid:1;)`: "keywords of requests and of responses",
		`alert tcp any any -> any any (flow:sideways; sid:1;)`:                                       `unknown option "sideways"`,
		`alert tcp any any -> any any (flowbits:set; sid:1;)`:                                        "expected operation,name",
		`alert tcp any any -> any any (threshold:type limit,track by_src,count 1; sid:1;)`:           "seconds is missing",
		`alert tcp any any -> any any (byte_test:9,=,1,0; sid:1;)`:                                   "8 is the most",
		`alert tcp any any -> any any (lua:x.lua; sid:1;)`:                                           "lua: scripts are not run",
		`alert http any any -> any any (filemd5:/etc/passwd; sid:1;)`:                                "is not below the folder of the rules",
		`alert http any any -> any any (filemd5:../x; sid:1;)`:                                       "is not below the folder of the rules",
		`alert http any any -> any any (http.uri; to_md5; sid:1;)`:                                   "transform",
		`alert tcp any any -> any any (priority:0; sid:1;)`:                                          "priority",
		`alert tcp any any -> any any (sid:1; sid:2;)`:                                               "given twice",
	} {
		rules, errs := Parse("a.rules", strings.NewReader(text), ParseOptions{})
		if len(rules) != 0 || len(errs) != 1 {
			t.Errorf("%s: %d rules, %d errors", text, len(rules), len(errs))
			continue
		}
		if !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s:\n  got  %s\n  want %s", text, errs[0], want)
		}
	}
}

func TestReaderTellsWrongFromUnsupported(t *testing.T) {
	_, errs := Parse("a.rules", strings.NewReader("alert tcp any any -> any any (lua:x; sid:1;)\nalert tcp any any -> any any (content:x; sid:2;)"), ParseOptions{})
	if len(errs) != 2 || !errs[0].Unsupported || errs[1].Unsupported {
		t.Errorf("%v", errs)
	}
}

func TestSIDTwiceKeepsTheHigherRevision(t *testing.T) {
	rules, errs := Parse("a.rules", strings.NewReader("alert tcp any any -> any any (sid:1; rev:1;)\nalert tcp any any -> any any (sid:1; rev:3;)\nalert tcp any any -> any any (sid:1; rev:2;)"), ParseOptions{})
	if len(rules) != 1 || rules[0].Rev != 3 || len(errs) != 2 {
		t.Errorf("%d rules, %v", len(rules), errs)
	}
}

func TestClassificationGivesPriority(t *testing.T) {
	classes, err := ParseClasses("c", strings.NewReader("# x\nconfig classification: trojan-activity,A Network Trojan was detected, 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	rules, errs := Parse("a.rules", strings.NewReader("alert tcp any any -> any any (classtype:trojan-activity; sid:1;)\nalert tcp any any -> any any (classtype:other; sid:2;)"), ParseOptions{Classes: classes})
	if errs != nil || rules[0].Priority != 1 || rules[0].ClassDesc != "A Network Trojan was detected" || rules[1].Priority != 3 {
		t.Errorf("%+v %v", rules, errs)
	}
	if _, err := ParseClasses("c.config", strings.NewReader("config classification: a,b\nconfig classification: a,b,900")); err == nil || !strings.Contains(err.Error(), "c.config:1") || !strings.Contains(err.Error(), "c.config:2") {
		t.Errorf("got %v", err)
	}
}

func TestVariableThatIsNotThereIsNamed(t *testing.T) {
	set, err := Compile(mustParse(t, "alert tcp $NOWHERE any -> any $NOPORT (sid:9;)\nalert tcp any any -> $LOOP any (sid:10;)"), CompileOptions{Vars: map[string]string{"LOOP": "[$LOOP]"}})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(set.Refused())
	if len(set.Refused()) != 2 || !strings.Contains(got, "$NOWHERE is not defined") || !strings.Contains(got, "refer to each other") {
		t.Error(got)
	}
}

func TestThresholdFile(t *testing.T) {
	rules := mustParse(t, "alert udp any any -> any any (content:\"x\"; sid:1;)\ndrop udp any any -> any any (content:\"y\"; sid:2;)")
	file := `# comment
suppress gen_id 1, sig_id 1, track by_src, ip [10.0.0.0/24,!10.0.0.9]
rate_filter gen_id 1, sig_id 2, track by_src, count 1, seconds 60, \
   new_action alert, timeout 10
`
	set, err := Compile(rules, CompileOptions{Thresholds: strings.NewReader(file), IPS: true})
	if err != nil {
		t.Fatal(err)
	}
	m := set.NewMatcher()
	defer m.Close()
	p := tcpPacket("x")
	p.Proto = protoUDP
	if got := told(m.Inspect(&Input{Packet: p})); len(got) != 0 {
		t.Errorf("suppressed source: %v", got)
	}
	p.Src = p.Src.Next().Next().Next().Next() // 10.0.0.9
	if got := told(m.Inspect(&Input{Packet: p})); len(got) != 1 {
		t.Errorf("source that is left out: %v", got)
	}
	p = tcpPacket("y")
	p.Proto = protoUDP
	if res := m.Inspect(&Input{Packet: p}); !res.Drop {
		t.Error("the first is not dropped")
	}
	if res := m.Inspect(&Input{Packet: p}); res.Drop || len(res.Matches) != 1 || !res.Matches[0].RateFiltered || res.Matches[0].Action != Alert {
		t.Errorf("the second: %+v", res)
	}
	for _, bad := range []string{"suppress gen_id 1", "silence gen_id 1, sig_id 1", "suppress gen_id 1, sig_id 1, track by_src, ip nowhere", "rate_filter gen_id 1, sig_id 1, track by_src, count 0, seconds 1, new_action drop, timeout 1"} {
		if _, err := Compile(rules, CompileOptions{Thresholds: strings.NewReader("\n" + bad)}); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`alert tcp $HOME_NET any -> [1.1.1.1,!2.2.2.0/24] [80,!81:90] (msg:"x"; flow:established,to_server; content:"|00 01|ab"; offset:1; depth:9; nocase; fast_pattern:1,2; pcre:"/^a.(b)/Ri"; sid:1; rev:2;)`,
		`alert http any any => any any (http.uri; content:"/"; http.stat_code; content:"200"; urilen:>5,norm; http.request_header; content:"a"; bsize:3; absent:or_else; sid:2;)`,
		`drop dns any any -> any any (dns.query; dotprefix; to_sha256; xor:"0a0b"; content:"x"; endswith; dns.rrtype:!A,-1; sid:3;)`,
		`alert udp any any <> any any (byte_extract:2,0,v,relative; byte_test:2,!=,v,1,little,bitmask 0xff; byte_jump:1,0,post_offset -1,from_end; byte_math:bytes 1,offset 0,oper <<,rvalue v,result r; isdataat:!r,relative; sid:4;)`,
		`alert tcp any any -> any any (flowbits:isset,a|b; xbits:set,c,track ip_pair,expire 3; flowint:d,+,1; threshold:type both,track by_src,count 1,seconds 2; flags:SA+,12; sid:5;)`,
		`alert tls any any -> any any (tls.subject:"CN=x"; ssl_version:!tls1.0,tls1.2; tls_cert_notbefore:<2020-01-01 10; ja3.hash; content:"AB"; sid:6;)`,
		`alert smb any any -> any any (dcerpc.iface:367abb81-9844-35f1-ad32-98f038001003,>1,any_frag; dcerpc.opnum:1,3-5; base64_decode:bytes 4,offset 1,relative; base64_data; content:"x"; sid:7;)`,
		"# alert tcp any any -> any any (sid:8;)\nalert ip any any -> any any ( \\\n sid:9; metadata:a b, c d; reference:url,x; classtype:y; priority:2; target:src_ip;)",
	} {
		f.Add(s)
	}
	p := tcpPacket("some \x00\x01ab payload")
	tx := &fakeTx{app: AppHTTP1, bufs: map[Buffer][]Value{BufHTTPURI: done("/a/b?c"), BufHTTPHost: done("a.example")}}
	f.Fuzz(func(t *testing.T, text string) {
		rules, errs := Parse("f", strings.NewReader(text), ParseOptions{Dir: t.TempDir()})
		for _, e := range errs {
			if e.Line < 1 || e.Reason == "" {
				t.Fatalf("an error without place or reason: %+v", e)
			}
		}
		if len(rules) == 0 || len(rules) > 20 {
			return
		}
		set, err := Compile(rules, CompileOptions{Workers: 1})
		if err != nil {
			t.Fatalf("compile %q: %v", text, err)
		}
		m := set.NewMatcher()
		defer m.Close()
		for _, app := range []App{AppUnknown, AppHTTP1} {
			p.App = app
			tx.state.Reset()
			m.Inspect(&Input{Packet: p, Flow: &FlowState{}, Stream: p.Payload, StreamNew: len(p.Payload), Txs: []Transaction{tx}})
		}
	})
}
