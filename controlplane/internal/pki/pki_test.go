package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func open(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := Open(Config{Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(t *testing.T, tmpl *x509.CertificateRequest) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

func issue(t *testing.T, a *Authority, id Identity) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	der, key := request(t, &x509.CertificateRequest{})
	csr, err := CheckRequest(der, Identity{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(csr, id)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestAuthorityStaysTheSameAfterRestartAndWithoutItsRootKey(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	first := open(t, dir, now)
	cert, _ := issue(t, first, Identity{1, 2})
	for _, f := range []string{"ca.key", "issuing.key", "ca.crt", "issuing.crt"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, info, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, now)
	if !again.Root().Equal(first.Root()) {
		t.Error("another root after a restart")
	}
	if expired, err := again.Verify(cert, nil); err != nil || expired {
		t.Errorf("certificate from before: expired %v, error %v", expired, err)
	}
	// Near its end the issuing certificate can't be renewed without the root: it goes on and says so; past it, it refuses.
	open(t, dir, again.issuing.NotAfter.Add(-time.Hour))
	_, err := Open(Config{Dir: dir, Now: func() time.Time { return again.issuing.NotAfter.Add(time.Hour) }})
	if err == nil || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("past the end without a root key: %v", err)
	}
}

func TestIssuingKeyRotatesAndOldLeavesStillVerify(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	old := open(t, dir, now)
	later := old.issuing.NotAfter.Add(-issuingRenew).Add(time.Hour)
	old.now = func() time.Time { return later.Add(-time.Hour) }
	cert, _ := issue(t, old, Identity{1, 2})
	fresh := open(t, dir, later)
	if fresh.issuing.Equal(old.issuing) {
		t.Fatal("issuing certificate was not renewed")
	}
	if _, err := fresh.Verify(cert, []*x509.Certificate{old.issuing}); err != nil {
		t.Errorf("leaf of the old issuing key: %v", err)
	}
}

func TestForeignLooseOrMixedFilesAreRefused(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	open(t, dir, now)
	key := filepath.Join(dir, "issuing.key")
	if err := os.Chmod(key, 0o604); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("key that others may read: %v", err)
	}
	other := t.TempDir()
	open(t, other, now)
	b, err := os.ReadFile(filepath.Join(other, "issuing.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(key, 0o600), os.WriteFile(key, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("foreign key: %v", err)
	}
	if err := os.WriteFile(key, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "issuing.key") {
		t.Errorf("junk: %v", err)
	}
}

func TestRequestsForMoreThanAKeyAreRefused(t *testing.T) {
	t.Parallel()
	own, foreign := Identity{1, 2}, Identity{1, 3}
	good, _ := request(t, &x509.CertificateRequest{URIs: []*url.URL{own.URI()}})
	if _, err := CheckRequest(good, own); err != nil {
		t.Errorf("own identity: %v", err)
	}
	asksForeign, _ := request(t, &x509.CertificateRequest{URIs: []*url.URL{foreign.URI()}})
	asksName, _ := request(t, &x509.CertificateRequest{DNSNames: []string{"control.example"}})
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaReq, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"foreign identity": asksForeign, "a name": asksName, "bad signature": forged, "rsa": rsaReq, "nothing": nil, "junk": []byte("x"), "huge": make([]byte, 9000),
	} {
		if _, err := CheckRequest(der, own); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := CheckRequest(good, Identity{}); !errors.Is(err, ErrRequest) {
		t.Errorf("identity asked for at enrolment: %v", err)
	}
}

func TestVerifyKnowsForeignExpiredAndRenewable(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := open(t, t.TempDir(), now)
	cert, _ := issue(t, a, Identity{1, 2})
	foreign, _ := issue(t, open(t, t.TempDir(), now), Identity{1, 2})
	if _, err := a.Verify(foreign, nil); err == nil {
		t.Error("a foreign certificate was taken")
	}
	for _, c := range []struct {
		after   time.Duration
		expired bool
		ok      bool
	}{{LeafLife - time.Hour, false, true}, {LeafLife + time.Hour, true, true}, {LeafLife + RenewalWindow - time.Hour, true, true}, {LeafLife + RenewalWindow + time.Hour, false, false}} {
		a.now = func() time.Time { return now.Add(c.after) }
		if expired, err := a.Verify(cert, nil); expired != c.expired || (err == nil) != c.ok {
			t.Errorf("%s later: expired %v, error %v", c.after, expired, err)
		}
	}
	server, err := a.serverCert([]string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	a.now = time.Now
	if _, err := a.Verify(server.Leaf, nil); err == nil {
		t.Error("a server's certificate passed as a client's")
	}
}

func TestHandshakeTakesOurClientsAndNoOthers(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir(), time.Now())
	cfg, err := a.TLS([]string{"localhost", "127.0.0.1"}, OptionalClients)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := issue(t, a, Identity{1, 2})
	other := open(t, t.TempDir(), time.Now())
	foreign, foreignKey := issue(t, other, Identity{1, 2})
	for name, c := range map[string]struct {
		certs []tls.Certificate
		ok    bool
	}{
		"none":    {nil, true},
		"ours":    {[]tls.Certificate{{Certificate: a.Chain(cert), PrivateKey: key}}, true},
		"foreign": {[]tls.Certificate{{Certificate: other.Chain(foreign), PrivateKey: foreignKey}}, false},
	} {
		client, server := net.Pipe()
		result := make(chan error, 1)
		go func() {
			err := tls.Server(server, cfg).HandshakeContext(context.Background())
			result <- err
			_ = server.Close()
		}()
		conn := tls.Client(client, &tls.Config{RootCAs: a.Pool(), ServerName: "localhost", Certificates: c.certs, MinVersion: tls.VersionTLS13})
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := conn.HandshakeContext(context.Background()); err != nil {
			t.Errorf("%s: client: %v", name, err)
		}
		go func() { _, _ = conn.Read(make([]byte, 1)) }() // the server's alert comes after the client is done
		if err := <-result; (err == nil) != c.ok {
			t.Errorf("%s: server: %v", name, err)
		}
		_ = client.Close()
	}
}

func TestOnlyOneSpellingOfAnIdentity(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"spiffe://kadomori/clinic/1/appliance/2":          true,
		"spiffe://kadomori/clinic/2147483647/appliance/1": true,
		"spiffe://kadomori/clinic/2147483648/appliance/1": false,
		"spiffe://kadomori/clinic/01/appliance/2":         false,
		"spiffe://kadomori/clinic/0/appliance/2":          false,
		"spiffe://kadomori/clinic/-1/appliance/2":         false,
		"spiffe://kadomori/clinic/1/appliance/2/":         false,
		"spiffe://kadomori/clinic/1/appliance/2?x":        false,
		"spiffe://kadomori/clinic/1/appliance/%32":        false,
		"spiffe://other/clinic/1/appliance/2":             false,
		"https://kadomori/clinic/1/appliance/2":           false,
		"spiffe://user@kadomori/clinic/1/appliance/2":     false,
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseIdentity(u); (err == nil) != ok || (err != nil && !errors.Is(err, ErrIdentity)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzCheckRequest(f *testing.F) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	f.Add(der)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := CheckRequest(b, Identity{1, 2}); err != nil && !errors.Is(err, ErrRequest) {
			t.Fatalf("error of another kind: %v", err)
		}
	})
}

// failing is a database that is gone.
type failing struct{}

func (failing) As(context.Context, []int32, func(pgx.Tx) error) error { return errors.New("gone") }

func TestNobodyEntersWithoutADatabase(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir(), time.Now())
	cert, _ := issue(t, a, Identity{1, 2})
	if _, err := NewRegistry(failing{}, nil).Authorise(context.Background(), cert); err == nil {
		t.Error("admitted without a database")
	}
}
