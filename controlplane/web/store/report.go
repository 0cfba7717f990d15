package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Report is a frozen report without its bytes.
type Report struct {
	ID         int64
	Clinic     int32
	ClinicName string
	ClinicCode string
	Month      time.Time
	Revision   int
	Document   string
	Verdict    string // act, warn, ok, hold
	DataSHA    []byte
	PDFSHA     []byte
	PDFSize    int64
	Renderer   string
	Created    time.Time
}

const reportColumns = `r.report_id, r.clinic_id, c.name, c.code, r.month, r.revision, r.document_no, r.verdict, r.data_sha256, r.pdf_sha256, length(r.pdf), r.renderer, r.created_at`

func scanReport(row pgx.CollectableRow) (Report, error) {
	var r Report
	err := row.Scan(&r.ID, &r.Clinic, &r.ClinicName, &r.ClinicCode, &r.Month, &r.Revision, &r.Document, &r.Verdict, &r.DataSHA, &r.PDFSHA, &r.PDFSize, &r.Renderer, &r.Created)
	return r, err
}

// LatestReports reads the newest revision of each clinic and month since a month; clinics none given: all.
func LatestReports(ctx context.Context, tx pgx.Tx, clinics []int32, since time.Time) ([]Report, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT ON (r.clinic_id, r.month) `+reportColumns+` FROM report r JOIN clinic c USING (clinic_id)
WHERE ($1::int[] IS NULL OR r.clinic_id = ANY ($1)) AND r.month >= $2::date ORDER BY r.clinic_id, r.month DESC, r.revision DESC`, null(clinics), since.Format("2006-01-02"))
	if err != nil {
		return nil, fmt.Errorf("read reports: %w", err)
	}
	return pgx.CollectRows(rows, scanReport)
}

// Revisions reads all reports of a clinic and month, the newest first.
func Revisions(ctx context.Context, tx pgx.Tx, clinic int32, month time.Time) ([]Report, error) {
	rows, err := tx.Query(ctx, `SELECT `+reportColumns+` FROM report r JOIN clinic c USING (clinic_id)
WHERE r.clinic_id = $1 AND r.month = $2::date ORDER BY r.revision DESC LIMIT 50`, clinic, month.Format("2006-01-02"))
	if err != nil {
		return nil, fmt.Errorf("read revisions: %w", err)
	}
	return pgx.CollectRows(rows, scanReport)
}

// Page reads the frozen HTML of one report; pgx.ErrNoRows when there is none.
func Page(ctx context.Context, tx pgx.Tx, clinic int32, month time.Time, revision int) (string, error) {
	var html string
	err := tx.QueryRow(ctx, `SELECT html FROM report WHERE clinic_id = $1 AND month = $2::date AND ($3 = 0 OR revision = $3) ORDER BY revision DESC LIMIT 1`,
		clinic, month.Format("2006-01-02"), revision).Scan(&html)
	return html, err
}

// PDF reads the frozen PDF of one report; pgx.ErrNoRows when there is none.
func PDF(ctx context.Context, tx pgx.Tx, clinic int32, month time.Time, revision int) (pdf []byte, created time.Time, document string, err error) {
	err = tx.QueryRow(ctx, `SELECT pdf, created_at, document_no FROM report WHERE clinic_id = $1 AND month = $2::date AND ($3 = 0 OR revision = $3) ORDER BY revision DESC LIMIT 1`,
		clinic, month.Format("2006-01-02"), revision).Scan(&pdf, &created, &document)
	return pdf, created, document, err
}

// Fleet is what the overview counts.
type Fleet struct {
	Clinics     int
	Boxes       int // approved
	Inspecting  int
	Offline     int
	Refused     int
	Pending     int
	Unprotected int64 // ms of today in Japan
	LostUnknown int64
	Reports     int // clinics with a report of last month
}

// FleetOf counts over the given clinics; none given: all.
func FleetOf(ctx context.Context, tx pgx.Tx, clinics []int32, now time.Time) (Fleet, error) {
	var f Fleet
	jst := now.In(time.FixedZone("JST", 9*60*60))
	today := time.Date(jst.Year(), jst.Month(), jst.Day(), 0, 0, 0, 0, jst.Location())
	last := MonthStart(now).AddDate(0, -1, 0)
	err := tx.QueryRow(ctx, `
SELECT (SELECT count(*) FROM clinic WHERE $1::int[] IS NULL OR clinic_id = ANY ($1)),
  count(*) FILTER (WHERE state = 'approved'),
  count(*) FILTER (WHERE state = 'approved' AND connected AND wire_mode LIKE 'inline%'),
  count(*) FILTER (WHERE state = 'approved' AND NOT connected),
  count(*) FILTER (WHERE state = 'approved' AND refused <> ''),
  count(*) FILTER (WHERE state = 'pending'),
  (SELECT coalesce(sum(unprotected_ms), 0)::bigint FROM coverage_hourly WHERE hour >= $2 AND ($1::int[] IS NULL OR clinic_id = ANY ($1))),
  (SELECT coalesce(sum(lost_undeclared), 0)::bigint FROM report_ledger WHERE $1::int[] IS NULL OR clinic_id = ANY ($1)),
  (SELECT count(DISTINCT clinic_id) FROM report WHERE month = $3::date AND ($1::int[] IS NULL OR clinic_id = ANY ($1)))
FROM appliance WHERE $1::int[] IS NULL OR clinic_id = ANY ($1)`, null(clinics), today, last.Format("2006-01-02")).
		Scan(&f.Clinics, &f.Boxes, &f.Inspecting, &f.Offline, &f.Refused, &f.Pending, &f.Unprotected, &f.LostUnknown, &f.Reports)
	if err != nil {
		return Fleet{}, fmt.Errorf("read fleet: %w", err)
	}
	return f, nil
}

// Lag is how far behind the table is: the middle delay between a box stating a fact and its commit, over the newest events.
type Lag struct {
	Middle time.Duration
	Last   time.Time // when anything was committed last; zero for never within a day
}

// LagOf reads it over all that the transaction may see. Boxes' clocks are taken as they are; a negative middle counts as 0.
func LagOf(ctx context.Context, tx pgx.Tx, now time.Time) (Lag, error) {
	var l Lag
	var sec *float64
	var last *time.Time
	err := tx.QueryRow(ctx, `SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM received_at - t)), max(received_at)
