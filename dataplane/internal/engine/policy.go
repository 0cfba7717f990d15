package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"

	"github.com/kadomori/kadomori/dataplane/internal/detect"
	"github.com/kadomori/kadomori/dataplane/internal/inventory"
)

// Mode is what a zone does about bad traffic.
type Mode uint8

// The modes, from mildest to strictest (architecture §3).
const (
	Observe Mode = iota + 1
	Notify
	Prevent
)

// Policy is what the engine does, ready for the packet loop. It is made by CompilePolicy and read-only afterwards; all
// workers share it.
type Policy struct {
	zones      *inventory.Zones
	modes      []Mode // by zone index of zones
	indicators *detect.Indicators
	disabled   map[uint32]bool
	scan       detect.ScanConfig
	addresses  []AddressList
	homeNet    []netip.Prefix
}

// AddressList is an address list of the signature bundle as the policy uses it. ID is stable for the life of the Policy and
// is what the wire gives back in wire.DropSample.ListID.
type AddressList struct {
	ID       uint32
	Name     string
	Kind     detect.Kind
	Block    bool // the wire stops it (policy's ListUse.block)
	Prefixes []netip.Prefix
}

// AddressLists gives the address lists that the policy uses: those with Block belong into the wire's block sets.
func (p *Policy) AddressLists() []AddressList { return p.addresses }

// HomeNet gives the clinic's inside prefixes.
func (p *Policy) HomeNet() []netip.Prefix { return p.homeNet }

// DefaultHomeNet is used when a policy names no inside prefixes: RFC 1918, RFC 4193, RFC 3927 and RFC 4291 link local.
func DefaultHomeNet() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
	}
}

// CompilePolicy makes the engine's form of a policy and the lists it uses. sig may be nil (no lists). An error names the
// field and the value that is wrong; nothing is half-applied.
func CompilePolicy(pol *policyv1.Policy, sig *signaturev1.Signatures) (*Policy, error) {
	if pol == nil {
		pol = &policyv1.Policy{}
	}
	p := &Policy{disabled: make(map[uint32]bool, len(pol.GetDisabledSids()))}
	for _, s := range pol.GetHomeNet() {
		pre, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("compile policy: home_net %q: %w", s, err)
		}
		p.homeNet = append(p.homeNet, pre.Masked())
	}
	if len(p.homeNet) == 0 {
		p.homeNet = DefaultHomeNet()
	}
	if err := p.compileZones(pol.GetZones()); err != nil {
		return nil, fmt.Errorf("compile policy: %w", err)
	}
	for _, sid := range pol.GetDisabledSids() {
		p.disabled[sid] = true
	}
	if err := p.compileLists(pol.GetLists(), sig); err != nil {
		return nil, fmt.Errorf("compile policy: %w", err)
	}
	scan := pol.GetDetectors().GetPortScan()
	p.scan = detect.ScanConfig{
		Enabled: scan == nil || scan.GetEnabled(),
		Hosts:   scan.GetHosts(), Ports: scan.GetPorts(), WindowSeconds: scan.GetWindowS(),
	}
	return p, nil
}

func (p *Policy) compileZones(zones []*policyv1.Zone) error {
	var in []inventory.Zone
	for i, z := range zones {
		if z.GetName() == "" {
			return fmt.Errorf("zones[%d]: %w", i, errors.New("name is empty"))
		}
		mode := Notify
		switch z.GetMode() {
		case policyv1.Mode_MODE_OBSERVE:
			mode = Observe
		case policyv1.Mode_MODE_PREVENT:
			mode = Prevent
		default:
		}
		iz := inventory.Zone{Name: z.GetName(), Anonymous: z.GetAnonymous()}
		for _, s := range z.GetPrefixes() {
			pre, err := netip.ParsePrefix(s)
			if err != nil {
				return fmt.Errorf("zone %s: prefix %q: %w", z.GetName(), s, err)
			}
			iz.Prefixes = append(iz.Prefixes, pre.Masked())
		}
		for _, v := range z.GetVlans() {
			if v == 0 || v > 4094 {
				return fmt.Errorf("zone %s: vlan %d is not in 1..4094", z.GetName(), v)
			}
			iz.VLANs = append(iz.VLANs, uint16(v))
		}
		for _, s := range z.GetMacs() {
			mac, err := inventory.ParseMAC(s)
			if err != nil {
				return fmt.Errorf("zone %s: %w", z.GetName(), err)
			}
			iz.MACs = append(iz.MACs, mac)
		}
		in = append(in, iz)
		p.modes = append(p.modes, mode)
	}
	p.zones = inventory.NewZones(in, p.homeNet)
	return nil
}

func (p *Policy) compileLists(uses []*policyv1.ListUse, sig *signaturev1.Signatures) error {
	block := make(map[string]bool, len(uses))
	used := make(map[string]bool, len(uses))
	for _, u := range uses {
		used[u.GetName()] = true
		block[u.GetName()] = u.GetBlock()
	}
	b := detect.NewIndicatorsBuilder()
	found := make(map[string]bool, len(uses))
	for _, l := range sig.GetAddresses() {
		if !used[l.GetName()] {
			continue
		}
		found[l.GetName()] = true
		prefixes, err := detect.UnpackPrefixes(l.GetPrefixes())
		if err != nil {
			return fmt.Errorf("address list %s: %w", l.GetName(), err)
		}
		al := AddressList{
			Name: l.GetName(), Kind: detect.Kind(l.GetKind()), Block: block[l.GetName()], Prefixes: prefixes,
		}
		al.ID = b.Add(detect.List{Name: al.Name, Kind: al.Kind, Block: al.Block}, prefixes, nil)
		p.addresses = append(p.addresses, al)
	}
	for _, l := range sig.GetDomains() {
		if !used[l.GetName()] {
			continue
		}
		found[l.GetName()] = true
		for _, d := range l.GetDomains() {
			if d == "" || strings.ContainsAny(d, " /\t\n") {
				return fmt.Errorf("domain list %s: %q is no domain", l.GetName(), d)
			}
		}
		b.Add(detect.List{Name: l.GetName(), Kind: detect.Kind(l.GetKind()), Block: block[l.GetName()]}, nil, l.GetDomains())
	}
	p.indicators = b.Build()
	_ = found // a list that the policy uses and no bundle holds yet is no error: the bundles arrive apart
	return nil
}

func (p *Policy) mode(zone int) Mode {
	if zone < 0 || zone >= len(p.modes) {
		return Notify
	}
	return p.modes[zone]
}
