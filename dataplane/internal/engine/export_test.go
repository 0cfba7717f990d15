package engine

import (
	"github.com/kadomori/kadomori/dataplane/internal/flow"
	pt "github.com/kadomori/kadomori/dataplane/internal/packet/packettest"
)

func keyOf(a, b pt.Host) *flow.Key {
	k, _ := flow.MakeKey(a.IP, b.IP, a.Port, b.Port, 6, 0, 0)
	return &k
}
