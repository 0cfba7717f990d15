package conformance

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"text/tabwriter"
)

// Capture is one file of a folder of captures that a full rule set is run on: attacks, and traffic that must stay quiet.
type Capture struct {
	Category string   `json:"category"`
	Name     string   `json:"name"`
	Labels   []string `json:"labels"`
	Benign   bool     `json:"benign"`
	Attack   bool     `json:"attack"`
	path     string

	Alerts     int    `json:"alerts"`     // alert records
	Serious    int    `json:"serious"`    // alerts of severity 1 or 2, detections above low
	Detections int    `json:"detections"` // behaviours
	First      string `json:"first,omitempty"`
	Error      string `json:"error,omitempty"`
}

// Told says whether anything was said of the capture.
func (c *Capture) Told() bool { return c.Alerts+c.Detections > 0 }

// attackLabels are the labels of what should be told; others name a protocol, a tool or an odd but harmless thing.
var attackLabels = map[string]bool{
	"exploit": true, "lateral": true, "malware_c2": true, "recon": true, "psexec": true, "cred_access": true, "port_scan": true, "beaconing": true,
	"ransomware": true, "web_attack": true, "evasion": true, "coerced_auth": true, "smb_burst": true, "dns_tunnel": true, "slow_scan": true,
	"arp_sweep": true, "brute_force": true, "udp_fanout": true, "dns_dga": true,
}

// FindCaptures lists the captures below dir with what their expect.json says of them. Captures that are neither an attack
// nor benign are left out: nothing is asserted of them.
func FindCaptures(dir string) ([]*Capture, error) {
	var out []*Capture
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.expect.json"))
	if err != nil {
		return nil, fmt.Errorf("find captures: %w", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read labels: %w", err)
		}
		var e struct {
			Labels []string `json:"labels"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			return nil, fmt.Errorf("read labels %s: %w", name, err)
		}
		base := strings.TrimSuffix(name, ".expect.json")
		c := &Capture{Category: filepath.Base(filepath.Dir(name)), Name: filepath.Base(base), Labels: e.Labels}
		for _, ext := range []string{".pcap", ".pcapng"} {
			if exists(base + ext) {
				c.path = base + ext
			}
		}
		c.Benign = slices.Contains(e.Labels, "benign")
		c.Attack = !c.Benign && slices.ContainsFunc(e.Labels, func(l string) bool { return attackLabels[l] })
		if c.path != "" && (c.Benign || c.Attack) {
			out = append(out, c)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].path < out[j].path })
	return out, nil
}

// maxUnpacked bounds a packed rule file, in bytes.
const maxUnpacked = 1 << 30

// UnpackRules puts the rule files of dir (*.rules, *.rules.gz) plain into tmp and returns their names.
func UnpackRules(dir, tmp string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.rules*"))
	if err != nil {
		return nil, fmt.Errorf("find rules: %w", err)
	}
	var out []string
	for _, name := range names {
		if !strings.HasSuffix(name, ".gz") {
			out = append(out, name)
			continue
		}
		target := filepath.Join(tmp, strings.TrimSuffix(filepath.Base(name), ".gz"))
		if err := unpack(name, target); err != nil {
			return nil, err
		}
		out = append(out, target)
	}
	return out, nil
}

func unpack(from, to string) (err error) {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("open rules: %w", err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", from, err)
	}
	g, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", from, err)
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if _, err := io.Copy(g, io.LimitReader(z, maxUnpacked)); err != nil {
		return fmt.Errorf("unpack %s: %w", from, err)
	}
	return nil
}

// RunCaptures runs the rules on each capture; every address is at home, as the captures come from many networks. The first run fills the cache of compiled rules for the others.
func (a *Agent) RunCaptures(ctx context.Context, captures []*Capture, rules []string, class, cache string, jobs int) {
	args := slices.Clone(a.Args)
	args = append(args, "inspect", "--eve", "-", "--cache", cache, "--var", "HOME_NET=any", "--var", "EXTERNAL_NET=any")
	if a.flags["checksums"] {
		args = append(args, "--checksums", "none")
	}
	if a.flags["midstream"] {
		args = append(args, "--midstream")
	}
	if class != "" {
		args = append(args, "--classification", class)
	}
	for _, r := range rules {
		args = append(args, "--rules", r)
	}
	one := func(c *Capture) {
		ctx, cancel := context.WithTimeout(ctx, caseLimit)
		defer cancel()
		records, _, err := a.inspect(ctx, append(slices.Clone(args), "--pcap", c.path))
		if err != nil {
			c.Error = err.Error()
		}
		c.count(records)
	}
	if len(captures) == 0 {
		return
	}
	one(captures[0])
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(jobs, 1))
	for _, c := range captures[1:] {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			one(c)
		})
	}
	wg.Wait()
}

func (c *Capture) count(records []map[string]any) {
	for _, r := range records {
		what := ""
		switch text(find(r, "event_type")) {
		case "alert":
			c.Alerts++
			what = "sid " + text(find(r, "alert.signature_id")) + " " + text(find(r, "alert.signature"))
			if s := text(find(r, "alert.severity")); s == "1" || s == "2" {
				c.Serious++
			}
		case "detection":
			c.Detections++
			what = text(find(r, "detection.detector"))
			switch text(find(r, "detection.severity")) {
			case "medium", "high", "critical":
				c.Serious++
			}
		default:
			continue
		}
		if c.First == "" {
			c.First = what
		}
	}
}

// PrintCaptures writes the table by category, then the attacks nothing was said of and the benign captures that were not
// quiet.
func PrintCaptures(out io.Writer, captures []*Capture) error {
	type row struct{ attacks, told, benign, quiet int }
	by := map[string]*row{}
	all := &row{}
	for _, c := range captures {
		r := by[c.Category]
		if r == nil {
			r = &row{}
			by[c.Category] = r
		}
		for _, x := range []*row{r, all} {
			if c.Attack {
				x.attacks++
				if c.Told() {
					x.told++
				}
				continue
			}
			x.benign++
			if c.Serious == 0 {
				x.quiet++
			}
		}
	}
	names := make([]string, 0, len(by))
	for n := range by {
		names = append(names, n)
	}
	sort.Strings(names)
	share := func(a, b int) string {
		if b == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f %%", 100*float64(a)/float64(b))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	tell(w, "captures\tattacks\ttold\t\tbenign\tquiet\t")
	for _, n := range names {
		r := by[n]
		tellf(w, "%s\t%d\t%d\t%s\t%d\t%d\t%s\n", n, r.attacks, r.told, share(r.told, r.attacks), r.benign, r.quiet, share(r.quiet, r.benign))
	}
	tellf(w, "all\t%d\t%d\t%s\t%d\t%d\t%s\n", all.attacks, all.told, share(all.told, all.attacks), all.benign, all.quiet, share(all.quiet, all.benign))
	if err := w.Flush(); err != nil {
		return err
	}
	for _, c := range captures {
		switch {
		case c.Error != "":
			tellf(out, "  error      %s/%s: %s\n", c.Category, c.Name, c.Error)
		case c.Attack && !c.Told():
			tellf(out, "  not told   %s/%s (%s)\n", c.Category, c.Name, strings.Join(c.Labels, ", "))
		case c.Benign && c.Serious > 0:
			tellf(out, "  not quiet  %s/%s: %s\n", c.Category, c.Name, c.First)
		}
	}
	return nil
}
