package enrol

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	"github.com/kadomori/kadomori/proto/claim"
)

type desk struct {
	*Enrolment
	db        *postgres.DB
	publisher *appliance.Publisher
	clinic    int32
	mu        sync.Mutex
	now       time.Time
}

func (d *desk) clock() time.Time { d.mu.Lock(); defer d.mu.Unlock(); return d.now }
func (d *desk) wait(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(t)
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{db: postgrestest.New(t), now: time.Now()}
	authority, err := pki.Open(pki.Config{Dir: t.TempDir(), Now: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := bundle.New(bundle.Config{Key: key, Now: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	d.publisher, err = appliance.NewPublisher(appliance.Config{DB: d.db, Bundles: bundles, Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, Now: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	d.Enrolment, err = New(Config{DB: d.db, Authority: authority, Registry: pki.NewRegistry(d.db, d.clock), Admitter: d.publisher, Server: "control.example:7443", Now: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	err = d.db.Fleet(ctx, "system:test", func(tx pgx.Tx) error {
		plan, err := policy.EnsureDefaultPlan(ctx, tx)
		if err != nil {
			return err
		}
		c, err := clinic.Create(ctx, tx, "tester", clinic.Clinic{Name: "x", PlanID: plan})
		d.clinic = c.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) claim(t *testing.T, o Order) (secret []byte, out Issued) {
	t.Helper()
	o.Clinic = d.clinic
	out, err := d.CreateClaim(context.Background(), "tester", o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := claim.Parse(out.Text)
	if err != nil || c.Server != "control.example:7443" || c.Pin != claim.Pin(d.Authority.Root()) {
		t.Fatalf("claim %v, error %v", c, err)
	}
	return c.Secret[:], out
}

func csr(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

const peer = "198.51.100.9:4000"

func TestWrongUsedExpiredAndForeignClaimsGetOneAnswer(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ctx := context.Background()
	mine := csr(t)
	used, _ := d.claim(t, Order{AutoApprove: true})
	if r, err := d.Enrol(ctx, peer, used, mine, Hardware{Serial: "a"}); err != nil || r.State != appliance.Approved || r.Identity == nil {
		t.Fatalf("good claim: %+v %v", r, err)
	}
	bound, _ := d.claim(t, Order{Serial: "SN-7", AutoApprove: true})
	expired, _ := d.claim(t, Order{TTL: time.Hour, AutoApprove: true})
	d.wait(2 * time.Hour)
	wrong := make([]byte, claim.SecretSize)
	for name, c := range map[string]struct {
		secret []byte
		serial string
	}{"wrong": {wrong, ""}, "used": {used, ""}, "expired": {expired, ""}, "other serial": {bound, "SN-8"}, "short": {wrong[:5], ""}} {
		_, err := d.Enrol(ctx, peer, c.secret, csr(t), Hardware{Serial: c.serial})
		if err == nil || err.Error() != ErrClaim.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err := d.Enrol(ctx, peer, bound, csr(t), Hardware{Serial: "SN-7"}); err != nil || r.State != appliance.Approved {
		t.Errorf("right serial: %+v %v", r, err)
	}
	// The same key may ask again, also after the claim's end: the key proves who it is.
	if r, err := d.Enrol(ctx, peer, used, mine, Hardware{}); err != nil || r.Identity == nil {
		t.Errorf("same key again: %+v %v", r, err)
	}
	var refused int
	err := d.db.Fleet(ctx, "system:test", func(tx pgx.Tx) error {
		if _, err := audit.Verify(ctx, tx); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*) FROM audit_log WHERE action = 'claim.refuse' AND actor LIKE 'peer:%'`).Scan(&refused)
	})
	if err != nil || refused != 4 { // a short secret is no claim at all
		t.Errorf("audited refusals: %d, error %v", refused, err)
	}
}

func TestGuessingIsLimitedByPeerAndNotByRightClaims(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ctx := context.Background()
	der := csr(t)
	good, _ := d.claim(t, Order{AutoApprove: true})
	for range 2 * maxFailures {
		if _, err := d.Enrol(ctx, peer, good, der, Hardware{}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	n := 0
	for ; n < 2*maxFailures && !errors.Is(err, ErrLimited); n++ {
		_, err = d.Enrol(ctx, fmt.Sprintf("198.51.100.9:%d", 1000+n), make([]byte, claim.SecretSize), der, Hardware{})
	}
	if n != maxFailures+1 {
		t.Errorf("limited after %d wrong claims, want %d", n, maxFailures+1)
	}
	if _, err := d.Enrol(ctx, peer, good, der, Hardware{}); !errors.Is(err, ErrLimited) {
		t.Errorf("right claim of a limited peer: %v", err)
	}
	if _, err := d.Enrol(ctx, "198.51.100.10:1", good, der, Hardware{}); err != nil {
		t.Errorf("another peer: %v", err)
	}
	if network("[2001:db8:1:2::1]:1") != network("[2001:db8:1:2:ffff::9]:1") || network("[2001:db8:1:3::1]:1") == network("[2001:db8:1:2::1]:1") {
		t.Error("IPv6 peers are not counted by /64")
	}
	d.wait(forgive)
	if _, err := d.Enrol(ctx, peer, good, der, Hardware{}); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

func TestTwoBoxesRacingForOneClaim(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	secret, _ := d.claim(t, Order{AutoApprove: true})
	var won, lost int
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 8 {
		der := csr(t)
		all.Go(func() {
			_, err := d.Enrol(context.Background(), fmt.Sprintf("198.51.100.%d:1", i+1), secret, der, Hardware{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, ErrClaim):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won != 1 || lost != 7 {
		t.Errorf("%d won, %d lost", won, lost)
	}
}

func TestPendingApprovedRejectedAndRevoked(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ctx := context.Background()
	fleet := func(fn func(pgx.Tx) error) error { return d.db.Fleet(ctx, "tester", fn) }
	der := csr(t)
	secret, out := d.claim(t, Order{})
	if r, err := d.Enrol(ctx, peer, secret, der, Hardware{}); err != nil || r.State != appliance.Pending || r.Identity != nil {
		t.Fatalf("before approval: %+v %v", r, err)
	}
	if err := fleet(func(tx pgx.Tx) error { return d.publisher.Approve(ctx, tx, "tester", out.Appliance) }); err != nil {
		t.Fatal(err)
	}
	r, err := d.Enrol(ctx, peer, secret, der, Hardware{})
	if err != nil || r.Identity == nil {
		t.Fatalf("after approval: %+v %v", r, err)
	}
	cert, err := x509.ParseCertificate(r.Identity.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	if id, err := d.Registry.Authorise(ctx, cert); err != nil || id.Appliance != out.Appliance || id.Clinic != d.clinic {
		t.Fatalf("authorise: %+v %v", id, err)
	}
	// 30 days later the certificate has ended, and still lets the box renew.
	d.wait(pki.LeafLife + 29*24*time.Hour)
	renewed, err := d.Renew(ctx, cert, csr(t))
	if err != nil {
		t.Fatalf("renewal after 29 days without a certificate: %v", err)
	}
	fresh, err := x509.ParseCertificate(renewed.Certificates[0])
	if err != nil || !fresh.NotAfter.After(d.clock()) {
		t.Fatalf("renewed certificate ends %s: %v", fresh.NotAfter, err)
	}
	if err := fleet(func(tx pgx.Tx) error { return d.publisher.Revoke(ctx, tx, "tester", out.Appliance, "") }); !errors.Is(err, appliance.ErrInvalid) {
		t.Errorf("revocation without a reason: %v", err)
	}
	if err := fleet(func(tx pgx.Tx) error { return d.publisher.Revoke(ctx, tx, "tester", out.Appliance, "stolen") }); err != nil {
		t.Fatal(err)
	}
	d.Registry.Forget(out.Appliance)
	if _, err := d.Registry.Authorise(ctx, fresh); !errors.Is(err, pki.ErrRevoked) {
		t.Errorf("authorise after revocation: %v", err)
	}
	if _, err := d.Renew(ctx, fresh, csr(t)); !errors.Is(err, pki.ErrRevoked) {
		t.Errorf("renewal after revocation: %v", err)
	}
	if _, err := d.Enrol(ctx, peer, secret, der, Hardware{}); !errors.Is(err, ErrClaim) {
		t.Errorf("claim of a revoked appliance: %v", err)
	}

	secret, out = d.claim(t, Order{})
	if _, err := d.Enrol(ctx, peer, secret, der, Hardware{}); err != nil {
		t.Fatal(err)
	}
	if err := fleet(func(tx pgx.Tx) error { return d.publisher.Revoke(ctx, tx, "tester", out.Appliance, "unknown box") }); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Enrol(ctx, peer, secret, der, Hardware{}); err != nil || r.State != appliance.Rejected {
		t.Errorf("rejected box: %+v %v", r, err)
	}
}

func TestReplacementTakesOverAndRetiresTheOldBox(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ctx := context.Background()
	secret, old := d.claim(t, Order{Name: "受付", AutoApprove: true})
	r, err := d.Enrol(ctx, peer, secret, csr(t), Hardware{})
	if err != nil {
		t.Fatal(err)
	}
	oldCert, err := x509.ParseCertificate(r.Identity.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	next, err := d.CreateClaim(ctx, "tester", Order{Replaces: old.Appliance})
	if err != nil {
		t.Fatal(err)
	}
	c, err := claim.Parse(next.Text)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := d.Enrol(ctx, peer, c.Secret[:], csr(t), Hardware{}); err != nil || r.State != appliance.Pending {
		t.Fatalf("new box: %+v %v", r, err)
	}
	if _, err := d.Registry.Authorise(ctx, oldCert); err != nil {
		t.Errorf("the old box is out before the new one is in: %v", err)
	}
	if err := d.db.Fleet(ctx, "tester", func(tx pgx.Tx) error { return d.publisher.Approve(ctx, tx, "tester", next.Appliance) }); err != nil {
		t.Fatal(err)
	}
	d.Registry.Forget(old.Appliance)
	if _, err := d.Registry.Authorise(ctx, oldCert); !errors.Is(err, pki.ErrRevoked) {
		t.Errorf("the old box after its replacement: %v", err)
	}
	err = d.db.Fleet(ctx, "system:test", func(tx pgx.Tx) error {
		list, err := appliance.List(ctx, tx, d.clinic, 0, 10, d.clock())
		if err == nil && (len(list) != 2 || list[0].State != appliance.Retired || list[1].State != appliance.Approved || list[1].Name != "受付") {
			t.Errorf("appliances %+v", list)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Order{{Replaces: 999}, {Replaces: old.Appliance}, {Replaces: next.Appliance, Clinic: 999}} {
		if _, err := d.CreateClaim(ctx, "tester", o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestRenewalAsksForOwnIdentityOnly(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ctx := context.Background()
	secret, _ := d.claim(t, Order{AutoApprove: true})
	r, err := d.Enrol(ctx, peer, secret, csr(t), Hardware{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(r.Identity.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Renew(ctx, cert, []byte("junk")); !errors.Is(err, pki.ErrRequest) {
		t.Errorf("junk: %v", err)
	}
	unknown, err := d.Authority.Issue(mustRequest(t), pki.Identity{Clinic: d.clinic, Appliance: r.Identity.Appliance})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Renew(ctx, unknown, csr(t)); !errors.Is(err, pki.ErrUnknown) {
		t.Errorf("certificate the database does not know: %v", err)
	}
}

func mustRequest(t *testing.T) *x509.CertificateRequest {
	t.Helper()
	r, err := pki.CheckRequest(csr(t), pki.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBadOrdersAreRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, o := range []Order{{TTL: time.Second}, {TTL: MaxTTL + 1}, {Name: "a\nb"}, {Serial: string(make([]byte, 300))}} {
		o.Clinic = d.clinic
		if _, err := d.CreateClaim(context.Background(), "tester", o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := d.CreateClaim(context.Background(), "tester", Order{Clinic: 999}); !errors.Is(err, clinic.ErrNotFound) {
		t.Errorf("unknown clinic: %v", err)
	}
}
