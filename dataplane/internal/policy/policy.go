// Package policy takes signed bundles from the control plane and makes them what runs: verify, fetch, compile, try, activate,
// keep the last known good. Package fleet calls Desired, package app gives Apply. The trap: the order of the checks matters;
// nothing of a bundle is believed before its signature, and nothing is stored before it runs.
package policy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

// Config of a Manager.
type Config struct {
	// Dir keeps the bundles.
	Dir string
	// ApplianceID is whom bundles must be for.
	ApplianceID int32
	// Keys may sign bundles; called at each check, because a renewal may bring new ones.
	Keys func() []ed25519.PublicKey
	// Fetch gets content from offset on into w.
	Fetch func(ctx context.Context, digest [sha256.Size]byte, offset, size uint64, w io.Writer) error
	// Apply makes what was compiled the running policy, all or nothing.
	Apply func(*Compiled) error
	// Spread is the longest random wait before a large shared bundle is fetched, so that a fleet does not fetch it in one second;
	// 0 means 30 s. A box that has none yet does not wait.
	Spread time.Duration
	// Test replays a self-test on what was compiled, before it is applied; nil: none.
	Test func(*Compiled) error
	// Probe reaches the control plane over a connection made anew; nil: bundles are not put on trial.
	Probe func(context.Context) error
	// Grace is how long a new bundle may keep the control plane out of reach before the box goes back; 0 means 5 minutes.
	Grace time.Duration
	// GiveUp is how long a bundle that was given up is not tried again, the first time; 0 means 1 hour, doubled each time.
	GiveUp time.Duration
	// Changed is called after each activation and refusal; nil: nothing to do.
	Changed func()
	Options Options
	Log     hclog.Logger
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time
}

// Manager owns what runs. Its methods are safe for several goroutines.
type Manager struct {
	cfg   Config
	log   hclog.Logger
	store store

	work   sync.Mutex  // one change at a time
	trials chan *trial // room for one

	mu       sync.Mutex
	slots    map[bundlev1.Kind]*slot
	compiled *Compiled
}

// slot is the state of one kind.
type slot struct {
	active  *bundlev1.Manifest // nil: none
	refused *bundlev1.Manifest
	reason  string
}

// spreadSize is the content from which on a shared bundle's fetch is spread over the fleet, in bytes.
const spreadSize = 64 << 10

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for the turn to fetch: %w", ctx.Err())
	case <-t.C:
		return nil
	}
}

// kindsInOrder is the order in which bundles of one message are taken: signatures first, so that a policy may use new lists.
var kindsInOrder = []bundlev1.Kind{bundlev1.Kind_KIND_SIGNATURE, bundlev1.Kind_KIND_POLICY}

// New returns a Manager; Start makes it load what is on disk. Errors: a missing setting.
func New(cfg Config) (*Manager, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("new policy manager: no directory given")
	case cfg.Keys == nil || cfg.Apply == nil:
		return nil, errors.New("new policy manager: Keys and Apply are required")
	}
	cfg.Spread = cmp.Or(cfg.Spread, 30*time.Second)
	cfg.Grace = cmp.Or(cfg.Grace, 5*time.Minute)
	cfg.GiveUp = cmp.Or(cfg.GiveUp, time.Hour)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Manager{
		cfg: cfg, log: cfg.Log.Named("policy"), store: store{cfg.Dir}, trials: make(chan *trial, 1),
		slots: map[bundlev1.Kind]*slot{bundlev1.Kind_KIND_POLICY: {}, bundlev1.Kind_KIND_SIGNATURE: {}},
	}, nil
}

// candidate is a bundle that passed all checks but the compiler's.
type candidate struct {
	kind     bundlev1.Kind
	manifest *bundlev1.Manifest
	stored   *stored
	policy   *policyv1.Policy
	sig      *signaturev1.Signatures
}

