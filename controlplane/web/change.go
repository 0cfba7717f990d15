package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/enrol"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
	"github.com/kadomori/kadomori/controlplane/web/page"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// Appliances admits boxes and ends their identity; *appliance.Publisher does.
type Appliances interface {
	Approve(ctx context.Context, tx pgx.Tx, actor string, id int32) error
	Revoke(ctx context.Context, tx pgx.Tx, actor string, id int32, reason string) error
}

// Claims issues claims; *enrol.Enrolment does.
type Claims interface {
	CreateClaim(ctx context.Context, actor string, o enrol.Order) (enrol.Issued, error)
}

// Rollouts shows and steers rollouts; *rollout.Rollouts does.
type Rollouts interface {
	List(ctx context.Context, tx pgx.Tx, limit int32) ([]*rollout.Rollout, error)
	Get(ctx context.Context, tx pgx.Tx, id int64) (*rollout.Rollout, error)
	Control(ctx context.Context, actor string, id int64, action, reason string) error
}

// Who may change the fleet, as the command line's rules have it; taking everything back wants an approver.
var (
	mayChange   = []string{"operator", "admin"}
	mayAdmit    = []string{"operator", "approver", "admin"}
	mayTakeBack = []string{"approver", "admin"}
)

func (c *Console) enrolment(q *request) error { return c.showEnrolment(q, "", http.StatusOK) }

func (c *Console) showEnrolment(q *request, problem string, status int) error {
	ids, _, err := scope(q)
	if err != nil {
		return err
	}
	v := page.Enrolment{Problem: problem, CanClaim: c.cfg.Claims != nil, CanAdmit: c.cfg.Appliances != nil, NoClaim: q.may(mayChange...), NoAdmit: q.may(mayAdmit...)}
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		v.List, err = store.Entries(q.Context(), tx, ids, q.now)
		return err
	})
	if err != nil {
		return err
	}
	for i := range v.List {
		if v.List[i].State == "pending" {
			v.Waiting++
		}
	}
	c.renderStatus(q, status, page.EnrolmentPage(c.shell(q, q.p.Enrolment(), f), v))
	return nil
}

// claim issues one and shows it once: the answer to the POST itself, so that it lies in no address and no history.
func (c *Console) claim(q *request) error {
	if c.cfg.Claims == nil {
		return c.notFound(q)
	}
	if why := q.may(mayChange...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/enrolment"}
	}
	id, _ := strconv.ParseInt(q.PostFormValue("clinic"), 10, 32)
	got, err := c.cfg.Claims.CreateClaim(q.Context(), q.op.Name, enrol.Order{Clinic: int32(id), Name: q.PostFormValue("name"), Serial: q.PostFormValue("serial"), AutoApprove: q.PostFormValue("auto") != ""})
	if errors.Is(err, enrol.ErrInvalid) || errors.Is(err, clinic.ErrNotFound) {
		return c.showEnrolment(q, q.p.ClaimBad(), http.StatusUnprocessableEntity)
	}
	if err != nil {
		return err
	}
	f, err := c.onlyFrame(q)
	if err != nil {
		return err
	}
	c.render(q, page.ClaimPage(c.shell(q, q.p.ClaimNew(), f), got.Text, q.p.Minute(got.Expires)))
	return nil
}

func (c *Console) onlyFrame(q *request) (*frame, error) {
	var f *frame
	err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) (err error) {
		f, err = c.frameOf(q, tx)
		return err
	})
	return f, err
}

// admit approves or rejects a box.
func (c *Console) admit(q *request) error {
	id, err := pathID(q, "id")
	if err != nil {
		return err
	}
	act := q.PathValue("act")
	if c.cfg.Appliances == nil || act != "approve" && act != "revoke" {
		return c.notFound(q)
	}
	if why := q.may(mayAdmit...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/enrolment"}
	}
	own := false
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		if act == "revoke" {
			return c.cfg.Appliances.Revoke(q.Context(), tx, q.op.Name, id, strings.TrimSpace(q.PostFormValue("why")))
		}
		// The second person: who issued the claim does not approve what came with it.
		if err := tx.QueryRow(q.Context(), `SELECT EXISTS (SELECT FROM claim WHERE appliance_id = $1 AND created_by = $2 AND used_at IS NOT NULL)`, id, q.op.Name).Scan(&own); err != nil || own {
			return err
		}
		return c.cfg.Appliances.Approve(q.Context(), tx, q.op.Name, id)
	})
	switch {
	case own:
		return c.showEnrolment(q, q.p.NeedsOther(), http.StatusConflict)
	case errors.Is(err, appliance.ErrNotFound):
		return c.notFound(q)
	case errors.Is(err, appliance.ErrState):
		return c.showEnrolment(q, q.p.StateChanged(), http.StatusConflict)
	case errors.Is(err, appliance.ErrInvalid):
		return c.showEnrolment(q, q.p.VerdictBad(), http.StatusUnprocessableEntity)
	case err != nil:
		return err
	}
	done := "admitted"
	if act == "revoke" {
		done = "rejected"
	}
	http.Redirect(q.w, q.Request, "/enrolment?done="+done, http.StatusSeeOther)
	return nil
}

