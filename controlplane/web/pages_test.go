package web_test

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// screens are all pages of the console for a fleet whose first clinic and box have number 1.
func screens(month string) []string {
	return []string{
		"/", "/triage", "/triage?group=pair", "/triage?group=none", "/triage?last=30d&sort=alerts", "/triage?q=nothing+matches&sev=0,1&cat=bot&act=passed&host=10.0.0.1",
		"/triage?c=1", "/clinics", "/clinics?need=1&sort=alerts", "/clinics/1", "/clinics/1?tab=devices", "/clinics/1?tab=coverage", "/clinics/1?tab=reports", "/clinics/1?tab=ask",
		"/appliances", "/appliances?state=offline", "/appliances/1", "/reports", "/reports/" + month + "/1",
		"/triage?state=done", "/triage?state=all&group=pair", "/verdict/new?k=alert:1:2100058&seen=4102444800000000", "/suppressions", "/suppressions?state=ended", "/cases", "/enrolment", "/policy", "/policy/1", "/rollouts",
	}
}

func (c *console) get(t *testing.T, path, lang string, ck *http.Cookie) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ck != nil {
		req.AddCookie(ck)
	}
	req.Header.Set("Accept-Language", lang)
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
	return res.StatusCode, res.Header, string(b)
}

// check parses a page and looks for what no page may have.
func check(t *testing.T, path, page string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	ids := map[string]int{}
	attr := func(n *html.Node, key string) string {
		for _, a := range n.Attr {
			if a.Key == key {
				return a.Val
			}
		}
		return ""
	}
	var text func(*html.Node) string
	text = func(n *html.Node) string {
		if n.Type == html.TextNode {
			return n.Data
		}
		var b strings.Builder
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			b.WriteString(text(c))
		}
		return b.String()
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		for _, a := range n.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("%s: <%s> carries %s, which the policy forbids", path, n.Data, a.Key)
			}
			if (a.Key == "href" || a.Key == "src" || a.Key == "action") && strings.Contains(strings.ToLower(a.Val), "javascript:") {
				t.Errorf("%s: <%s %s=%q>", path, n.Data, a.Key, a.Val)
			}
		}
		if id := attr(n, "id"); id != "" {
			ids[id]++
		}
		switch n.Data {
		case "script":
			if !strings.HasPrefix(attr(n, "src"), "/static/app-") || strings.TrimSpace(text(n)) != "" {
				t.Errorf("%s: a script that is not ours: %q", path, attr(n, "src"))
			}
		case "img", "b-inject", "marquee":
			t.Errorf("%s: <%s> got in", path, n.Data)
		case "input", "select", "textarea":
			labelled := attr(n, "aria-label") != "" || attr(n, "type") == "hidden"
			for p := n.Parent; p != nil && !labelled; p = p.Parent {
				labelled = p.Data == "label"
			}
			if !labelled {
				t.Errorf("%s: <%s name=%q> has no label", path, n.Data, attr(n, "name"))
			}
		case "button", "a", "summary":
			if attr(n, "aria-label") == "" && strings.TrimSpace(text(n)) == "" {
				t.Errorf("%s: <%s class=%q> says nothing", path, n.Data, attr(n, "class"))
			}
		case "svg":
			if attr(n, "aria-hidden") != "true" && (attr(n, "role") != "img" || attr(n, "aria-label") == "") {
				t.Errorf("%s: a picture without a text alternative", path)
			}
		case "iframe":
			if attr(n, "title") == "" || !slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "sandbox" && a.Val == "" }) {
				t.Errorf("%s: a frame without title or sandbox", path)
			}
		}
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%s: id %q is there %d times", path, id, n)
		}
	}
	for _, s := range []string{"%!", "NaN", "0001-01-01", "<no value>"} {
		if strings.Contains(page, s) {
			t.Errorf("%s: shows %q", path, s)
		}
	}
}