// Start activates the last known good bundles, or runs with the built-in policy when there are none. A damaged one is logged
// and the previous one taken. Error: not even the built-in policy can be applied.
func (m *Manager) Start() error {
	m.work.Lock()
	defer m.work.Unlock()
	var pol, sig []*candidate
	for _, k := range kindsInOrder {
		for _, path := range []string{m.store.active(k), m.store.previous(k)} {
			c, err := m.load(k, path)
			switch {
			case err == nil && k == bundlev1.Kind_KIND_POLICY:
				pol = append(pol, c)
			case err == nil:
				sig = append(sig, c)
			case !errors.Is(err, fs.ErrNotExist):
				m.log.Error("stored bundle can't be used", "kind", kindName(k), "err", err)
			}
		}
	}
	// Newest first; at last without.
	for _, s := range append(sig, nil) {
		for _, p := range append(pol, nil) {
			if err := m.try(p, s); err != nil {
				m.log.Error("stored bundles don't run", "policy", p.version(), "signature", s.version(), "err", err)
				continue
			}
			for _, c := range []*candidate{p, s} {
				if c != nil {
					m.activated(c)
				}
			}
			m.resumeTrial()
			m.log.Info("policy in force", "policy", p.version(), "signature", s.version())
			return nil
		}
	}
	return errors.New("start policy: not even the built-in policy can be applied")
}

func (c *candidate) version() uint64 {
	if c == nil {
		return 0
	}
	return c.manifest.GetVersion()
}

// load reads and checks a bundle from disk. Expiry is not looked at: a last known good stays good while the box is cut off.
func (m *Manager) load(k bundlev1.Kind, path string) (*candidate, error) {
	st, err := read(path)
	if err != nil {
		return nil, err
	}
	man, err := sign.Verify(m.cfg.Keys(), st.envelope)
	if err != nil {
		return nil, err
	}
	if man.GetKind() != k {
		return nil, fmt.Errorf("bundle is of kind %s", kindName(man.GetKind()))
	}
	if err := sign.Check(man, m.cfg.ApplianceID, 0, man.GetCreated().AsTime()); err != nil {
		return nil, err
	}
	if err := sign.Content(man, st.content); err != nil {
		return nil, err
	}
	return m.decode(man, st)
}

func (m *Manager) decode(man *bundlev1.Manifest, st *stored) (*candidate, error) {
	c := &candidate{kind: man.GetKind(), manifest: man, stored: st}
	var err error
	switch man.GetKind() {
	case bundlev1.Kind_KIND_POLICY:
		c.policy, err = decodePolicy(st.content, m.cfg.ApplianceID)
	case bundlev1.Kind_KIND_SIGNATURE:
		c.sig, err = decodeSignatures(st.content)
	default:
		err = fmt.Errorf("bundle is of unknown kind %d", man.GetKind())
	}
	return c, err
}

// try compiles a policy with signatures and applies them. nil stands for none of the kind.
func (m *Manager) try(pol, sig *candidate) error {
	p := &policyv1.Policy{ApplianceId: m.cfg.ApplianceID}
	if pol != nil {
		p = pol.policy
	}
	var s *signaturev1.Signatures
	if sig != nil {
		s = sig.sig
	}
	return m.apply(p, s)
}

func (m *Manager) apply(p *policyv1.Policy, s *signaturev1.Signatures) error {
	c, err := Compile(p, s, m.cfg.Options)
	if err != nil {
		return err
	}
	if m.cfg.Test != nil {
		if err := m.cfg.Test(c); err != nil {
			c.Rules.Close()
			return fmt.Errorf("self-test: %w", err)
		}
	}
	if err := m.cfg.Apply(c); err != nil {
		if c.Rules != nil {
			c.Rules.Close()
		}
		return fmt.Errorf("apply policy: %w", err)
	}
	for i, e := range c.Refused {
		if i == 20 {
			m.log.Warn("more rules can't be honoured", "count", len(c.Refused)-i)
			break
		}
		m.log.Warn("rule can't be honoured", "rule", e.Error())
	}
	m.mu.Lock()
	m.compiled = c
	m.mu.Unlock()
	return nil
}

