package page

import (
	"cmp"
	"strings"

	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/web/msg"
)

func msg_iso(s Shell) string { return msg.ISO(s.Now) } //nolint:revive // reads as msg.ISO in the template

func currentAttr(on bool) templ.Attributes {
	if on {
		return templ.Attributes{"aria-current": "true"}
	}
	return nil
}

func pageAttr(on bool) templ.Attributes {
	if on {
		return templ.Attributes{"aria-current": "page"}
	}
	return nil
}

func joinKeys(keys []string) string { return strings.Join(keys, "|") }

// Each is every key of k as it is printed.
func (k Key) Each() []string {
	out := make([]string, 0, len(k.Keys))
	for _, s := range k.Keys {
		out = append(out, Key{Keys: []string{s}}.Display())
	}
	return out
}

func otherName(s Shell) string {
	if s.English() {
		return "日本語"
	}
	return "English"
}

// ListKeys are the keys of a list of rows.
func ListKeys(p msg.P, expands, news bool) KeyGroup {
	g := KeyGroup{Title: p.KeysList(), Keys: []Key{
		{Keys: []string{"j", "ArrowDown"}, Do: "next", Label: p.KeyNext(), Foot: p.KeyMove()},
		{Keys: []string{"k", "ArrowUp"}, Do: "prev", Label: p.KeyPrev()},
		{Keys: []string{"Home"}, Do: "first", Label: p.KeyFirst()},
	}}
	if expands {
		g.Keys = append(g.Keys,
			Key{Keys: []string{"o", "ArrowRight"}, Do: "expand", Label: p.KeyExpand()},
			Key{Keys: []string{"ArrowLeft"}, Do: "collapse", Label: p.KeyCollapse()})
	}
	g.Keys = append(g.Keys, Key{Keys: []string{"Enter"}, Do: "open", Label: p.KeyEnter(), Foot: p.KeyOpenPage()})
	if expands || news {
		g.Keys = append(g.Keys,
			Key{Keys: []string{"x"}, Do: "select", Label: p.KeySelectLong()},
			Key{Keys: []string{"J"}, Do: "extend-next", Label: p.KeyExtendNext()},
			Key{Keys: []string{"K"}, Do: "extend-prev", Label: p.KeyExtendPrev()})
	}
	if news {
		g.Keys = append(g.Keys, Key{Keys: []string{"u"}, Do: "new", Label: p.KeyNewLong()})
	}
	return KeyGroup{Title: g.Title, Keys: append(g.Keys,
		Key{Keys: []string{"/"}, Do: "search", Label: p.KeySearch(), Foot: p.Search()},
		Key{Keys: []string{"Escape"}, Do: "clear", Label: p.KeyClear()},
		Key{Keys: []string{"?"}, Do: "help", Label: p.KeyHelp()})}
}

// GoKeys are the two-letter keys that open a screen, for the screens that exist.
func GoKeys(p msg.P) KeyGroup {
	g := KeyGroup{Title: p.KeysGo()}
	for _, k := range [...]struct{ key, path, label string }{
		{"g h", "/", p.Overview()},
		{"g t", "/triage", p.Triage()},
		{"g c", "/cases", p.Cases()},
		{"g s", "/suppressions", p.Suppressions()},
		{"g l", "/clinics", p.Clinics()},
		{"g a", "/appliances", p.Appliances()},
		{"g e", "/enrolment", p.Enrolment()},
		{"g p", "/policy", p.Policy()},
		{"g r", "/reports", p.Reports()},
	} {
		g.Keys = append(g.Keys, Key{Keys: []string{k.key}, Do: "go:" + k.path, Label: cmp.Or(k.label, k.path)})
	}
	return g
}

// Short is the first key as it is printed; moving down stands for both ways.
func (k Key) Short() string {
	if k.Do == "next" {
		return "j k"
	}
	return Key{Keys: k.Keys[:1]}.Display()
}
