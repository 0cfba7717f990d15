package engine

import (
	"fmt"

	"github.com/kadomori/kadomori/dataplane/internal/appid"
	"github.com/kadomori/kadomori/dataplane/internal/detect"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/flow"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/packet"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// packetFinding fills w.fpkt with the packet at hand.
func (w *Worker) packetFinding(f *flowT, toServer bool) {
	p := &w.pkt
	w.fpkt = finding.Packet{
		Time: p.Time, PcapCount: p.PcapCount, Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: p.Proto,
		VLAN: [2]uint16{p.VLAN[0], p.VLAN[1]}, SrcMAC: p.SrcMAC, DstMAC: p.DstMAC, ToServer: toServer, Direction: finding.Outbound,
	}
	if p.Proto == packet.ProtoICMP || p.Proto == packet.ProtoICMPv6 {
		w.fpkt.SrcPort, w.fpkt.DstPort = uint16(p.ICMPType), uint16(p.ICMPCode)
	}
	if f == nil {
		return
	}
	x := &f.X
	w.fpkt.Direction = x.direction
	w.fpkt.FlowID = f.ID
	if toServer != x.clientIsDev {
		w.fpkt.Port = wire.WAN
	}
	if x.app > rule.AppFailed {
		w.fpkt.App = x.app.String()
	}
	if x.device.Anonymous {
		if toServer == x.clientIsDev {
			w.fpkt.SrcMAC = x.device.MAC
		} else {
			w.fpkt.DstMAC = x.device.MAC
		}
	}
}

// scanned tells of detector D19.
func (w *Worker) scanned(f *flowT, s detect.ScanFound) {
	x := &f.X
	d := finding.Detection{
		Packet: w.fpkt, Device: x.device, Detector: "D19", Severity: finding.Medium, Category: finding.Scan, Action: finding.Passed,
		Certainty: finding.Confirmed, Count: 1,
	}
	if x.inside[0] {
		d.Severity = finding.High // a device of the clinic that scans is the worse news
	}
	if s.ByPorts {
		d.Indicator = fmt.Sprintf("%d ports of %s", s.Ports, s.Host)
	} else {
		d.Indicator = fmt.Sprintf("%d hosts", s.Hosts)
	}
	bump(&w.count.detections, 1)
	w.engine.folds.detection(&d)
}

// tell makes an alert of a match.
func (w *Worker) tell(f *flowT, m *rule.Match, toServer bool) {
	if !m.Alert || m.Rule == nil || w.pol.disabled[m.Rule.SID] {
		return
	}
	r := m.Rule
	a := &w.alert
	w.packetFinding(f, toServer)
	*a = finding.Alert{
		Packet: w.fpkt, GID: r.GID, SID: r.SID, Rev: r.Rev, Msg: r.Msg, Classtype: r.Classtype, ClassDesc: r.ClassDesc,
		Priority: r.Priority, Severity: severity(r.Priority), Category: category(r), Action: finding.Passed, Metadata: a.Metadata[:0],
	}
	for i := range r.Metadata {
		a.Metadata = append(a.Metadata, finding.KeyValue{Key: r.Metadata[i].Key, Value: r.Metadata[i].Value})
	}
	a.Verdict = w.verdictText
	if m.Action.Stops() && w.mayStop(f) {
		a.Action = finding.Blocked
		w.dropAlert = *a
		w.hasDropAlert = true
	}
	if f != nil {
		x := &f.X
		x.alerted = true
		a.Device = x.device
		a.Counts = counts(f)
		if t, ok := m.Tx.(inspect.Tx); ok {
			a.Tx = t
		} else if x.parser != nil {
			if txs := x.parser.Txs(); len(txs) > 0 {
				a.Tx = txs[len(txs)-1]
			}
		}
		a.Indicator = w.indicator(f, m, a.Tx)
	}
	if w.engine.cfg.Transactions {
		a.Raw = w.raw(f, m.Kind == rule.ByStream)
	}
	bump(&w.count.alerts, 1)
	w.engine.cfg.Sink.Alert(a)
	if f != nil && (a.Category == finding.Bot || a.Category == finding.Malware) && f.X.device.Known && f.X.inside[0] {
		w.engine.signal(&w.fpkt, &f.X.device, f.X.mac, fmt.Sprintf("alert:%d", r.SID))
	}
}

// raw collects what only the offline tool prints.
func (w *Worker) raw(f *flowT, stream bool) *finding.Raw {
	p := &w.pkt
	r := &finding.Raw{Frame: p.Frame, Link: uint16(p.Link), Payload: p.Payload, Stream: stream, Pseudo: w.isPseudo}
	if stream {
		r.Payload = w.in.Stream
	}
	if f != nil {
		w.flowState(f, r)
	}
	return r
}

func (w *Worker) flowState(f *flowT, r *finding.Raw) {
	r.FlowBits = f.X.rules.Bits(nil)
	for _, v := range f.X.rules.Vars() {
		r.FlowVars = append(r.FlowVars, finding.KeyValue{Key: v.Name, Value: string(v.Value)})
	}
}

// indicator is the host name an alert was about.
func (w *Worker) indicator(f *flowT, m *rule.Match, tx finding.Transaction) string {
	if len(m.Indicator) > 0 {
		w.lower = inspect.Lower(w.lower[:0], m.Indicator)
		return string(w.lower)
	}
	if n, ok := f.X.parser.(inspect.Namer); ok && len(n.ServerName()) > 0 {
		return string(n.ServerName())
	}
	if t, ok := tx.(rule.Transaction); ok && t.App() == rule.AppDNS {
		for _, toServer := range [2]bool{true, false} {
			if b := t.Buffer(rule.BufDNSQueriesName, toServer, 0); b.State == rule.Done {
				w.lower = inspect.Lower(w.lower[:0], b.Data)
				return string(w.lower)
			}
		}
	}
	return ""
}

func counts(f *flowT) finding.Counts {
	return finding.Counts{
		PacketsToServer: f.Packets[0], PacketsToClient: f.Packets[1], BytesToServer: f.Bytes[0], BytesToClient: f.Bytes[1],
		Start: f.Start,
	}
}

// severity follows Suricata's priorities: 1 is the most serious.
func severity(priority uint32) finding.Severity {
	switch priority {
	case 1:
		return finding.High
	case 2:
		return finding.Medium
	case 3:
		return finding.Low
	}
	return finding.Info
}

// classCategory maps short names of classification.config to the report's rows.
var classCategory = map[string]finding.Category{
	"command-and-control": finding.Bot, "domain-c2": finding.Bot, "malware-cnc": finding.Bot, "bot": finding.Bot,
	"trojan-activity": finding.Malware, "exploit-kit": finding.Malware, "coin-mining": finding.Malware, "targeted-activity": finding.Malware,
	"pup-activity": finding.Malware, "file-format": finding.Malware, "external-ip-check": finding.Other,
	"web-application-attack": finding.Intrusion, "web-application-activity": finding.Intrusion, "attempted-admin": finding.Intrusion,
	"attempted-user": finding.Intrusion, "attempted-dos": finding.Intrusion, "successful-admin": finding.Intrusion,
	"successful-user": finding.Intrusion, "successful-dos": finding.Intrusion, "unsuccessful-user": finding.Intrusion,
	"shellcode-detect": finding.Intrusion, "denial-of-service": finding.Intrusion, "rpc-portmap-decode": finding.Intrusion,
	"suspicious-login": finding.Intrusion, "default-login-attempt": finding.Intrusion, "system-call-detect": finding.Intrusion,
	"suspicious-filename-detect": finding.Intrusion, "successful-recon-largescale": finding.Scan, "successful-recon-limited": finding.Scan,
	"attempted-recon": finding.Scan, "network-scan": finding.Scan, "credential-theft": finding.BadSite,
	"social-engineering": finding.BadSite, "policy-violation": finding.Policy, "inappropriate-content": finding.Policy,
	"sdf": finding.Policy, "kickass-porn": finding.Policy,
}

// category is the report's row of a rule: by its class, and for trojans by whether it tells of talk with a command server
// (Emerging Threats writes CnC or C2 into the message; metadata says signature_severity and malware_family).
func category(r *rule.Rule) finding.Category {
	c, ok := classCategory[r.Classtype]
	if !ok {
		return finding.Other
	}
	if c == finding.Malware && (hasWord(r.Msg, "CnC") || hasWord(r.Msg, "C2") || hasWord(r.Msg, "Beacon") || hasWord(r.Msg, "Checkin")) {
		return finding.Bot
	}
	return c
}

func hasWord(s, word string) bool {
	for i := 0; i+len(word) <= len(s); i++ {
		if s[i:i+len(word)] == word && (i == 0 || !letter(s[i-1])) && (i+len(word) == len(s) || !letter(s[i+len(word)])) {
			return true
		}
	}
	return false
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// classify names the flow's application and how it could be seen, and books its bytes there from now on.
func (w *Worker) classify(f *flowT) {
	x := &f.X
	k := appid.Known{App: x.app, Proto: f.Proto, ServerPort: f.ServerPort, ClientPort: f.ClientPort}
	opaque := true
	if x.parser != nil {
		opaque = false
		if n, ok := x.parser.(inspect.Namer); ok {
			k.Host = n.ServerName()
		}
		if _, ok := x.parser.(inspect.Opaquer); ok {
			opaque = true // TLS and the like: the name at best
		}
	}
	if x.app <= rule.AppFailed && f.Proto == packet.ProtoTCP && f.TCP.Streams[0].Sent()+f.TCP.Streams[1].Sent() == 0 {
		k.ServerPort = 0 // nothing was ever said: a knock on a port is not the port's application
	}
	id := w.engine.vocabulary.Identify(&k)
	visible := appid.Clear
	switch {
	case x.app <= rule.AppFailed && f.Proto != packet.ProtoICMP && f.Proto != packet.ProtoICMPv6:
		visible = appid.Opaque
	case opaque && len(k.Host) > 0:
		visible = appid.NameOnly
	case opaque && x.parser != nil:
		visible = appid.Opaque
	}
	if id == x.appID && visible == x.visible && x.classified {
		return
	}
	x.appID, x.visible, x.classified = id, visible, true
	x.row = nil
	w.book(f)
}

// countBytes books the packet at hand.
func (w *Worker) countBytes(f *flowT, toServer bool, size int) {
	x := &f.X
	if toServer == x.clientIsDev {
		x.pendOut += uint64(size)
	} else {
		x.pendIn += uint64(size)
	}
	x.pendPkts++
	if x.classified {
		w.book(f)
	}
}

// book moves the flow's pending bytes to its row.
func (w *Worker) book(f *flowT) {
	x := &f.X
	if x.row == nil || x.rowGen != w.rowGen {
		x.row = w.rowTable.row(
			rowKey{app: x.appID, visible: x.visible, known: x.device.Known, mac: x.device.MAC, zone: int16(w.deviceZone(f))},
			w.engine.vocabulary.Name(x.appID), &x.device)
		x.rowGen = w.rowGen
	}
	r := x.row
	r.BytesIn += x.pendIn
	r.BytesOut += x.pendOut
	r.Packets += x.pendPkts
	if !x.counted {
		x.counted = true
		r.Flows++
	}
	bump(&w.count.visible[x.visible], x.pendIn+x.pendOut)
	x.pendIn, x.pendOut, x.pendPkts = 0, 0, 0
}

func (w *Worker) deviceZone(f *flowT) int {
	if f.X.clientIsDev {
		return f.X.zones[0]
	}
	return f.X.zones[1]
}

// giveRows hands the rows over to TakeTraffic; flows not classified yet are booked as what is known of them.
func (w *Worker) giveRows() {
	w.wantRows.Store(false)
	if len(w.rowsOut) > 0 { // the last hand-over was not fetched
		return
	}
	w.rowsOut <- w.takeRows()
}

func (w *Worker) takeRows() map[rowKey]*finding.TrafficRow {
	w.table.Each(func(f *flowT) {
		if f.X.pendPkts > 0 {
			w.classifyNow(f)
		}
	})
	rows := w.rowTable.rows
	w.rowTable.rows = map[rowKey]*finding.TrafficRow{}
	w.rowGen++
	return rows
}

// classifyNow books what is pending without settling the flow's application.
func (w *Worker) classifyNow(f *flowT) {
	was := f.X.classified
	w.classify(f)
	f.X.classified = was
	w.book(f)
}

// rememberCut lets AddFlowRecord book what the wire counts.
func (w *Worker) rememberCut(f *flowT) {
	if w.engine.cfg.Offline {
		return
	}
	x := &f.X
	w.classify(f)
	w.engine.cuts.put(f.Key.Wire(), &cut{
		key: rowKey{app: x.appID, visible: x.visible, known: x.device.Known, mac: x.device.MAC, zone: int16(w.deviceZone(f))},
		app: w.engine.vocabulary.Name(x.appID), device: x.device, deviceIsA: f.ClientIsA == x.clientIsDev, clientIsA: f.ClientIsA,
	})
}

// endFlow is the table's End callback: the last of a flow.
func (w *Worker) endFlow(f *flowT, why flow.Reason) {
	x := &f.X
	w.saved, w.savedPseudo = w.pkt, w.isPseudo // a flow may end while a packet of another one is at hand
	defer func() { w.pkt, w.isPseudo = w.saved, w.savedPseudo }()
	w.pkt.Time, w.pkt.PcapCount = f.Last, 0
	for i := range f.TCP.Streams {
		s := &f.TCP.Streams[i]
		if g := w.asm.Flush(s); g.New > 0 {
			w.gap(f, i == 0, g)
		}
	}
	if x.parser != nil {
		x.parser.Finish()
	}
	if !x.cut && !x.dropped {
		w.lastLook(f)
	}
	for _, parser := range [2]inspect.Parser{x.prev, x.parser} {
		if parser == nil || !w.engine.cfg.Transactions {
			continue
		}
		for _, t := range parser.Txs() {
			w.pkt.Src, w.pkt.Dst, w.pkt.SrcPort, w.pkt.DstPort, w.pkt.Proto = f.Client, f.Server, f.ClientPort, f.ServerPort, f.Proto
			w.tellFiles(f, t, true)
			if b := t.Base(); b.Ready && !b.Logged {
				b.Logged = true
				w.flowFinding(f)
				w.engine.cfg.Sink.Transaction(&w.fpkt, t)
			}
		}
	}
	w.classify(f)
	w.book(f)
	for i := range f.TCP.Streams {
		w.asm.Release(&f.TCP.Streams[i])
	}
	w.flowFinding(f)
	end := finding.FlowEnd{
		Packet: w.fpkt, Device: x.device, Counts: counts(f), Last: f.Last, State: f.State.String(),
		Application: w.engine.vocabulary.Name(x.appID), Visibility: x.visible.String(), Alerted: x.alerted,
	}
	switch why {
	case flow.Timeout:
		end.Reason = "timeout"
		if f.State == flow.Closed {
			end.Reason = "finished"
		}
	case flow.Forced:
		end.Reason = "forced"
	case flow.Shutdown:
		end.Reason = "shutdown"
	}
	if x.cut || x.dropped {
		end.State = flow.Bypassed.String()
	}
	if w.engine.cfg.Transactions {
		end.Raw = &finding.Raw{}
		w.flowState(f, end.Raw)
	}
	switch {
	case x.dropped:
		end.Action = "drop"
		if w.engine.cfg.Offline {
			end.State = f.State.String()
		}
	case x.passed && x.rules.Passed():
		end.Action = "pass"
	}
	if !x.cut && !x.dropped || w.engine.cfg.Offline || w.engine.cuts.release(f.Key.Wire(), &end) {
		w.engine.cfg.Sink.FlowEnd(&end)
	}
	if x.parser != nil {
		w.putParser(x.parser)
	}
	if x.prev != nil {
		w.putParser(x.prev)
	}
	rules := x.rules
	rules.Reset()
	*x = flowExt{rules: rules}
}

// Dropper is a Sink that wants each packet the engine dropped: only EVE does.
type Dropper interface {
	Drop(p *finding.Packet, reason string, by *finding.Alert)
}

func (w *Worker) tellDrop(f *flowT, toServer bool, _ *verdict) {
	if w.dropper == nil {
		return
	}
	w.packetFinding(f, toServer)
	reason := "rules"
	if w.rateFiltered {
		reason = "threshold detection_filter"
	}
	if w.hasDropAlert {
		w.dropper.Drop(&w.fpkt, reason, &w.dropAlert)
		w.hasDropAlert = false
		return
	}
	w.dropper.Drop(&w.fpkt, reason, nil)
}

// lastLook runs the rules once more for each direction, on a packet made up, so that what was completed by the end of the
// flow is judged too. It can only tell: there is no packet left to stop.
func (w *Worker) lastLook(f *flowT) {
	if w.matcher == nil || f.Proto != packet.ProtoTCP && f.Proto != packet.ProtoUDP {
		return
	}
	for _, toServer := range [2]bool{true, false} {
		s := &f.TCP.Streams[dirIndex(toServer)]
		open := f.Proto == packet.ProtoTCP && !s.Closed && s.Next() > s.Inspected
		for _, parser := range [2]inspect.Parser{f.X.prev, f.X.parser} {
			if parser == nil {
				continue
			}
			for _, t := range parser.Txs() {
				open = open || !t.Base().Inspected[dirIndex(toServer)]
			}
		}
		if !open {
			continue
		}
		w.pseudo(f, toServer)
		var v verdict
		nd := newData{stream: s, n: int(s.Next() - min(s.Inspected, s.Next())), final: true}
		w.rules(f, &nd, toServer, &v)
		if f.X.parser == nil {
			continue
		}
		for _, t := range f.X.parser.Txs() {
			t.Base().Inspected[dirIndex(toServer)] = true
		}
	}
}

// pseudo makes w.pkt a packet of the flow without payload.
func (w *Worker) pseudo(f *flowT, toServer bool) {
	p := &w.pkt
	p.Reset()
	p.Time, p.Proto = f.Last, f.Proto
	p.Src, p.Dst, p.SrcPort, p.DstPort = f.Client, f.Server, f.ClientPort, f.ServerPort
	if !toServer {
		p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	}
	p.Version = 6
	if p.Src.Is4() {
		p.Version = 4
	}
	if f.Proto == packet.ProtoTCP {
		p.TCPFlags = packet.ACK
	}
	p.TTL = 64
	p.HasL4 = true
	w.isPseudo = true
	w.established = f.TCP.State >= flow.TCPEstablished
}

// flowFinding fills w.fpkt with the originator's view of a flow.
func (w *Worker) flowFinding(f *flowT) {
	x := &f.X
	w.fpkt = finding.Packet{
		Time: f.Last, Src: f.Client, Dst: f.Server, SrcPort: f.ClientPort, DstPort: f.ServerPort, Proto: f.Proto, VLAN: f.Key.VLAN,
		Direction: x.direction, FlowID: f.ID, ToServer: true,
	}
	if x.app > rule.AppFailed {
		w.fpkt.App = x.app.String()
	}
	if x.appOrig > rule.AppFailed {
		w.fpkt.AppOrig = x.appOrig.String()
	}
	if x.device.Known {
		if x.clientIsDev {
			w.fpkt.SrcMAC = x.device.MAC
		} else {
			w.fpkt.DstMAC = x.device.MAC
		}
	}
}
