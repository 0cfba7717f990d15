package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/signature"
	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"
)

// Config of NewPublisher.
type Config struct {
	DB      DB
	Bundles *bundle.Store
	// Protected are prefixes of the control plane's own addresses: no policy or list may block them.
	Protected []netip.Prefix
	Now       func() time.Time // nil: time.Now
}

// Publisher compiles, signs and publishes what appliances should run. Safe for use by many goroutines.
type Publisher struct {
	db     DB
	store  *bundle.Store
	system *policy.Layer
	base   *policy.Layer
	now    func() time.Time

	mu    sync.Mutex
	lists map[string][]policy.List // by digest of the signatures
}

// NewPublisher returns a publisher.
func NewPublisher(cfg Config) (*Publisher, error) {
	if cfg.DB == nil || cfg.Bundles == nil {
		return nil, errors.New("open publisher: database and bundle store are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var never []string
	for _, p := range cfg.Protected {
		never = append(never, p.String())
	}
	return &Publisher{db: cfg.DB, store: cfg.Bundles, system: policy.System(never), base: policy.Default(), now: cfg.Now, lists: map[string][]policy.List{}}, nil
}

// Scope says whose policies Compile makes.
type Scope struct {
	Clinics   []int32 // nil: all
	Appliance int32   // 0: all of the clinics
}

// Compile makes the policies of the approved appliances in scope anew, stores those that differ from the newest, and returns
// whose did. tx is of the fleet's role. Error: policy.ErrInvalid with the clinic's code, when layers contradict each other.
func (p *Publisher) Compile(ctx context.Context, tx pgx.Tx, scope Scope, author, reason string) (changed []int32, err error) {
	clinics, err := policy.Load(ctx, tx, scope.Clinics)
	if err != nil {
		return nil, err
	}
	type box struct {
		id     int32
		target int64 // version of signatures
	}
	boxes := map[int32][]box{}
	lists := map[int64][]policy.List{}
	q, err := tx.Query(ctx, `SELECT clinic_id, appliance_id, signature_target FROM appliance WHERE state = 'approved' AND ($1::int[] IS NULL OR clinic_id = ANY ($1))
		AND ($2 = 0 OR appliance_id = $2) ORDER BY appliance_id`, scope.Clinics, scope.Appliance)
	if err != nil {
		return nil, fmt.Errorf("read appliances: %w", err)
	}
	var clinicID int32
	var b box
	if _, err := pgx.ForEachRow(q, []any{&clinicID, &b.id, &b.target}, func() error {
		boxes[clinicID] = append(boxes[clinicID], b)
		lists[b.target] = nil
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read appliances: %w", err)
	}
	for version := range lists {
		if lists[version], err = p.listsIn(ctx, tx, version); err != nil {
			return nil, err
		}
	}
	var batch []bundle.Publication
	flush := func() error {
		differ, err := p.store.PublishPolicies(ctx, tx, batch)
		changed, batch = append(changed, differ...), batch[:0]
		return err
	}
	for _, c := range clinics {
		settings, err := p.merge(c)
		if err != nil {
			return nil, err
		}
		for _, b := range boxes[c.ID] {
			batch = append(batch, bundle.Publication{
				Kind: bundlev1.Kind_KIND_POLICY, Clinic: c.ID, Appliance: b.id, Author: author, Reason: reason,
				Content: policy.Compile(policy.Target{Clinic: c.ID, ClinicName: c.Name, Appliance: b.id}, settings, lists[b.target]),
			})
			if len(batch) == publishBatch {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if len(changed) == 0 {
		return nil, nil
	}
	if err := raise(ctx, tx, changed); err != nil {
		return nil, err
	}
	return changed, Notify(ctx, tx, Notice{Appliances: changed})
}

// publishBatch is how many policies are stored at once.
const publishBatch = 500

func raise(ctx context.Context, tx pgx.Tx, ids []int32) error {
	if _, err := tx.Exec(ctx, `UPDATE appliance SET revision = revision + 1 WHERE $1::int[] IS NULL OR appliance_id = ANY ($1)`, ids); err != nil {
		return fmt.Errorf("raise revision: %w", err)
	}
	return nil
}

func (p *Publisher) merge(c policy.Clinic) (policy.Settings, error) {
	s, err := policy.Merge(p.now(), append(append([]*policy.Layer{p.base}, c.Layers()...), p.system)...)
	if err != nil {
		return nil, fmt.Errorf("clinic %s: %w", c.Code, err)
	}
	return s, nil
}

// listsIn returns names and kinds of the lists of a version of the signatures (0: the newest released). They are kept by digest, so
// a bundle whose transaction is rolled back does no harm.
func (p *Publisher) listsIn(ctx context.Context, tx pgx.Tx, version int64) ([]policy.List, error) {
	found, digest, err := p.store.SignatureDigest(ctx, tx, version)
	if err != nil || found == 0 {
		return nil, err
	}
	p.mu.Lock()
	lists, ok := p.lists[string(digest)]
	p.mu.Unlock()
	if ok {
		return lists, nil
	}
	content, err := p.store.SignatureContent(ctx, tx, version)
	if err != nil {
		return nil, err
	}
	s := &signaturev1.Signatures{}
	if err := proto.Unmarshal(content, s); err != nil {
		return nil, fmt.Errorf("decode signatures: %w", err)
	}
	lists = listsOf(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lists) >= maxKeptLists {
		clear(p.lists)
	}
	p.lists[string(digest)] = lists
	return lists, nil
}

// maxKeptLists bounds the signature bundles whose list names are kept.
const maxKeptLists = 16

func listsOf(s *signaturev1.Signatures) []policy.List {
	var out []policy.List
	for _, l := range s.GetAddresses() {
		out = append(out, policy.List{Name: l.GetName(), Kind: signature.KindName(l.GetKind())})
	}
	for _, l := range s.GetDomains() {
		out = append(out, policy.List{Name: l.GetName(), Kind: signature.KindName(l.GetKind())})
	}
	return out
}

// SetOverride replaces a clinic's override (empty document: lifts it) and publishes. Errors: policy.ErrInvalid, clinic.ErrNotFound,
// ErrInvalid.
func (p *Publisher) SetOverride(ctx context.Context, actor string, id int32, document, reason string, expires time.Time) error {
	if strings.TrimSpace(reason) == "" {
		return fmt.Errorf("%w: a reason is needed for an override", ErrInvalid)
	}
	if !expires.IsZero() && !expires.After(p.now()) {
		return fmt.Errorf("%w: the override would expire at %s, which is over", ErrInvalid, expires.Format(time.RFC3339))
	}
	if _, err := policy.Parse([]byte(document)); err != nil {
		return err
	}
	return p.db.Fleet(ctx, actor, func(tx pgx.Tx) error {
		if err := clinic.Require(ctx, tx, id); err != nil {
			return err
		}
		if err := policy.PutOverride(ctx, tx, id, strings.TrimSpace(document), actor, reason, expires, p.now()); err != nil {
			return err
		}
		changed, err := p.Compile(ctx, tx, Scope{Clinics: []int32{id}}, actor, reason)
		if err != nil {
			return err
		}
		action := "override.set"
		if strings.TrimSpace(document) == "" {
			action = "override.lift"
		}
		detail := map[string]any{"appliances": changed}
		if !expires.IsZero() {
			detail["expires"] = expires
		}
		return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: action, Target: fmt.Sprintf("clinic:%d", id), Clinic: id, Reason: reason, Detail: detail})
	})
}

// Explain returns the effective settings of a clinic. Errors: clinic.ErrNotFound, policy.ErrInvalid.
func (p *Publisher) Explain(ctx context.Context, tx pgx.Tx, id int32) (policy.Settings, error) {
	clinics, err := policy.Load(ctx, tx, []int32{id})
	if err != nil {
		return nil, err
	}
	if len(clinics) == 0 {
		return nil, fmt.Errorf("%w: %d", clinic.ErrNotFound, id)
	}
	return p.merge(clinics[0])
}

// PublishSignatures builds, signs and publishes signatures to the fleet, and the policies that use their lists. Equal files again
// publish nothing. With stage they are stored and reach nobody, for a rollout. Errors: signature.ErrInvalid, ErrState while a
// rollout of signatures is under way.
func (p *Publisher) PublishSignatures(ctx context.Context, actor, reason string, files []signature.File, stage bool) (version uint64, count signature.Count, err error) {
	err = p.db.Fleet(ctx, actor, func(tx pgx.Tx) error {
		if err := noRollout(ctx, tx, "signature", "signatures"); err != nil {
			return err
		}
		never, err := p.neverBlock(ctx, tx)
		if err != nil {
			return err
		}
		var msg *signaturev1.Signatures
		if msg, count, err = signature.Build(files, never); err != nil {
			return err
		}
		var changed bool
		version, changed, err = p.store.Publish(ctx, tx, bundle.Publication{
			Kind: bundlev1.Kind_KIND_SIGNATURE, Content: msg, Author: actor, Reason: reason, Held: stage,
		})
		if err != nil || !changed {
			return err
		}
		entry := audit.Entry{
			Actor: actor, Action: "signature.publish", Target: fmt.Sprintf("signature:%d", version), Reason: reason,
			Detail: map[string]uint64{"rules": count.Rules, "addresses": count.Addresses, "domains": count.Domains},
		}
		if stage {
			entry.Action = "signature.stage"
			return audit.Append(ctx, tx, entry)
		}
		if _, err := tx.Exec(ctx, `UPDATE appliance SET signature_target = 0 WHERE signature_target <> 0`); err != nil {
			return fmt.Errorf("release appliances: %w", err)
		}
		if _, err := p.Compile(ctx, tx, Scope{}, actor, fmt.Sprintf("lists of signatures %d", version)); err != nil {
			return err
		}
		if err := raise(ctx, tx, nil); err != nil {
			return err
		}
		if err := Notify(ctx, tx, Notice{}); err != nil {
			return err
		}
		return audit.Append(ctx, tx, entry)
	})
	return version, count, err
}

// neverBlock gathers what any clinic's policy protects.
func (p *Publisher) neverBlock(ctx context.Context, tx pgx.Tx) ([]netip.Prefix, error) {
	clinics, err := policy.Load(ctx, tx, nil)
	if err != nil {
		return nil, err
	}
	seen := map[netip.Prefix]bool{}
	var out []netip.Prefix
	add := func(l *policy.Layer) error {
		if l == nil {
			return nil
		}
		for path := range l.Values {
			text, ok := strings.CutPrefix(path, "never_block.")
			if !ok {
				continue
			}
			pre, err := policy.ParsePrefix(text)
			if err != nil {
				return fmt.Errorf("never_block %s: %w", text, err)
			}
			if !seen[pre] {
				seen[pre] = true
				out = append(out, pre)
			}
		}
		return nil
	}
	err = errors.Join(add(p.base), add(p.system))
	done := map[*policy.Layer]bool{}
	for _, c := range clinics {
		for _, l := range c.Layers() {
			if l != nil && !done[l] {
				done[l] = true
				err = errors.Join(err, add(l))
			}
		}
	}
	return out, err
}
