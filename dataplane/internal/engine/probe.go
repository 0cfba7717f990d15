package engine

import (
	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/dcerpc"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/dhcp"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/dicom"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/dns"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/hl7"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/http"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/http2"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/krb5"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/mqtt"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/quic"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/rfb"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/sip"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/smb"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/smtp"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/snmp"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/ssh"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/tls"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// probeLimit is how many bytes of a direction are looked at before the protocol is given up.
const probeLimit = 4096

// protocol is a parser's entry. The order of the table is that of probing.
type protocol struct {
	app   rule.App
	tcp   bool
	udp   bool
	probe func(m *inspect.Meta, toServer bool, b []byte) inspect.Certainty
	new   func(w *Worker) inspect.Parser
}

var protocols = [...]protocol{
	{
		app: rule.AppTLS, tcp: true,
		probe: func(_ *inspect.Meta, toServer bool, b []byte) inspect.Certainty { return tls.Probe(toServer, b) },
		new:   func(*Worker) inspect.Parser { return tls.New() },
	},
	{
		app: rule.AppHTTP2, tcp: true,
		probe: func(_ *inspect.Meta, toServer bool, b []byte) inspect.Certainty { return http2.Probe(toServer, b) },
		new:   func(w *Worker) inspect.Parser { return http2.New(w.pool) },
	},
	{
		app: rule.AppHTTP1, tcp: true,
		probe: func(_ *inspect.Meta, toServer bool, b []byte) inspect.Certainty { return http.Probe(toServer, b) },
		new:   func(w *Worker) inspect.Parser { return http.New(w.pool) },
	},
	{
		app: rule.AppSMB, tcp: true,
		probe: func(_ *inspect.Meta, _ bool, b []byte) inspect.Certainty { return smb.Probe(b) },
		new:   func(w *Worker) inspect.Parser { return smb.New(w.pool) },
	},
	{
		app: rule.AppDCERPC, tcp: true, udp: true,
		probe: func(m *inspect.Meta, _ bool, b []byte) inspect.Certainty { return dcerpc.Probe(b, m.UDP) },
		new:   func(*Worker) inspect.Parser { return dcerpc.New() },
	},
	{
		app: rule.AppSMTP, tcp: true,
		probe: func(m *inspect.Meta, toServer bool, b []byte) inspect.Certainty {
			return smtp.Probe(toServer, b, m.ServerPort)
		},
		new: func(w *Worker) inspect.Parser { return smtp.New(w.pool) },
	},
	{
		app: rule.AppDICOM, tcp: true,
		probe: func(_ *inspect.Meta, toServer bool, b []byte) inspect.Certainty { return dicom.Probe(toServer, b) },
		new:   func(*Worker) inspect.Parser { return dicom.New() },
	},
	{
		app: rule.AppHL7, tcp: true,
		probe: func(_ *inspect.Meta, _ bool, b []byte) inspect.Certainty { return hl7.Probe(b) },
		new:   func(*Worker) inspect.Parser { return hl7.New() },
	},
	{
		app: rule.AppRFB, tcp: true,
		probe: func(_ *inspect.Meta, _ bool, b []byte) inspect.Certainty { return rfb.Probe(b) },
		new:   func(*Worker) inspect.Parser { return rfb.New() },
	},
	{
		app: rule.AppQUIC, udp: true,
		probe: func(_ *inspect.Meta, _ bool, b []byte) inspect.Certainty { return quic.Probe(b) },
		new:   func(*Worker) inspect.Parser { return quic.New() },
	},
	{
		app: rule.AppDHCP, udp: true,
		probe: func(m *inspect.Meta, _ bool, b []byte) inspect.Certainty { return onPort(m, dhcp.Probe(b), 67, 68) },
		new:   func(*Worker) inspect.Parser { return dhcp.New() },
	},
	{
		app: rule.AppSSH, tcp: true,
		probe: func(_ *inspect.Meta, _ bool, b []byte) inspect.Certainty { return ssh.Probe(b) },
		new:   func(*Worker) inspect.Parser { return ssh.New() },
	},
	{
		app: rule.AppSIP, tcp: true, udp: true,
		probe: func(_ *inspect.Meta, _ bool, b []byte) inspect.Certainty { return sip.Probe(b) },
		new:   func(*Worker) inspect.Parser { return sip.New() },
	},
	{
		app: rule.AppMQTT, tcp: true,
		probe: func(_ *inspect.Meta, toServer bool, b []byte) inspect.Certainty { return mqtt.Probe(toServer, b) },
		new:   func(*Worker) inspect.Parser { return mqtt.New() },
	},
	{
		app: rule.AppSNMP, udp: true,
		probe: func(m *inspect.Meta, _ bool, b []byte) inspect.Certainty {
			return onPort(m, snmp.Probe(b), 161, 162)
		},
		new: func(*Worker) inspect.Parser { return snmp.New() },
	},
	{
		app: rule.AppKRB5, tcp: true, udp: true,
		probe: func(m *inspect.Meta, _ bool, b []byte) inspect.Certainty { return krb5.Probe(b, m.UDP) },
		new:   func(*Worker) inspect.Parser { return krb5.New() },
	},
	{
		app: rule.AppMDNS, udp: true,
		probe: func(m *inspect.Meta, _ bool, b []byte) inspect.Certainty { return dnsOn(m, b, 5353) },
		new:   func(*Worker) inspect.Parser { return dns.New(rule.AppMDNS) },
	},
	{
		app: rule.AppLLMNR, udp: true,
		probe: func(m *inspect.Meta, _ bool, b []byte) inspect.Certainty { return dnsOn(m, b, 5355) },
		new:   func(*Worker) inspect.Parser { return dns.New(rule.AppLLMNR) },
	},
	{
		app: rule.AppDNS, tcp: true, udp: true,
		probe: func(m *inspect.Meta, _ bool, b []byte) inspect.Certainty {
			c := dns.Probe(b, m.UDP)
			if c == inspect.Yes && !m.UDP && m.ServerPort != 53 && m.ClientPort != 53 {
				return inspect.No // two length bytes and a header are too little to say DNS on any port
			}
			if m.UDP && (m.ServerPort == 137 || m.ClientPort == 137) {
				return inspect.No
			}
			return c
		},
		new: func(*Worker) inspect.Parser { return dns.New(rule.AppDNS) },
	},
}

// onPort takes a probe's yes only on the protocol's own ports: its first bytes are too common.
func onPort(m *inspect.Meta, c inspect.Certainty, ports ...uint16) inspect.Certainty {
	for _, p := range ports {
		if m.ServerPort == p || m.ClientPort == p {
			return c
		}
	}
	return inspect.No
}

func dnsOn(m *inspect.Meta, b []byte, port uint16) inspect.Certainty {
	if m.ServerPort != port && m.ClientPort != port {
		return inspect.No
	}
	return dns.Probe(b, true)
}

// probe finds the protocol of a flow by its first bytes. It gives up when every protocol was ruled out or enough was seen.
func (w *Worker) probe(f *flowT, toServer bool, b []byte, end bool) {
	x := &f.X
	if len(b) == 0 {
		return
	}
	d := 1
	if toServer {
		d = 0
	}
	open := false
	for i := range protocols {
		pr := &protocols[i]
		bit := uint64(1) << (uint(i)*2 + uint(d))
		if x.probeMask&bit != 0 || (x.meta.UDP && !pr.udp) || (!x.meta.UDP && !pr.tcp) {
			continue
		}
		switch pr.probe(&x.meta, toServer, b) {
		case inspect.Yes:
			w.found(f, pr.app, d)
			x.parser = w.takeParser(i)
			return
		case inspect.No:
			x.probeMask |= bit
		case inspect.Unsure:
			open = true
		}
	}
	x.tried[d] = len(b)
	if !open || end || len(b) >= probeLimit {
		x.appDir[d] = rule.AppFailed
		// A server that speaks first in an unknown tongue says little of the client: wait for both.
		if x.appDir[0] == rule.AppFailed && (x.appDir[1] == rule.AppFailed || x.meta.UDP || toServer) {
			x.app = rule.AppFailed
			x.appChanged = true
			w.classify(f)
		}
	}
}

func (w *Worker) found(f *flowT, app rule.App, d int) {
	f.X.app = app
	f.X.appDir[d] = app
	f.X.appChanged = true
}

func (w *Worker) takeParser(i int) inspect.Parser {
	if l := w.parsers[i]; len(l) > 0 {
		p := l[len(l)-1]
		w.parsers[i] = l[:len(l)-1]
		return p
	}
	return protocols[i].new(w)
}

func (w *Worker) putParser(p inspect.Parser) {
	p.Reset()
	for i := range protocols {
		if protocols[i].app == p.App() || protocols[i].app == rule.AppHTTP2 && p.App() == rule.AppDoH2 {
			if len(w.parsers[i]) < 256 {
				w.parsers[i] = append(w.parsers[i], p)
			}
			return
		}
	}
}
