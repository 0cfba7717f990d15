package rule

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// suppressSpec silences a rule for some addresses.
type suppressSpec struct {
	side byte // s source, d destination, e either, a whatever the addresses
	addr *addrSet
}

// rateSpec changes a rule's action once it matches too often (rate_filter).
type rateSpec struct {
	id      uint32
	track   tracking
	count   uint32
	window  int64 // nanoseconds
	timeout int64 // nanoseconds that the new action holds
	action  Action
}

// adjust changes a match by the threshold file: suppress silences it, rate_filter gives it another action.
func (m *Matcher) adjust(c *crule, out *Match) {
	p := m.in.Packet
	for i := range c.suppress {
		s := &c.suppress[i]
		hit := false
		switch s.side {
		case 'a':
			hit = true
		case 's':
			hit = m.addr(s.addr, 0)
		case 'd':
			hit = m.addr(s.addr, 1)
		case 'e':
			hit = m.addr(s.addr, 0) || m.addr(s.addr, 1)
		}
		if hit {
			out.Alert = false
			break
		}
	}
	for i := range c.rates {
		if r := &c.rates[i]; m.set.shared.thresholds.rate(r, p) {
			out.Action = r.action
			out.RateFiltered = true
			if r.action == Pass {
				out.Alert = false
			}
		}
	}
}

// rate counts a match and says whether the new action holds.
func (t *thresholdTable) rate(r *rateSpec, p *Packet) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(trackKey(r.id, r.track, p), p.Time, max(r.window, r.timeout))
	if e.until != 0 {
		if p.Time <= e.until {
			return true
		}
		e.until, e.count = 0, 0
	}
	if e.count == 0 || p.Time-e.start >= r.window || p.Time < e.start {
		e.start, e.count = p.Time, 1
		return false
	}
	e.count++
	if e.count > r.count {
		e.until = p.Time + r.timeout
		return true
	}
	return false
}

// readThresholds reads a threshold.config: lines suppress, threshold, rate_filter (event_filter is an old name of
// threshold). A line that is wrong makes the whole file refused, since what it was to silence would be told otherwise.
func (s *Set) readThresholds(rs *resolver, r io.Reader) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 64<<10)
	line := 0
	text := ""
	for sc.Scan() {
		line++
		t := strings.TrimSpace(sc.Text())
		if strings.HasPrefix(t, "#") {
			continue
		}
		if cont, ok := strings.CutSuffix(t, "\\"); ok {
			text += cont + " "
			continue
		}
		text = strings.TrimSpace(text + t)
		if text != "" {
			if err := s.thresholdLine(rs, text); err != nil {
				return fmt.Errorf("read threshold file: line %d: %w", line, err)
			}
		}
		text = ""
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read threshold file: %w", err)
	}
	return nil
}

// thresholdArgs are the options of a line.
type thresholdArgs struct {
	gen, sig uint32
	hasSig   bool
	kv       map[string]string
}

func splitThreshold(s string) (thresholdArgs, error) {
	a := thresholdArgs{kv: map[string]string{}}
	parts, err := splitList(s)
	if err != nil {
		return a, err
	}
	for _, part := range parts {
		key, value, _ := strings.Cut(part, " ")
		value = strings.TrimSpace(value)
		if _, twice := a.kv[key]; twice {
			return a, fmt.Errorf("%s given twice", key)
		}
		a.kv[key] = value
		if key == "gen_id" || key == "sig_id" {
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return a, fmt.Errorf("%s %q is not a number", key, value)
			}
			if key == "gen_id" {
				a.gen = uint32(n)
			} else {
				a.sig, a.hasSig = uint32(n), true
			}
		}
	}
	if _, ok := a.kv["gen_id"]; !ok || !a.hasSig {
		return a, errors.New("gen_id or sig_id is missing")
	}
	return a, nil
}

func (a *thresholdArgs) number(key string) (uint32, error) {
	v, ok := a.kv[key]
	if !ok {
		return 0, fmt.Errorf("%s is missing", key)
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s %q is not a number from 1", key, v)
	}
	return uint32(n), nil
}

