package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"math/rand/v2"
	"testing"
)

func compress(t testing.TB, kind string, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch kind {
	case "gzip":
		w, _ = gzip.NewWriterLevel(&b, level)
	case "zlib":
		w, _ = zlib.NewWriterLevel(&b, level)
	default:
		w, _ = flate.NewWriter(&b, level)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAnySplitGivesTheSameBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var data []byte
	for len(data) < 100_000 {
		if r.IntN(3) == 0 {
			data = append(data, byte(r.IntN(256)))
		} else {
			data = append(data, "the quick brown fox <html> "[r.IntN(20):]...)
		}
	}
	for _, kind := range []string{"gzip", "zlib", "raw"} {
		for _, level := range []int{0, 1, 6, 9, flate.HuffmanOnly} {
			c := compress(t, kind, level, data)
			for _, step := range []int{1, 7, 1460, len(c)} {
				var x Reader
				f := Deflate
				if kind == "gzip" {
					f = Gzip
				}
				x.Reset(f, 1<<20)
				var got []byte
				for i := 0; i < len(c); i += step {
					o, err := x.Write(c[i:min(i+step, len(c))])
					if err != nil {
						t.Fatalf("%s level %d step %d at %d: %v", kind, level, step, i, err)
					}
					got = append(got, o...)
				}
				if !bytes.Equal(got, data) {
					t.Fatalf("%s level %d step %d: %d bytes, want %d", kind, level, step, len(got), len(data))
				}
			}
		}
	}
}

func TestBombStopsAtTheLimit(t *testing.T) {
	c := compress(t, "gzip", 9, make([]byte, 10<<20))
	var x Reader
	x.Reset(Gzip, 100_000)
	out, err := x.Write(c)
	if err != nil || len(out) != 100_000 || !x.Bomb {
		t.Fatalf("%d bytes, bomb %v, %v", len(out), x.Bomb, err)
	}
}

func FuzzWrite(f *testing.F) {
	f.Add(compress(f, "gzip", 6, []byte("hello hello hello")), uint8(3))
	f.Add(compress(f, "raw", 6, bytes.Repeat([]byte("ab"), 300)), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		for _, format := range []Format{Gzip, Deflate} {
			var x Reader
			x.Reset(format, 1<<16)
			for i := 0; i < len(b); i += int(step) + 1 {
				if _, err := x.Write(b[i:min(i+int(step)+1, len(b))]); err != nil {
					break
				}
			}
		}
	})
}
