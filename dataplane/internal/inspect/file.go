package inspect

import (
	"crypto/md5"  //nolint:gosec // hash lists come in MD5
	"crypto/sha1" //nolint:gosec // hash lists come in SHA-1
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"

	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Memory lends buffers; flow.Pool does.
type Memory interface {
	Get(n int) []byte
	Put(b []byte)
}

// KeepFile is how much of a file is kept for rules and for naming its type; hashes run over all of it.
const KeepFile = 100 << 10

// FileState is how a file ended.
type FileState uint8

// The states, as EVE prints them.
const (
	FileOpen FileState = iota
	FileClosed
	FileTruncated
)

// File is a file that crosses the network inside of a transaction.
type File struct {
	Name     []byte
	TxID     uint64
	Size     uint64 // so far
	State    FileState
	Gaps     bool
	Logged   bool
	ToServer bool
	data     []byte
	md5      hash.Hash
	sha1     hash.Hash
	sha256   hash.Hash
	sums     [3][]byte // hex, once closed
	magic    string
	// Owner prints the transaction beside the fileinfo object.
	Owner Tx
}

// Open makes it a new file; memory is kept.
func (f *File) Open(name []byte, txID uint64, toServer bool, owner Tx) {
	*f = File{
		Name: append(f.Name[:0], name...), TxID: txID, ToServer: toServer, Owner: owner, md5: f.md5, sha1: f.sha1, sha256: f.sha256,
		sums: f.sums,
	}
	if f.md5 == nil {
		f.md5, f.sha1, f.sha256 = md5.New(), sha1.New(), sha256.New() //nolint:gosec // see the imports
	}
	f.md5.Reset()
	f.sha1.Reset()
	f.sha256.Reset()
}

// Append takes the next bytes.
func (f *File) Append(mem Memory, b []byte) {
	if f.State != FileOpen || len(b) == 0 {
		return
	}
	f.Size += uint64(len(b))
	_, _ = f.md5.Write(b)
	_, _ = f.sha1.Write(b)
	_, _ = f.sha256.Write(b)
	f.data = Grow(mem, f.data, b, KeepFile)
}

// Grow appends at most limit-len(buf) bytes of b to a borrowed buffer; when memory is used up the rest is left out.
func Grow(mem Memory, buf, b []byte, limit int) []byte {
	n := min(len(b), limit-len(buf))
	if n <= 0 {
		return buf
	}
	if len(buf)+n > cap(buf) {
		nb := mem.Get(max(2*cap(buf), len(buf)+n))
		if nb == nil {
			return buf
		}
		nb = append(nb, buf...)
		if buf != nil {
			mem.Put(buf)
		}
		buf = nb
	}
	return append(buf, b[:n]...)
}

// Close ends the file.
func (f *File) Close(st FileState) {
	if f.State != FileOpen {
		return
	}
	f.State = st
	f.magic = Magic(f.data)
	for i, h := range [3]hash.Hash{f.md5, f.sha1, f.sha256} {
		var sum [32]byte
		f.sums[i] = hex.AppendEncode(f.sums[i][:0], h.Sum(sum[:0]))
	}
}

// Release gives the memory back.
func (f *File) Release(mem Memory) {
	if f.data != nil {
		mem.Put(f.data)
		f.data = nil
	}
}

// Data is what was kept of the content.
func (f *File) Data() []byte { return f.data }

// Buffer gives the file's part of the file.* keywords.
func (f *File) Buffer(b rule.Buffer) rule.Value {
	switch b {
	case rule.BufFileData:
		switch {
		case f.State != FileOpen:
			return rule.Value{Data: f.data, State: rule.Done}
		case len(f.data) > 0:
			return rule.Value{Data: f.data, State: rule.Partial}
		}
		return rule.Value{State: rule.NotYet}
	case rule.BufFileName:
		if len(f.Name) > 0 {
			return rule.Value{Data: f.Name, State: rule.Done}
		}
	case rule.BufFileMagic:
		if f.State == FileOpen && len(f.data) < 1024 {
			return rule.Value{State: rule.NotYet}
		}
		m := f.magic
		if m == "" {
			m = Magic(f.data)
		}
		if m != "" {
			return rule.Value{Data: []byte(m), State: rule.Done}
		}
	case rule.BufFileMD5, rule.BufFileSHA1, rule.BufFileSHA256:
		if f.State == FileOpen {
			return rule.Value{State: rule.NotYet}
		}
		if f.State == FileClosed && !f.Gaps {
			return rule.Value{Data: f.sums[b-rule.BufFileMD5], State: rule.Done}
		}
	default:
	}
	return rule.Value{State: rule.Absent}
}

// IsFileBuffer says whether a buffer is one of the file.* keywords.
func IsFileBuffer(b rule.Buffer) bool {
	switch b {
	case rule.BufFileData, rule.BufFileName, rule.BufFileMagic, rule.BufFileMD5, rule.BufFileSHA1, rule.BufFileSHA256:
		return true
	default:
	}
	return false
}

// FileBuffer gives the n-th file of a list for the direction.
func FileBuffer(files []*File, done bool, b rule.Buffer, toServer bool, n int) rule.Value {
	for _, f := range files {
		if f.ToServer != toServer {
			continue
		}
		if n == 0 {
			return f.Buffer(b)
		}
		n--
	}
	if done {
		return rule.Value{State: rule.Absent}
	}
	return rule.Value{State: rule.NotYet}
}

// FileNumber gives filesize of the n-th file.
func FileNumber(files []*File, done, toServer bool, n int) (uint64, rule.State) {
	for _, f := range files {
		if f.ToServer != toServer {
			continue
		}
		if n == 0 {
			if f.State == FileOpen {
				return f.Size, rule.Partial
			}
			return f.Size, rule.Done
		}
		n--
	}
	if done {
		return 0, rule.Absent
	}
	return 0, rule.NotYet
}

// Filer is a transaction that carries files.
type Filer interface {
	Files() []*File
}

// EVEType is "fileinfo".
func (f *File) EVEType() string { return "fileinfo" }

// AppendEVE writes the fileinfo object.
func (f *File) AppendEVE(b []byte) []byte {
	b = append(b, '{')
	b = AppendJSON(AppendKey(b, "filename"), f.Name)
	if f.magic != "" {
		b = AppendField(b, "magic", []byte(f.magic))
	}
	b = append(b, `,"gaps":`...)
	b = strconv.AppendBool(b, f.Gaps)
	state := "CLOSED"
	switch f.State {
	case FileOpen, FileTruncated:
		state = "TRUNCATED"
	case FileClosed:
	}
	b = AppendField(b, "state", []byte(state))
	if f.State == FileClosed && !f.Gaps {
		b = AppendField(b, "md5", f.sums[0])
		b = AppendField(b, "sha1", f.sums[1])
		b = AppendField(b, "sha256", f.sums[2])
	}
	b = append(b, `,"stored":false`...)
	b = strconv.AppendUint(AppendKey(b, "size"), f.Size, 10)
	b = strconv.AppendUint(AppendKey(b, "tx_id"), f.TxID, 10)
	return append(b, '}')
}

// AppendExtra writes the owner's object beside fileinfo.
func (f *File) AppendExtra(b []byte) []byte {
	if f.Owner == nil {
		return b
	}
	if x, ok := f.Owner.(interface{ AppendFileExtra(b []byte) []byte }); ok {
		return x.AppendFileExtra(b)
	}
	b = AppendKey(b, f.Owner.EVEType())
	return f.Owner.AppendEVE(b)
}
