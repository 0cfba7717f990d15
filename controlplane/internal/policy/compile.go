package policy

import (
	"slices"
	"strings"
	"time"

	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
)

// List is a list of the current signature bundle that a policy may enforce.
type List struct {
	Name string
	Kind string // one of ListKinds
}

// Target is the appliance a policy is compiled for.
type Target struct {
	Clinic     int32
	ClinicName string
	Appliance  int32
}

// Compile writes the effective settings as the message an appliance takes. lists are those of the signature bundle in force: a list
// that lists.names does not speak of is used as lists.kinds says of its kind. Equal input gives equal output.
func Compile(t Target, s Settings, lists []List) *policyv1.Policy {
	p := &policyv1.Policy{
		ClinicId: t.Clinic, ApplianceId: t.Appliance, ClinicName: t.ClinicName,
		HomeNet:      s.list("home_net"),
		NeverBlock:   s.NeverBlock(),
		DisabledSids: numbers(s.under("rules.disable.")),
		Vars:         map[string]string{},
		Detectors: &policyv1.Detectors{PortScan: &policyv1.PortScan{
			Enabled: value[bool](s, "detectors.port_scan.enabled"),
			Hosts:   uint32(value[uint64](s, "detectors.port_scan.hosts")),
			Ports:   uint32(value[uint64](s, "detectors.port_scan.ports")),
			WindowS: seconds(s, "detectors.port_scan.window"),
		}},
		Intervals: &policyv1.Intervals{TrafficS: seconds(s, "intervals.traffic"), HealthS: seconds(s, "intervals.health")},
		Uplink:    &policyv1.Uplink{MaxBytesS: value[uint64](s, "uplink.max_bytes_per_second")},
	}
	for _, name := range s.zones() {
		at := "zones." + name + "."
		prefixes := s.list(at + "prefixes")
		if name == "clinical" && prefixes == nil {
			prefixes = p.HomeNet // zones go by the longest prefix: what no other zone names is clinical
		}
		p.Zones = append(p.Zones, &policyv1.Zone{
			Name: name, Mode: mode(value[string](s, at+"mode")), Prefixes: prefixes,
			Vlans: numbers(s.list(at + "vlans")), Macs: s.list(at + "macs"), Anonymous: value[bool](s, at+"anonymous"),
		})
	}
	for _, name := range s.under("vars.") {
		p.Vars[name] = value[string](s, "vars."+name)
	}
	for _, l := range lists {
		use := value[string](s, "lists.names."+l.Name)
		if use == "" {
			use = value[string](s, "lists.kinds."+l.Kind)
		}
		if use == "block" || use == "notify" {
			p.Lists = append(p.Lists, &policyv1.ListUse{Name: l.Name, Block: use == "block"})
		}
	}
	slices.SortFunc(p.Lists, func(a, b *policyv1.ListUse) int { return strings.Compare(a.GetName(), b.GetName()) })
	return p
}

func seconds(s Settings, path string) uint32 {
	return uint32(value[time.Duration](s, path) / time.Second)
}

func mode(s string) policyv1.Mode {
	switch s {
	case "observe":
		return policyv1.Mode_MODE_OBSERVE
	case "prevent":
		return policyv1.Mode_MODE_PREVENT
	default: // a zone of which only the prefixes are given is not silently made stricter
		return policyv1.Mode_MODE_NOTIFY
	}
}
