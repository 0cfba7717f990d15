package enrol

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
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/kadomori/kadomori/proto/claim"
	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// centre is a small EnrolService with a real authority.
type centre struct {
	enrolv1.UnimplementedEnrolServiceServer
	key   *ecdsa.PrivateKey
	ca    *x509.Certificate
	addr  string
	life  time.Duration
	claim claim.Claim

	mu       sync.Mutex
	state    enrolv1.State
	err      error
	calls    int
	renewals int
	usedBy   []byte // SubjectPublicKeyInfo
	hardware *enrolv1.Hardware
	other    bool // answer with a certificate for a foreign key
}

func startCentre(t *testing.T) *centre {
	t.Helper()
	c := &centre{state: enrolv1.State_STATE_APPROVED, life: 7 * 24 * time.Hour}
	c.key, c.ca = authority(t)
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := c.issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, serverKey.Public(), time.Hour)
	pool := x509.NewCertPool()
	pool.AddCert(c.ca)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf, c.ca.Raw}, PrivateKey: serverKey}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: pool, MinVersion: tls.VersionTLS13,
	})))
	enrolv1.RegisterEnrolServiceServer(srv, c)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	c.addr = l.Addr().String()
	if c.claim, err = claim.New(c.addr, c.ca); err != nil {
		t.Fatal(err)
	}
	return c
}

func authority(t *testing.T) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func (c *centre) issue(t *testing.T, tmpl *x509.Certificate, pub any, life time.Duration) []byte {
	tmpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Second), time.Now().Add(life)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.ca, pub, c.key)
	if err != nil {
		if t != nil {
			t.Fatal(err)
		}
		panic(err)
	}
	return der
}

func (c *centre) identity(csr []byte) (*enrolv1.Identity, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil || req.CheckSignature() != nil {
		return nil, status.Error(codes.InvalidArgument, "certificate request is wrong")
	}
	pub := req.PublicKey
	if c.other {
		k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		pub = k.Public()
	}
	u, _ := url.Parse("spiffe://kadomori/clinic/3/appliance/12")
	leaf := c.issue(nil, &x509.Certificate{URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, pub, c.life)
	return &enrolv1.Identity{
		ClinicId: 3, ApplianceId: 12, Certificates: [][]byte{leaf}, Roots: [][]byte{c.ca.Raw}, FleetAddress: c.addr, NatsUrl: "tls://127.0.0.1:4222",
		BundleKeys: [][]byte{make([]byte, ed25519.PublicKeySize)},
	}, nil
}

func (c *centre) Enrol(_ context.Context, req *enrolv1.EnrolRequest) (*enrolv1.EnrolResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.hardware = req.GetHardware()
	if c.err != nil {
		return nil, c.err
	}
	csr, err := x509.ParseCertificateRequest(req.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "no request")
	}
	if string(req.GetClaimSecret()) != string(c.claim.Secret[:]) || (c.usedBy != nil && string(c.usedBy) != string(csr.RawSubjectPublicKeyInfo)) {
		return nil, status.Error(codes.Unauthenticated, "claim is not valid")
	}
	c.usedBy = csr.RawSubjectPublicKeyInfo
	if c.state != enrolv1.State_STATE_APPROVED {
		return &enrolv1.EnrolResponse{State: c.state}, nil
	}
	id, err := c.identity(req.GetCsr())
	return &enrolv1.EnrolResponse{State: c.state, Identity: id}, err
}

func (c *centre) Renew(_ context.Context, req *enrolv1.RenewRequest) (*enrolv1.RenewResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewals++
	if c.err != nil {
		return nil, c.err
	}
	id, err := c.identity(req.GetCsr())
	return &enrolv1.RenewResponse{Identity: id}, err
}

func (c *centre) set(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}

