// Package command does what the control plane orders, once each: quarantine, bypass, self-test, diagnostic, factory reset.
// Package fleet hands the signed orders in and takes the results out; package app gives the Actions. The trap: an order is
// noted on disk before it is begun, so that a power cut can make it fail by name but never happen twice.
package command

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	bundlev1 "github.com/kadomori/kadomori/proto/gen/kadomori/bundle/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	"github.com/kadomori/kadomori/proto/sign"
)

const (
	// maxNotes bounds what is remembered; the oldest go first. An order is valid for 7 days at most, so it would take more
	// than this many in a week to have one done twice.
	maxNotes = 1024
	// maxDetail bounds a result's text, in bytes.
	maxDetail = 64 << 10
)

// Actions do the work. An error becomes the result's detail.
type Actions interface {
	// Quarantine cuts devices off: exactly those given.
	Quarantine([]Device) error
	// Bypass forwards everything uninspected for a while, or ends that.
	Bypass(on bool, limit time.Duration) error
	// SelfTest makes a synthetic detection and says what came of it.
	SelfTest() (string, error)
	// Diagnostic returns the status as JSON.
	Diagnostic() ([]byte, error)
	// FactoryReset begins soon after it returns, so that the result can be told before.
	FactoryReset() error
}

// Device is a quarantined device: a MAC, an address, or both.
type Device struct {
	MAC   [6]byte    `json:"-"`
	Addr  netip.Addr `json:"addr"`
	Until time.Time  `json:"until,omitzero"` // zero: until released
	Text  string     `json:"mac"`            // MAC in hex; "" none
}

// Config of a Runner.
type Config struct {
	// Dir keeps the notes.
	Dir         string
	ApplianceID int32
	// Keys may sign orders.
	Keys    func() []ed25519.PublicKey
	Actions Actions
	// Changed is called when there is a result to tell; nil: nothing to do.
	Changed func()
	Log     hclog.Logger
	// Now is the box's clock; nil means time.Now.
	Now func() time.Time
}

// Runner does orders. Its methods are safe for several goroutines.
type Runner struct {
	cfg Config
	log hclog.Logger

	work sync.Mutex // one order at a time

	mu         sync.Mutex
	notes      []note
	quarantine []Device
}

// note is an order that was seen, and its result.
type note struct {
	ID     string    `json:"id"`
	State  int32     `json:"state"` // 0: begun
	Detail string    `json:"detail"`
	Time   time.Time `json:"time"`
	Told   bool      `json:"told"`
}

// New reads the notes and puts the quarantine back in force. An order that a restart interrupted becomes a failed one.
// Errors: a missing setting; damaged notes are logged and begun anew.
func New(cfg Config) (*Runner, error) {
	if cfg.Dir == "" || cfg.Keys == nil || cfg.Actions == nil {
		return nil, errors.New("new command runner: Dir, Keys and Actions are required")
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Runner{cfg: cfg, log: cfg.Log.Named("command")}
	r.read(r.notesPath(), &r.notes)
	r.read(r.quarantinePath(), &r.quarantine)
	for i := range r.quarantine {
		d := &r.quarantine[i]
		if b, err := hex.DecodeString(d.Text); err == nil && len(b) == 6 {
			d.MAC = [6]byte(b)
		}
	}
	for i := range r.notes {
		if n := &r.notes[i]; n.State == 0 {
			n.State, n.Detail, n.Time = int32(fleetv1.CommandResult_STATE_FAILED), "the agent ended while it was being done", cfg.Now()
		}
	}
	if err := r.enforce(); err != nil {
		return nil, fmt.Errorf("restore quarantine: %w", err)
	}
	return r, nil
}

func (r *Runner) notesPath() string      { return filepath.Join(r.cfg.Dir, "commands.json") }
func (r *Runner) quarantinePath() string { return filepath.Join(r.cfg.Dir, "quarantine.json") }

func (r *Runner) read(path string, v any) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Error("notes of commands can't be read, they begin anew", "file", path, "err", err)
	}
}

// Run ends quarantines whose time is over, until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.expire()
		}
	}
}

// expire ends quarantines whose time is over.
func (r *Runner) expire() {
	r.work.Lock()
	defer r.work.Unlock()
	now := r.cfg.Now()
	r.mu.Lock()
	keep := make([]Device, 0, len(r.quarantine))
	for _, d := range r.quarantine {
		if d.Until.IsZero() || now.Before(d.Until) {
			keep = append(keep, d)
		}
	}
	changed := len(keep) != len(r.quarantine)
	r.mu.Unlock()
	if changed {
		if err := r.setQuarantine(keep); err != nil {
			r.log.Error("quarantine can't be ended", "err", err)
		}
	}
}

