// Package demo runs a small MSP with clinics in network namespaces, attacks them and checks what became of it. `make demo` and
// the end-to-end tests call Run, as root. The trap: everything it starts ends with its context; what it leaves are the PDFs,
// the summary and the logs in the folder it was given.
package demo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
	"github.com/kadomori/kadomori/test/lab"
)

//go:embed data
var data embed.FS

// Config is what Run needs.
type Config struct {
	Clinics int       // 1 to 100; 0 means 3
	Once    bool      // check, then end; otherwise stay until the context ends
	Bin     string    // folder of the programs, made by make build
	Out     string    // folder for PDFs, summary and logs; what an earlier run left there is replaced
	Output  io.Writer // for the person who watches
	TTY     bool      // Output is a terminal
}

func (c *Config) validate() error {
	if c.Clinics == 0 {
		c.Clinics = 3
	}
	if c.Clinics < 1 || c.Clinics > maxClinics {
		return fmt.Errorf("clinics: %d, want 1 to %d", c.Clinics, maxClinics)
	}
	if m := lab.Missing(); m != "" {
		return fmt.Errorf("the demo builds network namespaces, but %s is missing", m)
	}
	for _, p := range []string{"kadomori-control", "kadomori-agent", "kadomori-reporter", "kadomori"} {
		if _, err := os.Stat(filepath.Join(c.Bin, p)); err != nil {
			return fmt.Errorf("find program %s: %w (make build puts it there)", p, err)
		}
	}
	return nil
}

