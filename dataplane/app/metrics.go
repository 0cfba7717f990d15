package app

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics turns the agent's status into Prometheus metrics at each scrape, so that both always say the same.
type metrics struct{ a *agent }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("kadomori_"+name, help, labels, nil)
}

var (
	mInfo        = desc("agent_info", "The agent's version and mode; always 1.", "version", "wire_mode")
	mPortPackets = desc("port_packets_total", "Packets received by port, by what became of them.", "port", "outcome")
	mPortBytes   = desc("port_bytes_total", "Bytes received by port, by what became of them.", "port", "outcome")
	mPortLost    = desc("port_lost_total", "Packets lost by our sockets.", "port")
	mDrops       = desc("drops_total", "Packets stopped, by reason and list.", "reason", "list")
	mUnprotected = desc("unprotected_seconds_total", "Time in which traffic was forwarded without inspection.")
	mFlows       = desc("flows", "Flows in the table.")
	mPackets     = desc("engine_packets_total", "Packets judged by the engine, by outcome.", "outcome")
	mFindings    = desc("findings_total", "Findings of the engine.", "kind")
	mEvents      = desc("events_total", "Events stated, by kind.", "kind")
	mEventsLost  = desc("events_dropped_total", "Events that found no room in the queue; declared as gaps.")
	mEventsFold  = desc("events_folded_total", "Events counted into another one.")
	mSpoolDepth  = desc("spool_depth", "Events that the control plane does not have yet.")
	mSpoolBytes  = desc("spool_bytes", "Bytes of the spool on disk.")
	mSpoolLimit  = desc("spool_limit_bytes", "Size limit of the spool.")
	mSpoolLost   = desc("spool_lost_total", "Events dropped or damaged in the spool; declared as gaps.", "reason")
	mSpoolMemory = desc("spool_memory", "1 when the disk can't be written and events are in memory only.")
	mSeq         = desc("spool_seq", "Event numbers: last given, durable, committed.", "what")
	mUplink      = desc("uplink_connected", "1 when connected to the hub.")
	mUplinkSent  = desc("uplink_events_total", "Events sent, resent ones included.")
	mUplinkBytes = desc("uplink_bytes_total", "Bytes sent after compression.")
	mUplinkOdd   = desc("uplink_anomalies_total", "What should not happen on the uplink.", "kind")
	mFleet       = desc("control_plane_connected", "1 when the watch stream is up.")
	mOffset      = desc("clock_offset_seconds", "Box clock minus control plane clock.")
	mBundle      = desc("bundle_version", "Active bundle version, by kind.", "kind")
	mRefused     = desc("bundle_refused", "1 for a wanted bundle that this box does not take.", "kind")
	mRules       = desc("rules", "Rules by state.", "state")
	mSelfTest    = desc("self_test_passed", "1 when the last synthetic detection passed.")
	mSelfTestAt  = desc("self_test_timestamp_seconds", "When the last synthetic detection was.")
	mCert        = desc("certificate_not_after_seconds", "When the appliance's certificate ends.")
)

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.a.status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(mInfo, 1, s.Version, s.WireMode)
	for _, p := range s.Wire.Ports {
		for outcome, c := range map[string]struct{ packets, bytes uint64 }{
			"handler": {p.Handler.Packets, p.Handler.Bytes}, "cut": {p.Cut.Packets, p.Cut.Bytes}, "stale": {p.Stale.Packets, p.Stale.Bytes},
			"no_socket": {p.NoSocket.Packets, p.NoSocket.Bytes}, "bypass": {p.Bypass.Packets, p.Bypass.Bytes}, "dropped": {p.Dropped.Packets, p.Dropped.Bytes},
		} {
			counter(mPortPackets, c.packets, p.Name, outcome)
			counter(mPortBytes, c.bytes, p.Name, outcome)
		}
		counter(mPortLost, p.SocketLost, p.Name)
	}
	for _, d := range s.Drops {
		counter(mDrops, d.Packets, d.Reason, fmt.Sprintf("%d:%s", d.ListID, d.List))
	}
	ch <- prometheus.MustNewConstMetric(mUnprotected, prometheus.CounterValue, float64(s.UnprotectedMs)/1000)
	gauge(mFlows, float64(s.Engine.FlowsActive))
	counter(mPackets, s.Engine.Inspected, "inspected")
	counter(mPackets, s.Engine.Dropped, "dropped")
	counter(mPackets, s.Engine.DecodeErrors, "undecodable")
	counter(mFindings, s.Engine.Alerts, "alert")
	counter(mFindings, s.Engine.Detections, "detection")
	for kind, n := range s.Events.Stated {
		counter(mEvents, n, kind)
	}
	counter(mEventsLost, s.Events.Dropped)
	counter(mEventsFold, s.Events.Folded)
	gauge(mSpoolDepth, float64(s.Spool.Depth))
	gauge(mSpoolBytes, float64(s.Spool.Bytes))
	gauge(mSpoolLimit, float64(s.Spool.Limit))
	counter(mSpoolLost, s.Spool.Dropped, "full")
	counter(mSpoolLost, s.Spool.Corrupt, "corrupt")
	gauge(mSpoolMemory, truth(s.Spool.Memory))
	gauge(mSeq, float64(s.LastSeq), "last")
	gauge(mSeq, float64(s.Spool.Durable), "durable")
	gauge(mSeq, float64(s.Committed), "committed")
	if u := s.UplinkStats; u != nil {
		gauge(mUplink, truth(u.Connected))
		counter(mUplinkSent, u.SentEvents)
		counter(mUplinkBytes, u.SentBytes)
		counter(mUplinkOdd, u.Duplicates, "duplicate")
		counter(mUplinkOdd, u.Violations, "permission")
		counter(mUplinkOdd, u.Refused, "refused")
		counter(mUplinkOdd, u.Rewinds, "rewind")
	}
	if f := s.FleetStats; f != nil {
		gauge(mFleet, truth(f.Connected))
		if f.OffsetMs != nil {
			gauge(mOffset, float64(*f.OffsetMs)/1000)
		}
	}
	gauge(mBundle, float64(s.PolicyVersion), "policy")
	gauge(mBundle, float64(s.SigVersion), "signature")
	refused := map[string]bool{}
	for _, r := range s.Refused {
		refused[r.Kind] = true
	}
	for _, kind := range []string{"policy", "signature"} {
		gauge(mRefused, truth(refused[kind]), kind)
	}
	gauge(mRules, float64(s.RulesLoaded), "loaded")
	gauge(mRules, float64(s.RulesRefused), "refused")
	if t := s.SelfTest; t != nil {
		gauge(mSelfTest, truth(t.Passed))
		gauge(mSelfTestAt, float64(t.Time.Unix()))
	}
	if !s.NotAfter.IsZero() {
		gauge(mCert, float64(s.NotAfter.Unix()))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// serveMetrics serves /metrics when an address is configured.
func (a *agent) serveMetrics(ctx context.Context) error {
	if a.cfg.MetricsListen == "" {
		<-ctx.Done()
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.MetricsListen)
	if err != nil {
		// Being measured is worth less than protecting.
		a.log.Error("metrics are not served", "address", a.cfg.MetricsListen, "err", err)
		<-ctx.Done()
		return nil
	}
	a.log.Info("metrics served", "address", l.Addr().String())
	reg := prometheus.NewRegistry()
	reg.MustRegister(metrics{a}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	return serve(ctx, l, mux)
}
