// Package enrol lets appliances in: it makes claims for operators, exchanges a claim and a certificate request for an identity, and
// renews identities. The RPC server calls it. The trap: a wrong, a used and an expired claim give one and the same answer, and the
// reason stands only in the audit log.
package enrol

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	"github.com/kadomori/kadomori/proto/claim"
)

// Errors.
var (
	// ErrClaim: wrong, used or expired, or for other hardware.
	ErrClaim = errors.New("claim is not valid: it is wrong, used or expired; ask your provider for a new one")
	// ErrLimited: too many wrong claims from this peer.
	ErrLimited = errors.New("too many attempts; try again later")
	// ErrInvalid: an operator's request is not acceptable; wrapped with why.
	ErrInvalid = errors.New("claim request is not valid")
)

// Lifetimes of a claim.
const (
	DefaultTTL = 7 * 24 * time.Hour
	MaxTTL     = 90 * 24 * time.Hour
	minTTL     = time.Minute
)

// DB runs transactions; *postgres.DB is one.
type DB interface {
	As(ctx context.Context, clinics []int32, fn func(pgx.Tx) error) error
	Fleet(ctx context.Context, actor string, fn func(pgx.Tx) error) error
}

// Admitter marks an appliance approved and publishes its first policy; *appliance.Publisher is one.
type Admitter interface {
	Admit(ctx context.Context, tx pgx.Tx, clinic, id int32, actor string) error
}

// Config of New.
type Config struct {
	DB        DB
	Authority *pki.Authority
	Registry  *pki.Registry
	Admitter  Admitter
	// Server is host:port of EnrolService as appliances reach it; it stands in claims.
	Server string
	Now    func() time.Time // nil: time.Now
	Log    hclog.Logger
}

// Enrolment is the desk where appliances come in. Safe for use by many goroutines.
type Enrolment struct {
	Config
	limit limiter
}

// New returns an enrolment.
func New(cfg Config) (*Enrolment, error) {
	if cfg.DB == nil || cfg.Authority == nil || cfg.Registry == nil || cfg.Admitter == nil {
		return nil, errors.New("open enrolment: database, authority, registry and admitter are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	cfg.Log = cfg.Log.Named("enrol")
	if _, err := claim.New(cfg.Server, cfg.Authority.Root()); err != nil {
		return nil, fmt.Errorf("open enrolment: %w", err)
	}
	return &Enrolment{Config: cfg, limit: limiter{peers: map[string]failures{}}}, nil
}

// Order is what an operator wants a claim for.
type Order struct {
	Clinic      int32
	Name        string // of the appliance; empty: "門守 <clinic code>"
	TTL         time.Duration
	AutoApprove bool
	Serial      string
	// Replaces is the appliance whose place the new one takes; clinic and (unless given) name are its. 0: none.
	Replaces int32
}

// Issued is a new claim.
type Issued struct {
	ID        int64
	Appliance int32
	Text      string // secret, shown once
	Expires   time.Time
}

// CreateClaim makes a place for an appliance and a claim for it. Errors: ErrInvalid, clinic.ErrNotFound.
func (e *Enrolment) CreateClaim(ctx context.Context, actor string, o Order) (Issued, error) {
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.TTL < minTTL || o.TTL > MaxTTL {
		return Issued{}, fmt.Errorf("%w: it would live %s, want %s to %s", ErrInvalid, o.TTL, minTTL, MaxTTL)
	}
	o.Name, o.Serial = strings.TrimSpace(o.Name), strings.TrimSpace(o.Serial)
	for field, s := range map[string]string{"appliance name": o.Name, "serial": o.Serial} {
		if len(s) > 200 || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
			return Issued{}, fmt.Errorf("%w: %s: want at most 200 printable bytes", ErrInvalid, field)
		}
	}
	c, err := claim.New(e.Server, e.Authority.Root())
	if err != nil {
		return Issued{}, err
	}
	out := Issued{Text: c.Text(), Expires: e.Now().Add(o.TTL).Truncate(time.Second)}
	err = e.DB.Fleet(ctx, actor, func(tx pgx.Tx) error {
		if o.Replaces != 0 {
			if err := predecessor(ctx, tx, &o); err != nil {
				return err
			}
		}
		if err := clinic.Require(ctx, tx, o.Clinic); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `INSERT INTO appliance (clinic_id, name, serial, state, replaces)
			SELECT clinic_id, coalesce(nullif($2, ''), '門守 ' || code), $3, 'claimed', nullif($4, 0) FROM clinic WHERE clinic_id = $1 RETURNING appliance_id`,
			o.Clinic, o.Name, o.Serial, o.Replaces).Scan(&out.Appliance)
		if err != nil {
			return fmt.Errorf("create appliance: %w", err)
		}
		err = tx.QueryRow(ctx, `INSERT INTO claim (clinic_id, appliance_id, secret_hash, serial, auto_approve, created_by, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING claim_id`,
			o.Clinic, out.Appliance, claim.Digest(c.Secret[:]), o.Serial, o.AutoApprove, actor, out.Expires).Scan(&out.ID)
		if err != nil {
			return fmt.Errorf("create claim: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Actor: actor, Action: "claim.create", Target: fmt.Sprintf("claim:%d", out.ID), Clinic: o.Clinic,
			Detail: map[string]any{"appliance": out.Appliance, "auto_approve": o.AutoApprove, "serial": o.Serial, "expires": out.Expires, "replaces": o.Replaces},
		})
	})
	if err != nil {
		return Issued{}, err
	}
	return out, nil
}

