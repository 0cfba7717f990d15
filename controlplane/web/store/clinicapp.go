package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
)

// Errors of the clinic's app.
var (
	// ErrAccess: clinic code or pass is wrong, or the pass has ended.
	ErrAccess = errors.New("clinic access is not valid")
	// ErrCard: the card isn't open, or too many are.
	ErrCard = errors.New("card is not acceptable")
	// ErrSigned: the report is signed already.
	ErrSigned = errors.New("report is signed already")
)

// Lives of a pass and of a session that it opened.
const (
	AccessLife  = 400 * 24 * time.Hour
	ClinicLogin = 30 * 24 * time.Hour
	maxCards    = 3
)

// passAlphabet leaves out what is misread on a telephone or in handwriting.
const passAlphabet = "23456789abcdefghjkmnpqrstuvwxyz"

// newPass makes five groups of three characters: 31^15 is 74 bits.
func newPass() string {
	raw := make([]byte, 0, 64)
	var out strings.Builder
	for n := 0; n < 15; {
		if len(raw) == 0 {
			raw = raw[:64]
			_, _ = rand.Read(raw)
		}
		b := raw[0]
		raw = raw[1:]
		if int(b) >= 256/len(passAlphabet)*len(passAlphabet) {
			continue // keeps every character as likely as another
		}
		if n > 0 && n%3 == 0 {
			out.WriteByte('-')
		}
		out.WriteByte(passAlphabet[int(b)%len(passAlphabet)])
		n++
	}
	return out.String()
}

// passHash is what is stored of a pass; spaces, dashes and letter case don't matter.
func passHash(pass string) []byte {
	clean := strings.NewReplacer("-", "", " ", "", "　", "").Replace(strings.ToLower(pass))
	h := sha256.Sum256([]byte("kadomori clinic pass\x00" + clean))
	return h[:]
}

// CreateAccess makes a pass for a clinic; it is returned once. tx is the fleet's.
func CreateAccess(ctx context.Context, tx pgx.Tx, clinic int32, role, actor string, now time.Time) (string, error) {
	pass := newPass()
	var id int64
	if err := tx.QueryRow(ctx, `INSERT INTO clinic_access (clinic_id, role, secret_hash, created_by, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING access_id`,
		clinic, role, passHash(pass), actor, now, now.Add(AccessLife)).Scan(&id); err != nil {
		return "", fmt.Errorf("create clinic access: %w", err)
	}
	return pass, audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "clinic_access.create", Target: fmt.Sprintf("clinic_access:%d", id), Clinic: clinic, Detail: map[string]string{"role": role}})
}

// Guest is who opened the clinic's app.
type Guest struct {
	Clinic int32
	Access int64
	Role   string // director, staff
}

