package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"

	"github.com/kadomori/kadomori/dataplane/internal/command"
	"github.com/kadomori/kadomori/dataplane/internal/engine"
	"github.com/kadomori/kadomori/dataplane/internal/enrol"
	"github.com/kadomori/kadomori/dataplane/internal/event"
	"github.com/kadomori/kadomori/dataplane/internal/fleet"
	"github.com/kadomori/kadomori/dataplane/internal/health"
	"github.com/kadomori/kadomori/dataplane/internal/policy"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
	"github.com/kadomori/kadomori/dataplane/internal/spool"
	"github.com/kadomori/kadomori/dataplane/internal/uplink"
	"github.com/kadomori/kadomori/dataplane/internal/wire"
	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

const (
	// flushLimit is how long a stopping agent tries to get its last events to the centre; they are safe on disk anyway.
	flushLimit = 5 * time.Second
	// syncLimit is how long it waits for the disk.
	syncLimit = 10 * time.Second
)

// agent is the running program: what Run built, for the parts that look at several of them.
type agent struct {
	cfg     Config
	log     hclog.Logger
	started time.Time
	wire    *xdp.Wire
	engine  *engine.Engine
	spool   *spool.Spool
	sink    *event.Sink
	health  *health.Reporter
	rules   *rule.Shared

	mu       sync.Mutex
	identity *enrol.Identity
	policy   *policy.Manager
	commands *command.Runner
	fleet    *fleet.Client
	uplink   *uplink.Uplink
	linkErr  string // why there is no link yet

	inForce atomic.Pointer[policy.Compiled]
	lists   atomic.Pointer[map[uint32]list]

	wireMu    sync.Mutex
	wireSeen  xdp.Status // last read
	wireEnded bool
	// firstAttach: the wire was not in the path before this run. The moment between attaching and the first packet loop is
	// then no protection lost, it is the wire being put in; skipped is its length.
	firstAttach bool
	skipped     atomic.Int64
	retired     chan *rule.Set
	selfTest    atomic.Pointer[selfTestResult]
	reset       chan struct{}
}

// list is what a drop's list id stands for.
type list struct {
	name     string
	category eventv1.Category
}

// Run is the appliance until ctx ends. It returns nil after an orderly end. The wire stays attached and pinned: traffic flows
// on, with the block sets in force.
func Run(ctx context.Context, cfg Config) error { return RunWithLog(ctx, cfg, os.Stderr) }

