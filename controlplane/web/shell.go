package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// frame is what the shell needs from the database; nil when the page failed before it could be read.
type frame struct {
	names     []store.Name
	lag       store.Lag
	attention int // boxes
	groups    int // of triage, 24 hours, without a verdict
	cases     int // open
	expiring  int // suppressions that end within 7 days
	pending   int // boxes that wait for approval
	rolling   int // rollouts under way or halted
}

// frameOf reads it; triage's badge comes from the shared snapshot.
func (c *Console) frameOf(q *request, tx pgx.Tx) (*frame, error) {
	var f frame
	var err error
	if f.names, err = store.Names(q.Context(), tx); err != nil {
		return nil, err
	}
	if f.lag, err = store.LagOf(q.Context(), tx, q.now); err != nil {
		return nil, err
	}
	boxes, err := store.Attention(q.Context(), tx)
	if err != nil {
		return nil, err
	}
	f.attention = boxes
	snap, err := c.snaps.take(q.Context(), tx, filter.Filter{}, q.now)
	if err != nil {
		return nil, err
	}
	f.groups = len(snap.Groups)
	if f.pending, f.rolling, err = store.FleetBadges(q.Context(), tx); err != nil {
		return nil, err
	}
	if f.cases, f.expiring, err = triage.Badges(q.Context(), tx, q.now); err != nil {
		return nil, err
	}
	return &f, nil
}

// shell fills the frame around a page. keys are the screen's own.
func (c *Console) shell(q *request, title string, f *frame, keys ...page.KeyGroup) page.Shell {
	s := page.Shell{
		P: q.p, Now: q.now, Title: title, Path: q.URL.Path, Query: q.URL.Query(), Assets: c.files, Theme: q.op.Theme, Density: "dense", Keys: true,
		CSRF: csrf(q.token), Who: page.Who{Name: q.op.Name, Display: q.op.DisplayName, Role: q.op.Role},
		Live: page.Live{State: "wait", Word: q.p.LiveConnect()},
	}
	if s.Theme == "" {
		s.Theme = "auto"
	}
	if ck, err := q.Cookie(preferences); err == nil {
		v, _ := url.ParseQuery(ck.Value)
		if v.Get("density") == "comfortable" {
			s.Density = "comfortable"
		}
		s.Keys = v.Get("keys") != "off"
	}
	if s.Who.Display == "" {
		s.Who.Display = s.Who.Name
	}
	switch q.FormValue("done") {
	case "report":
		s.Notice = q.p.ReportAsked()
	case "report-before":
		s.Notice = q.p.ReportAskedBefore()
	case "undone":
		s.Notice = q.p.Undone()
	case "lifted":
		s.Notice = q.p.Lifted()
	case "approved":
		s.Notice = q.p.Approved()
	case "asked":
		s.Notice = q.p.AskSent()
	case "admitted":
		s.Notice = q.p.ApprovedBox()
	case "rejected":
		s.Notice = q.p.RevokedBox()
	case "steered":
		s.Notice = q.p.Saved()
	case "saved":
		s.Notice = q.p.CaseSaved()
	}
	s.Query.Del("done")
	fl, err := filter.Parse(url.Values{"c": {q.URL.Query().Get("c")}})
	if err == nil {
		s.Scope = fl.Clinics
	}
	badge := func(n int) string {
		if n == 0 {
			return ""
		}
		return msg.Number(int64(n))
	}
	var groups, boxes, cases, expiring, pending, rolling string
	if f != nil {
		cases, expiring = badge(f.cases), badge(f.expiring)
		pending, rolling = badge(f.pending), badge(f.rolling)
		s.Clinics = f.names
		groups, boxes = badge(f.groups), badge(f.attention)
		s.Live.Word, s.Live.Detail, s.Live.State = liveText(q.p, f.lag, q.now)
	}
	s.Nav = []page.NavGroup{
		{Items: []page.NavItem{{URL: s.To("/"), Icon: "home", Label: q.p.Overview()}}},
		{Title: q.p.Detect(), Items: []page.NavItem{
			{URL: s.To("/triage"), Icon: "inbox", Label: q.p.Triage(), Badge: groups, BadgeLabel: q.p.BadgeGroups(groups)},
			{URL: s.To("/cases"), Icon: "case", Label: q.p.Cases(), Badge: cases, BadgeLabel: q.p.BadgeCases(cases)},
			{URL: s.To("/suppressions"), Icon: "mute", Label: q.p.Suppressions(), Badge: expiring, BadgeLabel: q.p.BadgeSuppressions(expiring)},
		}},
		{Title: q.p.Fleet(), Items: []page.NavItem{
			{URL: s.To("/clinics"), Icon: "building", Label: q.p.Clinics()},
			{URL: s.To("/appliances"), Icon: "box", Label: q.p.Appliances(), Badge: boxes, BadgeLabel: q.p.BadgeBoxes(boxes)},
			{URL: s.To("/enrolment"), Icon: "plus", Label: q.p.Enrolment(), Badge: pending, BadgeLabel: q.p.BadgeEnrol(pending)},
			{URL: "/policy", Icon: "layers", Label: q.p.Policy()},
		}},
		{Title: q.p.Assure(), Items: []page.NavItem{{URL: s.To("/reports"), Icon: "doc", Label: q.p.Reports()}}},
	}
	if c.cfg.Rollouts != nil {
		fleet := &s.Nav[2]
		fleet.Items = append(fleet.Items, page.NavItem{URL: "/rollouts", Icon: "rings", Label: q.p.Rollouts(), Badge: rolling, BadgeLabel: q.p.BadgeRollouts(rolling)})
	}
	var admin []page.NavItem
	if slices.Contains(mayAudit, q.op.Role) {
		admin = append(admin, page.NavItem{URL: "/audit", Icon: "log", Label: q.p.Audit()})
	}
	if c.cfg.Team != nil && slices.Contains(mayTeam, q.op.Role) {
		admin = append(admin, page.NavItem{URL: "/settings/team", Icon: "gear", Label: q.p.Team()})
	}
	if len(admin) > 0 {
		s.Nav = append(s.Nav, page.NavGroup{Title: q.p.Admin(), Items: admin})
	}
	s.Help = append(keys, page.GoKeys(q.p))
	if len(keys) == 0 {
		s.Help = append(s.Help, page.KeyGroup{Title: q.p.KeysList(), Keys: []page.Key{
			{Keys: []string{"?"}, Do: "help", Label: q.p.KeyHelp()}, {Keys: []string{"Escape"}, Do: "clear", Label: q.p.KeyClear()},
		}})
	}
	s.LiveURL = "/events"
	return s
}

