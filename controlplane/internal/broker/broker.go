// Package broker carries the appliances' events to ingest: it embeds a nats-server with JetStream and decides who may publish where.
//
// The control plane's wiring starts it; ingest reads from it. Appliances live in account APPL and reach the stream, which lies in account
// STORE, only through a service import: so the reply subject of one appliance can't be written into the stream as another's event.
// Trap: the broker is transport, not archive. An acknowledged message may be lost with the machine; what trims an appliance's spool is
// what the database holds.
package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// Names that appliances, ingest and external NATS configurations agree on.
const (
	AccountAppliance = "APPL"
	AccountStore     = "STORE"
	Stream           = "EVENTS"
	SubjectPrefix    = "evt."
	// CanarySubject is of no appliance (ids start at 1). Ingest acknowledges and forgets what comes on it.
	CanarySubject = "evt.0.0"
)

// Limits of the embedded server.
const (
	// MaxMessage is the largest message in bytes: 256 events of 4 KiB, uncompressed.
	MaxMessage = 1 << 20
	// maxPerAppliance is how many messages of one appliance the stream keeps. Once full, that appliance is refused and keeps its events
	// on its own disk; the others go on. Ingest purges what it has committed long before.
	maxPerAppliance = 16384
	// maxAge bounds how far back events can be read again after the database was restored from a backup.
	maxAge = 7 * 24 * time.Hour
	// connectionsPerAppliance: one, and one more while the old one's death has not been noticed.
	connectionsPerAppliance = 2
)

// Config of the embedded broker.
type Config struct {
	// Listen is "host:port"; port 0 takes any free port.
	Listen string
	// TLS holds the server's certificate and the CA of the appliances (ClientCAs). A client certificate is always demanded.
	TLS *tls.Config
	// StoreDir is where JetStream keeps its files.
	StoreDir string
	// MaxBytes of the stream; 0 means half of the free space, at most 8 GiB.
	MaxBytes int64
	// Authorise names the appliance of a verified certificate, or refuses. Called at each connection and every RecheckInterval.
	Authorise func(*x509.Certificate) (clinic, appliance int32, err error)
	// CanaryInterval is the time between two test messages; 0 means 10 s. After three that fail the server restarts.
	CanaryInterval time.Duration
	// RecheckInterval is the time after which Authorise is asked again about those connected; 0 means 5 min.
	RecheckInterval time.Duration
	// Metrics registers kadomori_broker_*; nil registers nothing.
	Metrics prometheus.Registerer
	Log     hclog.Logger
}

func (c Config) validate() error {
	switch {
	case c.Listen == "":
		return errors.New("no address to listen on")
	case c.TLS == nil || len(c.TLS.Certificates) == 0 && c.TLS.GetCertificate == nil:
		return errors.New("no TLS certificate given")
	case c.TLS.ClientCAs == nil:
		return errors.New("no CA for the appliances' certificates given")
	case c.StoreDir == "":
		return errors.New("no store directory given")
	case c.Authorise == nil:
		return errors.New("no authorisation function given")
	}
	return nil
}

// Broker is a running embedded server and what watches over it.
type Broker struct {
	cfg     Config
	host    string
	token   string
	log     hclog.Logger
	gate    *gate
	metrics *metrics

	mu     sync.Mutex // guards what follows
	port   int        // the one in use, kept over restarts
	srv    *server.Server
	closed bool

	cancel context.CancelFunc
	loops  sync.WaitGroup
}

// Start starts the server, makes the stream and begins to watch it. The broker runs until Close; ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	cfg.CanaryInterval = cmp.Or(cfg.CanaryInterval, 10*time.Second)
	cfg.RecheckInterval = cmp.Or(cfg.RecheckInterval, 5*time.Minute)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	b := &Broker{cfg: cfg, log: cfg.Log.Named("broker"), metrics: newMetrics(cfg.Metrics)}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	b.host = host
	if b.port, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("start broker: port %q is not a number", port)
	}
	if b.port == 0 {
		b.port = server.RANDOM_PORT
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	b.token = hex.EncodeToString(secret)
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	if b.cfg.MaxBytes == 0 {
		if b.cfg.MaxBytes, err = defaultMaxBytes(cfg.StoreDir); err != nil {
			return nil, fmt.Errorf("start broker: %w", err)
		}
	}
	b.gate = newGate(b.token, cfg.Authorise, b.log, b.metrics)
	if err := b.startServer(ctx); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	b.loops.Go(func() { b.watch(run) })
	b.loops.Go(func() { b.sweep(run) })
	b.log.Info("listening", "address", b.Addr(), "max_bytes", b.cfg.MaxBytes)
	return b, nil
}

// defaultMaxBytes leaves half of what is free: a full volume is a state the server doesn't come out of by itself.
func defaultMaxBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	const least = 64 << 20
	if free/2 < least {
		return 0, fmt.Errorf("%s has %d MiB free, the broker needs %d at least", dir, free>>20, 2*least>>20)
	}
	return min(free/2, 8<<30), nil
}

// Addr is the address that appliances connect to.
func (b *Broker) Addr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return net.JoinHostPort(cmp.Or(b.host, "0.0.0.0"), strconv.Itoa(b.port))
}

// Conn opens a connection inside the process, in account STORE, with rights to everything there. It outlives a restart of the server.
// The caller closes it before the broker.
func (b *Broker) Conn() (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(b), nats.Token(b.token), nats.Name("kadomori-control"),
		nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	return nc, nil
}

