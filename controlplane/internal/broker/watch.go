package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// canaryMisses is after how many failed test messages in a row the server restarts.
const canaryMisses = 3

// watch sends test messages: after a full disk the server swallows publishes silently until it is restarted, also when there is space again.
func (b *Broker) watch(ctx context.Context) {
	tick := time.NewTicker(b.cfg.CanaryInterval)
	defer tick.Stop()
	misses := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := b.canary(ctx)
		switch {
		case err == nil:
			misses = 0
			b.metrics.canary.Set(1)
			continue
		case ctx.Err() != nil:
			return
		}
		misses++
		b.metrics.canary.Set(0)
		b.log.Warn("canary message was not stored", "misses", misses, "err", err)
		if misses < canaryMisses {
			continue
		}
		misses = 0
		if err := b.restart(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("restart of the server failed; trying again at the next canary", "err", err)
			misses = canaryMisses - 1
		}
	}
}

// canary stores one message in the stream itself, not in one beside it: the fault is of a stream. A stream that is full answers, so it lives.
func (b *Broker) canary(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(5*time.Second, max(time.Second, b.cfg.CanaryInterval)))
	defer cancel()
	nc, err := b.Conn()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.PublishMsg(ctx, &nats.Msg{Subject: CanarySubject, Data: []byte("canary")}, jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == 10077 { // maximum messages or bytes exceeded
		b.metrics.full.Inc()
		b.log.Warn("stream takes no more", "err", err)
		return nil
	}
	return err
}

func (b *Broker) restart(ctx context.Context) error {
	b.metrics.restarts.Inc()
	b.log.Error("restarting the embedded server: it stores nothing any more")
	b.mu.Lock()
	old := b.srv
	b.mu.Unlock()
	old.Shutdown()
	old.WaitForShutdown()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := b.startServer(ctx); err != nil {
		return fmt.Errorf("restart server: %w", err)
	}
	b.log.Info("server restarted", "address", b.Addr())
	return nil
}

// sweep cuts connections that should no longer be: too many of one appliance, certificate run out, no longer authorised.
func (b *Broker) sweep(ctx context.Context) {
	tick := time.NewTicker(min(30*time.Second, b.cfg.RecheckInterval))
	defer tick.Stop()
	asked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.gate.wake:
			b.cut(b.gate.takeSurplus(), "appliance connected again")
			continue
		case <-tick.C:
		}
		b.gate.keep(b.open())
		ask := time.Since(asked) >= b.cfg.RecheckInterval
		if ask {
			asked = time.Now()
		}
		b.cut(b.gate.stale(ask), "certificate ran out or was revoked")
	}
}

func (b *Broker) cut(cids []uint64, why string) {
	b.mu.Lock()
	srv := b.srv
	b.mu.Unlock()
	for _, cid := range cids {
		if err := srv.DisconnectClientByID(cid); err == nil {
			b.log.Info("disconnected", "connection", cid, "why", why)
		}
		b.gate.forget(cid)
	}
}

// open lists the connections that the server has.
func (b *Broker) open() map[uint64]bool {
	b.mu.Lock()
	srv := b.srv
	b.mu.Unlock()
	open := map[uint64]bool{}
	const page = 1024
	for offset := 0; ; offset += page {
		z, err := srv.Connz(&server.ConnzOptions{Offset: offset, Limit: page})
		if err != nil {
			b.log.Warn("list connections", "err", err)
			return open
		}
		for _, c := range z.Conns {
			open[c.Cid] = true
		}
		if len(z.Conns) < page {
			b.metrics.open.Set(float64(len(open)))
			return open
		}
	}
}

type metrics struct {
	connected, refused, violations, restarts, full prometheus.Counter
	canary, open                                   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kadomori", Subsystem: "broker", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kadomori", Subsystem: "broker", Name: name, Help: help})
	}
	m := &metrics{
		connected:  counter("connections_total", "Connections of appliances that were let in."),
		refused:    counter("refused_total", "Connections that were refused."),
		violations: counter("violations_total", "Publishes and subscriptions outside of an appliance's own subjects."),
		restarts:   counter("restarts_total", "Restarts of the embedded server because it stored nothing any more."),
		full:       counter("full_total", "Canary messages that found the stream full."),
		canary:     gauge("canary_ok", "1 when the last canary message was stored."),
		open:       gauge("connections", "Connections that are open now."),
	}
	m.canary.Set(1)
	if r != nil {
		r.MustRegister(m.connected, m.refused, m.violations, m.restarts, m.full, m.canary, m.open)
	}
	return m
}

// serverLog brings the server's log into ours and counts what appliances tried that they may not.
type serverLog struct {
	log     hclog.Logger
	metrics *metrics
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

func (l *serverLog) Warnf(format string, v ...any) { l.log.Warn(fmt.Sprintf(format, v...)) }

func (l *serverLog) Fatalf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }

func (l *serverLog) Errorf(format string, v ...any) {
	s := fmt.Sprintf(format, v...)
	if strings.Contains(s, "Publish Violation") || strings.Contains(s, "Subscription Violation") {
		l.metrics.violations.Inc()
	}
	l.log.Warn(s)
}

func (l *serverLog) Debugf(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

func (l *serverLog) Tracef(format string, v ...any) { l.log.Trace(fmt.Sprintf(format, v...)) }
