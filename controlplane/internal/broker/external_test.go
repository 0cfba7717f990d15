package broker_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/broker/brokertest"
)

// external is a nats-server configured by the text that operators get, and two replicas of the control plane at it.
type external struct {
	*setup
	replicas [2]*broker.External
}

func startExternal(t *testing.T) *external {
	t.Helper()
	ca := brokertest.NewAuthority(t)
	issuer, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	xkey, err := nkeys.CreateCurveKeys()
	if err != nil {
		t.Fatal(err)
	}
	public := func(k nkeys.KeyPair) string {
		p, err := k.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	seed := func(k nkeys.KeyPair) string {
		s, err := k.Seed()
		if err != nil {
			t.Fatal(err)
		}
		return string(s)
	}
	store, auth, system := broker.Login{User: "store", Password: "s"}, broker.Login{User: "auth", Password: "a"}, broker.Login{User: "sys", Password: "y"}
	file := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf("listen: \"127.0.0.1:-1\"\njetstream { store_dir: %q, max_file_store: 256MB }\n", t.TempDir()) +
		broker.ServerConfig(public(issuer), public(xkey), store, auth, system)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("the server refuses our configuration: %v\n%s", err, text)
	}
	opts.NoSigs, opts.NoLog = true, true
	opts.TLSConfig = &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, "server", time.Now().Add(time.Hour))}, ClientCAs: ca.Pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}
	opts.TLSVerify, opts.TLSTimeout = true, 10
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server did not start")
	}
	e := &external{setup: &setup{ca: ca, fleet: &fleet{revoked: map[int32]bool{}}, metrics: prometheus.NewRegistry()}}
	for i := range e.replicas {
		var reg prometheus.Registerer
		if i == 0 {
			reg = e.metrics
		}
		e.replicas[i], err = broker.Connect(testContext(t), broker.ExternalConfig{
			URL: "tls://" + srv.Addr().String(), Store: store, Auth: auth, System: system, IssuerSeed: seed(issuer), XKeySeed: seed(xkey),
			MaxBytes: 64 << 20, Replicas: 1, Authorise: e.fleet.authorise, Metrics: reg,
			TLS: &tls.Config{
				RootCAs: ca.Pool, ServerName: "localhost", MinVersion: tls.VersionTLS13,
				Certificates: []tls.Certificate{ca.Issue(t, "control", time.Now().Add(time.Hour))},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.replicas[i].Close)
	}
	nc, err := e.replicas[0].Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if e.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	e.addr = srv.Addr().String()
	return e
}

func TestExternalGivesTheSameRightsAsEmbedded(t *testing.T) {
	e := startExternal(t)
	b := e.mustConnect(t, 1, 7)
	if _, err := b.js.Publish(testContext(t), "evt.1.7", []byte("x")); err != nil {
		t.Fatalf("publish to its own subject: %v", err)
	}
	for _, subject := range []string{"evt.2.7", "evt.1.8", "$JS.API.STREAM.INFO.EVENTS", "$SYS.REQ.USER.AUTH"} {
		if err := b.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := b.wait(t, "refusal of "+subject); !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
			t.Errorf("publish to %s: %v", subject, err)
		}
	}
	if _, err := b.SubscribeSync("evt.>"); err != nil {
		t.Fatal(err)
	}
	if err := b.wait(t, "refusal"); !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
		t.Errorf("subscribe to all events: %v", err)
	}
	if err := b.PublishRequest("evt.1.7", "evt.2.9", []byte("spoof")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.js.Publish(testContext(t), "evt.1.7", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if got := e.stored(t); got["evt.1.7"] != 3 || len(got) != 1 {
		t.Errorf("stored = %v, want three of evt.1.7", got)
	}
	// A password of ours is no way round: the users of the configuration are named there, others are asked about.
	if _, err := e.connectWith(t, "1.7", brokertest.NewAuthority(t).Issue(t, "1.7", time.Now().Add(time.Hour))); err == nil {
		t.Error("a certificate of another CA was let in")
	}
}

func TestExternalRevocationReachesEveryReplica(t *testing.T) {
	e := startExternal(t)
	for round, cutter := range e.replicas {
		appliance := int32(7 + round)
		b := e.mustConnect(t, 1, appliance)
		e.fleet.revoke(appliance)
		cutter.Disconnect(appliance)
		select {
		case <-b.closed:
		case <-time.After(10 * time.Second):
			t.Fatalf("replica %d: the revoked appliance is still connected", round)
		}
		if _, err := e.connect(t, 1, appliance); err == nil || !strings.Contains(strings.ToLower(err.Error()), "authorization violation") {
			t.Errorf("connecting again: %v, want a refusal", err)
		}
	}
}

func TestExternalRefusesBadKeys(t *testing.T) {
	if _, err := broker.Connect(testContext(t), broker.ExternalConfig{Authorise: brokertest.Identify, IssuerSeed: "x"}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
}
