/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The values that the program and the agent share: fixed width, padded by hand, host byte order unless a field says
 * "wire". */
#ifndef KADOMORI_TYPES_H
#define KADOMORI_TYPES_H

#include <linux/types.h>

#define MAX_QUEUES 16 /* receive queues of one port that may have a socket */
#define PORTS 2
#define PORT_LAN 0
#define PORT_WAN 1

enum mode {
	MODE_INLINE = 0,
	MODE_TAP = 1, /* mirror port: observe, never send */
};

/* What became of a packet. Every packet is counted under exactly one of these, so their sum is what the port received.
 */
enum outcome {
	OUT_HANDLER = 0, /* given to a packet socket */
	OUT_CUT,	 /* forwarded by the verdict of its flow */
	OUT_STALE,	 /* forwarded unseen: the packet loop did not beat in time */
	OUT_NO_SOCKET,	 /* forwarded unseen: no socket serves the queue */
	OUT_BYPASS,	 /* forwarded unseen: bypassed by hand */
	OUT_DROP,	 /* stopped; the map `drops` says why */
	OUTCOMES,
};

/* What a packet was, beside its outcome. A packet may be counted under several, or none. */
enum note {
	NOTE_VLAN = 0,
	NOTE_PPPOE,
	NOTE_TUNNEL,	    /* IPv4 in IPv6 */
	NOTE_OPAQUE,	    /* GRE, ESP, AH: named, not looked into */
	NOTE_FRAGMENT,	    /* first or later one */
	NOTE_NOT_IP,	    /* ARP, LLDP, PPPoE discovery, LCP, ...: has no addresses for us */
	NOTE_TRUNCATED,	    /* a header is cut off */
	NOTE_MALFORMED,	    /* a header contradicts itself */
	NOTE_TOO_DEEP,	    /* more tags or extension headers than the program follows */
	NOTE_NEVER_BLOCK,   /* a step would have stopped it */
	NOTE_SAMPLE_LOST,   /* no room for a drop sample */
	NOTE_SAMPLE_HELD,   /* drop sample left out by the rate limit */
	NOTE_ENDED_LOST,    /* no room for the end of a flow; the idle sweep finds it */
	NOTE_DROP_UNLISTED, /* a drop whose (reason, list) found no room in `drops` */
	NOTE_ZONE_COUNTED,  /* passed by a zone rule that counts; `drops` has it under REASON_ZONE_COUNTED */
	NOTES,
};

/* Why a packet was stopped. package wire has the same numbers. */
enum reason {
	REASON_NONE = 0,
	REASON_FLOW = 1,	   /* verdict of its flow */
	REASON_BLOCKED_SOURCE = 2, /* block set */
	REASON_BLOCKED_DESTINATION = 3,
	REASON_QUARANTINE = 4, /* the inside host is cut off */
	REASON_ZONE = 5,       /* zone policy */
	REASON_RATE_SYN = 6,
	REASON_RATE_UDP = 7,
	REASON_RATE_ICMP = 8,
	REASON_RATE_FLOW = 9,
	REASON_ZONE_COUNTED = 10, /* not stopped: passed and counted */
	REASONS,
};

enum flow_verdict {
	FLOW_UNDECIDED = 0,
	FLOW_CUT = 1,
	FLOW_DROP = 2,
};

/* An IPv6 address, or an IPv4 one mapped into it; wire order. */
union address {
	__u8 b[16];
	__be32 w[4];
	__be64 d[2];
};

/* Both directions of a flow have the same key: a is the lower end (address bytes, then port). */
struct flow_key {
	union address a, b;
	__u16 a_port, b_port; /* host order; 0 when the packet has none */
	__u16 vlan[2];	      /* outermost first, 0 when none */
	__u8 proto;
	__u8 pad[7];
};

struct flow {
	__u64 packets[2], bytes[2]; /* [0] from a to b */
	__u64 last;		    /* CLOCK_MONOTONIC_COARSE, ns */
	__u32 generation;	    /* of the lists that it was last held against */
	__u8 verdict;		    /* enum flow_verdict */
	__u8 ending;		    /* FIN or RST was seen and told */
	__u8 pad[2];
};

