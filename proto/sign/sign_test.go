package sign

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
)

func newKey(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pub, key
}

// TestPreAuthIsDSSEs compares with the example of the DSSE protocol document.
func TestPreAuthIsDSSEs(t *testing.T) {
	if got, want := string(preAuth("http://example.com/HelloWorld", []byte("hello world"))), "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("preAuth = %q, want %q", got, want)
	}
}

func TestManifestIsBelievedOnlyFromATrustedKey(t *testing.T) {
	pub, key := newKey(t)
	other, _ := newKey(t)
	now := time.Now()
	m := &bundlev1.Manifest{
		Kind: bundlev1.Kind_KIND_POLICY, Version: 3, Audience: Audience(12), Size: 5,
		Expires: timestamppb.New(now.Add(time.Minute)),
	}
	env, err := Sign(key, m)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Verify([]ed25519.PublicKey{other, pub}, env); err != nil || !proto.Equal(got, m) {
		t.Errorf("Verify = %v, %v", got, err)
	}
	if _, err := Verify([]ed25519.PublicKey{other}, env); !errors.Is(err, ErrSignature) {
		t.Errorf("by a foreign key: %v", err)
	}
	if _, err := Verify([]ed25519.PublicKey{pub, nil, {1}}, &bundlev1.Envelope{}); err == nil {
		t.Error("empty envelope taken")
	}
	for i := range env.GetPayload() {
		bad := proto.CloneOf(env)
		bad.Payload[i] ^= 1
		if _, err := Verify([]ed25519.PublicKey{pub}, bad); !errors.Is(err, ErrSignature) {
			t.Fatalf("payload with bit %d flipped: %v", i, err)
		}
	}
	for name, tc := range map[string]struct {
		appliance int32
		active    uint64
		now       time.Time
		want      error
	}{
		"good":             {12, 2, now, nil},
		"same version":     {12, 3, now, nil},
		"older":            {12, 4, now, ErrRollback},
		"somebody else's":  {13, 2, now, ErrAudience},
		"out of its time":  {12, 2, now.Add(time.Hour), ErrExpired},
		"first of its box": {12, 0, now, nil},
	} {
		if err := Check(m, tc.appliance, tc.active, tc.now); !errors.Is(err, tc.want) {
			t.Errorf("%s: Check = %v, want %v", name, err, tc.want)
		}
	}
}

func TestCommandIsNoManifestAndNoManifestACommand(t *testing.T) {
	pub, key := newKey(t)
	now := time.Now()
	c := &fleetv1.Command{Id: make([]byte, 16), Audience: Audience(12), Issued: timestamppb.New(now), Expires: timestamppb.New(now.Add(time.Hour))}
	env, err := SignCommand(key, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyCommand([]ed25519.PublicKey{pub}, env)
	if err != nil || !proto.Equal(got, c) {
		t.Fatalf("VerifyCommand = %v, %v", got, err)
	}
	if _, err := Verify([]ed25519.PublicKey{pub}, env); err == nil || !strings.Contains(err.Error(), "payload type") {
		t.Errorf("a command was taken for a manifest: %v", err)
	}
	env.PayloadType = PayloadType
	if _, err := Verify([]ed25519.PublicKey{pub}, env); !errors.Is(err, ErrSignature) {
		t.Errorf("a command with another type: %v", err)
	}
	if err := CheckCommand(c, 12, now); err != nil {
		t.Error(err)
	}
	if err := CheckCommand(c, 13, now); !errors.Is(err, ErrAudience) {
		t.Errorf("for another box: %v", err)
	}
	if err := CheckCommand(c, 12, now.Add(2*time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	c.Expires = timestamppb.New(now.Add(30 * 24 * time.Hour))
	if err := CheckCommand(c, 12, now); err == nil {
		t.Error("a command of 30 days was taken")
	}
	c.Expires = nil
	if err := CheckCommand(c, 12, now); err == nil {
		t.Error("a command without end was taken")
	}
}

func FuzzVerify(f *testing.F) {
	pub, key := newKey(f)
	_, foreign := newKey(f)
	env, _ := Sign(foreign, &bundlev1.Manifest{Version: 1})
	b, _ := proto.Marshal(env)
	f.Add(b)
	f.Add([]byte{})
	_ = key
	f.Fuzz(func(t *testing.T, b []byte) {
		env := &bundlev1.Envelope{}
		if proto.Unmarshal(b, env) != nil {
			return
		}
		if _, err := Verify([]ed25519.PublicKey{pub}, env); err == nil {
			t.Error("verified without the key")
		}
		if _, err := VerifyCommand([]ed25519.PublicKey{pub}, env); err == nil {
			t.Error("verified without the key")
		}
	})
}
