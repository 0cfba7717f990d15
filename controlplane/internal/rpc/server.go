// Package rpc serves gRPC: enrolment for new appliances, desired state for admitted ones, and everything the command line does for
// operators. One listener, TLS 1.3, client certificates verified when given. The application starts it. The trap: who may call what
// is decided here by method name (auth.go); a new RPC without a rule is refused.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/command"
	"github.com/kadomori/kadomori/controlplane/internal/enrol"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// Limits and times of the listener. Measured: 54 KB for each idle Watch with these buffers.
const (
	maxMessage   = 1 << 20 // bytes of one message received
	maxStreams   = 8       // at once on one connection
	ioBuffer     = 4 << 10
	chunkSize    = 64 << 10
	maxFetches   = 64 // FetchBundle at once
	stopPatience = 5 * time.Second
)

// DB runs transactions; *postgres.DB is one.
type DB interface {
	As(ctx context.Context, clinics []int32, fn func(pgx.Tx) error) error
	Fleet(ctx context.Context, actor string, fn func(pgx.Tx) error) error
}

// Reports queues the rendering of reports.
type Reports interface {
	Request(ctx context.Context, tx pgx.Tx, clinic int32, month string) error
}

// Config of New. All but Disconnect, Now, Log and Metrics are needed.
type Config struct {
	DB        DB
	Pool      *pgxpool.Pool // listens for notices
	Authority *pki.Authority
	Registry  *pki.Registry
	Enrolment *enrol.Enrolment
	Publisher *appliance.Publisher
	Bundles   *bundle.Store
	Accounts  *account.Accounts
	Reports   Reports
	Rollouts  *rollout.Rollouts
	Commands  *command.Commands
	// Names are host names and addresses in the server's certificate.
	Names []string
	// FleetAddress (host:port) and NATSURL (tls://host:port) stand in identities.
	FleetAddress string
	NATSURL      string
	// Disconnect cuts an appliance's other connections (the broker's) when it is revoked.
	Disconnect func(appliance int32)
	Now        func() time.Time // nil: time.Now
	Log        hclog.Logger
	Metrics    prometheus.Registerer
}

// Server is the gRPC listener.
type Server struct {
	cfg     Config
	log     hclog.Logger
	now     func() time.Time
	grpc    *grpc.Server
	hub     *hub
	fetches chan struct{}
	metrics metrics
}

type metrics struct {
	watches  prometheus.Gauge
	clones   prometheus.Counter
	pushes   prometheus.Counter
	fetched  prometheus.Counter
	requests *prometheus.CounterVec
}

// New returns a server that is not yet listening.
func New(cfg Config) (*Server, error) {
	if cfg.DB == nil || cfg.Pool == nil || cfg.Authority == nil || cfg.Registry == nil || cfg.Enrolment == nil || cfg.Publisher == nil ||
		cfg.Bundles == nil || cfg.Accounts == nil || cfg.Reports == nil || cfg.Rollouts == nil || cfg.Commands == nil {
		return nil, errors.New("open rpc server: a part is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Disconnect == nil {
		cfg.Disconnect = func(int32) {}
	}
	s := &Server{cfg: cfg, log: cfg.Log.Named("rpc"), now: cfg.Now, fetches: make(chan struct{}, maxFetches), metrics: newMetrics(cfg.Metrics)}
	s.hub = newHub(s)
	tlsConfig, err := cfg.Authority.TLS(cfg.Names, pki.OptionalClients)
	if err != nil {
		return nil, fmt.Errorf("open rpc server: %w", err)
	}
	tlsConfig.NextProtos = []string{"h2"}
	s.grpc = grpc.NewServer(
		grpc.Creds(pace(credentials.NewTLS(tlsConfig))),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 60 * time.Second, Timeout: 20 * time.Second, MaxConnectionAge: 6 * time.Hour, MaxConnectionAgeGrace: time.Minute}),
		grpc.ReadBufferSize(ioBuffer), grpc.WriteBufferSize(ioBuffer), // write buffers are shared by default
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxRecvMsgSize(maxMessage), grpc.ConnectionTimeout(20*time.Second),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
	enrolv1.RegisterEnrolServiceServer(s.grpc, &enrolService{s: s})
	fleetv1.RegisterFleetServiceServer(s.grpc, &fleetService{s: s})
	operatorv1.RegisterOperatorServiceServer(s.grpc, &operatorService{s: s})
	return s, nil
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		watches:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "kadomori_rpc_watches", Help: "Appliances connected to this process."}),
		clones:   prometheus.NewCounter(prometheus.CounterOpts{Name: "kadomori_rpc_clones_total", Help: "Appliances whose key was used from several places."}),
		pushes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "kadomori_rpc_pushes_total", Help: "Desired states sent."}),
		fetched:  prometheus.NewCounter(prometheus.CounterOpts{Name: "kadomori_rpc_fetched_bytes_total", Help: "Bundle content sent, bytes."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kadomori_rpc_requests_total", Help: "Calls that ended, by method and code."}, []string{"method", "code"}),
	}
	if r != nil {
		r.MustRegister(m.watches, m.clones, m.pushes, m.fetched, m.requests)
	}
	return m
}

// Run serves on lis until ctx ends, then lets calls finish for a few seconds. It closes lis.
func (s *Server) Run(ctx context.Context, lis net.Listener) error {
	hubDone := make(chan error, 1)
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx)) // the hub outlives the streams: it notes their ends
	go func() { hubDone <- s.hub.run(hubCtx) }()
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(lis) }()
	s.log.Info("listening", "address", lis.Addr())
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		s.hub.closeStreams()
		graceful := make(chan struct{})
		go func() { s.grpc.GracefulStop(); close(graceful) }()
		timer := time.NewTimer(stopPatience)
		select {
		case <-graceful:
		case <-timer.C:
			s.grpc.Stop()
			<-graceful
		}
		timer.Stop()
		err = <-served
	}
	stopHub()
	return errors.Join(err, <-hubDone)
}

// Committed tells a connected appliance what the database holds of a stream. Ingest calls it after each commit; it never blocks.
func (s *Server) Committed(appliance int32, stream [16]byte, through uint64) {
	s.hub.committed(appliance, stream, through)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a call", "method", info.FullMethod, "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
		s.metrics.requests.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	}()
	if ctx, err = s.authenticate(ctx, info.FullMethod); err != nil {
		return nil, s.toStatus(info.FullMethod, err)
	}
	resp, err = next(ctx, req)
	return resp, s.toStatus(info.FullMethod, err)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a stream", "method", info.FullMethod, "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
		s.metrics.requests.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	}()
	ctx, err := s.authenticate(ss.Context(), info.FullMethod)
	if err != nil {
		return s.toStatus(info.FullMethod, err)
	}
	return s.toStatus(info.FullMethod, next(srv, &authenticated{ServerStream: ss, ctx: ctx}))
}

// authenticated carries the caller's identity into a stream's handler.
type authenticated struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream hands its context out this way
}

func (a *authenticated) Context() context.Context { return a.ctx }