// Handle does the orders it has not seen. Package fleet calls it with every desired state.
func (r *Runner) Handle(_ context.Context, envelopes []*bundlev1.Envelope) {
	r.work.Lock()
	defer r.work.Unlock()
	told := false
	for _, env := range envelopes {
		c, err := sign.VerifyCommand(r.cfg.Keys(), env)
		if err != nil {
			r.log.Error("command refused", "err", err)
			continue // nothing of it can be believed, not even its id
		}
		id := hex.EncodeToString(c.GetId())
		if r.seen(id) {
			continue
		}
		told = true
		r.do(id, c)
	}
	if told && r.cfg.Changed != nil {
		r.cfg.Changed()
	}
}

func (r *Runner) seen(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.notes {
		if r.notes[i].ID == id {
			// The centre asks again: it did not get the result.
			r.notes[i].Told = false
			return true
		}
	}
	return false
}

func (r *Runner) do(id string, c *fleetv1.Command) {
	if err := sign.CheckCommand(c, r.cfg.ApplianceID, r.cfg.Now()); err != nil {
		r.finish(id, fleetv1.CommandResult_STATE_REFUSED, err.Error())
		return
	}
	if err := r.note(note{ID: id, Time: r.cfg.Now()}); err != nil {
		r.finish(id, fleetv1.CommandResult_STATE_FAILED, "it can't be noted on disk, so it was not begun: "+err.Error())
		return
	}
	r.log.Warn("command", "id", id, "by", c.GetIssuedBy(), "reason", c.GetReason(), "action", fmt.Sprintf("%T", c.GetAction()))
	detail, err := r.act(c)
	switch {
	case errors.Is(err, errMalformed):
		r.finish(id, fleetv1.CommandResult_STATE_REFUSED, err.Error())
	case err != nil:
		r.finish(id, fleetv1.CommandResult_STATE_FAILED, err.Error())
	default:
		r.finish(id, fleetv1.CommandResult_STATE_DONE, detail)
	}
}

var errMalformed = errors.New("command is malformed")

func (r *Runner) act(c *fleetv1.Command) (string, error) {
	switch a := c.GetAction().(type) {
	case *fleetv1.Command_Quarantine_:
		d, err := device(a.Quarantine.GetMac(), a.Quarantine.GetIp())
		if err != nil {
			return "", err
		}
		if u := a.Quarantine.GetUntil(); u != nil {
			d.Until = u.AsTime()
		}
		return "the device is cut off", r.setQuarantine(append(without(r.devices(), d), d))
	case *fleetv1.Command_Release_:
		if len(a.Release.GetMac()) == 0 && len(a.Release.GetIp()) == 0 {
			return "all devices are released", r.setQuarantine(nil)
		}
		d, err := device(a.Release.GetMac(), a.Release.GetIp())
		if err != nil {
			return "", err
		}
		was := r.devices()
		left := without(was, d)
		if len(left) == len(was) {
			return "the device was not in quarantine", nil
		}
		return "the device is released", r.setQuarantine(left)
	case *fleetv1.Command_Bypass_:
		if a.Bypass.GetOn() && (a.Bypass.GetSeconds() == 0 || a.Bypass.GetSeconds() > 86400) {
			return "", fmt.Errorf("%w: bypass of %d seconds is not in 1..86400", errMalformed, a.Bypass.GetSeconds())
		}
		err := r.cfg.Actions.Bypass(a.Bypass.GetOn(), time.Duration(a.Bypass.GetSeconds())*time.Second)
		if a.Bypass.GetOn() {
			return fmt.Sprintf("bypass is on for %d seconds", a.Bypass.GetSeconds()), err
		}
		return "bypass is off", err
	case *fleetv1.Command_SelfTest_:
		return r.cfg.Actions.SelfTest()
	case *fleetv1.Command_Diagnostic_:
		b, err := r.cfg.Actions.Diagnostic()
		return string(b), err
	case *fleetv1.Command_FactoryReset_:
		return "the box forgets identity, bundles and events now", r.cfg.Actions.FactoryReset()
	default:
		return "", fmt.Errorf("%w: this agent does not know the action", errMalformed)
	}
}

