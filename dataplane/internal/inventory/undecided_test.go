package inventory

import (
	"net/netip"
	"testing"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
)

// A guest's phone asks for its lease with its name and its true MAC, before any address tells that it is a guest's.
func TestGuestIsNeverNamedBeforeItsAddressIsKnown(t *testing.T) {
	zones := NewZones([]Zone{
		{Name: "clinical", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.11.0/24")}},
		{Name: "guest", Anonymous: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.111.0/24")}},
	}, nil)
	see := func(table *Table, mac byte, ip string) (Device, bool) {
		s := &Seen{MAC: [6]byte{2, 0, 0, 0, 0, mac}, Hostname: "taro-no-phone", Source: "dhcp", Time: 1}
		if ip != "" {
			s.IP = netip.MustParseAddr(ip)
		}
		s.Zone = zones.Find(s.MAC, [2]uint16{}, s.IP, wire.LAN)
		return table.Observe(s)
	}
	table := NewTable()
	for _, ip := range []string{"", "fe80::1"} {
		d, _ := see(table, 1, ip)
		if got := table.Describe(&d, zones, 1); !zones.Undecided(&d) || got.Known || got.Hostname != "" || got.MAC != [6]byte{} {
			t.Errorf("with address %q: told of %+v", ip, got)
		}
	}
	d, changed := see(table, 1, "192.168.111.101")
	if got := table.Describe(&d, zones, 1); !changed || !got.Anonymous || got.Hostname != "" || got.MAC == d.MAC || got.IP.IsValid() {
		t.Errorf("a guest is told as %+v (changed %t)", got, changed)
	}
	d, _ = see(table, 2, "")
	if !zones.Undecided(&d) {
		t.Error("a device without an address is told of")
	}
	d, changed = see(table, 2, "192.168.11.21")
	if got := table.Describe(&d, zones, 1); !changed || got.Hostname != "taro-no-phone" || got.Zone != "clinical" {
		t.Errorf("a device of the clinic is told as %+v (changed %t)", got, changed)
	}
	open := NewZones([]Zone{{Name: "clinical"}}, nil)
	if d, _ := see(table, 3, ""); open.Undecided(&d) {
		t.Error("without an anonymous zone a device waits for its address")
	}
}
