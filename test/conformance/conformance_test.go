package conformance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOurCases runs every case of this folder against the agent, which is built for it: a case is a process of its own.
func TestOurCases(t *testing.T) {
	dir := t.TempDir()
	agent := Agent{Path: filepath.Join(dir, "kadomori-agent")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", agent.Path, "github.com/kadomori/kadomori/dataplane/cmd/kadomori-agent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	if err := agent.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	cases, err := Find("ours", ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 10 {
		t.Fatalf("%d cases found", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(c.Dir, "README.md")); err != nil {
				t.Error("the case has no README.md")
			}
			r := agent.Run(t.Context(), c, dir)
			if r.Error != "" {
				t.Error(r.Error)
			}
			for _, a := range r.Assertions {
				if !a.OK {
					t.Error(a.Text)
				}
			}
		})
	}
}

func TestAssertionsCanFail(t *testing.T) {
	one := 1
	e := &Expect{
		Alerts: []SIDCount{{SID: 1, Count: 1}, {SID: 2, Count: 0}}, AlertsMin: []SIDCount{{SID: 1, Min: 2}}, AlertsTotal: &one,
		AlertsWhere: []SIDWhere{{SID: 1, Count: 1, Where: map[string]any{"src_ip": "10.0.0.1"}}},
		Drops:       []CountWhere{{Count: 1}},
		EVE:         []EVERecord{{EventType: "dns", Count: 1, Match: map[string]any{"dns.queries[0].rrname": "a"}}},
	}
	for _, a := range e.Judge(nil) {
		if a.Positive == a.OK {
			t.Errorf("with no records: %+v", a)
		}
	}
	r := map[string]any{"a": map[string]any{"b": []any{"x", "yz"}}, "s": "text", "k.l": "dotted"}
	for key, want := range map[string]any{"a.b[1]": "yz", "a.b__len": num("2"), "a.b__contains": "x", "s__startswith": "te", "s__endswith": "xt", "s__find": "ex", "has-key": "a.b", "not-has-key": "a.c", "k.l": "dotted"} {
		if !matchesOne(r, key, want) {
			t.Errorf("%s does not match", key)
		}
	}
	for key, want := range map[string]any{"a.b[2]": "yz", "a.b__len": num("3"), "s": "tex", "has-key": "a.c", "a.b__gt": num("1")} {
		if matchesOne(r, key, want) {
			t.Errorf("%s matches", key)
		}
	}
}

func num(s string) json.Number { return json.Number(s) }

func TestScriptNamesTheLineOfAnError(t *testing.T) {
	for _, s := range []string{"> \"x\"", "tcp a > b", "tcp 1.1.1.1:1 > 2.2.2.2:2\n> x:0", "walk", "wait long", "tcp 1.1.1.1:1 > [::1]:2"} {
		if _, err := Build("in", s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
