// Package web is the console: pages for the MSP's operators, rendered on the server, with small scripts on top. The application
// mounts it; it reads through the clinics' row-level security and writes only what an operator does by hand. The trap: every
// page is behind need(), which checks the session; a route added without it is public.
package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/web/asset"
	"github.com/kadomori/kadomori/controlplane/web/page"
)

// Operator is who is signed in.
type Operator struct {
	ID          int32
	Name        string // login name; the actor of audit rows
	DisplayName string
	Role        string // analyst, lead, operator, approver, auditor, admin
	Language    string // ja, en
	Theme       string // auto, light, dark
}

// Errors an implementation of Accounts returns, possibly wrapped. Others are told as an internal error.
var (
	// ErrCredentials: name or password is wrong, or the operator is disabled.
	ErrCredentials = errors.New("wrong name or password")
	// ErrThrottled: too many tries.
	ErrThrottled = errors.New("too many tries")
	// ErrNoSession: the token is unknown or its time is over.
	ErrNoSession = errors.New("no session")
)

// Accounts signs operators in and out.
type Accounts interface {
	// Login checks the password and starts a session of the kind ("console" here). It returns ErrCredentials or ErrThrottled.
	Login(ctx context.Context, name, password, kind string) (token string, expires time.Time, err error)
	// Session says who a token belongs to. It returns ErrNoSession.
	Session(ctx context.Context, token string) (Operator, error)
	// Logout ends a session; an unknown token is no error.
	Logout(ctx context.Context, token string) error
}

// Config of the console.
type Config struct {
	DB       *postgres.DB
	Accounts Accounts
	// Appliances, Claims, Rollouts and Team change the fleet and who works it; where one is nil, its buttons (or its screen) are absent.
	Appliances Appliances
	Claims     Claims
	Rollouts   Rollouts
	Team       Team
	Log        hclog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// BehindProxy takes X-Forwarded-Proto from a reverse proxy as the truth. Set it only when there is one.
	BehindProxy bool
	// Insecure allows signing in over plain HTTP from other machines too. Cookies then lose their __Host- prefix.
	// Loopback addresses are always allowed, because nobody else can listen there.
	Insecure bool
}

// Console is the handler of all pages. Close it before the server shuts down: event streams would keep it waiting.
type Console struct {
	cfg     Config
	log     hclog.Logger
	now     func() time.Time
	assets  *asset.Set
	files   page.Assets
	jobs    *river.Client[pgx.Tx]
	mux     http.Handler
	live    *hub
	snaps   snapshots
	display displays
	tries   tries
	once    sync.Once
}

