package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/command"
	"github.com/kadomori/kadomori/controlplane/internal/enrol"
	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
)

var errRevokedNow = status.Error(codes.PermissionDenied, "appliance is not admitted any more")

type enrolService struct {
	enrolv1.UnimplementedEnrolServiceServer
	s *Server
}

func (e *enrolService) Enrol(ctx context.Context, req *enrolv1.EnrolRequest) (*enrolv1.EnrolResponse, error) {
	hw := req.GetHardware()
	res, err := e.s.cfg.Enrolment.Enrol(ctx, peerAddress(ctx), req.GetClaimSecret(), req.GetCsr(), enrol.Hardware{Serial: hw.GetSerial(), Model: hw.GetModel(), Version: hw.GetVersion()})
	if err != nil {
		return nil, err
	}
	out := &enrolv1.EnrolResponse{}
	switch res.State {
	case appliance.Approved:
		out.State, out.Identity = enrolv1.State_STATE_APPROVED, e.identity(res.Identity)
	case appliance.Pending:
		out.State = enrolv1.State_STATE_PENDING
	case appliance.Rejected:
		out.State = enrolv1.State_STATE_REJECTED
	default:
		return nil, fmt.Errorf("enrolment answered with state %q", res.State)
	}
	return out, nil
}

func (e *enrolService) Renew(ctx context.Context, req *enrolv1.RenewRequest) (*enrolv1.RenewResponse, error) {
	id, err := e.s.cfg.Enrolment.Renew(ctx, certificate(ctx), req.GetCsr())
	if err != nil {
		return nil, err
	}
	return &enrolv1.RenewResponse{Identity: e.identity(id)}, nil
}

func (e *enrolService) identity(id *enrol.Identity) *enrolv1.Identity {
	return &enrolv1.Identity{
		ClinicId: id.Clinic, ApplianceId: id.Appliance, Certificates: id.Certificates, Roots: [][]byte{e.s.cfg.Authority.Root().Raw},
		FleetAddress: e.s.cfg.FleetAddress, NatsUrl: e.s.cfg.NATSURL, BundleKeys: [][]byte{e.s.cfg.Bundles.PublicKey()},
	}
}

type fleetService struct {
	fleetv1.UnimplementedFleetServiceServer
	s *Server
}

func (f *fleetService) Watch(_ *fleetv1.WatchRequest, stream grpc.ServerStreamingServer[fleetv1.WatchResponse]) error {
	id := box(stream.Context())
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	w := f.s.hub.join(id, peerHost(stream.Context()), cancel)
	defer f.s.hub.leave(w)
	f.s.log.Debug("appliance connected", "clinic", id.Clinic, "appliance", id.Appliance)

	// What was committed before this connection.
	var held []appliance.Committed
	err := f.s.cfg.DB.As(ctx, []int32{id.Clinic}, func(tx pgx.Tx) (err error) {
		held, err = appliance.ReadCommitted(ctx, tx, id.Appliance)
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range held {
		f.s.hub.committed(id.Appliance, c.Stream, c.Through)
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return watchEnd(ctx)
		case <-w.urgent:
		case <-w.lazy:
			pause.Reset(ackPause)
			select {
			case <-ctx.Done():
				return watchEnd(ctx)
			case <-w.urgent:
			case <-pause.C:
			}
		}
		if resp := w.take(f.s.now()); resp != nil {
			if err := stream.Send(resp); err != nil {
				return err
			}
			f.s.metrics.pushes.Inc()
		}
	}
}

func watchEnd(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, errReplaced) || errors.Is(err, errStopping) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}

// take returns what was not sent yet, or nil.
func (w *watcher) take(now time.Time) *fleetv1.WatchResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.fresh && (len(w.acked) == 0 || w.desired.Revision == 0) {
		return nil
	}
	resp := &fleetv1.WatchResponse{Revision: w.desired.Revision, ServerTime: timestamppb.New(now)}
	if w.fresh {
		for _, env := range []*bundlev1.Envelope{w.desired.Policy, w.desired.Signatures} {
			if env != nil {
				resp.Bundles = append(resp.Bundles, env)
			}
		}
		resp.Commands = w.desired.Commands
		w.fresh = false
	}
	for stream := range w.acked {
		resp.Committed = append(resp.Committed, &fleetv1.Committed{StreamId: stream[:], Through: w.committed[stream]})
	}
	clear(w.acked)
	return resp
}

