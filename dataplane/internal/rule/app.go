package rule

// App is an application protocol as rules name it.
type App uint8

// The protocols. AppFailed means that none was recognised and none will be.
const (
	AppUnknown App = iota
	AppFailed
	AppHTTP1
	AppHTTP2
	AppDoH2 // DNS over HTTP/2
	AppTLS
	AppSSH
	AppSMTP
	AppIMAP
	AppPOP3
	AppFTP
	AppFTPData
	AppSMB
	AppDCERPC
	AppDNS
	AppMDNS
	AppLLMNR
	AppNBNS
	AppSSDP
	AppLDAP
	AppNFS
	AppNTP
	AppTFTP
	AppIKE
	AppKRB5
	AppDHCP
	AppSNMP
	AppSIP
	AppRFB
	AppMQTT
	AppTelnet
	AppWebSocket
	AppQUIC
	AppRDP
	AppModbus
	AppENIP
	AppDNP3
	AppPgSQL
	AppBitTorrentDHT
	AppIPP
	AppJetDirect
	AppLPD
	AppDICOM
	AppHL7
	AppORCA
	appCount
)

// appNames are the words of Suricata where it has one ("http" covers http1 and http2: see appSets).
var appNames = [appCount]string{
	AppUnknown: "unknown", AppFailed: "failed", AppHTTP1: "http1", AppHTTP2: "http2", AppDoH2: "doh2", AppTLS: "tls",
	AppSSH: "ssh", AppSMTP: "smtp", AppIMAP: "imap", AppPOP3: "pop3", AppFTP: "ftp", AppFTPData: "ftp-data",
	AppSMB: "smb", AppDCERPC: "dcerpc", AppDNS: "dns", AppMDNS: "mdns", AppLLMNR: "llmnr", AppNBNS: "nbns",
	AppSSDP: "ssdp", AppLDAP: "ldap", AppNFS: "nfs", AppNTP: "ntp", AppTFTP: "tftp", AppIKE: "ike", AppKRB5: "krb5",
	AppDHCP: "dhcp", AppSNMP: "snmp", AppSIP: "sip", AppRFB: "rfb", AppMQTT: "mqtt", AppTelnet: "telnet",
	AppWebSocket: "websocket", AppQUIC: "quic", AppRDP: "rdp", AppModbus: "modbus", AppENIP: "enip", AppDNP3: "dnp3",
	AppPgSQL: "pgsql", AppBitTorrentDHT: "bittorrent-dht", AppIPP: "ipp", AppJetDirect: "jetdirect", AppLPD: "lpd",
	AppDICOM: "dicom", AppHL7: "hl7", AppORCA: "orca",
}

// String is the name in rules ("http1", "dns"), "" for a number that is none.
func (a App) String() string {
	if a >= appCount {
		return ""
	}
	return appNames[a]
}

// AppSet is a set of protocols.
type AppSet uint64

// Has says whether a is in the set.
func (s AppSet) Has(a App) bool { return s&(1<<a) != 0 }

func appsOf(apps ...App) AppSet {
	var s AppSet
	for _, a := range apps {
		s |= 1 << a
	}
	return s
}

// appSets are names that stand for more than one protocol.
var appSets = map[string]AppSet{
	"http":   appsOf(AppHTTP1, AppHTTP2),
	"http2":  appsOf(AppHTTP2, AppDoH2),
	"dns":    appsOf(AppDNS, AppDoH2),
	"dcerpc": appsOf(AppDCERPC, AppSMB),
	"ssl":    appsOf(AppTLS),
	"ftp":    appsOf(AppFTP),
	"ikev2":  appsOf(AppIKE),
}

// AppByName finds the set of protocols a name in a rule's header stands for; ok is false for an unknown name.
func AppByName(name string) (set AppSet, ok bool) {
	if s, ok := appSets[name]; ok {
		return s, true
	}
	for a := AppHTTP1; a < appCount; a++ {
		if appNames[a] == name {
			return 1 << a, true
		}
	}
	return 0, false
}