func TestClaimBecomesAnIdentityThatSurvivesARestart(t *testing.T) {
	c := startCentre(t)
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := Load(dir, KeyStore{Kind: "file"}); !errors.Is(err, ErrNone) {
		t.Fatalf("Load of nothing = %v", err)
	}
	id, err := Enrol(t.Context(), Config{Dir: dir, Claim: c.claim.Text(), Serial: "S1", Model: "M1", Version: "v"})
	if err != nil {
		t.Fatal(err)
	}
	if id.Clinic() != 3 || id.Appliance() != 12 || id.Fleet() != c.addr || id.NATS() == "" || len(id.BundleKeys()) != 1 || c.hardware.GetSerial() != "S1" {
		t.Errorf("identity %d/%d, hardware %v", id.Clinic(), id.Appliance(), c.hardware)
	}
	for _, name := range []string{keyFile, identityFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, st.Mode(), err)
		}
	}
	again, err := Load(dir, KeyStore{Kind: "file"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", c.addr, again.TLS())
	if err != nil {
		t.Fatalf("mutual TLS with the stored identity: %v", err)
	}
	conn.Close()
}

func TestBoxWaitsForApprovalWithTheSameKey(t *testing.T) {
	c := startCentre(t)
	c.state = enrolv1.State_STATE_PENDING
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Enrol(ctx, Config{Dir: dir, Claim: c.claim.Text(), Wait: time.Millisecond})
		done <- err
	}()
	wait(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.calls >= 3 })
	cancel() // power cut
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	c.set(func() { c.state = enrolv1.State_STATE_APPROVED })
	if _, err := Enrol(t.Context(), Config{Dir: dir, Claim: c.claim.Text()}); err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	if _, err := Enrol(t.Context(), Config{Dir: t.TempDir(), Claim: c.claim.Text()}); !errors.Is(err, ErrClaim) {
		t.Errorf("a second box with the used claim: %v", err)
	}
}

func TestServerThatIsAwayIsWaitedFor(t *testing.T) {
	c := startCentre(t)
	c.err = status.Error(codes.Unavailable, "starting")
	done := make(chan error, 1)
	go func() {
		_, err := Enrol(t.Context(), Config{Dir: t.TempDir(), Claim: c.claim.Text(), Wait: time.Millisecond})
		done <- err
	}()
	wait(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.calls >= 2 })
	c.set(func() { c.err = nil })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	c := startCentre(t)
	_, foreign := authority(t)
	wrongPin, _ := claim.New(c.addr, foreign)
	wrongSecret, _ := claim.New(c.addr, c.ca)
	wrongHost, _ := claim.New(strings.Replace(c.addr, "127.0.0.1", "localhost", 1), c.ca)
	for name, tc := range map[string]struct {
		text  string
		state enrolv1.State
		err   error
		want  error
	}{
		"no claim":           {"kdm1-nonsense", 1, nil, claim.ErrFormat},
		"another authority":  {wrongPin.Text(), 2, nil, ErrPin},
		"another host":       {wrongHost.Text(), 2, nil, ErrPin},
		"wrong secret":       {wrongSecret.Text(), 2, nil, ErrClaim},
		"rejected":           {c.claim.Text(), enrolv1.State_STATE_REJECTED, nil, ErrRejected},
		"used or expired":    {c.claim.Text(), 2, status.Error(codes.Unauthenticated, "no"), ErrClaim},
		"request not wanted": {c.claim.Text(), 2, status.Error(codes.InvalidArgument, "bad request"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.set(func() { c.state, c.err, c.usedBy = tc.state, tc.err, nil })
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			dir := t.TempDir()
			_, err := Enrol(ctx, Config{Dir: dir, Claim: tc.text, Wait: time.Millisecond})
			if err == nil || (tc.want != nil && !errors.Is(err, tc.want)) {
				t.Fatalf("Enrol = %v, want %v", err, tc.want)
			}
			if _, err := Load(dir, KeyStore{Kind: "file"}); !errors.Is(err, ErrNone) {
				t.Errorf("something half-applied: %v", err)
			}
		})
	}
	t.Run("certificate for another key", func(t *testing.T) {
		c.set(func() { c.state, c.err, c.usedBy, c.other = enrolv1.State_STATE_APPROVED, nil, nil, true })
		dir := t.TempDir()
		if _, err := Enrol(t.Context(), Config{Dir: dir, Claim: c.claim.Text()}); err == nil || !strings.Contains(err.Error(), "another key") {
			t.Errorf("Enrol = %v", err)
		}
		if _, err := Load(dir, KeyStore{Kind: "file"}); !errors.Is(err, ErrNone) {
			t.Errorf("something half-applied: %v", err)
		}
	})
}

