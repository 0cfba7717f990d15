package web

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
)

// pagePolicy is the content security policy of every page: nothing inline, nothing from elsewhere, and HTML made by script only
// through one Trusted Types policy.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types fragment; report-uri /csp"

// framing adds the right to show a report's own page in a frame.
const framing = "; frame-src 'self'"

// reportPolicy is that of a frozen report: its own inline style and its embedded pictures, no script, no network, its own origin.
const reportPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// maxBody bounds the body of a form, in bytes.
const maxBody = 64 << 10

// secure sets the headers that every answer carries.
func (c *Console) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
		if !strings.HasPrefix(r.URL.Path, "/static/") {
			h.Set("Cache-Control", "no-store")
		}
		if c.isTLS(r) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (c *Console) isTLS(r *http.Request) bool {
	return r.TLS != nil || c.cfg.BehindProxy && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// safe reports whether a password may be typed over this connection.
func (c *Console) safe(r *http.Request) bool {
	if c.cfg.Insecure || c.isTLS(r) {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// cookie is the session cookie's name. Over plain HTTP from elsewhere (Config.Insecure) a browser would refuse the prefix.
func (c *Console) cookie(r *http.Request) (name string, secure bool) {
	if c.cfg.Insecure && !c.isTLS(r) {
		return "kadomori", false
	}
	return "__Host-kadomori", true
}

const preferences = "kadomori-view" // row height and keys; nothing that is secret or decides rights

// request is one request of a signed-in operator.
type request struct {
	*http.Request
	w     http.ResponseWriter
	op    Operator
	token string
	p     msg.P
	now   time.Time
}

// handler answers a signed-in operator; an error becomes a page.
type handler func(*request) error

// need lets only signed-in operators through, and only with the right token when something is changed.
func (c *Console) need(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, _ := c.cookie(r)
		ck, err := r.Cookie(name)
		if err != nil || ck.Value == "" {
			c.toLogin(w, r, false)
			return
		}
		op, err := c.cfg.Accounts.Session(r.Context(), ck.Value)
		if errors.Is(err, ErrNoSession) {
			c.toLogin(w, r, true)
			return
		}
		if err != nil {
			c.crash(w, r, Operator{Language: language(r)}, "look up session", err)
			return
		}
		c.display.apply(&op, c.now())
		q := &request{Request: r, w: w, op: op, token: ck.Value, p: msg.For(op.Language), now: c.now()}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if !hmac.Equal([]byte(r.PostFormValue("csrf")), []byte(csrf(ck.Value))) {
				c.renderStatus(q, http.StatusForbidden, page.Failure(c.shell(q, q.p.Error(), nil), q.p.Error(), q.p.FormExpired(), "", "/"))
				return
			}
		}
		if err := h(q); err != nil {
			var hs httpError
			if errors.As(err, &hs) {
				c.renderStatus(q, hs.status, page.Failure(c.shell(q, hs.title, nil), hs.title, hs.text, "", hs.retry))
				return
			}
			if r.Context().Err() != nil {
				return // the browser went away
			}
			c.crash(w, r, op, "serve "+r.URL.Path, err)
		}
	}
}

// httpError is an error with words for the person.
type httpError struct {
	status             int
	title, text, retry string
}

func (e httpError) Error() string { return e.text }

func (c *Console) crash(w http.ResponseWriter, r *http.Request, op Operator, what string, err error) {
	var id [4]byte
	_, _ = rand.Read(id[:])
	ref := strings.ToUpper(hex.EncodeToString(id[:]))
	c.log.Error(what, "reference", ref, "operator", op.Name, "err", err)
	q := &request{Request: r, w: w, op: op, p: msg.For(op.Language), now: c.now()}
	s := c.shell(q, q.p.Error(), nil)
	retry := ""
	if r.Method == http.MethodGet {
		retry = r.URL.RequestURI()
	}
	c.renderStatus(q, http.StatusInternalServerError, page.Failure(s, q.p.Error(), q.p.ErrorInternal(), ref, retry))
}

func (c *Console) render(q *request, t templ.Component) { c.renderStatus(q, http.StatusOK, t) }

// renderStatus writes a page. It is the only place that writes one for a signed-in operator.
func (c *Console) renderStatus(q *request, status int, t templ.Component) {
	q.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	zipHeader(q.w, q.Request)
	q.w.WriteHeader(status)
	err := writePage(q.w, func(w io.Writer) error { return t.Render(q.Context(), w) })
	if err != nil && q.Context().Err() == nil {
		c.log.Debug("write page", "path", q.URL.Path, "err", err)
	}
}

// csrf is the token of a session's forms. It needs no store and is the same on every replica.
func csrf(session string) string {
	m := hmac.New(sha256.New, []byte(session))
	m.Write([]byte("kadomori console form"))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:18])
}

