package web_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestScreens takes a picture of every screen in both languages and themes, for a person to look at:
// KADOMORI_SHOTS=dir go test -run TestScreens ./web
func TestScreens(t *testing.T) {
	dir := os.Getenv("KADOMORI_SHOTS")
	if dir == "" {
		t.Skip("KADOMORI_SHOTS names no folder for the pictures")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := start(t, 24, 4000)
	ctx, problems := browser(t, 1440, 900)
	do(t, ctx, chromedp.Navigate(c.url+"/login"))
	shoot(t, ctx, dir, "login-ja-light")
	c.signIn(t, ctx, "/")
	only := os.Getenv("KADOMORI_SHOTS_ONLY")
	variants := [][2]string{{"ja", "light"}, {"en", "dark"}}
	if os.Getenv("KADOMORI_SHOTS_ALL") != "" {
		variants = append(variants, [2]string{"ja", "dark"}, [2]string{"en", "light"})
	}
	for _, v := range variants {
		lang, theme := v[0], v[1]
		js[bool](t, ctx, `(() => { const f = new FormData(document.querySelector('form[action="/settings/me"]')); f.set("lang", "`+lang+`"); f.set("theme", "`+theme+`"); fetch("/settings/me", {method: "POST", body: new URLSearchParams(f)}).then(() => { window.stored = true }); return true })()`)
		until(t, ctx, `window.stored === true`)
		for _, p := range []struct{ name, path, after string }{
			{"overview", "/", ""},
			{"triage", "/triage", `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "j", bubbles: true})); document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "o", bubbles: true}))`},
			{"triage-pair", "/triage?group=pair", ""},
			{"triage-none", "/triage?group=none", ""},
			{"triage-empty", "/triage?c=12&q=nothing", ""},
			{"clinics", "/clinics", ""},
			{"clinic", "/clinics/1", ""},
			{"clinic-devices", "/clinics/1?tab=devices", ""},
			{"clinic-coverage", "/clinics/2?tab=coverage", ""},
			{"clinic-reports", "/clinics/1?tab=reports", ""},
			{"appliances", "/appliances", ""},
			{"appliance", "/appliances/6", ""},
			{"reports", "/reports", ""},
			{"report", "/reports/" + c.seed.now.AddDate(0, -1, 0).Format("2006-01") + "/1", ""},
			{"keys", "/triage", `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "?", bubbles: true}))`},
			{"usermenu", "/clinics", `document.querySelector(".user summary").click()`},
		} {
			if only != "" && !strings.Contains(only, p.name) {
				continue
			}
			do(t, ctx, chromedp.Navigate(c.url+p.path))
			if p.after != "" {
				js[bool](t, ctx, `(() => {`+p.after+`; return true})()`)
			}
			until(t, ctx, `document.fonts.status === "loaded" && !document.querySelector(".live.wait") && performance.now() > 900`)
			shoot(t, ctx, dir, p.name+"-"+lang+"-"+theme)
		}
	}
	for _, p := range problems() {
		t.Error(p)
	}
	if s := c.log.String(); s != "" {
		t.Log(s)
	}
}

func shoot(t *testing.T, ctx context.Context, dir, name string) { //nolint:revive // t first, as everywhere in tests
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}
