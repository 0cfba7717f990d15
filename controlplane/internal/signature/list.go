package signature

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"
)

// addresses reads one address or prefix a line.
func (b *builder) addresses(f File, name string, kind signaturev1.ListKind) {
	var list []netip.Prefix
	b.lines(f, func(n int, s string) {
		p, why := prefix(s)
		if why != "" {
			b.problems.add(f.Name, n, "%q: %s", clip(s), why)
			return
		}
		for _, q := range b.never {
			if p.Overlaps(q) {
				b.problems.add(f.Name, n, "%s would block %s, which never_block protects", p, q)
				return
			}
		}
		list = append(list, p)
	})
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	list = slices.Compact(list)
	b.count.Addresses += uint64(len(list))
	b.out.Addresses = append(b.out.Addresses, &signaturev1.AddressList{Name: name, Kind: kind, Prefixes: Pack(list)})
}

func prefix(s string) (netip.Prefix, string) {
	var p netip.Prefix
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return p, "an address with an interface name"
		}
		a = a.Unmap()
		p = netip.PrefixFrom(a, a.BitLen())
	} else if p, err = netip.ParsePrefix(s); err != nil {
		return p, "is neither an address nor a prefix"
	}
	bits := minBits6
	if p.Addr().Is4() {
		bits = minBits4
	}
	switch {
	case p.Addr().Is4In6():
		return p, "write IPv4 prefixes as IPv4"
	case p != p.Masked():
		return p, "has bits beyond its length; did you mean " + p.Masked().String() + "?"
	case p.Bits() < bits:
		return p, "is so wide that it must be a mistake"
	case p.Addr().IsLoopback() || p.Addr().IsUnspecified() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast():
		return p, "is no host on the Internet"
	}
	return p, ""
}

// Pack writes prefixes as AddressList.prefixes holds them.
func Pack(list []netip.Prefix) []byte {
	out := make([]byte, 0, 6*len(list))
	for _, p := range list {
		a := p.Addr().AsSlice()
		out = append(out, byte(len(a)), byte(p.Bits()))
		out = append(out, a...)
	}
	return out
}

// domains reads one name a line; "*.name" and ".name" mean the same as "name": itself and all beneath it.
func (b *builder) domains(f File, name string, kind signaturev1.ListKind) {
	var list []string
	b.lines(f, func(n int, s string) {
		s = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(s, "*"), "."), ".")
		if _, err := netip.ParseAddr(s); err == nil {
			b.problems.add(f.Name, n, "%q is an address; it belongs into a file .addresses", clip(s))
			return
		}
		d, err := idna.Lookup.ToASCII(strings.ToLower(s))
		if err != nil || !domainForm(d) {
			b.problems.add(f.Name, n, "%q is no domain name", clip(s))
			return
		}
		if !strings.Contains(d, ".") {
			b.problems.add(f.Name, n, "%q is a whole top-level domain", d)
			return
		}
		list = append(list, d)
	})
	slices.Sort(list)
	list = slices.Compact(list)
	b.count.Domains += uint64(len(list))
	b.out.Domains = append(b.out.Domains, &signaturev1.DomainList{Name: name, Kind: kind, Domains: list})
}

// domainForm takes letters, digits, dash and underscore in labels of 1 to 63, 253 in all (RFC 1035 2.3.4; underscore as in RFC 8552).
func domainForm(d string) bool {
	if len(d) > 253 {
		return false
	}
	for label := range strings.SplitSeq(d, ".") {
		if len(label) < 1 || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
