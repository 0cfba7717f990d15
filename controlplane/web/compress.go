package web

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
)

var zippers = sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(io.Discard, 5); return z }} // 5: a page in a millisecond

// writePage sends what render writes, compressed when the browser takes that. The status line must not be out yet, or the header
// must have been set by zipHeader before it.
func writePage(w http.ResponseWriter, render func(io.Writer) error) error {
	if w.Header().Get("Content-Encoding") != "gzip" {
		return render(w)
	}
	z := zippers.Get().(*gzip.Writer) // the pool holds nothing else
	z.Reset(w)
	err := render(z)
	if e := z.Close(); err == nil {
		err = e
	}
	z.Reset(io.Discard)
	zippers.Put(z)
	return err
}

// zipHeader announces compression when the browser takes it.
func zipHeader(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
	}
}
