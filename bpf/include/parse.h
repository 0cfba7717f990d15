/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The parser: a cursor moves over the headers, each parse_* checks bounds, moves on and returns what comes next or -1.
 */
#ifndef KADOMORI_PARSE_H
#define KADOMORI_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "types.h"

#define VLAN_MAX_DEPTH 2      /* 802.1Q inside 802.1ad */
#define EXTENSION_MAX_DEPTH 6 /* IPv6 extension headers */
#define VLAN_ID_MASK 0x0fff
#define MAC_MASK 0x0000ffffffffffffULL
#define IP_FRAGMENT_OFFSET 0x1fff
#define IP_MORE_FRAGMENTS 0x2000
#define IP6_FRAGMENT_OFFSET 0xfff8
#define IP6_MORE_FRAGMENTS 0x0001
#define PPP_IPV4 0x0021
#define PPP_IPV6 0x0057
#define TCP_ENDS 0x05 /* FIN, RST */
#define TCP_SYN 0x02
#define TCP_ACK 0x10

struct cursor {
	void *pos;
	void *end;
};

/* Which fragment of a datagram a packet is. */
enum fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST,
	FRAGMENT_LATER, /* has no ports */
};

struct packet {
	union address src, dst;
	__u16 src_port, dst_port; /* host order; 0 when there are none */
	__u16 vlan[2];
	__u32 bytes; /* of the frame */
	__u32 notes; /* bit = enum note */
	__u8 proto;
	__u8 fragment; /* enum fragment */
	__u8 tcp_flags;
	__u8 port;  /* that it came in at */
	__u8 is_ip; /* src and dst are set */
	__u8 never; /* 1: asked and not protected, 2: protected */
	__u8 pad[2];
	__u64 src_mac, dst_mac; /* wire order in the lower 48 bits */
};

struct vlan_header {
	__be16 tag;
	__be16 proto;
};

struct pppoe_header {
	__u8 version_type;
	__u8 code;
	__be16 session;
	__be16 length;
	__be16 proto; /* of PPP */
};

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

struct extension_header {
	__u8 next;
	__u8 length; /* in 8 bytes, without the first 8 (AH: in 4 bytes, without the first 8) */
};

#define note(p, n) ((p)->notes |= 1U << (n))

/* Returns the EtherType after all tags, in host order. */
static __always_inline int parse_ethernet(struct cursor *c, struct packet *p)
{
	struct ethhdr *eth = c->pos;
	if ((void *)(eth + 1) > c->end) {
		note(p, NOTE_TRUNCATED);
		return -1;
	}
	c->pos = eth + 1;
	p->dst_mac = *(__u64 *)eth & MAC_MASK;
	p->src_mac = *(__u64 *)((void *)eth + 4) >> 16;
	__u16 proto = bpf_ntohs(eth->h_proto);

#pragma clang loop unroll(full)
	for (int i = 0; i < VLAN_MAX_DEPTH; i++) {
		if (proto != ETH_P_8021Q && proto != ETH_P_8021AD)
			return proto;
		struct vlan_header *v = c->pos;
		if ((void *)(v + 1) > c->end) {
			note(p, NOTE_TRUNCATED);
			return -1;
		}
		note(p, NOTE_VLAN);
		c->pos = v + 1;
		p->vlan[i] = bpf_ntohs(v->tag) & VLAN_ID_MASK;
		proto = bpf_ntohs(v->proto);
	}
	if (proto == ETH_P_8021Q || proto == ETH_P_8021AD) {
		note(p, NOTE_TOO_DEEP);
		return -1;
	}
	return proto;
}

/* RFC 2516. Returns the EtherType of what is inside; that of the session itself when it isn't IP. */
static __always_inline int parse_pppoe(struct cursor *c, struct packet *p)
{
	struct pppoe_header *h = c->pos;
	if ((void *)(h + 1) > c->end) {
		note(p, NOTE_TRUNCATED);
		return -1;
	}
	note(p, NOTE_PPPOE);
	if (h->version_type != 0x11 || h->code != 0) {
		note(p, NOTE_MALFORMED);
		return -1;
	}
	c->pos = h + 1;
	switch (bpf_ntohs(h->proto)) {
	case PPP_IPV4:
		return ETH_P_IP;
	case PPP_IPV6:
		return ETH_P_IPV6;
	}
	return ETH_P_PPP_SES;
}

static __always_inline void map_ipv4(union address *a, __be32 v4)
{
	a->d[0] = 0;
	/* One store, as the readers load: a load that spans two recent stores has to wait for both. */
	a->d[1] = (__u64)v4 << 32 | bpf_htonl(0xffff);
}

/* RFC 791. Returns the protocol number. */
static __always_inline int parse_ipv4(struct cursor *c, struct packet *p)
{
	struct iphdr *ip = c->pos;
	if ((void *)(ip + 1) > c->end) {
		note(p, NOTE_TRUNCATED);
		return -1;
	}
	__u32 length = ip->ihl * 4;
	if (ip->version != 4 || length < sizeof(*ip)) {
		note(p, NOTE_MALFORMED);
		return -1;
	}
	map_ipv4(&p->src, ip->saddr);
	map_ipv4(&p->dst, ip->daddr);
	p->is_ip = 1;
	__u16 fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IP_FRAGMENT_OFFSET)
		p->fragment = FRAGMENT_LATER;
	else if (fragment & IP_MORE_FRAGMENTS)
		p->fragment = FRAGMENT_FIRST;
	c->pos += length; /* options are passed over; the ports check bounds */
	return ip->protocol;
}

