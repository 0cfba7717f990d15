// Package xdp is the wire: it loads the XDP program of bpf/ on the two ports of the appliance (or on one mirror port), takes
// undecided packets from packet sockets to the engine's Handlers and back, installs the verdicts of flows, swaps sets of
// prefixes, and tells what the program did on its own. app opens one Wire; the engine is the Handler. The trap: the packet
// loop beats the heart that keeps packets coming; a Handler that blocks for longer than Config.Limit is passed over.
package xdp
