// Package query reads one month of one clinic from the report_* views. Everything is read in one read-only snapshot that states
// the clinic's right, so the numbers of one report agree with each other and no other clinic's row can appear. Package app calls
// it. The trap: findings are streamed; a limit on their number is an error, never a silent cut.
package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/reporter/internal/month"
)

// Limits of one report.
const (
	// MaxFindings is how many rows of findings a month may have. At 100 bytes or so each the builder stays under 200 MB.
	MaxFindings = 2_000_000
	maxDevices  = 20_000
	maxRows     = 50_000
)

// ErrExpired means that retention has deleted rows the month's report is made of: it would show zeros that are none. The
// month's frozen reports stand.
var ErrExpired = errors.New("the month's hourly traffic has been deleted by retention; its frozen reports stand")

// ErrNoClinic means that the database knows no such clinic.
var ErrNoClinic = errors.New("no such clinic")

// Beginner is a connection or a pool.
type Beginner interface {
	BeginTx(ctx context.Context, opt pgx.TxOptions) (pgx.Tx, error)
}

// Options are what doesn't come from the database.
type Options struct {
	// Now is the moment of the snapshot. Issued is the date on the report; zero means Now.
	Now, Issued time.Time
	// Holidays and CareWords are handed on to month.Input.
	Holidays, CareWords, RemoteApps, UpdateApps []string
}

// Facts reads the month and adds it up. The error of an unknown clinic is ErrNoClinic.
func Facts(ctx context.Context, db Beginner, clinic int32, m month.Month, opt Options) (*month.Facts, error) {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := state(ctx, tx, clinic); err != nil {
		return nil, err
	}
	r := reader{tx: tx, clinic: clinic, in: month.Input{
		Month: m, Now: opt.Now, Issued: opt.Issued, Holidays: opt.Holidays, CareWords: opt.CareWords,
		RemoteApps: opt.RemoteApps, UpdateApps: opt.UpdateApps,
	}}
	for _, step := range []struct {
		what string
		read func(context.Context) error
	}{
		{"clinic", r.clinicRow},
		{"settings", r.settings},
		{"revision", r.revision},
		{"appliances", r.appliances},
		{"coverage", r.coverage},
		{"ledger", r.ledger},
		{"unprotected time", r.unprotected},
		{"devices", r.devices},
		{"infected devices", r.infected},
		{"traffic by hour", r.hours},
		{"traffic by day", r.expired},
		{"traffic by application", r.apps},
		{"traffic by device", r.topDevices},
		{"traffic by zone", r.zones},
		{"traffic by use", r.uses},
		{"earlier months", r.past},
	} {
		if err := step.read(ctx); err != nil {
			return nil, fmt.Errorf("read %s of clinic %d: %w", step.what, clinic, err)
		}
	}
	b, err := month.NewBuilder(r.in)
	if err != nil {
		return nil, err
	}
	if err := r.findings(ctx, b); err != nil {
		return nil, fmt.Errorf("read findings of clinic %d: %w", clinic, err)
	}
	return b.Facts()
}

type reader struct {
	tx     pgx.Tx
	clinic int32
	in     month.Input
}

// each runs a query and gives every row to scan; more rows than limit are an error.
func (r *reader) each(ctx context.Context, limit int, scan func(pgx.Rows) error, sql string, args ...any) error {
	rows, err := r.tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		if n >= limit {
			return fmt.Errorf("more than %d rows", limit)
		}
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (r *reader) clinicRow(ctx context.Context) error {
	c := &r.in.Clinic
	err := r.tx.QueryRow(ctx, `SELECT clinic_id, code, name, kana, director, hours FROM report_clinic WHERE clinic_id = $1`, r.clinic).
		Scan(&c.ID, &c.Code, &c.Name, &c.Kana, &c.Director, &c.Hours)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNoClinic
	}
	return err
}

func (r *reader) settings(ctx context.Context) error {
	s := &r.in.Sender
	return r.each(ctx, 100, func(rows pgx.Rows) error {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		switch name {
		case "msp.name":
			s.Name = value
		case "msp.desk":
			s.Desk = value
		case "msp.phone":
			s.Phone = value
		case "msp.hours":
			s.Hours = value
		}
		return nil
	}, `SELECT name, value FROM report_setting ORDER BY name`)
}

func (r *reader) revision(ctx context.Context) error {
	return r.tx.QueryRow(ctx, `SELECT coalesce(max(revision), 0) + 1 FROM report_frozen WHERE clinic_id = $1 AND month = $2`,
		r.clinic, r.in.Month.Start().Format(time.DateOnly)).Scan(&r.in.Revision)
}

