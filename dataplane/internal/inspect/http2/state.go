package http2

import (
	"bytes"
	"encoding/base64"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/dns"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/http"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

type setting struct {
	id    uint16
	value uint32
}

type number struct {
	k        rule.Number
	toServer bool
	v        uint64
}

// Tx is a stream, or a frame of the connection.
type Tx struct {
	inspect.TxBase
	http        http.Tx
	stream      uint32
	parser      *Parser
	ended       [2]bool
	nums        []number
	settings    [2][]setting
	priority    [2]byte
	hasPriority [2]bool
	errorCode   [2]uint32
	hasError    [2]bool
	doh         bool
	dns         [2]*dns.Tx
	events      []rule.Event
}

var eventBadHeaders = rule.EventID("http2.failed_compression")

func (t *Tx) begin(id uint64, now int64, stream uint32, p *Parser) {
	t.ResetBase(id, now)
	t.http.BeginHTTP2(id, now, p.mem)
	t.stream, t.parser = stream, p
	t.ended, t.hasPriority, t.hasError = [2]bool{}, [2]bool{}, [2]bool{}
	t.nums, t.events = t.nums[:0], t.events[:0]
	t.settings = [2][]setting{t.settings[0][:0], t.settings[1][:0]}
	t.doh = false
	t.dns = [2]*dns.Tx{}
}

func (t *Tx) raise(e rule.Event) {
	if len(t.events) < 16 {
		t.events = append(t.events, e)
	}
}

// Events are those raised.
func (t *Tx) Events() []rule.Event { return t.events }

const maxNumbers = 256

func (t *Tx) num(k rule.Number, toServer bool, v uint64) {
	if len(t.nums) < maxNumbers {
		t.nums = append(t.nums, number{k, toServer, v})
	}
}

func (t *Tx) frame(toServer bool, typ byte) { t.num(rule.NumHTTP2FrameType, toServer, uint64(typ)) }

// close ends a direction.
func (t *Tx) close(toServer, truncated bool) {
	d := dir(toServer)
	if t.ended[d] {
		return
	}
	if t.doh {
		t.message(toServer)
	}
	t.http.End(toServer, truncated)
	t.ended[d] = true
	if t.ended[0] && t.ended[1] {
		t.Ready = true
	}
}

// message reads the DNS message that a direction carries (RFC 8484 4.1).
func (t *Tx) message(toServer bool) {
	b := t.http.BodyData(toServer)
	if toServer && len(b) == 0 {
		_, q, ok := bytes.Cut(t.http.URI(), []byte("dns="))
		if !ok {
			return
		}
		if i := bytes.IndexByte(q, '&'); i >= 0 {
			q = q[:i]
		}
		raw, err := base64.RawURLEncoding.DecodeString(string(bytes.TrimRight(q, "=")))
		if err != nil {
			return
		}
		b = raw
	}
	if len(b) >= 12 {
		t.dns[dir(toServer)] = dns.Message(b, t.ID, t.Time, toServer)
	}
}

// App is HTTP/2, or DNS over it.
func (t *Tx) App() rule.App {
	if t.doh {
		return rule.AppDoH2
	}
	return rule.AppHTTP2
}

// Complete says whether a direction is.
func (t *Tx) Complete(toServer bool) bool { return t.ended[dir(toServer)] }

// Files are the bodies.
func (t *Tx) Files() []*inspect.File { return t.http.Files() }

// Buffer gives what http.*, http2.* and, for DNS over HTTP, dns.* look at.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	switch b {
	case rule.BufHTTP2HeaderName:
		return t.http.FieldName(toServer, n)
	case rule.BufDNSQuery, rule.BufDNSQueriesName, rule.BufDNSAnswersName, rule.BufDNSAuthoritiesName, rule.BufDNSAdditionalsName,
		rule.BufDNSResponseName:
		if m := t.dns[dir(toServer)]; m != nil {
			return m.Buffer(b, toServer, n)
		}
		if t.ended[dir(toServer)] {
			return rule.Value{State: rule.Absent}
		}
		return rule.Value{State: rule.NotYet}
	default:
	}
	return t.http.Buffer(b, toServer, n)
}