func (m *Manager) activated(c *candidate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slots[c.kind] = &slot{active: c.manifest}
}

// Current returns what runs.
func (m *Manager) Current() *Compiled {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.compiled
}

// Desired takes the wanted bundles one after the other. What is refused is named in State; what runs stays.
func (m *Manager) Desired(ctx context.Context, _ uint64, bundles []*bundlev1.Envelope) {
	m.work.Lock()
	defer m.work.Unlock()
	type wanted struct {
		env *bundlev1.Envelope
		man *bundlev1.Manifest
	}
	byKind := map[bundlev1.Kind]wanted{}
	for _, env := range bundles {
		man, err := sign.Verify(m.cfg.Keys(), env)
		if err != nil {
			m.refuseUnsigned(err)
			continue
		}
		byKind[man.GetKind()] = wanted{env, man}
	}
	for _, k := range kindsInOrder {
		w, ok := byKind[k]
		if !ok {
			continue
		}
		changed, err := m.take(ctx, w.env, w.man)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.refuse(w.man, err)
		} else if changed {
			m.log.Info("bundle activated", "kind", kindName(k), "version", w.man.GetVersion())
		}
		if (changed || err != nil) && m.cfg.Changed != nil {
			m.cfg.Changed()
		}
	}
}

// take makes a bundle with a valid signature the active one. It returns false when it is that already.
func (m *Manager) take(ctx context.Context, env *bundlev1.Envelope, man *bundlev1.Manifest) (bool, error) {
	m.mu.Lock()
	s := *m.slots[man.GetKind()]
	m.mu.Unlock()
	if s.active != nil && bytes.Equal(s.active.GetSha256(), man.GetSha256()) && s.active.GetVersion() == man.GetVersion() {
		m.mu.Lock()
		m.slots[man.GetKind()] = &slot{active: s.active}
		m.mu.Unlock()
		return false, nil
	}
	if s.active != nil && s.active.GetVersion() == man.GetVersion() {
		return false, fmt.Errorf("%w: version %d is active with other content", sign.ErrRollback, man.GetVersion())
	}
	if err := sign.Check(man, m.cfg.ApplianceID, s.active.GetVersion(), m.cfg.Now()); err != nil {
		return false, err
	}
	if err := m.allowed(man); err != nil {
		return false, err
	}
	if len(man.GetSha256()) != sha256.Size {
		return false, fmt.Errorf("manifest's digest has %d bytes, want %d", len(man.GetSha256()), sha256.Size)
	}
	if s.active != nil && man.GetAudience() == sign.Fleet && man.GetSize() > spreadSize {
		if err := pause(ctx, rand.N(m.cfg.Spread)); err != nil { //nolint:gosec // spreads load, no secret
			return false, err
		}
	}
	content, err := m.fetch(ctx, man)
	if err != nil {
		return false, err
	}
	c, err := m.decode(man, &stored{envelope: env, content: content})
	if err != nil {
		return false, err
	}
	pol, sig := c, c
	if c.kind == bundlev1.Kind_KIND_POLICY {
		sig = m.other(bundlev1.Kind_KIND_SIGNATURE)
	} else {
		pol = m.other(bundlev1.Kind_KIND_POLICY)
	}
	before := m.Current()
	if err := m.try(pol, sig); err != nil {
		return false, err
	}
	err = m.beginTrial(man)
	if err == nil {
		err = m.store.put(c.kind, c.stored)
	}
	if err != nil {
		// It runs, but would be gone after a restart: that is not what the control plane wants to hear. Go back.
		if before != nil {
			if rerr := m.apply(before.Policy, before.Signatures); rerr != nil {
				err = errors.Join(err, rerr)
			}
		}
		return false, err
	}
	m.store.clean("")
	m.activated(c)
	return true, nil
}

