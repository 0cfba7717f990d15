package app

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// group runs the parts of one stage. The first error, or a panic turned into one, is told to the program; stop ends the stage
// and waits for all its parts.
type group struct {
	ctx    context.Context //nolint:containedctx // the stage's own life, made and ended here
	cancel context.CancelFunc
	wg     sync.WaitGroup
	fail   func(error)
}

func newGroup(ctx context.Context, fail func(error)) *group {
	// A stage ends when stop says so and not when the program's context ends: what gives must end before what takes.
	g := &group{fail: fail}
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return g
}

func (g *group) start(name string, fn func(context.Context) error) {
	g.wg.Go(func() {
		if err := guard(func() error { return fn(g.ctx) }); err != nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
}

func (g *group) stop() {
	g.cancel()
	g.wg.Wait()
}

// guard turns a panic into an error with its place.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}