// New builds the console. It starts nothing until somebody looks.
func New(cfg Config) (*Console, error) {
	if cfg.DB == nil || cfg.Accounts == nil {
		return nil, errors.New("new console: DB and Accounts are needed")
	}
	set, err := asset.Load()
	if err != nil {
		return nil, fmt.Errorf("new console: %w", err)
	}
	jobs, err := river.NewClient(riverpgxv5.New(cfg.DB.App), &river.Config{Schema: postgres.RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("new console: %w", err)
	}
	c := &Console{cfg: cfg, log: cfg.Log, now: cfg.Now, assets: set, jobs: jobs}
	if c.log == nil {
		c.log = hclog.NewNullLogger()
	}
	c.log = c.log.Named("console")
	if c.now == nil {
		c.now = time.Now
	}
	c.files = page.Assets{JS: set.URL("app.js"), CSS: set.URL("app.css"), Font: set.URL("inter.woff2"), Favicon: set.URL("fav.svg"), Icons: set.Icons()}
	c.live = newHub(cfg.DB.App, c.log)
	c.mux = c.routes()
	return c, nil
}

// Close ends all event streams and waits for what runs behind them.
func (c *Console) Close() { c.once.Do(c.live.close) }

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

func (c *Console) routes() http.Handler {
	m := http.NewServeMux()
	m.Handle("GET "+asset.Prefix, c.assets)
	m.HandleFunc("GET /login", c.loginPage)
	m.HandleFunc("POST /login", c.login)
	m.HandleFunc("POST /logout", c.need(c.logout))
	m.HandleFunc("POST /settings/me", c.need(c.settings))
	m.HandleFunc("GET /settings/team", c.need(c.team))
	m.HandleFunc("POST /settings/team", c.need(c.teamAdd))
	m.HandleFunc("POST /settings/team/{name}/{act}", c.need(c.teamChange))
	m.HandleFunc("GET /{$}", c.need(c.overview))
	m.HandleFunc("GET /triage", c.need(c.triage))
	m.HandleFunc("GET /triage/rows", c.need(c.triageRows))
	m.HandleFunc("GET /triage/children", c.need(c.triageChildren))
	m.HandleFunc("GET /triage/panel", c.need(c.triagePanel))
	m.HandleFunc("GET /triage/export", c.need(c.triageExport))
	m.HandleFunc("GET /verdict/new", c.need(c.verdictNew))
	m.HandleFunc("GET /verdict/preview", c.need(c.verdictPreview))
	m.HandleFunc("POST /verdict", c.need(c.verdict))
	m.HandleFunc("GET /suppressions", c.need(c.suppressions))
	m.HandleFunc("GET /suppressions/{id}", c.need(c.suppression))
	m.HandleFunc("POST /suppressions/{id}/{act}", c.need(c.decisionAct))
	m.HandleFunc("GET /cases", c.need(c.cases))
	m.HandleFunc("GET /cases/{id}", c.need(c.caseOne))
	m.HandleFunc("POST /cases/{id}", c.need(c.caseChange))
	m.HandleFunc("GET /audit", c.need(c.audit))
	m.HandleFunc("GET /clinics", c.need(c.clinics))
	m.HandleFunc("GET /clinics/{id}", c.need(c.clinic))
	m.HandleFunc("GET /appliances", c.need(c.appliances))
	m.HandleFunc("GET /appliances/{id}", c.need(c.appliance))
	m.HandleFunc("GET /enrolment", c.need(c.enrolment))
	m.HandleFunc("POST /enrolment", c.need(c.claim))
	m.HandleFunc("POST /enrolment/{id}/{act}", c.need(c.admit))
	m.HandleFunc("GET /policy", c.need(c.policy))
	m.HandleFunc("GET /policy/{id}", c.need(c.clinicPolicy))
	m.HandleFunc("GET /rollouts", c.need(c.rollouts))
	m.HandleFunc("GET /rollouts/{id}", c.need(c.rolloutOne))
	m.HandleFunc("POST /rollouts/{id}", c.need(c.steer))
	m.HandleFunc("GET /reports", c.need(c.reports))
	m.HandleFunc("GET /reports/{month}/{clinic}", c.need(c.report))
	m.HandleFunc("GET /reports/{month}/{clinic}/page", c.need(c.reportPage))
	m.HandleFunc("GET /reports/{month}/{clinic}/pdf", c.need(c.reportPDF))
	m.HandleFunc("POST /reports/{month}/{clinic}", c.need(c.reportRequest))
	m.HandleFunc("POST /clinics/{id}/cards", c.need(c.card))
	m.HandleFunc("POST /clinics/{id}/access", c.need(c.access))
	c.guestRoutes(m)
	m.HandleFunc("GET /go/{id}", c.need(c.goTo))
	m.HandleFunc("GET /events", c.need(c.events))
	m.HandleFunc("POST /csp", c.cspReport)
	m.HandleFunc("/", c.need(c.notFound))
	cross := http.NewCrossOriginProtection()
	cross.AddInsecureBypassPattern("POST /csp") // browsers send reports without an origin
	return c.secure(cross.Handler(m))
}

// fleet runs fn in a transaction over all clinics, on behalf of the operator.
func (c *Console) fleet(ctx context.Context, op Operator, fn func(pgx.Tx) error) error {
	return c.cfg.DB.Fleet(ctx, cmp.Or(op.Name, "unknown"), fn)
}
