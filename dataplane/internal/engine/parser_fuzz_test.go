package engine

import (
	"testing"

	"github.com/kadomori/kadomori/dataplane/internal/finding"
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	pt "github.com/kadomori/kadomori/dataplane/internal/packet/packettest"
	"github.com/kadomori/kadomori/dataplane/internal/rule"

	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
)

// FuzzParsers gives the same bytes to every parser, in pieces, in both directions, with gaps, and then asks for everything a
// rule or a log could ask for. data begins with the number of the protocol.
func FuzzParsers(f *testing.F) {
	seeds := [][]byte{
		pt.ClientHello("www.example.jp"), pt.DNSQuery(1, "a.example.jp"),
		[]byte("GET /a%41?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
		[]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
		[]byte("POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 90\r\n\r\n--x\r\nContent-Disposition: form-data; filename=a\r\n\r\nabc\r\n--x--\r\n"),
		[]byte("SSH-2.0-OpenSSH\r\n\x00\x00\x00\x0c\x0a\x14abcdefghij"), []byte("EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nTVqQ\r\n--q--\r\n.\r\n"),
		[]byte("\x00\x00\x00\x45\xfeSMB\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("\x05\x00\x0b\x03\x10\x00\x00\x00\x48\x00\x00\x00\x01\x00\x00\x00\xb8\x10\xb8\x10\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00"),
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x00\x03\x01\x05\x00\x00\x00\x01\x82\x84\x86"),
		[]byte("\x10\x10\x00\x04MQTT\x05\xc2\x00\x3c\x00\x00\x04user"), []byte("INVITE sip:a SIP/2.0\r\nContent-Type: application/sdp\r\nContent-Length: 4\r\n\r\nv=0\n"),
		[]byte("\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\x00\x05\x00"),
		[]byte("\xfe"), []byte("\x80\x2e\x01\x03\x01"), []byte("RFB 003.008\n\x01\x02"), []byte("\x0bMSH|^~\\&|a|b|c|d|e||ADT^A01|1\rPID|x\r\x1c\x0d"), []byte("\x01\x00\x00\x00\x00\x44\x00\x01\x00\x00CALLED          CALLING         "),
	}
	for i := range protocols {
		for _, s := range seeds {
			f.Add(append([]byte{byte(i)}, s...), uint8(7), true)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8, udp bool) {
		if len(data) < 2 {
			return
		}
		pr := &protocols[int(data[0])%len(protocols)]
		data = data[1:]
		_, w, _ := newTest(t, policyv1.Mode_MODE_NOTIFY)
		m := &inspect.Meta{UDP: udp && pr.udp, ServerPort: 53, ClientPort: 40000, Time: t0}
		pr.probe(m, true, data)
		pr.probe(m, false, data)
		p := pr.new(w)
		for round := range 2 {
			for d := range 2 {
				toServer := d == 0
				var buf []byte
				for i := 0; i < len(data); i += int(step) + 1 {
					buf = append(buf, data[i:min(i+int(step)+1, len(data))]...)
					used, st := p.Data(m, toServer, buf, i+int(step)+1 >= len(data))
					if used < 0 || used > len(buf) {
						t.Fatalf("%v used %d of %d bytes", pr.app, used, len(buf))
					}
					buf = buf[:copy(buf, buf[used:])]
					ask(t, p)
					if st != inspect.More {
						break
					}
				}
				if round == 1 {
					p.Gap(m, toServer, 10)
				}
			}
			p.Finish()
			ask(t, p)
			p.Drop(len(p.Txs()))
			p.Reset()
		}
		if n := w.pool.InUse(); n != 0 {
			t.Fatalf("%v: %d bytes of memory were not given back", pr.app, n)
		}
	})
}

// ask asks for everything.
func ask(t *testing.T, p inspect.Parser) {
	t.Helper()
	for _, tx := range p.Txs() {
		for b := rule.Buffer(0); b < 160; b++ {
			for n := range 3 {
				tx.Buffer(b, true, n)
				tx.Buffer(b, false, n)
			}
		}
		for k := rule.Number(0); k < 64; k++ {
			tx.Number(k, true, 0)
			tx.Number(k, false, 0)
		}
		var f finding.Transaction = tx
		f.AppendEVE(nil)
		if x, ok := tx.(inspect.Filer); ok {
			for _, file := range x.Files() {
				file.AppendExtra(file.AppendEVE(nil))
			}
		}
		if x, ok := tx.(rule.DCETransaction); ok {
			x.DCEInterfaces()
			x.LittleEndian()
		}
	}
}
