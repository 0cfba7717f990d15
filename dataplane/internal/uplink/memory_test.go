package uplink

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/spool"
	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

// The agent's half runs in a process of its own, because the hub of these tests lives in this one.
const (
	childEnv    = "KADOMORI_UPLINK_CHILD" // URL of the hub
	childEvents = 200_000
	// memoryLimit is for spool and uplink at full rate, in MiB.
	memoryLimit = 40
)

func TestSpoolAndUplinkStayBelowTheirMemoryAtFullRate(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		child(t)
		return
	}
	if raceEnabled {
		t.Skip("the race detector multiplies memory")
	}
	h := startHub(t, -1, t.TempDir(), "evt.1.7")
	st := h.stream(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+h.url("box"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	figures := map[string]float64{}
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	for sc.Scan() {
		if rest, ok := strings.CutPrefix(sc.Text(), "figure "); ok {
			var name string
			var v float64
			if _, err := fmt.Sscan(rest, &name, &v); err == nil {
				figures[name] = v
			}
		}
	}
	info, err := st.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events of about 500 bytes: %.0f events a second, %.2f µs of CPU each, peak %.1f MiB, %d messages",
		childEvents, figures["rate"], figures["cpu_us"], figures["peak_mib"], info.State.Msgs)
	if figures["peak_mib"] == 0 || figures["peak_mib"] > memoryLimit {
		t.Errorf("peak of %.1f MiB, limit %d", figures["peak_mib"], memoryLimit)
	}
}

// child appends and sends at full rate.
func child(t *testing.T) {
	s, err := spool.Open(spool.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u := run(t, Config{URL: os.Getenv(childEnv), Spool: s})
	began, cpu := time.Now(), cpuTime(t)
	random := make([]byte, 100)
	for i := range childEvents {
		if i%100 == 0 {
			rand.Read(random)
			// The centre's watermark follows what was acknowledged.
			s.Committed(s.Stream(), u.Stats().AckedSeq)
		}
		ev := &eventv1.Event{Body: &eventv1.Event_Alert{Alert: &eventv1.Alert{
			Sid: uint32(2100000 + i%50), Signature: "ET MALWARE something that has a name of usual length", Classtype: "trojan-activity", Count: 1,
			Flow:      &eventv1.Flow{SrcIp: random[:4], DstIp: random[4:8], SrcPort: uint32(i & 0xffff), DstPort: 443, IpProto: 6, App: "tls"},
			Indicator: hex.EncodeToString(random),
		}}}
		if _, err := s.Append(ev); err != nil {
			t.Fatal(err)
		}
		// At full rate and no faster: what waits for the disk stays below the bound above which events are dropped.
		if i%2000 == 1999 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := s.Sync(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
	}
	flush(t, u)
	took := time.Since(began)
	if st := s.Stats(); st.Dropped > 0 {
		t.Errorf("%d events were dropped", st.Dropped)
	}
	fmt.Printf("\nfigure rate %f\n", childEvents/took.Seconds())       //nolint:forbidigo // read by the parent
	fmt.Printf("figure cpu_us %f\n", (cpuTime(t)-cpu)/childEvents*1e6) //nolint:forbidigo // read by the parent
	fmt.Printf("figure peak_mib %f\n", peak(t))                        //nolint:forbidigo // read by the parent
}

// peak is the largest resident size so far, in MiB.
func peak(t *testing.T) float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb / 1024
		}
	}
	t.Fatal("no VmHWM in /proc/self/status")
	return 0
}

// cpuTime is user and system time so far, in seconds.
func cpuTime(t *testing.T) float64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return float64(ru.Utime.Sec+ru.Stime.Sec) + float64(ru.Utime.Usec+ru.Stime.Usec)/1e6
}
