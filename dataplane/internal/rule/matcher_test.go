package rule

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestInspectAllocatesNothing(t *testing.T) {
	m := matcher(t, `alert tcp any any -> any 80 (content:"hello"; content:"world"; distance:1; within:5; pcre:"/th(e)n/R"; sid:1;)
alert tcp any any -> any any (flags:A+; flowbits:set,seen; noalert; sid:2;)
alert http any any -> any any (http.uri; content:"/index"; http.host; dotprefix; content:".example"; endswith; sid:3;)
alert http any any -> any any (http.uri; pcre:"/^.index$/"; sid:4;)
alert http any any -> any any (http.uri; xor:"00"; content:"nothing of it"; sid:5;)`, CompileOptions{})
	p := tcpPacket("say hello world, then go")
	p.App = AppHTTP1
	tx := &fakeTx{app: AppHTTP1, bufs: map[Buffer][]Value{BufHTTPURI: done("/index"), BufHTTPHost: done("www.example")}}
	in := &Input{Packet: p, Flow: &FlowState{}, Stream: p.Payload, StreamNew: len(p.Payload), Txs: []Transaction{tx}}
	run := func() {
		tx.state.Reset()
		in.Flow.Reset()
		if res := m.Inspect(in); len(res.Matches) != 4 {
			t.Fatalf("%d matches", len(res.Matches))
		}
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestStreamMatchIsToldOnce(t *testing.T) {
	m := matcher(t, `alert tcp any any -> any any (content:"evil"; sid:1;)`, CompileOptions{})
	f := &FlowState{}
	stream := []byte("some evil text and more of it")
	total := 0
	for end := 6; end <= len(stream); end++ {
		p := tcpPacket(string(stream[end-1 : end]))
		p.StreamAdded = true
		total += len(told(m.Inspect(&Input{Packet: p, Flow: f, Stream: stream[:end], StreamNew: 1})))
	}
	if total != 1 {
		t.Errorf("told %d times", total)
	}
}

func TestTransactionRuleWaitsForItsBuffers(t *testing.T) {
	m := matcher(t, `alert http any any -> any any (http.method; content:"POST"; http.request_body; content:"secret"; sid:1;)
alert http any any -> any any (http.method; content:"POST"; http.request_body; content:!"secret"; sid:2;)
alert http any any -> any any (http.method; content:"POST"; http.request_body; bsize:<5; sid:3;)`, CompileOptions{})
	tx := &fakeTx{app: AppHTTP1, open: true, bufs: map[Buffer][]Value{}}
	p := tcpPacket("")
	p.App = AppHTTP1
	in := &Input{Packet: p, Flow: &FlowState{}, Txs: []Transaction{tx}}
	step := func(what string, want ...uint32) {
		t.Helper()
		if got := told(m.Inspect(in)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	step("nothing yet")
	tx.bufs[BufHTTPMethod] = done("POST")
	step("method")
	tx.bufs[BufHTTPRequestBody] = []Value{{Data: []byte("a sec"), State: Partial}}
	step("half a body")
	tx.bufs[BufHTTPRequestBody] = []Value{{Data: []byte("a secret is"), State: Partial}}
	step("more body", 1)
	tx.bufs[BufHTTPRequestBody] = done("a secret is out")
	tx.open = false
	step("whole body")
}

func TestPatternOverTheSeamOfAGrowingBuffer(t *testing.T) {
	m := matcher(t, `alert http any any -> any any (file.data; content:"needle"; sid:1;)`, CompileOptions{})
	body := strings.Repeat("hay ", 1000) + "needle" + strings.Repeat(" hay", 10)
	tx := &fakeTx{app: AppHTTP1, open: true, bufs: map[Buffer][]Value{}}
	p := turn(tcpPacket(""))
	p.App = AppHTTP1
	in := &Input{Packet: p, Flow: &FlowState{}, Txs: []Transaction{tx}}
	total := 0
	for end := 1; end <= len(body); end += 501 {
		tx.bufs[BufFileData] = []Value{{Data: []byte(body[:end]), State: Partial}}
		total += len(told(m.Inspect(in)))
	}
	tx.bufs[BufFileData] = done(body)
	total += len(told(m.Inspect(in)))
	if total != 1 {
		t.Errorf("told %d times", total)
	}
}

func TestBothDirectionsOfATransaction(t *testing.T) {
	m := matcher(t, `alert http any any => any any (http.uri; content:"/down"; http.server; content:"Apache"; fast_pattern; sid:1;)
alert http any any => any 80 (http.uri; content:"/up"; http.server; content:"Apache"; sid:2;)
alert http any any => any any (http.connection:to_client; content:"keep"; http.uri; content:"/down"; sid:3;)`, CompileOptions{})
	tx := &fakeTx{app: AppHTTP1, open: true, bufs: map[Buffer][]Value{BufHTTPURI: done("/down")}, client: map[Buffer][]Value{}}
	p := tcpPacket("")
	p.App = AppHTTP1
	f := &FlowState{}
	if got := told(m.Inspect(&Input{Packet: p, Flow: f, Txs: []Transaction{tx}})); len(got) != 0 {
		t.Errorf("request: %v", got)
	}
	tx.client[BufHTTPServer] = done("Apache/2")
	tx.client[BufHTTPConnection] = done("keep-alive")
	tx.client[BufHTTPURI] = nil
	// the request's buffers are asked for in their own direction
	if got := told(m.Inspect(&Input{Packet: turn(p), Flow: f, Txs: []Transaction{tx}})); !slices.Equal(got, []uint32{1, 3}) {
		t.Errorf("response: %v", got)
	}
}

func TestEndlessBacktrackingEnds(t *testing.T) {
	m := matcher(t, `alert tcp any any -> any any (content:"a"; fast_pattern; content:"a"; distance:0; content:"a"; distance:0; content:"b"; distance:0; within:1; content:"a"; distance:0; sid:1;)
alert tcp any any -> any any (pcre:"/^(a+)+$/"; sid:2;)`, CompileOptions{})
	p := tcpPacket(strings.Repeat("a", 5000) + "bc")
	m.Inspect(&Input{Packet: p, Flow: &FlowState{}})
	if c := m.Counters(); c.StepLimits == 0 {
		t.Errorf("no limit was reached: %+v", c)
	}
}

func TestCacheSurvivesDamage(t *testing.T) {
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "alert tcp any any -> any any (content:\"pattern number %d\"; sid:%d;)\n", i, i+1)
	}
	rules := mustParse(t, text.String())
	dir := t.TempDir()
	build := func() *Set {
		t.Helper()
		set, err := Compile(rules, CompileOptions{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	if s := build().Stats(); s.Cached != 0 {
		t.Errorf("an empty cache gave %d", s.Cached)
	}
	if s := build().Stats(); s.Cached == 0 {
		t.Error("the cache gave nothing")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+cacheSuffix))
	if err != nil || len(files) == 0 {
		t.Fatal("no files in the cache", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set := build()
	if s := set.Stats(); s.Cached != 0 {
		t.Error("a damaged file was taken")
	}
	m := set.NewMatcher()
	defer m.Close()
	if got := told(m.Inspect(&Input{Packet: tcpPacket("it has pattern number 77."), Flow: &FlowState{}})); !slices.Equal(got, []uint32{8, 78}) {
		t.Errorf("got %v", got)
	}
}

func TestStateOutlivesTheSet(t *testing.T) {
	shared := NewShared(0)
	text := `alert udp any any -> any any (content:"x"; threshold:type limit,track by_src,count 1,seconds 60; sid:1;)`
	p := tcpPacket("x")
	p.Proto = protoUDP
	a := matcher(t, text, CompileOptions{Shared: shared})
	if len(told(a.Inspect(&Input{Packet: p}))) != 1 {
		t.Error("the first is not told")
	}
	b := matcher(t, text, CompileOptions{Shared: shared})
	if len(told(b.Inspect(&Input{Packet: p}))) != 0 {
		t.Error("after the swap the count began anew")
	}
}

func BenchmarkInspect(b *testing.B) {
	rules := corpusRules(b)
	m := compiled(b, rules, CompileOptions{})
	payload := strings.Repeat("GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nAccept: */*\r\n\r\n", 6)
	p := tcpPacket(payload)
	in := &Input{Packet: p, Flow: &FlowState{}, Stream: p.Payload, StreamNew: len(payload)}
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		m.Inspect(in)
	}
}

func TestFindWithoutRegardToCase(t *testing.T) {
	plain := func(w, low string) int {
		b := []byte(w)
		for i := range b {
			b[i] = fold[b[i]]
		}
		return strings.Index(string(b), low)
	}
	for _, w := range []string{"", "a", "A", "xYz", "aAaAb", "Hello World", "HELLO WORLD", "zzzZzzq", strings.Repeat("ab", 100) + "AC", "\x00\xffA", "q", "Qq"} {
		for _, low := range []string{"a", "aab", "hello", "o w", "q", "zq", "ac", "\xffa", "xyz", "b"} {
			it := &item{pat: []byte(low), low: []byte(low), nocase: true, pivot: rarest([]byte(low))}
			if got, want := it.find([]byte(w), 0, len(w)), plain(w, low); got != want {
				t.Errorf("%q in %q: %d, want %d", low, w, got, want)
			}
		}
	}
}
