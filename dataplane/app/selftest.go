package app

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

	"github.com/kadomori/kadomori/dataplane/internal/engine"
	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/policy"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// selfTestResult is the last synthetic detection.
type selfTestResult struct {
	Time   time.Time `json:"time"`
	Passed bool      `json:"passed"`
	Detail string    `json:"detail"`
}

// selfTests makes one synthetic detection soon after the start and then one a day, at another minute on each box.
func (a *agent) selfTests(ctx context.Context) error {
	wait := 5 * time.Second
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		a.runSelfTest()
		every := time.Duration(a.cfg.SelfTestEvery)
		wait = every - every/20 + rand.N(every/20+1) //nolint:gosec // spreads load, no secret
	}
}

// runSelfTest sends one made packet through an engine of its own that shares policy and rules with the real one, and states
// the outcome as an event. It is never counted as a threat.
func (a *agent) runSelfTest() selfTestResult {
	res := selfTestResult{Time: time.Now()}
	err := guard(func() error { return detectSynthetic(a.inForce.Load()) })
	res.Passed = err == nil
	res.Detail = "the made packet was matched by the rules in force"
	if err != nil {
		res.Detail = err.Error()
		a.log.Error("self-test did not pass", "err", err)
	}
	a.selfTest.Store(&res)
	a.sink.SelfTest(&eventv1.SelfTest{Sid: policy.SelfTestSID, Passed: res.Passed, Detail: res.Detail})
	return res
}

// detectSynthetic says whether a compiled policy with its rules matches the made packet. Package policy calls it before it
// activates a bundle.
func detectSynthetic(c *policy.Compiled) error {
	if c == nil || c.Rules == nil {
		return fmt.Errorf("no rules are in force")
	}
	sink := &syntheticSink{}
	e, err := engine.New(engine.Config{Sink: sink, MaxFlows: 64})
	if err != nil {
		return err
	}
	e.SetPolicy(c.Engine)
	e.SetRules(c.Rules)
	w := e.Worker(0)
	now := time.Now().UnixNano()
	w.Handle(syntheticFrame(), wire.LAN, now)
	w.Tick(now + int64(time.Second))
	e.SetRules(nil)
	w.Tick(now + int64(2*time.Second)) // lets go of the set
	if sink.matched.Load() == 0 {
		return fmt.Errorf("rule %d did not match the made packet", policy.SelfTestSID)
	}
	return nil
}

// syntheticSink counts the self-test's alert.
type syntheticSink struct{ matched atomic.Int32 }

func (s *syntheticSink) Alert(a *finding.Alert) {
	if a.SID == policy.SelfTestSID {
		s.matched.Add(1)
	}
}
func (*syntheticSink) Detection(*finding.Detection)                     {}
func (*syntheticSink) Transaction(*finding.Packet, finding.Transaction) {}
func (*syntheticSink) FlowEnd(*finding.FlowEnd)                         {}
func (*syntheticSink) DeviceSeen(*finding.DeviceSeen)                   {}

// syntheticFrame is an Ethernet frame with a UDP datagram from 192.0.2.1 to 192.0.2.2, port 9.
func syntheticFrame() []byte {
	payload := policy.SelfTestContent
	b := make([]byte, 0, 14+20+8+len(payload))
	b = append(b, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00) // locally administered addresses, IPv4
	ip := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(20+8+len(payload)))
	b = append(b, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	binary.BigEndian.PutUint16(b[ip+10:], checksum(b[ip:ip+20]))
	b = binary.BigEndian.AppendUint16(b, 49152)
	b = binary.BigEndian.AppendUint16(b, 9)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, 0, 0) // no checksum: allowed for UDP over IPv4 (RFC 768)
	return append(b, payload...)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
