// Package claim reads and writes enrolment claims: the one line of text that lets a new appliance find its control plane,
// know it by its certificate authority and be admitted once. The control plane's enrolment makes them, the appliance reads
// them. The trap: a claim is a secret; it is shown once, stored hashed (Digest) and never logged.
package claim

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Prefix opens every claim of this format; a later format gets another number.
const Prefix = "kdm1-"

// SecretSize is the length of a claim's secret in bytes.
const SecretSize = 32

// MaxText is the longest claim text that Parse looks at, in bytes.
const MaxText = 1024

// ErrFormat says that a text is no claim of this format; it comes wrapped with what is wrong.
var ErrFormat = errors.New("not an enrolment claim")

// Claim is what a claim text holds.
type Claim struct {
	// Server is host:port of EnrolService.
	Server string
	// Pin is SHA-256 of the SubjectPublicKeyInfo (DER) of a certificate authority that must stand in the server's chain.
	Pin [sha256.Size]byte
	// Secret is what the control plane compares, by its hash.
	Secret [SecretSize]byte
}

// payload is the JSON inside; one letter each, because the text is also printed as a QR code.
type payload struct {
	Server string `json:"s"`
	Pin    []byte `json:"p"`
	Secret []byte `json:"k"`
}

// New returns a claim with a fresh random secret. server is host:port, ca the authority to pin. The control plane calls it.
func New(server string, ca *x509.Certificate) (Claim, error) {
	c := Claim{Server: server, Pin: Pin(ca)}
	if _, err := rand.Read(c.Secret[:]); err != nil {
		return Claim{}, fmt.Errorf("make claim secret: %w", err)
	}
	return c, checkServer(server)
}

// Pin returns SHA-256 of a certificate's SubjectPublicKeyInfo.
func Pin(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// Digest is what a database keeps of a secret: its SHA-256. The secret has 256 random bits, so no slow hash is needed.
func Digest(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

// Text returns the claim as one line: Prefix and unpadded base64url.
func (c Claim) Text() string {
	b, err := json.Marshal(payload{ //nolint:gosec // the secret is what a claim carries
		Server: c.Server, Pin: c.Pin[:], Secret: c.Secret[:]})
	if err != nil {
		panic("claim: strings and bytes always encode: " + err.Error())
	}
	return Prefix + base64.RawURLEncoding.EncodeToString(b)
}

// String hides the secret, so that a claim that meets a log does no harm.
func (c Claim) String() string { return Prefix + "(secret) for " + c.Server }

// GoString hides the secret from %#v.
func (c Claim) GoString() string { return c.String() }

// Parse reads a claim text. White space around it and line breaks inside it (a pasted or scanned text) are ignored.
// Errors: ErrFormat, wrapped with the part that is wrong; the secret never stands in an error.
func Parse(text string) (Claim, error) {
	var c Claim
	if len(text) > MaxText {
		return c, fmt.Errorf("%w: %d bytes long, at most %d", ErrFormat, len(text), MaxText)
	}
	text = strings.Join(strings.Fields(text), "")
	rest, ok := strings.CutPrefix(text, Prefix)
	if !ok {
		return c, fmt.Errorf("%w: it must begin with %q", ErrFormat, Prefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(rest, "="))
	if err != nil {
		return c, fmt.Errorf("%w: the part after %q is not base64url; was all of it copied?", ErrFormat, Prefix)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var p payload
	if err := dec.Decode(&p); err != nil {
		return c, fmt.Errorf("%w: its content is not readable; was all of it copied?", ErrFormat)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("%w: something follows its content", ErrFormat)
	}
	if err := checkServer(p.Server); err != nil {
		return c, err
	}
	if len(p.Pin) != len(c.Pin) {
		return c, fmt.Errorf("%w: its pin has %d bytes, want %d", ErrFormat, len(p.Pin), len(c.Pin))
	}
	if len(p.Secret) != len(c.Secret) {
		return c, fmt.Errorf("%w: its secret has %d bytes, want %d", ErrFormat, len(p.Secret), len(c.Secret))
	}
	c.Server = p.Server
	copy(c.Pin[:], p.Pin)
	copy(c.Secret[:], p.Secret)
	return c, nil
}

// PinnedBy says whether a certificate of the chain carries the pinned key. The chain must be verified by the caller as well:
// a pin alone does not say that the leaf was issued by that authority.
func (c Claim) PinnedBy(chain []*x509.Certificate) bool {
	for _, cert := range chain {
		pin := Pin(cert)
		if subtle.ConstantTimeCompare(pin[:], c.Pin[:]) == 1 {
			return true
		}
	}
	return false
}

func checkServer(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%w: its server %q is not host:port", ErrFormat, s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%w: its server %q has no port of 1 to 65535", ErrFormat, s)
	}
	return nil
}
