package smb

import (
	"bytes"
	"encoding/hex"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/dcerpc"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Tx is a request with its response.
type Tx struct {
	inspect.Fields
	parser         *Parser
	call           dcerpc.Call
	hasCall        bool
	v1             bool
	cmd            uint16
	ssn            uint64
	tree           uint32
	status         uint32
	hasStatus      bool
	dialect        string
	clientDialects []string
	guid           [16]byte
	hasGUID        bool
	user, domain   []byte
	host           []byte
	version        []byte
	share, service []byte
	shareType      byte
	name, renameTo []byte
	pipe           []byte
	disposition    uint32
	deleteOnClose  bool
	fid            [16]byte
	hasFid         bool
	size, offset   uint64
	times          [4]uint64
	function       uint32
	nativeOS       [2][]byte
	nativeLM       [2][]byte
	files          []*inspect.File
}

// over ends it.
func (t *Tx) over() {
	if t.hasCall {
		t.call.End()
	}
	if t.cmd == cmdNegotiate || !t.Ready {
		t.Ended = [2]bool{true, true}
		t.Ready = true
	}
}

// Clear makes it new.
func (t *Tx) Clear(app rule.App, typ string, id uint64, now int64) {
	fields, call := t.Fields, t.call
	*t = Tx{Fields: fields, call: call}
	t.Fields.Clear(app, typ, id, now)
}

// Files are those written or read.
func (t *Tx) Files() []*inspect.File { return t.files }

// Complete says whether a direction is.
func (t *Tx) Complete(toServer bool) bool {
	if t.hasCall && toServer {
		return t.call.Over(0)
	}
	return t.Ended[dir(toServer)]
}

// Buffer gives names, files and stub data.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	if inspect.IsFileBuffer(b) {
		return inspect.FileBuffer(t.files, t.Ready, b, toServer, n)
	}
	if b == rule.BufDCEStubData {
		if t.hasCall && n == 0 {
			return t.call.Stub(toServer)
		}
		if n > 0 || t.Ready {
			return rule.Value{State: rule.Absent}
		}
		return rule.Value{State: rule.NotYet}
	}
	return t.Fields.Buffer(b, toServer, n)
}

// Number gives versions, operations and sizes.
func (t *Tx) Number(k rule.Number, toServer bool, n int) (uint64, rule.State) {
	switch k {
	case rule.NumSMBVersion:
		if n > 0 {
			return 0, rule.Absent
		}
		if t.v1 {
			return 1, rule.Done
		}
		return 2, rule.Done
	case rule.NumDCEOpnum:
		if t.hasCall && n == 0 {
			return t.call.Op()
		}
		if n > 0 || t.Ready {
			return 0, rule.Absent
		}
		return 0, rule.NotYet
	case rule.NumFileSize:
		return inspect.FileNumber(t.files, t.Ready, toServer, n)
	default:
		return t.Fields.Number(k, toServer, n)
	}
}

// DCEInterfaces are those of the call on a pipe.
func (t *Tx) DCEInterfaces() ([]rule.DCEInterface, bool) {
	if !t.hasCall {
		return nil, false
	}
	return t.call.Interfaces()
}

// LittleEndian is the stub's byte order.
func (t *Tx) LittleEndian() bool { return t.call.Little() }

