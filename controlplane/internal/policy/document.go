// Package policy turns plans and clinics' overrides (YAML) into the effective policy of an appliance, and explains it: each setting
// names the layer it comes from, who wrote it, why and until when. The appliance package compiles through it, the RPC server
// applies and explains. The trap: settings of a higher layer replace those below, except never_block and rules.disable, which add up.
package policy

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// MaxDocument bounds a document in bytes.
const MaxDocument = 256 << 10

// ErrInvalid says that a document or an effective policy is not acceptable; Problems says where and why.
var ErrInvalid = errors.New("policy is not valid")

//go:embed default.yaml
var defaultYAML []byte

// Problem is one thing wrong with a document, in the document's own words.
type Problem struct {
	Path  string // zones.clinical.mode
	Value string
	Why   string
}

// String returns "path: value: why".
func (p Problem) String() string {
	if p.Value == "" {
		return p.Path + ": " + p.Why
	}
	return p.Path + ": " + strconv.Quote(p.Value) + ": " + p.Why
}

// Problems is an error that lists all that is wrong. It is ErrInvalid.
type Problems []Problem

// Error returns one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return ErrInvalid.Error() + ":\n  " + strings.Join(lines, "\n  ")
}

// Is reports that Problems is ErrInvalid.
func (p Problems) Is(target error) bool { return target == ErrInvalid }

// document is a plan or an override as it is written. A pointer or map that is nil says nothing about its setting.
type document struct {
	HomeNet    *[]string        `yaml:"home_net"`
	Zones      map[string]*zone `yaml:"zones"`
	NeverBlock []string         `yaml:"never_block"`
	Lists      struct {
		Kinds map[string]string `yaml:"kinds"`
		Names map[string]string `yaml:"names"`
	} `yaml:"lists"`
	Rules struct {
		Disable []uint32 `yaml:"disable"`
	} `yaml:"rules"`
	Vars      map[string]string `yaml:"vars"`
	Detectors struct {
		PortScan struct {
			Enabled *bool          `yaml:"enabled"`
			Hosts   *uint32        `yaml:"hosts"`
			Ports   *uint32        `yaml:"ports"`
			Window  *time.Duration `yaml:"window"`
		} `yaml:"port_scan"`
	} `yaml:"detectors"`
	Intervals struct {
		Traffic *time.Duration `yaml:"traffic"`
		Health  *time.Duration `yaml:"health"`
	} `yaml:"intervals"`
	Uplink struct {
		MaxBytesPerSecond *uint64 `yaml:"max_bytes_per_second"`
	} `yaml:"uplink"`
}

type zone struct {
	Mode      *string   `yaml:"mode"`
	Prefixes  *[]string `yaml:"prefixes"`
	VLANs     *[]uint32 `yaml:"vlans"`
	MACs      *[]string `yaml:"macs"`
	Anonymous *bool     `yaml:"anonymous"`
}

// ZoneNames are the zones an appliance knows.
var ZoneNames = []string{"clinical", "guest", "iot", "vendor", "eligibility", "wan"}

// ListKinds are the kinds of list, as signature files name them.
var ListKinds = []string{"c2", "malware", "bad-site", "scanner"}

var (
	modes    = []string{"observe", "notify", "prevent"}
	listUses = []string{"block", "notify", "off"}
	listName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	varName  = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)
	macForm  = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)
)

// Parse reads a document and returns what it sets, path by path. An unknown key or a value of a wrong type is an error with line
// and column; wrong values come as Problems. Both are ErrInvalid.
func Parse(doc []byte) (Values, error) {
	if len(doc) > MaxDocument {
		return nil, fmt.Errorf("%w: %d bytes long, at most %d", ErrInvalid, len(doc), MaxDocument)
	}
	var d document
	dec := yaml.NewDecoder(bytes.NewReader(doc), yaml.Strict())
	if err := dec.Decode(&d); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, yaml.FormatError(err, false, true))
	}
	var rest any
	if err := dec.Decode(&rest); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: a second document follows the first; write one", ErrInvalid)
	}
	f := flattener{values: Values{}}
	f.document(&d)
	if len(f.problems) > 0 {
		slices.SortFunc(f.problems, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
		return nil, f.problems
	}
	return f.values, nil
}

// Values is what one layer sets: path to value. A value is string, bool, uint64, time.Duration or []string.
type Values map[string]any

