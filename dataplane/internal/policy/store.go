package policy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

// A bundle file is: mark, length u32 (little endian) of the envelope, envelope, content. The digest in the signed manifest
// tells a whole file from a torn one.
var mark = []byte("KDMBNDL1")

// maxEnvelope bounds an envelope, in bytes; a manifest and a few signatures have some hundred.
const maxEnvelope = 64 << 10

// stored is a bundle as it lies on disk.
type stored struct {
	envelope *bundlev1.Envelope
	content  []byte
}

// store keeps two bundles of each kind: the active one and the one before it.
type store struct{ dir string }

func kindName(k bundlev1.Kind) string {
	switch k {
	case bundlev1.Kind_KIND_POLICY:
		return "policy"
	case bundlev1.Kind_KIND_SIGNATURE:
		return "signature"
	default:
		return fmt.Sprintf("kind-%d", k)
	}
}

func (s store) active(k bundlev1.Kind) string { return filepath.Join(s.dir, kindName(k)+".bundle") }
func (s store) previous(k bundlev1.Kind) string {
	return filepath.Join(s.dir, kindName(k)+".previous.bundle")
}

func (s store) part(k bundlev1.Kind, digest []byte) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%x.part", kindName(k), digest[:min(len(digest), 16)]))
}

// read returns a bundle from disk. Errors: fs.ErrNotExist; the file is damaged, with its name.
func read(path string) (*stored, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, sign.MaxContent+maxEnvelope+64))
	if err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", filepath.Base(path), err)
	}
	st, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("read bundle %s: %w", filepath.Base(path), err)
	}
	return st, nil
}

func decode(b []byte) (*stored, error) {
	rest, ok := bytes.CutPrefix(b, mark)
	if !ok || len(rest) < 4 {
		return nil, errors.New("file is no bundle or is cut off")
	}
	n := binary.LittleEndian.Uint32(rest)
	rest = rest[4:]
	if n > maxEnvelope || int(n) > len(rest) {
		return nil, fmt.Errorf("envelope of %d bytes in a file with %d left", n, len(rest))
	}
	env := &bundlev1.Envelope{}
	if err := proto.Unmarshal(rest[:n], env); err != nil {
		return nil, fmt.Errorf("decode envelope: %w", err)
	}
	return &stored{envelope: env, content: rest[n:]}, nil
}

// put makes a bundle the active one; the one before becomes the previous one. After a power cut at any moment either the new
// or the old one is there, whole.
func (s store) put(k bundlev1.Kind, st *stored) error {
	env, err := proto.Marshal(st.envelope)
	if err != nil {
		return fmt.Errorf("encode envelope: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make bundle directory: %w", err)
	}
	head := binary.LittleEndian.AppendUint32(bytes.Clone(mark), uint32(len(env)))
	f, err := os.CreateTemp(s.dir, ".bundle-*")
	if err != nil {
		return fmt.Errorf("store bundle: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	for _, p := range [][]byte{head, env, st.content} {
		if _, err = f.Write(p); err != nil {
			break
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("store bundle: %w", err)
	}
	// A hard link first: the active name is never missing.
	os.Remove(s.previous(k) + ".new") //nolint:errcheck // of an interrupted put
	if err := os.Link(s.active(k), s.previous(k)+".new"); err == nil {
		if err := os.Rename(s.previous(k)+".new", s.previous(k)); err != nil {
			return fmt.Errorf("keep previous bundle: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep previous bundle: %w", err)
	}
	if err := os.Rename(f.Name(), s.active(k)); err != nil {
		return fmt.Errorf("store bundle: %w", err)
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("store bundle: %w", err)
	}
	defer d.Close() //nolint:errcheck // only synced
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync bundle directory: %w", err)
	}
	return nil
}

// clean removes what interrupted fetches and writes left, except the part named keep.
func (s store) clean(keep string) {
	for _, pattern := range []string{"*.part", ".bundle-*", "*.new"} {
		names, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		for _, n := range names {
			if n != keep {
				os.Remove(n) //nolint:errcheck // tried again next time
			}
		}
	}
}
