package web_test

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
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
	c.judge(t)
	ctx, problems := browser(t)
	do(ctx, t, chromedp.Navigate(c.url+"/login"))
	shoot(ctx, t, dir, "login-ja-light")
	c.signIn(ctx, t, "/")
	only := os.Getenv("KADOMORI_SHOTS_ONLY")
	variants := [][2]string{{"ja", "light"}, {"en", "dark"}}
	if os.Getenv("KADOMORI_SHOTS_ALL") != "" {
		variants = append(variants, [2]string{"ja", "dark"}, [2]string{"en", "light"})
	}
	for _, v := range variants {
		lang, theme := v[0], v[1]
		js[bool](ctx, t, `(() => { const f = new FormData(document.querySelector('form[action="/settings/me"]')); f.set("lang", "`+lang+`"); f.set("theme", "`+theme+`"); fetch("/settings/me", {method: "POST", body: new URLSearchParams(f)}).then(() => { window.stored = true }); return true })()`)
		until(ctx, t, `window.stored === true`)
		for _, p := range []struct{ name, path, after string }{
			{"overview", "/", ""},
			{"triage", "/triage", `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "j", bubbles: true})); document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "o", bubbles: true}))`},
			{"verdict", "/triage", `setTimeout(() => document.querySelector("[data-act=verdict]").click(), 300)`},
			{"team", "/settings/team", ""},
			{"clinic-ask", "/clinics/1?tab=ask", ""},
			{"enrolment", "/enrolment", ""},
			{"policy", "/policy", ""},
			{"clinic-policy", "/policy/3", ""},
			{"rollouts", "/rollouts", ""},
			{"rollout", "/rollouts/1", ""},
			{"suppressions", "/suppressions", ""},
			{"suppression", "/suppressions/1", ""},
			{"cases", "/cases", ""},
			{"case", "/cases/1", ""},
			{"audit", "/audit", ""},
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
			do(ctx, t, chromedp.Navigate(c.url+p.path))
			if p.after != "" {
				js[bool](ctx, t, `(() => {`+p.after+`; return true})()`)
			}
			if p.name == "verdict" {
				until(ctx, t, `!!document.querySelector("#dlg .replay")`)
			}
			until(ctx, t, `document.fonts.status === "loaded" && !document.querySelector(".live.wait") && performance.now() > 900`)
			shoot(ctx, t, dir, p.name+"-"+lang+"-"+theme)
		}
	}
	for _, p := range problems() {
		t.Error(p)
	}
	if s := c.log.String(); s != "" {
		t.Log(s)
	}
}

func shoot(ctx context.Context, t *testing.T, dir, name string) {
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// judge gives some verdicts, so that every screen has something to show.
func (c *console) judge(t *testing.T) {
	t.Helper()
	err := c.db.Fleet(t.Context(), "system:test", func(tx pgx.Tx) error {
		for i, o := range []triage.Order{
			{Targets: []triage.Target{{Signature: filter.Signature{Kind: "alert", Rule: "1:2100072"}}}, Verdict: triage.Expected, Days: 30, Reason: "市の健診用タブレットが患者用Wi-Fiから受付の予約端末を探すため。10月の訪問で確認済み（作業記録 W-1182）。"},
			{Targets: []triage.Target{{Signature: filter.Signature{Kind: "alert", Rule: "1:2100099"}}}, Verdict: triage.NoNotice, Days: 5, Reason: "電子カルテの更新サーバー。保守業者に確認済み。"},
			{Targets: []triage.Target{{Signature: filter.Signature{Kind: "detection", Rule: "infected-host"}}}, Verdict: triage.Threat, Reason: "受付PC-2 から指令サーバーへの通信を2件確認。院長へ電話し、LANケーブルを抜いていただいた。"},
			{Targets: []triage.Target{{Signature: filter.Signature{Kind: "alert", Rule: "1:2100091"}}}, Verdict: triage.FalseAlarm, Reason: "複合機の機種判定の誤り。"},
		} {
			o.SeenUpTo, o.Now, o.Author = c.seed.now, c.seed.now.Add(time.Duration(i)*time.Second), "kato"
			if _, err := triage.Decide(t.Context(), tx, o); err != nil {
				return err
			}
		}
		return triage.ChangeCase(t.Context(), tx, 1, "kato", "investigating", "", "", "保守業者へ、当日の作業予定の有無を問い合わせた。", c.seed.now.Add(time.Minute))
	})
	if err != nil {
		t.Fatal(err)
	}
	c.seed.exec(t, `UPDATE operator SET role = $1 WHERE name = 'kato'`, cmp.Or(os.Getenv("KADOMORI_SHOTS_ROLE"), "lead"))
}
