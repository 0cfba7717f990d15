package enrol

import (
	"net/netip"
	"sync"
	"time"
)

// Wrong attempts a peer may make at once, and how fast the right to make more comes back. Right claims are not counted: many boxes
// may stand behind one address.
const (
	maxFailures = 20
	forgive     = 3 * time.Second
	maxPeers    = 50_000
)

// limiter counts wrong attempts by peer.
type limiter struct {
	mu    sync.Mutex
	peers map[string]failures
}

type failures struct {
	n  float64
	at time.Time
}

// network is what is counted together: an IPv4 address, a /64 of IPv6.
func network(peer string) string {
	a, err := netip.ParseAddrPort(peer)
	if err != nil {
		return peer
	}
	ip := a.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return p.String()
}

func (l *limiter) left(f failures, now time.Time) float64 {
	return max(0, f.n-float64(now.Sub(f.at))/float64(forgive))
}

// allow says whether the peer may try.
func (l *limiter) allow(peer string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left(l.peers[network(peer)], now) < maxFailures
}

// fail counts one wrong attempt.
func (l *limiter) fail(peer string, now time.Time) {
	key := network(peer)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.peers[key]; !ok && len(l.peers) >= maxPeers {
		for k, f := range l.peers {
			if l.left(f, now) == 0 {
				delete(l.peers, k)
			}
		}
		if len(l.peers) >= maxPeers {
			clear(l.peers) // an attack from everywhere: guessing 256 bits stays hopeless, memory must stay bounded
		}
	}
	l.peers[key] = failures{n: l.left(l.peers[key], now) + 1, at: now}
}
