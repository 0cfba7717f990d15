package xdp

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// flowFilter is the agent's side of the map `flow_filter`: a bit by the hash of each flow that is in the table, and here the
// number of flows behind each bit, so that it can be cleared.
type flowFilter struct {
	shift uint32
	mem   []byte

	mu     sync.Mutex // guards what is below; packet loops hold it for some nanoseconds
	bits   []uint64
	counts []uint16
}

// filterLines is how many lines the filter of a table has: 8 bits a flow.
func filterLines(flows int) uint32 { return 1 << (filterWidth(flows) - 9) }

func filterWidth(flows int) int { return max(bits.Len(uint(flows*8-1)), 12) }

// newFlowFilter maps the filter and clears it; the caller adds what is in the table.
func newFlowFilter(m *ebpf.Map, flows int) (*flowFilter, error) {
	width := filterWidth(flows)
	size := 1 << (width - 3)
	mem, err := unix.Mmap(m.FD(), 0, max(size, unix.Getpagesize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map flow filter: %w", err)
	}
	return &flowFilter{
		shift: uint32(64 - width), mem: mem,
		bits: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), size/8), counts: make([]uint16, 1<<width),
	}, nil
}

// flowBit is the bit of flow_hash of bpf/include/verdict.h.
func flowBit(k *edgeFlowKey, shift uint32) uint32 {
	le := binary.LittleEndian
	h := (le.Uint64(k.A.B[:8]) ^ le.Uint64(k.B.B[:8])) * hashFactor
	h ^= (le.Uint64(k.A.B[8:]) ^ le.Uint64(k.B.B[8:])) * 0xc2b2ae3d27d4eb4f
	h ^= (uint64(k.A_port^k.B_port)<<40 | uint64(k.Vlan[0])<<24 | uint64(k.Vlan[1])<<8 | uint64(k.Proto)) * 0x165667b19e3779f9
	h ^= h >> 29
	return uint32(h * hashFactor >> shift)
}

// add sets the flow's bit; call it before the flow is put into the table.
func (f *flowFilter) add(k *edgeFlowKey) {
	b := flowBit(k, f.shift)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[b] < ^uint16(0) { // a bit that was ever shared by so many stays set
		f.counts[b]++
	}
	f.bits[b>>6] |= 1 << (b & 63)
}

// remove takes the flow's bit back; call it after the flow was taken out of the table.
func (f *flowFilter) remove(k *edgeFlowKey) {
	b := flowBit(k, f.shift)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[b] == 0 || f.counts[b] == ^uint16(0) {
		return
	}
	if f.counts[b]--; f.counts[b] == 0 {
		f.bits[b>>6] &^= 1 << (b & 63)
	}
}

// rebuild makes the filter of exactly these flows: bits that an earlier agent left behind go, and no bit of a flow in the
// table is ever clear meanwhile.
func (f *flowFilter) rebuild(keys []edgeFlowKey) {
	want := make([]uint64, len(f.bits))
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.counts)
	for i := range keys {
		b := flowBit(&keys[i], f.shift)
		if f.counts[b] < ^uint16(0) {
			f.counts[b]++
		}
		want[b>>6] |= 1 << (b & 63)
	}
	copy(f.bits, want)
}

func (f *flowFilter) close() {
	if f.mem != nil {
		_ = unix.Munmap(f.mem)
		f.mem = nil
	}
}
