package month

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kadomori/kadomori/reporter/internal/label"
)

// Bounds of what a builder keeps. What lies over them is counted in the sums and named in no ranking.
const (
	maxRanked   = 50_000
	maxContacts = 10_000
)

// Builder adds up findings as they stream by. Its memory is bounded by devices, hours and runs of event numbers.
type Builder struct {
	in       Input
	byMAC    map[MAC]*Device
	byIP     map[netip.Addr]*Device
	suspects map[MAC]*suspect
	cats     map[string]*category
	heat     map[string][][24]int64 // by category
	heatAll  [][24]int64
	found    map[foundKey]*found
	peers    map[string]*tally
	targets  map[targetKey]*tally
	failed   error
}

type category struct {
	blocked, passed tally
	serious         tally // passed, of WarnSeverity or more
}

type foundKey struct {
	mac      MAC
	ip       netip.Addr
	category string
}

type found struct {
	category
	zone string
	last time.Time
}

type targetKey struct {
	mac   MAC
	guest bool
	label string
}

type suspect struct {
	Identity
	certainty   int16
	signals     map[string]bool
	first, last time.Time
	blocked     tally
	passed      tally
	contacts    map[Contact]int64
	times       []time.Time
	statements  set
}

// NewBuilder checks the input and takes it over.
func NewBuilder(in Input) (*Builder, error) {
	switch {
	case in.Month == Month{}:
		return nil, errors.New("build month: no month given")
	case in.Clinic.ID <= 0:
		return nil, errors.New("build month: no clinic given")
	case in.Now.IsZero():
		return nil, errors.New("build month: no moment given")
	case in.Now.Before(in.Month.Start()):
		return nil, fmt.Errorf("build month: %s has not begun", in.Month)
	}
	in.Revision = max(in.Revision, 1)
	if in.Issued.IsZero() {
		in.Issued = in.Now
	}
	in.Clinic.Name = label.Clean(in.Clinic.Name, label.ClinicMax)
	in.Clinic.Director = label.Clean(in.Clinic.Director, label.DeviceMax)
	in.Clinic.Code = label.Clean(in.Clinic.Code, label.DeviceMax)
	in.Sender = Sender{
		label.Clean(in.Sender.Name, label.ClinicMax), label.Clean(in.Sender.Desk, label.ClinicMax),
		label.Clean(in.Sender.Phone, label.DeviceMax), label.Clean(in.Sender.Hours, label.ClinicMax),
	}
	b := &Builder{
		in: in, byMAC: map[MAC]*Device{}, byIP: map[netip.Addr]*Device{}, suspects: map[MAC]*suspect{}, cats: map[string]*category{},
		heat: map[string][][24]int64{}, heatAll: make([][24]int64, in.Month.Days()), found: map[foundKey]*found{},
		peers: map[string]*tally{}, targets: map[targetKey]*tally{},
	}
	// What was once taken for a device and is a group's address is none.
	b.in.Devices = slices.DeleteFunc(slices.Clone(in.Devices), func(d Device) bool {
		return !d.Anonymous && d.Zone != guestZone && (d.MAC.Group() || d.IP.IsMulticast())
	})
	for i := range b.in.Devices {
		d := &b.in.Devices[i]
		d.Name, d.Hostname, d.Zone = label.Clean(d.Name, label.DeviceMax), label.Hostname(d.Hostname), label.Clean(d.Zone, label.DeviceMax)
		b.byMAC[d.MAC] = d
		// Of two devices that had the same address, the one seen last has it.
		if old := b.byIP[d.IP]; d.IP.IsValid() && (old == nil || old.Last.Before(d.Last)) {
			b.byIP[d.IP] = d
		}
	}
	for i := range b.in.Infected {
		b.suspect(&b.in.Infected[i])
	}
	return b, nil
}

