package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// centre is a small FleetService.
type centre struct {
	fleetv1.UnimplementedFleetServiceServer
	desired chan *fleetv1.WatchResponse

	mu      sync.Mutex
	content []byte
	broken  int // bytes after which a fetch breaks off; 0: never
	fetches int
	reports []*fleetv1.ReportStateRequest
	watches int
	skew    time.Duration
}

func (c *centre) Watch(_ *fleetv1.WatchRequest, s grpc.ServerStreamingServer[fleetv1.WatchResponse]) error {
	c.mu.Lock()
	c.watches++
	c.mu.Unlock()
	for {
		select {
		case <-s.Context().Done():
			return nil
		case res, ok := <-c.desired:
			if !ok {
				return status.Error(codes.Unavailable, "restarting")
			}
			if err := s.Send(res); err != nil {
				return err
			}
		}
	}
}

func (c *centre) FetchBundle(req *fleetv1.FetchBundleRequest, s grpc.ServerStreamingServer[fleetv1.FetchBundleResponse]) error {
	c.mu.Lock()
	content, broken := c.content, c.broken
	c.fetches++
	c.mu.Unlock()
	sum := sha256.Sum256(content)
	if !bytes.Equal(req.GetSha256(), sum[:]) {
		return status.Error(codes.NotFound, "no such bundle")
	}
	if req.GetOffset() > uint64(len(content)) {
		return status.Error(codes.OutOfRange, "offset")
	}
	rest, sent := content[req.GetOffset():], 0
	for len(rest) > 0 {
		n := min(len(rest), 64<<10)
		if broken > 0 && sent+n > broken {
			return status.Error(codes.Unavailable, "line cut")
		}
		if err := s.Send(&fleetv1.FetchBundleResponse{Chunk: rest[:n]}); err != nil {
			return err
		}
		sent += n
		rest = rest[n:]
	}
	return nil
}

func (c *centre) ReportState(_ context.Context, req *fleetv1.ReportStateRequest) (*fleetv1.ReportStateResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, req)
	return &fleetv1.ReportStateResponse{
		ServerTime: timestamppb.New(time.Now().Add(c.skew)),
		Committed:  []*fleetv1.Committed{{StreamId: bytes.Repeat([]byte{9}, 16), Through: 77}, {StreamId: []byte("short"), Through: 1}},
	}, nil
}

func start(t *testing.T, c *centre) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	fleetv1.RegisterFleetServiceServer(srv, c)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	cfg.BackoffMax = 50 * time.Millisecond
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.Close()
	})
	return c
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("no %s within 20 s", what)
		case <-tick.C:
		}
	}
}

func desired(rev uint64) *fleetv1.WatchResponse {
	return &fleetv1.WatchResponse{Revision: rev, Bundles: []*bundlev1.Envelope{{PayloadType: "x"}}, ServerTime: timestamppb.Now()}
}

func TestNewestDesiredStateReplacesOlderOnes(t *testing.T) {
	c := &centre{desired: make(chan *fleetv1.WatchResponse)}
	addr := start(t, c)
	var mu sync.Mutex
	var seen []uint64
	release := make(chan struct{})
	began := make(chan struct{}, 10)
	cl := client(t, Config{Address: addr, Report: time.Hour, Desired: func(_ context.Context, rev uint64, _ []*bundlev1.Envelope) {
		began <- struct{}{}
		<-release
		mu.Lock()
		seen = append(seen, rev)
		mu.Unlock()
	}})
	c.desired <- desired(1)
	<-began // working on 1 while 2..9 come
	for rev := uint64(2); rev <= 9; rev++ {
		c.desired <- desired(rev)
	}
	// One more goes through the stream only after 9 was received.
	c.desired <- &fleetv1.WatchResponse{Revision: 9, Bundles: desired(9).Bundles}
	close(release)
	waitFor(t, "revision 9", func() bool { return cl.Stats().Revision == 9 })
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 2 || len(seen) > 4 || seen[0] != 1 || seen[len(seen)-1] != 9 {
		t.Errorf("worked on %v", seen)
	}
}

