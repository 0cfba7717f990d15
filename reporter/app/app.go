// Package app wires the reporter: it is the only package that knows all others. Command kadomori-reporter and the tests that run
// the whole system call Main or Run. The trap: a report is made under a lock of its clinic and month, so that the revision that
// is printed is the one that is frozen.
package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/reporter/data"
	"github.com/kadomori/kadomori/reporter/internal/checklist"
	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/page"
	"github.com/kadomori/kadomori/reporter/internal/query"
	"github.com/kadomori/kadomori/reporter/internal/render"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// Main runs the command line and returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand(stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintln(stderr, "kadomori-reporter:", err)
		return 1
	}
	return 0
}

func rootCommand(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "kadomori-reporter",
		Short:         "Make the monthly report of a clinic",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	var file string
	root.PersistentFlags().StringVar(&file, "config", "", "configuration `file` (YAML)")
	load := func() (Config, error) {
		cfg, err := ReadConfig(file)
		if err != nil {
			return cfg, err
		}
		return cfg, nil
	}
	logger := func(cfg *Config) {
		level := hclog.LevelFromString(cfg.Log.Level)
		if level == hclog.NoLevel {
			level = hclog.Info
		}
		cfg.Logger = hclog.New(&hclog.LoggerOptions{Name: "reporter", Level: level, Output: stderr, JSONFormat: cfg.Log.Format == "json"})
	}
	root.AddCommand(
		serveCommand(load, logger), renderCommand(load, logger, stdout), annualCommand(load, logger, stdout), verifyCommand(load, logger, stdout), validateCommand(load, stdout), versionCommand(stdout),
	)
	return root
}

func serveCommand(load func() (Config, error), logger func(*Config)) *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Work report jobs until told to stop", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return err
			}
			logger(&cfg)
			return Run(cmd.Context(), cfg)
		},
	}
}

func validateCommand(load func() (Config, error), stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use: "validate", Short: "Check the configuration and the wording without starting", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return err
			}
			if _, err := wording.Load(data.Files); err != nil {
				return err
			}
			if _, err := checklist.Load(data.Files); err != nil {
				return err
			}
			if _, err := render.NewHTML(data.Files); err != nil {
				return err
			}
			_, err = fmt.Fprintln(stdout, "configuration is valid")
			return err
		},
	}
}

func versionCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(stdout, "kadomori-reporter", version())
			return err
		},
	}
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

// Reporter makes reports from a database.
type Reporter struct {
	pool  *pgxpool.Pool
	w     *wording.Set
	html  *render.HTML
	packs []checklist.Pack
	pdf   *render.PDF
	now   func() time.Time
	log   hclog.Logger
}

// NewReporter connects and reads the data files. Close it.
func NewReporter(ctx context.Context, cfg Config) (*Reporter, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	dsn, err := cfg.dsn()
	if err != nil {
		return nil, err
	}
	r := &Reporter{now: cfg.now, log: cfg.Logger}
	if r.w, err = wording.Load(data.Files); err != nil {
		return nil, err
	}
	if r.packs, err = checklist.Load(data.Files); err != nil {
		return nil, err
	}
	if r.html, err = render.NewHTML(data.Files); err != nil {
		return nil, err
	}
	r.pdf, err = render.NewPDF(render.PDFConfig{
		Python: cfg.Renderer.Python, Concurrency: cfg.concurrency(), Timeout: cfg.Renderer.Timeout, Log: cfg.Logger.Named("pdf"),
	})
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read dsn: %w", err)
	}
	pool.ConnConfig.RuntimeParams["application_name"] = "kadomori-reporter"
	if r.pool, err = pgxpool.NewWithConfig(ctx, pool); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return r, nil
}

// Close gives the connections back.
func (r *Reporter) Close() { r.pool.Close() }

// Report is one finished report.
type Report struct {
	Facts           *month.Facts
	JSON            []byte // canonical facts
	HTML, PDF       []byte
	DataSHA, PDFSHA [32]byte
	Renderer        string
	ID              int64 // report_id when it was frozen
}

// Make builds the report of a month as it stands now. Nothing is stored.
func (r *Reporter) Make(ctx context.Context, clinic int32, m month.Month, format Format) (*Report, error) {
	return r.make(ctx, r.pool, clinic, m, format)
}

func (r *Reporter) make(ctx context.Context, db query.Beginner, clinic int32, m month.Month, format Format) (*Report, error) {
	// The second is all that the file's dates hold.
	now := r.now().Truncate(time.Second)
	facts, err := query.Facts(ctx, db, clinic, m, query.Options{
		Now: now, Holidays: r.w.Holidays, CareWords: r.w.CareWords,
		RemoteApps: r.w.Using("remote"), UpdateApps: r.w.Using("update"),
	})
	if err != nil {
		return nil, err
	}
	return r.print(ctx, facts, format)
}

// Variants of a month's report.
const (
	Monthly = "monthly" // the whole report: the one that is frozen
	Summary = "summary" // page 1 alone, for the director
	Flash   = "flash"   // same-day report of the devices under suspicion
)

