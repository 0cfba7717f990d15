package app

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

// notify tells systemd that the agent is ready, and that it lives as long as its packet loops beat (sd_notify(3)). Without
// systemd it does nothing.
func (a *agent) notify(ctx context.Context) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		<-ctx.Done()
		return nil
	}
	say := func(state string) {
		if err := sdNotify(ctx, socket, state); err != nil {
			a.log.Warn("systemd can't be told", "state", state, "err", err)
		}
	}
	say("READY=1")
	every := watchdogInterval(os.Getenv("WATCHDOG_USEC"))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			sdNotify(context.WithoutCancel(ctx), socket, "STOPPING=1") //nolint:errcheck // systemd sees the end anyway
			return nil
		case <-tick.C:
			// A packet loop that hangs is passed over by the kernel; being started anew is what mends it.
			if a.wireStatus().UnprotectedCause != xdp.CauseLate {
				say("WATCHDOG=1")
			}
		}
	}
}

// watchdogInterval is half of what systemd allows, or a minute when it does not watch.
func watchdogInterval(usec string) time.Duration {
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 {
		return time.Minute
	}
	return max(time.Duration(n)*time.Microsecond/2, 10*time.Millisecond)
}

func sdNotify(ctx context.Context, socket, state string) error {
	if name, ok := strings.CutPrefix(socket, "@"); ok {
		socket = "\x00" + name // an abstract socket
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", socket)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // a datagram
	_, err = conn.Write([]byte(state))
	return err
}
