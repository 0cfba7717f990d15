package rule

import (
	"net/netip"
	"strings"
	"testing"
)

// fakeTx is a transaction with the buffers and numbers a test gives it.
type fakeTx struct {
	app     App
	bufs    map[Buffer][]Value
	client  map[Buffer][]Value // buffers of the direction to the client where they differ
	nums    map[Number][]uint64
	numDone State
	open    bool
	events  []Event
	state   TxState
	ifaces  []DCEInterface
	little  bool
}

func (f *fakeTx) App() App { return f.app }

func (f *fakeTx) Buffer(b Buffer, toServer bool, n int) Value {
	vs := f.bufs[b]
	if !toServer && f.client != nil {
		vs = f.client[b]
	}
	if n >= len(vs) {
		if f.open {
			return Value{State: NotYet}
		}
		return Value{State: Absent}
	}
	return vs[n]
}

func (f *fakeTx) Number(k Number, _ bool, n int) (uint64, State) {
	vs := f.nums[k]
	if n >= len(vs) {
		if f.open {
			return 0, NotYet
		}
		return 0, Absent
	}
	if f.numDone != NotYet {
		return vs[n], f.numDone
	}
	return vs[n], Done
}

func (f *fakeTx) Complete(bool) bool                    { return !f.open }
func (f *fakeTx) Rules() *TxState                       { return &f.state }
func (f *fakeTx) Events() []Event                       { return f.events }
func (f *fakeTx) DCEInterfaces() ([]DCEInterface, bool) { return f.ifaces, true }
func (f *fakeTx) LittleEndian() bool                    { return f.little }
func done(s string) []Value                             { return []Value{{Data: []byte(s), State: Done}} }

func mustParse(t testing.TB, text string) []*Rule { t.Helper(); return mustParseDir(t, text, "") }

func mustParseDir(t testing.TB, text, dir string) []*Rule {
	t.Helper()
	rules, errs := Parse("test.rules", strings.NewReader(text), ParseOptions{Dir: dir})
	for _, e := range errs {
		t.Fatal(e)
	}
	return rules
}

func matcher(t testing.TB, text string, opt CompileOptions) *Matcher {
	t.Helper()
	return compiled(t, mustParse(t, text), opt)
}

func compiled(t testing.TB, rules []*Rule, opt CompileOptions) *Matcher {
	t.Helper()
	set, err := Compile(rules, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range set.Refused() {
		t.Fatal(e)
	}
	m := set.NewMatcher()
	t.Cleanup(m.Close)
	return m
}

// tcpPacket is a packet of an established connection from 10.0.0.5:40000 to 192.0.2.1:80.
func tcpPacket(payload string) *Packet {
	return &Packet{
		Time: 1_700_000_000e9, Src: netip.MustParseAddr("10.0.0.5"), Dst: netip.MustParseAddr("192.0.2.1"), SrcPort: 40000, DstPort: 80,
		Proto: protoTCP, Version: 4, ToServer: true, HasFlow: true, Established: true, TTL: 64, TCPFlags: 24, TCPWScale: -1,
		IPHeader: make([]byte, 20), L4Header: make([]byte, 20), Payload: []byte(payload),
	}
}

// turn makes it a packet to the client.
func turn(p *Packet) *Packet {
	p.Src, p.Dst, p.SrcPort, p.DstPort, p.ToServer = p.Dst, p.Src, p.DstPort, p.SrcPort, !p.ToServer
	return p
}

// told are the sids that Inspect says an alert is to be made of, in order.
func told(res Result) []uint32 {
	var out []uint32
	for _, m := range res.Matches {
		if m.Alert {
			out = append(out, m.Rule.SID)
		}
	}
	return out
}
