package web

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/page"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// reportMonths is how many months the matrix shows.
const reportMonths = 4

// renderArgs asks the reporter for one report; its kind, queue and fields are the contract with it.
type renderArgs struct {
	ClinicID int32  `json:"clinic_id"`
	Month    string `json:"month"` // 2026-11
}

// Kind implements river.JobArgs.
func (renderArgs) Kind() string { return "report_render" }

// unfinished are the states in which a request still leads to a report.
var unfinished = []rivertype.JobState{rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled}

// jobStates reads which reports are being made: by clinic and month, the job's state.
func (c *Console) jobStates(q *request, tx pgx.Tx) (map[string]string, error) {
	rows, err := tx.Query(q.Context(), `SELECT args->>'clinic_id', args->>'month', state::text FROM river.river_job
WHERE kind = 'report_render' AND state IN ('available','pending','retryable','running','scheduled') ORDER BY id LIMIT 5000`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := map[string]string{}
	for rows.Next() {
		var clinic, month *string
		var state string
		if err := rows.Scan(&clinic, &month, &state); err != nil {
			return nil, err
		}
		if clinic != nil && month != nil {
			m[*month+"/"+*clinic] = state
		}
	}
	return m, rows.Err()
}

func jobKey(month time.Time, clinic int32) string {
	return month.Format("2006-01") + "/" + strconv.Itoa(int(clinic))
}

// months are the last n months of one clinic, the running one first.
func (c *Console) months(q *request, tx pgx.Tx, clinic store.Name, n int) ([]page.Month, error) {
	first := store.MonthStart(q.now)
	reports, err := store.LatestReports(q.Context(), tx, []int32{clinic.ID}, first.AddDate(0, -n+1, 0))
	if err != nil {
		return nil, err
	}
	jobs, err := c.jobStates(q, tx)
	if err != nil {
		return nil, err
	}
	var out []page.Month
	for i := range n {
		out = append(out, monthOf(clinic, first.AddDate(0, -i, 0), reports, jobs, q.now))
	}
	return out, nil
}

func monthOf(clinic store.Name, month time.Time, reports []store.Report, jobs map[string]string, now time.Time) page.Month {
	m := page.Month{
		Clinic: clinic.ID, ClinicName: clinic.Name, Month: month, Job: jobs[jobKey(month, clinic.ID)], Future: month.After(now),
		URL: "/reports/" + jobKey(month, clinic.ID),
	}
	for i := range reports {
		if reports[i].Clinic == clinic.ID && reports[i].Month.Format("2006-01") == month.Format("2006-01") {
			m.Report = &reports[i]
		}
	}
	return m
}

func (c *Console) reports(q *request) error {
	ids, text, err := scope(q)
	if err != nil {
		return err
	}
	first := store.MonthStart(q.now)
	v := page.Reports{Q: text, LastMonth: first.AddDate(0, -1, 0)}
	for i := range reportMonths {
		v.Months = append(v.Months, first.AddDate(0, -i, 0))
	}
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		reports, err := store.LatestReports(q.Context(), tx, ids, first.AddDate(0, -reportMonths+1, 0))
		if err != nil {
			return err
		}
		jobs, err := c.jobStates(q, tx)
		if err != nil {
			return err
		}
		by := map[int32][]store.Report{}
		for _, r := range reports {
			by[r.Clinic] = append(by[r.Clinic], r)
		}
		for _, n := range f.names {
			if len(ids) > 0 && !contains(ids, n.ID) {
				continue
			}
			v.Total++
			row := page.ReportRow{Clinic: n}
			for _, m := range v.Months {
				row.Months = append(row.Months, monthOf(n, m, by[n.ID], jobs, q.now))
			}
			if row.Months[1].Report != nil {
				v.Ready++
			}
			if text == "" || has(text, n.Name, n.Kana, n.Code) {
				v.Rows = append(v.Rows, row)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.render(q, page.ReportsPage(c.shell(q, q.p.Reports(), f, page.ListKeys(q.p, false, false)), v))
	return nil
}

func contains(ids []int32, id int32) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

// reportPath reads {month}, {clinic} and ?rev=.
func reportPath(q *request) (month time.Time, clinic int32, rev int, err error) {
	clinic, err = pathID(q, "clinic")
	if err != nil {
		return month, 0, 0, err
	}
	gone := httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
	month, err = time.ParseInLocation("2006-01", q.PathValue("month"), msg.JST)
	if err != nil || month.Year() < 2000 || month.Year() > 2200 {
		return month, 0, 0, gone
	}
	if s := q.URL.Query().Get("rev"); s != "" {
		if rev, err = strconv.Atoi(s); err != nil || rev < 1 || rev > 1_000_000 {
			return month, 0, 0, gone
		}
	}
	return month, clinic, rev, nil
}

func (c *Console) report(q *request) error {
	month, clinic, rev, err := reportPath(q)
	if err != nil {
		return err
	}
	var v page.Report
	var f *frame
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		if f, err = c.frameOf(q, tx); err != nil {
			return err
		}
		jobs, err := c.jobStates(q, tx)
		if err != nil {
			return err
		}
		for _, n := range f.names {
			if n.ID == clinic {
				v.M = monthOf(n, month, nil, jobs, q.now)
			}
		}
		if v.M.Clinic == 0 {
			return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
		}
		v.Revisions, err = store.Revisions(q.Context(), tx, clinic, month)
		return err
	})
	if err != nil {
		return err
	}
	for i := range v.Revisions {
		if r := &v.Revisions[i]; v.M.Report == nil && (rev == 0 || r.Revision == rev) {
			v.M.Report = r
		}
	}
	if rev != 0 && v.M.Report == nil {
		return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound(), retry: "/reports/" + jobKey(month, clinic)}
	}
	v.Running = !v.M.Future && month.AddDate(0, 1, 0).After(q.now)
	q.w.Header().Set("Content-Security-Policy", pagePolicy+framing)
	c.render(q, page.ReportPage(c.shell(q, q.p.ReportTitle(v.M.ClinicName, q.p.Month(month)), f), v))
	return nil
}

