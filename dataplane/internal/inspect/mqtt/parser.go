// Package mqtt parses MQTT 3.1, 3.1.1 and 5 (OASIS mqtt-v3.1.1, mqtt-v5.0). The engine calls it; a transaction is a message
// with its acknowledgements. The trap: a message may announce 256 MB; more than the limit is passed over, not kept.
package mqtt

import (
	"encoding/binary"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Control packet types.
const (
	connect = 1 + iota
	connack
	publish
	puback
	pubrec
	pubrel
	pubcomp
	subscribe
	suback
	unsubscribe
	unsuback
	pingreq
	pingresp
	disconnect
	auth
)

var typeNames = [...]string{
	connect: "connect", connack: "connack", publish: "publish", puback: "puback", pubrec: "pubrec", pubrel: "pubrel", pubcomp: "pubcomp",
	subscribe: "subscribe", suback: "suback", unsubscribe: "unsubscribe", unsuback: "unsuback", pingreq: "pingreq",
	pingresp: "pingresp", disconnect: "disconnect", auth: "auth",
}

// maxMessage is how much of a message is read (Suricata's max-msg-length is 1 MB).
const maxMessage = 1 << 20

// Parser parses one flow.
type Parser struct {
	inspect.Queue[Tx, *Tx]
	version byte
	skip    [2]int
}

// Tx is one exchange.
type Tx struct {
	inspect.Fields
	id    uint16
	first byte // type that began it
	qos   byte
}

// New makes a parser.
func New() *Parser { return &Parser{} }

// App is MQTT.
func (p *Parser) App() rule.App { return rule.AppMQTT }

// Probe says whether bytes begin with CONNECT, or with CONNACK from a server.
func Probe(toServer bool, b []byte) inspect.Certainty {
	if len(b) == 0 {
		return inspect.Unsure
	}
	if !toServer {
		if len(b) >= 2 && b[0] == connack<<4 && b[1] >= 2 && b[1] < 64 {
			return inspect.Yes
		}
		return inspect.No
	}
	if b[0] != connect<<4 {
		return inspect.No
	}
	n, h, ok := length(b)
	if !ok {
		if len(b) < 5 {
			return inspect.Unsure
		}
		return inspect.No
	}
	if n < 10 {
		return inspect.No
	}
	b = b[h:]
	if len(b) < 8 {
		return inspect.Unsure
	}
	if string(b[2:6]) == "MQTT" || string(b[2:8]) == "MQIsdp" {
		return inspect.Yes
	}
	return inspect.No
}

// length reads the remaining length and gives the header's size.
func length(b []byte) (n, head int, ok bool) {
	for i := 1; i < 5; i++ {
		if i >= len(b) {
			return 0, 0, false
		}
		n |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			return n, i + 1, true
		}
	}
	return 0, -1, false
}

// Finish completes what is open.
func (p *Parser) Finish() {
	for i := range p.Len() {
		p.At(i).Both()
	}
}

// Reset forgets the flow.
func (p *Parser) Reset() {
	p.Empty()
	p.version = 0
	p.skip = [2]int{}
}

// Gap ends parsing.
func (p *Parser) Gap(*inspect.Meta, bool, uint64) inspect.Status { return inspect.Failed }

// Data parses.
func (p *Parser) Data(m *inspect.Meta, toServer bool, b []byte, _ bool) (int, inspect.Status) {
	d := 1
	if toServer {
		d = 0
	}
	used := 0
	if k := min(p.skip[d], len(b)); k > 0 {
		p.skip[d] -= k
		used = k
	}
	for len(b)-used >= 2 {
		r := b[used:]
		n, h, ok := length(r)
		if !ok {
			if h < 0 {
				return len(b), inspect.Failed
			}
			break
		}
		if r[0]>>4 == 0 {
			return len(b), inspect.Failed
		}
		if h+n > maxMessage {
			p.message(m, toServer, r[0], r[h:], true)
			p.skip[d] = h + n - len(r)
			if p.skip[d] < 0 {
				p.skip[d] = 0
				used += h + n
				continue
			}
			return len(b), inspect.More
		}
		if len(r) < h+n {
			break
		}
		p.message(m, toServer, r[0], r[h:h+n], false)
		used += h + n
	}
	return used, inspect.More
}