func (f *fleetService) FetchBundle(req *fleetv1.FetchBundleRequest, stream grpc.ServerStreamingServer[fleetv1.FetchBundleResponse]) error {
	ctx := stream.Context()
	id := box(ctx)
	select {
	case f.s.fetches <- struct{}{}:
		defer func() { <-f.s.fetches }()
	case <-ctx.Done():
		return ctx.Err()
	}
	content, err := f.s.cfg.Bundles.Content(ctx, f.s.cfg.DB, id.Clinic, id.Appliance, req.GetSha256())
	if err != nil {
		return err
	}
	if req.GetOffset() > uint64(len(content)) {
		return status.Errorf(codes.OutOfRange, "offset %d is beyond the end %d", req.GetOffset(), len(content))
	}
	for rest := content[req.GetOffset():]; len(rest) > 0; {
		n := min(len(rest), chunkSize)
		if err := stream.Send(&fleetv1.FetchBundleResponse{Chunk: rest[:n]}); err != nil {
			return err
		}
		f.s.metrics.fetched.Add(float64(n))
		rest = rest[n:]
	}
	return nil
}

func (f *fleetService) ReportState(ctx context.Context, req *fleetv1.ReportStateRequest) (*fleetv1.ReportStateResponse, error) {
	id := box(ctx)
	now := f.s.now()
	r := appliance.Report{Version: req.GetAgentVersion(), WireMode: req.GetWireMode()}
	if req.GetBoxTime() != nil {
		if err := req.GetBoxTime().CheckValid(); err != nil {
			return nil, fmt.Errorf("%w: box_time: %w", errRequest, err)
		}
		r.ClockOffset = req.GetBoxTime().AsTime().Sub(now)
	}
	for _, b := range req.GetBundles() {
		var name string
		switch b.GetKind() {
		case bundlev1.Kind_KIND_POLICY:
			name, r.PolicyVersion = "policy", b.GetActiveVersion()
		case bundlev1.Kind_KIND_SIGNATURE:
			name, r.SignatureVersion = "signatures", b.GetActiveVersion()
		case bundlev1.Kind_KIND_UNSPECIFIED:
			continue
		default:
			continue // a newer agent may report kinds this server does not know
		}
		if b.GetRefusedReason() != "" {
			r.Refused += fmt.Sprintf("%s %d: %s; ", name, b.GetRefusedVersion(), b.GetRefusedReason())
		} else if f.s.hub.get(id.Appliance).drifted(b) {
			r.Refused += fmt.Sprintf("%s%s %d runs with another content; ", appliance.DriftMark, name, b.GetActiveVersion())
		}
	}
	results, err := commandResults(req.GetCommands())
	if err != nil {
		return nil, err
	}
	var held []appliance.Committed
	err = f.s.cfg.DB.As(ctx, []int32{id.Clinic}, func(tx pgx.Tx) (err error) {
		if err := appliance.StoreReport(ctx, tx, id.Appliance, r, now); err != nil {
			return err
		}
		if held, err = appliance.ReadCommitted(ctx, tx, id.Appliance); err != nil {
			return err
		}
		return command.Settle(ctx, tx, id.Clinic, id.Appliance, results, now)
	})
	if err != nil {
		return nil, err
	}
	resp := &fleetv1.ReportStateResponse{ServerTime: timestamppb.New(now)}
	for _, c := range held {
		resp.Committed = append(resp.Committed, &fleetv1.Committed{StreamId: c.Stream[:], Through: c.Through})
	}
	return resp, nil
}

// drifted says whether the wanted version runs with another content than the wanted.
func (w *watcher) drifted(b *fleetv1.BundleState) bool {
	if w == nil || len(b.GetActiveSha256()) == 0 {
		return false
	}
	w.mu.Lock()
	env := w.desired.Policy
	if b.GetKind() == bundlev1.Kind_KIND_SIGNATURE {
		env = w.desired.Signatures
	}
	w.mu.Unlock()
	var m bundlev1.Manifest
	if env == nil || proto.Unmarshal(env.GetPayload(), &m) != nil {
		return false
	}
	return m.GetVersion() == b.GetActiveVersion() && string(m.GetSha256()) != string(b.GetActiveSha256())
}