// InProcessConn serves nats.InProcessServer; after a restart it leads to the new server.
func (b *Broker) InProcessConn() (net.Conn, error) {
	b.mu.Lock()
	srv, closed := b.srv, b.closed
	b.mu.Unlock()
	if closed || srv == nil {
		return nil, errors.New("broker is closed")
	}
	return srv.InProcessConn()
}

// Disconnect cuts every connection of the appliance, for revocation: the caller has changed what Authorise answers before.
func (b *Broker) Disconnect(appliance int32) {
	b.mu.Lock()
	srv := b.srv
	b.mu.Unlock()
	for _, cid := range b.gate.revoke(appliance) {
		if err := srv.DisconnectClientByID(cid); err == nil {
			b.log.Info("disconnected", "appliance", appliance)
		}
		b.gate.forget(cid)
	}
}

// Close stops the watchers and the server and waits for both. Messages in flight that were not acknowledged are not kept.
func (b *Broker) Close() {
	b.cancel()
	b.loops.Wait()
	b.mu.Lock()
	b.closed = true
	srv := b.srv
	b.mu.Unlock()
	srv.Shutdown()
	srv.WaitForShutdown()
}

// options of the server; made anew at every restart.
func (b *Broker) options(port int) *server.Options {
	tc := b.cfg.TLS.Clone()
	tc.ClientAuth = tls.RequireAndVerifyClientCert
	tc.MinVersion = max(tc.MinVersion, tls.VersionTLS12)
	return &server.Options{
		ServerName: "kadomori", Host: b.host, Port: port, NoSigs: true, NoLog: true,
		MaxPayload: MaxMessage + 4096, MaxControlLine: 4096, MaxSubs: 64,
		PingInterval: 30 * time.Second, MaxPingsOut: 2, WriteDeadline: 10 * time.Second,
		TLSConfig: tc, TLSVerify: true, TLSTimeout: 10, AuthTimeout: 15,
		CustomClientAuthentication: b.gate,
		Accounts:                   []*server.Account{server.NewAccount(AccountAppliance), server.NewAccount(AccountStore)},
		JetStream:                  true, StoreDir: b.cfg.StoreDir, JetStreamMaxMemory: 64 << 20,
		JetStreamMaxStore: b.cfg.MaxBytes + 256<<20, // a little more for the streams beside EVENTS
		SyncInterval:      time.Second,
	}
}

func (b *Broker) startServer(ctx context.Context) error {
	b.mu.Lock()
	port := b.port
	b.mu.Unlock()
	srv, err := server.NewServer(b.options(port))
	if err != nil {
		return err
	}
	srv.SetLoggerV2(&serverLog{log: b.log.Named("nats"), metrics: b.metrics}, false, false, false)
	stop := func(err error) error {
		srv.Shutdown()
		srv.WaitForShutdown()
		return err
	}
	// NewServer copied the accounts: only its own copies count.
	appl, err := srv.LookupAccount(AccountAppliance)
	if err != nil {
		return stop(err)
	}
	store, err := srv.LookupAccount(AccountStore)
	if err != nil {
		return stop(err)
	}
	if err := store.AddServiceExport(SubjectPrefix+">", []*server.Account{appl}); err != nil {
		return stop(fmt.Errorf("export the stream: %w", err))
	}
	if err := appl.AddServiceImport(store, SubjectPrefix+">", SubjectPrefix+">"); err != nil {
		return stop(fmt.Errorf("import the stream: %w", err))
	}
	b.gate.accounts(appl, store)
	b.mu.Lock()
	b.srv = srv
	b.mu.Unlock()
	srv.Start()
	wait := 60 * time.Second
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d))
	}
	if !srv.ReadyForConnections(wait) {
		return stop(fmt.Errorf("the server did not start within %s: is %s in use?", wait.Round(time.Second), b.cfg.Listen))
	}
	if addr, ok := srv.Addr().(*net.TCPAddr); ok {
		b.mu.Lock()
		b.port = addr.Port
		b.mu.Unlock()
	}
	if err := store.EnableJetStream(map[string]server.JetStreamAccountLimits{
		"": {MaxMemory: 16 << 20, MaxStore: b.cfg.MaxBytes + 128<<20, MaxStreams: -1, MaxConsumers: -1},
	}, nil); err != nil {
		return stop(fmt.Errorf("enable the store: %w", err))
	}
	nc, err := b.Conn()
	if err != nil {
		return stop(err)
	}
	defer nc.Close()
	if err := MakeStream(ctx, nc, b.cfg.MaxBytes, 1); err != nil {
		return stop(err)
	}
	return nil
}

// MakeStream makes or updates the stream EVENTS on a connection of account STORE. replicas is 1, or 3 in a cluster.
func MakeStream(ctx context.Context, nc *nats.Conn, maxBytes int64, replicas int) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("make stream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: Stream, Subjects: []string{SubjectPrefix + "*.*"}, Storage: jetstream.FileStorage, Replicas: replicas,
		Retention: jetstream.LimitsPolicy, MaxAge: maxAge, MaxBytes: maxBytes, MaxMsgSize: MaxMessage,
		Discard: jetstream.DiscardNew, MaxMsgsPerSubject: maxPerAppliance, DiscardNewPerSubject: true,
		// The shortest window the server takes: ids are no protection here (one appliance could use up another's), the ledger is.
		Duplicates: 100 * time.Millisecond,
	})
	if err != nil {
		return fmt.Errorf("make stream: %w", err)
	}
	return nil
}
