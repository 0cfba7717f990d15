// Package conformance compares what the inspector prints for a capture and its rules with what a case expects. The command
// kadomori-conformance calls it for our own cases and for a folder of third-party ones; the package's test runs our own.
// The trap: a case that asserts nothing is an error, and so is a failing case that KNOWN.md does not name.
package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// Expect is what a case asserts: expect.json of the corpus, or expect.yaml of ours, which has the same fields.
type Expect struct {
	Tier        string       `json:"tier"` // core, extended; "" for ours
	Mode        string       `json:"mode"` // ids, ips
	Features    []string     `json:"features"`
	Options     Options      `json:"options"`
	Alerts      []SIDCount   `json:"alerts"`
	AlertsMin   []SIDCount   `json:"alerts_min"`
	AlertsWhere []SIDWhere   `json:"alerts_where"`
	AlertsTotal *int         `json:"alerts_total"`
	TotalsWhere []CountWhere `json:"totals_where"`
	Drops       []CountWhere `json:"drops"`
	EVE         []EVERecord  `json:"eve"`
	// Refused, of our own cases only: how many rules must be refused. nil: none.
	Refused *int `json:"refused"`
}

// Options are how the inspector is to be run.
type Options struct {
	Checksum     string            `json:"checksum"` // none, auto, yes
	Midstream    bool              `json:"midstream"`
	Mode         string            `json:"mode"`
	StreamInline bool              `json:"stream_inline"`
	Vars         map[string]string `json:"vars"`
}

// SIDCount is a number of alerts of a rule.
type SIDCount struct {
	SID   uint32 `json:"sid"`
	Count int    `json:"count"`
	Min   int    `json:"count_min"`
}

// SIDWhere is a number of alerts of a rule that have certain values.
type SIDWhere struct {
	SID   uint32         `json:"sid"`
	Count int            `json:"count"`
	Where map[string]any `json:"where"`
}

// CountWhere is a number of records that have certain values.
type CountWhere struct {
	Count int            `json:"count"`
	Where map[string]any `json:"where"`
}

// EVERecord is a number of records of a type that have certain values.
type EVERecord struct {
	EventType string         `json:"event_type"`
	Count     int            `json:"count"`
	Match     map[string]any `json:"match"`
}

// Assertion is one thing a case asserts, and what came of it.
type Assertion struct {
	Text     string `json:"text"`
	Positive bool   `json:"positive"` // something must be there; else it must not
	EVE      bool   `json:"eve"`      // about records other than alerts and drops
	OK       bool   `json:"ok"`
	Got      int    `json:"got"`
}

