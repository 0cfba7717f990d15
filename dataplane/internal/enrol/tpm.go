package enrol

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// tpmKeyFile holds the key wrapped by the TPM: it is of no use on another box.
const tpmKeyFile = "key.tpm"

// wrappedKey is what lies on disk of a key in a TPM.
type wrappedKey struct {
	Public  []byte `json:"public"`  // TPM2B_PUBLIC
	Private []byte `json:"private"` // TPM2B_PRIVATE, encrypted by the TPM
}

// tpmKey signs with a P-256 key that no program can read. The handles are loaded when first needed and again after an error,
// because a suspend or a reset of the TPM forgets them.
type tpmKey struct {
	device  string
	wrapped wrappedKey
	pub     *ecdsa.PublicKey

	mu   sync.Mutex
	tpm  transport.TPMCloser
	key  tpm2.TPMHandle
	name tpm2.TPM2BName
}

var _ crypto.Signer = (*tpmKey)(nil)

// openTPM opens a TPM 2.0: a character device, or the socket of a software TPM.
func openTPM(device string) (transport.TPMCloser, error) {
	st, err := os.Stat(device)
	if err != nil {
		return nil, fmt.Errorf("open TPM: %w", err)
	}
	var t transport.TPMCloser
	if st.Mode()&fs.ModeSocket != 0 {
		t, err = linuxudstpm.Open(device)
	} else {
		t, err = linuxtpm.Open(device)
	}
	if err != nil {
		return nil, fmt.Errorf("open TPM %s: %w", device, err)
	}
	return t, nil
}

// primary makes the storage key that wraps ours: derived from the owner's seed by the TCG's template, so that it is the same
// each time until the TPM is cleared.
func primary(t transport.TPM) (*tpm2.CreatePrimaryResponse, error) {
	p, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("make the TPM's storage key: %w", err)
	}
	return p, nil
}

func flushHandle(t transport.TPM, h tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: h}.Execute(t) //nolint:errcheck // a handle that is gone is flushed
}

// createTPMKey makes a key in the TPM and stores it wrapped.
func createTPMKey(dir, device string) (*tpmKey, error) {
	t, err := openTPM(device)
	if err != nil {
		return nil, err
	}
	defer t.Close() //nolint:errcheck // nothing in flight
	p, err := primary(t)
	if err != nil {
		return nil, err
	}
	defer flushHandle(t, p.ObjectHandle)
	created, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: p.ObjectHandle, Name: p.Name, Auth: tpm2.PasswordAuth(nil)},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Scheme: tpm2.TPMTECCScheme{
					Scheme:  tpm2.TPMAlgECDSA,
					Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
				},
				CurveID: tpm2.TPMECCNistP256,
			}),
		}),
	}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("make key in TPM: %w", err)
	}
	w := wrappedKey{Public: tpm2.Marshal(created.OutPublic), Private: tpm2.Marshal(created.OutPrivate)}
	b, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	if err := writeFile(dir, tpmKeyFile, b); err != nil {
		return nil, fmt.Errorf("store key: %w", err)
	}
	return newTPMKey(device, w)
}

// loadTPMKey reads a wrapped key; the TPM is not asked before the first signature. Error: fs.ErrNotExist, or what is damaged.
func loadTPMKey(dir, device string) (*tpmKey, error) {
	path := filepath.Join(dir, tpmKeyFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	var w wrappedKey
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	k, err := newTPMKey(device, w)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return k, nil
}

func newTPMKey(device string, w wrappedKey) (*tpmKey, error) {
	pub2b, err := tpm2.Unmarshal[tpm2.TPM2BPublic](w.Public)
	if err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	pub, err := pub2b.Contents()
	if err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	params, err := pub.Parameters.ECCDetail()
	if err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	point, err := pub.Unique.ECC()
	if err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	if params.CurveID != tpm2.TPMECCNistP256 || len(point.X.Buffer) > 32 || len(point.Y.Buffer) > 32 {
		return nil, errors.New("decode public key: it is no P-256 key")
	}
	raw := make([]byte, 65)
	raw[0] = 4 // uncompressed point, SEC 1
	copy(raw[33-len(point.X.Buffer):33], point.X.Buffer)
	copy(raw[65-len(point.Y.Buffer):], point.Y.Buffer)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		return nil, fmt.Errorf("decode public key: %w", err)
	}
	if _, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](w.Private); err != nil {
		return nil, fmt.Errorf("decode wrapped key: %w", err)
	}
	return &tpmKey{device: device, wrapped: w, pub: key}, nil
}

// Public implements crypto.Signer.
func (k *tpmKey) Public() crypto.PublicKey { return k.pub }

// Sign implements crypto.Signer for SHA-256 digests: what P-256 is used with in TLS 1.3 (RFC 8446, ecdsa_secp256r1_sha256) and
// in our requests.
func (k *tpmKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("sign in TPM: hash %v, the key takes SHA-256", opts.HashFunc())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	sig, err := k.sign(digest)
	if err != nil {
		k.unload() // the TPM may have been reset or suspended
		if sig, err = k.sign(digest); err != nil {
			k.unload()
			return nil, fmt.Errorf("sign in TPM: %w", err)
		}
	}
	return sig, nil
}

func (k *tpmKey) sign(digest []byte) ([]byte, error) {
	if err := k.load(); err != nil {
		return nil, err
	}
	res, err := tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: k.key, Name: k.name, Auth: tpm2.PasswordAuth(nil)},
		Digest:    tpm2.TPM2BDigest{Buffer: digest},
		InScheme: tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
		},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
	}.Execute(k.tpm)
	if err != nil {
		return nil, err
	}
	sig, err := res.Signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)})
}

// load opens the TPM and loads the key into it.
func (k *tpmKey) load() error {
	if k.tpm != nil {
		return nil
	}
	t, err := openTPM(k.device)
	if err != nil {
		return err
	}
	p, err := primary(t)
	if err != nil {
		return errors.Join(err, t.Close())
	}
	defer flushHandle(t, p.ObjectHandle)
	pub, perr := tpm2.Unmarshal[tpm2.TPM2BPublic](k.wrapped.Public)
	private, serr := tpm2.Unmarshal[tpm2.TPM2BPrivate](k.wrapped.Private)
	if err := errors.Join(perr, serr); err != nil {
		return errors.Join(err, t.Close())
	}
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: p.ObjectHandle, Name: p.Name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    *private, InPublic: *pub,
	}.Execute(t)
	if err != nil {
		return errors.Join(fmt.Errorf("load the key (was it made by another TPM, or was this one cleared?): %w", err), t.Close())
	}
	k.tpm, k.key, k.name = t, loaded.ObjectHandle, loaded.Name
	return nil
}

func (k *tpmKey) unload() {
	if k.tpm != nil {
		flushHandle(k.tpm, k.key)
		k.tpm.Close() //nolint:errcheck // it is opened anew
		k.tpm = nil
	}
}
