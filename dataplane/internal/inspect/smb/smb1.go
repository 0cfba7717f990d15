package smb

import (
	"bytes"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// SMB 1 commands (MS-CIFS 2.2.2.1).
const (
	smb1Close        = 0x04
	smb1Trans        = 0x25
	smb1Read         = 0x2e
	smb1Write        = 0x2f
	smb1Trans2       = 0x32
	smb1Negotiate    = 0x72
	smb1SessionSetup = 0x73
	smb1TreeConnect  = 0x75
	smb1NTTrans      = 0xa0
	smb1NTCreate     = 0xa2
)

var commands1 = map[uint16]string{
	smb1Close: "SMB1_COMMAND_CLOSE", smb1Trans: "SMB1_COMMAND_TRANS", smb1Read: "SMB1_COMMAND_READ_ANDX", smb1Write: "SMB1_COMMAND_WRITE_ANDX",
	smb1Trans2: "SMB1_COMMAND_TRANS2", smb1Negotiate: "SMB1_COMMAND_NEGOTIATE_PROTOCOL", smb1SessionSetup: "SMB1_COMMAND_SESSION_SETUP_ANDX",
	smb1TreeConnect: "SMB1_COMMAND_TREE_CONNECT_ANDX", smb1NTTrans: "SMB1_COMMAND_NT_TRANS", smb1NTCreate: "SMB1_COMMAND_NT_CREATE_ANDX",
	0x71: "SMB1_COMMAND_TREE_DISCONNECT", 0x74: "SMB1_COMMAND_LOGOFF_ANDX", 0x2b: "SMB1_COMMAND_ECHO", 0x06: "SMB1_COMMAND_DELETE",
	0x07: "SMB1_COMMAND_RENAME", 0x10: "SMB1_COMMAND_CHECK_DIRECTORY", 0x08: "SMB1_COMMAND_QUERY_INFORMATION", 0x34: "SMB1_COMMAND_FIND_CLOSE2",
}

func (p *Parser) smb1(toServer bool, b []byte) {
	if len(b) < 33 {
		return
	}
	cmd := uint16(b[4])
	status := le.Uint32(b[5:])
	response := b[9]&0x80 != 0
	unicode := le.Uint16(b[10:])&0x8000 != 0
	treeID, user, mid := uint32(le.Uint16(b[24:])), uint64(le.Uint16(b[28:])), uint64(le.Uint16(b[30:]))
	key := mid | uint64(le.Uint16(b[26:]))<<16 | uint64(cmd)<<32
	words := int(b[32]) * 2
	if len(b) < 33+words+2 || response == toServer {
		return
	}
	w := b[33 : 33+words]
	data := b[33+words+2:]
	if n := int(le.Uint16(b[33+words:])); n < len(data) && cmd != smb1Write && cmd != smb1Read {
		data = data[:n]
	}
	m := msg1{p: p, b: b, w: w, data: data, unicode: unicode, tree: treeID, at: 33 + words + 2}
	if !response {
		tx := p.add(cmd, true)
		tx.ssn, tx.tree = user, treeID
		var fid [16]byte
		m.request(tx, cmd, &fid)
		p.expect(key, &pending{fid: fid, tx: tx, cmd: cmd})
		return
	}
	wt := p.wait[key]
	var tx *Tx
	var fid [16]byte
	if wt != nil {
		tx, fid = wt.tx, wt.fid
	} else {
		tx = p.add(cmd, true)
		tx.tree = treeID
	}
	if status != statusMore || cmd != smb1Trans {
		delete(p.wait, key)
	}
	tx.status, tx.hasStatus, tx.ssn = status, true, user
	m.response(tx, cmd, fid)
	if tx.hasCall && !tx.call.Over(1) && cmd == smb1Write {
		return
	}
	tx.over()
}

// msg1 is one message.
type msg1 struct {
	p       *Parser
	b, w    []byte
	data    []byte
	unicode bool
	tree    uint32
	at      int // of data in b
}

// str reads a string at an offset of data and gives what follows.
func (m *msg1) str(b []byte, unicode bool) (s, rest []byte) {
	if !unicode {
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return b[:i], b[i+1:]
		}
		return b, nil
	}
	for i := 0; i+1 < len(b); i += 2 {
		if b[i] == 0 && b[i+1] == 0 {
			return text(b[:i]), b[i+2:]
		}
	}
	return text(b), nil
}

// align cuts the padding byte before UTF-16 strings.
func (m *msg1) align(b []byte) []byte {
	if m.unicode && len(b) > 0 && (m.at+len(m.data)-len(b))%2 != 0 {
		return b[1:]
	}
	return b
}

func fid1(v uint16) (f [16]byte) {
	f[0], f[1], f[15] = byte(v), byte(v>>8), 1
	return f
}

