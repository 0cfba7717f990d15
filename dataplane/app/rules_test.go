package app

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someRules = `# a comment
alert tcp any any -> any 80 (msg:"good"; content:"evil"; sid:1; rev:1;)
alert tcp any any -> any any (msg:"lua"; lua:x.lua; sid:2;)
# alert tcp any any -> any any (msg:"off"; sid:3;)
alert tcp any any -> $NOWHERE any (msg:"variable"; content:"x"; sid:4;)
alert tcp any any -> any any (msg:"wrong"; content:"unclosed; sid:5;)
`

func runRules(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := rulesCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestRulesCheckNamesWhatEachKeywordCosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "some.rules")
	if err := os.WriteFile(file, []byte(someRules), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runRules(t, "check", file)
	if err == nil {
		t.Error("exit status 0 although rules were refused")
	}
	for _, want := range []string{"25.00 % accepted", "lua", "sid 2 (some.rules:3:", "$NOWHERE is not defined", "sid 5 (some.rules:6:", "wrong", "unsupported"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	out, err = runRules(t, "check", "--json", "--allow-refused", "75", file)
	if err != nil {
		t.Fatal(err)
	}
	var rep rulesReport
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		t.Fatal(err)
	}
	if rep.Accepted != 1 || rep.Refused != 3 || rep.Disabled != 1 || len(rep.Keywords) != 3 {
		t.Errorf("got %+v", rep)
	}
	if _, err := runRules(t, "check", "--var", "NOWHERE=10.0.0.1", "--allow-refused", "50", file); err != nil {
		t.Error(err)
	}
	if _, err := runRules(t, "check", filepath.Join(t.TempDir(), "none.rules")); err == nil {
		t.Error("a file that is not there is no error")
	}
}
