package rule

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// portExpr is a port of a header as written.
type portExpr struct {
	text   string // as written
	neg    bool
	any    bool
	name   string
	lo, hi uint16
	list   []*portExpr
}

func parsePort(s string) (*portExpr, error) { return parsePortDepth(s, 0) }

func parsePortDepth(s string, depth int) (*portExpr, error) {
	if depth > maxNesting {
		return nil, errors.New("port lists nested too deeply")
	}
	s = strings.TrimSpace(s)
	e := &portExpr{text: s}
	for strings.HasPrefix(s, "!") {
		e.neg = !e.neg
		s = strings.TrimSpace(s[1:])
	}
	switch {
	case s == "":
		return nil, errors.New("empty port")
	case s == "any":
		if e.neg {
			return nil, errors.New("!any matches nothing")
		}
		e.any = true
	case s[0] == '$':
		e.name = s[1:]
		if e.name == "" {
			return nil, errors.New("$ without a name")
		}
	case s[0] == '[':
		if !strings.HasSuffix(s, "]") {
			return nil, fmt.Errorf("%q is not closed", s)
		}
		parts, err := splitList(s[1 : len(s)-1])
		if err != nil {
			return nil, err
		}
		for _, part := range parts {
			x, err := parsePortDepth(part, depth+1)
			if err != nil {
				return nil, err
			}
			e.list = append(e.list, x)
		}
	default:
		lo, hi, isRange := strings.Cut(s, ":")
		a, b := uint64(0), uint64(65535)
		var err error
		if lo = strings.TrimSpace(lo); lo != "" || !isRange {
			if a, err = strconv.ParseUint(lo, 10, 16); err != nil {
				return nil, fmt.Errorf("%q is not a port", s)
			}
		}
		if !isRange {
			b = a
		} else if hi = strings.TrimSpace(hi); hi != "" {
			if b, err = strconv.ParseUint(hi, 10, 16); err != nil {
				return nil, fmt.Errorf("%q is not a port", s)
			}
		}
		if isRange && lo == "" && hi == "" {
			return nil, fmt.Errorf("%q is not a port", s)
		}
		if b < a {
			return nil, fmt.Errorf("range %s ends before it begins", s)
		}
		e.lo, e.hi = uint16(a), uint16(b)
	}
	return e, nil
}

type portRange struct{ lo, hi uint16 }

// portSet is a set of ports: sorted, disjoint ranges.
type portSet struct {
	any    bool
	ranges []portRange
	size   int
}

func (s *portSet) has(p uint16) bool {
	if s.any {
		return true
	}
	for _, r := range s.ranges {
		if p < r.lo {
			return false
		}
		if p <= r.hi {
			return true
		}
	}
	return false
}

func unionPorts(in []portRange) []portRange {
	sort.Slice(in, func(i, j int) bool { return in[i].lo < in[j].lo })
	var out []portRange
	for _, x := range in {
		if n := len(out); n > 0 && int(out[n-1].hi)+1 >= int(x.lo) {
			out[n-1].hi = max(out[n-1].hi, x.hi)
			continue
		}
		out = append(out, x)
	}
	return out
}

func complementPorts(in []portRange) []portRange {
	var out []portRange
	at := 0
	for _, x := range in {
		if at < int(x.lo) {
			out = append(out, portRange{uint16(at), x.lo - 1})
		}
		at = int(x.hi) + 1
	}
	if at <= 65535 {
		out = append(out, portRange{uint16(at), 65535})
	}
	return out
}

func (rs *resolver) evalPort(e *portExpr, depth int) ([]portRange, error) {
	if depth > maxNesting {
		return nil, errors.New("port variables refer to each other without end")
	}
	var out []portRange
	switch {
	case e.any:
		out = []portRange{{0, 65535}}
	case e.name != "":
		text, ok := rs.vars[e.name]
		if !ok {
			return nil, fmt.Errorf("variable $%s is not defined", e.name)
		}
		x, err := parsePort(text)
		if err != nil {
			return nil, fmt.Errorf("variable $%s: %w", e.name, err)
		}
		if out, err = rs.evalPort(x, depth+1); err != nil {
			return nil, err
		}
	case e.list != nil:
		var pos, neg []portRange
		positives := false
		for _, x := range e.list {
			y := *x
			y.neg = false
			r, err := rs.evalPort(&y, depth+1)
			if err != nil {
				return nil, err
			}
			if x.neg {
				neg = append(neg, r...)
			} else {
				positives = true
				pos = append(pos, r...)
			}
		}
		if !positives {
			pos = []portRange{{0, 65535}}
		}
		out = unionPorts(pos)
		if len(neg) > 0 {
			no := complementPorts(out)
			out = complementPorts(unionPorts(append(no, neg...)))
		}
	default:
		out = []portRange{{e.lo, e.hi}}
	}
	if e.neg {
		out = complementPorts(unionPorts(append([]portRange(nil), out...)))
	}
	return out, nil
}

// port resolves e. Equal sets are one.
func (rs *resolver) port(e *portExpr) (*portSet, error) {
	if s, ok := rs.portText[e.text]; ok && e.text != "" {
		return s, nil
	}
	s, err := rs.makePort(e)
	if err == nil && e.text != "" {
		rs.portText[e.text] = s
	}
	return s, err
}

func (rs *resolver) makePort(e *portExpr) (*portSet, error) {
	ranges, err := rs.evalPort(e, 0)
	if err != nil {
		return nil, err
	}
	if len(ranges) == 0 {
		return nil, errors.New("the port matches nothing")
	}
	key := fmt.Sprint(ranges)
	if s, ok := rs.ports[key]; ok {
		return s, nil
	}
	s := &portSet{ranges: ranges}
	for _, r := range ranges {
		s.size += int(r.hi) - int(r.lo) + 1
	}
	s.any = s.size == 65536
	rs.ports[key] = s
	return s, nil
}
