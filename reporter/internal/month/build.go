package month

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

var netipZero netip.Addr

const (
	// rankedLines is how long the rankings of page 3 are.
	rankedLines = 5
	// foundLines is how long the table by device on page 2 is.
	foundLines = 8
	// foundMax is how many lines the attached file has at most.
	foundMax = 500
)

// Facts ends the adding up. The same rows in any order give the same facts.
func (b *Builder) Facts() (*Facts, error) {
	if b.failed != nil {
		return nil, b.failed
	}
	in, m := &b.in, b.in.Month
	bk := &book{month: m}
	end := m.End()
	f := &Facts{
		Format: 1, Revision: in.Revision, Month: m.String(), Issued: stamp(in.Issued), Sender: in.Sender,
		DocumentNo: fmt.Sprintf("SR-%04d%02d-%04d", m.Year(), m.Number(), in.Clinic.ID),
		Running:    in.Now.Before(end), Through: stamp(minTime(in.Now, end)),
		Clinic: ClinicFacts{in.Clinic.ID, in.Clinic.Code, in.Clinic.Name, in.Clinic.Director, in.Clinic.Hours},
	}
	f.Coverage = b.coverage(bk)
	f.Infected = b.infected(bk)
	f.Attacks = b.attacks(bk, int(f.Infected.Count.N))
	f.Trend = b.trend(bk, f)
	f.Traffic = b.traffic(bk, &f.Coverage)
	f.Ledger = b.devicesLedger(bk, f)
	f.Outside = b.outside(bk, f)
	b.judge(f)
	f.Asks = b.asks(f)
	f.Evidence = bk.entries
	return f, nil
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (b *Builder) past(m Month) *PastMonth {
	for i := range b.in.Past {
		if b.in.Past[i].Month == m {
			return &b.in.Past[i]
		}
	}
	return nil
}

// was books the count of an earlier month, nil when nothing was observed in it.
func (b *Builder) was(bk *book, what string, categories ...string) *Num {
	prev := b.in.Month.Add(-1)
	if p := b.past(prev); p == nil || p.ReportedMS == 0 {
		return nil
	}
	n, rows := b.pastCount(prev, categories...)
	num := bk.rows(what, "count", "report_finding", n, rows, prev)
	return &num
}

func (b *Builder) pastCount(m Month, categories ...string) (n, rows int64) {
	for _, p := range b.in.PastFindings {
		if p.Month == m && slices.Contains(categories, p.Category) {
			n, rows = n+p.Count, rows+p.Rows
		}
	}
	return n, rows
}

func (b *Builder) infected(bk *book) InfectedFacts {
	var out InfectedFacts
	list := slices.Collect(maps.Values(b.suspects))
	slices.SortFunc(list, func(x, y *suspect) int {
		return cmp.Or(cmp.Compare(y.certainty, x.certainty), cmp.Compare(y.total(), x.total()), x.first.Compare(y.first), strings.Compare(x.Key, y.Key))
	})
	var all set
	for _, s := range list {
		merge(&all, &s.statements)
	}
	out.Count = bk.events("infected/devices", "devices", "report_infected", int64(len(list)), &all)
	if p := b.past(b.in.Month.Add(-1)); p != nil && p.ReportedMS > 0 {
		n := bk.rows("infected/was", "devices", "report_infected", p.Infected, p.Infected, b.in.Month.Add(-1))
		out.Was = &n
	}
	for _, s := range list {
		out.Devices = append(out.Devices, b.deviceFacts(bk, s))
	}
	var seen int64
	for i := range b.in.Devices {
		d := &b.in.Devices[i]
		if !d.Anonymous && d.Zone != guestZone && d.First.Before(b.in.Month.End()) && !d.Last.Before(b.in.Month.Start()) {
			seen++
		}
	}
	out.Observed = bk.rows("devices/observed", "devices", "report_device", seen, seen, b.in.Month)
	out.Rows = b.foundRows(bk)
	if n := len(out.Rows) - foundMax; n > 0 {
		out.Rows, out.MoreRows = out.Rows[:foundMax], n
	}
	return out
}

func (s *suspect) total() int64 { return s.blocked.n + s.passed.n }

func merge(dst, src *set) {
	for _, st := range src.streams {
		for _, r := range st.runs {
			for seq := r[0]; seq <= r[1]; seq++ {
				dst.add(EventID{st.appliance, st.stream, seq})
			}
		}
	}
}

func (b *Builder) deviceFacts(bk *book, s *suspect) DeviceFacts {
	what := "infected/" + s.Key
	d := DeviceFacts{
		Identity: s.Identity, Certainty: s.certainty, Signals: slices.Sorted(maps.Keys(s.signals)), First: stamp(s.first), Last: stamp(s.last),
		CareCritical: b.care(s.Identity), Every: every(s.times),
	}
	d.Ev = bk.events(what+"/statements", "count", "report_infected", s.statements.rows, &s.statements).Ev
	contacts := category{blocked: s.blocked, passed: s.passed}
	d.Detected, d.Blocked, d.Passed = contacts.book(bk, what)
	for c, n := range s.contacts {
		c.Count = n
		d.Contacts = append(d.Contacts, c)
	}
	slices.SortFunc(d.Contacts, func(x, y Contact) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), strings.Compare(x.Peer, y.Peer), cmp.Compare(x.Port, y.Port))
	})
	if n := len(d.Contacts) - 3; n > 0 {
		d.Contacts, d.MoreContacts = d.Contacts[:3], n
	}
	return d
}

