package claim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

func authority(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestTextComesBackAsTheSameClaim(t *testing.T) {
	ca := authority(t)
	for _, server := range []string{"kadomori.example:8443", "203.0.113.7:443", "[2001:db8::1]:8443"} {
		c, err := New(server, ca)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse("\n  " + c.Text()[:40] + "\n" + c.Text()[40:] + "\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if got != c {
			t.Errorf("Parse(Text()) differs for %s", server)
		}
		if !got.PinnedBy([]*x509.Certificate{authority(t), ca}) || got.PinnedBy([]*x509.Certificate{authority(t)}) {
			t.Error("pin does not tell the authorities apart")
		}
	}
}

func TestSecretsDiffer(t *testing.T) {
	ca := authority(t)
	a, _ := New("a:1", ca)
	b, _ := New("a:1", ca)
	if a.Secret == b.Secret {
		t.Error("two claims share a secret")
	}
}

func TestSecretStaysOutOfLogs(t *testing.T) {
	c, _ := New("a:1", authority(t))
	inner := strings.TrimPrefix(c.Text(), Prefix)
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v", c, c)} {
		if strings.Contains(s, inner) || strings.Contains(s, string(c.Secret[:])) {
			t.Errorf("secret printed: %s", s)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	c, _ := New("kadomori.example:8443", authority(t))
	good := c.Text()
	for name, tc := range map[string]struct{ text, want string }{
		"empty":          {"", "must begin with"},
		"other format":   {"kdm2-" + good[5:], "must begin with"},
		"cut off":        {good[:len(good)-7], "copied"},
		"not base64":     {good[:20] + "*" + good[21:], "base64url"},
		"too long":       {good + strings.Repeat("A", MaxText), "at most"},
		"no port":        {Claim{Server: "kadomori.example"}.Text(), "host:port"},
		"port zero":      {Claim{Server: "kadomori.example:0"}.Text(), "port"},
		"no host":        {Claim{Server: ":443"}.Text(), "host:port"},
		"something else": {"kdm1-eyJzIjoiYToxIiwieCI6MX0", "not readable"},
		"short pin":      {"kdm1-eyJzIjoiYToxIiwicCI6IkFBIiwiayI6IkFBIn0", "not readable"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tc.text)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Parse = %v, want ErrFormat with %q", err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	c, _ := New("kadomori.example:8443", authority(f))
	f.Add(c.Text())
	f.Add("kdm1-")
	f.Add("kdm1-e30")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(c.Text())
		if err != nil || again != c {
			t.Errorf("accepted claim does not round-trip: %v", err)
		}
	})
}
