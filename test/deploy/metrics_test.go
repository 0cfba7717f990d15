// Package deploy checks what operators install beside the programs: alert rules and the dashboard name metrics that exist.
package deploy

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const root = "../.."

var (
	used = regexp.MustCompile(`\bkadomori_[a-z0-9_]+`)
	// The three ways in which our programs name their metrics.
	whole     = regexp.MustCompile(`"(kadomori_[a-z0-9_]+)"`)
	described = regexp.MustCompile(`\bdesc\("([a-z0-9_]+)"`)
	subsystem = regexp.MustCompile(`Subsystem: "([a-z]+)"`)
	made      = regexp.MustCompile(`\b(?:counter|gauge|histogram)\("([a-z0-9_]+)"`)
)

// metrics are the names in the sources.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, dir := range []string{"controlplane", "dataplane/app", "reporter"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range whole.FindAllStringSubmatch(string(b), -1) {
				names[m[1]] = true
			}
			for _, m := range described.FindAllStringSubmatch(string(b), -1) {
				names["kadomori_"+m[1]] = true
			}
			if s := subsystem.FindStringSubmatch(string(b)); s != nil {
				for _, m := range made.FindAllStringSubmatch(string(b), -1) {
					names["kadomori_"+s[1]+"_"+m[1]] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 40 {
		t.Fatalf("only %d metrics found in the sources", len(names))
	}
	return names
}

func TestRulesAndDashboardNameMetricsThatExist(t *testing.T) {
	names := metrics(t)
	for _, file := range []string{"deploy/prometheus/kadomori.rules.yaml", "deploy/grafana/kadomori.json"} {
		b, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		found := used.FindAllString(string(b), -1)
		if len(found) < 15 {
			t.Errorf("%s names only %d metrics", file, len(found))
		}
		for _, name := range found {
			if !names[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s: no program has metric %s", file, name)
			}
		}
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	file := filepath.Join(root, "deploy/prometheus/kadomori.rules.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalStrict(b, &rules); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			n++
			if r.Expr == "" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("alert %s of %s lacks expression, summary or action", r.Alert, g.Name)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("alert %s has severity %q", r.Alert, s)
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d alerts", n)
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
			t.Errorf("promtool: %v: %s", err, out)
		}
	}
}

func TestDashboardIsReadable(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "deploy/grafana/kadomori.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if seen[p.ID] {
			t.Errorf("panel %d is there twice", p.ID)
		}
		seen[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d asks nothing", p.ID)
		}
	}
}
