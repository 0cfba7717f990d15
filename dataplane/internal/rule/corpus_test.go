package rule

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// corpusRules reads the public rule set of the folder that the variable CORPUS names.
func corpusRules(t testing.TB) []*Rule {
	t.Helper()
	dir := os.Getenv("CORPUS")
	if dir == "" {
		t.Skip("CORPUS names no folder with third-party rules")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "rules", "*2023*.rules.gz"))
	if err != nil || len(paths) == 0 {
		t.Skipf("no rule set in %s/rules", dir)
	}
	f, err := os.Open(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rules, errs := Parse(filepath.Base(paths[0]), z, ParseOptions{})
	if total := len(rules) + len(errs); len(errs)*100 > total*3 {
		t.Fatalf("%d of %d rules refused, more than 3 %%; the first: %v", len(errs), total, errs[0])
	}
	return rules
}

func TestPublicSetCompilesAndLoadsFromItsCache(t *testing.T) {
	rules := corpusRules(t)
	dir := t.TempDir()
	var last *Set
	for i := range 2 {
		at := time.Now()
		set, err := Compile(rules, CompileOptions{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v %+v refused %d", time.Since(at), set.Stats(), len(set.Refused()))
		if i == 1 && set.Stats().Cached == 0 {
			t.Error("nothing came from the cache")
		}
		last = set
	}
	m := last.NewMatcher()
	defer m.Close()
}
