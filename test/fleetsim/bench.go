package fleetsim

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// BenchConfig says how large the fleet is and where the program lies.
type BenchConfig struct {
	Control     string // path of kadomori-control
	Appliances  int    // one in each clinic
	NATS        int    // of these, how many connect to NATS too
	PlanClinics int    // clinics that follow the plan which is changed
	Poll        bool   // also measure polling
	Progress    io.Writer
}

// Result is what out/bench/fleet.json holds. Seconds and megabytes (10^6 bytes).
type Result struct {
	Appliances     int     `json:"appliances"`
	ControlRSSMB   float64 `json:"control_rss_mb"` // highest that was seen while all were connected
	PushAllS       float64 `json:"push_all_s"`     // from the publication to the last box that heard of it
	ReportAllS     float64 `json:"report_all_s"`   // and to the last that reported it active
	ReconnectAllS  float64 `json:"reconnect_all_s"`
	RevokeS        float64 `json:"revoke_s"`       // the slowest of ten, gRPC
	RevokeNATSS    float64 `json:"revoke_nats_s"`  // the slowest of ten, NATS
	Compile1000S   float64 `json:"compile_1000_s"` // for plan_clinics clinics
	PlanClinics    int     `json:"plan_clinics"`
	NATS           int     `json:"nats_connections"`
	EnrolPerS      float64 `json:"enrol_per_s"`
	ConnectAllS    float64 `json:"connect_all_s"`
	WatchCPU       float64 `json:"watch_idle_cpu_percent"` // of one core, all connected, nothing happens
	PollCPU        float64 `json:"poll_cpu_percent"`       // of one core, all ask every 30 s on warm connections; 0: not measured
	PollDelayS     float64 `json:"poll_mean_delay_s"`
	ReconnectFails uint64  `json:"reconnect_errors_logged"` // lines of warning or error in the control plane's log while all came back
	Cores          int     `json:"cores"`
}

// bench is one run.
type bench struct {
	cfg    BenchConfig
	dir    string
	proc   *exec.Cmd
	warned atomic.Uint64
	addr   string
	op     operatorv1.OperatorServiceClient
	conn   *grpc.ClientConn
	token  string
	boxes  []*Box
	res    Result

	target   atomic.Uint64 // signatures' version that is waited for
	heard    atomic.Int64
	reported atomic.Int64
}

// Bench starts a control plane, enrols and connects a fleet, and measures.
func Bench(ctx context.Context, cfg BenchConfig) (Result, error) {
	b := &bench{cfg: cfg, res: Result{Appliances: cfg.Appliances, NATS: cfg.NATS, PlanClinics: cfg.PlanClinics, Cores: runtime.NumCPU()}}
	dir, err := os.MkdirTemp("", "kadomori-fleet-")
	if err != nil {
		return b.res, fmt.Errorf("make folder: %w", err)
	}
	b.dir = dir
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // the database runs as another user and passes through
		return b.res, fmt.Errorf("open folder: %w", err)
	}
	if err := b.launch(ctx); err != nil {
		return b.res, err
	}
	defer b.stop()
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	var alive sync.WaitGroup
	defer alive.Wait()
	defer cancel()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"enrol", b.enrol},
		{"connect", func(ctx context.Context) error {
			start := time.Now()
			for _, x := range b.boxes {
				alive.Go(func() { _ = x.Run(run) })
			}
			err := b.until(ctx, 5*time.Minute, "all are connected", func() bool { return b.up() == len(b.boxes) })
			b.res.ConnectAllS = seconds(start)
			return err
		}},
		{"idle", func(ctx context.Context) (err error) { b.res.WatchCPU, err = b.cpu(ctx, 20*time.Second); return err }},
		{"push", b.push},
		{"compile", b.compile},
		{"revoke", b.revoke},
		{"reconnect", b.reconnect},
		{"poll", b.poll},
	} {
		b.say("%s ...", step.name)
		start := time.Now()
		if err := step.do(ctx); err != nil {
			return b.res, fmt.Errorf("%s: %w", step.name, err)
		}
		b.say("%s took %.1f s; control plane %.0f MB", step.name, seconds(start), b.rss())
	}
	return b.res, nil
}

func (b *bench) say(format string, args ...any) {
	if b.cfg.Progress != nil {
		_, _ = fmt.Fprintf(b.cfg.Progress, "fleet: "+format+"\n", args...)
	}
}

