package rpc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/internal/command"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// isolate are the roles that may cut a device off and let it back; the other commands change the appliance itself.
var isolate = []account.Role{account.Lead, account.Manager, account.Admin}

func (o *operatorService) SendCommand(ctx context.Context, req *operatorv1.SendCommandRequest) (*operatorv1.SendCommandResponse, error) {
	roles := change
	if req.GetAction() == command.Quarantine || req.GetAction() == command.Release {
		roles = isolate
	}
	if !slices.Contains(roles, caller(ctx).Role) {
		return nil, fmt.Errorf("%w: you are %s, %.20q needs one of %v", errRole, caller(ctx).Role, req.GetAction(), roles)
	}
	const most = int64(10 * 365 * 24 * 3600)
	if req.GetForS() < 0 || req.GetForS() > most || req.GetLifeS() < 0 || req.GetLifeS() > most {
		return nil, fmt.Errorf("%w: for_s and life_s: want 0 to %d", errRequest, most)
	}
	c, err := o.s.cfg.Commands.Send(ctx, caller(ctx).Name, command.Order{
		Appliance: req.GetApplianceId(), Action: req.GetAction(), MAC: req.GetMac(), IP: req.GetIp(), On: req.GetOn(),
		For: time.Duration(req.GetForS()) * time.Second, Life: time.Duration(req.GetLifeS()) * time.Second, Reason: req.GetReason(),
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.SendCommandResponse{Command: commandMessage(c)}, nil
}

func (o *operatorService) DecideCommand(ctx context.Context, req *operatorv1.DecideCommandRequest) (*operatorv1.DecideCommandResponse, error) {
	if err := o.s.cfg.Commands.Decide(ctx, caller(ctx).Name, req.GetId(), req.GetApprove()); err != nil {
		return nil, err
	}
	return &operatorv1.DecideCommandResponse{}, nil
}

func (o *operatorService) ListCommands(ctx context.Context, req *operatorv1.ListCommandsRequest) (*operatorv1.ListCommandsResponse, error) {
	limit := int32(100)
	if req.GetPageSize() != 0 {
		limit = req.GetPageSize()
	}
	if limit < 1 || limit > maxPage {
		return nil, fmt.Errorf("%w: page_size %d, want 1 to %d", errRequest, limit, maxPage)
	}
	out := &operatorv1.ListCommandsResponse{}
	err := o.s.cfg.DB.Fleet(ctx, caller(ctx).Name, func(tx pgx.Tx) error {
		list, err := command.List(ctx, tx, req.GetApplianceId(), limit)
		for _, c := range list {
			out.Commands = append(out.Commands, commandMessage(c))
		}
		return err
	})
	return out, err
}

func commandMessage(c command.Command) *operatorv1.Command {
	m := &operatorv1.Command{
		Id: c.ID, ClinicId: c.Clinic, ApplianceId: c.Appliance, Action: c.Action, Detail: c.Detail, State: c.State, Result: c.Result,
		IssuedBy: c.IssuedBy, ApprovedBy: c.ApprovedBy, Reason: c.Reason, Created: timestamppb.New(c.Created), Expires: timestamppb.New(c.Expires),
	}
	if !c.Settled.IsZero() {
		m.Settled = timestamppb.New(c.Settled)
	}
	return m
}

// maxResults bounds what one report may bring: no more commands than that can wait.
const maxResults = 64

// commandResults reads what a box answered.
func commandResults(list []*fleetv1.CommandResult) ([]command.Result, error) {
	if len(list) > maxResults {
		return nil, fmt.Errorf("%w: %d results of commands, at most %d", errRequest, len(list), maxResults)
	}
	var out []command.Result
	for _, r := range list {
		state := ""
		switch r.GetState() {
		case fleetv1.CommandResult_STATE_DONE:
			state = "done"
		case fleetv1.CommandResult_STATE_REFUSED:
			state = "refused"
		case fleetv1.CommandResult_STATE_FAILED:
			state = "failed"
		default:
			return nil, fmt.Errorf("%w: result of a command with state %v", errRequest, r.GetState())
		}
		out = append(out, command.Result{ID: r.GetId(), State: state, Detail: r.GetDetail()})
	}
	return out, nil
}