struct tally {
	__u64 packets, bytes;
};

/* One CPU's count of one (reason, list), and its budget of samples. */
struct drop_tally {
	__u64 packets, bytes;
	__u64 held;   /* samples left out because the budget was spent */
	__u32 window; /* that the budget is of: jiffies / 256, a quarter of a second to 2.5 s */
	__u32 used;
};

/* One CPU's counts of one port. */
struct port_counters {
	struct tally outcome[OUTCOMES];
	struct tally note[NOTES];
};

/* Kinds of rate limits. */
enum rate {
	RATE_SYN = 0,
	RATE_UDP,
	RATE_ICMP,
	RATE_FLOW, /* first packet of a flow that has not been seen lately */
	RATES,
};

/* A limit of 0 packets a second is none. */
struct rate_limit {
	__u32 per_second;
	__u32 burst;
};

/* One element, mapped into the agent's memory. */
struct control_page {
	__u64 beat[MAX_QUEUES];		 /* CLOCK_MONOTONIC, ns: last turn of the queue's packet loop */
	__u64 limit;			 /* ns a beat stays good */
	__u64 bypass_until;		 /* CLOCK_MONOTONIC, ns: forward everything until then */
	__u32 generation;		 /* of the block sets */
	__u32 mode;			 /* enum mode */
	__u32 agent;			 /* enum agent_state: how the last agent left */
	__u32 steps;			 /* STEP_* that have something to do */
	__u64 sample_interval;		 /* ns between two samples of the same drop */
	__u32 sample_budget;		 /* samples of one (reason, list) in 256 jiffies on one CPU */
	__u32 flow_shift;		 /* 64 minus the width of the flow filter's bit number */
	struct rate_limit source[RATES]; /* packets of one source */
	struct rate_limit inside[RATES]; /* packets to one inside host */
};

#define STEP_QUARANTINE 1U
#define STEP_BLOCK 2U
#define STEP_NEVER_BLOCK 4U
#define STEP_ZONE 8U
#define STEP_RATE 16U
#define STEP_FLOW 32U

enum agent_state {
	AGENT_NONE = 0,
	AGENT_RUNNING = 1,
	AGENT_CLOSED = 2,
};

struct drop_key {
	__u32 reason; /* enum reason */
	__u32 list;   /* id that the agent gave the list; 0 none */
};

struct drop_sample {
	__u64 time; /* CLOCK_MONOTONIC_COARSE, ns */
	__u32 reason, list;
	union address src, dst;
	__u16 src_port, dst_port; /* host order */
	__u16 vlan[2];
	__u8 src_mac[6], dst_mac[6];
	__u32 bytes;
	__u32 packets; /* itself and those that the rate limit left out since */
	__u8 proto;
	__u8 port;
	__u8 pad[2];
};

/* One slot of the sampling filter: the last drop with this hash on this CPU. */
struct drop_slot {
	__u64 last;
	__u32 hash;
	__u32 held;
};

#define DROP_SLOTS 1024

/*
 * A set of prefixes as one image: an array of 64-byte lines, built by the agent (package xdp, set.go) and never changed
 * once it can be seen here. The first lines are the header. A filter answers most misses with one line; what passes it
 * is searched in a static tree of the boundaries at which the answer changes. A line above the leaves has the first
 * keys of the lines below it: 16 IPv4 addresses or 8 high halves of IPv6 ones. A leaf has 8 IPv4 keys (words 0-7) and
 * their values (8-15), or 3 IPv6 keys (words 0-11) and their values (12-14). Each IPv6 leaf starts at a low half of 0;
 * when more than 3 keys have the same high half, word 15 of the leaf is a number of lines, from line word 12 on, that
 * are leaves in order. When most IPv4 prefixes are single addresses, these lie in a hash instead (8 keys a line, words
 * 0-7, with their values, 8-15); those that find their line full are in the tree with the rest. A value is the list's
 * id plus one, 0 outside of the set.
 */
