package filter_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
)

// random makes a filter as Parse would: sorted lists, whole seconds.
func random(r *rand.Rand) filter.Filter {
	var f filter.Filter
	maybe := func() bool { return r.IntN(3) == 0 }
	if maybe() {
		f.Text = []string{"ssh", "受付", "203.0.113", "a b&c=d", "%_", "さくら"}[r.IntN(6)]
	}
	if maybe() {
		for i := int32(1); i < 9; i += 1 + r.Int32N(3) {
			f.Clinics = append(f.Clinics, i)
		}
	}
	if maybe() {
		for i := 1; i <= 5; i++ {
			if r.IntN(2) == 0 {
				f.Severities = append(f.Severities, i)
			}
		}
	}
	if maybe() {
		for _, c := range filter.Categories {
			if r.IntN(3) == 0 {
				f.Categories = append(f.Categories, c)
			}
		}
		slices.Sort(f.Categories)
	}
	if maybe() {
		f.Action = []string{"passed", "blocked"}[r.IntN(2)]
	}
	if maybe() {
		f.State = []string{"done", "all"}[r.IntN(2)]
	}
	if maybe() {
		f.Rule = []filter.Signature{{Kind: "alert", Rule: "1:2100058"}, {Kind: "detection", Rule: "D12-address"}}[r.IntN(2)]
	}
	if maybe() {
		f.Host = []netip.Addr{netip.MustParseAddr("192.168.10.20"), netip.MustParseAddr("2001:db8::5")}[r.IntN(2)]
	}
	switch r.IntN(6) {
	case 0:
		f.Period = 7 * 24 * time.Hour
	case 1:
		f.From = time.Date(2026, 11, 1+r.IntN(9), r.IntN(24), 0, 0, 0, time.UTC)
	case 2:
		f.To = time.Date(2026, 11, 20, r.IntN(24), 0, 0, 0, time.UTC)
	case 3:
		f.From = time.Date(2026, 11, 1+r.IntN(9), r.IntN(24), 0, 0, 0, time.UTC)
		f.To = f.From.Add(time.Duration(1+r.IntN(400)) * time.Hour)
	}
	return f
}

func TestParseReadsWhatValuesWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		f := random(r)
		got, err := filter.Parse(f.Values())
		if err != nil {
			t.Fatalf("%s: %v", f.Key(), err)
		}
		if !reflect.DeepEqual(got, f) {
			t.Fatalf("%s: got %+v, want %+v", f.Key(), got, f)
		}
		back, err := url.ParseQuery(f.Key())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := filter.Parse(back); err != nil || again.Key() != f.Key() {
			t.Fatalf("%s: key changed to %s (%v)", f.Key(), again.Key(), err)
		}
	}
}

func TestSQLNumbersItsArguments(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for range 1000 {
		f := random(r)
		where, args := f.SQL(now, []any{"first"})
		if args[0] != "first" || strings.Contains(where, "$1 ") || !strings.Contains(where, "$2") {
			t.Fatalf("%s: %s", f.Key(), where)
		}
		if f.Text != "" && strings.Contains(where, f.Text) {
			t.Fatalf("%s: the text is in the statement", f.Key())
		}
	}
}

func TestParseNamesWhatItCannotRead(t *testing.T) {
	for _, c := range []struct{ query, name string }{
		{"c=1,x", "c"},
		{"c=0", "c"},
		{"c=-4", "c"},
		{"c=99999999999", "c"},
		{"sev=5", "sev"},
		{"sev=a", "sev"},
		{"sev=", ""},
		{"cat=virus", "cat"},
		{"act=dropped", "act"},
		{"state=gone", "state"},
		{"sig=alert", "sig"},
		{"sig=block:x", "sig"},
		{"sig=alert:", "sig"},
		{"host=nas", "host"},
		{"host=fe80::1%25eth0", "host"},
		{"last=1y", "last"},
		{"from=yesterday", "from"},
		{"from=1970-01-01", "from"},
		{"from=2026-11-02&to=2026-11-01", "to"},
		{"from=2024-01-01&to=2026-01-01", "to"},
		{"q=" + strings.Repeat("x", 201), "q"},
		{"q=%00", "q"},
		{"q=%ff", "q"},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = filter.Parse(q)
		var fe *filter.Error
		switch {
		case c.name == "" && err != nil:
			t.Errorf("%s: %v", c.query, err)
		case c.name != "" && (!errors.As(err, &fe) || fe.Name != c.name || fe.Reason == ""):
			t.Errorf("%s: got %v, want an error about %s", c.query, err, c.name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"q=ssh&c=1,2&sev=0,1&cat=bot&act=passed&sig=alert:1:2&host=::1&last=7d", "from=2026-11-01&to=2026-11-02T10:00", "c=,&sev=,", "host=%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		x, err := filter.Parse(q)
		if err != nil {
			return
		}
		y, err := filter.Parse(x.Values())
		if err != nil || !reflect.DeepEqual(x, y) {
			t.Fatalf("%q: %+v became %+v (%v)", s, x, y, err)
		}
		x.SQL(time.Now(), nil)
	})
}
