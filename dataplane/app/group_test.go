package app

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestPanicOfAPartBecomesAnError(t *testing.T) {
	errs := make(chan error, 3)
	g := newGroup(t.Context(), func(err error) { errs <- err })
	g.start("good", func(ctx context.Context) error { <-ctx.Done(); return nil })
	g.start("mad", func(context.Context) error { panic("lost it") })
	g.start("bad", func(context.Context) error { return errors.New("no") })
	var text []string
	for range 2 {
		text = append(text, (<-errs).Error())
	}
	g.stop()
	if all := strings.Join(text, "\n"); !strings.Contains(all, "mad: panic: lost it") || !strings.Contains(all, "group_test.go") || !strings.Contains(all, "bad: no") {
		t.Errorf("errors:\n%s", all)
	}
	if len(errs) != 0 {
		t.Errorf("a good part gave %v", <-errs)
	}
}

func TestStageOutlivesTheProgramsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := newGroup(ctx, func(err error) { t.Error(err) })
	ended := make(chan struct{})
	g.start("taker", func(ctx context.Context) error { <-ctx.Done(); close(ended); return nil })
	cancel()
	select {
	case <-ended:
		t.Error("the stage ended with the program's context, before what gives to it")
	default:
	}
	g.stop()
	<-ended
}
