// Package audit writes who changed what into a hash-chained log and checks the chain. Every domain package calls Append in the
// transaction of its change, as the last statement. The trap: appends wait for each other until commit, so nothing slow may
// follow one.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrBroken says that a row of the log was altered, removed or put in.
var ErrBroken = errors.New("audit log is broken")

// maxText bounds each text of an entry, in bytes: parts of it come from requests.
const maxText = 2048

// Entry is one line of the log.
type Entry struct {
	Actor  string // operator's name, "appliance:7", "system"
	Action string // noun.verb: "clinic.create", "claim.use"
	Target string // "clinic:3", "appliance:7"
	Clinic int32  // 0: the whole fleet
	Reason string // what the operator gave; empty where none is asked for
	Detail any    // encoded as JSON; nil: {}
}

// Append writes e at the end of the log; tx must see the clinic. The time and the hashes are the database's.
func Append(ctx context.Context, tx pgx.Tx, e Entry) error {
	detail := []byte("{}")
	if e.Detail != nil {
		var err error
		if detail, err = json.Marshal(e.Detail); err != nil {
			return fmt.Errorf("encode audit detail: %w", err)
		}
	}
	var clinic *int32
	if e.Clinic != 0 {
		clinic = &e.Clinic
	}
	_, err := tx.Exec(ctx, `INSERT INTO audit_log (actor, action, target, clinic_id, reason, detail) VALUES ($1, $2, $3, $4, $5, $6)`,
		clip(e.Actor), clip(e.Action), clip(e.Target), clinic, clip(e.Reason), string(detail))
	if err != nil {
		return fmt.Errorf("append to audit log: %w", err)
	}
	return nil
}

func clip(s string) string {
	s = string(bytes.ToValidUTF8([]byte(s), []byte("?")))
	if len(s) > maxText {
		s = string(bytes.ToValidUTF8([]byte(s[:maxText]), nil))
	}
	return string(bytes.ReplaceAll([]byte(s), []byte{0}, nil)) // PostgreSQL's text holds no NUL
}

// Verify recomputes the chain and returns how many rows it holds. tx must see all rows (the fleet's role).
// Error: ErrBroken, wrapped with the number of the first row that does not fit.
func Verify(ctx context.Context, tx pgx.Tx) (rows int64, err error) {
	var headID int64
	var head []byte
	if err := tx.QueryRow(ctx, `SELECT audit_id, hash FROM audit_head`).Scan(&headID, &head); err != nil {
		return 0, fmt.Errorf("read end of audit log: %w", err)
	}
	q, err := tx.Query(ctx, `SELECT a.audit_id, a.prev_hash, a.hash, audit_text(a) FROM audit_log a WHERE a.audit_id <= $1 ORDER BY a.audit_id`, headID)
	if err != nil {
		return 0, fmt.Errorf("read audit log: %w", err)
	}
	defer q.Close()
	last := make([]byte, sha256.Size)
	for q.Next() {
		var id int64
		var prev, hash []byte
		var text string
		if err := q.Scan(&id, &prev, &hash, &text); err != nil {
			return rows, fmt.Errorf("read audit log: %w", err)
		}
		sum := sha256.New()
		sum.Write(prev)
		sum.Write([]byte(text))
		switch {
		case id != rows+1:
			return rows, fmt.Errorf("%w: row %d is missing", ErrBroken, rows+1)
		case !bytes.Equal(prev, last):
			return rows, fmt.Errorf("%w: row %d does not follow row %d", ErrBroken, id, rows)
		case !bytes.Equal(sum.Sum(nil), hash):
			return rows, fmt.Errorf("%w: row %d was altered", ErrBroken, id)
		}
		last = hash
		rows++
	}
	if err := q.Err(); err != nil {
		return rows, fmt.Errorf("read audit log: %w", err)
	}
	if rows != headID || !bytes.Equal(last, head) {
		return rows, fmt.Errorf("%w: it ends with row %d, but %d rows were written", ErrBroken, rows, headID)
	}
	return rows, nil
}
