package pcap

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/kadomori/kadomori/dataplane/internal/packet"
)

// Writer writes classic pcap with nanoseconds. Tests and the benchmark use it.
type Writer struct{ w io.Writer }

// NewWriter writes the file's head.
func NewWriter(w io.Writer, link packet.Link) (*Writer, error) {
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], 0xa1b23c4d)
	binary.LittleEndian.PutUint16(h[4:], 2)
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], 262144)
	binary.LittleEndian.PutUint32(h[20:], uint32(link))
	if _, err := w.Write(h[:]); err != nil {
		return nil, fmt.Errorf("write capture header: %w", err)
	}
	return &Writer{w}, nil
}

// Write adds one packet; time in nanoseconds since the Unix epoch.
func (w *Writer) Write(data []byte, time int64) error {
	var h [16]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(time/1e9))
	binary.LittleEndian.PutUint32(h[4:], uint32(time%1e9))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(data)))
	binary.LittleEndian.PutUint32(h[12:], uint32(len(data)))
	if _, err := w.w.Write(h[:]); err != nil {
		return fmt.Errorf("write packet header: %w", err)
	}
	if _, err := w.w.Write(data); err != nil {
		return fmt.Errorf("write packet: %w", err)
	}
	return nil
}
