package enrol

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/kadomori/kadomori/proto/claim"
	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
)

// Errors of Enrol that no waiting heals.
var (
	// ErrClaim: the claim is wrong, used or expired; the control plane does not say which.
	ErrClaim = errors.New("the claim is wrong, was used already, or has expired; ask for a new one")
	// ErrRejected: an operator said no.
	ErrRejected = errors.New("an operator rejected this appliance")
	// ErrPin: the server is not the one that the claim names.
	ErrPin = errors.New("the server's certificate does not carry the authority that the claim pins; is something between the box and the control plane?")
)

// Config of Enrol.
type Config struct {
	// Dir keeps key and identity.
	Dir string
	// Claim is the claim's text.
	Claim string
	// Keys says where a new key is made.
	Keys KeyStore
	// Serial, Model and Version describe the box; empty when unknown.
	Serial, Model, Version string
	// Wait is the first wait between two calls while the approval is pending or the server is away; it doubles up to 16 times
	// that. 0 means 2 s.
	Wait time.Duration
	Log  hclog.Logger
}

// Enrol exchanges the claim for an identity and stores it. It waits for an approval, and for a server that is away, until ctx
// ends. Errors: ErrClaim, ErrRejected, ErrPin, claim.ErrFormat, a bad directory.
func Enrol(ctx context.Context, cfg Config) (*Identity, error) {
	cfg.Wait = cmp.Or(cfg.Wait, 2*time.Second)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	log := cfg.Log.Named("enrol")
	c, err := claim.Parse(cfg.Claim)
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	key, err := cfg.Keys.keyOf(cfg.Dir)
	if err != nil {
		return nil, err
	}
	csr, err := request(key)
	if err != nil {
		return nil, err
	}
	creds, pinned := pinnedCredentials(c)
	conn, err := grpc.NewClient(c.Server, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, fmt.Errorf("open connection to %s: %w", c.Server, err)
	}
	defer conn.Close() //nolint:errcheck // nothing in flight
	id := &Identity{dir: cfg.Dir, key: key}
	req := &enrolv1.EnrolRequest{
		ClaimSecret: c.Secret[:], Csr: csr,
		Hardware: &enrolv1.Hardware{Serial: cfg.Serial, Model: cfg.Model, Version: cfg.Version},
	}
	client := enrolv1.NewEnrolServiceClient(conn)
	for try := 0; ; try++ {
		rctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		res, err := client.Enrol(rctx, req)
		cancel()
		if err == nil && res.GetState() == enrolv1.State_STATE_APPROVED {
			if err := id.store(res.GetIdentity()); err != nil {
				return nil, err
			}
			log.Info("appliance enrolled", "clinic", id.Clinic(), "appliance", id.Appliance())
			return id, nil
		}
		if err := final(res, err, pinned); err != nil {
			return nil, err
		}
		if err == nil {
			log.Info("waiting for an operator's approval", "server", c.Server)
		} else {
			log.Warn("control plane can't be reached, trying again", "server", c.Server, "err", status.Convert(err).Message())
		}
		t := time.NewTimer(jitter(cfg.Wait << min(try, 4)))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("enrol: %w", ctx.Err())
		case <-t.C:
		}
	}
}

// final returns an error that no waiting heals, or nil.
func final(res *enrolv1.EnrolResponse, err error, pinned func() error) error {
	if err == nil {
		if res.GetState() == enrolv1.State_STATE_REJECTED {
			return ErrRejected
		}
		return nil
	}
	if perr := pinned(); perr != nil {
		return perr
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return ErrClaim
	case codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition:
		return fmt.Errorf("enrol: %s", status.Convert(err).Message())
	default: // away, busy, too many tries
		return nil
	}
}

// pinnedCredentials trusts a server whose chain leads to the pinned authority and that carries the claim's host name. The
// function returned tells of a server that failed that test.
func pinnedCredentials(c claim.Claim) (credentials.TransportCredentials, func() error) {
	failed := make(chan error, 1)
	host, _, err := net.SplitHostPort(c.Server)
	if err != nil {
		host = c.Server
	}
	return credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13,
			ServerName: host,
			// The system's authorities say nothing here: verifyPinned replaces the usual verification by a stricter one.
			InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
			VerifyConnection: func(cs tls.ConnectionState) error {
				err := verifyPinned(c, host, cs.PeerCertificates, time.Now())
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
				return err
			},
		}), func() error {
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		}
}

