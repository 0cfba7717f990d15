// Package page renders the console's screens from values that are already read and allowed: no query, no decision of rights
// happens here. Package web calls it. The trap: *_templ.go files are generated from the .templ files beside them; and no
// markup may carry a style attribute or a script, the content security policy forbids both.
package page

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/a-h/templ"

	"github.com/kadomori/kadomori/controlplane/web/msg"
	"github.com/kadomori/kadomori/controlplane/web/store"
)

// Shell is what every page of the console needs around its own content.
type Shell struct {
	msg.P
	Now     time.Time
	Title   string
	Path    string // of the request, for the current item of the navigation
	Query   url.Values
	Assets  Assets
	Theme   string // auto, light, dark
	Density string // dense, comfortable
	Keys    bool   // single-letter keys are on
	CSRF    string
	Who     Who
	Nav     []NavGroup
	Clinics []store.Name // all, for the scope picker
	Scope   []int32      // chosen clinics; empty means all
	Live    Live
	Help    []KeyGroup
	Notice  string // result of an action that led here
	LiveURL string // of the event stream
}

// Assets are addresses of the bundled files.
type Assets struct {
	JS, CSS, Font, Favicon string
	Icons                  string
}

// Who is signed in.
type Who struct{ Name, Display, Role string }

// Initials are at most two characters that stand for the person in small circles.
func (w Who) Initials() string {
	var out []rune
	for _, f := range strings.Fields(cmp.Or(w.Display, w.Name)) {
		r := []rune(f)[0]
		if r > unicode.MaxLatin1 {
			return string(r)
		}
		out = append(out, unicode.ToUpper(r))
	}
	if len(out) > 2 {
		out = []rune{out[0], out[len(out)-1]}
	}
	return string(out)
}

// NavGroup is a titled part of the navigation.
type NavGroup struct {
	Title string
	Items []NavItem
}

// NavItem is one entry; Badge is empty when there is nothing to say.
type NavItem struct{ URL, Icon, Label, Badge, BadgeLabel string }

// Live is the state of the badge when the page was made.
type Live struct{ State, Word, Detail string }

// KeyGroup and Key are the registry of keys: the help dialog shows it, and the client reads its bindings from that dialog.
type KeyGroup struct {
	Title string
	Keys  []Key
}

// Key binds one key, or a sequence of two with a space between, to an action of the client.
type Key struct {
	Keys  []string // as KeyboardEvent.key names them
	Do    string   // action; "go:/path" opens a screen
	Label string
	Foot  string // short word for the footer; empty: not there
}

// Display is how a key is printed.
func (k Key) Display() string {
	names := map[string]string{"ArrowRight": "→", "ArrowLeft": "←", "ArrowDown": "↓", "ArrowUp": "↑", "Escape": "Esc", "Enter": "↵", "Control+Enter": "Ctrl ↵", "Control+k": "Ctrl K"}
	var out []string
	for _, s := range k.Keys {
		out = append(out, cmp.Or(names[s], s))
	}
	return strings.Join(out, " ")
}

func (s Shell) current(item NavItem) bool {
	p := strings.SplitN(item.URL, "?", 2)[0]
	if p == "/" {
		return s.Path == "/"
	}
	return s.Path == p || strings.HasPrefix(s.Path, p+"/")
}

// With is the page's address with some parameters changed; an empty value removes one. What is not part of a filter (a row's
// focus) goes.
func (s Shell) With(pairs ...string) string {
	q := url.Values{}
	for k, v := range s.Query {
		q[k] = v
	}
	q.Del("focus")
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			q.Del(pairs[i])
		} else {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return link(s.Path, q)
}

func link(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// To is another screen's address, within the chosen clinics.
func (s Shell) To(path string, pairs ...string) string {
	q := url.Values{}
	if c := s.Query.Get("c"); c != "" && !strings.Contains(path, "/clinics/") {
		q.Set("c", c)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		} else {
			q.Del(pairs[i])
		}
	}
	return link(path, q)
}

// ScopeLabel is the text on the scope picker.
func (s Shell) ScopeLabel() string {
	switch len(s.Scope) {
	case 0:
		return s.ScopeAll(len(s.Clinics))
	case 1:
		for _, c := range s.Clinics {
			if c.ID == s.Scope[0] {
				return c.Name
			}
		}
	}
	return s.ScopeSome(len(s.Scope))
}

// ScopeShown are the clinics listed in the picker itself.
func (s Shell) ScopeShown() []store.Name { return s.Clinics[:min(len(s.Clinics), 200)] }

func (s Shell) inScope(id int32) bool { return slices.Contains(s.Scope, id) }

func itoa[T ~int | ~int32 | ~int64](n T) string { return fmt.Sprintf("%d", n) }

// raw puts markup of our own making (icons, charts) into a page.
func raw(s string) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	})
}

// maxText is how much of a text from a network is shown.
const maxText = 512

// hostile makes a text from a network fit to be shown: control and direction characters become visible, the length is capped.
// Escaping is the templates' business.
func hostile(s string) string {
	if len(s) < maxText && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxText {
			b.WriteRune('…')
			break
		}
		switch {
		case r < 0x20:
			b.WriteRune(0x2400 + r) // the control pictures
		case r == 0x7f:
			b.WriteRune('␡')
		case odd(r):
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// odd are characters that hide or reorder others.
func odd(r rune) bool {
	return unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Bidi_Control, r) || r >= 0x200b && r <= 0x200d || r == 0xfeff || r == 0x2028 || r == 0x2029
}
