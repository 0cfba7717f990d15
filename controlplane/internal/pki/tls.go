package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Clients says which client certificates a listener wants.
type Clients int

// The three kinds of listener.
const (
	// NoClients: browsers.
	NoClients Clients = iota
	// OptionalClients: gRPC, where an appliance that enrols has no certificate yet. One that is given must verify; it may be
	// expired by less than RenewalWindow, which the handler must look at.
	OptionalClients
	// RequiredClients: NATS.
	RequiredClients
)

type ownLeaf struct {
	cert  *tls.Certificate
	until time.Time // made anew after this
}

func oneURI(id Identity) []*url.URL { return []*url.URL{id.URI()} }

// TLS returns a configuration for a listener reached under names (host names and addresses, without ports). Its leaf is made on
// the first handshake and anew at half life. TLS 1.3 only.
func (a *Authority) TLS(names []string, clients Clients) (*tls.Config, error) {
	if len(names) == 0 {
		return nil, errors.New("make server certificate: no name given")
	}
	names = slices.Clone(names)
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.serverCert(names)
		},
	}
	switch clients {
	case RequiredClients:
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.ClientCAs = a.Pool()
	case OptionalClients:
		// crypto/tls would refuse an expired certificate outright; the renewal window needs our own look.
		cfg.ClientAuth = tls.RequestClientCert
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			_, err := a.Verify(cs.PeerCertificates[0], cs.PeerCertificates[1:])
			return err
		}
	case NoClients:
	}
	if _, err := a.serverCert(names); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Client returns a function that yields a certificate for a part of the control plane itself, made anew at half life. It carries no
// appliance's identity. The connection to an external NATS uses it.
func (a *Authority) Client(name string) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return a.ownCert("client "+name, &x509.Certificate{
			Subject:     pkix.Name{Organization: []string{"Kadomori"}, CommonName: name},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
	}
}

func (a *Authority) serverCert(names []string) (*tls.Certificate, error) {
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Kadomori"}, CommonName: names[0]},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	return a.ownCert("server "+strings.Join(names, ","), tmpl)
}

// ownCert returns the control plane's own certificate kept under key, made from tmpl when it is missing or past half its life.
func (a *Authority) ownCert(key string, tmpl *x509.Certificate) (*tls.Certificate, error) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.own[key]; l != nil && now.Before(l.until) {
		return l.cert, nil
	}
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make own key: %w", err)
	}
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = serial(), now.Add(-backdate), a.within(now.Add(ServerLife))
	tmpl.KeyUsage, tmpl.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	leaf, err := sign(tmpl, a.issuing, priv.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make own certificate: %w", err)
	}
	// The root goes along: an appliance with nothing but a claim finds the pinned key in the chain.
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.issuing.Raw, a.root.Raw}, PrivateKey: priv, Leaf: leaf}
	a.own[key] = &ownLeaf{cert: cert, until: now.Add(leaf.NotAfter.Sub(now) / 2)}
	return cert, nil
}
