package engine

import (
	"github.com/kadomori/kadomori/dataplane/internal/appid"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/flow"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/packet"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// verdict collects what becomes of the packet.
type verdict struct {
	drop     bool
	dropFlow bool
	reject   rule.Action // Reject, RejectDst, RejectBoth, Alert for none
	answer   bool        // a DNS answer rather than a reset
	bypass   bool
}

// match judges names, runs the rules, tells what matched and decides.
func (w *Worker) match(f *flowT, nd *newData, toServer bool) wire.Decision {
	var v verdict
	w.txRefs = w.txRefs[:0]
	if f != nil && f.X.parser != nil {
		if f.X.app == rule.AppHTTP2 && f.X.parser.App() == rule.AppDoH2 {
			w.found(f, rule.AppDoH2, dirIndex(toServer))
		}
		w.judgeNames(f, &v)
	}
	if w.matcher != nil {
		w.rules(f, nd, toServer, &v)
	}
	if f != nil {
		for _, parser := range [2]inspect.Parser{f.X.prev, f.X.parser} {
			if parser != nil {
				w.settleTxs(f, parser, toServer)
			}
		}
	}
	if f != nil {
		w.packetApp(f)
	}
	return w.decide(f, toServer, &v)
}

// judgeNames looks the names that clients asked for up in the lists.
func (w *Worker) judgeNames(f *flowT, v *verdict) {
	x := &f.X
	if x.app == rule.AppDNS || x.app == rule.AppDoH2 {
		for _, t := range x.parser.Txs() {
			if t.Base().ID < x.txJudged {
				continue
			}
			x.txJudged = t.Base().ID + 1
			if !x.inside[0] {
				continue
			}
			for n := 0; n < 32; n++ {
				b := t.Buffer(rule.BufDNSQuery, true, n)
				if b.State != rule.Done {
					break
				}
				w.judgeName(f, b.Data, v)
			}
		}
		return
	}
	nm, ok := x.parser.(inspect.Namer)
	if !ok || !x.inside[0] {
		return
	}
	name := nm.ServerName()
	if len(name) == 0 {
		return
	}
	h := nameHash(name)
	if h == x.nameHash {
		return
	}
	x.nameHash = h
	w.judgeName(f, name, v)
	w.classify(f)
}

func nameHash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h | 1
}

func (w *Worker) judgeName(f *flowT, name []byte, v *verdict) {
	w.lower = inspect.Lower(w.lower[:0], name)
	id := w.pol.indicators.Domain(w.lower)
	if id == 0 {
		return
	}
	l, ok := w.pol.indicators.Get(id)
	if !ok {
		return
	}
	act := finding.Passed
	if l.Block && w.mayStop(f) {
		act = finding.Blocked
		v.drop, v.reject = true, rule.RejectBoth
		if f.Proto == packet.ProtoUDP {
			v.answer = true // only this query: the resolver serves other names over the same ports
		} else {
			v.dropFlow = true
		}
	}
	w.packetFinding(f, true)
	bump(&w.count.detections, 1)
	w.engine.listed(&w.fpkt, &f.X.device, f.X.mac, "D12-domain", string(w.lower), l, act)
}

// mayStop says whether the engine may stop a flow: mode prevent, on the wire or simulated, and not protected.
func (w *Worker) mayStop(f *flowT) bool {
	if f == nil {
		return w.engine.cfg.Prevent
	}
	return f.X.mode == Prevent && !f.X.neverDrop
}

// settleTxs tells finished transactions and lets the parser forget them.
func (w *Worker) settleTxs(f *flowT, parser inspect.Parser, toServer bool) {
	txs := parser.Txs()
	n := 0
	leading := true
	for _, t := range txs {
		b := t.Base()
		cs, cc := t.Complete(true), t.Complete(false)
		if toServer && cs {
			b.Inspected[0] = true
		}
		if !toServer && cc {
			b.Inspected[1] = true
		}
		if b.Ready && !b.Logged && w.engine.cfg.Transactions {
			b.Logged = true
			w.packetFinding(f, toServer)
			w.engine.cfg.Sink.Transaction(&w.fpkt, t)
		}
		if w.engine.cfg.Transactions {
			w.tellFiles(f, t, toServer)
		}
		// A direction that never had anything to show needs no packet of its own.
		gone := cs && cc && b.Ready && (b.Inspected[0] || b.Inspected[1])
		if w.matcher != nil && gone {
			gone = judged(t)
		}
		if leading && gone {
			n++
		} else {
			leading = false
		}
	}
	if n > 0 {
		parser.Drop(n)
	}
}

// tellFiles tells of files that were closed.
func (w *Worker) tellFiles(f *flowT, t inspect.Tx, toServer bool) {
	fs, ok := t.(inspect.Filer)
	if !ok {
		return
	}
	for _, x := range fs.Files() {
		if x.State == inspect.FileOpen || x.Logged {
			continue
		}
		x.Logged = true
		w.packetFinding(f, toServer)
		if x.ToServer != toServer {
			w.fpkt.Src, w.fpkt.Dst = w.fpkt.Dst, w.fpkt.Src
			w.fpkt.SrcPort, w.fpkt.DstPort = w.fpkt.DstPort, w.fpkt.SrcPort
			w.fpkt.ToServer = x.ToServer
		}
		w.engine.cfg.Sink.Transaction(&w.fpkt, x)
	}
}

