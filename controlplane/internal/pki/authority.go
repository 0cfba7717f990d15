// Package pki is the internal certificate authority: a root that may be kept offline, an issuing key beneath it, certificates of
// seven days for appliances, the server's own leaf, and the question whether a certificate may still enter. The enrolment issues
// through it, the gRPC and NATS listeners ask Registry.Authorise. The trap: TLS alone accepts a revoked appliance until its
// certificate ends; only Authorise knows better.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Lifetimes. An appliance renews at half life, so a leaf bridges at least three and a half days without a control plane.
const (
	LeafLife      = 7 * 24 * time.Hour
	ServerLife    = 30 * 24 * time.Hour
	issuingLife   = 3 * 365 * 24 * time.Hour
	issuingRenew  = 180 * 24 * time.Hour // a new issuing key is made when the old one ends within this time
	rootLife      = 25 * 365 * 24 * time.Hour
	backdate      = 10 * time.Minute // for boxes whose clock is slow
	RenewalWindow = 30 * 24 * time.Hour
)

// maxCSR bounds a certificate request in bytes; one of a P-256 key has about 250.
const maxCSR = 8 << 10

// ErrRequest says that a certificate request is malformed or asks for what it may not have.
var ErrRequest = errors.New("bad certificate request")

// Config says where the authority lives.
type Config struct {
	// Dir holds ca.crt, ca.key, issuing.crt, issuing.key (PEM, mode 0600); made when missing. ca.key may be taken away
	// (kept offline) after the first start: it is needed again only for a new issuing key.
	Dir string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	Log hclog.Logger
}

// Authority signs certificates. Safe for use by many goroutines.
type Authority struct {
	log     hclog.Logger
	now     func() time.Time
	root    *x509.Certificate
	issuing *x509.Certificate
	key     crypto.Signer
	pool    *x509.CertPool

	mu  sync.Mutex
	own map[string]*ownLeaf // the control plane's own certificates
}

// Open loads the authority in cfg.Dir or makes a new one. The application calls it once at start.
// Errors name the file that is unreadable, does not fit its key, or is out of date with no root key at hand.
func Open(cfg Config) (*Authority, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open authority: no directory given")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	a := &Authority{log: cfg.Log.Named("pki"), now: cfg.Now, own: map[string]*ownLeaf{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make authority directory: %w", err)
	}
	if err := a.openRoot(cfg.Dir); err != nil {
		return nil, err
	}
	if err := a.openIssuing(cfg.Dir); err != nil {
		return nil, err
	}
	a.pool = x509.NewCertPool()
	a.pool.AddCert(a.root)
	return a, nil
}

func (a *Authority) openRoot(dir string) error {
	certFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	cert, err := readCert(certFile)
	if err == nil {
		a.root = cert
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := readOrMakeKey(keyFile)
	if err != nil {
		return err
	}
	now := a.now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"Kadomori"}, CommonName: "Kadomori root " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if a.root, err = sign(tmpl, tmpl, key.Public(), key); err != nil {
		return fmt.Errorf("make root certificate: %w", err)
	}
	a.log.Info("made root certificate", "file", certFile)
	return writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}))
}

// Rotate makes the authority in dir take a new issuing key and certificate at its next Open; the root key must be there. The old pair
// is put aside. Leaves of the old key verify by the root until they end, so nothing breaks in between.
func Rotate(cfg Config) (*x509.Certificate, error) {
	if _, err := readKey(filepath.Join(cfg.Dir, "ca.key")); err != nil {
		return nil, fmt.Errorf("rotate issuing key: the root key is needed: %w", err)
	}
	a, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	if err := putAside(cfg.Dir, a.issuing); err != nil {
		return nil, err
	}
	if a, err = Open(cfg); err != nil {
		return nil, err
	}
	return a.issuing, nil
}

// putAside renames the issuing pair after the start of its life.
func putAside(dir string, cert *x509.Certificate) error {
	keep := filepath.Join(dir, "issuing-"+cert.NotBefore.UTC().Format("20060102-150405"))
	err := errors.Join(os.Rename(filepath.Join(dir, "issuing.crt"), keep+".crt"), os.Rename(filepath.Join(dir, "issuing.key"), keep+".key"))
	if err != nil {
		return fmt.Errorf("put old issuing key aside: %w", err)
	}
	return nil
}

// Issuing returns the certificate that signs leaves now.
func (a *Authority) Issuing() *x509.Certificate { return a.issuing }

