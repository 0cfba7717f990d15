// Package bundle signs, numbers and stores the sets of bytes that appliances take: one policy for each, signatures for all. The
// appliance package publishes through it, the RPC server hands out what it stores. The trap: a version is given in the
// transaction that stores the bundle, under a lock, so publishing waits for an earlier publication of the same audience.
package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

// ErrNotFound says that there is no such bundle for the caller.
var ErrNotFound = errors.New("no such bundle")

// Life is how long a bundle may be activated. A box that was off for a year takes a new one instead.
const Life = 400 * 24 * time.Hour

// maxCached bounds the contents kept in memory, in bytes: signatures are fetched by every box within minutes.
const maxCached = 64 << 20

// Config of New.
type Config struct {
	Key ed25519.PrivateKey
	Now func() time.Time // nil: time.Now
}

// Store signs and keeps bundles. Safe for use by many goroutines.
type Store struct {
	key ed25519.PrivateKey
	now func() time.Time

	mu     sync.Mutex
	cached map[[sha256.Size]byte][]byte // contents of fleet bundles
	size   int
}

// New returns a store that signs with cfg.Key.
func New(cfg Config) (*Store, error) {
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("open bundle store: no signing key given")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{key: cfg.Key, now: cfg.Now, cached: map[[sha256.Size]byte][]byte{}}, nil
}

// PublicKey is what appliances must trust.
func (s *Store) PublicKey() ed25519.PublicKey {
	pub, _ := s.key.Public().(ed25519.PublicKey)
	return pub
}

// Publication is what Publish stores.
type Publication struct {
	Kind      bundlev1.Kind
	Clinic    int32 // both 0: for the fleet, through Publish; else through PublishPolicies
	Appliance int32
	Content   proto.Message
	Author    string
	Reason    string
	// Held keeps a fleet's bundle back: it is wanted only by appliances whose target names its version.
	Held bool
}

// Publish stores content as the wanted bundle of its kind and audience and returns its version. Content equal to the newest
// bundle makes no new one (changed false). tx must be of the fleet's role.
func (s *Store) Publish(ctx context.Context, tx pgx.Tx, p Publication) (version uint64, changed bool, err error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.Content)
	if err != nil {
		return 0, false, fmt.Errorf("encode bundle: %w", err)
	}
	if len(content) > sign.MaxContent {
		return 0, false, fmt.Errorf("publish bundle: %d bytes, limit %d", len(content), sign.MaxContent)
	}
	kind, err := kindText(p.Kind)
	if err != nil {
		return 0, false, err
	}
	sum := sha256.Sum256(content)
	if p.Appliance != 0 {
		return 0, false, errors.New("publish bundle: policies go through PublishPolicies")
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('bundle ' || $1), 0)`, kind); err != nil {
		return 0, false, fmt.Errorf("lock bundles: %w", err)
	}
	var last int64
	var lastSum []byte
	var created time.Time
	var released bool
	err = tx.QueryRow(ctx, `SELECT version, sha256, created_at, released FROM bundle WHERE kind = $1 AND coalesce(appliance_id, 0) = $2
		ORDER BY version DESC LIMIT 1`, kind, p.Appliance).Scan(&last, &lastSum, &created, &released)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, false, fmt.Errorf("look up newest bundle: %w", err)
	}
	now := s.now()
	// The same content is signed anew when half its life has gone, so that no box meets its end.
	if bytes.Equal(lastSum, sum[:]) && now.Before(created.Add(Life/2)) {
		if released || p.Held {
			return uint64(last), false, nil
		}
		return uint64(last), true, s.Release(ctx, tx, p.Kind, uint64(last))
	}
	envelope, err := s.envelope(p.Kind, uint64(last)+1, sum, len(content), sign.Fleet, now)
	if err != nil {
		return 0, false, err
	}
	_, err = tx.Exec(ctx, `INSERT INTO bundle (kind, version, sha256, size, envelope, content, author, reason, created_at, released)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		kind, last+1, sum[:], len(content), envelope, content, p.Author, p.Reason, now, !p.Held)
	if err != nil {
		return 0, false, fmt.Errorf("store bundle: %w", err)
	}
	return uint64(last) + 1, true, nil
}

