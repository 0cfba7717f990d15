package rule

import (
	"compress/gzip"
	"os"
	"testing"
)

func TestET(t *testing.T) {
	f, err := os.Open("/work/shared/corpus/rules/et-open-2023-05-15.rules.gz")
	if err != nil {
		t.Skip(err)
	}
	z, _ := gzip.NewReader(f)
	rules, errs := Parse("et", z, ParseOptions{})
	t.Log(len(rules), len(errs))
	by := map[string]int{}
	for _, e := range errs {
		by[e.Keyword+": "+e.Reason]++
		if by[e.Keyword+": "+e.Reason] < 2 {
			t.Log(e)
		}
	}
	t.Log(by)
}
