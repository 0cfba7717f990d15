// Package account keeps operators, their passwords (argon2id) and their sessions (stored by hash). The console and the RPC server
// log in and look up sessions through it. The trap: a session's token is shown once; the database can't give it back.
package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
)

// Errors.
var (
	// ErrLogin: wrong name or password, or a disabled operator: one and the same.
	ErrLogin = errors.New("name or password is wrong")
	// ErrLimited: too many tries for this name; later again.
	ErrLimited = errors.New("too many login attempts; try again in a minute")
	// ErrSession: the session is not known, has ended, or its operator is disabled.
	ErrSession = errors.New("session has ended; log in again")
	// ErrInvalid: an operator's data is not acceptable.
	ErrInvalid = errors.New("operator is not valid")
	// ErrExists: the name is taken.
	ErrExists = errors.New("operator exists already")
)

// Role is what an operator is; console design 1.3.
type Role string

// The roles.
const (
	Analyst  Role = "analyst"
	Lead     Role = "lead"
	Manager  Role = "operator"
	Approver Role = "approver"
	Auditor  Role = "auditor"
	Admin    Role = "admin"
)

// Roles lists all roles.
var Roles = []Role{Analyst, Lead, Manager, Approver, Auditor, Admin}

// Operator is a person at the MSP.
type Operator struct {
	ID          int32
	Name        string // login name
	DisplayName string
	Role        Role
	Language    string // ja, en
	Theme       string // auto, light, dark
}

// SessionLife is how long a session lasts, for the console and the command line.
const SessionLife = 12 * time.Hour

// sessionCache is how long a looked-up session stands without asking again; Logout and password changes end it here at once.
const sessionCache = 10 * time.Second

// maxHashing bounds parallel argon2 runs: each takes 46 MiB.
const maxHashing = 2

// Wrong logins: burst, then one each refill, by name.
const (
	loginBurst  = 10
	loginRefill = 6 * time.Second
	maxNames    = 10_000
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9._-]{1,31}$`)

// Config of Open.
type Config struct {
	Pool *pgxpool.Pool // operator tables carry no row-level security
	Now  func() time.Time
	Log  hclog.Logger
}

// Accounts is the store of operators and sessions. Safe for use by many goroutines.
type Accounts struct {
	pool    *pgxpool.Pool
	now     func() time.Time
	log     hclog.Logger
	hashing chan struct{}
	decoy   string // hash that an unknown name is compared with, so that it takes as long

	mu       sync.Mutex
	attempts map[string]bucket
	sessions map[[sha256.Size]byte]cached
}

type bucket struct {
	tokens float64
	at     time.Time
}

type cached struct {
	op      Operator
	expires time.Time
	asked   time.Time
}

// New returns the accounts of a database.
func New(cfg Config) (*Accounts, error) {
	if cfg.Pool == nil {
		return nil, errors.New("open accounts: no database given")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	return &Accounts{
		pool: cfg.Pool, now: cfg.Now, log: cfg.Log.Named("account"), hashing: make(chan struct{}, maxHashing),
		decoy: hashPassword(randomText()), attempts: map[string]bucket{}, sessions: map[[sha256.Size]byte]cached{},
	}, nil
}

// Bootstrap creates the operator "admin" when there is no operator at all, with a random password written to file (mode 0600).
// The application calls it at each start. The password is never logged.
func (a *Accounts) Bootstrap(ctx context.Context, file string) error {
	var any bool
	if err := a.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM operator)`).Scan(&any); err != nil {
		return fmt.Errorf("count operators: %w", err)
	}
	if any {
		return nil
	}
	password := randomText()[:24]
	// The file first: an operator whose password nobody knows would lock everybody out.
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return fmt.Errorf("write first password: %w", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		return fmt.Errorf("write first password: %w", err)
	}
	err := a.Create(ctx, "system", Operator{Name: "admin", DisplayName: "管理者", Role: Admin}, password)
	if errors.Is(err, ErrExists) {
		return nil // another replica was first; its file holds the password
	}
	if err != nil {
		return err
	}
	a.log.Info("created operator admin", "password_file", file)
	return nil
}

