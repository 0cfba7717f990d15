// Package label makes strings from outside fit to be printed: names that a device announced, a clinic typed or an attacker
// chose. Package month calls it once for each string it keeps. The trap: it cleans, it does not escape; html/template and the
// chart writer do that.
package label

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Longest names that the pages are laid out for, in characters.
const (
	DeviceMax = 24
	ClinicMax = 30
	TextMax   = 60
)

// Clean returns s in NFC without control, format (bidi) and unassigned characters, with runs of white space as one space and
// never more than two combining marks on one character, cut at limit characters with an ellipsis as the last one.
func Clean(s string, limit int) string {
	var b strings.Builder
	// Four bytes a character and a few marks: what lies behind can't be printed anyway.
	if len(s) > 64*limit {
		s = s[:64*limit]
	}
	space, marks := false, 0
	for _, r := range norm.NFC.String(strings.ToValidUTF8(s, "")) {
		switch {
		case unicode.IsSpace(r):
			space = b.Len() > 0
			continue
		case !unicode.IsGraphic(r), unicode.Is(unicode.Co, r):
			continue
		case unicode.Is(unicode.M, r):
			if marks++; marks > 2 {
				continue
			}
		default:
			marks = 0
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	out := []rune(b.String())
	if len(out) > limit {
		out = append(out[:limit-1], '…')
	}
	return string(out)
}

// A maker's default host name holds its owner's name: 「花子のiPhone」, "Hanako-no-iPhone", "Hanakos-MBP".
var personal = regexp.MustCompile(`(?i)(?:の|-no-|s-|'s |’s )((?:iphone|ipad|ipod|macbook|mbp|imac|galaxy|pixel|android|apple-watch)[\w-]*)$`)

// Hostname cleans an announced name and keeps only the kind of device when the name holds a person's.
func Hostname(s string) string {
	s = Clean(s, DeviceMax)
	if m := personal.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return s
}
