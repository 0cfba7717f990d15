package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/command"
	"github.com/kadomori/kadomori/controlplane/internal/enrol"
	"github.com/kadomori/kadomori/controlplane/internal/evidence"
	"github.com/kadomori/kadomori/controlplane/internal/ingest"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
	"github.com/kadomori/kadomori/controlplane/internal/rpc"
	"github.com/kadomori/kadomori/controlplane/web"
)

// ReadyFile is the file in DataDir that exists while all listeners are up.
const ReadyFile = "ready"

// stopLimit bounds each step of the stop.
const stopLimit = 15 * time.Second

// Addresses are where a running control plane listens, for those who asked for port 0.
type Addresses struct {
	GRPC, Console, Metrics string // host:port; Metrics may be empty
	NATS                   string // tls://host:port as appliances are told
}

// cleanup undoes what Run built, last first; each step has a name for the log.
type cleanup struct {
	log   hclog.Logger
	steps []func()
}

func (c *cleanup) add(name string, fn func() error) {
	c.steps = append(c.steps, func() {
		start := time.Now()
		if err := fn(); err != nil {
			c.log.Warn("part did not stop cleanly", "part", name, "err", err)
		}
		c.log.Debug("stopped", "part", name, "took", time.Since(start).Round(time.Millisecond))
	})
}

func (c *cleanup) run() {
	for i := len(c.steps) - 1; i >= 0; i-- {
		c.steps[i]()
	}
}

