package spool

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The format of a segment file, all numbers little endian:
//
//	header   magic "KDMSPOOL", version u32, zero u32, stream id 16 bytes, first seq u64, crc32c u32 of all before, zero u32
//	record   length u32 of data, crc32c u32 of seq and data, seq u64, data
//	data     value class u8, kadomori.event.v1.Event
//
// A file's name is <ordinal>-<first seq>-<stream>.seg in hex; the ordinal orders segments over streams. The name says all that
// the header says, so that damage to either costs nothing.
const (
	headerSize    = 48
	recordSize    = 16
	formatVersion = 1
	suffix        = ".seg"

	// MaxEvent is the largest encoded event, in bytes. A larger one is refused by Append.
	MaxEvent = 256 << 10
)

var (
	magic      = []byte("KDMSPOOL")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// StreamID names a numbering of events; see event/v1.
type StreamID [16]byte

// segment is one file of the log, or its stand-in in memory. Fields below mu of the Spool.
type segment struct {
	ordinal uint64
	stream  StreamID
	first   uint64 // first seq it may hold
	last    uint64 // last seq known in it; first-1 when empty
	size    int64  // durable bytes
	gen     uint64 // grows when the file is replaced by eviction
	path    string // "" in memory
	mem     []byte // records of a segment in memory, with a header's worth of zeros in front
	sealed  bool
	badHead bool        // its header is damaged
	stats   *classStats // nil: not counted yet; only the flusher
	// declared holds the damage that was declared since start: first lost number to last.
	declared map[uint64]uint64
}

// classStats says what a segment holds by value class.
type classStats struct {
	events [classes]uint64
	bytes  [classes]int64
}

func segmentName(ordinal, first uint64, stream StreamID) string {
	return fmt.Sprintf("%08x-%016x-%x%s", ordinal, first, stream[:], suffix)
}

func parseSegmentName(name string) (ordinal, first uint64, stream StreamID, ok bool) {
	base, ok := strings.CutSuffix(name, suffix)
	parts := strings.Split(base, "-")
	if !ok || len(parts) != 3 {
		return 0, 0, stream, false
	}
	ordinal, err1 := strconv.ParseUint(parts[0], 16, 64)
	first, err2 := strconv.ParseUint(parts[1], 16, 64)
	id, err3 := hex.DecodeString(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || first == 0 || len(id) != len(stream) {
		return 0, 0, stream, false
	}
	return ordinal, first, StreamID(id), true
}

func encodeHeader(stream StreamID, first uint64) []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, stream[:]...)
	b = binary.LittleEndian.AppendUint64(b, first)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return binary.LittleEndian.AppendUint32(b, 0)
}

// decodeHeader returns a segment's stream and first sequence number.
func decodeHeader(b []byte) (stream StreamID, first uint64, err error) {
	if len(b) < headerSize {
		return stream, 0, fmt.Errorf("header has %d bytes, want %d", len(b), headerSize)
	}
	if !bytes.Equal(b[:8], magic) {
		return stream, 0, errors.New("header has no KDMSPOOL mark")
	}
	if sum := binary.LittleEndian.Uint32(b[40:]); sum != crc32.Checksum(b[:40], castagnoli) {
		return stream, 0, errors.New("header checksum differs")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return stream, 0, fmt.Errorf("format version %d, this program reads %d", v, formatVersion)
	}
	copy(stream[:], b[16:32])
	return stream, binary.LittleEndian.Uint64(b[32:]), nil
}

// sealRecord frames data, which the caller has put behind recordSize bytes of room at b[at:].
func sealRecord(b []byte, at int, seq uint64) {
	rec := b[at:]
	binary.LittleEndian.PutUint32(rec[0:], uint32(len(rec)-recordSize))
	binary.LittleEndian.PutUint64(rec[8:], seq)
	binary.LittleEndian.PutUint32(rec[4:], crc32.Checksum(rec[8:], castagnoli))
}

// decodeRecord reads the record at the start of b. n is its whole length. ok is false when there is no valid one; need is
// then how many bytes a valid one would have had by its length field (0: the length is impossible).
func decodeRecord(b []byte) (seq uint64, data []byte, n int, ok bool, need int) {
	if len(b) < recordSize {
		return 0, nil, 0, false, recordSize
	}
	l := binary.LittleEndian.Uint32(b)
	if l < 1 || l > MaxEvent+1 {
		return 0, nil, 0, false, 0
	}
	n = recordSize + int(l)
	if len(b) < n {
		return 0, nil, 0, false, n
	}
	if crc32.Checksum(b[8:n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) || b[recordSize] >= classes {
		return 0, nil, 0, false, n
	}
	return binary.LittleEndian.Uint64(b[8:]), b[recordSize:n], n, true, n
}

// damage is a stretch of a segment that can't be read.
type damage struct {
	offset, length int64
	after          uint64 // last good seq before it
}

// scan walks the records in b, which begins behind the header, and calls fn for each good one in order. Bytes that are no
// record are stepped over to the next good record; bad (may be nil) is told of each stretch that a good record follows, with
// the seq of that record. It returns the offset (in b) behind the last good record.
// A record counts as good when its checksum holds and its number is above the last good one.
func scan(b []byte, first uint64, fn func(seq uint64, data []byte, at int) bool, bad func(d damage, next uint64)) int {
	last, end := first-1, 0
	for at := 0; at < len(b); {
		if at > end && !plausible(b[at:], last) {
			at++
			continue
		}
		seq, data, n, ok, _ := decodeRecord(b[at:])
		if !ok || seq <= last {
			at++
			continue
		}
		if at > end && bad != nil {
			bad(damage{offset: int64(headerSize + end), length: int64(at - end), after: last}, seq)
		}
		if !fn(seq, data, at) {
			return at
		}
		last = seq
		at += n
		end = at
	}
	return end
}

// plausible is the cheap test before a checksum is computed, so that crossing a stretch of rot costs little more than reading it.
func plausible(b []byte, last uint64) bool {
	if len(b) < recordSize+1 || b[recordSize] >= classes {
		return false
	}
	l, seq := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[8:])
	return l >= 1 && l <= MaxEvent+1 && seq > last && seq-last <= 1<<24
}

// load returns the durable bytes of a segment behind its header.
func (g *segment) load(size int64) ([]byte, error) {
	if g.path == "" {
		return g.mem[headerSize:size], nil
	}
	f, err := os.Open(g.path)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	if size < headerSize {
		return nil, nil
	}
	b := make([]byte, size-headerSize)
	n, err := f.ReadAt(b, headerSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return b[:n], fmt.Errorf("read segment %s: %w", filepath.Base(g.path), err)
	}
	return b[:n], nil
}

// syncDir makes a created, renamed or removed name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open spool directory: %w", err)
	}
	defer d.Close() //nolint:errcheck // only synced
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync spool directory: %w", err)
	}
	return nil
}

func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
