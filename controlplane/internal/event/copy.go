package event

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/jackc/pgx/v5"
)

var columns = []string{
	"clinic_id", "appliance_id", "stream_id", "seq", "t", "received_at", "kind", "severity", "category", "action", "certainty", "rule", "title",
	"indicator", "count", "direction", "src_ip", "src_port", "dst_ip", "dst_port", "ip_proto", "app", "device_mac", "device_ip", "zone", "detail",
	"clock_offset_ms",
}

var emptyDetail = []byte("{}")

// Copy writes rows into table event in the caller's transaction, whose role must go round row-level security (COPY demands it).
func Copy(ctx context.Context, tx pgx.Tx, rows []*Row) error {
	n, err := tx.CopyFrom(ctx, pgx.Identifier{"event"}, columns, &copySource{rows: rows, values: make([]any, len(columns))})
	if err != nil {
		return fmt.Errorf("copy events: %w", err)
	}
	if n != int64(len(rows)) {
		return fmt.Errorf("copy events: %d of %d rows were written", n, len(rows))
	}
	return nil
}

// copySource hands one reused slice of values to pgx, which encodes it at once.
type copySource struct {
	rows   []*Row
	next   int
	values []any
}

func (c *copySource) Next() bool {
	c.next++
	return c.next <= len(c.rows)
}

func (c *copySource) Err() error { return nil }

func (c *copySource) Values() ([]any, error) {
	r := c.rows[c.next-1]
	v := c.values
	v[0], v[1], v[2], v[3], v[4], v[5] = r.Clinic, r.Appliance, r.Stream, int64(r.Seq), r.T, r.Received
	v[6], v[7], v[8], v[9], v[10] = r.Kind, r.Severity, r.Category, r.Action, r.Certainty
	v[11], v[12], v[13], v[14], v[15] = r.Rule, r.Title, r.Indicator, r.Count, r.Direction
	v[16], v[17], v[18], v[19], v[20] = null(r.SrcIP), nil, null(r.DstIP), nil, nil
	if r.HasFlow {
		v[17], v[19], v[20] = r.SrcPort, r.DstPort, r.Proto
	}
	v[21], v[22], v[23], v[24], v[25] = r.App, nil, null(r.DeviceIP), r.Zone, emptyDetail
	if r.MAC != nil {
		v[22] = r.MAC
	}
	if r.Detail != nil {
		v[25] = r.Detail
	}
	v[26] = r.ClockOffset
	return v, nil
}

func null(a netip.Addr) any {
	if !a.IsValid() {
		return nil
	}
	return a
}
