package web

import (
	"sync"
	"time"
)

// displays bridges the seconds until the accounts' cache has read a display change that was just made here.
type displays struct {
	mu sync.Mutex
	m  map[int32]display
}

type display struct {
	lang, theme string
	until       time.Time
}

const (
	displayLife = 15 * time.Second
	maxDisplays = 1000
)

func (d *displays) set(id int32, lang, theme string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil || len(d.m) >= maxDisplays {
		d.m = map[int32]display{}
	}
	x := d.m[id]
	if lang != "" {
		x.lang = lang
	}
	if theme != "" {
		x.theme = theme
	}
	x.until = now.Add(displayLife)
	d.m[id] = x
}

func (d *displays) apply(op *Operator, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x, ok := d.m[op.ID]
	if !ok {
		return
	}
	if now.After(x.until) {
		delete(d.m, op.ID)
		return
	}
	if x.lang != "" {
		op.Language = x.lang
	}
	if x.theme != "" {
		op.Theme = x.theme
	}
}
