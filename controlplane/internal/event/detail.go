package event

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

const (
	// MaxInterval of traffic and health: boxes state them every minute or so; a day leaves room for a clock that was set.
	MaxInterval = 24 * time.Hour
	// maxUnprotected: a box without its agent may stand for months.
	maxUnprotected = 400 * 24 * time.Hour
	// MaxTrafficRows of one event.
	MaxTrafficRows = 20000
)

// detail is column detail: what nobody filters by.
type detail map[string]any

func (d detail) text(key, value string) {
	if value != "" {
		d[key] = Clean(value, maxTitle)
	}
}

func (d detail) number(key string, value uint64) {
	if value != 0 {
		d[key] = value
	}
}

func (d detail) time(key string, t *timestamppb.Timestamp) {
	if at, err := boxTime(t); t != nil && err == nil {
		d[key] = at.Format("2006-01-02T15:04:05.999999Z07:00")
	}
}

func (d detail) counts(key string, m map[string]uint64) {
	if len(m) == 0 {
		return
	}
	out := map[string]uint64{}
	for k, v := range m {
		if len(out) == maxList {
			break
		}
		out[Clean(k, maxName)] += v
	}
	d[key] = out
}

// trafficDetail keeps the sums; the rows themselves go to traffic_hourly.
func trafficDetail(t *eventv1.Traffic, d detail) error {
	if _, _, err := Interval(t.GetFrom(), t.GetTo(), MaxInterval); err != nil {
		return err
	}
	if n := len(t.GetRows()); n > MaxTrafficRows {
		return fmt.Errorf("%d rows of traffic, at most %d are taken", n, MaxTrafficRows)
	}
	var in, out, packets, flows uint64
	for i, r := range t.GetRows() {
		const most = 1 << 60 // so that sums of many boxes stay far from the end of bigint
		if r.GetBytesIn() > most || r.GetBytesOut() > most || r.GetPackets() > most || r.GetFlows() > most {
			return fmt.Errorf("row %d of traffic counts more than any line carries", i)
		}
		in, out = min(in+r.GetBytesIn(), most), min(out+r.GetBytesOut(), most)
		packets, flows = min(packets+r.GetPackets(), most), min(flows+r.GetFlows(), most)
	}
	d.time("from", t.GetFrom())
	d.time("to", t.GetTo())
	d["rows"], d["bytes_in"], d["bytes_out"], d["packets"], d["flows"] = len(t.GetRows()), in, out, packets, flows
	return nil
}

func healthDetail(h *eventv1.Health, d detail) error {
	from, to, err := Interval(h.GetFrom(), h.GetTo(), MaxInterval)
	if err != nil {
		return err
	}
	if ms := uint64(to.Sub(from).Milliseconds()); h.GetUnprotectedMs() > ms+1 {
		return fmt.Errorf("unprotected for %d ms of an interval of %d ms", h.GetUnprotectedMs(), ms)
	}
	d.time("from", h.GetFrom())
	d.time("to", h.GetTo())
	for _, n := range []struct {
		key   string
		value uint64
	}{
		{"unprotected_ms", h.GetUnprotectedMs()},
		{"packets_seen", h.GetPacketsSeen()},
		{"packets_inspected", h.GetPacketsInspected()},
		{"packets_dropped", h.GetPacketsDropped()},
		{"packets_lost", h.GetPacketsLost()},
		{"spool_depth", h.GetSpoolDepth()},
		{"spool_bytes", h.GetSpoolBytes()},
		{"policy_version", h.GetPolicyVersion()},
		{"signature_version", h.GetSignatureVersion()},
		{"bytes_clear", h.GetBytesClear()},
		{"bytes_name", h.GetBytesName()},
		{"bytes_opaque", h.GetBytesOpaque()},
		{"rules_loaded", h.GetRulesLoaded()},
		{"rules_refused", h.GetRulesRefused()},
	} {
		if n.value > 1<<60 {
			return fmt.Errorf("%s of %d is more than any box counts", n.key, n.value)
		}
		d[n.key] = n.value // a measured zero is said
	}
	d.text("version", h.GetVersion())
	d.text("wire_mode", h.GetWireMode())
	return nil
}
