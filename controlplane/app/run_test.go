package app

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	"github.com/kadomori/kadomori/proto/claim"
	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

// system is a whole control plane in this process.
type system struct {
	t    *testing.T
	dir  string
	addr Addresses
	stop func()
}

func start(t *testing.T) *system {
	t.Helper()
	return startIn(t, postgrestest.Dir(t))
}

func startIn(t *testing.T, dir string) *system {
	t.Helper()
	s := &system{t: t, dir: dir}
	ctx, cancel := context.WithCancel(context.Background())
	cfg := Config{
		DataDir: s.dir, Listen: ListenConfig{GRPC: "127.0.0.1:0", NATS: "127.0.0.1:0", Console: "127.0.0.1:0", Metrics: "127.0.0.1:0"},
	}
	up, ended := make(chan Addresses, 1), make(chan error, 1)
	var log bytes.Buffer
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: hclog.NewLeveledWriter(&log, nil)})
	go func() { ended <- Run(ctx, cfg, logger, func(a Addresses) { up <- a }) }()
	select {
	case s.addr = <-up:
	case err := <-ended:
		cancel()
		t.Fatalf("control plane did not start: %v", err)
	case <-time.After(2 * time.Minute):
		cancel()
		t.Fatal("control plane did not start in two minutes")
	}
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("control plane ended with: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("control plane did not stop in a minute")
		}
		if t.Failed() {
			t.Log(log.String())
		}
	}
	t.Cleanup(s.stop)
	return s
}

func (s *system) pool() *x509.CertPool {
	pem, err := os.ReadFile(filepath.Join(s.dir, "pki", "ca.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

func (s *system) dial(certs ...tls.Certificate) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(s.addr.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.pool(), Certificates: certs, MinVersion: tls.VersionTLS13})))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// operator logs in as admin with the password of the first start.
func (s *system) operator(ctx context.Context) (operatorv1.OperatorServiceClient, context.Context) {
	s.t.Helper()
	password, err := os.ReadFile(filepath.Join(s.dir, "admin-password"))
	if err != nil {
		s.t.Fatal(err)
	}
	op := operatorv1.NewOperatorServiceClient(s.dial())
	login, err := op.Login(ctx, &operatorv1.LoginRequest{Name: "admin", Password: strings.TrimSpace(string(password))})
	if err != nil {
		s.t.Fatal(err)
	}
	return op, metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+login.GetToken())
}

// box is an appliance as far as this test needs one.
type box struct {
	key  *ecdsa.PrivateKey
	csr  []byte
	id   *enrolv1.Identity
	conn *grpc.ClientConn
}

func newBox(t *testing.T) *box {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &box{key: key, csr: csr}
}

func (s *system) enrol(ctx context.Context, b *box, text string) (enrolv1.State, error) {
	s.t.Helper()
	c, err := claim.Parse(text)
	if err != nil {
		s.t.Fatal(err)
	}
	// What a box does: it trusts the chain that holds the pinned key, nothing else.
	conn, err := grpc.NewClient(c.Server, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !c.PinnedBy(cs.PeerCertificates) {
				return errors.New("pin not in chain")
			}
			return nil
		},
	})))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	resp, err := enrolv1.NewEnrolServiceClient(conn).Enrol(ctx, &enrolv1.EnrolRequest{ClaimSecret: c.Secret[:], Csr: b.csr, Hardware: &enrolv1.Hardware{Serial: "SN1", Model: "m", Version: "v"}})
	if err == nil && resp.GetIdentity() != nil {
		b.id = resp.GetIdentity()
		b.conn = s.dial(tls.Certificate{Certificate: b.id.GetCertificates(), PrivateKey: b.key})
	}
	return resp.GetState(), err
}

