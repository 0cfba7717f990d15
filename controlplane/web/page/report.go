package page

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// rendererText turns what the reporter noted of its programs (a JSON object, name to version) into words in a fixed order:
// "fonttools 4.38.0, pango 15012". Anything else is shown as it is.
func rendererText(s string) string {
	var versions map[string]string
	if err := json.Unmarshal([]byte(s), &versions); err != nil || len(versions) == 0 {
		return s
	}
	parts := make([]string, 0, len(versions))
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		parts = append(parts, name+" "+versions[name])
	}
	return strings.Join(parts, ", ")
}