// ClinicSignIn opens a session. tx is the fleet's, since the clinic is not known before. The error is ErrAccess.
func ClinicSignIn(ctx context.Context, tx pgx.Tx, code, pass string, now time.Time) (token string, err error) {
	var g Guest
	err = tx.QueryRow(ctx, `SELECT a.clinic_id, a.access_id FROM clinic_access a JOIN clinic c USING (clinic_id)
WHERE a.secret_hash = $1 AND upper(c.code) = upper($2) AND a.revoked_at IS NULL AND a.expires_at > $3`, passHash(pass), strings.TrimSpace(code), now).Scan(&g.Clinic, &g.Access)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrAccess
	}
	if err != nil {
		return "", fmt.Errorf("check clinic access: %w", err)
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	h := sha256.Sum256(raw)
	if _, err := tx.Exec(ctx, `INSERT INTO clinic_session (token_hash, clinic_id, access_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)`, h[:], g.Clinic, g.Access, now, now.Add(ClinicLogin)); err != nil {
		return "", fmt.Errorf("open clinic session: %w", err)
	}
	if _, err := tx.Exec(ctx, `DELETE FROM clinic_session WHERE expires_at < $1`, now); err != nil {
		return "", fmt.Errorf("drop old clinic sessions: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), audit.Append(ctx, tx, audit.Entry{Actor: fmt.Sprintf("clinic:%d", g.Clinic), Action: "clinic_access.login", Target: fmt.Sprintf("clinic_access:%d", g.Access), Clinic: g.Clinic})
}

// GuestOf looks a session up; ErrAccess when there is none any more. tx is the fleet's.
func GuestOf(ctx context.Context, tx pgx.Tx, token string, now time.Time) (Guest, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 32 {
		return Guest{}, ErrAccess
	}
	h := sha256.Sum256(raw)
	var g Guest
	err = tx.QueryRow(ctx, `SELECT s.clinic_id, s.access_id, a.role FROM clinic_session s JOIN clinic_access a USING (clinic_id, access_id)
WHERE s.token_hash = $1 AND s.expires_at > $2 AND a.revoked_at IS NULL AND a.expires_at > $2`, h[:], now).Scan(&g.Clinic, &g.Access, &g.Role)
	if errors.Is(err, pgx.ErrNoRows) {
		return Guest{}, ErrAccess
	}
	if err != nil {
		return Guest{}, fmt.Errorf("look up clinic session: %w", err)
	}
	return g, nil
}

// ClinicSignOut ends a session.
func ClinicSignOut(ctx context.Context, tx pgx.Tx, token string) error {
	raw, _ := base64.RawURLEncoding.DecodeString(token)
	h := sha256.Sum256(raw)
	_, err := tx.Exec(ctx, `DELETE FROM clinic_session WHERE token_hash = $1`, h[:])
	return err
}

// Card is a request to the clinic.
type Card struct {
	ID               int64
	Title, Body, Who string
	Due              time.Time // zero: none
	Minutes          int       // 0: not said
	Vendor           string
	Author           string
	Created          time.Time
	Answer           string // "", done, call, withdrawn
	Answered, Read   time.Time
}

// Cards reads a clinic's cards: only open ones, or the newest 50 of all.
func Cards(ctx context.Context, tx pgx.Tx, clinic int32, open bool) ([]Card, error) {
	rows, err := tx.Query(ctx, `SELECT card_id, title, body, who, due, coalesce(minutes, 0), vendor_text, author, created_at, answer, answered_at, read_at FROM action_card
WHERE clinic_id = $1 AND (NOT $2 OR answer = '') ORDER BY answer = '' DESC, card_id DESC LIMIT 50`, clinic, open)
	if err != nil {
		return nil, fmt.Errorf("read cards: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Card, error) {
		var c Card
		var due, answered, read *time.Time
		err := row.Scan(&c.ID, &c.Title, &c.Body, &c.Who, &due, &c.Minutes, &c.Vendor, &c.Author, &c.Created, &c.Answer, &answered, &read)
		c.Due, c.Answered, c.Read = val(due), val(answered), val(read)
		return c, err
	})
}

// CreateCard asks something of a clinic; at most three are open at a time. tx is the fleet's. The error is ErrCard.
func CreateCard(ctx context.Context, tx pgx.Tx, clinic int32, c Card, now time.Time) error {
	c.Title, c.Body = strings.TrimSpace(c.Title), strings.TrimSpace(c.Body)
	for _, s := range []string{c.Title, c.Body, c.Who, c.Vendor} {
		if !utf8.ValidString(s) || utf8.RuneCountInString(s) > 1000 || strings.ContainsRune(s, 0) {
			return fmt.Errorf("%w: a text is too long", ErrCard)
		}
	}
	var open int
	// The row of the clinic serialises those who ask at the same time.
	if err := tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE k.answer = '') FROM (SELECT clinic_id FROM clinic WHERE clinic_id = $1 FOR UPDATE) c LEFT JOIN action_card k USING (clinic_id)`, clinic).Scan(&open); err != nil {
		return fmt.Errorf("count cards: %w", err)
	}
	if c.Title == "" || open >= maxCards {
		return fmt.Errorf("%w: title %q, %d open", ErrCard, c.Title, open)
	}
	var due *time.Time
	if !c.Due.IsZero() {
		due = &c.Due
	}
	var minutes *int
	if c.Minutes > 0 {
		minutes = &c.Minutes
	}
	var id int64
	if err := tx.QueryRow(ctx, `INSERT INTO action_card (clinic_id, title, body, who, due, minutes, vendor_text, author, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING card_id`,
		clinic, c.Title, c.Body, c.Who, due, minutes, c.Vendor, c.Author, now).Scan(&id); err != nil {
		return fmt.Errorf("create card: %w", err)
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: c.Author, Action: "card.create", Target: fmt.Sprintf("card:%d", id), Clinic: clinic, Reason: c.Title})
}

// AnswerCard is the clinic's answer: "done" or "call". tx sees that clinic only. The error is ErrCard.
func AnswerCard(ctx context.Context, tx pgx.Tx, g Guest, id int64, answer string, now time.Time) error {
	if answer != "done" && answer != "call" {
		return fmt.Errorf("%w: answer %q", ErrCard, answer)
	}
	tag, err := tx.Exec(ctx, `UPDATE action_card SET answer = $3, answered_at = $4 WHERE clinic_id = $1 AND card_id = $2 AND answer = ''`, g.Clinic, id, answer, now)
	if err != nil {
		return fmt.Errorf("answer card: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrCard
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: fmt.Sprintf("clinic:%d", g.Clinic), Action: "card." + answer, Target: fmt.Sprintf("card:%d", id), Clinic: g.Clinic})
}

// Month sums what the clinic's own page shows of one month, from the report's views.
type Month struct {
	Infected  int64 // devices under suspicion
	Found     int64
	Blocked   int64
	Reported  int64 // ms
	Expected  int64 // ms so far
	Unprot    int64 // ms
	Boxes     int
	Connected int
}

// Share is the part of the month so far that was reported, 0..1; -1 without a box.
func (m Month) Share() float64 {
	if m.Boxes == 0 {
		return -1
	}
	if m.Expected <= 0 {
		return min(1, float64(m.Reported)) // nothing is due yet
	}
	return min(1, float64(m.Reported)/float64(m.Expected))
}

// MonthOf reads it. tx sees that clinic only.
func MonthOf(ctx context.Context, tx pgx.Tx, clinic int32, month, now time.Time) (Month, error) {
	var m Month
	end := month.AddDate(0, 1, 0)
	if now.Before(end) {
		end = now
	}
	err := tx.QueryRow(ctx, `
SELECT (SELECT count(DISTINCT coalesce(device_mac::text, host(device_ip))) FROM report_infected WHERE clinic_id = $1 AND t >= $2 AND t < $3),
  (SELECT coalesce(sum(count), 0) FROM report_finding WHERE clinic_id = $1 AND t >= $2 AND t < $3),
  (SELECT coalesce(sum(count), 0) FROM report_finding WHERE clinic_id = $1 AND t >= $2 AND t < $3 AND (action = 'blocked' OR kind = 'block')),
  (SELECT coalesce(sum(reported_ms), 0)::bigint FROM report_coverage WHERE clinic_id = $1 AND hour >= $2 AND hour < $3),
  (SELECT coalesce(sum(unprotected_ms), 0)::bigint FROM report_coverage WHERE clinic_id = $1 AND hour >= $2 AND hour < $3),
  count(*) FILTER (WHERE state = 'approved'), count(*) FILTER (WHERE state = 'approved' AND connected),
  coalesce(sum(appliance_expected_ms(appliance_id, created_at, $2, $3, $4)) FILTER (WHERE state = 'approved' AND created_at < $3), 0)::bigint
FROM appliance WHERE clinic_id = $1`, clinic, month, end, now).Scan(&m.Infected, &m.Found, &m.Blocked, &m.Reported, &m.Unprot, &m.Boxes, &m.Connected, &m.Expected)
	if err != nil {
		return Month{}, fmt.Errorf("read month of clinic: %w", err)
	}
	return m, nil
}

// Signature is a director's on a report.
type Signature struct {
	Name   string
	Signed time.Time
}

// SignatureOf reads it; the zero value when there is none.
func SignatureOf(ctx context.Context, tx pgx.Tx, clinic int32, report int64) (Signature, error) {
	var s Signature
	err := tx.QueryRow(ctx, `SELECT name, signed_at FROM report_signature WHERE clinic_id = $1 AND report_id = $2`, clinic, report).Scan(&s.Name, &s.Signed)
	if errors.Is(err, pgx.ErrNoRows) {
		return Signature{}, nil
	}
	if err != nil {
		return Signature{}, fmt.Errorf("read signature: %w", err)
	}
	return s, nil
}

// Sign records that the director has read a report: name and pass again. tx sees that clinic only. Errors: ErrAccess, ErrSigned.
func Sign(ctx context.Context, tx pgx.Tx, g Guest, report int64, name, pass string, now time.Time) error {
	name = strings.TrimSpace(name)
	if name == "" || utf8.RuneCountInString(name) > 100 || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: name", ErrAccess)
	}
	var ok bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM clinic_access WHERE clinic_id = $1 AND access_id = $2 AND role = 'director' AND secret_hash = $3 AND revoked_at IS NULL AND expires_at > $4)`,
		g.Clinic, g.Access, passHash(pass), now).Scan(&ok); err != nil {
		return fmt.Errorf("check clinic access: %w", err)
	}
	if !ok {
		return ErrAccess
	}
	var sum []byte
	err := tx.QueryRow(ctx, `INSERT INTO report_signature (clinic_id, report_id, name, access_id, pdf_sha256, signed_at)
SELECT clinic_id, report_id, $3, $4, pdf_sha256, $5 FROM report WHERE clinic_id = $1 AND report_id = $2 ON CONFLICT DO NOTHING RETURNING pdf_sha256`, g.Clinic, report, name, g.Access, now).Scan(&sum)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrSigned
	}
	if err != nil {
		return fmt.Errorf("sign report: %w", err)
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: fmt.Sprintf("clinic:%d", g.Clinic), Action: "report.sign", Target: fmt.Sprintf("report:%d", report), Clinic: g.Clinic, Detail: map[string]string{"name": name, "pdf_sha256": fmt.Sprintf("%x", sum)}})
}

// Setting reads one; "" when it isn't set.
func Setting(ctx context.Context, tx pgx.Tx, name string) (string, error) {
	var v string
	err := tx.QueryRow(ctx, `SELECT value FROM setting WHERE name = $1`, name).Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return v, err
}
