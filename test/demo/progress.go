package demo

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells a person what is going on: a line when a step begins, how long it took when it ended. On a terminal the
// first line is overwritten by the second.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	tty   bool
	began time.Time
}

func newProgress(out io.Writer, tty bool) *progress {
	return &progress{out: out, tty: tty, began: time.Now()}
}

func (p *progress) paint(code, s string) string {
	if !p.tty {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// step runs fn and tells of it.
func (p *progress) step(name string, fn func(note func(format string, args ...any)) error) error {
	start := time.Now()
	p.mu.Lock()
	if p.tty {
		_, _ = fmt.Fprintf(p.out, "  %s %s", p.paint("36", "…"), name)
	} else {
		_, _ = fmt.Fprintf(p.out, "  … %s\n", name)
	}
	p.mu.Unlock()
	var detail string
	err := fn(func(format string, args ...any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		detail = fmt.Sprintf(format, args...)
		if p.tty {
			_, _ = fmt.Fprintf(p.out, "\r\x1b[K  %s %s %s", p.paint("36", "…"), name, p.paint("2", detail))
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	mark := p.paint("32", "✓")
	if err != nil {
		mark = p.paint("31", "✗")
	}
	if p.tty {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
	}
	_, _ = fmt.Fprintf(p.out, "  %s %s %s\n", mark, name, p.paint("2", fmt.Sprintf("%s(%.1f s)", detailed(detail), time.Since(start).Seconds())))
	return err
}

func detailed(s string) string {
	if s == "" {
		return ""
	}
	return s + " "
}

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
}
