package event

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxSeq is the largest sequence number taken: the upper end of a range must fit bigint too.
const MaxSeq = math.MaxInt64 - 1

// Range is the numbers Lo to Hi, both inclusive; Lo <= Hi.
type Range struct{ Lo, Hi uint64 }

// Ranges is a set of sequence numbers as sorted ranges that neither touch nor overlap, as PostgreSQL's int8multirange.
// The zero value is the empty set.
type Ranges []Range

// Contains reports whether n is in the set.
func (r Ranges) Contains(n uint64) bool {
	i, found := r.find(n)
	return found && i < len(r)
}

// find returns the index of the range that holds n, or of the first one behind it.
func (r Ranges) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(r, n, func(a Range, n uint64) int {
		switch {
		case a.Hi < n:
			return -1
		case a.Lo > n:
			return 1
		}
		return 0
	})
}

// Add puts lo to hi (inclusive) into the set.
func (r *Ranges) Add(lo, hi uint64) {
	s := *r
	// The usual case: the next number of a stream without holes.
	if n := len(s); n > 0 && lo > s[n-1].Lo && lo <= s[n-1].Hi+1 {
		s[n-1].Hi = max(s[n-1].Hi, hi)
		return
	}
	first, _ := s.find(lo)
	if first > 0 && s[first-1].Hi+1 == lo {
		first--
	}
	last := first
	for last < len(s) && s[last].Lo <= hi+1 {
		lo, hi = min(lo, s[last].Lo), max(hi, s[last].Hi)
		last++
	}
	*r = slices.Replace(s, first, last, Range{lo, hi})
}

// AddAll puts all of other into the set.
func (r *Ranges) AddAll(other Ranges) {
	for _, o := range other {
		r.Add(o.Lo, o.Hi)
	}
}

// Minus returns what is in r and not in other.
func (r Ranges) Minus(other Ranges) Ranges {
	var out Ranges
	j := 0
	for _, a := range r {
		lo := a.Lo
		for j < len(other) && other[j].Hi < lo {
			j++
		}
		k := j
		for ; k < len(other) && other[k].Lo <= a.Hi; k++ {
			if other[k].Lo > lo {
				out = append(out, Range{lo, other[k].Lo - 1})
			}
			lo = other[k].Hi + 1
		}
		if lo <= a.Hi {
			out = append(out, Range{lo, a.Hi})
		}
	}
	return out
}

// Through is the largest n with 1 to n in the set; 0 when 1 is missing.
func (r Ranges) Through() uint64 {
	if len(r) == 0 || r[0].Lo > 1 {
		return 0
	}
	return r[0].Hi
}

// Top is the largest number in the set; 0 when it is empty.
func (r Ranges) Top() uint64 {
	if len(r) == 0 {
		return 0
	}
	return r[len(r)-1].Hi
}

// Count is how many numbers are in the set.
func (r Ranges) Count() uint64 {
	var n uint64
	for _, a := range r {
		n += a.Hi - a.Lo + 1
	}
	return n
}

// String is the set as PostgreSQL writes an int8multirange: {[1,5),[7,9)}.
func (r Ranges) String() string {
	b := make([]byte, 0, 2+len(r)*16)
	b = append(b, '{')
	for i, a := range r {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendUint(b, a.Lo, 10)
		b = append(b, ',')
		b = strconv.AppendUint(b, a.Hi+1, 10)
		b = append(b, ')')
	}
	return string(append(b, '}'))
}

// ParseRanges reads what String writes.
func ParseRanges(s string) (Ranges, error) {
	body, ok := strings.CutPrefix(s, "{")
	if !ok {
		return nil, fmt.Errorf("read ranges %q: no opening brace", cut(s, 40))
	}
	body, ok = strings.CutSuffix(body, "}")
	if !ok {
		return nil, fmt.Errorf("read ranges %q: no closing brace", cut(s, 40))
	}
	var r Ranges
	for at := 0; body != ""; at++ {
		if at > 0 {
			if body, ok = strings.CutPrefix(body, ","); !ok {
				return nil, fmt.Errorf("read range %d: no comma before it", at)
			}
		}
		end := strings.IndexByte(body, ')')
		if end < 0 || body[0] != '[' {
			return nil, fmt.Errorf("read range %d: not of the form [lo,hi)", at)
		}
		lo, hi, found := strings.Cut(body[1:end], ",")
		l, err1 := strconv.ParseUint(lo, 10, 63)
		h, err2 := strconv.ParseUint(hi, 10, 63)
		if !found || err1 != nil || err2 != nil || l >= h || len(r) > 0 && l <= r[len(r)-1].Hi+1 {
			return nil, fmt.Errorf("read range %d: %q is not in order", at, body[:end+1])
		}
		r = append(r, Range{l, h - 1})
		body = body[end+1:]
	}
	return r, nil
}
