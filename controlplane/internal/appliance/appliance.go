// Package appliance is the life of a box in the control plane: claimed, approved, revoked; what it should run, what it says it runs.
// It compiles and publishes policies when plans, overrides, signatures or appliances change. The RPC server and the enrolment call
// it. The trap: every change of the desired state must raise the appliance's revision and be noticed (Notice) in the same
// transaction, or connected boxes learn of it only at their next slow poll.
package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kadomori/kadomori/controlplane/internal/audit"
)

// Errors.
var (
	// ErrNotFound: there is no such appliance.
	ErrNotFound = errors.New("no such appliance")
	// ErrState: the appliance is in a state in which this can't be done; wrapped with which.
	ErrState = errors.New("appliance is in the wrong state")
	// ErrInvalid: the request is not acceptable; wrapped with why.
	ErrInvalid = errors.New("request is not valid")
)

// States of an appliance.
const (
	Claimed  = "claimed"  // has a claim, was not seen yet
	Pending  = "pending"  // has shown its claim, waits for a person
	Approved = "approved" // in service
	Rejected = "rejected"
	Revoked  = "revoked"
	Retired  = "retired" // replaced or taken down
)

// OnlineWithin is how old the last sign of life of a connected appliance may be; the RPC server renews it each minute.
const OnlineWithin = 150 * time.Second

// DriftMark begins a report's Refused when the wanted version runs with a content that is not the wanted one.
const DriftMark = "drifted: "

// DB runs transactions; *postgres.DB is one.
type DB interface {
	As(ctx context.Context, clinics []int32, fn func(pgx.Tx) error) error
	Fleet(ctx context.Context, actor string, fn func(pgx.Tx) error) error
}

// Appliance is a box as an operator sees it.
type Appliance struct {
	ID, Clinic       int32
	Name             string
	Serial           string
	State            string
	Online           bool
	LastSeen         time.Time // zero: never
	Intent           string    // in sync, staging, behind, drifted, refused; empty when not approved
	IntentDetail     string
	Protection       string // inspecting, bypass, stopped, unknown
	Version          string
	PolicyVersion    uint64
	SignatureVersion uint64
	SpoolDepth       uint64
}

