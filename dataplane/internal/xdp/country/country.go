// Package country turns a MaxMind-format database of countries into sets of prefixes for the wire. The agent calls it when its
// policy names countries; the file is the operator's, and none comes with the product. The trap: a network that the database
// places nowhere is in no set.
package country

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

// record is what of a database's entry matters: where the network is, or else where it is registered
// (https://dev.maxmind.com/geoip/docs/databases/city-and-country).
type record struct {
	Country    place `maxminddb:"country"`
	Registered place `maxminddb:"registered_country"`
}

type place struct {
	ISO string `maxminddb:"iso_code"`
}

// Sets reads the prefixes of the countries (two letters, ISO 3166-1) out of the file. Each country becomes one set, in the
// order given, with ids from firstID on and the name "country:" and its code. A code that the database does not know is an
// error, as it is most often misspelt; so is one given twice.
func Sets(ctx context.Context, file string, codes []string, firstID uint32) ([]xdp.BlockSet, error) {
	at := make(map[string]int, len(codes))
	sets := make([]xdp.BlockSet, 0, len(codes))
	for i, c := range codes {
		if len(c) != 2 || strings.ToUpper(c) != c {
			return nil, fmt.Errorf("country %q: want two capital letters", c)
		}
		if _, ok := at[c]; ok {
			return nil, fmt.Errorf("country %s: given twice", c)
		}
		at[c] = i
		sets = append(sets, xdp.BlockSet{ID: firstID + uint32(i), Name: "country:" + c})
	}
	db, err := maxminddb.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open country database: %w", err)
	}
	defer db.Close() //nolint:errcheck // opened for reading
	n := 0
	for result := range db.Networks() {
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var r record
		if err := result.Decode(&r); err != nil {
			return nil, fmt.Errorf("read country database %s: %w", file, err)
		}
		iso := r.Country.ISO
		if iso == "" {
			iso = r.Registered.ISO
		}
		if i, ok := at[iso]; ok {
			sets[i].Prefixes = append(sets[i].Prefixes, plain(result.Prefix()))
		}
	}
	if i := slices.IndexFunc(sets, func(s xdp.BlockSet) bool { return len(s.Prefixes) == 0 }); i >= 0 {
		return nil, fmt.Errorf("country %s: not in database %s", codes[i], file)
	}
	return sets, nil
}

// plain takes an IPv4 network out of the IPv6 tree in which databases keep it.
func plain(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p
}
