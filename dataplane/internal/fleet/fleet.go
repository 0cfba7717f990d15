// Package fleet is the appliance's side of FleetService: it watches the desired state, fetches bundles and reports what runs.
// Package app wires it to package policy (down) and to the spool's watermark. The trap: every message is the whole desired
// state, so an older one that was not worked on yet is simply replaced.
package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
)

// Config of a Client.
type Config struct {
	// Address is host:port of FleetService.
	Address string
	// TLS holds the appliance's certificate. nil means no TLS; tests only.
	TLS *tls.Config
	// Version is the agent's.
	Version string
	// Desired is called with each new desired state, from one goroutine; while it works, newer states replace each other.
	Desired func(ctx context.Context, revision uint64, bundles []*bundlev1.Envelope)
	// Commands is called with the signed orders of each desired state, from the same goroutine as Desired; nil: they are ignored.
	Commands func(ctx context.Context, envelopes []*bundlev1.Envelope)
	// Told is called with the results that a report carried, after the control plane answered it.
	Told func([]*fleetv1.CommandResult)
	// Committed is called with what the centre's database holds of a stream.
	Committed func(stream [16]byte, through uint64)
	// State fills a report; revision, version and time are set by the Client.
	State func() *fleetv1.ReportStateRequest
	// Report is the time between two reports; 0 means one minute.
	Report time.Duration
	// BackoffMax bounds the wait between two tries; 0 means 60 s.
	BackoffMax time.Duration
	Log        hclog.Logger
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time
}

// Client is one connection to the control plane.
type Client struct {
	cfg     Config
	log     hclog.Logger
	conn    *grpc.ClientConn
	api     fleetv1.FleetServiceClient
	latest  chan *fleetv1.WatchResponse // size 1
	poke    chan struct{}
	worked  atomic.Uint64 // revision that Desired was called with last
	offset  atomic.Pointer[int64]
	up      atomic.Bool
	since   atomic.Int64 // when up changed, unix ns
	lastErr atomic.Pointer[string]

	reporting sync.Mutex // held over one report
}

// New opens the connection lazily. Errors: an impossible address.
func New(cfg Config) (*Client, error) {
	cfg.Report = cmp.Or(cfg.Report, time.Minute)
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, time.Minute)
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg, log: cfg.Log.Named("fleet"), latest: make(chan *fleetv1.WatchResponse, 1), poke: make(chan struct{}, 1)}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	c.conn, c.api = conn, fleetv1.NewFleetServiceClient(conn)
	c.since.Store(time.Now().UnixNano())
	return c, nil
}

func (c *Client) dial() (*grpc.ClientConn, error) {
	creds := plainCredentials()
	if c.cfg.TLS != nil {
		creds = credentials.NewTLS(c.cfg.TLS)
	}
	conn, err := grpc.NewClient(c.cfg.Address,
		grpc.WithTransportCredentials(creds),
		// Shorter than the idle timers of address translators; the server allows one every 20 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.5, MaxDelay: c.cfg.BackoffMax},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<20)),
	)
	if err != nil {
		return nil, fmt.Errorf("open connection to %s: %w", c.cfg.Address, err)
	}
	return conn, nil
}

// Close ends the connection, after Run has returned.
func (c *Client) Close() error { return c.conn.Close() }

