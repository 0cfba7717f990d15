package rule

import "io"

// Set is a compiled, read-only set of rules, shared by all workers.
type Set struct {
	rules  []*Rule
	shared *Shared
}

// Stats say what a Set is made of.
type Stats struct {
	Rules     int
	Databases int
	Bytes     int // of the databases
	Cached    int // databases that came from the cache
}

// Parse reads rules. name is the file's name for messages. Lines may be continued with a backslash; # starts a comment.
// It never stops at a bad rule: what is wrong or can't be honoured is in the errors, the rest in the rules.
func Parse(name string, r io.Reader, opt ParseOptions) ([]*Rule, []*Error) {
	return parse(name, r, opt)
}

// Rules are the rules of the set in order of judgement.
func (s *Set) Rules() []*Rule { return s.rules }
