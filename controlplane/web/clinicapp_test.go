package web_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/web/store"
)

// post sends a form with a cookie and gives the status, the place it leads to, and the page.
func (c *console) post(t *testing.T, path string, ck *http.Cookie, form url.Values) (int, string, []*http.Cookie, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if ck != nil {
		req.AddCookie(ck)
	}
	cl := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := cl.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Location"), res.Cookies(), string(b)
}

var token = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

func csrfOf(t *testing.T, page string) string {
	t.Helper()
	m := token.FindStringSubmatch(page)
	if m == nil {
		t.Fatal("page has no form token")
	}
	return m[1]
}

// pass makes one for a clinic.
func (c *console) pass(t *testing.T, clinic int32, role string) string {
	t.Helper()
	var pass string
	err := c.db.Fleet(t.Context(), "system:test", func(tx pgx.Tx) (err error) {
		pass, err = store.CreateAccess(t.Context(), tx, clinic, role, "kato", c.seed.now)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pass
}

func (c *console) enter(t *testing.T, code, pass string) *http.Cookie {
	t.Helper()
	status, to, cks, _ := c.post(t, "/c/login", nil, url.Values{"code": {code}, "pass": {pass}})
	if status != http.StatusSeeOther || to != "/c" || len(cks) != 1 {
		t.Fatalf("clinic's login: %d to %q", status, to)
	}
	return cks[0]
}

// TestDirectorAnswersAndSigns walks through what a director does, from the pass on paper to the signature on record.
func TestDirectorAnswersAndSigns(t *testing.T) {
	c := start(t, 4, 40)
	c.seed.exec(t, `UPDATE operator SET role = 'lead'`)
	op := c.login(t)
	_, _, page := c.get(t, "/clinics/1?tab=ask", "ja", op)
	check(t, "/clinics/1?tab=ask", page)
	csrf := csrfOf(t, page)
	for i := range 4 {
		status, to, _, _ := c.post(t, "/clinics/1/cards", op, url.Values{
			"csrf": {csrf}, "title": {"夜間の保守接続について、業者さまにご確認ください"}, "body": {"10月11日（日）02:14に接続を確認しました。"},
			"who": {"事務長さま"}, "due": {"2026-12-01"}, "minutes": {"5"}, "vendor": {"作業の有無をお知らせください。"},
		})
		if want := i < 3; want != (status == http.StatusSeeOther) {
			t.Errorf("request %d: %d to %q; three at a time are allowed", i+1, status, to)
		}
	}
	_, _, _, page = c.post(t, "/clinics/1/access", op, url.Values{"csrf": {csrf}, "role": {"director"}})
	m := regexp.MustCompile(`C001 ([0-9a-z]{3}(?:-[0-9a-z]{3}){4})`).FindStringSubmatch(page)
	if m == nil {
		t.Fatal("no pass is shown")
	}
	me := c.enter(t, "c001 ", strings.ToUpper(m[1])) // as somebody types it
	if me.Name != "__Host-kadomori-clinic" || !me.HttpOnly || !me.Secure || me.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie: %+v", me)
	}
	status, h, page := c.get(t, "/c", "ja", me)
	if status != http.StatusOK || !strings.Contains(page, "さくら小児科医院") || !strings.Contains(page, "業者さまへお渡し") || strings.Contains(page, "<script") {
		t.Fatalf("clinic's page: %d", status)
	}
	if p := h.Get("Content-Security-Policy"); strings.Contains(p, "script-src") || !strings.Contains(p, "default-src 'none'") {
		t.Errorf("policy: %q", p)
	}
	check(t, "/c", page)
	csrf = csrfOf(t, page)
	if status, to, _, _ := c.post(t, "/c/cards/3", me, url.Values{"csrf": {csrf}, "answer": {"call"}}); status != http.StatusSeeOther || to != "/c?done=call" {
		t.Errorf("answer: %d to %q", status, to)
	}
	if status, _, _, _ := c.post(t, "/c/cards/3", me, url.Values{"csrf": {csrf}, "answer": {"done"}}); status != http.StatusConflict {
		t.Errorf("second answer: %d", status)
	}
	if status, _, _, _ := c.post(t, "/c/cards/2", me, url.Values{"csrf": {"x"}, "answer": {"done"}}); status != http.StatusForbidden {
		t.Errorf("answer without token: %d", status)
	}
	month := c.seed.now.AddDate(0, -1, 0).Format("2006-01")
	var report string
	if err := c.seed.conn.QueryRow(t.Context(), `SELECT max(report_id)::text FROM report WHERE clinic_id = 1`).Scan(&report); err != nil {
		t.Fatal(err)
	}
	sign := url.Values{"csrf": {csrf}, "report": {report}, "name": {"佐藤 恵"}, "pass": {"wrong"}}
	if status, _, _, _ := c.post(t, "/c/reports/"+month+"/sign", me, sign); status != http.StatusUnprocessableEntity {
		t.Errorf("signature with a wrong pass: %d", status)
	}
	sign.Set("pass", m[1])
	if status, _, _, _ := c.post(t, "/c/reports/"+month+"/sign", me, sign); status != http.StatusSeeOther {
		t.Errorf("signature: %d", status)
	}
	var name string
	var same bool
	if err := c.seed.conn.QueryRow(t.Context(), `SELECT s.name, s.pdf_sha256 = r.pdf_sha256 FROM report_signature s JOIN report r USING (report_id)`).Scan(&name, &same); err != nil || name != "佐藤 恵" || !same {
		t.Errorf("signature on record: %q %v (%v)", name, same, err)
	}
	if status, h, body := c.get(t, "/c/reports/"+month+".pdf", "ja", me); status != http.StatusOK || !strings.HasPrefix(body, "%PDF") || h.Get("Content-Type") != "application/pdf" {
		t.Errorf("PDF: %d", status)
	}
	if status, _, _, _ := c.post(t, "/c/logout", me, url.Values{"csrf": {csrf}}); status != http.StatusSeeOther {
		t.Errorf("sign out: %d", status)
	}
	if status, h, _ := c.get(t, "/c", "ja", me); status != http.StatusSeeOther || h.Get("Location") != "/c/login" {
		t.Errorf("after signing out: %d", status)
	}
	var acts string
	if err := c.seed.conn.QueryRow(t.Context(), `SELECT string_agg(action, ' ' ORDER BY audit_id) FROM audit_log WHERE actor LIKE 'clinic:%'`).Scan(&acts); err != nil || acts != "clinic_access.login card.call report.sign" {
		t.Errorf("audit log: %q (%v)", acts, err)
	}
}

// TestClinicsStayApart: one clinic's pass opens nothing of another clinic and nothing of the console.
func TestClinicsStayApart(t *testing.T) {
	c := start(t, 4, 40)
	month := c.seed.now.AddDate(0, -1, 0).Format("2006-01")
	staff := c.pass(t, 2, "staff") // clinic 2 has no report; 1 and 4 have
	for _, bad := range [][2]string{{"C001", staff}, {"C002", "abc"}, {"", ""}, {"C002", staff + "x"}, {"C002' OR 1=1", staff}} {
		if status, _, cks, _ := c.post(t, "/c/login", nil, url.Values{"code": {bad[0]}, "pass": {bad[1]}}); status != http.StatusUnauthorized || len(cks) > 0 {
			t.Errorf("login as %q with %q: %d", bad[0], bad[1], status)
		}
	}
	me := c.enter(t, "C002", staff)
	_, _, page := c.get(t, "/c", "ja", me)
	if strings.Contains(page, "さくら") || !strings.Contains(page, "青葉台") {
		t.Error("clinic 2 sees another name")
	}
	if status, _, _ := c.get(t, "/c/reports/"+month+".pdf", "ja", me); status != http.StatusNotFound {
		t.Errorf("clinic 2 opens a report that only others have: %d", status)
	}
	c.seed.exec(t, `INSERT INTO action_card (clinic_id, title, author) VALUES (1, 'x', 'kato')`)
	if status, _, _, _ := c.post(t, "/c/cards/1", me, url.Values{"csrf": {csrfOf(t, page)}, "answer": {"done"}}); status != http.StatusConflict {
		t.Errorf("clinic 2 answers for clinic 1: %d", status)
	}
	for _, path := range screens(month) {
		if status, h, _ := c.get(t, path, "ja", me); status != http.StatusSeeOther || !strings.HasPrefix(h.Get("Location"), "/login") {
			t.Errorf("a clinic's cookie opens %s: %d", path, status)
		}
		moved := *me
		moved.Name = "__Host-kadomori"
		if status, _, _ := c.get(t, path, "ja", &moved); status != http.StatusSeeOther {
			t.Errorf("a clinic's token opens %s: %d", path, status)
		}
	}
	op := *c.login(t)
	op.Name = "__Host-kadomori-clinic"
	if status, _, _ := c.get(t, "/c", "ja", &op); status != http.StatusSeeOther {
		t.Errorf("an operator's token opens a clinic's page: %d", status)
	}
	c.seed.exec(t, `UPDATE clinic_access SET revoked_at = now()`)
	if status, _, _ := c.get(t, "/c", "ja", me); status != http.StatusSeeOther {
		t.Errorf("a revoked pass still opens: %d", status)
	}
}

// TestClinicPageLooksRight runs axe on the clinic's pages, on a telephone and a desk, within the weight budget; with
// KADOMORI_SHOTS it takes pictures.
func TestClinicPageLooksRight(t *testing.T) {
	axe, err := os.ReadFile("testdata/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, 4, 60)
	c.seed.exec(t, `UPDATE setting SET value = '0120-000-000' WHERE name = 'msp.phone'`)
	c.seed.exec(t, `INSERT INTO setting (name, value) VALUES ('msp.phone', '0120-000-000') ON CONFLICT (name) DO NOTHING`)
	c.seed.exec(t, `INSERT INTO action_card (clinic_id, title, body, who, due, minutes, vendor_text, author) VALUES
(1, '夜間の保守接続について、業者さまにご確認ください', '10月11日（日）02:14に、作業予定のない遠隔保守の接続を1件確認しました。', '事務長さま', current_date + 9, 5, '10月11日（日）02:14〜02:31に、貴社の保守回線から当院サーバーへの接続がありました。作業の有無と内容をお知らせください。', 'kato'),
(1, '「検査用PC」の更新について、ご相談ください', 'サポートが終了したOSを使用している可能性があります。すぐに使用を止める必要はありません。', '院長先生', current_date + 30, 15, '', 'kato')`)
	pass := c.pass(t, 1, "director")
	ctx, problems := browser(t)
	run := func(name string) {
		js[bool](ctx, t, string(axe)+`; window.found = null; axe.run({resultTypes: ["violations"]}).then(r => { window.found = r.violations.map(v => v.id + ": " + v.help + " " + v.nodes.map(n => n.target.join(" ")).join("; ")).join("\n") }); true`)
		until(ctx, t, `window.found !== null`)
		if s := js[string](ctx, t, `window.found`); s != "" {
			t.Errorf("%s: %s", name, s)
		}
		if js[bool](ctx, t, `document.documentElement.scrollWidth > innerWidth`) {
			t.Errorf("%s: scrolls sideways", name)
		}
		if small := js[int](ctx, t, `[...document.querySelectorAll("main button, main a.btn, main input:not([type=hidden])")].filter(e => e.getBoundingClientRect().height > 0 && e.getBoundingClientRect().height < 44).length`); small > 0 {
			t.Errorf("%s: %d targets are lower than 44 px", name, small)
		}
		if dir := os.Getenv("KADOMORI_SHOTS"); dir != "" {
			png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir+"/clinicapp-"+name+".png", png, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	do(ctx, t, chromedp.Navigate(c.url+"/c/login"))
	run("login")
	do(ctx, t, chromedp.SendKeys(`input[name=code]`, "C001"), chromedp.SendKeys(`input[name=pass]`, pass+"\r"))
	until(ctx, t, `location.pathname === "/c" && document.readyState === "complete" && document.fonts.status === "loaded"`)
	do(ctx, t, chromedp.EmulateViewport(1060, 900))
	run("desk")
	do(ctx, t, chromedp.EmulateViewport(390, 844))
	run("telephone")
	total := 0
	for _, u := range js[[]string](ctx, t, `[location.pathname, ...performance.getEntriesByType("resource").map(e => new URL(e.name).pathname)]`) {
		req, _ := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, c.url+u, nil)
		req.Header.Set("Accept-Encoding", "gzip")
		req.AddCookie(c.enter(t, "C001", pass))
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		total += int(n)
	}
	t.Logf("first load %d bytes", total)
	if total > 60<<10 || total < 10_000 { // budget of the clinic's app, with the font
		t.Errorf("first load is %d bytes", total)
	}
	for _, p := range problems() {
		t.Error("browser: ", p)
	}
}

// TestAdministratorMakesTheTeam adds an analyst who can sign in, then switches them off; nobody else may, and not oneself.
func TestAdministratorMakesTheTeam(t *testing.T) {
	c := start(t, 1, 5)
	op := c.login(t)
	if status, _, _ := c.get(t, "/settings/team", "ja", op); status != http.StatusForbidden {
		t.Errorf("an analyst opens the team's page: %d", status)
	}
	c.seed.exec(t, `UPDATE operator SET role = 'admin'; DELETE FROM operator_session`)
	op = c.login(t)
	_, _, page := c.get(t, "/settings/team", "ja", op)
	check(t, "/settings/team", page)
	csrf := csrfOf(t, page)
	if status, _, _, _ := c.post(t, "/settings/team", op, url.Values{"csrf": {csrf}, "name": {"Bad Name"}, "display": {"x"}, "role": {"analyst"}}); status != http.StatusUnprocessableEntity {
		t.Errorf("bad name: %d", status)
	}
	_, _, _, page = c.post(t, "/settings/team", op, url.Values{"csrf": {csrf}, "name": {"suzuki"}, "display": {"鈴木 葵"}, "role": {"analyst"}})
	check(t, "new operator", page)
	m := regexp.MustCompile(`<pre class="pass" tabindex="0">([A-Z2-7]{26})</pre>`).FindStringSubmatch(page)
	if m == nil {
		t.Fatal("no password is shown")
	}
	in := url.Values{"name": {"suzuki"}, "password": {m[1]}}
	if status, to, _, _ := c.post(t, "/login", nil, in); status != http.StatusSeeOther || to != "/" {
		t.Errorf("new operator's login: %d", status)
	}
	if status, _, _, _ := c.post(t, "/settings/team/suzuki/disable", op, url.Values{"csrf": {csrf}}); status != http.StatusSeeOther {
		t.Errorf("switching off: %d", status)
	}
	if status, _, _, _ := c.post(t, "/login", nil, in); status != http.StatusUnauthorized {
		t.Errorf("a switched-off operator signs in: %d", status)
	}
	if status, _, _, _ := c.post(t, "/settings/team/kato/disable", op, url.Values{"csrf": {csrf}}); status != http.StatusConflict {
		t.Errorf("switching oneself off: %d", status)
	}
}
