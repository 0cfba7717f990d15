package rollout

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/postgres"
	"github.com/kadomori/kadomori/controlplane/internal/postgres/postgrestest"
	"github.com/kadomori/kadomori/controlplane/internal/signature"
	"github.com/kadomori/kadomori/proto/sign"
)

// night is 22:00 in Japan, a Tuesday.
var night = time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)

// fleet is a database with clinics of one box each. A box is what it reports; behave says how it takes a new version.
type fleet struct {
	t         *testing.T
	db        *postgres.DB
	publisher *appliance.Publisher
	rollouts  *Rollouts
	now       time.Time
	clinics   []int32
	boxes     []int32
	// behave returns "" when box i takes a version of a kind, a reason when it refuses it, "lost" when it goes silent.
	behave func(i int, kind string, version int64) string
	lost   map[int]bool
}

func newFleet(t *testing.T, n int, hours string) *fleet {
	t.Helper()
	f := &fleet{t: t, db: postgrestest.New(t), now: night, lost: map[int]bool{}, behave: func(int, string, int64) string { return "" }}
	clock := func() time.Time { return f.now }
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := bundle.New(bundle.Config{Key: key, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if f.publisher, err = appliance.NewPublisher(appliance.Config{DB: f.db, Bundles: bundles, Now: clock}); err != nil {
		t.Fatal(err)
	}
	if f.rollouts, err = New(Config{DB: f.db, Publisher: f.publisher, Bundles: bundles, Now: clock}); err != nil {
		t.Fatal(err)
	}
	f.fleet(func(ctx context.Context, tx pgx.Tx) error {
		plan, err := policy.EnsureDefaultPlan(ctx, tx)
		if err != nil {
			return err
		}
		for range n {
			c, err := clinic.Create(ctx, tx, "tester", clinic.Clinic{Name: "x", PlanID: plan, Hours: hours})
			if err != nil {
				return err
			}
			var id int32
			if err := tx.QueryRow(ctx, `INSERT INTO appliance (clinic_id, name, state) VALUES ($1, 'x', 'claimed') RETURNING appliance_id`, c.ID).Scan(&id); err != nil {
				return err
			}
			if err := f.publisher.Admit(ctx, tx, c.ID, id, "tester"); err != nil {
				return err
			}
			f.clinics, f.boxes = append(f.clinics, c.ID), append(f.boxes, id)
		}
		return nil
	})
	f.signatures("1", false)
	f.report()
	return f
}

func (f *fleet) fleet(fn func(context.Context, pgx.Tx) error) {
	f.t.Helper()
	ctx := context.Background()
	if err := f.db.Fleet(ctx, "system:test", func(tx pgx.Tx) error { return fn(ctx, tx) }); err != nil {
		f.t.Fatal(err)
	}
}

// signatures publishes a rule whose sid tells the version.
func (f *fleet) signatures(sid string, stage bool) uint64 {
	f.t.Helper()
	v, _, err := f.publisher.PublishSignatures(context.Background(), "tester", "test", []signature.File{
		{Name: "a.rules", Content: []byte("alert tcp any any -> any any (msg:\"x\"; sid:" + sid + ";)\n")},
	}, stage)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// want returns what box i is told to run: versions of policy and signatures, and the digest of the signatures.
func (f *fleet) want(i int) (pol, sig int64, digest string) {
	f.t.Helper()
	f.fleet(func(ctx context.Context, tx pgx.Tx) error {
		d, err := appliance.ReadDesired(ctx, tx, f.rollouts.Bundles, []int32{f.boxes[i]})
		if err != nil {
			return err
		}
		keys := []ed25519.PublicKey{f.rollouts.Bundles.PublicKey()}
		m, err := sign.Verify(keys, d[f.boxes[i]].Policy)
		if err != nil {
			return err
		}
		pol = int64(m.GetVersion())
		if m, err = sign.Verify(keys, d[f.boxes[i]].Signatures); err != nil {
			return err
		}
		sig, digest = int64(m.GetVersion()), string(m.GetSha256())
		return nil
	})
	return pol, sig, digest
}

// report lets every box take what is wanted, as behave says, and tell.
func (f *fleet) report() {
	f.t.Helper()
	for i, id := range f.boxes {
		pol, sig, _ := f.want(i)
		f.fleet(func(ctx context.Context, tx pgx.Tx) error {
			var r appliance.Report
			var hasPol, hasSig int64
			if err := tx.QueryRow(ctx, `SELECT policy_version, signature_version FROM appliance WHERE appliance_id = $1`, id).Scan(&hasPol, &hasSig); err != nil {
				return err
			}
			for _, k := range []struct {
				kind      string
				has, want int64
				to        *uint64
			}{{Policy, hasPol, pol, &r.PolicyVersion}, {Signature, hasSig, sig, &r.SignatureVersion}} {
				*k.to = uint64(k.has)
				if k.has == k.want {
					continue
				}
				switch why := f.behave(i, k.kind, k.want); why {
				case "":
					*k.to = uint64(k.want)
				case "lost":
					f.lost[i] = true
				default:
					r.Refused = why
				}
			}
			if f.lost[i] {
				return appliance.SetConnected(ctx, tx, []int32{id}, false, f.now)
			}
			if err := appliance.StoreReport(ctx, tx, id, r, f.now); err != nil {
				return err
			}
			return appliance.SetConnected(ctx, tx, []int32{id}, true, f.now)
		})
	}
}

// run steps, reports and lets a minute pass, until ok or 300 times.
func (f *fleet) run(id int64, ok func(*Rollout) bool) *Rollout {
	f.t.Helper()
	var ro *Rollout
	for range 300 {
		if err := f.rollouts.Step(context.Background()); err != nil {
			f.t.Fatal(err)
		}
		f.report()
		f.fleet(func(ctx context.Context, tx pgx.Tx) (err error) {
			ro, err = f.rollouts.Get(ctx, tx, id)
			return err
		})
		if ok(ro) {
			return ro
		}
		f.now = f.now.Add(time.Minute)
	}
	f.t.Fatalf("rollout is %s in ring %d after 300 minutes: %s", ro.State, ro.Ring, ro.Detail)
	return nil
}

func (f *fleet) start(o Order) int64 {
	f.t.Helper()
	ctx := context.Background()
	o.Reason = "test"
	ro, err := f.rollouts.Create(ctx, "tester", o)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.rollouts.Control(ctx, "tester", ro.ID, Start, ""); err != nil {
		f.t.Fatal(err)
	}
	return ro.ID
}

func ended(ro *Rollout) bool { return ro.State == Done || ro.State == RolledBack || ro.State == Halted }

// TestBadSignaturesHaltInTheFirstRing is the proof the fleet stands on: content that breaks one box in three never leaves the
// canaries, every touched box is back on the old content, and no other box was touched at all.
func TestBadSignaturesHaltInTheFirstRing(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 6, "")
	_, _, good := f.want(0)
	var before []int64
	f.fleet(func(ctx context.Context, tx pgx.Tx) error {
		q, err := tx.Query(ctx, `SELECT revision FROM appliance ORDER BY appliance_id`)
		if err != nil {
			return err
		}
		before, err = pgx.CollectRows(q, pgx.RowTo[int64])
		return err
	})
	bad := int64(f.signatures("2", true))
	if _, sig, _ := f.want(0); sig == bad {
		t.Fatal("staged signatures reached a box")
	}
	f.behave = func(i int, kind string, version int64) string {
		if kind == Signature && version == bad && i%3 == 0 {
			return "rule a.rules:1: self-test failed"
		}
		return ""
	}
	id := f.start(Order{Kind: Signature, Spec: Spec{Rings: []Ring{{Name: "canary", Clinics: f.clinics[:3]}, {Name: "all", Percent: 100}}}})
	ro := f.run(id, ended)
	if ro.State != RolledBack || ro.Ring != 0 || !strings.Contains(ro.Detail, "1 of 3") {
		t.Errorf("rollout is %s in ring %d: %s", ro.State, ro.Ring, ro.Detail)
	}
	f.report()
	for i := range f.boxes {
		_, sig, digest := f.want(i)
		if digest != good {
			t.Errorf("box %d is told other signatures than before", i)
		}
		f.fleet(func(ctx context.Context, tx pgx.Tx) error {
			var has, revision int64
			var refused string
			err := tx.QueryRow(ctx, `SELECT signature_version, refused, revision FROM appliance WHERE appliance_id = $1`, f.boxes[i]).Scan(&has, &refused, &revision)
			switch {
			case has != sig || refused != "":
				t.Errorf("box %d runs %d, wanted %d, refused %q", i, has, sig, refused)
			case i >= 3 && (sig != 1 || revision != before[i]):
				t.Errorf("box %d outside the ring was touched: signatures %d, revision %d, before %d", i, sig, revision, before[i])
			case i < 3 && sig <= bad:
				t.Errorf("box %d is told version %d, which is not above the bad %d: it would refuse it", i, sig, bad)
			}
			return err
		})
	}
	// The next good ones go to all.
	f.signatures("3", false)
	f.report()
	for i := range f.boxes {
		if _, sig, _ := f.want(i); sig != bad+2 {
			t.Errorf("box %d is told %d after the next publication", i, sig)
		}
	}
}

func TestGoodPlanGoesRingByRingInQuietHours(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 5, "mon-sun 09:00-18:00")
	f.now = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC) // 17:00 in Japan, the clinics are open
	f.report()
	_, err := f.publisher.ApplyPlan(context.Background(), policy.Plan{Name: policy.DefaultPlan, Document: "zones: {iot: {mode: prevent}}", Author: "tester", Reason: "r"}, false, true)
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.boxes {
		if pol, _, _ := f.want(i); pol != 1 {
			t.Fatalf("staged plan reached box %d", i)
		}
	}
	id := f.start(Order{Kind: Policy, Plan: policy.DefaultPlan, Spec: Spec{Rings: []Ring{{Name: "one", Percent: 20}, {Name: "some", Percent: 60}, {Name: "all", Percent: 100}}}})
	reached := func() (n int) {
		for i := range f.boxes {
			if pol, _, _ := f.want(i); pol == 2 {
				n++
			}
		}
		return n
	}
	f.run(id, func(ro *Rollout) bool { return strings.Contains(ro.Detail, "quiet hours") })
	if reached() != 0 {
		t.Errorf("%d boxes reached while the clinics are open", reached())
	}
	f.run(id, func(ro *Rollout) bool { return strings.Contains(ro.Detail, "holds until") })
	if n := reached(); n != 1 || f.now.In(clinic.JST).Hour() != 18 {
		t.Errorf("%d boxes reached at %s, want one after 18:00", n, f.now.In(clinic.JST))
	}
	soak := f.now
	f.run(id, func(ro *Rollout) bool { return ro.Ring == 1 })
	if took := f.now.Sub(soak); took < 28*time.Minute || took > 32*time.Minute {
		t.Errorf("the first ring held for %s", took)
	}
	ro := f.run(id, ended)
	if ro.State != Done || reached() != 5 {
		t.Errorf("rollout is %s, %d boxes reached: %s", ro.State, reached(), ro.Detail)
	}
	f.fleet(func(ctx context.Context, tx pgx.Tx) error {
		var pinned int
		err := tx.QueryRow(ctx, `SELECT count(*) FROM clinic WHERE plan_revision IS NOT NULL`).Scan(&pinned)
		if pinned != 0 {
			t.Errorf("%d clinics still follow an old revision", pinned)
		}
		return err
	})
	// A finished rollout can be turned back as a whole.
	if err := f.rollouts.Control(context.Background(), "tester", id, Rollback, "a clinic complained"); err != nil {
		t.Fatal(err)
	}
	if ro := f.run(id, ended); ro.State != RolledBack {
		t.Errorf("rollback of a finished rollout: %s", ro.State)
	}
	f.fleet(func(ctx context.Context, tx pgx.Tx) error {
		s, err := f.publisher.Explain(ctx, tx, f.clinics[0])
		for _, x := range s {
			if x.Path == "zones.iot.mode" {
				t.Error("the old policy is not back")
			}
		}
		return err
	})
}

