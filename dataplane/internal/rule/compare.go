package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// cmpOp compares an unsigned integer as Suricata's integer keywords do.
type cmpOp struct {
	op     byte // = ! < > L (<=) G (>=) r (between, both ends excluded) n (not between) & (all bits set) i (one of)
	lo, hi uint64
	set    []uint64
	neg    bool
}

func (c *cmpOp) match(v uint64) bool {
	switch c.op {
	case '=':
		return v == c.lo
	case '!':
		return v != c.lo
	case '<':
		return v < c.lo
	case '>':
		return v > c.lo
	case 'L':
		return v <= c.lo
	case 'G':
		return v >= c.lo
	case 'r':
		return v > c.lo && v < c.hi
	case 'n':
		return v <= c.lo || v >= c.hi
	case '&':
		return v&c.lo == c.lo && v&c.lo != 0
	case '+':
		return v&c.lo != 0
	case '-':
		return v&c.lo == 0
	case 'i':
		for _, x := range c.set {
			if v == x {
				return !c.neg
			}
		}
		return c.neg
	}
	return false
}

// atMost is the greatest value that can match; used to see early that a growing number is past it.
func (c *cmpOp) atMost() (uint64, bool) {
	switch c.op {
	case '=', 'L':
		return c.lo, true
	case '<':
		return c.lo - 1, c.lo > 0
	case 'r':
		return c.hi - 1, true
	}
	return 0, false
}

// parseCmp reads "5", "!5", "<5", ">=5", "3-9", "3<>9", "!3-9", "&0x80", "[1,2,3]". names may give words for values.
func parseCmp(s string, limit uint64, names map[string]uint64) (cmpOp, error) {
	s = strings.TrimSpace(s)
	num := func(t string) (uint64, error) {
		t = strings.TrimSpace(t)
		if n, ok := names[strings.ToLower(t)]; ok {
			return n, nil
		}
		mul := uint64(1)
		for suffix, m := range map[string]uint64{"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30} {
			if strings.HasSuffix(strings.ToLower(t), suffix) {
				mul, t = m, strings.TrimSpace(t[:len(t)-len(suffix)])
				break
			}
		}
		n, err := strconv.ParseUint(t, 0, 64)
		if err != nil {
			// a leading zero is decimal for rule writers
			if n, err = strconv.ParseUint(t, 10, 64); err != nil {
				return 0, fmt.Errorf("%q is not a number", t)
			}
		}
		if n > limit || mul > 1 && n > limit/mul {
			return 0, fmt.Errorf("%d is greater than %d", n, limit)
		}
		return n * mul, nil
	}
	var c cmpOp
	var err error
	one := func(op byte, t string) (cmpOp, error) {
		c.op = op
		c.lo, err = num(t)
		return c, err
	}
	between := func(a, b string, neg bool) (cmpOp, error) {
		c.op = 'r'
		if neg {
			c.op = 'n'
		}
		if c.lo, err = num(a); err != nil {
			return c, err
		}
		if c.hi, err = num(b); err != nil {
			return c, err
		}
		if c.hi <= c.lo {
			return c, fmt.Errorf("range %s ends before it begins", s)
		}
		return c, nil
	}
	list := func(t string, neg bool) (cmpOp, error) {
		c.op, c.neg = 'i', neg
		for _, w := range splitArgs(t) {
			n, err := num(w)
			if err != nil {
				return c, err
			}
			c.set = append(c.set, n)
		}
		return c, nil
	}
	if s == "" {
		return c, errors.New("empty value")
	}
	neg := false
	t := s
	if strings.HasPrefix(t, "!") && !strings.HasPrefix(t, "!=") {
		neg, t = true, strings.TrimSpace(t[1:])
	}
	if _, word := names[strings.ToLower(t)]; word {
		if neg {
			return one('!', t)
		}
		return one('=', t)
	}
	if a, b, ok := strings.Cut(t, "<>"); ok {
		return between(a, b, neg)
	}
	if strings.HasPrefix(t, "[") && strings.HasSuffix(t, "]") {
		return list(t[1:len(t)-1], neg)
	}
	switch {
	case strings.HasPrefix(t, "<="):
		return one('L', t[2:])
	case strings.HasPrefix(t, ">="):
		return one('G', t[2:])
	case strings.HasPrefix(t, "!="):
		return one('!', t[2:])
	case strings.HasPrefix(t, "<"):
		return one('<', t[1:])
	case strings.HasPrefix(t, ">"):
		return one('>', t[1:])
	case strings.HasPrefix(t, "="):
		return one('=', t[1:])
	case strings.HasPrefix(t, "!&") || neg && strings.HasPrefix(t, "&"):
		return one('-', strings.TrimLeft(t, "!&"))
	case strings.HasPrefix(t, "&"):
		return one('+', t[1:])
	}
	if a, b, ok := strings.Cut(t, "-"); ok && a != "" {
		return between(a, b, neg)
	}
	if strings.Contains(t, ",") {
		return list(t, neg)
	}
	if neg {
		return one('!', t)
	}
	return one('=', t)
}
