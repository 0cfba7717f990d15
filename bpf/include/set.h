/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Membership of an address in a set of prefixes: most misses cost one line of the filter, a hit a walk down a static
 * tree. */
#ifndef KADOMORI_SET_H
#define KADOMORI_SET_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

struct set {
	void *image; /* inner map; 0: empty set */
	__u32 slot;
	__u32 filter, shift; /* IPv4 */
	__u32 v6_short, v6_filter, v6_shift, v6_anchors;
};

static __always_inline struct set_line *set_line(void *image, __u32 line)
{
	return bpf_map_lookup_elem(image, &line);
}

/* 1 when a <= b, without a branch: a set has too many paths for the verifier otherwise. */
static __always_inline __u32 not_above32(__u32 a, __u32 b)
{
	return ((__u64)a - (__u64)b - 1) >> 63;
}

/* 1 when a < b. */
static __always_inline __u32 below64(__u64 a, __u64 b)
{
	return ((~a & b) | (~(a ^ b) & (a - b))) >> 63;
}

static __always_inline __u32 not_above128(__u64 ah, __u64 al, __u64 bh, __u64 bl)
{
	__u32 above = below64(bh, ah);
	__u32 below = below64(ah, bh);
	return (above ^ 1) & (below | (below64(bl, al) ^ 1));
}

static __always_inline int set_bit(void *image, __u32 first, __u32 bit)
{
	struct set_line *l = set_line(image, first + (bit >> 9));
	return l && (l->d[(bit >> 6) & 7] >> (bit & 63) & 1);
}

/* Returns the list's id plus one, 0 when the address isn't in the set. */
__noinline __u32 set_search4(__u32 slot, __u32 address)
{
	void *image = bpf_map_lookup_elem(&sets, &slot);
	if (!image)
		return 0;
	struct set_line *head = set_line(image, 0), *levels = set_line(image, 1), *l;
	if (!head || !levels)
		return 0;
	__u32 leaves = head->w[SET_V4_LEAVES], n = head->w[SET_V4_LEVELS], at = 0;
	if (levels->w[SET_V4_HOSTS]) {
		at = address * 0x9e3779b1U >> 8 & levels->w[SET_V4_HOST_MASK];
		l = set_line(image, levels->w[SET_V4_HOSTS] + at);
		if (!l)
			return 0;
#pragma clang loop unroll(full)
		for (int i = 0; i < 8; i++)
			if (l->w[i] == address && l->w[8 + i])
				return l->w[8 + i];
		if (!leaves)
			return 0;
		at = 0;
	}
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SET_LEVELS_V4; i++) {
		if (i >= n)
			break;
		__u32 keys = levels->w[(i * 2 + 1) & 15];
		l = set_line(image, levels->w[(i * 2) & 15] + at);
		if (!l)
			return 0;
		__u32 r = not_above32(l->w[8], address) << 3;
		r += not_above32(l->w[(r + 4) & 15], address) << 2;
		r += not_above32(l->w[(r + 2) & 15], address) << 1;
		r += not_above32(l->w[(r + 1) & 15], address);
		at = at * 16 + r;
		if (at >= keys)
			at = keys - 1; /* the last line of a level is filled up with the highest key */
	}
	l = set_line(image, leaves + at);
	if (!l)
		return 0;
	__u32 r = not_above32(l->w[4], address) << 2;
	r += not_above32(l->w[(r + 2) & 7], address) << 1;
	r += not_above32(l->w[(r + 1) & 7], address);
	return l->w[8 + (r & 7)];
}

