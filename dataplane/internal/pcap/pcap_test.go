package pcap

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/kadomori/kadomori/dataplane/internal/packet"
)

func sample(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, packet.LinkEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := w.Write(bytes.Repeat([]byte{byte(i)}, 60), 1_700_000_000_123_456_789+int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func readAll(b []byte) (n int, last Packet, err error) {
	r, err := NewReader("test", bytes.NewReader(b))
	if err != nil {
		return 0, last, err
	}
	for {
		var p Packet
		if err := r.Next(&p); err != nil {
			return n, last, err
		}
		n++
		last = p
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	n, last, err := readAll(sample(t))
	if !errors.Is(err, io.EOF) || n != 3 || last.Time != 1_700_000_000_123_456_791 || last.Number != 3 || len(last.Data) != 60 {
		t.Fatalf("%d packets, last %+v, %v", n, last, err)
	}
}

func TestTruncatedFileGivesWhatIsThereThenSaysSo(t *testing.T) {
	b := sample(t)
	n, _, err := readAll(b[:len(b)-10])
	if n != 2 || !errors.Is(err, ErrTruncated) {
		t.Fatalf("%d packets, %v", n, err)
	}
	if _, _, err := readAll(b[:10]); !errors.Is(err, ErrTruncated) {
		t.Fatalf("head: %v", err)
	}
	if _, _, err := readAll([]byte("not a capture at all")); err == nil || errors.Is(err, ErrTruncated) {
		t.Fatalf("rubbish: %v", err)
	}
}

func FuzzNext(f *testing.F) {
	f.Add(sample(f))
	f.Add([]byte("\x0a\x0d\x0d\x0a\x1c\x00\x00\x00\x4d\x3c\x2b\x1a\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x1c\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _, _ = readAll(b)
	})
}