func TestClientComesBackAndReports(t *testing.T) {
	c := &centre{desired: make(chan *fleetv1.WatchResponse), skew: -90 * time.Second}
	addr := start(t, c)
	var mu sync.Mutex
	marks := map[[16]byte]uint64{}
	cl := client(t, Config{
		Address: addr, Version: "v9", Report: time.Hour,
		Committed: func(s [16]byte, n uint64) { mu.Lock(); marks[s] = n; mu.Unlock() },
		State:     func() *fleetv1.ReportStateRequest { return &fleetv1.ReportStateRequest{WireMode: "inline-native"} },
	})
	c.desired <- desired(1)
	waitFor(t, "a report", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.reports) > 0 })
	waitFor(t, "the watermark", func() bool { mu.Lock(); defer mu.Unlock(); return len(marks) == 1 })
	if marks[[16]byte(bytes.Repeat([]byte{9}, 16))] != 77 {
		t.Errorf("watermarks %v", marks)
	}
	if r := c.reports[0]; r.GetAgentVersion() != "v9" || r.GetWireMode() != "inline-native" || r.GetBoxTime() == nil {
		t.Errorf("report %v", r)
	}
	waitFor(t, "a clock offset", func() bool { ms, ok := cl.ClockOffset(); return ok && ms > 80_000 && ms < 100_000 })
	was := c.desired
	c.mu.Lock()
	n := c.watches
	c.mu.Unlock()
	close(was) // the centre restarts its streams
	waitFor(t, "another watch", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.watches > n+2 })
	if st := cl.Stats(); st.Connected || st.Error == "" {
		t.Errorf("stats %+v while no stream lives", st)
	}
}

func TestFetchResumesAfterACut(t *testing.T) {
	c := &centre{desired: make(chan *fleetv1.WatchResponse), content: make([]byte, 300<<10), broken: 100 << 10}
	rand.Read(c.content)
	addr := start(t, c)
	cl := client(t, Config{Address: addr})
	var got bytes.Buffer
	sum := sha256.Sum256(c.content)
	if err := cl.Fetch(t.Context(), sum, 0, uint64(len(c.content)), &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), c.content) || c.fetches < 3 {
		t.Errorf("%d bytes in %d fetches", got.Len(), c.fetches)
	}
	got.Reset()
	if err := cl.Fetch(t.Context(), sum, 250<<10, uint64(len(c.content)), &got); err != nil || !bytes.Equal(got.Bytes(), c.content[250<<10:]) {
		t.Errorf("from an offset: %d bytes, %v", got.Len(), err)
	}
}

func TestFetchGivesUpOnWhatNoWaitingHeals(t *testing.T) {
	c := &centre{desired: make(chan *fleetv1.WatchResponse), content: []byte("content")}
	addr := start(t, c)
	cl := client(t, Config{Address: addr})
	sum := sha256.Sum256(c.content)
	var got bytes.Buffer
	if err := cl.Fetch(t.Context(), [32]byte{1}, 0, 7, &got); status.Code(errors.Unwrap(err)) != codes.NotFound {
		t.Errorf("unknown digest: %v", err)
	}
	if err := cl.Fetch(t.Context(), sum, 0, 5, &got); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("longer than announced: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := cl.Fetch(ctx, sum, 0, 100, &got); err == nil {
		t.Error("shorter than announced: no error")
	}
}

// TestOldReportNeverComesAfterANewOne lets probes and reports run against each other while the state moves on.
func TestOldReportNeverComesAfterANewOne(t *testing.T) {
	c := &centre{desired: make(chan *fleetv1.WatchResponse)}
	addr := start(t, c)
	var version atomic.Uint64
	cl := client(t, Config{Address: addr, Report: time.Hour, State: func() *fleetv1.ReportStateRequest {
		return &fleetv1.ReportStateRequest{Bundles: []*fleetv1.BundleState{{ActiveVersion: version.Load()}}}
	}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				version.Add(1)
				if err := cl.Probe(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				version.Add(1)
				if err := cl.ReportOnce(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var last uint64
	for i, r := range c.reports {
		v := r.GetBundles()[0].GetActiveVersion()
		if v < last {
			t.Fatalf("report %d says %d after %d", i, v, last)
		}
		last = v
	}
	if len(c.reports) < 240 {
		t.Errorf("%d reports", len(c.reports))
	}
}

func TestProbeOfACentreThatIsAwayFails(t *testing.T) {
	cl := client(t, Config{Address: "127.0.0.1:1"})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := cl.Probe(ctx); err == nil {
		t.Error("no error")
	}
}
