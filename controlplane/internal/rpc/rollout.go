package rpc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
	"github.com/kadomori/kadomori/controlplane/internal/setting"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

func (o *operatorService) GetSettings(ctx context.Context, _ *operatorv1.GetSettingsRequest) (*operatorv1.GetSettingsResponse, error) {
	out := &operatorv1.GetSettingsResponse{}
	err := o.s.cfg.DB.As(ctx, nil, func(tx pgx.Tx) (err error) {
		out.Settings, err = setting.Get(ctx, tx)
		return err
	})
	return out, err
}

func (o *operatorService) SetSettings(ctx context.Context, req *operatorv1.SetSettingsRequest) (*operatorv1.SetSettingsResponse, error) {
	err := o.s.cfg.DB.As(ctx, nil, func(tx pgx.Tx) error { return setting.Set(ctx, tx, caller(ctx).Name, req.GetSettings()) })
	if err != nil {
		return nil, err
	}
	return &operatorv1.SetSettingsResponse{}, nil
}

func (o *operatorService) ListPlans(ctx context.Context, _ *operatorv1.ListPlansRequest) (*operatorv1.ListPlansResponse, error) {
	out := &operatorv1.ListPlansResponse{}
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		q, err := tx.Query(ctx, `SELECT name, false, revision, author, reason, (SELECT count(*) FROM clinic WHERE plan_id = p.id)::int, updated_at FROM plan p
			UNION ALL SELECT name, true, revision, author, reason, (SELECT count(*) FROM clinic WHERE group_id = g.id)::int, updated_at FROM policy_group g
			ORDER BY 2, 1`)
		if err != nil {
			return fmt.Errorf("list plans: %w", err)
		}
		out.Plans, err = pgx.CollectRows(q, func(r pgx.CollectableRow) (*operatorv1.ListPlansResponse_Plan, error) {
			m := &operatorv1.ListPlansResponse_Plan{}
			var revision int64
			var updated time.Time
			err := r.Scan(&m.Name, &m.Group, &revision, &m.Author, &m.Reason, &m.Clinics, &updated)
			m.Revision, m.Updated = uint64(revision), timestamppb.New(updated)
			return m, err
		})
		return err
	})
	return out, err
}

func (o *operatorService) ApplyGroup(ctx context.Context, req *operatorv1.ApplyGroupRequest) (*operatorv1.ApplyGroupResponse, error) {
	c, err := o.s.cfg.Publisher.ApplyGroup(ctx, policy.Group{
		Name: req.GetName(), Document: req.GetYaml(), Revision: int64(req.GetBaseRevision()), Author: caller(ctx).Name, Reason: strings.TrimSpace(req.GetReason()),
	}, req.GetDryRun())
	if err != nil {
		return nil, err
	}
	return &operatorv1.ApplyGroupResponse{Revision: uint64(c.Revision), Clinics: int32(c.Clinics), Diff: c.Diff}, nil
}

func (o *operatorService) MoveClinic(ctx context.Context, req *operatorv1.MoveClinicRequest) (*operatorv1.MoveClinicResponse, error) {
	c, err := o.s.cfg.Publisher.MoveClinic(ctx, caller(ctx).Name, req.GetClinicId(), req.GetPlan(), req.GetGroup(), req.GetReason(), req.GetDryRun())
	if err != nil {
		return nil, err
	}
	return &operatorv1.MoveClinicResponse{Diff: c.Diff}, nil
}

func (o *operatorService) CreateRollout(ctx context.Context, req *operatorv1.CreateRolloutRequest) (*operatorv1.CreateRolloutResponse, error) {
	order := rollout.Order{Plan: req.GetPlan(), Reason: strings.TrimSpace(req.GetReason()), Spec: specOf(req.GetSpec())}
	switch req.GetKind() {
	case operatorv1.RolloutKind_ROLLOUT_KIND_POLICY:
		order.Kind = rollout.Policy
	case operatorv1.RolloutKind_ROLLOUT_KIND_SIGNATURE:
		order.Kind = rollout.Signature
	default:
		return nil, fmt.Errorf("%w: kind: want policy or signature", errRequest)
	}
	ro, err := o.s.cfg.Rollouts.Create(ctx, caller(ctx).Name, order)
	if err != nil {
		return nil, err
	}
	return &operatorv1.CreateRolloutResponse{Rollout: rolloutMessage(&ro)}, nil
}

func (o *operatorService) ControlRollout(ctx context.Context, req *operatorv1.ControlRolloutRequest) (*operatorv1.ControlRolloutResponse, error) {
	action, ok := map[operatorv1.RolloutAction]string{
		operatorv1.RolloutAction_ROLLOUT_ACTION_START: rollout.Start, operatorv1.RolloutAction_ROLLOUT_ACTION_PAUSE: rollout.Pause,
		operatorv1.RolloutAction_ROLLOUT_ACTION_RESUME: rollout.Resume, operatorv1.RolloutAction_ROLLOUT_ACTION_ABORT: rollout.Abort,
		operatorv1.RolloutAction_ROLLOUT_ACTION_ROLLBACK: rollout.Rollback,
	}[req.GetAction()]
	if !ok {
		return nil, fmt.Errorf("%w: action: want start, pause, resume, abort or rollback", errRequest)
	}
	if err := o.s.cfg.Rollouts.Control(ctx, caller(ctx).Name, req.GetId(), action, strings.TrimSpace(req.GetReason())); err != nil {
		return nil, err
	}
	m, err := o.rollout(ctx, req.GetId())
	return &operatorv1.ControlRolloutResponse{Rollout: m}, err
}