// Stats is the client's state.
type Stats struct {
	Address   string    `json:"address"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Revision  uint64    `json:"revision"` // desired state that was worked on last
	// OffsetMs is box clock minus centre clock; absent when not measured.
	OffsetMs *int64 `json:"clock_offset_ms,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Stats returns the state.
func (c *Client) Stats() Stats {
	st := Stats{
		Address: c.cfg.Address, Connected: c.up.Load(), Since: time.Unix(0, c.since.Load()), Revision: c.worked.Load(), OffsetMs: c.offset.Load(),
	}
	if e := c.lastErr.Load(); e != nil {
		st.Error = *e
	}
	return st
}

// ClockOffset returns box clock minus centre clock in milliseconds, and false when it was not measured yet.
func (c *Client) ClockOffset() (int64, bool) {
	if p := c.offset.Load(); p != nil {
		return *p, true
	}
	return 0, false
}

// Poke asks for a report soon, after something changed.
func (c *Client) Poke() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// Run watches, works and reports until ctx ends. A control plane that is away is no error.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() { c.work(ctx); done <- struct{}{} }()
	go func() { c.reportLoop(ctx); done <- struct{}{} }()
	defer func() { cancel(); <-done; <-done }()
	for try := 0; ctx.Err() == nil; {
		began := time.Now()
		err := c.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > c.cfg.BackoffMax {
			try = 0
		}
		c.down(err)
		// Full jitter, so that a fleet does not come back at one moment after a restart of the centre.
		bound := min(time.Second<<min(try, 6), c.cfg.BackoffMax)
		try++
		if !wait(ctx, max(rand.N(bound), 20*time.Millisecond)) { //nolint:gosec // spreads load, no secret
			return nil
		}
	}
	return nil
}

func (c *Client) down(err error) {
	if c.up.Swap(false) {
		c.since.Store(time.Now().UnixNano())
		c.log.Warn("control plane lost; the policy in force stays", "err", status.Convert(err).Message())
	} else {
		c.log.Debug("control plane can't be reached", "err", err)
	}
	msg := status.Convert(err).Message()
	c.lastErr.Store(&msg)
}

// watch holds one stream.
func (c *Client) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.api.Watch(ctx, &fleetv1.WatchRequest{AgentVersion: c.cfg.Version})
	if err != nil {
		return err
	}
	for {
		res, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the control plane ended the stream")
			}
			return err
		}
		if !c.up.Swap(true) {
			c.since.Store(time.Now().UnixNano())
			c.lastErr.Store(nil)
			c.log.Info("control plane connected", "address", c.cfg.Address)
			c.Poke()
		}
		c.measure(res.GetServerTime(), 0)
		c.committed(res.GetCommitted())
		// Keep the newest only.
		select {
		case <-c.latest:
		default:
		}
		c.latest <- res
	}
}

// measure keeps the clock offset; rtt is the round trip in which the centre stated its time.
func (c *Client) measure(t *timestamppb.Timestamp, rtt time.Duration) {
	if t == nil || !t.IsValid() {
		return
	}
	ms := c.cfg.Now().Add(-rtt / 2).Sub(t.AsTime()).Milliseconds()
	c.offset.Store(&ms)
}

func (c *Client) committed(list []*fleetv1.Committed) {
	for _, w := range list {
		if len(w.GetStreamId()) == 16 && c.cfg.Committed != nil {
			c.cfg.Committed([16]byte(w.GetStreamId()), w.GetThrough())
		}
	}
}

// work calls Desired with the newest state.
func (c *Client) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case res := <-c.latest:
			if c.cfg.Desired != nil && len(res.GetBundles()) > 0 {
				c.cfg.Desired(ctx, res.GetRevision(), res.GetBundles())
			}
			if c.cfg.Commands != nil && len(res.GetCommands()) > 0 {
				c.cfg.Commands(ctx, res.GetCommands())
			}
			if c.worked.Swap(res.GetRevision()) != res.GetRevision() {
				c.Poke()
			}
		}
	}
}

// reportLoop reports at intervals and when poked.
func (c *Client) reportLoop(ctx context.Context) {
	for {
		d := c.cfg.Report*9/10 + rand.N(c.cfg.Report/5+1) //nolint:gosec // spreads load, no secret
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-c.poke:
			t.Stop()
		case <-t.C:
		}
		if err := c.ReportOnce(ctx); err != nil && ctx.Err() == nil {
			c.log.Debug("state can't be reported", "err", err)
		}
	}
}