// RunWithLog is Run with the log on w.
func RunWithLog(ctx context.Context, cfg Config, w io.Writer) (err error) {
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	if err := cfg.checkPorts(); err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	log := cfg.logger(w)
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		// Enforcement must not depend on a disk: keys and bundles may be readable, events go to memory.
		log.Error("state directory can't be made", "dir", cfg.StateDir, "err", err)
	}
	a := &agent{cfg: cfg, log: log, started: time.Now(), retired: make(chan *rule.Set, 64), reset: make(chan struct{}, 1), rules: rule.NewShared(0)}
	a.lists.Store(&map[uint32]list{})

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) {
		log.Error("a part of the agent ended", "err", err)
		cancel(err)
	}

	// What takes comes first and ends last: spool, events, engine, wire.
	reason, err := finishReset(&cfg)
	if err != nil {
		return err
	}
	if a.spool, err = spool.Open(spool.Config{Dir: cfg.spoolDir(), Limit: cfg.Spool.MaxBytes, Reason: reason, Log: log}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.spool.Close()) }()

	if a.sink, err = event.New(event.Config{Spool: a.spool, Key: a.anonymousKey(), Log: log}); err != nil {
		return err
	}
	if a.engine, err = engine.New(engine.Config{Sink: a.sink, MaxFlows: cfg.MaxFlows, Log: log}); err != nil {
		return err
	}
	a.firstAttach = !attached(cfg.PinDir)
	if a.wire, err = xdp.Open(wireConfig(&cfg, log)); err != nil {
		return err
	}
	closeWire := sync.OnceValue(a.endWire)
	defer func() { err = errors.Join(err, closeWire()) }()

	// The policy that was last known to be good, before the first packet is judged.
	if err := a.loadIdentity(); err != nil {
		return err
	}
	if err := a.startPolicy(); err != nil {
		return err
	}
	if a.health, err = health.New(health.Config{
		Totals: a.readTotals, Gauges: a.gauges, Traffic: a.engine.TakeTraffic, Sink: a.sink, Log: log,
	}); err != nil {
		return err
	}
	a.applyIntervals()

	events, reports, pumps, packets, link := newGroup(ctx, fail), newGroup(ctx, fail), newGroup(ctx, fail), newGroup(ctx, fail), newGroup(ctx, fail)
	events.start("events", a.sink.Run)
	pumps.start("drops", a.pumpDrops)
	pumps.start("flow records", a.pumpFlowRecords)
	pumps.start("unprotected time", a.pumpUnprotected)
	reports.start("health", a.health.Run)
	reports.start("self-test", a.selfTests)
	reports.start("retired rules", a.retireRules)
	reports.start("status", a.serveStatus)
	reports.start("factory reset", a.awaitReset)
	reports.start("metrics", a.serveMetrics)
	reports.start("service manager", a.notify)
	packets.start("wire", func(ctx context.Context) error { return a.wire.Run(ctx, a.engine.Worker) })
	link.start("control plane", a.link)
	log.Info("agent runs", "version", Version, "mode", cfg.Mode, "lan", cfg.Ports.LAN, "wan", cfg.Ports.WAN)

	<-ctx.Done()
	log.Info("agent stops")
	packets.stop()
	err = closeWire() // ends the pumps
	pumps.wg.Wait()
	pumps.stop()
	a.engine.Flush()
	reports.stop()
	events.stop()
	err = errors.Join(err, a.flush())
	link.stop()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// attached says whether an earlier run left the wire in the path.
func attached(pinDir string) bool {
	links, _ := filepath.Glob(filepath.Join(pinDir, "link_*"))
	return len(links) > 0
}

// wireStatus reads the wire's counters; once the wire was ended it gives the last ones.
func (a *agent) wireStatus() xdp.Status {
	a.wireMu.Lock()
	defer a.wireMu.Unlock()
	if a.wireEnded {
		return a.wireSeen
	}
	st, err := a.wire.Status()
	if err != nil {
		a.log.Warn("counters of the wire can't be read", "err", err)
		return a.wireSeen
	}
	st.Unprotected = max(st.Unprotected-time.Duration(a.skipped.Load()), 0)
	a.wireSeen = st
	return st
}

// endWire closes the wire; its counters stay readable.
func (a *agent) endWire() error {
	a.wireStatus()
	a.wireMu.Lock()
	defer a.wireMu.Unlock()
	a.wireEnded = true
	return a.wire.Close()
}

func wireConfig(cfg *Config, log hclog.Logger) xdp.Config {
	c := xdp.Config{
		Ports: xdp.Ports{LAN: cfg.Ports.LAN, WAN: cfg.Ports.WAN}, PinDir: cfg.PinDir, Queues: cfg.Queues, Log: log,
	}
	if cfg.Mode == "tap" {
		c.Mode = xdp.Tap
	}
	switch cfg.Attach {
	case "native":
		c.Attach = xdp.AttachNative
	case "generic":
		c.Attach = xdp.AttachGeneric
	}
	return c
}

// flush makes the last events durable and sends them when the centre can be reached.
func (a *agent) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), syncLimit)
	defer cancel()
	if err := a.spool.Sync(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	up := a.uplink
	a.mu.Unlock()
	if up == nil || !up.Stats().Connected {
		return nil
	}
	ctx, cancel = context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	if err := up.Flush(ctx); err != nil {
		a.log.Info("some events wait on disk for the next start", "depth", a.spool.Stats().Depth)
	}
	return nil
}

