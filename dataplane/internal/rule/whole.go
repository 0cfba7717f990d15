package rule

import (
	"errors"
	"fmt"
)

// checkWhole looks for what contradicts itself in a rule and settles the directions.
func (r *Rule) checkWhole() error {
	h := &r.head
	server, client := false, false
	apps := AppSet(0)
	constrained := false
	note := func(s, c bool, a AppSet) {
		if s && !c {
			server = true
		}
		if c && !s {
			client = true
		}
		if !constrained {
			apps, constrained = a, true
		} else {
			apps &= a
		}
	}
	for _, s := range r.sections {
		if len(s.items) == 0 {
			return fmt.Errorf("the sticky buffer %s has nothing to look for", s.buf)
		}
		if s.buf >= firstTxBuffer {
			b := &buffers[s.buf]
			note(b.server && s.dir != maskClient, b.client && s.dir != maskServer, b.apps)
		}
	}
	for i := range r.tests {
		t := &r.tests[i]
		note(t.server, t.client, t.apps)
	}
	if constrained && apps == 0 {
		return errors.New("keywords of different protocols in one rule")
	}
	if constrained && h.proto.apps != 0 && apps&h.proto.apps == 0 {
		return fmt.Errorf("keywords that %s does not have", h.proto.name)
	}
	if constrained && !h.proto.has(protoTCP) && !h.proto.has(protoUDP) {
		return fmt.Errorf("keywords of an application protocol under %s", h.proto.name)
	}
	if server && client && !h.txBoth {
		return errors.New("keywords of requests and of responses in one rule (only with =>)")
	}
	if r.flow.toServer && client && !server || r.flow.toClient && server && !client {
		return errors.New("flow's direction is not that of the other keywords")
	}
	if r.appTests != nil && h.proto.apps != 0 {
		return errors.New("app-layer-protocol under a protocol of its own")
	}
	if h.proto.streamOnly && r.needPacket {
		return errors.New("tcp-stream with a keyword about packets")
	}
	if h.txBoth && h.proto.apps == 0 && !constrained {
		return errors.New("=> needs an application protocol")
	}
	return nil
}
