package ingest

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/event"
)

const (
	// maxBody of a dead letter that is kept.
	maxBody = 64 << 10
	// letterBurst and letterEvery bound how many letters one appliance can fill the table with; the rest is only counted.
	letterBurst = 100
	letterEvery = time.Minute
)

// bucket is a token bucket of one appliance's letters.
type bucket struct {
	tokens float64
	at     time.Time
}

// mayWrite takes a token of the appliance (0: of those that name none).
func (in *Ingest) mayWrite(appliance int32) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	b := in.letters[appliance]
	if b == nil {
		// Bounded by the appliances that exist, as only they can publish.
		b = &bucket{tokens: letterBurst, at: in.now()}
		in.letters[appliance] = b
	}
	now := in.now()
	b.tokens = min(letterBurst, b.tokens+float64(now.Sub(b.at))/float64(letterEvery))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (in *Ingest) writeLetters(ctx context.Context, tx pgx.Tx, letters []letter, res *result) error {
	res.deadLetters = len(letters)
	for _, l := range letters {
		if !in.mayWrite(l.appliance) {
			continue
		}
		in.log.Warn("dead letter", "clinic", l.clinic, "appliance", l.appliance, "reason", event.Clean(l.reason, 200))
		body := l.body
		if len(body) > maxBody {
			body = body[:maxBody]
		}
		if body == nil {
			body = []byte{}
		}
		if _, err := tx.Exec(ctx, `INSERT INTO dead_letter (clinic_id, appliance_id, subject, reason, body)
			VALUES (nullif($1, 0), nullif($2, 0), $3, $4, $5)`, l.clinic, l.appliance, event.Clean(l.subject, 255), event.Clean(l.reason, 1024), body); err != nil {
			return fmt.Errorf("write dead letter: %w", err)
		}
	}
	return nil
}
