package country

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// database writes one with networks of documentation and benchmark prefixes.
func database(t *testing.T, networks map[string]mmdbtype.Map) string {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for n, record := range networks {
		_, network, err := net.ParseCIDR(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(network, record); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "country.mmdb")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func in(field, iso string) mmdbtype.Map {
	return mmdbtype.Map{mmdbtype.String(field): mmdbtype.Map{"iso_code": mmdbtype.String(iso)}}
}

func testDatabase(t *testing.T) string {
	return database(t, map[string]mmdbtype.Map{
		"198.51.100.0/24":      in("country", "AA"),
		"203.0.113.0/25":       in("country", "BB"),
		"203.0.113.128/26":     in("registered_country", "AA"),
		"2001:db8:aa::/48":     in("country", "AA"),
		"2001:db8:bb:100::/56": in("country", "BB"),
		"192.0.2.0/24":         in("continent", "EU"),
	})
}

func TestSetsOfACountry(t *testing.T) {
	sets, err := Sets(t.Context(), testDatabase(t), []string{"BB", "AA"}, 500)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"203.0.113.0/25", "2001:db8:bb:100::/56"}, {"198.51.100.0/24", "203.0.113.128/26", "2001:db8:aa::/48"}}
	for i, s := range sets {
		var got []string
		for _, p := range s.Prefixes {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want[i]) {
			t.Errorf("%s: %v, want %v", s.Name, got, want[i])
		}
		if s.ID != 500+uint32(i) || s.Name != []string{"country:BB", "country:AA"}[i] {
			t.Errorf("set %d is %d %q", i, s.ID, s.Name)
		}
		if slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return !p.IsValid() || p != p.Masked() }) {
			t.Errorf("%s: not masked: %v", s.Name, s.Prefixes)
		}
	}
}

func TestSetsSayWhatIsWrong(t *testing.T) {
	good := testDatabase(t)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.mmdb")
	if err := os.WriteFile(broken, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		file  string
		codes []string
		want  string
	}{
		{good, []string{"aa"}, "two capital letters"},
		{good, []string{"AAA"}, "two capital letters"},
		{good, []string{"AA", "AA"}, "twice"},
		{good, []string{"AA", "CC"}, "CC: not in database"},
		{broken, []string{"AA"}, "database"},
		{"/nonexistent/country.mmdb", []string{"AA"}, "no such file"},
	} {
		if _, err := Sets(t.Context(), r.file, r.codes, 1); err == nil || !strings.Contains(err.Error(), r.want) {
			t.Errorf("%s %v: %v, want %q", filepath.Base(r.file), r.codes, err, r.want)
		}
	}
}

func FuzzSets(f *testing.F) {
	f.Add([]byte("\xab\xcd\xefMaxMind.com"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = Sets(t.Context(), path, []string{"AA"}, 1)
	})
}