func (b *Builder) suspect(r *Infected) {
	key := r.MAC
	id := b.identity(r.MAC, r.IP, r.Zone)
	if id.Key == guestKey {
		key = MAC{0xff} // all guests are one line; they are never told apart
	}
	s := b.suspects[key]
	if s == nil {
		s = &suspect{signals: map[string]bool{}, contacts: map[Contact]int64{}, first: r.T, last: r.T}
		b.suspects[key] = s
	}
	if !r.T.Before(s.last) || s.Key == "" {
		s.Identity = id // the newest address counts
	}
	s.certainty = max(s.certainty, r.Certainty)
	for _, x := range r.Signals {
		if len(s.signals) < 32 {
			s.signals[label.Clean(x, label.TextMax)] = true
		}
	}
	s.seen(r.T)
	s.statements.add(r.ID)
}

func (s *suspect) seen(t time.Time) {
	if t.Before(s.first) {
		s.first = t
	}
	if t.After(s.last) {
		s.last = t
	}
}

const guestKey, guestZone = "guest", "guest"

// identity is how the device is called: by its clinic's name, by its announced name, by its address; guests not at all.
func (b *Builder) identity(mac MAC, ip netip.Addr, zone string) Identity {
	zone = label.Clean(zone, label.DeviceMax)
	var d *Device
	if mac.Known() {
		d = b.byMAC[mac]
	}
	if zone == guestZone || d != nil && (d.Anonymous || d.Zone == guestZone) {
		return Identity{Key: guestKey, Zone: guestZone}
	}
	id := Identity{Zone: zone}
	if mac.Known() {
		id.Key = mac.String()
	}
	if ip.IsValid() {
		id.IP = ip.Unmap().String()
	}
	if d != nil {
		id.Name = cmp.Or(d.Name, d.Hostname)
		if id.IP == "" && d.IP.IsValid() {
			id.IP = d.IP.Unmap().String()
		}
		id.Zone = cmp.Or(id.Zone, d.Zone)
	}
	return id
}

// Finding takes one finding of the month; others are an error that Facts returns.
func (b *Builder) Finding(f *Finding) {
	if b.failed != nil {
		return
	}
	if !b.in.Month.Contains(f.T) {
		b.failed = fmt.Errorf("add finding %d/%x/%d: its time %s is not in %s", f.ID.Appliance, f.ID.Stream, f.ID.Seq, stamp(f.T), b.in.Month)
		return
	}
	n := max(f.Count, 1)
	blocked := f.Action == "blocked" || f.Action == "" && f.Kind == "block"
	cat := f.Category
	if !slices.Contains(Attacks, cat) && !slices.Contains(Others, cat) {
		cat = "other"
	}
	c := b.cats[cat]
	if c == nil {
		c = &category{}
		b.cats[cat] = c
	}
	serious := !blocked && f.Severity >= WarnSeverity
	c.add(f.ID, n, blocked, serious)
	b.findSuspect(f, n, blocked)
	if !slices.Contains(Attacks, cat) {
		return
	}
	at := f.T.In(JST)
	if b.heat[cat] == nil {
		b.heat[cat] = make([][24]int64, b.in.Month.Days())
	}
	b.heat[cat][at.Day()-1][at.Hour()] += n
	b.heatAll[at.Day()-1][at.Hour()] += n
	if cat == "bot" || cat == "malware" {
		b.foundOn(f, cat, n, blocked, serious)
	}
	if p := peer(f); p != "" {
		addTo(b.peers, p, f.ID, n)
	}
	if t := b.target(f); t != (targetKey{}) {
		addTo(b.targets, t, f.ID, n)
	}
}

func (c *category) add(id EventID, n int64, blocked, serious bool) {
	if blocked {
		c.blocked.add(id, n)
	} else {
		c.passed.add(id, n)
	}
	if serious {
		c.serious.add(id, n)
	}
}