func (r *reader) appliances(ctx context.Context) error {
	return r.each(ctx, 1000, func(rows pgx.Rows) error {
		var a month.Appliance
		var first *time.Time
		if err := rows.Scan(&a.ID, &a.Name, &a.State, &a.Version, &a.PolicyVersion, &a.SignatureVersion, &a.Created, &first); err != nil {
			return err
		}
		if first != nil {
			a.FirstHour = *first
		}
		r.in.Appliances = append(r.in.Appliances, a)
		return nil
	}, `SELECT a.appliance_id, a.name, a.state, a.version, a.policy_version, a.signature_version, a.created_at,
	           (SELECT min(c.hour) FROM report_coverage c
	             WHERE c.clinic_id = a.clinic_id AND c.appliance_id = a.appliance_id AND c.reported_ms > 0)
	      FROM report_appliance a
	     WHERE a.clinic_id = $1 AND a.state IN ('approved', 'revoked', 'retired') AND a.created_at < $2
	     ORDER BY a.appliance_id`, r.clinic, r.in.Month.End())
}

func (r *reader) coverage(ctx context.Context) error {
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var c month.Coverage
		if err := rows.Scan(&c.Appliance, &c.Hour, &c.ReportedMS, &c.UnprotectedMS, &c.PacketsSeen, &c.PacketsLost,
			&c.BytesClear, &c.BytesName, &c.BytesOpaque); err != nil {
			return err
		}
		r.in.Coverage = append(r.in.Coverage, c)
		return nil
	}, `SELECT appliance_id, hour, reported_ms, unprotected_ms, packets_seen, packets_lost, bytes_clear, bytes_name, bytes_opaque
	      FROM report_coverage WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 ORDER BY appliance_id, hour`,
		r.clinic, r.in.Month.Start(), r.in.Month.End())
}

// ledger counts what ingest refused among what is missing without the box having said so: it can be counted nowhere else.
func (r *reader) ledger(ctx context.Context) error {
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var l month.Ledger
		if err := rows.Scan(&l.Appliance, &l.Stream, &l.First, &l.Last, &l.Received, &l.LostDeclared, &l.LostUndeclared); err != nil {
			return err
		}
		r.in.Ledger = append(r.in.Ledger, l)
		return nil
	}, `SELECT appliance_id, stream_id, first_at, last_at, received, lost_declared, lost_undeclared + refused
	      FROM report_ledger WHERE clinic_id = $1 ORDER BY appliance_id, stream_id`, r.clinic)
}

func (r *reader) unprotected(ctx context.Context) error {
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var u month.Unprotected
		var from, to *time.Time
		var cause *string
		if err := rows.Scan(&u.ID.Appliance, &u.ID.Stream, &u.ID.Seq, &from, &to, &cause); err != nil {
			return err
		}
		if from == nil || to == nil {
			return fmt.Errorf("event %d/%x/%d has no interval", u.ID.Appliance, u.ID.Stream, u.ID.Seq)
		}
		u.From, u.To = *from, *to
		if cause != nil {
			u.Cause = *cause
		}
		r.in.Unprotected = append(r.in.Unprotected, u)
		return nil
		// An interval is stated after it ended, so a statement up to a day after the month may still be about the month.
	}, `SELECT appliance_id, stream_id, seq, from_t, to_t, cause FROM report_unprotected
	     WHERE clinic_id = $1 AND t >= $2 AND t < $3 AND from_t < $4 AND to_t > $2 ORDER BY appliance_id, stream_id, seq`,
		r.clinic, r.in.Month.Start(), r.in.Month.End().Add(24*time.Hour), r.in.Month.End())
}

func (r *reader) devices(ctx context.Context) error {
	return r.each(ctx, maxDevices, func(rows pgx.Rows) error {
		var d month.Device
		var mac net.HardwareAddr
		var ip *netip.Addr
		if err := rows.Scan(&mac, &ip, &d.Zone, &d.Hostname, &d.Name, &d.Anonymous, &d.First, &d.Last); err != nil {
			return err
		}
		copy(d.MAC[:], mac)
		d.IP = addr(ip)
		r.in.Devices = append(r.in.Devices, d)
		return nil
	}, `SELECT mac, ip, zone, hostname, name, anonymous, first_seen, last_seen FROM report_device
	     WHERE clinic_id = $1 AND first_seen < $2 ORDER BY mac`, r.clinic, r.in.Month.End())
}

func addr(ip *netip.Addr) netip.Addr {
	if ip == nil {
		return netip.Addr{}
	}
	return ip.Unmap()
}

