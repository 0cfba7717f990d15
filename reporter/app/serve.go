package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"golang.org/x/sync/errgroup"

	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Queue and Schema are where report jobs wait: a contract with the control plane, which inserts them.
const (
	Queue  = "report"
	Schema = "river"
)

// Job is the argument of a report job.
type Job struct {
	ClinicID int32  `json:"clinic_id"`
	Month    string `json:"month"` // 2026-11
}

// Kind is the job's name in the queue.
func (Job) Kind() string { return "report_render" }

type metrics struct {
	jobs    *prometheus.CounterVec
	seconds prometheus.Histogram
	bytes   prometheus.Histogram
	last    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kadomori_reporter_jobs_total", Help: "Report jobs worked, by result (ok, error, cancelled).",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kadomori_reporter_report_seconds", Help: "Time from job to frozen report.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128},
		}),
		bytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kadomori_reporter_pdf_bytes", Help: "Size of the PDFs made.", Buckets: prometheus.ExponentialBuckets(64<<10, 2, 10),
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kadomori_reporter_last_success_timestamp_seconds", Help: "When a report was last frozen; 0 since start if never.",
		}),
	}
	reg.MustRegister(m.jobs, m.seconds, m.bytes, m.last)
	return m
}

type worker struct {
	river.WorkerDefaults[Job]
	r *Reporter
	m *metrics
}

// Timeout of a job: reading, printing and storing, with the renderer's own limit inside.
func (w *worker) Timeout(*river.Job[Job]) time.Duration { return 10 * time.Minute }

// Work makes and freezes one report. A job that can never succeed is cancelled with its reason, others are tried again.
func (w *worker) Work(ctx context.Context, job *river.Job[Job]) error {
	began := time.Now()
	out, err := w.make(ctx, job.Args)
	switch {
	case err == nil:
		w.m.jobs.WithLabelValues("ok").Inc()
		w.m.seconds.Observe(time.Since(began).Seconds())
		w.m.bytes.Observe(float64(len(out.PDF)))
		w.m.last.SetToCurrentTime()
		return nil
	case permanent(err):
		w.m.jobs.WithLabelValues("cancelled").Inc()
		w.r.log.Error("report job can't succeed", "clinic", job.Args.ClinicID, "month", job.Args.Month, "err", err)
		return river.JobCancel(err)
	}
	w.m.jobs.WithLabelValues("error").Inc()
	w.r.log.Warn("report job did not succeed", "clinic", job.Args.ClinicID, "month", job.Args.Month, "attempt", job.Attempt, "err", err)
	return err
}

func (w *worker) make(ctx context.Context, args Job) (*Report, error) {
	m, err := month.Parse(args.Month)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadJob, err)
	}
	if args.ClinicID <= 0 {
		return nil, fmt.Errorf("%w: clinic %d", errBadJob, args.ClinicID)
	}
	if m.Start().After(w.r.now()) {
		return nil, fmt.Errorf("%w: %s has not begun", errBadJob, m)
	}
	return w.r.Freeze(ctx, args.ClinicID, m)
}

// Run works report jobs until ctx ends. It fails at once when the renderer or the database can't be used.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	r, err := NewReporter(ctx, cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.pool.Ping(ctx); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	versions, err := r.pdf.Versions(ctx)
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{r: r, m: newMetrics(reg)}); err != nil {
		return fmt.Errorf("set up queue: %w", err)
	}
	concurrency := cfg.concurrency()
	client, err := river.NewClient(riverpgxv5.New(r.pool), &river.Config{
		Schema: Schema, Workers: workers, Logger: slogFor(cfg.Logger.Named("queue")),
		Queues:       map[string]river.QueueConfig{Queue: {MaxWorkers: concurrency}},
		JobTimeout:   10 * time.Minute,
		ErrorHandler: panics{cfg.Logger},
	})
	if err != nil {
		return fmt.Errorf("set up queue: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	if cfg.Listen.Metrics != "" {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen.Metrics)
		if err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
		cfg.Logger.Info("serving metrics", "address", listener.Addr().String())
		serveMetrics(ctx, group, listener, reg, r)
	}
	group.Go(func() error {
		// Jobs are stopped below, softly first: the queue must not be cut by ctx.
		if err := client.Start(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("start queue: %w", err)
		}
		cfg.Logger.Info("working report jobs", "queue", Queue, "concurrency", concurrency, "renderer", versions)
		<-ctx.Done()
		soft, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if err := client.Stop(soft); err == nil {
			return nil
		}
		hard, cancelHard := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancelHard()
		if err := client.StopAndCancel(hard); err != nil {
			return fmt.Errorf("stop queue: %w", err)
		}
		return nil
	})
	return group.Wait()
}

func serveMetrics(ctx context.Context, group *errgroup.Group, listener net.Listener, reg *prometheus.Registry, r *Reporter) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
		defer cancel()
		if err := r.pool.Ping(ctx); err != nil {
			http.Error(w, "database: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(stop)
	})
}

// panics turns a panic in a job into a logged error; the queue tries the job again.
type panics struct{ log hclog.Logger }

// HandleError leaves errors to Work.
func (panics) HandleError(context.Context, *rivertype.JobRow, error) *river.ErrorHandlerResult {
	return nil
}

// HandlePanic logs the panic.
func (p panics) HandlePanic(_ context.Context, job *rivertype.JobRow, value any, trace string) *river.ErrorHandlerResult {
	p.log.Error("report job panicked", "job", job.ID, "panic", fmt.Sprint(value), "trace", trace)
	return nil
}