func (o *operatorService) GetRollout(ctx context.Context, req *operatorv1.GetRolloutRequest) (*operatorv1.GetRolloutResponse, error) {
	m, err := o.rollout(ctx, req.GetId())
	return &operatorv1.GetRolloutResponse{Rollout: m}, err
}

func (o *operatorService) rollout(ctx context.Context, id int64) (m *operatorv1.Rollout, err error) {
	err = o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		ro, err := o.s.cfg.Rollouts.Get(ctx, tx, id)
		if err == nil {
			m = rolloutMessage(ro)
		}
		return err
	})
	return m, err
}

func (o *operatorService) ListRollouts(ctx context.Context, req *operatorv1.ListRolloutsRequest) (*operatorv1.ListRolloutsResponse, error) {
	limit := int32(50)
	if req.GetPageSize() != 0 {
		limit = req.GetPageSize()
	}
	if limit < 1 || limit > maxPage {
		return nil, fmt.Errorf("%w: page_size %d, want 1 to %d", errRequest, limit, maxPage)
	}
	out := &operatorv1.ListRolloutsResponse{}
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		list, err := o.s.cfg.Rollouts.List(ctx, tx, limit)
		for _, ro := range list {
			out.Rollouts = append(out.Rollouts, rolloutMessage(ro))
		}
		return err
	})
	return out, err
}

func specOf(m *operatorv1.RolloutSpec) rollout.Spec {
	g := m.GetGates()
	out := rollout.Spec{
		Soak: time.Duration(m.GetSoakS()) * time.Second, Grace: time.Duration(m.GetGraceS()) * time.Second,
		Emergency: strings.TrimSpace(m.GetEmergency()), NoAutoRollback: m.GetNoAutoRollback(),
		Gates: rollout.Gates{
			FailedPercent: g.GetMaxFailedPercent(), UnprotectedMinutes: g.GetMaxUnprotectedMinutes(), BlockRatio: g.GetMaxBlockRatio(), AlertRatio: g.GetMaxAlertRatio(),
		},
	}
	for _, r := range m.GetRings() {
		out.Rings = append(out.Rings, rollout.Ring{Name: r.GetName(), Clinics: r.GetClinicIds(), Percent: r.GetPercent()})
	}
	return out
}

func rolloutMessage(ro *rollout.Rollout) *operatorv1.Rollout {
	m := &operatorv1.Rollout{
		Id: ro.ID, Kind: operatorv1.RolloutKind_ROLLOUT_KIND_POLICY, Subject: ro.Subject, FromVersion: uint64(ro.From), ToVersion: uint64(ro.To), State: ro.State,
		Ring: int32(ro.Ring), Detail: ro.Detail, Author: ro.Author, Reason: ro.Reason, Created: timestamppb.New(ro.Created), Changed: timestamppb.New(ro.Changed),
		Spec: &operatorv1.RolloutSpec{
			SoakS: int64(ro.Spec.Soak / time.Second), GraceS: int64(ro.Spec.Grace / time.Second), Emergency: ro.Spec.Emergency, NoAutoRollback: ro.Spec.NoAutoRollback,
			Gates: &operatorv1.RolloutSpec_Gates{
				MaxFailedPercent: ro.Spec.Gates.FailedPercent, MaxUnprotectedMinutes: ro.Spec.Gates.UnprotectedMinutes,
				MaxBlockRatio: ro.Spec.Gates.BlockRatio, MaxAlertRatio: ro.Spec.Gates.AlertRatio,
			},
		},
	}
	if ro.Kind == rollout.Signature {
		m.Kind = operatorv1.RolloutKind_ROLLOUT_KIND_SIGNATURE
	}
	for _, r := range ro.Spec.Rings {
		m.Spec.Rings = append(m.Spec.Rings, &operatorv1.RolloutSpec_Ring{Name: r.Name, ClinicIds: r.Clinics, Percent: r.Percent})
		m.Rings = append(m.Rings, &operatorv1.Rollout_RingState{Name: r.Name})
	}
	for _, g := range ro.Gates {
		m.Gates = append(m.Gates, &operatorv1.Rollout_GateState{Name: g.Name, Value: g.Value, Limit: g.Limit, Passed: g.Passed})
	}
	for _, t := range ro.Targets {
		x := &operatorv1.Rollout_Target{ApplianceId: t.Appliance, ClinicId: t.Clinic, Ring: int32(t.Ring), State: t.State, Detail: t.Detail}
		if !t.Applied.IsZero() {
			x.Applied = timestamppb.New(t.Applied)
		}
		if !t.Settled.IsZero() {
			x.Settled = timestamppb.New(t.Settled)
		}
		m.Targets = append(m.Targets, x)
		if t.Ring >= len(m.Rings) {
			continue
		}
		ring := m.Rings[t.Ring]
		switch t.State {
		case "waiting":
			ring.Waiting++
		case "applied":
			ring.Applied++
		case "ok":
			ring.Ok++
		case "failed":
			ring.Failed++
		case "offline":
			ring.Offline++
		case "reverted":
			ring.Reverted++
		}
	}
	return m
}
