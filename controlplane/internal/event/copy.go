package event

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// copyStatement names the columns in the order in which appendRow writes them.
const copyStatement = `COPY event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, severity, category, action, certainty, rule, title,
  indicator, count, direction, src_ip, src_port, dst_ip, dst_port, ip_proto, app, device_mac, device_ip, zone, detail, clock_offset_ms)
  FROM STDIN (FORMAT binary)`

const copyColumns = 27

// copyHeader opens the binary format: signature, flags, length of the extension (PostgreSQL manual, COPY, "Binary Format").
var copyHeader = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")

// epoch of PostgreSQL's timestamps.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// copyBuffers are used again: a batch is some megabytes, and clearing new ones was a tenth of ingest's time.
var copyBuffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is the largest buffer that is kept.
const maxPooled = 32 << 20

// Copy writes rows into table event in the caller's transaction, whose role must go round row-level security (COPY demands it).
// The rows are encoded here and not by pgx, which would box each of the 27 values of a row.
func Copy(ctx context.Context, tx pgx.Tx, rows []*Row) error {
	pooled := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	buf := append((*pooled)[:0], copyHeader...)
	for _, r := range rows {
		buf = appendRow(buf, r)
	}
	buf = binary.BigEndian.AppendUint16(buf, 0xffff) // trailer
	defer func() {
		if *pooled = buf; cap(buf) <= maxPooled {
			copyBuffers.Put(pooled)
		}
	}()
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(buf), copyStatement)
	if err != nil {
		return fmt.Errorf("copy events: %w", err)
	}
	if n := tag.RowsAffected(); n != int64(len(rows)) {
		return fmt.Errorf("copy events: %d of %d rows were written", n, len(rows))
	}
	return nil
}

func appendRow(b []byte, r *Row) []byte {
	b = binary.BigEndian.AppendUint16(b, copyColumns)
	b = appendInt4(b, r.Clinic)
	b = appendInt4(b, r.Appliance)
	b = append(appendLen(b, 16), r.Stream[:]...)
	b = appendInt8(b, int64(r.Seq))
	b = appendInt8(b, r.T.Sub(epoch).Microseconds())
	b = appendInt8(b, r.Received.Sub(epoch).Microseconds())
	b = appendText(b, r.Kind)
	b = appendInt2(b, r.Severity)
	b = appendText(b, r.Category)
	b = appendText(b, r.Action)
	b = appendInt2(b, r.Certainty)
	b = appendText(b, r.Rule)
	b = appendText(b, r.Title)
	b = appendText(b, r.Indicator)
	b = appendInt4(b, r.Count)
	b = appendInt2(b, r.Direction)
	if r.HasFlow {
		b = appendAddr(b, r.SrcIP)
		b = appendInt4(b, r.SrcPort)
		b = appendAddr(b, r.DstIP)
		b = appendInt4(b, r.DstPort)
		b = appendInt2(b, r.Proto)
	} else {
		for range 5 {
			b = appendNull(b)
		}
	}
	b = appendText(b, r.App)
	if r.MAC != nil {
		b = append(appendLen(b, 6), r.MAC...)
	} else {
		b = appendNull(b)
	}
	b = appendAddr(b, r.DeviceIP)
	b = appendText(b, r.Zone)
	detail := r.Detail
	if detail == nil {
		detail = emptyDetail
	}
	b = append(appendLen(b, 1+len(detail)), 1) // version of jsonb's binary form
	b = append(b, detail...)
	if r.ClockOffset != nil {
		return appendInt4(b, *r.ClockOffset)
	}
	return appendNull(b)
}

var emptyDetail = []byte("{}")

func appendLen(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }

func appendNull(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff) }

func appendInt2(b []byte, n int16) []byte {
	return binary.BigEndian.AppendUint16(append(b, 0, 0, 0, 2), uint16(n))
}

func appendInt4(b []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(n))
}

func appendInt8(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(n))
}

func appendText(b []byte, s string) []byte { return append(appendLen(b, len(s)), s...) }

// appendAddr writes an inet: family (2 is IPv4, 3 is IPv6: PGSQL_AF_INET of utils/inet.h), bits, not a cidr, length, bytes.
func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case a.Is4():
		ip := a.As4()
		b = append(appendLen(b, 8), 2, 32, 0, 4)
		return append(b, ip[:]...)
	case a.IsValid():
		ip := a.As16()
		b = append(appendLen(b, 20), 3, 128, 0, 16)
		return append(b, ip[:]...)
	}
	return appendNull(b)
}
