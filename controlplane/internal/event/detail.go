package event

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

const (
	// MaxInterval of traffic and health: boxes state them every minute or so; a day leaves room for a clock that was set.
	MaxInterval = 24 * time.Hour
	// MaxUnprotected is the longest time without inspection: a box without its agent may stand for months.
	MaxUnprotected = 400 * 24 * time.Hour
	// MaxTrafficRows of one event.
	MaxTrafficRows = 20000
)

// detail is column detail while it is written: a JSON object of what nobody filters by. Keys are ours and need no escape.
type detail struct{ b []byte }

func (d *detail) key(key string) {
	if d.b == nil {
		d.b = append(make([]byte, 0, 192), '{')
	} else {
		d.b = append(d.b, ',')
	}
	d.b = append(d.b, '"')
	d.b = append(d.b, key...)
	d.b = append(d.b, '"', ':')
}

// object is the finished column; nil when nothing was said.
func (d *detail) object() []byte {
	if d.b == nil {
		return nil
	}
	return append(d.b, '}')
}

func (d *detail) text(key, value string) {
	if value != "" {
		d.key(key)
		d.b = appendString(d.b, Clean(value, maxTitle))
	}
}

// number says a number that is not zero, count any.
func (d *detail) number(key string, value uint64) {
	if value != 0 {
		d.count(key, value)
	}
}

func (d *detail) count(key string, value uint64) {
	d.key(key)
	d.b = strconv.AppendUint(d.b, value, 10)
}

func (d *detail) bool(key string, value bool) {
	d.key(key)
	d.b = strconv.AppendBool(d.b, value)
}

func (d *detail) time(key string, t *timestamppb.Timestamp) {
	if t == nil {
		return
	}
	if at, err := boxTime(t); err == nil {
		d.key(key)
		d.b = append(d.b, '"')
		d.b = at.AppendFormat(d.b, "2006-01-02T15:04:05.999999Z07:00")
		d.b = append(d.b, '"')
	}
}

// interval says from and to as the box did. One that is turned round or too long, as after a clock was set, is kept and marked: the event
// is a fact, only sums over time can't use it.
func (d *detail) interval(from, to *timestamppb.Timestamp, most time.Duration) {
	d.time("from", from)
	d.time("to", to)
	if _, _, err := Interval(from, to, most); err != nil {
		d.bool("bad_interval", true)
	}
}

func (d *detail) texts(key string, list []string) {
	if len(list) == 0 {
		return
	}
	d.key(key)
	d.b = append(d.b, '[')
	for i, s := range list[:min(len(list), maxList)] {
		if i > 0 {
			d.b = append(d.b, ',')
		}
		d.b = appendString(d.b, Clean(s, maxName))
	}
	d.b = append(d.b, ']')
}

func (d *detail) numbers(key string, list []uint32, most int) {
	if len(list) == 0 {
		return
	}
	d.key(key)
	d.b = append(d.b, '[')
	for i, n := range list[:min(len(list), most)] {
		if i > 0 {
			d.b = append(d.b, ',')
		}
		d.b = strconv.AppendUint(d.b, uint64(n), 10)
	}
	d.b = append(d.b, ']')
}

func (d *detail) counts(key string, m map[string]uint64) {
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
	d.key(key)
	d.b = append(d.b, '{')
	for i, k := range slices.Sorted(maps.Keys(out)) {
		if i > 0 {
			d.b = append(d.b, ',')
		}
		d.b = append(appendString(d.b, k), ':')
		d.b = strconv.AppendUint(d.b, out[k], 10)
	}
	d.b = append(d.b, '}')
}

// appendString writes a JSON string of text that Clean has freed of control characters and of what isn't UTF-8.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// trafficDetail keeps the sums; the rows themselves go to traffic_hourly.
func trafficDetail(t *eventv1.Traffic, d *detail) error {
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
	d.interval(t.GetFrom(), t.GetTo(), MaxInterval)
	d.count("rows", uint64(len(t.GetRows())))
	d.count("bytes_in", in)
	d.count("bytes_out", out)
	d.count("packets", packets)
	d.count("flows", flows)
	return nil
}

func healthDetail(h *eventv1.Health, d *detail) error {
	d.interval(h.GetFrom(), h.GetTo(), MaxInterval)
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
		d.count(n.key, n.value) // a measured zero is said
	}
	d.text("version", h.GetVersion())
	d.text("wire_mode", h.GetWireMode())
	return nil
}
