package render_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kadomori/kadomori/reporter/data"
	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
	"github.com/kadomori/kadomori/reporter/internal/page"
	"github.com/kadomori/kadomori/reporter/internal/render"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// html prints facts as the reporter does.
func html(t *testing.T, f *month.Facts) []byte {
	t.Helper()
	w, packs, h := parts(t)
	p, err := page.Build(f, w, packs, h.CSS())
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.Report(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pdf prints a document and returns its file.
func pdf(t *testing.T, f *month.Facts, doc []byte) string {
	t.Helper()
	r, err := render.NewPDF(render.PDFConfig{Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := time.Parse(time.RFC3339, f.Issued)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wording.Load(data.Files)
	if err != nil {
		t.Fatal(err)
	}
	evidence, devices, err := page.Files(f, w)
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Render(context.Background(), render.Job{HTML: doc, Issued: issued, Identifier: f.DocumentNo, Attachments: []render.Attachment{
		{Name: "evidence.csv", Description: "証跡番号の一覧", Data: evidence}, {Name: "devices.csv", Description: "端末ごとの検知", Data: devices},
	}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "report.pdf")
	if err := os.WriteFile(name, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// printed holds the files of the cases, so that each is rendered once however many tests look at it.
var (
	printed   sync.Map // name to func() string
	printedIn string
)

// TestMain keeps the rendered cases until all tests have looked at them.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kadomori-report-")
	if err != nil {
		panic(err)
	}
	printedIn = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code) //nolint:forbidigo // a test's main
}

// cached is the rendered case of that name.
func cached(t *testing.T, name string) string {
	t.Helper()
	once, _ := printed.LoadOrStore(name, sync.OnceValue(func() string {
		f := monthtest.Named(t, name).Facts(t)
		raw, err := os.ReadFile(pdf(t, f, html(t, f)))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(printedIn, name+".pdf")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}))
	file, ok := once.(func() string)
	if !ok {
		t.Fatal("not a file")
	}
	return file()
}

// TestWriteLook writes the cases to the folder that KADOMORI_LOOK names, for people to look at.
func TestWriteLook(t *testing.T) {
	dir := os.Getenv("KADOMORI_LOOK")
	if dir == "" {
		t.Skip("KADOMORI_LOOK names no folder to write to")
	}
	names := monthtest.Names
	if one := os.Getenv("KADOMORI_LOOK_CASE"); one != "" {
		names = []string{one}
	}
	for _, name := range names {
		f := monthtest.Named(t, name).Facts(t)
		doc := html(t, f)
		file := pdf(t, f, doc)
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for ext, b := range map[string][]byte{".html": doc, ".pdf": raw} {
			if err := os.WriteFile(filepath.Join(dir, name+ext), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
