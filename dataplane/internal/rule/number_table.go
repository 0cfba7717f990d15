package rule

// Number names an integer of a transaction that a keyword compares.
type Number uint16

// The numbers. Behind each: the keyword, its directions, "many" when it has instances.
const (
	NumFileSize           Number = iota // filesize; both, many; bytes so far; Done when the file is closed
	NumDNSOpcode                        // dns.opcode; both
	NumDNSRcode                         // dns.rcode; both
	NumDNSRRType                        // dns.rrtype; both, many; of a request's questions, of a response's answers
	NumTLSVersion                       // tls.version; both; 0x0303 …
	NumTLSChainLen                      // tls.cert_chain_len; to client
	NumTLSNotBefore                     // tls_cert_notbefore; to client; Unix seconds
	NumTLSNotAfter                      // tls_cert_notafter; to client; Unix seconds
	NumSSLState                         // ssl_state; both; bits: 1 client_hello, 2 server_hello, 4 client_keyx, 8 server_keyx, 16 unknown
	NumDCEOpnum                         // dcerpc.opnum; both
	NumSMBVersion                       // smb.version; both; 1 or 2
	NumKRB5MsgType                      // krb5_msg_type; both
	NumKRB5ErrCode                      // krb5_err_code; to client
	NumKRB5Ticket                       // krb5.ticket_encryption; both; etype as int32 in the low half
	NumSNMPVersion                      // snmp.version; both
	NumSNMPPDUType                      // snmp.pdu_type; both
	NumRFBSecType                       // rfb.sectype; to client; chosen type
	NumRFBSecResult                     // rfb.secresult; to client; 0 ok, 1 fail, 2 toomany
	NumHTTP2FrameType                   // http2.frametype; both, many
	NumHTTP2ErrorCode                   // http2.errorcode; both, many
	NumHTTP2Priority                    // http2.priority; both, many
	NumHTTP2Window                      // http2.window; both, many
	NumHTTP2SizeUpdate                  // http2.size_update; both, many
	NumHTTP2Settings                    // http2.settings; both, many; identifier<<32 | value
	NumMQTTType                         // mqtt.type; both
	NumMQTTVersion                      // mqtt.protocol_version; both
	NumMQTTFlags                        // mqtt.flags; both; bits 3..0: dup, qos, retain
	NumMQTTQoS                          // mqtt.qos; both
	NumMQTTReason                       // mqtt.reason_code; both
	NumMQTTConnectFlags                 // mqtt.connect.flags; to server
	NumMQTTSessionPresent               // mqtt.connack.session_present; to client
	NumIKEVersion                       // ike.version; both
	NumIKEExchType                      // ike.exchtype; both
	NumIKEKeyLen                        // ike.key_exchange_payload_length; both
	NumIKENonceLen                      // ike.nonce_payload_length; both
	NumFTPBounce                        // ftpbounce; to server; 1 when PORT/EPRT names another address than the client's
	NumFTPDataCommand                   // ftpdata_command; both; 1 RETR, 2 STOR
	NumFTPDynPort                       // ftp.dynamic_port; both
	NumFTPReplyReceived                 // ftp.reply_received; both
	NumDHCPLeaseTime                    // dhcp.leasetime; both; seconds
	NumDHCPRebindingTime                // dhcp.rebinding_time; both
	NumDHCPRenewalTime                  // dhcp.renewal_time; both
	NumLDAPRequestOp                    // ldap.request.operation; to server
	NumLDAPResponseOp                   // ldap.responses.operation; to client, many
	numberCount
)

// numberInfo describes a number.
type numberInfo struct {
	name           string
	aliases        []string
	server, client bool
	many           bool
	apps           AppSet
}

