package lab

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWireForwardsTransparently(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		t.Run(mode, func(t *testing.T) {
			w := newWireLab(t)
			if w.reach(serverAddr) {
				t.Fatal("the ports are joined without the wire")
			}
			args := []string{"-detach"}
			if mode == "generic" {
				args = append(args, "-generic")
			}
			a := w.startAgent(t, args...)
			for _, address := range []string{serverAddr, serverAddr6} {
				if !w.reach(address) {
					t.Errorf("no answer from %s", address)
				}
			}
			if err := waitTransfer(w.transfer(t, 8<<20, 100<<20)); err != nil {
				t.Error(err)
			}
			s := a.tell("status", "status").Status
			for _, p := range s.Ports {
				if p.Attach != mode {
					t.Errorf("%s is attached %s", p.Name, p.Attach)
				}
				if p.Handler.Packets == 0 || p.Dropped.Packets != 0 || p.Stale.Packets != 0 || p.Lost != 0 {
					t.Errorf("%s: %+v", p.Name, p)
				}
			}
			a.stop()
			if w.reach(serverAddr) {
				t.Error("the wire forwards after it was detached")
			}
		})
	}
}

func TestWireBlockSetAndNeverBlock(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t)
	steps := []struct {
		command string
		v4, v6  bool
	}{
		{"block 10.7.0.2/32", false, true},
		{"block 10.0.0.0/8 fd07::/64", false, false},
		{"never 10.7.0.2/32", true, false},
		{"block 0.0.0.0/0 ::/0", true, true},
		{"never", true, true},
		{"block 10.7.0.2/32 fd07::2/128", false, false},
		{"block", true, true},
	}
	for _, s := range steps {
		a.tell(s.command, "set")
		if got := w.reach(serverAddr); got != s.v4 {
			t.Errorf("%s: IPv4 reaches %v, want %v", s.command, got, s.v4)
		}
		if got := w.reach(serverAddr6); got != s.v6 {
			t.Errorf("%s: IPv6 reaches %v, want %v", s.command, got, s.v6)
		}
	}
	s := a.tell("status", "status").Status
	if len(s.Drops) != 1 && len(s.Drops) != 2 || s.Drops[0].List != "lab" || s.Drops[0].Packets == 0 {
		t.Errorf("drops: %+v", s.Drops)
	}
	var dropped uint64
	for _, d := range s.Drops {
		dropped += d.Packets
	}
	if got := s.Ports[0].Dropped.Packets + s.Ports[1].Dropped.Packets; got != dropped {
		t.Errorf("the ports dropped %d, the lists %d", got, dropped)
	}
}

func TestWireBlockSetOutlivesTheAgent(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t)
	a.tell("block "+serverAddr+"/32", "set")
	a.signal(syscall.SIGKILL)
	<-a.done
	if w.reach(serverAddr) {
		t.Error("a listed address answers when the agent is dead")
	}
	if !w.reach(serverAddr6) {
		t.Error("others don't")
	}
}

// resident is what the test processes hold in memory, as the agent holds its rules: the kernel frees it before it closes the
// sockets of a dying process.
const resident = "1024"

// gapLimit is what a test allows on a machine that runs other tests at once; the benchmark measures what a quiet one needs.
const gapLimit = 250 * time.Millisecond

func TestWireSurvivesSIGKILL(t *testing.T) { survive(t, syscall.SIGKILL, "gap_ms_sigkill") }

func TestWireSurvivesSIGSEGV(t *testing.T) { survive(t, syscall.SIGSEGV, "gap_ms_sigsegv") }

// survive ends the agent by a signal in the middle of a transfer and a voice-like stream of datagrams.
func survive(t *testing.T, sig syscall.Signal, name string) {
	w := newWireLab(t)
	a := w.startAgent(t, "-resident", resident)
	p := w.startProbe(t, 5*time.Millisecond)
	done := w.transfer(t, 40<<20, 20<<20)
	p.waitFor(t, 50)
	a.signal(sig)
	<-a.done
	p.waitFor(t, 50)
	gap := p.longestGap()
	b := w.startAgent(t)
	p.waitFor(t, 20)
	if err := waitTransfer(done); err != nil {
		t.Errorf("the transfer: %v", err)
	}
	lost, _ := p.stop(t)
	t.Logf("%v: longest gap %v, %d probes of 5 ms lost", sig, gap.Round(time.Millisecond/10), lost)
	figure(t, name, milliseconds(gap))
	if gap > gapLimit {
		t.Errorf("gap %v", gap)
	}
	s := b.tell("status", "status").Status
	if s.Unprotected == 0 {
		t.Error("the next agent knows of no unprotected time")
	}
	if s.Ports[0].NoSocket.Packets+s.Ports[0].Stale.Packets == 0 {
		t.Error("nothing was forwarded while no agent was there")
	}
}

