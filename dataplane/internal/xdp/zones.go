package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"
)

// The limits of the zone tables; bpf/include/types.h.
const (
	maxZones     = 16
	maxZoneRules = 64 // of one pair
	pairLines    = maxZones * maxZones * 16 / lineSize
	vlanLines    = 4096 / lineSize
	macsPerLine  = 8

	wordZoneTables  = 10
	wordZoneRules   = 11
	wordZoneMACs    = 12
	wordZoneMACMask = 13
	wordZoneLAN     = 14
	wordZoneWAN     = 15

	slotZone = 3
)

// ZoneAction is what a rule says of a packet.
type ZoneAction uint8

const (
	// ZonePass lets it go on to the next step.
	ZonePass ZoneAction = iota
	// ZoneDrop stops it.
	ZoneDrop
	// ZoneCount lets it go on and counts it under the rule's id.
	ZoneCount
)

// Zone is a part of the network, 0..15. What is behind the LAN port is named by the first of MAC, VLAN, prefix that fits;
// the other side by prefix.
type Zone struct {
	Name     string
	Prefixes []netip.Prefix
	VLANs    []uint16 // outermost tag, 1..4094
	MACs     [][6]byte
}

// ZoneRule is one line of the policy between two zones.
type ZoneRule struct {
	ID        uint32 // drops and counts are told under it
	Proto     uint8  // IANA protocol number; 0 all
	Low, High uint16 // destination ports, both included; 0 and 0 is all, and packets without ports
	Action    ZoneAction
}

// ZonePair is the policy from one zone to another: the first rule that fits, or else Default, told under ID.
type ZonePair struct {
	From, To int // indices of ZonePolicy.Zones
	Rules    []ZoneRule
	Default  ZoneAction
	ID       uint32
}

// ZonePolicy is the whole policy. Pairs that are not named pass. LAN and WAN are the zones of what no zone names.
type ZonePolicy struct {
	Zones    []Zone
	Pairs    []ZonePair
	LAN, WAN int
}

// SetZones replaces zones and their policy at once; without zones the step is skipped. TCP is judged by the packet that asks
// for a connection. Of other protocols an answer passes when a rule of the opposite pair passes the question.
func (w *Wire) SetZones(policy ZonePolicy) error {
	if len(policy.Zones) == 0 {
		if err := w.swapPlan(slotZone, stepZone, nil); err != nil {
			return fmt.Errorf("set zones: %w", err)
		}
		return nil
	}
	plan, err := planZones(&policy)
	if err != nil {
		return fmt.Errorf("set zones: %w", err)
	}
	if err := w.swapPlan(slotZone, stepZone, plan); err != nil {
		return fmt.Errorf("set zones: %w", err)
	}
	return nil
}

