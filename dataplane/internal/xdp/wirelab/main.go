// Command wirelab opens the wire with a Handler that passes everything: what test/lab and test/bench start, stop and kill in
// place of the agent, when the wire alone is to be measured. It prints JSON lines and reads commands, one a line. The trap: it
// knows IPv4 only, and is no part of the product.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kadomori/kadomori/dataplane/internal/wire"
	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wirelab:", err)
		os.Exit(1)
	}
}

// line is one line of output.
type line struct {
	Event       string                   `json:"event"` // ready, status, drop, unprotected, done, error
	Status      *xdp.Status              `json:"status,omitempty"`
	Drop        *wire.DropSample         `json:"drop,omitempty"`
	Unprotected *xdp.UnprotectedInterval `json:"unprotected,omitempty"`
	Flows       *sums                    `json:"flows,omitempty"`
	Error       string                   `json:"error,omitempty"`
	TookMS      float64                  `json:"took_ms,omitempty"`
}

// sums are the flow records so far, by verdict: 0 forwarded unseen, 1 cut, 2 dropped.
type sums struct {
	Packets, Bytes [3]uint64
	Records        uint64
	Ended          uint64
}

type lab struct {
	wire *xdp.Wire
	mu   sync.Mutex
	out  *json.Encoder
	sums sums
}

func (l *lab) print(v line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.out.Encode(v)
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "bench":
			return bench(args[1:], out)
		case "flood":
			return flood(args[1:], out)
		case "list":
			return list(args[1:])
		case "xdp-filter-fill":
			return fillXDPFilter(args[1:])
		}
	}
	var cfg xdp.Config
	fs := flag.NewFlagSet("wirelab", flag.ContinueOnError)
	fs.StringVar(&cfg.Ports.LAN, "lan", "", "port")
	fs.StringVar(&cfg.Ports.WAN, "wan", "", "port")
	fs.StringVar(&cfg.PinDir, "pin", "", "pin folder")
	fs.IntVar(&cfg.Flows, "flows", 0, "size of the flow table")
	fs.DurationVar(&cfg.Limit, "limit", 0, "heartbeat limit")
	fs.DurationVar(&cfg.Sweep, "sweep", time.Second, "flow records")
	tap := fs.Bool("tap", false, "observe -lan")
	generic := fs.Bool("generic", false, "attach generic")
	resident := fs.Int("resident", 0, "MiB to hold in memory, as rules do")
	cut := fs.Int("cut-after", 0, "packets after which a flow is cut through; 0 never")
	detach := fs.Bool("detach", false, "take the program off the ports at the end")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *tap {
		cfg.Mode = xdp.Tap
	}
	if *generic {
		cfg.Attach = xdp.AttachGeneric
	}
	cfg.Log = hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn})
	ballast := make([]byte, *resident<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	w, err := xdp.Open(cfg)
	if err != nil {
		return err
	}
	l := &lab{wire: w, out: json.NewEncoder(out)}
	var readers sync.WaitGroup
	readers.Go(l.readDrops)
	readers.Go(l.readFlows)
	readers.Go(l.readUnprotected)
	go l.commands(in)
	err = w.Run(ctx, func(int) wire.Handler { return &handler{after: *cut, seen: map[wire.FlowKey]int{}} })
	end := w.Close
	if *detach {
		end = w.Detach
	}
	if cerr := end(); err == nil {
		err = cerr
	}
	readers.Wait()
	runtime.KeepAlive(ballast) // resident to the end
	last, _ := w.Status()      // it is closed: the last values
	l.print(line{Event: "done", Flows: &l.sums, Status: &last})
	return err
}

func (l *lab) readDrops() {
	for d := range l.wire.Drops() {
		l.print(line{Event: "drop", Drop: &d})
	}
}

func (l *lab) readFlows() {
	for r := range l.wire.FlowRecords() {
		l.mu.Lock()
		for i := range 2 {
			l.sums.Packets[r.Verdict] += r.Packets[i]
			l.sums.Bytes[r.Verdict] += r.Bytes[i]
		}
		l.sums.Records++
		if r.Ended {
			l.sums.Ended++
		}
		l.mu.Unlock()
	}
}

