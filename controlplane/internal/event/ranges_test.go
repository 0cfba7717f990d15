package event

import (
	"math/rand/v2"
	"testing"
)

func TestRangesAgreeWithAPlainSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var a, b Ranges
		inA, inB := map[uint64]bool{}, map[uint64]bool{}
		fill := func(r *Ranges, m map[uint64]bool) {
			for range rnd.IntN(12) {
				lo := 1 + rnd.Uint64N(60)
				hi := lo + rnd.Uint64N(9)
				r.Add(lo, hi)
				for n := lo; n <= hi; n++ {
					m[n] = true
				}
			}
		}
		fill(&a, inA)
		fill(&b, inB)
		minus := a.Minus(b)
		for n := uint64(0); n < 75; n++ {
			if a.Contains(n) != inA[n] {
				t.Fatalf("%v contains %d = %v", a, n, a.Contains(n))
			}
			if want := inA[n] && !inB[n]; minus.Contains(n) != want {
				t.Fatalf("%v minus %v = %v: %d is wrong", a, b, minus, n)
			}
		}
		if a.Count() != uint64(len(inA)) {
			t.Fatalf("%v counts %d, want %d", a, a.Count(), len(inA))
		}
		through := uint64(0)
		for inA[through+1] {
			through++
		}
		if a.Through() != through {
			t.Fatalf("%v through %d, want %d", a, a.Through(), through)
		}
		for i := 1; i < len(a); i++ {
			if a[i].Lo <= a[i-1].Hi+1 {
				t.Fatalf("%v: ranges %d and %d touch", a, i-1, i)
			}
		}
		back, err := ParseRanges(a.String())
		if err != nil || back.String() != a.String() {
			t.Fatalf("read back %s: %v, %v", a, back, err)
		}
	}
}

func TestParseRangesRefuses(t *testing.T) {
	for _, s := range []string{"", "{", "{[1,2)", "{[2,1)}", "{[1,1)}", "{[1,2)[3,4)}", "{[1,2),[2,3)}", "{[5,6),[1,2)}", "{[-1,2)}", "{(1,2)}", "{[1,99999999999999999999)}"} {
		if r, err := ParseRanges(s); err == nil {
			t.Errorf("ParseRanges(%q) = %v, want an error", s, r)
		}
	}
}

func FuzzParseRanges(f *testing.F) {
	for _, s := range []string{"{}", "{[1,5)}", "{[1,5),[7,9)}", "{[1,9223372036854775807)}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRanges(s)
		if err != nil {
			return
		}
		if back, err := ParseRanges(r.String()); err != nil || back.String() != r.String() {
			t.Errorf("%q read as %v, again as %v, %v", s, r, back, err)
		}
	})
}