// planZones lays the tables out behind the set of the zones' prefixes.
func planZones(policy *ZonePolicy) (*setPlan, error) {
	n := len(policy.Zones)
	if n > maxZones {
		return nil, fmt.Errorf("%d zones, at most %d", n, maxZones)
	}
	if policy.LAN < 0 || policy.LAN >= n || policy.WAN < 0 || policy.WAN >= n {
		return nil, errors.New("lan or wan: no such zone")
	}
	var sets []BlockSet
	vlans := make([]byte, 4096)
	macs := map[uint64]int{}
	for i := range policy.Zones {
		z := &policy.Zones[i]
		sets = append(sets, BlockSet{ID: uint32(i), Name: z.Name, Prefixes: z.Prefixes})
		for _, v := range z.VLANs {
			if v == 0 || v > 4094 {
				return nil, fmt.Errorf("zone %q: VLAN %d is not in 1..4094", z.Name, v)
			}
			if other := vlans[v]; other != 0 {
				return nil, fmt.Errorf("zone %q: VLAN %d is zone %q already", z.Name, v, policy.Zones[other-1].Name)
			}
			vlans[v] = byte(i + 1)
		}
		for _, m := range z.MACs {
			k := macNumber(m)
			if other, ok := macs[k]; ok {
				return nil, fmt.Errorf("zone %q: MAC %x is zone %q already", z.Name, m, policy.Zones[other].Name)
			}
			macs[k] = i
		}
	}
	rules, pairs, err := layRules(policy)
	if err != nil {
		return nil, err
	}
	table, mask := layMACs(macs)
	plan, err := planSet(sets)
	if err != nil {
		return nil, err
	}
	first := plan.lines
	ruleLines := uint32(len(rules)+3) / 4
	macLines := uint32(len(table) / macsPerLine)
	plan.lines += pairLines + vlanLines + ruleLines + macLines
	plan.extra = func(w []uint32, d []uint64) {
		w[wordZoneTables], w[wordZoneRules] = first, first+pairLines+vlanLines
		w[wordZoneLAN], w[wordZoneWAN] = uint32(policy.LAN), uint32(policy.WAN)
		copy(w[first*16:], pairs[:])
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(&w[(first+pairLines)*16])), len(vlans))
		copy(bytes, vlans)
		for i, r := range rules {
			at := (first+pairLines+vlanLines)*16 + uint32(i)*4
			w[at] = uint32(r.Low) | uint32(r.High)<<16
			w[at+1] = uint32(r.Proto) | uint32(r.Action)<<8
			w[at+2] = r.ID
		}
		if len(table) > 0 {
			at := first + pairLines + vlanLines + ruleLines
			w[wordZoneMACs], w[wordZoneMACMask] = at, mask
			copy(d[at*8:], table)
		}
	}
	return plan, nil
}

// layRules puts the rules of all pairs behind each other; a pair is four words: first rule, number, default, id.
func layRules(policy *ZonePolicy) (rules []ZoneRule, pairs [maxZones * maxZones * 4]uint32, err error) {
	n := len(policy.Zones)
	seen := map[[2]int]bool{}
	for i := range policy.Pairs {
		p := &policy.Pairs[i]
		if p.From < 0 || p.From >= n || p.To < 0 || p.To >= n {
			return nil, pairs, fmt.Errorf("pair %d: no such zone", i)
		}
		if len(p.Rules) > maxZoneRules {
			return nil, pairs, fmt.Errorf("pair %d: %d rules, at most %d", i, len(p.Rules), maxZoneRules)
		}
		if seen[[2]int{p.From, p.To}] {
			return nil, pairs, fmt.Errorf("pair %d: from %q to %q is there twice", i, policy.Zones[p.From].Name, policy.Zones[p.To].Name)
		}
		seen[[2]int{p.From, p.To}] = true
		at := (p.From*maxZones + p.To) * 4
		pairs[at], pairs[at+1], pairs[at+2], pairs[at+3] = uint32(len(rules)), uint32(len(p.Rules)), uint32(p.Default), p.ID
		for _, r := range p.Rules {
			if r.Low == 0 && r.High == 0 {
				r.High = 0xffff
			}
			if r.Low > r.High {
				return nil, pairs, fmt.Errorf("pair %d, rule %d: ports %d..%d", i, r.ID, r.Low, r.High)
			}
			if r.Action > ZoneCount || p.Default > ZoneCount {
				return nil, pairs, fmt.Errorf("pair %d, rule %d: unknown action", i, r.ID)
			}
			rules = append(rules, r)
		}
	}
	return rules, pairs, nil
}

// macNumber is a MAC as the program loads it: wire order in the lower 48 bits of a little-endian word.
func macNumber(m [6]byte) uint64 {
	var b [8]byte
	copy(b[:], m[:])
	return binary.LittleEndian.Uint64(b[:])
}