// judged says whether rules have seen all of a complete transaction: both directions, or for a message its own.
func judged(t inspect.Tx) bool {
	b := t.Base()
	if oneSided(t) {
		if m, ok := t.(interface{ Direction() (toServer, ok bool) }); ok {
			if toServer, known := m.Direction(); known {
				return b.Inspected[dirIndex(toServer)]
			}
		}
		return b.Inspected[0] || b.Inspected[1]
	}
	return b.Inspected[0] && b.Inspected[1]
}

// oneSided says that a transaction is a message of one direction (each DNS message is one).
func oneSided(t inspect.Tx) bool {
	switch t.App() {
	case rule.AppDNS, rule.AppMDNS, rule.AppLLMNR, rule.AppSIP, rule.AppSNMP, rule.AppKRB5, rule.AppDHCP, rule.AppQUIC, rule.AppHL7:
		return true
	default:
	}
	return false
}

// packetApp notes how the flow is seen once that is known.
func (w *Worker) packetApp(f *flowT) {
	x := &f.X
	if x.classified && x.visible != appid.NameOnly {
		return
	}
	if x.appChanged || !x.classified && f.Packets[0]+f.Packets[1] > 32 {
		w.classify(f)
	}
}

// decide makes the answer for the wire.
func (w *Worker) decide(f *flowT, toServer bool, v *verdict) wire.Decision {
	var dec wire.Decision
	if f == nil {
		if v.drop && w.engine.cfg.Prevent {
			w.tellDrop(f, toServer, v)
			dec.Verdict = wire.Drop
			bump(&w.count.dropped, 1)
		}
		return dec
	}
	x := &f.X
	if v.drop && w.mayStop(f) {
		w.tellDrop(f, toServer, v)
		dec.Verdict = wire.Drop
		bump(&w.count.dropped, 1)
		if v.dropFlow {
			x.dropped = true
			w.asm.Close(&f.TCP.Streams[0])
			w.asm.Close(&f.TCP.Streams[1])
			dec.Flow, dec.Key = wire.DropFlow, f.Key.Wire()
			w.rememberCut(f)
		}
		if !w.engine.cfg.Offline {
			w.replies(&dec, v)
		}
		return dec
	}
	if v.bypass || x.rules.Passed() {
		x.seenEnough = true
	}
	if !w.engine.cfg.Offline && w.enough(f) {
		x.cut = true
		bump(&w.count.cut, 1)
		w.classify(f)
		for i := range f.TCP.Streams {
			w.asm.Close(&f.TCP.Streams[i])
		}
		w.rememberCut(f)
		dec.Flow, dec.Key = wire.Cut, f.Key.Wire()
	}
	_ = toServer
	return dec
}

// enoughDatagrams is after how many packets a UDP flow that no parser reads is left to the wire; QUIC's name comes in the
// first few.
const enoughDatagrams = 32

// enough says whether the flow need not be seen any more.
func (w *Worker) enough(f *flowT) bool {
	x := &f.X
	p := &w.pkt
	switch f.Proto {
	case packet.ProtoTCP:
		if f.TCP.State < flow.TCPEstablished || f.TCP.State >= flow.TCPFinWait || p.TCPFlags&(packet.FIN|packet.RST|packet.SYN) != 0 {
			return false
		}
		if x.seenEnough {
			return true
		}
		a, b := &f.TCP.Streams[0], &f.TCP.Streams[1]
		return (a.Depth() || a.Closed) && (b.Depth() || b.Closed || b.Next() < 4096) || b.Depth() && a.Next() < 64<<10 && x.app == rule.AppFailed
	case packet.ProtoUDP:
		if x.seenEnough {
			return true
		}
		return x.parser == nil && x.app == rule.AppFailed && f.State == flow.Established && f.Packets[0]+f.Packets[1] >= enoughDatagrams
	}
	return false
}

// replies adds the frames that tell both sides.
func (w *Worker) replies(dec *wire.Decision, v *verdict) {
	p := &w.pkt
	switch {
	case p.Proto == packet.ProtoTCP:
		if v.reject == rule.Alert {
			return
		}
		if v.reject != rule.RejectDst {
			if b := p.ResetFrame(w.bufs[0][:0], true); b != nil {
				w.back[0] = b
				dec.Back = w.back[:]
			}
		}
		if v.reject != rule.Reject {
			if b := p.ResetFrame(w.bufs[1][:0], false); b != nil {
				w.onward[0] = b
				dec.Onward = w.onward[:]
			}
		}
	case v.answer:
		if b := p.DNSAnswerFrame(w.bufs[0][:0]); b != nil {
			w.back[0] = b
			dec.Back = w.back[:]
		}
	case v.reject == rule.Reject || v.reject == rule.RejectBoth:
		if b := p.UnreachableFrame(w.bufs[0][:0]); b != nil {
			w.back[0] = b
			dec.Back = w.back[:]
		}
	}
}

