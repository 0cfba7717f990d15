package event

import (
	"strings"
	"unicode/utf8"
)

// maxText bounds a string from the wire, in bytes: a DNS name has at most 253, a DHCP host name 255.
const maxText = 1024

// text makes a string from the wire fit for a message: valid UTF-8 (protobuf refuses the rest), bounded, and its own copy,
// because what the engine hands over may lie in a buffer that is used again.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
		for len(s) > 0 && !utf8.ValidString(s[len(s)-min(len(s), utf8.UTFMax):]) && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
	}
	if !utf8.ValidString(s) {
		return strings.ToValidUTF8(s, "�")
	}
	return strings.Clone(s)
}