// liveText is the badge's word and detail, and the class that shapes it.
func liveText(p msg.P, l store.Lag, now time.Time) (word, detail, state string) {
	switch {
	case l.Last.IsZero():
		return p.Live(), p.LiveNothing(), "idle"
	case now.Sub(l.Last) > 5*time.Minute:
		return p.Live(), p.LiveSilent(l.Last, now), "idle"
	}
	return p.Live(), p.LiveLag(l.Middle), ""
}

func (c *Console) notFound(q *request) error {
	return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound(), retry: ""}
}

// badFilter turns a filter's error into a page that says what can't be read and offers a way out.
func badFilter(q *request, err error) error {
	var fe *filter.Error
	if !errors.As(err, &fe) {
		return err
	}
	return httpError{status: http.StatusBadRequest, title: q.p.BadFilter(), text: q.p.BadFilterDetail(fe.Name, fe.Value), retry: q.URL.Path}
}

// settings changes how the console looks for this operator.
func (c *Console) settings(q *request) error {
	lang, theme := q.PostFormValue("lang"), q.PostFormValue("theme")
	if lang != "" && lang != "ja" && lang != "en" {
		return httpError{status: http.StatusBadRequest, title: q.p.Error(), text: fmt.Sprintf("lang %q", lang)}
	}
	if theme != "" && theme != "auto" && theme != "light" && theme != "dark" {
		return httpError{status: http.StatusBadRequest, title: q.p.Error(), text: fmt.Sprintf("theme %q", theme)}
	}
	if lang != "" || theme != "" {
		if err := store.SetDisplay(q.Context(), c.cfg.DB.App, q.op.ID, lang, theme); err != nil {
			return err
		}
		c.display.set(q.op.ID, lang, theme, q.now)
	}
	v := url.Values{}
	if ck, err := q.Cookie(preferences); err == nil {
		v, _ = url.ParseQuery(ck.Value)
	}
	for _, k := range []string{"density", "keys"} {
		if x := q.PostFormValue(k); x != "" && len(x) < 16 {
			v.Set(k, x)
		}
	}
	http.SetCookie(q.w, &http.Cookie{Name: preferences, Value: v.Encode(), Path: "/", MaxAge: 365 * 24 * 3600, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: c.isTLS(q.Request)}) //nolint:gosec // a row height is no secret, and localhost may speak plain HTTP
	http.Redirect(q.w, q.Request, local(q.PostFormValue("back")), http.StatusSeeOther)
	return nil
}

// goTo opens what an id of a report or a mail stands for: "clinic:3", "appliance:7", "alert:7.<stream>.<seq>", "report:2026-11:3".
func (c *Console) goTo(q *request) error {
	kind, rest, _ := strings.Cut(q.PathValue("id"), ":")
	to := ""
	switch kind {
	case "clinic":
		to = "/clinics/" + url.PathEscape(rest)
	case "appliance":
		to = "/appliances/" + url.PathEscape(rest)
	case "alert":
		to = "/triage?group=none&last=30d&focus=" + url.QueryEscape(rest)
	case "rollout":
		to = "/rollouts/" + url.PathEscape(rest)
	case "case":
		to = "/cases/" + url.PathEscape(rest)
	case "decision":
		to = "/suppressions/" + url.PathEscape(rest)
	case "report":
		month, clinic, _ := strings.Cut(rest, ":")
		to = "/reports/" + url.PathEscape(month) + "/" + url.PathEscape(clinic)
	default:
		return c.notFound(q)
	}
	http.Redirect(q.w, q.Request, to, http.StatusSeeOther)
	return nil
}
