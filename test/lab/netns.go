// Package lab builds hosts out of network namespaces joined by veth pairs, so that tests, benchmarks and the demo send real
// packets through the real program. Tests of this folder and test/demo call it, as root. The trap: a host's commands keep the
// caller's mounts (they are entered with nsenter, not `ip netns exec`), so a BPF file system mounted by the lab stays visible
// to them, and so does the rest of the machine's file system.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	runDir     = "/run/kadomori-lab" // one folder per lab: <name>/bpf
	netnsDir   = "/run/netns"        // where iproute2 keeps named namespaces
	namePrefix = "kdm"               // a lab is called kdm<pid>-<tag>
)

// Lab is a set of hosts made together and taken down together. Its methods may be called from several goroutines.
type Lab struct {
	name string
	dir  string

	mu      sync.Mutex
	hosts   map[string]*Host
	running []*process
	bpffs   string
	closed  bool
}

// Host is one network namespace.
type Host struct {
	lab  *Lab
	name string // within the lab
	ns   string // name of the namespace
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Missing says what this machine lacks to build a lab: "" when nothing. Tests skip with it, and fail with it in CI.
func Missing() string {
	if os.Geteuid() != 0 {
		return "root"
	}
	for _, p := range []string{"ip", "ethtool", "nsenter", "ping"} {
		if _, err := exec.LookPath(p); err != nil {
			return p
		}
	}
	return ""
}

// New makes an empty lab. tag (letters and digits, at most 16) tells several labs of one process apart. Labs that died
// processes left behind are removed first.
func New(tag string) (*Lab, error) {
	if m := Missing(); m != "" {
		return nil, fmt.Errorf("new lab: %s is missing", m)
	}
	if len(tag) > 16 || strings.ContainsAny(tag, "/- ") {
		return nil, fmt.Errorf("new lab: tag %q: want up to 16 letters and digits", tag)
	}
	sweep()
	name := fmt.Sprintf("%s%d-%s", namePrefix, os.Getpid(), tag)
	dir := filepath.Join(runDir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("new lab: %w", err)
	}
	return &Lab{name: name, dir: dir, hosts: map[string]*Host{}}, nil
}

// Host makes a host: a fresh namespace with its loopback up.
func (l *Lab) Host(name string) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("add host: lab is closed")
	}
	if _, ok := l.hosts[name]; ok {
		return nil, fmt.Errorf("add host %q: exists", name)
	}
	h := &Host{lab: l, name: name, ns: l.name + "-" + name}
	if err := runIP("netns", "add", h.ns); err != nil {
		return nil, fmt.Errorf("add host %q: %w", name, err)
	}
	l.hosts[name] = h
	if err := h.Run("ip", "link", "set", "lo", "up"); err != nil {
		return nil, fmt.Errorf("add host %q: %w", name, err)
	}
	return h, nil
}

// End is one end of a link.
type End struct {
	Host *Host
	Name string // interface name, at most 15 bytes
	MAC  string // "" lets the kernel choose
	// Addresses are in CIDR notation; none for a port of a transparent wire, which then also gets no IPv6 address of its own.
	Addresses []string
	// Bridge is the bridge in Host that this end becomes a port of; "" none.
	Bridge string
}

// LinkOptions are settings of both ends.
type LinkOptions struct {
	MTU    int // bytes; 0 leaves the kernel's 1500
	Queues int // transmit and receive queues; 0 means 1
	// Offload keeps the kernel's offloads. Without it both ends get what an XDP wire between endpoints needs: no checksum, no
	// segmentation offload (half-made frames do not survive a redirect) and GRO, which gives a veth the NAPI that it needs
	// to take frames from XDP at all.
	Offload bool
}

