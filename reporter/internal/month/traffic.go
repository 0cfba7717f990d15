package month

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kadomori/kadomori/reporter/internal/label"
)

// Lines of the rankings on page 4 and 5.
const (
	shareLines  = 10
	deviceLines = 10
)

func (b *Builder) traffic(bk *book, c *CoverageFacts) TrafficFacts {
	m := b.in.Month
	t := TrafficFacts{Days: make([]DayFacts, m.Days())}
	var in, out, rows, off, before int64
	earlier := map[string]int64{}
	for _, h := range b.in.Hours {
		switch {
		case m.Contains(h.Hour):
			at := h.Hour.In(JST)
			d := &t.Days[at.Day()-1]
			d.In, d.Out = d.In+h.In, d.Out+h.Out
			in, out, rows = in+h.In, out+h.Out, rows+h.Rows
			if len(c.Open) > 0 && c.Open[at.Day()-1][at.Hour()] != 'o' {
				off += h.In + h.Out
			}
			earlier[at.Format(time.DateOnly)] += h.In + h.Out
		case h.Hour.Before(m.Start()):
			earlier[h.Hour.In(JST).Format(time.DateOnly)] += h.In + h.Out
		}
	}
	for i := range t.Days {
		t.Days[i].Before = -1
		if v, ok := earlier[m.Start().AddDate(0, 0, i-28).Format(time.DateOnly)]; ok {
			t.Days[i].Before = v
		}
	}
	t.Total = bk.rows("traffic/total", "bytes", "report_traffic", in+out, rows, m)
	t.In = bk.rows("traffic/in", "bytes", "report_traffic", in, rows, m)
	t.Out = bk.rows("traffic/out", "bytes", "report_traffic", out, rows, m)
	var wasRows int64
	for _, a := range b.in.AppsWas {
		before, wasRows = before+a.In+a.Out, wasRows+a.Rows
	}
	if wasRows > 0 {
		n := bk.rows("traffic/was", "bytes", "report_traffic", before, wasRows, m.Add(-1))
		t.Was = &n
	}
	if len(c.Open) > 0 {
		n := bk.rows("traffic/off-hours", "bytes", "report_traffic", off, rows, m)
		t.OffHours = &n
	}
	t.Shares = b.shares(bk)
	b.topDevices(bk, &t)
	return t
}

type appKey struct {
	app   string
	guest bool
}

// shares ranks applications; the first ten have their line, the rest is one. Tenths add up to exactly 1000.
func (b *Builder) shares(bk *book) []ShareFacts {
	sum := func(apps []TrafficApp) (map[appKey]*TrafficApp, []appKey) {
		by := map[appKey]*TrafficApp{}
		var keys []appKey
		for _, a := range apps {
			k := appKey{label.Clean(a.App, label.DeviceMax), a.Guest}
			if k.app == "" {
				k.app = "unknown"
			}
			if by[k] == nil {
				by[k] = &TrafficApp{App: k.app, Guest: k.guest}
				keys = append(keys, k)
			}
			by[k].In, by[k].Out, by[k].Rows = by[k].In+a.In, by[k].Out+a.Out, by[k].Rows+a.Rows
		}
		slices.SortFunc(keys, func(x, y appKey) int {
			g := func(k appKey) int {
				if k.guest {
					return 1
				}
				return 0
			}
			return cmp.Or(cmp.Compare(by[y].In+by[y].Out, by[x].In+by[x].Out), strings.Compare(x.app, y.app), cmp.Compare(g(x), g(y)))
		})
		return by, keys
	}
	by, keys := sum(b.in.Apps)
	var lines []ShareFacts
	var sizes, rows []int64
	var rest TrafficApp
	for i, k := range keys {
		a := by[k]
		if a.In+a.Out == 0 {
			continue
		}
		if i < shareLines {
			lines = append(lines, ShareFacts{App: k.app, Guest: k.guest})
			sizes, rows = append(sizes, a.In+a.Out), append(rows, a.Rows)
			continue
		}
		rest.In, rest.Out, rest.Rows = rest.In+a.In, rest.Out+a.Out, rest.Rows+a.Rows
	}
	if rest.Rows > 0 {
		lines = append(lines, ShareFacts{})
		sizes, rows = append(sizes, rest.In+rest.Out), append(rows, rest.Rows)
	}
	was, wasKeys := sum(b.in.AppsWas)
	wasSizes := make([]int64, len(lines)+1)
	for _, k := range wasKeys {
		i := slices.IndexFunc(lines, func(l ShareFacts) bool { return l.App == k.app && l.Guest == k.guest })
		if i < 0 {
			i = len(lines)
			if rest.Rows > 0 {
				i--
			}
		}
		wasSizes[i] += was[k].In + was[k].Out
	}
	tenths, wasTenths := largestRemainder(sizes, 1000), largestRemainder(wasSizes, 1000)
	for i := range lines {
		what := "traffic/app/" + lines[i].App
		if lines[i].Guest {
			what += "/guest"
		}
		lines[i].Bytes = bk.rows(what, "bytes", "report_traffic", sizes[i], rows[i], b.in.Month)
		lines[i].Tenths = tenths[i]
		if len(wasKeys) > 0 {
			d := tenths[i] - wasTenths[i]
			lines[i].Change = &d
		}
	}
	return lines
}

