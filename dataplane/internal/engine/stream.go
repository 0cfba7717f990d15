package engine

import (
	"github.com/kadomori/kadomori/dataplane/internal/flow"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/packet"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// newData is what a packet brought to its direction's stream.
type newData struct {
	stream *flow.Stream
	n      int
	again  bool
	added  bool // the packet's payload went into the stream
	final  bool
}

// tcp follows the connection, puts the segment in order, parses and matches.
func (w *Worker) tcp(f *flowT, toServer bool) wire.Decision {
	p := &w.pkt
	d, o := 1, 0
	if toServer {
		d, o = 0, 1
	}
	t := &f.TCP
	s, other := &t.Streams[d], &t.Streams[o]
	was := t.State
	// A connection that the server closed first counts as established until the last acknowledgement (TIME_WAIT lies with
	// the server), one that the client closed first until the server's FIN.
	w.established = was >= flow.TCPEstablished && (was <= flow.TCPFinWait || was == flow.TCPClosing && t.ServerFirst)
	w.tcpState(f, toServer)
	if was < flow.TCPEstablished && t.State == flow.TCPEstablished && f.X.clientIsDev {
		w.scan.Answered(f.Client, f.Server, f.ServerPort)
	}
	class := flow.ClassTCPNew
	switch {
	case t.State == flow.TCPClosed:
		class = flow.ClassTCPClosed
		f.State = flow.Closed
	case t.State >= flow.TCPEstablished:
		class = flow.ClassTCPEstablished
		f.State = flow.Established
		if longLived(f.ServerPort) {
			class = flow.ClassLong
		}
	}
	w.table.Touch(f, class, p.Time)
	if !s.Synced() || (t.Midstream && w.engine.cfg.NoMidstream) {
		return w.match(f, nil, toServer)
	}
	if p.TCPFlags&packet.ACK != 0 && other.Synced() {
		if g := w.asm.Acked(other, p.Ack); g.GapBefore > 0 || g.New > 0 {
			w.gap(f, !toServer, g)
		}
	}
	seq := p.Seq
	if p.TCPFlags&packet.SYN != 0 {
		seq++
	}
	fin := p.TCPFlags&(packet.FIN|packet.RST) != 0
	got := w.asm.Segment(s, seq, p.Payload, p.TCPFlags&packet.FIN != 0)
	if p.TCPFlags&packet.RST != 0 { // what is held will never be acknowledged any more
		if g := w.asm.Flush(s); g.New > 0 || g.GapBefore > 0 {
			w.gap(f, toServer, g)
		}
	}
	nd := newData{stream: s, again: got.Again || got.Outside}
	nd.added = len(p.Payload) > 0 && !nd.again && !s.Closed
	nd.n = int(s.Next() - min(s.Inspected, s.Next()))
	nd.final = s.Done() || p.TCPFlags&packet.RST != 0 || s.Depth()
	if got.New > 0 || (fin && f.X.parser != nil) {
		w.parseStream(f, s, toServer, nd.final)
	}
	dec := w.match(f, &nd, toServer)
	w.afterStream(f, s, toServer)
	return dec
}

// longLived says whether idle connections to the port must be kept: HL7 and databases (domain page 3.7).
func longLived(port uint16) bool {
	switch port {
	case 2575, 104, 11112, 5432, 3306, 1433, 1521, 8210, 9400:
		return true
	}
	return false
}

func (w *Worker) tcpState(f *flowT, toServer bool) {
	p := &w.pkt
	t := &f.TCP
	d := 1
	if toServer {
		d = 0
	}
	fl := p.TCPFlags
	switch {
	case fl&packet.RST != 0:
		t.Streams[d].RstSeen = true
		t.State = flow.TCPClosed
		return
	case fl&packet.SYN != 0 && fl&packet.ACK == 0:
		if t.State == flow.TCPNone {
			t.State = flow.TCPSynSent
		}
		if t.Streams[d].Synced() {
			t.Streams[d].Resync(p.Seq + 1)
		} else {
			t.Streams[d].Sync(p.Seq + 1)
		}
		return
	case fl&packet.SYN != 0:
		if t.State == flow.TCPNone {
			t.Midstream = true
			t.Streams[1-d].Sync(p.Ack)
		}
		if t.State <= flow.TCPSynSent {
			t.State = flow.TCPSynRecv
		}
		if t.Streams[d].Synced() {
			t.Streams[d].Resync(p.Seq + 1)
		} else {
			t.Streams[d].Sync(p.Seq + 1)
		}
		return
	case t.State == flow.TCPNone: // in the middle
		t.Midstream = true
		f.X.meta.Midstream = true
		t.State = flow.TCPEstablished
		if w.engine.cfg.NoMidstream {
			t.State = flow.TCPNone
			return
		}
	case t.State == flow.TCPSynSent && fl&packet.ACK != 0 && !toServer:
		t.State = flow.TCPSynRecv
	case t.State == flow.TCPSynRecv && fl&packet.ACK != 0 && toServer:
		t.State = flow.TCPEstablished
	case t.State == flow.TCPSynSent && fl&packet.ACK != 0 && toServer:
		t.State = flow.TCPEstablished // the answer took another way
		t.Midstream = true
	}
	if !t.Streams[d].Synced() {
		t.Streams[d].Sync(p.Seq)
	}
	if !t.Streams[1-d].Synced() && fl&packet.ACK != 0 {
		t.Streams[1-d].Sync(p.Ack)
	}
	if fl&packet.FIN != 0 {
		switch {
		case t.Streams[1-d].FinSeen:
			t.State = flow.TCPClosing
		case t.State <= flow.TCPFinWait:
			if t.State < flow.TCPFinWait {
				t.ServerFirst = !toServer
			}
			t.State = flow.TCPFinWait
		}
	} else if t.State == flow.TCPClosing && fl&packet.ACK != 0 {
		t.State = flow.TCPClosed
	}
}

// gap tells the parser that bytes are missing and parses what follows them.
func (w *Worker) gap(f *flowT, toServer bool, g flow.Delivered) {
	x := &f.X
	d := 1
	if toServer {
		d = 0
	}
	s := &f.TCP.Streams[d]
	if x.parser != nil && !x.parserDone && g.GapBefore > 0 {
		switch x.parser.Gap(&x.meta, toServer, g.GapBefore) {
		case inspect.More:
		default:
			w.dropParser(f, false)
		}
	}
	if g.New > 0 {
		w.parseStream(f, s, toServer, s.Done())
	}
}

// parseStream gives the parser what it has not read yet; before that it finds out which parser.
func (w *Worker) parseStream(f *flowT, s *flow.Stream, toServer, end bool) {
	x := &f.X
	if s.Closed {
		return
	}
	if x.parserDone {
		s.Skip(len(s.Pending()))
		return
	}
	if x.parser == nil {
		if x.app != rule.AppUnknown {
			s.Skip(len(s.Pending()))
			return
		}
		w.probe(f, toServer, s.Pending(), end)
		if x.parser == nil {
			if x.app == rule.AppFailed {
				s.Skip(len(s.Pending()))
			}
			return
		}
		// The other direction may hold bytes that waited for the decision.
		o := 0
		if toServer {
			o = 1
		}
		if other := &f.TCP.Streams[o]; len(other.Pending()) > 0 {
			w.feed(f, other, !toServer, other.Done())
		}
	}
	w.feed(f, s, toServer, end)
}

func (w *Worker) feed(f *flowT, s *flow.Stream, toServer, end bool) {
	x := &f.X
	if x.parser == nil || x.parserDone {
		return
	}
	b := s.Pending()
	used, st := x.parser.Data(&x.meta, toServer, b, end)
	s.Skip(min(used, len(b)))
	switch {
	case st == inspect.Failed:
		w.dropParser(f, false)
	case st == inspect.Done:
		if u, ok := x.parser.(inspect.Upgrader); ok && u.Upgraded() && x.prev == nil {
			w.upgrade(f, s, toServer, end)
			return
		}
		w.dropParser(f, true)
	case len(s.Pending()) > flow.MaxPending:
		n := len(s.Pending())
		s.Skip(n)
		if x.parser.Gap(&x.meta, toServer, uint64(n)) != inspect.More {
			w.dropParser(f, false)
		}
	}
}

// upgrade begins anew with another protocol; the old parser's transactions are matched and told until they are done.
func (w *Worker) upgrade(f *flowT, s *flow.Stream, toServer, end bool) {
	x := &f.X
	x.parser.Finish()
	x.prev, x.parser = x.parser, nil
	x.appOrig = x.app
	x.app, x.appDir, x.probeMask = rule.AppUnknown, [2]rule.App{}, 0
	x.appChanged = true
	if len(s.Pending()) > 0 {
		w.parseStream(f, s, toServer, end)
	}
}

// dropParser ends parsing: nothing more is given to it, its transactions are still matched and told.
func (w *Worker) dropParser(f *flowT, done bool) {
	f.X.parser.Finish()
	f.X.parserDone = true
	if done {
		f.X.seenEnough = true
	}
	for i := range f.TCP.Streams {
		s := &f.TCP.Streams[i]
		s.Skip(len(s.Pending()))
	}
	w.classify(f)
}

// afterStream frees what is no longer needed.
func (w *Worker) afterStream(f *flowT, s *flow.Stream, toServer bool) {
	if s.Depth() && !s.Closed {
		w.asm.Close(s)
	}
	if f.TCP.State == flow.TCPClosed {
		for i := range f.TCP.Streams {
			w.asm.Release(&f.TCP.Streams[i])
		}
	}
	_ = toServer
}

// udp parses one datagram and matches.
func (w *Worker) udp(f *flowT, toServer bool) wire.Decision {
	p := &w.pkt
	class := flow.ClassUDPNew
	if f.Packets[0] > 0 && f.Packets[1] > 0 {
		if f.State == flow.New && f.X.inside[1] {
			w.scan.Answered(f.Client, f.Server, f.ServerPort)
		}
		class = flow.ClassUDPEstablished
		f.State = flow.Established
	}
	w.table.Touch(f, class, p.Time)
	x := &f.X
	if len(p.Payload) > 0 {
		if x.parser == nil && x.app == rule.AppUnknown {
			w.probe(f, toServer, p.Payload, true)
		}
		if x.parser != nil && !x.parserDone {
			if _, st := x.parser.Data(&x.meta, toServer, p.Payload, false); st != inspect.More {
				w.dropParser(f, st == inspect.Done)
			}
		}
	}
	return w.match(f, nil, toServer)
}