// Format writes a value as a document would.
func Format(v any) string {
	switch v := v.(type) {
	case []string:
		return "[" + strings.Join(v, ", ") + "]"
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// flattener checks a document and spreads it into values.
type flattener struct {
	values   Values
	problems Problems
}

func (f *flattener) wrong(path, value, why string) {
	f.problems = append(f.problems, Problem{Path: path, Value: value, Why: why})
}

func (f *flattener) document(d *document) {
	if d.HomeNet != nil {
		if len(*d.HomeNet) == 0 {
			f.wrong("home_net", "", "must name at least one prefix; without it nothing is inside")
		}
		f.values["home_net"] = f.prefixes("home_net", *d.HomeNet)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Zones)) {
		f.zone(name, d.Zones[name])
	}
	for _, p := range f.prefixes("never_block", d.NeverBlock) {
		f.values["never_block."+p] = true
	}
	for kind, use := range d.Lists.Kinds {
		f.choice("lists.kinds", kind, ListKinds)
		f.values["lists.kinds."+kind] = f.choice("lists.kinds."+kind, use, listUses)
	}
	for name, use := range d.Lists.Names {
		if !listName.MatchString(name) {
			f.wrong("lists.names", name, "want 1 to 63 of a-z, 0-9, dot, dash, underscore")
		}
		f.values["lists.names."+name] = f.choice("lists.names."+name, use, listUses)
	}
	for _, sid := range d.Rules.Disable {
		if sid == 0 {
			f.wrong("rules.disable", "0", "is no sid")
		}
		f.values["rules.disable."+strconv.FormatUint(uint64(sid), 10)] = true
	}
	for name, v := range d.Vars {
		switch {
		case !varName.MatchString(name):
			f.wrong("vars", name, "want A-Z, 0-9 and underscore, a letter first")
		case name == "HOME_NET" || name == "EXTERNAL_NET":
			f.wrong("vars."+name, v, "comes from home_net; set that")
		case v == "" || strings.ContainsAny(v, "\"';\n\r\\"):
			f.wrong("vars."+name, v, "must be an address or port group, like [80,8080] or 192.0.2.0/24")
		}
		f.values["vars."+name] = v
	}
	ps := d.Detectors.PortScan
	if ps.Enabled != nil {
		f.values["detectors.port_scan.enabled"] = *ps.Enabled
	}
	f.number("detectors.port_scan.hosts", ps.Hosts, 2, 65535)
	f.number("detectors.port_scan.ports", ps.Ports, 2, 65535)
	f.seconds("detectors.port_scan.window", ps.Window)
	f.seconds("intervals.traffic", d.Intervals.Traffic)
	f.seconds("intervals.health", d.Intervals.Health)
	if v := d.Uplink.MaxBytesPerSecond; v != nil {
		if *v < 4096 || *v > 1<<30 {
			f.wrong("uplink.max_bytes_per_second", strconv.FormatUint(*v, 10), "want 4096 to 1073741824")
		}
		f.values["uplink.max_bytes_per_second"] = *v
	}
}

func (f *flattener) zone(name string, z *zone) {
	path := "zones." + name
	if !slices.Contains(ZoneNames, name) {
		f.wrong(path, "", "is no zone; want one of "+strings.Join(ZoneNames, ", "))
		return
	}
	if z == nil {
		return
	}
	if z.Mode != nil {
		f.values[path+".mode"] = f.choice(path+".mode", *z.Mode, modes)
	}
	if z.Prefixes != nil {
		if name == "wan" && len(*z.Prefixes) > 0 {
			f.wrong(path+".prefixes", Format(*z.Prefixes), "wan is everything that is not inside; it takes no prefixes")
		}
		f.values[path+".prefixes"] = f.prefixes(path+".prefixes", *z.Prefixes)
	}
	if z.VLANs != nil {
		ids := []string{}
		for _, v := range *z.VLANs {
			if v < 1 || v > 4094 {
				f.wrong(path+".vlans", strconv.FormatUint(uint64(v), 10), "want 1 to 4094")
			}
			ids = append(ids, strconv.FormatUint(uint64(v), 10))
		}
		f.values[path+".vlans"] = ids
	}
	if z.MACs != nil {
		macs := []string{}
		for _, m := range *z.MACs {
			m = strings.ToLower(strings.ReplaceAll(m, "-", ":"))
			if !macForm.MatchString(m) {
				f.wrong(path+".macs", m, "want aa:bb:cc:dd:ee:ff")
			}
			macs = append(macs, m)
		}
		f.values[path+".macs"] = macs
	}
	if z.Anonymous != nil {
		f.values[path+".anonymous"] = *z.Anonymous
	}
}

// prefixes checks and normalises; an address stands for itself alone.
func (f *flattener) prefixes(path string, in []string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		p, err := ParsePrefix(s)
		switch {
		case err != nil:
			f.wrong(path, s, err.Error())
		case p.Bits() == 0:
			f.wrong(path, s, "covers the whole Internet")
		default:
			if t := p.String(); !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// ParsePrefix reads "192.0.2.0/24" or a bare address. Bits beyond the prefix length are refused: they are nearly always a slip.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, errors.New("an address with an interface name is no prefix")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("want an address or a prefix, like 192.0.2.0/24")
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("has bits beyond its length; did you mean %s?", p.Masked())
	}
	return p, nil
}

func (f *flattener) choice(path, v string, of []string) string {
	if !slices.Contains(of, v) {
		f.wrong(path, v, "want one of "+strings.Join(of, ", "))
	}
	return v
}

func (f *flattener) number(path string, v *uint32, lo, hi uint32) {
	if v == nil {
		return
	}
	if *v < lo || *v > hi {
		f.wrong(path, strconv.FormatUint(uint64(*v), 10), fmt.Sprintf("want %d to %d", lo, hi))
	}
	f.values[path] = uint64(*v)
}

func (f *flattener) seconds(path string, v *time.Duration) {
	if v == nil {
		return
	}
	if *v < time.Second || *v > time.Hour || *v%time.Second != 0 {
		f.wrong(path, v.String(), "want whole seconds from 1s to 1h")
	}
	f.values[path] = *v
}