func TestWireSurvivesSIGSTOP(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t, "-resident", resident)
	p := w.startProbe(t, 5*time.Millisecond)
	done := w.transfer(t, 40<<20, 20<<20)
	p.waitFor(t, 50)
	a.signal(syscall.SIGSTOP)
	p.waitFor(t, 100)
	gap := p.longestGap()
	a.signal(syscall.SIGCONT)
	u := a.wait("unprotected").Unprotected
	for u.To.Sub(u.From) < 200*time.Millisecond { // an overloaded machine has short ones of its own before
		u = a.wait("unprotected").Unprotected
	}
	if err := waitTransfer(done); err != nil {
		t.Errorf("the transfer: %v", err)
	}
	lost, _ := p.stop(t)
	t.Logf("SIGSTOP: longest gap %v, %d probes of 5 ms lost, told: %v for %v", gap.Round(time.Millisecond/10), lost, u.Cause, u.To.Sub(u.From))
	figure(t, "gap_ms_sigstop", milliseconds(gap))
	if gap > gapLimit {
		t.Errorf("gap %v", gap)
	}
	if u.Cause != "packet loop late" {
		t.Errorf("told: %+v", u)
	}
	s := a.tell("status", "status").Status
	if s.Ports[0].Stale.Packets == 0 {
		t.Error("nothing was passed over")
	}
}

// TestWireUpgrade starts the new agent while the old one works, as an update does.
func TestWireUpgrade(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t, "-resident", resident)
	p := w.startProbe(t, time.Millisecond)
	done := w.transfer(t, 40<<20, 20<<20)
	p.waitFor(t, 100)
	b := w.launchAgent(t)
	p.waitFor(t, 100)
	a.stop()
	b.wait("ready")
	p.waitFor(t, 100)
	if err := waitTransfer(done); err != nil {
		t.Errorf("the transfer: %v", err)
	}
	lost, gap := p.stop(t)
	t.Logf("upgrade: longest gap %v, %d probes lost", gap.Round(time.Millisecond/10), lost)
	figure(t, "gap_ms_upgrade", milliseconds(gap))
	figure(t, "upgrade_lost_packets", float64(lost))
	if lost != 0 {
		t.Errorf("%d probes lost", lost)
	}
	if s := b.tell("status", "status").Status; s.Loop.Handled.Packets == 0 {
		t.Error("the new agent sees nothing")
	}
}

func TestWireLosesNothingAtSIGTERMAndRestart(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t)
	p := w.startProbe(t, time.Millisecond)
	done := w.transfer(t, 40<<20, 20<<20)
	for range 3 {
		p.waitFor(t, 100)
		a.stop()
		p.waitFor(t, 100)
		a = w.startAgent(t)
	}
	if err := waitTransfer(done); err != nil {
		t.Errorf("the transfer: %v", err)
	}
	lost, gap := p.stop(t)
	t.Logf("three restarts: longest gap %v, %d probes lost", gap.Round(time.Millisecond/10), lost)
	if lost != 0 {
		t.Errorf("%d probes lost", lost)
	}
}

// TestWireCountsToTheByte holds the ports' counters against what Handlers saw and flow records told, over cut flows, drops, a
// restart and time without an agent.
func TestWireCountsToTheByte(t *testing.T) {
	w := newWireLab(t)
	var told uint64
	add := func(l agentLine) {
		told += l.Status.Loop.Handled.Bytes + l.Status.Loop.BacklogBytes
		t.Logf("loop %+v, flows %+v", l.Status.Loop, l.Flows)
		for _, n := range l.Flows.Bytes {
			told += n
		}
	}
	a := w.startAgent(t, "-cut-after", "5", "-sweep", "200ms")
	p := w.startProbe(t, 2*time.Millisecond)
	if err := waitTransfer(w.transfer(t, 8<<20, 40<<20)); err != nil {
		t.Error(err)
	}
	a.tell("block "+serverAddr6+"/128", "set")
	if w.reach(serverAddr6) {
		t.Error("a listed address answers")
	}
	until(t, "flows that are cut through", func() bool { return a.tell("status", "status").Status.Loop.Cuts >= 2 })
	add(a.stop())
	p.waitFor(t, 100)
	if err := waitTransfer(w.transfer(t, 2<<20, 40<<20)); err != nil {
		t.Error(err)
	}
	a = w.startAgent(t, "-cut-after", "5", "-sweep", "200ms")
	if err := waitTransfer(w.transfer(t, 2<<20, 40<<20)); err != nil {
		t.Error(err)
	}
	p.waitFor(t, 100)
	p.stop(t)
	// Nothing must come in between the last sweep and the last look at the ports.
	for _, h := range []*Host{w.client, w.server} {
		if err := h.Run("ip", "link", "set", "eth0", "down"); err != nil {
			t.Fatal(err)
		}
	}
	last := a.stop()
	add(last)
	var received, cut, unseen, dropped uint64
	for _, port := range last.Status.Ports {
		for _, c := range []agentCount{port.Handler, port.Cut, port.Stale, port.NoSocket, port.Bypass, port.Dropped} {
			received += c.Bytes
		}
		cut += port.Cut.Bytes
		unseen += port.NoSocket.Bytes + port.Stale.Bytes
		dropped += port.Dropped.Bytes
	}
	t.Logf("received %d bytes: cut %d, unseen %d, dropped %d", received, cut, unseen, dropped)
	if cut == 0 || unseen < 2<<20 || dropped == 0 {
		t.Error("a kind of traffic is missing from the test")
	}
	if told != received {
		t.Errorf("told %d bytes, the ports received %d", told, received)
	}
}

