package signature

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

const goodRule = `alert http $HOME_NET any -> $EXTERNAL_NET [80, 8080] (msg:"a (b; c\" d"; content:"x|3b|"; pcre:"/(a|b)/"; sid:1; rev:2;)` + "\n"

func TestBuildIsTheSameWhateverTheOrder(t *testing.T) {
	t.Parallel()
	files := []File{
		{Name: "a.rules", Content: []byte("# comment\n" + goodRule + "drop tcp any any -> any any (msg:\"x\"; \\\n  sid:2;)\n")},
		{Name: "bots.addresses", Kind: "c2", Content: []byte("198.51.100.7 # one\n2001:db8::/32\n198.51.100.7\n203.0.113.0/24\n")},
		{Name: "bots.domains", Kind: "malware", Content: []byte("*.Evil.Example\nb.example.\n日本語.example\n")},
		{Name: "classification.config", Content: []byte("config classification: trojan-activity,A Trojan,1\n")},
	}
	if _, _, err := Build(files[:3], nil); err == nil {
		t.Fatal("two lists of one name were taken")
	}
	files[2].Name = "evil.domains"
	one, n, err := Build(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n != (Count{Rules: 2, Addresses: 3, Domains: 3}) {
		t.Errorf("count %+v", n)
	}
	files[0], files[3] = files[3], files[0]
	two, _, err := Build(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := proto.MarshalOptions{Deterministic: true}.Marshal(one)
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(two)
	if !bytes.Equal(a, b) {
		t.Error("order of files changes the content")
	}
	want := []byte{4, 32, 198, 51, 100, 7, 4, 24, 203, 0, 113, 0, 16, 32, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if got := one.GetAddresses()[0].GetPrefixes(); !bytes.Equal(got, want) {
		t.Errorf("packed %v\nwant   %v", got, want)
	}
	if d := strings.Join(one.GetDomains()[0].GetDomains(), " "); d != "b.example evil.example xn--wgv71a119e.example" {
		t.Errorf("domains %s", d)
	}
}

func TestBadFilesNameFileAndLine(t *testing.T) {
	t.Parallel()
	never := []netip.Prefix{netip.MustParsePrefix("203.0.113.5/32")}
	for _, c := range []struct{ name, kind, content, want string }{
		{"a.rules", "", "\nalert tcp any any -> any any msg", `a.rules:2: no "("`},
		{"a.rules", "", "alert tcp any any (sid:1;)", "a.rules:1: header has 4 parts"},
		{"a.rules", "", "warn tcp any any -> any any (sid:1;)", `action "warn"`},
		{"a.rules", "", "alert tcp any any -- any any (sid:1;)", `direction "--"`},
		{"a.rules", "", "alert tcp any any -> any any (sid:1;", `no ")"`},
		{"a.rules", "", `alert tcp any any -> any any (msg:"x; sid:1;)`, "a quote is not closed"},
		{"a.rules", "", "alert tcp any any -> any any (msg:x)); sid:1;)", `")" without "("`},
		{"a.rules", "", "alert tcp any any -> any any (sid:1; rev:1)", "does not end with a semicolon"},
		{"a.rules", "", "alert tcp any any -> any any (rev:1;)", "a.rules:1: no sid"},
		{"a.rules", "", "alert tcp any any -> any any (sid:x;)", `sid "x"`},
		{"a.rules", "", goodRule + goodRule, "a.rules:2: sid 1 is that of a.rules:1 as well"},
		{"a.rules", "", "alert tcp any any -> any any (sid:1; \\", "ends within a rule"},
		{"a.rules", "", "\xff", "is not UTF-8"},
		{"a.rules", "c2", "", "only addresses and domains"},
		{"a.addresses", "", "192.0.2.1", `list kind ""`},
		{"a.addresses", "c2", "192.0.2.1\nfoo\n", `a.addresses:2: "foo": is neither`},
		{"a.addresses", "c2", "0.0.0.0/0", "so wide"},
		{"a.addresses", "c2", "::/0", "so wide"},
		{"a.addresses", "c2", "127.0.0.1", "no host on the Internet"},
		{"a.addresses", "c2", "192.0.2.1/24", "did you mean 192.0.2.0/24?"},
		{"a.addresses", "c2", "203.0.113.0/24", "would block 203.0.113.5/32, which never_block protects"},
		{"a.domains", "c2", "192.0.2.1", "is an address"},
		{"a.domains", "c2", "com", "top-level"},
		{"a.domains", "c2", "a..b.example", "is no domain name"},
		{"classification.config", "", "config classification: a,b", "want \"config classification"},
		{"classification.config", "", "config classification: a,b,0", "priority"},
		{"A B.rules", "", "", "name: want"},
		{"a.txt", "", "", "unknown kind of file"},
	} {
		_, _, err := Build([]File{{Name: c.name, Kind: c.kind, Content: []byte(c.content)}}, never)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v\nwant %s", c.name, c.content, err, c.want)
		}
	}
	if _, _, err := Build(nil, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("nothing: %v", err)
	}
	long, _, err := Build([]File{{Name: "a.domains", Kind: "c2", Content: []byte(strings.Repeat("x\n", 300))}}, nil)
	if long != nil || !strings.Contains(err.Error(), "and 200 more") {
		t.Errorf("many problems: %v", err)
	}
}

func FuzzBuild(f *testing.F) {
	f.Add("a.rules", "", []byte(goodRule))
	f.Add("a.addresses", "c2", []byte("192.0.2.1\n2001:db8::/32"))
	f.Add("a.domains", "malware", []byte("*.x.example\n"))
	f.Add("classification.config", "", []byte("config classification: a,b,1\n"))
	f.Fuzz(func(t *testing.T, name, kind string, content []byte) {
		s, _, err := Build([]File{{Name: name, Kind: kind, Content: content}}, nil)
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("error of another kind: %v", err)
		}
		if err == nil {
			if _, err := proto.Marshal(s); err != nil {
				t.Fatalf("result can't be encoded: %v", err)
			}
		}
	})
}
