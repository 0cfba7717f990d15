package command

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

type desk struct {
	*Commands
	t      *testing.T
	db     *postgres.DB
	clinic int32
	box    int32
	other  int32 // a box of the same clinic
	now    time.Time
}

func newDesk(t *testing.T, two ...string) *desk {
	t.Helper()
	d := &desk{t: t, db: postgrestest.New(t), now: time.Now()}
	clock := func() time.Time { return d.now }
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := bundle.New(bundle.Config{Key: key, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := appliance.NewPublisher(appliance.Config{DB: d.db, Bundles: bundles, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if d.Commands, err = New(Config{DB: d.db, Bundles: bundles, TwoPersons: two, Now: clock}); err != nil {
		t.Fatal(err)
	}
	err = d.db.Fleet(context.Background(), "system:test", func(tx pgx.Tx) error {
		ctx := context.Background()
		plan, err := policy.EnsureDefaultPlan(ctx, tx)
		if err != nil {
			return err
		}
		c, err := clinic.Create(ctx, tx, "tester", clinic.Clinic{Name: "x", PlanID: plan})
		if err != nil {
			return err
		}
		d.clinic = c.ID
		for _, id := range []*int32{&d.box, &d.other} {
			if err := tx.QueryRow(ctx, `INSERT INTO appliance (clinic_id, name, state) VALUES ($1, 'x', 'claimed') RETURNING appliance_id`, c.ID).Scan(id); err != nil {
				return err
			}
			if err := publisher.Admit(ctx, tx, c.ID, *id, "tester"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wanted are the commands a box is told, verified as a box does.
func (d *desk) wanted(box int32) []*fleetv1.Command {
	d.t.Helper()
	var out []*fleetv1.Command
	err := d.db.Fleet(context.Background(), "system:test", func(tx pgx.Tx) error {
		states, err := appliance.ReadDesired(context.Background(), tx, d.Bundles, []int32{box})
		if err != nil {
			return err
		}
		for _, env := range states[box].Commands {
			c, err := sign.VerifyCommand([]ed25519.PublicKey{d.Bundles.PublicKey()}, env)
			if err != nil {
				return err
			}
			if err := sign.CheckCommand(c, box, d.now); err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *desk) state(id string) string {
	d.t.Helper()
	var state string
	err := d.db.Fleet(context.Background(), "system:test", func(tx pgx.Tx) error {
		list, err := List(context.Background(), tx, 0, 100)
		for _, c := range list {
			if c.ID == id {
				state = c.State
			}
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return state
}

func (d *desk) answer(box int32, id, state string) {
	d.t.Helper()
	raw, err := hex.DecodeString(id)
	if err != nil {
		d.t.Fatal(err)
	}
	err = d.db.As(context.Background(), []int32{d.clinic}, func(tx pgx.Tx) error {
		return Settle(context.Background(), tx, d.clinic, box, []Result{{ID: raw, State: state, Detail: "done\x00\xff"}}, d.now)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestCommandIsSentUntilItsBoxAnswersOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	c, err := d.Send(context.Background(), "yamada", Order{Appliance: d.box, Action: Quarantine, IP: "192.168.11.21", MAC: "02-00-00-00-00-01", For: time.Hour, Reason: "bot"})
	if err != nil {
		t.Fatal(err)
	}
	told := d.wanted(d.box)
	if len(told) != 1 || hex.EncodeToString(told[0].GetId()) != c.ID || told[0].GetQuarantine().GetUntil() == nil || len(told[0].GetQuarantine().GetIp()) != 4 || told[0].GetIssuedBy() != "yamada" {
		t.Fatalf("told %v", told)
	}
	if len(d.wanted(d.other)) != 0 {
		t.Error("another box is told")
	}
	d.answer(d.other, c.ID, "done") // another box of the clinic can't answer for it
	if got := d.state(c.ID); got != "pending" {
		t.Errorf("state %s after a foreign answer", got)
	}
	d.answer(d.box, c.ID, "failed")
	d.answer(d.box, c.ID, "done") // told twice
	if got := d.state(c.ID); got != "failed" || len(d.wanted(d.box)) != 0 {
		t.Errorf("state %s, still told %v", got, d.wanted(d.box))
	}
}

func TestSecondPersonDecides(t *testing.T) {
	t.Parallel()
	d := newDesk(t, FactoryReset)
	ctx := context.Background()
	c, err := d.Send(ctx, "yamada", Order{Appliance: d.box, Action: FactoryReset, Reason: "to stock"})
	if err != nil || c.State != "awaiting" {
		t.Fatalf("%+v %v", c, err)
	}
	if len(d.wanted(d.box)) != 0 {
		t.Fatal("sent before a second person agreed")
	}
	if err := d.Decide(ctx, "yamada", c.ID, true); !errors.Is(err, ErrSamePerson) {
		t.Errorf("approved by who issued it: %v", err)
	}
	if err := d.Decide(ctx, "suzuki", c.ID, true); err != nil {
		t.Fatal(err)
	}
	if told := d.wanted(d.box); len(told) != 1 || told[0].GetFactoryReset() == nil {
		t.Errorf("told %v", told)
	}
	if err := d.Decide(ctx, "suzuki", c.ID, false); !errors.Is(err, ErrState) {
		t.Errorf("cancelled after approval: %v", err)
	}
	c, err = d.Send(ctx, "yamada", Order{Appliance: d.box, Action: FactoryReset, Reason: "again"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Decide(ctx, "yamada", c.ID, false); err != nil || d.state(c.ID) != "cancelled" {
		t.Errorf("taken back: %v, %s", err, d.state(c.ID))
	}
	if err := d.Decide(ctx, "suzuki", "zz", true); !errors.Is(err, ErrNotFound) {
		t.Errorf("no id: %v", err)
	}
}

func TestCommandsExpire(t *testing.T) {
	t.Parallel()
	d := newDesk(t, Bypass)
	ctx := context.Background()
	a, err := d.Send(ctx, "yamada", Order{Appliance: d.box, Action: SelfTest, Life: time.Hour, Reason: "x"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Send(ctx, "yamada", Order{Appliance: d.box, Action: Bypass, On: true, For: time.Minute, Life: time.Hour, Reason: "x"})
	if err != nil {
		t.Fatal(err)
	}
	d.now = d.now.Add(time.Hour)
	if err := d.Decide(ctx, "suzuki", b.ID, true); !errors.Is(err, ErrState) {
		t.Errorf("approved past its end: %v", err)
	}
	if err := d.Expire(ctx); err != nil {
		t.Fatal(err)
	}
	if d.state(a.ID) != "expired" || d.state(b.ID) != "expired" {
		t.Errorf("states %s, %s", d.state(a.ID), d.state(b.ID))
	}
}

func TestBadOrdersAreRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, o := range []Order{
		{Action: "dance"},
		{Action: Quarantine},
		{Action: Quarantine, MAC: "xx"},
		{Action: Quarantine, IP: "fe80::1%eth0"},
		{Action: Bypass, On: true},
		{Action: Bypass, On: true, For: 25 * time.Hour},
		{Action: SelfTest, MAC: "02:00:00:00:00:01"},
		{Action: SelfTest, For: time.Hour},
		{Action: SelfTest, Life: time.Second},
	} {
		o.Appliance, o.Reason = d.box, "x"
		if _, err := d.Send(context.Background(), "yamada", o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := d.Send(context.Background(), "yamada", Order{Appliance: d.box, Action: SelfTest, Reason: " "}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no reason: %v", err)
	}
	if _, err := d.Send(context.Background(), "yamada", Order{Appliance: 999, Action: SelfTest, Reason: "x"}); !errors.Is(err, appliance.ErrNotFound) {
		t.Errorf("no such appliance: %v", err)
	}
	for range maxPending {
		if _, err := d.Send(context.Background(), "yamada", Order{Appliance: d.box, Action: SelfTest, Reason: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Send(context.Background(), "yamada", Order{Appliance: d.box, Action: SelfTest, Reason: "x"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("one too many: %v", err)
	}
}
