package wording_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/kadomori/kadomori/reporter/data"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

func load(t *testing.T) *wording.Set {
	t.Helper()
	w, err := wording.Load(data.Files)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestRulesOfWording holds the sentences to the house's rules for a clinic's reader.
func TestRulesOfWording(t *testing.T) {
	w := load(t)
	raw, err := data.Files.ReadFile("wording/report.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, line := range strings.Split(string(raw), "\n") {
		if !strings.HasPrefix(line, "#") {
			text.WriteString(line + "\n")
		}
	}
	for _, never := range []string{"安全です", "感染していません", "準拠しています", "完全に", "危険です", "違反です", "！"} {
		if strings.Contains(text.String(), never) {
			t.Errorf("wording says %s", never)
		}
	}
	for _, term := range w.Glossary {
		for _, sentence := range strings.Split(term.Text, "。") {
			if n := utf8.RuneCountInString(sentence); n > 60 {
				t.Errorf("glossary %s: a sentence of %d characters", term.Term, n)
			}
		}
	}
}

// TestEverySaidKeyExists finds the keys in the code that says them, and keys that nobody says.
func TestEverySaidKeyExists(t *testing.T) {
	w := load(t)
	files, err := filepath.Glob("../page/*.go")
	if err != nil {
		t.Fatal(err)
	}
	literal := regexp.MustCompile(`(?:say|or|Has)\([^"\n]*?"([a-z_0-9.]+)"`)
	said := map[string]bool{}
	var prefixes []string
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range literal.FindAllStringSubmatch(string(raw), -1) {
			if strings.HasSuffix(m[1], ".") || strings.HasSuffix(m[1], "_") {
				prefixes = append(prefixes, m[1])
				continue
			}
			said[m[1]] = true
			if !w.Has(m[1]) && !slices.ContainsFunc(w.Keys(), func(k string) bool { return strings.HasPrefix(k, m[1]) }) {
				t.Errorf("%s says %s, which isn't there", f, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`"([a-z]+\.[a-z_0-9]+)"`).FindAllStringSubmatch(string(raw), -1) {
			said[m[1]] = true
		}
	}
	for _, k := range w.Keys() {
		if said[k] || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			continue
		}
		if !slices.ContainsFunc([]string{"asks.", "certainty.", "infected.contact_", "verdict.infected_"}, func(p string) bool { return strings.HasPrefix(k, p) }) {
			t.Errorf("nobody says %s", k)
		}
	}
}

func TestSayNamesWhatIsMissing(t *testing.T) {
	w := load(t)
	if _, err := w.Say("no.such"); err == nil || !strings.Contains(err.Error(), "no.such") {
		t.Errorf("got %v", err)
	}
	if _, err := w.Say("infected.lead"); err == nil || !strings.Contains(err.Error(), "{n}") {
		t.Errorf("got %v", err)
	}
	// What is filled in is never read as a place again.
	got, err := w.Say("asks.infected.do", "subject", "{n}{subject}")
	if err != nil || !strings.HasPrefix(got, "{n}{subject}の") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLoadRefusesBrokenFiles(t *testing.T) {
	good := map[string]string{
		"wording/report.yaml":       "care_words: []\nglossary: []\na: {b: c}\n",
		"wording/applications.yaml": "groups: {work: w}\napplications: {x: {name: X, group: work}}\n",
		"wording/holidays.yaml":     "holidays: []\n",
	}
	try := func(change map[string]string) error {
		fs := fstest.MapFS{}
		for n, s := range good {
			if c, ok := change[n]; ok {
				s = c
			}
			if s != "" {
				fs[n] = &fstest.MapFile{Data: []byte(s)}
			}
		}
		_, err := wording.Load(fs)
		return err
	}
	if err := try(nil); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []map[string]string{
		{"wording/report.yaml": ""},
		{"wording/report.yaml": "care_words: []\nglossary: []\na: [1]\n"},
		{"wording/report.yaml": "care_words: x\nglossary: []\n"},
		{"wording/report.yaml": "care_words: []\nglossary: [{term: a}]\n"},
		{"wording/applications.yaml": "groups: {work: w}\napplications: {x: {name: X, group: play}}\n"},
		{"wording/applications.yaml": "groups: {}\napps: {}\n"},
		{"wording/holidays.yaml": "days: []\n"},
	} {
		if err := try(bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
