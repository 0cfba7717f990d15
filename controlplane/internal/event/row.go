// Package event is what an event is in the database: the row made of a message, and the sets of numbers that prove none is missing.
//
// Ingest makes rows with [New] and copies them; the fleet's service asks [Committed] what an appliance may forget. Trap: everything in a
// message was written by a box that may be hostile; text is cleaned here and nowhere else, so no other package may fill a Row by hand.
package event

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// Kinds of events, as in column kind.
const (
	KindAlert       = "alert"
	KindDetection   = "detection"
	KindBlock       = "block"
	KindTraffic     = "traffic"
	KindDeviceSeen  = "device_seen"
	KindHealth      = "health"
	KindUnprotected = "unprotected"
	KindSpoolGap    = "spool_gap"
	KindStreamStart = "stream_start"
	KindSelfTest    = "self_test"
)

// Limits of text in a row, in bytes. Longer is cut: names on the wire are at most 255, titles of rules are shorter than 512.
const (
	maxName  = 255
	maxTitle = 512
	// maxList bounds lists inside detail.
	maxList = 32
)

// Source names the sender of an event, from the message's subject and envelope after both were found to agree.
type Source struct {
	Clinic, Appliance int32
	Stream            [16]byte
	Received          time.Time
	// ClockOffset is box clock minus ours in milliseconds; nil: the box had not measured it.
	ClockOffset *int32
}

// Row is one row of table event. Pointers and invalid addresses are NULL.
type Row struct {
	Source
	Seq       uint64
	T         time.Time
	Kind      string
	Severity  int16
	Category  string
	Action    string
	Certainty int16
	Rule      string
	Title     string
	Indicator string
	Count     int32
	Direction int16
	SrcIP     netip.Addr
	SrcPort   int32
	DstIP     netip.Addr
	DstPort   int32
	Proto     int16 // IANA number
	HasFlow   bool  // the ports and the protocol mean something
	App       string
	MAC       net.HardwareAddr // nil: none known
	DeviceIP  netip.Addr
	Zone      string
	Hostname  string // of the device; not a column
	Detail    []byte // JSON object; nil is {}
}

// New makes the row of one event. An error says why the event can't be stored: no number, no time, no body.
func New(src Source, e *eventv1.Event) (Row, error) {
	r := Row{Source: src, Seq: e.GetSeq(), Count: 1}
	if r.Seq == 0 || r.Seq > MaxSeq {
		return r, fmt.Errorf("sequence number %d is outside 1 to %d", r.Seq, uint64(MaxSeq))
	}
	var err error
	if r.T, err = boxTime(e.GetTime()); err != nil {
		return r, fmt.Errorf("box time: %w", err)
	}
	d := &detail{}
	switch b := e.GetBody().(type) {
	case *eventv1.Event_Alert:
		r.alert(b.Alert, d)
	case *eventv1.Event_Detection:
		r.detection(b.Detection, d)
	case *eventv1.Event_Block:
		r.block(b.Block, d)
	case *eventv1.Event_Traffic:
		r.Kind = KindTraffic
		err = trafficDetail(b.Traffic, d)
	case *eventv1.Event_DeviceSeen:
		r.Kind = KindDeviceSeen
		r.device(b.DeviceSeen.GetDevice(), d)
		d.text("source", b.DeviceSeen.GetSource())
		d.text("vendor_class", b.DeviceSeen.GetVendorClass())
		d.time("first", b.DeviceSeen.GetFirst())
		d.time("last", b.DeviceSeen.GetLast())
	case *eventv1.Event_Health:
		r.Kind = KindHealth
		err = healthDetail(b.Health, d)
	case *eventv1.Event_Unprotected:
		r.Kind = KindUnprotected
		d.interval(b.Unprotected.GetFrom(), b.Unprotected.GetTo(), MaxUnprotected)
		d.text("cause", enumName(b.Unprotected.GetCause().String(), "CAUSE_"))
	case *eventv1.Event_SpoolGap:
		r.Kind = KindSpoolGap
		g := b.SpoolGap
		if g.GetFromSeq() == 0 || g.GetFromSeq() > g.GetToSeq() || g.GetToSeq() > MaxSeq {
			return r, fmt.Errorf("spool gap %d to %d is no range", g.GetFromSeq(), g.GetToSeq())
		}
		d.count("from_seq", g.GetFromSeq())
		d.count("to_seq", g.GetToSeq())
		d.text("reason", g.GetReason())
		d.counts("kinds", g.GetKinds())
	case *eventv1.Event_StreamStart:
		r.Kind = KindStreamStart
		d.text("reason", b.StreamStart.GetReason())
		if p := b.StreamStart.GetPreviousStreamId(); len(p) == 16 {
			d.text("previous_stream_id", hex.EncodeToString(p))
		}
	case *eventv1.Event_SelfTest:
		r.Kind = KindSelfTest
		r.Rule = strconv.FormatUint(uint64(b.SelfTest.GetSid()), 10)
		d.bool("passed", b.SelfTest.GetPassed())
		d.text("detail", b.SelfTest.GetDetail())
	default:
		err = errors.New("no body, or a kind this version doesn't know")
	}
	if err != nil {
		return r, err
	}
	r.Detail = d.object()
	return r, nil
}

func (r *Row) alert(a *eventv1.Alert, d *detail) {
	r.Kind = KindAlert
	r.flow(a.GetFlow(), d)
	r.device(a.GetDevice(), d)
	r.Rule = strconv.FormatUint(uint64(a.GetGid()), 10) + ":" + strconv.FormatUint(uint64(a.GetSid()), 10)
	r.Title = Clean(a.GetSignature(), maxTitle)
	r.Severity = small(int32(a.GetSeverity()), 5)
	r.Category = categoryName(a.GetCategory())
	r.Action = actionName(a.GetAction())
	r.Count = countOf(a.GetCount())
	r.Indicator = Clean(a.GetIndicator(), maxName)
	d.number("rev", uint64(a.GetRev()))
	d.text("classtype", a.GetClasstype())
}