// care tells whether a device must not be unplugged without a call: its name sounds like a thing care depends on, it stands in
// the zone of the eligibility check, or it has no name that would tell.
func (b *Builder) care(id Identity) bool {
	if id.Zone == "eligibility" || id.Name == "" && id.Key != guestKey {
		return true
	}
	name := strings.ToLower(id.Name)
	return slices.ContainsFunc(b.in.CareWords, func(w string) bool { return strings.Contains(name, w) })
}

func (b *Builder) foundRows(bk *book) []FoundDevice {
	var rows []FoundDevice
	keys := slices.Collect(maps.Keys(b.found))
	type line struct {
		key  foundKey
		id   Identity
		mark string
	}
	lines := make([]line, 0, len(keys))
	for _, k := range keys {
		f := b.found[k]
		id := Identity{Key: guestKey, Zone: guestZone}
		if k.mac != (MAC{0xff}) {
			id = b.identity(k.mac, k.ip, f.zone)
		}
		mark := "ok"
		if f.serious.n > 0 {
			mark = "warn"
		}
		if k.category == "bot" {
			if mark = "warn"; b.suspects[k.mac] != nil {
				mark = "act"
			}
		}
		lines = append(lines, line{k, id, mark})
	}
	rank := map[string]int{"act": 0, "warn": 1, "ok": 2}
	slices.SortFunc(lines, func(x, y line) int {
		fx, fy := b.found[x.key], b.found[y.key]
		return cmp.Or(
			cmp.Compare(rank[x.mark], rank[y.mark]), cmp.Compare(fy.blocked.n+fy.passed.n, fx.blocked.n+fx.passed.n),
			strings.Compare(x.id.Key, y.id.Key), strings.Compare(x.id.IP, y.id.IP), strings.Compare(x.key.category, y.key.category),
		)
	})
	for i, l := range lines {
		f := b.found[l.key]
		row := FoundDevice{Identity: l.id, Category: l.key.category, Last: stamp(f.last), Mark: l.mark}
		if i < foundMax {
			what := "found/" + cmp.Or(l.id.Key, l.id.IP, "unknown") + "/" + l.key.category
			at := len(bk.entries)
			row.Detected, row.Blocked, row.Passed = f.book(bk, what)
			for j := at; i >= foundLines && j < len(bk.entries); j++ {
				bk.entries[j].OnlyFile = true
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *category) book(bk *book, what string) (detected, blocked, passed Num) {
	if c.blocked.n+c.passed.n == 0 {
		none := bk.events(what+"/detected", "count", "report_finding", 0, nil)
		return none, none, none
	}
	// Where all were stopped, or none, detected and blocked (or passed) are the same rows: one entry says both.
	switch {
	case c.passed.n == 0:
		all := bk.events(what+"/all-blocked", "count", "report_finding", c.blocked.n, &c.blocked.ids)
		return all, all, bk.events(what+"/passed", "count", "report_finding", 0, nil)
	case c.blocked.n == 0:
		all := bk.events(what+"/all-passed", "count", "report_finding", c.passed.n, &c.passed.ids)
		return all, bk.events(what+"/blocked", "count", "report_finding", 0, nil), all
	}
	var both set
	merge(&both, &c.blocked.ids)
	merge(&both, &c.passed.ids)
	return bk.events(what+"/detected", "count", "report_finding", c.blocked.n+c.passed.n, &both),
		bk.events(what+"/blocked", "count", "report_finding", c.blocked.n, &c.blocked.ids),
		bk.events(what+"/passed", "count", "report_finding", c.passed.n, &c.passed.ids)
}

func (b *Builder) attacks(bk *book, infected int) AttackFacts {
	var a AttackFacts
	var total category
	line := func(cat string) CategoryFacts {
		c := b.cats[cat]
		if c == nil {
			c = &category{}
		}
		row := CategoryFacts{Category: cat}
		row.Detected, row.Blocked, row.Passed = c.book(bk, "finding/"+cat)
		row.Was = b.was(bk, "finding/"+cat+"/was", cat)
		switch {
		case cat == "bot" && c.blocked.n+c.passed.n > 0 && infected > 0:
			row.Mark = "act"
		case c.serious.n > 0, cat == "bot" && c.blocked.n+c.passed.n > 0:
			row.Mark = "warn"
		case c.blocked.n+c.passed.n == 0:
			row.Mark = "none"
		default:
			row.Mark = "ok"
		}
		return row
	}
	for _, cat := range Attacks {
		a.Rows = append(a.Rows, line(cat))
		if c := b.cats[cat]; c != nil {
			total.blocked.n += c.blocked.n
			total.passed.n += c.passed.n
			merge(&total.blocked.ids, &c.blocked.ids)
			merge(&total.passed.ids, &c.passed.ids)
		}
	}
	a.Detected, a.Blocked, a.Passed = total.book(bk, "finding/attacks")
	a.Was = b.was(bk, "finding/attacks/was", Attacks...)
	for _, cat := range Others {
		a.Others = append(a.Others, line(cat))
	}
	a.Heat = b.heatAll
	a.Peak = b.peak()
	a.Peers = ranking(bk, "peer/", b.peers, func(p string) (Identity, string) { return Identity{}, p })
	a.Targets = ranking(bk, "target/", b.targets, func(k targetKey) (Identity, string) {
		if k.guest {
			return Identity{Key: guestKey, Zone: guestZone}, ""
		}
		if k.mac.Known() {
			return b.identity(k.mac, netipZero, ""), ""
		}
		return Identity{}, k.label
	})
	return a
}

func ranking[K comparable](bk *book, what string, by map[K]*tally, name func(K) (Identity, string)) []Ranked {
	type line struct {
		id    Identity
		label string
		t     *tally
	}
	lines := make([]line, 0, len(by))
	for k, t := range by {
		id, text := name(k)
		lines = append(lines, line{id, text, t})
	}
	slices.SortFunc(lines, func(x, y line) int {
		return cmp.Or(cmp.Compare(y.t.n, x.t.n), strings.Compare(x.label, y.label), strings.Compare(x.id.Key, y.id.Key))
	})
	var out []Ranked
	for _, l := range lines[:min(len(lines), rankedLines)] {
		out = append(out, Ranked{l.id, l.label, bk.events(what+cmp.Or(l.label, l.id.Key), "count", "report_finding", l.t.n, &l.t.ids)})
	}
	return out
}

// peak finds a stretch of hours worth a remark: at least a fifth of the month and at least ten, around the densest hour.
func (b *Builder) peak() *PeakFacts {
	var best, total int64
	var day, hour int
	for d := range b.heatAll {
		for h, n := range b.heatAll[d] {
			total += n
			if n > best {
				best, day, hour = n, d, h
			}
		}
	}
	if best == 0 {
		return nil
	}
	from, to := hour, hour+1
	for from > 0 && b.heatAll[day][from-1]*2 >= best {
		from--
	}
	for to < 24 && b.heatAll[day][to]*2 >= best {
		to++
	}
	p := &PeakFacts{Day: day + 1, FromHour: from, ToHour: to}
	var top int64
	for _, cat := range Attacks {
		var n int64
		for h := from; h < to && b.heat[cat] != nil; h++ {
			n += b.heat[cat][day][h]
		}
		p.Count += n
		if n > top {
			top, p.Category = n, cat
		}
	}
	if p.Count < 10 || p.Count*5 < total {
		return nil
	}
	return p
}

func (b *Builder) trend(bk *book, f *Facts) []TrendFacts {
	var out []TrendFacts
	for i := -11; i < 0; i++ {
		m := b.in.Month.Add(i)
		t := TrendFacts{Month: m.String()}
		if p := b.past(m); p != nil && p.ReportedMS > 0 {
			// One entry a month: its rows are the month's findings, its three numbers are counts of them.
			n, rows := b.pastCount(m, Attacks...)
			t.Known, t.Attacks = true, bk.rows("trend/"+t.Month, "count", "report_finding", n, rows, m)
			t.Bot.N, _ = b.pastCount(m, "bot")
			t.Malware.N, _ = b.pastCount(m, "malware")
			t.Bot.Ev, t.Malware.Ev = t.Attacks.Ev, t.Attacks.Ev
			t.Infected = Num{p.Infected, t.Attacks.Ev}
		}
		out = append(out, t)
	}
	last := TrendFacts{Month: f.Month, Known: f.Coverage.Known, Infected: f.Infected.Count, Attacks: f.Attacks.Detected}
	for _, r := range f.Attacks.Rows {
		switch r.Category {
		case "bot":
			last.Bot = r.Detected
		case "malware":
			last.Malware = r.Detected
		}
	}
	return append(out, last)
}

// judge gives the verdict. A device under suspicion needs action however little was seen; otherwise, data that is not good
// enough gives no verdict; a clean month is only called so when it was watched.
func (b *Builder) judge(f *Facts) {
	c := &f.Coverage
	add := func(v Verdict, reason string) {
		if rank(v) < rank(f.Verdict) {
			f.Verdict = v
		}
		f.Reasons = append(f.Reasons, reason)
	}
	f.Verdict, f.Reasons = OK, []string{}
	if f.Infected.Count.N > 0 {
		add(Act, "infected")
	}
	switch {
	case !c.Known:
		add(Hold, "no-coverage")
	case c.Uptime.N < HoldBelow:
		add(Hold, "uptime")
	}
	if c.Known && (!c.LedgerKnown || c.LostDeclared.N+c.LostSilent.N > 0) {
		add(Hold, "lost")
	}
	if b.passedSerious() > 0 {
		add(Warn, "passed")
	}
	for _, r := range f.Attacks.Rows {
		if r.Category == "bot" && r.Mark == "warn" {
			add(Warn, "bot")
		}
	}
	if c.Known && c.Uptime.N >= HoldBelow && c.Uptime.N < WarnBelow {
		add(Warn, "uptime-low")
	}
}

func rank(v Verdict) int { return slices.Index([]Verdict{Act, Hold, Warn, OK}, v) }

func (b *Builder) passedSerious() (n int64) {
	for _, cat := range Attacks {
		if c := b.cats[cat]; c != nil && cat != "bot" {
			n += c.serious.n
		}
	}
	return n
}

// asks are at most three requests to the clinic, most urgent first.
func (b *Builder) asks(f *Facts) []Ask {
	asks := []Ask{}
	due := b.in.Issued.In(JST).AddDate(0, 0, 14).Format(time.DateOnly)
	if n := len(f.Infected.Devices); n > 2 {
		asks = append(asks, Ask{Kind: "infected-many", Mark: "act", Count: int64(n), Minutes: 5 * n, Ev: f.Infected.Count.Ev})
	} else {
		for _, d := range f.Infected.Devices {
			kind := "infected"
			switch {
			case d.Key == guestKey:
				kind = "infected-guest"
			case d.CareCritical:
				kind = "infected-care"
			}
			subject := cmp.Or(d.Name, d.IP)
			asks = append(asks, Ask{Kind: kind, Mark: "act", Subject: subject, Care: d.CareCritical, Count: d.Detected.N, Minutes: 5, Ev: d.Ev})
		}
	}
	for _, r := range f.Reasons {
		if len(asks) == 3 {
			break
		}
		switch r {
		case "no-coverage", "uptime", "uptime-low":
			asks = append(asks, Ask{Kind: "appliance", Mark: "warn", Due: due, Minutes: 5, Ev: f.Coverage.Uptime.Ev})
		case "passed":
			asks = append(asks, Ask{Kind: "passed", Mark: "warn", Count: b.passedSerious(), Due: due, Minutes: 10, Ev: f.Attacks.Passed.Ev})
		case "bot":
			asks = append(asks, Ask{Kind: "bot", Mark: "warn", Due: due, Minutes: 10, Ev: f.Attacks.Detected.Ev})
		}
	}
	return asks
}
