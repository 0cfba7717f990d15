package xdp

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolChannels asks for the number of queues that receive (ETHTOOL_GCHANNELS of linux/ethtool.h).
func ethtoolChannels(fd int, name string) (uint32, error) {
	channels := struct {
		cmd                                 uint32
		maxRx, maxTx, maxOther, maxCombined uint32
		rx, tx, other, combined             uint32
	}{cmd: unix.ETHTOOL_GCHANNELS}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		pad  [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], ifr.Name())
	req.data = unsafe.Pointer(&channels)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if e != 0 {
		return 0, e
	}
	return channels.rx + channels.combined, nil
}

// Attributes of RTM_NEWLINK, linux/if_link.h.
const (
	iflaXDP         = 43
	iflaXDPAttached = 2
	xdpAttachedSKB  = 2
)

// attachedGeneric says if the interface runs its XDP program in the kernel's stack.
func attachedGeneric(ifindex int) (bool, error) {
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETLINK, syscall.AF_UNSPEC)
	if err != nil {
		return false, fmt.Errorf("list links: %w", err)
	}
	msgs, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return false, fmt.Errorf("list links: %w", err)
	}
	for i := range msgs {
		m := &msgs[i]
		if m.Header.Type != syscall.RTM_NEWLINK || len(m.Data) < syscall.SizeofIfInfomsg {
			continue
		}
		if info := (*syscall.IfInfomsg)(unsafe.Pointer(&m.Data[0])); int(info.Index) != ifindex {
			continue
		}
		mode, ok := attribute(m.Data[syscall.SizeofIfInfomsg:], iflaXDP)
		if ok {
			mode, ok = attribute(mode, iflaXDPAttached)
		}
		return ok && len(mode) > 0 && mode[0] == xdpAttachedSKB, nil
	}
	return false, errors.New("list links: interface not found")
}

// attribute finds a netlink attribute. Lengths are in host order.
func attribute(b []byte, kind uint16) ([]byte, bool) {
	const mask = 0x3fff // without the flags for nesting and byte order
	for len(b) >= unix.SizeofRtAttr {
		a := (*unix.RtAttr)(unsafe.Pointer(&b[0]))
		n := int(a.Len)
		if n < unix.SizeofRtAttr || n > len(b) {
			return nil, false
		}
		if a.Type&mask == kind {
			return b[unix.SizeofRtAttr:n], true
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return nil, false
}