func TestBoxesThatGoSilentHaltTheRollout(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, "")
	bad := int64(f.signatures("2", true))
	f.behave = func(i int, kind string, version int64) string {
		if kind == Signature && version == bad {
			return "lost"
		}
		return ""
	}
	id := f.start(Order{Kind: Signature, Spec: Spec{Rings: []Ring{{Name: "canary", Clinics: f.clinics[:2]}, {Name: "all", Percent: 100}}, NoAutoRollback: true}})
	ro := f.run(id, ended)
	if ro.State != Halted || ro.Ring != 0 {
		t.Fatalf("rollout is %s in ring %d: %s", ro.State, ro.Ring, ro.Detail)
	}
	lost := 0
	for _, target := range ro.Targets {
		if target.State == "failed" && target.Detail == "lost since the change" {
			lost++
		}
	}
	if lost != 2 {
		t.Errorf("%d boxes told as lost: %+v", lost, ro.Targets)
	}
	// They come back by themselves, on their last good version, and take the old content.
	f.lost = map[int]bool{}
	f.behave = func(int, string, int64) string { return "" }
	if err := f.rollouts.Control(context.Background(), "tester", id, Rollback, "cuts the line"); err != nil {
		t.Fatal(err)
	}
	if ro := f.run(id, ended); ro.State != RolledBack {
		t.Errorf("rollout is %s: %s", ro.State, ro.Detail)
	}
}

