// Package sign makes and checks the signatures on bundles: DSSE envelopes (protocol v1) with Ed25519. The control plane's
// signer calls Sign, the appliance calls Verify. The trap: Verify says who signed the bytes, not that the bundle is meant
// for the caller; audience, version and expiry are checked by Check.
package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
)

// PayloadType is the DSSE payload type of a bundle's manifest.
const PayloadType = "application/vnd.kadomori.manifest+protobuf"

// MaxContent is the largest content a manifest may announce, in bytes.
const MaxContent = 256 << 20

// Errors that Verify and Check return, wrapped with the place.
var (
	// ErrSignature: no signature by a trusted key covers the payload.
	ErrSignature = errors.New("no valid signature by a trusted key")
	// ErrAudience: the bundle is meant for somebody else.
	ErrAudience = errors.New("bundle is for another audience")
	// ErrRollback: a newer bundle of the kind was active before.
	ErrRollback = errors.New("bundle is older than the active one")
	// ErrExpired: the manifest's expiry has passed.
	ErrExpired = errors.New("bundle is expired")
	// ErrDigest: the content is not the one that was signed.
	ErrDigest = errors.New("content differs from its signed digest")
)

// KeyID names a public key: hex of the first 8 bytes of its SHA-256.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:8])
}

// preAuth is DSSE's pre-authentication encoding: "DSSEv1" SP len(type) SP type SP len(body) SP body.
func preAuth(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, 64+len(payload))
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Sign wraps a manifest in an envelope signed by key. The control plane's signer calls it.
func Sign(key ed25519.PrivateKey, m *bundlev1.Manifest) (*bundlev1.Envelope, error) {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return wrap(key, PayloadType, payload)
}

func wrap(key ed25519.PrivateKey, payloadType string, payload []byte) (*bundlev1.Envelope, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("signing key has no Ed25519 public half")
	}
	return &bundlev1.Envelope{
		PayloadType: payloadType,
		Payload:     payload,
		Signatures:  []*bundlev1.Signature{{Keyid: KeyID(pub), Sig: ed25519.Sign(key, preAuth(payloadType, payload))}},
	}, nil
}

// Verify returns the manifest when at least one signature is by a key in trusted. Errors: ErrSignature, or what is malformed.
// The appliance calls it before it believes anything else about a bundle.
func Verify(trusted []ed25519.PublicKey, env *bundlev1.Envelope) (*bundlev1.Manifest, error) {
	if err := verify(trusted, env, PayloadType); err != nil {
		return nil, err
	}
	m := &bundlev1.Manifest{}
	if err := proto.Unmarshal(env.GetPayload(), m); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	return m, nil
}

// verify wants a signature by a key in trusted over a payload of the type.
func verify(trusted []ed25519.PublicKey, env *bundlev1.Envelope, payloadType string) error {
	if env.GetPayloadType() != payloadType {
		return fmt.Errorf("envelope payload type %q, want %q", env.GetPayloadType(), payloadType)
	}
	pae := preAuth(env.GetPayloadType(), env.GetPayload())
	for _, s := range env.GetSignatures() {
		for _, pub := range trusted {
			// The key id is a hint only (DSSE): every trusted key is tried.
			if len(pub) == ed25519.PublicKeySize && len(s.GetSig()) == ed25519.SignatureSize && ed25519.Verify(pub, pae, s.GetSig()) {
				return nil
			}
		}
	}
	return ErrSignature
}

// CommandType is the DSSE payload type of a command.
const CommandType = "application/vnd.kadomori.command+protobuf"

// MaxCommandLife is the longest that a command may be valid.
const MaxCommandLife = 7 * 24 * time.Hour

// SignCommand wraps a command in an envelope signed by key. The control plane's signer calls it.
func SignCommand(key ed25519.PrivateKey, c *fleetv1.Command) (*bundlev1.Envelope, error) { //nolint:revive // sign.Command would read as a type
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return wrap(key, CommandType, payload)
}

// VerifyCommand returns the command when at least one signature is by a key in trusted. Errors: ErrSignature, or what is
// malformed. The payload type keeps a manifest from being taken for a command.
func VerifyCommand(trusted []ed25519.PublicKey, env *bundlev1.Envelope) (*fleetv1.Command, error) {
	if err := verify(trusted, env, CommandType); err != nil {
		return nil, err
	}
	c := &fleetv1.Command{}
	if err := proto.Unmarshal(env.GetPayload(), c); err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	if len(c.GetId()) != 16 {
		return nil, fmt.Errorf("command's id has %d bytes, want 16", len(c.GetId()))
	}
	return c, nil
}

// CheckCommand says whether a verified command may be done on an appliance now. Errors: ErrAudience, ErrExpired.
func CheckCommand(c *fleetv1.Command, applianceID int32, now time.Time) error {
	if c.GetAudience() != Audience(applianceID) {
		return fmt.Errorf("%w: %q", ErrAudience, c.GetAudience())
	}
	if c.GetExpires() == nil || now.After(c.GetExpires().AsTime()) {
		return fmt.Errorf("%w: since %s", ErrExpired, c.GetExpires().AsTime().Format(time.RFC3339))
	}
	if c.GetIssued() == nil || c.GetExpires().AsTime().Sub(c.GetIssued().AsTime()) > MaxCommandLife {
		return fmt.Errorf("command is valid for more than %s", MaxCommandLife)
	}
	return nil
}

// Audience returns the audience string of one appliance.
func Audience(applianceID int32) string { return "appliance:" + strconv.Itoa(int(applianceID)) }

// Fleet is the audience of bundles that every appliance takes.
const Fleet = "fleet"

// Check says whether a verified manifest may become active on an appliance that now runs version active (0: none).
// A manifest of the same version passes, so that a restart can load what it had. Errors: ErrAudience, ErrRollback, ErrExpired.
func Check(m *bundlev1.Manifest, applianceID int32, active uint64, now time.Time) error {
	if a := m.GetAudience(); a != Fleet && a != Audience(applianceID) {
		return fmt.Errorf("%w: %q", ErrAudience, a)
	}
	if m.GetVersion() < active {
		return fmt.Errorf("%w: version %d, active %d", ErrRollback, m.GetVersion(), active)
	}
	if e := m.GetExpires(); e != nil && now.After(e.AsTime()) {
		return fmt.Errorf("%w: since %s", ErrExpired, e.AsTime().Format(time.RFC3339))
	}
	if m.GetSize() > MaxContent {
		return fmt.Errorf("bundle announces %d bytes, limit %d", m.GetSize(), uint64(MaxContent))
	}
	return nil
}

// Content says whether content is what the manifest signs. Error: ErrDigest.
func Content(m *bundlev1.Manifest, content []byte) error {
	sum := sha256.Sum256(content)
	if uint64(len(content)) != m.GetSize() || string(sum[:]) != string(m.GetSha256()) {
		return ErrDigest
	}
	return nil
}
