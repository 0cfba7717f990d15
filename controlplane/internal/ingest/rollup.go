package ingest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/event"
	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// rollup gathers what a batch adds to device, traffic_hourly and coverage_hourly. It is written in the batch's transaction, so that an
// event and what it adds to the sums become visible together and once.
type rollup struct {
	devices  map[deviceKey]*device
	traffic  map[trafficKey]*traffic
	coverage map[coverageKey]*coverage
	findings map[findingKey]*finding
}

type findingKey struct {
	clinic                      int32
	day                         string // Japan time, as PostgreSQL writes a date
	kind, rule, title, category string
	severity                    int16
	action                      string
}

type finding struct{ events, count int64 }

// japan has no summer time since 1951; the report's calendar is its.
var japan = time.FixedZone("JST", 9*60*60)

func dayOf(t time.Time) string { return t.In(japan).Format(time.DateOnly) }

type deviceKey struct {
	clinic int32
	mac    [6]byte
}

type device struct {
	ip                     netip.Addr
	zone, hostname, source string
	first, last            time.Time
}

type trafficKey struct {
	clinic          int32
	hour            time.Time
	app             string
	mac             [6]byte
	zone, visibilty string
}

type traffic struct{ in, out, packets, flows int64 }

type coverageKey struct {
	clinic, appliance int32
	hour              time.Time
}

type coverage struct{ reported, unprotected, seen, lost, clear, name, opaque int64 }

func newRollup() *rollup {
	return &rollup{
		devices: map[deviceKey]*device{}, traffic: map[trafficKey]*traffic{}, coverage: map[coverageKey]*coverage{},
		findings: map[findingKey]*finding{},
	}
}

// add takes one event that was accepted for the first time; event.New has found its intervals sane.
func (r *rollup) add(row *event.Row, e *eventv1.Event) {
	if row.MAC != nil {
		first, last, source := row.T, row.T, ""
		if d := e.GetDeviceSeen(); d != nil {
			source = event.Clean(d.GetSource(), 32)
			if f, l, err := event.Interval(d.GetFirst(), d.GetLast(), 400*24*time.Hour); err == nil {
				first, last = f, l
			}
		}
		r.device(row.Clinic, [6]byte(row.MAC), row.DeviceIP, row.Zone, row.Hostname, source, first, last)
	}
	switch row.Kind {
	case event.KindAlert, event.KindDetection, event.KindBlock:
		k := findingKey{row.Clinic, dayOf(row.T), row.Kind, row.Rule, row.Title, row.Category, row.Severity, row.Action}
		f := r.findings[k]
		if f == nil {
			f = &finding{}
			r.findings[k] = f
		}
		f.events++
		f.count += int64(row.Count)
	}
	switch b := e.GetBody().(type) {
	case *eventv1.Event_Traffic:
		r.addTraffic(row, b.Traffic)
	case *eventv1.Event_Health:
		r.addHealth(row, b.Health)
	case *eventv1.Event_Unprotected:
		if from, to, err := event.Interval(b.Unprotected.GetFrom(), b.Unprotected.GetTo(), event.MaxUnprotected); err == nil {
			r.split(row, from, to, func(c *coverage, part, _ time.Duration) { c.unprotected += part.Milliseconds() })
		}
	}
}

func (r *rollup) device(clinic int32, mac [6]byte, ip netip.Addr, zone, hostname, source string, first, last time.Time) {
	k := deviceKey{clinic, mac}
	d := r.devices[k]
	if d == nil {
		r.devices[k] = &device{ip: ip, zone: zone, hostname: hostname, source: source, first: first, last: last}
		return
	}
	if !last.Before(d.last) {
		d.last = last
		if ip.IsValid() {
			d.ip = ip
		}
		d.zone, d.hostname, d.source = cmp.Or(zone, d.zone), cmp.Or(hostname, d.hostname), cmp.Or(source, d.source)
	}
	if first.Before(d.first) {
		d.first = first
	}
}

