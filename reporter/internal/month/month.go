// Package month adds up one calendar month of one clinic, in Japan time: rows of the report_* views go in, facts come out, and
// every number keeps the ids of the rows it was made from. Package query feeds it, package page puts its facts into words. It
// does no input or output and asks no clock. The trap: facts hold whole numbers only (bytes, milliseconds, tenths of a percent),
// because their canonical JSON is hashed and must survive a trip through jsonb unchanged.
package month

import (
	"fmt"
	"time"
)

// JST is Japan time. It has had no daylight saving since 1952, so a fixed zone needs no time zone database.
var JST = time.FixedZone("JST", 9*60*60)

// Month is a calendar month in Japan time.
type Month struct {
	year  int
	month time.Month
}

// Parse reads "2026-11". Years from 2020 to 2099 are taken; anything else is an error that names the text.
func Parse(s string) (Month, error) {
	t, err := time.ParseInLocation("2006-01", s, JST)
	if err != nil || t.Year() < 2020 || t.Year() > 2099 {
		return Month{}, fmt.Errorf("parse month %q: want YYYY-MM from 2020-01 to 2099-12", s)
	}
	return Of(t), nil
}

// Of is the month that holds t.
func Of(t time.Time) Month {
	t = t.In(JST)
	return Month{t.Year(), t.Month()}
}

// String is "2026-11".
func (m Month) String() string { return fmt.Sprintf("%04d-%02d", m.year, m.month) }

// Year is the calendar year.
func (m Month) Year() int { return m.year }

// Number is 1 to 12.
func (m Month) Number() int { return int(m.month) }

// Start is the first moment of the month.
func (m Month) Start() time.Time { return time.Date(m.year, m.month, 1, 0, 0, 0, 0, JST) }

// End is the first moment after the month.
func (m Month) End() time.Time { return m.Add(1).Start() }

// Days is 28 to 31.
func (m Month) Days() int { return m.End().AddDate(0, 0, -1).Day() }

// Add is the month n months later; n may be negative.
func (m Month) Add(n int) Month { return Of(m.Start().AddDate(0, n, 0)) }

// Contains tells whether t lies in the month.
func (m Month) Contains(t time.Time) bool { return !t.Before(m.Start()) && t.Before(m.End()) }
