package month

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

// Verdict is the report's overall mark.
type Verdict string

// The verdicts, worst first. Hold means that the data is not good enough for a verdict.
const (
	Act  Verdict = "act"
	Hold Verdict = "hold"
	Warn Verdict = "warn"
	OK   Verdict = "ok"
)

// Categories of the attack table in the order of the report. Policy and Other are told below the table: no attacks.
var (
	Attacks = []string{"scan", "intrusion", "bad_site", "malware", "bot"}
	Others  = []string{"policy", "other"}
)

// Thresholds of the verdict.
const (
	// HoldBelow is the uptime in tenths of a percent under which no verdict is given (domain page 4.3, data-quality rule).
	HoldBelow = 950
	// WarnBelow is the uptime in tenths of a percent under which the appliance itself is to be looked at.
	WarnBelow = 990
	// WarnSeverity is the severity (event/v1: medium) from which something that was let through is worth a look.
	WarnSeverity = 3
	// Grace is how long a report may take to arrive; so much of the newest time is not held against a running month.
	Grace = 5 * time.Minute
)

// Facts is one month of one clinic. It is stored as the report's facts and its canonical form is what the printed digest covers.
type Facts struct {
	Format     int         `json:"format"` // 1
	DocumentNo string      `json:"document_no"`
	Revision   int         `json:"revision"`
	Month      string      `json:"month"`
	Issued     string      `json:"issued"`  // RFC 3339, Japan time
	Through    string      `json:"through"` // end of what could be counted: the month's end, or the moment of the snapshot
	Running    bool        `json:"running"` // the month was not over
	Clinic     ClinicFacts `json:"clinic"`
	Sender     Sender      `json:"sender"`
	Verdict    Verdict     `json:"verdict"`
	// Reasons are keys, strongest first: infected, uptime, no-coverage, lost, passed, uptime-low.
	Reasons  []string      `json:"reasons"`
	Coverage CoverageFacts `json:"coverage"`
	Infected InfectedFacts `json:"infected"`
	Attacks  AttackFacts   `json:"attacks"`
	Trend    []TrendFacts  `json:"trend"` // twelve months, the report's own last
	Traffic  TrafficFacts  `json:"traffic"`
	Ledger   LedgerFacts   `json:"ledger"`
	Outside  OutsideFacts  `json:"outside"`
	Asks     []Ask         `json:"asks"`
	Evidence []Evidence    `json:"evidence"`
}

// ClinicFacts is whom the report is for.
type ClinicFacts struct {
	ID       int32  `json:"id"`
	Code     string `json:"code"`
	Name     string `json:"name"`
	Director string `json:"director"`
	Hours    string `json:"hours"`
}

// CoverageFacts says what could be seen.
type CoverageFacts struct {
	Known     bool   `json:"known"`  // false: no appliance reported in the month
	Since     string `json:"since"`  // when observation began, if within the month; else ""
	Uptime    Num    `json:"uptime"` // tenths of a percent, rounded down
	UptimeWas *Num   `json:"uptime_was,omitempty"`
	DownMS    Num    `json:"down_ms"`
	// UnprotectedMS is the time in which traffic was forwarded without inspection.
	UnprotectedMS Num              `json:"unprotected_ms"`
	Unprotected   []GapFacts       `json:"unprotected,omitempty"` // longest first, at most 10
	UnprotectedN  int              `json:"unprotected_n"`
	LedgerKnown   bool             `json:"ledger_known"`
	Received      Num              `json:"received"` // events of the streams that touch the month
	LostDeclared  Num              `json:"lost_declared"`
	LostSilent    Num              `json:"lost_silent"`
	Zones         []string         `json:"zones"`
	Clear         Num              `json:"clear"` // tenths of a percent of the bytes
	Name          Num              `json:"name"`
	Opaque        Num              `json:"opaque"`
	PacketsLost   Num              `json:"packets_lost"`
	Appliances    []ApplianceFacts `json:"appliances"`
	// Hours has a letter for each hour of the month: o observed, x sensor off, - outside the time that can be told of.
	Hours []string `json:"hours"`
	// Open has a letter for each hour of the month: o clinic hours, - closed; empty when the clinic's hours are not known.
	Open     []string `json:"open"`
	Holidays []int    `json:"holidays"` // days of the month
}

