package rule

// Buffer names bytes that content, pcre and other payload keywords can look at.
type Buffer uint16

// The buffers. Behind each: its name in rules; "to server", "to client" or "both" are the directions it exists in;
// "many" means that it has instances.
const (
	// BufPayload is the packet's payload or the reassembled stream: what content means without a sticky buffer.
	BufPayload Buffer = iota
	// BufPktData is the packet's payload alone (pkt_data).
	BufPktData
	BufIPv4Hdr   // ipv4.hdr
	BufIPv6Hdr   // ipv6.hdr
	BufTCPHdr    // tcp.hdr
	BufUDPHdr    // udp.hdr
	BufICMPv4Hdr // icmpv4.hdr
	BufICMPv6Hdr // icmpv6.hdr
	// BufBase64 is what base64_decode left (base64_data); the Matcher makes it.
	BufBase64
	// From here on the parsers' transactions give them.
	BufHTTPURI                   // http.uri; to server; percent-decoded, path normalised
	BufHTTPURIRaw                // http.uri.raw; to server
	BufHTTPMethod                // http.method; to server
	BufHTTPProtocol              // http.protocol; both
	BufHTTPRequestLine           // http.request_line; to server; without the line end
	BufHTTPResponseLine          // http.response_line; to client
	BufHTTPHeader                // http.header; both; "Name: value\r\n" of all headers, without the empty line, normalised
	BufHTTPHeaderRaw             // http.header.raw; both; as sent, with the empty line
	BufHTTPCookie                // http.cookie; both
	BufHTTPUserAgent             // http.user_agent; to server
	BufHTTPHost                  // http.host; to server; lower case, without the port
	BufHTTPHostRaw               // http.host.raw; to server
	BufHTTPRequestBody           // http.request_body; to server
	BufHTTPResponseBody          // http.response_body; to client; decoded
	BufHTTPStatCode              // http.stat_code; to client
	BufHTTPStatMsg               // http.stat_msg; to client
	BufHTTPHeaderNames           // http.header_names; both; "\r\nHost\r\nUser-Agent\r\n\r\n"
	BufHTTPStart                 // http.start; both; first line and headers, with the empty line
	BufHTTPAccept                // http.accept; to server
	BufHTTPAcceptEnc             // http.accept_enc; to server
	BufHTTPAcceptLang            // http.accept_lang; to server
	BufHTTPReferer               // http.referer; to server
	BufHTTPConnection            // http.connection; both
	BufHTTPContentLen            // http.content_len; both
	BufHTTPContentType           // http.content_type; both
	BufHTTPLocation              // http.location; to client
	BufHTTPServer                // http.server; to client
	BufHTTPRequestHeader         // http.request_header; to server, many; one header an instance, "name: value"
	BufHTTPResponseHeader        // http.response_header; to client, many
	BufHTTP2HeaderName           // http2.header_name; both, many
	BufFileData                  // file.data; both, many; content of the n-th file; for http the decoded body
	BufFileName                  // file.name; both, many
	BufFileMagic                 // file.magic; both, many; libmagic's words for the first bytes
	BufFileMD5                   // file.md5; both, many; 32 hex digits, lower case; Absent until the file is whole, then if truncated
	BufFileSHA1                  // file.sha1; both, many
	BufFileSHA256                // file.sha256; both, many
	BufDNSQuery                  // dns.query; to server, many; name of the n-th question, dots between labels, as sent
	BufDNSQueriesName            // dns.queries.rrname; both, many
	BufDNSAnswersName            // dns.answers.rrname; both, many
	BufDNSAuthoritiesName        // dns.authorities.rrname; both, many
	BufDNSAdditionalsName        // dns.additionals.rrname; both, many
	BufDNSResponseName           // dns.response.rrname; to client, many; all names and name-valued data of a response
	BufMDNSQuery                 // mdns.queries.rrname; both, many
	BufMDNSResponse              // mdns.response.rrname; both, many
	BufTLSSNI                    // tls.sni; to server
	BufTLSCertSubject            // tls.cert_subject; both; "C=US, O=Example, CN=www.example.com"
	BufTLSCertIssuer             // tls.cert_issuer; both; "C=US, O=Example, CN=www.example.com"
	BufTLSCertSerial             // tls.cert_serial; both; "AB:CD:…"
	BufTLSCertFingerprint        // tls.cert_fingerprint; both; SHA-1, "ab:cd:…"
	BufTLSCerts                  // tls.certs; both, many; DER of each certificate
	BufTLSRandom                 // tls.random; both; 32 bytes
	BufTLSRandomTime             // tls.random_time; both
	BufTLSRandomBytes            // tls.random_bytes; both
	BufTLSALPN                   // tls.alpn; both, many
	BufTLSSubjectAltName         // tls.subjectaltname; to client, many
	BufJA3Hash                   // ja3.hash; to server
	BufJA3String                 // ja3.string; to server
	BufJA3SHash                  // ja3s.hash; to client
	BufJA3SString                // ja3s.string; to client
	BufJA4Hash                   // ja4.hash; to server
	BufSSHProto                  // ssh.proto; both
	BufSSHSoftware               // ssh.software; both
	BufSSHHassh                  // ssh.hassh; to server
	BufSSHHasshString            // ssh.hassh.string; to server
	BufSSHHasshServer            // ssh.hassh.server; to client
	BufSSHHasshServerString      // ssh.hassh.server.string; to client
	BufSMBNamedPipe              // smb.named_pipe; both
	BufSMBShare                  // smb.share; both
	BufSMBUser                   // smb.ntlmssp_user; to server
	BufSMBDomain                 // smb.ntlmssp_domain; to server
	BufDCEStubData               // dcerpc.stub_data; both
	BufSMTPHelo                  // smtp.helo; to server
	BufSMTPMailFrom              // smtp.mail_from; to server
	BufSMTPRcptTo                // smtp.rcpt_to; to server, many
	BufEmailFrom                 // email.from; to server
	BufEmailTo                   // email.to; to server
	BufEmailCc                   // email.cc; to server
	BufEmailSubject              // email.subject; to server
	BufEmailDate                 // email.date; to server
	BufEmailMessageID            // email.message_id; to server
	BufEmailXMailer              // email.x_mailer; to server
	BufEmailURL                  // email.url; to server, many
	BufEmailReceived             // email.received; to server, many
	BufEmailBodyMD5              // email.body_md5; to server
	BufEmailCommand              // email.command; to server, many
	BufKRB5CName                 // krb5.cname; to client, many
	BufKRB5SName                 // krb5.sname; to client, many
	BufSIPMethod                 // sip.method; to server
	BufSIPUri                    // sip.uri; to server
	BufSIPProtocol               // sip.protocol; both
	BufSIPStatCode               // sip.stat_code; to client
	BufSIPStatMsg                // sip.stat_msg; to client
	BufSIPRequestLine            // sip.request_line; to server
	BufSIPResponseLine           // sip.response_line; to client
	BufSIPFrom                   // sip.from; both, many
	BufSIPTo                     // sip.to; both, many
	BufSIPVia                    // sip.via; both, many
	BufSIPUserAgent              // sip.user_agent; both, many
	BufSIPContentType            // sip.content_type; both, many
	BufSIPContentLength          // sip.content_length; both, many
	BufSNMPCommunity             // snmp.community; both
	BufSNMPUSM                   // snmp.usm; both
	BufFTPCommand                // ftp.command; to server
	BufFTPCommandData            // ftp.command_data; to server
	BufFTPReply                  // ftp.reply; to client, many
	BufFTPCompletionCode         // ftp.completion_code; to client, many
	BufMQTTConnectClientid       // mqtt.connect.clientid; to server
	BufMQTTConnectUsername       // mqtt.connect.username; to server
	BufMQTTConnectPassword       // mqtt.connect.password; to server
	BufMQTTConnectProtocolString // mqtt.connect.protocol_string; to server
	BufMQTTConnectWilltopic      // mqtt.connect.willtopic; to server
	BufMQTTConnectWillmessage    // mqtt.connect.willmessage; to server
	BufMQTTPublishTopic          // mqtt.publish.topic; both
	BufMQTTPublishMessage        // mqtt.publish.message; both
	BufMQTTSubscribeTopic        // mqtt.subscribe.topic; to server, many
	BufMQTTUnsubscribeTopic      // mqtt.unsubscribe.topic; to server, many
	BufIKEInitSpi                // ike.init_spi; both
	BufIKERespSpi                // ike.resp_spi; both
	BufIKEVendor                 // ike.vendor; both, many
	BufIKEKeyExchangePayload     // ike.key_exchange_payload; both
	BufIKENoncePayload           // ike.nonce_payload; both
	BufQUICSNI                   // quic.sni; to server
	BufQUICUserAgent             // quic.ua; to server
	BufQUICVersion               // quic.version; both; the four bytes of the header
	BufQUICCyuHash               // quic.cyu.hash; to server, many
	BufQUICCyuString             // quic.cyu.string; to server, many
	BufRFBName                   // rfb.name; to client
	BufRDPCookie                 // rdp.cookie; to server
	BufLDAPBaseObject            // ldap.request.dn; to server
	BufLDAPResponseDN            // ldap.responses.dn; to client, many
	BufDHCPHostname              // dhcp.hostname; both
	bufferCount
)