// ntlm reads an NTLMSSP message (MS-NLMP 2.2.1) inside of a security blob.
func (t *Tx) ntlm(b []byte, p *Parser) {
	i := bytes.Index(b, []byte("NTLMSSP\x00"))
	if i < 0 {
		return
	}
	b = b[i:]
	if len(b) < 64 || le.Uint32(b[8:]) != 3 {
		return
	}
	field := func(at int) []byte {
		v := part(b, int(le.Uint32(b[at+4:])), int(le.Uint16(b[at:])))
		if le.Uint32(b[60:])&1 != 0 { // unicode
			return text(v)
		}
		return append([]byte(nil), v...)
	}
	t.domain, t.user, t.host = field(28), field(36), field(44)
	if le.Uint32(b[60:])&0x02000000 != 0 && len(b) >= 72 {
		v := b[64:72]
		t.version = strconv.AppendUint(nil, uint64(v[0]), 10)
		t.version = append(t.version, '.')
		t.version = strconv.AppendUint(t.version, uint64(v[1]), 10)
		t.version = append(t.version, " build "...)
		t.version = strconv.AppendUint(t.version, uint64(le.Uint16(v[2:])), 10)
		t.version = append(t.version, " rev "...)
		t.version = strconv.AppendUint(t.version, uint64(v[7]), 10)
	}
	p.user, p.domain = t.user, t.domain
	t.Text(rule.BufSMBUser, true, t.user)
	t.Text(rule.BufSMBDomain, true, t.domain)
}

var dispositions = [...]string{"FILE_SUPERSEDE", "FILE_OPEN", "FILE_CREATE", "FILE_OPEN_IF", "FILE_OVERWRITE", "FILE_OVERWRITE_IF"}

var statuses = map[uint32]string{
	0: "STATUS_SUCCESS", 0x103: "STATUS_PENDING", 0x80000005: "STATUS_BUFFER_OVERFLOW", 0x80000006: "STATUS_NO_MORE_FILES",
	0xc0000016: "STATUS_MORE_PROCESSING_REQUIRED", 0xc0000022: "STATUS_ACCESS_DENIED", 0xc0000034: "STATUS_OBJECT_NAME_NOT_FOUND",
	0xc000003a: "STATUS_OBJECT_PATH_NOT_FOUND", 0xc000006d: "STATUS_LOGON_FAILURE", 0xc0000011: "STATUS_END_OF_FILE",
	0xc00000cc: "STATUS_BAD_NETWORK_NAME", 0xc000000d: "STATUS_INVALID_PARAMETER", 0xc00000bb: "STATUS_NOT_SUPPORTED",
	0xc0000035: "STATUS_OBJECT_NAME_COLLISION", 0xc0000043: "STATUS_SHARING_VIOLATION", 0xc0000225: "STATUS_NOT_FOUND",
	0xc0000203: "STATUS_USER_SESSION_DELETED", 0xc00000ac: "STATUS_PIPE_NOT_AVAILABLE", 0xc00000d0: "STATUS_REQUEST_NOT_ACCEPTED",
	0xc0000234: "STATUS_ACCOUNT_LOCKED_OUT", 0xc0000072: "STATUS_ACCOUNT_DISABLED", 0xc0000064: "STATUS_NO_SUCH_USER",
}