// ApplianceFacts is one appliance of the clinic.
type ApplianceFacts struct {
	ID               int32  `json:"id"`
	Name             string `json:"name"`
	Version          string `json:"version"`
	PolicyVersion    int64  `json:"policy_version"`
	SignatureVersion int64  `json:"signature_version"`
	Installed        bool   `json:"installed"`
}

// GapFacts is one interval without inspection.
type GapFacts struct {
	From  string `json:"from"`
	To    string `json:"to"`
	MS    int64  `json:"ms"`
	Cause string `json:"cause"`
}

// InfectedFacts is the infected part of page 2.
type InfectedFacts struct {
	Count    Num           `json:"count"`
	Was      *Num          `json:"was,omitempty"` // absent: nothing was observed in the month before
	Devices  []DeviceFacts `json:"devices"`
	Observed Num           `json:"observed"` // devices seen, guests not counted
	Rows     []FoundDevice `json:"rows"`     // bots and malware by device
	MoreRows int           `json:"more_rows"`
}

// Identity is how a device is called. Guests have neither name nor address.
type Identity struct {
	Key  string `json:"key"`  // MAC; "guest" for all guests; "" unknown
	Name string `json:"name"` // "" when none is known
	IP   string `json:"ip"`
	Zone string `json:"zone"`
}

// DeviceFacts is one device under suspicion.
type DeviceFacts struct {
	Identity
	Certainty    int16     `json:"certainty"`
	Signals      []string  `json:"signals"` // sorted
	First        string    `json:"first"`
	Last         string    `json:"last"`
	Detected     Num       `json:"detected"`
	Blocked      Num       `json:"blocked"`
	Passed       Num       `json:"passed"`
	Contacts     []Contact `json:"contacts"` // most first, at most 3
	MoreContacts int       `json:"more_contacts"`
	// CareCritical: a name that sounds like a thing care depends on; nobody is told to unplug it without a call.
	CareCritical bool `json:"care_critical"`
	// Every is the median time between contacts in minutes when they come in a regular beat, else 0.
	Every int64  `json:"every"`
	Ev    string `json:"ev"`
}

// Contact is whom a suspect device talked to.
type Contact struct {
	Peer  string `json:"peer"`
	Port  int32  `json:"port"`
	Count int64  `json:"count"`
	Kind  string `json:"kind"` // address, name
}

// FoundDevice is a line of the table by device.
type FoundDevice struct {
	Identity
	Category string `json:"category"`
	Detected Num    `json:"detected"`
	Blocked  Num    `json:"blocked"`
	Passed   Num    `json:"passed"`
	Last     string `json:"last"`
	Mark     string `json:"mark"`
}

// AttackFacts is page 3.
type AttackFacts struct {
	Rows     []CategoryFacts `json:"rows"`
	Others   []CategoryFacts `json:"others"`
	Detected Num             `json:"detected"`
	Blocked  Num             `json:"blocked"`
	Passed   Num             `json:"passed"`
	Was      *Num            `json:"was,omitempty"`
	Heat     [][24]int64     `json:"heat"` // a row a day
	Peak     *PeakFacts      `json:"peak,omitempty"`
	Peers    []Ranked        `json:"peers"`
	Targets  []Ranked        `json:"targets"`
}

// CategoryFacts is a line of the attack table.
type CategoryFacts struct {
	Category string `json:"category"`
	Detected Num    `json:"detected"`
	Blocked  Num    `json:"blocked"`
	Passed   Num    `json:"passed"`
	Was      *Num   `json:"was,omitempty"`
	Mark     string `json:"mark"` // act, warn, ok, none
}

// PeakFacts is the densest stretch of the heat map.
type PeakFacts struct {
	Day      int    `json:"day"`
	FromHour int    `json:"from_hour"`
	ToHour   int    `json:"to_hour"` // exclusive
	Category string `json:"category"`
	Count    int64  `json:"count"`
}

// Ranked is a line of a ranking.
type Ranked struct {
	Identity
	Label string `json:"label"` // an address outside; "" when Identity says it
	Count Num    `json:"count"`
}

// TrendFacts is one of twelve months.
type TrendFacts struct {
	Month    string `json:"month"`
	Known    bool   `json:"known"` // something was observed in that month
	Bot      Num    `json:"bot"`
	Malware  Num    `json:"malware"`
	Attacks  Num    `json:"attacks"`
	Infected Num    `json:"infected"`
}

