package flow

import "math/bits"

// minBuffer and maxBuffer bound a stream's buffer: what a parser may leave unread plus the window that rules look back on.
const (
	minBuffer = 2 << 10
	maxBuffer = 1 << 20
	minShift  = 11
	classes   = 10 // 2 KiB .. 1 MiB
)

// Pool lends buffers in powers of two and bounds their sum. It belongs to one worker.
type Pool struct {
	free  [classes][][]byte
	inUse int
	kept  int // bytes on the free lists
	max   int
	// Refused counts buffers that were not lent because the memory was used up.
	Refused uint64
}

// NewPool makes a Pool that lends at most limit bytes at a time.
func NewPool(limit int) *Pool { return &Pool{max: limit} }

// InUse is how many bytes are lent.
func (p *Pool) InUse() int { return p.inUse }

// Get lends a buffer of capacity at least n, length 0; nil when n is over 1 MiB or the memory is used up.
func (p *Pool) Get(n int) []byte {
	if n > maxBuffer {
		return nil
	}
	c := 0
	if n > minBuffer {
		c = bits.Len(uint(n-1)) - minShift
	}
	size := minBuffer << c
	if p.inUse+size > p.max {
		p.Refused++
		return nil
	}
	p.inUse += size
	if l := p.free[c]; len(l) > 0 {
		b := l[len(l)-1]
		p.free[c] = l[:len(l)-1]
		p.kept -= size
		return b[:0]
	}
	return make([]byte, 0, size)
}

// Put gives a buffer back.
func (p *Pool) Put(b []byte) {
	if cap(b) == 0 {
		return
	}
	size := cap(b)
	c := bits.Len(uint(size-1)) - minShift
	p.inUse -= size
	if p.kept+size <= p.max {
		p.free[c] = append(p.free[c], b)
		p.kept += size
	}
}
