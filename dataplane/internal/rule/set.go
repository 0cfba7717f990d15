package rule

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

// Rules are the rules of the set in order of judgement.
func (s *Set) Rules() []*Rule { return s.rules }