func seconds(since time.Time) float64 { return math.Round(time.Since(since).Seconds()*1000) / 1000 }

// launch starts the control plane on addresses of the first start and logs in.
func (b *bench) launch(ctx context.Context) error {
	if b.addr == "" {
		text := fmt.Sprintf("data_dir: %s\nlisten: {grpc: '127.0.0.1:0', nats: '127.0.0.1:0', console: '127.0.0.1:0'}\nlog: {level: warn}\n", b.dir)
		if err := os.WriteFile(filepath.Join(b.dir, "control.yaml"), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	b.proc = exec.Command(b.cfg.Control, "serve", "--config", filepath.Join(b.dir, "control.yaml")) //nolint:noctx // it ends by SIGTERM, not by a kill
	log, err := b.proc.StderrPipe()
	if err != nil {
		return fmt.Errorf("start control plane: %w", err)
	}
	if err := b.proc.Start(); err != nil {
		return fmt.Errorf("start control plane: %w", err)
	}
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if b.warned.Add(1) <= 20 {
				b.say("control plane says: %s", lines.Text())
			}
		}
	}()
	ready := filepath.Join(b.dir, "ready")
	var addrs []string
	err = b.until(ctx, time.Minute, "the control plane is up", func() bool {
		text, err := os.ReadFile(ready)
		addrs = strings.Split(string(text), "\n")
		return err == nil && len(addrs) >= 3
	})
	if err != nil {
		return err
	}
	if b.addr == "" {
		// The second start must listen where identities point to.
		b.addr = addrs[0]
		text := fmt.Sprintf("data_dir: %s\nlisten: {grpc: '%s', nats: '%s', console: '127.0.0.1:0'}\nlog: {level: warn}\n",
			b.dir, addrs[0], strings.TrimPrefix(addrs[1], "tls://"))
		if err := os.WriteFile(filepath.Join(b.dir, "control.yaml"), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	return b.login(ctx)
}

func (b *bench) login(ctx context.Context) error {
	if b.conn != nil {
		_ = b.conn.Close()
	}
	pem, err := os.ReadFile(filepath.Join(b.dir, "pki", "ca.crt"))
	if err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	b.conn, err = grpc.NewClient(b.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})))
	if err != nil {
		return fmt.Errorf("connect operator: %w", err)
	}
	b.op = operatorv1.NewOperatorServiceClient(b.conn)
	password, err := os.ReadFile(filepath.Join(b.dir, "admin-password"))
	if err != nil {
		return fmt.Errorf("read password: %w", err)
	}
	login, err := b.op.Login(ctx, &operatorv1.LoginRequest{Name: "admin", Password: strings.TrimSpace(string(password))})
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	b.token = login.GetToken()
	return nil
}

func (b *bench) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+b.token)
}

func (b *bench) stop() {
	if b.conn != nil {
		_ = b.conn.Close()
	}
	_ = b.proc.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { _ = b.proc.Wait(); close(ended) }()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		_ = b.proc.Process.Kill()
		<-ended
	}
}

// until asks every 20 ms.
func (b *bench) until(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
			b.res.ControlRSSMB = max(b.res.ControlRSSMB, b.rss())
		case <-ctx.Done():
			return fmt.Errorf("waited %s in vain: %s", limit, what)
		}
	}
	return nil
}

func (b *bench) up() (n int) {
	for _, x := range b.boxes {
		if x.Up() {
			n++
		}
	}
	return n
}

