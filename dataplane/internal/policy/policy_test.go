package policy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const appliance = 12

// world is a control plane's signer and a box.
type world struct {
	t       *testing.T
	dir     string
	pub     ed25519.PublicKey
	key     ed25519.PrivateKey
	served  map[[32]byte][]byte
	fetched int
	applied []*Compiled
	refuse  error
	cut     int // bytes after which a fetch fails; 0: never
	mangle  bool
	probe   func(context.Context) error
	test    func(*Compiled) error
	now     time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, dir: t.TempDir(), pub: pub, key: key, served: map[[32]byte][]byte{}}
}

func (w *world) manager() *Manager {
	w.t.Helper()
	m, err := New(Config{
		Dir: w.dir, ApplianceID: appliance, Keys: func() []ed25519.PublicKey { return []ed25519.PublicKey{w.pub} },
		Fetch: w.fetch, Apply: func(c *Compiled) error {
			if w.refuse != nil {
				return w.refuse
			}
			w.applied = append(w.applied, c)
			return nil
		},
		Options: Options{Inline: true}, Probe: w.probe, Test: w.test, Spread: time.Millisecond, Grace: 60 * time.Millisecond, GiveUp: time.Minute,
		Now: func() time.Time {
			if w.now.IsZero() {
				return time.Now()
			}
			return w.now
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		for _, c := range w.applied {
			if c.Rules != nil {
				c.Rules.Close()
			}
		}
		w.applied = nil
	})
	if err := m.Start(); err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) fetch(_ context.Context, digest [sha256.Size]byte, offset, _ uint64, out io.Writer) error {
	w.fetched++
	b, ok := w.served[digest]
	if !ok {
		return errors.New("no such bundle")
	}
	b = bytes.Clone(b[offset:])
	if w.mangle && len(b) > 0 {
		b[len(b)-1] ^= 1
	}
	if w.cut > 0 && len(b) > w.cut {
		out.Write(b[:w.cut])
		return errors.New("line cut")
	}
	_, err := out.Write(b)
	return err
}

func (w *world) bundle(kind bundlev1.Kind, version uint64, msg proto.Message, change ...func(*bundlev1.Manifest)) *bundlev1.Envelope {
	w.t.Helper()
	content, err := proto.Marshal(msg)
	if err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	w.served[sum] = content
	man := &bundlev1.Manifest{
		Kind: kind, Version: version, Sha256: sum[:], Size: uint64(len(content)), Audience: sign.Audience(appliance),
		Created: timestamppb.Now(), Expires: timestamppb.New(time.Now().Add(time.Hour)),
	}
	if kind == bundlev1.Kind_KIND_SIGNATURE {
		man.Audience = sign.Fleet
	}
	for _, fn := range change {
		fn(man)
	}
	env, err := sign.Sign(w.key, man)
	if err != nil {
		w.t.Fatal(err)
	}
	return env
}

func pol(name string) *policyv1.Policy {
	return &policyv1.Policy{
		ClinicId: 3, ApplianceId: appliance, ClinicName: name, HomeNet: []string{"10.0.0.0/8"}, NeverBlock: []string{"203.0.113.5", "198.51.100.0/24"},
		Lists: []*policyv1.ListUse{{Name: "c2", Block: true}},
		Zones: []*policyv1.Zone{{Name: "clinical", Mode: policyv1.Mode_MODE_NOTIFY, Prefixes: []string{"10.0.0.0/16"}}},
	}
}

func sigs(rules string) *signaturev1.Signatures {
	return &signaturev1.Signatures{
		Rules:     []*signaturev1.RuleFile{{Name: "a.rules", Text: rules}},
		Addresses: []*signaturev1.AddressList{{Name: "c2", Kind: signaturev1.ListKind_LIST_KIND_C2, Prefixes: []byte{4, 32, 203, 0, 113, 9}}},
	}
}

const goodRule = `alert tcp any any -> $HOME_NET any (msg:"T"; content:"evil"; sid:2100001; rev:1;)` + "\n"

func (w *world) state(m *Manager, k bundlev1.Kind) (active uint64, reason string) {
	for _, s := range m.State() {
		if s.GetKind() == k {
			return s.GetActiveVersion(), s.GetRefusedReason()
		}
	}
	w.t.Fatal("no state")
	return 0, ""
}

func TestBundlesBecomeWhatRunsAndSurviveARestart(t *testing.T) {
	w := newWorld(t)
	m := w.manager()
	if len(w.applied) != 1 {
		t.Fatal("the built-in policy was not applied")
	}
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{
		w.bundle(bundlev1.Kind_KIND_POLICY, 5, pol("clinic one")), w.bundle(bundlev1.Kind_KIND_SIGNATURE, 9, sigs(goodRule)),
	})
	check := func(m *Manager) {
		t.Helper()
		c := m.Current()
		if c.Policy.GetClinicName() != "clinic one" || c.Loaded != 1 || len(c.Refused) != 0 || len(c.NeverBlock) != 2 {
			t.Fatalf("in force: %q, %d rules, refused %v", c.Policy.GetClinicName(), c.Loaded, c.Refused)
		}
		if len(c.BlockSets) != 1 || c.BlockSets[0].Name != "c2" || c.BlockSets[0].Prefixes[0].String() != "203.0.113.9/32" {
			t.Errorf("block sets %v", c.BlockSets)
		}
		if m.Version(bundlev1.Kind_KIND_POLICY) != 5 || m.Version(bundlev1.Kind_KIND_SIGNATURE) != 9 {
			t.Errorf("state %v", m.State())
		}
	}
	check(m)
	fetched := w.fetched
	check(w.manager()) // a restart without control plane
	m.Desired(t.Context(), 2, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 5, pol("clinic one"))})
	if w.fetched != fetched {
		t.Error("what runs already was fetched again")
	}
}

