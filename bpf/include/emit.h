/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the program tells: counters always and exactly, samples of drops and ends of flows as long as there is room. */
#ifndef KADOMORI_EMIT_H
#define KADOMORI_EMIT_H

#include <bpf/bpf_helpers.h>
#include "maps.h"
#include "parse.h"

static __always_inline struct control_page *settings(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline void count(struct packet *p, enum outcome o)
{
	__u32 port = p->port;
	struct port_counters *c = bpf_map_lookup_elem(&counters, &port);
	if (!c || o >= OUTCOMES)
		return;
	c->outcome[o].packets++;
	c->outcome[o].bytes += p->bytes;
}

static __always_inline void count_note(struct packet *p, enum note n)
{
	__u32 port = p->port;
	struct port_counters *c = bpf_map_lookup_elem(&counters, &port);
	if (!c)
		return;
	c->note[n].packets++;
	c->note[n].bytes += p->bytes;
}

/* Counts what the parser noted. */
__noinline int count_notes(struct packet *p)
{
	if (!p)
		return 0;
	__u32 notes = p->notes;
#pragma clang loop unroll(disable)
	for (int i = 0; i < NOTES; i++)
		if (notes >> i & 1)
			count_note(p, i);
	return 0;
}

static __always_inline __u32 mix(__u32 h, __u32 v)
{
	h = (h ^ v) * 0x9e3779b1U;
	return h ^ h >> 15;
}

/* Tells of a drop unless the same one (reason, list, ends) was told less than an interval ago on this CPU. */
__noinline int sample_drop(struct packet *p, __u32 reason, __u32 list)
{
	struct control_page *control = settings();
	if (!p || !control)
		return 0;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 h = mix(reason, list);
	for (int i = 0; i < 4; i++)
		h = mix(mix(h, p->src.w[i]), p->dst.w[i]);
	h |= 1; /* 0 marks an unused slot */

	__u32 at = h >> 1 & (DROP_SLOTS - 1);
	struct drop_slot *slot = bpf_map_lookup_elem(&drop_slots, &at);
	if (!slot)
		return 0;
	if (slot->hash == h && now - slot->last < control->sample_interval) {
		slot->held++;
		count_note(p, NOTE_SAMPLE_HELD);
		return 0;
	}
	__u32 held = slot->hash == h ? slot->held : 0;
	slot->hash = h;
	slot->held = 0;
	slot->last = now;

	struct drop_sample *s = bpf_ringbuf_reserve(&samples, sizeof(*s), 0);
	if (!s) {
		count_note(p, NOTE_SAMPLE_LOST);
		return 0;
	}
	s->time = now;
	s->reason = reason;
	s->list = list;
	s->src = p->src;
	s->dst = p->dst;
	s->src_port = p->src_port;
	s->dst_port = p->dst_port;
	s->vlan[0] = p->vlan[0];
	s->vlan[1] = p->vlan[1];
	s->bytes = p->bytes;
	s->packets = 1 + held;
	s->proto = p->proto;
	s->port = p->port;
	s->pad[0] = s->pad[1] = 0;
	__builtin_memcpy(s->src_mac, &p->src_mac, sizeof(s->src_mac));
	__builtin_memcpy(s->dst_mac, &p->dst_mac, sizeof(s->dst_mac));
	bpf_ringbuf_submit(s, 0);
	return 0;
}

/* Counts under (reason, list), exactly. Returns the count, or 0 when there was no room for it. */
static __always_inline struct drop_tally *tally(struct packet *p, __u32 reason, __u32 list)
{
	struct drop_key k = {.reason = reason, .list = list};
	struct drop_tally *n = bpf_map_lookup_elem(&drops, &k);
	if (!n) {
		struct drop_tally zero = {};
		bpf_map_update_elem(&drops, &k, &zero, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&drops, &k);
	}
	if (n) {
		n->packets++;
		n->bytes += p->bytes;
	} else {
		count_note(p, NOTE_DROP_UNLISTED);
	}
	return n;
}

/* 1 when one more drop of this kind may be told. Under a flood this answer is what a drop costs, so it asks no clock.
 */
static __always_inline int may_sample(struct drop_tally *n)
{
	struct control_page *control = settings();
	if (!n || !control)
		return 0;
	__u32 window = bpf_jiffies64() >> 8;
	if (n->window != window) {
		n->window = window;
		n->used = 0;
	}
	if (n->used >= control->sample_budget) {
		n->held++;
		return 0;
	}
	n->used++;
	return 1;
}

/* The only way to stop a packet. */
__noinline int drop(struct packet *p, __u32 reason, __u32 list)
{
	if (!p)
		return XDP_DROP;
	struct drop_tally *n = tally(p, reason, list);
	count(p, OUT_DROP);
	if (may_sample(n))
		sample_drop(p, reason, list);
	return XDP_DROP;
}

/* Tells that a flow ended, once. */
static __always_inline void emit_ended(struct packet *p, struct flow *f, const struct flow_key *k)
{
	if (f->ending)
		return;
	f->ending = 1;
	if (bpf_ringbuf_output(&ended, (void *)k, sizeof(*k), BPF_RB_NO_WAKEUP) < 0)
		count_note(p, NOTE_ENDED_LOST);
}

#endif
