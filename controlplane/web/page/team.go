package page

import (
	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/web/store"
)

// Team lists the operators.
type Team struct {
	List          []store.Member
	Problem       string
	For, Password string // a new one, shown once
}

func teamURL(name, act string) templ.SafeURL {
	return templ.SafeURL("/settings/team/" + name + "/" + act)
}

func onOff(disabled bool) string {
	if disabled {
		return "enable"
	}
	return "disable"
}
