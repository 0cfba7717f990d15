package page

import "testing"

func TestRendererIsShownInWords(t *testing.T) {
	for in, want := range map[string]string{
		`{"weasyprint": "57.2", "pango": "15012"}`: "pango 15012, weasyprint 57.2",
		"weasyprint 57.2":                          "weasyprint 57.2",
		`{"weasyprint": 57}`:                       `{"weasyprint": 57}`,
		"{}":                                       "{}",
		"":                                         "",
	} {
		if got := rendererText(in); got != want {
			t.Errorf("rendererText(%q) = %q, want %q", in, got, want)
		}
	}
}
