package render_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"image"
	_ "image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	nethtml "golang.org/x/net/html"

	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
	"github.com/kadomori/kadomori/reporter/internal/render"
)

// need skips without a program, and fails in CI.
func need(t *testing.T, pkg string, args ...string) {
	t.Helper()
	if err := exec.Command(args[0], args[1:]...).Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs Debian's %s: %v", pkg, err)
		}
		t.Skipf("needs Debian's %s: %v", pkg, err)
	}
}

func tools(t *testing.T) {
	t.Helper()
	need(t, "weasyprint", "/usr/bin/python3", "-I", "-c", "import weasyprint")
	need(t, "poppler-utils", "pdftotext", "-v")
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", args[0], err, stderr.String())
	}
	return string(out)
}

// squeeze takes out all white space, because line breaks fall where they may.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

// TestEveryCaseIsAProperPDF renders each case and looks at the file as its readers will.
func TestEveryCaseIsAProperPDF(t *testing.T) {
	t.Parallel()
	tools(t)
	for _, name := range monthtest.Names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := monthtest.Named(t, name).Facts(t)
			file := cached(t, name)
			first := squeeze(run(t, "pdftotext", "-f", "1", "-l", "1", file, "-"))
			// Page 1 is one page: its last line is on it, and page 2 begins with its own title.
			for _, want := range []string{"今月のまとめ", "院長確認欄", "印の意味", "観測範囲", f.DocumentNo} {
				if !strings.Contains(first, want) {
					t.Errorf("page 1 has no %s", want)
				}
			}
			if second := squeeze(run(t, "pdftotext", "-f", "2", "-l", "2", file, "-")); !strings.Contains(second, "感染端末・ボット・マルウェア") {
				t.Error("page 2 isn't the infected devices: page 1 has run over")
			}
			all := squeeze(run(t, "pdftotext", file, "-"))
			for _, term := range []string{"感染端末", "感染の疑いがある端末", "攻撃検知", "アプリケーション別利用割合", "通信量", "受信", "送信", "検知", "遮断", "通過", "観測範囲", "検査停止時間", "用語解説", "推奨対応"} {
				if !strings.Contains(all, term) {
					t.Errorf("the term %s isn't there", term)
				}
			}
			for _, never := range []string{"安全です", "感染していません", "準拠しています", "完全に", "{", "<no value>", "%!"} {
				if strings.Contains(all, never) && name != "hostile" {
					t.Errorf("it says %s", never)
				}
			}
			digest, err := f.Digest()
			if err != nil {
				t.Fatal(err)
			}
			last := squeeze(run(t, "pdftotext", "-f", pages(t, file), "-l", pages(t, file), file, "-"))
			if want := hexOf(digest[:]); !strings.Contains(last, want) {
				t.Errorf("the last page doesn't print the digest %s", want)
			}
			for i, line := range strings.Split(strings.TrimSpace(run(t, "pdffonts", file)), "\n") {
				fields := strings.Fields(line)
				if n := len(fields); i > 1 && (fields[n-5] != "yes" || fields[n-4] != "yes") {
					t.Errorf("font is not embedded and subset: %s", line)
				}
			}
			if info := run(t, "pdfinfo", file); !strings.Contains(info, "595.276 x 841.89") || !strings.Contains(info, f.Clinic.Name) {
				t.Errorf("pdfinfo: %s", info)
			}
		})
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, x := range b {
		out.WriteByte(digits[x>>4])
		out.WriteByte(digits[x&15])
	}
	return out.String()
}

func pages(t *testing.T, file string) string {
	t.Helper()
	m := regexp.MustCompile(`Pages:\s+([0-9]+)`).FindStringSubmatch(run(t, "pdfinfo", file))
	if m == nil {
		t.Fatal("pdfinfo names no number of pages")
	}
	return m[1]
}