func (r *rollup) addTraffic(row *event.Row, t *eventv1.Traffic) {
	from, to, err := event.Interval(t.GetFrom(), t.GetTo(), event.MaxInterval)
	if err != nil {
		from, to = row.T, row.T // a clock was set; the bytes flowed all the same
	}
	for _, x := range t.GetRows() {
		k := trafficKey{clinic: row.Clinic, hour: from.Truncate(time.Hour), app: cmp.Or(event.Clean(x.GetApp(), 64), "unknown")}
		k.zone = event.Clean(x.GetDevice().GetZone(), 64)
		if mac := x.GetDevice().GetMac(); len(mac) == 6 {
			k.mac = [6]byte(mac)
			if k.mac != ([6]byte{}) {
				ip, _ := netip.AddrFromSlice(x.GetDevice().GetIp())
				r.device(row.Clinic, k.mac, ip.Unmap(), k.zone, event.Clean(x.GetDevice().GetHostname(), 255), "", from, to)
			}
		}
		switch v := x.GetVisibility(); v {
		case "clear", "name":
			k.visibilty = v
		default:
			k.visibilty = "opaque" // what isn't said to be seen wasn't seen
		}
		s := r.traffic[k]
		if s == nil {
			s = &traffic{}
			r.traffic[k] = s
		}
		s.in += int64(x.GetBytesIn())
		s.out += int64(x.GetBytesOut())
		s.packets += int64(x.GetPackets())
		s.flows += int64(x.GetFlows())
	}
}

func (r *rollup) addHealth(row *event.Row, h *eventv1.Health) {
	from, to, err := event.Interval(h.GetFrom(), h.GetTo(), event.MaxInterval)
	if err != nil {
		from, to = row.T, row.T // a clock was set: no time can be counted, but what was seen was
	}
	r.split(row, from, to, func(c *coverage, part, _ time.Duration) { c.reported += part.Milliseconds() })
	// Counters can't be split honestly; they belong to the hour in which the interval began. Unprotected time is told by events of
	// its own, with exact ends; Health.unprotected_ms would count it again.
	c := r.hour(row, from)
	c.seen += int64(h.GetPacketsSeen())
	c.lost += int64(h.GetPacketsLost())
	c.clear += int64(h.GetBytesClear())
	c.name += int64(h.GetBytesName())
	c.opaque += int64(h.GetBytesOpaque())
}

func (r *rollup) hour(row *event.Row, t time.Time) *coverage {
	k := coverageKey{row.Clinic, row.Appliance, t.Truncate(time.Hour)}
	c := r.coverage[k]
	if c == nil {
		c = &coverage{}
		r.coverage[k] = c
	}
	return c
}

// split calls add for each hour that [from, to) touches, with the part inside it and the whole. Ends are rounded to milliseconds first, so
// that the parts add up to the whole.
func (r *rollup) split(row *event.Row, from, to time.Time, add func(c *coverage, part, whole time.Duration)) {
	from, to = from.Truncate(time.Millisecond), to.Truncate(time.Millisecond)
	whole := to.Sub(from)
	for from.Before(to) {
		end := from.Truncate(time.Hour).Add(time.Hour)
		if end.After(to) {
			end = to
		}
		add(r.hour(row, from), end.Sub(from), whole)
		from = end
	}
}

const (
	// deviceEvery is how old device.last_seen may be: every event of a device would write its row otherwise.
	deviceEvery = 5 * time.Minute
	// maxDevices that are remembered; then all are written once more.
	maxDevices = 1 << 17
)

// dropKnownDevices takes the devices out of r of which the table knows all and has seen within deviceEvery.
func (in *Ingest) dropKnownDevices(r *rollup) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for k, d := range r.devices {
		old, known := in.devices[k]
		if known && (d.ip == old.ip || !d.ip.IsValid()) && (d.zone == old.zone || d.zone == "") && (d.hostname == old.hostname || d.hostname == "") &&
			(d.source == "" || old.source != "") && !d.first.Before(old.first) && d.last.Before(old.last.Add(deviceEvery)) {
			delete(r.devices, k)
		}
	}
}

// rememberDevices is called after the commit that wrote them.
func (in *Ingest) rememberDevices(devices map[deviceKey]*device) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.devices)+len(devices) > maxDevices {
		clear(in.devices)
	}
	for k, d := range devices {
		old, known := in.devices[k]
		if known && d.last.Before(old.last) {
			continue // older news; what the table has is what was remembered
		}
		next := *d
		if known {
			next.zone, next.hostname, next.source = cmp.Or(d.zone, old.zone), cmp.Or(d.hostname, old.hostname), cmp.Or(old.source, d.source)
			if !d.ip.IsValid() {
				next.ip = old.ip
			}
			if old.first.Before(d.first) {
				next.first = old.first
			}
		}
		in.devices[k] = next
	}
}

// write adds everything, each table's rows in the order of their keys: two batches that meet wait, they don't lock each other out.
func (r *rollup) write(ctx context.Context, tx pgx.Tx) error {
	if err := r.writeDevices(ctx, tx); err != nil {
		return fmt.Errorf("write devices: %w", err)
	}
	if err := r.writeTraffic(ctx, tx); err != nil {
		return fmt.Errorf("write traffic: %w", err)
	}
	if err := r.writeCoverage(ctx, tx); err != nil {
		return fmt.Errorf("write coverage: %w", err)
	}
	if err := r.writeFindings(ctx, tx); err != nil {
		return fmt.Errorf("write findings: %w", err)
	}
	return nil
}