func (c *Console) toLogin(w http.ResponseWriter, r *http.Request, ended bool) {
	if r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Dest") == "empty" {
		http.Error(w, "sign in first", http.StatusUnauthorized)
		return
	}
	q := url.Values{}
	if u := r.URL.RequestURI(); u != "/" {
		q.Set("next", u)
	}
	if ended {
		q.Set("ended", "1")
	}
	to := "/login"
	if len(q) > 0 {
		to += "?" + q.Encode()
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// language of a person who isn't signed in: ?lang=, else what the browser asks for, Japanese first.
func language(r *http.Request) string {
	if l := r.FormValue("lang"); l == "ja" || l == "en" {
		return l
	}
	if ck, err := r.Cookie("kadomori-lang"); err == nil && (ck.Value == "ja" || ck.Value == "en") {
		return ck.Value
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		switch tag := strings.ToLower(strings.TrimSpace(part)); {
		case strings.HasPrefix(tag, "ja"):
			return "ja"
		case strings.HasPrefix(tag, "en"):
			return "en"
		}
	}
	return "ja"
}

// local is u when it is a path of ours, else "/".
func local(u string) string {
	if !strings.HasPrefix(u, "/") || strings.HasPrefix(u, "//") || strings.ContainsAny(u, "\\\r\n") {
		return "/"
	}
	p, err := url.Parse(u)
	if err != nil || p.Host != "" || p.Scheme != "" {
		return "/"
	}
	return p.RequestURI()
}

func (c *Console) loginPage(w http.ResponseWriter, r *http.Request) {
	problem := ""
	p := msg.For(language(r))
	switch {
	case !c.safe(r):
		problem = p.LoginInsecure()
	case r.FormValue("ended") != "":
		problem = p.LoginEnded()
	}
	if l := r.URL.Query().Get("lang"); l == "ja" || l == "en" {
		http.SetCookie(w, &http.Cookie{Name: "kadomori-lang", Value: l, Path: "/login", MaxAge: 365 * 24 * 3600, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: c.isTLS(r)}) //nolint:gosec // a language is no secret, and localhost may speak plain HTTP
	}
	c.loginForm(w, r, p, "", local(r.FormValue("next")), problem, http.StatusOK)
}

func (c *Console) loginForm(w http.ResponseWriter, r *http.Request, p msg.P, name, next, problem string, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	s := page.Shell{P: p, Now: c.now(), Title: p.LoginTitle(), Assets: c.files, Theme: "auto"}
	if err := page.Login(s, name, next, problem).Render(r.Context(), w); err != nil {
		c.log.Debug("write page", "path", r.URL.Path, "err", err)
	}
}

func (c *Console) login(w http.ResponseWriter, r *http.Request) {
	p := msg.For(language(r))
	name, next := strings.TrimSpace(r.PostFormValue("name")), local(r.PostFormValue("next"))
	if !c.safe(r) {
		c.loginForm(w, r, p, name, next, p.LoginInsecure(), http.StatusForbidden)
		return
	}
	token, expires, err := c.cfg.Accounts.Login(r.Context(), name, r.PostFormValue("password"), "console")
	switch {
	case errors.Is(err, ErrCredentials):
		c.log.Warn("sign-in refused", "operator", name)
		c.loginForm(w, r, p, name, next, p.LoginWrong(), http.StatusUnauthorized)
		return
	case errors.Is(err, ErrThrottled):
		c.loginForm(w, r, p, name, next, p.LoginThrottled(), http.StatusTooManyRequests)
		return
	case err != nil:
		c.log.Error("sign in", "operator", name, "err", err)
		c.loginForm(w, r, p, name, next, p.ErrorInternal(), http.StatusInternalServerError)
		return
	}
	cookie, secure := c.cookie(r)
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: token, Path: "/", Expires: expires, HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode}) //nolint:gosec // plain only when Config.Insecure says so
	http.Redirect(w, r, next, http.StatusSeeOther)                                                                                                              //nolint:gosec // local() let only a path of ours through
}

func (c *Console) logout(q *request) error {
	if err := c.cfg.Accounts.Logout(q.Context(), q.token); err != nil {
		return err
	}
	cookie, secure := c.cookie(q.Request)
	http.SetCookie(q.w, &http.Cookie{Name: cookie, Path: "/", MaxAge: -1, HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode}) //nolint:gosec // plain only when Config.Insecure says so
	http.Redirect(q.w, q.Request, "/login", http.StatusSeeOther)
	return nil
}

// cspReport logs what a browser refused: in a sound build that is nothing.
func (c *Console) cspReport(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
	c.log.Warn("browser refused content", "report", string(b))
	w.WriteHeader(http.StatusNoContent)
}