// reportPage answers the frozen page as it was frozen, under a policy of its own that lets nothing out.
func (c *Console) reportPage(q *request) error {
	month, clinic, rev, err := reportPath(q)
	if err != nil {
		return err
	}
	var html string
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		html, err = store.Page(q.Context(), tx, clinic, month, rev)
		return err
	})
	if isNone(err) {
		return c.notFound(q)
	}
	if err != nil {
		return err
	}
	h := q.w.Header()
	h.Set("Content-Security-Policy", reportPolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = strings.NewReader(html).WriteTo(q.w)
	return nil
}

func (c *Console) reportPDF(q *request) error {
	month, clinic, rev, err := reportPath(q)
	if err != nil {
		return err
	}
	var pdf []byte
	var created time.Time
	var document string
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var err error
		pdf, created, document, err = store.PDF(q.Context(), tx, clinic, month, rev)
		return err
	})
	if isNone(err) {
		return c.notFound(q)
	}
	if err != nil {
		return err
	}
	sendPDF(q.w, q.Request, pdf, created, document, q.FormValue("save") != "")
	return nil
}

// sendPDF answers a frozen PDF, to be shown or to be saved.
func sendPDF(w http.ResponseWriter, r *http.Request, pdf []byte, created time.Time, document string, save bool) {
	kind := "inline"
	if save {
		kind = "attachment"
	}
	h := w.Header()
	h.Set("Content-Type", "application/pdf")
	h.Set("Content-Disposition", kind+`; filename="`+fileName(document)+`.pdf"`)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; object-src 'self'; plugin-types application/pdf; frame-ancestors 'none'")
	http.ServeContent(w, r, "", created, bytes.NewReader(pdf))
}

// fileName keeps what every system takes in a name.
func fileName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, s)
	if s = strings.Trim(s, "-"); s == "" {
		return "report"
	}
	return s
}

// reportRequest asks the reporter for a report. Asking twice while one is being made is one request.
func (c *Console) reportRequest(q *request) error {
	month, clinic, _, err := reportPath(q)
	if err != nil {
		return err
	}
	if month.After(q.now) {
		return httpError{status: http.StatusBadRequest, title: q.p.Error(), text: q.p.ReportFuture(), retry: "/reports/" + jobKey(month, clinic)}
	}
	done := "report"
	err = c.fleet(q.Context(), q.op, func(tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(q.Context(), "SELECT EXISTS (SELECT FROM clinic WHERE clinic_id = $1)", clinic).Scan(&known); err != nil {
			return err
		}
		if !known {
			return httpError{status: http.StatusNotFound, title: q.p.NotFoundTitle(), text: q.p.NotFound()}
		}
		res, err := c.jobs.InsertTx(q.Context(), tx, renderArgs{ClinicID: clinic, Month: month.Format("2006-01")},
			&river.InsertOpts{Queue: "report", UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: unfinished}})
		if err != nil {
			return err
		}
		if res.UniqueSkippedAsDuplicate {
			done = "report-before"
			return nil
		}
		return audit.Append(q.Context(), tx, audit.Entry{Actor: q.op.Name, Action: "report.request", Target: "report:" + month.Format("2006-01") + ":" + strconv.Itoa(int(clinic)), Clinic: clinic})
	})
	if err != nil {
		return err
	}
	back := local(q.PostFormValue("back"))
	if back == "/" {
		back = "/reports/" + jobKey(month, clinic)
	}
	sep := "?"
	if strings.Contains(back, "?") {
		sep = "&"
	}
	http.Redirect(q.w, q.Request, back+sep+"done="+done, http.StatusSeeOther)
	return nil
}
