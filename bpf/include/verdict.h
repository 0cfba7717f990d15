/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The steps: each returns a verdict of XDP or CONTINUE. Beside each stands what happens when it can't tell. */
#ifndef KADOMORI_VERDICT_H
#define KADOMORI_VERDICT_H

#include <bpf/bpf_helpers.h>
#include "emit.h"
#include "maps.h"
#include "parse.h"
#include "set.h"
#include "zone.h"

#define CONTINUE (-1)

/* Sends the packet out of the other port. Fails closed only where there is no other port: then there is nowhere to send
 * to. */
static __always_inline int forward(struct control_page *c, struct packet *p, enum outcome o)
{
	count(p, o);
	if (c->mode == MODE_TAP)
		return XDP_DROP; /* a copy of the traffic: it ends here */
	return bpf_redirect_map(&devices, !p->port, XDP_DROP);
}

/*
 * 1 when a destination (or the source that answers) may never be blocked. Asked only when a step would stop the packet:
 * the same answer as asking first, at no cost to packets that nobody wants to stop. Fails open.
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

/* An inside host that is cut off, by its MAC or by its address. Fails open. */
__noinline int quarantine(struct packet *p)
{
	if (!p)
		return CONTINUE;
	__u64 mac = p->port == PORT_LAN ? p->src_mac : p->dst_mac;
	if (!bpf_map_lookup_elem(&quarantine_macs, &mac)) {
		struct set s;
		set_open(&s, SET_QUARANTINE);
		if (!set_find(&s, &p->src) && !set_find(&s, &p->dst))
			return CONTINUE;
	}
	if (never_block(p))
		return CONTINUE;
	return drop(p, REASON_QUARANTINE, 0);
}

/*
 * What may go from one zone to another. TCP is judged by the packet that asks for a connection, so that answers come
 * back; of the rest an answer passes when a rule (not a default) lets the question through. Fails open.
 */
__noinline int zone_policy(struct packet *p)
{
	if (!p || p->fragment == FRAGMENT_LATER || !p->proto)
		return CONTINUE; /* without its first fragment a later one is worth nothing */
	if (p->proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return CONTINUE;
	__u32 id = 0, action = zone_judge(p, &id);
	if (action == ZONE_PASS)
		return CONTINUE;
	if (action == ZONE_COUNT) {
		count_note(p, NOTE_ZONE_COUNTED);
		tally(p, REASON_ZONE_COUNTED, id);
		return CONTINUE;
	}
	if (never_block(p))
		return CONTINUE;
	return drop(p, REASON_ZONE, id);
}

/* The block sets. Fails open. */
__noinline int block(struct packet *p)
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
	return drop(p, reason, list - 1);
}

/* The same for both directions of a flow. Package xdp has the same function. */
static __always_inline __u64 flow_hash(const struct packet *p)
{
	__u64 h = (p->src.d[0] ^ p->dst.d[0]) * 0x9e3779b97f4a7c15ULL;
	h ^= (p->src.d[1] ^ p->dst.d[1]) * 0xc2b2ae3d27d4eb4fULL;
	h ^= ((__u64)(__u16)(p->src_port ^ p->dst_port) << 40 | (__u64)p->vlan[0] << 24 | (__u64)p->vlan[1] << 8 |
	      p->proto) *
	     0x165667b19e3779f9ULL;
	h ^= h >> 29;
	return h * 0x9e3779b97f4a7c15ULL;
}