func TestInfectedMonthSaysWhoAndWhat(t *testing.T) {
	t.Parallel()
	tools(t)
	text := squeeze(run(t, "pdftotext", cached(t, "infected"), "-"))
	for _, want := range []string{
		"「受付PC-2」に感染の疑いがあります。", "192.168.10.22", "198.51.100.77", "LANケーブルを抜いてください。", "電源は切らないでください。", "約60分おきに3回",
		"3件すべて遮断", "100.0%", "0120-000-000", "さくら通り内科クリニック",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestSharesOnPaperAddUp reads the printed shares back.
func TestSharesOnPaperAddUp(t *testing.T) {
	t.Parallel()
	tools(t)
	text := run(t, "pdftotext", "-layout", cached(t, "infected"), "-")
	_, table, _ := strings.Cut(text, "前月比（ポイント）")
	table, _, _ = strings.Cut(table, "合計 ")
	sum, n := 0, 0
	for _, m := range regexp.MustCompile(`([0-9]+)\.([0-9])%`).FindAllStringSubmatch(table, -1) {
		v, err := strconv.Atoi(m[1] + m[2])
		if err != nil {
			t.Fatal(err)
		}
		sum += v
		n++
	}
	if sum != 1000 || n != 11 {
		t.Errorf("%d shares add up to %d tenths", n, sum)
	}
}

func TestSameFactsGiveSameBytes(t *testing.T) {
	t.Parallel()
	tools(t)
	a, err := os.ReadFile(cached(t, "hostile"))
	if err != nil {
		t.Fatal(err)
	}
	f := monthtest.Named(t, "hostile").Facts(t)
	b, err := os.ReadFile(pdf(t, f, html(t, f)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two runs differ")
	}
}

// TestHostileNamesStayText looks for elements and attributes that a name could have made.
func TestHostileNamesStayText(t *testing.T) {
	doc := html(t, monthtest.Named(t, "hostile").Facts(t))
	root, err := nethtml.Parse(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	evs := map[string]bool{}
	var rows []string
	for n := range root.Descendants() {
		if n.Type != nethtml.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "img", "link", "iframe", "object", "form", "base":
			t.Errorf("element %s", n.Data)
		case "style":
			if strings.Contains(n.FirstChild.Data, "<") || n.Parent.Data != "head" {
				t.Error("a style sheet that isn't ours")
			}
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "src" || a.Key == "href" && !strings.HasPrefix(a.Val, "#") {
				t.Errorf("attribute %s=%q", a.Key, a.Val)
			}
			if a.Key == "data-ev" {
				for _, e := range strings.Fields(a.Val) {
					evs[e] = true
				}
			}
			if a.Key == "id" && strings.HasPrefix(a.Val, "ev-") {
				rows = append(rows, a.Val[3:])
			}
		}
	}
	known := map[string]bool{}
	for _, r := range rows {
		known[r] = true
	}
	for e := range evs {
		if !known[e] {
			t.Errorf("data-ev %s isn't in the appendix", e)
		}
	}
	if len(evs) < 40 {
		t.Errorf("only %d numbers carry evidence", len(evs))
	}
	for _, r := range "\u202e\u2066\x00" {
		if bytes.ContainsRune(doc, r) {
			t.Errorf("the document holds %U", r)
		}
	}
	if !bytes.Contains(doc, []byte("𠮷")) {
		t.Error("𠮷 is gone")
	}
}

// TestFaxIsReadable looks at page 1 as a fax does, 204 dpi and 1 bit: the mark's block must be solid black, the paper white.
func TestFaxIsReadable(t *testing.T) {
	t.Parallel()
	tools(t)
	file := cached(t, "infected")
	out := filepath.Join(t.TempDir(), "fax")
	run(t, "pdftoppm", "-r", "204", "-mono", "-png", "-f", "1", "-l", "1", "-singlefile", file, out)
	raw, err := os.Open(out + ".png")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	img, _, err := image.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	black := func(x0, y0, x1, y1 float64) float64 { // in mm
		n, total := 0, 0
		for y := int(y0 * 204 / 25.4); y < int(y1*204/25.4); y++ {
			for x := int(x0 * 204 / 25.4); x < int(x1*204/25.4); x++ {
				total++
				if r, _, _, _ := img.At(x, y).RGBA(); r < 0x8000 {
					n++
				}
			}
		}
		return float64(n) / float64(total)
	}
	if b := black(24, 72, 30, 90); b < .6 {
		t.Errorf("the mark's block is %.0f%% black", b*100)
	}
	if b := black(0, 0, 20, 297); b > .001 {
		t.Errorf("the margin is %.2f%% black", b*100)
	}
	if b := black(22, 20, 192, 275); b < .02 || b > .25 {
		t.Errorf("the page is %.1f%% black: text gone, or tints turned to dots", b*100)
	}
}

// TestRendererIsCaged gives it a document that asks for things outside.
func TestRendererIsCaged(t *testing.T) {
	t.Parallel()
	tools(t)
	secret := filepath.Join(t.TempDir(), "secret.txt")
	if err := os.WriteFile(secret, []byte("geheim"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := render.NewPDF(render.PDFConfig{Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Render(context.Background(), render.Job{
		HTML:   []byte(`<!DOCTYPE html><meta charset=utf-8><link rel=stylesheet href="file://` + secret + `"><link rel=attachment href="file://` + secret + `"><img src="http://127.0.0.1:1/x.png"><p>本文`),
		Issued: time.Unix(1_700_000_000, 0), Identifier: "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.pdf")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	if list := run(t, "pdfdetach", "-list", file); !strings.HasPrefix(list, "0 embedded") {
		t.Errorf("a file of the machine went in: %s", list)
	}
}

func TestRendererHasLimits(t *testing.T) {
	fake := func(body string) string {
		name := filepath.Join(t.TempDir(), "python")
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, c := range map[string]struct {
		body, want string
		timeout    time.Duration
	}{
		"too long": {"exec sleep 60", "took longer than 1s", time.Second},
		"too much": {"exec cat /dev/zero", "more than 33554432 bytes", time.Minute},
		"no pdf":   {"echo hello", "not a PDF", time.Minute},
		"error":    {"echo Traceback >&2; echo 'MemoryError: no room' >&2; exit 1", "MemoryError: no room", time.Minute},
		"missing":  {"", "no such file", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			python := "/nonexistent/python3"
			if c.body != "" {
				python = fake(c.body)
			}
			r, err := render.NewPDF(render.PDFConfig{Python: python, Timeout: c.timeout})
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Render(context.Background(), render.Job{HTML: []byte("x"), Issued: time.Unix(0, 0)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := render.NewPDF(render.PDFConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Render(ctx, render.Job{}); err == nil {
		t.Error("a cancelled render succeeds")
	}
	if _, err := render.NewPDF(render.PDFConfig{Concurrency: 65}); err == nil {
		t.Error("65 at a time are taken")
	}
}

// TestFilesGoAlong takes the attachments out again and reads them.
func TestFilesGoAlong(t *testing.T) {
	t.Parallel()
	tools(t)
	file := cached(t, "hostile")
	dir := t.TempDir()
	run(t, "pdfdetach", "-saveall", "-o", dir, file)
	raw, err := os.ReadFile(filepath.Join(dir, "evidence.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\ufeff")))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	f := monthtest.Named(t, "hostile").Facts(t)
	ids := map[string]bool{}
	for _, r := range rows[1:] {
		ids[r[0]] = true
	}
	for _, e := range f.Evidence {
		if !ids[e.ID] {
			t.Errorf("%s isn't in the file", e.ID)
		}
	}
	raw, err = os.ReadFile(filepath.Join(dir, "devices.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err = csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\ufeff")))).ReadAll()
	if err != nil || len(rows) != 1+len(f.Infected.Rows) {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		for _, c := range r {
			if c != "" && strings.ContainsRune("=+-@", rune(c[0])) {
				t.Errorf("cell %q would be a formula", c)
			}
		}
	}
	pdf, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(pdf, []byte("/AFRelationship /Data")) || !bytes.Contains(pdf, []byte("/AF [")) {
		t.Error("the attachments lack what PDF/A-3 wants")
	}
}

// TestRendererHasNoNetwork runs a script in the renderer's place that lists its network interfaces.
func TestRendererHasNoNetwork(t *testing.T) {
	if err := exec.Command("unshare", "--user", "--net", "true").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs user namespaces: %v", err)
		}
		t.Skipf("needs user namespaces: %v", err)
	}
	python := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(python, []byte("#!/bin/sh\nprintf '%%PDF-'; cat /proc/net/dev; env\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := render.NewPDF(render.PDFConfig{Python: python})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SECRET", "geheim")
	out, err := r.Render(context.Background(), render.Job{Issued: time.Unix(1_700_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "geheim") || !strings.Contains(string(out), "SOURCE_DATE_EPOCH=1700000000") {
		t.Errorf("its environment: %s", out)
	}
	for _, line := range strings.Split(string(out), "\n") {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.Contains(line, "|") && name != "lo" && !strings.Contains(line, "=") {
			t.Errorf("it has an interface: %s", line)
		}
	}
}
