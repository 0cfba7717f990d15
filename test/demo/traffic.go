package demo

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// What each clinic lives through, by its number modulo three: how sure the report must be about which devices.
const (
	attackTwoSignals = iota // the reception PC contacts a listed address and asks for a listed name: 可能性が高い
	attackOneSignal         // the receipt computer asks for a listed name: 疑い
	attackNone              // only attacks from outside, no infected device
)

func (c *clinic) fate() int { return (c.n - 1) % 3 }

// infected lists the addresses that the clinic's report must name, and no others.
func (c *clinic) infected() []string {
	switch c.fate() {
	case attackTwoSignals:
		return []string{c.reception.ip}
	case attackOneSignal:
		return []string{c.receipt.ip}
	default:
		return []string{}
	}
}

// run runs a real client in a device's namespace. It returns what the client printed.
func (d *device) run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := d.host.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s on %s (%s): %w: %s", name, d.name, d.ip, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// fetch is curl on a device: the name is resolved first through the clinic's DNS, as a browser would.
func (d *device) fetch(ctx context.Context, c *clinic, scheme, name, path string, more ...string) (string, error) {
	ip, err := d.resolve(ctx, c, name)
	if err != nil {
		return "", err
	}
	port := map[string]string{"http": "80", "https": "443"}[scheme]
	args := append([]string{
		"--silent", "--show-error", "--fail", "--insecure", "--max-time", "60", "--retry", "2", "--output", "/dev/null",
		"--write-out", "%{size_download} %{size_upload}", "--resolve", name + ":" + port + ":" + ip,
	}, more...)
	return d.run(ctx, "curl", append(args, scheme+"://"+name+path)...)
}

// resolve is dig on a device, asking the clinic's gateway.
func (d *device) resolve(ctx context.Context, c *clinic, name string) (string, error) {
	server := c.gateway
	if d.guest {
		server = c.guestGateway
	}
	out, err := d.run(ctx, "dig", "+short", "+time=3", "+tries=3", "@"+server, name, "A")
	if err != nil {
		return "", err
	}
	answer, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	if answer == "" {
		return "", fmt.Errorf("resolve %s on %s: no address in the answer", name, d.name)
	}
	return answer, nil
}

// everyday is what happens in a clinic on any day: pages, reservations, a file transfer, a backup, a guest's video.
func (c *clinic) everyday(ctx context.Context) error {
	type visit struct {
		d                  *device
		scheme, name, path string
		size               int // expected download, bytes; 0 any
		args               []string
	}
	visits := []visit{
		{c.reception, "http", webName, "/", 0, nil},
		{c.reception, "https", saasName, "/file/400000", 400000, nil},
		{c.reception, "https", saasName, "/file/250000", 250000, nil},
		{c.receipt, "https", saasName, "/file/120000", 120000, nil},
		{c.receipt, "http", webName, "/file/60000", 60000, nil},
		{c.reception, "http", downloadName, "/file/12000000", 12000000, nil},
		{c.nas, "https", backupName, "/backup", 0, []string{"--upload-file", "-"}},
		{c.phone, "https", videoName, "/file/3000000", 3000000, nil},
	}
	for _, v := range visits {
		if v.args != nil { // the backup: 4 MB from the NAS to the cloud
			if err := c.backup(ctx); err != nil {
				return err
			}
			continue
		}
		out, err := v.d.fetch(ctx, c, v.scheme, v.name, v.path)
		if err != nil {
			return err
		}
		if got, _, _ := strings.Cut(out, " "); v.size != 0 && got != strconv.Itoa(v.size) {
			return fmt.Errorf("fetch %s%s on %s: want %d bytes, got %s", v.name, v.path, v.d.name, v.size, got)
		}
	}
	return nil
}

func (c *clinic) backup(ctx context.Context) error {
	ip, err := c.nas.resolve(ctx, c, backupName)
	if err != nil {
		return err
	}
	cmd := c.nas.host.Command(ctx, "curl", "--silent", "--show-error", "--fail", "--insecure", "--max-time", "60",
		"--resolve", backupName+":443:"+ip, "--header", "Expect:", "--upload-file", "-", "https://"+backupName+"/backup")
	cmd.Stdin = &filler{left: 4_000_000}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("back up %s: %w: %s", c.nas.name, err, out)
	}
	if got := strings.TrimSpace(string(out)); got != "4000000" {
		return fmt.Errorf("back up %s: the cloud has %s bytes, want 4000000", c.nas.name, got)
	}
	return nil
}

// attack is what the demo is there to find. Clients are expected to fail where the appliance stops them, so their errors
// are not the demo's; what was found and stopped is checked in the database.
func (w *world) attack(ctx context.Context, c *clinic) error {
	attempt := func(cmd *exec.Cmd) error {
		_ = cmd.Run()
		return ctx.Err()
	}
	var steps []*exec.Cmd
	// From the Internet: a scan of the NAS, then an exploit-like request to it.
	steps = append(steps,
		w.evil.Command(ctx, "nmap", "-n", "-Pn", "-sS", "--max-retries", "1", "--min-rate", "200", "-p", "1-120,443,445,3389,5000,8080", c.nas.ip),
		w.evil.Command(ctx, "curl", "--silent", "--max-time", "5", "--output", "/dev/null", "--path-as-is",
			"http://"+c.nas.ip+"/cgi-bin/.%2e/.%2e/.%2e/.%2e/bin/sh?cmd=id"),
	)
	switch c.fate() {
	case attackTwoSignals:
		for range 3 {
			steps = append(steps, c.reception.host.Command(ctx, "curl", "--silent", "--max-time", "2", "--output", "/dev/null",
				"http://"+c2IP+":8080/gate.php"))
		}
		steps = append(steps, c.reception.host.Command(ctx, "dig", "+short", "+time=2", "+tries=1", "@"+c.gateway, c2Name, "A"))
	case attackOneSignal:
		steps = append(steps, c.receipt.host.Command(ctx, "dig", "+short", "+time=2", "+tries=1", "@"+c.gateway, c2Name, "A"))
	case attackNone:
		// A listed phishing site is no sign of infection.
		steps = append(steps, c.reception.host.Command(ctx, "curl", "--silent", "--max-time", "3", "--output", "/dev/null",
			"--resolve", phishingName+":80:"+phishingIP, "http://"+phishingName+"/"))
	}
	for _, cmd := range steps {
		if err := attempt(cmd); err != nil {
			return err
		}
	}
	return nil
}

// drive sends everyday traffic and attacks through all appliances, two clinics at a time.
func (w *world) drive(ctx context.Context, done func(c *clinic)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, c := range w.clinics {
		g.Go(func() error {
			if err := c.everyday(ctx); err != nil {
				return fmt.Errorf("everyday traffic of %s: %w", c.name, err)
			}
			if err := w.attack(ctx, c); err != nil {
				return fmt.Errorf("attacks on %s: %w", c.name, err)
			}
			done(c)
			return nil
		})
	}
	return g.Wait()
}

func containsField(s, field string) bool {
	for f := range strings.FieldsSeq(s) {
		if f == field {
			return true
		}
	}
	return false
}
