package app

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// table writes aligned lines in sections: a heading, then name and value.
type table struct {
	b strings.Builder
}

func (t *table) section(name string) { fmt.Fprintf(&t.b, "\n%s\n", name) }

func (t *table) row(name, format string, args ...any) {
	t.b.WriteString(strings.TrimRight(fmt.Sprintf("  %-14s %s", name, fmt.Sprintf(format, args...)), " "))
	t.b.WriteByte('\n')
}

// columns writes rows with columns as wide as their widest cell; the first is left-aligned, the rest right.
func (t *table) columns(rows [][]string) {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range rows {
		t.b.WriteString(" ")
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i == 0 {
				fmt.Fprintf(&t.b, " %s%s", c, pad)
			} else {
				fmt.Fprintf(&t.b, "  %s%s", pad, c)
			}
		}
		t.b.WriteString("\n")
	}
}

// writeStatus prints a status for people.
func writeStatus(w io.Writer, s *Status) error {
	t := &table{}
	who := "not enrolled: " + s.Enrolment
	if s.Enrolled {
		who = fmt.Sprintf("appliance %d of clinic %d %s", s.Appliance, s.Clinic, s.ClinicName)
	}
	fmt.Fprintf(&t.b, "kadomori-agent %s, %s\n", s.Version, strings.TrimSpace(who))

	t.section("PROTECTION")
	state := "on"
	if s.UnprotectedCause != "" {
		state = "OFF: " + s.UnprotectedCause
	}
	if until := s.Wire.BypassUntil; until.After(s.Time) {
		state = "BYPASS until " + until.Local().Format(time.TimeOnly)
	}
	t.row("state", "%s", state)
	t.row("mode", "%s", s.WireMode)
	t.row("running for", "%s", span(s.Time.Sub(s.Started)))
	t.row("unprotected", "%s since start", span(time.Duration(s.UnprotectedMs)*time.Millisecond))
	t.row("self-test", "%s", selfTestText(s))

	t.section("PORTS")
	rows := [][]string{{"port", "queues", "received", "inspected", "cut through", "dropped", "uninspected", "lost"}}
	for _, p := range s.Wire.Ports {
		rows = append(rows, []string{
			p.Name, fmt.Sprintf("%d/%d", p.Sockets, p.Queues), count(p.Received().Packets) + " (" + size(p.Received().Bytes) + ")", count(p.Handler.Packets),
			count(p.Cut.Packets), count(p.Dropped.Packets), count(p.Stale.Packets + p.NoSocket.Packets + p.Bypass.Packets), count(p.SocketLost),
		})
	}
	t.columns(rows)

	t.section("FLOWS")
	t.row("active", "%s of the engine, %s of the wire (limit %s)", count(s.Engine.FlowsActive), count(uint64(max(s.Wire.Flows, 0))), count(uint64(s.Wire.FlowLimit)))
	t.row("begun", "%s, cut through %s", count(s.Engine.Flows), count(s.Engine.FlowsCut))
	t.row("findings", "%s alerts, %s detections", count(s.Engine.Alerts), count(s.Engine.Detections))

	t.section("DROPS")
	if len(s.Drops) == 0 {
		t.row("none", "")
	} else {
		rows = [][]string{{"reason", "list", "packets", "bytes"}}
		for _, d := range s.Drops {
			rows = append(rows, []string{d.Reason, d.List, count(d.Packets), size(d.Bytes)})
		}
		t.columns(rows)
	}

	if len(s.Quarantined) > 0 {
		t.section("QUARANTINE")
		for _, d := range s.Quarantined {
			until := "until released"
			if !d.Until.IsZero() {
				until = "until " + d.Until.Local().Format(time.DateTime)
			}
			addr := ""
			if d.Addr.IsValid() {
				addr = d.Addr.String()
			}
			t.row("device", "%s", strings.TrimSpace(strings.Join([]string{d.Text, addr, until}, " ")))
		}
	}

	t.section("EVENTS")
	t.row("numbered", "%s, on disk %s, committed by the centre %s", count(s.LastSeq), count(s.Spool.Durable), count(s.Committed))
	t.row("waiting", "%s events", count(s.Spool.Depth))
	t.row("spool", "%s of %s in %d segments%s", size(uint64(max(s.Spool.Bytes, 0))), size(uint64(max(s.Spool.Limit, 0))), s.Spool.Segments, memoryText(s))
	t.row("lost", "%s dropped, %s damaged (declared in %s gaps)", count(s.Spool.Dropped), count(s.Spool.Corrupt), count(s.Spool.Gaps))
	t.row("stream", "%s", s.StreamID)

	t.section("CONTROL PLANE")
	t.row("watch", "%s%s", s.ControlPlane, fleetText(s))
	t.row("uplink", "%s%s", s.Uplink, uplinkText(s))
	if s.Enrolled {
		key := "file"
		if s.KeyInTPM {
			key = "TPM"
		}
		t.row("certificate", "until %s, key in %s", s.NotAfter.Local().Format(time.DateTime), key)
	}

	t.section("BUNDLES")
	t.row("policy", "version %d", s.PolicyVersion)
	t.row("signatures", "version %d, %d rules in force, %d refused", s.SigVersion, s.RulesLoaded, s.RulesRefused)
	for _, r := range s.Refused {
		t.row("refused", "%s version %d: %s", r.Kind, r.Version, r.Reason)
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

func selfTestText(s *Status) string {
	switch t := s.SelfTest; {
	case t == nil:
		return "not yet"
	case t.Passed:
		return "passed " + span(s.Time.Sub(t.Time)) + " ago"
	default:
		return "FAILED " + span(s.Time.Sub(t.Time)) + " ago: " + t.Detail
	}
}

func memoryText(s *Status) string {
	if s.Spool.Memory {
		return "; IN MEMORY ONLY: " + s.SpoolError
	}
	if s.SpoolError != "" {
		return "; " + s.SpoolError
	}
	return ""
}

func fleetText(s *Status) string {
	f := s.FleetStats
	if f == nil {
		return ""
	}
	out := fmt.Sprintf(" to %s for %s", f.Address, span(s.Time.Sub(f.Since)))
	if f.OffsetMs != nil {
		out += fmt.Sprintf(", clock %+d ms", *f.OffsetMs)
	}
	if f.Error != "" {
		out += ": " + f.Error
	}
	return out
}

func uplinkText(s *Status) string {
	u := s.UplinkStats
	if u == nil {
		return ""
	}
	out := fmt.Sprintf(" to %s, %s events in %s messages (%s)", u.Server, count(u.SentEvents), count(u.Messages), size(u.SentBytes))
	if u.Error != "" {
		out += ": " + u.Error
	}
	return out
}

// count groups thousands.
func count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size is bytes in binary units.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// span is a duration for people.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	default:
		return fmt.Sprintf("%d days %d h", int(d/(24*time.Hour)), int(d/time.Hour)%24)
	}
}