// Link joins two hosts by a veth pair, sets the ends up and gives them their addresses.
func (l *Lab) Link(a, b End, opt LinkOptions) error {
	q := strconv.Itoa(max(opt.Queues, 1))
	args := []string{"link", "add", a.Name, "netns", a.Host.ns, "numtxqueues", q, "numrxqueues", q}
	if opt.MTU != 0 {
		args = append(args, "mtu", strconv.Itoa(opt.MTU))
	}
	args = append(args, "type", "veth", "peer", "name", b.Name, "netns", b.Host.ns, "numtxqueues", q, "numrxqueues", q)
	if opt.MTU != 0 {
		args = append(args, "mtu", strconv.Itoa(opt.MTU))
	}
	if err := runIP(args...); err != nil {
		return fmt.Errorf("link %s:%s to %s:%s: %w", a.Host.name, a.Name, b.Host.name, b.Name, err)
	}
	// Both ends get their features before either goes up: a veth offers itself as the target of an XDP redirect only if its
	// peer wanted GRO at the moment it was opened.
	for _, e := range []End{a, b} {
		if opt.Offload {
			break
		}
		if err := e.Host.Run("ethtool", "-K", e.Name, "tx", "off", "tso", "off", "gso", "off", "gro", "on"); err != nil {
			return fmt.Errorf("set up %s:%s: %w", e.Host.name, e.Name, err)
		}
	}
	for _, e := range []End{a, b} {
		if err := e.up(); err != nil {
			return fmt.Errorf("set up %s:%s: %w", e.Host.name, e.Name, err)
		}
	}
	return nil
}

func (e End) up() error {
	h := e.Host
	if e.MAC != "" {
		if err := h.Run("ip", "link", "set", e.Name, "address", e.MAC); err != nil {
			return err
		}
	}
	if len(e.Addresses) == 0 {
		if err := h.Sysctl("net/ipv6/conf/"+e.Name+"/disable_ipv6", "1"); err != nil {
			return err
		}
	}
	for _, a := range e.Addresses {
		args := []string{"addr", "add", a, "dev", e.Name}
		if strings.Contains(a, ":") {
			args = append(args, "nodad") // usable at once
		}
		if err := h.Run("ip", args...); err != nil {
			return err
		}
	}
	if e.Bridge != "" {
		if err := h.Run("ip", "link", "set", e.Name, "master", e.Bridge); err != nil {
			return err
		}
	}
	return h.Run("ip", "link", "set", e.Name, "up")
}

// Bridge makes a Linux bridge in the host (a switch), without spanning tree, and sets it up.
func (h *Host) Bridge(name string, addresses ...string) error {
	steps := [][]string{{"link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0"}}
	for _, a := range addresses {
		steps = append(steps, []string{"addr", "add", a, "dev", name})
	}
	steps = append(steps, []string{"link", "set", name, "up"})
	for _, s := range steps {
		if err := h.Run("ip", s...); err != nil {
			return fmt.Errorf("make bridge %s:%s: %w", h.name, name, err)
		}
	}
	return nil
}

// Route adds a route: "default" or a prefix, via a gateway.
func (h *Host) Route(dst, via string) error {
	args := []string{"route", "add", dst, "via", via}
	if strings.Contains(via, ":") {
		args = append([]string{"-6"}, args...)
	}
	return h.Run("ip", args...)
}

// Name is the host's name within the lab.
func (h *Host) Name() string { return h.name }

// Netns is the path of the host's namespace, for nsenter(1) and setns(2).
func (h *Host) Netns() string { return filepath.Join(netnsDir, h.ns) }

// Command is an exec.Cmd that will run in the host's namespace and with the caller's mounts. Its process dies with the thread
// that started it only if the caller asks for that; use Start to have the lab stop it at Close.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + h.Netns(), "--", name}, args...)...)
}

// Run runs a command in the host and waits for it, at most 30 s. The error holds what it printed to standard error.
func (h *Host) Run(name string, args ...string) error {
	_, err := h.Output(name, args...)
	return err
}

// Output is Run that returns standard output.
func (h *Host) Output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return output(h.Command(ctx, name, args...), name, args)
}

