package page

import (
	"strings"
	"testing"
)

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1284: "1,284", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := comma(n); got != want {
			t.Errorf("comma(%d) = %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1500: "1.5 KB", 999_999: "1,000.0 KB", 470_900_000_000: "470.9 GB", 9_999_000_000_000: "9,999.0 GB", 12_000_000_000_000: "12.0 TB"} {
		if got := volume(n); got != want {
			t.Errorf("volume(%d) = %s, want %s", n, got, want)
		}
	}
	for ms, want := range map[int64]string{0: "0分", 1: "1秒未満", 67: "1秒未満", 1000: "1秒", 59_001: "60秒", 60_000: "1分", 60_001: "2分", 42 * 60_000: "42分", 3600_000: "1時間", 252 * 60_000: "4時間12分", 100 * 3600_000: "4日4時間", 48 * 3600_000: "2日"} {
		if got := duration(ms); got != want {
			t.Errorf("duration(%d) = %s, want %s", ms, got, want)
		}
	}
}

func TestChunksLoseNothing(t *testing.T) {
	var b strings.Builder
	for i := range 20_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(comma(int64(i))[:1] + "-12345678")
	}
	got := chunks(b.String())
	for _, c := range got {
		if len(c) > maxCell {
			t.Errorf("a cell of %d characters", len(c))
		}
	}
	if len(got) < 5 || strings.Join(got, ",") != b.String() {
		t.Errorf("%d chunks don't join to the whole", len(got))
	}
}
