// Package enrol gets, keeps and renews the appliance's identity: a key that never leaves the box and a certificate of the
// centre's authority. Package app calls Load and Enrol at start and runs a Renewer. The trap: a claim works once; the key that
// used it is kept on disk before the first call, so that a box that lost power while pending asks again as the same box.
package enrol

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
)

// ErrNone says that the box has no identity yet.
var ErrNone = errors.New("appliance is not enrolled")

const (
	keyFile      = "key.pem"
	identityFile = "identity.json"
)

// Identity is who the appliance is. Its certificate may be replaced while it is in use.
type Identity struct {
	dir   string
	key   crypto.Signer
	proto atomic.Pointer[enrolv1.Identity]
	cert  atomic.Pointer[tls.Certificate]
}

// KeyStore says where the private key is kept.
type KeyStore struct {
	// Kind is "file" (mode 0600), "tpm", or "auto" and "": the TPM when there is one. A key that exists stays where it is.
	Kind string
	// Device is the TPM's; "" means /dev/tpmrm0. The socket of a software TPM works too.
	Device string
}

func (k KeyStore) device() string { return cmp.Or(k.Device, "/dev/tpmrm0") }

// Load reads the identity from dir. Errors: ErrNone when the box was never enrolled; what is damaged, with its file.
func Load(dir string, keys KeyStore) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	p := &enrolv1.Identity{}
	if err := protojson.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", filepath.Join(dir, identityFile), err)
	}
	key, err := keys.load(dir)
	if err != nil {
		return nil, err
	}
	id := &Identity{dir: dir, key: key}
	if err := id.set(p); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", filepath.Join(dir, identityFile), err)
	}
	return id, nil
}

// set checks an identity against the key and makes it the current one.
func (id *Identity) set(p *enrolv1.Identity) error {
	if p.GetClinicId() <= 0 || p.GetApplianceId() <= 0 {
		return fmt.Errorf("clinic %d, appliance %d: must be above 0", p.GetClinicId(), p.GetApplianceId())
	}
	if len(p.GetCertificates()) == 0 || len(p.GetRoots()) == 0 {
		return errors.New("it holds no certificate or no root")
	}
	leaf, err := x509.ParseCertificate(p.GetCertificates()[0])
	if err != nil {
		return fmt.Errorf("parse certificate: %w", err)
	}
	pub, ok := id.key.Public().(*ecdsa.PublicKey)
	if !ok || !pub.Equal(leaf.PublicKey) {
		return errors.New("certificate is for another key")
	}
	want := fmt.Sprintf("spiffe://kadomori/clinic/%d/appliance/%d", p.GetClinicId(), p.GetApplianceId())
	if !hasURI(leaf.URIs, want) {
		return fmt.Errorf("certificate does not name %s", want)
	}
	for i, r := range p.GetRoots() {
		if _, err := x509.ParseCertificate(r); err != nil {
			return fmt.Errorf("parse root %d: %w", i, err)
		}
	}
	if len(p.GetBundleKeys()) == 0 {
		return errors.New("it holds no key that may sign bundles")
	}
	for i, k := range p.GetBundleKeys() {
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("bundle key %d has %d bytes, want %d", i, len(k), ed25519.PublicKeySize)
		}
	}
	id.proto.Store(p)
	id.cert.Store(&tls.Certificate{Certificate: p.GetCertificates(), PrivateKey: id.key, Leaf: leaf})
	return nil
}

func hasURI(uris []*url.URL, want string) bool {
	for _, u := range uris {
		if u.String() == want {
			return true
		}
	}
	return false
}

// store makes an identity the current one, on disk first.
func (id *Identity) store(p *enrolv1.Identity) error {
	fresh := &Identity{dir: id.dir, key: id.key}
	if err := fresh.set(p); err != nil {
		return fmt.Errorf("check identity from the control plane: %w", err)
	}
	b, err := protojson.MarshalOptions{Multiline: true}.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	if err := writeFile(id.dir, identityFile, append(b, '\n')); err != nil {
		return fmt.Errorf("store identity: %w", err)
	}
	return id.set(p)
}

// Clinic returns the clinic's number, Appliance the box's.
func (id *Identity) Clinic() int32 { return id.proto.Load().GetClinicId() }

// Appliance returns the appliance's number.
func (id *Identity) Appliance() int32 { return id.proto.Load().GetApplianceId() }

// Fleet returns host:port of FleetService, NATS the URL of the hub.
func (id *Identity) Fleet() string { return id.proto.Load().GetFleetAddress() }

// NATS returns the URL of the hub.
func (id *Identity) NATS() string { return id.proto.Load().GetNatsUrl() }

// BundleKeys returns the keys that may sign bundles.
func (id *Identity) BundleKeys() []ed25519.PublicKey {
	var keys []ed25519.PublicKey
	for _, k := range id.proto.Load().GetBundleKeys() {
		keys = append(keys, ed25519.PublicKey(k))
	}
	return keys
}

// NotAfter returns when the certificate ends.
func (id *Identity) NotAfter() time.Time { return id.cert.Load().Leaf.NotAfter }

// TLS returns client settings that trust the centre's roots only and always present the current certificate.
func (id *Identity) TLS() *tls.Config {
	pool := x509.NewCertPool()
	for _, r := range id.proto.Load().GetRoots() {
		if cert, err := x509.ParseCertificate(r); err == nil {
			pool.AddCert(cert)
		}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    pool,
		// A box without a clock battery wakes up in 1970, when no certificate is valid yet. It was told the time at least
		// once: no moment before its own certificate is now.
		Time: func() time.Time { return later(time.Now(), id.cert.Load().Leaf.NotBefore) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.cert.Load(), nil
		},
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// loadKey reads the private key. It refuses a file that others may read, because then the key may be known to them.
func loadKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, keyFile)
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key: %s has mode %04o, want 0600", path, st.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("read key: %s holds no PEM block of type PRIVATE KEY", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read key: %s is no P-256 key", path)
	}
	return key, nil
}

// load returns the key that exists: in the TPM or in a file.
func (k KeyStore) load(dir string) (crypto.Signer, error) {
	key, err := loadTPMKey(dir, k.device())
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return loadKey(dir)
}

// InTPM says whether the private key is in a TPM.
func (id *Identity) InTPM() bool {
	_, ok := id.key.(*tpmKey)
	return ok
}

// keyOf returns the box's key, made when there is none.
func (k KeyStore) keyOf(dir string) (crypto.Signer, error) {
	key, err := k.load(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	switch k.Kind {
	case "tpm":
		return createTPMKey(dir, k.device())
	case "auto", "":
		if _, err := os.Stat(k.device()); err == nil {
			key, err := createTPMKey(dir, k.device())
			if err == nil {
				return key, nil
			}
			// A TPM that is there and does not work must not keep the box out; that the key is in a file is told in status.
		}
	case "file":
	default:
		return nil, fmt.Errorf("key store %q is none of auto, tpm, file", k.Kind)
	}
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(fresh)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	if err := writeFile(dir, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return nil, fmt.Errorf("store key: %w", err)
	}
	return fresh, nil
}

// writeFile replaces a file so that after a power cut either the old or the new one is there, whole. Mode 0600.
func writeFile(dir, name string, b []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // only synced
	return d.Sync()
}
