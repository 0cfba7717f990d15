package command

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is a fake of the appliance that keeps what it was told to do.
type box struct {
	t          *testing.T
	dir        string
	pub        ed25519.PublicKey
	key        ed25519.PrivateKey
	now        time.Time
	quarantine []Device
	bypass     time.Duration
	tests      int
	resets     int
	fail       error
}

func newBox(t *testing.T) *box {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &box{t: t, dir: t.TempDir(), pub: pub, key: key, now: time.Now()}
}

func (b *box) Quarantine(d []Device) error {
	if b.fail != nil {
		return b.fail
	}
	b.quarantine = d
	return nil
}

func (b *box) Bypass(on bool, limit time.Duration) error {
	b.bypass = 0
	if on {
		b.bypass = limit
	}
	return b.fail
}
func (b *box) SelfTest() (string, error)   { b.tests++; return "passed", b.fail }
func (b *box) Diagnostic() ([]byte, error) { return []byte(strings.Repeat("d", 100<<10)), b.fail }
func (b *box) FactoryReset() error         { b.resets++; return b.fail }

func (b *box) runner() *Runner {
	b.t.Helper()
	r, err := New(Config{
		Dir: b.dir, ApplianceID: 12, Keys: func() []ed25519.PublicKey { return []ed25519.PublicKey{b.pub} }, Actions: b,
		Now: func() time.Time { return b.now },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *box) order(c *fleetv1.Command) *bundlev1.Envelope {
	b.t.Helper()
	if c.Id == nil {
		c.Id = make([]byte, 16)
		rand.Read(c.Id)
	}
	if c.Audience == "" {
		c.Audience = sign.Audience(12)
	}
	if c.Issued == nil {
		c.Issued, c.Expires = timestamppb.New(b.now), timestamppb.New(b.now.Add(time.Hour))
	}
	env, err := sign.SignCommand(b.key, c)
	if err != nil {
		b.t.Fatal(err)
	}
	return env
}

func quarantine(mac, ip []byte) *fleetv1.Command {
	return &fleetv1.Command{Action: &fleetv1.Command_Quarantine_{Quarantine: &fleetv1.Command_Quarantine{Mac: mac, Ip: ip}}}
}

func result(t *testing.T, r *Runner) *fleetv1.CommandResult {
	t.Helper()
	res := r.Results()
	if len(res) != 1 {
		t.Fatalf("%d results, want 1", len(res))
	}
	r.Told(res)
	if len(r.Results()) != 0 {
		t.Fatal("a told result is told again")
	}
	return res[0]
}

func TestEachOrderIsDoneOnce(t *testing.T) {
	b := newBox(t)
	r := b.runner()
	env := b.order(&fleetv1.Command{Action: &fleetv1.Command_SelfTest_{SelfTest: &fleetv1.Command_SelfTest{}}})
	r.Handle(t.Context(), []*bundlev1.Envelope{env, env})
	if res := result(t, r); res.GetState() != fleetv1.CommandResult_STATE_DONE || res.GetDetail() != "passed" {
		t.Errorf("result %v", res)
	}
	r = b.runner() // restart
	r.Handle(t.Context(), []*bundlev1.Envelope{env})
	if b.tests != 1 {
		t.Errorf("done %d times", b.tests)
	}
	if res := result(t, r); res.GetState() != fleetv1.CommandResult_STATE_DONE {
		t.Errorf("the centre asked again and got %v", res)
	}
}

func TestQuarantineSurvivesRestartAndEndsInTime(t *testing.T) {
	b := newBox(t)
	r := b.runner()
	mac, ip := []byte{2, 0, 0, 0, 0, 9}, []byte{10, 0, 0, 9}
	r.Handle(t.Context(), []*bundlev1.Envelope{b.order(quarantine(mac, nil))})
	result(t, r)
	c := quarantine(nil, ip)
	c.GetQuarantine().Until = timestamppb.New(b.now.Add(time.Minute))
	r.Handle(t.Context(), []*bundlev1.Envelope{b.order(c)})
	result(t, r)
	if len(b.quarantine) != 2 {
		t.Fatalf("in force: %v", b.quarantine)
	}
	b.quarantine = nil
	r = b.runner()
	if len(b.quarantine) != 2 || b.quarantine[0].MAC != [6]byte(mac) || b.quarantine[1].Addr.String() != "10.0.0.9" {
		t.Fatalf("after a restart: %v", b.quarantine)
	}
	b.now = b.now.Add(2 * time.Minute)
	r.expire()
	if len(b.quarantine) != 1 || b.quarantine[0].Text == "" {
		t.Fatalf("after its time: %v", b.quarantine)
	}
	r.Handle(t.Context(), []*bundlev1.Envelope{b.order(&fleetv1.Command{Action: &fleetv1.Command_Release_{Release: &fleetv1.Command_Release{Mac: mac}}})})
	if res := result(t, r); len(b.quarantine) != 0 || res.GetDetail() != "the device is released" {
		t.Errorf("release: %v, %v", b.quarantine, res)
	}
}

func TestFailedQuarantineChangesNothing(t *testing.T) {
	b := newBox(t)
	r := b.runner()
	b.fail = errors.New("the wire says no")
	r.Handle(t.Context(), []*bundlev1.Envelope{b.order(quarantine([]byte{2, 0, 0, 0, 0, 9}, nil))})
	if res := result(t, r); res.GetState() != fleetv1.CommandResult_STATE_FAILED || !strings.Contains(res.GetDetail(), "the wire says no") {
		t.Errorf("result %v", res)
	}
	b.fail = nil
	if r = b.runner(); len(r.Quarantined()) != 0 {
		t.Errorf("half-applied: %v", r.Quarantined())
	}
}

func TestBadOrdersAreRefusedByName(t *testing.T) {
	b := newBox(t)
	_, foreign, _ := ed25519.GenerateKey(rand.Reader)
	for name, tc := range map[string]struct {
		c    *fleetv1.Command
		want string
	}{
		"expired":         {&fleetv1.Command{Issued: timestamppb.New(b.now.Add(-2 * time.Hour)), Expires: timestamppb.New(b.now.Add(-time.Hour))}, "expired"},
		"for another box": {&fleetv1.Command{Audience: sign.Audience(13)}, "audience"},
		"for the fleet":   {&fleetv1.Command{Audience: sign.Fleet}, "audience"},
		"unknown action":  {&fleetv1.Command{}, "does not know"},
		"no device":       {quarantine(nil, nil), "neither"},
		"short MAC":       {quarantine([]byte{1, 2}, nil), "2 bytes"},
		"broadcast MAC":   {quarantine([]byte{255, 255, 255, 255, 255, 255}, nil), "no device"},
		"multicast":       {quarantine(nil, []byte{224, 0, 0, 1}), "no device"},
		"endless bypass":  {&fleetv1.Command{Action: &fleetv1.Command_Bypass_{Bypass: &fleetv1.Command_Bypass{On: true, Seconds: 1 << 20}}}, "1..86400"},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.runner()
			r.Handle(t.Context(), []*bundlev1.Envelope{b.order(tc.c)})
			if res := result(t, r); res.GetState() != fleetv1.CommandResult_STATE_REFUSED || !strings.Contains(res.GetDetail(), tc.want) {
				t.Errorf("result %v, want it to name %q", res, tc.want)
			}
		})
	}
	r := b.runner()
	c := quarantine([]byte{2, 0, 0, 0, 0, 9}, nil)
	c.Id, c.Audience = make([]byte, 16), sign.Audience(12)
	forged, _ := sign.SignCommand(foreign, c)
	r.Handle(t.Context(), []*bundlev1.Envelope{forged, {}})
	if len(r.Results()) != 0 || len(b.quarantine) != 0 {
		t.Error("a forged order had an effect")
	}
}

