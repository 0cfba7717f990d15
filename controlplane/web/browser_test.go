package web_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestAnalystWorksByKeyboard signs in, moves, expands, selects, filters and sees an alert arrive, without a mouse and without
// one complaint of the browser.
func TestAnalystWorksByKeyboard(t *testing.T) {
	c := start(t, 6, 300)
	ctx, problems := browser(t)
	c.signIn(ctx, t, "/triage")
	until(ctx, t, `document.querySelector("triage-grid tr.cur") !== null && !document.querySelector(".live.wait")`)
	cursor := `[...document.querySelectorAll("triage-grid tbody tr")].findIndex(r => r.classList.contains("cur"))`
	if n := js[int](ctx, t, cursor); n != 0 {
		t.Fatalf("cursor starts on row %d", n)
	}

	do(ctx, t, chromedp.KeyEvent("jjk"))
	if n := js[int](ctx, t, cursor); n != 1 {
		t.Errorf("after j j k the cursor is on row %d", n)
	}
	until(ctx, t, `document.querySelector("#panel h2").textContent === document.querySelector("tr.cur .nm").textContent`)
	if f := js[string](ctx, t, `new URL(location).searchParams.get("focus")`); f != js[string](ctx, t, `document.querySelector("tr.cur").dataset.sig`) {
		t.Errorf("the address does not follow the cursor: focus=%q", f)
	}

	do(ctx, t, chromedp.KeyEvent("o"))
	until(ctx, t, `document.querySelectorAll("tr[aria-level='2']").length > 0`)
	if js[string](ctx, t, `document.querySelector("tr.cur").getAttribute("aria-expanded")`) != "true" {
		t.Error("o did not say that the row is expanded")
	}
	do(ctx, t, chromedp.KeyEvent("x"))
	if js[bool](ctx, t, `document.querySelector("#bulk").hidden`) || js[string](ctx, t, `document.querySelector("#seln").textContent`) != "1" {
		t.Error("x did not select the group")
	}
	if a, b := js[string](ctx, t, `document.querySelector("#selsub").textContent`), js[string](ctx, t, `document.querySelector("tr.cur [data-c=n]").textContent`); a != b {
		t.Errorf("the selection counts %s alerts, the row %s", a, b)
	}
	do(ctx, t, chromedp.KeyEvent("\u001b"))
	until(ctx, t, `document.querySelector("#bulk").hidden`)
	do(ctx, t, chromedp.KeyEvent("o"))
	until(ctx, t, `document.querySelectorAll("tr[aria-level='2']").length === 0`)

	do(ctx, t, chromedp.KeyEvent("?"))
	until(ctx, t, `document.querySelector("#keys").open`)
	do(ctx, t, chromedp.KeyEvent("\u001b"))
	until(ctx, t, `!document.querySelector("#keys").open`)

	// An alert of a known rule patches its row in place; one of an unknown rule waits behind the counter.
	row := `[...document.querySelectorAll("triage-grid tbody tr")].find(r => r.dataset.sig === "alert:1:2100058")`
	before := js[string](ctx, t, row+`.querySelector("[data-c=n]").textContent`)
	order := js[string](ctx, t, `[...document.querySelectorAll("triage-grid tbody tr")].map(r => r.id).join()`)
	c.seed.late(t, 7, "")
	until(ctx, t, row+`.querySelector("[data-c=n]").textContent !== "`+before+`"`)
	c.seed.late(t, 4, "777001")
	until(ctx, t, `!document.querySelector("#newbar").hidden && document.querySelector("#newn").textContent === "1"`)
	if got := js[string](ctx, t, `[...document.querySelectorAll("triage-grid tbody tr")].map(r => r.id).join()`); got != order {
		t.Error("rows moved while alerts came in")
	}
	do(ctx, t, chromedp.KeyEvent("u"))
	until(ctx, t, `document.readyState === "complete" && !!document.querySelector("[data-sig='alert:1:777001']")`)
	until(ctx, t, `!!document.querySelector("tr.cur")`)

	do(ctx, t, chromedp.KeyEvent("\r"))
	until(ctx, t, `location.search.includes("group=none") && document.readyState === "complete" && !!document.querySelector("tr.cur")`)
	do(ctx, t, chromedp.KeyEvent("gl"))
	until(ctx, t, `location.pathname === "/clinics" && document.readyState === "complete" && !!document.querySelector("tr.cur")`)
	do(ctx, t, chromedp.KeyEvent("j\r"))
	until(ctx, t, `location.pathname.startsWith("/clinics/") && document.readyState === "complete"`)

	for _, p := range problems() {
		t.Error("browser: ", p)
	}
	if s := c.log.String(); s != "" {
		t.Errorf("console log: %s", s)
	}
}

