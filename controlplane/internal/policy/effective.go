package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Layer names, lowest first. System holds what an operator can't take away.
const (
	LayerDefault = "default"
	LayerPlan    = "plan"
	LayerGroup   = "group"
	LayerClinic  = "clinic"
	LayerSystem  = "system"
)

// Layer is one set of values and where they come from.
type Layer struct {
	Name    string // LayerDefault, ...
	Author  string
	Reason  string
	Expires time.Time // zero: never
	Values  Values
}

// Setting is one effective value and its origin.
type Setting struct {
	Path  string
	Value any
	Layer *Layer
}

// Settings is an effective policy, sorted by path.
type Settings []Setting

// Default returns the lowest layer, built in.
func Default() *Layer {
	v, err := Parse(defaultYAML)
	if err != nil {
		panic("policy: built-in defaults: " + err.Error()) // a test parses them
	}
	return &Layer{Name: LayerDefault, Author: "kadomori", Reason: "built-in", Values: v}
}

// System returns the highest layer: neverBlock (prefixes of the control plane's own addresses) can't be blocked by anything.
func System(neverBlock []string) *Layer {
	v := Values{}
	for _, p := range neverBlock {
		v["never_block."+p] = true
	}
	return &Layer{Name: LayerSystem, Author: "kadomori", Reason: "the control plane must stay reachable", Values: v}
}

// Merge lays the layers over each other, lowest first; a nil or expired layer (at now) counts for nothing. It checks what no
// single layer can know. Error: Problems.
func Merge(now time.Time, layers ...*Layer) (Settings, error) {
	top := map[string]Setting{}
	for _, l := range layers {
		if l == nil || (!l.Expires.IsZero() && !now.Before(l.Expires)) {
			continue
		}
		for path, v := range l.Values {
			top[path] = Setting{Path: path, Value: v, Layer: l}
		}
	}
	s := Settings(slices.SortedFunc(maps.Values(top), func(a, b Setting) int { return strings.Compare(a.Path, b.Path) }))
	if p := s.check(); len(p) > 0 {
		return nil, p
	}
	return s, nil
}

// check looks for settings that contradict each other.
func (s Settings) check() Problems {
	var out Problems
	wrong := func(path, value, why string) { out = append(out, Problem{path, value, why}) }
	home := s.list("home_net")
	if len(home) == 0 {
		wrong("home_net", "", "must name at least one prefix")
	}
	owner := map[string]string{} // kind and matcher to zone
	for _, z := range s.zones() {
		for _, kind := range []string{"prefixes", "vlans", "macs"} {
			path := "zones." + z + "." + kind
			for _, m := range s.list(path) {
				if other, ok := owner[kind+m]; ok && other != z {
					wrong(path, m, "belongs to zone "+other+" as well")
				}
				owner[kind+m] = z
				if kind == "prefixes" && !within(m, home) {
					wrong(path, m, "is not inside home_net "+Format(home))
				}
			}
		}
	}
	return out
}

func within(prefix string, of []string) bool {
	p, err := ParsePrefix(prefix)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(of, func(s string) bool {
		q, err := ParsePrefix(s)
		return err == nil && q.Bits() <= p.Bits() && q.Contains(p.Addr())
	})
}

// find returns the index of a path, or -1.
func (s Settings) find(path string) int {
	i, ok := slices.BinarySearchFunc(s, path, func(x Setting, p string) int { return strings.Compare(x.Path, p) })
	if !ok {
		return -1
	}
	return i
}

func value[T any](s Settings, path string) (v T) {
	if i := s.find(path); i >= 0 {
		v, _ = s[i].Value.(T)
	}
	return v
}

func (s Settings) list(path string) []string { return value[[]string](s, path) }

// under returns the last parts of the paths that begin with prefix, in order.
func (s Settings) under(prefix string) []string {
	var out []string
	for _, x := range s {
		if rest, ok := strings.CutPrefix(x.Path, prefix); ok {
			out = append(out, rest)
		}
	}
	return out
}

func (s Settings) zones() []string {
	var out []string
	for _, rest := range s.under("zones.") {
		if name, _, _ := strings.Cut(rest, "."); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// NeverBlock returns the prefixes that nothing may block.
func (s Settings) NeverBlock() []string { return s.under("never_block.") }

// Diff lists how b differs from a, one line a setting: "+ path: value", "- path: value", "~ path: old -> new".
func Diff(a, b Settings) []string {
	var out []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case j == len(b) || (i < len(a) && a[i].Path < b[j].Path):
			out = append(out, "- "+a[i].Path+": "+Format(a[i].Value))
			i++
		case i == len(a) || b[j].Path < a[i].Path:
			out = append(out, "+ "+b[j].Path+": "+Format(b[j].Value))
			j++
		default:
			if x, y := Format(a[i].Value), Format(b[j].Value); x != y {
				out = append(out, "~ "+a[i].Path+": "+x+" -> "+y)
			}
			i++
			j++
		}
	}
	return out
}

func numbers(in []string) []uint32 {
	var out []uint32
	for _, s := range in {
		if n, err := strconv.ParseUint(s, 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	slices.Sort(out)
	return out
}
