package web

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/web/page"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// Team adds operators and gives them passwords; *account.Accounts does.
type Team interface {
	Create(ctx context.Context, actor string, op account.Operator, password string) error
	SetPassword(ctx context.Context, actor, name, password string) error
}

// mayTeam: only an administrator, who in turn judges nothing.
var mayTeam = []string{"admin"}

func (c *Console) team(q *request) error { return c.showTeam(q, page.Team{}, http.StatusOK) }

func (c *Console) showTeam(q *request, v page.Team, status int) error {
	if err := c.teamOnly(q); err != nil {
		return err
	}
	var f *frame
	err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		v.List, err = store.Team(q.Context(), tx)
		return err
	})
	if err != nil {
		return err
	}
	c.renderStatus(q, status, page.TeamPage(c.shell(q, q.p.Team(), f), v))
	return nil
}

func (c *Console) teamOnly(q *request) error {
	if c.cfg.Team == nil {
		return c.notFound(q)
	}
	if why := q.may(mayTeam...); why != "" {
		return httpError{status: http.StatusForbidden, title: q.p.NotPermitted(), text: why, retry: "/"}
	}
	return nil
}

// teamAdd adds an operator with a password that is shown once, in the answer to the POST.
func (c *Console) teamAdd(q *request) error {
	if err := c.teamOnly(q); err != nil {
		return err
	}
	op := account.Operator{Name: strings.TrimSpace(q.PostFormValue("name")), DisplayName: strings.TrimSpace(q.PostFormValue("display")), Role: account.Role(q.PostFormValue("role")), Language: q.op.Language, Theme: "auto"}
	password := rand.Text()
	err := c.cfg.Team.Create(q.Context(), q.op.Name, op, password)
	if errors.Is(err, account.ErrInvalid) || errors.Is(err, account.ErrExists) {
		return c.showTeam(q, page.Team{Problem: q.p.TeamBad()}, http.StatusUnprocessableEntity)
	}
	if err != nil {
		return err
	}
	return c.showTeam(q, page.Team{For: op.Name, Password: password}, http.StatusOK)
}

// teamChange gives a new password, or switches an operator off or on.
func (c *Console) teamChange(q *request) error {
	if err := c.teamOnly(q); err != nil {
		return err
	}
	name := q.PathValue("name")
	switch act := q.PathValue("act"); act {
	case "password":
		password := rand.Text()
		err := c.cfg.Team.SetPassword(q.Context(), q.op.Name, name, password)
		if errors.Is(err, account.ErrInvalid) {
			return c.notFound(q)
		}
		if err != nil {
			return err
		}
		return c.showTeam(q, page.Team{For: name, Password: password}, http.StatusOK)
	case "disable", "enable":
		err := c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
			return store.SwitchMember(q.Context(), tx, q.op.Name, name, act == "disable")
		})
		if errors.Is(err, store.ErrMember) {
			return c.showTeam(q, page.Team{Problem: q.p.TeamCant()}, http.StatusConflict)
		}
		if err != nil {
			return err
		}
		http.Redirect(q.w, q.Request, "/settings/team?done=saved", http.StatusSeeOther)
		return nil
	}
	return c.notFound(q)
}
