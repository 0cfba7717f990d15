package month

import (
	"strings"
	"testing"
)

func TestParseHours(t *testing.T) {
	row := func(o openHours, d int) string {
		var b strings.Builder
		for h := range 24 {
			if o[d][h] {
				b.WriteByte('o')
			} else {
				b.WriteByte('-')
			}
		}
		return b.String()
	}
	const closed = "------------------------"
	for text, want := range map[string][3]string{ // Monday, Thursday, Saturday
		"月火水金 9:00-13:00 15:00-19:00; 木土 9:00-13:00":             {"---------oooo--oooo-----", "---------oooo-----------", "---------oooo-----------"},
		"月〜金 9:00〜18:00、木 休診":                                    {"---------ooooooooo------", closed, closed},
		"月・火・水・金 午前9:00〜12:30 午後3:00〜6:30／木・土 午前9:00〜12:30 日祝休診": {"---------oooo--oooo-----", "---------oooo-----------", "---------oooo-----------"},
		"mon-fri 09:00-17:00, sat 9:00-12:00":                    {"---------oooooooo-------", "---------oooooooo-------", "---------ooo------------"},
		"9:00-17:00":                                             {"---------oooooooo-------", "---------oooooooo-------", closed},
	} {
		o, ok := parseHours(text)
		if !ok {
			t.Errorf("%q is not understood", text)
			continue
		}
		if got := [3]string{row(o, 1), row(o, 4), row(o, 6)}; got != want {
			t.Errorf("%q:\n got %q\nwant %q", text, got, want)
		}
	}
	for _, text := range []string{"", "応相談", "月 9:00", "月 25:00-26:00", "月 18:00-9:00", "月 9:00-12:00 予約制", "9時から"} {
		if _, ok := parseHours(text); ok {
			t.Errorf("%q is taken", text)
		}
	}
}

func FuzzParseHours(f *testing.F) {
	for _, s := range []string{"月〜金 9:00〜18:00、木 休診", "土〜火 0:00-24:00", "mon-", "祝-日 1:00-2:00"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { parseHours(s) })
}