// other returns the active bundle of a kind as a candidate, or nil when there is none.
func (m *Manager) other(k bundlev1.Kind) *candidate {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[k]
	if s.active == nil || m.compiled == nil {
		return nil
	}
	return &candidate{kind: k, manifest: s.active, policy: m.compiled.Policy, sig: m.compiled.Signatures}
}

// fetch gets content into a part file, so that a power cut or a slow line costs only what is still missing.
func (m *Manager) fetch(ctx context.Context, man *bundlev1.Manifest) ([]byte, error) {
	if m.cfg.Fetch == nil {
		return nil, errors.New("fetch bundle: no control plane")
	}
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make bundle directory: %w", err)
	}
	path := m.store.part(man.GetKind(), man.GetSha256())
	m.store.clean(path)
	for _, fresh := range []bool{false, true} {
		if fresh {
			os.Remove(path) //nolint:errcheck // O_CREATE below says what is wrong
		}
		content, resumed, err := m.fetchInto(ctx, path, man)
		if err != nil {
			return nil, err
		}
		if err = sign.Content(man, content); err == nil {
			return content, nil
		}
		if !resumed {
			os.Remove(path) //nolint:errcheck // of no use
			return nil, err
		}
		m.log.Warn("what was left of an earlier fetch is damaged, fetching anew", "kind", kindName(man.GetKind()))
	}
	return nil, sign.ErrDigest
}

func (m *Manager) fetchInto(ctx context.Context, path string, man *bundlev1.Manifest) (content []byte, resumed bool, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("open part: %w", err)
	}
	defer f.Close() //nolint:errcheck // content is checked by digest
	st, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("stat part: %w", err)
	}
	have := uint64(st.Size())
	if have > man.GetSize() {
		have = 0
		if err := f.Truncate(0); err != nil {
			return nil, false, fmt.Errorf("truncate part: %w", err)
		}
	}
	if _, err := f.Seek(int64(have), io.SeekStart); err != nil {
		return nil, false, fmt.Errorf("seek part: %w", err)
	}
	if have < man.GetSize() {
		if err := m.cfg.Fetch(ctx, [sha256.Size]byte(man.GetSha256()), have, man.GetSize(), f); err != nil {
			return nil, have > 0, err
		}
	}
	content = make([]byte, man.GetSize())
	if _, err := f.ReadAt(content, 0); err != nil && man.GetSize() > 0 {
		return nil, have > 0, fmt.Errorf("read part: %w", err)
	}
	return content, have > 0, nil
}

func (m *Manager) refuse(man *bundlev1.Manifest, err error) {
	m.log.Error("bundle refused", "kind", kindName(man.GetKind()), "version", man.GetVersion(), "err", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.slots[man.GetKind()]
	if !ok {
		return
	}
	s.refused, s.reason = man, err.Error()
}

// refuseUnsigned: nothing of the bundle can be believed, not even its kind.
func (m *Manager) refuseUnsigned(err error) {
	m.log.Error("bundle refused", "err", err)
	m.mu.Lock()
	s := m.slots[bundlev1.Kind_KIND_POLICY]
	s.refused, s.reason = &bundlev1.Manifest{}, err.Error()
	m.mu.Unlock()
	if m.cfg.Changed != nil {
		m.cfg.Changed()
	}
}

// State returns what runs and what was refused, for ReportState.
func (m *Manager) State() []*fleetv1.BundleState {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*fleetv1.BundleState
	for _, k := range kindsInOrder {
		s := m.slots[k]
		out = append(out, &fleetv1.BundleState{
			Kind: k, ActiveVersion: s.active.GetVersion(), ActiveSha256: s.active.GetSha256(),
			RefusedVersion: s.refused.GetVersion(), RefusedReason: cmp.Or(s.reason, ""),
		})
	}
	return out
}

// Version returns the active version of a kind; 0: none.
func (m *Manager) Version(k bundlev1.Kind) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.slots[k].active.GetVersion()
}
