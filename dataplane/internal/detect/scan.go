package detect

import (
	"cmp"
	"net/netip"
)

// ScanConfig sets detector D19 (domain page 3.6: 20 hosts or 30 ports in 60 s).
type ScanConfig struct {
	Enabled       bool
	Hosts         uint32 // distinct destination hosts of one source; 0: 20
	Ports         uint32 // distinct destination ports on one host; 0: 30
	WindowSeconds uint32 // 0: 60
}

func (c ScanConfig) withDefaults() ScanConfig {
	c.Hosts = cmp.Or(c.Hosts, 20)
	c.Ports = cmp.Or(c.Ports, 30)
	c.WindowSeconds = cmp.Or(c.WindowSeconds, 60)
	return c
}

var _ = netip.Addr{}