func (m *msg1) request(tx *Tx, cmd uint16, fid *[16]byte) {
	p := m.p
	switch cmd {
	case smb1Negotiate:
		p.dialects = p.dialects[:0]
		for d := m.data; len(d) > 1 && d[0] == 2; {
			s, rest := m.str(d[1:], false)
			tx.clientDialects = append(tx.clientDialects, string(s))
			p.dialects = append(p.dialects, string(s))
			d = rest
		}
	case smb1SessionSetup:
		if len(m.w) == 24 { // with a security blob
			n := int(u16(m.w, 14))
			tx.ntlm(part(m.data, 0, n), p)
			r := m.align(m.data[min(n, len(m.data)):])
			tx.nativeOS[0], r = m.str(r, m.unicode)
			tx.nativeLM[0], _ = m.str(r, m.unicode)
		} else if len(m.w) == 26 {
			n := int(u16(m.w, 14)) + int(u16(m.w, 16))
			r := m.align(m.data[min(n, len(m.data)):])
			var user, domain []byte
			user, r = m.str(r, m.unicode)
			domain, r = m.str(r, m.unicode)
			tx.nativeOS[0], r = m.str(r, m.unicode)
			tx.nativeLM[0], _ = m.str(r, m.unicode)
			tx.user, tx.domain = user, domain
		}
	case smb1TreeConnect:
		if len(m.w) >= 8 {
			r := m.align(m.data[min(int(u16(m.w, 6)), len(m.data)):])
			tx.share, r = m.str(r, m.unicode)
			tx.service, _ = m.str(r, false)
		}
	case smb1NTCreate:
		if len(m.w) >= 48 {
			tx.name, _ = m.str(m.align(m.data), m.unicode)
			tx.disposition = le.Uint32(m.w[35:])
			if t := p.trees[m.tree]; t != nil && t.pipe {
				tx.Text(rule.BufSMBNamedPipe, true, tx.name)
			}
		}
	case smb1Close:
		*fid = fid1(u16(m.w, 0))
		if h := p.handles[*fid]; h != nil {
			tx.name = h.name
			h.close(p.mem, inspect.FileClosed)
		}
	case smb1Write:
		if len(m.w) < 24 {
			return
		}
		*fid = fid1(u16(m.w, 4))
		n := int(u16(m.w, 20)) | int(u16(m.w, 18))<<16
		off := uint64(le.Uint32(m.w[6:]))
		if len(m.w) >= 28 {
			off |= uint64(le.Uint32(m.w[24:])) << 32
		}
		if h := p.handles[*fid]; h != nil {
			tx.name = h.name
			p.named(tx, h)
			p.data(true, h, tx, off, part(m.b, int(u16(m.w, 22)), min(n, len(m.b)-int(u16(m.w, 22)))))
		}
	case smb1Read:
		if len(m.w) >= 20 {
			*fid = fid1(u16(m.w, 4))
			tx.offset = uint64(le.Uint32(m.w[6:]))
			if h := p.handles[*fid]; h != nil {
				tx.name = h.name
				p.named(tx, h)
			}
		}
	case smb1Trans:
		if len(m.w) < 28 {
			return
		}
		name, _ := m.str(m.align(m.data), m.unicode)
		if len(m.w) >= 32 && bytes.HasPrefix(bytes.ToUpper(name), []byte("\\PIPE\\")) {
			*fid = fid1(u16(m.w, 30)) // TRANSACT_NMPIPE: function, fid
			h := p.handles[*fid]
			if h == nil {
				h = &handle{pipe: true}
				p.open(*fid, h)
			}
			p.named(tx, h)
			h.pipe = true
			p.data(true, h, tx, 0, part(m.b, int(u16(m.w, 24)), int(u16(m.w, 22))))
		}
	case 0x06, 0x07:
		tx.name, _ = m.str(m.align(bytes.TrimPrefix(m.data, []byte{4})), m.unicode)
	}
}

func (m *msg1) response(tx *Tx, cmd uint16, fid [16]byte) {
	p := m.p
	switch cmd {
	case smb1Negotiate:
		if i := int(u16(m.w, 0)); i < len(p.dialects) {
			p.dialect = p.dialects[i]
			tx.dialect = p.dialect
		}
		if len(m.w) == 34 && len(m.data) >= 16 {
			copy(tx.guid[:], m.data)
			tx.hasGUID = true
		}
	case smb1SessionSetup:
		if len(m.w) == 8 {
			n := int(u16(m.w, 6))
			tx.ntlm(part(m.data, 0, n), p)
			r := m.align(m.data[min(n, len(m.data)):])
			tx.nativeOS[1], r = m.str(r, m.unicode)
			tx.nativeLM[1], _ = m.str(r, m.unicode)
		} else if len(m.w) == 6 {
			r := m.align(m.data)
			tx.nativeOS[1], r = m.str(r, m.unicode)
			tx.nativeLM[1], _ = m.str(r, m.unicode)
		}
	case smb1TreeConnect:
		if tx.status != 0 {
			return
		}
		svc, _ := m.str(m.data, false)
		t := &tree{name: tx.share, pipe: string(svc) == "IPC"}
		if t.pipe {
			tx.shareType = 2
		} else {
			tx.shareType = 1
		}
		if len(p.trees) < maxHandles {
			p.trees[m.tree] = t
		}
		tx.tree = m.tree
		tx.connected()
	case smb1NTCreate:
		if tx.status != 0 || len(m.w) < 64 {
			return
		}
		f := fid1(u16(m.w, 5))
		h := &handle{name: tx.name, tree: m.tree}
		if t := p.trees[m.tree]; t != nil {
			h.pipe = t.pipe
			tx.share = t.name
		}
		if u16(m.w, 63-2) == 2 { // message-mode pipe
			h.pipe = true
		}
		p.open(f, h)
		tx.fid, tx.hasFid = f, true
	case smb1Close:
		delete(p.handles, fid)
	case smb1Read:
		if h := p.handles[fid]; h != nil && len(m.w) >= 24 {
			n := int(u16(m.w, 10)) | int(u16(m.w, 14))<<16
			p.data(false, h, tx, tx.offset, part(m.b, int(u16(m.w, 12)), n))
		}
	case smb1Trans:
		if h := p.handles[fid]; h != nil && h.pipe && len(m.w) >= 20 {
			p.data(false, h, tx, 0, part(m.b, int(u16(m.w, 14)), int(u16(m.w, 12))))
		}
	}
}
