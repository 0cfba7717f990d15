/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The steps: each returns a verdict of XDP or CONTINUE. Beside each stands what happens when it can't tell. */
#ifndef KADOMORI_VERDICT_H
#define KADOMORI_VERDICT_H

#include <bpf/bpf_helpers.h>
#include "emit.h"
#include "maps.h"
#include "parse.h"
#include "set.h"

#define CONTINUE (-1)

/* Sends the packet out of the other port. Fails closed only where there is no other port: then there is nowhere to send to. */
static __always_inline int forward(struct control_page *c, struct packet *p, enum outcome o)
{
	count(p, o);
	if (c->mode == MODE_TAP)
		return XDP_DROP; /* a copy of the traffic: it ends here */
	return bpf_redirect_map(&devices, !p->port, XDP_DROP);
}

/*
 * 1 when a destination (or the source that answers) may never be blocked. Asked only when a step would stop the packet: the
 * same answer as asking first, at no cost to packets that nobody wants to stop. Fails open.
 */
__noinline int never_block(struct packet *p)
{
	struct control_page *c = settings();
	if (!p || !c || !(c->steps & STEP_NEVER_BLOCK))
		return 0;
	if (!p->never) {
		struct set s;
		set_open(&s, SET_NEVER_BLOCK);
		p->never = 1 + (set_find(&s, &p->dst) || set_find(&s, &p->src));
		if (p->never == 2)
			count_note(p, NOTE_NEVER_BLOCK);
	}
	return p->never == 2;
}

/* An inside host that is cut off, by address. Fails open. */
__noinline int quarantine(struct xdp_md *xdp, struct packet *p)
{
	if (!p)
		return CONTINUE;
	struct set s;
	set_open(&s, SET_QUARANTINE);
	if (!set_find(&s, &p->src) && !set_find(&s, &p->dst))
		return CONTINUE;
	if (never_block(p))
		return CONTINUE;
	return drop(xdp, p, REASON_QUARANTINE, 0);
}

/* The block sets. Fails open. */
__noinline int block(struct xdp_md *xdp, struct packet *p)
{
	if (!p)
		return CONTINUE;
	struct set s;
	set_open(&s, SET_BLOCK);
	__u32 reason = REASON_BLOCKED_SOURCE;
	__u32 list = set_find(&s, &p->src);
	if (!list) {
		reason = REASON_BLOCKED_DESTINATION;
		list = set_find(&s, &p->dst);
	}
	if (!list || never_block(p))
		return CONTINUE;
	return drop(xdp, p, reason, list - 1);
}

/* The bit of the packet's flow in the filter, the same for both directions. Package xdp has the same function. */
static __always_inline __u32 flow_bit(const struct packet *p, __u32 shift)
{
	__u64 h = (p->src.d[0] ^ p->dst.d[0]) * 0x9e3779b97f4a7c15ULL;
	h ^= (p->src.d[1] ^ p->dst.d[1]) * 0xc2b2ae3d27d4eb4fULL;
	h ^= ((__u64)(__u16)(p->src_port ^ p->dst_port) << 40 | (__u64)p->vlan[0] << 24 | (__u64)p->vlan[1] << 8 | p->proto) *
	     0x165667b19e3779f9ULL;
	h ^= h >> 29;
	return h * 0x9e3779b97f4a7c15ULL >> (shift & 63);
}

static __always_inline int may_have_verdict(const struct packet *p, __u32 shift)
{
	__u32 bit = flow_bit(p, shift), line = bit >> 9;
	struct set_line *l = bpf_map_lookup_elem(&flow_filter, &line);
	return l && (l->d[(bit >> 6) & 7] >> (bit & 63) & 1);
}

static __always_inline void count_flow(struct flow *f, const struct packet *p, int turned)
{
	__sync_fetch_and_add(&f->packets[turned], 1);
	__sync_fetch_and_add(&f->bytes[turned], p->bytes);
	f->last = bpf_ktime_get_coarse_ns();
}

/*
 * The verdict of the packet's flow. A CUT made under other lists is held against the present ones first, and goes on when they
 * don't mind; DROP is stronger than any list. Fragments are never cut through: later ones have no ports, and the engine puts
 * all of them together in order; without a first one, which DROP stops, the others are worth nothing. Fails open.
 */
__noinline int flow_verdict(struct xdp_md *xdp, struct packet *p)
{
	struct control_page *c = settings();
	if (!p || !c || !may_have_verdict(p, c->flow_shift))
		return CONTINUE;
	struct flow_key k;
	int turned = make_key(p, &k) & 1;
	struct flow *f = bpf_map_lookup_elem(&flows, &k);
	if (!f)
		return CONTINUE;
	if (f->verdict == FLOW_DROP) {
		if (c->mode == MODE_TAP || never_block(p))
			return CONTINUE;
		count_flow(f, p, turned);
		return drop(xdp, p, REASON_FLOW, 0);
	}
	if (f->verdict != FLOW_CUT || p->fragment)
		return CONTINUE;
	__u32 generation = *(volatile __u32 *)&c->generation;
	if (f->generation != generation) {
		int v = c->mode == MODE_TAP || !(c->steps & STEP_BLOCK) ? CONTINUE : block(xdp, p);
		if (v != CONTINUE)
			return v;
		f->generation = generation;
	}
	count_flow(f, p, turned);
	if (p->tcp_flags & TCP_ENDS)
		emit_ended(p, f, &k);
	return forward(c, p, OUT_CUT);
}

/* Counts by flow what no handler saw. */
static __always_inline void count_unseen(struct packet *p)
{
	struct flow_key k;
	int turned = make_key(p, &k) & 1;
	struct flow *f = bpf_map_lookup_elem(&unseen, &k);
	if (!f) {
		struct flow zero = {};
		bpf_map_update_elem(&unseen, &k, &zero, BPF_NOEXIST);
		f = bpf_map_lookup_elem(&unseen, &k);
		if (!f)
			return; /* the counters of the port have it */
	}
	count_flow(f, p, turned);
}

/* Sends the packet on without anybody having looked at it. */
__noinline int pass_unseen(struct packet *p, __u32 outcome)
{
	struct control_page *c = settings();
	if (!p || !c)
		return XDP_DROP; /* cannot be */
	if (p->is_ip)
		count_unseen(p);
	return forward(c, p, outcome);
}

/*
 * Hands the packet to the agent. A packet loop that doesn't beat (hung, stopped, dying) and a queue that nobody serves are
 * both passed over: the wire fails open by construction.
 */
static __always_inline int inspect(struct xdp_md *xdp, struct control_page *c, struct packet *p)
{
	__u32 queue = xdp->rx_queue_index;
	if (queue >= MAX_QUEUES)
		return pass_unseen(p, OUT_NO_SOCKET);
	__u64 now = bpf_ktime_get_coarse_ns(); /* behind by up to a tick; the fine clock costs a fifth of the program */
	__u64 beat = *(volatile __u64 *)&c->beat[queue];
	if (now > beat && now - beat > c->limit)
		return pass_unseen(p, OUT_STALE);
	if (bpf_redirect_map(&sockets, p->port * MAX_QUEUES + queue, XDP_PASS) != XDP_REDIRECT)
		return pass_unseen(p, OUT_NO_SOCKET);
	count(p, OUT_HANDLER);
	return XDP_REDIRECT;
}

#endif