// TestLettersCanBeTurnedOff: single-letter keys are off by a setting and still work with Alt (WCAG 2.1.4).
func TestLettersCanBeTurnedOff(t *testing.T) {
	c := start(t, 3, 60)
	ctx, _ := browser(t)
	c.signIn(ctx, t, "/triage")
	until(ctx, t, `!!document.querySelector("tr.cur")`)
	do(ctx, t, chromedp.Click(".user summary"), chromedp.Click(`button[name=keys][value=off]`))
	until(ctx, t, `"keysOff" in document.documentElement.dataset && document.readyState === "complete" && !!document.querySelector("tr.cur")`)
	cursor := `[...document.querySelectorAll("triage-grid tbody tr")].findIndex(r => r.classList.contains("cur"))`
	do(ctx, t, chromedp.KeyEvent("j"))
	if n := js[int](ctx, t, cursor); n != 0 {
		t.Errorf("j moved the cursor to row %d although letters are off", n)
	}
	do(ctx, t, chromedp.KeyEvent("j", chromedp.KeyModifiers(chromedp.ModifierAlt)))
	if n := js[int](ctx, t, cursor); n != 1 {
		t.Errorf("Alt+j left the cursor on row %d", n)
	}
}

// TestReportIsFramedUnderItsOwnPolicy shows the frozen page in the console, and asks for another one.
func TestReportIsFramedUnderItsOwnPolicy(t *testing.T) {
	c := start(t, 4, 20)
	ctx, problems := browser(t)
	month := c.seed.now.AddDate(0, -1, 0).Format("2006-01")
	c.signIn(ctx, t, "/reports/"+month+"/1")
	until(ctx, t, `document.readyState === "complete" && !!document.querySelector("iframe.sheet")`)
	if u, _ := url.Parse(js[string](ctx, t, `document.querySelector("iframe.sheet").src`)); u == nil || u.Path != "/reports/"+month+"/1/page" {
		t.Errorf("frame shows %v", u)
	}
	do(ctx, t, chromedp.Click(`form.inl button`))
	until(ctx, t, `!!document.querySelector(".notice") && document.readyState === "complete"`)
	var jobs int
	if err := c.seed.conn.QueryRow(t.Context(), `SELECT count(*) FROM river.river_job WHERE kind = 'report_render' AND queue = 'report' AND args = jsonb_build_object('clinic_id', 1, 'month', $1::text)`, month).Scan(&jobs); err != nil {
		t.Fatal(err)
	}
	if jobs != 1 {
		t.Errorf("%d jobs wait for the reporter", jobs)
	}
	for _, p := range problems() {
		t.Error("browser: ", p)
	}
}