// Run builds the world, runs it, checks it, and either ends or stays. Errors say which step failed; the logs lie in
// Out/log. It returns nil when the context ends while it stays.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.validate(); err != nil {
		return err
	}
	out, err := filepath.Abs(cfg.Out)
	if err != nil {
		return err
	}
	for _, d := range []string{"summary.json", "reports", "log", "state"} {
		if err := os.RemoveAll(filepath.Join(out, d)); err != nil {
			return fmt.Errorf("clean %s: %w", out, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(out, "reports"), 0o750); err != nil {
		return err
	}
	before, err := leftovers()
	if err != nil {
		return err
	}

	d := &run{cfg: cfg, out: out, p: newProgress(cfg.Output, cfg.TTY), began: time.Now()}
	ctx, cancel := context.WithCancelCause(ctx)
	d.fail = func(err error) { cancel(err) }
	err = d.all(ctx)
	stopped := errors.Is(context.Cause(ctx), context.Canceled)
	if cause := context.Cause(ctx); cause != nil && !stopped {
		err = cause // a program that died explains more than the step that waited for it
	}
	cancel(nil)
	if err != nil && stopped && d.ready {
		err = nil // Ctrl-C while it stayed open
	}
	cerr := d.p.step("take everything down", func(func(string, ...any)) error {
		if err := d.close(); err != nil {
			return err
		}
		return nothingLeft(before)
	})
	if err = errors.Join(err, cerr); err != nil {
		return fmt.Errorf("%w\n  logs: %s", err, filepath.Join(out, "log"))
	}
	return nil
}

type run struct {
	cfg   Config
	out   string
	state string
	p     *progress
	fail  func(error)
	began time.Time
	ready bool

	lab      *lab.Lab
	world    *world
	programs *programs
	console  string
	password string
	month    string
	summary  summary
}

// note tells a detail of the step that is going on.
type note = func(format string, args ...any)

// all runs the steps in order; the first error ends it.
func (d *run) all(ctx context.Context) error {
	d.p.say("")
	d.p.say("  %s  %d clinics in network namespaces", d.p.paint("1", "門守 Kadomori demo"), d.cfg.Clinics)
	d.p.say("")
	for _, s := range []struct {
		name string
		fn   func(context.Context, note) error
	}{
		{"build hosts and networks", d.buildWorld},
		{"start the control plane (PostgreSQL, NATS, console)", d.startControl},
		{"write plan, signatures and clinics", d.writePolicy},
		{"plug the appliances in: they enrol themselves", d.enrol},
		{"give every device its address by DHCP, through the wire", d.lease},
		{"everyday traffic and attacks", d.drive},
		{"wait until every event is in the database", d.settle},
		{"write the monthly reports", d.report},
		{"check numbers and reports", d.check},
	} {
		if err := d.p.step(s.name, func(n func(string, ...any)) error { return s.fn(ctx, n) }); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	d.ready = true
	d.tell()
	if d.cfg.Once {
		return nil
	}
	d.p.say("  Stays up until Ctrl-C.\n")
	<-ctx.Done()
	return context.Cause(ctx)
}

func (d *run) buildWorld(_ context.Context, n note) (err error) {
	if d.lab, err = lab.New("demo"); err != nil {
		return err
	}
	if d.world, err = buildWorld(d.lab, d.cfg.Clinics); err != nil {
		return err
	}
	// State needs a place that PostgreSQL's user may pass through, and short paths for sockets.
	if d.state, err = os.MkdirTemp("/var/tmp", "kadomori-demo-"); err != nil {
		return err
	}
	if err := os.Chmod(d.state, 0o711); err != nil { //nolint:gosec // passable, not readable
		return err
	}
	d.programs = &programs{bin: d.cfg.Bin, state: d.state, world: d.world, fail: d.fail}
	n("%d hosts", 3+6*d.cfg.Clinics)
	return nil
}

func (d *run) startControl(ctx context.Context, _ note) error {
	if err := d.programs.startControl(ctx); err != nil {
		return err
	}
	if err := d.programs.startReporter(ctx); err != nil {
		return err
	}
	password, err := os.ReadFile(filepath.Join(d.state, "control", "admin-password"))
	if err != nil {
		return fmt.Errorf("read the first operator's password: %w", err)
	}
	d.password = strings.TrimSpace(string(password))
	addr, err := forward(ctx, d.world.msp, "127.0.0.1:"+consolePort, mspIP+":"+consolePort)
	if err != nil {
		return err
	}
	d.console = "https://" + addr
	return nil
}

func (d *run) writePolicy(ctx context.Context, n note) error {
	dir := filepath.Join(d.state, "data")
	if err := os.CopyFS(dir, data); err != nil {
		return err
	}
	dir = filepath.Join(dir, "data")
	if err := d.programs.operator(ctx, nil, "plan", "apply", "standard", "--file", filepath.Join(dir, "plan.yaml"), "--reason", "demo"); err != nil {
		return err
	}
	for _, c := range d.world.clinics {
		var created operatorv1.CreateClinicResponse
		if err := d.programs.operator(ctx, &created, "clinic", "create", "--code", fmt.Sprintf("C%03d", c.n), "--name", c.name, "--kana", c.kana,
			"--director", c.director, "--plan", "standard", "--hours", "mon-fri 09:00-18:30; sat 09:00-13:00"); err != nil {
			return err
		}
		c.id = created.GetClinic().GetId()
		if c.id == 0 {
			return fmt.Errorf("create clinic %s: no id in the answer", c.name)
		}
		// Every clinic deviates from the plan in its own addresses; the third also in how it treats guests.
		override := filepath.Join(dir, fmt.Sprintf("override-%d.yaml", c.n))
		if err := os.WriteFile(override, []byte(c.override()), 0o600); err != nil {
			return err
		}
		if err := d.programs.operator(ctx, nil, "override", "set", "--clinic", fmt.Sprint(c.id), "--file", override, "--reason", "addresses of the clinic"); err != nil {
			return err
		}
	}
	if err := d.programs.operator(ctx, nil, "setting", "set", "msp.name=みほん保守サポート株式会社", "msp.desk=医療ネットワーク保守窓口", "msp.phone=0120-000-000",
		"msp.hours=平日 9:00〜18:00"); err != nil {
		return err
	}
	var published operatorv1.PublishSignaturesResponse
	if err := d.programs.operator(ctx, &published, "signature", "publish", "--reason", "demo",
		filepath.Join(dir, "demo.rules"), filepath.Join(dir, "classification.config"), filepath.Join(dir, "c2-servers.addresses"),
		filepath.Join(dir, "c2-names.domains"), filepath.Join(dir, "phishing.domains"), "--kind", "phishing=bad-site"); err != nil {
		return err
	}
	n("%d rules, %d addresses, %d names", published.GetRules(), published.GetAddresses(), published.GetDomains())
	return nil
}

func (d *run) enrol(ctx context.Context, n note) error {
	pins, err := d.lab.BPFFS()
	if err != nil {
		return err
	}
	for _, c := range d.world.clinics {
		var claim operatorv1.CreateClaimResponse
		if err := d.programs.operator(ctx, &claim, "claim", "create", "--clinic", fmt.Sprint(c.id), "--name", fmt.Sprintf("box-%d", c.n), "--auto-approve"); err != nil {
			return err
		}
		if err := d.programs.startAgent(ctx, c, claim.GetClaim(), pins); err != nil {
			return err
		}
	}
	return until(ctx, 60*time.Second, "all appliances to be online and in sync", func() error {
		var list operatorv1.ListAppliancesResponse
		if err := d.programs.operator(ctx, &list, "appliance", "list"); err != nil {
			return err
		}
		good := 0
		var waiting []string
		for _, a := range list.GetAppliances() {
			if a.GetOnline() && a.GetIntent() == "in sync" && a.GetSignatureVersion() > 0 && a.GetPolicyVersion() > 0 {
				good++
				continue
			}
			waiting = append(waiting, fmt.Sprintf("%s: %s, online %t, %s %s", a.GetName(), a.GetState(), a.GetOnline(), a.GetIntent(), a.GetIntentDetail()))
		}
		n("%d of %d online and in sync", good, d.cfg.Clinics)
		d.summary.AppliancesOnline = good
		if good == d.cfg.Clinics {
			return nil
		}
		return errors.New(strings.Join(waiting, "; "))
	})
}

func (d *run) lease(ctx context.Context, _ note) error {
	script, err := writeDHCPScript(d.lab.Dir())
	if err != nil {
		return err
	}
	logs := filepath.Join(d.state, "log")
	if err := startDNSMasq(ctx, d.world, filepath.Join(logs, "dnsmasq.log")); err != nil {
		return err
	}
	if err := lease(ctx, d.world, script); err != nil {
		return err
	}
	return serveWorld(ctx, d.world, d.fail)
}

func (d *run) drive(ctx context.Context, n note) error {
	finished := 0
	if err := d.world.drive(ctx, func(*clinic) {
		finished++
		n("%d of %d clinics", finished, d.cfg.Clinics)
	}); err != nil {
		return err
	}
	// The devices are known by now: give them the names that the clinics use.
	for _, c := range d.world.clinics {
		for _, dev := range c.devices() {
			if dev.guest {
				continue
			}
			if err := until(ctx, 60*time.Second, "device "+dev.name+" of "+c.name+" to be in the inventory", func() error {
				return d.programs.operator(ctx, nil, "device", "name", "--clinic", fmt.Sprint(c.id), "--mac", dev.mac, "--name", dev.label)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *run) close() error {
	var errs []error
	if d.lab != nil {
		errs = append(errs, d.lab.Close())
	}
	if d.state != "" {
		if err := os.CopyFS(filepath.Join(d.out, "log"), os.DirFS(filepath.Join(d.state, "log"))); err != nil {
			errs = append(errs, fmt.Errorf("keep logs: %w", err))
		}
		errs = append(errs, os.RemoveAll(d.state))
	}
	return errors.Join(errs...)
}