// ReportOnce tells the control plane what runs, and takes the watermark from its answer.
func (c *Client) ReportOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return c.send(ctx, c.api)
}

// Probe reports over a connection made anew: it says whether the control plane can be reached under the policy in force, which
// an old connection does not.
func (c *Client) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing in flight
	conn.Connect()
	for s := conn.GetState(); s != connectivity.Ready; s = conn.GetState() {
		if !conn.WaitForStateChange(ctx, s) {
			return fmt.Errorf("reach the control plane: no connection: %w", ctx.Err())
		}
	}
	return c.send(ctx, fleetv1.NewFleetServiceClient(conn))
}

// send reports the state of now. One report at a time, from the look at the state to the answer: an older one that came in
// after a newer one would be believed.
func (c *Client) send(ctx context.Context, api fleetv1.FleetServiceClient) error {
	c.reporting.Lock()
	defer c.reporting.Unlock()
	req, began := c.report(), time.Now()
	res, err := api.ReportState(ctx, req)
	if err != nil {
		return fmt.Errorf("report state: %w", err)
	}
	c.measure(res.GetServerTime(), time.Since(began))
	c.committed(res.GetCommitted())
	if c.cfg.Told != nil && len(req.GetCommands()) > 0 {
		c.cfg.Told(req.GetCommands())
	}
	return nil
}

// report is the state of now.
func (c *Client) report() *fleetv1.ReportStateRequest {
	req := &fleetv1.ReportStateRequest{}
	if c.cfg.State != nil {
		req = c.cfg.State()
	}
	req.Revision, req.AgentVersion, req.BoxTime = c.worked.Load(), c.cfg.Version, timestamppb.New(c.cfg.Now())
	return req
}

// Fetch gets the content of a bundle into w, which holds offset bytes of it already, and checks nothing but the length: the
// caller compares the digest. It resumes after a broken stream until ctx ends. Errors: no such bundle; more than size bytes.
func (c *Client) Fetch(ctx context.Context, digest [sha256.Size]byte, offset, size uint64, w io.Writer) error {
	for try := 0; ; try++ {
		n, err := c.fetch(ctx, digest, offset, size, w)
		offset += n
		if n > 0 {
			try = 0
		}
		switch {
		case err == nil && offset == size:
			return nil
		case err == nil:
			err = fmt.Errorf("content ends at %d of %d bytes", offset, size)
		case ctx.Err() != nil:
			return fmt.Errorf("fetch bundle: %w", ctx.Err())
		}
		var werr *writeError
		switch code := status.Code(err); {
		case errors.As(err, &werr), code == codes.NotFound, code == codes.OutOfRange, code == codes.PermissionDenied, code == codes.Unauthenticated, try >= 8:
			return fmt.Errorf("fetch bundle %x: %w", digest[:8], err)
		}
		c.log.Debug("bundle fetch broke off, going on", "offset", offset, "size", size, "err", err)
		if !wait(ctx, max(rand.N(min(time.Second<<min(try, 5), c.cfg.BackoffMax)), 20*time.Millisecond)) { //nolint:gosec // spreads load
			return fmt.Errorf("fetch bundle: %w", ctx.Err())
		}
	}
}

// writeError is an error of our own side of a fetch: trying again does not heal it.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

func (c *Client) fetch(ctx context.Context, digest [sha256.Size]byte, offset, size uint64, w io.Writer) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	stream, err := c.api.FetchBundle(ctx, &fleetv1.FetchBundleRequest{Sha256: digest[:], Offset: offset})
	if err != nil {
		return 0, err
	}
	var n uint64
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if offset+n+uint64(len(res.GetChunk())) > size {
			return n, &writeError{fmt.Errorf("content is longer than the %d bytes announced", size)}
		}
		if _, err := w.Write(res.GetChunk()); err != nil {
			return n, &writeError{fmt.Errorf("write bundle: %w", err)}
		}
		n += uint64(len(res.GetChunk()))
	}
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