func (r *reader) infected(ctx context.Context) error {
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var i month.Infected
		var mac net.HardwareAddr
		var signals []byte
		var ip *netip.Addr
		if err := rows.Scan(&i.ID.Appliance, &i.ID.Stream, &i.ID.Seq, &i.T, &i.Certainty, &mac, &ip, &i.Zone, &i.Indicator, &signals); err != nil {
			return err
		}
		copy(i.MAC[:], mac)
		i.IP = addr(ip)
		if len(signals) > 0 {
			if err := json.Unmarshal(signals, &i.Signals); err != nil {
				return fmt.Errorf("event %d/%x/%d: signals: %w", i.ID.Appliance, i.ID.Stream, i.ID.Seq, err)
			}
		}
		r.in.Infected = append(r.in.Infected, i)
		return nil
	}, `SELECT appliance_id, stream_id, seq, t, certainty, device_mac, device_ip, zone, indicator, signals FROM report_infected
	     WHERE clinic_id = $1 AND t >= $2 AND t < $3 ORDER BY appliance_id, stream_id, seq`,
		r.clinic, r.in.Month.Start(), r.in.Month.End())
}

func (r *reader) findings(ctx context.Context, b *month.Builder) error {
	var f month.Finding
	return r.each(ctx, MaxFindings, func(rows pgx.Rows) error {
		f = month.Finding{}
		var mac net.HardwareAddr
		var src, dst, ip *netip.Addr
		var port *int32
		if err := rows.Scan(&f.ID.Appliance, &f.ID.Stream, &f.ID.Seq, &f.T, &f.Kind, &f.Severity, &f.Category, &f.Action, &f.Rule, &f.Title,
			&f.Indicator, &f.Count, &f.Direction, &src, &dst, &port, &f.App, &mac, &ip, &f.Zone); err != nil {
			return err
		}
		copy(f.MAC[:], mac)
		f.Src, f.Dst, f.IP = addr(src), addr(dst), addr(ip)
		if port != nil {
			f.DstPort = *port
		}
		b.Finding(&f)
		return nil
	}, `SELECT appliance_id, stream_id, seq, t, kind, severity, category, action, rule, title, indicator, count, direction,
	           src_ip, dst_ip, dst_port, app, device_mac, device_ip, zone
	      FROM report_finding WHERE clinic_id = $1 AND t >= $2 AND t < $3 ORDER BY appliance_id, stream_id, seq`,
		r.clinic, r.in.Month.Start(), r.in.Month.End())
}

func (r *reader) hours(ctx context.Context) error {
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var h month.TrafficHour
		if err := rows.Scan(&h.Hour, &h.In, &h.Out, &h.Rows); err != nil {
			return err
		}
		r.in.Hours = append(r.in.Hours, h)
		return nil
	}, `SELECT hour, sum(bytes_in)::bigint, sum(bytes_out)::bigint, count(*) FROM report_traffic
	     WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY hour ORDER BY hour`,
		r.clinic, r.in.Month.Start().AddDate(0, 0, -28), r.in.Month.End())
}

// expired compares the hours with the days, which are kept longer.
func (r *reader) expired(ctx context.Context) error {
	var days int64
	if err := r.tx.QueryRow(ctx, `SELECT coalesce(sum(bytes_in + bytes_out), 0)::bigint FROM report_traffic_daily
	     WHERE clinic_id = $1 AND day >= $2 AND day < $3`,
		r.clinic, r.in.Month.Start().Format(time.DateOnly), r.in.Month.End().Format(time.DateOnly)).Scan(&days); err != nil {
		return err
	}
	var hours int64
	for _, h := range r.in.Hours {
		if r.in.Month.Contains(h.Hour) {
			hours += h.In + h.Out
		}
	}
	if hours < days {
		return fmt.Errorf("%w (%d of %d bytes left)", ErrExpired, hours, days)
	}
	return nil
}

func (r *reader) apps(ctx context.Context) error {
	read := func(m month.Month, into *[]month.TrafficApp) error {
		return r.each(ctx, maxRows, func(rows pgx.Rows) error {
			var a month.TrafficApp
			if err := rows.Scan(&a.App, &a.Guest, &a.In, &a.Out, &a.Rows); err != nil {
				return err
			}
			*into = append(*into, a)
			return nil
		}, `SELECT app, zone = 'guest', sum(bytes_in)::bigint, sum(bytes_out)::bigint, count(*) FROM report_traffic
		     WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY 1, 2 ORDER BY 1, 2`, r.clinic, m.Start(), m.End())
	}
	if err := read(r.in.Month, &r.in.Apps); err != nil {
		return err
	}
	return read(r.in.Month.Add(-1), &r.in.AppsWas)
}

