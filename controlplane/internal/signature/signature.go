// Package signature reads rule, address, domain and classification files and makes the message that all appliances take. The RPC
// server calls Build with what an operator sent. The trap: rule text is checked only for its form here; the appliance's engine has
// the last word and names what it refuses.
package signature

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"
)

// ErrInvalid says that a file can't be taken; it comes as Problems.
var ErrInvalid = errors.New("signature files are not valid")

// Limits of one publication.
const (
	MaxFiles   = 512
	MaxTotal   = 96 << 20 // bytes of all files
	maxLine    = 64 << 10
	maxReports = 100 // problems listed; the rest is counted
	// minBits4 and minBits6 are the widest prefixes a feed may list: anything wider is a broken feed, not a threat.
	minBits4 = 8
	minBits6 = 19
)

// File is one file as it was sent.
type File struct {
	Name    string // "x.rules", "x.addresses", "x.domains", "classification.config"
	Content []byte
	Kind    string // of addresses and domains: c2, malware, bad-site, scanner
}

// Problem is one thing wrong with a file.
type Problem struct {
	File string
	Line int // 0: the whole file
	Why  string
}

// Problems is an error that lists all that is wrong, at most 100 of it. It is ErrInvalid.
type Problems struct {
	List []Problem
	More int // not listed
}

// Error returns one problem a line.
func (p *Problems) Error() string {
	var b strings.Builder
	b.WriteString(ErrInvalid.Error() + ":")
	for _, x := range p.List {
		b.WriteString("\n  " + x.File)
		if x.Line > 0 {
			fmt.Fprintf(&b, ":%d", x.Line)
		}
		b.WriteString(": " + x.Why)
	}
	if p.More > 0 {
		fmt.Fprintf(&b, "\n  and %d more", p.More)
	}
	return b.String()
}

// Is reports that Problems is ErrInvalid.
func (p *Problems) Is(target error) bool { return target == ErrInvalid }

func (p *Problems) add(file string, line int, format string, args ...any) {
	if len(p.List) >= maxReports {
		p.More++
		return
	}
	p.List = append(p.List, Problem{file, line, fmt.Sprintf(format, args...)})
}

// Count says what a set of signatures holds.
type Count struct {
	Rules, Addresses, Domains uint64
}

// kinds by the names that files and policies use.
var kinds = map[string]signaturev1.ListKind{
	"c2": signaturev1.ListKind_LIST_KIND_C2, "malware": signaturev1.ListKind_LIST_KIND_MALWARE,
	"bad-site": signaturev1.ListKind_LIST_KIND_BAD_SITE, "scanner": signaturev1.ListKind_LIST_KIND_SCANNER,
}

// KindName is the name that files and policies use of a kind.
func KindName(k signaturev1.ListKind) string {
	for name, v := range kinds {
		if v == k {
			return name
		}
	}
	return ""
}

var stem = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Build reads the files. neverBlock are prefixes that no list may touch. Equal files give an equal message, whatever their order.
// Error: Problems, with file and line.
func Build(files []File, neverBlock []netip.Prefix) (*signaturev1.Signatures, Count, error) {
	b := builder{never: neverBlock, sids: map[uint64]string{}, out: &signaturev1.Signatures{}}
	total := 0
	for _, f := range files {
		total += len(f.Content)
	}
	switch {
	case len(files) == 0:
		b.problems.add("(nothing)", 0, "no file was sent")
	case len(files) > MaxFiles:
		b.problems.add("(all)", 0, "%d files, at most %d", len(files), MaxFiles)
	case total > MaxTotal:
		b.problems.add("(all)", 0, "%d bytes in all, at most %d", total, MaxTotal)
	default:
		files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) })
		for i, f := range files {
			if i > 0 && files[i-1].Name == f.Name {
				b.problems.add(f.Name, 0, "was sent twice")
				continue
			}
			b.file(f)
		}
	}
	if len(b.problems.List) > 0 {
		return nil, Count{}, &b.problems
	}
	return b.out, b.count, nil
}

type builder struct {
	never    []netip.Prefix
	sids     map[uint64]string // "gid:sid" packed, to "file:line"
	out      *signaturev1.Signatures
	count    Count
	problems Problems
}

func (b *builder) file(f File) {
	dot := strings.LastIndexByte(f.Name, '.')
	if dot < 0 {
		dot = len(f.Name)
	}
	name, ext := f.Name[:dot], f.Name[dot:]
	if !stem.MatchString(name) {
		b.problems.add(f.Name, 0, "name: want 1 to 63 of a-z, 0-9, dot, dash, underscore before the ending")
		return
	}
	isList := ext == ".addresses" || ext == ".domains"
	kind, known := kinds[f.Kind]
	switch {
	case isList && !known:
		b.problems.add(f.Name, 0, "list kind %q: want c2, malware, bad-site or scanner", f.Kind)
		return
	case !isList && f.Kind != "":
		b.problems.add(f.Name, 0, "list kind %q: only addresses and domains have one", f.Kind)
		return
	}
	if isList {
		for _, l := range b.out.GetAddresses() {
			if l.GetName() == name {
				b.problems.add(f.Name, 0, "another file makes the list %q as well", name)
				return
			}
		}
	}
	switch {
	case ext == ".rules":
		b.rules(f)
	case ext == ".addresses":
		b.addresses(f, name, kind)
	case ext == ".domains":
		b.domains(f, name, kind)
	case f.Name == "classification.config":
		b.classes(f)
	default:
		b.problems.add(f.Name, 0, `unknown kind of file: want "name.rules", "name.addresses", "name.domains" or "classification.config"`)
	}
}

// lines calls fn for each line without its comment and white space; empty ones are left out.
func (b *builder) lines(f File, fn func(n int, s string)) {
	n := 0
	for line := range strings.SplitSeq(string(f.Content), "\n") {
		n++
		if len(line) > maxLine {
			b.problems.add(f.Name, n, "line of %d bytes, at most %d", len(line), maxLine)
			continue
		}
		s, _, _ := strings.Cut(line, "#")
		s = strings.TrimSpace(s)
		if s != "" {
			fn(n, s)
		}
	}
}
