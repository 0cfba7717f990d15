package rule

type txSide struct {
	open, scanned   []uint32
	started, closed bool
}
type (
	thresholdTable struct{}
	bitTable       struct{}
	datasetTable   struct{}
)

func (*thresholdTable) init(int) {}
func (*bitTable) init(int)       {}
func (*datasetTable) init()      {}

// Compile builds a Set. An error means that nothing could be built; rules it can't honour are in Set.Refused.
func Compile(rules []*Rule, _ CompileOptions) (*Set, error) {
	if rules == nil {
		return &Set{}, nil
	}
	return &Set{rules: rules}, nil
}

// Matcher matches for one worker.
type Matcher struct{ set *Set }

// NewMatcher makes a matcher with its own scratch memory.
func (s *Set) NewMatcher() *Matcher { return &Matcher{set: s} }

// Inspect judges one packet. It allocates nothing.
func (m *Matcher) Inspect(*Input) Result { return Result{} }

// Close frees what lies outside Go's memory.
func (m *Matcher) Close() {}

// Refused are the rules that Compile could not honour (a variable that is not defined, a pattern the library refuses).
func (s *Set) Refused() []*Error { return nil }

// Stats tell what the set is made of.
func (s *Set) Stats() Stats { return Stats{} }

// Close frees the databases once all Matchers of the set are closed too.
func (s *Set) Close() {}
