package page

import (
	"net/url"
	"strconv"
	"time"

	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/internal/triage/filter"
	"github.com/kadomori/kadomori/controlplane/web/msg"
)

// BlockRows is how many single alerts one block of the flat list holds.
const BlockRows = 50

// MaxRows is how far the flat list goes; beyond it, narrow the filter.
const MaxRows = 20_000

// Triage is the screen of grouped detections.
type Triage struct {
	Filter      filter.Filter
	Group       string // sig, pair, none
	Sort        string
	Focus       string // key of the row under the cursor
	Snap        *triage.Snapshot
	Groups      []*triage.Group // rows of sig and pair
	Blocks      []Block         // of none
	Rows        int64           // of none
	Tabs        []Tab
	Chips       []Chip
	Keep        []Hidden
	PeriodLabel string
	Last        string
	Panel       *Panel
	Quiet       triage.Quiet
	Coverage    triage.Coverage
	Hosts       map[int32]int64
	Since       time.Time // what the page holds; later ones are new
	Precedents  map[filter.Signature]triage.Precedent
}

// Block is a page of single alerts; without rows it is a place to be filled.
type Block struct {
	Index, N int
	Rows     []triage.Alert  // of the list of single alerts
	Pairs    []*triage.Group // of the list by signature and clinic
	Focus    string
}

// Cut is block i of the pairs.
func Cut(pairs []*triage.Group, i int) Block {
	lo, hi := min(i*BlockRows, len(pairs)), min((i+1)*BlockRows, len(pairs))
	return Block{Index: i, N: hi - lo, Pairs: pairs[lo:hi]}
}

// Tab is a view with its live count.
type Tab struct {
	URL, Label, Count string
	Current           bool
}

// Chip is one condition of the filter.
type Chip struct{ Label, Value, Without string }

// Hidden is a form field that keeps a parameter.
type Hidden struct{ Name, Value string }

// Option of a select.
type Option struct {
	Value, Label string
	On           bool
}

// Panel is the detail of a group.
type Panel struct {
	*triage.Group
	Name        string
	Link        string
	Hosts       int64
	Indicator   string
	Coverage    string
	CoverageURL string
	Chart       string
	Top         []*triage.Group
	Recent      []triage.Alert
	Next        []string
	Alerts0     url.Values // filter of the list behind the numbers
}

// AlertsURL is the list of single alerts behind a number, at one clinic or (0) at all.
func (v Panel) AlertsURL(clinic int32) string {
	q := url.Values{}
	for k, x := range v.Alerts0 {
		q[k] = x
	}
	q.Set("group", "none")
	q.Set("sig", v.String())
	if clinic != 0 {
		q.Set("c", itoa(clinic))
	}
	return link("/triage", q)
}

// RuleText is the number a rule is known by.
func (v Panel) RuleText() string { return v.Rule }

// Query is the filter as the client sends it back.
func (v Triage) Query() string {
	q := v.Filter.Values()
	if v.Group != "sig" {
		q.Set("group", v.Group)
	}
	return q.Encode()
}

// AsOf marks what the page already holds.
func (v Triage) AsOf() string { return strconv.FormatInt(v.Since.UnixMicro(), 10) }

// NewWord follows the number of new ones.
func (v Triage) NewWord(s Shell) string {
	if v.Group == "none" {
		return s.NewAlerts()
	}
	return s.NewGroups()
}

// Summary is the sentence beside the title.
func (v Triage) Summary(s Shell) string {
	if v.Empty() {
		return "" // the empty state says what a zero stands on
	}
	if v.Group == "none" {
		return s.TriageFlatSum(v.Rows, v.Snap.Alerts)
	}
	return s.TriageSum(v.Snap.Alerts, len(v.Snap.Groups), v.Snap.Clinics)
}

// Empty reports whether there is no row.
func (v Triage) Empty() bool { return len(v.Snap.Groups) == 0 }

// EmptyTitle is the sentence of an empty period.
func (v Triage) EmptyTitle(s Shell) string {
	if v.Filter.State == "" {
		return s.EmptyUntriaged()
	}
	if v.Last == "24h" {
		return s.EmptyTriage()
	}
	return s.EmptyTriagePeriod()
}

// CoverageText is what a quiet period stands on.
func (v Triage) CoverageText(s Shell) string {
	c := v.Coverage
	return s.CoverageLine(c.Boxes, c.Reporting, c.Share(), c.UnprotectedMS)
}

// ClearURL keeps period, clinics and grouping and drops the rest.
func (v Triage) ClearURL() string {
	q := v.Filter.Unlimited().Values()
	if v.Group != "sig" {
		q.Set("group", v.Group)
	}
	return link("/triage", q)
}

// RowCount is the number of rows of the whole list.
func (v Triage) RowCount() int64 {
	if v.Group == "none" {
		return v.Rows
	}
	return int64(len(v.Groups))
}

// ShapeHours is the length of the shape column's period.
func (v Triage) ShapeHours() int {
	return int((v.Snap.To.Sub(v.Snap.From) + time.Hour/2) / time.Hour / 24 * 24)
}