// readExpect reads expect.json or expect.yaml of a folder.
func readExpect(dir string) (*Expect, error) {
	name := filepath.Join(dir, "expect.json")
	b, err := os.ReadFile(name)
	own := false
	if os.IsNotExist(err) {
		name = filepath.Join(dir, "expect.yaml")
		own = true
		if b, err = os.ReadFile(name); err == nil {
			b, err = yaml.YAMLToJSONStrict(b)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read expectation: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if own {
		dec.DisallowUnknownFields()
	}
	var e Expect
	if err := dec.Decode(&e); err != nil {
		return nil, fmt.Errorf("read expectation %s: %w", name, err)
	}
	return &e, nil
}

// Judge compares records with the expectation.
func (e *Expect) Judge(records []map[string]any) []Assertion {
	var out []Assertion
	count := func(event string, sid uint32, where map[string]any) int {
		n := 0
		for _, r := range records {
			if event != "" && text(find(r, "event_type")) != event {
				continue
			}
			if sid != 0 && text(find(r, "alert.signature_id")) != fmt.Sprint(sid) {
				continue
			}
			if matches(r, where) {
				n++
			}
		}
		return n
	}
	exact := func(what string, want, got int, eve bool) {
		out = append(out, Assertion{Text: fmt.Sprintf("%s: want %d, got %d", what, want, got), Positive: want > 0, EVE: eve, OK: want == got, Got: got})
	}
	for _, a := range e.Alerts {
		exact(fmt.Sprintf("sid %d", a.SID), a.Count, count("alert", a.SID, nil), false)
	}
	for _, a := range e.AlertsMin {
		if a.Min == 0 {
			continue
		}
		got := count("alert", a.SID, nil)
		out = append(out, Assertion{Text: fmt.Sprintf("sid %d: want at least %d, got %d", a.SID, a.Min, got), Positive: true, OK: got >= a.Min, Got: got})
	}
	for _, a := range e.AlertsWhere {
		exact(fmt.Sprintf("sid %d where %s", a.SID, short(a.Where)), a.Count, count("alert", a.SID, a.Where), false)
	}
	if e.AlertsTotal != nil {
		exact("all alerts", *e.AlertsTotal, count("alert", 0, nil), false)
	}
	for _, a := range e.TotalsWhere {
		exact("alerts where "+short(a.Where), a.Count, count("alert", 0, a.Where), false)
	}
	for _, a := range e.Drops {
		exact("drops where "+short(a.Where), a.Count, count("drop", 0, a.Where), false)
	}
	for _, a := range e.EVE {
		exact(a.EventType+" where "+short(a.Match), a.Count, count(a.EventType, 0, a.Match), true)
	}
	return out
}

func short(m map[string]any) string {
	b, err := json.Marshal(m)
	if err != nil {
		return err.Error()
	}
	if len(b) > 300 {
		b = append(b[:300], "…"...)
	}
	return string(b)
}

// missing is what find gives for a path that is not there.
type missing struct{}

// find follows a path of names with dots and [n].
func find(v any, path string) any {
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, ".")
		name, index, hasIndex := strings.Cut(name, "[")
		if name != "" {
			m, ok := v.(map[string]any)
			if !ok {
				return missing{}
			}
			// names in EVE may hold dots themselves: try the longer name too
			x, ok := m[name]
			if !ok && !hasIndex && path != "" {
				if y, whole := m[name+"."+path]; whole {
					return y
				}
			}
			if !ok {
				return missing{}
			}
			v = x
		}
		for hasIndex {
			var num string
			num, index, _ = strings.Cut(index, "]")
			var n int
			if _, err := fmt.Sscanf(num, "%d", &n); err != nil {
				return missing{}
			}
			l, ok := v.([]any)
			if n < 0 {
				n += len(l)
			}
			if !ok || n < 0 || n >= len(l) {
				return missing{}
			}
			v = l[n]
			_, index, hasIndex = strings.Cut(index, "[")
		}
	}
	return v
}

// text is a value as words, for comparing.
func text(v any) string {
	switch x := v.(type) {
	case missing:
		return "\x00missing"
	case string:
		return x
	case json.Number:
		return x.String()
	case bool:
		return fmt.Sprint(x)
	case nil:
		return "null"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// same compares a value with the one wanted: numbers by value, the rest by text.
func same(got, want any) bool {
	if a, ok := number(got); ok {
		if b, ok := number(want); ok {
			return a == b
		}
	}
	if _, ok := got.(missing); ok {
		return false
	}
	return text(got) == text(want)
}

// matches says whether a record has all the values.
func matches(r map[string]any, where map[string]any) bool {
	for key, want := range where {
		if !matchesOne(r, key, want) {
			return false
		}
	}
	return true
}

func matchesOne(r map[string]any, key string, want any) bool {
	if key == "has-key" || key == "not-has-key" {
		_, gone := find(r, text(want)).(missing)
		return gone == (key == "not-has-key")
	}
	path, op, _ := strings.Cut(key, "__")
	got := find(r, path)
	switch op {
	case "":
		return same(got, want)
	case "len":
		n := -1
		switch x := got.(type) {
		case []any:
			n = len(x)
		case string:
			n = len(x)
		case map[string]any:
			n = len(x)
		}
		w, ok := number(want)
		return ok && float64(n) == w
	case "contains":
		if l, ok := got.([]any); ok {
			for _, x := range l {
				if same(x, want) {
					return true
				}
			}
			return false
		}
		s, ok := got.(string)
		return ok && strings.Contains(s, text(want))
	case "find":
		s, ok := got.(string)
		return ok && strings.Contains(s, text(want))
	case "startswith":
		s, ok := got.(string)
		return ok && strings.HasPrefix(s, text(want))
	case "endswith":
		s, ok := got.(string)
		return ok && strings.HasSuffix(s, text(want))
	}
	a, ok1 := number(got)
	b, ok2 := number(want)
	if !ok1 || !ok2 {
		return false
	}
	switch op {
	case "gt":
		return a > b
	case "gte":
		return a >= b
	case "lt":
		return a < b
	case "lte":
		return a <= b
	}
	return false
}
