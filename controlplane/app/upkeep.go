package app

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/command"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
)

// How often the parts of the upkeep run.
const (
	stepInterval    = 2 * time.Second
	expireInterval  = 30 * time.Second
	refreshInterval = 24 * time.Hour
)

// upkeep does what is due by the clock: steps of rollouts, ends of overrides, bundles that must be signed again. Every replica runs
// it; the database's locks keep them from doing a thing twice.
type upkeep struct {
	publisher *appliance.Publisher
	rollouts  *rollout.Rollouts
	commands  *command.Commands
	log       hclog.Logger
}

func (u *upkeep) run(ctx context.Context) error {
	step, expire, refresh := time.NewTicker(stepInterval), time.NewTicker(expireInterval), time.NewTicker(refreshInterval)
	defer step.Stop()
	defer expire.Stop()
	defer refresh.Stop()
	for {
		var err error
		var what string
		select {
		case <-ctx.Done():
			return nil
		case <-step.C:
			what, err = "step rollouts", u.rollouts.Step(ctx)
		case <-expire.C:
			what = "expire overrides and commands"
			_, err = u.publisher.ExpireOverrides(ctx)
			err = errors.Join(err, u.commands.Expire(ctx))
		case <-refresh.C:
			what, err = "refresh bundles", u.publisher.Refresh(ctx)
		}
		if err != nil && ctx.Err() == nil {
			u.log.Warn("upkeep failed, trying again", "what", what, "err", err)
		}
	}
}
