package audit_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

func TestChainHoldsUnderConcurrencyAndShowsTampering(t *testing.T) {
	t.Parallel()
	dsns := postgrestest.NewDSNs(t)
	db := postgrestest.Open(t, dsns)
	ctx := context.Background()
	const writers, each = 4, 10
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				err := db.As(ctx, nil, func(tx pgx.Tx) error {
					return audit.Append(ctx, tx, audit.Entry{Actor: "a\x00b\xff", Action: "x.y", Target: strings.Repeat("長", 2000), Detail: map[string]any{"n": 1.5, "s": "日本\u0001"}})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	verify := func() (n int64, err error) {
		err2 := db.Fleet(ctx, "system:test", func(tx pgx.Tx) error {
			n, err = audit.Verify(ctx, tx)
			return nil
		})
		return n, errors.Join(err, err2)
	}
	if n, err := verify(); err != nil || n != writers*each {
		t.Fatalf("chain of %d rows: %v", n, err)
	}
	owner, err := pgx.Connect(ctx, dsns.Owner)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(ctx)
	// What even the owner of the database can't do unseen. The triggers are switched off as an intruder would.
	for _, c := range []struct{ do, undo, want string }{
		{"UPDATE audit_log SET actor = 'nobody' WHERE audit_id = 7", "UPDATE audit_log SET actor = 'ab?' WHERE audit_id = 7", "row 7 was altered"},
		{"UPDATE audit_log SET audit_id = 1000 WHERE audit_id = 9", "UPDATE audit_log SET audit_id = 9 WHERE audit_id = 1000", "row 9 is missing"},
		{"DELETE FROM audit_log WHERE audit_id = 40", "SELECT 1", "ends with row 39"},
	} {
		if _, err := owner.Exec(ctx, "ALTER TABLE audit_log DISABLE TRIGGER ALL; "+c.do); err != nil {
			t.Fatal(err)
		}
		if _, err := verify(); !errors.Is(err, audit.ErrBroken) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.do, err, c.want)
		}
		if _, err := owner.Exec(ctx, c.undo); err != nil {
			t.Fatal(err)
		}
	}
}
