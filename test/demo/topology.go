package demo

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kadomori/kadomori/test/lab"
)

// Addresses of the demo's world: documentation ranges (RFC 5737) for "the Internet", the benchmark range (RFC 2544) for the
// appliances' management network, private ranges (RFC 1918) inside the clinics.
const (
	webIP      = "203.0.113.10"
	saasIP     = "203.0.113.20"
	videoIP    = "203.0.113.30"
	evilNet    = "198.51.100.0/24"
	scannerIP  = "198.51.100.23"
	c2IP       = "198.51.100.66"
	phishingIP = "198.51.100.80"
	mspIP      = "198.18.0.1"
)

// maxClinics is what the address plan holds: 192.168.11.0/24 to 192.168.110.0/24 for clinics, the next hundred for guests.
const maxClinics = 100

// device is one host behind an appliance.
type device struct {
	host  *lab.Host
	label string // as the clinic calls it
	name  string // as it tells the DHCP server
	mac   string
	ip    string
	guest bool
}

// clinic is one clinic of the demo: its switch, its four devices and its appliance.
type clinic struct {
	n        int
	id       int32 // given by the control plane
	name     string
	kana     string
	director string

	box                        *lab.Host
	reception, receipt         *device
	nas, phone                 *device
	gateway, guestGateway      string
	clinicalPrefix, guestRange string
	wan                        string // the Internet's interface towards this clinic
	mgmtIP                     string
	pdf                        string // the report, once it is there
}

func (c *clinic) devices() []*device { return []*device{c.reception, c.receipt, c.nas, c.phone} }

var clinicNames = []struct{ name, kana, director string }{
	{"さくら通り内科クリニック", "さくらどおりないかくりにっく", "佐倉 真理子"},
	{"みどり小児科医院", "みどりしょうにかいいん", "緑川 健太"},
	{"𠮷田整形外科", "よしだせいけいげか", "𠮷田 修"},
	{"あおば皮膚科", "あおばひふか", "青葉 紀子"},
	{"はるの耳鼻咽喉科", "はるのじびいんこうか", "春野 誠"},
}

// world is everything that isn't a program of ours.
type world struct {
	lab      *lab.Lab
	msp      *lab.Host
	internet *lab.Host
	evil     *lab.Host
	clinics  []*clinic
}

// buildWorld makes the hosts and links. It starts nothing.
func buildWorld(l *lab.Lab, clinics int) (*world, error) {
	w := &world{lab: l}
	var err error
	for _, h := range []struct {
		host **lab.Host
		name string
	}{{&w.msp, "msp"}, {&w.internet, "inet"}, {&w.evil, "evil"}} {
		if *h.host, err = l.Host(h.name); err != nil {
			return nil, err
		}
	}
	if err := w.msp.Bridge("mgmt", mspIP+"/16"); err != nil {
		return nil, err
	}
	for _, ip := range []string{webIP, saasIP, videoIP} {
		if err := w.internet.Run("ip", "addr", "add", ip+"/32", "dev", "lo"); err != nil {
			return nil, err
		}
	}
	if err := w.internet.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return nil, err
	}
	// The attackers' corner of the Internet.
	if err := l.Link(lab.End{Host: w.internet, Name: "evil0", Addresses: []string{"198.51.100.1/24"}},
		lab.End{Host: w.evil, Name: "eth0", Addresses: []string{scannerIP + "/24", c2IP + "/24", phishingIP + "/24"}},
		lab.LinkOptions{}); err != nil {
		return nil, err
	}
	if err := w.evil.Route("default", "198.51.100.1"); err != nil {
		return nil, err
	}
	for n := 1; n <= clinics; n++ {
		c, err := w.buildClinic(n)
		if err != nil {
			return nil, fmt.Errorf("build clinic %d: %w", n, err)
		}
		w.clinics = append(w.clinics, c)
	}
	return w, nil
}

