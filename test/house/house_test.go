// Package house holds the rules of the house as tests: who may import whom, what every package says of itself, names and
// sizes. Everybody runs it through make test. The trap: a rule that needs an exception gets it in the table below with a
// reason, never by weakening the rule.
package house

import (
	"bytes"
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

const prefix = "github.com/kadomori/kadomori/"

// maxLines is about 600 by the rules of the house; a file may grow a little over it, a file of twice that size is a place
// where everybody edits.
const maxLines = 800

var forbiddenNames = []string{"common", "util", "utils", "pkg", "types", "models", "helpers", "misc"}

// gitFiles lists tracked files and those about to be added that match the pathspecs.
func gitFiles(t *testing.T, specs ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"ls-files", "--cached", "--others", "--exclude-standard", "--"}, specs...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list files: %v", err)
	}
	var files []string
	for f := range strings.Lines(string(out)) {
		f = strings.TrimSuffix(f, "\n")
		if _, err := os.Stat(filepath.Join(root, f)); err == nil {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		t.Fatalf("no files match %q: the rule would check nothing", specs)
	}
	return files
}

// generatedMark is what Go's tools go by (https://go.dev/s/generatedcode).
var generatedMark = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func generated(content []byte) bool {
	return generatedMark.Match(content[:min(len(content), 2048)])
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]bool{}
	for _, f := range gitFiles(t, "*.go") {
		content, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(f)
		if _, ok := said[dir]; !ok {
			said[dir] = false
		}
		if generated(content) {
			if strings.HasPrefix(f, "proto/gen/") {
				said[dir] = true
			}
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, content, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if file.Doc == nil {
			continue
		}
		want := "Package " + file.Name.Name + " "
		if file.Name.Name == "main" {
			want = "Command "
		}
		if strings.HasPrefix(strings.TrimSuffix(file.Doc.Text(), "\n"), want) ||
			strings.HasSuffix(file.Name.Name, "_test") {
			said[dir] = true
		}
	}
	for dir, ok := range said {
		if !ok {
			t.Errorf("%s: no package comment that begins with %q", dir, "Package <name> …")
		}
	}
}

func TestNoPackageIsNamedForNothing(t *testing.T) {
	for _, f := range gitFiles(t, "*.go") {
		for part := range strings.SplitSeq(filepath.Dir(f), "/") {
			if slices.Contains(forbiddenNames, part) {
				t.Errorf("%s: a package named %q says nothing; name the thing it holds", f, part)
			}
		}
	}
}

func TestNoFileGrowsWithoutEnd(t *testing.T) {
	for _, f := range gitFiles(t, "*.go", "*.c", "*.h", "*.ts", "*.css", "*.templ") {
		content, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		if generated(content) || strings.HasPrefix(f, "bpf/headers/") {
			continue
		}
		if n := bytes.Count(content, []byte("\n")); n > maxLines {
			t.Errorf("%s: %d lines; split it by noun below %d", f, n, maxLines)
		}
	}
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

func TestNothingIsLeftForLater(t *testing.T) {
	for _, f := range gitFiles(t, "*.go", "*.c", "*.h", "*.ts", "*.sh", "*.proto", "*.sql", "*.templ") {
		if strings.HasPrefix(f, "test/house/") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		if generated(content) {
			continue
		}
		for i, line := range bytes.Split(content, []byte("\n")) {
			if unfinished.Match(line) {
				t.Errorf("%s:%d: %s", f, i+1, bytes.TrimSpace(line))
			}
		}
	}
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, pattern string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", pattern)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pattern, err)
	}
	var packages []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatalf("go list %s: %v", pattern, err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatalf("go list %s: no packages: the rule would check nothing", pattern)
	}
	return packages
}

func TestModulesMeetOnlyInProto(t *testing.T) {
	for _, rule := range []struct {
		module string
		denied []string
	}{
		{"proto", []string{prefix + "dataplane", prefix + "controlplane", prefix + "reporter", prefix + "test"}},
		{"dataplane", []string{prefix + "controlplane", prefix + "reporter", prefix + "test", "github.com/jackc/pgx", "github.com/nats-io/nats-server"}},
		{"controlplane", []string{prefix + "dataplane", prefix + "reporter", prefix + "test", "github.com/cilium/ebpf"}},
		{"reporter", []string{prefix + "dataplane", prefix + "controlplane", prefix + "test", "github.com/nats-io"}},
	} {
		for _, p := range list(t, "./"+rule.module+"/...") {
			for _, dep := range p.Deps {
				for _, d := range rule.denied {
					if dep == d || strings.HasPrefix(dep, d+"/") {
						t.Errorf("%s reaches %s", p.ImportPath, dep)
					}
				}
			}
		}
	}
}

// Inside a module, app is the only package that knows all others: nothing but cmd (and test) imports it.
func TestOnlyCommandsKnowApp(t *testing.T) {
	for _, module := range []string{"dataplane", "controlplane", "reporter"} {
		for _, p := range list(t, "./"+module+"/...") {
			if strings.HasPrefix(p.ImportPath, prefix+module+"/cmd/") {
				continue
			}
			if slices.Contains(p.Imports, prefix+module+"/app") {
				t.Errorf("%s imports %s/app", p.ImportPath, module)
			}
		}
	}
}

func TestTopLevelIsAsDesigned(t *testing.T) {
	want := []string{
		".ci", ".clang-format", ".gitattributes", ".gitignore", ".golangci.yml", "LICENSE", "Makefile", "README.ja.md", "README.md",
		"bpf", "buf.gen.yaml", "buf.yaml", "controlplane", "dataplane", "deploy", "docs", "go.work", "go.work.sum", "helm", "proto",
		"reporter", "test", "tools",
	}
	seen := map[string]bool{}
	for _, f := range gitFiles(t, ".") {
		top, _, _ := strings.Cut(f, "/")
		seen[top] = true
	}
	for name := range seen {
		if !slices.Contains(want, name) {
			t.Errorf("%s: not a folder or file of the top level", name)
		}
	}
	for _, name := range want {
		if !seen[name] && name != "go.work.sum" {
			t.Errorf("%s: missing", name)
		}
	}
}

// README names the commands; CI must call what README says.
func TestReadmeAndCIAgree(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	ci, err := os.ReadFile(filepath.Join(root, ".ci/run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"make demo", "make test"} {
		if !bytes.Contains(readme, []byte(command)) {
			t.Errorf("README.md doesn't name %q", command)
		}
		if !bytes.Contains(ci, []byte(command)) {
			t.Errorf(".ci/run doesn't call %q", command)
		}
	}
}

// Every relative link of a document leads to a file.
func TestDocumentsLinkToFilesThatExist(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for _, f := range gitFiles(t, "*.md") {
		content, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(content, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(f), target)); err != nil {
				t.Errorf("%s: link to %s leads nowhere", f, target)
			}
		}
	}
}