#define SET_LEVELS_V4 7	    /* above the leaves; 16^7 of them */
#define SET_V4_HOSTS 14	    /* word of line 1: first line of the hash of single IPv4 addresses; 0: none */
#define SET_V4_HOST_MASK 15 /* word of line 1: its lines minus one */
#define SET_LEVELS_V6 9	    /* 8^9 */
#define SET_OVERFLOW 24	    /* halvings of a long leaf */
#define SET_FILTER_HASHES 3
#define SET_LINE 64
#define SET_HEADER_LINES 4

struct set_line {
	union {
		__u32 w[16];
		__u64 d[8];
	};
};

/*
 * Words of line 0. Line 1 has (first line, number of keys) of each IPv4 level above the leaves,
 * from the root; lines 2 and 3 those of IPv6.
 */
enum set_word {
	SET_V4_FILTER = 0, /* first line of the bits by address >> shift; 0: no IPv4 prefix in the set */
	SET_V4_SHIFT,
	SET_V6_SHORT,  /* first line of the bits by the first 16 bits of the address; 0: no IPv6 prefix in the set */
	SET_V6_FILTER, /* first line of a Bloom filter of the first 32 or 48 bits, its bits of a key all in one line; 0:
			  none */
	SET_V6_SHIFT,  /* line = hash >> shift */
	SET_V6_ANCHORS, /* ANCHOR_* in the filter */
	SET_V4_LEVELS,
	SET_V6_LEVELS,
	SET_V4_LEAVES, /* first line */
	SET_V6_LEAVES,
	SET_ZONE_TABLES,   /* first line; 0: no zones */
	SET_ZONE_RULES,	   /* first line */
	SET_ZONE_MACS,	   /* first line; 0: none */
	SET_ZONE_MAC_MASK, /* lines minus one */
	SET_ZONE_LAN,	   /* zone of what nothing else names, behind the LAN port */
	SET_ZONE_WAN,
};

#define ANCHOR_32 1U
#define ANCHOR_48 2U

enum set_slot {
	SET_BLOCK = 0,
	SET_NEVER_BLOCK = 1,
	SET_QUARANTINE = 2,
	SET_ZONE = 3, /* value: zone plus one; its image has the tables of the zones behind the set, see below */
	SETS,
};

/*
 * The tables of the zones lie in the image of SET_ZONE from line word SET_ZONE_TABLES on, so that zones and rules
 * change together: ZONE_PAIR_LINES lines of struct zone_pair by (from * ZONES + to), ZONE_VLAN_LINES lines of bytes by
 * VLAN id (zone plus one, 0 none), then lines of struct zone_rule, then (from line word SET_ZONE_MACS on) lines of 8
 * MAC addresses by hash, the zone plus one in the upper 16 bits.
 */
#define ZONES 16
#define ZONE_PAIR_LINES (ZONES * ZONES * 16 / SET_LINE)
#define ZONE_VLAN_LINES (4096 / SET_LINE)
#define ZONE_RULES_MAX 64 /* of one pair */

enum zone_action {
	ZONE_PASS = 0,
	ZONE_DROP = 1,
	ZONE_COUNT = 2, /* pass, and count under the rule */
};

struct zone_pair {
	__u32 first; /* rule, counted from the first rule's line */
	__u32 rules;
	__u32 action; /* when no rule fits */
	__u32 id;     /* that the default is counted under */
};

struct zone_rule {
	__u16 low, high; /* destination ports; 0..65535 all, and then packets without ports too */
	__u8 proto;	 /* 0 all */
	__u8 action;
	__u8 pad[2];
	__u32 id; /* counted under */
	__u32 pad2;
};

/* Whose bucket it is. */
struct bucket_key {
	union address address;
	__u32 rate;   /* enum rate */
	__u32 inside; /* 1: the bucket of an inside host, for all that goes to it; 0: of a source */
};

struct bucket {
	__u64 last;   /* CLOCK_MONOTONIC_COARSE, ns */
	__u64 tokens; /* thousandths */
};

#endif
