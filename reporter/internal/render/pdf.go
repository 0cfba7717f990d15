package render

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

//go:embed print.py
var script string

// Limits of one rendering.
const (
	maxPDF    = 32 << 20
	maxStderr = 64 << 10
)

// PDFConfig says how to render.
type PDFConfig struct {
	// Python is the interpreter that has WeasyPrint; default "/usr/bin/python3", the one of the Debian package. Never taken from a report.
	Python string
	// Timeout of one report, from start to exit; default 120 s. A cold report takes 3 CPU seconds.
	Timeout time.Duration
	// Concurrency is how many run at a time; default 1. More than the number of cores only costs memory, about 150 MB each.
	Concurrency int
	Log         hclog.Logger
}

// PDF turns documents into PDF/A by running WeasyPrint, one process a document. Safe for use by many goroutines.
type PDF struct {
	cfg   PDFConfig
	slots chan struct{}

	uncaged atomic.Bool // namespaces can't be had here

	mu       sync.Mutex
	versions string
}

// NewPDF checks the configuration. It starts nothing.
func NewPDF(cfg PDFConfig) (*PDF, error) {
	cfg.Python = cmp.Or(cfg.Python, "/usr/bin/python3")
	cfg.Timeout = cmp.Or(cfg.Timeout, 120*time.Second)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 1)
	if cfg.Timeout < time.Second || cfg.Concurrency < 1 || cfg.Concurrency > 64 {
		return nil, fmt.Errorf("configure renderer: timeout %s (at least 1s) or concurrency %d (1 to 64)", cfg.Timeout, cfg.Concurrency)
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	return &PDF{cfg: cfg, slots: make(chan struct{}, cfg.Concurrency)}, nil
}

// Attachment is a file carried inside the PDF.
type Attachment struct {
	Name        string `json:"name"` // such as evidence.csv: letters, digits, dots and dashes
	Description string `json:"description"`
	Data        []byte `json:"data"`
}

// Job is one document.
type Job struct {
	HTML []byte
	// Identifier goes into the file's id: document number and revision.
	Identifier string
	// Issued is the date that the file carries instead of the clock's; without it no two runs would give the same bytes.
	Issued time.Time
	// Variant is "pdf/a-3b" (default) or "pdf/ua-1" for screen readers.
	Variant     string
	Attachments []Attachment
}

// Render returns the PDF. Equal jobs give equal bytes as long as Versions is the same.
func (p *PDF) Render(ctx context.Context, job Job) ([]byte, error) {
	in, err := json.Marshal(map[string]any{
		"html": string(job.HTML), "variant": cmp.Or(job.Variant, "pdf/a-3b"), "identifier": job.Identifier, "attachments": job.Attachments,
	})
	if err != nil {
		return nil, fmt.Errorf("render pdf: %w", err)
	}
	out, err := p.run(ctx, in, job.Issued)
	if err != nil {
		return nil, fmt.Errorf("render pdf: %w", err)
	}
	if !bytes.HasPrefix(out, []byte("%PDF-")) {
		return nil, errors.New("render pdf: the renderer's output is not a PDF")
	}
	return out, nil
}

// Versions names the renderer and what decides about its bytes, as JSON; asked once.
func (p *PDF) Versions(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.versions == "" {
		out, err := p.run(ctx, nil, time.Unix(0, 0), "versions")
		if err != nil {
			return "", fmt.Errorf("ask renderer for its versions: %w", err)
		}
		p.versions = string(out)
	}
	return p.versions, nil
}

func (p *PDF) run(ctx context.Context, in []byte, epoch time.Time, args ...string) ([]byte, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	stdout := &limited{limit: maxPDF, full: cancel}
	stderr := &limited{limit: maxStderr}
	began := time.Now()
	cmd := p.command(ctx, in, epoch, args, stdout, stderr, !p.uncaged.Load())
	err := cmd.Start()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		// Here no process may make namespaces, as in many containers. Nothing is fetched either way; the cage is the second wall.
		if !p.uncaged.Swap(true) {
			p.cfg.Log.Warn("renderer runs without namespaces of its own", "err", err)
		}
		cmd = p.command(ctx, in, epoch, args, stdout, stderr, false)
		err = cmd.Start()
	}
	if err == nil {
		err = cmd.Wait()
	}
	switch {
	case stdout.over:
		return nil, fmt.Errorf("the renderer wrote more than %d bytes", maxPDF)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("the renderer took longer than %s", p.cfg.Timeout)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %s", p.cfg.Python, err, lastLine(stderr.b.String()))
	}
	p.cfg.Log.Debug("renderer ran", "took", time.Since(began), "bytes", stdout.b.Len())
	return stdout.b.Bytes(), nil
}

// command is the renderer's process. Caged, it has a network namespace of its own with nothing in it, not even loopback.
func (p *PDF) command(ctx context.Context, in []byte, epoch time.Time, args []string, stdout, stderr io.Writer, caged bool) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.cfg.Python, append([]string{"-I", "-c", script}, args...)...)
	cmd.Env = []string{
		"LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(epoch.Unix(), 10),
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if caged {
		uid, gid := os.Geteuid(), os.Getegid()
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd
}

// limited keeps what fits and calls full once when more comes.
type limited struct {
	b     bytes.Buffer
	limit int
	over  bool
	full  func()
}

func (l *limited) Write(p []byte) (int, error) {
	if l.b.Len()+len(p) > l.limit {
		l.over = true
		if l.full != nil {
			l.full()
			return 0, io.ErrShortWrite
		}
		return len(p), nil
	}
	return l.b.Write(p)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	return s
}
