package policy

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
)

// A bundle that was just activated is on trial: within the grace time the control plane must be reached over a connection
// made anew, or the box goes back by itself. The trial is on disk, so that a power cut does not end it.

// maxWait bounds how long a bundle that was given up is not tried again.
const maxWait = 24 * time.Hour

// trial names the bundle on trial.
type trial struct {
	Kind    string `json:"kind"`
	Version uint64 `json:"version"`
	SHA256  string `json:"sha256"`
	kind    bundlev1.Kind
}

// givenUp is a bundle that cut the control plane off.
type givenUp struct {
	SHA256 string    `json:"sha256"`
	Reason string    `json:"reason"`
	Tries  int       `json:"tries"`
	Until  time.Time `json:"until"` // not taken again before
}

func (m *Manager) trialPath() string   { return filepath.Join(m.cfg.Dir, "trial.json") }
func (m *Manager) givenUpPath() string { return filepath.Join(m.cfg.Dir, "given-up.json") }

// beginTrial notes the bundle before it is stored as the active one.
func (m *Manager) beginTrial(man *bundlev1.Manifest) error {
	if m.cfg.Probe == nil {
		return nil
	}
	t := &trial{Kind: kindName(man.GetKind()), Version: man.GetVersion(), SHA256: hex.EncodeToString(man.GetSha256()), kind: man.GetKind()}
	if err := writeJSON(m.trialPath(), t); err != nil {
		return fmt.Errorf("begin trial: %w", err)
	}
	select { // the newest trial is the one that counts
	case <-m.trials:
	default:
	}
	m.trials <- t
	return nil
}

// resumeTrial takes up a trial that a restart interrupted.
func (m *Manager) resumeTrial() {
	b, err := os.ReadFile(m.trialPath())
	if err != nil || m.cfg.Probe == nil {
		return
	}
	t := &trial{}
	if err := json.Unmarshal(b, t); err != nil {
		os.Remove(m.trialPath()) //nolint:errcheck // torn; what is active was whole before it
		return
	}
	for k, s := range m.slots {
		if kindName(k) == t.Kind && hex.EncodeToString(s.active.GetSha256()) == t.SHA256 {
			t.kind = k
			m.trials <- t
			return
		}
	}
	os.Remove(m.trialPath()) //nolint:errcheck // the bundle never became active
}

// Run watches over trials until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-m.trials:
			for t != nil {
				t = m.watch(ctx, t)
			}
		}
	}
}

// watch ends a trial: passed when the control plane was reached, else the box goes back. It returns the trial of a newer bundle
// that took its place, or nil.
func (m *Manager) watch(ctx context.Context, t *trial) *trial {
	deadline := time.Now().Add(m.cfg.Grace)
	var err error
	for {
		pctx, cancel := context.WithDeadline(ctx, deadline)
		err = m.cfg.Probe(pctx)
		cancel()
		if err == nil {
			os.Remove(m.trialPath()) //nolint:errcheck // a trial that passed twice does no harm
			m.log.Info("bundle confirmed, the control plane is reached", "kind", t.Kind, "version", t.Version)
			return nil
		}
		if ctx.Err() != nil {
			return nil // goes on after the restart
		}
		wait := min(m.cfg.Grace/20, 10*time.Second)
		timer := time.NewTimer(wait/2 + rand.N(wait+1)) //nolint:gosec // spreads load, no secret
		if left := time.Until(deadline); left <= 0 {
			timer.Stop()
			break
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case next := <-m.trials:
			timer.Stop()
			return next
		case <-timer.C:
		}
	}
	m.revert(t, fmt.Sprintf("control plane not reached within %s after activation (%v)", m.cfg.Grace, err))
	return nil
}

// revert goes back to the bundle before the one on trial.
func (m *Manager) revert(t *trial, reason string) {
	m.work.Lock()
	defer m.work.Unlock()
	m.mu.Lock()
	bad := m.slots[t.kind].active
	m.mu.Unlock()
	if hex.EncodeToString(bad.GetSha256()) != t.SHA256 {
		return // replaced meanwhile
	}
	before, err := m.load(t.kind, m.store.previous(t.kind))
	if err != nil {
		before = nil
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Error("previous bundle can't be used, going back to the built-in one", "kind", t.Kind, "err", err)
		}
	}
	pol, sig := before, before
	if t.kind == bundlev1.Kind_KIND_POLICY {
		sig = m.other(bundlev1.Kind_KIND_SIGNATURE)
	} else {
		pol = m.other(bundlev1.Kind_KIND_POLICY)
	}
	if err := m.try(pol, sig); err != nil {
		m.log.Error("going back does not work, the bundle on trial stays", "kind", t.Kind, "version", t.Version, "err", err)
		return
	}
	m.giveUp(bad, reason)
	if before == nil {
		err = os.Remove(m.store.active(t.kind))
	} else {
		err = os.Rename(m.store.previous(t.kind), m.store.active(t.kind))
	}
	if err != nil {
		m.log.Error("going back is not on disk", "err", err)
	}
	os.Remove(m.trialPath()) //nolint:errcheck // names a bundle that is not active any more
	reason = fmt.Sprintf("%s; went back to version %d", reason, before.version())
	m.log.Error("bundle given up", "kind", t.Kind, "version", t.Version, "reason", reason)
	m.mu.Lock()
	s := &slot{refused: bad, reason: reason}
	if before != nil {
		s.active = before.manifest
	}
	m.slots[t.kind] = s
	m.mu.Unlock()
	if m.cfg.Changed != nil {
		m.cfg.Changed()
	}
}

// giveUp remembers a bundle that cut the control plane off; the wait doubles with each time.
func (m *Manager) giveUp(man *bundlev1.Manifest, reason string) {
	g := m.givenUp()
	digest := hex.EncodeToString(man.GetSha256())
	if g.SHA256 != digest {
		g = givenUp{SHA256: digest}
	}
	g.Reason = reason
	g.Until = m.cfg.Now().Add(min(m.cfg.GiveUp<<min(g.Tries, 10), maxWait))
	g.Tries++
	if err := writeJSON(m.givenUpPath(), &g); err != nil {
		m.log.Error("given-up bundle can't be noted", "err", err)
	}
}

func (m *Manager) givenUp() givenUp {
	var g givenUp
	b, err := os.ReadFile(m.givenUpPath())
	if err == nil && json.Unmarshal(b, &g) != nil {
		g = givenUp{}
	}
	return g
}

// allowed says whether a bundle may be tried (again).
func (m *Manager) allowed(man *bundlev1.Manifest) error {
	g := m.givenUp()
	now := m.cfg.Now()
	// A clock that was put back must not keep a bundle out for longer than the longest wait.
	if g.SHA256 != hex.EncodeToString(man.GetSha256()) || !now.Before(g.Until) || g.Until.Sub(now) > maxWait {
		return nil
	}
	return fmt.Errorf("%s; tried again after %s", g.Reason, g.Until.UTC().Format(time.RFC3339))
}

// writeJSON replaces a small file as a whole.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".bundle-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	_, err = f.Write(bytes.TrimSpace(b))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
