/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The edge: one program on each port of the appliance. It forwards what was judged, stops what is listed, and hands the
 * rest to the agent, or straight on when there is no agent that answers.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "include/types.h"
#include "include/maps.h"
#include "include/parse.h"
#include "include/emit.h"
#include "include/set.h"
#include "include/zone.h"
#include "include/verdict.h"

static __always_inline int edge(struct xdp_md *xdp, __u32 port)
{
	struct control_page *c = settings();
	if (!c)
		return bpf_redirect_map(&devices, !port, XDP_DROP); /* cannot be: it is an array */

	struct packet p = {.port = port};
	parse(xdp, &p);
	if (p.notes)
		count_notes(&p);
	if (c->bypass_until && bpf_ktime_get_ns() < c->bypass_until)
		return pass_unseen(&p, OUT_BYPASS);
	if (!p.is_ip)
		return inspect(xdp, c, &p);

	__u32 steps = c->mode == MODE_TAP ? 0 : c->steps; /* a tap can't stop anything */
	int v = CONTINUE;
	if (steps & STEP_QUARANTINE)
		v = quarantine(&p);
	if (v == CONTINUE && c->steps & STEP_FLOW)
		v = flow_verdict(&p);
	if (v == CONTINUE && steps & STEP_BLOCK)
		v = block(&p);
	if (v == CONTINUE && steps & STEP_ZONE)
		v = zone_policy(&p);
	if (v == CONTINUE && steps & STEP_RATE)
		v = rate_limit(&p);
	if (v == CONTINUE)
		v = inspect(xdp, c, &p);
	return v;
}

SEC("xdp")
int edge_lan(struct xdp_md *xdp)
{
	return edge(xdp, PORT_LAN);
}

SEC("xdp")
int edge_wan(struct xdp_md *xdp)
{
	return edge(xdp, PORT_WAN);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
