package xdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What linux/netdev.h has (kernel 6.3) and x/sys has not.
const (
	netdevFamily       = "netdev"
	netdevCmdDevGet    = 1
	netdevAttrIfindex  = 1
	netdevAttrFeatures = 3
	featureNdoXmit     = 4 // NETDEV_XDP_ACT_NDO_XMIT: others may redirect to it
)

// featureReader asks the kernel what a port can do with XDP. Its socket stays in the network namespace that it was made in.
type featureReader struct {
	mu     sync.Mutex
	fd     int
	family uint16
	seq    uint32
}

// errNoFeatures says that the kernel is too old to tell.
var errNoFeatures = errors.New("the kernel does not tell what ports can do")

func newFeatureReader() (*featureReader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	r := &featureReader{fd: fd}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		r.close()
		return nil, fmt.Errorf("set netlink time-out: %w", err)
	}
	reply, err := r.ask(unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, unix.CTRL_ATTR_FAMILY_NAME, append([]byte(netdevFamily), 0))
	if errors.Is(err, unix.ENOENT) {
		r.close()
		return nil, errNoFeatures
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("find netlink family: %w", err)
	}
	id, ok := attribute(reply, unix.CTRL_ATTR_FAMILY_ID)
	if !ok || len(id) < 2 {
		r.close()
		return nil, errNoFeatures
	}
	r.family = binary.NativeEndian.Uint16(id)
	return r, nil
}

func (r *featureReader) close() { _ = unix.Close(r.fd) }

// ask sends one request with one attribute and returns the attributes of the answer.
func (r *featureReader) ask(family uint16, cmd uint8, kind uint16, value []byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	ne := binary.NativeEndian
	var b bytes.Buffer
	padded := (len(value) + 3) &^ 3
	total := unix.SizeofNlMsghdr + 4 + unix.SizeofRtAttr + padded
	head := unix.NlMsghdr{Len: uint32(total), Type: family, Flags: unix.NLM_F_REQUEST, Seq: r.seq}
	b.Write(unsafe.Slice((*byte)(unsafe.Pointer(&head)), unix.SizeofNlMsghdr))
	b.Write([]byte{cmd, 1, 0, 0})
	b.Write(ne.AppendUint16(ne.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value))), kind))
	b.Write(value)
	b.Write(make([]byte, padded-len(value)))
	if err := unix.Sendto(r.fd, b.Bytes(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(r.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if n < unix.SizeofNlMsghdr+4 {
			return nil, errors.New("receive: answer is cut off")
		}
		answer := (*unix.NlMsghdr)(unsafe.Pointer(&buf[0]))
		if answer.Seq != r.seq {
			continue // a late answer to an earlier question
		}
		if answer.Type == unix.NLMSG_ERROR {
			return nil, unix.Errno(-int32(ne.Uint32(buf[unix.SizeofNlMsghdr:])))
		}
		return buf[unix.SizeofNlMsghdr+4 : n], nil
	}
}

// receivesRedirects says if other ports may redirect frames to this one. A veth does only when its peer takes whole frames:
// it has GRO, or an XDP program. errNoFeatures and others: unknown.
func (r *featureReader) receivesRedirects(ifindex int) (bool, error) {
	reply, err := r.ask(r.family, netdevCmdDevGet, netdevAttrIfindex, binary.NativeEndian.AppendUint32(nil, uint32(ifindex)))
	if err != nil {
		return false, fmt.Errorf("ask what a port can do: %w", err)
	}
	v, ok := attribute(reply, netdevAttrFeatures)
	if !ok || len(v) < 8 {
		return false, errNoFeatures
	}
	return binary.NativeEndian.Uint64(v)&featureNdoXmit != 0, nil
}
