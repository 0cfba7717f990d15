package month

import (
	"cmp"
	"slices"
	"time"
)

const hourMS = int64(time.Hour / time.Millisecond)

// coverage adds up what the appliances say they saw. An appliance counts from the moment it first reported: time before its
// installation is not an outage. In a month that is running, it counts up to now.
func (b *Builder) coverage(bk *book) CoverageFacts {
	in, m := &b.in, b.in.Month
	hours := m.Days() * 24
	expected := make([]int64, hours) // of all appliances
	reported := make([]int64, hours)
	inspected := make([]int64, hours)
	end := m.End()
	if in.Now.Before(end) {
		end = in.Now
	}
	var c CoverageFacts
	var since time.Time
	for _, a := range in.Appliances {
		c.Appliances = append(c.Appliances, ApplianceFacts{
			ID: a.ID, Name: a.Name, Version: a.Version, PolicyVersion: a.PolicyVersion, SignatureVersion: a.SignatureVersion,
			Installed: !a.FirstHour.IsZero() && a.FirstHour.Before(end),
		})
		if a.FirstHour.IsZero() || !a.FirstHour.Before(end) {
			continue
		}
		begin := b.installed(a)
		if since.IsZero() || begin.Before(since) {
			since = begin
		}
		rows, last := b.rowsOf(a.ID)
		to := end
		if a.State != "approved" {
			to = last
		}
		b.addHours(max(begin.UnixMilli(), m.Start().UnixMilli()), to.UnixMilli(), rows, expected, reported, inspected)
	}
	var exp, ins, rep, lost, clear, name, opaque, unprotected int64
	for i := range in.Coverage {
		r := &in.Coverage[i]
		lost += r.PacketsLost
		clear, name, opaque = clear+r.BytesClear, name+r.BytesName, opaque+r.BytesOpaque
		unprotected += r.UnprotectedMS
	}
	for h := range hours {
		exp, ins, rep = exp+expected[h], ins+inspected[h], rep+reported[h]
	}
	// The newest reports may still be on their way.
	if end.Before(m.End()) {
		missing := int64(0)
		for h := range hours {
			if at := m.Start().Add(time.Duration(h) * time.Hour); at.After(end.Add(-2 * time.Hour)) {
				missing += expected[h] - reported[h]
			}
		}
		exp -= min(max(missing, 0), Grace.Milliseconds())
	}
	c.Known = rep > 0
	n := int64(len(in.Coverage))
	uptime := int64(0)
	if exp > 0 {
		uptime = min(ins*1000/exp, 1000)
	}
	c.Uptime = bk.rows("coverage/uptime", "tenths-of-percent", "report_coverage", uptime, n, m)
	c.DownMS = bk.rows("coverage/down", "ms", "report_coverage", max(exp-ins, 0), n, m)
	if since.After(m.Start()) {
		c.Since = stamp(since)
	}
	b.unprotected(bk, &c, unprotected)
	b.ledger(bk, &c)
	shares := largestRemainder([]int64{clear, name, opaque}, 1000)
	c.Clear = bk.rows("coverage/clear", "tenths-of-percent", "report_coverage", shares[0], n, m)
	c.Name = bk.rows("coverage/name", "tenths-of-percent", "report_coverage", shares[1], n, m)
	c.Opaque = bk.rows("coverage/opaque", "tenths-of-percent", "report_coverage", shares[2], n, m)
	c.PacketsLost = bk.rows("coverage/packets-lost", "count", "report_coverage", lost, n, m)
	c.Zones = b.zones()
	b.hourLetters(&c, end, expected, reported)
	return c
}

// installed is when observation by this appliance began: in the hour of its first report, not before it was made known nor
// before its first event arrived.
func (b *Builder) installed(a Appliance) time.Time {
	at := a.FirstHour
	next := at.Add(time.Hour)
	if a.Created.After(at) && a.Created.Before(next) {
		at = a.Created
	}
	var first time.Time
	for _, l := range b.in.Ledger {
		if l.Appliance == a.ID && (first.IsZero() || l.First.Before(first)) {
			first = l.First
		}
	}
	if first.After(at) && first.Before(next) {
		at = first
	}
	return at
}

func (b *Builder) rowsOf(appliance int32) (map[int64]*Coverage, time.Time) {
	rows := map[int64]*Coverage{}
	last := b.in.Month.Start()
	for i := range b.in.Coverage {
		r := &b.in.Coverage[i]
		if r.Appliance != appliance {
			continue
		}
		rows[r.Hour.UnixMilli()] = r
		if end := r.Hour.Add(time.Hour); end.After(last) && r.ReportedMS > 0 {
			last = end
		}
	}
	return rows, last
}

func (b *Builder) addHours(from, to int64, rows map[int64]*Coverage, expected, reported, inspected []int64) {
	start := b.in.Month.Start().UnixMilli()
	for h := range expected {
		at := start + int64(h)*hourMS
		span := min(to, at+hourMS) - max(from, at)
		if span <= 0 {
			continue
		}
		expected[h] += span
		if r := rows[at]; r != nil {
			rep := min(r.ReportedMS, span)
			reported[h] += rep
			// Unprotected time may lie inside the reported time (bypass) or outside of it (agent down): it is taken off once.
			inspected[h] += max(min(rep, span-min(r.UnprotectedMS, span)), 0)
		}
	}
}