// List returns at most limit appliances that tx sees, with an id above after, of one clinic or (0) of all.
func List(ctx context.Context, tx pgx.Tx, clinic, after, limit int32, now time.Time) ([]Appliance, error) {
	q, err := tx.Query(ctx, `
		SELECT a.appliance_id, a.clinic_id, a.name, a.serial, a.state, a.connected, a.last_seen, a.version, a.wire_mode, a.policy_version,
		       a.signature_version, a.refused, coalesce(a.spool_depth, 0),
		       coalesce((SELECT max(version) FROM bundle b WHERE b.kind = 'policy' AND coalesce(b.appliance_id, 0) = a.appliance_id), 0),
		       coalesce(nullif(a.signature_target, 0), (SELECT max(version) FROM bundle b WHERE b.kind = 'signature' AND coalesce(b.appliance_id, 0) = 0 AND b.released), 0)
		FROM appliance a WHERE ($1 = 0 OR a.clinic_id = $1) AND a.appliance_id > $2 ORDER BY a.appliance_id LIMIT $3`, clinic, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list appliances: %w", err)
	}
	out, err := pgx.CollectRows(q, func(r pgx.CollectableRow) (a Appliance, err error) {
		var connected bool
		var seen *time.Time
		var wire, refused string
		var pol, sig, depth, wantPol, wantSig int64
		err = r.Scan(&a.ID, &a.Clinic, &a.Name, &a.Serial, &a.State, &connected, &seen, &a.Version, &wire, &pol, &sig, &refused, &depth, &wantPol, &wantSig)
		if err != nil {
			return a, err
		}
		if seen != nil {
			a.LastSeen = *seen
		}
		a.Online = connected && now.Sub(a.LastSeen) < OnlineWithin
		a.PolicyVersion, a.SignatureVersion, a.SpoolDepth = uint64(pol), uint64(sig), uint64(depth)
		a.Intent, a.IntentDetail = intent(a, pol, sig, wantPol, wantSig, refused)
		a.Protection = protection(a.Online, wire)
		return a, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list appliances: %w", err)
	}
	return out, nil
}

func intent(a Appliance, pol, sig, wantPol, wantSig int64, refused string) (state, detail string) {
	if a.State != Approved {
		return "", ""
	}
	differ := func(kind string, has, want int64) string { return fmt.Sprintf("%s %d, wanted %d", kind, has, want) }
	if rest, ok := strings.CutPrefix(refused, DriftMark); ok {
		return "drifted", rest
	}
	if refused != "" {
		return "refused", refused
	}
	switch {
	case pol > wantPol:
		return "drifted", differ("policy", pol, wantPol)
	case sig > wantSig:
		return "drifted", differ("signatures", sig, wantSig)
	case pol < wantPol:
		detail = differ("policy", pol, wantPol)
	case sig < wantSig:
		detail = differ("signatures", sig, wantSig)
	default:
		return "in sync", ""
	}
	if a.Online {
		return "staging", detail
	}
	return "behind", detail
}

// protection reads the agent's word for its wire: inline and tap inspect, bypass passes all, stopped has no program attached.
func protection(online bool, wire string) string {
	switch {
	case !online || wire == "":
		return "unknown"
	case wire == "bypass" || wire == "stopped":
		return wire
	default:
		return "inspecting"
	}
}

// Approve lets a pending appliance in and publishes its first policy. tx is of the fleet's role. Errors: ErrNotFound, ErrState.
func (p *Publisher) Approve(ctx context.Context, tx pgx.Tx, actor string, id int32) error {
	clinic, state, err := lock(ctx, tx, id)
	if err != nil {
		return err
	}
	if state != Pending {
		return fmt.Errorf("%w: it is %s, only a pending one can be approved", ErrState, state)
	}
	if err := p.Admit(ctx, tx, clinic, id, actor); err != nil {
		return err
	}
	return audit.Append(ctx, tx, audit.Entry{Actor: actor, Action: "appliance.approve", Target: target(id), Clinic: clinic})
}

// Admit marks an appliance approved and publishes its first policy; the caller has checked that it may and writes the audit log.
func (p *Publisher) Admit(ctx context.Context, tx pgx.Tx, clinic, id int32, actor string) error {
	var replaces *int32
	err := tx.QueryRow(ctx, `UPDATE appliance SET state = 'approved' WHERE appliance_id = $1 RETURNING replaces`, id).Scan(&replaces)
	if err != nil {
		return fmt.Errorf("approve appliance: %w", err)
	}
	if replaces != nil {
		if err := p.retire(ctx, tx, actor, *replaces, id); err != nil {
			return err
		}
	}
	if _, err := p.Compile(ctx, tx, Scope{Appliance: id, Clinics: []int32{clinic}}, actor, "first policy"); err != nil {
		return err
	}
	return Notify(ctx, tx, Notice{Appliances: []int32{id}, Forget: true})
}

// retire takes an appliance out of service whose place another took: the devices' names and the history stay with the clinic.
func (p *Publisher) retire(ctx context.Context, tx pgx.Tx, actor string, old, by int32) error {
	clinic, state, err := lock(ctx, tx, old)
	if err != nil {
		return err
	}
	if state == Retired {
		return nil
	}
	if err := end(ctx, tx, old, Retired); err != nil {
		return err
	}
	return audit.Append(ctx, tx, audit.Entry{
		Actor: actor, Action: "appliance.retire", Target: target(old), Clinic: clinic, Reason: fmt.Sprintf("replaced by appliance %d", by), Detail: map[string]string{"was": state},
	})
}

// end takes certificates, unused claims and connections from an appliance and gives it its last state.
func end(ctx context.Context, tx pgx.Tx, id int32, state string) error {
	for _, q := range []string{
		`UPDATE certificate SET revoked_at = now() WHERE appliance_id = $1 AND revoked_at IS NULL AND $2 <> ''`,
		`UPDATE claim SET expires_at = least(expires_at, now()) WHERE appliance_id = $1 AND $2 <> ''`,
		`UPDATE appliance SET state = $2, connected = false WHERE appliance_id = $1`,
	} {
		if _, err := tx.Exec(ctx, q, id, state); err != nil {
			return fmt.Errorf("end appliance: %w", err)
		}
	}
	return Notify(ctx, tx, Notice{Appliances: []int32{id}, Forget: true, Disconnect: true})
}

// Revoke ends an appliance's identity: all its certificates, its unused claims, its connections (through the notice). tx is of the
// fleet's role. Errors: ErrNotFound, ErrState, ErrInvalid.
func (p *Publisher) Revoke(ctx context.Context, tx pgx.Tx, actor string, id int32, reason string) error {
	if reason == "" {
		return fmt.Errorf("%w: a reason is needed to revoke", ErrInvalid)
	}
	clinic, state, err := lock(ctx, tx, id)
	if err != nil {
		return err
	}
	next := Revoked
	switch state {
	case Revoked, Retired:
		return fmt.Errorf("%w: it is %s already", ErrState, state)
	case Pending, Claimed:
		next = Rejected
	}
	if err := end(ctx, tx, id, next); err != nil {
		return err
	}
	return audit.Append(ctx, tx, audit.Entry{
		Actor: actor, Action: "appliance.revoke", Target: target(id), Clinic: clinic, Reason: reason, Detail: map[string]string{"was": state},
	})
}

func target(id int32) string { return fmt.Sprintf("appliance:%d", id) }

func lock(ctx context.Context, tx pgx.Tx, id int32) (clinic int32, state string, err error) {
	err = tx.QueryRow(ctx, `SELECT clinic_id, state FROM appliance WHERE appliance_id = $1 FOR UPDATE`, id).Scan(&clinic, &state)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, "", fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	if err != nil {
		return 0, "", fmt.Errorf("look up appliance: %w", err)
	}
	return clinic, state, nil
}

// Channel is PostgreSQL's notification channel for notices.
const Channel = "kadomori_fleet"

// Notice tells every replica that something about appliances changed. The database stays the truth.
type Notice struct {
	Appliances []int32 `json:"a,omitempty"` // empty: all
	Forget     bool    `json:"f,omitempty"` // drop what is cached of their certificates
	Disconnect bool    `json:"d,omitempty"` // cut their connections
}

// maxNotice keeps a notice under PostgreSQL's limit of 8000 bytes.
const maxNotice = 600

// Notify sends n when tx commits. With Disconnect, Appliances must not be empty.
func Notify(ctx context.Context, tx pgx.Tx, n Notice) error {
	if n.Disconnect && (len(n.Appliances) == 0 || len(n.Appliances) > maxNotice) {
		return fmt.Errorf("send notice: %d appliances to disconnect, want 1 to %d", len(n.Appliances), maxNotice)
	}
	if len(n.Appliances) > maxNotice {
		n.Appliances = nil
	}
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode notice: %w", err)
	}
	if _, err := tx.Exec(ctx, `SELECT pg_notify($1, $2)`, Channel, string(b)); err != nil {
		return fmt.Errorf("send notice: %w", err)
	}
	return nil
}
