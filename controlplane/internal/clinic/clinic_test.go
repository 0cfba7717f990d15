package clinic

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
)

func TestHoursKnowOpenAndClosed(t *testing.T) {
	t.Parallel()
	h, err := ParseHours("mon-wed,fri 09:00-12:30 14:00-18:30; sat 09:00-13:00")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{
		"2026-11-23T09:00:00+09:00": true,  // Monday
		"2026-11-23T12:30:00+09:00": false, // the end is closed
		"2026-11-23T18:29:59+09:00": true,
		"2026-11-26T10:00:00+09:00": false, // Thursday
		"2026-11-28T12:59:00+09:00": true,  // Saturday
		"2026-11-29T10:00:00+09:00": false, // Sunday
		"2026-11-27T00:00:00Z":      true,  // Friday 09:00 in Japan
	} {
		ts, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Open(ts); got != want {
			t.Errorf("%s: open %v, want %v", at, got, want)
		}
	}
	if h, _ := ParseHours("sat-mon 22:00-24:00"); len(h[0]) != 1 || len(h[1]) != 1 || len(h[6]) != 1 || len(h[2]) != 0 {
		t.Errorf("range across the week's end: %v", h)
	}
	for _, bad := range []string{"mon", "mon 9-18", "moon 09:00-18:00", "mon 18:00-09:00", "mon 09:00-10:00 09:30-11:00", "mon 09:00-25:00"} {
		if _, err := ParseHours(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCreateGivesCodesAndRefusesBadClinics(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	ctx := context.Background()
	create := func(c Clinic) (out Clinic, err error) {
		err = db.Fleet(ctx, "system:test", func(tx pgx.Tx) error {
			if c.PlanID, err = policy.EnsureDefaultPlan(ctx, tx); err != nil {
				return err
			}
			out, err = Create(ctx, tx, "tester", c)
			return err
		})
		return out, err
	}
	a, err := create(Clinic{Name: "さくら通り内科クリニック", Hours: "mon-fri 09:00-18:30"})
	if err != nil || a.Code != "C001" || a.ID == 0 {
		t.Fatalf("first clinic %+v, error %v", a, err)
	}
	if _, err := create(Clinic{Code: "C041", Name: "b"}); err != nil {
		t.Fatal(err)
	}
	if c, err := create(Clinic{Name: "c"}); err != nil || c.Code != "C042" {
		t.Fatalf("third clinic %+v, error %v", c, err)
	}
	if _, err := create(Clinic{Code: "C041", Name: "d"}); !errors.Is(err, ErrExists) {
		t.Errorf("taken code: %v", err)
	}
	for _, bad := range []Clinic{{Name: " "}, {Name: "a\x00b"}, {Name: strings.Repeat("あ", 201)}, {Name: "x", Code: "c1"}, {Name: "x", Hours: "always"}} {
		if _, err := create(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
	err = db.Fleet(ctx, "system:test", func(tx pgx.Tx) error {
		page, err := List(ctx, tx, a.ID, 1)
		if err == nil && (len(page) != 1 || page[0].Code != "C041" || page[0].Plan != policy.DefaultPlan) {
			t.Errorf("second page %+v", page)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