// predecessor fills in what a replacement takes over. Errors: ErrInvalid.
func predecessor(ctx context.Context, tx pgx.Tx, o *Order) error {
	var at int32
	var name, state string
	err := tx.QueryRow(ctx, `SELECT clinic_id, name, state FROM appliance WHERE appliance_id = $1`, o.Replaces).Scan(&at, &name, &state)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: there is no appliance %d to replace", ErrInvalid, o.Replaces)
	case err != nil:
		return fmt.Errorf("look up appliance: %w", err)
	case state == "retired" || state == "claimed":
		return fmt.Errorf("%w: appliance %d is %s; there is nothing to replace", ErrInvalid, o.Replaces, state)
	case o.Clinic != 0 && o.Clinic != at:
		return fmt.Errorf("%w: appliance %d belongs to clinic %d, not %d", ErrInvalid, o.Replaces, at, o.Clinic)
	}
	o.Clinic = at
	if o.Name == "" {
		o.Name = name
	}
	return nil
}

// Hardware is what a box says of itself.
type Hardware struct{ Serial, Model, Version string }

// Identity is what an admitted box gets.
type Identity struct {
	pki.Identity
	Certificates [][]byte // DER, leaf first
}

// Result of Enrol: State is appliance.Pending, Approved or Rejected; Identity only when approved.
type Result struct {
	State    string
	Identity *Identity
}

// verdict is how a claim was judged; it ends in the audit log, not in the answer.
type verdict struct {
	why       string
	clinic    int32
	appliance int32
	claim     int64
}

