// Package eve prints findings as EVE JSON lines with Suricata's field names, for the offline tool, benchmarks and anyone who
// has tools for that format. The trap: it formats on the caller's goroutine, under a lock; on the wire findings go to package
// event instead.
package eve

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/packet"
)

// Writer is a finding.Sink that writes lines.
type Writer struct {
	mu    sync.Mutex
	w     *bufio.Writer
	buf   []byte
	err   error
	lines uint64
}

// NewWriter makes a Writer; call Close to see the first write error.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 64<<10)} }

// Close writes out what is buffered. It does not close the underlying writer.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.w.Flush(); w.err == nil {
		w.err = err
	}
	if w.err != nil {
		return fmt.Errorf("write eve: %w", w.err)
	}
	return nil
}

func (w *Writer) write(b []byte) {
	b = append(b, '}', '\n')
	w.buf = b[:0]
	w.lines++
	if _, err := w.w.Write(b); err != nil && w.err == nil {
		w.err = err
	}
}

// timeLayout is Suricata's: microseconds, numeric zone without a colon.
const timeLayout = "2006-01-02T15:04:05.000000-0700"

func appendTime(b []byte, ns int64) []byte { return time.Unix(0, ns).UTC().AppendFormat(b, timeLayout) }

func appendUint(b []byte, key string, v uint64) []byte {
	return strconv.AppendUint(inspect.AppendKey(b, key), v, 10)
}

func appendString(b []byte, key, v string) []byte {
	return inspect.AppendJSON(inspect.AppendKey(b, key), []byte(v))
}

func appendAddr(b []byte, key string, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	b = append(inspect.AppendKey(b, key), '"')
	if a.Is6() {
		b = appendLongAddr(b, a)
	} else {
		b = a.AppendTo(b)
	}
	return append(b, '"')
}

// appendLongAddr writes IPv6 as Suricata does: all eight groups, four digits each.
func appendLongAddr(b []byte, a netip.Addr) []byte {
	const hex = "0123456789abcdef"
	for i, c := range a.As16() {
		if i > 0 && i%2 == 0 {
			b = append(b, ':')
		}
		b = append(b, hex[c>>4], hex[c&15])
	}
	return b
}

// ProtoName is a transport protocol in Suricata's words.
func ProtoName(p uint8, v6 bool) string {
	switch p {
	case packet.ProtoTCP:
		return "TCP"
	case packet.ProtoUDP:
		return "UDP"
	case packet.ProtoICMP:
		return "ICMP"
	case packet.ProtoICMPv6:
		return "IPv6-ICMP"
	case packet.ProtoSCTP:
		return "SCTP"
	case packet.ProtoGRE:
		return "GRE"
	case packet.ProtoESP:
		return "ESP"
	case packet.ProtoAH:
		return "AH"
	case packet.ProtoIPIP:
		return "IP-ENCAP"
	case packet.ProtoIPv6:
		return "IPv6"
	case 2:
		return "IGMP"
	case 0:
		if v6 {
			return "HOPOPT"
		}
	}
	return fmt.Sprintf("%03d", p)
}

func (w *Writer) head(p *finding.Packet, event string) []byte {
	b := append(w.buf[:0], `{"timestamp":"`...)
	b = appendTime(b, p.Time)
	b = append(b, '"')
	if p.FlowID != 0 {
		b = appendUint(b, "flow_id", p.FlowID)
	}
	if p.PcapCount != 0 {
		b = appendUint(b, "pcap_cnt", p.PcapCount)
	}
	b = appendString(b, "event_type", event)
	if p.VLAN[0] != 0 || p.VLAN[1] != 0 {
		b = append(b, `,"vlan":[`...)
		b = strconv.AppendUint(b, uint64(p.VLAN[0]), 10)
		if p.VLAN[1] != 0 {
			b = append(b, ',')
			b = strconv.AppendUint(b, uint64(p.VLAN[1]), 10)
		}
		b = append(b, ']')
	}
	if p.SrcMAC != ([6]byte{}) || p.DstMAC != ([6]byte{}) {
		b = append(b, `,"ether":{`...)
		b = appendMAC(b, "src_mac", p.SrcMAC)
		b = appendMAC(b, "dest_mac", p.DstMAC)
		b = append(b, '}')
	}
	if !p.Src.IsValid() {
		return b
	}
	b = appendAddr(b, "src_ip", p.Src)
	ports := p.Proto == packet.ProtoTCP || p.Proto == packet.ProtoUDP || p.Proto == packet.ProtoSCTP
	if ports {
		b = appendUint(b, "src_port", uint64(p.SrcPort))
	}
	b = appendAddr(b, "dest_ip", p.Dst)
	if ports {
		b = appendUint(b, "dest_port", uint64(p.DstPort))
	}
	b = appendString(b, "proto", ProtoName(p.Proto, p.Src.Is6()))
	b = appendUint(b, "ip_v", ipVersion(p.Src))
	b = appendCommunityID(b, p)
	if p.Proto == packet.ProtoICMP || p.Proto == packet.ProtoICMPv6 {
		b = appendUint(b, "icmp_type", uint64(p.SrcPort))
		b = appendUint(b, "icmp_code", uint64(p.DstPort))
	}
	return b
}