// enrol makes the clinics and claims, and enrols all boxes.
func (b *bench) enrol(ctx context.Context) error {
	asOp := b.as(ctx)
	if _, err := b.op.ApplyPlan(asOp, &operatorv1.ApplyPlanRequest{Name: "bench", Yaml: "zones: {guest: {mode: notify}}\n", Reason: "bench"}); err != nil {
		return err
	}
	claims := make([]string, b.cfg.Appliances)
	var group errgroup.Group
	group.SetLimit(8)
	for i := range claims {
		group.Go(func() error {
			plan := ""
			if i < b.cfg.PlanClinics {
				plan = "bench"
			}
			c, err := b.op.CreateClinic(asOp, &operatorv1.CreateClinicRequest{Clinic: &operatorv1.Clinic{Code: fmt.Sprintf("B%05d", i), Name: fmt.Sprintf("clinic %d", i), Plan: plan}})
			if err != nil {
				return err
			}
			claim, err := b.op.CreateClaim(asOp, &operatorv1.CreateClaimRequest{ClinicId: c.GetClinic().GetId(), AutoApprove: true})
			claims[i] = claim.GetClaim()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("make claims: %w", err)
	}
	b.boxes = make([]*Box, len(claims))
	start := time.Now()
	group = errgroup.Group{}
	group.SetLimit(32)
	for i, text := range claims {
		group.Go(func() (err error) {
			b.boxes[i], err = Enrol(ctx, Config{Claim: text, Serial: fmt.Sprintf("S%05d", i), NATS: i < b.cfg.NATS, Behaviour: Behaviour{Spread: 30 * time.Second}, OnState: b.onState, OnReport: b.onReport})
			return err
		})
	}
	err := group.Wait()
	b.res.EnrolPerS = math.Round(float64(len(claims)) / time.Since(start).Seconds())
	return err
}

func (b *bench) onState(_ *Box, resp *fleetv1.WatchResponse) {
	want := b.target.Load()
	if want == 0 {
		return
	}
	for _, env := range resp.GetBundles() {
		var m bundlev1.Manifest
		if proto.Unmarshal(env.GetPayload(), &m) == nil && m.GetKind() == bundlev1.Kind_KIND_SIGNATURE && m.GetVersion() == want {
			b.heard.Add(1)
		}
	}
}

func (b *bench) onReport(x *Box) {
	if want := b.target.Load(); want != 0 && x.Active(bundlev1.Kind_KIND_SIGNATURE) == want {
		b.reported.Add(1)
	}
}

// push publishes signatures and waits for all.
func (b *bench) push(ctx context.Context) error {
	b.heard.Store(0)
	b.reported.Store(0)
	b.target.Store(1)
	start := time.Now()
	stream, err := b.op.PublishSignatures(b.as(ctx))
	if err != nil {
		return err
	}
	var rules strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&rules, "alert http $HOME_NET any -> $EXTERNAL_NET any (msg:\"rule %d\"; content:\"pattern%d\"; sid:%d;)\n", i, i, i+1)
	}
	err = stream.Send(&operatorv1.PublishSignaturesRequest{Reason: "bench", Files: []*operatorv1.SignatureFile{{Name: "bench.rules", Content: []byte(rules.String())}}})
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return err
	}
	all := int64(len(b.boxes))
	if err := b.until(ctx, time.Minute, "all heard of the new signatures", func() bool { return b.heard.Load() >= all }); err != nil {
		return err
	}
	b.res.PushAllS = seconds(start)
	err = b.until(ctx, 3*time.Minute, "all reported the new signatures", func() bool { return b.reported.Load() >= all })
	b.res.ReportAllS = seconds(start)
	return err
}

// compile changes the plan of some clinics.
func (b *bench) compile(ctx context.Context) error {
	start := time.Now()
	resp, err := b.op.ApplyPlan(b.as(ctx), &operatorv1.ApplyPlanRequest{Name: "bench", Yaml: "zones: {guest: {mode: prevent}, iot: {mode: observe}}\n", Reason: "bench"})
	if err != nil {
		return err
	}
	if int(resp.GetClinics()) != b.cfg.PlanClinics {
		return fmt.Errorf("the change reached %d clinics, want %d", resp.GetClinics(), b.cfg.PlanClinics)
	}
	b.res.Compile1000S = seconds(start)
	return b.until(ctx, time.Minute, "the clinics have their new policy", func() bool {
		for _, x := range b.boxes[:b.cfg.PlanClinics] {
			if x.Active(bundlev1.Kind_KIND_POLICY) < 2 {
				return false
			}
		}
		return true
	})
}

