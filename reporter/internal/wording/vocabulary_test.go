package wording_test

import (
	"os"
	"strings"
	"testing"
)

// TestEveryApplicationOfTheApplianceHasAName reads the appliance's vocabulary as a file: the reporter never imports it.
func TestEveryApplicationOfTheApplianceHasAName(t *testing.T) {
	w := load(t)
	raw, err := os.ReadFile("../../../dataplane/internal/appid/application.tsv")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, line := range strings.Split(string(raw), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		n++
		key, rest, _ := strings.Cut(line, "\t")
		category := strings.Split(rest, "\t")[1]
		a, listed := w.Listed(key)
		if !listed {
			t.Errorf("%s isn't in applications.yaml", key)
		}
		if category == "medical" && a.Group != "care" {
			t.Errorf("%s is %s, its group is %s", key, category, a.Group)
		}
	}
	if n < 50 {
		t.Errorf("only %d applications read", n)
	}
}