func ipVersion(a netip.Addr) uint64 {
	if a.Is4() {
		return 4
	}
	return 6
}

// appName is EVE's app_proto: HTTP/1 is "http" there.
func appName(s string) string {
	if s == "http1" {
		return "http"
	}
	return s
}

// Alert writes an alert and, when the packet was stopped, a drop.
func (w *Writer) Alert(a *finding.Alert) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.head(&a.Packet, "alert")
	action := "allowed"
	if a.Action == finding.Blocked {
		action = "blocked"
	}
	b = append(b, `,"alert":{"action":"`...)
	b = append(b, action...)
	b = append(b, '"')
	b = appendUint(b, "gid", uint64(a.GID))
	b = appendUint(b, "signature_id", uint64(a.SID))
	b = appendUint(b, "rev", uint64(a.Rev))
	b = appendString(b, "signature", a.Msg)
	b = appendString(b, "category", a.ClassDesc)
	b = appendUint(b, "severity", uint64(a.Priority))
	b = appendMetadata(b, a.Metadata)
	b = append(b, '}')
	if a.Tx != nil {
		b = inspect.AppendKey(b, a.Tx.EVEType())
		b = a.Tx.AppendEVE(b)
		if x, ok := a.Tx.(extra); ok {
			b = x.AppendExtra(b)
		}
		if x, ok := a.Tx.(inspect.Tx); ok {
			b = appendUint(b, "tx_id", x.Base().ID)
		}
		if x, ok := a.Tx.(inspect.Filer); ok && len(x.Files()) > 0 {
			b = append(inspect.AppendKey(b, "files"), '[')
			for i, f := range x.Files() {
				if i > 0 {
					b = append(b, ',')
				}
				b = f.AppendEVE(b)
			}
			b = append(b, ']')
		}
	}
	if a.Packet.App != "" {
		b = appendString(b, "app_proto", appName(a.Packet.App))
	}
	b = appendDirection(b, a.Packet.ToServer)
	if a.Packet.FlowID != 0 {
		b = append(b, `,"flow":{`...)
		b = appendCounts(b, &a.Counts)
		b = append(b, '}')
	}
	if a.Raw != nil {
		b = appendRaw(b, a.Raw)
	}
	if a.Verdict != "" {
		b = append(b, `,"verdict":{`...)
		b = appendString(b, "action", a.Verdict)
		b = append(b, '}')
	}
	w.write(b)
}

// Drop writes a packet that was stopped, with the alert of the rule that stopped it.
func (w *Writer) Drop(p *finding.Packet, reason string, a *finding.Alert) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.head(p, "drop")
	b = append(b, `,"drop":{`...)
	b = appendString(b, "reason", reason)
	b = append(b, '}')
	b = appendDirection(b, p.ToServer)
	if a == nil {
		w.write(b)
		return
	}
	b = append(b, `,"alert":{"action":"blocked"`...)
	b = appendUint(b, "gid", uint64(a.GID))
	b = appendUint(b, "signature_id", uint64(a.SID))
	b = appendUint(b, "rev", uint64(a.Rev))
	b = appendString(b, "signature", a.Msg)
	b = appendString(b, "category", a.ClassDesc)
	b = appendUint(b, "severity", uint64(a.Priority))
	b = append(b, '}')
	w.write(b)
}

func appendDirection(b []byte, toServer bool) []byte {
	if toServer {
		return append(b, `,"direction":"to_server"`...)
	}
	return append(b, `,"direction":"to_client"`...)
}