// revoke ends ten boxes that also have NATS.
func (b *bench) revoke(ctx context.Context) error {
	const revoked = 10
	for i := range min(revoked, b.cfg.NATS) {
		x := b.boxes[i]
		nc, err := x.ConnectNATS()
		if err != nil {
			return err
		}
		if err := b.until(ctx, 10*time.Second, "NATS connects", nc.IsConnected); err != nil {
			return err
		}
		start := time.Now()
		if _, err := b.op.RevokeAppliance(b.as(ctx), &operatorv1.RevokeApplianceRequest{ApplianceId: x.ID(), Reason: "bench"}); err != nil {
			return err
		}
		err = b.until(ctx, 10*time.Second, "NATS is cut", func() bool { return !nc.IsConnected() })
		b.res.RevokeNATSS = max(b.res.RevokeNATSS, seconds(start))
		if err == nil {
			err = b.until(ctx, 10*time.Second, "gRPC is cut", func() bool { return !x.Up() })
		}
		b.res.RevokeS = max(b.res.RevokeS, seconds(start))
		nc.Close()
		x.Stop()
		if err != nil {
			return err
		}
	}
	b.boxes = b.boxes[min(revoked, b.cfg.NATS):]
	return nil
}

// reconnect stops the control plane and starts it again.
func (b *bench) reconnect(ctx context.Context) error {
	b.target.Store(0)
	b.stop()
	if err := b.until(ctx, time.Minute, "all noticed", func() bool { return b.up() == 0 }); err != nil {
		return err
	}
	b.warned.Store(0)
	start := time.Now()
	if err := b.launch(ctx); err != nil {
		return err
	}
	err := b.until(ctx, 5*time.Minute, "all came back", func() bool { return b.up() == len(b.boxes) })
	b.res.ReconnectAllS, b.res.ReconnectFails = seconds(start), b.warned.Load()
	return err
}

// poll measures what the same fleet costs when every box asks each 30 s, on the connections it has: one Watch that ends after
// its first answer is a poll.
func (b *bench) poll(ctx context.Context) error {
	if !b.cfg.Poll {
		return nil
	}
	const sample = 1000 // as many boxes as the simulator itself can poll without becoming the bottleneck; scaled up below
	boxes := b.boxes[len(b.boxes)-min(sample, len(b.boxes)):]
	idle, err := b.cpu(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	run, cancel := context.WithTimeout(ctx, 70*time.Second)
	defer cancel()
	var polls sync.WaitGroup
	for i, x := range boxes {
		polls.Go(func() {
			conn, err := x.Dial()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			timer := time.NewTimer(time.Duration(i) * 30 * time.Second / time.Duration(len(boxes)))
			defer timer.Stop()
			for {
				select {
				case <-run.Done():
					return
				case <-timer.C:
				}
				// The report a poll carries: what runs here. Its answer is what the box waits for.
				_ = x.Report(run, fleetv1.NewFleetServiceClient(conn), 0)
				timer.Reset(30 * time.Second)
			}
		})
	}
	if err := b.pause(ctx, 35*time.Second); err != nil { // connections are warm now
		return err
	}
	busy, err := b.cpu(ctx, 30*time.Second)
	cancel()
	polls.Wait()
	b.res.PollCPU = math.Round(10*(busy-idle)*float64(b.cfg.Appliances)/float64(len(boxes))) / 10
	b.res.PollDelayS = 15
	return err
}

func (b *bench) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cpu returns the control plane's share of one core over a time, percent.
func (b *bench) cpu(ctx context.Context, d time.Duration) (float64, error) {
	before, start := b.ticks(), time.Now()
	if err := b.pause(ctx, d); err != nil {
		return 0, err
	}
	const hz = 100 // USER_HZ of Linux on amd64 and arm64
	return math.Round(1000*float64(b.ticks()-before)/hz/time.Since(start).Seconds()) / 10, nil
}

// ticks is utime + stime of /proc/<pid>/stat (proc(5), fields 14 and 15).
func (b *bench) ticks() (n int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.proc.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	for _, i := range []int{11, 12} {
		if v, err := strconv.ParseInt(fields[i], 10, 64); err == nil {
			n += v
		}
	}
	return n
}

// rss is VmRSS of the control plane in MB; its database is a process of its own and not counted.
func (b *bench) rss() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.proc.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				return 0
			}
			return math.Round(kb*1024/1e5) / 10
		}
	}
	return 0
}

// Needs says what is missing to run Bench here; empty: nothing.
func Needs(appliances int) string {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err == nil && l.Cur < uint64(2*appliances+1000) {
		return fmt.Sprintf("open files: limit %d, want %d (ulimit -n)", l.Cur, 2*appliances+1000)
	}
	if os.Geteuid() == 0 {
		if _, err := user.Lookup("postgres"); err != nil {
			return "the Debian package postgresql"
		}
	}
	return ""
}
