package month

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Frozen is a stored monthly report: a row of report_frozen.
type Frozen struct {
	Month      Month
	Revision   int
	DocumentNo string
	Facts      []byte // JSON
	DataSHA    []byte
	Created    time.Time
}

// Annual is a fiscal year, April to March, made of its months' latest frozen reports. It adds no number that isn't in one of
// them.
type Annual struct {
	Format     int           `json:"format"`
	DocumentNo string        `json:"document_no"`
	FiscalYear int           `json:"fiscal_year"`
	Issued     string        `json:"issued"`
	Clinic     ClinicFacts   `json:"clinic"`
	Sender     Sender        `json:"sender"`
	Months     []AnnualMonth `json:"months"` // twelve
	// Latest is the newest month with a report: what the checklist is judged by. Its digest is among the months'.
	Latest *Facts `json:"-"`
}

// AnnualMonth is a month of the year. Reported is false when no report was frozen; then the numbers mean nothing.
type AnnualMonth struct {
	Month       string  `json:"month"`
	Reported    bool    `json:"reported"`
	Running     bool    `json:"running"` // the report was made before the month was over
	Revision    int     `json:"revision"`
	DocumentNo  string  `json:"document_no"`
	DataSHA256  string  `json:"data_sha256"`
	Verdict     Verdict `json:"verdict"`
	Infected    int64   `json:"infected"`
	Detected    int64   `json:"detected"`
	Blocked     int64   `json:"blocked"`
	Passed      int64   `json:"passed"`
	Bot         int64   `json:"bot"`
	Malware     int64   `json:"malware"`
	Bytes       int64   `json:"bytes"`
	Uptime      int64   `json:"uptime"` // tenths of a percent
	Known       bool    `json:"known"`
	Lost        int64   `json:"lost"`
	Unprotected int64   `json:"unprotected_ms"`
}

// NewAnnual reads the frozen facts. A month whose facts don't give its stored digest is an error: a year's report is evidence
// and must not be built on altered rows. Facts of a later format than this program's are refused too.
func NewAnnual(clinic Clinic, sender Sender, fiscalYear int, issued time.Time, frozen []Frozen) (*Annual, error) {
	first, err := Parse(fmt.Sprintf("%04d-04", fiscalYear))
	if err != nil {
		return nil, fmt.Errorf("build year: %w", err)
	}
	// The builder's constructor cleans names; a year has no rows of its own.
	b, err := NewBuilder(Input{Month: first, Now: maxTime(issued, first.Start()), Clinic: clinic, Sender: sender})
	if err != nil {
		return nil, err
	}
	a := &Annual{
		Format: 1, FiscalYear: fiscalYear, Issued: stamp(issued), DocumentNo: fmt.Sprintf("SY-%04d-%04d", fiscalYear, clinic.ID),
		Clinic: ClinicFacts{clinic.ID, b.in.Clinic.Code, b.in.Clinic.Name, b.in.Clinic.Director, clinic.Hours}, Sender: b.in.Sender,
	}
	for i := range 12 {
		m := first.Add(i)
		line := AnnualMonth{Month: m.String()}
		var newest *Frozen
		for j := range frozen {
			if f := &frozen[j]; f.Month == m && (newest == nil || f.Revision > newest.Revision) {
				newest = f
			}
		}
		if newest != nil {
			facts, err := newest.read()
			if err != nil {
				return nil, fmt.Errorf("build year: report %s revision %d: %w", newest.DocumentNo, newest.Revision, err)
			}
			line.fill(newest, facts)
			a.Latest = facts
		}
		a.Months = append(a.Months, line)
	}
	return a, nil
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Verify tells whether the stored facts still give the stored digest.
func (f *Frozen) Verify() error {
	_, err := f.read()
	return err
}

func (f *Frozen) read() (*Facts, error) {
	canonical, err := Canonical(f.Facts)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(canonical); hex.EncodeToString(sum[:]) != hex.EncodeToString(f.DataSHA) {
		return nil, fmt.Errorf("its facts don't give its digest %x", f.DataSHA)
	}
	var facts Facts
	if err := json.Unmarshal(f.Facts, &facts); err != nil {
		return nil, fmt.Errorf("decode facts: %w", err)
	}
	if facts.Format != 1 {
		return nil, fmt.Errorf("facts have format %d, this program knows 1", facts.Format)
	}
	return &facts, nil
}

func (l *AnnualMonth) fill(f *Frozen, facts *Facts) {
	l.Reported, l.Running, l.Revision, l.DocumentNo, l.DataSHA256 = true, facts.Running, f.Revision, f.DocumentNo, hex.EncodeToString(f.DataSHA)
	l.Verdict, l.Known = facts.Verdict, facts.Coverage.Known
	l.Infected = facts.Infected.Count.N
	l.Detected, l.Blocked, l.Passed = facts.Attacks.Detected.N, facts.Attacks.Blocked.N, facts.Attacks.Passed.N
	for _, r := range facts.Attacks.Rows {
		switch r.Category {
		case "bot":
			l.Bot = r.Detected.N
		case "malware":
			l.Malware = r.Detected.N
		}
	}
	l.Bytes, l.Uptime = facts.Traffic.Total.N, facts.Coverage.Uptime.N
	l.Lost, l.Unprotected = facts.Coverage.LostDeclared.N+facts.Coverage.LostSilent.N, facts.Coverage.UnprotectedMS.N
}

// Digest is the SHA-256 of the year's canonical JSON.
func (a *Annual) Digest() ([32]byte, []byte, error) {
	raw, err := json.Marshal(a)
	if err != nil {
		return [32]byte{}, nil, fmt.Errorf("encode year: %w", err)
	}
	c, err := Canonical(raw)
	if err != nil {
		return [32]byte{}, nil, err
	}
	return sha256.Sum256(c), c, nil
}
