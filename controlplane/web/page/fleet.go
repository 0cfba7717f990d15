package page

import (
	"net/netip"
	"strings"
	"time"

	"github.com/kadomori/kadomori/controlplane/internal/triage"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// Overview is the start of a shift.
type Overview struct {
	Fleet     store.Fleet
	Needs     []Need
	Top       []*triage.Group
	Busy      []store.Clinic
	Coverage  triage.Coverage
	LastMonth time.Time
}

// Need is one thing that wants a human.
type Need struct {
	URL, Text string
	Severity  int
}

// CoverageText is what the figures stand on.
func (v Overview) CoverageText(s Shell) string {
	c := v.Coverage
	return s.CoverageLine(c.Boxes, c.Reporting, c.Share(), c.UnprotectedMS)
}

// Clinics is the list of clinics.
type Clinics struct {
	List        []store.Clinic
	Total, Need int
	Tabs        []Tab
	Sort, Q     string
}

// Clinic is one clinic's page.
type Clinic struct {
	C                    store.Clinic
	Tab                  string
	Tabs                 []Tab
	Boxes                []store.Appliance
	Top                  []*triage.Group
	Coverage             triage.Coverage
	Month                time.Time
	Chart                string
	Lost                 int64
	Clear, Named, Opaque int64
	Unprotected          []store.Unprotected
	Devices              []store.Device
	Cards                []store.Card
	Pass                 string // a new one, shown once
	NoAsk, NoAccess      string // why this operator may not
	Months               []Month
}

// CoverageText is what the figures stand on.
func (v Clinic) CoverageText(s Shell) string {
	c := v.Coverage
	return s.CoverageLine(c.Boxes, c.Reporting, c.Share(), c.UnprotectedMS)
}

// NamedDevices counts devices that may be named.
func (v Clinic) NamedDevices() int { return len(v.Devices) - v.GuestDevices() }

// GuestDevices counts anonymous devices.
func (v Clinic) GuestDevices() int {
	n := 0
	for i := range v.Devices {
		if v.Devices[i].Anonymous {
			n++
		}
	}
	return n
}

// Appliances is the list of boxes.
type Appliances struct {
	List             []store.Appliance
	Total, Attention int
	Tabs             []Tab
	Q                string
}

// Appliance is one box's page.
type Appliance struct {
	A       store.Appliance
	Streams []store.Stream
	Health  store.Health
	Chart   string
}

// Month is one cell of the reports' matrix.
type Month struct {
	Clinic     int32
	ClinicName string
	Month      time.Time
	URL        string
	Report     *store.Report // nil: none
	Job        string        // state of a running request; "" none
	Future     bool
}

// ReportRow is a clinic's row of the matrix.
type ReportRow struct {
	Clinic store.Name
	Months []Month
}

// Reports is the matrix.
type Reports struct {
	Months       []time.Time
	Rows         []ReportRow
	Ready, Total int
	LastMonth    time.Time
	Q            string
}

// Report is one report's page.
type Report struct {
	M         Month
	Revisions []store.Report
	Running   bool
}

func (v Report) base() string { return "/reports/" + monthKey(v.M.Month) + "/" + itoa(v.M.Clinic) }

// FrameURL is where the frozen page lies.
func (v Report) FrameURL() string { return v.base() + "/page?rev=" + itoa(v.M.Report.Revision) }

// PDFURL is where the PDF lies, to be saved or to be shown.
func (v Report) PDFURL(save bool) string {
	u := v.base() + "/pdf?rev=" + itoa(v.M.Report.Revision)
	if save {
		u += "&save=1"
	}
	return u
}

// RevURL is this page for another revision.
func (v Report) RevURL(rev int) string { return v.base() + "?rev=" + itoa(rev) }

func monthKey(t time.Time) string { return t.Format("2006-01") }

func shareText(s Shell, share float64) string {
	if share < 0 {
		return "—"
	}
	return s.Percent(share)
}

func orDash(v, none string) string {
	if strings.TrimSpace(v) == "" {
		return none
	}
	return v
}

func untilText(s Shell, t time.Time) string {
	if t.IsZero() {
		return s.NoExpiry()
	}
	return s.Date(t)
}

// causeKey takes the event's word or the name of its enum.
func causeKey(c string) string { return strings.ToLower(strings.TrimPrefix(c, "CAUSE_")) }

func deviceName(s Shell, d *store.Device) string {
	switch {
	case d.Anonymous:
		return s.GuestDevice()
	case d.Name != "":
		return hostile(d.Name)
	case d.Hostname != "":
		return hostile(d.Hostname)
	}
	return s.NoName()
}

func suspicionClass(c int) string {
	if c >= 2 {
		return "s0"
	}
	return "s1"
}

func ipText(a netip.Addr) string {
	if !a.IsValid() {
		return "—"
	}
	return a.String()
}

func versionText(v int64) string {
	if v == 0 {
		return "—"
	}
	return itoa(v)
}

func clockText(s Shell, ms *int64) string {
	if ms == nil {
		return s.NotMeasured()
	}
	return s.ClockOff(*ms)
}

func spoolText(s Shell, n *int64) string {
	if n == nil {
		return s.NotReported()
	}
	return s.N(*n)
}

func selfTestText(s Shell, a *store.Appliance) string {
	switch {
	case a.SelfTest.IsZero() && a.SelfTestBad.IsZero():
		return s.NoRecord()
	case a.SelfTestBad.After(a.SelfTest):
		return s.SelfTestBad(a.SelfTestBad, s.Now)
	}
	return s.SelfTestOK(a.SelfTest, s.Now)
}

func jobText(s Shell, job string) string {
	if job == "retryable" {
		return s.ReportFailed()
	}
	return s.ReportWaiting()
}

func requestLabel(s Shell, m Month) string {
	do := s.ReportMake()
	if m.Report != nil {
		do = s.ReportRemake()
	}
	return m.ClinicName + " " + s.Month(m.Month) + ": " + do
}
