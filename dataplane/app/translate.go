package app

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"

	"github.com/kadomori/kadomori/dataplane/internal/detect"
	"github.com/kadomori/kadomori/dataplane/internal/health"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

func blockReason(r wire.DropReason) eventv1.Block_Reason {
	switch r {
	case wire.DropFlowVerdict:
		return eventv1.Block_REASON_FLOW_VERDICT
	case wire.DropBlockedSource:
		return eventv1.Block_REASON_BLOCK_SET_SRC
	case wire.DropBlockedDestination:
		return eventv1.Block_REASON_BLOCK_SET_DST
	case wire.DropQuarantine:
		return eventv1.Block_REASON_QUARANTINE
	case wire.DropZone:
		return eventv1.Block_REASON_ZONE
	case wire.DropRateSYN, wire.DropRateUDP, wire.DropRateICMP, wire.DropRateFlow:
		return eventv1.Block_REASON_RATE_LIMIT
	default:
		return eventv1.Block_REASON_UNSPECIFIED
	}
}

func category(k detect.Kind) eventv1.Category {
	switch k {
	case detect.KindC2:
		return eventv1.Category_CATEGORY_BOT
	case detect.KindMalware:
		return eventv1.Category_CATEGORY_MALWARE
	case detect.KindBadSite:
		return eventv1.Category_CATEGORY_BAD_SITE
	case detect.KindScanner:
		return eventv1.Category_CATEGORY_SCAN
	default:
		return eventv1.Category_CATEGORY_OTHER
	}
}

func unprotectedEvent(u xdp.UnprotectedInterval) *eventv1.Unprotected {
	cause := eventv1.Unprotected_CAUSE_UNSPECIFIED
	switch u.Cause {
	case xdp.CauseStopped, xdp.CauseStarting:
		cause = eventv1.Unprotected_CAUSE_AGENT_STOPPED
	case xdp.CauseDied:
		cause = eventv1.Unprotected_CAUSE_AGENT_DIED
	case xdp.CauseLate:
		cause = eventv1.Unprotected_CAUSE_AGENT_STALE
	case xdp.CauseBypass:
		cause = eventv1.Unprotected_CAUSE_BYPASS
	case xdp.CausePortGone:
		cause = eventv1.Unprotected_CAUSE_NO_SOCKET
	}
	return &eventv1.Unprotected{From: timestamppb.New(u.From), To: timestamppb.New(u.To), Cause: cause}
}

// readTotals adds up the counters of wire and engine.
func (a *agent) readTotals() (health.Totals, error) {
	st := a.wireStatus()
	es := a.engine.Stats()
	t := health.Totals{
		Unprotected: st.Unprotected, BytesClear: es.BytesClear, BytesName: es.BytesName, BytesOpaque: es.BytesOpaque,
		PacketsInspected: es.Inspected, PacketsDropped: st.Loop.Dropped.Packets, PacketsLost: st.Loop.BacklogDropped + st.Loop.CraftedLost,
	}
	for _, p := range st.Ports {
		t.PacketsSeen += p.Received().Packets
		t.PacketsInspected += p.Cut.Packets // forwarded by a verdict of the engine
		t.PacketsDropped += p.Dropped.Packets
		t.PacketsLost += p.SocketLost
	}
	return t, nil
}

func (a *agent) gauges() health.Gauges {
	sp := a.spool.Stats()
	g := health.Gauges{SpoolDepth: sp.Depth, SpoolBytes: uint64(max(sp.Bytes, 0)), Version: Version, WireMode: a.wireMode()}
	a.mu.Lock()
	m := a.policy
	a.mu.Unlock()
	if m != nil {
		g.PolicyVersion, g.SignatureVersion = m.Version(bundlev1.Kind_KIND_POLICY), m.Version(bundlev1.Kind_KIND_SIGNATURE)
	}
	if c := a.inForce.Load(); c != nil {
		g.RulesLoaded, g.RulesRefused = uint64(c.Loaded), uint64(len(c.Refused))
	}
	return g
}

// wireMode is inline-native, inline-generic or tap.
func (a *agent) wireMode() string {
	st := a.wireStatus()
	if st.Mode != "inline" {
		return st.Mode
	}
	for _, p := range st.Ports {
		if p.Attach != "native" {
			return st.Mode + "-generic"
		}
	}
	return st.Mode + "-native"
}

// anonymousKey is the key that hashes MAC addresses of anonymous zones; made once, it never leaves the box. A box whose disk
// can't be written gets one for this run only.
func (a *agent) anonymousKey() []byte {
	path := filepath.Join(a.cfg.StateDir, "anonymous.key")
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 32 {
		return b
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("key for anonymous devices can't be read, a new one is made", "err", err)
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		panic("app: the kernel gives no random numbers: " + err.Error())
	}
	if err := os.WriteFile(path, key, 0o600); err != nil {
		a.log.Warn("key for anonymous devices can't be stored", "err", err)
	}
	return key
}