// TrafficFacts is page 4.
type TrafficFacts struct {
	Total     Num          `json:"total"`
	In        Num          `json:"in"`
	Out       Num          `json:"out"`
	Was       *Num         `json:"was,omitempty"`
	OffHours  *Num         `json:"off_hours,omitempty"` // absent: the clinic's hours are not known
	Days      []DayFacts   `json:"days"`
	Shares    []ShareFacts `json:"shares"` // largest first, the rest last; tenths sum to 1000 when there is traffic
	Devices   []TopDevice  `json:"devices"`
	MoreCount int          `json:"more_devices"`
	More      Num          `json:"more"`
}

// DayFacts is one day's traffic in bytes; Before is the day four weeks earlier, -1 when nothing was observed then.
type DayFacts struct {
	In     int64 `json:"in"`
	Out    int64 `json:"out"`
	Before int64 `json:"before"`
}

// ShareFacts is one application's share. App is "" for the rest.
type ShareFacts struct {
	App    string `json:"app"`
	Guest  bool   `json:"guest"`
	Bytes  Num    `json:"bytes"`
	Tenths int64  `json:"tenths"`
	// Change is in tenths of a point against the month before; nil when that month has no traffic.
	Change *int64 `json:"change,omitempty"`
}

// TopDevice is a line of the traffic by device.
type TopDevice struct {
	Identity
	Bytes Num   `json:"bytes"`
	In    int64 `json:"in"`
	Out   int64 `json:"out"`
}

// LedgerFacts is the page about devices. Guests are not counted.
type LedgerFacts struct {
	Observed   Num `json:"observed"`   // seen in the month
	Registered Num `json:"registered"` // of these, with a name given by the clinic
	New        Num `json:"new"`        // of these, first seen in the month
	Unseen     Num `json:"unseen"`     // known, not seen for 30 days or more at the end
	Updating   Num `json:"updating"`   // of the observed, with traffic to update services
	// FirstMonth: observation began in this month, so everything is new.
	FirstMonth bool           `json:"first_month"`
	Unnamed    []LedgerDevice `json:"unnamed"`     // observed without a name from the clinic, newest first, at most 12
	NewDevices []LedgerDevice `json:"new_devices"` // at most 12; empty in the first month
	Gone       []LedgerDevice `json:"gone"`        // unseen, longest first, at most 12
}

// LedgerDevice is a line of the page about devices.
type LedgerDevice struct {
	Identity
	Hostname string `json:"hostname"`
	First    string `json:"first"`
	Last     string `json:"last"`
}

// OutsideFacts is the page about what reaches in from outside and across zones.
type OutsideFacts struct {
	Remote  []RemoteFacts `json:"remote"`  // most traffic first, at most 12
	Crossed Num           `json:"crossed"` // attempts against the zones' rules
	Stopped Num           `json:"stopped"`
	Passed  Num           `json:"passed"`
}

// RemoteFacts is remote control or a tunnel by one device.
type RemoteFacts struct {
	Identity
	App   string `json:"app"`
	Bytes Num    `json:"bytes"`
	First string `json:"first"`
	Last  string `json:"last"`
}

// Ask is a request to the clinic.
type Ask struct {
	Kind    string `json:"kind"` // infected, passed, uptime
	Mark    string `json:"mark"` // act, warn
	Subject string `json:"subject"`
	Care    bool   `json:"care"`
	Count   int64  `json:"count"`
	Due     string `json:"due"` // date; "" = today
	Minutes int    `json:"minutes"`
	Ev      string `json:"ev"`
}

// Canonical is the facts as JSON with sorted keys and no spaces: the same bytes whether they come from here or out of jsonb.
func (f *Facts) Canonical() ([]byte, error) {
	raw, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode facts: %w", err)
	}
	return Canonical(raw)
}

// Canonical brings any JSON of facts into the form that is hashed. Numbers must be whole.
func Canonical(raw []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode facts: %w", err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode facts: %w", err)
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// Digest is the SHA-256 of the canonical facts: the number on the last page.
func (f *Facts) Digest() ([32]byte, error) {
	c, err := f.Canonical()
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(c), nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(JST).Format(time.RFC3339)
}
