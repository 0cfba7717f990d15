/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The maps: for each its key, value, who writes it, and what happens when it is full. All are pinned by name. */
#ifndef KADOMORI_MAPS_H
#define KADOMORI_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "types.h"

/* The agent's settings and heartbeat; the agent writes through mmap, the program reads. One element. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control_page);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} control SEC(".maps");

/* Port -> counts; the program writes, one copy a CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct port_counters);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

/* Port * MAX_QUEUES + queue -> packet socket; the agent writes. An empty slot forwards unseen. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, PORTS *MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sockets SEC(".maps");

/* Port -> interface; the agent writes. An entry goes with its interface, and then that direction drops. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} devices SEC(".maps");

/*
 * Flow -> verdict and counts; only the agent inserts and deletes, the program counts. Full: the flow stays with the
 * packet sockets. Not an LRU: a scan would push out verdicts. The agent sets max_entries.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} flows SEC(".maps");

/*
 * Bits by the hash of a flow: clear for almost all flows that aren't in `flows`, and so a packet without a verdict
 * costs one line here instead of a key, its hash and two lines there. The agent writes through mmap, before it inserts
 * and after it deletes, and sets max_entries.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct set_line);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} flow_filter SEC(".maps");

/*
 * Flow -> what of its counts the agent has told already; only the agent writes. It lets the next agent go on without
 * telling a byte twice. Full: cannot be, it holds keys of `flows` only.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} told SEC(".maps");

/*
 * Flow -> counts of packets forwarded while no packet socket took them; the program inserts, the agent takes out. Full:
 * the least recently used flow goes and its bytes are told without a flow (the counters of the port have them).
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} unseen SEC(".maps");

/* The shape of a set's image; each image is as long as it needs to be. */
struct set_image {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, SET_HEADER_LINES);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct set_line));
};

/* enum set_slot -> image; the agent swaps whole images. An empty slot is an empty set. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SETS);
	__type(key, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct set_image);
} sets SEC(".maps");

/* MAC of an inside host that is cut off -> 1; the agent writes. Full: the agent says so. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} quarantine_macs SEC(".maps");

/* Address and kind -> tokens; the program writes. Full: the least recently used bucket is forgotten, and with it its
 * limit. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct bucket_key);
	__type(value, struct bucket);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} buckets SEC(".maps");

/* Hash of a flow -> when its last packet without a verdict came (ns); the program writes, only while new flows are
 * limited. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} recent SEC(".maps");

/*
 * (reason, list) -> counts and budget, one copy a CPU; the program writes. Full (more lists in one boot than entries):
 * counted by NOTE_DROP_UNLISTED, the packet is dropped all the same.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct drop_key);
	__type(value, struct drop_tally);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} drops SEC(".maps");

/* The sampling filter of drops; the program writes, one copy a CPU. A collision makes one more sample. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_SLOTS);
	__type(key, __u32);
	__type(value, struct drop_slot);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} drop_slots SEC(".maps");

/* struct drop_sample; the program writes, the agent reads. Full: NOTE_SAMPLE_LOST. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
	__type(value, struct drop_sample);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} samples SEC(".maps");

/* struct flow_key of flows that ended; the program writes, the agent reads. Full: NOTE_ENDED_LOST. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ended SEC(".maps");

#endif
