package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// summary is out/demo/summary.json: what was checked.
type summary struct {
	Clinics          int                 `json:"clinics"`
	AppliancesOnline int                 `json:"appliances_online"`
	EventsEmitted    uint64              `json:"events_emitted"`
	EventsStored     uint64              `json:"events_stored"`
	Duplicates       uint64              `json:"duplicates"`
	Lost             uint64              `json:"lost"`
	Infected         map[string][]string `json:"infected"`
	Reports          []string            `json:"reports"`
	Console          string              `json:"console"`
}

// check compares what came out with what went in, and writes the summary.
func (d *run) check(ctx context.Context, n note) error {
	s := &d.summary
	s.Clinics, s.Console, s.Infected = d.cfg.Clinics, d.console, map[string][]string{}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	for _, c := range d.world.clinics {
		got, err := d.infected(ctx, c)
		if err != nil {
			return err
		}
		slices.Sort(got)
		s.Infected[c.name] = got
		if want := c.infected(); !slices.Equal(got, want) {
			wrong("%s: under suspicion %v, want %v", c.name, got, want)
		}
		if err := checkReport(ctx, c); err != nil {
			wrong("report of %s: %w", c.name, err)
		}
	}
	if s.AppliancesOnline != s.Clinics {
		wrong("%d of %d appliances are online", s.AppliancesOnline, s.Clinics)
	}
	if s.EventsEmitted != s.EventsStored || s.EventsStored == 0 {
		wrong("events: %d emitted, %d stored", s.EventsEmitted, s.EventsStored)
	}
	if s.Duplicates != 0 || s.Lost != 0 {
		wrong("events: %d duplicates, %d lost", s.Duplicates, s.Lost)
	}
	if err := d.checkConsole(ctx); err != nil {
		wrong("console: %w", err)
	}

	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.out, "summary.json"), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	n("%d events, %d duplicates, %d lost", s.EventsStored, s.Duplicates, s.Lost)
	return errors.Join(errs...)
}

// checkConsole fetches the login page through the loopback, as a browser would.
func (d *run) checkConsole(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--location", "--max-time", "10",
		"--cacert", filepath.Join(d.state, "control", "pki", "ca.crt"), d.console+"/").CombinedOutput()
	if err != nil {
		return fmt.Errorf("fetch %s: %w: %s", d.console, err, out)
	}
	if !strings.Contains(string(out), "<form") {
		return fmt.Errorf("fetch %s: no login form in the page", d.console)
	}
	return nil
}

// squeeze drops white space: pdftotext may break a line anywhere.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
}

var (
	addresses = regexp.MustCompile(`[0-9]{1,3}(?:\.[0-9]{1,3}){3}`)
	share     = regexp.MustCompile(`([0-9]{1,3}\.[0-9])\s*%`)
	volume    = regexp.MustCompile(`受信([0-9.]+)MB、送信([0-9.]+)MB`)
)

// The bytes of everyday's transfers; headers, handshakes and attacks come on top, less than a quarter of it.
const (
	megabytesIn  = 15.83
	megabytesOut = 4.0
)