static __always_inline int may_have_verdict(const struct packet *p, __u32 shift)
{
	__u32 bit = flow_hash(p) >> (shift & 63), line = bit >> 9;
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
 * The verdict of the packet's flow. A CUT made under other lists is held against the present ones first, and goes on
 * when they don't mind; DROP is stronger than any list. Fragments are never cut through: later ones have no ports, and
 * the engine puts all of them together in order; without a first one, which DROP stops, the others are worth nothing.
 * Fails open.
 */
__noinline int flow_verdict(struct packet *p)
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
		return drop(p, REASON_FLOW, 0);
	}
	if (f->verdict != FLOW_CUT || p->fragment)
		return CONTINUE;
	__u32 generation = *(volatile __u32 *)&c->generation;
	if (f->generation != generation) {
		int v = c->mode == MODE_TAP || !(c->steps & STEP_BLOCK) ? CONTINUE : block(p);
		if (v != CONTINUE)
			return v;
		f->generation = generation;
	}
	count_flow(f, p, turned);
	if (p->tcp_flags & TCP_ENDS)
		emit_ended(p, f, &k);
	return forward(c, p, OUT_CUT);
}

/* Takes a token; 0 when there is none. Two CPUs may take the same one: the limit is a limit, not an account. */
static __always_inline int take_token(const union address *a, __u32 rate, __u32 inside, const struct rate_limit *l,
				      __u64 now)
{
	struct bucket_key k = {.address = *a, .rate = rate, .inside = inside};
	struct bucket *b = bpf_map_lookup_elem(&buckets, &k);
	__u64 full = (__u64)l->burst * 1000;
	if (!b) {
		struct bucket fresh = {.last = now, .tokens = full - 1000};
		bpf_map_update_elem(&buckets, &k, &fresh, BPF_ANY);
		return 1;
	}
	__u64 tokens = b->tokens, passed = now - b->last;
	if (passed > 60000000000ULL)
		passed = 60000000000ULL;
	__u64 grown = passed * l->per_second / 1000000; /* ns times 1/s, in thousandths */
	if (grown) {
		b->last = now;
		tokens += grown;
		if (tokens > full)
			tokens = full;
	}
	int ok = tokens >= 1000;
	b->tokens = ok ? tokens - 1000 : tokens;
	return ok;
}

/* The kind of limit a packet without a verdict falls under, or RATES. */
static __always_inline __u32 rate_of(const struct packet *p)
{
	switch (p->proto) {
	case IPPROTO_TCP:
		return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ? RATE_SYN : RATES;
	case IPPROTO_UDP:
		return RATE_UDP;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return RATE_ICMP;
	}
	return RATES;
}

/* 1 when no packet of the flow without a verdict was seen for a minute. */
static __always_inline int is_new(const struct packet *p, __u64 now)
{
	__u64 h = flow_hash(p);
	__u64 *last = bpf_map_lookup_elem(&recent, &h);
	if (last && now - *last < 60000000000ULL) {
		*last = now;
		return 0;
	}
	bpf_map_update_elem(&recent, &h, &now, BPF_ANY);
	return 1;
}

/* Limits of packets without a verdict: what a judged flow carries is never limited. Fails open. */
__noinline int rate_limit(struct packet *p)
{
	struct control_page *c = settings();
	if (!p || !c)
		return CONTINUE;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 kind = rate_of(p);
	for (__u32 i = 0; i < 2; i++) {
		__u32 k = i ? RATE_FLOW : kind;
		if (k >= RATES)
			continue;
		struct rate_limit *source = &c->source[k], *inside = &c->inside[k];
		if (!source->per_second && !inside->per_second)
			continue;
		if (k == RATE_FLOW && !is_new(p, now))
			continue;
		__u32 over = 0;
		if (source->per_second && !take_token(&p->src, k, 0, source, now))
			over = 1;
		else if (inside->per_second && p->port == PORT_WAN && !take_token(&p->dst, k, 1, inside, now))
			over = 2;
		if (over)
			return never_block(p) ? CONTINUE : drop(p, REASON_RATE_SYN + k, over - 1);
	}
	return CONTINUE;
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
	count_unseen(p);	 /* under a key of zeros when it isn't IP: no byte is missing from the sum */
	return forward(c, p, outcome);
}

/*
 * Hands the packet to the agent. A packet loop that doesn't beat (hung, stopped, dying) and a queue that nobody serves
 * are both passed over: the wire fails open by construction.
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
