package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The slots of the map `sets`.
const (
	slotBlock      = 0
	slotNeverBlock = 1
	slotQuarantine = 2
)

// SetBlockSets replaces all block sets at once: each packet sees the old ones or the new ones. Flows that are cut through are
// held against the new ones at their next packet. Prefixes shorter than /8 (IPv6: /16) are left out and logged. Of overlapping
// prefixes the longest one's list is named, of equal ones the first list. Two goroutines must not call it at once.
func (w *Wire) SetBlockSets(sets []BlockSet) error {
	n, err := w.swap(slotBlock, stepBlock, sets)
	if err != nil {
		return fmt.Errorf("set block sets: %w", err)
	}
	names := make(map[uint32]string, len(sets))
	for i := range sets {
		names[sets[i].ID] = sets[i].Name
	}
	w.mu.Lock()
	w.listNames, w.blockPrefixes = names, n
	w.mu.Unlock()
	return nil
}

// SetNeverBlock replaces the destinations that no step may stop.
func (w *Wire) SetNeverBlock(prefixes []netip.Prefix) error {
	if _, err := w.swap(slotNeverBlock, stepNeverBlock, []BlockSet{{Name: "never_block", Prefixes: prefixes}}); err != nil {
		return fmt.Errorf("set never_block: %w", err)
	}
	return nil
}

// swap builds an image beside the old one and puts it in its place. It returns the number of prefixes in it.
func (w *Wire) swap(slot, step uint32, sets []BlockSet) (int, error) {
	plan, err := planSet(sets)
	if err != nil {
		return 0, err
	}
	if plan.nRefuse > 0 {
		w.log.Warn("prefixes too short for a list are left out", "number", plan.nRefuse, "first", plan.refused)
	}
	n := len(plan.v4) + len(plan.v6)
	if n == 0 {
		plan = nil
	}
	return n, w.swapPlan(slot, step, plan)
}

// swapPlan puts the plan's image in the place of the old one; nil empties the slot. The step is on while there is an image:
// switched on after it is there, and off before it goes, so that no packet meets half of it.
func (w *Wire) swapPlan(slot, step uint32, plan *setPlan) error {
	w.life.RLock()
	defer w.life.RUnlock()
	if w.closed {
		return ErrClosed
	}
	if plan == nil {
		w.control.setStep(step, slot == slotQuarantine && atomic.LoadUint32(&w.control.Steps)&step != 0)
		if err := w.objs.Sets.Delete(slot); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("empty set: %w", err)
		}
	} else {
		image, err := newImage(plan)
		if err != nil {
			return err
		}
		defer image.Close() //nolint:errcheck // the outer map holds it
		if err := w.objs.Sets.Put(slot, image); err != nil {
			return fmt.Errorf("swap set: %w", err)
		}
		w.control.setStep(step, true)
	}
	atomic.AddUint32(&w.control.Generation, 1)
	return nil
}

// newImage makes the inner map and writes the plan into its memory.
func newImage(plan *setPlan) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "set_image", Type: ebpf.Array, KeySize: 4, ValueSize: lineSize, MaxEntries: plan.lines,
		Flags: unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return nil, fmt.Errorf("make set of %d bytes: %w", plan.size(), err)
	}
	page := unix.Getpagesize()
	mem, err := unix.Mmap(m.FD(), 0, (plan.size()+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("map set: %w", err)
	}
	plan.write(mem[:plan.size()])
	if err := unix.Munmap(mem); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("unmap set: %w", err)
	}
	return m, nil
}
