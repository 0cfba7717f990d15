package appid

import (
	"testing"

	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

func TestHostBeatsProtocolBeatsPort(t *testing.T) {
	v := Builtin()
	for _, c := range []struct {
		k    Known
		want string
	}{
		{Known{Host: []byte("obs.line-scdn.net"), App: rule.AppTLS, Proto: 6, ServerPort: 443}, "line"},
		{Known{Host: []byte("teams.live.com"), App: rule.AppTLS, Proto: 6, ServerPort: 443}, "teams"},
		{Known{Host: []byte("clinic.example.jp"), App: rule.AppTLS, Proto: 6, ServerPort: 443}, "https"},
		{Known{App: rule.AppHTTP1, Proto: 6, ServerPort: 9999}, "http"},
		{Known{App: rule.AppFailed, Proto: 6, ServerPort: 11112}, "dicom"},
		{Known{Proto: 17, ServerPort: 123}, "ntp"},
		{Known{Proto: 6, ServerPort: 54321}, "unknown"},
		{Known{Proto: 1}, "icmp"},
	} {
		if got := v.Name(v.Identify(&c.k)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.k, got, c.want)
		}
	}
}

func TestEachApplicationHasAJapaneseName(t *testing.T) {
	v := Builtin()
	for i := range v.apps {
		if v.apps[i].Japanese == "" || v.apps[i].Category == "" {
			t.Errorf("%+v", v.apps[i])
		}
	}
	if _, err := Parse("a\tb\tc\tport:80"); err == nil {
		t.Error("an unknown way of knowing was taken")
	}
}