func (r *reader) topDevices(ctx context.Context) error {
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var d month.TrafficDevice
		var mac net.HardwareAddr
		if err := rows.Scan(&mac, &d.Zone, &d.In, &d.Out, &d.Rows); err != nil {
			return err
		}
		copy(d.MAC[:], mac)
		r.in.TopDevices = append(r.in.TopDevices, d)
		return nil
	}, `SELECT device_mac, zone, sum(bytes_in)::bigint, sum(bytes_out)::bigint, count(*) FROM report_traffic
	     WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY 1, 2 ORDER BY 1, 2`, r.clinic, r.in.Month.Start(), r.in.Month.End())
}

func (r *reader) zones(ctx context.Context) error {
	return r.each(ctx, 1000, func(rows pgx.Rows) error {
		var z month.TrafficZone
		if err := rows.Scan(&z.Zone, &z.In, &z.Out, &z.Rows); err != nil {
			return err
		}
		r.in.Zones = append(r.in.Zones, z)
		return nil
	}, `SELECT zone, sum(bytes_in)::bigint, sum(bytes_out)::bigint, count(*) FROM report_traffic
	     WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY zone ORDER BY zone`, r.clinic, r.in.Month.Start(), r.in.Month.End())
}

func (r *reader) uses(ctx context.Context) error {
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var u month.TrafficUse
		var mac net.HardwareAddr
		if err := rows.Scan(&u.App, &mac, &u.Zone, &u.In, &u.Out, &u.Rows, &u.First, &u.Last); err != nil {
			return err
		}
		copy(u.MAC[:], mac)
		r.in.Uses = append(r.in.Uses, u)
		return nil
	}, `SELECT app, device_mac, zone, sum(bytes_in)::bigint, sum(bytes_out)::bigint, count(*), min(hour), max(hour) FROM report_traffic
	     WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 AND app = ANY ($4) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`,
		r.clinic, r.in.Month.Start(), r.in.Month.End(), append(slices.Clone(r.in.RemoteApps), r.in.UpdateApps...))
}

// past reads the eleven months before. Japan time is nine hours ahead of UTC all year round.
func (r *reader) past(ctx context.Context) error {
	from, to := r.in.Month.Add(-11).Start(), r.in.Month.Start()
	by := map[string]*month.PastMonth{}
	for i := -11; i < 0; i++ {
		m := r.in.Month.Add(i)
		r.in.Past = append(r.in.Past, month.PastMonth{Month: m})
	}
	for i := range r.in.Past {
		by[r.in.Past[i].Month.String()] = &r.in.Past[i]
	}
	err := r.each(ctx, 100, func(rows pgx.Rows) error {
		var m string
		var ms int64
		if err := rows.Scan(&m, &ms); err != nil {
			return err
		}
		if p := by[m]; p != nil {
			p.ReportedMS = ms
		}
		return nil
	}, `SELECT to_char(hour AT TIME ZONE 'UTC' + interval '9 hours', 'YYYY-MM'), sum(reported_ms)::bigint
	      FROM report_coverage WHERE clinic_id = $1 AND hour >= $2 AND hour < $3 GROUP BY 1`, r.clinic, from, to)
	if err != nil {
		return err
	}
	err = r.each(ctx, 100, func(rows pgx.Rows) error {
		var m string
		var n int64
		if err := rows.Scan(&m, &n); err != nil {
			return err
		}
		if p := by[m]; p != nil {
			p.Infected = n
		}
		return nil
	}, `SELECT to_char(t AT TIME ZONE 'UTC' + interval '9 hours', 'YYYY-MM'), count(DISTINCT device_mac)
	      FROM report_infected WHERE clinic_id = $1 AND t >= $2 AND t < $3 GROUP BY 1`, r.clinic, from, to)
	if err != nil {
		return err
	}
	return r.each(ctx, maxRows, func(rows pgx.Rows) error {
		var m string
		var p month.PastFindings
		if err := rows.Scan(&m, &p.Category, &p.Action, &p.Count, &p.Rows); err != nil {
			return err
		}
		var err error
		if p.Month, err = month.Parse(m); err != nil {
			return err
		}
		r.in.PastFindings = append(r.in.PastFindings, p)
		return nil
	}, `SELECT to_char(t AT TIME ZONE 'UTC' + interval '9 hours', 'YYYY-MM'), category, action, sum(count)::bigint, count(*)
	      FROM report_finding WHERE clinic_id = $1 AND t >= $2 AND t < $3 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`, r.clinic, from, to)
}