// loadIdentity reads who the box is; a box that was never enrolled has none yet.
func (a *agent) loadIdentity() error {
	id, err := enrol.Load(a.cfg.identityDir(), a.cfg.keyStore())
	if errors.Is(err, enrol.ErrNone) {
		a.log.Info("appliance is not enrolled yet", "claim_file", a.cfg.ClaimFile)
		return nil
	}
	if err != nil {
		return err
	}
	a.setIdentity(id)
	return nil
}

func (a *agent) setIdentity(id *enrol.Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.identity = id
}

// startPolicy puts the stored policy in force, or the built-in one on a box without identity.
func (a *agent) startPolicy() error {
	a.mu.Lock()
	id := a.identity
	a.mu.Unlock()
	opt := policy.Options{Inline: a.cfg.Mode == "inline", CacheDir: a.cfg.cacheDir(), Shared: a.rules}
	if id == nil {
		c, err := policy.Compile(&policyv1.Policy{}, nil, opt)
		if err != nil {
			return err
		}
		return a.apply(c)
	}
	m, err := policy.New(policy.Config{
		Dir: a.cfg.bundleDir(), ApplianceID: id.Appliance(), Keys: id.BundleKeys, Apply: a.apply, Changed: a.policyChanged,
		Fetch: a.fetch, Options: opt, Test: detectSynthetic, Probe: a.probe, Now: a.now, Grace: time.Duration(a.cfg.Management.RevertAfter), Log: a.log,
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.policy = m
	a.mu.Unlock()
	if err := a.startCommands(id); err != nil {
		return err
	}
	return m.Start()
}

// apply puts a compiled policy in force: all of it, or nothing.
func (a *agent) apply(c *policy.Compiled) error {
	before := a.inForce.Load()
	if err := a.applyWire(c); err != nil {
		if before != nil {
			err = errors.Join(err, a.applyWire(before))
		}
		return err
	}
	names := map[uint32]list{}
	for _, l := range c.Engine.AddressLists() {
		names[l.ID] = list{l.Name, category(l.Kind)}
	}
	a.lists.Store(&names)
	a.engine.SetPolicy(c.Engine)
	a.engine.SetRules(c.Rules)
	a.inForce.Store(c)
	a.applyIntervals()
	if before != nil && before.Rules != nil && before.Rules != c.Rules {
		select {
		case a.retired <- before.Rules:
		default: // freed with the process
		}
	}
	return nil
}

// applyWire sets what the kernel enforces: first what must never be blocked.
func (a *agent) applyWire(c *policy.Compiled) error {
	if err := a.wire.SetNeverBlock(append(a.ownAddresses(), c.NeverBlock...)); err != nil {
		return fmt.Errorf("set never_block: %w", err)
	}
	sets := make([]xdp.BlockSet, len(c.BlockSets))
	for i, s := range c.BlockSets {
		sets[i] = xdp.BlockSet{ID: s.ID, Name: s.Name, Prefixes: s.Prefixes}
	}
	if err := a.wire.SetBlockSets(sets); err != nil {
		return fmt.Errorf("set block sets: %w", err)
	}
	return nil
}

// ownAddresses are those of the control plane, as far as the identity gives them as addresses: whatever a list says, the box
// must be able to hear that it was wrong.
func (a *agent) ownAddresses() []netip.Prefix {
	a.mu.Lock()
	id := a.identity
	a.mu.Unlock()
	if id == nil {
		return nil
	}
	var out []netip.Prefix
	for _, s := range []string{
		pick(a.cfg.Management.FleetAddress, id.Fleet()), strings.TrimPrefix(pick(a.cfg.Management.NATSURL, id.NATS()), "tls://"),
	} {
		if ap, err := netip.ParseAddrPort(s); err == nil && !ap.Addr().IsLoopback() {
			out = append(out, netip.PrefixFrom(ap.Addr().Unmap(), ap.Addr().Unmap().BitLen()))
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// applyIntervals takes intervals and bandwidth from the policy in force.
func (a *agent) applyIntervals() {
	c := a.inForce.Load()
	if c == nil {
		return
	}
	if a.health != nil {
		in := c.Policy.GetIntervals()
		a.health.SetIntervals(seconds(in.GetHealthS()), seconds(in.GetTrafficS()))
		// Repeats are told no later than the heartbeat that they belong to.
		a.sink.SetFold(min(cmp.Or(seconds(in.GetHealthS()), time.Minute), time.Minute))
	}
	a.mu.Lock()
	up := a.uplink
	a.mu.Unlock()
	if n := c.Policy.GetUplink().GetMaxBytesS(); up != nil && n > 0 {
		up.SetLimit(n)
	}
}

func seconds(n uint32) time.Duration { return time.Duration(min(n, 3600)) * time.Second }

// retireRules frees rule sets that no worker uses any more.
func (a *agent) retireRules(ctx context.Context) error {
	var old []*rule.Set
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // freed with the process
		case s := <-a.retired:
			old = append(old, s)
		case <-tick.C:
			keep := old[:0]
			for _, s := range old {
				if a.engine.RulesInUse(s) {
					keep = append(keep, s)
				} else {
					s.Close()
				}
			}
			old = keep
		}
	}
}

// pumpDrops turns what the wire stopped by itself into events. The wire's Close ends it.
func (a *agent) pumpDrops(context.Context) error {
	for d := range a.wire.Drops() {
		a.engine.AddDrop(d)
		l := (*a.lists.Load())[d.ListID]
		if d.Reason == wire.DropFlowVerdict || d.Reason == wire.ZoneCounted {
			continue // the engine gave that verdict and told why; or nothing was stopped
		}
		a.sink.Block(&d, blockReason(d.Reason), l.name, l.category)
	}
	return nil
}

func (a *agent) pumpFlowRecords(context.Context) error {
	for r := range a.wire.FlowRecords() {
		a.engine.AddFlowRecord(r)
	}
	return nil
}

func (a *agent) pumpUnprotected(context.Context) error {
	for u := range a.wire.Unprotected() {
		a.log.Debug("unprotected", "from", u.From, "to", u.To, "cause", u.Cause)
		if a.firstAttach && u.Cause == xdp.CauseStarting {
			a.firstAttach = false
			a.skipped.Store(int64(u.To.Sub(u.From)))
			a.log.Info("wire put into the path", "took", u.To.Sub(u.From))
			continue
		}
		a.sink.Unprotected(unprotectedEvent(u))
	}
	return nil
}

// link enrols the box when it has no identity, and then talks to the control plane until ctx ends.
func (a *agent) link(ctx context.Context) error {
	a.mu.Lock()
	id := a.identity
	a.mu.Unlock()
	if id == nil {
		if id = a.enrol(ctx); id == nil {
			return nil
		}
		a.setIdentity(id)
		if err := a.startPolicy(); err != nil {
			return err
		}
	}
	return a.talk(ctx, id)
}

// enrol waits for a claim that works. A claim that doesn't is no reason to stop the wire: it is shown in status and looked
// at again when the file changes. It returns nil when ctx ended.
func (a *agent) enrol(ctx context.Context) *enrol.Identity {
	var last string
	for {
		text, err := readClaim(a.cfg.ClaimFile)
		if err == nil && text != last {
			last = text
			var id *enrol.Identity
			if id, err = enrol.Enrol(ctx, a.enrolConfig(text)); err == nil {
				return id
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			a.mu.Lock()
			changed := a.linkErr != err.Error()
			a.linkErr = err.Error()
			a.mu.Unlock()
			if changed {
				a.log.Error("appliance can't be enrolled", "err", err)
			}
		}
		t := time.NewTimer(2 * time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

func (a *agent) enrolConfig(text string) enrol.Config {
	return enrol.Config{
		Dir: a.cfg.identityDir(), Claim: text, Serial: firmware(a.cfg.Serial, "product_serial"), Model: firmware(a.cfg.Model, "product_name"),
		Version: Version, Keys: a.cfg.keyStore(), Log: a.log,
	}
}

// readClaim returns the claim's text.
func readClaim(path string) (string, error) {
	if path == "" {
		return "", errors.New("claim_file: none is configured; enrol with `kadomori-agent enroll`")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read claim: %w", err)
	}
	return string(b), nil
}

// firmware returns a configured value, or what the firmware says.
func firmware(configured, name string) string {
	if configured != "" {
		return configured
	}
	b, err := os.ReadFile(filepath.Join("/sys/class/dmi/id", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// talk runs the three parts that need an identity.
func (a *agent) talk(ctx context.Context, id *enrol.Identity) error {
	fc, err := fleet.New(fleet.Config{
		Address: pick(a.cfg.Management.FleetAddress, id.Fleet()), TLS: id.TLS(), Version: Version,
		Desired:   func(ctx context.Context, rev uint64, b []*bundlev1.Envelope) { a.policy.Desired(ctx, rev, b) },
		Committed: func(stream [16]byte, through uint64) { a.spool.Committed(stream, through) },
		Commands:  a.commands.Handle, Told: a.commands.Told,
		State: a.state, Report: time.Duration(a.cfg.Management.ReportEvery), Log: a.log,
	})
	if err != nil {
		return err
	}
	defer fc.Close() //nolint:errcheck // nothing in flight
	limit := a.cfg.Management.MaxBytesPerSecond
	up, err := uplink.New(uplink.Config{
		ClinicID: id.Clinic(), ApplianceID: id.Appliance(), URL: pick(a.cfg.Management.NATSURL, id.NATS()), TLS: id.TLS(), Spool: a.spool,
		MaxBytesPerSecond: limit, ClockOffset: fc.ClockOffset, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.fleet, a.uplink, a.linkErr = fc, up, ""
	a.mu.Unlock()
	a.applyIntervals()
	var failed atomic.Pointer[error]
	ctx, cancel := context.WithCancel(ctx)
	g := newGroup(ctx, func(err error) { failed.CompareAndSwap(nil, &err); cancel() })
	g.start("fleet", fc.Run)
	g.start("policy", a.policy.Run)
	g.start("commands", a.commands.Run)
	g.start("uplink", up.Run)
	g.start("certificate renewal", (&enrol.Renewer{Identity: id, Now: a.now, Log: a.log}).Run)
	<-ctx.Done()
	cancel()
	g.stop()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func pick(configured, given string) string {
	if configured != "" {
		return configured
	}
	return given
}

// fetch gets a bundle's content over the control plane's connection.
func (a *agent) fetch(ctx context.Context, digest [32]byte, offset, size uint64, w io.Writer) error {
	a.mu.Lock()
	fc := a.fleet
	a.mu.Unlock()
	if fc == nil {
		return errors.New("fetch bundle: the control plane is not connected")
	}
	return fc.Fetch(ctx, digest, offset, size, w)
}

// now is the control plane's time as far as it is known: expiries must not hang on a box's wrong clock. Events carry the box's
// own time, and the offset beside it.
func (a *agent) now() time.Time {
	a.mu.Lock()
	fc := a.fleet
	a.mu.Unlock()
	if fc != nil {
		if ms, ok := fc.ClockOffset(); ok {
			return time.Now().Add(-time.Duration(ms) * time.Millisecond)
		}
	}
	return time.Now()
}

// probe reaches the control plane over a connection made anew.
func (a *agent) probe(ctx context.Context) error {
	a.mu.Lock()
	fc := a.fleet
	a.mu.Unlock()
	if fc == nil {
		return errors.New("the control plane is not connected yet")
	}
	return fc.Probe(ctx)
}

func (a *agent) policyChanged() {
	a.mu.Lock()
	fc := a.fleet
	a.mu.Unlock()
	if fc != nil {
		fc.Poke()
	}
}

// state is what ReportState tells.
func (a *agent) state() *fleetv1.ReportStateRequest {
	stream := a.spool.Stream()
	a.mu.Lock()
	m, r := a.policy, a.commands
	a.mu.Unlock()
	req := &fleetv1.ReportStateRequest{WireMode: a.wireMode(), StreamId: stream[:]}
	if m != nil {
		req.Bundles = m.State()
	}
	if r != nil {
		req.Commands = r.Results()
	}
	return req
}
