// Package inventory keeps the list of inside devices and knows which zone each belongs to. The engine calls it for each new
// flow and each ARP, DHCP and neighbour discovery packet. The trap: a device of an anonymous zone must never leave here with
// its name, its address or its real MAC.
package inventory

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// Zone says which devices belong to a part of the clinic's network. A device belongs to the first zone, in the order of the
// policy, that names its MAC; else its VLAN; else a prefix of its address.
type Zone struct {
	Name      string
	Anonymous bool
	Prefixes  []netip.Prefix
	VLANs     []uint16
	MACs      [][6]byte
}

// NoZone is the index of a device that no zone of the policy names.
const NoZone = -1

// Zones finds the zone of an inside device. It is read-only after NewZones.
type Zones struct {
	list []Zone
	home []netip.Prefix
	macs map[[6]byte]int
	// hides: an anonymous zone is told by its addresses, so that a device without one could belong to it.
	hides bool
}

// NewZones makes Zones of a policy's zones and inside prefixes.
func NewZones(list []Zone, home []netip.Prefix) *Zones {
	z := &Zones{list: list, home: home, macs: make(map[[6]byte]int)}
	for i := range list {
		z.hides = z.hides || list[i].Anonymous && len(list[i].Prefixes) > 0
		for _, m := range list[i].MACs {
			if _, dup := z.macs[m]; !dup {
				z.macs[m] = i
			}
		}
	}
	return z
}

// ParseMAC reads aa:bb:cc:dd:ee:ff.
func ParseMAC(s string) ([6]byte, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return [6]byte{}, fmt.Errorf("read MAC %q: want aa:bb:cc:dd:ee:ff", s)
	}
	return [6]byte(hw), nil
}

// Inside says whether an address belongs to the clinic: one of its prefixes or of a zone's other than "wan".
func (z *Zones) Inside(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range z.home {
		if p.Contains(a) {
			return true
		}
	}
	for i := range z.list {
		if z.list[i].Name == "wan" {
			continue
		}
		for _, p := range z.list[i].Prefixes {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// Find gives the index of the zone of a device, NoZone when none names it. port is the side the device is at; a device on the
// WAN side is in zone "wan" when the policy has one and no other zone names it.
func (z *Zones) Find(mac [6]byte, vlan [2]uint16, a netip.Addr, port wire.Port) int {
	if i, ok := z.macs[mac]; ok {
		return i
	}
	for i := range z.list {
		for _, v := range z.list[i].VLANs {
			if v == vlan[0] || (vlan[1] != 0 && v == vlan[1]) {
				return i
			}
		}
	}
	a = a.Unmap()
	for i := range z.list {
		for _, p := range z.list[i].Prefixes {
			if p.Contains(a) {
				return i
			}
		}
	}
	if port == wire.WAN {
		for i := range z.list {
			if z.list[i].Name == "wan" {
				return i
			}
		}
	}
	return NoZone
}

// Name gives a zone's name, "" for NoZone.
func (z *Zones) Name(i int) string {
	if i < 0 || i >= len(z.list) {
		return ""
	}
	return z.list[i].Name
}

// Anonymous says whether devices of the zone must never be named.
func (z *Zones) Anonymous(i int) bool {
	return i >= 0 && i < len(z.list) && z.list[i].Anonymous
}

// Undecided says that nothing may be told of a device yet: it has no address beyond its own link (a client that asks for its first
// lease, say), and could turn out to be of a zone whose devices are never named.
func (z *Zones) Undecided(d *Device) bool {
	return z.hides && !z.Anonymous(d.Zone) && (!d.IP.IsValid() || d.IP.IsLinkLocalUnicast())
}
