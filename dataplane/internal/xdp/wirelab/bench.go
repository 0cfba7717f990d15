package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

const (
	maxKeys   = 1 << 20
	insideV4  = "192.168.11.10"
	insideV6  = "2001:db8:11::10"
	benchPort = 443
)

// benchFigures is what the benchmark of the program prints: ns a packet with the harness, but for what says above.
type benchFigures struct {
	Rounds map[string][]float64 `json:"rounds_ns"` // every round of every row
	Median map[string]float64   `json:"median_ns"`
	Above  map[string]float64   `json:"above_empty_ns"` // row minus the empty program of the same address family
	SwapMS float64              `json:"swap_1m_ms"`
	SwapS  float64              `json:"swap_1m_cpu_s"`
	MapMB  float64              `json:"map_1m_mb"` // locked by the maps of 1 M entries
	// PeakMB: both images, the list itself, and what the process needed beside, while 1 M entries replace 1 M.
	PeakMB float64 `json:"swap_1m_peak_mb"`
	// Wrong: listed packets that passed and unlisted ones that were dropped while 1 M entries replaced 1 M, of so many.
	Wrong   float64 `json:"swap_1m_wrong_packets"`
	Packets float64 `json:"swap_1m_packets"`
}

// bench measures the program by the kernel's own test run.
func bench(args []string, out io.Writer) error {
	var cfg xdp.Config
	fs := flag.NewFlagSet("wirelab bench", flag.ContinueOnError)
	fs.StringVar(&cfg.Ports.LAN, "lan", "", "port")
	fs.StringVar(&cfg.Ports.WAN, "wan", "", "port")
	fs.StringVar(&cfg.PinDir, "pin", "", "pin folder")
	rounds := fs.Int("rounds", 5, "of each row")
	only := fs.String("only", "", "rows to measure, a regular expression")
	repeat := fs.Int("repeat", 400_000, "packets of a round")
	if err := fs.Parse(args); err != nil {
		return err
	}
	cfg.Flows = xdp.DefaultFlows
	cfg.IdleOther, cfg.IdleTCP = time.Hour, time.Hour
	w, err := xdp.Open(cfg)
	if err != nil {
		return err
	}
	defer w.Detach() //nolint:errcheck // the benchmark has its figures or an error of its own
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.Run(ctx, func(int) wire.Handler { return &handler{} }) }()
	select {
	case <-w.Unprotected(): // the loop beats, the sockets are in
	case err := <-ran:
		stop()
		return err
	}
	pick, err := regexp.Compile(*only)
	if err != nil {
		stop()
		return fmt.Errorf("-only: %w", err)
	}
	b := &bencher{wire: w, only: pick, pin: cfg.PinDir, rounds: *rounds, repeat: *repeat, rand: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // the same addresses in each run
	b.figures = benchFigures{Rounds: map[string][]float64{}, Median: map[string]float64{}, Above: map[string]float64{}}
	err = b.all()
	stop()
	if rerr := <-ran; err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(&b.figures)
}

type bencher struct {
	wire           *xdp.Wire
	pin            string
	rounds, repeat int
	rand           *rand.Rand
	only           *regexp.Regexp
	objs           benchObjects
	keys           []benchBenchKey
	figures        benchFigures
}

