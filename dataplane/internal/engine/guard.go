package engine

import (
	"fmt"
	"runtime/debug"

	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// guard keeps a bug in a parser or a rule from taking the wire's packet loop down: the packet is forwarded, the flow is not
// looked into any more, and the bug is counted and told. Offline there is no guard: a file that crashes the engine must be
// seen.
func (w *Worker) guard(dec *wire.Decision) {
	r := recover()
	if r == nil {
		return
	}
	*dec = wire.Decision{}
	bump(&w.count.panics, 1)
	w.engine.log.Error("recover from panic in inspection", "queue", w.queue, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	if f := w.current; f != nil {
		x := &f.X
		x.parser, x.prev, x.parserDone = nil, nil, true
		x.app, x.seenEnough = rule.AppFailed, true
		w.asm.Close(&f.TCP.Streams[0])
		w.asm.Close(&f.TCP.Streams[1])
	}
}