// layMACs makes a hash table of lines of eight, big enough that no line overflows.
func layMACs(macs map[uint64]int) (table []uint64, mask uint32) {
	if len(macs) == 0 {
		return nil, 0
	}
	for lines := 1; ; lines *= 2 {
		table = make([]uint64, lines*macsPerLine)
		mask = uint32(lines - 1)
		used := make([]int, lines)
		fits := true
		for m, zone := range macs {
			at := uint32(m*hashFactor>>40) & mask
			if used[at] == macsPerLine {
				fits = false
				break
			}
			table[int(at)*macsPerLine+used[at]] = m | uint64(zone+1)<<48
			used[at]++
		}
		if fits {
			return table, mask
		}
	}
}

// Rate is a limit: tokens a second, and how many may be spent at once. PerSecond 0 is no limit; Burst 0 is PerSecond.
type Rate struct {
	PerSecond, Burst uint32
}

// Rates are the limits of packets without a verdict: connection requests (SYN), UDP datagrams, ICMP messages, and first packets
// of flows.
type Rates struct {
	SYN, UDP, ICMP, Flow Rate
}

// SetRates sets the limits for each source, and for all that comes from the WAN port to each inside host. What the Handler has
// cut through is not limited. New limits hold from the next packet on; filled buckets stay as they are.
func (w *Wire) SetRates(source, inside Rates) error {
	w.life.RLock()
	defer w.life.RUnlock()
	if w.closed {
		return fmt.Errorf("set rates: %w", ErrClosed)
	}
	any := false
	for i, pair := range [...][2]Rate{{source.SYN, inside.SYN}, {source.UDP, inside.UDP}, {source.ICMP, inside.ICMP}, {source.Flow, inside.Flow}} {
		for j, r := range pair {
			limit := &w.control.Source[i]
			if j == 1 {
				limit = &w.control.Inside[i]
			}
			burst := r.Burst
			if burst == 0 {
				burst = r.PerSecond
			}
			atomic.StoreUint32(&limit.Burst, burst)
			atomic.StoreUint32(&limit.PerSecond, r.PerSecond)
			any = any || r.PerSecond > 0
		}
	}
	w.control.setStep(stepRate, any)
	return nil
}

// Quarantine are the inside hosts that are cut off from everything but never_block.
type Quarantine struct {
	MACs  [][6]byte // at most 1024
	Addrs []netip.Addr
}

// SetQuarantine replaces them. Hosts that are in both the old and the new one are never let out in between.
func (w *Wire) SetQuarantine(q Quarantine) error {
	if len(q.MACs) > 1024 {
		return fmt.Errorf("set quarantine: %d MAC addresses, at most 1024", len(q.MACs))
	}
	var prefixes []netip.Prefix
	for _, a := range q.Addrs {
		if !a.IsValid() {
			return errors.New("set quarantine: address is not valid")
		}
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	// An empty set of addresses leaves the step as it is: it depends on the MAC addresses too.
	n, err := w.swap(slotQuarantine, stepQuarantine, []BlockSet{{Name: "quarantine", Prefixes: prefixes}})
	if err != nil {
		return fmt.Errorf("set quarantine: %w", err)
	}
	w.life.RLock()
	defer w.life.RUnlock()
	if w.closed {
		return fmt.Errorf("set quarantine: %w", ErrClosed)
	}
	want := map[uint64]bool{}
	for _, m := range q.MACs {
		want[macNumber(m)] = true
	}
	var old []uint64
	var k uint64
	var v uint32
	it := w.objs.QuarantineMacs.Iterate()
	for it.Next(&k, &v) {
		if !want[k] {
			old = append(old, k)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("set quarantine: read MAC addresses: %w", err)
	}
	w.control.setStep(stepQuarantine, n+len(want) > 0)
	for _, k := range old { // first, or the new ones may find no room
		if err := w.objs.QuarantineMacs.Delete(k); err != nil {
			return fmt.Errorf("set quarantine: %w", err)
		}
	}
	for k := range want {
		if err := w.objs.QuarantineMacs.Put(k, uint32(1)); err != nil {
			return fmt.Errorf("set quarantine: %w", err)
		}
	}
	return nil
}
