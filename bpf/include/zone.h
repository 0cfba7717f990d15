/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Which zone an end of a packet is in, and what the policy says of the pair. */
#ifndef KADOMORI_ZONE_H
#define KADOMORI_ZONE_H

#include <bpf/bpf_helpers.h>
#include "parse.h"
#include "set.h"

/* Zone plus one of a MAC, 0 none. */
static __always_inline __u32 zone_of_mac(void *image, const struct set_line *head, __u64 mac)
{
	if (!head->w[SET_ZONE_MACS])
		return 0;
	__u32 at = (__u32)(mac * 0x9e3779b97f4a7c15ULL >> 40) & head->w[SET_ZONE_MAC_MASK];
	struct set_line *l = set_line(image, head->w[SET_ZONE_MACS] + at);
	if (!l)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < 8; i++)
		if ((l->d[i] & MAC_MASK) == mac && l->d[i] >> 48)
			return l->d[i] >> 48;
	return 0;
}

static __always_inline __u32 zone_of_vlan(void *image, __u32 tables, __u32 vlan)
{
	struct set_line *l = set_line(image, tables + ZONE_PAIR_LINES + (vlan >> 6 & (ZONE_VLAN_LINES - 1)));
	return l ? ((__u8 *)l)[vlan & 63] : 0;
}

/* The first rule of the pair that fits, in *id its number and in *by_rule 1; else the pair's default. */
static __always_inline __u32 zone_pair_judge(void *image, const struct set_line *head, __u32 from, __u32 to, __u8 proto,
					     __u16 port, __u32 *id, __u32 *by_rule)
{
	__u32 pair = (from & (ZONES - 1)) * ZONES + (to & (ZONES - 1));
	struct set_line *l = set_line(image, head->w[SET_ZONE_TABLES] + (pair >> 2));
	if (!l)
		return ZONE_PASS;
	struct zone_pair *z = (struct zone_pair *)&l->w[(pair & 3) * 4];
	__u32 first = z->first, rules = z->rules, action = z->action;
	*id = z->id;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < ZONE_RULES_MAX; i++) {
		if (i >= rules)
			break;
		l = set_line(image, head->w[SET_ZONE_RULES] + ((first + i) >> 2));
		if (!l)
			break;
		struct zone_rule *r = (struct zone_rule *)&l->w[((first + i) & 3) * 4];
		if ((!r->proto || r->proto == proto) && r->low <= port && port <= r->high) {
			*id = r->id;
			*by_rule = 1;
			return r->action;
		}
	}
	return action;
}

__noinline int zone_judge(struct packet *p, __u32 *id)
{
	__u32 slot = SET_ZONE;
	if (!p || !id)
		return ZONE_PASS;
	void *image = bpf_map_lookup_elem(&sets, &slot);
	if (!image)
		return ZONE_PASS;
	struct set_line *head = set_line(image, 0);
	if (!head)
		return ZONE_PASS;
	__u32 tables = head->w[SET_ZONE_TABLES];
	/* The end behind the LAN port is known by MAC and VLAN; both ends by prefix. */
	__u32 near = zone_of_mac(image, head, p->port == PORT_LAN ? p->src_mac : p->dst_mac);
	if (!near)
		near = zone_of_vlan(image, tables, p->vlan[0]);
	struct set s;
	set_open(&s, SET_ZONE);
	if (!near)
		near = set_find(&s, p->port == PORT_LAN ? &p->src : &p->dst);
	__u32 far = set_find(&s, p->port == PORT_LAN ? &p->dst : &p->src);
	near = near ? near - 1 : head->w[SET_ZONE_LAN];
	far = far ? far - 1 : head->w[SET_ZONE_WAN];
	__u32 from = p->port == PORT_LAN ? near : far, to = p->port == PORT_LAN ? far : near;

	__u32 by_rule = 0;
	__u32 action = zone_pair_judge(image, head, from, to, p->proto, p->dst_port, id, &by_rule);
	if (action == ZONE_DROP && p->proto != IPPROTO_TCP) {
		__u32 other = 0;
		by_rule = 0;
		__u32 question = zone_pair_judge(image, head, to, from, p->proto, p->src_port, &other, &by_rule);
		if (by_rule && question != ZONE_DROP)
			return ZONE_PASS;
	}
	return action;
}

#endif
