package month

import (
	"fmt"
	"net/netip"
	"time"
)

// MAC is a device's hardware address; all zero means that no device is known.
type MAC [6]byte

// String is the usual form with colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Group tells whether the address is a group's (multicast, broadcast): no device.
func (m MAC) Group() bool { return m[0]&1 != 0 }

// Known tells whether a device is named at all.
func (m MAC) Known() bool { return m != MAC{} }

// EventID is an event's name everywhere: appliance, stream, sequence number.
type EventID struct {
	Appliance int32
	Stream    [16]byte
	Seq       int64
}

// Clinic is a row of report_clinic.
type Clinic struct {
	ID                                int32
	Code, Name, Kana, Director, Hours string
}

// Sender is who signs the report, from report_setting (msp.*). Empty fields get the wording's stand-ins.
type Sender struct {
	Name  string `json:"name"`
	Desk  string `json:"desk"`
	Phone string `json:"phone"`
	Hours string `json:"hours"`
}

// Directions of a finding; the numbers are those of event/v1.
const (
	Outbound int16 = 1
	Inbound  int16 = 2
	Internal int16 = 3
)

// Finding is a row of report_finding. Count is at least 1.
type Finding struct {
	ID                                                  EventID
	T                                                   time.Time
	Kind, Category, Action, Rule, Title, Indicator, App string
	Severity                                            int16
	Count                                               int64
	Direction                                           int16
	Src, Dst                                            netip.Addr // zero when unknown
	DstPort                                             int32
	MAC                                                 MAC
	IP                                                  netip.Addr
	Zone                                                string
}

// Infected is a row of report_infected: one statement that a device is under suspicion.
type Infected struct {
	ID        EventID
	T         time.Time
	Certainty int16 // 1 one signal, 2 two or more independent ones, 3 a fact on the wire
	MAC       MAC
	IP        netip.Addr
	Zone      string
	Indicator string
	Signals   []string
}

// Device is a row of report_device.
type Device struct {
	MAC            MAC
	IP             netip.Addr
	Zone           string
	Hostname, Name string
	Anonymous      bool
	First, Last    time.Time
}

// Appliance is a row of report_appliance, with the first hour for which it ever reported (zero: never).
type Appliance struct {
	ID                              int32
	Name, State, Version            string
	PolicyVersion, SignatureVersion int64
	Created                         time.Time
	FirstHour                       time.Time
}

// Coverage is a row of report_coverage.
type Coverage struct {
	Appliance                          int32
	Hour                               time.Time
	ReportedMS, UnprotectedMS          int64
	PacketsSeen, PacketsLost           int64
	BytesClear, BytesName, BytesOpaque int64
}

// Ledger is a row of report_ledger.
type Ledger struct {
	Appliance                              int32
	Stream                                 [16]byte
	First, Last                            time.Time
	Received, LostDeclared, LostUndeclared int64
}

// Unprotected is a row of report_unprotected.
type Unprotected struct {
	ID       EventID
	From, To time.Time
	Cause    string
}

// TrafficHour is the sum of report_traffic over one hour.
type TrafficHour struct {
	Hour          time.Time
	In, Out, Rows int64
}

// TrafficApp is the sum of report_traffic over a month by application, guests apart.
type TrafficApp struct {
	App           string
	Guest         bool
	In, Out, Rows int64
}

// TrafficDevice is the sum of report_traffic over the month by device.
type TrafficDevice struct {
	MAC           MAC
	Zone          string
	In, Out, Rows int64
}

// TrafficZone is the sum of report_traffic over the month by zone.
type TrafficZone struct {
	Zone          string
	In, Out, Rows int64
}

// TrafficUse is the sum of report_traffic over the month by device for the applications that have a use.
type TrafficUse struct {
	App           string
	MAC           MAC
	Zone          string
	In, Out, Rows int64
	First, Last   time.Time // hours
}

// PastFindings is the sum of report_finding over one earlier month.
type PastFindings struct {
	Month            Month
	Category, Action string
	Count, Rows      int64
}

// PastMonth tells what else is known of an earlier month.
type PastMonth struct {
	Month      Month
	ReportedMS int64 // of all appliances; 0 means that nothing was observed
	Infected   int64 // devices
}

// Input is everything of the month but its findings, which are streamed. All of it is small: at most an hour or a device a row.
type Input struct {
	Month Month
	// Now is the moment of the snapshot; it decides what "so far" means in a month that is still running.
	Now time.Time
	// Issued is the date printed on the report; zero means Now.
	Issued time.Time
	// Revision is 1 for the month's first report.
	Revision    int
	Clinic      Clinic
	Sender      Sender
	Appliances  []Appliance
	Coverage    []Coverage
	Ledger      []Ledger
	Unprotected []Unprotected
	Devices     []Device
	Infected    []Infected
	// Hours covers the month and the 28 days before it.
	Hours         []TrafficHour
	Apps, AppsWas []TrafficApp
	TopDevices    []TrafficDevice
	Zones         []TrafficZone
	Uses          []TrafficUse
	Past          []PastMonth
	PastFindings  []PastFindings
	// Holidays are dates as "2026-11-03"; CareWords are lower-case parts of names of things care depends on.
	Holidays, CareWords []string
	// RemoteApps and UpdateApps are names of the appliance's vocabulary; Uses holds rows of these only.
	RemoteApps, UpdateApps []string
}