func TestOfflineBoxesApplyOnReturnAndHoldNobodyUp(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, "")
	f.lost[2] = true
	f.report()
	f.now = f.now.Add(appliance.OnlineWithin)
	f.report()
	f.signatures("2", true)
	id := f.start(Order{Kind: Signature, Spec: Spec{Rings: []Ring{{Name: "all", Percent: 100}}}})
	if ro := f.run(id, ended); ro.State != Done {
		t.Fatalf("rollout is %s: %s", ro.State, ro.Detail)
	}
	f.lost = map[int]bool{}
	f.report()
	if _, sig, _ := f.want(2); sig != 2 {
		t.Errorf("the box that returned is told %d", sig)
	}
}

func TestAlertStormHalts(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, "")
	f.signatures("2", true)
	id := f.start(Order{Kind: Signature, Spec: Spec{Rings: []Ring{{Name: "canary", Clinics: f.clinics[:1]}, {Name: "all", Percent: 100}}}})
	f.run(id, func(ro *Rollout) bool { return strings.Contains(ro.Detail, "holds until") })
	_, err := f.db.Ingest.Exec(context.Background(), `INSERT INTO event (clinic_id, appliance_id, stream_id, seq, t, received_at, kind, count)
		SELECT $1, $2, gen_random_uuid(), n, $3, $3, 'alert', 1 FROM generate_series(1, 100) n`, f.clinics[0], f.boxes[0], f.now)
	if err != nil {
		t.Fatal(err)
	}
	ro := f.run(id, ended)
	if ro.State != RolledBack || !strings.Contains(ro.Detail, "alerts an hour") {
		t.Errorf("rollout is %s: %s", ro.State, ro.Detail)
	}
}

