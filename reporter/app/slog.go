package app

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// slogFor lets a library that wants slog write to our log.
func slogFor(log hclog.Logger) *slog.Logger { return slog.New(&slogHandler{log: log}) }

type slogHandler struct {
	log   hclog.Logger
	attrs []any
	group string
}

// Enabled asks our log.
func (h *slogHandler) Enabled(_ context.Context, level slog.Level) bool {
	switch {
	case level >= slog.LevelError:
		return h.log.IsError()
	case level >= slog.LevelWarn:
		return h.log.IsWarn()
	case level >= slog.LevelInfo:
		// What a queue calls info, such as electing itself, is detail to us.
		return h.log.IsDebug()
	}
	return h.log.IsTrace()
}

// Handle writes the record.
func (h *slogHandler) Handle(_ context.Context, r slog.Record) error {
	args := append([]any{}, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		args = append(args, h.group+a.Key, a.Value.Any())
		return true
	})
	switch {
	case r.Level >= slog.LevelError:
		h.log.Error(r.Message, args...)
	case r.Level >= slog.LevelWarn:
		h.log.Warn(r.Message, args...)
	case r.Level >= slog.LevelInfo:
		h.log.Debug(r.Message, args...)
	default:
		h.log.Trace(r.Message, args...)
	}
	return nil
}

// WithAttrs adds attributes.
func (h *slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]any{}, h.attrs...)
	for _, a := range attrs {
		next.attrs = append(next.attrs, h.group+a.Key, a.Value.Any())
	}
	return &next
}

// WithGroup prefixes keys.
func (h *slogHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.group = h.group + name + "."
	return &next
}
