// Package rule reads rules in Suricata's language, compiles them into a read-only Set and matches packets, reassembled
// stream data and application transactions against it. Package engine calls it once per packet; `kadomori-agent rules
// check` calls the reader alone. What can't be honoured is refused by name: no rule is ever half-applied. The trap: what
// Inspect returns lies in the Matcher's memory and is valid until its next call, and a Matcher belongs to one worker.
//
// How the engine uses it:
//
//	rules, refused := rule.Parse("et.rules", r, rule.ParseOptions{Classes: classes})
//	set, err := rule.Compile(rules, rule.CompileOptions{Vars: vars, CacheDir: dir, Shared: shared})
//	m := set.NewMatcher()                // one per worker; after a swap of sets make a new one
//	in := rule.Input{Packet: &pkt, Flow: &flow.Rules, Stream: chunk, StreamOffset: off, Txs: txs}
//	res := m.Inspect(&in)                // every packet of a flow, also those without payload
//
// One call sees everything that is known at this packet in the packet's direction: its own headers and payload, the
// stream data that became inspectable with it, and the transactions that moved on. So a rule that mixes them (a flag, a
// stream content and an http.uri) is judged as Suricata judges it, and the pass-drop-reject-alert order holds across all
// three kinds.
package rule
