package lab

import (
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

func TestWireSurvivesSIGKILL(t *testing.T) {
	w := newWireLab(t)
	a := w.startAgent(t, "-resident", "256")
	p := w.startProbe(t, 5*time.Millisecond)
	done := w.transfer(t, 40<<20, 20<<20)
	p.waitFor(t, 50)
	a.signal(syscall.SIGKILL)
	<-a.done
	p.waitFor(t, 50)
	b := w.startAgent(t)
	p.waitFor(t, 20)
	if err := waitTransfer(done); err != nil {
		t.Errorf("the transfer: %v", err)
	}
	lost, gap := p.stop(t)
	t.Logf("SIGKILL: longest gap %v, %d probes of 5 ms lost", gap.Round(time.Millisecond/10), lost)
	if gap > 250*time.Millisecond {
		t.Errorf("gap %v", gap)
	}
	s := b.tell("status", "status").Status
	if s.Unprotected == 0 {
		t.Error("the next agent knows of no unprotected time")
	}
	unseen := s.Ports[0].NoSocket.Packets + s.Ports[0].Stale.Packets
	if unseen == 0 {
		t.Error("nothing was forwarded while no agent was there")
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