// verifyPinned is x509's verification with the pinned certificate as the only root.
func verifyPinned(c claim.Claim, host string, chain []*x509.Certificate, now time.Time) error {
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for i, cert := range chain {
		// A box that wakes up in 1970 must be able to enrol: the pin, not the clock, says whom it talks to. A certificate
		// whose time is over is refused all the same.
		now = later(now, cert.NotBefore)
		if c.PinnedBy([]*x509.Certificate{cert}) {
			roots.AddCert(cert)
			found = true
		} else if i > 0 {
			middle.AddCert(cert)
		}
	}
	if !found {
		return ErrPin
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: middle, CurrentTime: now}); err != nil {
		return fmt.Errorf("%w: %w", ErrPin, err)
	}
	return nil
}

// request makes a PKCS#10 request; its subject is ignored by the centre.
func request(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "kadomori-agent"}}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

func jitter(d time.Duration) time.Duration { return d/2 + mathrand.N(d) } //nolint:gosec // spreads load, no secret

// Renewer replaces the certificate at half of its life.
type Renewer struct {
	// Identity whose certificate is renewed.
	Identity *Identity
	// Retry is the wait after a failed call; 0 means 5 minutes.
	Retry time.Duration
	Log   hclog.Logger
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time
	// Renewed is called after each renewal; nil: nothing to do.
	Renewed func()
}

// Run renews until ctx ends.
func (r *Renewer) Run(ctx context.Context) error {
	log := r.Log
	if log == nil {
		log = hclog.NewNullLogger()
	}
	log = log.Named("enrol")
	if r.Now == nil {
		r.Now = time.Now
	}
	for {
		// Short waits, so that a clock that jumps is noticed.
		wait := min(max(r.due().Sub(r.Now()), 0), 10*time.Minute)
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
				return nil
			case <-t.C:
			}
			continue
		}
		err := r.Identity.Renew(ctx)
		if err == nil {
			log.Info("certificate renewed", "not_after", r.Identity.NotAfter())
			if r.Renewed != nil {
				r.Renewed()
			}
			continue
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the program ends
		}
		log.Warn("certificate can't be renewed", "not_after", r.Identity.NotAfter(), "err", err)
		t := time.NewTimer(jitter(cmp.Or(r.Retry, 5*time.Minute)))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// due is half of the certificate's life.
func (r *Renewer) due() time.Time {
	leaf := r.Identity.cert.Load().Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

// Renew gets a new certificate for the same key and stores it. The control plane takes one that expired less than 30 days ago.
// Errors: a box cut off for longer is told to enrol again with a new claim.
func (id *Identity) Renew(ctx context.Context) error {
	csr, err := request(id.key)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(id.Fleet(), grpc.WithTransportCredentials(credentials.NewTLS(id.TLS())))
	if err != nil {
		return fmt.Errorf("open connection to %s: %w", id.Fleet(), err)
	}
	defer conn.Close() //nolint:errcheck // nothing in flight
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	res, err := enrolv1.NewEnrolServiceClient(conn).Renew(ctx, &enrolv1.RenewRequest{Csr: csr})
	if err != nil {
		if c := status.Code(err); c == codes.Unauthenticated || c == codes.PermissionDenied || strings.Contains(err.Error(), "expired certificate") {
			return fmt.Errorf("renew certificate: the control plane refuses this identity; enrol again with a new claim: %s", status.Convert(err).Message())
		}
		return fmt.Errorf("renew certificate: %w", err)
	}
	p := res.GetIdentity()
	if p.GetClinicId() != id.Clinic() || p.GetApplianceId() != id.Appliance() {
		return fmt.Errorf("renew certificate: got one for clinic %d, appliance %d", p.GetClinicId(), p.GetApplianceId())
	}
	return id.store(p)
}
