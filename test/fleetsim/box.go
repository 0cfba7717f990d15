// Package fleetsim runs thousands of appliances in one process: each with its own key and certificate, its own gRPC connection and,
// if wanted, its own NATS connection. Tests and the fleet benchmark use it. The trap: it speaks the contracts in proto and nothing
// else, so it shows what the control plane does with a fleet, not what an appliance does with packets.
package fleetsim

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kadomori/kadomori/proto/claim"
	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

// Behaviour is how a box fails. The zero value is a good one.
type Behaviour struct {
	// Slow delays each report by up to this time.
	Slow time.Duration
	// Flap cuts the connection about this often; 0: never.
	Flap time.Duration
	// Clock is how far the box's clock is ahead.
	Clock time.Duration
	// Refuses says why the box does not take a bundle; nil or "": it takes all.
	Refuses func(*bundlev1.Manifest) string
	// HalfDead boxes keep their stream open and never report or fetch.
	HalfDead bool
	// Spread delays the fetch of signatures by up to this time, as an agent does, so that a fleet does not fetch in one second.
	Spread time.Duration
}

// Config of a box.
type Config struct {
	Claim     string
	Serial    string
	Behaviour Behaviour
	NATS      bool // connects to the event stream as well
	// OnState is called for each desired state that arrives, OnReport after each report that got through. Both may be nil.
	OnState  func(*Box, *fleetv1.WatchResponse)
	OnReport func(*Box)
}

// Box is one simulated appliance.
type Box struct {
	cfg  Config
	key  *ecdsa.PrivateKey
	id   *enrolv1.Identity
	pool *x509.CertPool

	mu      sync.Mutex // guards what follows
	active  map[bundlev1.Kind]*bundlev1.Manifest
	refused map[bundlev1.Kind]*fleetv1.BundleState
	up      bool
	fetched map[[32]byte]bool // digests whose content was checked
	end     context.CancelFunc
}

// Stop ends Run; the box is taken off its clinic's wall.
func (b *Box) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end != nil {
		b.end()
	}
}

// ID is the appliance's number, after Enrol.
func (b *Box) ID() int32 { return b.id.GetApplianceId() }

// Clinic is the clinic's number, after Enrol.
func (b *Box) Clinic() int32 { return b.id.GetClinicId() }

// Up says whether the box's stream stands.
func (b *Box) Up() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.up }

// Active returns the version of a kind that runs; 0: none.
func (b *Box) Active(k bundlev1.Kind) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.active[k].GetVersion()
}

// Enrol makes a key and exchanges the claim, on a connection of its own that trusts the claim's pin alone.
func Enrol(ctx context.Context, cfg Config) (*Box, error) {
	c, err := claim.Parse(cfg.Claim)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	conn, err := grpc.NewClient(c.Server, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // the pin of the claim decides, below
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !c.PinnedBy(cs.PeerCertificates) {
				return errors.New("the server's chain does not hold the pinned key")
			}
			return nil
		},
	})))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	resp, err := enrolv1.NewEnrolServiceClient(conn).Enrol(ctx, &enrolv1.EnrolRequest{
		ClaimSecret: c.Secret[:], Csr: csr, Hardware: &enrolv1.Hardware{Serial: cfg.Serial, Model: "simulated", Version: "sim"},
	})
	if err != nil {
		return nil, err
	}
	if resp.GetState() != enrolv1.State_STATE_APPROVED {
		return nil, fmt.Errorf("enrol: state %v", resp.GetState())
	}
	b := &Box{
		cfg: cfg, key: key, id: resp.GetIdentity(), pool: x509.NewCertPool(), active: map[bundlev1.Kind]*bundlev1.Manifest{},
		refused: map[bundlev1.Kind]*fleetv1.BundleState{}, fetched: map[[32]byte]bool{},
	}
	for _, r := range b.id.GetRoots() {
		root, err := x509.ParseCertificate(r)
		if err != nil {
			return nil, fmt.Errorf("read root: %w", err)
		}
		b.pool.AddCert(root)
	}
	return b, nil
}

// TLS is the box's identity on a connection.
func (b *Box) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: b.pool,
		Certificates: []tls.Certificate{{Certificate: b.id.GetCertificates(), PrivateKey: b.key}},
	}
}

// Dial opens the box's gRPC connection as an agent does: small buffers, keepalive, jittered reconnects.
func (b *Box) Dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(b.id.GetFleetAddress(), grpc.WithTransportCredentials(credentials.NewTLS(b.TLS())),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 60 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 20 * time.Second}, MinConnectTimeout: 20 * time.Second,
		}))
}

// Run lives until ctx ends: it watches, fetches, reports, and comes back when the line was cut.
func (b *Box) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	b.end = cancel
	b.mu.Unlock()
	conn, err := b.Dial()
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if b.cfg.NATS {
		nc, err := b.ConnectNATS()
		if err != nil {
			return err
		}
		defer nc.Close()
	}
	if s := b.cfg.Behaviour.Spread; s > 0 { // boxes are not plugged in at one moment
		_ = wait(ctx, s)
	}
	fleet := fleetv1.NewFleetServiceClient(conn)
	pause := time.Second
	for ctx.Err() == nil {
		start := time.Now()
		_ = b.watch(ctx, fleet)
		b.mu.Lock()
		b.up = false
		b.mu.Unlock()
		if time.Since(start) > time.Minute {
			pause = time.Second
		}
		// Full jitter: a fleet that lost its server must not come back as one.
		_ = wait(ctx, pause)
		pause = min(2*pause, 30*time.Second)
	}
	return ctx.Err()
}