func TestRefusedBundlesChangeNothing(t *testing.T) {
	_, otherKey, _ := ed25519.GenerateKey(rand.Reader)
	for name, tc := range map[string]struct {
		make func(w *world) *bundlev1.Envelope
		want string
	}{
		"forged": {func(w *world) *bundlev1.Envelope {
			env := w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"))
			man := &bundlev1.Manifest{}
			proto.Unmarshal(env.GetPayload(), man)
			env, _ = sign.Sign(otherKey, man)
			return env
		}, sign.ErrSignature.Error()},
		"bit flipped": {func(w *world) *bundlev1.Envelope {
			env := w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"))
			env.Payload[3] ^= 1
			return env
		}, sign.ErrSignature.Error()},
		"older": {func(w *world) *bundlev1.Envelope { return w.bundle(bundlev1.Kind_KIND_POLICY, 4, pol("x")) }, sign.ErrRollback.Error()},
		"same version, other content": {func(w *world) *bundlev1.Envelope {
			return w.bundle(bundlev1.Kind_KIND_POLICY, 5, pol("x"))
		}, sign.ErrRollback.Error()},
		"for another box": {func(w *world) *bundlev1.Envelope {
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"), func(m *bundlev1.Manifest) { m.Audience = sign.Audience(13) })
		}, sign.ErrAudience.Error()},
		"policy inside for another box": {func(w *world) *bundlev1.Envelope {
			p := pol("x")
			p.ApplianceId = 13
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, p)
		}, "appliance 13"},
		"expired": {func(w *world) *bundlev1.Envelope {
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"), func(m *bundlev1.Manifest) { m.Expires = timestamppb.New(time.Now().Add(-time.Second)) })
		}, sign.ErrExpired.Error()},
		"too large": {func(w *world) *bundlev1.Envelope {
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"), func(m *bundlev1.Manifest) { m.Size = sign.MaxContent + 1 })
		}, "limit"},
		"content mangled": {func(w *world) *bundlev1.Envelope {
			w.mangle = true
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"))
		}, sign.ErrDigest.Error()},
		"content truncated": {func(w *world) *bundlev1.Envelope {
			w.cut = 10
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"))
		}, "line cut"},
		"not a policy": {func(w *world) *bundlev1.Envelope {
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, &signaturev1.Signatures{Rules: []*signaturev1.RuleFile{{Name: "\x01"}}})
		}, "appliance"},
		"prefix wrong": {func(w *world) *bundlev1.Envelope {
			p := pol("x")
			p.HomeNet = []string{"10.0.0.0/99"}
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, p)
		}, "home_net"},
		"never_block wrong": {func(w *world) *bundlev1.Envelope {
			p := pol("x")
			p.NeverBlock = []string{"nonsense"}
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, p)
		}, "never_block[0]"},
		"does not run": {func(w *world) *bundlev1.Envelope {
			w.refuse = errors.New("the wire says no")
			return w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("x"))
		}, "the wire says no"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.manager()
			m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 5, pol("good"))})
			changed := 0
			m.cfg.Changed = func() { changed++ }
			m.Desired(t.Context(), 2, []*bundlev1.Envelope{tc.make(w)})
			active, reason := w.state(m, bundlev1.Kind_KIND_POLICY)
			if active != 5 || !strings.Contains(reason, tc.want) || m.Current().Policy.GetClinicName() != "good" || changed != 1 {
				t.Fatalf("active %d, reason %q, %q in force, %d changes told", active, reason, m.Current().Policy.GetClinicName(), changed)
			}
			w.refuse, w.mangle, w.cut = nil, false, 0
			if again := w.manager(); again.Current().Policy.GetClinicName() != "good" {
				t.Error("the refused bundle is there after a restart")
			}
			m.Desired(t.Context(), 3, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 7, pol("better"))})
			if active, reason := w.state(m, bundlev1.Kind_KIND_POLICY); active != 7 || reason != "" {
				t.Errorf("a good one afterwards: active %d, %q", active, reason)
			}
		})
	}
}

