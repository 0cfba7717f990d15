package rule

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ParseClasses reads a classification.config: lines "config classification: short,description,priority". It returns
// the classes by lower-case short name; the error joins an *Error for every line that is wrong.
func ParseClasses(name string, r io.Reader) (map[string]Class, error) {
	out := map[string]Class{}
	var errs []error
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 64<<10)
	line := 0
	for sc.Scan() {
		line++
		s := strings.TrimSpace(sc.Text())
		if s == "" || s[0] == '#' {
			continue
		}
		rest, ok := strings.CutPrefix(s, "config classification:")
		parts := strings.Split(rest, ",")
		if !ok || len(parts) != 3 {
			errs = append(errs, &Error{File: name, Line: line, Reason: `expected "config classification: name,description,priority"`})
			continue
		}
		prio, err := strconv.ParseUint(strings.TrimSpace(parts[2]), 10, 8)
		if err != nil || prio == 0 {
			errs = append(errs, &Error{File: name, Line: line, Keyword: "priority", Reason: fmt.Sprintf("%q is not a number from 1 to 255", strings.TrimSpace(parts[2]))})
			continue
		}
		c := Class{Name: strings.TrimSpace(parts[0]), Desc: strings.TrimSpace(parts[1]), Priority: uint32(prio)}
		out[strings.ToLower(c.Name)] = c
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, &Error{File: name, Line: line + 1, Reason: "read: " + err.Error()})
	}
	return out, errors.Join(errs...)
}
