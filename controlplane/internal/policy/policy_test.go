package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
)

var now = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func layer(t *testing.T, name, doc string) *Layer {
	t.Helper()
	v, err := Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return &Layer{Name: name, Author: name + "-author", Values: v}
}

func TestHigherLayerReplacesAndNeverBlockAddsUp(t *testing.T) {
	t.Parallel()
	plan := layer(t, LayerPlan, "zones:\n  clinical: {mode: observe}\nnever_block: [192.0.2.1]\nrules: {disable: [7]}\nlists: {names: {ads: off, mine: notify}}\n")
	over := layer(t, LayerClinic, "home_net: [192.168.11.0/24]\nzones:\n  guest: {prefixes: [192.168.11.128/25]}\nnever_block: [198.51.100.0/24]\nrules: {disable: [9]}\n")
	s, err := Merge(now, Default(), plan, over, System([]string{"203.0.113.5/32"}))
	if err != nil {
		t.Fatal(err)
	}
	p := Compile(Target{Clinic: 1, ClinicName: "x", Appliance: 2}, s, []List{{"mine", "c2"}, {"ads", "bad-site"}, {"bots", "c2"}, {"scan", "scanner"}})
	if got := strings.Join(p.GetNeverBlock(), " "); got != "192.0.2.1/32 198.51.100.0/24 203.0.113.5/32" {
		t.Errorf("never_block %s", got)
	}
	if d := p.GetDisabledSids(); len(d) != 2 || d[0] != 7 || d[1] != 9 {
		t.Errorf("disabled %v", d)
	}
	use := map[string]bool{}
	for _, l := range p.GetLists() {
		use[l.GetName()] = l.GetBlock()
	}
	if len(use) != 3 || use["mine"] || !use["bots"] || use["scan"] {
		t.Errorf("lists %v", use)
	}
	zones := map[string]*policyv1.Zone{}
	for _, z := range p.GetZones() {
		zones[z.GetName()] = z
	}
	if z := zones["clinical"]; z.GetMode() != policyv1.Mode_MODE_OBSERVE || len(z.GetPrefixes()) != 1 || z.GetPrefixes()[0] != "192.168.11.0/24" {
		t.Errorf("clinical %v", z)
	}
	if z := zones["guest"]; z.GetMode() != policyv1.Mode_MODE_PREVENT || !z.GetAnonymous() || z.GetPrefixes()[0] != "192.168.11.128/25" {
		t.Errorf("guest %v", z)
	}
	if ps := p.GetDetectors().GetPortScan(); !ps.GetEnabled() || ps.GetHosts() != 20 || ps.GetWindowS() != 60 {
		t.Errorf("port scan %v", ps)
	}
	if i := s.find("zones.clinical.mode"); s[i].Layer.Name != LayerPlan || s[i].Layer.Author != "plan-author" {
		t.Errorf("origin %+v", s[i].Layer)
	}
}

func TestExpiredLayerCountsForNothing(t *testing.T) {
	t.Parallel()
	over := layer(t, LayerClinic, "zones: {clinical: {mode: prevent}}")
	over.Expires = now
	s, err := Merge(now, Default(), over)
	if err != nil {
		t.Fatal(err)
	}
	if got := value[string](s, "zones.clinical.mode"); got != "notify" {
		t.Errorf("mode %q after expiry", got)
	}
	if s, _ = Merge(now.Add(-time.Second), Default(), over); value[string](s, "zones.clinical.mode") != "prevent" {
		t.Error("override did not count before its end")
	}
}

func TestDiffNamesEachChange(t *testing.T) {
	t.Parallel()
	a, _ := Merge(now, Default(), layer(t, LayerPlan, "never_block: [192.0.2.1]"))
	b, _ := Merge(now, Default(), layer(t, LayerPlan, "zones: {clinical: {mode: prevent}}\nvars: {HTTP_PORTS: '[80,8080]'}"))
	want := "- never_block.192.0.2.1/32: true\n+ vars.HTTP_PORTS: [80,8080]\n~ zones.clinical.mode: notify -> prevent"
	if got := strings.Join(Diff(a, b), "\n"); got != want {
		t.Errorf("diff\n%s\nwant\n%s", got, want)
	}
	if d := Diff(a, a); len(d) != 0 {
		t.Errorf("diff with itself: %v", d)
	}
}

func TestBadDocumentsNamePathValueAndWhy(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		"zones: {clinical: {mode: block}}":                      `zones.clinical.mode: "block": want one of observe, notify, prevent`,
		"zones: {kitchen: {mode: notify}}":                      "zones.kitchen: is no zone",
		"zones: {guest: {vlans: [5000]}}":                       `zones.guest.vlans: "5000": want 1 to 4094`,
		"zones: {guest: {macs: [zz]}}":                          `zones.guest.macs: "zz": want aa:bb`,
		"zones: {wan: {prefixes: [192.0.2.0/24]}}":              "zones.wan.prefixes",
		"never_block: [0.0.0.0/0]":                              `never_block: "0.0.0.0/0": covers the whole Internet`,
		"never_block: [10.0.0.1/8]":                             "did you mean 10.0.0.0/8?",
		"home_net: []":                                          "home_net: must name",
		"lists: {kinds: {spam: block}}":                         `lists.kinds: "spam"`,
		"lists: {names: {'a b': block}}":                        `lists.names: "a b"`,
		"rules: {disable: [0]}":                                 "rules.disable",
		"rules: {disable: [-1]}":                                "rules",
		"vars: {HOME_NET: any}":                                 "vars.HOME_NET",
		"vars: {P: 'a;b'}":                                      "vars.P",
		"detectors: {port_scan: {hosts: 1}}":                    "detectors.port_scan.hosts",
		"detectors: {port_scan: {window: 1500ms}}":              "detectors.port_scan.window",
		"intervals: {health: 2h}":                               "intervals.health",
		"uplink: {max_bytes_per_second: 1}":                     "uplink.max_bytes_per_second",
		"zonez: {}":                                             `unknown field "zonez"`,
		"zones: {guest: {mood: x}}":                             `unknown field "mood"`,
		"zones: [":                                              "[1:",
		"home_net: [10.0.0.0/8]\n---\nhome_net: [10.0.0.0/8]\n": "second document",
	} {
		_, err := Parse([]byte(doc))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v\nwant %s", doc, err, want)
		}
	}
}

func TestContradictionsAreFoundAcrossLayers(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]string{
		"zones: {guest: {vlans: [9]}, iot: {vlans: [9]}}":                                      "belongs to zone guest as well",
		"home_net: [192.168.1.0/24]\nzones: {guest: {prefixes: [192.168.2.0/24]}}":             "is not inside home_net",
		"zones: {guest: {macs: ['aa:aa:aa:aa:aa:aa']}, vendor: {macs: ['AA-AA-AA-AA-AA-AA']}}": "belongs to zone guest as well",
	} {
		_, err := Merge(now, Default(), layer(t, LayerPlan, doc))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", doc, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("zones: {clinical: {mode: notify, prefixes: [192.168.0.0/24]}}")
	f.Add("never_block: [192.0.2.1, '2001:db8::/32']\nintervals: {traffic: 60s}")
	f.Add("a: &a [*a]")
	f.Add("? [x]: {y")
	f.Fuzz(func(t *testing.T, doc string) {
		v, err := Parse([]byte(doc))
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		s, err := Merge(now, Default(), &Layer{Name: LayerPlan, Values: v})
		if err == nil {
			Compile(Target{Clinic: 1, Appliance: 1}, s, nil)
		}
	})
}
