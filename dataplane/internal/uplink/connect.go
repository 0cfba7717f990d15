package uplink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// connect returns a connection that keeps trying by itself. Error: the address or the TLS settings are impossible.
func (u *Uplink) connect(ctx context.Context) (*nats.Conn, error) {
	log := u.log
	opts := []nats.Option{
		nats.Name(fmt.Sprintf("kadomori-agent %d", u.cfg.ApplianceID)),
		// PubAcks come to an inbox; an appliance may read its own only.
		nats.CustomInboxPrefix(fmt.Sprintf("_INBOX.%d.%d", u.cfg.ClinicID, u.cfg.ApplianceID)),
		nats.ReconnectBufSize(-1), // the spool is the buffer
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.CustomReconnectDelay(u.reconnectDelay),
		// Shorter than the idle timers of address translators on clinic lines (2 min default is not).
		nats.PingInterval(30 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(10 * time.Second),
		nats.IgnoreAuthErrorAbort(), // a box that is approved again comes back without a restart
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			// A publish that permissions forbid is told here only; its acknowledgement just never comes.
			if errors.Is(err, nats.ErrPermissionViolation) || strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
				u.violations.Add(1)
				log.Error("hub refuses our subject", "subject", u.subject, "err", err)
			} else {
				log.Warn("hub connection", "err", err)
			}
			u.setError(err)
		}),
		nats.ConnectHandler(func(nc *nats.Conn) {
			log.Info("uplink connected", "server", nc.ConnectedUrlRedacted())
			u.up()
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("uplink connected again", "server", nc.ConnectedUrlRedacted())
			u.up()
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			u.setError(err)
			log.Debug("hub can't be reached", "err", err)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			u.connected.Store(false)
			if err != nil {
				u.setError(err)
			}
			if ctx.Err() == nil {
				log.Warn("uplink disconnected; events wait in the spool", "err", err)
			}
		}),
	}
	if u.cfg.TLS != nil {
		opts = append(opts, nats.Secure(u.cfg.TLS.Clone()))
	}
	nc, err := nats.Connect(u.cfg.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u.cfg.URL, err)
	}
	return nc, nil
}

func (u *Uplink) up() {
	u.connected.Store(true)
	u.mu.Lock()
	u.err = ""
	u.mu.Unlock()
	u.begin("connected")
}

func (u *Uplink) setError(err error) {
	u.mu.Lock()
	u.err = err.Error()
	u.mu.Unlock()
}

// reconnectDelay is full jitter over a bound that doubles from 1 s, so that a fleet does not come back at one moment.
func (u *Uplink) reconnectDelay(attempts int) time.Duration {
	bound := u.cfg.ReconnectMax
	if attempts < 6 {
		bound = min(bound, time.Second<<max(attempts, 0))
	}
	return max(rand.N(bound), 50*time.Millisecond) //nolint:gosec // spreads load, no secret
}

// waitConnected returns false when ctx ended first.
func (u *Uplink) waitConnected(ctx context.Context, nc *nats.Conn) bool {
	status := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(status)
	if nc.IsConnected() {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-status:
		return true
	case <-time.After(time.Second): // the listener may have been added just too late
		return true
	}
}