// TestWireCutFlowMeetsANewList stops a running flow that was cut through as soon as its address is listed.
func TestWireCutFlowMeetsANewList(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t, "-cut-after", "3")
	p := w.startProbe(t, 2*time.Millisecond)
	until(t, "a cut flow", func() bool { return a.tell("status", "status").Status.Ports[0].Cut.Packets > 10 })
	a.tell("block 192.0.2.0/24", "set")
	p.waitFor(t, 50)
	a.tell("block "+serverAddr+"/32", "set")
	before := p.got.Load()
	sent := p.sent.Load() + 50
	until(t, "50 more probes", func() bool { return p.sent.Load() >= sent })
	if n := p.got.Load() - before; n > 5 { // answers that were on their way
		t.Errorf("%d answers after the list was there", n)
	}
	a.tell("block", "set")
	p.waitFor(t, 10)
	p.stop(t)
}

// TestWireSaysWhichPortCanNotFailOpen: a veth whose peer has no GRO takes no redirected frames.
func TestWireSaysWhichPortCanNotFailOpen(t *testing.T) {
	w := newWireLab(t)
	for _, s := range []struct {
		host *Host
		args []string
	}{
		{w.box, []string{"ip", "link", "set", "lan", "down"}},
		{w.client, []string{"ethtool", "-K", "eth0", "gro", "off"}},
		{w.box, []string{"ip", "link", "set", "lan", "up"}},
	} {
		if err := s.host.Run(s.args[0], s.args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	a := w.startAgent(t, "-cut-after", "2", "-sweep", "100ms")
	for range 5 {
		if !w.reach(serverAddr) {
			t.Error("the agent does not carry the traffic")
		}
	}
	s := a.tell("status", "status").Status
	if s.Ports[0].FailsOpen || !s.Ports[1].FailsOpen {
		t.Errorf("lan fails open %v, wan %v", s.Ports[0].FailsOpen, s.Ports[1].FailsOpen)
	}
	if s.Loop.Cuts != 0 {
		t.Errorf("%d flows cut through to a port that takes nothing", s.Loop.Cuts)
	}
	if err := w.client.Run("ethtool", "-K", "eth0", "gro", "on"); err != nil {
		t.Fatal(err)
	}
	until(t, "the port to be well again", func() bool { return a.tell("status", "status").Status.Ports[0].FailsOpen })
}

// TestWireEndsWhenAPortIsGone: the agent must come back with the interface.
func TestWireEndsWhenAPortIsGone(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t)
	if err := w.box.Run("ip", "link", "del", "wan"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the agent goes on without a port")
	}
	if !strings.Contains(a.err.String(), "wan: the interface is gone") {
		t.Errorf("it says: %s", a.err)
	}
	err := w.Link(End{Host: w.server, Name: "eth0", Addresses: []string{serverAddr + "/24"}}, End{Host: w.box, Name: "wan"}, LinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.startAgent(t)
	if !w.reach(serverAddr) {
		t.Error("no traffic over the new interface")
	}
}

func TestWireBypass(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t, "-sweep", "100ms")
	a.tell("block "+serverAddr+"/32", "set")
	if w.reach(serverAddr) {
		t.Fatal("a listed address answers")
	}
	a.tell("bypass 1s", "set")
	if !w.reach(serverAddr) {
		t.Error("bypassed, and still stopped")
	}
	u := a.wait("unprotected").Unprotected
	if d := u.To.Sub(u.From); u.Cause != "bypass" || d < 900*time.Millisecond || d > 1100*time.Millisecond {
		t.Errorf("told: %v for %v", u.Cause, d)
	}
	if w.reach(serverAddr) {
		t.Error("the bypass has no end")
	}
}

func TestWireTapSendsNothing(t *testing.T) {
	w := newWireLab(t)
	a := w.launchAgent(t, "-wan", "", "-tap")
	a.wait("ready")
	if w.reach(serverAddr) {
		t.Error("a tap forwards")
	}
	s := a.tell("status", "status").Status
	if len(s.Ports) != 1 || s.Loop.Handled.Packets == 0 {
		t.Errorf("the tap sees nothing: %+v", s)
	}
	out, err := w.client.Output("ip", "-s", "link", "show", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(out, "\n"); len(lines) < 4 || strings.Fields(lines[3])[1] != "0" {
		t.Errorf("something came out of the tap:\n%s", out)
	}
}