func TestCertificateIsRenewedAtHalfOfItsLife(t *testing.T) {
	c := startCentre(t)
	c.life = 3 * time.Second
	id, err := Enrol(t.Context(), Config{Dir: t.TempDir(), Claim: c.claim.Text()})
	if err != nil {
		t.Fatal(err)
	}
	was := id.NotAfter()
	c.set(func() { c.life = time.Hour; c.err = status.Error(codes.Unavailable, "away") })
	renewed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := &Renewer{Identity: id, Retry: 5 * time.Millisecond, Renewed: func() { renewed <- struct{}{} }}
	go func() { done <- r.Run(ctx) }()
	wait(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.renewals >= 2 })
	c.set(func() { c.err = nil })
	select {
	case <-renewed:
	case <-time.After(20 * time.Second):
		t.Fatal("no renewal")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	stored, err := Load(id.dir, KeyStore{Kind: "file"})
	if err != nil {
		t.Fatal(err)
	}
	if !id.NotAfter().After(was) || !stored.NotAfter().Equal(id.NotAfter()) {
		t.Errorf("certificate until %v, was %v, stored %v", id.NotAfter(), was, stored.NotAfter())
	}
	c.set(func() { c.err = status.Error(codes.Unauthenticated, "revoked") })
	if err := id.Renew(t.Context()); err == nil || !strings.Contains(err.Error(), "new claim") {
		t.Errorf("Renew of a revoked identity = %v", err)
	}
}

func TestDamagedIdentityIsNamed(t *testing.T) {
	c := startCentre(t)
	good := t.TempDir()
	if _, err := Enrol(t.Context(), Config{Dir: good, Claim: c.claim.Text()}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"key open to others": {func(d string) error { return os.Chmod(filepath.Join(d, keyFile), 0o644) }, "0600"},
		"key torn":           {func(d string) error { return os.Truncate(filepath.Join(d, keyFile), 40) }, keyFile},
		"identity torn":      {func(d string) error { return os.Truncate(filepath.Join(d, identityFile), 100) }, identityFile},
		"key missing":        {func(d string) error { return os.Remove(filepath.Join(d, keyFile)) }, "key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			os.Chmod(filepath.Join(dir, keyFile), 0o600)
			if err := tc.change(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir, KeyStore{Kind: "file"}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v, want it to name %q", err, tc.want)
			}
		})
	}
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatal("condition not met within 20 s")
		case <-tick.C:
		}
	}
}

func FuzzLoadIdentity(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte(`{"clinicId":1,"applianceId":2,"certificates":["AAAA"],"roots":["AAAA"]}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if _, err := (KeyStore{Kind: "file"}).keyOf(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, identityFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, KeyStore{Kind: "file"}); err == nil {
			t.Errorf("an identity that no authority made was taken: %s", fmt.Sprintf("%.200q", b))
		}
	})
}

func TestClockBeforeTheCertificatesDoesNotKeepTheBoxOut(t *testing.T) {
	c := startCentre(t)
	id, err := Enrol(t.Context(), Config{Dir: t.TempDir(), Claim: c.claim.Text(), Keys: KeyStore{Kind: "file"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := id.TLS().Time(); got.Before(id.cert.Load().Leaf.NotBefore) {
		t.Errorf("TLS believes that it is %v", got)
	}
	if got := later(time.Unix(0, 0), id.NotAfter()); !got.Equal(id.NotAfter()) {
		t.Errorf("later = %v", got)
	}
	chain := []*x509.Certificate{}
	conn, err := tls.Dial("tcp", c.addr, id.TLS())
	if err != nil {
		t.Fatal(err)
	}
	chain = append(chain, conn.ConnectionState().PeerCertificates...)
	conn.Close()
	if err := verifyPinned(c.claim, "127.0.0.1", chain, time.Unix(0, 0)); err != nil {
		t.Errorf("in 1970: %v", err)
	}
	if err := verifyPinned(c.claim, "127.0.0.1", chain, time.Now().Add(365*24*time.Hour)); !errors.Is(err, ErrPin) {
		t.Errorf("a year after the certificates' end: %v", err)
	}
}