// AppendEVE writes the object.
func (t *Tx) AppendEVE(b []byte) []byte {
	b = append(b, '{')
	b = strconv.AppendUint(inspect.AppendKey(b, "id"), t.ID+1, 10)
	b = inspect.AppendField(b, "dialect", []byte(orUnknown(t.dialect)))
	b = inspect.AppendField(b, "command", []byte(t.command()))
	if t.hasStatus {
		s, ok := statuses[t.status]
		if !ok {
			s = "UNKNOWN_" + strconv.FormatUint(uint64(t.status>>16), 16) + "_" + strconv.FormatUint(uint64(t.status&0xffff), 16)
		}
		b = inspect.AppendField(b, "status", []byte(s))
		b = inspect.AppendField(b, "status_code", []byte("0x"+strconv.FormatUint(uint64(t.status), 16)))
	}
	b = strconv.AppendUint(inspect.AppendKey(b, "session_id"), t.ssn, 10)
	b = strconv.AppendUint(inspect.AppendKey(b, "tree_id"), uint64(t.tree), 10)
	if len(t.clientDialects) > 0 {
		b = append(inspect.AppendKey(b, "client_dialects"), '[')
		for i, d := range t.clientDialects {
			if i > 0 {
				b = append(b, ',')
			}
			b = inspect.AppendJSON(b, []byte(d))
		}
		b = append(b, ']')
	}
	if t.hasGUID {
		b = inspect.AppendField(b, "server_guid", guidText(t.guid))
	}
	if len(t.user) > 0 || len(t.domain) > 0 || len(t.host) > 0 {
		b = append(inspect.AppendKey(b, "ntlmssp"), '{')
		b = inspect.AppendJSON(inspect.AppendKey(b, "domain"), t.domain)
		b = inspect.AppendJSON(inspect.AppendKey(b, "user"), t.user)
		b = inspect.AppendField(b, "host", t.host)
		b = inspect.AppendField(b, "version", t.version)
		b = append(b, '}')
	}
	for i, key := range [2]string{"request", "response"} {
		if len(t.nativeOS[i]) > 0 || len(t.nativeLM[i]) > 0 {
			b = append(inspect.AppendKey(b, key), '{')
			b = inspect.AppendField(b, "native_os", t.nativeOS[i])
			b = inspect.AppendField(b, "native_lm", t.nativeLM[i])
			b = append(b, '}')
		}
	}
	switch {
	case !t.v1 && t.cmd == cmdTreeConnect && !t.hasCall, t.v1 && t.cmd == smb1TreeConnect:
		key := "share"
		if t.shareType == 2 {
			key = "named_pipe"
		}
		b = inspect.AppendField(b, key, t.share)
		if t.shareType != 0 {
			b = inspect.AppendField(b, "share_type", []byte([...]string{"", "FILE", "PIPE", "PRINT"}[t.shareType&3]))
		}
		if t.v1 && len(t.service) > 0 {
			b = append(inspect.AppendKey(b, "service"), '{')
			b = inspect.AppendField(b, "request", t.service)
			b = append(b, '}')
		}
	case len(t.name) > 0:
		b = inspect.AppendField(b, "filename", t.name)
		b = inspect.AppendField(b, "share", t.share)
	}
	if !t.v1 && t.cmd == cmdCreate || t.v1 && t.cmd == smb1NTCreate {
		if int(t.disposition) < len(dispositions) {
			b = inspect.AppendField(b, "disposition", []byte(dispositions[t.disposition]))
		}
		access := "normal"
		if t.deleteOnClose {
			access = "delete on close"
		}
		b = inspect.AppendField(b, "access", []byte(access))
		if t.hasFid {
			for i, key := range [4]string{"created", "accessed", "modified", "changed"} {
				sec := int64(0)
				if t.times[i] != 0 {
					sec = int64(t.times[i]/1e7) - 11644473600
				}
				b = strconv.AppendInt(inspect.AppendKey(b, key), sec, 10)
			}
			b = strconv.AppendUint(inspect.AppendKey(b, "size"), t.size, 10)
			b = inspect.AppendField(b, "fuid", guidText(t.fid))
		}
	}
	if len(t.renameTo) > 0 {
		b = append(inspect.AppendKey(b, "rename"), '{')
		b = inspect.AppendField(b, "from", t.name)
		b = inspect.AppendField(b, "to", t.renameTo)
		b = append(b, '}')
	}
	if t.hasCall {
		b = append(inspect.AppendKey(b, "dcerpc"), '{')
		b = t.call.AppendObject(b, true)
		b = append(b, '}')
	}
	return append(b, '}')
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func (t *Tx) command() string {
	if t.v1 {
		if s, ok := commands1[t.cmd]; ok {
			return s
		}
		return "SMB1_COMMAND_" + strconv.FormatUint(uint64(t.cmd), 16)
	}
	if int(t.cmd) < len(commands2) {
		return commands2[t.cmd]
	}
	return "UNKNOWN"
}

func guidText(g [16]byte) []byte {
	var o [16]byte
	o[0], o[1], o[2], o[3] = g[3], g[2], g[1], g[0]
	o[4], o[5], o[6], o[7] = g[5], g[4], g[7], g[6]
	copy(o[8:], g[8:])
	h := hex.EncodeToString(o[:])
	return []byte(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:])
}