// Run builds the control plane, serves until ctx ends or a part fails, and stops it in reverse order. ready (may be nil) is called
// once when all listeners are up.
func Run(ctx context.Context, cfg Config, log hclog.Logger, ready func(Addresses)) (err error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	done := cleanup{log: log}
	defer done.run()
	if err := os.MkdirAll(cfg.DataDir, 0o711); err != nil { //nolint:gosec // postgres, another user, passes through
		return fmt.Errorf("make data directory: %w", err)
	}
	readyFile := filepath.Join(cfg.DataDir, ReadyFile)
	if err := os.Remove(readyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale ready file: %w", err)
	}
	sayOpenFiles(log)
	if os.Getenv("GOGC") == "" {
		// Most of the memory are thousands of idle streams that never change: letting the heap double costs more than collecting.
		debug.SetGCPercent(50)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	// Database.
	db, err := openDatabase(ctx, cfg, log, &done)
	if err != nil {
		return err
	}
	accounts, err := account.New(account.Config{Pool: db.App, Log: log})
	if err != nil {
		return err
	}
	if err := accounts.Bootstrap(ctx, filepath.Join(cfg.DataDir, "admin-password")); err != nil {
		return err
	}
	err = db.Fleet(ctx, "system:start", func(tx pgx.Tx) error {
		_, err := policy.EnsureDefaultPlan(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}

	// Keys.
	authority, err := pki.Open(pki.Config{Dir: cfg.PKI.Dir, Log: log})
	if err != nil {
		return err
	}
	certificates := pki.NewRegistry(db, nil)
	key, err := bundle.LoadOrMakeKey(cfg.PKI.BundleKeyFile)
	if err != nil {
		return err
	}
	bundles, err := bundle.New(bundle.Config{Key: key})
	if err != nil {
		return err
	}

	// Listeners first, so that addresses are known where ports were 0.
	grpcListener, err := listen(ctx, "listen.grpc", cfg.Listen.GRPC, &done)
	if err != nil {
		return err
	}
	consoleListener, err := listen(ctx, "listen.console", cfg.Listen.Console, &done)
	if err != nil {
		return err
	}
	addr := Addresses{GRPC: grpcListener.Addr().String(), Console: consoleListener.Addr().String()}
	publicGRPC := publicAddress(cfg.Public.GRPC, addr.GRPC)

	// Events.
	nc, disconnect, bound, err := openBroker(ctx, cfg, authority, certificates, registry, log, &done)
	if err != nil {
		return err
	}
	addr.NATS = cfg.Public.NATS
	if addr.NATS == "" {
		addr.NATS = "tls://" + publicAddress("", bound)
	}

	// Fleet.
	protected, err := protectedPrefixes(ctx, cfg.NeverBlock, hostOf(publicGRPC), hostOf(addr.NATS))
	if err != nil {
		return err
	}
	publisher, err := appliance.NewPublisher(appliance.Config{DB: db, Bundles: bundles, Protected: protected})
	if err != nil {
		return err
	}
	enrolment, err := enrol.New(enrol.Config{DB: db, Authority: authority, Registry: certificates, Admitter: publisher, Server: publicGRPC, Log: log})
	if err != nil {
		return err
	}
	rollouts, err := rollout.New(rollout.Config{DB: db, Publisher: publisher, Bundles: bundles, Log: log})
	if err != nil {
		return err
	}
	commands, err := command.New(command.Config{DB: db, Bundles: bundles, TwoPersons: cfg.twoPersons()})
	if err != nil {
		return err
	}
	keeper, err := evidence.NewKeeper(evidence.Config{DB: db, Metrics: registry, Log: log})
	if err != nil {
		return err
	}
	reports, err := newReports(db)
	if err != nil {
		return err
	}
	server, err := rpc.New(rpc.Config{
		DB: db, Pool: db.App, Authority: authority, Registry: certificates, Enrolment: enrolment, Publisher: publisher, Bundles: bundles,
		Accounts: accounts, Reports: reports, Rollouts: rollouts, Commands: commands, Names: certificateNames(hostOf(publicGRPC), hostOf(cfg.Listen.GRPC), "localhost", "127.0.0.1"),
		FleetAddress: publicGRPC, NATSURL: addr.NATS, Disconnect: disconnect, Log: log, Metrics: registry,
	})
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	intake, err := ingest.New(ingest.Config{
		DB: db, JetStream: js, Log: log, Metrics: registry,
		OnCommitted: func(_, appliance int32, stream [16]byte, through uint64) {
			server.Committed(appliance, stream, through)
		},
	})
	if err != nil {
		return err
	}

	// Console.
	console, err := web.New(web.Config{DB: db, Accounts: consoleAccounts{accounts}, Appliances: publisher, Claims: enrolment, Rollouts: rollouts, Team: accounts, Log: log})
	if err != nil {
		return err
	}
	names := append([]string{hostOf(publicGRPC), hostOf(cfg.Listen.Console), "localhost", "127.0.0.1"}, cfg.Console.Names...)
	consoleTLS, err := authority.TLS(certificateNames(names...), pki.NoClients)
	if err != nil {
		return err
	}
	consoleTLS.NextProtos = []string{"h2", "http/1.1"}

	tasks := []task{
		{"rpc", func(ctx context.Context) error { return server.Run(ctx, grpcListener) }},
		{"ingest", intake.Run},
		{"evidence", keeper.Run},
		{"upkeep", (&upkeep{publisher: publisher, rollouts: rollouts, commands: commands, log: log.Named("upkeep")}).run},
		{"console", func(ctx context.Context) error {
			return serveHTTP(ctx, tls.NewListener(consoleListener, consoleTLS), console, console.Close, log.Named("console"))
		}},
	}
	if cfg.Listen.Metrics != "" {
		l, err := listen(ctx, "listen.metrics", cfg.Listen.Metrics, &done)
		if err != nil {
			return err
		}
		addr.Metrics = l.Addr().String()
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
			if err := db.App.Ping(r.Context()); err != nil {
				http.Error(w, "database: not reachable", http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte("ok\n"))
		})
		tasks = append(tasks, task{"metrics", func(ctx context.Context) error { return serveHTTP(ctx, l, mux, func() {}, log.Named("metrics")) }})
	}
	if err := os.WriteFile(readyFile, []byte(strings.Join([]string{addr.GRPC, addr.NATS, addr.Console}, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	done.add("ready file", func() error { return os.Remove(readyFile) })
	log.Info("control plane is up", "grpc", addr.GRPC, "nats", addr.NATS, "console", "https://"+addr.Console)
	if ready != nil {
		ready(addr)
	}
	return runTasks(ctx, tasks)
}

type task struct {
	name string
	run  func(context.Context) error
}

// runTasks runs all until ctx ends; the first error ends the others, a panic becomes an error.
func runTasks(ctx context.Context, tasks []task) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		group.Go(func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("%s: panic: %v\n%s", t.name, p, debug.Stack())
				}
			}()
			if err := t.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("run %s: %w", t.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func listen(ctx context.Context, key, address string, done *cleanup) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	done.add(key, func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

// serveHTTP serves until ctx ends; before is called first then, to end what would keep the server waiting.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, before func(), log hclog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		before()
		return err
	case <-ctx.Done():
	}
	before()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	err := srv.Shutdown(stop)
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// openDatabase opens what the configuration names, or starts and migrates a private server.
func openDatabase(ctx context.Context, cfg Config, log hclog.Logger, done *cleanup) (*postgres.DB, error) {
	open := postgres.Config{Log: log}
	if cfg.Database.AppDSNFile != "" {
		var err1, err2 error
		open.AppDSN, err1 = readSecret("database.app_dsn_file", cfg.Database.AppDSNFile)
		open.IngestDSN, err2 = readSecret("database.ingest_dsn_file", cfg.Database.IngestDSNFile)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
	} else {
		private, err := postgres.Private(ctx, postgres.PrivateConfig{Dir: filepath.Join(cfg.DataDir, "postgresql"), Log: log})
		if err != nil {
			return nil, fmt.Errorf("start private database: %w", err)
		}
		done.add("private database", private.Stop)
		if err := postgres.Migrate(ctx, private.DSN(postgres.RoleOwner)); err != nil {
			return nil, err
		}
		open.AppDSN, open.IngestDSN = private.DSN(postgres.RoleApp), private.DSN(postgres.RoleIngest)
		for file, role := range map[string]string{"reporter.dsn": postgres.RoleReporter, "app.dsn": postgres.RoleApp, "owner.dsn": postgres.RoleOwner} {
			if err := writeSecret(filepath.Join(cfg.DataDir, file), private.DSN(role)); err != nil {
				return nil, err
			}
		}
	}
	db, err := postgres.Open(ctx, open)
	if err != nil {
		return nil, err
	}
	done.add("database", func() error { db.Close(); return nil })
	return db, nil
}

// openBroker starts the embedded broker or connects to an external one. bound is where the embedded one listens.
func openBroker(ctx context.Context, cfg Config, authority *pki.Authority, certificates *pki.Registry, metrics prometheus.Registerer,
	log hclog.Logger, done *cleanup,
) (nc *nats.Conn, disconnect func(int32), bound string, err error) {
	authorise := func(cert *x509.Certificate) (clinic, appliance int32, err error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		id, err := certificates.Authorise(ctx, cert)
		return id.Clinic, id.Appliance, err
	}
	if cfg.NATS.URL != "" {
		external, err := connectNATS(ctx, cfg.NATS, authority, authorise, metrics, log)
		if err != nil {
			return nil, nil, "", err
		}
		done.add("external broker", func() error { external.Close(); return nil })
		if nc, err = external.Conn(); err != nil {
			return nil, nil, "", err
		}
		done.add("broker connection", func() error { nc.Close(); return nil })
		return nc, external.Disconnect, "", nil
	}
	tlsConfig, err := authority.TLS(certificateNames(hostOf(cfg.Public.NATS), hostOf(publicAddress(cfg.Public.GRPC, cfg.Listen.GRPC)),
		hostOf(publicAddress("", cfg.Listen.NATS)), "localhost", "127.0.0.1"), pki.RequiredClients)
	if err != nil {
		return nil, nil, "", err
	}
	b, err := broker.Start(ctx, broker.Config{
		Listen: cfg.Listen.NATS, TLS: tlsConfig, StoreDir: filepath.Join(cfg.DataDir, "broker"), Metrics: metrics, Log: log,
		Authorise: authorise,
	})
	if err != nil {
		return nil, nil, "", err
	}
	done.add("broker", func() error { b.Close(); return nil })
	if nc, err = b.Conn(); err != nil {
		return nil, nil, "", err
	}
	done.add("broker connection", func() error { nc.Close(); return nil })
	return nc, b.Disconnect, b.Addr(), nil
}

func readSecret(key, file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s: %s is empty", key, file)
	}
	return s, nil
}

// writeSecret replaces a file of mode 0600 so that a crash leaves the old or the new one.
func writeSecret(file, text string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = f.WriteString(text + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// sayOpenFiles tells how many appliances the limit of open files allows: each needs two sockets, gRPC's and NATS's.
func sayOpenFiles(log hclog.Logger) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return
	}
	const reserve, few = 512, 4096
	allowed := uint64(0)
	if l.Cur > reserve {
		allowed = (l.Cur - reserve) / 2
	}
	if l.Cur < few {
		log.Warn("the limit of open files is low; raise LimitNOFILE", "limit", l.Cur, "appliances", allowed)
		return
	}
	log.Info("limit of open files", "limit", l.Cur, "appliances", allowed)
}
