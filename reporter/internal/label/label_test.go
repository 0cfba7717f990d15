package label_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/kadomori/kadomori/reporter/internal/label"
)

func TestCleanKeepsNamesAndDropsTricks(t *testing.T) {
	for in, want := range map[string]string{
		"受付PC-2":                     "受付PC-2",
		"𠮷田 髙﨑 邉":                    "𠮷田 髙﨑 邉",
		"a\u202egnp.exe":             "agnp.exe",
		"a\u2066b\u2069\u200f":       "ab",
		"tab\there\r\nnext":          "tab here next",
		"  spaces \u3000 around ":    "spaces around",
		"\x00\x1b[31mred":            "[31mred",
		"か\u3099":                    "が",
		"e\u0301\u0301\u0301\u0301x": "é\u0301\u0301x",
		"\xff\xfebad":                "bad",
		strings.Repeat("長", 40):      strings.Repeat("長", 23) + "…",
		"":                           "",
	} {
		if got := label.Clean(in, label.DeviceMax); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestHostnameHidesItsOwner(t *testing.T) {
	for in, want := range map[string]string{
		"花子のiPhone": "iPhone", "Hanako-no-iPhone": "iPhone", "Hanakos-MBP": "MBP", "Yamada's iPad": "iPad", "UKETSUKE-PC2": "UKETSUKE-PC2", "nas": "nas",
	} {
		if got := label.Hostname(in); got != want {
			t.Errorf("Hostname(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"受付PC-2", "\u202e\u0301\u0301", strings.Repeat("\u0301", 100), "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := label.Clean(s, label.DeviceMax)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > label.DeviceMax {
			t.Errorf("Clean(%q) = %q", s, got)
		}
		if strings.ContainsAny(got, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u0000\n") {
			t.Errorf("Clean(%q) = %q keeps what it should drop", s, got)
		}
		if !strings.HasSuffix(got, "…") && !norm.NFC.IsNormalString(got) {
			t.Errorf("Clean(%q) = %q is not NFC", s, got)
		}
	})
}
