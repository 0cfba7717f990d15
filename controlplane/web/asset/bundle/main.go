// Command bundle turns the console's TypeScript, CSS, icons and font into the files that package asset embeds: minified,
// named by content hash, with a gzip twin. It uses esbuild's Go API, so no Node is needed and a module cache is enough to
// run it offline. `go generate ./controlplane/web/asset` calls it in the folder of package asset.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

func main() {
	if err := run("../src", "dist", os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// file is one output before it gets its hashed name.
type file struct {
	name string // app.js
	body []byte
}

func run(src, dist string, out io.Writer) error {
	old, err := filepath.Glob(filepath.Join(dist, "*"))
	if err != nil {
		return fmt.Errorf("list %s: %w", dist, err)
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("remove old output: %w", err)
		}
	}
	font, err := os.ReadFile(filepath.Join(src, "inter.woff2"))
	if err != nil {
		return fmt.Errorf("read font: %w", err)
	}
	fontName := hashed("inter.woff2", font)
	files := []file{{"inter.woff2", font}}
	for _, entry := range []string{"app.ts", "app.css", "clinic.css", "clinic.ts"} {
		if _, err := os.Stat(filepath.Join(src, entry)); os.IsNotExist(err) {
			continue
		}
		r := api.Build(api.BuildOptions{
			EntryPoints: []string{filepath.Join(src, entry)}, Bundle: true, Write: false, Outdir: "out",
			MinifyWhitespace: true, MinifyIdentifiers: true, MinifySyntax: true,
			Target: api.ES2022, Format: api.FormatESModule, Charset: api.CharsetUTF8,
			LegalComments: api.LegalCommentsNone, External: []string{"*.woff2"},
		})
		if len(r.Errors) > 0 {
			m := r.Errors[0]
			if m.Location != nil {
				return fmt.Errorf("bundle %s:%d: %s", m.Location.File, m.Location.Line, m.Text)
			}
			return fmt.Errorf("bundle %s: %s", entry, m.Text)
		}
		for _, o := range r.OutputFiles {
			body := bytes.ReplaceAll(o.Contents, []byte("inter.woff2"), []byte(fontName))
			files = append(files, file{filepath.Base(o.Path), body})
		}
	}
	for _, name := range []string{"icons.svg", "fav.svg"} {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return fmt.Errorf("read icons: %w", err)
		}
		files = append(files, file{name, b})
	}
	for _, f := range files {
		if err := write(dist, f, out); err != nil {
			return err
		}
	}
	return nil
}

// hashed puts the first 10 hex digits of the content's SHA-256 before the last dot.
func hashed(name string, body []byte) string {
	h := sha256.Sum256(body)
	ext := filepath.Ext(name)
	return strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(h[:5]) + ext
}

func write(dist string, f file, out io.Writer) error {
	path := filepath.Join(dist, hashed(f.name, f.body))
	if err := os.WriteFile(path, f.body, 0o644); err != nil { //nolint:gosec // these files are public
		return fmt.Errorf("write output: %w", err)
	}
	size := len(f.body)
	if !strings.HasSuffix(f.name, ".woff2") { // woff2 is Brotli inside already
		var z bytes.Buffer
		w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
		if err != nil {
			return fmt.Errorf("compress output: %w", err)
		}
		if _, err := w.Write(f.body); err != nil {
			return fmt.Errorf("compress output: %w", err)
		}
		if err := w.Close(); err != nil {
			return fmt.Errorf("compress output: %w", err)
		}
		if err := os.WriteFile(path+".gz", z.Bytes(), 0o644); err != nil { //nolint:gosec // these files are public
			return fmt.Errorf("write output: %w", err)
		}
		size = z.Len()
	}
	_, err := fmt.Fprintf(out, "%-28s %7d bytes, %6d on the wire\n", filepath.Base(path), len(f.body), size)
	return err
}