func TestRulesThatCannotBeHonouredAreNamed(t *testing.T) {
	w := newWorld(t)
	m := w.manager()
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_SIGNATURE, 1, sigs(goodRule+"alert tcp any any -> any any (msg:\"broken\"; no_such_keyword:1; sid:2100002;)\n"))})
	c := m.Current()
	if c.Loaded != 1 || len(c.Refused) != 1 || !strings.Contains(c.Refused[0].Error(), "a.rules:2") {
		t.Fatalf("%d loaded, refused %v", c.Loaded, c.Refused)
	}
	m.Desired(t.Context(), 2, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_SIGNATURE, 2, sigs("garbage\n alert nonsense\n"))})
	if active, reason := w.state(m, bundlev1.Kind_KIND_SIGNATURE); active != 1 && reason == "" {
		t.Errorf("active %d, reason %q", active, reason)
	}
	if m.Current().Rules == nil {
		t.Error("no rules in force")
	}
}

func TestFetchGoesOnWhereItBrokeOff(t *testing.T) {
	w := newWorld(t)
	m := w.manager()
	big := sigs(strings.Repeat("# filler filler filler\n", 5000) + goodRule)
	env := w.bundle(bundlev1.Kind_KIND_SIGNATURE, 1, big)
	w.cut = 50_000
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{env})
	if active, reason := w.state(m, bundlev1.Kind_KIND_SIGNATURE); active != 0 || !strings.Contains(reason, "line cut") {
		t.Fatalf("active %d, %q", active, reason)
	}
	m = w.manager() // power cut in between
	w.cut = 80_000  // enough for the rest only
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{env})
	if active, reason := w.state(m, bundlev1.Kind_KIND_SIGNATURE); active != 1 {
		t.Fatalf("active %d, %q", active, reason)
	}
}

func TestStoreSurvivesATornFileAtEveryByte(t *testing.T) {
	w := newWorld(t)
	m := w.manager()
	for v, name := range []string{"", "first", "second"} {
		if name != "" {
			m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, uint64(v), pol(name))})
		}
	}
	path := m.store.active(bundlev1.Kind_KIND_POLICY)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	load := func() string {
		for _, p := range []string{path, m.store.previous(bundlev1.Kind_KIND_POLICY)} {
			if c, err := m.load(bundlev1.Kind_KIND_POLICY, p); err == nil {
				return c.policy.GetClinicName()
			}
		}
		return ""
	}
	if got := load(); got != "second" {
		t.Fatalf("whole file gives %q", got)
	}
	for cut := range whole {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if got := load(); got != "first" {
			t.Fatalf("cut at %d of %d gives %q, want the last known good", cut, len(whole), got)
		}
		rot := bytes.Clone(whole)
		rot[cut] ^= 0x10
		if err := os.WriteFile(path, rot, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := load(); got != "first" && got != "second" {
			t.Fatalf("rot at %d gives %q", cut, got)
		}
	}
	os.WriteFile(path, whole[:len(whole)/2], 0o600)
	if m := w.manager(); m.Current().Policy.GetClinicName() != "first" || m.Version(bundlev1.Kind_KIND_POLICY) != 1 {
		t.Errorf("start with a torn file: %v", m.State())
	}
}