// Start starts a command made by Command; the lab ends it (SIGTERM, after 5 s SIGKILL) at Close if it still runs. The channel
// closes when the process has ended; do not call cmd.Wait.
func (h *Host) Start(cmd *exec.Cmd) (done <-chan struct{}, err error) {
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.lab.mu.Lock()
	h.lab.running = append(h.lab.running, p)
	h.lab.mu.Unlock()
	return p.done, nil
}

// Sysctl writes a network setting of the host: "net/ipv4/ip_forward", "1".
func (h *Host) Sysctl(key, value string) error {
	return h.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o600)
	})
}

// Do calls fn on a thread that is in the host's namespace. Sockets that fn opens stay there and may be used anywhere
// afterwards; goroutines that fn starts run outside.
func (h *Host) Do(fn func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, so that no other one inherits the namespace
		fd, err := unix.Open(h.Netns(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			errs <- fmt.Errorf("open namespace of %s: %w", h.name, err)
			return
		}
		defer unix.Close(fd) //nolint:errcheck // opened for reading
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			errs <- fmt.Errorf("enter namespace of %s: %w", h.name, err)
			return
		}
		errs <- fn()
	}()
	return <-errs
}

// Listen is net.Listen in the host.
func (h *Host) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		var lc net.ListenConfig
		l, err = lc.Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket is net.ListenPacket in the host.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (c net.PacketConn, err error) {
	err = h.Do(func() error {
		var lc net.ListenConfig
		c, err = lc.ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Dial connects from the host. address must hold an IP address: the host has no resolver, and Happy Eyeballs would dial from
// threads outside the namespace.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// BPFFS mounts a BPF file system of the lab's own at first call and returns its folder. What is pinned there goes with it at
// Close.
func (l *Lab) BPFFS() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bpffs != "" {
		return l.bpffs, nil
	}
	dir := filepath.Join(l.dir, "bpf")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("mount bpffs: %w", err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		return "", fmt.Errorf("mount bpffs on %s: %w", dir, err)
	}
	l.bpffs = dir
	return dir, nil
}

// Dir is a folder for the lab's own files, removed at Close.
func (l *Lab) Dir() string { return l.dir }

// Close ends every process that Start started and any other one left in the lab's namespaces, and removes namespaces, links
// and the mount. It may be called more than once.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	running, hosts := l.running, l.hosts
	l.mu.Unlock()

	for i := len(running) - 1; i >= 0; i-- { // last started, first ended
		running[i].stop()
	}
	var errs []error
	for _, h := range hosts {
		endStrays(h.ns)
		if err := runIP("netns", "del", h.ns); err != nil {
			errs = append(errs, err)
		}
	}
	if err := removeDir(l.dir); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lab: %w", err)
	}
	return nil
}

func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// endStrays kills what still runs in a namespace of ours: children of commands that ended before them.
func endStrays(ns string) {
	out, err := exec.Command("ip", "netns", "pids", ns).Output() //nolint:noctx // a read of /proc
	if err != nil {
		return
	}
	for f := range strings.FieldsSeq(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// removeDir unmounts the lab's bpffs and removes its folder.
func removeDir(dir string) error {
	bpf := filepath.Join(dir, "bpf")
	if err := unix.Unmount(bpf, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", bpf, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	_ = os.Remove(runDir) // only when it was the last lab
	return nil
}

// sweep removes namespaces, mounts and folders of labs whose process is gone.
func sweep() {
	dead := func(name string) bool {
		rest, ok := strings.CutPrefix(name, namePrefix)
		if !ok {
			return false
		}
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		return err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	spaces, _ := os.ReadDir(netnsDir)
	for _, e := range spaces {
		if dead(e.Name()) {
			endStrays(e.Name())
			_ = runIP("netns", "del", e.Name())
		}
	}
	dirs, _ := os.ReadDir(runDir)
	for _, e := range dirs {
		if dead(e.Name()) {
			_ = removeDir(filepath.Join(runDir, e.Name()))
		}
	}
}

func runIP(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := output(exec.CommandContext(ctx, "ip", args...), "ip", args)
	return err
}

func output(cmd *exec.Cmd, name string, args []string) (string, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