// rules runs the matcher and tells of its matches.
func (w *Worker) rules(f *flowT, nd *newData, toServer bool, v *verdict) {
	w.fillPacket(f, toServer)
	in := &w.in
	*in = rule.Input{Packet: &w.rpkt}
	if f != nil {
		in.Flow = &f.X.rules
		if nd != nil && nd.n > 0 {
			b, off := nd.stream.Tail(nd.n, window)
			in.Stream, in.StreamOffset = b, off
			in.StreamNew = min(nd.n, len(b))
			in.StreamStart = off == 0 && !nd.stream.Gap
			nd.stream.Inspected = nd.stream.Next()
		}
		if nd != nil {
			in.StreamEnd = nd.final
			w.rpkt.NoPayloadRules, w.rpkt.StreamAdded = nd.again, nd.added
		}
		w.txs = w.txs[:0]
		for _, parser := range [2]inspect.Parser{f.X.prev, f.X.parser} {
			if parser == nil {
				continue
			}
			for _, t := range parser.Txs() {
				if d := dirIndex(toServer); t.Base().Inspected[d] && t.Complete(toServer) {
					continue
				}
				w.txs = append(w.txs, t)
			}
			in.Txs = w.txs
		}
	}
	res := w.matcher.Inspect(in)
	w.verdictText = "alert"
	w.rateFiltered = false
	switch {
	case res.Drop && w.mayStop(f):
		w.verdictText = "drop"
	case res.Pass:
		w.verdictText = "pass"
		if f != nil {
			f.X.passed = true
		}
	}
	for i := range res.Matches {
		w.rateFiltered = w.rateFiltered || res.Matches[i].RateFiltered && res.Matches[i].Action.Stops()
		w.tell(f, &res.Matches[i], toServer)
	}
	if res.Drop {
		v.drop = true
		v.dropFlow = v.dropFlow || res.DropFlow
		if res.Reject != rule.Alert {
			v.reject = res.Reject
		} else if v.dropFlow && f != nil && f.Proto == packet.ProtoTCP && v.reject == rule.Alert {
			v.reject = rule.RejectBoth // the connection is over: let both sides know rather than time out
		}
		if f != nil && (f.X.app == rule.AppDNS) {
			v.answer = true
		}
	}
	v.bypass = v.bypass || res.Bypass
}

func dirIndex(toServer bool) int {
	if toServer {
		return 0
	}
	return 1
}

// fillPacket makes the rules' view of the packet.
func (w *Worker) fillPacket(f *flowT, toServer bool) {
	p, r := &w.pkt, &w.rpkt
	*r = rule.Packet{
		Time: p.Time, Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: p.Proto, Version: p.Version,
		ToServer: toServer, Fragment: p.Fragment, EtherType: p.EtherType, VLAN: [2]uint16{p.VLAN[0], p.VLAN[1]}, VLANs: p.VLANs,
		TTL: p.TTL, TOS: p.TOS, IPID: p.IPID, FragOff: p.FragOff, IPOpts: rule.IPOpts(p.IPOpts), TCPFlags: p.TCPFlags, TCPSeq: p.Seq,
		TCPAck: p.Ack, TCPWindow: p.Window, TCPMSS: p.MSS, TCPWScale: p.WScale, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode,
		ICMPID: p.ICMPID, ICMPSeq: p.ICMPSeq, HasICMPID: p.HasICMPID, EtherHeader: p.EtherHeader, IPHeader: p.IPHeader,
		L4Header: p.L4Header, Payload: p.Payload, Tunnel: p.Tunnel, Pseudo: w.isPseudo,
		Reassembled: p.Reassembled,
		SumsGood:    w.sums.good, SumsBad: w.sums.bad,
	}
	if p.MF {
		r.FragBits |= rule.MoreFragments
	}
	if p.DF {
		r.FragBits |= rule.DontFragment
	}
	if p.RF {
		r.FragBits |= rule.ReservedBit
	}
	n := 0
	for _, e := range p.Events[:p.NEvents] {
		w.events[n] = decoderEvents[e]
		n++
	}
	r.Events = w.events[:n]
	if f == nil {
		return
	}
	x := &f.X
	r.HasFlow = true
	r.Established = f.State == flow.Established
	if f.Proto == packet.ProtoTCP {
		r.Established = w.established // before this packet, as Suricata has it
	}
	if f.Proto == packet.ProtoTCP {
		r.StreamBytes = [2]uint32{uint32(f.TCP.Streams[0].Sent()), uint32(f.TCP.Streams[1].Sent())}
	}
	r.FlowPackets, r.FlowBytes, r.FlowStart = f.Packets, f.Bytes, f.Start
	r.App, r.AppToServer, r.AppToClient, r.AppChanged = x.app, x.appDir[0], x.appDir[1], x.appChanged
	r.AppOrig = x.appOrig
}

var decoderEvents = func() (out [packet.EventLast]rule.Event) {
	for e := packet.Event(1); e < packet.EventLast; e++ {
		out[e] = rule.EventID(e.String())
	}
	return out
}()
