// Package render prints a page: facts put into words become one self-contained HTML document, and that same document becomes a
// PDF/A-3b. Package app calls it. The trap: the renderer is a child process that reads bytes from outside; it gets no network,
// no files, no environment, and a limit on time, memory and output.
package render

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"regexp"

	"github.com/kadomori/kadomori/reporter/internal/page"
)

// Short tokens that must not be broken over two lines: 受付PC-2, Wi-Fi, 10月27日, 02:14, addresses, 1,284件.
var unbroken = regexp.MustCompile(`[\p{Han}\p{Katakana}ー]{0,3}[A-Za-z]+-[0-9]+|Wi-Fi|[0-9]+月[0-9]+日|[0-9]{1,2}:[0-9]{2}|[0-9]+(?:\.[0-9]+){3}|[0-9][0-9,.]*[%件台回分]`)

// nb escapes a text and then keeps its short tokens together.
func nb(text string) template.HTML {
	escaped := template.HTMLEscapeString(text)
	return template.HTML(unbroken.ReplaceAllString(escaped, `<span class="nb">$0</span>`)) //nolint:gosec // escaped above
}

// HTML makes documents from pages.
type HTML struct {
	page *template.Template
	css  string
}

// NewHTML reads template and style sheet from the data folder.
func NewHTML(files fs.FS) (*HTML, error) {
	css, err := fs.ReadFile(files, "template/report.css")
	if err != nil {
		return nil, fmt.Errorf("read style sheet: %w", err)
	}
	t, err := template.New("report.html").Funcs(template.FuncMap{"nb": nb}).ParseFS(files, "template/*.html")
	if err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	return &HTML{page: t, css: string(css)}, nil
}

// CSS is the style sheet, to be handed to page.Build.
func (h *HTML) CSS() string { return h.css }

// Summary is page 1 alone.
func (h *HTML) Summary(p *page.Page) ([]byte, error) { return h.fill("summary.html", p) }

// Annual is the year's report.
func (h *HTML) Annual(p *page.Annual) ([]byte, error) { return h.fill("annual.html", p) }

// Flash is the same-day report.
func (h *HTML) Flash(p *page.Page) ([]byte, error) { return h.fill("flash.html", p) }

// Report is the monthly report: one document for the console and for the renderer, style inside, no script, nothing to fetch.
func (h *HTML) Report(p *page.Page) ([]byte, error) { return h.fill("report.html", p) }

func (h *HTML) fill(name string, p any) ([]byte, error) {
	var b bytes.Buffer
	if err := h.page.ExecuteTemplate(&b, name, p); err != nil {
		return nil, fmt.Errorf("fill template: %w", err)
	}
	return b.Bytes(), nil
}