func (r *Row) detection(x *eventv1.Detection, d *detail) {
	r.Kind = KindDetection
	r.flow(x.GetFlow(), d)
	r.device(x.GetDevice(), d)
	r.Rule = Clean(x.GetDetector(), maxName)
	r.Title = r.Rule
	if x.GetList() != "" {
		r.Title = Clean(x.GetList(), maxTitle)
	}
	r.Severity = small(int32(x.GetSeverity()), 5)
	r.Category = categoryName(x.GetCategory())
	r.Action = actionName(x.GetAction())
	r.Certainty = small(int32(x.GetCertainty()), 3)
	r.Count = countOf(x.GetCount())
	r.Indicator = Clean(x.GetIndicator(), maxName)
	d.text("list", x.GetList())
	d.texts("signals", x.GetSignals())
}

func (r *Row) block(x *eventv1.Block, d *detail) {
	r.Kind = KindBlock
	r.flow(x.GetFlow(), d)
	r.device(x.GetDevice(), d)
	r.Rule = enumName(x.GetReason().String(), "REASON_")
	r.Title = Clean(x.GetList(), maxTitle)
	r.Category = categoryName(x.GetCategory())
	r.Action = "blocked"
	r.Count = countOf(x.GetCount())
	d.number("packets", x.GetPackets())
	d.number("bytes", x.GetBytes())
	d.time("first", x.GetFirst())
	d.time("last", x.GetLast())
}

func (r *Row) flow(f *eventv1.Flow, d *detail) {
	if f == nil {
		return
	}
	r.HasFlow = true
	r.SrcIP, r.DstIP = address(f.GetSrcIp()), address(f.GetDstIp())
	r.SrcPort, r.DstPort = int32(min(f.GetSrcPort(), math.MaxUint16)), int32(min(f.GetDstPort(), math.MaxUint16))
	r.Proto = int16(min(f.GetIpProto(), math.MaxUint8))
	r.App = Clean(f.GetApp(), maxName)
	r.Direction = small(int32(f.GetDirection()), 3)
	d.number("flow_id", f.GetFlowId())
	d.numbers("vlan", f.GetVlan(), 4)
}

func (r *Row) device(x *eventv1.Device, d *detail) {
	if x == nil {
		return
	}
	r.MAC = hardwareAddr(x.GetMac())
	r.DeviceIP = address(x.GetIp())
	r.Zone = Clean(x.GetZone(), maxName)
	r.Hostname = Clean(x.GetHostname(), maxName)
	d.text("hostname", x.GetHostname())
}

func hardwareAddr(b []byte) net.HardwareAddr {
	if len(b) != 6 || [6]byte(b) == ([6]byte{}) {
		return nil
	}
	return b
}

func address(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}
	}
	return a.Unmap()
}

func small(n, most int32) int16 {
	if n < 0 || n > most {
		return 0
	}
	return int16(n)
}

func countOf(n uint32) int32 { return int32(min(max(n, 1), math.MaxInt32)) }

func categoryName(c eventv1.Category) string {
	if c == eventv1.Category_CATEGORY_UNSPECIFIED {
		return ""
	}
	return enumName(c.String(), "CATEGORY_")
}

func actionName(a eventv1.Action) string {
	switch a {
	case eventv1.Action_ACTION_PASSED:
		return "passed"
	case eventv1.Action_ACTION_BLOCKED:
		return "blocked"
	default:
		return ""
	}
}

// enumName is an enum's value in the database's words; of a value that this version doesn't know it is the number.
func enumName(s, prefix string) string { return strings.ToLower(strings.TrimPrefix(s, prefix)) }

// Clean makes text of a box fit for the database: valid UTF-8, no control characters (PostgreSQL takes no NUL at all), at most n bytes.
func Clean(s string, n int) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= 0x20 && s[i] < 0x7f
	}
	if !clean {
		s = strings.ToValidUTF8(s, "\uFFFD")
		s = strings.Map(func(r rune) rune {
			// C0, DEL and C1 controls, and what turns the direction of text round.
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				return '\uFFFD'
			}
			return r
		}, s)
	}
	return cut(s, n)
}

// cut shortens s to n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// earliest and latest bound box time to what both sides can write.
var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
)

func boxTime(t *timestamppb.Timestamp) (time.Time, error) {
	if err := t.CheckValid(); err != nil {
		return time.Time{}, err
	}
	// PostgreSQL keeps microseconds.
	at := t.AsTime().Truncate(time.Microsecond)
	if at.Before(earliest) || at.After(latest) {
		return time.Time{}, fmt.Errorf("%s is outside 1970 to 9000", at.Format(time.RFC3339))
	}
	return at, nil
}

// Interval reads [from, to) of a message and refuses what is turned round or longer than most.
func Interval(from, to *timestamppb.Timestamp, most time.Duration) (time.Time, time.Time, error) {
	f, err := boxTime(from)
	if err != nil {
		return f, f, fmt.Errorf("from: %w", err)
	}
	t, err := boxTime(to)
	if err != nil {
		return f, t, fmt.Errorf("to: %w", err)
	}
	if t.Before(f) || t.Sub(f) > most {
		return f, t, fmt.Errorf("interval of %s is outside 0 to %s", t.Sub(f), most)
	}
	return f, t, nil
}