func TestBothDamagedFallsBackToTheBuiltInPolicy(t *testing.T) {
	w := newWorld(t)
	m := w.manager()
	for v := range 2 {
		m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, uint64(v+1), pol(fmt.Sprint(v)))})
	}
	for _, p := range []string{m.store.active(bundlev1.Kind_KIND_POLICY), m.store.previous(bundlev1.Kind_KIND_POLICY)} {
		os.Truncate(p, 5)
	}
	m = w.manager()
	if m.Current() == nil || m.Current().Policy.GetClinicName() != "" {
		t.Error("no built-in policy")
	}
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 2, pol("again"))})
	if m.Current().Policy.GetClinicName() != "again" {
		t.Error("the control plane's bundle was not taken again")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(append(bytes.Clone(mark), 0, 0, 0, 0))
	f.Add(append(bytes.Clone(mark), 255, 255, 255, 255))
	f.Add([]byte("KDM"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := decode(b)
		if err != nil {
			return
		}
		if _, err := sign.Verify(nil, st.envelope); err == nil {
			t.Error("verified without a key")
		}
		decodePolicy(st.content, appliance)
		decodeSignatures(st.content)
	})
}

// FuzzCompile feeds hostile policies and rule texts through the compiler: errors, never a crash.
func FuzzCompile(f *testing.F) {
	f.Add("10.0.0.0/8", "203.0.113.1", goodRule, []byte{4, 32, 1, 2, 3, 4})
	f.Add("", "", "alert", []byte{16, 200})
	f.Fuzz(func(t *testing.T, home, never, rules string, prefixes []byte) {
		p := &policyv1.Policy{ApplianceId: appliance, HomeNet: []string{home}, NeverBlock: []string{never}, Lists: []*policyv1.ListUse{{Name: "c2", Block: true}}}
		s := sigs(rules)
		s.Addresses[0].Prefixes = prefixes
		c, err := Compile(p, s, Options{})
		if err == nil {
			c.Rules.Close()
		}
	})
}

// watchOver runs the manager's trials until the test ends.
func watchOver(t *testing.T, m *Manager) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("no %s within 20 s", what)
		case <-tick.C:
		}
	}
}

func TestBundleThatCutsTheControlPlaneOffIsGivenUp(t *testing.T) {
	w := newWorld(t)
	var cut atomic.Bool
	w.probe = func(context.Context) error {
		if cut.Load() {
			return errors.New("no route")
		}
		return nil
	}
	m := w.manager()
	stop := watchOver(t, m)
	defer func() { stop() }()
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 5, pol("good"))})
	waitFor(t, "confirmation", func() bool { _, err := os.Stat(m.trialPath()); return errors.Is(err, fs.ErrNotExist) })
	cut.Store(true)
	bad := w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("cuts the line"))
	m.Desired(t.Context(), 2, []*bundlev1.Envelope{bad})
	if m.Current().Policy.GetClinicName() != "cuts the line" {
		t.Fatal("the bundle was not tried")
	}
	waitFor(t, "the way back", func() bool { active, _ := w.state(m, bundlev1.Kind_KIND_POLICY); return active == 5 })
	if _, reason := w.state(m, bundlev1.Kind_KIND_POLICY); !strings.Contains(reason, "not reached") || !strings.Contains(reason, "version 5") {
		t.Errorf("reason %q", reason)
	}
	if m.Current().Policy.GetClinicName() != "good" {
		t.Errorf("%q in force", m.Current().Policy.GetClinicName())
	}
	cut.Store(false)
	m.Desired(t.Context(), 3, []*bundlev1.Envelope{bad})
	if active, reason := w.state(m, bundlev1.Kind_KIND_POLICY); active != 5 || !strings.Contains(reason, "tried again after") {
		t.Errorf("the same bundle at once: active %d, %q", active, reason)
	}
	stop()
	m = w.manager()
	stop = watchOver(t, m)
	if m.Current().Policy.GetClinicName() != "good" {
		t.Errorf("after a restart %q is in force", m.Current().Policy.GetClinicName())
	}
	m.Desired(t.Context(), 4, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 7, pol("mended"))})
	if active, _ := w.state(m, bundlev1.Kind_KIND_POLICY); active != 7 {
		t.Error("a newer bundle was not taken at once")
	}
	w.now = time.Now().Add(2 * time.Minute)
	m.Desired(t.Context(), 5, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 8, pol("cuts the line"))})
	if active, reason := w.state(m, bundlev1.Kind_KIND_POLICY); active != 8 {
		t.Errorf("after the wait: active %d, %q", active, reason)
	}
}