// Create adds an operator. Errors: ErrInvalid with the reason, ErrExists.
func (a *Accounts) Create(ctx context.Context, actor string, op Operator, password string) error {
	switch {
	case !nameForm.MatchString(op.Name):
		return fmt.Errorf("%w: name %q: want 2 to 32 of a-z, 0-9, dot, dash, underscore, a letter first", ErrInvalid, op.Name)
	case !slices.Contains(Roles, op.Role):
		return fmt.Errorf("%w: role %q: want one of %v", ErrInvalid, op.Role, Roles)
	case len(password) < MinPassword || len(password) > MaxPassword:
		return fmt.Errorf("%w: password has %d bytes: want %d to %d", ErrInvalid, len(password), MinPassword, MaxPassword)
	}
	if op.DisplayName == "" {
		op.DisplayName = op.Name
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO operator (name, display_name, role, password_hash) VALUES ($1, $2, $3, $4)
			ON CONFLICT (name) DO NOTHING`, op.Name, op.DisplayName, string(op.Role), hash)
		if err != nil {
			return fmt.Errorf("create operator: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("%w: %s", ErrExists, op.Name)
		}
		return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "operator.create", Target: "operator:" + op.Name, Detail: map[string]string{"role": string(op.Role)}})
	})
}

// Login checks name and password and begins a session of a kind ("console" or "cli"). It takes as long for an unknown name as for
// a wrong password. Errors: ErrLogin, ErrLimited.
func (a *Accounts) Login(ctx context.Context, name, password, kind string) (token string, op Operator, expires time.Time, err error) {
	if !a.allow(name) {
		return "", Operator{}, time.Time{}, ErrLimited
	}
	hash, disabled := a.decoy, true
	if nameForm.MatchString(name) && len(password) <= MaxPassword {
		err = a.pool.QueryRow(ctx, `SELECT id, name, display_name, role, language, theme, password_hash, disabled FROM operator WHERE name = $1`, name).
			Scan(&op.ID, &op.Name, &op.DisplayName, &op.Role, &op.Language, &op.Theme, &hash, &disabled)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return "", Operator{}, time.Time{}, fmt.Errorf("look up operator: %w", err)
		}
	} else {
		password = ""
	}
	ok, err := a.check(ctx, hash, password)
	if err != nil {
		return "", Operator{}, time.Time{}, err
	}
	if !ok || disabled {
		known := "unknown"
		if op.ID != 0 {
			known = op.Name
		}
		if err := a.note(ctx, "operator.login_failed", known, kind); err != nil {
			return "", Operator{}, time.Time{}, err
		}
		return "", Operator{}, time.Time{}, ErrLogin
	}
	a.forgive(op.Name)
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // crypto/rand never fails since Go 1.24
	token = base64.RawURLEncoding.EncodeToString(raw)
	sum := sha256.Sum256(raw)
	expires = a.now().Add(SessionLife).Truncate(time.Second)
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO operator_session (token_hash, operator_id, kind, expires_at) VALUES ($1, $2, $3, $4)`,
			sum[:], op.ID, kind, expires); err != nil {
			return fmt.Errorf("store session: %w", err)
		}
		if _, err := tx.Exec(ctx, `DELETE FROM operator_session WHERE expires_at < $1`, a.now()); err != nil {
			return fmt.Errorf("remove old sessions: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{Actor: op.Name, Action: "operator.login", Target: "operator:" + op.Name, Detail: map[string]string{"kind": kind}})
	})
	if err != nil {
		return "", Operator{}, time.Time{}, err
	}
	return token, op, expires, nil
}