// TestEveryScreenIsSoundWhateverTheData serves each page with no data, one clinic, many, and hostile or very long texts.
func TestEveryScreenIsSoundWhateverTheData(t *testing.T) {
	long := strings.Repeat("とても長い名前の医療法人社団", 12)
	for name, fill := range map[string]func(*testing.T, *console){
		"empty": func(*testing.T, *console) {},
		"one":   func(t *testing.T, c *console) { c.seed.clinic(t, 0); c.seed.alerts(t, 1) },
		"many": func(t *testing.T, c *console) {
			for i := range 30 {
				c.seed.clinic(t, i)
			}
			c.seed.alerts(t, 900)
		},
		"hostile": func(t *testing.T, c *console) {
			for i := range 3 {
				c.seed.clinic(t, i)
			}
			c.seed.alerts(t, 40)
			evil := `"><img src=x onerror=alert(1)><script>alert(2)</script><b-inject>` + "\x01\x1b[31m\u202e\u200b" + `{{.}} javascript:alert(3)`
			c.seed.exec(t, `UPDATE clinic SET name = $1, kana = $1, director = $1, hours = $1`, evil)
			c.seed.exec(t, `UPDATE appliance SET name = $1, serial = $1, model = $1, version = $1, refused = $1`, evil)
			c.seed.exec(t, `UPDATE device SET hostname = $1, name = $1, zone = $1`, evil)
			c.seed.exec(t, `UPDATE event SET title = $1, indicator = $1, zone = $1, app = $1 WHERE kind IN ('alert', 'detection')`, evil)
			c.seed.exec(t, `UPDATE event SET category = 'from the future', action = '' WHERE seq % 2 = 0 AND kind = 'alert'`)
			c.seed.exec(t, `UPDATE plan SET name = $1 || id`, evil)
		},
		"longest": func(t *testing.T, c *console) {
			for i := range 3 {
				c.seed.clinic(t, i)
			}
			c.seed.alerts(t, 40)
			c.seed.exec(t, `UPDATE clinic SET name = $1, director = $1`, long)
			c.seed.exec(t, `UPDATE event SET title = repeat($1, 20), indicator = repeat('a', 2000) WHERE kind = 'alert'`, long)
			c.seed.exec(t, `UPDATE event SET count = 2000000000 WHERE kind = 'alert'`)
			c.seed.exec(t, `UPDATE coverage_hourly SET unprotected_ms = 3600000, packets_lost = 9000000000000`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, 0, 0)
			fill(t, c)
			month := c.seed.now.AddDate(0, -1, 0).Format("2006-01")
			ck := c.login(t)
			for _, lang := range []string{"ja", "en"} {
				c.seed.exec(t, `UPDATE operator SET language = $1`, lang)
				for _, path := range screens(month) {
					status, h, body := c.get(t, path, lang, ck)
					if status != http.StatusOK && (status != http.StatusNotFound || name != "empty") {
						t.Errorf("%s: %d", path, status)
					}
					if p := h.Get("Content-Security-Policy"); !strings.Contains(p, "require-trusted-types-for 'script'") || strings.Contains(p, "unsafe") {
						t.Errorf("%s: policy %q", path, p)
					}
					check(t, path, body)
				}
			}
			if s := c.log.String(); s != "" {
				t.Errorf("log: %s", s)
			}
		})
	}
}

// TestNothingIsShownToStrangers asks for every page without and with a wrong session, and posts without a token.
func TestNothingIsShownToStrangers(t *testing.T) {
	c := start(t, 2, 5)
	month := c.seed.now.AddDate(0, -1, 0).Format("2006-01")
	all := append(screens(month), "/events", "/triage/panel?focus=alert:1:1", "/triage/rows?b=0&asof=0", "/triage/children?of=alert:1:1", "/triage/export?format=csv",
		"/reports/"+month+"/1/pdf", "/reports/"+month+"/1/page", "/go/clinic:1", "/nothing/here")
	for _, path := range all {
		for _, ck := range []*http.Cookie{nil, {Name: "__Host-kadomori", Value: "forged"}} {
			status, h, body := c.get(t, path, "ja", ck)
			if status != http.StatusSeeOther || !strings.HasPrefix(h.Get("Location"), "/login") || strings.Contains(body, "さくら") {
				t.Errorf("%s with %v: %d to %q", path, ck, status, h.Get("Location"))
			}
		}
	}
	ck := c.login(t)
	if ck.Name != "__Host-kadomori" || !ck.Secure || !ck.HttpOnly || ck.SameSite != http.SameSiteStrictMode || ck.Path != "/" || ck.Domain != "" {
		t.Errorf("session cookie: %+v", ck)
	}
	for _, path := range []string{"/logout", "/settings/me", "/reports/" + month + "/1"} {
		for _, form := range []url.Values{{}, {"csrf": {"wrong"}}} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+path, strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.AddCookie(ck)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("POST %s with token %q: %s", path, form.Get("csrf"), res.Status)
			}
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+path, nil)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		req.AddCookie(ck)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("cross-site POST %s: %s", path, res.Status)
		}
	}
}