func (l *lab) readUnprotected() {
	for u := range l.wire.Unprotected() {
		l.print(line{Event: "unprotected", Unprotected: &u})
		switch u.Cause {
		case xdp.CauseStarting, xdp.CauseStopped, xdp.CauseDied:
			l.print(line{Event: "ready"}) // the first packet loop has its sockets
		}
	}
}

// commands reads "status", "block PREFIX...", "never PREFIX...", "load N", "bypass DURATION", "bypass off".
func (l *lab) commands(in io.Reader) {
	sc := bufio.NewScanner(in)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) == 0 {
			continue
		}
		start := time.Now()
		v, err := l.command(f[0], f[1:])
		v.TookMS = float64(time.Since(start).Microseconds()) / 1000
		if err != nil {
			v.Event, v.Error = "error", err.Error()
		}
		l.print(v)
	}
}

func (l *lab) command(name string, args []string) (line, error) {
	switch name {
	case "status":
		s, err := l.wire.Status()
		l.mu.Lock()
		sums := l.sums
		l.mu.Unlock()
		return line{Event: "status", Status: &s, Flows: &sums}, err
	case "block", "never":
		var ps []netip.Prefix
		for _, a := range args {
			p, err := netip.ParsePrefix(a)
			if err != nil {
				return line{}, err
			}
			ps = append(ps, p)
		}
		if name == "never" {
			return line{Event: "set"}, l.wire.SetNeverBlock(ps)
		}
		return line{Event: "set"}, l.wire.SetBlockSets([]xdp.BlockSet{{ID: 1, Name: "lab", Prefixes: ps}})
	case "block-file":
		if len(args) != 1 {
			break
		}
		ps, err := readList(args[0])
		if err != nil {
			return line{}, err
		}
		return line{Event: "set"}, l.wire.SetBlockSets([]xdp.BlockSet{{ID: 1, Name: "lab", Prefixes: ps}})
	case "bypass":
		if len(args) == 1 && args[0] == "off" {
			return line{Event: "set"}, l.wire.Bypass(false, 0)
		}
		if len(args) == 1 {
			d, err := time.ParseDuration(args[0])
			if err != nil {
				return line{}, err
			}
			return line{Event: "set"}, l.wire.Bypass(true, d)
		}
	}
	return line{}, fmt.Errorf("unknown command %q", name)
}

// handler passes everything, and cuts flows after so many packets.
type handler struct {
	after int
	seen  map[wire.FlowKey]int
}

func (h *handler) Tick(int64) {}

func (h *handler) Handle(frame []byte, _ wire.Port, _ int64) wire.Decision {
	if h.after == 0 {
		return wire.Decision{}
	}
	k, ok := key(frame)
	if !ok {
		return wire.Decision{}
	}
	n := h.seen[k] + 1
	h.seen[k] = n
	if n < h.after {
		return wire.Decision{}
	}
	return wire.Decision{Flow: wire.Cut, Key: k}
}

// key reads the flow of an untagged IPv4 packet without options.
func key(f []byte) (wire.FlowKey, bool) {
	if len(f) < 42 || binary.BigEndian.Uint16(f[12:]) != 0x0800 || f[14] != 0x45 {
		return wire.FlowKey{}, false
	}
	k := wire.FlowKey{Proto: f[23]}
	src, _ := netip.AddrFromSlice(f[26:30])
	dst, _ := netip.AddrFromSlice(f[30:34])
	k.A, k.B = netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16())
	if k.Proto == 6 || k.Proto == 17 {
		k.APort, k.BPort = binary.BigEndian.Uint16(f[34:]), binary.BigEndian.Uint16(f[36:])
	}
	if c := k.A.Compare(k.B); c > 0 || c == 0 && k.APort > k.BPort {
		k.A, k.B, k.APort, k.BPort = k.B, k.A, k.BPort, k.APort
	}
	return k, true
}
