package web

import (
	"crypto/hmac"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/a-h/templ"
	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// guestPolicy is that of the clinic's pages: no script at all.
const guestPolicy = "default-src 'none'; style-src 'self'; font-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// visit is one request of a clinic.
type visit struct {
	*http.Request
	w     http.ResponseWriter
	guest store.Guest
	token string
	now   time.Time
}

func (c *Console) guestCookie(r *http.Request) (name string, secure bool) {
	if c.cfg.Insecure && !c.isTLS(r) {
		return "kadomori-clinic", false
	}
	return "__Host-kadomori-clinic", true
}

// guestRoutes are the clinic's pages: another app with another cookie, and nothing of the shell.
func (c *Console) guestRoutes(m *http.ServeMux) {
	m.HandleFunc("GET /c/login", func(w http.ResponseWriter, r *http.Request) { c.guestLoginPage(w, r, "", "", http.StatusOK) })
	m.HandleFunc("POST /c/login", c.guestLogin)
	m.HandleFunc("POST /c/logout", c.guest(c.guestLogout))
	m.HandleFunc("GET /c", c.guest(c.guestHome))
	m.HandleFunc("GET /c/reports/{file}", c.guest(c.guestReport))
	m.HandleFunc("POST /c/reports/{month}/sign", c.guest(c.guestSign))
	m.HandleFunc("POST /c/cards/{id}", c.guest(c.guestCard))
	m.HandleFunc("/c/", func(w http.ResponseWriter, r *http.Request) {
		c.sorry(w, r, msg.P{}.CaNotFound(), http.StatusNotFound)
	})
}

func (c *Console) blank(r *http.Request) page.ClinicApp {
	v := page.ClinicApp{Now: c.now(), From: store.MonthStart(c.now()), CSS: c.assets.URL("clinic.css"), Favicon: c.files.Favicon, Icons: c.files.Icons}
	// The telephone number must be there when everything else fails; without it the page still says what it can.
	_ = c.cfg.DB.Fleet(r.Context(), "system:clinic-app", func(tx pgx.Tx) (err error) {
		v.Phone, err = store.Setting(r.Context(), tx, "msp.phone")
		return err
	})
	return v
}

func (c *Console) guestRender(w http.ResponseWriter, r *http.Request, status int, t templ.Component) {
	w.Header().Set("Content-Security-Policy", guestPolicy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	zipHeader(w, r)
	w.WriteHeader(status)
	if err := writePage(w, func(out io.Writer) error { return t.Render(r.Context(), out) }); err != nil && r.Context().Err() == nil {
		c.log.Debug("write page", "path", r.URL.Path, "err", err)
	}
}

func (c *Console) sorry(w http.ResponseWriter, r *http.Request, text string, status int) {
	c.guestRender(w, r, status, page.ClinicSorry(c.blank(r), text))
}

func (c *Console) guestLoginPage(w http.ResponseWriter, r *http.Request, code, problem string, status int) {
	v := c.blank(r)
	v.Problem = problem
	if problem == "" && !c.safe(r) {
		v.Problem = v.LoginInsecure()
	}
	c.guestRender(w, r, status, page.ClinicLogin(v, code))
}

// guest lets only a signed-in clinic through, and only with the right token when something is changed.
func (c *Console) guest(h func(*visit) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, _ := c.guestCookie(r)
		ck, err := r.Cookie(name)
		if err != nil || ck.Value == "" {
			http.Redirect(w, r, "/c/login", http.StatusSeeOther)
			return
		}
		q := &visit{Request: r, w: w, token: ck.Value, now: c.now()}
		err = c.cfg.DB.Fleet(r.Context(), "system:clinic-app", func(tx pgx.Tx) (err error) {
			q.guest, err = store.GuestOf(r.Context(), tx, ck.Value, q.now)
			return err
		})
		if errors.Is(err, store.ErrAccess) {
			http.Redirect(w, r, "/c/login", http.StatusSeeOther)
			return
		}
		if err == nil && r.Method != http.MethodGet && r.Method != http.MethodHead && !hmac.Equal([]byte(r.PostFormValue("csrf")), []byte(csrf(ck.Value))) {
			c.sorry(w, r, msg.P{}.CaTrouble(), http.StatusForbidden)
			return
		}
		if err == nil {
			err = h(q)
		}
		if err != nil && r.Context().Err() == nil {
			c.log.Error("serve clinic", "path", r.URL.Path, "clinic", q.guest.Clinic, "err", err)
			c.sorry(w, r, msg.P{}.CaTrouble(), http.StatusInternalServerError)
		}
	}
}

// tries slows guessing down: so many wrong passes an hour and clinic code. A pass has 74 bits, this is for the log's sake.
type tries struct {
	mu sync.Mutex
	m  map[string]int
	at time.Time
}

const maxTries = 30

func (t *tries) over(code string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil || now.Sub(t.at) > time.Hour || len(t.m) > 10_000 {
		t.m, t.at = map[string]int{}, now
	}
	return t.m[code] >= maxTries
}

func (t *tries) wrong(code string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m[code]++
}

func (c *Console) guestLogin(w http.ResponseWriter, r *http.Request) {
	code := strings.ToUpper(strings.TrimSpace(r.PostFormValue("code")))
	var p msg.P
	if !c.safe(r) {
		c.guestLoginPage(w, r, code, p.LoginInsecure(), http.StatusForbidden)
		return
	}
	if c.tries.over(code, c.now()) {
		c.guestLoginPage(w, r, code, p.LoginThrottled(), http.StatusTooManyRequests)
		return
	}
	var token string
	err := c.cfg.DB.Fleet(r.Context(), "system:clinic-app", func(tx pgx.Tx) (err error) {
		token, err = store.ClinicSignIn(r.Context(), tx, code, r.PostFormValue("pass"), c.now())
		return err
	})
	switch {
	case errors.Is(err, store.ErrAccess):
		c.tries.wrong(code)
		c.log.Warn("clinic refused", "code", code)
		c.guestLoginPage(w, r, code, p.CaWrong(), http.StatusUnauthorized)
		return
	case err != nil:
		c.log.Error("sign clinic in", "code", code, "err", err)
		c.sorry(w, r, p.CaTrouble(), http.StatusInternalServerError)
		return
	}
	name, secure := c.guestCookie(r)
	http.SetCookie(w, &http.Cookie{Name: name, Value: token, Path: "/", MaxAge: int(store.ClinicLogin / time.Second), HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode}) //nolint:gosec // plain only when Config.Insecure says so
	http.Redirect(w, r, "/c", http.StatusSeeOther)
}

func (c *Console) guestLogout(q *visit) error {
	if err := c.cfg.DB.As(q.Context(), []int32{q.guest.Clinic}, func(tx pgx.Tx) error { return store.ClinicSignOut(q.Context(), tx, q.token) }); err != nil {
		return err
	}
	name, secure := c.guestCookie(q.Request)
	http.SetCookie(q.w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode}) //nolint:gosec // plain only when Config.Insecure says so
	http.Redirect(q.w, q.Request, "/c/login", http.StatusSeeOther)
	return nil
}