// Format says which document to make of a month.
type Format struct {
	Variant string // Monthly when empty
	// PDF is "pdf/a-3b" (default; for keeping) or "pdf/ua-1" (tagged, for screen readers).
	PDF string
}

// print makes documents out of facts.
func (r *Reporter) print(ctx context.Context, facts *month.Facts, format Format) (*Report, error) {
	p, err := page.Build(facts, r.w, r.packs, r.html.CSS())
	if err != nil {
		return nil, err
	}
	out := &Report{Facts: facts}
	if out.JSON, err = facts.Canonical(); err != nil {
		return nil, err
	}
	out.DataSHA = sha256.Sum256(out.JSON)
	id := fmt.Sprintf("%s-%d", facts.DocumentNo, facts.Revision)
	var files []render.Attachment
	switch format.Variant {
	case Summary:
		p.MakeShort()
		id += "-summary"
		out.HTML, err = r.html.Summary(p)
	case Flash:
		if err := p.MakeFlash(facts, r.w); err != nil {
			return nil, err
		}
		id += "-flash"
		out.HTML, err = r.html.Flash(p)
	case Monthly, "":
		evidence, devices, ferr := page.Files(facts, r.w)
		if ferr != nil {
			return nil, ferr
		}
		files = []render.Attachment{
			{Name: id + "-evidence.csv", Description: "証跡番号の一覧", Data: evidence},
			{Name: id + "-devices.csv", Description: "端末ごとの検知", Data: devices},
		}
		out.HTML, err = r.html.Report(p)
	default:
		return nil, fmt.Errorf("print report: no variant %q", format.Variant)
	}
	if err != nil {
		return nil, err
	}
	return out, r.typeset(ctx, out, facts.Issued, id, format.PDF, files)
}

// typeset makes the PDF of a report that has its HTML.
func (r *Reporter) typeset(ctx context.Context, out *Report, issued, id, variant string, files []render.Attachment) error {
	at, err := time.Parse(time.RFC3339, issued)
	if err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if out.Renderer, err = r.pdf.Versions(ctx); err != nil {
		return err
	}
	if out.PDF, err = r.pdf.Render(ctx, render.Job{HTML: out.HTML, Issued: at, Identifier: id, Variant: variant, Attachments: files}); err != nil {
		return err
	}
	out.PDFSHA = sha256.Sum256(out.PDF)
	return nil
}

// Annual makes the report of a fiscal year out of its months' frozen reports. Nothing is stored.
func (r *Reporter) Annual(ctx context.Context, clinic int32, fiscalYear int) (*Report, error) {
	a, err := query.Annual(ctx, r.pool, clinic, fiscalYear, r.now().Truncate(time.Second))
	if err != nil {
		return nil, err
	}
	p, err := page.BuildAnnual(a, r.w, r.packs, r.html.CSS())
	if err != nil {
		return nil, err
	}
	out := &Report{}
	if out.DataSHA, out.JSON, err = a.Digest(); err != nil {
		return nil, err
	}
	if out.HTML, err = r.html.Annual(p); err != nil {
		return nil, err
	}
	return out, r.typeset(ctx, out, a.Issued, a.DocumentNo, "", nil)
}

// Freeze makes the report and stores it as the month's next revision.
func (r *Reporter) Freeze(ctx context.Context, clinic int32, m month.Month) (*Report, error) {
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	defer conn.Release()
	// One report of a clinic and month at a time, in all processes: the revision is printed before it is stored.
	key := int64(clinic)<<20 | int64(m.Year()*12+m.Number())
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, key); err != nil {
		return nil, fmt.Errorf("lock report of clinic %d for %s: %w", clinic, m, err)
	}
	defer func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, key); err != nil {
			// The lock goes with the connection.
			_ = conn.Conn().Close(context.WithoutCancel(ctx))
		}
	}()
	out, err := r.make(ctx, conn, clinic, m, Format{})
	if err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('kadomori.clinics', $1, true)`, fmt.Sprintf("{%d}", clinic)); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `SELECT report_freeze($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			clinic, m.Start().Format(time.DateOnly), out.Facts.DocumentNo, string(out.Facts.Verdict), string(out.JSON), string(out.HTML), out.PDF,
			out.DataSHA[:], out.PDFSHA[:], out.Renderer).Scan(&out.ID)
		if err != nil {
			return err
		}
		var revision int
		if err := tx.QueryRow(ctx, `SELECT revision FROM report_frozen WHERE report_id = $1`, out.ID).Scan(&revision); err != nil {
			return err
		}
		if revision != out.Facts.Revision {
			return fmt.Errorf("printed as revision %d, would be stored as %d", out.Facts.Revision, revision)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("freeze report of clinic %d for %s: %w", clinic, m, err)
	}
	r.log.Info("report frozen", "clinic", clinic, "month", m.String(), "revision", out.Facts.Revision, "verdict", out.Facts.Verdict,
		"bytes", len(out.PDF), "data_sha256", fmt.Sprintf("%x", out.DataSHA))
	return out, nil
}

// permanent tells whether trying again later can't help.
func permanent(err error) bool {
	return errors.Is(err, query.ErrNoClinic) || errors.Is(err, query.ErrExpired) || errors.Is(err, errBadJob)
}

var errBadJob = errors.New("bad report job")