func (a *Authority) openIssuing(dir string) error {
	certFile, keyFile := filepath.Join(dir, "issuing.crt"), filepath.Join(dir, "issuing.key")
	cert, err := readCert(certFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && a.now().Before(cert.NotAfter.Add(-issuingRenew)) {
		key, err := readKey(keyFile)
		if err != nil {
			return err
		}
		return a.useIssuing(certFile, cert, key)
	}
	rootKey, rootErr := readKey(filepath.Join(dir, "ca.key"))
	if rootErr != nil {
		if cert != nil && a.now().Before(cert.NotAfter) {
			a.log.Error("issuing certificate ends soon and the root key is not here to renew it", "ends", cert.NotAfter, "err", rootErr)
			key, err := readKey(keyFile)
			if err != nil {
				return err
			}
			return a.useIssuing(certFile, cert, key)
		}
		return fmt.Errorf("make issuing certificate: %w", rootErr)
	}
	if !samePublic(a.root.PublicKey, rootKey.Public()) {
		return errors.New("ca.key does not belong to ca.crt")
	}
	if cert != nil { // rotation: a new key with a new certificate; leaves of the old one verify by the root until they end
		if err := putAside(dir, cert); err != nil {
			return err
		}
	}
	key, err := readOrMakeKey(keyFile)
	if err != nil {
		return err
	}
	now := a.now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"Kadomori"}, CommonName: "Kadomori issuing " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(issuingLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err = sign(tmpl, a.root, key.Public(), rootKey)
	if err != nil {
		return fmt.Errorf("make issuing certificate: %w", err)
	}
	if err := writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})); err != nil {
		return err
	}
	a.log.Info("made issuing certificate", "file", certFile, "ends", cert.NotAfter)
	return a.useIssuing(certFile, cert, key)
}

func (a *Authority) useIssuing(file string, cert *x509.Certificate, key crypto.Signer) error {
	if !samePublic(cert.PublicKey, key.Public()) {
		return fmt.Errorf("%s does not belong to the key beside it", file)
	}
	if err := cert.CheckSignatureFrom(a.root); err != nil {
		return fmt.Errorf("%s is not signed by the root beside it: %w", file, err)
	}
	a.issuing, a.key = cert, key
	return nil
}

// Root returns the root certificate: what claims pin and operators' tools trust.
func (a *Authority) Root() *x509.Certificate { return a.root }

// Pool returns the certificates that verify every leaf of this authority.
func (a *Authority) Pool() *x509.CertPool { return a.pool.Clone() }

// CheckRequest reads a PKCS#10 request: at most 8 KiB, its own signature good, a P-256 key. Its subject is ignored; names of any
// kind that are not want's URI are refused. want is the zero Identity where nothing may be asked for yet. Error: ErrRequest.
func CheckRequest(der []byte, want Identity) (*x509.CertificateRequest, error) {
	if len(der) == 0 || len(der) > maxCSR {
		return nil, fmt.Errorf("%w: %d bytes, want 1 to %d", ErrRequest, len(der), maxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the key is %s, want ECDSA P-256", ErrRequest, csr.PublicKeyAlgorithm)
	}
	if len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses) != 0 {
		return nil, fmt.Errorf("%w: it asks for names that appliances do not have", ErrRequest)
	}
	for _, u := range csr.URIs {
		if u.String() != want.String() {
			return nil, fmt.Errorf("%w: it asks for identity %q", ErrRequest, clip(u.String(), 120))
		}
	}
	return csr, nil
}

// KeyDigest returns SHA-256 of the request's SubjectPublicKeyInfo: the name of a key everywhere.
func KeyDigest(csr *x509.CertificateRequest) []byte {
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return sum[:]
}

// Issue signs a checked request for id, for LeafLife. The certificate is not yet known to the Registry.
func (a *Authority) Issue(csr *x509.CertificateRequest, id Identity) (*x509.Certificate, error) {
	now := a.now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"Kadomori"}, CommonName: fmt.Sprintf("appliance %d", id.Appliance)},
		NotBefore: now.Add(-backdate), NotAfter: a.within(now.Add(LeafLife)), URIs: oneURI(id),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	cert, err := sign(tmpl, a.issuing, csr.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return cert, nil
}

// Chain returns leaf and issuing certificate in DER, as an appliance presents them.
func (a *Authority) Chain(leaf *x509.Certificate) [][]byte { return [][]byte{leaf.Raw, a.issuing.Raw} }

// within cuts a leaf's end to that of the issuing certificate: beyond it the chain would not verify.
func (a *Authority) within(t time.Time) time.Time {
	if t.After(a.issuing.NotAfter) {
		return a.issuing.NotAfter
	}
	return t
}

// Verify checks that a certificate was issued here for a client. A certificate that ended less than RenewalWindow ago passes with
// expired set: it may renew and nothing else.
func (a *Authority) Verify(cert *x509.Certificate, intermediates []*x509.Certificate) (expired bool, err error) {
	now := a.now()
	at := now
	if now.After(cert.NotAfter) && now.Before(cert.NotAfter.Add(RenewalWindow)) {
		expired, at = true, cert.NotAfter.Add(-time.Second)
	}
	mid := x509.NewCertPool()
	mid.AddCert(a.issuing)
	for _, c := range intermediates {
		mid.AddCert(c)
	}
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: a.pool, Intermediates: mid, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return false, fmt.Errorf("verify certificate: %w", err)
	}
	return expired, nil
}

func sign(tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// serial returns 127 random bits (CA/Browser Forum baseline requirements 7.1 ask for at least 64).
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand never fails since Go 1.24
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(*ecdsa.PublicKey)
	return ok && k.Equal(b)
}
