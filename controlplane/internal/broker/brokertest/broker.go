// Package brokertest starts a broker for tests that are about something else than certificates.
//
// Tests of the control plane call [Start]. Trap: its in-process connection may publish as any appliance; what an appliance itself may do is
// proven in the broker's own tests.
package brokertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
)

// Authority is a CA of one test.
type Authority struct {
	Pool *x509.CertPool
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a CA.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Authority{cert: cert, key: key, Pool: pool}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Issue makes a certificate for a client or a server on the loopback address.
func (a *Authority) Issue(t testing.TB, name string, notAfter time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Identify reads an appliance out of a common name "clinic.appliance": what Authorise is in tests.
func Identify(c *x509.Certificate) (clinic, appliance int32, err error) {
	if _, err := fmt.Sscanf(c.Subject.CommonName, "%d.%d", &clinic, &appliance); err != nil {
		return 0, 0, fmt.Errorf("read name %q: %w", c.Subject.CommonName, err)
	}
	return clinic, appliance, nil
}

// Start runs a broker with its store in dir (t.TempDir() when empty) until the test ends, and gives a connection of account STORE.
func Start(t testing.TB, dir string) (*broker.Broker, *nats.Conn) {
	t.Helper()
	ca := NewAuthority(t)
	if dir == "" {
		dir = t.TempDir()
	}
	b, err := broker.Start(context.Background(), broker.Config{
		Listen: "127.0.0.1:0", StoreDir: dir, MaxBytes: 256 << 20, Authorise: Identify, Log: hclog.NewNullLogger(),
		TLS: &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "server", time.Now().Add(time.Hour))}, ClientCAs: ca.Pool, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		t.Fatalf("start broker: %v", err)
	}
	t.Cleanup(b.Close)
	nc, err := b.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return b, nc
}