const firstTxBuffer = BufHTTPURI

// bufferInfo describes a buffer.
type bufferInfo struct {
	name      string
	aliases   []string // further sticky names
	modifiers []string // old-style names that follow a content
	server    bool     // exists towards the server
	client    bool     // exists towards the client
	many      bool
	names     bool // holds a host name that makes an Indicator
	apps      AppSet
}

var buffers = [bufferCount]bufferInfo{
	BufPayload:                   {name: "payload"},
	BufPktData:                   {name: "pkt_data"},
	BufIPv4Hdr:                   {name: "ipv4.hdr"},
	BufIPv6Hdr:                   {name: "ipv6.hdr"},
	BufTCPHdr:                    {name: "tcp.hdr"},
	BufUDPHdr:                    {name: "udp.hdr"},
	BufICMPv4Hdr:                 {name: "icmpv4.hdr"},
	BufICMPv6Hdr:                 {name: "icmpv6.hdr"},
	BufBase64:                    {name: "base64_data"},
	BufHTTPURI:                   {name: "http.uri", modifiers: []string{"http_uri", "uricontent"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPURIRaw:                {name: "http.uri.raw", modifiers: []string{"http_raw_uri"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPMethod:                {name: "http.method", modifiers: []string{"http_method"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPProtocol:              {name: "http.protocol", aliases: []string{"http_protocol"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPRequestLine:           {name: "http.request_line", aliases: []string{"http_request_line"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPResponseLine:          {name: "http.response_line", aliases: []string{"http_response_line"}, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPHeader:                {name: "http.header", modifiers: []string{"http_header"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPHeaderRaw:             {name: "http.header.raw", modifiers: []string{"http_raw_header"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPCookie:                {name: "http.cookie", modifiers: []string{"http_cookie"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPUserAgent:             {name: "http.user_agent", modifiers: []string{"http_user_agent"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPHost:                  {name: "http.host", modifiers: []string{"http_host"}, server: true, names: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPHostRaw:               {name: "http.host.raw", modifiers: []string{"http_raw_host"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPRequestBody:           {name: "http.request_body", modifiers: []string{"http_client_body"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPResponseBody:          {name: "http.response_body", modifiers: []string{"http_server_body"}, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPStatCode:              {name: "http.stat_code", modifiers: []string{"http_stat_code"}, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPStatMsg:               {name: "http.stat_msg", modifiers: []string{"http_stat_msg"}, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPHeaderNames:           {name: "http.header_names", aliases: []string{"http_header_names"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPStart:                 {name: "http.start", aliases: []string{"http_start"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPAccept:                {name: "http.accept", aliases: []string{"http_accept"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPAcceptEnc:             {name: "http.accept_enc", aliases: []string{"http_accept_enc"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPAcceptLang:            {name: "http.accept_lang", aliases: []string{"http_accept_lang"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPReferer:               {name: "http.referer", aliases: []string{"http_referer"}, server: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPConnection:            {name: "http.connection", aliases: []string{"http_connection"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPContentLen:            {name: "http.content_len", aliases: []string{"http_content_len"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPContentType:           {name: "http.content_type", aliases: []string{"http_content_type"}, server: true, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPLocation:              {name: "http.location", aliases: []string{"http_location"}, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPServer:                {name: "http.server", aliases: []string{"http_server"}, client: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPRequestHeader:         {name: "http.request_header", aliases: []string{"http_request_header"}, server: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTPResponseHeader:        {name: "http.response_header", aliases: []string{"http_response_header"}, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2)},
	BufHTTP2HeaderName:           {name: "http2.header_name", server: true, client: true, many: true, apps: appsOf(AppHTTP2, AppDoH2)},
	BufFileData:                  {name: "file.data", aliases: []string{"file_data"}, server: true, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2, AppSMTP, AppIMAP, AppPOP3, AppFTPData, AppSMB, AppNFS, AppTFTP)},
	BufFileName:                  {name: "file.name", aliases: []string{"filename_buffer"}, server: true, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2, AppSMTP, AppIMAP, AppPOP3, AppFTPData, AppSMB, AppNFS, AppTFTP)},
	BufFileMagic:                 {name: "file.magic", server: true, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2, AppSMTP, AppIMAP, AppPOP3, AppFTPData, AppSMB, AppNFS, AppTFTP)},
	BufFileMD5:                   {name: "file.md5", server: true, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2, AppSMTP, AppIMAP, AppPOP3, AppFTPData, AppSMB, AppNFS, AppTFTP)},
	BufFileSHA1:                  {name: "file.sha1", server: true, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2, AppSMTP, AppIMAP, AppPOP3, AppFTPData, AppSMB, AppNFS, AppTFTP)},
	BufFileSHA256:                {name: "file.sha256", server: true, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2, AppSMTP, AppIMAP, AppPOP3, AppFTPData, AppSMB, AppNFS, AppTFTP)},
	BufDNSQuery:                  {name: "dns.query", aliases: []string{"dns_query"}, server: true, many: true, names: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	BufDNSQueriesName:            {name: "dns.queries.rrname", server: true, client: true, many: true, names: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	BufDNSAnswersName:            {name: "dns.answers.rrname", server: true, client: true, many: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	BufDNSAuthoritiesName:        {name: "dns.authorities.rrname", server: true, client: true, many: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	BufDNSAdditionalsName:        {name: "dns.additionals.rrname", server: true, client: true, many: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	BufDNSResponseName:           {name: "dns.response.rrname", client: true, many: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	BufMDNSQuery:                 {name: "mdns.queries.rrname", server: true, client: true, many: true, apps: appsOf(AppMDNS)},
	BufMDNSResponse:              {name: "mdns.response.rrname", server: true, client: true, many: true, apps: appsOf(AppMDNS)},
	BufTLSSNI:                    {name: "tls.sni", aliases: []string{"tls_sni"}, server: true, names: true, apps: appsOf(AppTLS, AppQUIC)},
	BufTLSCertSubject:            {name: "tls.cert_subject", aliases: []string{"tls_cert_subject", "tls.subject", "tls.subjectdn"}, server: true, client: true, apps: appsOf(AppTLS)},
	BufTLSCertIssuer:             {name: "tls.cert_issuer", aliases: []string{"tls_cert_issuer", "tls.issuerdn"}, server: true, client: true, apps: appsOf(AppTLS)},
	BufTLSCertSerial:             {name: "tls.cert_serial", aliases: []string{"tls_cert_serial"}, server: true, client: true, apps: appsOf(AppTLS)},
	BufTLSCertFingerprint:        {name: "tls.cert_fingerprint", aliases: []string{"tls_cert_fingerprint", "tls.fingerprint"}, server: true, client: true, apps: appsOf(AppTLS)},
	BufTLSCerts:                  {name: "tls.certs", server: true, client: true, many: true, apps: appsOf(AppTLS)},
	BufTLSRandom:                 {name: "tls.random", server: true, client: true, apps: appsOf(AppTLS)},
	BufTLSRandomTime:             {name: "tls.random_time", server: true, client: true, apps: appsOf(AppTLS)},
	BufTLSRandomBytes:            {name: "tls.random_bytes", server: true, client: true, apps: appsOf(AppTLS)},
	BufTLSALPN:                   {name: "tls.alpn", server: true, client: true, many: true, apps: appsOf(AppTLS, AppQUIC)},
	BufTLSSubjectAltName:         {name: "tls.subjectaltname", client: true, many: true, apps: appsOf(AppTLS)},
	BufJA3Hash:                   {name: "ja3.hash", aliases: []string{"ja3_hash"}, server: true, apps: appsOf(AppTLS, AppQUIC)},
	BufJA3String:                 {name: "ja3.string", aliases: []string{"ja3_string"}, server: true, apps: appsOf(AppTLS, AppQUIC)},
	BufJA3SHash:                  {name: "ja3s.hash", client: true, apps: appsOf(AppTLS, AppQUIC)},
	BufJA3SString:                {name: "ja3s.string", client: true, apps: appsOf(AppTLS, AppQUIC)},
	BufJA4Hash:                   {name: "ja4.hash", server: true, apps: appsOf(AppTLS, AppQUIC)},
	BufSSHProto:                  {name: "ssh.proto", aliases: []string{"ssh_proto"}, server: true, client: true, apps: appsOf(AppSSH)},
	BufSSHSoftware:               {name: "ssh.software", aliases: []string{"ssh_software"}, server: true, client: true, apps: appsOf(AppSSH)},
	BufSSHHassh:                  {name: "ssh.hassh", aliases: []string{"ssh-hassh"}, server: true, apps: appsOf(AppSSH)},
	BufSSHHasshString:            {name: "ssh.hassh.string", server: true, apps: appsOf(AppSSH)},
	BufSSHHasshServer:            {name: "ssh.hassh.server", aliases: []string{"ssh-hassh-server"}, client: true, apps: appsOf(AppSSH)},
	BufSSHHasshServerString:      {name: "ssh.hassh.server.string", client: true, apps: appsOf(AppSSH)},
	BufSMBNamedPipe:              {name: "smb.named_pipe", aliases: []string{"smb_named_pipe"}, server: true, client: true, apps: appsOf(AppSMB)},
	BufSMBShare:                  {name: "smb.share", aliases: []string{"smb_share"}, server: true, client: true, apps: appsOf(AppSMB)},
	BufSMBUser:                   {name: "smb.ntlmssp_user", server: true, apps: appsOf(AppSMB)},
	BufSMBDomain:                 {name: "smb.ntlmssp_domain", server: true, apps: appsOf(AppSMB)},
	BufDCEStubData:               {name: "dcerpc.stub_data", aliases: []string{"dce_stub_data"}, server: true, client: true, apps: appsOf(AppDCERPC, AppSMB)},
	BufSMTPHelo:                  {name: "smtp.helo", server: true, apps: appsOf(AppSMTP)},
	BufSMTPMailFrom:              {name: "smtp.mail_from", server: true, apps: appsOf(AppSMTP)},
	BufSMTPRcptTo:                {name: "smtp.rcpt_to", server: true, many: true, apps: appsOf(AppSMTP)},
	BufEmailFrom:                 {name: "email.from", server: true, apps: appsOf(AppSMTP)},
	BufEmailTo:                   {name: "email.to", server: true, apps: appsOf(AppSMTP)},
	BufEmailCc:                   {name: "email.cc", server: true, apps: appsOf(AppSMTP)},
	BufEmailSubject:              {name: "email.subject", server: true, apps: appsOf(AppSMTP)},
	BufEmailDate:                 {name: "email.date", server: true, apps: appsOf(AppSMTP)},
	BufEmailMessageID:            {name: "email.message_id", server: true, apps: appsOf(AppSMTP)},
	BufEmailXMailer:              {name: "email.x_mailer", server: true, apps: appsOf(AppSMTP)},
	BufEmailURL:                  {name: "email.url", server: true, many: true, apps: appsOf(AppSMTP)},
	BufEmailReceived:             {name: "email.received", server: true, many: true, apps: appsOf(AppSMTP)},
	BufEmailBodyMD5:              {name: "email.body_md5", server: true, apps: appsOf(AppSMTP)},
	BufEmailCommand:              {name: "email.command", server: true, many: true, apps: appsOf(AppSMTP)},
	BufKRB5CName:                 {name: "krb5.cname", aliases: []string{"krb5_cname"}, client: true, many: true, apps: appsOf(AppKRB5)},
	BufKRB5SName:                 {name: "krb5.sname", aliases: []string{"krb5_sname"}, client: true, many: true, apps: appsOf(AppKRB5)},
	BufSIPMethod:                 {name: "sip.method", server: true, apps: appsOf(AppSIP)},
	BufSIPUri:                    {name: "sip.uri", server: true, apps: appsOf(AppSIP)},
	BufSIPProtocol:               {name: "sip.protocol", server: true, client: true, apps: appsOf(AppSIP)},
	BufSIPStatCode:               {name: "sip.stat_code", client: true, apps: appsOf(AppSIP)},
	BufSIPStatMsg:                {name: "sip.stat_msg", client: true, apps: appsOf(AppSIP)},
	BufSIPRequestLine:            {name: "sip.request_line", server: true, apps: appsOf(AppSIP)},
	BufSIPResponseLine:           {name: "sip.response_line", client: true, apps: appsOf(AppSIP)},
	BufSIPFrom:                   {name: "sip.from", server: true, client: true, many: true, apps: appsOf(AppSIP)},
	BufSIPTo:                     {name: "sip.to", server: true, client: true, many: true, apps: appsOf(AppSIP)},
	BufSIPVia:                    {name: "sip.via", server: true, client: true, many: true, apps: appsOf(AppSIP)},
	BufSIPUserAgent:              {name: "sip.user_agent", server: true, client: true, many: true, apps: appsOf(AppSIP)},
	BufSIPContentType:            {name: "sip.content_type", server: true, client: true, many: true, apps: appsOf(AppSIP)},
	BufSIPContentLength:          {name: "sip.content_length", server: true, client: true, many: true, apps: appsOf(AppSIP)},
	BufSNMPCommunity:             {name: "snmp.community", server: true, client: true, apps: appsOf(AppSNMP)},
	BufSNMPUSM:                   {name: "snmp.usm", server: true, client: true, apps: appsOf(AppSNMP)},
	BufFTPCommand:                {name: "ftp.command", server: true, apps: appsOf(AppFTP)},
	BufFTPCommandData:            {name: "ftp.command_data", server: true, apps: appsOf(AppFTP)},
	BufFTPReply:                  {name: "ftp.reply", client: true, many: true, apps: appsOf(AppFTP)},
	BufFTPCompletionCode:         {name: "ftp.completion_code", client: true, many: true, apps: appsOf(AppFTP)},
	BufMQTTConnectClientid:       {name: "mqtt.connect.clientid", server: true, apps: appsOf(AppMQTT)},
	BufMQTTConnectUsername:       {name: "mqtt.connect.username", server: true, apps: appsOf(AppMQTT)},
	BufMQTTConnectPassword:       {name: "mqtt.connect.password", server: true, apps: appsOf(AppMQTT)},
	BufMQTTConnectProtocolString: {name: "mqtt.connect.protocol_string", server: true, apps: appsOf(AppMQTT)},
	BufMQTTConnectWilltopic:      {name: "mqtt.connect.willtopic", server: true, apps: appsOf(AppMQTT)},
	BufMQTTConnectWillmessage:    {name: "mqtt.connect.willmessage", server: true, apps: appsOf(AppMQTT)},
	BufMQTTPublishTopic:          {name: "mqtt.publish.topic", server: true, client: true, apps: appsOf(AppMQTT)},
	BufMQTTPublishMessage:        {name: "mqtt.publish.message", server: true, client: true, apps: appsOf(AppMQTT)},
	BufMQTTSubscribeTopic:        {name: "mqtt.subscribe.topic", server: true, many: true, apps: appsOf(AppMQTT)},
	BufMQTTUnsubscribeTopic:      {name: "mqtt.unsubscribe.topic", server: true, many: true, apps: appsOf(AppMQTT)},
	BufIKEInitSpi:                {name: "ike.init_spi", server: true, client: true, apps: appsOf(AppIKE)},
	BufIKERespSpi:                {name: "ike.resp_spi", server: true, client: true, apps: appsOf(AppIKE)},
	BufIKEVendor:                 {name: "ike.vendor", server: true, client: true, many: true, apps: appsOf(AppIKE)},
	BufIKEKeyExchangePayload:     {name: "ike.key_exchange_payload", server: true, client: true, apps: appsOf(AppIKE)},
	BufIKENoncePayload:           {name: "ike.nonce_payload", server: true, client: true, apps: appsOf(AppIKE)},
	BufQUICSNI:                   {name: "quic.sni", server: true, names: true, apps: appsOf(AppQUIC)},
	BufQUICUserAgent:             {name: "quic.ua", server: true, apps: appsOf(AppQUIC)},
	BufQUICVersion:               {name: "quic.version", server: true, client: true, apps: appsOf(AppQUIC)},
	BufQUICCyuHash:               {name: "quic.cyu.hash", server: true, many: true, apps: appsOf(AppQUIC)},
	BufQUICCyuString:             {name: "quic.cyu.string", server: true, many: true, apps: appsOf(AppQUIC)},
	BufRFBName:                   {name: "rfb.name", client: true, apps: appsOf(AppRFB)},
	BufRDPCookie:                 {name: "rdp.cookie", server: true, apps: appsOf(AppRDP)},
	BufLDAPBaseObject:            {name: "ldap.request.dn", server: true, apps: appsOf(AppLDAP)},
	BufLDAPResponseDN:            {name: "ldap.responses.dn", client: true, many: true, apps: appsOf(AppLDAP)},
	BufDHCPHostname:              {name: "dhcp.hostname", server: true, client: true, apps: appsOf(AppDHCP)},
}

// String is the buffer's name in rules.
func (b Buffer) String() string {
	if b >= bufferCount {
		return ""
	}
	return buffers[b].name
}

// Many says whether the buffer has instances.
func (b Buffer) Many() bool { return buffers[b].many }

// Apps says which protocols' transactions have the buffer.
func (b Buffer) Apps() AppSet { return buffers[b].apps }