// sorted returns the keys of m in the order of compare.
func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

func (r *rollup) writeDevices(ctx context.Context, tx pgx.Tx) error {
	if len(r.devices) == 0 {
		return nil
	}
	keys := sorted(r.devices, func(a, b deviceKey) int {
		return cmp.Or(cmp.Compare(a.clinic, b.clinic), bytes.Compare(a.mac[:], b.mac[:]))
	})
	n := len(keys)
	clinics, macs, ips := make([]int32, n), make([]net.HardwareAddr, n), make([]*netip.Addr, n)
	zones, hosts, sources := make([]string, n), make([]string, n), make([]string, n)
	firsts, lasts := make([]time.Time, n), make([]time.Time, n)
	for i, k := range keys {
		d := r.devices[k]
		clinics[i], macs[i] = k.clinic, slices.Clone(k.mac[:])
		if d.ip.IsValid() {
			ips[i] = &d.ip
		}
		zones[i], hosts[i], sources[i], firsts[i], lasts[i] = d.zone, d.hostname, d.source, d.first, d.last
	}
	_, err := tx.Exec(ctx, `INSERT INTO device AS d (clinic_id, mac, ip, zone, hostname, source, anonymous, first_seen, last_seen)
		SELECT c, m, ip, z, h, s, z = 'guest', f, l
		FROM unnest($1::int4[], $2::macaddr[], $3::inet[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[])
		     AS n (c, m, ip, z, h, s, f, l) ORDER BY c, m
		ON CONFLICT (clinic_id, mac) DO UPDATE SET
		  ip         = CASE WHEN excluded.last_seen >= d.last_seen THEN coalesce(excluded.ip, d.ip) ELSE d.ip END,
		  zone       = CASE WHEN excluded.last_seen >= d.last_seen AND excluded.zone <> '' THEN excluded.zone ELSE d.zone END,
		  hostname   = CASE WHEN excluded.last_seen >= d.last_seen AND excluded.hostname <> '' THEN excluded.hostname ELSE d.hostname END,
		  source     = CASE WHEN d.source = '' THEN excluded.source ELSE d.source END,
		  anonymous  = d.anonymous OR excluded.anonymous,
		  first_seen = least(d.first_seen, excluded.first_seen),
		  last_seen  = greatest(d.last_seen, excluded.last_seen)`,
		clinics, macs, ips, zones, hosts, sources, firsts, lasts)
	return err
}

