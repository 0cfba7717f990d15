package pcre

import (
	"strings"
	"testing"
)

func TestMatchAndSpans(t *testing.T) {
	e, err := Compile(`(?P<key>\w+)=(\d+)?`, Caseless)
	if err != nil {
		t.Fatal(err)
	}
	s := NewScratch()
	defer s.Close()
	b := []byte("a; Key=; n=42")
	if !s.Match(e, b, 0) {
		t.Fatal("not found")
	}
	if from, to, ok := s.Span(1); !ok || string(b[from:to]) != "Key" {
		t.Errorf("group 1: %d %d %v", from, to, ok)
	}
	if _, _, ok := s.Span(2); ok {
		t.Error("a group that took no part has a place")
	}
	_, end, _ := s.Span(0)
	if !s.Match(e, b, end) {
		t.Fatal("the second is not found")
	}
	if from, to, ok := s.Span(2); !ok || string(b[from:to]) != "42" {
		t.Errorf("group 2: %d %d %v", from, to, ok)
	}
	if e.Groups() != 2 || e.Group("key") != 1 || e.Group("none") != 0 || e.Size() <= 0 {
		t.Errorf("groups %d, key %d, size %d", e.Groups(), e.Group("key"), e.Size())
	}
	if s.Match(e, b, len(b)+1) || s.Match(e, b, -1) {
		t.Error("a start outside the buffer matched")
	}
	if _, _, ok := s.Span(99); ok {
		t.Error("group 99 has a place")
	}
}

func TestMoreGroupsThanAreKept(t *testing.T) {
	e, err := Compile(strings.Repeat(`(\d)`, 20), 0)
	if err != nil {
		t.Fatal(err)
	}
	s := NewScratch()
	defer s.Close()
	if !s.Match(e, []byte(strings.Repeat("7", 20)), 0) {
		t.Fatal("not found")
	}
	if from, to, ok := s.Span(8); !ok || from != 7 || to != 8 {
		t.Errorf("group 8: %d %d %v", from, to, ok)
	}
}

func TestCompileNamesThePlaceOfAnError(t *testing.T) {
	if _, err := Compile("a(b", 0); err == nil || !strings.Contains(err.Error(), "at 3") {
		t.Errorf("got %v", err)
	}
	if _, err := Compile("", 0); err != nil {
		t.Errorf("an empty expression: %v", err)
	}
}

func TestExplosionIsBounded(t *testing.T) {
	e, err := Compile(`^(a+)+$`, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := NewScratch()
	defer s.Close()
	if s.Match(e, []byte(strings.Repeat("a", 5000)+"b"), 0) {
		t.Error("matched")
	}
	if s.Limits() == 0 {
		t.Error("the limit was not counted")
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	e, err := Compile(`n(e+)dle`, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := NewScratch()
	defer s.Close()
	b := []byte("hay needle hay")
	if n := testing.AllocsPerRun(100, func() { s.Match(e, b, 0); s.Span(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