// TestBadAddressesSayWhatIsWrong: a wrong parameter is named; an unknown thing is not found; nothing is an internal error.
func TestBadAddressesSayWhatIsWrong(t *testing.T) {
	c := start(t, 1, 5)
	ck := c.login(t)
	for path, want := range map[string]int{
		"/triage?sev=9": 400, "/triage?state=x": 400, "/verdict/new?k=x&seen=1": 400, "/verdict/new?k=alert:1:1&seen=x": 400, "/cases/9": 404, "/rollouts/9": 404, "/policy/99": 404, "/suppressions/9": 404, "/audit": 403, "/triage?group=x": 400, "/triage?sort=x": 400, "/triage?host=nas": 400, "/triage?from=x": 400, "/clinics?c=x": 400,
		"/triage/rows?b=-1&asof=0": 400, "/triage/rows?b=0&asof=x": 400, "/triage/children?of=x": 400, "/triage/export?format=xml": 400,
		"/triage?focus=zzz": 200, "/triage?focus=1.zz.3": 200, "/triage/panel?focus=x": 200, "/clinics/999": 404, "/clinics/x": 404, "/clinics/99999999999": 404,
		"/appliances/999": 404, "/reports/2026-13/1": 404, "/reports/x/1": 404, "/reports/2026-01/999": 404, "/reports/2026-01/1?rev=7": 404,
		"/reports/2026-01/1/pdf": 404, "/reports/2026-01/1/page": 404, "/go/x:1": 404, "/none": 404,
	} {
		status, _, body := c.get(t, path, "ja", ck)
		if status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
		if strings.HasPrefix(path, "/triage?") || want == 404 {
			check(t, path, body)
		}
	}
	if s := c.log.String(); strings.Contains(s, "[ERROR]") {
		t.Errorf("log: %s", s)
	}
}

// TestLoginNeverLeadsElsewhere: next= takes paths of ours only.
func TestLoginNeverLeadsElsewhere(t *testing.T) {
	c := start(t, 0, 0)
	for next, want := range map[string]string{"/triage?sev=0": "/triage?sev=0", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "": "/", "/a\r\nb": "/"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+"/login", strings.NewReader(url.Values{"name": {"kato"}, "password": {testPassword}, "next": {next}}.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		cl := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		res, err := cl.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get("Location"); got != want {
			t.Errorf("next=%q leads to %q, want %q", next, got, want)
		}
	}
	status, _, body := c.get(t, "/login", "ja", nil)
	if status != http.StatusOK || !strings.Contains(body, "パスワード") {
		t.Errorf("login page: %d", status)
	}
	check(t, "/login", body)
}

// TestExportIsTheListOfTheFilter compares the CSV with the count on the screen.
func TestExportIsTheListOfTheFilter(t *testing.T) {
	c := start(t, 4, 400)
	c.seed.exec(t, `UPDATE event SET title = '=HYPERLINK("x")' WHERE rule = '1:2100060'`)
	ck := c.login(t)
	_, h, body := c.get(t, "/triage/export?format=csv&sev=2", "ja", ck)
	var want int
	if err := c.seed.conn.QueryRow(t.Context(), `SELECT count(*) FROM event WHERE kind IN ('alert','detection') AND severity = 3 AND t > $1`, time.Now().Add(-24*time.Hour)).Scan(&want); err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(body, "\n") - 1
	if lines != want || !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
		t.Errorf("%d lines, want %d; %s", lines, want, h.Get("Content-Disposition"))
	}
	if strings.Contains(body, ",=HYPERLINK") || strings.Contains(body, `,"=HYPERLINK`) {
		t.Error("a title is a formula to a spreadsheet")
	}
	_, _, body = c.get(t, "/triage/export?format=json&sev=2", "ja", ck)
	if n := strings.Count(body, "\n"); n != want {
		t.Errorf("%d JSON lines, want %d", n, want)
	}
}