func (w *world) buildClinic(n int) (*clinic, error) {
	names := clinicNames[(n-1)%len(clinicNames)]
	name := names.name
	if n > len(clinicNames) {
		name = fmt.Sprintf("%s %d号院", name, n)
	}
	c := &clinic{
		n: n, name: name, kana: names.kana, director: names.director,
		gateway: fmt.Sprintf("192.168.%d.1", 10+n), guestGateway: fmt.Sprintf("192.168.%d.1", 110+n),
		clinicalPrefix: fmt.Sprintf("192.168.%d.0/24", 10+n), guestRange: fmt.Sprintf("192.168.%d.0/24", 110+n),
		wan: fmt.Sprintf("c%d", n), mgmtIP: fmt.Sprintf("198.18.%d.2", n),
	}
	host := func(role string) (*lab.Host, error) { return w.lab.Host(fmt.Sprintf("c%d-%s", n, role)) }

	lan, err := host("switch")
	if err != nil {
		return nil, err
	}
	if c.box, err = host("box"); err != nil {
		return nil, err
	}
	// The guests share the clinic's switch, as in many small clinics, and are told apart by their addresses.
	if err := lan.Bridge("br0"); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		slot        **device
		role, label string
		hostname    string
		last        int
		guest       bool
	}{
		{&c.reception, "pc", "受付PC-1", "reception-pc", 21, false},
		{&c.receipt, "rececom", "レセコン", "rececom", 22, false},
		{&c.nas, "nas", "NAS", "nas", 10, false},
		{&c.phone, "phone", "", "guest-phone", 101, true},
	} {
		dev := &device{label: d.label, name: d.hostname, guest: d.guest, mac: fmt.Sprintf("02:4b:44:%02x:00:%02x", n, d.last)}
		third := 10 + n
		if d.guest {
			third = 110 + n
		}
		dev.ip = fmt.Sprintf("192.168.%d.%d", third, d.last)
		if dev.host, err = host(d.role); err != nil {
			return nil, err
		}
		if err := w.lab.Link(lab.End{Host: lan, Name: "p-" + d.role, Bridge: "br0"}, lab.End{Host: dev.host, Name: "eth0", MAC: dev.mac},
			lab.LinkOptions{}); err != nil {
			return nil, err
		}
		*d.slot = dev
	}

	// The appliance's two ports: lan0 to the switch, wan0 to the provider's router.
	if err := w.lab.Link(lab.End{Host: lan, Name: "p-box", Bridge: "br0"}, lab.End{Host: c.box, Name: "lan0"}, lab.LinkOptions{}); err != nil {
		return nil, err
	}
	if err := w.lab.Link(lab.End{Host: c.box, Name: "wan0"}, lab.End{Host: w.internet, Name: c.wan, Addresses: []string{c.gateway + "/24", c.guestGateway + "/24"}},
		lab.LinkOptions{}); err != nil {
		return nil, err
	}
	// The management port, through which the agent reaches the control plane.
	if err := w.lab.Link(lab.End{Host: w.msp, Name: fmt.Sprintf("box%d", n), Bridge: "mgmt"},
		lab.End{Host: c.box, Name: "mgmt0", Addresses: []string{c.mgmtIP + "/16"}}, lab.LinkOptions{Offload: true}); err != nil {
		return nil, err
	}
	return c, nil
}

// dhcpScript is what udhcpc calls with the lease in its environment.
const dhcpScript = `#!/bin/sh
case "$1" in
deconfig) ip link set "$interface" up ;;
bound|renew) ip addr replace "$ip/$mask" dev "$interface" && ip route replace default via "$router" ;;
esac
`

func writeDHCPScript(dir string) (string, error) {
	path := filepath.Join(dir, "udhcpc.sh")
	if err := os.WriteFile(path, []byte(dhcpScript), 0o700); err != nil { //nolint:gosec // a script must be executable by its owner
		return "", fmt.Errorf("write DHCP script: %w", err)
	}
	return path, nil
}

// override is how the clinic deviates from the plan: its own addresses.
func (c *clinic) override() string {
	return fmt.Sprintf(`home_net: [%s, %s]
zones:
  clinical:
    prefixes: [%s]
  guest:
    prefixes: [%s]
`, c.clinicalPrefix, c.guestRange, c.clinicalPrefix, c.guestRange)
}
