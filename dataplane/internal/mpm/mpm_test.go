package mpm

import (
	"slices"
	"strings"
	"testing"
)

func build(t testing.TB, pats ...Pattern) (*DB, *Scanner) {
	t.Helper()
	db, err := Compile(pats)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewScanner([]*DB{db})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return db, s
}

func sorted(ids []uint32) []uint32 {
	out := slices.Clone(ids)
	slices.Sort(out)
	return out
}

func TestScanFindsEachPatternOnce(t *testing.T) {
	db, s := build(t, Pattern{1, []byte("abc"), false}, Pattern{2, []byte("ABC"), true}, Pattern{3, []byte("x\x00y"), false}, Pattern{4, []byte("never"), false})
	if got := sorted(s.Scan(db, 10, []byte("abc abc aBc x\x00y"))); !slices.Equal(got, []uint32{11, 12, 13}) {
		t.Errorf("got %v", got)
	}
	if got := s.Scan(db, 0, nil); len(got) != 0 {
		t.Errorf("nothing to scan gave %v", got)
	}
}

func TestScanFourBuffersInOneCall(t *testing.T) {
	db, s := build(t, Pattern{0, []byte("one"), false}, Pattern{1, []byte("two"), false})
	got := sorted(s.Scan4(&[4]Job{{DB: db, Base: 0, Data: []byte("one")}, {}, {DB: db, Base: 100, Data: []byte("two")}, {DB: db, Base: 200, Data: []byte("one two")}}))
	if !slices.Equal(got, []uint32{0, 101, 200, 201}) {
		t.Errorf("got %v", got)
	}
}

// A buffer may lie inside a value that has pointers of its own: the scan must not look at those.
func TestBufferInsideAValueWithPointers(t *testing.T) {
	db, s := build(t, Pattern{0, []byte("needle"), false})
	type value struct {
		name *string
		data [32]byte
	}
	v := &value{name: new(string)}
	copy(v.data[:], "a needle in it")
	if got := s.Scan(db, 0, v.data[:]); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestMarshalAndBack(t *testing.T) {
	db, _ := build(t, Pattern{7, []byte("needle"), true})
	b, err := db.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewScanner([]*DB{back})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Scan(back, 0, []byte("a NEEDLE")); !slices.Equal(got, []uint32{7}) {
		t.Errorf("got %v", got)
	}
	if _, err := Unmarshal([]byte("rubbish")); err == nil {
		t.Error("rubbish became a database")
	}
	if _, err := Unmarshal(nil); err == nil {
		t.Error("nothing became a database")
	}
}

func TestCompileNamesABadPattern(t *testing.T) {
	if _, err := Compile(nil); err == nil {
		t.Error("no patterns are no error")
	}
	if _, err := Compile([]Pattern{{ID: 5}}); err == nil || !strings.Contains(err.Error(), "5") {
		t.Errorf("got %v", err)
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	db, s := build(t, Pattern{1, []byte("abc"), false})
	data := []byte(strings.Repeat("abc ", 100))
	jobs := [4]Job{{DB: db, Data: data}, {DB: db, Data: data}}
	if n := testing.AllocsPerRun(100, func() { s.Scan(db, 0, data); s.Scan4(&jobs) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
