package flow

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestAnyOrderGivesTheSameStream(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	want := make([]byte, 20_000)
	for i := range want {
		want[i] = byte(r.IntN(256))
	}
	for round := range 50 {
		pool := NewPool(8 << 20)
		a := NewAssembler(pool, 2<<10, 1<<20)
		var s Stream
		base := uint32(0xffffff00) // sequence numbers wrap
		s.Sync(base)
		type seg struct{ from, to int }
		var segs []seg
		for i := 0; i < len(want); {
			n := min(1+r.IntN(1400), len(want)-i)
			segs = append(segs, seg{max(0, i-r.IntN(20)), i + n}) // overlaps
			i += n
		}
		for i := range segs { // a little out of order
			j := min(len(segs)-1, i+r.IntN(8))
			segs[i], segs[j] = segs[j], segs[i]
		}
		var got []byte
		for _, g := range segs {
			a.Segment(&s, base+uint32(g.from), want[g.from:g.to], false)
			b := s.Pending()
			got = append(got, b...)
			s.Skip(len(b))
			s.Inspected = s.Next()
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: %d bytes of %d", round, len(got), len(want))
		}
		a.Release(&s)
		if pool.InUse() != 0 {
			t.Fatalf("round %d: %d bytes not given back", round, pool.InUse())
		}
	}
}

func TestTableStaysWithinItsBound(t *testing.T) {
	ended := 0
	tab := NewTable(TableConfig[struct{}]{Max: 100, End: func(*Flow[struct{}], Reason) { ended++ }})
	for i := range 1000 {
		k := Key{APort: uint16(i), Proto: 17}
		if tab.Lookup(&k) != nil {
			t.Fatal("found what was never put")
		}
		tab.Insert(&k, ClassUDPNew, int64(i)*1e6)
	}
	if tab.Len() != 100 || ended != 900 || tab.Forced != 900 {
		t.Fatalf("%d flows, %d ended, %d forced", tab.Len(), ended, tab.Forced)
	}
	tab.Expire(1e12)
	if tab.Len() != 0 {
		t.Fatalf("%d flows after all time-outs", tab.Len())
	}
}
