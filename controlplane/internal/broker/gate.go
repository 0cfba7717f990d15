package broker

import (
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
)

// gate decides about each connection of the embedded server. It implements server.Authentication.
type gate struct {
	token     string
	authorise func(*x509.Certificate) (clinic, appliance int32, err error)
	log       hclog.Logger
	metrics   *metrics
	now       func() time.Time

	mu          sync.Mutex
	appl, store *server.Account
	conns       map[uint64]connection
	byAppliance map[int32][]uint64  // oldest first
	revoked     map[int32]time.Time // when an appliance was cut by Disconnect; for those that were being let in at that moment
	surplus     []uint64            // older connections of an appliance that came again; cut by the sweeper, not inside Check
	wake        chan struct{}
}

type connection struct {
	appliance int32
	cert      *x509.Certificate
}

func newGate(token string, authorise func(*x509.Certificate) (int32, int32, error), log hclog.Logger, m *metrics) *gate {
	return &gate{
		token: token, authorise: authorise, log: log, metrics: m, now: time.Now,
		conns: map[uint64]connection{}, byAppliance: map[int32][]uint64{}, revoked: map[int32]time.Time{}, wake: make(chan struct{}, 1),
	}
}

// revokedFor is longer than a connection can take from Authorise's answer to being known here.
const revokedFor = 5 * time.Second

func (g *gate) accounts(appl, store *server.Account) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.appl, g.store = appl, store
	// A new server numbers its connections from 1 again.
	g.conns, g.byAppliance = map[uint64]connection{}, map[int32][]uint64{}
	g.surplus = nil
}

// Check is called by the server for every connection, from the connection's own goroutine.
func (g *gate) Check(c server.ClientAuthentication) bool {
	st := c.GetTLSConnectionState()
	g.mu.Lock()
	appl, store := g.appl, g.store
	g.mu.Unlock()
	if st == nil {
		// Only connections inside the process come without TLS: TLSVerify is always on.
		if subtle.ConstantTimeCompare([]byte(c.GetOpts().Token), []byte(g.token)) != 1 {
			g.refuse(c, "no certificate and a wrong token", nil)
			return false
		}
		c.RegisterUser(&server.User{Username: "control", Account: store})
		return true
	}
	if len(st.VerifiedChains) == 0 || len(st.VerifiedChains[0]) == 0 {
		g.refuse(c, "certificate not verified", nil)
		return false
	}
	cert := st.VerifiedChains[0][0]
	clinic, appliance, err := g.authorise(cert)
	if err != nil {
		g.refuse(c, "not authorised", err)
		return false
	}
	if clinic <= 0 || appliance <= 0 {
		g.refuse(c, "not authorised", fmt.Errorf("clinic %d, appliance %d: ids start at 1", clinic, appliance))
		return false
	}
	publish, inbox := permissions(clinic, appliance)
	c.RegisterUser(&server.User{
		Username: fmt.Sprintf("%d.%d", clinic, appliance), Account: appl,
		Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{publish}},
			Subscribe: &server.SubjectPermission{Allow: []string{inbox}},
		},
	})
	g.track(c.GetID(), connection{appliance: appliance, cert: cert})
	g.metrics.connected.Inc()
	return true
}

// permissions of an appliance: to publish to its own subject and to hear the answers, nothing else.
func permissions(clinic, appliance int32) (publish, inbox string) {
	return fmt.Sprintf("%s%d.%d", SubjectPrefix, clinic, appliance), fmt.Sprintf("_INBOX.%d.%d.>", clinic, appliance)
}

func (g *gate) refuse(c server.ClientAuthentication, why string, err error) {
	g.metrics.refused.Inc()
	g.log.Warn("connection refused", "remote", c.RemoteAddress(), "why", why, "err", err)
}

func (g *gate) track(cid uint64, c connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[cid] = c
	ids := append(g.byAppliance[c.appliance], cid)
	g.byAppliance[c.appliance] = ids
	switch at, revoked := g.revoked[c.appliance]; {
	case revoked && g.now().Sub(at) < revokedFor:
		g.surplus = append(g.surplus, cid)
	case len(ids) > connectionsPerAppliance:
		g.surplus = append(g.surplus, ids[0])
	default:
		return
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// revoke remembers that the appliance was cut now, and returns its connections.
func (g *gate) revoke(appliance int32) []uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	for a, at := range g.revoked {
		if g.now().Sub(at) >= revokedFor {
			delete(g.revoked, a)
		}
	}
	g.revoked[appliance] = g.now()
	return slices.Clone(g.byAppliance[appliance])
}

func (g *gate) forget(cid uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(cid)
}

func (g *gate) forgetLocked(cid uint64) {
	c, known := g.conns[cid]
	if !known {
		return
	}
	delete(g.conns, cid)
	ids := slices.DeleteFunc(g.byAppliance[c.appliance], func(id uint64) bool { return id == cid })
	if len(ids) == 0 {
		delete(g.byAppliance, c.appliance)
		return
	}
	g.byAppliance[c.appliance] = ids
}

// takeSurplus returns the connections that came too many, once.
func (g *gate) takeSurplus() []uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.surplus
	g.surplus = nil
	return s
}

// stale returns the connections whose certificate has run out or is authorised no more. With ask false only the dates are looked at.
func (g *gate) stale(ask bool) []uint64 {
	g.mu.Lock()
	conns := make(map[uint64]connection, len(g.conns))
	for id, c := range g.conns {
		conns[id] = c
	}
	g.mu.Unlock()
	var out []uint64
	for id, c := range conns {
		if g.now().After(c.cert.NotAfter) {
			out = append(out, id)
			continue
		}
		if !ask {
			continue
		}
		if _, appliance, err := g.authorise(c.cert); err != nil || appliance != c.appliance {
			out = append(out, id)
		}
	}
	return out
}

// keep drops the memory of connections that the server no longer has.
func (g *gate) keep(open map[uint64]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.conns {
		if !open[id] {
			g.forgetLocked(id)
		}
	}
}