func TestControlKnowsItsStates(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, "")
	ctx := context.Background()
	if _, err := f.rollouts.Create(ctx, "tester", Order{Kind: Signature, Reason: "x"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("nothing staged: %v", err)
	}
	f.signatures("2", true)
	for _, o := range []Order{
		{Kind: "agent", Reason: "x"},
		{Kind: Signature},
		{Kind: Policy, Plan: "none", Reason: "x"},
		{Kind: Signature, Reason: "x", Spec: Spec{Rings: []Ring{{Percent: 50}, {Percent: 40}}}},
		{Kind: Signature, Reason: "x", Spec: Spec{Rings: []Ring{{Clinics: []int32{999}}}}},
		{Kind: Signature, Reason: "x", Spec: Spec{Rings: []Ring{{Clinics: f.clinics[:1]}, {Clinics: f.clinics[:1]}}}},
		{Kind: Signature, Reason: "x", Spec: Spec{Soak: -1}},
		{Kind: Signature, Reason: "x", Spec: Spec{Gates: Gates{BlockRatio: 0.5}}},
	} {
		if _, err := f.rollouts.Create(ctx, "tester", o); !errors.Is(err, ErrInvalid) && !errors.Is(err, policy.ErrNotFound) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	id := f.start(Order{Kind: Signature})
	for _, c := range []struct {
		action string
		want   error
	}{{Start, ErrState}, {Resume, ErrState}, {Pause, nil}, {Pause, ErrState}, {"dance", ErrInvalid}, {Resume, nil}, {Abort, nil}, {Abort, ErrState}} {
		if err := f.rollouts.Control(ctx, "tester", id, c.action, "because"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.action, err, c.want)
		}
	}
	if err := f.rollouts.Control(ctx, "tester", 99, Pause, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown rollout: %v", err)
	}
	second := f.start(Order{Kind: Signature})
	third, err := f.rollouts.Create(ctx, "tester", Order{Kind: Signature, Reason: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.rollouts.Control(ctx, "tester", third.ID, Start, ""); !errors.Is(err, ErrState) {
		t.Errorf("two rollouts of one subject: %v", err)
	}
	if _, _, err := f.publisher.PublishSignatures(ctx, "tester", "x", []signature.File{{Name: "b.rules"}}, false); !errors.Is(err, appliance.ErrState) {
		t.Errorf("publication during rollout %d: %v", second, err)
	}
}

func TestQuietHoursFollowTheClinic(t *testing.T) {
	t.Parallel()
	hours, err := clinic.ParseHours("tue 09:00-12:00 15:00-18:00")
	if err != nil {
		t.Fatal(err)
	}
	at := func(h, m int) time.Time { return time.Date(2026, 11, 24, h, m, 0, 0, clinic.JST) } // a Tuesday
	for _, c := range []struct {
		hours clinic.Hours
		t     time.Time
		quiet bool
	}{
		{hours, at(8, 29), true},
		{hours, at(8, 30), false}, // half an hour before
		{hours, at(11, 59), false},
		{hours, at(13, 0), true}, // noon break
		{hours, at(18, 0), true},
		{hours, at(10, 0).AddDate(0, 0, 1), true}, // closed on Wednesday
		{clinic.Hours{}, at(8, 29), true},
		{clinic.Hours{}, at(8, 30), false},
		{clinic.Hours{}, at(18, 29), false},
		{clinic.Hours{}, at(18, 30), true},
	} {
		if got := Quiet(c.hours, c.t); got != c.quiet {
			t.Errorf("%s, hours known %v: quiet %v", c.t, c.hours.Known(), got)
		}
	}
}

func TestAssignReachesEverybodyOnceAndTheSameWayEachTime(t *testing.T) {
	t.Parallel()
	rings := []Ring{{Name: "named", Clinics: []int32{7}}, {Name: "ten", Percent: 10}, {Name: "half", Percent: 50}, {Name: "rest", Percent: 80}}
	make100 := func() []Target {
		var out []Target
		for c := range int32(100) {
			out = append(out, Target{Clinic: c + 1, Appliance: 2*c + 1}, Target{Clinic: c + 1, Appliance: 2*c + 2})
		}
		return out
	}
	a, b := make100(), make100()
	if err := errors.Join(assign(a, rings, "s"), assign(b, rings, "s")); err != nil {
		t.Fatal(err)
	}
	count := map[int]int{}
	for i := range a {
		if a[i].Ring != b[i].Ring {
			t.Fatal("two runs differ")
		}
		if a[i].Clinic == 7 && a[i].Ring != 0 {
			t.Error("the named clinic is in another ring")
		}
		if i%2 == 1 && a[i].Ring != a[i-1].Ring {
			t.Error("two boxes of one clinic are in two rings")
		}
		count[a[i].Ring]++
	}
	if count[0] != 2 || count[1] != 18 || count[2] != 80 || count[3] != 100 {
		t.Errorf("boxes by ring: %v", count)
	}
}
