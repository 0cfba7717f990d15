package inventory

import (
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"sync"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
)

// maxDevices bounds the table: a clinic has tens to a few hundred; a MAC flood must not fill memory.
const maxDevices = 4096

// maxAddresses bounds the addresses remembered per device.
const maxAddresses = 16

// Device is what is known of one MAC. Values handed out are copies.
type Device struct {
	MAC         [6]byte
	IP          netip.Addr // the address seen last, IPv4 preferred
	Zone        int
	Hostname    string
	VendorClass string
	First, Last int64 // nanoseconds since the Unix epoch
	addrs       [maxAddresses]netip.Addr
	naddrs      int
}

// Table is the list of inside devices, shared by all workers. Its methods lock, and are called for new flows and for ARP,
// DHCP and neighbour discovery only.
type Table struct {
	mu      sync.Mutex
	devices map[[6]byte]*Device
	byIP    map[netip.Addr]*Device
	key     [32]byte
	keyDay  int64
	// Refused counts devices not taken because the table was full.
	refused uint64
}

// NewTable makes an empty Table.
func NewTable() *Table {
	return &Table{devices: map[[6]byte]*Device{}, byIP: map[netip.Addr]*Device{}}
}

// Seen is one observation of a device.
type Seen struct {
	MAC         [6]byte
	IP          netip.Addr // may be invalid
	Zone        int
	Hostname    string // "" unknown
	VendorClass string
	Source      string // "arp", "dhcp", "nd", "flow"
	Time        int64
}

// Observe takes an observation in. changed says that it is worth telling: a new device, or another address, name or zone.
func (t *Table) Observe(s *Seen) (d Device, changed bool) {
	if s.MAC[0]&1 != 0 || s.MAC == ([6]byte{}) { // a group, or none
		return Device{MAC: s.MAC, IP: s.IP, Zone: s.Zone}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	dev := t.devices[s.MAC]
	if dev == nil {
		if len(t.devices) >= maxDevices && !t.evict(s.Time) {
			t.refused++
			return Device{MAC: s.MAC, IP: s.IP, Zone: s.Zone}, false
		}
		dev = &Device{MAC: s.MAC, First: s.Time, Zone: s.Zone}
		t.devices[s.MAC] = dev
		changed = true
	}
	dev.Last = max(dev.Last, s.Time)
	if s.IP.IsValid() && !s.IP.IsUnspecified() && !s.IP.IsMulticast() {
		if t.addAddress(dev, s.IP.Unmap()) {
			changed = true
		}
	}
	if s.Zone != NoZone && dev.Zone != s.Zone {
		dev.Zone = s.Zone
		changed = true
	}
	if s.Hostname != "" && dev.Hostname != s.Hostname {
		dev.Hostname = s.Hostname
		changed = true
	}
	if s.VendorClass != "" && dev.VendorClass != s.VendorClass {
		dev.VendorClass = s.VendorClass
		changed = true
	}
	return *dev, changed
}

// addAddress notes an address; true when the device's main address changed.
func (t *Table) addAddress(dev *Device, a netip.Addr) bool {
	if old := t.byIP[a]; old != nil && old != dev && old.IP == a {
		old.IP = netip.Addr{}
	}
	t.byIP[a] = dev
	known := false
	for i := range dev.naddrs {
		known = known || dev.addrs[i] == a
	}
	if !known {
		if dev.naddrs == maxAddresses {
			if gone := dev.addrs[0]; t.byIP[gone] == dev {
				delete(t.byIP, gone)
			}
			copy(dev.addrs[:], dev.addrs[1:])
			dev.naddrs--
		}
		dev.addrs[dev.naddrs] = a
		dev.naddrs++
	}
	switch {
	case dev.IP == a:
		return false
	case !dev.IP.IsValid():
	case dev.IP.Is4() && !a.Is4(): // IPv4 stays the main address
		return false
	case a.IsLinkLocalUnicast():
		return false
	}
	dev.IP = a
	return true
}

// evict forgets the device unseen the longest when that is at least an hour.
func (t *Table) evict(now int64) bool {
	var oldest *Device
	for _, d := range t.devices {
		if oldest == nil || d.Last < oldest.Last {
			oldest = d
		}
	}
	if oldest == nil || now-oldest.Last < 3600e9 {
		return false
	}
	delete(t.devices, oldest.MAC)
	for i := range oldest.naddrs {
		if t.byIP[oldest.addrs[i]] == oldest {
			delete(t.byIP, oldest.addrs[i])
		}
	}
	return true
}

// ByMAC finds a device.
func (t *Table) ByMAC(mac [6]byte) (Device, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.devices[mac]; d != nil {
		return *d, true
	}
	return Device{}, false
}

// ByIP finds the device that used an address last.
func (t *Table) ByIP(a netip.Addr) (Device, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.byIP[a.Unmap()]; d != nil {
		return *d, true
	}
	return Device{}, false
}

// Len is how many devices are known, Refused how many were not taken because the table was full.
func (t *Table) Len() (n int, refused uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.devices), t.refused
}

// Describe makes the finding's form of a device. In an anonymous zone name and address are left out and the MAC is a keyed
// hash: the same within a day, unlinkable over days; a device that is still undecided is no known device. now is nanoseconds since
// the Unix epoch.
func (t *Table) Describe(d *Device, zones *Zones, now int64) finding.Device {
	if zones.Undecided(d) {
		return finding.Device{}
	}
	out := finding.Device{
		MAC: d.MAC, IP: d.IP, Zone: zones.Name(d.Zone), Hostname: d.Hostname, Known: true,
	}
	if zones.Anonymous(d.Zone) {
		out.MAC = t.hashMAC(d.MAC, now)
		out.IP = netip.Addr{}
		out.Hostname = ""
		out.Anonymous = true
	}
	return out
}

func (t *Table) hashMAC(mac [6]byte, now int64) [6]byte {
	day := (now + 9*3600e9) / 86400e9 // Japan's day
	t.mu.Lock()
	if day != t.keyDay {
		t.keyDay = day
		_, _ = rand.Read(t.key[:]) // never fails (crypto/rand)
	}
	h := sha256.New()
	_, _ = h.Write(t.key[:])
	t.mu.Unlock()
	_, _ = h.Write(mac[:])
	var out [6]byte
	copy(out[:], h.Sum(nil))
	out[0] = out[0]&^1 | 2 // locally administered, no group
	return out
}
