package signature

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"
)

// actions of Suricata rules (Suricata user guide, "Rules Format").
var actions = []string{"alert", "pass", "drop", "reject", "rejectsrc", "rejectdst", "rejectboth"}

// rules checks the form of each rule: action, header of seven words, balanced parentheses, one unique sid. The text goes on as it is.
func (b *builder) rules(f File) {
	if !utf8.Valid(f.Content) {
		b.problems.add(f.Name, 0, "is not UTF-8")
		return
	}
	text := strings.ReplaceAll(string(f.Content), "\r\n", "\n")
	n, start := 0, 0
	var open strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		n++
		if open.Len() == 0 {
			start = n
			if s := strings.TrimSpace(line); s == "" || s[0] == '#' {
				continue
			}
		}
		if open.Len()+len(line) > maxLine {
			b.problems.add(f.Name, start, "rule of more than %d bytes", maxLine)
			open.Reset()
			continue
		}
		if part, more := strings.CutSuffix(strings.TrimRight(line, " \t"), `\`); more {
			open.WriteString(part)
			continue
		}
		open.WriteString(line)
		b.rule(f.Name, start, strings.TrimSpace(open.String()))
		open.Reset()
	}
	if open.Len() > 0 {
		b.problems.add(f.Name, start, "the file ends within a rule that a backslash continues")
	}
	b.out.Rules = append(b.out.Rules, &signaturev1.RuleFile{Name: f.Name, Text: text})
}

func (b *builder) rule(file string, line int, s string) {
	head, body, ok := strings.Cut(s, "(")
	if !ok {
		b.problems.add(file, line, `no "(" begins the options`)
		return
	}
	word := headerWords(head)
	if len(word) != 7 {
		b.problems.add(file, line, "header has %d parts, want 7: action protocol source port direction destination port", len(word))
		return
	}
	if !slices.Contains(actions, word[0]) {
		b.problems.add(file, line, "action %q, want one of %s", clip(word[0]), strings.Join(actions, ", "))
		return
	}
	if word[4] != "->" && word[4] != "<>" {
		b.problems.add(file, line, "direction %q, want -> or <>", clip(word[4]))
		return
	}
	body, ok = strings.CutSuffix(strings.TrimSpace(body), ")")
	if !ok {
		b.problems.add(file, line, `no ")" ends the options`)
		return
	}
	options, why := splitOptions(body)
	if why != "" {
		b.problems.add(file, line, "%s", why)
		return
	}
	var sid, gid uint64 = 0, 1
	for _, o := range options {
		key, val, _ := strings.Cut(o, ":")
		val = strings.TrimSpace(val)
		var err error
		switch strings.TrimSpace(key) {
		case "sid":
			if sid != 0 {
				b.problems.add(file, line, "sid stands twice")
				return
			}
			if sid, err = strconv.ParseUint(val, 10, 32); err != nil || sid == 0 {
				b.problems.add(file, line, "sid %q, want 1 to 4294967295", clip(val))
				return
			}
		case "gid":
			if gid, err = strconv.ParseUint(val, 10, 32); err != nil {
				b.problems.add(file, line, "gid %q is no number", clip(val))
				return
			}
		}
	}
	if sid == 0 {
		b.problems.add(file, line, "no sid")
		return
	}
	key := gid<<32 | sid
	if first, ok := b.sids[key]; ok {
		b.problems.add(file, line, "sid %d is that of %s as well", sid, first)
		return
	}
	b.sids[key] = file + ":" + strconv.Itoa(line)
	b.count.Rules++
}

// headerWords splits at white space outside brackets: "[80, 443]" is one word.
func headerWords(s string) []string {
	var out []string
	depth, from := 0, -1
	for i := range len(s) {
		c := s[i]
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		}
		if blank := c == ' ' || c == '\t'; blank && depth <= 0 {
			if from >= 0 {
				out = append(out, s[from:i])
			}
			from = -1
		} else if from < 0 {
			from = i
		}
	}
	if from >= 0 {
		out = append(out, s[from:])
	}
	return out
}

// splitOptions splits at semicolons outside quotes; a backslash takes the meaning from the next byte. It wants the last one closed
// and parentheses outside quotes balanced.
func splitOptions(s string) (out []string, why string) {
	quoted, from, depth := false, 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '(':
			if !quoted {
				depth++
			}
		case ')':
			if !quoted {
				depth--
			}
			if depth < 0 {
				return nil, `")" without "("`
			}
		case ';':
			if !quoted {
				out = append(out, s[from:i])
				from = i + 1
			}
		}
	}
	switch {
	case quoted:
		return nil, "a quote is not closed"
	case depth != 0:
		return nil, `"(" without ")"`
	case strings.TrimSpace(s[from:]) != "":
		return nil, "the last option does not end with a semicolon"
	}
	return out, ""
}

// classes reads "config classification: name,description,priority".
func (b *builder) classes(f File) {
	seen := map[string]bool{}
	b.lines(f, func(n int, s string) {
		rest, ok := strings.CutPrefix(s, "config classification:")
		part := strings.Split(rest, ",")
		if !ok || len(part) != 3 {
			b.problems.add(f.Name, n, `want "config classification: name,description,priority"`)
			return
		}
		name := strings.TrimSpace(part[0])
		prio, err := strconv.ParseUint(strings.TrimSpace(part[2]), 10, 8)
		switch {
		case err != nil || prio < 1:
			b.problems.add(f.Name, n, "priority %q, want 1 to 255", clip(part[2]))
		case name == "" || !utf8.ValidString(s):
			b.problems.add(f.Name, n, "name %q is not valid", clip(name))
		case seen[name]:
			b.problems.add(f.Name, n, "class %q stands twice", name)
		default:
			seen[name] = true
			b.out.Classes = append(b.out.Classes, &signaturev1.Class{Name: name, Description: strings.TrimSpace(part[1]), Priority: uint32(prio)})
		}
	})
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