// checkReport reads a clinic's PDF as text: the right clinic, 感染端末, exactly the infected devices' addresses on the page
// about them, and application shares that add up to 100 %.
func checkReport(ctx context.Context, c *clinic) error {
	text, err := exec.CommandContext(ctx, "pdftotext", "-layout", c.pdf, "-").Output()
	if err != nil {
		return fmt.Errorf("pdftotext %s: %w", c.pdf, err)
	}
	pages := strings.Split(string(text), "\f")
	all := squeeze(string(text))
	for _, want := range []string{"感染端末", c.name, c.director, "攻撃検知", "アプリケーション別利用割合", "通信量", "観測範囲"} {
		if !strings.Contains(all, squeeze(want)) {
			return fmt.Errorf("%q isn't in the text", want)
		}
	}
	for _, secret := range []string{c.phone.name, c.phone.mac, c.phone.ip} {
		if strings.Contains(all, secret) {
			return fmt.Errorf("a guest's device is told of: %q is in the text", secret)
		}
	}
	m := volume.FindStringSubmatch(all)
	if m == nil {
		return errors.New("no volume of traffic on the first page")
	}
	for i, want := range []float64{megabytesIn, megabytesOut} {
		if got, err := strconv.ParseFloat(m[1+i], 64); err != nil || got < want-0.05 || got > want*1.25 {
			return fmt.Errorf("volume %q, want %.1f MB or up to a quarter more", m[0], want)
		}
	}
	var infected, traffic string
	for _, p := range pages {
		switch flat := squeeze(p); {
		case infected == "" && strings.Contains(flat, "感染端末・ボット・マルウェア"):
			infected = p
		case traffic == "" && strings.Contains(flat, "アプリケーション別利用割合") && strings.Contains(flat, "通信の状況"):
			traffic = p
		}
	}
	if infected == "" || traffic == "" {
		return errors.New("the page about infected devices, or that about traffic, isn't there")
	}
	inside := netip.MustParsePrefix(c.clinicalPrefix)
	named := []string{}
	for _, a := range addresses.FindAllString(infected, -1) {
		ip, err := netip.ParseAddr(a)
		if err == nil && inside.Contains(ip) && !slices.Contains(named, a) {
			named = append(named, a)
		}
	}
	slices.Sort(named)
	if want := c.infected(); !slices.Equal(named, want) {
		return fmt.Errorf("the page about infected devices names %v, want %v", named, want)
	}
	_, table, ok := strings.Cut(traffic, "アプリケーション別利用割合")
	if !ok {
		return errors.New("no heading アプリケーション別利用割合 on the page about traffic")
	}
	if !addsUp(share.FindAllStringSubmatch(table, -1)) {
		return fmt.Errorf("no run of application shares adds up to 100.0 %%: %v", share.FindAllString(table, -1))
	}
	return nil
}

// addsUp says whether a run of the shares, in the order of the page, adds up to exactly 100.0.
func addsUp(shares [][]string) bool {
	hundred := big.NewRat(100, 1)
	for i := range shares {
		sum := new(big.Rat)
		for _, s := range shares[i:] {
			v, ok := new(big.Rat).SetString(s[1])
			if !ok {
				return false
			}
			if sum.Add(sum, v).Cmp(hundred) == 0 {
				return true
			}
		}
	}
	return false
}

// tell prints where a person looks next.
func (d *run) tell() {
	p := d.p
	p.say("")
	p.say("  %s  %s", p.paint("1", "Console "), p.paint("36", d.console))
	p.say("  %s  admin / %s", p.paint("1", "Login   "), d.password)
	p.say("  %s  the console's certificate is signed by the demo's own CA; a browser will ask", p.paint("2", "        "))
	for i, r := range d.summary.Reports {
		head := "        "
		if i == 0 {
			head = "Reports "
		}
		p.say("  %s  %s  %s", p.paint("1", head), r, p.paint("2", d.world.clinics[i].name))
	}
	p.say("  %s  %s", p.paint("1", "Summary "), filepath.Join(d.out, "summary.json"))
	p.say("")
}

// leftovers lists namespaces, mounts and links that exist outside the demo.
func leftovers() (map[string]bool, error) {
	seen := map[string]bool{}
	spaces, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, e := range spaces {
		seen["namespace "+e.Name()] = true
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && strings.Contains(f[1], "kadomori") {
			seen["mount "+f[1]] = true
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	for _, e := range links {
		seen["link "+e.Name()] = true
	}
	return seen, nil
}

// nothingLeft says what the demo left behind: namespaces, mounts, links, processes of its own programs.
func nothingLeft(before map[string]bool) error {
	after, err := leftovers()
	if err != nil {
		return err
	}
	var left []string
	for name := range after {
		if !before[name] && strings.Contains(name, fmt.Sprintf("kdm%d-", os.Getpid())) {
			left = append(left, name)
		}
		if !before[name] && strings.HasPrefix(name, "link ") {
			left = append(left, name)
		}
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err == nil {
		for pid := range strings.FieldsSeq(string(children)) {
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			left = append(left, "process "+pid+" "+strings.TrimSpace(string(comm)))
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return nil
}
