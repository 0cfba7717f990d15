// Package command sends things to do once to appliances: quarantine a device, bypass, self-test, factory reset. The RPC server creates
// and approves them and hands in the results. The trap: a command is signed only when everybody who must agree has agreed; until
// then there is nothing an appliance would believe.
package command

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/audit"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

// Errors.
var (
	// ErrInvalid: the order is not acceptable; wrapped with why.
	ErrInvalid = errors.New("command is not valid")
	// ErrNotFound: there is no such command.
	ErrNotFound = errors.New("no such command")
	// ErrState: it does not await approval any more.
	ErrState = errors.New("command is in the wrong state")
	// ErrSamePerson: a second person must approve.
	ErrSamePerson = errors.New("a command can't be approved by who issued it")
)

// Actions.
const (
	Quarantine   = "quarantine"
	Release      = "release"
	Bypass       = "bypass"
	SelfTest     = "self_test"
	Diagnostic   = "diagnostic"
	FactoryReset = "factory_reset"
)

// Actions lists all.
var Actions = []string{Quarantine, Release, Bypass, SelfTest, Diagnostic, FactoryReset}

const (
	defaultLife = 24 * time.Hour
	maxLife     = 7 * 24 * time.Hour
	maxPending  = 64 // of one appliance: each is sent with every desired state
	maxResult   = 64 << 10
)

// Order is what an operator wants done.
type Order struct {
	Appliance int32
	Action    string
	MAC       string        // of Quarantine, Release
	IP        string        // of Quarantine, Release
	On        bool          // of Bypass
	For       time.Duration // how long: of Bypass (needed when on), of Quarantine (0: until released)
	Life      time.Duration // how long it may wait for the box; 0: a day
	Reason    string
}

// Command is one as an operator sees it.
type Command struct {
	ID         string // hex
	Clinic     int32
	Appliance  int32
	Action     string
	Detail     string
	State      string
	Result     string
	IssuedBy   string
	ApprovedBy string
	Reason     string
	Created    time.Time
	Expires    time.Time
	Settled    time.Time // zero: not yet
}

// DB runs transactions; *postgres.DB is one.
type DB interface {
	Fleet(ctx context.Context, actor string, fn func(pgx.Tx) error) error
}

// Config of New.
type Config struct {
	DB      DB
	Bundles *bundle.Store
	// TwoPersons are the actions that a second person must approve.
	TwoPersons []string
	Now        func() time.Time // nil: time.Now
}

// Commands is the desk. Safe for use by many goroutines.
type Commands struct {
	Config
}