func TestTrialOutlivesAPowerCut(t *testing.T) {
	w := newWorld(t)
	w.probe = func(context.Context) error { return errors.New("no route") }
	m := w.manager() // no Run: the power goes before the trial ends
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 5, pol("on trial"))})
	m = w.manager()
	if m.Current().Policy.GetClinicName() != "on trial" {
		t.Fatal("the bundle on trial is gone after a restart")
	}
	stop := watchOver(t, m)
	defer stop()
	waitFor(t, "the way back", func() bool { active, _ := w.state(m, bundlev1.Kind_KIND_POLICY); return active == 0 })
	if m.Current().Policy.GetClinicName() != "" {
		t.Errorf("%q in force, want the built-in policy", m.Current().Policy.GetClinicName())
	}
}

func TestBundleThatFailsItsSelfTestIsRefused(t *testing.T) {
	w := newWorld(t)
	m := w.manager()
	m.cfg.Test = func(c *Compiled) error {
		if c.Policy.GetClinicName() == "blind" {
			return errors.New("rule 2199000001 did not match")
		}
		return nil
	}
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 5, pol("seeing"))})
	m.Desired(t.Context(), 2, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 6, pol("blind"))})
	if active, reason := w.state(m, bundlev1.Kind_KIND_POLICY); active != 5 || !strings.Contains(reason, "self-test") || m.Current().Policy.GetClinicName() != "seeing" {
		t.Errorf("active %d, %q", active, reason)
	}
}

// FuzzDesired feeds hostile envelopes as the network could bring them.
func FuzzDesired(f *testing.F) {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	env, _ := sign.Sign(key, &bundlev1.Manifest{Kind: bundlev1.Kind_KIND_POLICY, Version: 1, Size: 3, Audience: sign.Fleet})
	good, _ := proto.Marshal(env)
	f.Add(good)
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		env := &bundlev1.Envelope{}
		if proto.Unmarshal(b, env) != nil {
			return
		}
		m, err := New(Config{
			Dir: t.TempDir(), ApplianceID: appliance, Keys: func() []ed25519.PublicKey { return []ed25519.PublicKey{pub} },
			Apply: func(*Compiled) error { return nil },
			Fetch: func(context.Context, [32]byte, uint64, uint64, io.Writer) error { return errors.New("away") },
		})
		if err != nil {
			t.Fatal(err)
		}
		m.Desired(t.Context(), 1, []*bundlev1.Envelope{env})
		if v := m.Version(bundlev1.Kind_KIND_POLICY); v != 0 {
			t.Errorf("version %d became active", v)
		}
	})
}

func TestLargeSharedBundlesAreFetchedInTurn(t *testing.T) {
	w := newWorld(t)
	m := w.manager()
	m.cfg.Spread = time.Hour
	large := func(v uint64) *bundlev1.Envelope {
		return w.bundle(bundlev1.Kind_KIND_SIGNATURE, v, sigs(strings.Repeat("# filler filler filler\n", 4000)+fmt.Sprintf("# %d\n", v)+goodRule))
	}
	m.Desired(t.Context(), 1, []*bundlev1.Envelope{large(1)}) // the first one does not wait
	if active, reason := w.state(m, bundlev1.Kind_KIND_SIGNATURE); active != 1 {
		t.Fatalf("active %d, %q", active, reason)
	}
	fetched := w.fetched
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	m.Desired(ctx, 2, []*bundlev1.Envelope{large(2)})
	if w.fetched != fetched {
		t.Error("a large shared bundle was fetched at once")
	}
	m.Desired(t.Context(), 3, []*bundlev1.Envelope{w.bundle(bundlev1.Kind_KIND_POLICY, 1, pol("at once"))})
	if m.Current().Policy.GetClinicName() != "at once" {
		t.Error("a policy had to wait")
	}
}
