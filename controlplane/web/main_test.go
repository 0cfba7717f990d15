package web_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/hashicorp/go-hclog"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/enrol"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
	"github.com/kadomori/kadomori/controlplane/web"
)

// accounts puts the real accounts behind the console's interface, as the application does.
type accounts struct{ *account.Accounts }

func (a accounts) Login(ctx context.Context, name, password, kind string) (string, time.Time, error) {
	token, _, exp, err := a.Accounts.Login(ctx, name, password, kind)
	switch {
	case errors.Is(err, account.ErrLogin):
		err = fmt.Errorf("%w: %w", web.ErrCredentials, err)
	case errors.Is(err, account.ErrLimited):
		err = fmt.Errorf("%w: %w", web.ErrThrottled, err)
	}
	return token, exp, err
}

func (a accounts) Session(ctx context.Context, token string) (web.Operator, error) {
	o, err := a.Accounts.Session(ctx, token)
	if errors.Is(err, account.ErrSession) {
		return web.Operator{}, fmt.Errorf("%w: %w", web.ErrNoSession, err)
	}
	return web.Operator{ID: o.ID, Name: o.Name, DisplayName: o.DisplayName, Role: string(o.Role), Language: o.Language, Theme: o.Theme}, err
}

const testPassword = "correct horse battery"

// console is a running console over a real database.
type console struct {
	url  string
	dsns postgrestest.DSNs
	db   *postgres.DB
	seed *fleetSeed
	log  *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// start seeds a database and serves the console on it.
func start(t *testing.T, clinics, alerts int) *console {
	t.Helper()
	dsns := postgrestest.NewDSNs(t)
	c := &console{dsns: dsns, db: postgrestest.Open(t, dsns), log: &syncBuffer{}}
	c.seed = seedFleet(t, dsns, clinics, alerts)
	log := hclog.New(&hclog.LoggerOptions{Output: c.log, Level: hclog.Warn})
	acc, err := account.New(account.Config{Pool: c.db.App, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := acc.Create(t.Context(), "system", account.Operator{Name: "kato", DisplayName: "加藤 美咲", Role: account.Analyst}, testPassword); err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := bundle.New(bundle.Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := appliance.NewPublisher(appliance.Config{DB: c.db, Bundles: bundles})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := pki.Open(pki.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ro, err := rollout.New(rollout.Config{DB: c.db, Publisher: publisher, Bundles: bundles, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := enrol.New(enrol.Config{DB: c.db, Authority: authority, Registry: pki.NewRegistry(c.db, time.Now), Admitter: publisher, Server: "control.example:7443", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	h, err := web.New(web.Config{DB: c.db, Accounts: accounts{acc}, Appliances: publisher, Claims: claims, Rollouts: ro, Team: acc, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() { h.Close(); srv.CloseClientConnections(); srv.Close() })
	c.url = srv.URL
	return c
}

// login signs in without a browser and returns the cookie.
func (c *console) login(t *testing.T) *http.Cookie {
	t.Helper()
	cl := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/login", strings.NewReader("name=kato&password="+strings.ReplaceAll(testPassword, " ", "+")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := cl.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusSeeOther || len(res.Cookies()) == 0 {
		t.Fatalf("login: %s", res.Status)
	}
	return res.Cookies()[0]
}

// browser opens Chromium and collects what it complains about. It skips when there is none, but not in CI.
func browser(t *testing.T) (context.Context, func() []string) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs the Debian package chromium")
		}
		t.Skip("needs the Debian package chromium")
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.Flag("lang", "ja"), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1440, 900))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 8*time.Minute)
	t.Cleanup(cancel)
	var mu sync.Mutex
	var problems []string
	err = chromedp.Listen(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			problems = append(problems, "exception: "+e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if e.Entry.Level == "error" || e.Entry.Level == "warning" {
				problems = append(problems, string(e.Entry.Level)+": "+e.Entry.Text+" "+e.Entry.URL)
			}
		}
	})
	if err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	do(ctx, t, chromedp.EmulateViewport(1440, 900))
	return ctx, func() []string { mu.Lock(); defer mu.Unlock(); return append([]string(nil), problems...) }
}

// do runs steps and fails the test when one fails.
func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// js evaluates an expression in the page.
func js[T any](ctx context.Context, t *testing.T, expr string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expr))
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return v
}

// until waits for an expression to be true in the page.
func until(ctx context.Context, t *testing.T, expr string) {
	t.Helper()
	w, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := chromedp.Run(w, chromedp.Poll[bool](expr))
		if err == nil {
			return
		}
		if w.Err() != nil || !strings.Contains(err.Error(), "navigated") && !strings.Contains(err.Error(), "context with specified id") {
			t.Fatalf("wait for %s: %v", expr, err)
		}
	}
}

// signIn types name and password.
func (c *console) signIn(ctx context.Context, t *testing.T, to string) {
	t.Helper()
	do(ctx, t, chromedp.Navigate(c.url+to), chromedp.SendKeys(`input[name=name]`, "kato"), chromedp.SendKeys(`input[name=password]`, testPassword+"\r"))
	until(ctx, t, `!!document.querySelector("nav.side")`)
}