// Enrol exchanges a claim for an identity. peer is the network address of the caller. The same key may ask again with its claim.
// Errors: ErrClaim, ErrLimited, pki.ErrRequest.
func (e *Enrolment) Enrol(ctx context.Context, peer string, secret, csrDER []byte, hw Hardware) (Result, error) {
	now := e.Now()
	if !e.limit.allow(peer, now) {
		return Result{}, ErrLimited
	}
	csr, err := pki.CheckRequest(csrDER, pki.Identity{})
	if err != nil {
		e.limit.fail(peer, now)
		return Result{}, err
	}
	if len(secret) != claim.SecretSize {
		e.limit.fail(peer, now)
		return Result{}, ErrClaim
	}
	var res Result
	var bad *verdict
	err = e.DB.Fleet(ctx, "system:enrol", func(tx pgx.Tx) error {
		res, bad, err = e.use(ctx, tx, claim.Digest(secret), csr, hw, now)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	if bad == nil {
		return res, nil
	}
	e.limit.fail(peer, now)
	e.Log.Warn("refused a claim", "peer", peer, "why", bad.why, "clinic", bad.clinic, "appliance", bad.appliance)
	err = e.DB.Fleet(ctx, "system:enrol", func(tx pgx.Tx) error {
		return audit.Append(ctx, tx, audit.Entry{
			Actor: "peer:" + peer, Action: "claim.refuse", Target: fmt.Sprintf("claim:%d", bad.claim), Clinic: bad.clinic, Reason: bad.why,
			Detail: map[string]any{"appliance": bad.appliance, "serial": hw.Serial, "key": fmt.Sprintf("%x", pki.KeyDigest(csr)[:8])},
		})
	})
	if err != nil {
		return Result{}, err
	}
	return Result{}, ErrClaim
}

// use judges a claim and, when it holds, moves the appliance on.
func (e *Enrolment) use(ctx context.Context, tx pgx.Tx, digest []byte, csr *x509.CertificateRequest, hw Hardware, now time.Time) (Result, *verdict, error) {
	var v verdict
	var hash, usedKey []byte
	var serial string
	var auto bool
	var expires time.Time
	var used *time.Time
	err := tx.QueryRow(ctx, `SELECT claim_id, clinic_id, appliance_id, secret_hash, serial, auto_approve, expires_at, used_at, used_key
		FROM claim WHERE secret_hash = $1 FOR UPDATE`, digest).Scan(&v.claim, &v.clinic, &v.appliance, &hash, &serial, &auto, &expires, &used, &usedKey)
	if errors.Is(err, pgx.ErrNoRows) {
		v.why = "unknown claim"
		return Result{}, &v, nil
	}
	if err != nil {
		return Result{}, nil, fmt.Errorf("look up claim: %w", err)
	}
	key := pki.KeyDigest(csr)
	again := used != nil && bytes.Equal(usedKey, key)
	switch {
	case subtle.ConstantTimeCompare(hash, digest) != 1:
		v.why = "unknown claim"
	case used != nil && !again:
		v.why = "used by another key: the claim was copied, or the box lost its key"
	case used == nil && !now.Before(expires):
		v.why = "expired"
	case serial != "" && subtle.ConstantTimeCompare([]byte(serial), []byte(hw.Serial)) != 1:
		v.why = "bound to another serial"
	}
	if v.why != "" {
		return Result{}, &v, nil
	}
	var state string
	if err := tx.QueryRow(ctx, `SELECT state FROM appliance WHERE appliance_id = $1 FOR UPDATE`, v.appliance).Scan(&state); err != nil {
		return Result{}, nil, fmt.Errorf("look up appliance: %w", err)
	}
	switch state {
	case "claimed":
		state, err = e.first(ctx, tx, &v, key, hw, auto, now)
		if err != nil {
			return Result{}, nil, err
		}
	case "pending", "approved", "rejected":
	default:
		v.why = "its appliance is " + state
		return Result{}, &v, nil
	}
	if state != "approved" {
		return Result{State: state}, nil, nil
	}
	id, err := e.issue(ctx, tx, csr, pki.Identity{Clinic: v.clinic, Appliance: v.appliance})
	if err != nil {
		return Result{}, nil, err
	}
	return Result{State: state, Identity: id}, nil, audit.Append(ctx, tx, audit.Entry{
		Actor: fmt.Sprintf("appliance:%d", v.appliance), Action: "certificate.issue", Target: fmt.Sprintf("appliance:%d", v.appliance), Clinic: v.clinic,
		Detail: map[string]any{"claim": v.claim, "key": fmt.Sprintf("%x", key[:8])},
	})
}

// first binds a claim to the key that uses it first, and returns the appliance's new state.
func (e *Enrolment) first(ctx context.Context, tx pgx.Tx, v *verdict, key []byte, hw Hardware, auto bool, now time.Time) (string, error) {
	if _, err := tx.Exec(ctx, `UPDATE claim SET used_at = $2, used_key = $3 WHERE claim_id = $1`, v.claim, now, key); err != nil {
		return "", fmt.Errorf("mark claim used: %w", err)
	}
	_, err := tx.Exec(ctx, `UPDATE appliance SET state = 'pending', key_sha256 = $2, serial = $3, model = $4, version = $5, last_seen = $6 WHERE appliance_id = $1`,
		v.appliance, key, text(hw.Serial), text(hw.Model), text(hw.Version), now)
	if err != nil {
		return "", fmt.Errorf("note hardware of appliance: %w", err)
	}
	state := "pending"
	if auto {
		if err := e.Admitter.Admit(ctx, tx, v.clinic, v.appliance, "system:enrol"); err != nil {
			return "", err
		}
		state = "approved"
	}
	return state, audit.Append(ctx, tx, audit.Entry{
		Actor: fmt.Sprintf("appliance:%d", v.appliance), Action: "claim.use", Target: fmt.Sprintf("claim:%d", v.claim), Clinic: v.clinic,
		Detail: map[string]any{"state": state, "serial": hw.Serial, "model": hw.Model, "version": hw.Version},
	})
}

// Renew gives a new certificate to an appliance that showed a certificate of ours, which may have ended within
// pki.RenewalWindow. Errors: pki.ErrRequest, pki.ErrRevoked, pki.ErrUnknown.
func (e *Enrolment) Renew(ctx context.Context, cert *x509.Certificate, csrDER []byte) (*Identity, error) {
	id, err := e.Registry.Authorise(ctx, cert)
	if err != nil {
		return nil, err
	}
	csr, err := pki.CheckRequest(csrDER, id)
	if err != nil {
		return nil, err
	}
	var out *Identity
	err = e.DB.As(ctx, []int32{id.Clinic}, func(tx pgx.Tx) error {
		// The registry's answer may be seconds old; here the row decides.
		var state string
		if err := tx.QueryRow(ctx, `SELECT state FROM appliance WHERE appliance_id = $1 FOR UPDATE`, id.Appliance).Scan(&state); err != nil {
			return fmt.Errorf("look up appliance: %w", err)
		}
		if state != "approved" {
			return fmt.Errorf("%w: it is %s", pki.ErrRevoked, state)
		}
		key := pki.KeyDigest(csr)
		if out, err = e.issue(ctx, tx, csr, id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE appliance SET key_sha256 = $2 WHERE appliance_id = $1`, id.Appliance, key); err != nil {
			return fmt.Errorf("note key of appliance: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{
			Actor: fmt.Sprintf("appliance:%d", id.Appliance), Action: "certificate.renew", Target: fmt.Sprintf("appliance:%d", id.Appliance), Clinic: id.Clinic,
			Detail: map[string]any{"from": pki.Serial(cert), "key": fmt.Sprintf("%x", key[:8])},
		})
	})
	return out, err
}

func (e *Enrolment) issue(ctx context.Context, tx pgx.Tx, csr *x509.CertificateRequest, id pki.Identity) (*Identity, error) {
	cert, err := e.Authority.Issue(csr, id)
	if err != nil {
		return nil, err
	}
	if err := e.Registry.Record(ctx, tx, id, cert); err != nil {
		return nil, err
	}
	return &Identity{Identity: id, Certificates: e.Authority.Chain(cert)}, nil
}

// text makes a box's own words fit for a column.
func text(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return s
}
