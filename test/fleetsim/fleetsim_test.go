package fleetsim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/kadomori/kadomori/controlplane/app"
	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// TestFleetStatesAreToldAsTheBoxesBehave runs a control plane and boxes that fail in every way the simulator knows, and looks at
// what an operator is told of each.
func TestFleetStatesAreToldAsTheBoxesBehave(t *testing.T) {
	if missing := Needs(10); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs %s", missing)
		}
		t.Skipf("needs %s", missing)
	}
	dir, err := os.MkdirTemp("", "kadomori-fleet-") //nolint:usetesting // the database's user must be able to enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	up, ended := make(chan app.Addresses, 1), make(chan error, 1)
	cfg := app.Config{DataDir: dir, Listen: app.ListenConfig{GRPC: "127.0.0.1:0", NATS: "127.0.0.1:0", Console: "127.0.0.1:0"}}
	go func() { ended <- app.Run(ctx, cfg, hclog.NewNullLogger(), func(a app.Addresses) { up <- a }) }()
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := <-ended; err != nil {
			t.Errorf("control plane: %v", err)
		}
	})
	var addr app.Addresses
	select {
	case addr = <-up:
	case err := <-ended:
		ended <- nil
		t.Fatalf("control plane did not start: %v", err)
	}
	op, asAdmin := operator(ctx, t, dir, addr.GRPC)

	kinds := []struct {
		name   string
		how    Behaviour
		intent string
		detail string
	}{
		{"good", Behaviour{}, "in sync", ""},
		{"slow", Behaviour{Slow: 2 * time.Second}, "in sync", ""},
		{"flapping", Behaviour{Flap: time.Second}, "in sync", ""},
		{"clock ahead", Behaviour{Clock: time.Hour}, "in sync", ""},
		{"refusing", Behaviour{Refuses: func(m *bundlev1.Manifest) string {
			if m.GetKind() == bundlev1.Kind_KIND_SIGNATURE {
				return "a.rules:1: self-test failed"
			}
			return ""
		}}, "refused", "self-test failed"},
		{"half dead", Behaviour{HalfDead: true}, "staging", "policy 0, wanted"},
		{"years ahead", Behaviour{Clock: 3 * 365 * 24 * time.Hour}, "refused", "expired"},
	}
	ids := map[int32]int{}
	for i, k := range kinds {
		c, err := op.CreateClinic(asAdmin, &operatorv1.CreateClinicRequest{Clinic: &operatorv1.Clinic{Name: k.name}})
		if err != nil {
			t.Fatal(err)
		}
		claim, err := op.CreateClaim(asAdmin, &operatorv1.CreateClaimRequest{ClinicId: c.GetClinic().GetId(), AutoApprove: true})
		if err != nil {
			t.Fatal(err)
		}
		b, err := Enrol(ctx, Config{Claim: claim.GetClaim(), Serial: k.name, Behaviour: k.how, NATS: i == 0})
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		ids[b.ID()] = i
		running.Go(func() { _ = b.Run(ctx) })
	}
	pub, err := op.PublishSignatures(asAdmin)
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Send(&operatorv1.PublishSignaturesRequest{Files: []*operatorv1.SignatureFile{{Name: "a.rules", Content: []byte("alert tcp any any -> any any (msg:\"x\"; sid:1;)\n")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := pub.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var open []string
	for deadline := time.Now().Add(time.Minute); ; {
		list, err := op.ListAppliances(asAdmin, &operatorv1.ListAppliancesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		open = open[:0]
		for _, a := range list.GetAppliances() {
			k := kinds[ids[a.GetId()]]
			if a.GetIntent() != k.intent || !strings.Contains(a.GetIntentDetail(), k.detail) {
				open = append(open, k.name+": told "+a.GetIntent()+" ("+a.GetIntentDetail()+"), want "+k.intent+" "+k.detail)
			}
		}
		if len(open) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute:\n%s", strings.Join(open, "\n"))
		}
		<-tick.C
	}
}

func operator(ctx context.Context, t *testing.T, dir, addr string) (operatorv1.OperatorServiceClient, context.Context) {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	password, err := os.ReadFile(filepath.Join(dir, "admin-password"))
	if err != nil {
		t.Fatal(err)
	}
	op := operatorv1.NewOperatorServiceClient(conn)
	login, err := op.Login(ctx, &operatorv1.LoginRequest{Name: "admin", Password: strings.TrimSpace(string(password))})
	if err != nil {
		t.Fatal(err)
	}
	return op, metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+login.GetToken())
}