func (c *Console) guestHome(q *visit) error { return c.showHome(q, "", http.StatusOK) }

func (c *Console) showHome(q *visit, problem string, status int) error {
	v := c.blank(q.Request)
	v.CSRF, v.Problem, v.Director = csrf(q.token), problem, q.guest.Role == "director"
	switch q.FormValue("done") {
	case "done":
		v.Notice = v.CaThanks()
	case "call":
		v.Notice = v.CaWillCall()
	}
	err := c.cfg.DB.As(q.Context(), []int32{q.guest.Clinic}, func(tx pgx.Tx) error {
		ctx := q.Context()
		names, err := store.Names(ctx, tx)
		if err != nil {
			return err
		}
		if len(names) == 1 {
			v.Name = names[0].Name
		}
		if v.M, err = store.MonthOf(ctx, tx, q.guest.Clinic, v.From, q.now); err != nil {
			return err
		}
		if v.Cards, err = store.Cards(ctx, tx, q.guest.Clinic, true); err != nil {
			return err
		}
		if v.Old, err = store.LatestReports(ctx, tx, []int32{q.guest.Clinic}, v.From.AddDate(-1, 0, 0)); err != nil {
			return err
		}
		if len(v.Old) > 0 {
			v.Report = &v.Old[0]
			v.Signed, err = store.SignatureOf(ctx, tx, q.guest.Clinic, v.Report.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	c.guestRender(q.w, q.Request, status, page.ClinicHome(v))
	return nil
}

// guestReport answers /c/reports/2026-10.pdf.
func (c *Console) guestReport(q *visit) error {
	month, err := time.ParseInLocation("2006-01", strings.TrimSuffix(q.PathValue("file"), ".pdf"), msg.JST)
	if err != nil {
		c.sorry(q.w, q.Request, msg.P{}.CaNotFound(), http.StatusNotFound)
		return nil //nolint:nilerr // the person has been told
	}
	var pdf []byte
	var created time.Time
	var document string
	err = c.cfg.DB.As(q.Context(), []int32{q.guest.Clinic}, func(tx pgx.Tx) (err error) {
		pdf, created, document, err = store.PDF(q.Context(), tx, q.guest.Clinic, month, 0)
		return err
	})
	if isNone(err) {
		c.sorry(q.w, q.Request, msg.P{}.CaNotFound(), http.StatusNotFound)
		return nil
	}
	if err != nil {
		return err
	}
	sendPDF(q.w, q.Request, pdf, created, document, false)
	return nil
}

func (c *Console) guestSign(q *visit) error {
	report, _ := strconv.ParseInt(q.PostFormValue("report"), 10, 64)
	err := c.cfg.DB.As(q.Context(), []int32{q.guest.Clinic}, func(tx pgx.Tx) error {
		return store.Sign(q.Context(), tx, q.guest, report, q.PostFormValue("name"), q.PostFormValue("pass"), q.now)
	})
	switch {
	case errors.Is(err, store.ErrAccess):
		return c.showHome(q, msg.P{}.CaSignBad(), http.StatusUnprocessableEntity)
	case errors.Is(err, store.ErrSigned): // twice is as good as once
	case err != nil:
		return err
	}
	http.Redirect(q.w, q.Request, "/c?done=done", http.StatusSeeOther)
	return nil
}

func (c *Console) guestCard(q *visit) error {
	id, _ := strconv.ParseInt(q.PathValue("id"), 10, 64)
	answer := q.PostFormValue("answer")
	err := c.cfg.DB.As(q.Context(), []int32{q.guest.Clinic}, func(tx pgx.Tx) error {
		return store.AnswerCard(q.Context(), tx, q.guest, id, answer, q.now)
	})
	if errors.Is(err, store.ErrCard) {
		return c.showHome(q, msg.P{}.CaGoneCard(), http.StatusConflict)
	}
	if err != nil {
		return err
	}
	http.Redirect(q.w, q.Request, "/c?done="+answer, http.StatusSeeOther)
	return nil
}

// Who may ask something of a clinic, and who may give it a pass.
var (
	mayAsk  = []string{"analyst", "lead", "operator"}
	mayPass = []string{"lead", "operator", "admin"}
)

// card asks something of a clinic, on behalf of the MSP.
func (c *Console) card(q *request) error {
	id, err := pathID(q, "id")
	if err != nil {
		return err
	}
	if why := q.may(mayAsk...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/clinics/" + q.PathValue("id") + "?tab=ask"}
	}
	k := store.Card{Title: q.PostFormValue("title"), Body: q.PostFormValue("body"), Who: strings.TrimSpace(q.PostFormValue("who")), Vendor: strings.TrimSpace(q.PostFormValue("vendor")), Author: q.op.Name}
	k.Minutes, _ = strconv.Atoi(q.PostFormValue("minutes"))
	k.Minutes = min(max(0, k.Minutes), 600)
	if t, err := time.ParseInLocation("2006-01-02", q.PostFormValue("due"), msg.JST); err == nil {
		k.Due = t
	}
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error { return store.CreateCard(q.Context(), tx, id, k, q.now) })
	if errors.Is(err, store.ErrCard) {
		return httpError{status: http.StatusUnprocessableEntity, title: q.p.AskTitle(), text: q.p.AskBad(), retry: "/clinics/" + q.PathValue("id") + "?tab=ask"}
	}
	if isNone(err) {
		return c.notFound(q)
	}
	if err != nil {
		return err
	}
	http.Redirect(q.w, q.Request, "/clinics/"+q.PathValue("id")+"?tab=ask&done=asked", http.StatusSeeOther)
	return nil
}

// access makes a pass for a clinic and shows it once, in the answer to the POST.
func (c *Console) access(q *request) error {
	id, err := pathID(q, "id")
	if err != nil {
		return err
	}
	role := q.PostFormValue("role")
	if why := q.may(mayPass...); why != "" || role != "director" && role != "staff" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/clinics/" + q.PathValue("id") + "?tab=ask"}
	}
	var pass string
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(q.Context(), "SELECT EXISTS (SELECT FROM clinic WHERE clinic_id = $1)", id).Scan(&known); err != nil {
			return err
		}
		if !known {
			return pgx.ErrNoRows
		}
		var err error
		pass, err = store.CreateAccess(q.Context(), tx, id, role, q.op.Name, q.now)
		return err
	})
	if isNone(err) {
		return c.notFound(q)
	}
	if err != nil {
		return err
	}
	return c.showClinic(q, "ask", pass)
}
