package msg_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kadomori/kadomori/controlplane/web/msg"
)

// banned are words that the reviewed term sheet replaces; safety verbs have one word each: 遮断 通過 隔離 解除 抑制 取り消し.
var banned = map[string]string{
	"ブロック": "遮断", "ドロップ": "遮断", "拒絶": "拒否", "アンブロック": "解除", "ミュート": "抑制", "サイレンス": "抑制", "キャンセル": "取り消し / やめる", "アンドゥ": "取り消し",
	"スルー": "通過", "検疫": "隔離", "危険です": "おそれがあります", "安全です": "観測されませんでした", "違反": "ルールに合わない", "完全に": "(何も言わない)", "準拠しています": "(何も言わない)",
	"アプライアンス": "装置", "テナント": "クリニック", "アラート": "検知",
}

// TestWordsAreThoseOfTheTermSheet reads every Japanese text of this package.
func TestWordsAreThoseOfTheTermSheet(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(x ast.Node) bool {
			call, ok := x.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "pick" && sel.Sel.Name != "f" || len(call.Args) < 2 {
				return true
			}
			ja, jaOK := literal(call.Args[0])
			en, enOK := literal(call.Args[1])
			if jaOK {
				n++
				for word, use := range banned {
					if strings.Contains(ja, word) {
						t.Errorf("%s: %q says %s, the term sheet says %s", fset.Position(call.Pos()), ja, word, use)
					}
				}
			}
			if jaOK && enOK && sel.Sel.Name == "pick" && (ja == "" || en == "") {
				t.Errorf("%s: one language is empty", fset.Position(call.Pos()))
			}
			if enOK {
				for _, r := range en {
					if r >= 0x3040 && r <= 0x30ff {
						t.Errorf("%s: Japanese in the English text %q", fset.Position(call.Pos()), en)
						break
					}
				}
			}
			return true
		})
	}
	if n < 200 {
		t.Errorf("read only %d texts", n)
	}
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

func TestNumbersAndTimes(t *testing.T) {
	ja, en := msg.For("ja"), msg.For("en")
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567"} {
		if got := msg.Number(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	now := time.Date(2026, 11, 24, 14, 30, 0, 0, msg.JST)
	for got, want := range map[string]string{
		ja.Time(now.Add(-time.Hour), now):    "13:30",
		ja.Time(now.AddDate(0, 0, -3), now):  "11-21",
		ja.Time(now.AddDate(-2, 0, 0), now):  "2024-11",
		ja.Time(time.Time{}, now):            "—",
		ja.Percent(0.9999):                   "99.9%",
		en.Percent(1):                        "100 %",
		ja.Millis(94_000):                    "1分34秒",
		ja.Millis(0):                         "0分",
		en.Millis(450):                       "450 ms",
		ja.Bytes(1536):                       "1.5 KiB",
		ja.Month(now):                        "2026年11月",
		en.TriageSum(1, 1, 1):                "1 alert in 1 group, 1 clinic",
		ja.TriageSum(5000, 38, 64):           "5,000件の検知を38グループに集約（64クリニック）",
		ja.PanelLead(15, 11, 15, 5):          "5クリニックの端末15台で15件。うち11件は通過。",
		ja.CoverageLine(5, 0, 0, 0):          "5台とも、この期間の稼働報告なし",
		en.CoverageLine(5, 4, 0.992, 94_000): "4 of 5 boxes reporting, up 99.2 %, uninspected 1 min 34 s",
		ja.ReportsSum(8, 24, "2026年10月"):     "2026年10月分は24院中8院が作成済み",
		en.ReportsSum(8, 24, "October 2026"): "October 2026: ready for 8 of 24 clinics",
		ja.BadFilterDetail("sev", "9"):       "条件「sev」の値「9」は使えません。",
		en.BadFilterDetail("sev", "9"):       `The value "9" can't be used for "sev".`,
		en.NeedOffline(2):                    "2 appliances offline",
		ja.ClockOff(-12):                     "12ミリ秒遅れ",
		ja.LiveLag(1200 * time.Millisecond):  "遅延 1.2秒",
		en.Ago(3 * 24 * time.Hour):           "3 d",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
