/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The benchmark's own programs: they give each packet the next of many addresses, and hand it to the program that is
 * measured or send it as a flood. A packet that is repeated unchanged says nothing: all it needs is in the first cache.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct bench_key {
	__u8 address[16]; /* wire order; IPv4 in the first four bytes */
	__be16 port;
	__be16 checksum; /* of the IPv4 header with this address */
	__u32 pad;
};

struct bench_plan {
	__u32 keys;
	__u32 ipv6;	 /* 1: the address has 16 bytes */
	__u32 address;	 /* offset in the frame */
	__u32 port;	 /* offset; 0: leave it */
	__u32 checksum;	 /* offset; 0: leave it */
	__u32 interface; /* of the flood */
};

/* Keys in the order of use; the benchmark writes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1048576);
	__type(key, __u32);
	__type(value, struct bench_key);
} bench_keys SEC(".maps");

/* One element; the benchmark writes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench_plan);
} bench_settings SEC(".maps");

/* Number of the next key; the programs write, one a CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} bench_next SEC(".maps");

/* The measured program in slot 0. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} bench_program SEC(".maps");

static __always_inline struct bench_plan *rewrite(struct xdp_md *xdp)
{
	__u32 zero = 0;
	struct bench_plan *plan = bpf_map_lookup_elem(&bench_settings, &zero);
	__u32 *next = bpf_map_lookup_elem(&bench_next, &zero);
	if (!plan || !next)
		return 0;
	__u32 n = *next;
	*next = n + 1 < plan->keys ? n + 1 : 0;
	struct bench_key *k = bpf_map_lookup_elem(&bench_keys, &n);
	if (!k)
		return 0;
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	void *at = data + (plan->address & 127);
	if (plan->ipv6) {
		if (at + 16 > end)
			return 0;
		__builtin_memcpy(at, k->address, 16);
	} else {
		if (at + 4 > end)
			return 0;
		__builtin_memcpy(at, k->address, 4);
	}
	if (plan->port) {
		at = data + (plan->port & 127);
		if (at + 2 > end)
			return 0;
		*(__be16 *)at = k->port;
	}
	if (plan->checksum) {
		at = data + (plan->checksum & 127);
		if (at + 2 > end)
			return 0;
		*(__be16 *)at = k->checksum;
	}
	return plan;
}

SEC("xdp")
int bench_jump(struct xdp_md *xdp)
{
	if (rewrite(xdp))
		bpf_tail_call(xdp, &bench_program, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int bench_flood(struct xdp_md *xdp)
{
	struct bench_plan *plan = rewrite(xdp);
	return plan ? bpf_redirect(plan->interface, 0) : XDP_ABORTED;
}

SEC("xdp")
int bench_empty(struct xdp_md *xdp)
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
