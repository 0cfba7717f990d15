// Package appid names the application of a flow from what is known of it: host name, parsed protocol, port. The engine calls
// it when a flow's protocol or server name becomes known, and once more when the flow is seen enough. The trap: "unknown" is
// an answer of its own and never another name's default.
package appid

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

//go:embed application.tsv
var builtin string

// ID numbers an application; 0 is Unknown.
type ID uint16

// Unknown is the application of a flow that nothing names.
const Unknown ID = 0

// Application is one entry of the vocabulary.
type Application struct {
	Name     string // stable key: "line", "orca"
	Japanese string // for people
	Category string
}

// Visibility is how much of a flow could be inspected.
type Visibility uint8

// The visibilities.
const (
	Opaque   Visibility = iota // neither content nor name
	NameOnly                   // encrypted, but the server's name was seen
	Clear                      // content was parsed
	VisibilityCount
)

// String gives the word of events.
func (v Visibility) String() string {
	switch v {
	case Clear:
		return "clear"
	case NameOnly:
		return "name"
	default:
		return "opaque"
	}
}

// Vocabulary is the set of applications. It is read-only.
type Vocabulary struct {
	apps  []Application
	hosts map[string]ID
	proto [64]ID
	tcp   map[uint16]ID
	udp   map[uint16]ID
	ip    [256]ID
	// ARP is the application of address resolution.
	ARP ID
}

// Builtin is the vocabulary that comes with the program.
func Builtin() *Vocabulary {
	v, err := Parse(builtin)
	if err != nil {
		panic(err) // the file is part of the program; a test parses it
	}
	return v
}

// Parse reads a vocabulary; see application.tsv for the form. Errors name the line.
func Parse(text string) (*Vocabulary, error) {
	v := &Vocabulary{
		apps: []Application{{Name: "unknown", Japanese: "不明", Category: "unknown"}}, hosts: map[string]ID{},
		tcp: map[uint16]ID{}, udp: map[uint16]ID{},
	}
	names := map[string]bool{"unknown": true}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("read applications: line %d: %d fields, want 4", i+1, len(f))
		}
		if names[f[0]] {
			return nil, fmt.Errorf("read applications: line %d: %s is there twice", i+1, f[0])
		}
		names[f[0]] = true
		id := ID(len(v.apps))
		v.apps = append(v.apps, Application{Name: f[0], Japanese: f[1], Category: f[2]})
		for _, how := range strings.Fields(f[3]) {
			if err := v.add(id, how); err != nil {
				return nil, fmt.Errorf("read applications: line %d: %w", i+1, err)
			}
		}
	}
	return v, nil
}

func (v *Vocabulary) add(id ID, how string) error {
	kind, value, _ := strings.Cut(how, ":")
	switch kind {
	case "host":
		if value == "" || value != strings.ToLower(value) {
			return fmt.Errorf("host %q must be lower case", value)
		}
		if _, dup := v.hosts[value]; !dup {
			v.hosts[value] = id
		}
	case "proto":
		found := false
		for a := rule.App(0); int(a) < len(v.proto); a++ {
			if a.String() == value && value != "" {
				v.proto[a] = id
				found = true
			}
		}
		if !found {
			return fmt.Errorf("protocol %q is not known", value)
		}
	case "tcp", "udp":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return fmt.Errorf("port %q is no number", value)
		}
		m := v.tcp
		if kind == "udp" {
			m = v.udp
		}
		if _, dup := m[uint16(n)]; !dup {
			m[uint16(n)] = id
		}
	case "icmp":
		v.ip[1], v.ip[58] = id, id
	case "igmp":
		v.ip[2] = id
	case "arp":
		v.ARP = id
	default:
		return fmt.Errorf("%q is not host:, proto:, tcp:, udp:, icmp, igmp or arp", how)
	}
	return nil
}

// Get gives the application of an ID.
func (v *Vocabulary) Get(id ID) Application {
	if int(id) >= len(v.apps) {
		return v.apps[0]
	}
	return v.apps[id]
}

// Name gives its key.
func (v *Vocabulary) Name(id ID) string { return v.Get(id).Name }

// Host names the application of a server name, lower case; Unknown when none.
func (v *Vocabulary) Host(name []byte) ID {
	for len(name) > 0 {
		if id, ok := v.hosts[string(name)]; ok {
			return id
		}
		dot := -1
		for i, c := range name {
			if c == '.' {
				dot = i
				break
			}
		}
		if dot < 0 {
			return Unknown
		}
		name = name[dot+1:]
	}
	return Unknown
}

// Known is what the engine knows of a flow.
type Known struct {
	Host       []byte // lower case, empty unknown
	App        rule.App
	Proto      uint8 // IANA
	ServerPort uint16
	ClientPort uint16
}

// Identify names a flow: by host, by parsed protocol, by port.
func (v *Vocabulary) Identify(k *Known) ID {
	if id := v.Host(k.Host); id != Unknown {
		return id
	}
	if int(k.App) < len(v.proto) {
		if id := v.proto[k.App]; id != Unknown {
			return id
		}
	}
	return v.Port(k.Proto, k.ServerPort)
}

// Port names a flow by its server's port alone.
func (v *Vocabulary) Port(proto uint8, port uint16) ID {
	switch proto {
	case 6:
		return v.tcp[port]
	case 17:
		return v.udp[port]
	}
	return v.ip[proto]
}
