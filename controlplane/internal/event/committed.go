package event

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Watermark is what the database holds of one stream.
type Watermark struct {
	Stream [16]byte
	// Through: every event up to it was received, declared lost or refused. The appliance's spool may forget them.
	Through uint64
}

// maxStreams is how many streams of one appliance Committed tells: a spool holds the current one and few before it.
const maxStreams = 8

// Committed returns the watermarks of an appliance's newest streams, the newest first. The transaction (DB.As or DB.Fleet) decides
// whether the appliance may be seen; one that may not, or has sent nothing, has none.
func Committed(ctx context.Context, tx pgx.Tx, appliance int32) ([]Watermark, error) {
	rows, err := tx.Query(ctx, `SELECT stream_id, event_through(l) FROM event_ledger l
		WHERE appliance_id = $1 ORDER BY first_at DESC LIMIT $2`, appliance, maxStreams)
	if err != nil {
		return nil, fmt.Errorf("read watermarks: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Watermark, error) {
		var w Watermark
		var through int64
		err := row.Scan(&w.Stream, &through)
		w.Through = uint64(through)
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("read watermarks: %w", err)
	}
	return out, nil
}