FROM (SELECT t, received_at FROM event WHERE t > $1::timestamptz - interval '10 minutes' AND t < $1::timestamptz + interval '10 minutes' AND received_at > $1::timestamptz - interval '5 minutes'
      ORDER BY t DESC LIMIT 200) x`, now).Scan(&sec, &last)
	if err != nil {
		return Lag{}, fmt.Errorf("read lag: %w", err)
	}
	if sec != nil {
		l.Middle = max(0, time.Duration(*sec*float64(time.Second)))
		l.Last = *last
		return l, nil
	}
	if err := tx.QueryRow(ctx, `SELECT max(last_seen) FROM appliance`).Scan(&last); err != nil {
		return Lag{}, fmt.Errorf("read lag: %w", err)
	}
	l.Last = val(last)
	return l, nil
}

// Attention counts boxes that need a human: waiting for approval, without a line, or refusing what they were given.
func Attention(ctx context.Context, tx pgx.Tx) (int, error) {
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM appliance WHERE state = 'pending' OR state = 'approved' AND (refused <> '' OR NOT connected AND last_seen IS NOT NULL)`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count boxes that need attention: %w", err)
	}
	return n, nil
}

// SetDisplay stores an operator's language and theme; an empty one stays.
func SetDisplay(ctx context.Context, db *pgxpool.Pool, operator int32, lang, theme string) error {
	_, err := db.Exec(ctx, `UPDATE operator SET language = coalesce(nullif($2, ''), language), theme = coalesce(nullif($3, ''), theme) WHERE id = $1`, operator, lang, theme)
	if err != nil {
		return fmt.Errorf("store display preferences: %w", err)
	}
	return nil
}
