package rule

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxRule bounds a rule's text in bytes; Suricata's own limit is 8192.
const maxRule = 65536

// Error prints file:line:column, the keyword and the reason.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d", e.File, e.Line)
	if e.Column > 0 {
		fmt.Fprintf(&b, ":%d", e.Column)
	}
	b.WriteString(": ")
	if e.SID != 0 {
		fmt.Fprintf(&b, "sid %d: ", e.SID)
	}
	if e.Keyword != "" {
		fmt.Fprintf(&b, "%s: ", e.Keyword)
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Parse reads rules. name is the file's name for messages. Lines may be continued with a backslash; # starts a comment.
// It never stops at a bad rule: what is wrong or can't be honoured is in the errors, the rest in the rules. A sid and gid
// that come twice are an error of the later one unless its rev is higher: then the earlier one gives way.
func Parse(name string, r io.Reader, opt ParseOptions) ([]*Rule, []*Error) {
	var (
		rules  []*Rule
		errs   []*Error
		bySID  = map[[2]uint32]int{}
		logic  strings.Builder
		starts []mark // where physical lines begin in the logical one
	)
	br := bufio.NewReaderSize(r, 64<<10)
	line := 0
	flush := func() {
		text := logic.String()
		logic.Reset()
		at := starts
		starts = nil
		trimmed := strings.TrimSpace(text)
		if trimmed == "" {
			return
		}
		if trimmed[0] == '#' {
			if opt.Disabled != nil && looksLikeRule(strings.TrimLeft(trimmed, "# \t")) {
				*opt.Disabled++
			}
			return
		}
		p := &parser{file: name, text: text, marks: at, opt: opt}
		rule, err := p.rule()
		if err != nil {
			errs = append(errs, err)
			return
		}
		key := [2]uint32{rule.GID, rule.SID}
		if i, ok := bySID[key]; ok {
			if rules[i].Rev < rule.Rev {
				errs = append(errs, &Error{File: name, Line: rules[i].Line, SID: rule.SID, Reason: fmt.Sprintf("replaced by rev %d in line %d", rule.Rev, rule.Line)})
				rules[i] = rule
				return
			}
			errs = append(errs, &Error{File: name, Line: rule.Line, SID: rule.SID, Keyword: "sid", Reason: fmt.Sprintf("used before in line %d", rules[i].Line)})
			return
		}
		bySID[key] = len(rules)
		rules = append(rules, rule)
	}
	skipping := false
	for {
		chunk, err := br.ReadString('\n')
		if chunk != "" {
			line++
			body := strings.TrimRight(chunk, "\r\n")
			cont := strings.HasSuffix(body, "\\") && (logic.Len() > 0 || !strings.HasPrefix(strings.TrimSpace(body), "#"))
			body = strings.TrimSuffix(body, "\\")
			if !cont && strings.HasSuffix(chunk, "\\") {
				body = strings.TrimRight(chunk, "\r\n")
			}
			switch {
			case skipping:
			case logic.Len()+len(body) > maxRule:
				errs = append(errs, &Error{File: name, Line: line, Reason: fmt.Sprintf("longer than %d bytes", maxRule)})
				logic.Reset()
				starts = nil
				skipping = true
			default:
				starts = append(starts, mark{offset: logic.Len(), line: line})
				logic.WriteString(body)
			}
			if !cont {
				flush()
				skipping = false
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				errs = append(errs, &Error{File: name, Line: line + 1, Reason: "read: " + err.Error()})
			}
			break
		}
	}
	if logic.Len() > 0 {
		flush()
	}
	return rules, errs
}

// mark says that the logical line continues with a physical line at offset.
type mark struct{ offset, line int }

// looksLikeRule tells a rule that was commented out from prose.
func looksLikeRule(s string) bool {
	word, rest, ok := strings.Cut(s, " ")
	if !ok {
		return false
	}
	if _, known := actions[word]; !known {
		return false
	}
	return strings.Contains(rest, "(") && strings.Contains(rest, "sid:")
}

var actions = map[string]Action{
	"alert": Alert, "pass": Pass, "drop": Drop, "reject": Reject, "rejectsrc": Reject, "rejectdst": RejectDst, "rejectboth": RejectBoth,
}

// parser reads one rule.
type parser struct {
	file  string
	text  string
	marks []mark
	opt   ParseOptions
	r     *Rule

	// state of the options
	section  *section // where content goes
	sticky   bool     // a sticky buffer was named
	lastSec  *section // where the last item went
	last     *item    // what modifiers change
	trans    []transform
	sawSID   bool
	priority uint32
	setPrio  bool
	keyword  string
	at       int // offset of the keyword in text
}

// unsupported is the reason of a rule that is right but can't be honoured.
type unsupported string

func (u unsupported) Error() string { return string(u) }

func (p *parser) fail(offset int, keyword string, err error) *Error {
	e := &Error{File: p.file, Keyword: keyword, Reason: err.Error()}
	if p.r != nil {
		e.SID = p.r.SID
	}
	if e.SID == 0 {
		e.SID = findSID(p.text)
	}
	var u unsupported
	e.Unsupported = errors.As(err, &u)
	e.Line, e.Column = p.place(offset)
	return e
}

// place turns an offset in the logical line into line and column.
func (p *parser) place(offset int) (line, column int) {
	m := mark{line: 1}
	for _, x := range p.marks {
		if x.offset > offset {
			break
		}
		m = x
	}
	return m.line, offset - m.offset + 1
}

// findSID looks for the sid of a rule that could not be read.
func findSID(text string) uint32 {
	i := strings.LastIndex(text, "sid:")
	if i < 0 {
		return 0
	}
	var n uint64
	for _, c := range strings.TrimLeft(text[i+4:], " ") {
		if c < '0' || c > '9' || n > 1<<32 {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n)
}

func (p *parser) rule() (*Rule, *Error) {
	open, err := p.headerEnd()
	if err != nil {
		return nil, err
	}
	p.r = &Rule{GID: 1, Priority: 3, File: p.file, Text: strings.TrimSpace(p.text)}
	p.r.Line, _ = p.place(strings.IndexFunc(p.text, func(c rune) bool { return c != ' ' && c != '\t' }))
	if e := p.header(open); e != nil {
		return nil, e
	}
	end := strings.LastIndexByte(p.text, ')')
	if end < open || strings.TrimSpace(p.text[end+1:]) != "" && !strings.HasPrefix(strings.TrimSpace(p.text[end+1:]), "#") {
		return nil, p.fail(max(end, open), "", errors.New("the options don't end with )"))
	}
	p.section = nil
	i := open + 1
	for {
		for i < end && (p.text[i] == ' ' || p.text[i] == '\t') {
			i++
		}
		if i >= end {
			break
		}
		next, e := p.option(i, end)
		if e != nil {
			return nil, e
		}
		i = next
	}
	if e := p.finish(); e != nil {
		return nil, e
	}
	return p.r, nil
}

// headerEnd finds the parenthesis that opens the options.
func (p *parser) headerEnd() (int, *Error) {
	i := strings.IndexByte(p.text, '(')
	if i < 0 {
		return 0, p.fail(max(len(p.text)-1, 0), "", errors.New("no options: expected ( after the header"))
	}
	return i, nil
}

// option reads one "name;" or "name: value;" that begins at i and returns where the next begins.
func (p *parser) option(i, end int) (int, *Error) {
	j := i
	for j < end && p.text[j] != ':' && p.text[j] != ';' {
		j++
	}
	name := strings.TrimSpace(p.text[i:j])
	p.keyword, p.at = name, i
	if j >= end {
		return 0, p.fail(i, name, errors.New("not closed with ;"))
	}
	value, has := "", false
	valueAt := j
	if p.text[j] == ':' {
		has = true
		valueAt = j + 1
		k := j + 1
		for k < end {
			if p.text[k] == '\\' && k+1 < end {
				k += 2
				continue
			}
			if p.text[k] == ';' {
				break
			}
			k++
		}
		if k >= end {
			return 0, p.fail(i, name, errors.New("not closed with ;"))
		}
		value = strings.TrimSpace(p.text[valueAt:k])
		valueAt += len(p.text[valueAt:k]) - len(strings.TrimLeft(p.text[valueAt:k], " \t"))
		j = k
	}
	kw, ok := keywords[name]
	if !ok {
		kw, ok = keywords[strings.ToLower(name)]
	}
	if !ok {
		return 0, p.fail(i, name, unsupported("unknown keyword"))
	}
	switch {
	case kw.arg == argNone && has && value != "":
		return 0, p.fail(valueAt, name, errors.New("takes no value"))
	case kw.arg == argNeed && (!has || value == ""):
		return 0, p.fail(i, name, errors.New("needs a value"))
	}
	if kw.refuse != "" {
		return 0, p.fail(i, name, unsupported(kw.refuse))
	}
	if err := kw.read(p, value); err != nil {
		return 0, p.fail(valueAt, name, err)
	}
	return j + 1, nil
}

// finish checks what only the whole rule shows.
func (p *parser) finish() *Error {
	r := p.r
	if !p.sawSID {
		return p.fail(0, "sid", errors.New("missing"))
	}
	if len(p.trans) > 0 {
		return p.fail(p.at, p.trans[0].name, errors.New("transform without a content or other keyword after it"))
	}
	if p.opt.Classes != nil && r.Classtype != "" {
		if c, ok := p.opt.Classes[strings.ToLower(r.Classtype)]; ok {
			r.ClassDesc = c.Desc
			r.Priority = c.Priority
		}
	}
	if p.setPrio {
		r.Priority = p.priority
	}
	r.Priority = cmp.Or(r.Priority, 3)
	// a content that an old-style modifier moved away leaves an empty section
	r.sections = slices.DeleteFunc(r.sections, func(s *section) bool { return s.buf == BufPayload && len(s.items) == 0 })
	for _, s := range r.sections {
		if err := s.check(); err != nil {
			return p.fail(s.at, s.buf.String(), err)
		}
	}
	if err := r.checkWhole(); err != nil {
		return p.fail(0, "", err)
	}
	return nil
}

// argument says whether a keyword takes a value.
type argument uint8

const (
	argNone argument = iota
	argMay
	argNeed
)

// keyword is an entry of the language.
type keyword struct {
	arg    argument
	read   func(p *parser, value string) error
	refuse string // why it can't be honoured
}

var keywords = map[string]keyword{}

// add puts a keyword into the language under all its names.
func add(arg argument, read func(p *parser, value string) error, names ...string) {
	for _, n := range names {
		if _, dup := keywords[n]; dup {
			panic("keyword twice: " + n) // a mistake of this package, seen by any test
		}
		keywords[n] = keyword{arg: arg, read: read}
	}
}

// refuse names a keyword of the language that this engine can't honour.
func refuse(reason string, names ...string) {
	for _, n := range names {
		keywords[n] = keyword{arg: argMay, refuse: reason}
	}
}