func (r *rollup) writeTraffic(ctx context.Context, tx pgx.Tx) error {
	if len(r.traffic) == 0 {
		return nil
	}
	keys := sorted(r.traffic, func(a, b trafficKey) int {
		return cmp.Or(cmp.Compare(a.clinic, b.clinic), a.hour.Compare(b.hour), cmp.Compare(a.app, b.app), bytes.Compare(a.mac[:], b.mac[:]),
			cmp.Compare(a.zone, b.zone), cmp.Compare(a.visibilty, b.visibilty))
	})
	n := len(keys)
	clinics, hours, macs := make([]int32, n), make([]time.Time, n), make([]net.HardwareAddr, n)
	apps, zones, visible := make([]string, n), make([]string, n), make([]string, n)
	in, out, packets, flows := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, k := range keys {
		t := r.traffic[k]
		clinics[i], hours[i], apps[i], macs[i], zones[i], visible[i] = k.clinic, k.hour, k.app, slices.Clone(k.mac[:]), k.zone, k.visibilty
		in[i], out[i], packets[i], flows[i] = t.in, t.out, t.packets, t.flows
	}
	_, err := tx.Exec(ctx, `INSERT INTO traffic_hourly AS t (clinic_id, hour, app, device_mac, zone, visibility, bytes_in, bytes_out, packets, flows)
		SELECT * FROM unnest($1::int4[], $2::timestamptz[], $3::text[], $4::macaddr[], $5::text[], $6::text[], $7::int8[], $8::int8[], $9::int8[], $10::int8[])
		ON CONFLICT (clinic_id, hour, app, device_mac, zone, visibility) DO UPDATE SET bytes_in = t.bytes_in + excluded.bytes_in,
		  bytes_out = t.bytes_out + excluded.bytes_out, packets = t.packets + excluded.packets, flows = t.flows + excluded.flows`,
		clinics, hours, apps, macs, zones, visible, in, out, packets, flows)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO traffic_daily AS t (clinic_id, day, app, device_mac, zone, visibility, bytes_in, bytes_out, packets, flows)
		SELECT c, (h AT TIME ZONE 'Asia/Tokyo')::date, a, m, z, v, sum(i), sum(o), sum(p), sum(f)
		FROM unnest($1::int4[], $2::timestamptz[], $3::text[], $4::macaddr[], $5::text[], $6::text[], $7::int8[], $8::int8[], $9::int8[], $10::int8[])
		     AS n (c, h, a, m, z, v, i, o, p, f) GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
		ON CONFLICT (clinic_id, day, app, device_mac, zone, visibility) DO UPDATE SET bytes_in = t.bytes_in + excluded.bytes_in,
		  bytes_out = t.bytes_out + excluded.bytes_out, packets = t.packets + excluded.packets, flows = t.flows + excluded.flows`,
		clinics, hours, apps, macs, zones, visible, in, out, packets, flows)
	return err
}

func (r *rollup) writeFindings(ctx context.Context, tx pgx.Tx) error {
	if len(r.findings) == 0 {
		return nil
	}
	keys := sorted(r.findings, func(a, b findingKey) int {
		return cmp.Or(cmp.Compare(a.clinic, b.clinic), cmp.Compare(a.day, b.day), cmp.Compare(a.kind, b.kind), cmp.Compare(a.rule, b.rule),
			cmp.Compare(a.title, b.title), cmp.Compare(a.category, b.category), cmp.Compare(a.severity, b.severity), cmp.Compare(a.action, b.action))
	})
	n := len(keys)
	clinics, days, kinds, rules, titles := make([]int32, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	categories, severities, actions, events, counts := make([]string, n), make([]int16, n), make([]string, n), make([]int64, n), make([]int64, n)
	for i, k := range keys {
		f := r.findings[k]
		clinics[i], days[i], kinds[i], rules[i], titles[i] = k.clinic, k.day, k.kind, k.rule, k.title
		categories[i], severities[i], actions[i], events[i], counts[i] = k.category, k.severity, k.action, f.events, f.count
	}
	_, err := tx.Exec(ctx, `INSERT INTO finding_daily AS f (clinic_id, day, kind, rule, title, category, severity, action, events, count)
		SELECT c, d::date, k, r, t, g, s, a, e, n
		FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int2[], $8::text[], $9::int8[], $10::int8[])
		     AS u (c, d, k, r, t, g, s, a, e, n)
		ON CONFLICT (clinic_id, day, kind, rule, title, category, severity, action) DO UPDATE SET events = f.events + excluded.events,
		  count = f.count + excluded.count`,
		clinics, days, kinds, rules, titles, categories, severities, actions, events, counts)
	return err
}

func (r *rollup) writeCoverage(ctx context.Context, tx pgx.Tx) error {
	if len(r.coverage) == 0 {
		return nil
	}
	keys := sorted(r.coverage, func(a, b coverageKey) int {
		return cmp.Or(cmp.Compare(a.clinic, b.clinic), cmp.Compare(a.appliance, b.appliance), a.hour.Compare(b.hour))
	})
	n := len(keys)
	clinics, appliances, hours := make([]int32, n), make([]int32, n), make([]time.Time, n)
	var sums [7][]int64
	for i := range sums {
		sums[i] = make([]int64, n)
	}
	for i, k := range keys {
		c := r.coverage[k]
		clinics[i], appliances[i], hours[i] = k.clinic, k.appliance, k.hour
		for j, v := range []int64{c.reported, c.unprotected, c.seen, c.lost, c.clear, c.name, c.opaque} {
			sums[j][i] = v
		}
	}
	_, err := tx.Exec(ctx, `INSERT INTO coverage_hourly AS c (clinic_id, appliance_id, hour, reported_ms, unprotected_ms, packets_seen, packets_lost,
		  bytes_clear, bytes_name, bytes_opaque)
		SELECT * FROM unnest($1::int4[], $2::int4[], $3::timestamptz[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[], $10::int8[])
		ON CONFLICT (clinic_id, appliance_id, hour) DO UPDATE SET reported_ms = c.reported_ms + excluded.reported_ms,
		  unprotected_ms = c.unprotected_ms + excluded.unprotected_ms, packets_seen = c.packets_seen + excluded.packets_seen,
		  packets_lost = c.packets_lost + excluded.packets_lost, bytes_clear = c.bytes_clear + excluded.bytes_clear,
		  bytes_name = c.bytes_name + excluded.bytes_name, bytes_opaque = c.bytes_opaque + excluded.bytes_opaque`,
		clinics, appliances, hours, sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6])
	return err
}