func device(mac, ip []byte) (Device, error) {
	var d Device
	switch len(mac) {
	case 0:
	case 6:
		d.MAC, d.Text = [6]byte(mac), hex.EncodeToString(mac)
		if d.MAC == [6]byte{} || d.MAC[0]&1 != 0 {
			return d, fmt.Errorf("%w: %x is no device's MAC address", errMalformed, mac)
		}
	default:
		return d, fmt.Errorf("%w: MAC address of %d bytes", errMalformed, len(mac))
	}
	if len(ip) > 0 {
		a, ok := netip.AddrFromSlice(ip)
		if !ok || a.IsUnspecified() || a.IsMulticast() {
			return d, fmt.Errorf("%w: %x is no device's address", errMalformed, ip)
		}
		d.Addr = a.Unmap()
	}
	if len(mac) == 0 && len(ip) == 0 {
		return d, fmt.Errorf("%w: neither MAC nor address given", errMalformed)
	}
	return d, nil
}

// without returns the devices that share neither MAC nor address with d.
func without(list []Device, d Device) []Device {
	var out []Device
	for _, x := range list {
		same := (d.Text != "" && x.Text == d.Text) || (d.Addr.IsValid() && x.Addr == d.Addr)
		if !same {
			out = append(out, x)
		}
	}
	return out
}

func (r *Runner) devices() []Device {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Device(nil), r.quarantine...)
}

// Quarantined returns the devices that are cut off.
func (r *Runner) Quarantined() []Device { return r.devices() }

// setQuarantine enforces first and stores then; when it can't be stored the old one is put back.
func (r *Runner) setQuarantine(list []Device) error {
	r.mu.Lock()
	was := r.quarantine
	r.quarantine = list
	r.mu.Unlock()
	err := r.enforce()
	if err == nil {
		err = write(r.quarantinePath(), list)
	}
	if err != nil {
		r.mu.Lock()
		r.quarantine = was
		r.mu.Unlock()
		return errors.Join(err, r.enforce())
	}
	return nil
}

func (r *Runner) enforce() error { return r.cfg.Actions.Quarantine(r.devices()) }

func (r *Runner) finish(id string, state fleetv1.CommandResult_State, detail string) {
	if len(detail) > maxDetail {
		detail = detail[:maxDetail-len("...")] + "..."
	}
	if state != fleetv1.CommandResult_STATE_DONE {
		r.log.Error("command not done", "id", id, "state", state.String(), "detail", detail)
	}
	if err := r.note(note{ID: id, State: int32(state), Detail: detail, Time: r.cfg.Now()}); err != nil {
		r.log.Error("result of a command can't be noted on disk", "id", id, "err", err)
	}
}

// note keeps an order's state, in memory always and on disk.
func (r *Runner) note(n note) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := false
	for i := range r.notes {
		if r.notes[i].ID == n.ID {
			r.notes[i], found = n, true
		}
	}
	if !found {
		r.notes = append(r.notes, n)
		if over := len(r.notes) - maxNotes; over > 0 {
			r.notes = append([]note(nil), r.notes[over:]...)
		}
	}
	return write(r.notesPath(), r.notes)
}

// Results returns what the control plane was not told yet, at most 16 at once. Package fleet puts them into a report.
func (r *Runner) Results() []*fleetv1.CommandResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*fleetv1.CommandResult
	for _, n := range r.notes {
		if n.Told || n.State == 0 || len(out) == 16 {
			continue
		}
		id, err := hex.DecodeString(n.ID)
		if err != nil {
			continue
		}
		out = append(out, &fleetv1.CommandResult{
			Id: id, State: fleetv1.CommandResult_State(n.State), Detail: n.Detail, Time: timestamppb.New(n.Time),
		})
	}
	return out
}

// Told notes that the control plane has the results.
func (r *Runner) Told(results []*fleetv1.CommandResult) {
	if len(results) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, res := range results {
		for i := range r.notes {
			if r.notes[i].ID == hex.EncodeToString(res.GetId()) {
				r.notes[i].Told = true
				r.notes[i].Detail = shorten(r.notes[i].Detail) // a diagnostic is kept no longer than needed
			}
		}
	}
	if err := write(r.notesPath(), r.notes); err != nil {
		r.log.Warn("notes of commands can't be written", "err", err)
	}
}

func shorten(s string) string { return s[:min(len(s), 256)] }

// write replaces a small file as a whole.
func write(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode notes: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write notes: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".notes-*")
	if err != nil {
		return fmt.Errorf("write notes: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write notes: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write notes: %w", err)
	}
	return nil
}
