package smb

import (
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// SMB 2 commands (MS-SMB2 2.2.1.2).
const (
	cmdNegotiate = iota
	cmdSessionSetup
	cmdLogoff
	cmdTreeConnect
	cmdTreeDisconnect
	cmdCreate
	cmdClose
	cmdFlush
	cmdRead
	cmdWrite
	cmdLock
	cmdIoctl
	cmdCancel
	cmdEcho
	cmdQueryDirectory
	cmdChangeNotify
	cmdQueryInfo
	cmdSetInfo
	cmdOplockBreak
)

var commands2 = [...]string{
	"SMB2_COMMAND_NEGOTIATE_PROTOCOL", "SMB2_COMMAND_SESSION_SETUP", "SMB2_COMMAND_SESSION_LOGOFF", "SMB2_COMMAND_TREE_CONNECT",
	"SMB2_COMMAND_TREE_DISCONNECT", "SMB2_COMMAND_CREATE", "SMB2_COMMAND_CLOSE", "SMB2_COMMAND_FLUSH", "SMB2_COMMAND_READ",
	"SMB2_COMMAND_WRITE", "SMB2_COMMAND_LOCK", "SMB2_COMMAND_IOCTL", "SMB2_COMMAND_CANCEL", "SMB2_COMMAND_KEEPALIVE",
	"SMB2_COMMAND_FIND", "SMB2_COMMAND_CHANGE_NOTIFY", "SMB2_COMMAND_GET_INFO", "SMB2_COMMAND_SET_INFO", "SMB2_COMMAND_OPLOCK_BREAK",
}

var dialects = map[uint16]string{0x0202: "2.02", 0x0210: "2.10", 0x0222: "2.22", 0x0224: "2.24", 0x02ff: "2.??", 0x0300: "3.00", 0x0302: "3.02", 0x0310: "3.10", 0x0311: "3.11"}

func dialectName(v uint16) string {
	if s, ok := dialects[v]; ok {
		return s
	}
	return "0x" + strconv.FormatUint(uint64(v), 16)
}

const fsctlPipeTransceive = 0x0011c017

// part gives n bytes at an offset of the message, nil when they are not there.
func part(b []byte, off, n int) []byte {
	if off < 0 || n < 0 || off > len(b) || n > len(b)-off {
		return nil
	}
	return b[off : off+n]
}

// smb2 parses one message; total is its whole length when b is only its beginning. It gives how many bytes it used.
func (p *Parser) smb2(toServer bool, b []byte, total int) int {
	if len(b) < 64 {
		return len(b)
	}
	cmd, flags := le.Uint16(b[12:]), le.Uint32(b[16:])
	id := le.Uint64(b[24:])
	treeID, ssn := le.Uint32(b[36:]), le.Uint64(b[40:])
	if flags&2 != 0 { // asynchronous: there is no tree identifier
		treeID = 0
	}
	response := flags&1 != 0
	if response == toServer {
		return len(b)
	}
	body := b[64:]
	if !response {
		return p.request2(b, body, cmd, id, treeID, ssn, total)
	}
	return p.response2(b, body, cmd, id, treeID, ssn, le.Uint32(b[8:]), total)
}

func (p *Parser) expect(id uint64, w *pending) {
	if len(p.wait) < maxHandles {
		p.wait[id] = w
	}
}

func (p *Parser) request2(b, body []byte, cmd uint16, id uint64, treeID uint32, ssn uint64, total int) int {
	var tx *Tx
	begin := func() {
		tx = p.add(cmd, false)
		tx.ssn, tx.tree = ssn, treeID
	}
	var fid [16]byte
	switch cmd {
	case cmdNegotiate:
		begin()
		if n := int(u16(body, 2)); len(body) >= 36+2*n {
			for i := range n {
				tx.clientDialects = append(tx.clientDialects, dialectName(le.Uint16(body[36+2*i:])))
			}
		}
	case cmdSessionSetup:
		begin()
		tx.ntlm(part(b, int(u16(body, 12)), int(u16(body, 14))), p)
	case cmdTreeConnect:
		begin()
		tx.share = text(part(b, int(u16(body, 4)), int(u16(body, 6))))
	case cmdCreate:
		begin()
		if len(body) >= 56 {
			tx.name = text(part(b, int(u16(body, 44)), int(u16(body, 46))))
			tx.disposition = le.Uint32(body[36:])
			tx.deleteOnClose = le.Uint32(body[40:])&0x1000 != 0
		}
		if t := p.trees[treeID]; t != nil && t.pipe {
			tx.Text(rule.BufSMBNamedPipe, true, tx.name)
		}
	case cmdClose:
		copy(fid[:], part(body, 8, 16))
		if h := p.handles[fid]; h != nil {
			h.close(p.mem, inspect.FileClosed)
			begin()
			tx.name = h.name
		}
	case cmdWrite:
		if len(body) < 48 {
			break
		}
		copy(fid[:], body[16:32])
		h := p.handles[fid]
		off, n := int(u16(body, 2)), int(le.Uint32(body[4:]))
		at := le.Uint64(body[8:])
		if h == nil || off < 64 || off > len(b) || n > total-off {
			break
		}
		have := min(n, len(b)-off)
		begin()
		tx.name = h.name
		p.named(tx, h)
		f := p.data(true, h, tx, at, b[off:off+have])
		p.expect(id, &pending{fid: fid, tx: tx, cmd: cmd})
		if have < n {
			s := &p.sides[0]
			s.left, s.stream = total-off-have, f
			return off + have
		}
		return len(b)
	case cmdRead:
		if len(body) >= 48 {
			copy(fid[:], body[16:32])
			if h := p.handles[fid]; h != nil {
				begin()
				tx.name, tx.offset = h.name, le.Uint64(body[8:])
				p.named(tx, h)
			}
		}
	case cmdIoctl:
		if len(body) < 56 {
			break
		}
		copy(fid[:], body[8:24])
		begin()
		tx.function = le.Uint32(body[4:])
		if h := p.handles[fid]; h != nil && tx.function == fsctlPipeTransceive {
			h.pipe = true
			p.named(tx, h)
			p.data(true, h, tx, 0, part(b, int(le.Uint32(body[24:])), int(le.Uint32(body[28:]))))
		}
	case cmdSetInfo:
		begin()
		copy(fid[:], part(body, 16, 16))
		if h := p.handles[fid]; h != nil {
			tx.name = h.name
		}
		if len(body) >= 32 && body[2] == 1 && body[3] == 10 { // FileRenameInformation
			in := part(b, int(u16(body, 8)), int(le.Uint32(body[4:])))
			if len(in) >= 20 {
				tx.renameTo = text(part(in, 20, int(le.Uint32(in[16:]))))
			}
		}
	case cmdCancel:
	default:
		begin()
	}
	p.expect(id, &pending{fid: fid, tx: tx, cmd: cmd})
	return len(b)
}

// named notes the pipe that a message goes to.
func (p *Parser) named(tx *Tx, h *handle) {
	if h.pipe {
		tx.pipe = h.name
		tx.Text(rule.BufSMBNamedPipe, true, h.name)
		tx.Text(rule.BufSMBNamedPipe, false, h.name)
	}
}

func u16(b []byte, off int) uint16 {
	if off+2 > len(b) {
		return 0
	}
	return le.Uint16(b[off:])
}

const statusPending, statusMore = 0x103, 0xc0000016

func (p *Parser) response2(b, body []byte, cmd uint16, id uint64, treeID uint32, ssn uint64, status uint32, total int) int {
	if status == statusPending {
		return len(b)
	}
	w := p.wait[id]
	delete(p.wait, id)
	var tx *Tx
	var fid [16]byte
	if w != nil {
		tx, fid = w.tx, w.fid
	}
	if tx == nil {
		switch cmd {
		case cmdNegotiate, cmdSessionSetup, cmdTreeConnect, cmdCreate:
			tx = p.add(cmd, false)
			tx.tree = treeID
		}
	}
	if tx != nil {
		tx.status, tx.hasStatus = status, true
		if ssn != 0 {
			tx.ssn = ssn
		}
	}
	switch cmd {
	case cmdNegotiate:
		if len(body) >= 36 {
			p.dialect = dialectName(le.Uint16(body[4:]))
			tx.dialect = p.dialect
			copy(tx.guid[:], body[8:24])
			tx.hasGUID = true
		}
	case cmdSessionSetup:
		tx.ntlm(part(b, int(u16(body, 4)), int(u16(body, 6))), p)
	case cmdTreeConnect:
		if len(body) >= 16 && status == 0 {
			t := &tree{name: tx.share, pipe: body[2] == 2}
			if len(p.trees) < maxHandles {
				p.trees[treeID] = t
			}
			tx.tree = treeID
			tx.shareType = body[2]
			tx.connected()
		}
	case cmdCreate:
		if len(body) >= 88 && status == 0 {
			copy(fid[:], body[64:80])
			h := &handle{name: tx.name, tree: treeID}
			if t := p.trees[treeID]; t != nil {
				h.pipe = t.pipe
				tx.share = t.name
			}
			p.open(fid, h)
			tx.fid, tx.hasFid = fid, true
			tx.size = le.Uint64(body[48:])
			for i := range tx.times {
				tx.times[i] = le.Uint64(body[8+8*i:])
			}
		}
	case cmdClose:
		delete(p.handles, fid)
	case cmdRead:
		h := p.handles[fid]
		if h == nil || len(body) < 16 || tx == nil {
			break
		}
		off, n := int(body[2]), int(le.Uint32(body[4:]))
		if off < 64 || off > len(b) || n > total-off {
			break
		}
		have := min(n, len(b)-off)
		f := p.data(false, h, tx, tx.offset, b[off:off+have])
		if have < n {
			s := &p.sides[1]
			s.left, s.stream = total-off-have, f
			tx.over()
			return off + have
		}
	case cmdIoctl:
		if h := p.handles[fid]; h != nil && h.pipe && len(body) >= 48 {
			p.data(false, h, tx, 0, part(b, int(le.Uint32(body[32:])), int(le.Uint32(body[36:]))))
		}
	}
	if tx != nil {
		if tx.hasCall && !tx.call.Over(1) && (cmd == cmdWrite || cmd == cmdIoctl && status == statusPending) {
			return len(b) // the call's answer comes with a READ
		}
		tx.over()
	}
	return len(b)
}

// connected lets rules see the share: of disks and printers as a share, of the pipes' share as a named pipe.
func (t *Tx) connected() {
	b := rule.BufSMBShare
	if t.shareType == 2 {
		b = rule.BufSMBNamedPipe
	}
	t.Text(b, true, t.share)
	t.Text(b, false, t.share)
}