func addTo[K comparable](m map[K]*tally, k K, id EventID, n int64) {
	t := m[k]
	if t == nil {
		if len(m) >= maxRanked {
			return
		}
		t = &tally{}
		m[k] = t
	}
	t.add(id, n)
}

// findSuspect adds the finding to the device under suspicion it belongs to: contact with a command server, or one of the
// signals the suspicion rests on.
func (b *Builder) findSuspect(f *Finding, n int64, blocked bool) {
	s := b.suspects[f.MAC]
	if s == nil && b.suspects[MAC{0xff}] != nil && b.identity(f.MAC, f.IP, f.Zone).Key == guestKey {
		s = b.suspects[MAC{0xff}]
	}
	if s == nil || !f.MAC.Known() {
		return
	}
	_, sid, _ := strings.Cut(f.Rule, ":")
	if f.Category != "bot" && !s.signals[f.Rule] && !s.signals["alert:"+sid] && !s.signals["alert:"+f.Rule] {
		return
	}
	if blocked {
		s.blocked.add(f.ID, n)
	} else {
		s.passed.add(f.ID, n)
	}
	s.seen(f.T)
	if p := peer(f); p != "" {
		c := Contact{Peer: p, Port: f.DstPort, Kind: "address"}
		if _, err := netip.ParseAddr(p); err != nil {
			c.Kind, c.Port = "name", 0
		}
		if _, ok := s.contacts[c]; ok || len(s.contacts) < maxContacts {
			s.contacts[c] += n
		}
	}
	if len(s.times) < maxContacts {
		s.times = append(s.times, f.T)
	}
}

func (b *Builder) foundOn(f *Finding, cat string, n int64, blocked, serious bool) {
	key := foundKey{mac: f.MAC, category: cat}
	switch id := b.identity(f.MAC, f.IP, f.Zone); {
	case id.Key == guestKey:
		key = foundKey{mac: MAC{0xff}, category: cat}
	case !f.MAC.Known():
		key.ip = f.IP
	}
	d := b.found[key]
	if d == nil {
		if len(b.found) >= maxRanked {
			return
		}
		d = &found{zone: f.Zone}
		b.found[key] = d
	}
	d.add(f.ID, n, blocked, serious)
	if f.T.After(d.last) {
		d.last = f.T
	}
	if key.mac.Known() && f.IP.IsValid() && key.mac != (MAC{0xff}) {
		if dev := b.byMAC[key.mac]; dev == nil {
			b.byMAC[key.mac] = &Device{MAC: key.mac, IP: f.IP, Zone: f.Zone}
		}
	}
}

// peer is whom outside the clinic a finding is about: an address, or the name that was asked for. "" between inside devices.
func peer(f *Finding) string {
	switch f.Direction {
	case Internal:
		return ""
	case Inbound:
		return address(f.Src)
	case Outbound:
		if _, err := netip.ParseAddr(f.Indicator); err == nil || strings.Contains(f.Indicator, ".") && strings.ContainsFunc(f.Indicator, letter) {
			return label.Clean(f.Indicator, label.TextMax)
		}
		return address(f.Dst)
	}
	if f.Src.IsValid() && !f.Src.IsPrivate() {
		return address(f.Src)
	}
	return address(f.Dst)
}

func letter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 0x7f }

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().String()
}

// target is the clinic's own device a finding is about.
func (b *Builder) target(f *Finding) targetKey {
	ip := f.IP
	if !ip.IsValid() && f.Direction == Outbound {
		ip = f.Src
	} else if !ip.IsValid() {
		ip = f.Dst
	}
	mac := f.MAC
	if !mac.Known() {
		if d := b.byIP[ip]; d != nil {
			mac = d.MAC
		}
	}
	switch {
	case b.identity(mac, ip, f.Zone).Key == guestKey:
		return targetKey{guest: true}
	case mac.Known():
		return targetKey{mac: mac}
	case ip.IsValid():
		return targetKey{label: address(ip)}
	}
	return targetKey{}
}