func (b *Builder) hourLetters(c *CoverageFacts, end time.Time, expected, reported []int64) {
	m := b.in.Month
	open, openKnown := parseHours(b.in.Clinic.Hours)
	for d := range m.Days() {
		var letters, opens [24]byte
		for h := range 24 {
			at := m.Start().Add(time.Duration(d*24+h) * time.Hour)
			i := d*24 + h
			switch {
			case reported[i] > 0:
				letters[h] = 'o'
			case expected[i] == 0, at.Add(time.Hour).After(end) && expected[i] <= Grace.Milliseconds():
				letters[h] = '-'
			default:
				letters[h] = 'x'
			}
			opens[h] = '-'
			if openKnown && open.at(at, b.in.Holidays) {
				opens[h] = 'o'
			}
		}
		c.Hours = append(c.Hours, string(letters[:]))
		if openKnown {
			c.Open = append(c.Open, string(opens[:]))
		}
		if slices.Contains(b.in.Holidays, m.Start().AddDate(0, 0, d).Format(time.DateOnly)) {
			c.Holidays = append(c.Holidays, d+1)
		}
	}
}

// unprotected joins the stated intervals, so that two boxes or two statements about the same minute count once; if the hourly
// sums say more, they count.
func (b *Builder) unprotected(bk *book, c *CoverageFacts, hourly int64) {
	m := b.in.Month
	type span struct{ from, to int64 }
	var spans []span
	var ids set
	for i := range b.in.Unprotected {
		u := &b.in.Unprotected[i]
		s := span{max(u.From.UnixMilli(), m.Start().UnixMilli()), min(u.To.UnixMilli(), m.End().UnixMilli())}
		if s.to <= s.from {
			continue
		}
		ids.add(u.ID)
		spans = append(spans, s)
		c.Unprotected = append(c.Unprotected, GapFacts{From: stamp(time.UnixMilli(s.from)), To: stamp(time.UnixMilli(s.to)), MS: s.to - s.from, Cause: u.Cause})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	var sum, until int64
	for _, s := range spans {
		s.from = max(s.from, until)
		if s.to > s.from {
			sum += s.to - s.from
		}
		until = max(until, s.to)
	}
	c.UnprotectedN = len(spans)
	slices.SortStableFunc(c.Unprotected, func(a, b GapFacts) int {
		return cmp.Or(cmp.Compare(b.MS, a.MS), cmp.Compare(a.From, b.From), cmp.Compare(a.Cause, b.Cause))
	})
	c.Unprotected = c.Unprotected[:min(len(c.Unprotected), 10)]
	if hourly > sum {
		c.UnprotectedMS = bk.rows("coverage/unprotected", "ms", "report_coverage", hourly, int64(len(b.in.Coverage)), m)
		return
	}
	c.UnprotectedMS = bk.events("coverage/unprotected", "ms", "report_unprotected", sum, &ids)
}

// ledger sums the streams that touch the month. A stream's holes can't be dated, so a stream counts with all of its holes.
func (b *Builder) ledger(bk *book, c *CoverageFacts) {
	m := b.in.Month
	var received, declared, silent, rows int64
	for _, l := range b.in.Ledger {
		if l.Last.Before(m.Start()) || !l.First.Before(m.End()) {
			continue
		}
		rows++
		received, declared, silent = received+l.Received, declared+l.LostDeclared, silent+l.LostUndeclared
	}
	c.LedgerKnown = rows > 0
	c.Received = bk.rows("ledger/received", "count", "report_ledger", received, rows, m)
	c.LostDeclared = bk.rows("ledger/lost-declared", "count", "report_ledger", declared, rows, m)
	c.LostSilent = bk.rows("ledger/lost-silent", "count", "report_ledger", silent, rows, m)
}

// zones lists the parts of the network in which something was seen, the clinic's own first.
func (b *Builder) zones() []string {
	seen := map[string]bool{}
	for _, z := range b.in.Zones {
		seen[z.Zone] = true
	}
	for i := range b.in.Devices {
		if d := &b.in.Devices[i]; d.First.Before(b.in.Month.End()) && !d.Last.Before(b.in.Month.Start()) {
			seen[d.Zone] = true
		}
	}
	delete(seen, "")
	delete(seen, "wan")
	out := make([]string, 0, len(seen))
	for z := range seen {
		out = append(out, z)
	}
	order := []string{"clinical", "eligibility", "iot", "vendor", guestZone}
	rank := func(z string) int {
		if i := slices.Index(order, z); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	return out
}

// largestRemainder shares whole units among the parts so that they add up to exactly units; all zero when the parts are.
func largestRemainder(parts []int64, units int64) []int64 {
	out := make([]int64, len(parts))
	var sum float64
	for _, p := range parts {
		sum += float64(p)
	}
	if sum <= 0 {
		return out
	}
	type rest struct {
		i    int
		frac float64
	}
	rests := make([]rest, len(parts))
	left := units
	for i, p := range parts {
		exact := float64(p) / sum * float64(units)
		out[i] = int64(exact)
		left -= out[i]
		rests[i] = rest{i, exact - float64(out[i])}
	}
	slices.SortStableFunc(rests, func(a, b rest) int { return cmp.Compare(b.frac, a.frac) })
	for i := 0; left > 0; i = (i + 1) % len(rests) {
		out[rests[i].i]++
		left--
	}
	return out
}