func (b *bencher) all() error {
	if err := loadBenchObjects(&b.objs, nil); err != nil {
		return fmt.Errorf("load benchmark: %w", err)
	}
	defer b.objs.Close() //nolint:errcheck // nothing is pinned
	mem, err := unix.Mmap(b.objs.BenchKeys.FD(), 0, maxKeys*int(unsafe.Sizeof(benchBenchKey{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map keys: %w", err)
	}
	b.keys = unsafe.Slice((*benchBenchKey)(unsafe.Pointer(&mem[0])), maxKeys)
	program, err := attachedProgram(filepath.Join(b.pin, "link_wan"))
	if err != nil {
		return err
	}
	defer program.Close() //nolint:errcheck // a second descriptor

	// IPv4
	nets := randomV4(b.rand, 1_000_000)
	frame4 := frameV4(nil)
	if err := b.row("empty_v4", b.objs.BenchEmpty, frame4, b.missV4(nil), 26, false); err != nil {
		return err
	}
	for _, n := range []int{0, 1000, 100_000, 1_000_000} {
		if err := b.load(nets[:n]); err != nil {
			return err
		}
		name := sizeName(n)
		if err := b.row("miss_"+name, program, frame4, b.missV4(nets[:n]), 26, false); err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		if err := b.row("hit_"+name, program, frame4, b.hitV4(nets[:n]), 26, false); err != nil {
			return err
		}
	}
	tagged := frameV4([]byte{0x81, 0, 0, 30, 0x88, 0x64, 0x11, 0, 0, 7, 0, 48, 0, 0x21})
	if err := b.row("empty_v4_vlan_pppoe", b.objs.BenchEmpty, tagged, b.missV4(nets), 26+12, false); err != nil {
		return err
	}
	if err := b.row("miss_1m_vlan_pppoe", program, tagged, b.missV4(nets), 26+12, false); err != nil {
		return err
	}
	if err := b.flows(program, frame4, nets); err != nil {
		return err
	}
	if err := b.swap(program, nets); err != nil {
		return err
	}

	// IPv6
	nets6 := randomV6(b.rand, 1_000_000)
	if err := b.load(nets6); err != nil {
		return err
	}
	frame6 := frameV6()
	if err := b.row("empty_v6", b.objs.BenchEmpty, frame6, b.missV6(nets6), 22, true); err != nil {
		return err
	}
	if err := b.row("miss_1m_v6", program, frame6, b.missV6(nets6), 22, true); err != nil {
		return err
	}
	if err := b.row("hit_1m_v6", program, frame6, b.hitV6(nets6), 22, true); err != nil {
		return err
	}
	for name, m := range b.figures.Median {
		base := "empty_v4"
		switch {
		case len(name) > 3 && name[len(name)-3:] == "_v6":
			base = "empty_v6"
		case len(name) > 6 && name[len(name)-6:] == "_pppoe":
			base = "empty_v4_vlan_pppoe"
		}
		b.figures.Above[name] = m - b.figures.Median[base]
	}
	return nil
}

func sizeName(n int) string {
	switch n {
	case 1000:
		return "1k"
	case 100_000:
		return "100k"
	case 1_000_000:
		return "1m"
	}
	return "none"
}

// attachedProgram is the program of a pinned link.
func attachedProgram(path string) (*ebpf.Program, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, fmt.Errorf("load link: %w", err)
	}
	defer l.Close() //nolint:errcheck // a second descriptor
	info, err := l.Info()
	if err != nil {
		return nil, fmt.Errorf("ask link: %w", err)
	}
	return ebpf.NewProgramFromID(info.Program)
}

// row measures one program: keys of the kind, rewritten into the frame at address.
func (b *bencher) row(name string, p *ebpf.Program, frame []byte, next func(*benchBenchKey), address int, ipv6 bool) error {
	if p != b.objs.BenchEmpty && !b.only.MatchString(name) {
		return nil
	}
	for i := range b.keys {
		next(&b.keys[i])
	}
	plan := benchBenchPlan{Keys: maxKeys, Address: uint32(address), Port: uint32(address + 8)}
	if ipv6 {
		plan.Ipv6, plan.Port = 1, uint32(address+32)
	}
	if err := b.objs.BenchSettings.Put(uint32(0), &plan); err != nil {
		return fmt.Errorf("set plan: %w", err)
	}
	if err := b.objs.BenchProgram.Put(uint32(0), p); err != nil {
		return fmt.Errorf("set program: %w", err)
	}
	for i := range b.rounds + 1 {
		_, d, err := b.objs.BenchJump.Benchmark(frame, b.repeat, nil)
		if err != nil {
			return fmt.Errorf("measure %s: %w", name, err)
		}
		if i > 0 { // the first round warms up
			b.figures.Rounds[name] = append(b.figures.Rounds[name], float64(d.Nanoseconds()))
		}
	}
	r := slices.Sorted(slices.Values(b.figures.Rounds[name]))
	b.figures.Median[name] = r[len(r)/2]
	return nil
}

func (b *bencher) load(nets []netip.Prefix) error {
	return b.wire.SetBlockSets([]xdp.BlockSet{{ID: 1, Name: "bench", Prefixes: nets}})
}

// flows measures packets of 100,000 flows that are cut through, with everything loaded, and of none of them.
func (b *bencher) flows(p *ebpf.Program, frame []byte, nets []netip.Prefix) error {
	const n = 100_000
	var list []benchBenchKey
	miss := b.missV4(nets)
	flows := make([]wire.FlowKey, n)
	for i := range flows {
		var k benchBenchKey
		miss(&k)
		list = append(list, k)
		flows[i] = benchFlow(&k)
		if err := b.wire.SetFlow(flows[i], wire.Cut); err != nil {
			return fmt.Errorf("fill flows: %w", err)
		}
	}
	if err := b.row("cut_100k", p, frame, func(k *benchBenchKey) { *k = list[b.rand.IntN(n)] }, 26, false); err != nil {
		return err
	}
	if err := b.row("first_packet_100k_flows", p, frame, miss, 26, false); err != nil {
		return err
	}
	for i := range flows {
		if err := b.wire.SetFlow(flows[i], wire.Undecided); err != nil {
			return fmt.Errorf("empty flows: %w", err)
		}
	}
	return nil
}

// benchFlow is the flow of the frame with this key.
func benchFlow(key *benchBenchKey) wire.FlowKey {
	in := netip.AddrPortFrom(netip.MustParseAddr(insideV4), benchPort)
	out := netip.AddrPortFrom(netip.AddrFrom4([4]byte(key.Address[:4])), bits.ReverseBytes16(key.Port))
	if in.Addr().Compare(out.Addr()) > 0 || in.Addr() == out.Addr() && in.Port() > out.Port() {
		in, out = out, in
	}
	return wire.FlowKey{
		A: netip.AddrFrom16(in.Addr().As16()), APort: in.Port(),
		B: netip.AddrFrom16(out.Addr().As16()), BPort: out.Port(), Proto: 17,
	}
}

// swap measures what it takes to replace 1 M entries by as many.
func (b *bencher) swap(p *ebpf.Program, nets []netip.Prefix) error {
	plan := benchBenchPlan{Keys: maxKeys, Address: 26, Port: 34}
	if err := b.objs.BenchSettings.Put(uint32(0), &plan); err != nil {
		return fmt.Errorf("set plan: %w", err)
	}
	if err := b.objs.BenchProgram.Put(uint32(0), p); err != nil {
		return fmt.Errorf("set program: %w", err)
	}
	if err := b.load(nets); err != nil {
		return err
	}
	debug.FreeOSMemory()
	heapBefore := b.heapMB()
	mapsBefore := b.mapMB()
	peak := make(chan float64, 1)
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		top := 0.0
		for {
			select {
			case <-done:
				peak <- top
				return
			case <-tick.C:
				top = max(top, b.heapMB())
			}
		}
	}()
	before := cpuSeconds()
	start := time.Now()
	if err := b.load(nets); err != nil {
		return err
	}
	b.figures.SwapMS = float64(time.Since(start).Microseconds()) / 1000
	b.figures.SwapS = cpuSeconds() - before
	close(done)
	b.figures.MapMB = mapsBefore
	list := float64(len(nets)) * float64(unsafe.Sizeof(netip.Prefix{})) / (1 << 20)
	b.figures.PeakMB = <-peak - heapBefore + list + 2*mapsBefore
	return b.swapUnderFlood(nets)
}

// swapUnderFlood counts packets that were judged wrongly while lists with the same members replace each other.
func (b *bencher) swapUnderFlood(nets []netip.Prefix) error {
	hit, miss := b.hitV4(nets), b.missV4(nets)
	for _, listed := range []bool{true, false} {
		for i := range b.keys {
			if listed {
				hit(&b.keys[i])
			} else {
				miss(&b.keys[i])
			}
		}
		before, err := b.wire.Status()
		if err != nil {
			return err
		}
		stop := make(chan struct{})
		ran := make(chan uint64, 1)
		go func() {
			n := uint64(0)
			defer func() { ran <- n }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := b.objs.BenchJump.Benchmark(frameV4(nil), 10_000, nil); err != nil {
					return
				}
				n += 10_000
			}
		}()
		for range 3 {
			if err := b.load(nets); err != nil {
				close(stop)
				<-ran
				return err
			}
		}
		close(stop)
		packets := <-ran
		after, err := b.wire.Status()
		if err != nil {
			return err
		}
		dropped := after.Ports[1].Dropped.Packets - before.Ports[1].Dropped.Packets
		b.figures.Packets += float64(packets)
		if listed {
			b.figures.Wrong += math.Abs(float64(packets) - float64(dropped))
		} else {
			b.figures.Wrong += float64(dropped)
		}
	}
	return nil
}

// mapMB is what the present image of the block sets takes.
func (b *bencher) mapMB() float64 {
	outer, err := ebpf.LoadPinnedMap(filepath.Join(b.pin, "v1", "sets"), nil)
	if err != nil {
		return 0
	}
	defer outer.Close() //nolint:errcheck // a second descriptor
	var inner *ebpf.Map
	if err := outer.Lookup(uint32(0), &inner); err != nil {
		return 0
	}
	defer inner.Close() //nolint:errcheck // a second descriptor
	info, err := inner.Info()
	if err != nil {
		return 0
	}
	bytes, _ := info.Memlock()
	return float64(bytes) / (1 << 20)
}

// heapMB is the process's heap as the system sees it.
func (b *bencher) heapMB() float64 {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return float64(ms.HeapSys-ms.HeapReleased) / (1 << 20)
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	sec := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return sec(u.Utime) + sec(u.Stime)
}