// ConnectNATS opens the box's connection to the event stream.
func (b *Box) ConnectNATS(opts ...nats.Option) (*nats.Conn, error) {
	opts = append([]nats.Option{
		nats.Secure(b.TLS()), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.CustomInboxPrefix(fmt.Sprintf("_INBOX.%d.%d", b.Clinic(), b.ID())), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.Timeout(20 * time.Second), nats.ReconnectWait(2 * time.Second), nats.ReconnectJitter(time.Second, 20*time.Second),
	}, opts...)
	nc, err := nats.Connect(b.id.GetNatsUrl(), opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return nc, nil
}

func (b *Box) watch(ctx context.Context, fleet fleetv1.FleetServiceClient) error {
	if f := b.cfg.Behaviour.Flap; f > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f/2+time.Duration(mrand.Int64N(int64(f)))) //nolint:gosec // jitter needs no secret
		defer cancel()
	}
	stream, err := fleet.Watch(ctx, &fleetv1.WatchRequest{AgentVersion: "sim"})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		b.mu.Lock()
		b.up = true
		b.mu.Unlock()
		if b.cfg.OnState != nil {
			b.cfg.OnState(b, resp)
		}
		if b.cfg.Behaviour.HalfDead || len(resp.GetBundles()) == 0 {
			continue
		}
		if err := b.take(ctx, fleet, resp); err != nil {
			return err
		}
	}
}

// take checks, fetches and activates what is wanted, then reports.
func (b *Box) take(ctx context.Context, fleet fleetv1.FleetServiceClient, resp *fleetv1.WatchResponse) error {
	for _, env := range resp.GetBundles() {
		m, err := sign.Verify([]ed25519.PublicKey{b.id.GetBundleKeys()[0]}, env)
		if err != nil {
			return err
		}
		why := ""
		if err := sign.Check(m, b.ID(), b.Active(m.GetKind()), time.Now().Add(b.cfg.Behaviour.Clock)); err != nil {
			why = err.Error()
		} else if b.cfg.Behaviour.Refuses != nil {
			why = b.cfg.Behaviour.Refuses(m)
		}
		if s := b.cfg.Behaviour.Spread; s > 0 && why == "" && m.GetKind() == bundlev1.Kind_KIND_SIGNATURE && m.GetVersion() != b.Active(m.GetKind()) {
			if err := wait(ctx, s); err != nil {
				return err
			}
		}
		if why == "" {
			if err := b.fetch(ctx, fleet, m); err != nil {
				return err
			}
		}
		b.mu.Lock()
		if why == "" {
			b.active[m.GetKind()] = m
			delete(b.refused, m.GetKind())
		} else {
			b.refused[m.GetKind()] = &fleetv1.BundleState{RefusedVersion: m.GetVersion(), RefusedReason: why}
		}
		b.mu.Unlock()
	}
	if s := b.cfg.Behaviour.Slow; s > 0 {
		if err := wait(ctx, s); err != nil {
			return err
		}
	}
	return b.Report(ctx, fleet, resp.GetRevision())
}

// wait lets up to d pass.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(time.Duration(mrand.Int64N(int64(d)))) //nolint:gosec // jitter needs no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch reads a bundle and checks its digest; what was checked once is not read again.
func (b *Box) fetch(ctx context.Context, fleet fleetv1.FleetServiceClient, m *bundlev1.Manifest) error {
	sum := [32]byte(m.GetSha256())
	b.mu.Lock()
	have := b.fetched[sum]
	b.mu.Unlock()
	if have {
		return nil
	}
	stream, err := fleet.FetchBundle(ctx, &fleetv1.FetchBundleRequest{Sha256: m.GetSha256()})
	if err != nil {
		return err
	}
	var content []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if content = append(content, part.GetChunk()...); uint64(len(content)) > m.GetSize() {
			return errors.New("bundle is longer than announced")
		}
	}
	if err := sign.Content(m, content); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fetched[sum] = true
	return nil
}

// Report tells what runs.
func (b *Box) Report(ctx context.Context, fleet fleetv1.FleetServiceClient, revision uint64) error {
	req := &fleetv1.ReportStateRequest{Revision: revision, AgentVersion: "sim", WireMode: "inline", BoxTime: timestamppb.New(time.Now().Add(b.cfg.Behaviour.Clock))}
	b.mu.Lock()
	for _, k := range []bundlev1.Kind{bundlev1.Kind_KIND_POLICY, bundlev1.Kind_KIND_SIGNATURE} {
		s := &fleetv1.BundleState{Kind: k}
		if r := b.refused[k]; r != nil {
			s.RefusedVersion, s.RefusedReason = r.GetRefusedVersion(), r.GetRefusedReason()
		}
		if m := b.active[k]; m != nil {
			s.ActiveVersion, s.ActiveSha256 = m.GetVersion(), m.GetSha256()
		}
		req.Bundles = append(req.Bundles, s)
	}
	b.mu.Unlock()
	if _, err := fleet.ReportState(ctx, req); err != nil {
		return err
	}
	if b.cfg.OnReport != nil {
		b.cfg.OnReport(b)
	}
	return nil
}
