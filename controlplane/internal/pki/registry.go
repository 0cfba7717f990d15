package pki

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Errors of Authorise.
var (
	// ErrRevoked: the appliance or this certificate of it was revoked, or it was never approved.
	ErrRevoked = errors.New("appliance is not admitted")
	// ErrUnknown: the certificate was not issued by this database's control plane.
	ErrUnknown = errors.New("certificate is not known")
)

// cacheLife bounds how long an answer stands when no notice of a change arrives: a notice normally takes milliseconds.
const cacheLife = 30 * time.Second

// maxCache bounds the cache; a full one is emptied.
const maxCache = 1 << 16

// queryLimit bounds the database's part of one Authorise.
const queryLimit = 5 * time.Second

// Tenant runs a transaction that sees the rows of some clinics; *postgres.DB is one.
type Tenant interface {
	As(ctx context.Context, clinics []int32, fn func(pgx.Tx) error) error
}

// Registry knows which issued certificates may enter. Safe for use by many goroutines.
type Registry struct {
	db  Tenant
	now func() time.Time

	mu    sync.Mutex
	cache map[string]answer // by certificate serial, hex
	gen   uint64            // grows with each Forget: an answer asked for before it must not be kept after it
}

type answer struct {
	id  Identity
	err error
	at  time.Time
}

// NewRegistry returns a registry on the tables certificate and appliance. now nil: time.Now.
func NewRegistry(db Tenant, now func() time.Time) *Registry {
	if now == nil {
		now = time.Now
	}
	return &Registry{db: db, now: now, cache: map[string]answer{}}
}

// Serial names a certificate in the database.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// Record stores an issued certificate; tx must see the clinic. The enrolment calls it in the transaction that admits the appliance.
func (r *Registry) Record(ctx context.Context, tx pgx.Tx, id Identity, cert *x509.Certificate) error {
	_, err := tx.Exec(ctx, `INSERT INTO certificate (clinic_id, appliance_id, serial, not_before, not_after) VALUES ($1, $2, $3, $4, $5)`,
		id.Clinic, id.Appliance, Serial(cert), cert.NotBefore, cert.NotAfter)
	if err != nil {
		return fmt.Errorf("record certificate: %w", err)
	}
	return nil
}

// Authorise says whose certificate it is, when that appliance is approved and the certificate is not revoked. The caller has
// verified the chain. gRPC asks on each call, NATS on each connection. Errors: ErrIdentity, ErrUnknown, ErrRevoked, the database's.
func (r *Registry) Authorise(ctx context.Context, cert *x509.Certificate) (Identity, error) {
	id, err := IdentityOf(cert)
	if err != nil {
		return Identity{}, err
	}
	key := Serial(cert)
	r.mu.Lock()
	a, ok := r.cache[key]
	gen := r.gen
	r.mu.Unlock()
	if ok && r.now().Sub(a.at) < cacheLife && a.id == id {
		if a.err != nil {
			return Identity{}, a.err
		}
		return id, nil
	}
	asked := r.now()
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	var state string
	var revoked bool
	err = r.db.As(ctx, []int32{id.Clinic}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT a.state, c.revoked_at IS NOT NULL
			FROM certificate c JOIN appliance a USING (clinic_id, appliance_id)
			WHERE c.serial = $1 AND c.clinic_id = $2 AND c.appliance_id = $3`, key, id.Clinic, id.Appliance).Scan(&state, &revoked)
	})
	var verdict error
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		verdict = ErrUnknown
	case err != nil:
		return Identity{}, fmt.Errorf("look up certificate: %w", err)
	case revoked || state != "approved":
		verdict = fmt.Errorf("%w: it is %s", ErrRevoked, state)
	}
	r.mu.Lock()
	if len(r.cache) >= maxCache {
		clear(r.cache)
	}
	if r.gen == gen {
		r.cache[key] = answer{id: id, err: verdict, at: asked}
	}
	r.mu.Unlock()
	if verdict != nil {
		return Identity{}, verdict
	}
	return id, nil
}

// Forget drops what is cached of an appliance, so that the next Authorise asks the database. Called at once when an appliance
// is revoked or approved, here or (by notification) on another replica.
func (r *Registry) Forget(appliance int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gen++
	for k, a := range r.cache {
		if a.id.Appliance == appliance {
			delete(r.cache, k)
		}
	}
}