// topDevices ranks devices; all guests are one line, and so is traffic of no known device.
func (b *Builder) topDevices(bk *book, t *TrafficFacts) {
	type agg struct {
		id            Identity
		in, out, rows int64
	}
	by := map[string]*agg{}
	for _, d := range b.in.TopDevices {
		// A guest's address is a hash: any bit may be set.
		if d.Zone != guestZone && d.MAC.Group() {
			d.MAC = MAC{}
		}
		id := b.identity(d.MAC, netipZero, d.Zone)
		if by[id.Key] == nil {
			by[id.Key] = &agg{id: id}
		}
		a := by[id.Key]
		a.in, a.out, a.rows = a.in+d.In, a.out+d.Out, a.rows+d.Rows
	}
	all := make([]*agg, 0, len(by))
	for _, a := range by {
		if a.in+a.out > 0 {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(x, y *agg) int {
		return cmp.Or(cmp.Compare(y.in+y.out, x.in+x.out), strings.Compare(x.id.Key, y.id.Key))
	})
	var rest, restRows int64
	for i, a := range all {
		if i < deviceLines {
			key := cmp.Or(a.id.Key, "unknown")
			t.Devices = append(t.Devices, TopDevice{a.id, bk.rows("traffic/device/"+key, "bytes", "report_traffic", a.in+a.out, a.rows, b.in.Month), a.in, a.out})
			continue
		}
		t.MoreCount++
		rest, restRows = rest+a.in+a.out, restRows+a.rows
	}
	t.More = bk.rows("traffic/device/rest", "bytes", "report_traffic", rest, restRows, b.in.Month)
}

// every is the median time between contacts in minutes when at least four fifths of the gaps lie within a fifth of it; else 0.
func every(times []time.Time) int64 {
	if len(times) < 3 {
		return 0
	}
	slices.SortFunc(times, time.Time.Compare)
	gaps := make([]time.Duration, 0, len(times)-1)
	for i := 1; i < len(times); i++ {
		gaps = append(gaps, times[i].Sub(times[i-1]))
	}
	sorted := slices.Sorted(slices.Values(gaps))
	median := sorted[len(sorted)/2]
	near := 0
	for _, g := range gaps {
		if g >= median*4/5 && g <= median*6/5 {
			near++
		}
	}
	if median < time.Minute || near*5 < len(gaps)*4 {
		return 0
	}
	return int64(math.Round(median.Minutes()))
}