var numbers = [numberCount]numberInfo{
	NumFileSize:           {name: "filesize", server: true, client: true, many: true, apps: appsOf(AppHTTP1, AppHTTP2, AppDoH2, AppSMTP, AppIMAP, AppPOP3, AppFTPData, AppSMB, AppNFS, AppTFTP)},
	NumDNSOpcode:          {name: "dns.opcode", server: true, client: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	NumDNSRcode:           {name: "dns.rcode", server: true, client: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	NumDNSRRType:          {name: "dns.rrtype", server: true, client: true, many: true, apps: appsOf(AppDNS, AppDoH2, AppMDNS, AppLLMNR)},
	NumTLSVersion:         {name: "tls.version", server: true, client: true, apps: appsOf(AppTLS)},
	NumTLSChainLen:        {name: "tls.cert_chain_len", client: true, apps: appsOf(AppTLS)},
	NumTLSNotBefore:       {name: "tls_cert_notbefore", client: true, apps: appsOf(AppTLS)},
	NumTLSNotAfter:        {name: "tls_cert_notafter", client: true, apps: appsOf(AppTLS)},
	NumSSLState:           {name: "ssl_state", server: true, client: true, apps: appsOf(AppTLS)},
	NumDCEOpnum:           {name: "dcerpc.opnum", aliases: []string{"dce_opnum"}, server: true, client: true, apps: appsOf(AppDCERPC, AppSMB)},
	NumSMBVersion:         {name: "smb.version", server: true, client: true, apps: appsOf(AppSMB)},
	NumKRB5MsgType:        {name: "krb5_msg_type", server: true, client: true, apps: appsOf(AppKRB5)},
	NumKRB5ErrCode:        {name: "krb5_err_code", client: true, apps: appsOf(AppKRB5)},
	NumKRB5Ticket:         {name: "krb5.ticket_encryption", server: true, client: true, apps: appsOf(AppKRB5)},
	NumSNMPVersion:        {name: "snmp.version", server: true, client: true, apps: appsOf(AppSNMP)},
	NumSNMPPDUType:        {name: "snmp.pdu_type", server: true, client: true, apps: appsOf(AppSNMP)},
	NumRFBSecType:         {name: "rfb.sectype", client: true, apps: appsOf(AppRFB)},
	NumRFBSecResult:       {name: "rfb.secresult", client: true, apps: appsOf(AppRFB)},
	NumHTTP2FrameType:     {name: "http2.frametype", server: true, client: true, many: true, apps: appsOf(AppHTTP2, AppDoH2)},
	NumHTTP2ErrorCode:     {name: "http2.errorcode", server: true, client: true, many: true, apps: appsOf(AppHTTP2, AppDoH2)},
	NumHTTP2Priority:      {name: "http2.priority", server: true, client: true, many: true, apps: appsOf(AppHTTP2, AppDoH2)},
	NumHTTP2Window:        {name: "http2.window", server: true, client: true, many: true, apps: appsOf(AppHTTP2, AppDoH2)},
	NumHTTP2SizeUpdate:    {name: "http2.size_update", server: true, client: true, many: true, apps: appsOf(AppHTTP2, AppDoH2)},
	NumHTTP2Settings:      {name: "http2.settings", server: true, client: true, many: true, apps: appsOf(AppHTTP2, AppDoH2)},
	NumMQTTType:           {name: "mqtt.type", server: true, client: true, apps: appsOf(AppMQTT)},
	NumMQTTVersion:        {name: "mqtt.protocol_version", server: true, client: true, apps: appsOf(AppMQTT)},
	NumMQTTFlags:          {name: "mqtt.flags", server: true, client: true, apps: appsOf(AppMQTT)},
	NumMQTTQoS:            {name: "mqtt.qos", server: true, client: true, apps: appsOf(AppMQTT)},
	NumMQTTReason:         {name: "mqtt.reason_code", server: true, client: true, apps: appsOf(AppMQTT)},
	NumMQTTConnectFlags:   {name: "mqtt.connect.flags", server: true, apps: appsOf(AppMQTT)},
	NumMQTTSessionPresent: {name: "mqtt.connack.session_present", client: true, apps: appsOf(AppMQTT)},
	NumIKEVersion:         {name: "ike.version", server: true, client: true, apps: appsOf(AppIKE)},
	NumIKEExchType:        {name: "ike.exchtype", server: true, client: true, apps: appsOf(AppIKE)},
	NumIKEKeyLen:          {name: "ike.key_exchange_payload_length", server: true, client: true, apps: appsOf(AppIKE)},
	NumIKENonceLen:        {name: "ike.nonce_payload_length", server: true, client: true, apps: appsOf(AppIKE)},
	NumFTPBounce:          {name: "ftpbounce", server: true, apps: appsOf(AppFTP)},
	NumFTPDataCommand:     {name: "ftpdata_command", server: true, client: true, apps: appsOf(AppFTPData)},
	NumFTPDynPort:         {name: "ftp.dynamic_port", server: true, client: true, apps: appsOf(AppFTP)},
	NumFTPReplyReceived:   {name: "ftp.reply_received", server: true, client: true, apps: appsOf(AppFTP)},
	NumDHCPLeaseTime:      {name: "dhcp.leasetime", server: true, client: true, apps: appsOf(AppDHCP)},
	NumDHCPRebindingTime:  {name: "dhcp.rebinding_time", server: true, client: true, apps: appsOf(AppDHCP)},
	NumDHCPRenewalTime:    {name: "dhcp.renewal_time", server: true, client: true, apps: appsOf(AppDHCP)},
	NumLDAPRequestOp:      {name: "ldap.request.operation", server: true, apps: appsOf(AppLDAP)},
	NumLDAPResponseOp:     {name: "ldap.responses.operation", client: true, many: true, apps: appsOf(AppLDAP)},
}

// String is the number's keyword.
func (k Number) String() string {
	if k >= numberCount {
		return ""
	}
	return numbers[k].name
}
