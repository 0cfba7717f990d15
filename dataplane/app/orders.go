package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/command"
	"github.com/kadomori/kadomori/dataplane/internal/enrol"
	"github.com/kadomori/kadomori/dataplane/internal/xdp"
)

// resetDelay is how long a factory reset waits so that its result can be told before.
const resetDelay = 10 * time.Second

// errReset ends the program for a factory reset; the service manager starts it anew.
var errReset = errors.New("factory reset: starting anew")

// orders are the actions of commands from the control plane.
type orders struct{ a *agent }

var _ command.Actions = orders{}

func (o orders) Quarantine(devices []command.Device) error {
	var q xdp.Quarantine
	for _, d := range devices {
		if d.MAC != [6]byte{} {
			q.MACs = append(q.MACs, d.MAC)
		}
		if d.Addr.IsValid() {
			q.Addrs = append(q.Addrs, d.Addr)
		}
	}
	return o.a.wire.SetQuarantine(q)
}

func (o orders) Bypass(on bool, limit time.Duration) error { return o.a.wire.Bypass(on, limit) }

func (o orders) SelfTest() (string, error) {
	res := o.a.runSelfTest()
	if !res.Passed {
		return "", errors.New(res.Detail)
	}
	return res.Detail, nil
}

func (o orders) Diagnostic() ([]byte, error) {
	b, err := json.Marshal(o.a.status())
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	return b, nil
}

// FactoryReset leaves a mark that the next start acts upon, so that a power cut in between changes nothing.
func (o orders) FactoryReset() error {
	if err := os.WriteFile(o.a.cfg.resetMark(), nil, 0o600); err != nil {
		return fmt.Errorf("mark factory reset: %w", err)
	}
	select {
	case o.a.reset <- struct{}{}:
	default:
	}
	return nil
}

func (c *Config) resetMark() string { return filepath.Join(c.StateDir, "factory-reset") }

// awaitReset ends the program for a factory reset.
func (a *agent) awaitReset(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.reset:
	}
	t := time.NewTimer(resetDelay)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-t.C:
		return errReset
	}
}

// finishReset forgets everything when a reset was marked. It returns the reason of the new stream, "" when there was no mark.
func finishReset(cfg *Config) (string, error) {
	if _, err := os.Stat(cfg.resetMark()); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for _, path := range []string{cfg.identityDir(), cfg.bundleDir(), cfg.spoolDir(), cfg.cacheDir(), cfg.commandDir(), filepath.Join(cfg.StateDir, "anonymous.key")} {
		if err := os.RemoveAll(path); err != nil {
			return "", fmt.Errorf("factory reset: %w", err)
		}
	}
	if err := os.Remove(cfg.resetMark()); err != nil {
		return "", fmt.Errorf("factory reset: %w", err)
	}
	return "factory-reset", nil
}

func (c *Config) commandDir() string { return filepath.Join(c.StateDir, "commands") }

// startCommands puts the quarantine back in force and takes orders from now on.
func (a *agent) startCommands(id *enrol.Identity) error {
	r, err := command.New(command.Config{
		Dir: a.cfg.commandDir(), ApplianceID: id.Appliance(), Keys: id.BundleKeys, Actions: orders{a}, Changed: a.policyChanged, Now: a.now, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.commands = r
	a.mu.Unlock()
	return nil
}
