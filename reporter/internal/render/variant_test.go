package render_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kadomori/kadomori/reporter/data"
	"github.com/kadomori/kadomori/reporter/internal/checklist"
	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
	"github.com/kadomori/kadomori/reporter/internal/page"
	"github.com/kadomori/kadomori/reporter/internal/render"
	"github.com/kadomori/kadomori/reporter/internal/wording"
)

// parts loads what every page needs.
func parts(t *testing.T) (*wording.Set, []checklist.Pack, *render.HTML) {
	t.Helper()
	w, err := wording.Load(data.Files)
	if err != nil {
		t.Fatal(err)
	}
	packs, err := checklist.Load(data.Files)
	if err != nil {
		t.Fatal(err)
	}
	h, err := render.NewHTML(data.Files)
	if err != nil {
		t.Fatal(err)
	}
	return w, packs, h
}

// look keeps a file for people when KADOMORI_LOOK names a folder.
func look(t *testing.T, name, file string) {
	t.Helper()
	if dir := os.Getenv("KADOMORI_LOOK"); dir != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".pdf"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSummaryIsOnePage(t *testing.T) {
	t.Parallel()
	tools(t)
	w, packs, h := parts(t)
	for _, name := range []string{"hostile"} {
		f := monthtest.Named(t, name).Facts(t)
		p, err := page.Build(f, w, packs, h.CSS())
		if err != nil {
			t.Fatal(err)
		}
		p.MakeShort()
		doc, err := h.Summary(p)
		if err != nil {
			t.Fatal(err)
		}
		file := pdf(t, f, doc)
		look(t, "summary-"+name, file)
		digest, err := f.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if text := squeeze(run(t, "pdftotext", file, "-")); pages(t, file) != "1" || !strings.Contains(text, hexOf(digest[:])) || !strings.Contains(text, "要対応") {
			t.Errorf("%s: %s pages", name, pages(t, file))
		}
	}
}

func TestFlashIsOnePageAndNeedsAnIncident(t *testing.T) {
	t.Parallel()
	tools(t)
	w, packs, h := parts(t)
	for _, name := range []string{"many", "care"} {
		f := monthtest.Named(t, name).Facts(t)
		p, err := page.Build(f, w, packs, h.CSS())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.MakeFlash(f, w); err != nil {
			t.Fatal(err)
		}
		doc, err := h.Flash(p)
		if err != nil {
			t.Fatal(err)
		}
		file := pdf(t, f, doc)
		look(t, "flash-"+name, file)
		text := squeeze(run(t, "pdftotext", file, "-"))
		if pages(t, file) != "1" || !strings.Contains(text, "速報") || !strings.Contains(text, "お願いする対応") {
			t.Errorf("%s: %s pages", name, pages(t, file))
		}
		if name == "many" && !strings.Contains(text, "ほか11台") {
			t.Error("the other ten aren't told of")
		}
	}
	f := monthtest.Named(t, "clear").Facts(t)
	p, err := page.Build(f, w, packs, h.CSS())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.MakeFlash(f, w); !errors.Is(err, page.ErrNothingToTell) {
		t.Errorf("got %v", err)
	}
}

// frozen stores a case's facts as the database would.
func frozen(t *testing.T, f *month.Facts, revision int) month.Frozen {
	t.Helper()
	raw, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := f.Digest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := month.Parse(f.Month)
	if err != nil {
		t.Fatal(err)
	}
	return month.Frozen{Month: m, Revision: revision, DocumentNo: f.DocumentNo, Facts: raw, DataSHA: digest[:]}
}

func TestAnnualTellsOfReportedMonthsOnly(t *testing.T) {
	t.Parallel()
	tools(t)
	w, packs, h := parts(t)
	c := monthtest.Infected(t)
	f := c.Facts(t)
	first, second := frozen(t, monthtest.Named(t, "clear").Facts(t), 1), frozen(t, f, 2)
	issued := time.Date(2027, 4, 5, 9, 0, 0, 0, month.JST)
	a, err := month.NewAnnual(c.In.Clinic, c.In.Sender, 2026, issued, []month.Frozen{first, second})
	if err != nil {
		t.Fatal(err)
	}
	if m := a.Months[6]; !m.Reported || m.Revision != 2 || m.Detected != f.Attacks.Detected.N || m.Infected != 1 || a.Months[5].Reported {
		t.Errorf("October: %+v", m)
	}
	p, err := page.BuildAnnual(a, w, packs, h.CSS())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := h.Annual(p)
	if err != nil {
		t.Fatal(err)
	}
	f.Issued = a.Issued
	file := pdf(t, f, doc)
	look(t, "annual", file)
	text := squeeze(run(t, "pdftotext", file, "-"))
	for _, want := range []string{"一年のまとめ", "令和8年度", "2026年10月", "報告なし", "要対応", "SY-2026-0147", "チェックリスト", "月次報告書の一覧"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	// What was altered in the database is not built on.
	second.Facts = []byte(strings.Replace(string(second.Facts), `"verdict":"act"`, `"verdict":"ok"`, 1))
	if second.Verify() == nil {
		t.Error("altered facts are taken")
	}
	if _, err := month.NewAnnual(c.In.Clinic, c.In.Sender, 2026, issued, []month.Frozen{second}); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("got %v", err)
	}
	// A year without any report says so.
	a, err = month.NewAnnual(c.In.Clinic, c.In.Sender, 2024, issued, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = page.BuildAnnual(a, w, packs, h.CSS()); err != nil {
		t.Fatal(err)
	}
	if doc, err = h.Annual(p); err != nil || !strings.Contains(string(doc), "まだ発行されていません") {
		t.Errorf("an empty year: %v", err)
	}
}

// TestCopyForScreenReadersIsTagged renders the other kind of PDF from the same document.
func TestCopyForScreenReadersIsTagged(t *testing.T) {
	t.Parallel()
	tools(t)
	f := monthtest.Named(t, "clear").Facts(t)
	r, err := render.NewPDF(render.PDFConfig{Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Render(t.Context(), render.Job{HTML: html(t, f), Issued: time.Unix(1_790_000_000, 0), Identifier: "x", Variant: "pdf/ua-1"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ua.pdf")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	if info := strings.Fields(run(t, "pdfinfo", file)); !strings.Contains(strings.Join(info, " "), "Tagged: yes") {
		t.Errorf("pdfinfo: %v", info)
	}
}
