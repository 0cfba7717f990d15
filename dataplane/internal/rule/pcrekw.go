package rule

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/kadomori/kadomori/dataplane/internal/pcre"
)

// pcreItem is a pcre keyword.
type pcreItem struct {
	expr     *pcre.Expr
	captures []pcreCapture
}

// pcreCapture is a group that is kept as a variable.
type pcreCapture struct {
	group int
	flow  bool // of the flow; otherwise of the packet or alert
	name  string
}

func init() { add(argNeed, (*parser).pcre, "pcre") }

// pcreBuffers are the flags that choose a buffer.
var pcreBuffers = map[byte]Buffer{
	'U': BufHTTPURI, 'I': BufHTTPURIRaw, 'P': BufHTTPRequestBody, 'Q': BufHTTPResponseBody, 'H': BufHTTPHeader,
	'D': BufHTTPHeaderRaw, 'M': BufHTTPMethod, 'C': BufHTTPCookie, 'S': BufHTTPStatCode, 'Y': BufHTTPStatMsg,
	'V': BufHTTPUserAgent, 'W': BufHTTPHost, 'Z': BufHTTPHostRaw,
}

var captureName = regexp.MustCompile(`\(\?P<(flow|pkt|alert)_([A-Za-z0-9_-]+)>`)

func (p *parser) pcre(v string) error {
	s, neg, err := unquote(v)
	if err != nil {
		return err
	}
	if strings.HasPrefix(s, "m") && len(s) > 2 {
		return unsupported("delimiter other than /")
	}
	end := strings.LastIndexByte(s, '/')
	if !strings.HasPrefix(s, "/") || end < 1 {
		return errors.New("expected /expression/flags")
	}
	body, tail := s[1:end], s[end+1:]
	flagText, vars, _ := strings.Cut(tail, ",")
	it := &item{kind: itPCRE, neg: neg, pcre: &pcreItem{}}
	var (
		flags pcre.Flags
		buf   Buffer
		moved bool
	)
	for i := 0; i < len(flagText); i++ {
		switch c := flagText[i]; c {
		case 'i':
			flags |= pcre.Caseless
		case 'm':
			flags |= pcre.Multiline
		case 's':
			flags |= pcre.DotAll
		case 'x':
			flags |= pcre.Extended
		case 'A':
			flags |= pcre.Anchored
		case 'E':
			flags |= pcre.DollarEnd
		case 'G':
			flags |= pcre.Ungreedy
		case 'R':
			it.relative = true
		case 'B':
			it.raw = true
		case 'O':
			// our limits hold for all rules
		case ' ':
		default:
			b, ok := pcreBuffers[c]
			if !ok {
				return fmt.Errorf("unknown flag %q", c)
			}
			if moved && b != buf {
				return errors.New("more than one buffer among the flags")
			}
			buf, moved = b, true
		}
	}
	if it.pcre.captures, body, err = p.captures(body, vars); err != nil {
		return err
	}
	if it.pcre.expr, err = pcre.Compile(body, flags); err != nil {
		return fmt.Errorf("expression: %w", err)
	}
	for i := range it.pcre.captures {
		if n := it.pcre.captures[i].group; n > it.pcre.expr.Groups() {
			return fmt.Errorf("%d variables for %d groups", len(it.pcre.captures), it.pcre.expr.Groups())
		}
	}
	if moved && p.section != nil && buf == BufHTTPResponseBody && p.section.buf == BufFileData {
		buf = BufFileData // the body is the file
	}
	if !moved {
		p.push(it)
		return nil
	}
	if p.section != nil && p.section.buf == buf {
		p.push(it)
		return nil
	}
	if p.section != nil && p.section.buf != BufPayload {
		return fmt.Errorf("flag for %s behind the sticky buffer %s", buf, p.section.buf)
	}
	stay := p.section
	p.sectionFor(buf)
	it.at = p.at
	p.section.items = append(p.section.items, it)
	p.section = stay
	return nil
}

// captures finds the variables of an expression: groups named (?P<flow_name>…) and the list after the flags.
func (p *parser) captures(body, vars string) ([]pcreCapture, string, error) {
	var out []pcreCapture
	if vars != "" {
		for i, w := range splitArgs(vars) {
			kind, name, ok := strings.Cut(w, ":")
			name = strings.TrimSpace(name)
			if !ok || name == "" || kind != "flow" && kind != "pkt" && kind != "alert" {
				return nil, "", fmt.Errorf("variable %q: expected flow:name, pkt:name or alert:name", w)
			}
			out = append(out, pcreCapture{group: i + 1, flow: kind == "flow", name: name})
		}
		if len(out) > 8 {
			return nil, "", errors.New("more than 8 variables")
		}
		return out, body, nil
	}
	for _, loc := range captureName.FindAllStringSubmatchIndex(body, -1) {
		n := 1
		for i := 0; i < loc[0]; i++ {
			if body[i] == '\\' {
				i++
				continue
			}
			if body[i] == '(' && (i+1 >= len(body) || body[i+1] != '?' || strings.HasPrefix(body[i:], "(?P<")) {
				n++
			}
		}
		if n > 8 {
			return nil, "", errors.New("more than 8 groups before a variable")
		}
		out = append(out, pcreCapture{group: n, flow: body[loc[2]:loc[3]] == "flow", name: body[loc[4]:loc[5]]})
	}
	// '-' may stand in Suricata's names but not in a group's
	body = captureName.ReplaceAllString(body, "(")
	return out, body, nil
}