func (s *Store) envelope(kind bundlev1.Kind, version uint64, sum [sha256.Size]byte, size int, audience string, now time.Time) ([]byte, error) {
	env, err := sign.Sign(s.key, &bundlev1.Manifest{
		Kind: kind, Version: version, Sha256: sum[:], Size: uint64(size), Audience: audience,
		Created: timestamppb.New(now), Expires: timestamppb.New(now.Add(Life)),
	})
	if err != nil {
		return nil, fmt.Errorf("sign bundle: %w", err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	return b, nil
}

// maxPolicies is how many policies PublishPolicies takes at once: it bounds the statement's size.
const maxPolicies = 500

// PublishPolicies stores the policies of at most 500 appliances as the wanted ones and returns whose differ from the newest. One
// appliance alone locks itself; several lock all, for thousands of locks would not fit the database's lock table.
func (s *Store) PublishPolicies(ctx context.Context, tx pgx.Tx, list []Publication) (changed []int32, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > maxPolicies {
		return nil, fmt.Errorf("publish policies: %d at once, at most %d", len(list), maxPolicies)
	}
	ids := make([]int32, len(list))
	for i := range list {
		ids[i] = list[i].Appliance
	}
	if len(list) == 1 {
		_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock_shared(hashtext('bundle policy'), 0), pg_advisory_xact_lock(hashtext('bundle policy'), $1)`, ids[0])
	} else {
		_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('bundle policy'), 0)`)
	}
	if err != nil {
		return nil, fmt.Errorf("lock bundles: %w", err)
	}
	type newest struct {
		version int64
		sum     []byte
		created time.Time
	}
	have := map[int32]newest{}
	q, err := tx.Query(ctx, `SELECT w.appliance_id, b.version, b.sha256, b.created_at FROM unnest($1::int[]) w(appliance_id)
		CROSS JOIN LATERAL (SELECT version, sha256, created_at FROM bundle WHERE kind = 'policy' AND coalesce(appliance_id, 0) = w.appliance_id
		ORDER BY version DESC LIMIT 1) b`, ids)
	if err != nil {
		return nil, fmt.Errorf("look up newest policies: %w", err)
	}
	var id int32
	var n newest
	if _, err := pgx.ForEachRow(q, []any{&id, &n.version, &n.sum, &n.created}, func() error {
		have[id] = newest{n.version, bytes.Clone(n.sum), n.created}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up newest policies: %w", err)
	}
	now := s.now()
	var clinics []int32
	var versions, sizes []int64
	var sums, envelopes, contents [][]byte
	var authors, reasons []string
	for _, p := range list {
		content, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.Content)
		if err != nil {
			return nil, fmt.Errorf("encode policy of appliance %d: %w", p.Appliance, err)
		}
		sum := sha256.Sum256(content)
		old := have[p.Appliance]
		if bytes.Equal(old.sum, sum[:]) && now.Before(old.created.Add(Life/2)) {
			continue
		}
		env, err := s.envelope(bundlev1.Kind_KIND_POLICY, uint64(old.version)+1, sum, len(content), sign.Audience(p.Appliance), now)
		if err != nil {
			return nil, err
		}
		changed, clinics, versions, sizes = append(changed, p.Appliance), append(clinics, p.Clinic), append(versions, old.version+1), append(sizes, int64(len(content)))
		sums, envelopes, contents = append(sums, sum[:]), append(envelopes, env), append(contents, content)
		authors, reasons = append(authors, p.Author), append(reasons, p.Reason)
	}
	if len(changed) == 0 {
		return nil, nil
	}
	_, err = tx.Exec(ctx, `INSERT INTO bundle (clinic_id, appliance_id, kind, version, sha256, size, envelope, content, author, reason, created_at)
		SELECT c, a, 'policy', v, s, z, e, b, w, r, $10 FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bytea[], $7::bytea[], $8::text[], $9::text[])
		x(c, a, v, s, z, e, b, w, r)`, clinics, changed, versions, sums, sizes, envelopes, contents, authors, reasons, now)
	if err != nil {
		return nil, fmt.Errorf("store policies: %w", err)
	}
	return changed, nil
}

// Release makes a held bundle of the fleet wanted by all.
func (s *Store) Release(ctx context.Context, tx pgx.Tx, k bundlev1.Kind, version uint64) error {
	kind, err := kindText(k)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE bundle SET released = true WHERE kind = $1 AND appliance_id IS NULL AND version = $2`, kind, int64(version))
	if err != nil {
		return fmt.Errorf("release bundle: %w", err)
	}
	return nil
}

// Policies returns the newest policy envelopes of some appliances, of those that have one.
func (s *Store) Policies(ctx context.Context, tx pgx.Tx, appliances []int32) (map[int32]*bundlev1.Envelope, error) {
	out := map[int32]*bundlev1.Envelope{}
	q, err := tx.Query(ctx, `SELECT w.appliance_id, b.envelope FROM unnest($1::int[]) w(appliance_id)
		CROSS JOIN LATERAL (SELECT envelope FROM bundle WHERE kind = 'policy' AND coalesce(appliance_id, 0) = w.appliance_id
		ORDER BY version DESC LIMIT 1) b`, appliances)
	if err != nil {
		return nil, fmt.Errorf("read wanted policies: %w", err)
	}
	var id int32
	var raw []byte
	_, err = pgx.ForEachRow(q, []any{&id, &raw}, func() error {
		env := &bundlev1.Envelope{}
		if err := proto.Unmarshal(raw, env); err != nil {
			return fmt.Errorf("decode envelope of appliance %d: %w", id, err)
		}
		out[id] = env
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read wanted policies: %w", err)
	}
	return out, nil
}

// Signatures returns the envelope of a version of the fleet's signatures; 0: the newest that is released. nil when there is none.
func (s *Store) Signatures(ctx context.Context, tx pgx.Tx, version int64) (*bundlev1.Envelope, error) {
	var raw []byte
	err := tx.QueryRow(ctx, `SELECT envelope `+signaturesOf, version).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read wanted signatures: %w", err)
	}
	env := &bundlev1.Envelope{}
	if err := proto.Unmarshal(raw, env); err != nil {
		return nil, fmt.Errorf("decode envelope of signatures: %w", err)
	}
	return env, nil
}

// signaturesOf selects the signatures of version $1, 0 for the newest that is released.
const signaturesOf = `FROM bundle WHERE kind = 'signature' AND coalesce(appliance_id, 0) = 0
	AND CASE WHEN $1::bigint = 0 THEN released ELSE version = $1 END ORDER BY version DESC LIMIT 1`

// SignatureDigest returns version and digest of the same bundle that Signatures returns; version 0 when there is none.
func (s *Store) SignatureDigest(ctx context.Context, tx pgx.Tx, want int64) (version int64, digest []byte, err error) {
	err = tx.QueryRow(ctx, `SELECT version, sha256 `+signaturesOf, want).Scan(&version, &digest)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("look up signatures: %w", err)
	}
	return version, digest, nil
}

// SignatureContent returns the bytes of the same bundle.
func (s *Store) SignatureContent(ctx context.Context, tx pgx.Tx, want int64) (content []byte, err error) {
	if err := tx.QueryRow(ctx, `SELECT content `+signaturesOf, want).Scan(&content); err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	return content, nil
}

// Tenant runs a transaction that sees the rows of some clinics; *postgres.DB is one.
type Tenant interface {
	As(ctx context.Context, clinics []int32, fn func(pgx.Tx) error) error
}

// Content returns the bytes of a bundle meant for the appliance or for the fleet. The caller must not change them.
// Error: ErrNotFound.
func (s *Store) Content(ctx context.Context, db Tenant, clinic, appliance int32, digest []byte) ([]byte, error) {
	if len(digest) != sha256.Size {
		return nil, fmt.Errorf("%w: digest has %d bytes, want %d", ErrNotFound, len(digest), sha256.Size)
	}
	key := [sha256.Size]byte(digest)
	s.mu.Lock()
	content, ok := s.cached[key]
	s.mu.Unlock()
	if ok {
		return content, nil
	}
	var fleet bool
	err := db.As(ctx, []int32{clinic}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT content, appliance_id IS NULL FROM bundle WHERE sha256 = $1 AND (appliance_id IS NULL OR appliance_id = $2)
			ORDER BY version DESC LIMIT 1`, digest, appliance).Scan(&content, &fleet)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	if fleet && len(content) <= maxCached {
		s.mu.Lock()
		if _, there := s.cached[key]; !there {
			if s.size+len(content) > maxCached {
				clear(s.cached)
				s.size = 0
			}
			s.cached[key] = content
			s.size += len(content)
		}
		s.mu.Unlock()
	}
	return content, nil
}

func kindText(k bundlev1.Kind) (string, error) {
	switch k {
	case bundlev1.Kind_KIND_POLICY:
		return "policy", nil
	case bundlev1.Kind_KIND_SIGNATURE:
		return "signature", nil
	case bundlev1.Kind_KIND_UNSPECIFIED:
	}
	return "", fmt.Errorf("publish bundle: unknown kind %v", k)
}

// SignCommand signs a command to one appliance with the key of the bundles: it is the key that boxes trust.
func (s *Store) SignCommand(c *fleetv1.Command) (*bundlev1.Envelope, error) {
	env, err := sign.SignCommand(s.key, c)
	if err != nil {
		return nil, fmt.Errorf("sign command: %w", err)
	}
	return env, nil
}
