package xdp

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxQueues = 16   // MAX_QUEUES of bpf/include/types.h
	batch     = 64   // packets of one port a turn; 16 and 256 cost the same
	ringSize  = 2048 // entries of each ring
	frames    = 8192 // of a UMEM: both ports' fill and receive rings full
	reserve   = 256  // frames that refill leaves for crafted packets
	headroom  = 256  // XDP_PACKET_HEADROOM: what the kernel keeps of each frame
)

// umem is the packet memory of one queue, shared by its sockets on both ports: a frame received on one is sent on the other
// without a copy in user space.
type umem struct {
	mem       []byte
	frameSize uint64
	free      []uint64 // frames that are in no ring
}

func newUmem(frameSize int) (*umem, error) {
	mem, err := unix.Mmap(-1, 0, frames*frameSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map packet memory: %w", err)
	}
	u := &umem{mem: mem, frameSize: uint64(frameSize), free: make([]uint64, 0, frames)}
	for i := frames - 1; i >= 0; i-- {
		u.free = append(u.free, uint64(i*frameSize))
	}
	return u, nil
}

func (u *umem) close() {
	if u.mem != nil {
		_ = unix.Munmap(u.mem)
		u.mem = nil
	}
}

// put takes a frame back. The kernel's addresses have the headroom in them.
func (u *umem) put(addr uint64) { u.free = append(u.free, addr&^(u.frameSize-1)) }

func (u *umem) take() (uint64, bool) {
	if len(u.free) == 0 {
		return 0, false
	}
	a := u.free[len(u.free)-1]
	u.free = u.free[:len(u.free)-1]
	return a, true
}

// socket is one AF_XDP socket: one queue of one port.
type socket struct {
	fd       int
	rx, tx   ring[unix.XDPDesc]
	fill     ring[uint64]
	done     ring[uint64] // completion
	inflight uint32       // pushed on tx and not yet seen on done
	zeroCopy bool
}

// newSocket makes the socket with its rings. The first socket of a UMEM registers it; each has rings of its own.
func newSocket(u *umem, first bool) (_ *socket, err error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	s := &socket{fd: fd}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if first {
		reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&u.mem[0]))), Len: uint64(len(u.mem)), Size: uint32(u.frameSize)}
		if err := setsockopt(fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
			return nil, fmt.Errorf("register packet memory: %w", err)
		}
	}
	for _, opt := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		size := uint32(ringSize)
		if err := setsockopt(fd, opt, unsafe.Pointer(&size), unsafe.Sizeof(size)); err != nil {
			return nil, fmt.Errorf("size packet ring %d: %w", opt, err)
		}
	}
	var off unix.XDPMmapOffsets
	if err := getsockopt(fd, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&off), unsafe.Sizeof(off)); err != nil {
		return nil, fmt.Errorf("ask for packet rings: %w", err)
	}
	if s.fill, err = mapRing[uint64](fd, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, ringSize); err != nil {
		return nil, err
	}
	if s.done, err = mapRing[uint64](fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, ringSize); err != nil {
		return nil, err
	}
	if s.rx, err = mapRing[unix.XDPDesc](fd, unix.XDP_PGOFF_RX_RING, off.Rx, ringSize); err != nil {
		return nil, err
	}
	if s.tx, err = mapRing[unix.XDPDesc](fd, unix.XDP_PGOFF_TX_RING, off.Tx, ringSize); err != nil {
		return nil, err
	}
	// Sends up to 256 frames a system call in copy mode instead of 32; older kernels don't know it.
	budget := uint32(256)
	_ = setsockopt(fd, xdpMaxTxSkbBudget, unsafe.Pointer(&budget), unsafe.Sizeof(budget))
	return s, nil
}

const xdpMaxTxSkbBudget = 9 // XDP_MAX_TX_SKB_BUDGET of linux/if_xdp.h since 6.18

// bind joins the socket to a queue. share is the socket that registered the UMEM, or nil for that one itself.
func (s *socket) bind(ifindex, queue int, share *socket, generic bool) error {
	sa := &unix.SockaddrXDP{Ifindex: uint32(ifindex), QueueID: uint32(queue)}
	if share != nil {
		// The mode is the first one's; another flag here is an error.
		sa.Flags, sa.SharedUmemFD = unix.XDP_SHARED_UMEM, uint32(share.fd)
		return unix.Bind(s.fd, sa)
	}
	if !generic {
		sa.Flags = unix.XDP_ZEROCOPY | unix.XDP_USE_NEED_WAKEUP
		err := unix.Bind(s.fd, sa)
		if err == nil {
			s.zeroCopy = true
			return nil
		}
		if errors.Is(err, unix.EBUSY) {
			return err // another process has the queue; the mode isn't at fault
		}
	}
	sa.Flags = unix.XDP_COPY | unix.XDP_USE_NEED_WAKEUP
	return unix.Bind(s.fd, sa)
}

// reap takes sent frames back.
func (s *socket) reap(u *umem) {
	n := s.done.avail()
	if n == 0 {
		return
	}
	for range n {
		u.put(s.done.pop())
	}
	s.done.release()
	s.inflight -= n
}

// refill gives the kernel frames to receive into.
func (s *socket) refill(u *umem) {
	pushed := false
	for room := s.fill.room(); room > 0 && len(u.free) > reserve; room-- {
		a, _ := u.take()
		s.fill.push(a)
		pushed = true
	}
	if !pushed {
		return
	}
	s.fill.publish()
	if s.fill.wantsWakeup() {
		_, _, _ = unix.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
}

// send pushes a frame; the caller has seen room.
func (s *socket) send(d unix.XDPDesc) {
	s.tx.push(d)
	s.inflight++
}

// kick makes the kernel send. EAGAIN, EBUSY and ENOBUFS are answers as a matter of course: the caller kicks again while
// anything is in flight.
func (s *socket) kick() {
	s.tx.publish()
	if s.inflight > 0 && s.tx.wantsWakeup() {
		_, _, _ = unix.Syscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
}

// statistics are the packets that the kernel lost on our account.
func (s *socket) statistics() (st unix.XDPStatistics, err error) {
	err = getsockopt(s.fd, unix.XDP_STATISTICS, unsafe.Pointer(&st), unsafe.Sizeof(st))
	return st, err
}

func (s *socket) close() {
	s.rx.unmap()
	s.tx.unmap()
	s.fill.unmap()
	s.done.unmap()
	_ = unix.Close(s.fd)
}

func setsockopt(fd, opt int, p unsafe.Pointer, size uintptr) error {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt), uintptr(p), size, 0)
	if e != 0 {
		return e
	}
	return nil
}

func getsockopt(fd, opt int, p unsafe.Pointer, size uintptr) error {
	l := uint32(size)
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt), uintptr(p), uintptr(unsafe.Pointer(&l)), 0)
	if e != 0 {
		return e
	}
	return nil
}