// New returns the desk.
func New(cfg Config) (*Commands, error) {
	if cfg.DB == nil || cfg.Bundles == nil {
		return nil, errors.New("open commands: database and bundle store are needed")
	}
	for _, a := range cfg.TwoPersons {
		if !slices.Contains(Actions, a) {
			return nil, fmt.Errorf("open commands: unknown action %q", a)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Commands{cfg}, nil
}

// build makes the message and the words for people.
func (o Order) build(now time.Time, m *fleetv1.Command) (detail string, err error) {
	var mac, ip []byte
	if o.MAC != "" {
		hw, err := net.ParseMAC(o.MAC)
		if err != nil || len(hw) != 6 {
			return "", fmt.Errorf("%w: mac %.40q: want aa:bb:cc:dd:ee:ff", ErrInvalid, o.MAC)
		}
		mac, detail = hw, hw.String()
	}
	if o.IP != "" {
		a, err := netip.ParseAddr(o.IP)
		if err != nil || a.Zone() != "" {
			return "", fmt.Errorf("%w: ip %.60q: want an address", ErrInvalid, o.IP)
		}
		ip, detail = a.Unmap().AsSlice(), strings.TrimSpace(detail+" "+a.Unmap().String())
	}
	if (len(mac) > 0 || len(ip) > 0) && o.Action != Quarantine && o.Action != Release {
		return "", fmt.Errorf("%w: %s takes no device", ErrInvalid, o.Action)
	}
	if o.For < 0 || o.For > 0 && o.Action != Quarantine && o.Action != Bypass {
		return "", fmt.Errorf("%w: %s takes no duration", ErrInvalid, o.Action)
	}
	switch o.Action {
	case Quarantine:
		if len(mac)+len(ip) == 0 {
			return "", fmt.Errorf("%w: which device? give its mac or ip", ErrInvalid)
		}
		q := &fleetv1.Command_Quarantine{Mac: mac, Ip: ip}
		if o.For > 0 {
			q.Until = timestamppb.New(now.Add(o.For))
			detail += " for " + o.For.String()
		}
		m.Action = &fleetv1.Command_Quarantine_{Quarantine: q}
	case Release:
		if detail == "" {
			detail = "all devices"
		}
		m.Action = &fleetv1.Command_Release_{Release: &fleetv1.Command_Release{Mac: mac, Ip: ip}}
	case Bypass:
		s := int64(o.For / time.Second)
		if o.On && (s < 1 || s > 86400) {
			return "", fmt.Errorf("%w: a bypass of %s: want 1s to 24h", ErrInvalid, o.For)
		}
		detail = "off"
		if o.On {
			detail = "on for " + o.For.String()
		}
		m.Action = &fleetv1.Command_Bypass_{Bypass: &fleetv1.Command_Bypass{On: o.On, Seconds: uint32(s)}}
	case SelfTest:
		m.Action = &fleetv1.Command_SelfTest_{SelfTest: &fleetv1.Command_SelfTest{}}
	case Diagnostic:
		m.Action = &fleetv1.Command_Diagnostic_{Diagnostic: &fleetv1.Command_Diagnostic{}}
	case FactoryReset:
		m.Action = &fleetv1.Command_FactoryReset_{FactoryReset: &fleetv1.Command_FactoryReset{}}
	default:
		return "", fmt.Errorf("%w: action %.40q: want one of %s", ErrInvalid, o.Action, strings.Join(Actions, ", "))
	}
	return detail, nil
}

// Send creates a command; it goes out at once, or after Approve where two persons are wanted. Errors: ErrInvalid,
// appliance.ErrNotFound, appliance.ErrState.
func (c *Commands) Send(ctx context.Context, actor string, o Order) (Command, error) {
	now := c.Now()
	if o.Life == 0 {
		o.Life = defaultLife
	}
	if o.Life < time.Minute || o.Life > maxLife {
		return Command{}, fmt.Errorf("%w: it would wait %s, want 1m to %s", ErrInvalid, o.Life, maxLife)
	}
	o.Reason = strings.TrimSpace(o.Reason)
	if o.Reason == "" || len(o.Reason) > 500 {
		return Command{}, fmt.Errorf("%w: a reason of at most 500 bytes is needed", ErrInvalid)
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // crypto/rand never fails since Go 1.24
	m := &fleetv1.Command{
		Id: id, Audience: sign.Audience(o.Appliance), Issued: timestamppb.New(now), Expires: timestamppb.New(now.Add(o.Life)), IssuedBy: actor, Reason: o.Reason,
	}
	detail, err := o.build(now, m)
	if err != nil {
		return Command{}, err
	}
	out := Command{
		ID: hex.EncodeToString(id), Appliance: o.Appliance, Action: o.Action, Detail: detail, State: "pending", IssuedBy: actor, Reason: o.Reason,
		Created: now, Expires: now.Add(o.Life),
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Command{}, fmt.Errorf("encode command: %w", err)
	}
	var envelope []byte
	if slices.Contains(c.TwoPersons, o.Action) {
		out.State = "awaiting"
	} else if envelope, err = c.sign(m); err != nil {
		return Command{}, err
	}
	err = c.DB.Fleet(ctx, actor, func(tx pgx.Tx) error {
		var state string
		var pending int
		err := tx.QueryRow(ctx, `SELECT clinic_id, state, (SELECT count(*) FROM appliance_command c WHERE c.appliance_id = a.appliance_id AND c.state IN ('awaiting', 'pending'))
			FROM appliance a WHERE appliance_id = $1 FOR UPDATE`, o.Appliance).Scan(&out.Clinic, &state, &pending)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("%w: %d", appliance.ErrNotFound, o.Appliance)
		case err != nil:
			return fmt.Errorf("look up appliance: %w", err)
		case state != appliance.Approved:
			return fmt.Errorf("%w: it is %s", appliance.ErrState, state)
		case pending >= maxPending:
			return fmt.Errorf("%w: %d commands of this appliance wait already", ErrInvalid, pending)
		}
		_, err = tx.Exec(ctx, `INSERT INTO appliance_command (clinic_id, command_id, appliance_id, action, detail, command, envelope, state, issued_by, reason, created_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			out.Clinic, id, o.Appliance, o.Action, detail, raw, envelope, out.State, actor, o.Reason, out.Created, out.Expires)
		if err != nil {
			return fmt.Errorf("store command: %w", err)
		}
		if envelope != nil {
			if err := wake(ctx, tx, o.Appliance); err != nil {
				return err
			}
		}
		return audit.Append(ctx, tx, audit.Entry{
			Actor: actor, Action: "command." + o.Action, Target: fmt.Sprintf("appliance:%d", o.Appliance), Clinic: out.Clinic, Reason: o.Reason,
			Detail: map[string]string{"id": out.ID, "detail": detail, "state": out.State},
		})
	})
	return out, err
}

func (c *Commands) sign(m *fleetv1.Command) ([]byte, error) {
	env, err := c.Bundles.SignCommand(m)
	if err != nil {
		return nil, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	return b, nil
}

// wake makes the change of the desired state known.
func wake(ctx context.Context, tx pgx.Tx, id int32) error {
	if _, err := tx.Exec(ctx, `UPDATE appliance SET revision = revision + 1 WHERE appliance_id = $1`, id); err != nil {
		return fmt.Errorf("raise revision: %w", err)
	}
	return appliance.Notify(ctx, tx, appliance.Notice{Appliances: []int32{id}})
}

// Decide lets an awaiting command go out, or cancels it. Who issued it may cancel and not approve. Errors: ErrNotFound, ErrState,
// ErrSamePerson.
func (c *Commands) Decide(ctx context.Context, actor, id string, approve bool) error {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != 16 {
		return fmt.Errorf("%w: %.40q", ErrNotFound, id)
	}
	return c.DB.Fleet(ctx, actor, func(tx pgx.Tx) error {
		var clinic, box int32
		var state, issuer, reason, action string
		var text []byte
		var expires time.Time
		err := tx.QueryRow(ctx, `SELECT clinic_id, appliance_id, state, issued_by, reason, action, command, expires_at FROM appliance_command WHERE command_id = $1 FOR UPDATE`, raw).
			Scan(&clinic, &box, &state, &issuer, &reason, &action, &text, &expires)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("%w: %s", ErrNotFound, id)
		case err != nil:
			return fmt.Errorf("look up command: %w", err)
		case state != "awaiting":
			return fmt.Errorf("%w: it is %s", ErrState, state)
		case approve && !c.Now().Before(expires):
			return fmt.Errorf("%w: it has expired", ErrState)
		case approve && actor == issuer:
			return ErrSamePerson
		}
		entry := audit.Entry{Actor: actor, Action: "command.cancel", Target: fmt.Sprintf("appliance:%d", box), Clinic: clinic, Reason: reason, Detail: map[string]string{"id": id, "action": action}}
		if !approve {
			if _, err := tx.Exec(ctx, `UPDATE appliance_command SET state = 'cancelled', settled_at = $2 WHERE command_id = $1`, raw, c.Now()); err != nil {
				return fmt.Errorf("cancel command: %w", err)
			}
			return audit.Append(ctx, tx, entry)
		}
		m := &fleetv1.Command{}
		if err := proto.Unmarshal(text, m); err != nil {
			return fmt.Errorf("decode command: %w", err)
		}
		envelope, err := c.sign(m)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE appliance_command SET state = 'pending', approved_by = $2, envelope = $3 WHERE command_id = $1`, raw, actor, envelope); err != nil {
			return fmt.Errorf("approve command: %w", err)
		}
		if err := wake(ctx, tx, box); err != nil {
			return err
		}
		entry.Action = "command.approve"
		return audit.Append(ctx, tx, entry)
	})
}

// Result is what a box answered.
type Result struct {
	ID     []byte
	State  string // done, refused, failed
	Detail string
}

// Settle stores results; those of commands that are not pending are told twice or not this box's, and count for nothing. tx sees
// the appliance's clinic.
func Settle(ctx context.Context, tx pgx.Tx, clinic, box int32, results []Result, now time.Time) error {
	for _, r := range results {
		text := strings.ToValidUTF8(strings.ReplaceAll(r.Detail, "\x00", ""), "?")
		if len(text) > maxResult {
			text = strings.ToValidUTF8(text[:maxResult], "")
		}
		tag, err := tx.Exec(ctx, `UPDATE appliance_command SET state = $4, result = $5, settled_at = $6
			WHERE clinic_id = $1 AND command_id = $2 AND appliance_id = $3 AND state = 'pending'`, clinic, r.ID, box, r.State, text, now)
		if err != nil {
			return fmt.Errorf("store command's result: %w", err)
		}
		if tag.RowsAffected() == 0 {
			continue
		}
		short := text
		if len(short) > 500 {
			short = strings.ToValidUTF8(short[:500], "")
		}
		err = audit.Append(ctx, tx, audit.Entry{
			Actor: fmt.Sprintf("appliance:%d", box), Action: "command.result", Target: fmt.Sprintf("appliance:%d", box), Clinic: clinic,
			Detail: map[string]string{"id": hex.EncodeToString(r.ID), "state": r.State, "detail": short},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Expire ends commands whose time is over. The application calls it every half minute.
func (c *Commands) Expire(ctx context.Context) error {
	return c.DB.Fleet(ctx, "system:expire", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE appliance_command SET state = 'expired', settled_at = $1 WHERE state IN ('awaiting', 'pending') AND expires_at <= $1`, c.Now())
		if err != nil {
			return fmt.Errorf("expire commands: %w", err)
		}
		return nil
	})
}

// List returns the newest commands first, of one appliance or (0) of all.
func List(ctx context.Context, tx pgx.Tx, box, limit int32) ([]Command, error) {
	q, err := tx.Query(ctx, `SELECT encode(command_id, 'hex'), clinic_id, appliance_id, action, detail, state, result, issued_by, approved_by, reason, created_at, expires_at,
		coalesce(settled_at, '0001-01-01Z') FROM appliance_command WHERE $1 = 0 OR appliance_id = $1 ORDER BY created_at DESC LIMIT $2`, box, limit)
	if err != nil {
		return nil, fmt.Errorf("list commands: %w", err)
	}
	out, err := pgx.CollectRows(q, func(r pgx.CollectableRow) (c Command, err error) {
		err = r.Scan(&c.ID, &c.Clinic, &c.Appliance, &c.Action, &c.Detail, &c.State, &c.Result, &c.IssuedBy, &c.ApprovedBy, &c.Reason, &c.Created, &c.Expires, &c.Settled)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("list commands: %w", err)
	}
	return out, nil
}