// TestVerdictByKeyboard judges with e 2, sees the rows go, takes it back with z, then suppresses and finds the record.
func TestVerdictByKeyboard(t *testing.T) {
	c := start(t, 6, 300)
	ctx, problems := browser(t)
	c.signIn(ctx, t, "/triage")
	ready := `document.readyState === "complete" && !!document.querySelector("tr.cur") && !document.querySelector(".live.wait")`
	until(ctx, t, ready)
	first := js[string](ctx, t, `document.querySelector("tr.cur").dataset.sig`)
	rows := js[int](ctx, t, `document.querySelectorAll("triage-grid tbody tr").length`)

	do(ctx, t, chromedp.KeyEvent("e"))
	until(ctx, t, `document.querySelector("#dlg").open && !!document.querySelector("#dlg form")`)
	do(ctx, t, chromedp.KeyEvent("2"))
	until(ctx, t, `document.querySelector("#dlg input[value=false_alarm]").checked && getComputedStyle(document.querySelector(".onlysup")).display === "none"`)
	do(ctx, t, chromedp.SendKeys(`#dlg textarea`, "tested by the vendor 1"), chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	until(ctx, t, `!document.querySelector("#dlg").open && document.querySelector("#toast").classList.contains("on")`)
	if n := js[int](ctx, t, `document.querySelectorAll("triage-grid tbody tr").length`); n != rows-1 {
		t.Errorf("%d rows after the verdict, had %d", n, rows)
	}
	if s := js[string](ctx, t, `document.querySelector("tr.cur").dataset.sig`); s == first {
		t.Error("the cursor did not go to the next row")
	}
	do(ctx, t, chromedp.KeyEvent("z"))
	until(ctx, t, ready+` && !!document.querySelector("[data-sig='`+first+`']")`)

	// A suppression, previewed before it is applied.
	until(ctx, t, ready)
	do(ctx, t, chromedp.KeyEvent("e"))
	until(ctx, t, `document.querySelector("#dlg").open && !!document.querySelector("#dlg .replay")`)
	do(ctx, t, chromedp.Click(`#dlg input[name=days][value="7"]`), chromedp.SendKeys(`#dlg textarea`, "known tablet"))
	until(ctx, t, `document.querySelector("#dlg #fx").textContent.length > 20`)
	do(ctx, t, chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	until(ctx, t, `!document.querySelector("#dlg").open && document.querySelector("#toast").classList.contains("on")`)
	do(ctx, t, chromedp.KeyEvent("gs"))
	until(ctx, t, `location.pathname === "/suppressions" && document.readyState === "complete" && document.querySelectorAll("tbody tr").length === 1`)
	do(ctx, t, chromedp.KeyEvent("\r"))
	until(ctx, t, `location.pathname.startsWith("/suppressions/") && document.readyState === "complete" && document.body.textContent.includes("known tablet")`)

	// A threat opens a case.
	do(ctx, t, chromedp.KeyEvent("gt"))
	until(ctx, t, `location.pathname === "/triage" && `+ready)
	do(ctx, t, chromedp.KeyEvent("e"))
	until(ctx, t, `document.querySelector("#dlg").open && !!document.querySelector("#dlg form")`)
	do(ctx, t, chromedp.KeyEvent("1"), chromedp.SendKeys(`#dlg textarea`, "called the clinic"), chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	until(ctx, t, `!document.querySelector("#dlg").open && document.querySelector("#toast").classList.contains("on")`)
	do(ctx, t, chromedp.Navigate(c.url+"/cases/1"))
	until(ctx, t, `document.body.textContent.includes("called the clinic")`)
	do(ctx, t, chromedp.SendKeys(`textarea[name=note]`, "cable is out"), chromedp.Click(`form.stack button`))
	until(ctx, t, `!!document.querySelector(".notice") && document.body.textContent.includes("cable is out")`)

	for _, p := range problems() {
		t.Error("browser: ", p)
	}
	var actions []string
	if err := c.seed.conn.QueryRow(t.Context(), `SELECT array_agg(action ORDER BY audit_id) FROM audit_log WHERE actor = 'kato' AND action NOT IN ('fleet.read', 'operator.login')`).Scan(&actions); err != nil {
		t.Fatal(err)
	}
	if want := "verdict.false_alarm verdict.undo verdict.expected verdict.threat case.note"; strings.Join(actions, " ") != want {
		t.Errorf("audit log holds %v, want %s", actions, want)
	}
	if s := c.log.String(); s != "" {
		t.Errorf("console log: %s", s)
	}
}