// Number gives frame fields.
func (t *Tx) Number(k rule.Number, toServer bool, n int) (uint64, rule.State) {
	switch k {
	case rule.NumFileSize:
		return t.http.Number(k, toServer, n)
	case rule.NumDNSOpcode, rule.NumDNSRcode, rule.NumDNSRRType:
		if m := t.dns[dir(toServer)]; m != nil {
			return m.Number(k, toServer, n)
		}
	default:
		for i := range t.nums {
			if x := &t.nums[i]; x.k == k && x.toServer == toServer {
				if n == 0 {
					return x.v, rule.Done
				}
				n--
			}
		}
	}
	if t.ended[dir(toServer)] {
		return 0, rule.Absent
	}
	return 0, rule.NotYet
}

// EVEType is "http" as Suricata has it; streams that carry DNS are "dns".
func (t *Tx) EVEType() string {
	if t.dns[0] != nil || t.dns[1] != nil {
		return "dns"
	}
	return "http"
}

var settingNames = map[uint16]string{
	1: "SETTINGSHEADERTABLESIZE", 2: "SETTINGSENABLEPUSH", 3: "SETTINGSMAXCONCURRENTSTREAMS", 4: "SETTINGSINITIALWINDOWSIZE",
	5: "SETTINGSMAXFRAMESIZE", 6: "SETTINGSMAXHEADERLISTSIZE",
}

var errorNames = [...]string{
	"NOERROR", "PROTOCOLERROR", "INTERNALERROR", "FLOWCONTROLERROR", "SETTINGSTIMEOUT", "STREAMCLOSED", "FRAMESIZEERROR",
	"REFUSEDSTREAM", "CANCEL", "COMPRESSIONERROR", "CONNECTERROR", "ENHANCEYOURCALM", "INADEQUATESECURITY", "HTTP11REQUIRED",
}

// AppendEVE writes the object: http, or dns with http beside it.
func (t *Tx) AppendEVE(b []byte) []byte {
	if t.EVEType() == "dns" {
		return dns.AppendPair(b, t.dns[0], t.dns[1])
	}
	return t.appendHTTP(b)
}

// AppendExtra writes the http object beside dns.
func (t *Tx) AppendExtra(b []byte) []byte {
	if t.EVEType() != "dns" {
		return b
	}
	return t.appendHTTP(inspect.AppendKey(b, "http"))
}

// AppendFileExtra writes the http object beside fileinfo.
func (t *Tx) AppendFileExtra(b []byte) []byte { return t.appendHTTP(inspect.AppendKey(b, "http")) }

func (t *Tx) appendHTTP(b []byte) []byte {
	b = append(b, '{')
	b = inspect.AppendField(b, "version", []byte("2"))
	b = t.http.AppendHeaders(b)
	if t.stream != 0 {
		b = t.http.AppendFields(b)
	}
	b = append(inspect.AppendKey(b, "http2"), '{')
	b = strconv.AppendUint(inspect.AppendKey(b, "stream_id"), uint64(t.stream), 10)
	for d, key := range [2]string{"request", "response"} {
		b = append(inspect.AppendKey(b, key), '{')
		if len(t.settings[d]) > 0 {
			b = append(inspect.AppendKey(b, "settings"), '[')
			for i, s := range t.settings[d] {
				if i > 0 {
					b = append(b, ',')
				}
				name := settingNames[s.id]
				if name == "" {
					name = strconv.Itoa(int(s.id))
				}
				b = append(b, '{')
				b = inspect.AppendField(b, "settings_id", []byte(name))
				b = strconv.AppendUint(inspect.AppendKey(b, "settings_value"), uint64(s.value), 10)
				b = append(b, '}')
			}
			b = append(b, ']')
		}
		if t.hasPriority[d] {
			b = strconv.AppendUint(inspect.AppendKey(b, "priority"), uint64(t.priority[d]), 10)
		}
		if t.hasError[d] {
			name := strconv.Itoa(int(t.errorCode[d]))
			if int(t.errorCode[d]) < len(errorNames) {
				name = errorNames[t.errorCode[d]]
			}
			b = inspect.AppendField(b, "error_code", []byte(name))
		}
		b = append(b, '}')
	}
	return append(b, '}', '}')
}
