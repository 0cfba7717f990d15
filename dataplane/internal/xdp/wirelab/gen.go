package main

//go:generate go tool bpf2go -cc clang -target amd64,arm64 -go-package main -output-stem bench -type bench_key -type bench_plan bench ../../../../bpf/bench.bpf.c -- -O2 -mcpu=v3 -Wall -Werror -I../../../../bpf -I/usr/include/x86_64-linux-gnu
