package page

import (
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// ClinicApp is the clinic's own page.
type ClinicApp struct {
	msg.P
	Now             time.Time
	From            time.Time // of the month
	Name            string
	Phone           string // of the MSP
	CSS, Favicon    string
	Icons           string
	CSRF            string
	Notice, Problem string
	Director        bool
	M               store.Month
	Cards           []store.Card
	Report          *store.Report
	Signed          store.Signature
	Old             []store.Report
}

// Mark is the month's: what the last report says of the running month, made worse by what is known since. A month without
// records, or with too few, is on hold and never good (domain page 4.3, data-quality rule).
func (v ClinicApp) Mark() string {
	switch {
	case v.M.Share() < 0.95:
		return "hold"
	case v.Report != nil && v.Report.Verdict == "act" && !v.Report.Month.Before(v.From):
		return "act"
	case len(v.Cards) > 0 || v.M.Infected > 0 || v.M.Connected < v.M.Boxes:
		return "warn"
	}
	return "ok"
}

// telURL keeps the digits of a number.
func telURL(phone string) templ.SafeURL {
	return templ.SafeURL("tel:" + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '+' {
			return r
		}
		return -1
	}, phone))
}

func cardURL(id int64) templ.SafeURL { return templ.SafeURL("/c/cards/" + itoa(id)) }

func signURL(month time.Time) templ.SafeURL {
	return templ.SafeURL("/c/reports/" + monthKey(month) + "/sign")
}

func clinicURL(id int32, act string) templ.SafeURL {
	return templ.SafeURL("/clinics/" + itoa(id) + "/" + act)
}

func cardKind(answer string) string {
	switch answer {
	case "done":
		return "ok"
	case "call":
		return "bad"
	case "":
		return "warn"
	}
	return "idle"
}
