package enrol

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// softTPM starts a TPM 2.0 in software and returns its socket and a function that ends it.
func softTPM(t *testing.T, state string) (string, func()) {
	t.Helper()
	bin, err := exec.LookPath("swtpm")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs swtpm")
		}
		t.Skip("needs swtpm (Debian package swtpm)")
	}
	socket := filepath.Join(t.TempDir(), "tpm.sock")
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, "socket", "--tpm2", "--tpmstate", "dir="+state, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	wait(t, func() bool {
		select {
		case <-done:
			t.Fatalf("swtpm ended: %s", out.String())
		default:
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return socket, stop
}

func TestKeyInATPM(t *testing.T) {
	state := t.TempDir()
	socket, stop := softTPM(t, state)
	c := startCentre(t)
	dir := t.TempDir()
	keys := KeyStore{Kind: "auto", Device: socket}
	id, err := Enrol(t.Context(), Config{Dir: dir, Claim: c.claim.Text(), Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if !id.InTPM() {
		t.Fatal("the key is not in the TPM")
	}
	if _, err := os.Stat(filepath.Join(dir, keyFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a private key lies in a file")
	}
	again, err := Load(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(id *Identity) error {
		cfg := id.TLS()
		cfg.NextProtos = []string{"h2"}
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", c.addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // the server speaks only after it verified us
		}
		return err
	}
	if err := connect(again); err != nil {
		t.Fatalf("mutual TLS: %v", err)
	}
	if err := again.Renew(t.Context()); err != nil {
		t.Fatalf("renewal: %v", err)
	}

	// The box restarts: the TPM forgets its handles, the key stays.
	stop()
	socket2, stop2 := softTPM(t, state)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Symlink(socket2, socket); err != nil {
		t.Fatal(err)
	}
	if err := connect(again); err != nil {
		t.Fatalf("after a restart of the TPM: %v", err)
	}

	// The disk is put into another box.
	stop2()
	socket3, _ := softTPM(t, t.TempDir())
	clone, err := Load(dir, KeyStore{Device: socket3})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	if _, err := clone.key.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil || !strings.Contains(err.Error(), "another TPM") {
		t.Errorf("a cloned disk signs: %v", err)
	}
}

func TestTPMSignaturesVerify(t *testing.T) {
	socket, _ := softTPM(t, t.TempDir())
	key, err := createTPMKey(t.TempDir(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer key.unload()
	for range 20 {
		digest := sha256.Sum256([]byte(time.Now().String()))
		sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(key.pub, digest[:], sig) {
			t.Fatal("signature does not verify")
		}
	}
	wide := sha512.Sum384([]byte("x"))
	if _, err := key.Sign(rand.Reader, wide[:], crypto.SHA384); err == nil {
		t.Error("a hash that the key does not take was signed")
	}
}

func TestWantedTPMThatIsMissingIsNamed(t *testing.T) {
	c := startCentre(t)
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := Enrol(t.Context(), Config{Dir: t.TempDir(), Claim: c.claim.Text(), Keys: KeyStore{Kind: "tpm", Device: missing}}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("Enrol = %v", err)
	}
	if _, err := Enrol(t.Context(), Config{Dir: t.TempDir(), Claim: c.claim.Text(), Keys: KeyStore{Kind: "hsm", Device: missing}}); err == nil || !strings.Contains(err.Error(), "hsm") {
		t.Errorf("Enrol = %v", err)
	}
}

func FuzzLoadTPMKey(f *testing.F) {
	f.Add([]byte(`{"public":"AAAA","private":"AAAA"}`))
	f.Add([]byte(`{}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tpmKeyFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		loadTPMKey(dir, "none") // must return
	})
}
