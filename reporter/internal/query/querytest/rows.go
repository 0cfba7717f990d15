package querytest

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/month/monthtest"
)

// Insert writes a case's rows into the tables behind the views, as the owner, and returns the clinic's id.
func Insert(tb testing.TB, db DB, c *monthtest.Case) int32 {
	tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, db.Owner)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	do := func(sql string, args ...any) {
		tb.Helper()
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			tb.Fatalf("%v\n%s", err, sql)
		}
	}
	in := &c.In
	var plan, clinic, appliance int32
	do(`INSERT INTO plan (name, document, author) VALUES ('standard', '', 'test') ON CONFLICT (name) DO NOTHING`)
	if err := conn.QueryRow(ctx, `SELECT id FROM plan`).Scan(&plan); err != nil {
		tb.Fatal(err)
	}
	// RLS is forced for the owner too; the server's superuser is above it.
	if err := conn.QueryRow(ctx, `INSERT INTO clinic (code, name, director, hours, plan_id) VALUES ($1, $2, $3, $4, $5) RETURNING clinic_id`,
		in.Clinic.Code, in.Clinic.Name, in.Clinic.Director, in.Clinic.Hours, plan).Scan(&clinic); err != nil {
		tb.Fatal(err)
	}
	for name, value := range map[string]string{"msp.name": in.Sender.Name, "msp.desk": in.Sender.Desk, "msp.phone": in.Sender.Phone, "msp.hours": in.Sender.Hours} {
		do(`INSERT INTO setting VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	}
	for _, a := range in.Appliances {
		if err := conn.QueryRow(ctx, `INSERT INTO appliance (clinic_id, name, state, version, policy_version, signature_version, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING appliance_id`, clinic, a.Name, a.State, a.Version, a.PolicyVersion, a.SignatureVersion, a.Created).Scan(&appliance); err != nil {
			tb.Fatal(err)
		}
		if a.FirstHour.Before(in.Month.Start()) {
			do(`INSERT INTO coverage_hourly VALUES ($1, $2, $3, 3600000, 0, 0, 0, 0, 0, 0)`, clinic, appliance, a.FirstHour)
		}
	}
	for _, l := range in.Ledger {
		do(`INSERT INTO event_ledger (clinic_id, appliance_id, stream_id, got, declared, first_at, last_at)
			VALUES ($1, $2, $3, int8multirange(int8range(1, $4), int8range($4 + $5 + $6, $4 + $5 + $6 + 1)), int8multirange(int8range($4, $4 + $5)), $7, $8)`,
			clinic, appliance, l.Stream, l.Received, l.LostDeclared, l.LostUndeclared, l.First, l.Last)
	}
	for _, r := range in.Coverage {
		do(`INSERT INTO coverage_hourly VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, clinic, appliance, r.Hour, r.ReportedMS, r.UnprotectedMS,
			r.PacketsSeen, r.PacketsLost, r.BytesClear, r.BytesName, r.BytesOpaque)
	}
	for _, d := range in.Devices {
		do(`INSERT INTO device (clinic_id, mac, ip, zone, hostname, name, anonymous, first_seen, last_seen) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			clinic, mac(d.MAC), ip(d.IP), d.Zone, d.Hostname, d.Name, d.Anonymous, d.First, d.Last)
	}
	for i, h := range in.Hours {
		app := "https"
		if i%2 == 1 {
			app = "rsync"
		}
		do(`INSERT INTO traffic_hourly VALUES ($1, $2, $3, $4, 'clinical', 'name', $5, $6, 10, 1)`, clinic, h.Hour, app, mac(monthtest.MAC(21+i%4)), h.In, h.Out)
	}
	event := func(id month.EventID, t time.Time, kind string, f *month.Finding, certainty int16, detail map[string]any) {
		raw, err := json.Marshal(detail)
		if err != nil {
			tb.Fatal(err)
		}
		do(`INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, severity, category, action, certainty, rule, title,
			indicator, count, direction, src_ip, dst_ip, dst_port, app, device_mac, device_ip, zone, detail)
			VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)`,
			clinic, appliance, id.Stream, id.Seq, t, kind, f.Severity, f.Category, f.Action, certainty, f.Rule, f.Title, f.Indicator, max(f.Count, 1), f.Direction,
			ip(f.Src), ip(f.Dst), f.DstPort, f.App, mac(f.MAC), ip(f.IP), f.Zone, raw)
	}
	for i := range c.Findings {
		f := &c.Findings[i]
		event(f.ID, f.T, f.Kind, f, 0, map[string]any{})
	}
	for _, i := range in.Infected {
		event(i.ID, i.T, "detection", &month.Finding{Rule: "infected-host", Category: "bot", MAC: i.MAC, IP: i.IP, Zone: i.Zone}, i.Certainty, map[string]any{"signals": i.Signals})
	}
	for _, u := range in.Unprotected {
		event(u.ID, u.To, "unprotected", &month.Finding{}, 0, map[string]any{"from": u.From, "to": u.To, "cause": u.Cause})
	}
	return clinic
}

func mac(m month.MAC) any {
	if !m.Known() {
		return nil
	}
	return net.HardwareAddr(m[:])
}

func ip(a netip.Addr) any {
	if !a.IsValid() {
		return nil
	}
	return a
}