func (c *Console) policy(q *request) error {
	var v page.Policy
	var f *frame
	err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		if v.Plans, err = store.Plans(q.Context(), tx); err != nil {
			return err
		}
		v.Overrides, err = store.Overrides(q.Context(), tx)
		return err
	})
	if err != nil {
		return err
	}
	c.render(q, page.PolicyPage(c.shell(q, q.p.Policy(), f), v))
	return nil
}

func (c *Console) clinicPolicy(q *request) error {
	id, err := pathID(q, "id")
	if err != nil {
		return err
	}
	v := page.ClinicPolicy{Clinic: id}
	var f *frame
	var layers []*policy.Layer
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		for _, n := range f.names {
			if n.ID == id {
				v.Name, v.Code = n.Name, n.Code
			}
		}
		if v.Code == "" {
			return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
		}
		all, err := policy.Load(q.Context(), tx, []int32{id})
		var bad policy.Problems
		if errors.As(err, &bad) {
			v.Problem = bad.Error()
			return nil
		}
		if err != nil {
			return err
		}
		layers = append([]*policy.Layer{policy.Default()}, all[0].Layers()...)
		return nil
	})
	if err != nil {
		return err
	}
	if v.Problem == "" {
		set, err := policy.Merge(q.now, layers...)
		if err != nil {
			v.Problem = err.Error()
		}
		v.Sections = page.SectionsOf(set)
	}
	c.render(q, page.ClinicPolicyPage(c.shell(q, q.p.PolicyOf(v.Name), f), v))
	return nil
}

func (c *Console) rollouts(q *request) error {
	if c.cfg.Rollouts == nil {
		return c.notFound(q)
	}
	var v page.Rollouts
	var f *frame
	err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		v.List, err = c.cfg.Rollouts.List(q.Context(), tx, 500)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range v.List {
		switch r.State {
		case rollout.Running, rollout.RollingBack, rollout.Paused:
			v.Running++
		case rollout.Halted:
			v.Halted++
		}
	}
	c.render(q, page.RolloutsPage(c.shell(q, q.p.Rollouts(), f, page.ListKeys(q.p, false, false)), v))
	return nil
}

func (c *Console) rolloutOne(q *request) error { return c.showRollout(q, "", http.StatusOK) }

func (c *Console) showRollout(q *request, problem string, status int) error {
	id, err := pathID64(q)
	if err != nil {
		return err
	}
	if c.cfg.Rollouts == nil {
		return c.notFound(q)
	}
	v := page.Rollout{Problem: problem, CanAct: true, NoAct: q.may(mayChange...), NoBack: q.may(mayTakeBack...), Names: map[int32]string{}}
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		v.R, err = c.cfg.Rollouts.Get(q.Context(), tx, id)
		return err
	})
	if errors.Is(err, rollout.ErrNotFound) {
		return c.notFound(q)
	}
	if err != nil {
		return err
	}
	for _, n := range f.names {
		v.Names[n.ID] = n.Name
	}
	c.renderStatus(q, status, page.RolloutPage(c.shell(q, q.p.RolloutNo(id), f), v))
	return nil
}

// steer takes an action on a rollout.
func (c *Console) steer(q *request) error {
	id, err := pathID64(q)
	if err != nil {
		return err
	}
	if c.cfg.Rollouts == nil {
		return c.notFound(q)
	}
	act, need := q.PostFormValue("act"), mayChange
	if act == rollout.Rollback {
		need = mayTakeBack
	}
	if why := q.may(need...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/rollouts/" + q.PathValue("id")}
	}
	ctx, cancel := context.WithTimeout(q.Context(), time.Minute)
	defer cancel()
	err = c.cfg.Rollouts.Control(ctx, q.op.Name, id, act, strings.TrimSpace(q.PostFormValue("why")))
	switch {
	case errors.Is(err, rollout.ErrNotFound):
		return c.notFound(q)
	case errors.Is(err, rollout.ErrState):
		return c.showRollout(q, q.p.StateChanged(), http.StatusConflict)
	case errors.Is(err, rollout.ErrInvalid):
		return c.showRollout(q, q.p.VerdictBad(), http.StatusUnprocessableEntity)
	case err != nil:
		return err
	}
	http.Redirect(q.w, q.Request, "/rollouts/"+q.PathValue("id")+"?done=steered", http.StatusSeeOther)
	return nil
}
