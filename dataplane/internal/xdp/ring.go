package xdp

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one of the four rings that a packet socket shares with the kernel. One side produces, the other consumes; prod and
// cons are the shared indices, cp and cc our copies, so that the shared cache line is touched once a batch.
type ring[T any] struct {
	prod, cons, flags *uint32
	desc              []T
	mask, cp, cc      uint32
	mem               []byte
}

func (r *ring[T]) size() uint32 { return r.mask + 1 }

// As consumer.

// avail is how many entries may be popped.
func (r *ring[T]) avail() uint32 {
	if r.cp == r.cc {
		r.cp = atomic.LoadUint32(r.prod)
	}
	return r.cp - r.cc
}

func (r *ring[T]) pop() T {
	v := r.desc[r.cc&r.mask]
	r.cc++
	return v
}

// release gives popped entries back, once a batch.
func (r *ring[T]) release() { atomic.StoreUint32(r.cons, r.cc) }

// As producer.

// room is how many entries may be pushed.
func (r *ring[T]) room() uint32 {
	if free := r.size() - (r.cp - r.cc); free >= batch {
		return free
	}
	r.cc = atomic.LoadUint32(r.cons)
	return r.size() - (r.cp - r.cc)
}

func (r *ring[T]) push(v T) {
	r.desc[r.cp&r.mask] = v
	r.cp++
}

// publish shows pushed entries to the kernel, once a batch.
func (r *ring[T]) publish() { atomic.StoreUint32(r.prod, r.cp) }

// wantsWakeup says that the kernel waits for a system call before it goes on with this ring.
func (r *ring[T]) wantsWakeup() bool {
	return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}

// mapRing maps one ring of the socket into memory.
func mapRing[T any](fd int, offset int64, o unix.XDPRingOffset, size uint32) (ring[T], error) {
	var zero T
	length := int(o.Desc) + int(size)*int(unsafe.Sizeof(zero))
	mem, err := unix.Mmap(fd, offset, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring[T]{}, fmt.Errorf("map ring: %w", err)
	}
	r := ring[T]{
		prod:  (*uint32)(unsafe.Pointer(&mem[o.Producer])),
		cons:  (*uint32)(unsafe.Pointer(&mem[o.Consumer])),
		flags: (*uint32)(unsafe.Pointer(&mem[o.Flags])),
		desc:  unsafe.Slice((*T)(unsafe.Pointer(&mem[o.Desc])), size),
		mask:  size - 1,
		mem:   mem,
	}
	r.cp, r.cc = atomic.LoadUint32(r.prod), atomic.LoadUint32(r.cons)
	return r, nil
}

func (r *ring[T]) unmap() {
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
		r.mem = nil
	}
}