// reader takes fields off a message; ok turns false when one is cut off.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) u8() byte {
	if len(r.b) < 1 {
		r.ok = false
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) u16() uint16 {
	if len(r.b) < 2 {
		r.ok = false
		r.b = nil
		return 0
	}
	v := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return v
}

func (r *reader) u32() uint32 { return uint32(r.u16())<<16 | uint32(r.u16()) }

func (r *reader) text() []byte {
	n := int(r.u16())
	if n > len(r.b) {
		r.ok = false
		n = len(r.b)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int {
	n := 0
	for i := range 4 {
		c := r.u8()
		n |= int(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			break
		}
	}
	return n
}

var properties = map[byte]struct {
	name string
	kind byte // b one byte, w two, d four, s text, v varint, p pair
}{
	1: {"payload_format_indicator", 'b'}, 2: {"message_expiry_interval", 'd'}, 3: {"content_type", 's'}, 8: {"response_topic", 's'},
	9: {"correlation_data", 's'}, 11: {"subscription_identifier", 'v'}, 17: {"session_expiry_interval", 'd'},
	18: {"assigned_client_identifier", 's'}, 19: {"server_keep_alive", 'w'}, 21: {"authentication_method", 's'},
	22: {"authentication_data", 's'}, 23: {"request_problem_information", 'b'}, 24: {"will_delay_interval", 'd'},
	25: {"request_response_information", 'b'}, 26: {"response_information", 's'}, 28: {"server_reference", 's'},
	31: {"reason_string", 's'}, 33: {"receive_maximum", 'w'}, 34: {"topic_alias_maximum", 'w'}, 35: {"topic_alias", 'w'},
	36: {"maximum_qos", 'b'}, 37: {"retain_available", 'b'}, 38: {"userprop", 'p'}, 39: {"maximum_packet_size", 'd'},
	40: {"wildcard_subscription_available", 'b'}, 41: {"subscription_identifiers_available", 'b'}, 42: {"shared_subscription_available", 'b'},
}

func (p *Parser) props(tx *Tx, r *reader) {
	if p.version != 5 || len(r.b) == 0 {
		return
	}
	n := r.varint()
	if n > len(r.b) {
		r.ok = false
		n = len(r.b)
	}
	in := reader{r.b[:n], true}
	r.b = r.b[n:]
	if n == 0 {
		return
	}
	tx.JSONOpen("properties", '{')
	for len(in.b) > 0 && in.ok {
		x, ok := properties[in.u8()]
		if !ok {
			break
		}
		switch x.kind {
		case 'b':
			tx.JSONUint(x.name, uint64(in.u8()))
		case 'w':
			tx.JSONUint(x.name, uint64(in.u16()))
		case 'd':
			tx.JSONUint(x.name, uint64(in.u32()))
		case 'v':
			tx.JSONUint(x.name, uint64(in.varint()))
		case 's':
			tx.JSONText(x.name, in.text())
		case 'p':
			k := in.text()
			v := in.text()
			tx.Object = inspect.AppendJSON(commaBefore(tx.Object), k)
			tx.Object = inspect.AppendJSON(append(tx.Object, ':'), v)
		}
	}
	tx.JSONClose('}')
}

func commaBefore(b []byte) []byte {
	if c := b[len(b)-1]; c != '{' && c != '[' {
		return append(b, ',')
	}
	return b
}

func (p *Parser) message(m *inspect.Meta, toServer bool, first byte, b []byte, truncated bool) {
	typ, flags := first>>4, first&15
	qos := flags >> 1 & 3
	r := reader{b, true}
	var tx *Tx
	var id uint16
	switch typ {
	case publish:
		// the topic comes before the identifier
	case puback, pubrec, pubrel, pubcomp, suback, unsuback, subscribe, unsubscribe:
		id = r.u16()
	}
	answer := false
	switch typ {
	case connack:
		for i := range p.Len() {
			if t := p.At(i); t.first == connect && !t.Ready {
				tx, answer = t, true
			}
		}
	case puback, pubrec, pubcomp, suback, unsuback, pubrel:
		for i := range p.Len() {
			if t := p.At(i); t.id == id && !t.Ready && t.first != connect {
				tx, answer = t, true
			}
		}
	}
	if tx == nil {
		var txID uint64
		tx, txID = p.Add()
		tx.Clear(rule.AppMQTT, "mqtt", txID, m.Time)
		tx.id, tx.first, tx.qos = id, typ, qos
	}
	tx.Num(rule.NumMQTTType, toServer, uint64(typ))
	tx.Num(rule.NumMQTTFlags, toServer, uint64(flags))
	tx.Num(rule.NumMQTTQoS, toServer, uint64(qos))
	name := "unknown"
	if int(typ) < len(typeNames) {
		name = typeNames[typ]
	}
	tx.JSONOpen(name, '{')
	tx.JSONUint("qos", uint64(qos))
	tx.JSONBool("retain", flags&1 != 0)
	tx.JSONBool("dup", flags&8 != 0)
	if truncated {
		tx.JSONBool("truncated", true)
		tx.JSONUint("skipped_length", uint64(len(b)))
		tx.JSONClose('}')
		tx.Both()
		return
	}
	p.body(tx, typ, toServer, id, &r)
	tx.JSONClose('}')
	if p.version != 0 {
		tx.Num(rule.NumMQTTVersion, toServer, uint64(p.version))
	}
	var over bool
	switch typ {
	case pubrec, pubrel:
		over = false
	case publish:
		over = tx.qos == 0
	case pingreq, pingresp, disconnect, auth:
		over = true
	case connect, subscribe, unsubscribe:
		over = answer
	default:
		over = true
	}
	if over {
		tx.Both()
	}
}

func (p *Parser) body(tx *Tx, typ byte, toServer bool, id uint16, r *reader) {
	reason := func() {
		if p.version == 5 && len(r.b) > 0 {
			c := r.u8()
			tx.Num(rule.NumMQTTReason, toServer, uint64(c))
			tx.JSONUint("reason_code", uint64(c))
			p.props(tx, r)
		} else if p.version == 5 { // left out means success
			tx.JSONUint("reason_code", 0)
		}
	}
	switch typ {
	case connect:
		p.connect(tx, r)
	case connack:
		f := r.u8()
		c := r.u8()
		tx.JSONBool("session_present", f&1 != 0)
		tx.JSONUint("return_code", uint64(c))
		tx.Num(rule.NumMQTTSessionPresent, toServer, uint64(f&1))
		tx.Num(rule.NumMQTTReason, toServer, uint64(c))
		p.props(tx, r)
	case publish:
		topic := r.text()
		tx.Text(rule.BufMQTTPublishTopic, toServer, topic)
		tx.JSONText("topic", topic)
		if tx.qos > 0 {
			tx.id = r.u16()
			tx.JSONUint("message_id", uint64(tx.id))
		}
		p.props(tx, r)
		tx.Text(rule.BufMQTTPublishMessage, toServer, r.b)
		tx.JSONText("message", r.b)
	case puback, pubrec, pubrel, pubcomp:
		tx.JSONUint("message_id", uint64(id))
		reason()
	case subscribe:
		tx.JSONUint("message_id", uint64(id))
		p.props(tx, r)
		tx.JSONOpen("topics", '[')
		for len(r.b) > 2 && r.ok {
			t := r.text()
			q := r.u8()
			tx.Text(rule.BufMQTTSubscribeTopic, toServer, t)
			tx.JSONOpen("", '{')
			tx.JSONText("topic", t)
			tx.JSONUint("qos", uint64(q&3))
			tx.JSONClose('}')
		}
		tx.JSONClose(']')
	case unsubscribe:
		tx.JSONUint("message_id", uint64(id))
		p.props(tx, r)
		tx.JSONOpen("topics", '[')
		for len(r.b) > 2 && r.ok {
			t := r.text()
			tx.Text(rule.BufMQTTUnsubscribeTopic, toServer, t)
			tx.JSONItem(t)
		}
		tx.JSONClose(']')
	case suback, unsuback:
		tx.JSONUint("message_id", uint64(id))
		p.props(tx, r)
		if typ == suback || p.version == 5 {
			key := "qos_granted"
			if typ == unsuback {
				key = "reason_codes"
			}
			tx.JSONOpen(key, '[')
			for i, c := range r.b[:min(len(r.b), 64)] {
				if i > 0 {
					tx.Object = append(tx.Object, ',')
				}
				tx.Object = appendInt(tx.Object, c)
				tx.Num(rule.NumMQTTReason, toServer, uint64(c))
			}
			tx.JSONClose(']')
		}
	case disconnect, auth:
		if p.version == 5 {
			reason()
		}
	}
}

func appendInt(b []byte, c byte) []byte {
	if c >= 100 {
		b = append(b, '0'+c/100)
	}
	if c >= 10 {
		b = append(b, '0'+c/10%10)
	}
	return append(b, '0'+c%10)
}

func (p *Parser) connect(tx *Tx, r *reader) {
	proto := r.text()
	p.version = r.u8()
	flags := r.u8()
	_ = r.u16() // keep alive
	tx.JSONText("protocol_string", proto)
	tx.JSONUint("protocol_version", uint64(p.version))
	tx.JSONOpen("flags", '{')
	tx.JSONBool("username", flags&0x80 != 0)
	tx.JSONBool("password", flags&0x40 != 0)
	tx.JSONBool("will_retain", flags&0x20 != 0)
	tx.JSONBool("will", flags&4 != 0)
	tx.JSONBool("clean_session", flags&2 != 0)
	tx.JSONClose('}')
	tx.Text(rule.BufMQTTConnectProtocolString, true, proto)
	tx.Num(rule.NumMQTTConnectFlags, true, uint64(flags))
	mark := len(tx.Object)
	p.props(tx, r)
	props := append([]byte(nil), tx.Object[mark:]...)
	tx.Object = tx.Object[:mark]
	client := r.text()
	tx.Object = inspect.AppendJSON(inspect.AppendKey(tx.Object, "client_id"), client)
	tx.Text(rule.BufMQTTConnectClientid, true, client)
	var will []byte
	if flags&4 != 0 {
		mark = len(tx.Object)
		p.props(tx, r)
		will = append(will, tx.Object[mark:]...)
		tx.Object = tx.Object[:mark]
		topic := r.text()
		msg := r.text()
		tx.JSONOpen("will", '{')
		tx.JSONText("topic", topic)
		tx.JSONText("message", msg)
		tx.Object = append(tx.Object, will...)
		tx.JSONClose('}')
		tx.Text(rule.BufMQTTConnectWilltopic, true, topic)
		tx.Text(rule.BufMQTTConnectWillmessage, true, msg)
	}
	if flags&0x80 != 0 {
		v := r.text()
		tx.JSONText("username", v)
		tx.Text(rule.BufMQTTConnectUsername, true, v)
	}
	if flags&0x40 != 0 {
		v := r.text()
		tx.JSONText("password", v)
		tx.Text(rule.BufMQTTConnectPassword, true, v)
	}
	if len(props) > 0 {
		tx.Object = append(tx.Object, props...)
	}
}
