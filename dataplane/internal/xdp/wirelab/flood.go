package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// list writes random prefixes, the same in each run.
func list(args []string) error {
	fs := flag.NewFlagSet("wirelab list", flag.ContinueOnError)
	n := fs.Int("n", 1000, "prefixes")
	hosts := fs.Bool("hosts", false, "single addresses")
	path := fs.String("o", "", "file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(11, 12)) //nolint:gosec // the same list in each run
	f, err := os.Create(*path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	for _, p := range randomV4(r, *n) {
		if *hosts {
			p = netip.PrefixFrom(p.Addr(), 32)
		}
		_, _ = fmt.Fprintln(out, p) // Flush tells
	}
	return errors.Join(out.Flush(), f.Close())
}

func readList(path string) ([]netip.Prefix, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	var out []netip.Prefix
	for sc := bufio.NewScanner(f); sc.Scan(); {
		p, err := netip.ParsePrefix(sc.Text())
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// fillXDPFilter puts addresses into the map of a loaded xdp-filter: its own command takes a millisecond for each. The value's
// lowest bit says that the source is meant (xdp-filter/common_kern_user.h, MAP_FLAG_SRC).
func fillXDPFilter(args []string) error {
	fs := flag.NewFlagSet("wirelab xdp-filter-fill", flag.ContinueOnError)
	path := fs.String("list", "", "file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	nets, err := readList(*path)
	if err != nil {
		return err
	}
	m, err := ebpf.LoadPinnedMap("/sys/fs/bpf/xdp-filter/filter_ipv4", nil)
	if err != nil {
		return err
	}
	defer m.Close() //nolint:errcheck // a second descriptor
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	value := make([]uint64, cpus)
	for i := range value {
		value[i] = 1
	}
	for _, p := range nets {
		if err := m.Put(p.Addr().As4(), value); err != nil {
			return fmt.Errorf("put %v: %w", p, err)
		}
	}
	return nil
}

// flood sends packets with random sources out of a list, by the kernel's live test run, and measures CPU time.
func flood(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("wirelab flood", flag.ContinueOnError)
	dev := fs.String("dev", "", "interface to send from")
	path := fs.String("list", "", "file of prefixes")
	rounds := fs.Int("rounds", 7, "of which the median counts")
	packets := fs.Int("packets", 1_000_000, "of a round")
	if err := fs.Parse(args); err != nil {
		return err
	}
	nets, err := readList(*path)
	if err != nil {
		return err
	}
	iface, err := net.InterfaceByName(*dev)
	if err != nil {
		return err
	}
	var objs benchObjects
	if err := loadBenchObjects(&objs, nil); err != nil {
		return err
	}
	defer objs.Close() //nolint:errcheck // nothing is pinned
	mem, err := unix.Mmap(objs.BenchKeys.FD(), 0, maxKeys*int(unsafe.Sizeof(benchBenchKey{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	keys := unsafe.Slice((*benchBenchKey)(unsafe.Pointer(&mem[0])), maxKeys)
	r := rand.New(rand.NewPCG(13, 14)) //nolint:gosec // the same flood in each run
	frame := frameV4(nil)
	for i := range keys {
		setKey(&keys[i], within(r, nets[r.IntN(len(nets))]), r)
		keys[i].Checksum = headerChecksum(frame[14:34], keys[i].Address[:4])
	}
	plan := benchBenchPlan{Keys: maxKeys, Address: 26, Port: 34, Checksum: 24, Interface: uint32(iface.Index)}
	if err := objs.BenchSettings.Put(uint32(0), &plan); err != nil {
		return err
	}
	// One CPU sends and, in its softirqs, receives: the process and the kernel's helper of that CPU are what it costs.
	runtime.LockOSThread()
	cpu := runtime.NumCPU() - 1
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to a CPU: %w", err)
	}
	helper := softirqThread(cpu)
	var costs []float64
	for i := range *rounds + 1 {
		before := threadTime() + threadTicks(helper)
		_, err := objs.BenchFlood.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(*packets), Flags: 2}) // BPF_F_TEST_XDP_LIVE_FRAMES
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if i > 0 {
			costs = append(costs, float64((threadTime()+threadTicks(helper)-before).Nanoseconds())/float64(*packets))
		}
	}
	slices.Sort(costs)
	return json.NewEncoder(out).Encode(map[string]any{"ns": costs[len(costs)/2], "rounds": costs})
}

// headerChecksum is that of an IPv4 header with another source (RFC 1071), in the order that the program stores.
func headerChecksum(header, source []byte) uint16 {
	h := slices.Clone(header)
	copy(h[12:16], source)
	h[10], h[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < len(h); i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return bits.ReverseBytes16(^uint16(sum))
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// softirqThread finds ksoftirqd of the CPU; "" when it can't be seen.
func softirqThread(cpu int) string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	want := "ksoftirqd/" + strconv.Itoa(cpu)
	for _, e := range entries {
		if b, err := os.ReadFile("/proc/" + e.Name() + "/comm"); err == nil && strings.TrimSpace(string(b)) == want {
			return "/proc/" + e.Name() + "/schedstat"
		}
	}
	return ""
}

// threadTicks reads the CPU time of another thread.
func threadTicks(path string) time.Duration {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	ns, _ := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns)
}
