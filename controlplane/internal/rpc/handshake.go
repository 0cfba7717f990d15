package rpc

import (
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// Handshakes at once, and how long one may wait for its turn. When a whole fleet comes back, thousands of handshakes that all run
// slowly would all time out and begin again; a few at a time finish. The client gives up after 20 s.
const (
	maxHandshakes = 32
	handshakeWait = 15 * time.Second
)

var errBusy = errors.New("too many handshakes at once")

// paced lets few handshakes run at once; the others wait and cost nothing.
type paced struct {
	credentials.TransportCredentials
	turn chan struct{}
}

func pace(c credentials.TransportCredentials) credentials.TransportCredentials {
	return paced{TransportCredentials: c, turn: make(chan struct{}, maxHandshakes)}
}

func (p paced) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	timer := time.NewTimer(handshakeWait)
	defer timer.Stop()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-timer.C:
		_ = conn.Close()
		return nil, nil, errBusy
	}
	return p.TransportCredentials.ServerHandshake(conn)
}

func (p paced) Clone() credentials.TransportCredentials {
	return paced{TransportCredentials: p.TransportCredentials.Clone(), turn: p.turn}
}
