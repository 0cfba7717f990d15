package broker_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/broker/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is the test's idea of who may connect.
type fleet struct {
	mu      sync.Mutex
	revoked map[int32]bool
}

func (f *fleet) authorise(c *x509.Certificate) (clinic, appliance int32, err error) {
	if clinic, appliance, err = brokertest.Identify(c); err != nil {
		return 0, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.revoked[appliance] {
		return 0, 0, errors.New("revoked")
	}
	return clinic, appliance, nil
}

func (f *fleet) revoke(appliance int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked[appliance] = true
}

type setup struct {
	*broker.Broker
	addr    string
	ca      *brokertest.Authority
	fleet   *fleet
	metrics *prometheus.Registry
	js      jetstream.JetStream
}

func startBroker(t *testing.T, change func(*broker.Config)) *setup {
	t.Helper()
	s := &setup{ca: brokertest.NewAuthority(t), fleet: &fleet{revoked: map[int32]bool{}}, metrics: prometheus.NewRegistry()}
	cfg := broker.Config{
		Listen: "127.0.0.1:0", StoreDir: t.TempDir(), MaxBytes: 64 << 20, Authorise: s.fleet.authorise, Metrics: s.metrics,
		TLS: &tls.Config{Certificates: []tls.Certificate{s.ca.Issue(t, "server", time.Now().Add(time.Hour))}, ClientCAs: s.ca.Pool},
		Log: hclog.NewNullLogger(),
	}
	if change != nil {
		change(&cfg)
	}
	b, err := broker.Start(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Broker, s.addr = b, b.Addr()
	t.Cleanup(b.Close)
	nc, err := b.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if s.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	return s
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// box is one appliance's connection.
type box struct {
	*nats.Conn
	js     jetstream.JetStream
	errs   chan error
	closed chan struct{}
}

func (s *setup) connect(t *testing.T, clinic, appliance int32) (*box, error) {
	t.Helper()
	name := fmt.Sprintf("%d.%d", clinic, appliance)
	return s.connectWith(t, name, s.ca.Issue(t, name, time.Now().Add(time.Hour)))
}

func (s *setup) connectWith(t *testing.T, name string, cert tls.Certificate) (*box, error) {
	t.Helper()
	b := &box{errs: make(chan error, 64), closed: make(chan struct{})}
	nc, err := nats.Connect("tls://"+s.addr,
		nats.Secure(&tls.Config{RootCAs: s.ca.Pool, Certificates: []tls.Certificate{cert}, ServerName: "localhost", MinVersion: tls.VersionTLS13}),
		nats.CustomInboxPrefix("_INBOX."+name), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			select {
			case b.errs <- err:
			default:
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { nc.Close(); <-b.closed })
	b.Conn = nc
	b.js, err = jetstream.New(nc)
	return b, err
}

func (s *setup) mustConnect(t *testing.T, clinic, appliance int32) *box {
	t.Helper()
	b, err := s.connect(t, clinic, appliance)
	if err != nil {
		t.Fatalf("connect %d.%d: %v", clinic, appliance, err)
	}
	return b
}

// stored counts the stream's messages by subject.
func (s *setup) stored(t *testing.T) map[string]uint64 {
	t.Helper()
	st, err := s.js.Stream(testContext(t), broker.Stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := st.Info(testContext(t), jetstream.WithSubjectFilter("evt.>"))
	if err != nil {
		t.Fatal(err)
	}
	delete(info.State.Subjects, broker.CanarySubject)
	return info.State.Subjects
}

// storedIfAnswering is stored for a server that may be in trouble; nil when it doesn't answer.
func (s *setup) storedIfAnswering(t *testing.T) map[string]uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(testContext(t), time.Second)
	defer cancel()
	st, err := s.js.Stream(ctx, broker.Stream)
	if err != nil {
		return nil
	}
	info, err := st.Info(ctx, jetstream.WithSubjectFilter("evt.>"))
	if err != nil {
		return nil
	}
	return info.State.Subjects
}

func (s *setup) counter(t *testing.T, name string) float64 {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func (b *box) wait(t *testing.T, what string) error {
	t.Helper()
	select {
	case err := <-b.errs:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("waited too long for %s", what)
		return nil
	}
}

func TestApplianceStoresOnItsOwnSubject(t *testing.T) {
	s := startBroker(t, nil)
	b := s.mustConnect(t, 1, 7)
	ack, err := b.js.Publish(testContext(t), "evt.1.7", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if ack.Stream != broker.Stream {
		t.Errorf("stored in %q, want %q", ack.Stream, broker.Stream)
	}
	if got := s.stored(t); got["evt.1.7"] != 1 || len(got) != 1 {
		t.Errorf("stored = %v", got)
	}
}

func TestWrongSubjectIsRefusedAndCounted(t *testing.T) {
	s := startBroker(t, nil)
	b := s.mustConnect(t, 1, 7)
	for _, subject := range []string{"evt.2.7", "evt.1.8", "evt.1.7.x", "$JS.API.STREAM.INFO.EVENTS", "$SYS.REQ.SERVER.PING", "_INBOX.1.8.x"} {
		if err := b.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := b.wait(t, "refusal of "+subject); !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
			t.Errorf("publish to %s: %v", subject, err)
		}
	}
	for _, subject := range []string{"evt.>", ">", "_INBOX.>", "_INBOX.1.8.>", "$SYS.>"} {
		if _, err := b.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		if err := b.wait(t, "refusal of "+subject); !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
			t.Errorf("subscribe to %s: %v", subject, err)
		}
	}
	if got := s.stored(t); len(got) != 0 {
		t.Errorf("stored = %v, want nothing", got)
	}
	if got := s.counter(t, "kadomori_broker_violations_total"); got != 11 {
		t.Errorf("violations counted = %v, want 11", got)
	}
}

func TestReplySubjectCannotSpoofAnotherAppliance(t *testing.T) {
	s := startBroker(t, nil)
	b := s.mustConnect(t, 1, 7)
	if err := b.PublishRequest("evt.1.7", "evt.2.9", []byte("x")); err != nil {
		t.Fatal(err)
	}
	// A second message with an honest reply: when its acknowledgement is here, that of the first was written too.
	if _, err := b.js.Publish(testContext(t), "evt.1.7", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if got := s.stored(t); got["evt.2.9"] != 0 {
		t.Errorf("the acknowledgement was stored as an event of another appliance: %v", got)
	}
}

func TestMessageIDOfAnotherApplianceDelaysButLosesNothing(t *testing.T) {
	s := startBroker(t, nil)
	a, b := s.mustConnect(t, 1, 7), s.mustConnect(t, 2, 9)
	if _, err := a.js.Publish(testContext(t), "evt.1.7", []byte("poison"), jetstream.WithMsgID("next")); err != nil {
		t.Fatal(err)
	}
	// B sends again until the stream has it, as the spool does: it trims on what the database holds, not on this answer.
	deadline := time.Now().Add(10 * time.Second)
	for s.stored(t)["evt.2.9"] == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the event with the poisoned id was never stored")
		}
		if _, err := b.js.Publish(testContext(t), "evt.2.9", []byte("real"), jetstream.WithMsgID("next")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForeignAndMissingCertificatesFailInTLS(t *testing.T) {
	s := startBroker(t, nil)
	if _, err := s.connectWith(t, "1.7", brokertest.NewAuthority(t).Issue(t, "1.7", time.Now().Add(time.Hour))); err == nil {
		t.Error("a certificate of another CA was let in")
	}
	if _, err := s.connectWith(t, "1.7", s.ca.Issue(t, "1.7", time.Now().Add(-time.Minute))); err == nil {
		t.Error("a certificate that has run out was let in")
	}
	nc, err := nats.Connect("tls://"+s.addr, nats.RootCAs(), nats.Secure(&tls.Config{RootCAs: s.ca.Pool, ServerName: "localhost", MinVersion: tls.VersionTLS13}), nats.NoReconnect())
	if err == nil {
		nc.Close()
		t.Error("a connection without a certificate was let in")
	}
	if nc, err := nats.Connect("nats://"+s.Addr(), nats.Token("guess"), nats.NoReconnect()); err == nil {
		nc.Close()
		t.Error("a connection without TLS was let in")
	}
	if _, err := s.connect(t, 0, 0); err == nil {
		t.Error("clinic 0, appliance 0 was let in: the canary's subject")
	}
}

func TestRevokedWhileConnectedIsCutAndStaysOut(t *testing.T) {
	s := startBroker(t, nil)
	b, other := s.mustConnect(t, 1, 7), s.mustConnect(t, 1, 8)
	s.fleet.revoke(7)
	s.Disconnect(7)
	select {
	case <-b.closed:
		b.closed = make(chan struct{}) // so that the clean-up finds it closed again
		close(b.closed)
	case <-time.After(10 * time.Second):
		t.Fatal("the revoked appliance is still connected")
	}
	if _, err := s.connect(t, 1, 7); err == nil || !strings.Contains(strings.ToLower(err.Error()), "authorization violation") {
		t.Errorf("connecting again: %v, want a refusal", err)
	}
	if _, err := other.js.Publish(testContext(t), "evt.1.8", []byte("x")); err != nil {
		t.Errorf("the other appliance suffers: %v", err)
	}
}

func TestRecheckCutsWhoIsNoLongerAuthorised(t *testing.T) {
	s := startBroker(t, func(c *broker.Config) { c.RecheckInterval = 20 * time.Millisecond })
	b := s.mustConnect(t, 1, 7)
	s.fleet.revoke(7)
	select {
	case <-b.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("still connected after the recheck")
	}
}

func TestThirdConnectionOfOneApplianceReplacesTheOldest(t *testing.T) {
	s := startBroker(t, nil)
	first, second := s.mustConnect(t, 1, 7), s.mustConnect(t, 1, 7)
	third := s.mustConnect(t, 1, 7)
	select {
	case <-first.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the oldest connection was not cut")
	}
	for _, b := range []*box{second, third} {
		if _, err := b.js.Publish(testContext(t), "evt.1.7", []byte("x")); err != nil {
			t.Error(err)
		}
	}
}

func TestFullStreamRefusesAndLosesNothing(t *testing.T) {
	s := startBroker(t, func(c *broker.Config) { c.MaxBytes = 1 << 20 })
	b := s.mustConnect(t, 1, 7)
	body, acked := make([]byte, 64<<10), uint64(0)
	for range 40 {
		_, err := b.js.Publish(testContext(t), "evt.1.7", body)
		if err != nil {
			var api *jetstream.APIError
			if !errors.As(err, &api) || api.ErrorCode != 10077 {
				t.Fatalf("refused with %v, want error 10077", err)
			}
			break
		}
		acked++
	}
	if acked == 0 || acked == 40 {
		t.Fatalf("%d messages of 64 KiB fit into 1 MiB", acked)
	}
	if got := s.stored(t)["evt.1.7"]; got != acked {
		t.Errorf("stored %d, acknowledged %d", got, acked)
	}
}

func TestTooLargeMessageClosesOnlyTheSender(t *testing.T) {
	s := startBroker(t, nil)
	b, other := s.mustConnect(t, 1, 7), s.mustConnect(t, 1, 8)
	if err := b.Publish("evt.1.7", make([]byte, 10<<20)); err == nil {
		t.Error("the client library let 10 MB out: the server's limit is not told")
	}
	if _, err := other.js.Publish(testContext(t), "evt.1.8", []byte("x")); err != nil {
		t.Error(err)
	}
}

func TestStoreOutlivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := startBroker(t, func(c *broker.Config) { c.StoreDir = dir })
	b := s.mustConnect(t, 1, 7)
	if _, err := b.js.Publish(testContext(t), "evt.1.7", []byte("x")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	again := startBroker(t, func(c *broker.Config) { c.StoreDir = dir })
	if got := again.stored(t)["evt.1.7"]; got != 1 {
		t.Errorf("after restart %d messages, want 1", got)
	}
}
