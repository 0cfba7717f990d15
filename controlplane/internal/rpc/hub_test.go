package rpc

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/credentials"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
)

// nowhere is a database that is gone.
type nowhere struct{}

func (nowhere) As(context.Context, []int32, func(pgx.Tx) error) error { return errors.New("gone") }

func (nowhere) Fleet(context.Context, string, func(pgx.Tx) error) error { return errors.New("gone") }

func testHub(now *time.Time) *hub {
	s := &Server{cfg: Config{DB: nowhere{}, Registry: pki.NewRegistry(nowhere{}, nil), Disconnect: func(int32) {}}, log: hclog.NewNullLogger(), now: func() time.Time { return *now }, metrics: newMetrics(nil)}
	s.hub = newHub(s)
	return s.hub
}

func TestOneKeyAtTwoPlacesIsNoticed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := testHub(&now)
	cancel := func(error) {}
	clones := func() float64 {
		var m dto.Metric
		if err := h.s.metrics.clones.Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetCounter().GetValue()
	}
	box := pki.Identity{Clinic: 1, Appliance: 7}
	// A box whose address changes once, and one that reconnects from the same place, are no clones.
	for range 10 {
		h.join(box, "192.0.2.1", cancel)
	}
	h.join(box, "192.0.2.2", cancel)
	if clones() != 0 {
		t.Error("a box that moved is called a clone")
	}
	for i := range 6 {
		h.join(box, []string{"192.0.2.1", "192.0.2.2"}[i%2], cancel)
	}
	if clones() != 1 {
		t.Errorf("two places were told %v times, want once", clones())
	}
	now = now.Add(cloneRepeat + time.Minute)
	for i := range 6 {
		h.join(box, []string{"192.0.2.1", "192.0.2.2"}[i%2], cancel)
	}
	if clones() != 2 {
		t.Errorf("an hour later told %v times, want twice", clones())
	}
}

func TestNewerStateOverwritesOlderAndNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := testHub(&now)
	w := h.join(pki.Identity{Clinic: 1, Appliance: 7}, "a", func(error) {})
	h.committed(7, [16]byte{1}, 10)
	if w.take(now) != nil {
		t.Error("something was sent before the desired state is known")
	}
	w.mu.Lock()
	w.desired, w.fresh = appliance.Desired{Revision: 3}, true
	w.mu.Unlock()
	h.committed(7, [16]byte{1}, 25)
	h.committed(7, [16]byte{1}, 20) // older, from another worker
	first := w.take(now)
	if first.GetRevision() != 3 || len(first.GetCommitted()) != 1 || first.GetCommitted()[0].GetThrough() != 25 {
		t.Errorf("sent %v", first)
	}
	if again := w.take(now); again != nil {
		t.Errorf("sent twice: %v", again)
	}
	h.committed(7, [16]byte{1}, 26)
	if next := w.take(now); next.GetRevision() != 3 || len(next.GetBundles()) != 0 || next.GetCommitted()[0].GetThrough() != 26 {
		t.Errorf("sent %v", next)
	}
}

func TestLaterStreamReplacesTheEarlierAndRevocationCutsIt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := testHub(&now)
	var why [2]error
	id := pki.Identity{Clinic: 1, Appliance: 7}
	first := h.join(id, "a", func(err error) { why[0] = err })
	second := h.join(id, "a", func(err error) { why[1] = err })
	if !errors.Is(why[0], errReplaced) || why[1] != nil {
		t.Errorf("ended with %v", why)
	}
	h.leave(first) // its end must not take the second away
	if h.get(7) != second {
		t.Error("the second stream is gone")
	}
	h.apply(appliance.Notice{Appliances: []int32{7}, Forget: true, Disconnect: true})
	if !errors.Is(why[1], errRevokedNow) {
		t.Errorf("revoked stream ended with %v", why[1])
	}
	h.closeStreams()
	var late error
	h.join(id, "a", func(err error) { late = err })
	if !errors.Is(late, errStopping) {
		t.Errorf("stream after the stop ended with %v", late)
	}
}

// slow is a handshake that takes as long as the test wants.
type slow struct {
	credentials.TransportCredentials
	running, most *atomic.Int32
	release       chan struct{}
}

func (s slow) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if n := s.running.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	<-s.release
	s.running.Add(-1)
	return nil, nil, nil
}

func TestFewHandshakesRunAtOnceAndAllGetTheirTurn(t *testing.T) {
	t.Parallel()
	s := slow{running: &atomic.Int32{}, most: &atomic.Int32{}, release: make(chan struct{})}
	c := pace(s)
	var all sync.WaitGroup
	for range 4 * maxHandshakes {
		all.Go(func() {
			if _, _, err := c.ServerHandshake(nil); err != nil {
				t.Error(err)
			}
		})
	}
	for range 4 * maxHandshakes {
		s.release <- struct{}{}
	}
	all.Wait()
	if n := s.most.Load(); n > maxHandshakes || n < 1 {
		t.Errorf("%d handshakes ran at once, limit %d", n, maxHandshakes)
	}
}