func (a *thresholdArgs) only(keys string) error {
	for k := range a.kv {
		if !strings.Contains(" gen_id sig_id "+keys+" ", " "+k+" ") {
			return fmt.Errorf("unknown option %q", k)
		}
	}
	return nil
}

// each calls f for the rules that gen_id and sig_id name; 0 names all.
func (s *Set) each(a *thresholdArgs, f func(*crule)) {
	for _, c := range s.crules {
		if (a.gen == 0 || a.gen == c.r.GID) && (a.sig == 0 || a.sig == c.r.SID) {
			f(c)
		}
	}
}

func (s *Set) thresholdLine(rs *resolver, text string) error {
	word, rest, _ := strings.Cut(text, " ")
	a, err := splitThreshold(rest)
	if err != nil {
		return err
	}
	switch word {
	case "suppress":
		return s.suppressLine(rs, &a)
	case "threshold", "event_filter":
		return s.filterLine(&a)
	case "rate_filter":
		return s.rateLine(&a)
	}
	return fmt.Errorf("unknown word %q", word)
}

func (s *Set) suppressLine(rs *resolver, a *thresholdArgs) error {
	if err := a.only("track ip"); err != nil {
		return err
	}
	spec := suppressSpec{side: 'a'}
	if track, ok := a.kv["track"]; ok {
		switch track {
		case "by_src":
			spec.side = 's'
		case "by_dst":
			spec.side = 'd'
		case "by_either":
			spec.side = 'e'
		default:
			return fmt.Errorf("unknown tracking %q", track)
		}
		e, err := parseAddr(a.kv["ip"])
		if err != nil {
			return fmt.Errorf("ip: %w", err)
		}
		if spec.addr, err = rs.addr(e); err != nil {
			return fmt.Errorf("ip: %w", err)
		}
	} else if _, ok := a.kv["ip"]; ok {
		return errors.New("ip without track")
	}
	s.each(a, func(c *crule) { c.suppress = append(c.suppress, spec) })
	return nil
}

func (s *Set) filterLine(a *thresholdArgs) error {
	if err := a.only("type track count seconds multiplier"); err != nil {
		return err
	}
	var (
		spec limitSpec
		ok   bool
		err  error
	)
	if spec.kind, ok = limitTypes[a.kv["type"]]; !ok {
		return fmt.Errorf("unknown type %q", a.kv["type"])
	}
	if spec.track, ok = limitTracks[a.kv["track"]]; !ok {
		return fmt.Errorf("unknown tracking %q", a.kv["track"])
	}
	if spec.count, err = a.number("count"); err != nil {
		return err
	}
	if spec.kind == limitBackoff {
		if spec.multiplier, err = a.number("multiplier"); err != nil {
			return err
		}
	} else {
		n, err := a.number("seconds")
		if err != nil {
			return err
		}
		spec.window = int64(n) * 1e9
	}
	s.each(a, func(c *crule) {
		if len(c.limits) == 0 { // the rule's own comes first
			c.limits = append(c.limits, s.shared.thresholds.state(c.r, &spec))
		}
	})
	return nil
}

func (s *Set) rateLine(a *thresholdArgs) error {
	if err := a.only("track count seconds new_action timeout"); err != nil {
		return err
	}
	var (
		spec rateSpec
		ok   bool
		err  error
		n    uint32
	)
	if spec.track, ok = limitTracks[a.kv["track"]]; !ok {
		return fmt.Errorf("unknown tracking %q", a.kv["track"])
	}
	if spec.count, err = a.number("count"); err != nil {
		return err
	}
	if n, err = a.number("seconds"); err != nil {
		return err
	}
	spec.window = int64(n) * 1e9
	if n, err = a.number("timeout"); err != nil {
		return err
	}
	spec.timeout = int64(n) * 1e9
	if spec.action, ok = actions[a.kv["new_action"]]; !ok {
		return fmt.Errorf("unknown new_action %q", a.kv["new_action"])
	}
	s.each(a, func(c *crule) {
		x := spec
		x.id = s.shared.thresholds.state(c.r, &limitSpec{kind: 255}).id
		c.rates = append(c.rates, x)
	})
	return nil
}