// appendMetadata writes each key once with its values as a list.
func appendMetadata(b []byte, kv []finding.KeyValue) []byte {
	if len(kv) == 0 {
		return b
	}
	b = append(b, `,"metadata":{`...)
	for i := range kv {
		first := true
		for j := range i {
			if kv[j].Key == kv[i].Key {
				first = false
			}
		}
		if !first {
			continue
		}
		b = append(inspect.AppendKey(b, kv[i].Key), '[')
		n := 0
		for j := i; j < len(kv); j++ {
			if kv[j].Key == kv[i].Key {
				if n > 0 {
					b = append(b, ',')
				}
				b = inspect.AppendJSON(b, []byte(kv[j].Value))
				n++
			}
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendCounts(b []byte, c *finding.Counts) []byte {
	b = appendUint(b, "pkts_toserver", c.PacketsToServer)
	b = appendUint(b, "pkts_toclient", c.PacketsToClient)
	b = appendUint(b, "bytes_toserver", c.BytesToServer)
	b = appendUint(b, "bytes_toclient", c.BytesToClient)
	b = append(b, `,"start":"`...)
	b = appendTime(b, c.Start)
	return append(b, '"')
}

// Detection writes a detection; Suricata has no such event, the object is ours.
func (w *Writer) Detection(d *finding.Detection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.head(&d.Packet, "detection")
	b = append(b, `,"detection":{`...)
	b = appendString(b, "detector", d.Detector)
	action := "allowed"
	if d.Action == finding.Blocked {
		action = "blocked"
	}
	b = appendString(b, "action", action)
	b = appendUint(b, "severity", uint64(d.Severity))
	b = appendUint(b, "certainty", uint64(d.Certainty))
	if d.Indicator != "" {
		b = appendString(b, "indicator", d.Indicator)
	}
	if d.List != "" {
		b = appendString(b, "list", d.List)
	}
	b = appendUint(b, "count", uint64(d.Count))
	if len(d.Signals) > 0 {
		b = append(b, `,"signals":[`...)
		for i, s := range d.Signals {
			if i > 0 {
				b = append(b, ',')
			}
			b = inspect.AppendJSON(b, []byte(s))
		}
		b = append(b, ']')
	}
	b = append(b, '}')
	b = appendDevice(b, &d.Device)
	w.write(b)
}

func appendDevice(b []byte, d *finding.Device) []byte {
	if !d.Known {
		return b
	}
	b = append(b, `,"device":{`...)
	b = appendString(b, "mac", fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", d.MAC[0], d.MAC[1], d.MAC[2], d.MAC[3], d.MAC[4], d.MAC[5]))
	b = appendAddr(b, "ip", d.IP)
	if d.Zone != "" {
		b = appendString(b, "zone", d.Zone)
	}
	if d.Hostname != "" {
		b = appendString(b, "hostname", d.Hostname)
	}
	return append(b, '}')
}

// Transaction writes dns, http, tls, ….
func (w *Writer) Transaction(p *finding.Packet, t finding.Transaction) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.head(p, t.EVEType())
	b = inspect.AppendKey(b, t.EVEType())
	b = t.AppendEVE(b)
	if x, ok := t.(extra); ok {
		b = x.AppendExtra(b)
	}
	if x, ok := t.(inspect.Tx); ok {
		b = appendUint(b, "tx_id", x.Base().ID)
	}
	if p.App != "" && t.EVEType() == "fileinfo" {
		b = appendString(b, "app_proto", appName(p.App))
	}
	w.write(b)
}

// extra is a transaction that prints more than its own object.
type extra interface {
	AppendExtra(b []byte) []byte
}

// FlowEnd writes a flow record.
func (w *Writer) FlowEnd(f *finding.FlowEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.head(&f.Packet, "flow")
	if f.Packet.App != "" {
		b = appendString(b, "app_proto", appName(f.Packet.App))
	} else if f.Packet.Proto == packet.ProtoTCP || f.Packet.Proto == packet.ProtoUDP {
		b = appendString(b, "app_proto", "failed")
	}
	if f.Packet.AppOrig != "" {
		b = appendString(b, "app_proto_orig", appName(f.Packet.AppOrig))
	}
	b = append(b, `,"flow":{`...)
	b = appendCounts(b, &f.Counts)
	b = append(b, `,"end":"`...)
	b = appendTime(b, f.Last)
	b = append(b, '"')
	b = appendUint(b, "age", uint64(max(f.Last/1e9-f.Counts.Start/1e9, 0)))
	b = appendString(b, "state", f.State)
	b = appendString(b, "reason", f.Reason)
	if f.Action != "" {
		b = appendString(b, "action", f.Action)
	}
	if f.Alerted {
		b = append(b, `,"alerted":true}`...)
	} else {
		b = append(b, `,"alerted":false}`...)
	}
	if f.Raw != nil {
		b = appendFlowState(b, f.Raw)
	}
	b = append(b, `,"application":{`...)
	b = appendString(b, "name", f.Application)
	b = appendString(b, "visibility", f.Visibility)
	b = append(b, '}')
	w.write(b)
}

// DeviceSeen writes an inventory record; the object is ours.
func (w *Writer) DeviceSeen(d *finding.DeviceSeen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := append(w.buf[:0], `{"timestamp":"`...)
	b = appendTime(b, d.Last)
	b = append(b, `","event_type":"device"`...)
	b = appendString(b, "source", d.Source)
	if d.VendorClass != "" {
		b = appendString(b, "vendor_class", d.VendorClass)
	}
	b = appendDevice(b, &d.Device)
	w.write(b)
}

// Stats writes the last record: counters by name.
func (w *Writer) Stats(now int64, counters []Counter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := append(w.buf[:0], `{"timestamp":"`...)
	b = appendTime(b, now)
	b = append(b, `","event_type":"stats","stats":{`...)
	for _, c := range counters {
		b = appendUint(b, c.Name, c.Value)
	}
	b = append(b, '}')
	w.write(b)
}

// Counter is one number of a stats record.
type Counter struct {
	Name  string
	Value uint64
}
