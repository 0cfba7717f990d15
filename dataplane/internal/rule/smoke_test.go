package rule

import (
	"net/netip"
	"strings"
	"testing"
)

func TestSmoke(t *testing.T) {
	rules, errs := Parse("x", strings.NewReader(`alert tcp any any -> any 80 (msg:"a"; content:"hello"; content:"world"; distance:1; within:5; sid:1;)
alert tcp any any -> any 80 (msg:"b"; content:"HELLO"; nocase; pcre:"/wor.d/R"; sid:2;)
alert tcp any any -> any 80 (msg:"c"; content:"HELLO"; sid:3;)
`), ParseOptions{})
	if errs != nil {
		t.Fatal(errs)
	}
	set, err := Compile(rules, CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := set.NewMatcher()
	defer m.Close()
	p := &Packet{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("1.1.1.1"), Proto: 6, Version: 4, ToServer: true, DstPort: 80, Payload: []byte("say hello world")}
	in := &Input{Packet: p}
	res := m.Inspect(in)
	for _, x := range res.Matches {
		t.Log(x.Rule.SID)
	}
	t.Log(testing.AllocsPerRun(100, func() { m.Inspect(in) }))
}
