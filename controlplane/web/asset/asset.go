// Package asset holds the console's scripts, styles, icons and font, bundled and compressed beforehand. Package web serves
// them and asks for their names. The trap: dist is generated from ../src; edit there and run go generate.
package asset

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:generate go run ./bundle

//go:embed dist
var dist embed.FS

// Prefix is the URL path below which Handler expects its files.
const Prefix = "/static/"

// Set knows every asset by its plain name.
type Set struct {
	url   map[string]string // app.js -> /static/app-0123456789.js
	files map[string]entry  // app-0123456789.js
	icons string
}

type entry struct {
	body, gz []byte
	ctype    string
}

var types = map[string]string{
	".js":    "text/javascript; charset=utf-8",
	".css":   "text/css; charset=utf-8",
	".svg":   "image/svg+xml",
	".woff2": "font/woff2",
}

// Load reads the embedded files. It fails only when the bundle was not made or holds an unknown kind of file.
func Load() (*Set, error) {
	s := &Set{url: map[string]string{}, files: map[string]entry{}}
	names, err := fs.ReadDir(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	for _, d := range names {
		name := d.Name()
		if strings.HasSuffix(name, ".gz") {
			continue
		}
		body, err := dist.ReadFile("dist/" + name)
		if err != nil {
			return nil, fmt.Errorf("read asset %s: %w", name, err)
		}
		ext := path.Ext(name)
		if types[ext] == "" {
			return nil, fmt.Errorf("asset %s: unknown kind %q", name, ext)
		}
		e := entry{body: body, ctype: types[ext]}
		if gz, err := dist.ReadFile("dist/" + name + ".gz"); err == nil {
			e.gz = gz
		}
		s.files[name] = e
		stem := strings.TrimSuffix(name, ext)
		if i := strings.LastIndexByte(stem, '-'); i > 0 {
			s.url[stem[:i]+ext] = Prefix + name
		}
		if strings.HasPrefix(name, "icons-") {
			s.icons = string(bytes.TrimSpace(body))
		}
	}
	for _, want := range []string{"app.js", "app.css", "clinic.css", "inter.woff2", "icons.svg", "fav.svg"} {
		if s.url[want] == "" {
			return nil, fmt.Errorf("asset %s is missing: run go generate", want)
		}
	}
	return s, nil
}

// URL returns the path under which the named asset is served; empty when there is none.
func (s *Set) URL(name string) string { return s.url[name] }

// Icons returns the symbols as one SVG element to put into a page once. It is ours, never built from data.
func (s *Set) Icons() string { return s.icons }

// ServeHTTP answers GET and HEAD below Prefix. Names carry their content's hash, so answers may be kept for a year.
func (s *Set) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, ok := s.files[strings.TrimPrefix(r.URL.Path, Prefix)]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", e.ctype)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	body := e.body
	if e.gz != nil {
		h.Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && r.Header.Get("Range") == "" {
			h.Set("Content-Encoding", "gzip")
			h.Set("Content-Length", strconv.Itoa(len(e.gz)))
			body = e.gz
		}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}
