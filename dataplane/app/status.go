package app

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"

	"github.com/kadomori/kadomori/dataplane/internal/command"
	"github.com/kadomori/kadomori/dataplane/internal/engine"
	"github.com/kadomori/kadomori/dataplane/internal/event"
	"github.com/kadomori/kadomori/dataplane/internal/fleet"
	"github.com/kadomori/kadomori/dataplane/internal/spool"
	"github.com/kadomori/kadomori/dataplane/internal/uplink"
	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

// Status is what `kadomori-agent status --output json` prints. Names stay; new ones may come.
type Status struct {
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Time      time.Time `json:"time"`
	Mode      string    `json:"mode"`
	WireMode  string    `json:"wire_mode"`
	Clinic    int32     `json:"clinic_id"`    // 0: not enrolled
	Appliance int32     `json:"appliance_id"` // 0: not enrolled
	Enrolled  bool      `json:"enrolled"`
	// Enrolment says why the box is not enrolled; empty when it is.
	Enrolment string    `json:"enrolment,omitempty"`
	NotAfter  time.Time `json:"certificate_not_after,omitzero"`
	// KeyInTPM says that the private key is in a TPM.
	KeyInTPM  bool   `json:"key_in_tpm"`
	StreamID  string `json:"stream_id"`
	LastSeq   uint64 `json:"last_seq"`
	Committed uint64 `json:"committed_through"`
	// Uplink and Fleet are connected, disconnected, or none.
	Uplink        string `json:"uplink"`
	ControlPlane  string `json:"control_plane"`
	PolicyVersion uint64 `json:"policy_version"`
	SigVersion    uint64 `json:"signature_version"`
	RulesLoaded   int    `json:"rules_loaded"`
	RulesRefused  int    `json:"rules_refused"`
	ClinicName    string `json:"clinic_name,omitempty"`
	// Refused are bundles that the control plane wants and this box does not take.
	Refused []RefusedBundle `json:"refused,omitempty"`
	Drops   []xdp.DropCount `json:"drops"`
	// UnprotectedMs is the time since start in which traffic was forwarded without inspection; Cause is of now, empty when protected.
	UnprotectedMs    int64           `json:"unprotected_ms"`
	UnprotectedCause string          `json:"unprotected_cause,omitempty"`
	Wire             xdp.Status      `json:"wire"`
	Engine           engine.Stats    `json:"engine"`
	Spool            spool.Stats     `json:"spool"`
	SpoolError       string          `json:"spool_error,omitempty"`
	Events           event.Stats     `json:"events"`
	UplinkStats      *uplink.Stats   `json:"uplink_stats,omitempty"`
	FleetStats       *fleet.Stats    `json:"control_plane_stats,omitempty"`
	SelfTest         *selfTestResult `json:"self_test,omitempty"`
	// Quarantined are the devices that are cut off by order.
	Quarantined []command.Device `json:"quarantined"`
}

// RefusedBundle is a wanted bundle that is not active.
type RefusedBundle struct {
	Kind    string `json:"kind"`
	Version uint64 `json:"version"`
	Reason  string `json:"reason"`
}

// status gathers the state of all parts.
func (a *agent) status() Status {
	sp := a.spool.Stats()
	s := Status{
		Version: Version, Started: a.started, Time: time.Now(), Mode: a.cfg.Mode, WireMode: a.wireMode(),
		StreamID: hex.EncodeToString(sp.Stream[:]), LastSeq: sp.Next - 1, Committed: sp.Committed, Uplink: "none", ControlPlane: "none",
		Spool: sp, Events: a.sink.Stats(), Engine: a.engine.Stats(), SelfTest: a.selfTest.Load(), Drops: []xdp.DropCount{},
	}
	if sp.Err != nil {
		s.SpoolError = sp.Err.Error()
	}
	w := a.wireStatus()
	s.Wire = w
	s.Drops = append(s.Drops, w.Drops...)
	s.UnprotectedMs, s.UnprotectedCause = w.Unprotected.Milliseconds(), w.UnprotectedCause
	if n := w.Loop.Dropped; n.Packets > 0 {
		s.Drops = append(s.Drops, xdp.DropCount{Reason: "engine", Count: n})
	}
	if c := a.inForce.Load(); c != nil {
		s.RulesLoaded, s.RulesRefused, s.ClinicName = c.Loaded, len(c.Refused), c.Policy.GetClinicName()
	}
	a.mu.Lock()
	id, m, fc, up, cr := a.identity, a.policy, a.fleet, a.uplink, a.commands
	s.Enrolment = a.linkErr
	a.mu.Unlock()
	if id != nil {
		s.Enrolled, s.Enrolment, s.KeyInTPM = true, "", id.InTPM()
		s.Clinic, s.Appliance, s.NotAfter = id.Clinic(), id.Appliance(), id.NotAfter()
	} else {
		s.Enrolment = cmp.Or(s.Enrolment, "waiting for the control plane")
	}
	if m != nil {
		for _, b := range m.State() {
			kind := "policy"
			if b.GetKind() == bundlev1.Kind_KIND_SIGNATURE {
				kind, s.SigVersion = "signature", b.GetActiveVersion()
			} else {
				s.PolicyVersion = b.GetActiveVersion()
			}
			if b.GetRefusedReason() != "" {
				s.Refused = append(s.Refused, RefusedBundle{kind, b.GetRefusedVersion(), b.GetRefusedReason()})
			}
		}
	}
	s.Quarantined = []command.Device{}
	if cr != nil {
		s.Quarantined = append(s.Quarantined, cr.Quarantined()...)
	}
	if fc != nil {
		st := fc.Stats()
		s.FleetStats, s.ControlPlane = &st, connected(st.Connected)
	}
	if up != nil {
		st := up.Stats()
		s.UplinkStats, s.Uplink = &st, connected(st.Connected)
	}
	slices.SortFunc(s.Drops, func(a, b xdp.DropCount) int { return cmp.Compare(b.Packets, a.Packets) })
	return s
}

func connected(ok bool) string {
	if ok {
		return "connected"
	}
	return "disconnected"
}

// serveStatus answers the other commands on a unix socket that only root may use.
func (a *agent) serveStatus(ctx context.Context) error {
	path := a.cfg.socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Warn("status is not served", "err", err)
		<-ctx.Done()
		return nil
	}
	l, err := listenUnix(ctx, path)
	if err != nil {
		// A box with a read-only disk still protects.
		a.log.Warn("status is not served", "err", err)
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.status()) })
	mux.HandleFunc("POST /self-test", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.runSelfTest()) })
	mux.HandleFunc("POST /bypass", func(w http.ResponseWriter, r *http.Request) {
		var req bypassRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&req); err != nil {
			http.Error(w, "bypass: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := a.wire.Bypass(req.On, time.Duration(req.Seconds)*time.Second); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.log.Warn("bypass set by hand", "on", req.On, "seconds", req.Seconds)
		reply(w, a.status())
	})
	return serve(ctx, l, mux)
}

// bypassRequest is the body of POST /bypass.
type bypassRequest struct {
	On      bool `json:"on"`
	Seconds int  `json:"seconds"`
}

// listenUnix makes the socket with mode 0600 from its first moment on: in a folder of its own, moved when it is closed to others.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".sock-")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // empty by then
	tmp := filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	err = os.Chmod(tmp, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// serve runs an HTTP server until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(sctx); err != nil {
		srv.Close() //nolint:errcheck // connections are cut
	}
	<-done //nolint:errcheck // it says that the server was shut down
	return nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) //nolint:errcheck,errchkjson // the client went away
}
