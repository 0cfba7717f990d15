package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/kadomori/kadomori/test/lab"
)

// programs starts ours, in their namespaces, each with a configuration file and a log file of its own.
type programs struct {
	bin   string // folder of the programs
	state string // folder of configuration, state and logs
	world *world
	fail  func(error)

	doomed      sync.Map // names of programs that a test ends on purpose
	control     *exec.Cmd
	controlDone <-chan struct{}
}

const (
	grpcPort    = "7443"
	natsPort    = "7422"
	consolePort = "8443"
)

var controlConfig = template.Must(template.New("control").Parse(`data_dir: {{.Dir}}/control
listen:
  grpc: {{.IP}}:7443
  nats: {{.IP}}:7422
  console: {{.IP}}:8443
public:
  grpc: {{.IP}}:7443
  nats: tls://{{.IP}}:7422
console:
  names: [127.0.0.1, localhost]
log:
  level: info
`))

var agentConfig = template.Must(template.New("agent").Parse(`state_dir: {{.Dir}}
pin_dir: {{.Pin}}
claim_file: {{.Dir}}/claim
serial: KDM-{{printf "%04d" .N}}
ports:
  lan: lan0
  wan: wan0
log:
  level: info
`))

var reporterConfig = template.Must(template.New("reporter").Parse(`dsn_file: {{.Dir}}/control/reporter.dsn
log:
  level: info
`))