// IsFocus reports whether the cursor stands on g.
func (v Triage) IsFocus(g *triage.Group) bool {
	return v.Focus != "" && v.Focus == FocusKey(g.Signature, g.Clinic)
}

// FocusKey is the value of ?focus= for a group.
func FocusKey(sig filter.Signature, clinic int32) string {
	if clinic == 0 {
		return sig.String()
	}
	return sig.String() + "@" + itoa(clinic)
}

// HostsText is the number of devices of a row by clinic.
func (v Triage) HostsText(s Shell, clinic int32) string {
	n, ok := v.Hosts[clinic]
	if !ok || n == 0 {
		return s.HostUnknown()
	}
	return s.Hosts(n)
}

// Name is what a group is called.
func (v Triage) Name(s Shell, g *triage.Group) string { return SigName(s.P, g.Signature, g.Title) }

// OpenURL is the page behind a row.
func (v Triage) OpenURL(g *triage.Group) string {
	return Panel{Group: g, Alerts0: v.Filter.Values()}.AlertsURL(g.Clinic)
}

// HostText is the host condition as typed.
func (v Triage) HostText() string {
	if !v.Filter.Host.IsValid() {
		return ""
	}
	return v.Filter.Host.String()
}

// SevOptions are the severities and their useful unions.
func (v Triage) SevOptions(s Shell) []Option {
	now := v.Filter.Values().Get("sev")
	out := []Option{{Value: "0,1", Label: s.ViewUrgent()}}
	for i := range 5 {
		out = append(out, Option{Value: itoa(i), Label: s.Severity(5 - i)})
	}
	for i := range out {
		out[i].On = out[i].Value == now
	}
	return out
}

// CatOptions are the categories.
func (v Triage) CatOptions(s Shell) []Option {
	now := v.Filter.Values().Get("cat")
	var out []Option
	for _, c := range filter.Categories {
		out = append(out, Option{Value: c, Label: s.Category(c), On: c == now})
	}
	return out
}

// SigName is a detector's name from our catalogue, or a rule's own message.
func SigName(p msg.P, sig filter.Signature, title string) string {
	if sig.Kind == "detection" {
		if k, ok := p.Detector(sig.Rule); ok {
			return k.Name
		}
	}
	if title == "" {
		return hostile(sig.Rule)
	}
	return hostile(title)
}

func alertName(s Shell, a triage.Alert) string { return SigName(s.P, a.Signature, a.Title) }

// alertKey is the alert's name in URLs.
func alertKey(a triage.Alert) string { return AlertKey(a) }

// AlertKey is appliance, stream and sequence number with dots between.
func AlertKey(a triage.Alert) string {
	return itoa(a.Appliance) + "." + hex(a.Stream[:]) + "." + itoa(a.Seq)
}

func hex(b []byte) string {
	const d = "0123456789abcdef"
	out := make([]byte, 0, 2*len(b))
	for _, x := range b {
		out = append(out, d[x>>4], d[x&15])
	}
	return string(out)
}

func alertTime(s Shell, t time.Time) string {
	if d := s.Now.Sub(t); d < 20*time.Hour && d > -time.Hour {
		return s.Clock(t)
	}
	return t.In(msg.JST).Format("01-02 15:04:05")
}

func iso(t time.Time) string { return msg.ISO(t) }

// endName is the device's name when that end of the traffic is the inside device.
func endName(a triage.Alert, source bool) string {
	end := a.Dst
	if source {
		end = a.Src
	}
	if a.DeviceName != "" && a.Device.IsValid() && a.Device == end {
		return a.DeviceName
	}
	return ""
}

func endAddr(a triage.Alert, source bool) string {
	ip, port := a.Dst, a.DstPort
	if source {
		ip, port = a.Src, 0 // the client's port says nothing to a person
	}
	if !ip.IsValid() {
		if source && a.Device.IsValid() {
			return a.Device.String()
		}
		return "—"
	}
	if port == 0 {
		return ip.String()
	}
	if ip.Is6() {
		return "[" + ip.String() + "]:" + itoa(port)
	}
	return ip.String() + ":" + itoa(port)
}

func passedClass(severity int, passed int64) string {
	switch {
	case passed == 0:
		return "z"
	case severity >= 4:
		return "hot"
	}
	return ""
}

func level(child bool) string {
	if child {
		return "2"
	}
	return "1"
}

func expandAttr(on bool) templ.Attributes {
	if on {
		return templ.Attributes{"aria-expanded": "false"}
	}
	return nil
}

func sortAttr(on bool) templ.Attributes {
	if on {
		return templ.Attributes{"aria-sort": "descending"}
	}
	return nil
}

// showIndicator reports whether a recent alert's indicator says more than its addresses do.
func showIndicator(v Panel, i int) bool {
	a := v.Recent[i]
	return a.Indicator != "" && a.Indicator != v.Indicator && a.Indicator != endAddr(a, true) && (!a.Dst.IsValid() || a.Indicator != a.Dst.String())
}