func TestInterruptedOrderFailsByNameAndIsNotDoneAgain(t *testing.T) {
	b := newBox(t)
	r := b.runner()
	c := &fleetv1.Command{Action: &fleetv1.Command_FactoryReset_{FactoryReset: &fleetv1.Command_FactoryReset{}}}
	env := b.order(c)
	r.note(note{ID: hexID(c), Time: b.now}) // begun, then the power went
	r = b.runner()
	r.Handle(t.Context(), []*bundlev1.Envelope{env})
	if res := result(t, r); res.GetState() != fleetv1.CommandResult_STATE_FAILED || b.resets != 0 {
		t.Errorf("result %v, %d resets", res, b.resets)
	}
}

func hexID(c *fleetv1.Command) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, x := range c.GetId() {
		s.WriteByte(digits[x>>4])
		s.WriteByte(digits[x&15])
	}
	return s.String()
}

func TestDiagnosticIsBounded(t *testing.T) {
	b := newBox(t)
	r := b.runner()
	r.Handle(t.Context(), []*bundlev1.Envelope{b.order(&fleetv1.Command{Action: &fleetv1.Command_Diagnostic_{Diagnostic: &fleetv1.Command_Diagnostic{}}})})
	if res := result(t, r); len(res.GetDetail()) > maxDetail || !strings.HasSuffix(res.GetDetail(), "...") {
		t.Errorf("detail of %d bytes", len(res.GetDetail()))
	}
	if st, err := os.Stat(r.notesPath()); err != nil || st.Size() > 4<<10 {
		t.Errorf("notes keep the whole diagnostic: %v, %v", st.Size(), err)
	}
}

func TestNotesAreBounded(t *testing.T) {
	b := newBox(t)
	r := b.runner()
	for i := range maxNotes + 10 {
		r.notes = append(r.notes, note{ID: strings.Repeat("a", i%40), State: 1, Told: true})
	}
	r.Handle(t.Context(), []*bundlev1.Envelope{b.order(&fleetv1.Command{Action: &fleetv1.Command_SelfTest_{SelfTest: &fleetv1.Command_SelfTest{}}})})
	if len(r.notes) > maxNotes {
		t.Errorf("%d notes", len(r.notes))
	}
}

// FuzzHandle feeds orders with a good signature and hostile content.
func FuzzHandle(f *testing.F) {
	b, _ := proto.Marshal(quarantine([]byte{2, 0, 0, 0, 0, 9}, []byte{10, 0, 0, 9}))
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := &fleetv1.Command{}
		if proto.Unmarshal(raw, c) != nil {
			return
		}
		b := newBox(t)
		r := b.runner()
		env, err := sign.SignCommand(b.key, c)
		if err != nil {
			return
		}
		r.Handle(t.Context(), []*bundlev1.Envelope{env})
		r.Results()
	})
}