func writeConfig(path string, t *template.Template, data any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// start runs a program in a host, its output in state/log/<name>.log, and tells fail when it ends before ctx does.
func (p *programs) start(ctx context.Context, h *lab.Host, name, program string, args ...string) (<-chan struct{}, *exec.Cmd, error) {
	logs := filepath.Join(p.state, "log")
	if err := os.MkdirAll(logs, 0o750); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(logs, name+".log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer out.Close() //nolint:errcheck // the child has its own descriptor
	// Not CommandContext: the lab ends it in order, and an agent's end is a part of what is shown.
	cmd := h.Command(context.WithoutCancel(ctx), filepath.Join(p.bin, program), args...)
	cmd.Stdout, cmd.Stderr = out, out
	done, err := h.Start(cmd)
	if err != nil {
		return nil, nil, err
	}
	go func() {
		<-done
		if _, expected := p.doomed.Load(name); !expected && ctx.Err() == nil && cmd.ProcessState.ExitCode() != 0 {
			p.fail(fmt.Errorf("%s ended (%s): %s", name, cmd.ProcessState, lastLines(path, 5)))
		}
	}()
	return done, cmd, nil
}

func lastLines(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// startControl runs the control plane and waits until its listeners are up.
func (p *programs) startControl(ctx context.Context) error {
	config := filepath.Join(p.state, "control.yaml")
	if err := writeConfig(config, controlConfig, map[string]any{"Dir": p.state, "IP": mspIP}); err != nil {
		return err
	}
	var err error
	if p.controlDone, p.control, err = p.start(ctx, p.world.msp, "control", "kadomori-control", "serve", "--config", config); err != nil {
		return err
	}
	ready := filepath.Join(p.state, "control", "ready")
	return until(ctx, 90*time.Second, "the control plane to be ready", func() error {
		_, err := os.Stat(ready)
		return err
	})
}

// killControl ends the control plane and its database as a power cut would, and returns what starts them again.
func (p *programs) killControl(ctx context.Context) (restart func() error, err error) {
	p.doomed.Store("control", true)
	if err := p.control.Process.Kill(); err != nil {
		return nil, fmt.Errorf("kill the control plane: %w", err)
	}
	select {
	case <-p.controlDone:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	dir := filepath.Join(p.state, "control")
	pidFiles, err := filepath.Glob(filepath.Join(dir, "*", "data", "postmaster.pid"))
	if err != nil || len(pidFiles) != 1 {
		return nil, fmt.Errorf("find the database's process below %s: %v, %w", dir, pidFiles, err)
	}
	text, err := os.ReadFile(pidFiles[0])
	if err != nil {
		return nil, fmt.Errorf("find the database's process: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return nil, fmt.Errorf("find the database's process: %s: %w", pidFiles[0], err)
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) { // immediate shutdown
		return nil, fmt.Errorf("stop the database: %w", err)
	}
	if err := until(ctx, 30*time.Second, "the database to be gone", func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return errors.New("still there")
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, "ready")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return func() error {
		p.doomed.Delete("control")
		return p.startControl(ctx)
	}, nil
}

func (p *programs) startReporter(ctx context.Context) error {
	config := filepath.Join(p.state, "reporter.yaml")
	if err := writeConfig(config, reporterConfig, map[string]any{"Dir": p.state}); err != nil {
		return err
	}
	_, _, err := p.start(ctx, p.world.msp, "reporter", "kadomori-reporter", "serve", "--config", config)
	return err
}

func (p *programs) agentDir(c *clinic) string {
	return filepath.Join(p.state, "appliance", fmt.Sprint(c.n))
}

func (p *programs) agentConfig(c *clinic) string { return filepath.Join(p.agentDir(c), "agent.yaml") }

// startAgent plugs a box in: claim on disk, power on. Nobody types anything.
func (p *programs) startAgent(ctx context.Context, c *clinic, claim, pins string) error {
	dir := p.agentDir(c)
	if err := writeConfig(p.agentConfig(c), agentConfig, map[string]any{"Dir": dir, "Pin": filepath.Join(pins, fmt.Sprint(c.n)), "N": c.n}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "claim"), []byte(claim+"\n"), 0o600); err != nil {
		return err
	}
	_, _, err := p.start(ctx, c.box, fmt.Sprintf("agent-%d", c.n), "kadomori-agent", "run", "--config", p.agentConfig(c))
	return err
}

// agentStatus is what `kadomori-agent status --output json` prints, as far as the demo needs it.
type agentStatus struct {
	ApplianceID      int32  `json:"appliance_id"`
	StreamID         string `json:"stream_id"`
	LastSeq          uint64 `json:"last_seq"`
	CommittedThrough uint64 `json:"committed_through"`
	WireMode         string `json:"wire_mode"`
	PolicyVersion    uint64 `json:"policy_version"`
	SignatureVersion uint64 `json:"signature_version"`
}

func (p *programs) agentStatus(ctx context.Context, c *clinic) (agentStatus, error) {
	var s agentStatus
	out, err := p.output(ctx, c.box.Command(ctx, filepath.Join(p.bin, "kadomori-agent"), "status", "--config", p.agentConfig(c), "--output", "json"))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("read status of the appliance of %s: %w", c.name, err)
	}
	return s, nil
}

// operator calls the operator's command line and reads its JSON into m; m may be nil.
func (p *programs) operator(ctx context.Context, m proto.Message, args ...string) error {
	control := filepath.Join(p.state, "control")
	all := append([]string{
		"--server", mspIP + ":" + grpcPort, "--ca", filepath.Join(control, "pki", "ca.crt"),
		"--user", "admin", "--password-file", filepath.Join(control, "admin-password"), "--output", "json",
	}, args...)
	out, err := p.output(ctx, p.world.msp.Command(ctx, filepath.Join(p.bin, "kadomori"), all...))
	if err != nil {
		return err
	}
	if m == nil {
		return nil
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(out, m); err != nil {
		return fmt.Errorf("read answer of kadomori %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

func (p *programs) output(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args[min(3, len(cmd.Args)):], " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.Bytes(), nil
}

// until calls try every 200 ms until it returns nil, at most for limit.
func until(ctx context.Context, limit time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("waited %s for %s: %w", limit, what, err)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// forward carries connections from this machine's loopback to an address in a host, so that a browser outside the lab
// reaches the console. It returns the loopback address.
func forward(ctx context.Context, h *lab.Host, listen, to string) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil { // the port is taken: any other will do
		if l, err = lc.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return "", fmt.Errorf("listen for the console: %w", err)
		}
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close() //nolint:errcheck // a relayed connection
				out, err := h.Dial(ctx, "tcp", to)
				if err != nil {
					return
				}
				defer out.Close() //nolint:errcheck // a relayed connection
				stop := context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })
				defer stop()
				done := make(chan struct{}, 2)
				relay := func(dst, src net.Conn) {
					_, _ = io.Copy(dst, src)
					if t, ok := dst.(*net.TCPConn); ok {
						_ = t.CloseWrite()
					}
					done <- struct{}{}
				}
				go relay(out, in)
				go relay(in, out)
				<-done
				<-done
			}()
		}
	}()
	return l.Addr().String(), nil
}
