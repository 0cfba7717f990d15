package main

import (
	"bytes"
	"fmt"
	"html"
)

// bar is one line of the chart.
type bar struct{ name, label string }

// panel is a group of bars with one scale.
type panel struct {
	title, unit string
	bars        []bar
}

var panels = []panel{
	{"Cost of a packet in the program, random keys (above an empty program)", "ns", []bar{
		{"miss_1k_ns", "unlisted, 1 k prefixes"},
		{"miss_100k_ns", "unlisted, 100 k prefixes"},
		{"miss_1m_ns", "unlisted, 1 M prefixes"},
		{"hit_1k_ns", "listed, 1 k prefixes"},
		{"hit_100k_ns", "listed, 100 k prefixes"},
		{"hit_1m_ns", "listed, 1 M prefixes"},
		{"miss_1m_v6_ns", "unlisted, 1 M prefixes, IPv6"},
		{"hit_1m_v6_ns", "listed, 1 M prefixes, IPv6"},
		{"miss_1m_vlan_pppoe_ns", "unlisted, VLAN and PPPoE"},
		{"cut_100k_ns", "cut-through, 100 k flows"},
	}},
	{"Flood of listed sources over veth: CPU time a packet, sender included", "ns", []bar{
		{"flood_ours_10k_ns", "Kadomori, 10 k"},
		{"flood_xdpfilter_10k_ns", "xdp-filter, 10 k"},
		{"flood_ours_100k_ns", "Kadomori, 100 k"},
		{"flood_nft_100k_ns", "nftables, 100 k"},
		{"flood_ours_1m_ns", "Kadomori, 1 M"},
		{"flood_nft_1m_ns", "nftables, 1 M"},
	}},
	{"One TCP stream through the box", "Mbit/s", []bar{
		{"bridge_mbit", "Linux bridge"},
		{"cut_mbit", "cut-through"},
		{"inspected_mbit", "through the agent"},
	}},
	{"Longest gap in a 5 ms stream of datagrams, 1 GiB resident", "ms", []bar{
		{"gap_ms_sigkill", "killed"},
		{"gap_ms_sigsegv", "crashed"},
		{"gap_ms_sigstop", "stopped"},
		{"gap_ms_upgrade", "updated (none lost)"},
	}},
}

// chart draws what was measured as an SVG picture: bars with their numbers, one scale a panel.
func chart(figures map[string]float64) []byte {
	const width, left, line = 860, 250, 22
	var b bytes.Buffer
	y := 10
	for _, p := range panels {
		top := 0.0
		for _, x := range p.bars {
			top = max(top, figures[x.name])
		}
		if top == 0 {
			continue // this part was not measured
		}
		y += 26
		fmt.Fprintf(&b, `<text x="12" y="%d" class="t">%s, %s</text>`+"\n", y, html.EscapeString(p.title), p.unit)
		y += 8
		for _, x := range p.bars {
			v, ok := figures[x.name]
			if !ok {
				continue
			}
			long := int(v / top * (width - left - 90))
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+15, html.EscapeString(x.label))
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" rx="2"/>`+"\n", left, y+3, max(long, 1), line-6)
			fmt.Fprintf(&b, `<text x="%d" y="%d" class="n">%.4g</text>`+"\n", left+max(long, 1)+6, y+15, v)
			y += line
		}
	}
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Benchmark of the wire">
<style>text{font:12px sans-serif;fill:#24292f}.t{font-weight:bold;font-size:13px}.n{fill:#57606a}rect{fill:#2f6f8f}</style>
<rect width="100%%" height="100%%" style="fill:#fff"/>
%s</svg>
`, width, y+14, width, y+14, b.Bytes())
}
