// Package data holds what is not code: wording, application names, holidays, checklists, the page template and its style.
// Packages wording, checklist and render read it; a person who can't read Go may edit it. The trap: files are read strictly, so
// an unknown or a missing key is an error at start.
package data

import "embed"

// Files is the whole of it.
//
//go:embed wording template checklist
var Files embed.FS