__noinline __u32 set_search6(__u32 slot, __u64 high, __u64 low)
{
	void *image = bpf_map_lookup_elem(&sets, &slot);
	if (!image)
		return 0;
	struct set_line *head = set_line(image, 0), *l;
	if (!head)
		return 0;
	__u32 leaves = head->w[SET_V6_LEAVES], n = head->w[SET_V6_LEVELS], at = 0;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SET_LEVELS_V6; i++) {
		if (i >= n)
			break;
		l = set_line(image, 2 + (i >> 3));
		if (!l)
			return 0;
		__u32 first = l->w[(i * 2) & 15], keys = l->w[(i * 2 + 1) & 15];
		l = set_line(image, first + at);
		if (!l)
			return 0;
		__u32 r = (below64(high, l->d[4]) ^ 1) << 2;
		r += (below64(high, l->d[(r + 2) & 7]) ^ 1) << 1;
		r += below64(high, l->d[(r + 1) & 7]) ^ 1;
		at = at * 8 + r;
		if (at >= keys)
			at = keys - 1;
	}
	l = set_line(image, leaves + at);
	if (!l)
		return 0;
	__u32 from = l->w[12], lines = l->w[15];
	if (lines) {
		__u32 below = 0, above = lines; /* the line is in [below, above) */
#pragma clang loop unroll(disable)
		for (__u32 i = 0; i < SET_OVERFLOW; i++) {
			if (above - below <= 1)
				break;
			__u32 middle = below + (above - below) / 2;
			l = set_line(image, from + middle);
			if (!l)
				return 0;
			if (not_above128(l->d[0], l->d[1], high, low))
				below = middle;
			else
				above = middle;
		}
		l = set_line(image, from + below);
		if (!l)
			return 0;
	}
	__u32 r = not_above128(l->d[2], l->d[3], high, low) + not_above128(l->d[4], l->d[5], high, low);
	return l->w[12 + (r & 3)];
}

static __always_inline void set_open(struct set *s, __u32 slot)
{
	s->slot = slot;
	s->image = bpf_map_lookup_elem(&sets, &slot);
	if (!s->image)
		return;
	struct set_line *head = set_line(s->image, 0);
	if (!head) {
		s->image = 0;
		return;
	}
	s->filter = head->w[SET_V4_FILTER];
	s->shift = head->w[SET_V4_SHIFT];
	s->v6_short = head->w[SET_V6_SHORT];
	s->v6_filter = head->w[SET_V6_FILTER];
	s->v6_shift = head->w[SET_V6_SHIFT];
	s->v6_anchors = head->w[SET_V6_ANCHORS];
}

static __always_inline int set_bloom(const struct set *s, __u64 prefix)
{
	__u64 h = prefix * 0x9e3779b97f4a7c15ULL;
	h ^= h >> 32;
	h *= 0xc2b2ae3d27d4eb4fULL;
	struct set_line *l = set_line(s->image, s->v6_filter + (__u32)(h >> (s->v6_shift & 63)));
	if (!l)
		return 0;
	__u64 all = 1;
#pragma clang loop unroll(full)
	for (int i = 0; i < SET_FILTER_HASHES; i++) {
		all &= l->d[h >> 6 & 7] >> (h & 63);
		h >>= 9;
	}
	return all;
}

/* Returns the list's id plus one, 0 when the address isn't in the set. */
static __always_inline __u32 set_find(const struct set *s, const union address *a)
{
	if (!s->image)
		return 0;
	if (a->d[0] == 0 && a->w[2] == bpf_htonl(0xffff)) {
		__u32 v4 = bpf_ntohl(a->w[3]);
		if (!s->filter || !set_bit(s->image, s->filter, v4 >> (s->shift & 31)))
			return 0;
		return set_search4(s->slot, v4);
	}
	if (!s->v6_short)
		return 0;
	__u64 high = bpf_be64_to_cpu(a->d[0]), low = bpf_be64_to_cpu(a->d[1]);
	int maybe = set_bit(s->image, s->v6_short, high >> 48);
	if (!maybe && s->v6_filter) {
		if (s->v6_anchors & ANCHOR_48)
			maybe = set_bloom(s, high >> 16);
		if (!maybe && s->v6_anchors & ANCHOR_32)
			maybe = set_bloom(s, high >> 32);
	}
	return maybe ? set_search6(s->slot, high, low) : 0;
}

#endif