func (b *box) fetch(ctx context.Context, t *testing.T, env *bundlev1.Envelope) (*bundlev1.Manifest, []byte) {
	t.Helper()
	m, err := sign.Verify([]ed25519.PublicKey{b.id.GetBundleKeys()[0]}, env)
	if err != nil {
		t.Fatal(err)
	}
	if err := sign.Check(m, b.id.GetApplianceId(), 0, time.Now()); err != nil {
		t.Fatal(err)
	}
	var content []byte
	// In two parts, as after a cut line.
	for _, offset := range []uint64{0, m.GetSize() / 2} {
		stream, err := fleetv1.NewFleetServiceClient(b.conn).FetchBundle(ctx, &fleetv1.FetchBundleRequest{Sha256: m.GetSha256(), Offset: offset})
		if err != nil {
			t.Fatal(err)
		}
		content = content[:offset]
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			content = append(content, part.GetChunk()...)
		}
	}
	if err := sign.Content(m, content); err != nil {
		t.Fatal(err)
	}
	return m, content
}

func TestOneApplianceFromClaimToRevocation(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	op, asAdmin := s.operator(ctx)

	if _, err := op.ListClinics(ctx, &operatorv1.ListClinicsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Fatalf("call without a token: %v", err)
	}
	made, err := op.CreateClinic(asAdmin, &operatorv1.CreateClinicRequest{Clinic: &operatorv1.Clinic{Name: "さくら通り内科クリニック", Hours: "mon-fri 09:00-18:30"}})
	if err != nil {
		t.Fatal(err)
	}
	clinicID := made.GetClinic().GetId()
	claimed, err := op.CreateClaim(asAdmin, &operatorv1.CreateClaimRequest{ClinicId: clinicID, AutoApprove: true})
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	if state, err := s.enrol(ctx, b, claimed.GetClaim()); err != nil || state != enrolv1.State_STATE_APPROVED {
		t.Fatalf("enrolment: %v %v", state, err)
	}
	if b.id.GetFleetAddress() != s.addr.GRPC || b.id.GetNatsUrl() != s.addr.NATS || b.id.GetClinicId() != clinicID {
		t.Errorf("identity %v", b.id)
	}
	if state, err := s.enrol(ctx, b, claimed.GetClaim()); err != nil || state != enrolv1.State_STATE_APPROVED {
		t.Errorf("the same box asks again: %v %v", state, err)
	}
	_, wrong := s.enrol(ctx, newBox(t), claimed.GetClaim())
	if status.Code(wrong) != codes.Unauthenticated {
		t.Errorf("used claim with another key: %v", wrong)
	}

	// Desired state, at once and after a change.
	fleet := fleetv1.NewFleetServiceClient(b.conn)
	watch, err := fleet.Watch(ctx, &fleetv1.WatchRequest{AgentVersion: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := watch.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(first.GetBundles()) != 1 {
		t.Fatalf("first state %v", first)
	}
	m, content := b.fetch(ctx, t, first.GetBundles()[0])
	var pol policyv1.Policy
	if err := proto.Unmarshal(content, &pol); err != nil || pol.GetClinicName() != "さくら通り内科クリニック" || m.GetVersion() != 1 {
		t.Fatalf("policy %v, error %v", &pol, err)
	}
	if len(pol.GetNeverBlock()) != 1 || pol.GetNeverBlock()[0] != "127.0.0.1/32" {
		t.Errorf("never_block %v does not hold the control plane", pol.GetNeverBlock())
	}

	pub, err := op.PublishSignatures(asAdmin)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range []*operatorv1.SignatureFile{
		{Name: "c2.addresses", ListKind: "c2", Content: []byte("198.51.100.")},
		{Name: "c2.addresses", ListKind: "c2", Content: []byte("7\n")},
		{Name: "a.rules", Content: []byte("alert tcp any any -> any any (msg:\"x\"; sid:1;)\n")},
	} {
		req := &operatorv1.PublishSignaturesRequest{Files: []*operatorv1.SignatureFile{f}}
		if i == 0 {
			req.Reason = "first feed"
		}
		if err := pub.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	if published, err := pub.CloseAndRecv(); err != nil || published.GetRules() != 1 || published.GetAddresses() != 1 || published.GetVersion() != 1 {
		t.Fatalf("published %v, error %v", published, err)
	}
	second, err := watch.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(second.GetBundles()) != 2 || second.GetRevision() <= first.GetRevision() {
		t.Fatalf("second state %v", second)
	}
	m, content = b.fetch(ctx, t, second.GetBundles()[0])
	if err := proto.Unmarshal(content, &pol); err != nil || m.GetVersion() != 2 || len(pol.GetLists()) != 1 || !pol.GetLists()[0].GetBlock() {
		t.Fatalf("policy with list %v, error %v", &pol, err)
	}
	sig, _ := b.fetch(ctx, t, second.GetBundles()[1])

	// What it reports is what operators see.
	_, err = fleet.ReportState(ctx, &fleetv1.ReportStateRequest{Revision: second.GetRevision(), AgentVersion: "v1", WireMode: "inline", Bundles: []*fleetv1.BundleState{
		{Kind: bundlev1.Kind_KIND_POLICY, ActiveVersion: m.GetVersion(), ActiveSha256: m.GetSha256()},
		{Kind: bundlev1.Kind_KIND_SIGNATURE, ActiveVersion: sig.GetVersion(), ActiveSha256: sig.GetSha256()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var seen *operatorv1.Appliance
	waitFor(t, "the appliance is online and in sync", func() bool {
		list, err := op.ListAppliances(asAdmin, &operatorv1.ListAppliancesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		seen = list.GetAppliances()[0]
		return seen.GetOnline() && seen.GetIntent() == "in sync"
	})
	if seen.GetProtection() != "inspecting" || seen.GetSerial() != "SN1" || seen.GetState() != "approved" {
		t.Errorf("appliance %v", seen)
	}

	// A command goes down the stream and its answer comes back.
	sent, err := op.SendCommand(asAdmin, &operatorv1.SendCommandRequest{ApplianceId: seen.GetId(), Action: "quarantine", Ip: "192.168.1.9", Reason: "bot"})
	if err != nil {
		t.Fatal(err)
	}
	for {
		state, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(state.GetCommands()) == 0 {
			continue
		}
		c, err := sign.VerifyCommand([]ed25519.PublicKey{b.id.GetBundleKeys()[0]}, state.GetCommands()[0])
		if err != nil || c.GetQuarantine() == nil {
			t.Fatalf("command %v, error %v", c, err)
		}
		_, err = fleet.ReportState(ctx, &fleetv1.ReportStateRequest{Commands: []*fleetv1.CommandResult{{Id: c.GetId(), State: fleetv1.CommandResult_STATE_DONE, Detail: "cut off"}}})
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if list, err := op.ListCommands(asAdmin, &operatorv1.ListCommandsRequest{}); err != nil || list.GetCommands()[0].GetId() != sent.GetCommand().GetId() || list.GetCommands()[0].GetState() != "done" {
		t.Errorf("commands %v, error %v", list, err)
	}

	// Renewal, then the end.
	if _, err := enrolv1.NewEnrolServiceClient(b.conn).Renew(ctx, &enrolv1.RenewRequest{Csr: b.csr}); err != nil {
		t.Errorf("renew: %v", err)
	}
	cut := time.Now()
	if _, err := op.RevokeAppliance(asAdmin, &operatorv1.RevokeApplianceRequest{ApplianceId: seen.GetId(), Reason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err = watch.Recv(); err != nil {
			break
		}
	}
	if status.Code(err) != codes.PermissionDenied || time.Since(cut) > time.Second {
		t.Errorf("stream of a revoked appliance: %v after %s", err, time.Since(cut))
	}
	if _, err := fleet.ReportState(ctx, &fleetv1.ReportStateRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("report of a revoked appliance: %v", err)
	}
	if _, err := enrolv1.NewEnrolServiceClient(b.conn).Renew(ctx, &enrolv1.RenewRequest{Csr: b.csr}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("renewal of a revoked appliance: %v", err)
	}

	// The console and the metrics answer.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.pool(), MinVersion: tls.VersionTLS13}}}
	defer client.CloseIdleConnections()
	for url, want := range map[string]string{"https://" + s.addr.Console + "/login": "<form", "http://" + s.addr.Metrics + "/metrics": "kadomori_rpc_requests_total", "http://" + s.addr.Metrics + "/healthz": "ok"} {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: status %d, error %v, no %q", url, resp.StatusCode, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, ReadyFile)); err != nil {
		t.Error(err)
	}
	s.stop()
	if _, err := os.Stat(filepath.Join(s.dir, ReadyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ready file after the stop: %v", err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 20 s in vain: %s", what)
		}
	}
}