/* RFC 8200. Returns the number of the first header that isn't an extension. */
static __always_inline int parse_ipv6(struct cursor *c, struct packet *p)
{
	struct ipv6hdr *ip = c->pos;
	if ((void *)(ip + 1) > c->end) {
		note(p, NOTE_TRUNCATED);
		return -1;
	}
	if (ip->version != 6) {
		note(p, NOTE_MALFORMED);
		return -1;
	}
	__builtin_memcpy(&p->src, &ip->saddr, sizeof(p->src));
	__builtin_memcpy(&p->dst, &ip->daddr, sizeof(p->dst));
	p->is_ip = 1;
	c->pos = ip + 1;
	__u8 next = ip->nexthdr;

#pragma clang loop unroll(disable)
	for (int i = 0; i < EXTENSION_MAX_DEPTH; i++) {
		if (next == IPPROTO_FRAGMENT) {
			struct fragment_header *f = c->pos;
			if ((void *)(f + 1) > c->end) {
				note(p, NOTE_TRUNCATED);
				return -1;
			}
			__u16 offset = bpf_ntohs(f->offset);
			if (offset & IP6_FRAGMENT_OFFSET)
				p->fragment = FRAGMENT_LATER;
			else if (offset & IP6_MORE_FRAGMENTS)
				p->fragment = FRAGMENT_FIRST;
			next = f->next;
			c->pos = f + 1;
			if (p->fragment == FRAGMENT_LATER)
				return next; /* what follows is data */
			continue;
		}
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_MH)
			return next;
		struct extension_header *e = c->pos;
		if ((void *)(e + 1) > c->end) {
			note(p, NOTE_TRUNCATED);
			return -1;
		}
		next = e->next;
		c->pos += ((__u32)e->length + 1) * 8;
	}
	if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS || next == IPPROTO_MH ||
	    next == IPPROTO_FRAGMENT) {
		note(p, NOTE_TOO_DEEP);
		return -1;
	}
	return next;
}

static __always_inline void parse_ports(struct cursor *c, struct packet *p)
{
	if (p->fragment == FRAGMENT_LATER)
		return;
	if (p->proto == IPPROTO_TCP) {
		struct tcphdr *tcp = c->pos;
		if ((void *)(tcp + 1) > c->end) {
			note(p, NOTE_TRUNCATED);
			return;
		}
		p->src_port = bpf_ntohs(tcp->source);
		p->dst_port = bpf_ntohs(tcp->dest);
		p->tcp_flags = ((__u8 *)tcp)[13];
	} else if (p->proto == IPPROTO_UDP || p->proto == IPPROTO_SCTP || p->proto == IPPROTO_UDPLITE) {
		struct udphdr *udp = c->pos; /* the ports are in the same place in all three */
		if ((void *)(udp + 1) > c->end) {
			note(p, NOTE_TRUNCATED);
			return;
		}
		p->src_port = bpf_ntohs(udp->source);
		p->dst_port = bpf_ntohs(udp->dest);
	} else if (p->proto == IPPROTO_GRE || p->proto == IPPROTO_ESP || p->proto == IPPROTO_AH) {
		note(p, NOTE_OPAQUE);
	}
}

static __always_inline int parse_at(struct cursor *c, struct packet *p)
{
	int proto = parse_ethernet(c, p);
	if (proto == ETH_P_PPP_SES)
		proto = parse_pppoe(c, p);
	if (proto == ETH_P_IP) {
		proto = parse_ipv4(c, p);
	} else if (proto == ETH_P_IPV6) {
		proto = parse_ipv6(c, p);
		if (proto == IPPROTO_IPIP && p->fragment != FRAGMENT_LATER) {
			/* DS-Lite (RFC 6333), MAP-E: the flow is the inner one. When it can't be read the outer one
			 * stays. */
			note(p, NOTE_TUNNEL);
			int inner = parse_ipv4(c, p);
			if (inner >= 0)
				proto = inner;
		}
	} else {
		if (proto >= 0)
			note(p, NOTE_NOT_IP);
		return 0;
	}
	if (proto < 0)
		return 1;
	p->proto = proto;
	parse_ports(c, p);
	if (p->fragment)
		note(p, NOTE_FRAGMENT);
	return 1;
}

/*
 * Reads the whole of what the program knows into p, which is zero but for its port. p->is_ip says if there are
 * addresses, p->notes what was odd. Global, as the functions of the steps are: the verifier then looks at each of them
 * once, instead of once for every kind of packet that leads there.
 */
__noinline int parse(struct xdp_md *xdp, struct packet *p)
{
	if (!p)
		return 0;
	struct cursor c = {.pos = (void *)(long)xdp->data, .end = (void *)(long)xdp->data_end};
	p->bytes = c.end - c.pos;
	return parse_at(&c, p);
}

/* Orders the ends; returns 0 when the packet goes from a to b, else 1. */
static __always_inline int make_key(const struct packet *p, struct flow_key *k)
{
	__u64 sh = bpf_be64_to_cpu(p->src.d[0]), dh = bpf_be64_to_cpu(p->dst.d[0]);
	__u64 sl = bpf_be64_to_cpu(p->src.d[1]), dl = bpf_be64_to_cpu(p->dst.d[1]);
	int turned = sh > dh || (sh == dh && (sl > dl || (sl == dl && p->src_port > p->dst_port)));
	if (turned) {
		k->a = p->dst;
		k->b = p->src;
		k->a_port = p->dst_port;
		k->b_port = p->src_port;
	} else {
		k->a = p->src;
		k->b = p->dst;
		k->a_port = p->src_port;
		k->b_port = p->dst_port;
	}
	k->vlan[0] = p->vlan[0];
	k->vlan[1] = p->vlan[1];
	k->proto = p->proto;
	__builtin_memset(k->pad, 0, sizeof(k->pad));
	return turned;
}

#endif
