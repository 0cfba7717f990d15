package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/kadomori/kadomori/controlplane/internal/policy"
)

func parseProtected(s string) (netip.Prefix, error) { return policy.ParsePrefix(s) }

// publicAddress puts the bound port into an address whose port was 0, and a host that others can reach where all were listened on.
func publicAddress(public, bound string) string {
	if public != "" {
		return public
	}
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return bound
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = ownAddress()
	}
	return net.JoinHostPort(host, port)
}

// ownAddress is the first global address of this machine: a guess that serves a first trial. public.grpc says better.
func ownAddress() string {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
				return n.IP.String()
			}
		}
	}
	return "127.0.0.1"
}

// hostOf returns the host of host:port or scheme://host:port.
func hostOf(s string) string {
	if i := strings.Index(s, "://"); i >= 0 {
		s = s[i+3:]
	}
	host, _, err := net.SplitHostPort(s)
	if err != nil {
		return s
	}
	return host
}

// certificateNames returns the names a certificate needs, without those that mean "all addresses".
func certificateNames(hosts ...string) []string {
	var out []string
	for _, h := range hosts {
		if ip := net.ParseIP(h); h == "" || (ip != nil && ip.IsUnspecified()) {
			continue
		}
		if !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		out = []string{"localhost"}
	}
	return out
}

// protectedPrefixes returns the control plane's own addresses: those given, and those that its public names resolve to now.
func protectedPrefixes(ctx context.Context, given []string, hosts ...string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, g := range given {
		p, err := parseProtected(g)
		if err != nil {
			return nil, fmt.Errorf("never_block %q: %w", g, err)
		}
		out = append(out, p)
	}
	for _, h := range hosts {
		if h == "" {
			continue
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", h)
		if err != nil {
			return nil, fmt.Errorf("resolve own address %q (it must be in never_block): %w", h, err)
		}
		for _, ip := range ips {
			ip = ip.Unmap().WithZone("")
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out), nil
}