// Session returns whose session a token is. Error: ErrSession.
func (a *Accounts) Session(ctx context.Context, token string) (Operator, error) {
	sum, ok := digest(token)
	if !ok {
		return Operator{}, ErrSession
	}
	now := a.now()
	a.mu.Lock()
	c, ok := a.sessions[sum]
	a.mu.Unlock()
	if ok && now.Sub(c.asked) < sessionCache && now.Before(c.expires) {
		return c.op, nil
	}
	c = cached{asked: now}
	err := a.pool.QueryRow(ctx, `SELECT o.id, o.name, o.display_name, o.role, o.language, o.theme, s.expires_at
		FROM operator_session s JOIN operator o ON o.id = s.operator_id
		WHERE s.token_hash = $1 AND s.expires_at > $2 AND NOT o.disabled`, sum[:], now).
		Scan(&c.op.ID, &c.op.Name, &c.op.DisplayName, &c.op.Role, &c.op.Language, &c.op.Theme, &c.expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return Operator{}, ErrSession
	}
	if err != nil {
		return Operator{}, fmt.Errorf("look up session: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.sessions) >= maxNames {
		clear(a.sessions)
	}
	a.sessions[sum] = c
	return c.op, nil
}

// Logout ends a session; ending one that is not there is no error.
func (a *Accounts) Logout(ctx context.Context, token string) error {
	sum, ok := digest(token)
	if !ok {
		return nil
	}
	if _, err := a.pool.Exec(ctx, `DELETE FROM operator_session WHERE token_hash = $1`, sum[:]); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sessions, sum)
	return nil
}

// SetPassword replaces an operator's password and ends all sessions. Errors: ErrInvalid.
func (a *Accounts) SetPassword(ctx context.Context, actor, name, password string) error {
	if len(password) < MinPassword || len(password) > MaxPassword {
		return fmt.Errorf("%w: password has %d bytes: want %d to %d", ErrInvalid, len(password), MinPassword, MaxPassword)
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE operator SET password_hash = $2 WHERE name = $1`, name, hash)
		if err != nil {
			return fmt.Errorf("set password: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("%w: there is no operator %q", ErrInvalid, name)
		}
		if _, err := tx.Exec(ctx, `DELETE FROM operator_session WHERE operator_id = (SELECT id FROM operator WHERE name = $1)`, name); err != nil {
			return fmt.Errorf("end sessions: %w", err)
		}
		return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "operator.password", Target: "operator:" + name})
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.sessions)
	return err
}

// note writes an audit row of its own. Names that are no operator's are not written: they may be passwords typed in the wrong field.
func (a *Accounts) note(ctx context.Context, action, name, kind string) error {
	return pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		return audit.Append(ctx, tx, audit.Entry{Actor: "system", Action: action, Target: "operator:" + name, Detail: map[string]string{"kind": kind}})
	})
}

// forgive gives the token of a right login back: scripts log in often, guessers are wrong often.
func (a *Accounts) forgive(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b, ok := a.attempts[name]; ok {
		b.tokens = min(loginBurst, b.tokens+1)
		a.attempts[name] = b
	}
}

// allow takes a token of the name's bucket.
func (a *Accounts) allow(name string) bool {
	if len(name) > 64 {
		name = name[:64]
	}
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.attempts[name]
	if !ok {
		if len(a.attempts) >= maxNames {
			for n, old := range a.attempts { // those that are full again need no memory
				if now.Sub(old.at) > loginBurst*loginRefill {
					delete(a.attempts, n)
				}
			}
			if len(a.attempts) >= maxNames {
				return false
			}
		}
		b = bucket{tokens: loginBurst, at: now}
	}
	b.tokens = min(loginBurst, b.tokens+float64(now.Sub(b.at))/float64(loginRefill))
	b.at = now
	if b.tokens < 1 {
		a.attempts[name] = b
		return false
	}
	b.tokens--
	a.attempts[name] = b
	return true
}

func (a *Accounts) hash(ctx context.Context, password string) (string, error) {
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
		return hashPassword(password), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (a *Accounts) check(ctx context.Context, hash, password string) (bool, error) {
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
		return checkPassword(hash, password)
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func digest(token string) (sum [sha256.Size]byte, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 32 {
		return sum, false
	}
	return sha256.Sum256(raw), true
}

func randomText() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // crypto/rand never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(b)
}
