package xdp

// The include folder is Debian's, for its own architecture; the headers used are the same on amd64 and arm64, and the program
// touches packets and maps only, so that the two objects differ in nothing but what the loader is told.
//go:generate go tool bpf2go -cc clang -target amd64,arm64 -go-package xdp -output-stem edge -type control_page -type port_counters -type flow_key -type flow -type tally -type drop_tally -type drop_key -type drop_sample edge ../../../bpf/edge.bpf.c -- -O2 -mcpu=v3 -Wall -Werror -I../../../bpf -I/usr/include/x86_64-linux-gnu
