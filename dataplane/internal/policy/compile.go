package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"

	policyv1 "github.com/kadomori/kadomori/proto/gen/kadomori/policy/v1"
	signaturev1 "github.com/kadomori/kadomori/proto/gen/kadomori/signature/v1"

	"github.com/kadomori/kadomori/dataplane/internal/engine"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Compiled is what engine and wire need, made from a policy and the signatures.
type Compiled struct {
	Policy     *policyv1.Policy
	Signatures *signaturev1.Signatures
	// Engine and Rules go to the engine. Rules always holds the self-test's rule.
	Engine *engine.Policy
	Rules  *rule.Set
	// BlockSets are the lists whose addresses the wire stops; NeverBlock wins over them.
	BlockSets  []BlockSet
	NeverBlock []netip.Prefix
	// Refused are rules that this engine can't honour, each with file, line and reason; the others work.
	Refused []error
	Loaded  int
}

// SelfTestSID and SelfTestRule are the rule of the synthetic detection: a datagram between two addresses that no network has
// (TEST-NET-1, RFC 5737) to the discard port. It is in every compiled set, so that a test shows that this very set matches.
const (
	SelfTestSID     = 2199000001
	SelfTestContent = "kadomori-self-test"
	SelfTestRule    = `alert udp 192.0.2.1 any -> 192.0.2.2 9 (msg:"KADOMORI self-test"; content:"` + SelfTestContent + `"; classtype:not-suspicious; sid:2199000001; rev:1;)`
)

// BlockSet is a list for the wire.
type BlockSet struct {
	ID       uint32
	Name     string
	Prefixes []netip.Prefix
}

// Options of Compile.
type Options struct {
	// Inline says that a drop rule can stop packets.
	Inline bool
	// CacheDir keeps compiled pattern databases; "" keeps none.
	CacheDir string
	// Shared is the rules' state that outlives a set.
	Shared *rule.Shared
}

// Compile makes what the engine and the wire need. An error names the field that is wrong; nothing is half-applied. Rules
// that can't be honoured are no error: they are named in Refused.
func Compile(pol *policyv1.Policy, sig *signaturev1.Signatures, opt Options) (*Compiled, error) {
	c := &Compiled{Policy: pol, Signatures: sig}
	var err error
	if c.Engine, err = engine.CompilePolicy(pol, sig); err != nil {
		return nil, err
	}
	for i, s := range pol.GetNeverBlock() {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("compile policy: never_block[%d] %q: %w", i, s, err)
		}
		c.NeverBlock = append(c.NeverBlock, p)
	}
	for _, l := range c.Engine.AddressLists() {
		if l.Block {
			c.BlockSets = append(c.BlockSets, BlockSet{ID: l.ID, Name: l.Name, Prefixes: l.Prefixes})
		}
	}
	if err := c.compileRules(opt); err != nil {
		return nil, err
	}
	return c, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("is neither an address nor a prefix")
	}
	return p.Masked(), nil
}

func (c *Compiled) compileRules(opt Options) error {
	classes := map[string]rule.Class{}
	for _, k := range c.Signatures.GetClasses() {
		classes[strings.ToLower(k.GetName())] = rule.Class{Name: k.GetName(), Desc: k.GetDescription(), Priority: k.GetPriority()}
	}
	if len(classes) == 0 {
		classes = nil
	}
	// Files of the same name are pieces of one file.
	var names []string
	texts := map[string]*strings.Builder{}
	for _, f := range c.Signatures.GetRules() {
		if texts[f.GetName()] == nil {
			texts[f.GetName()] = &strings.Builder{}
			names = append(names, f.GetName())
		}
		texts[f.GetName()].WriteString(f.GetText())
	}
	var rules []*rule.Rule
	for _, name := range names {
		rs, refused := rule.Parse(name, strings.NewReader(texts[name].String()), rule.ParseOptions{Classes: classes})
		rules = append(rules, rs...)
		for _, e := range refused {
			c.Refused = append(c.Refused, e)
		}
	}
	self, refused := rule.Parse("self-test", strings.NewReader(SelfTestRule), rule.ParseOptions{})
	if len(refused) > 0 {
		return fmt.Errorf("read the self-test's rule: %w", refused[0])
	}
	rules = append(rules, self...)
	vars := map[string]string{}
	for k, v := range c.Policy.GetVars() {
		vars[k] = v
	}
	var home []string
	for _, p := range c.Engine.HomeNet() {
		home = append(home, p.String())
	}
	vars["HOME_NET"] = "[" + strings.Join(home, ",") + "]"
	set, err := rule.Compile(rules, rule.CompileOptions{Vars: vars, CacheDir: opt.CacheDir, Shared: opt.Shared, IPS: opt.Inline})
	if err != nil {
		return fmt.Errorf("compile rules: %w", err)
	}
	for _, e := range set.Refused() {
		c.Refused = append(c.Refused, e)
	}
	c.Rules, c.Loaded = set, len(set.Rules())-len(self)
	if c.Loaded <= 0 && len(c.Refused) > 0 {
		set.Close()
		return fmt.Errorf("compile rules: none of %d could be honoured, first: %w", len(c.Refused), c.Refused[0])
	}
	return nil
}

// decodePolicy reads a policy bundle's content for one appliance.
func decodePolicy(content []byte, appliance int32) (*policyv1.Policy, error) {
	p := &policyv1.Policy{}
	if err := proto.Unmarshal(content, p); err != nil {
		return nil, fmt.Errorf("decode policy: %w", err)
	}
	if p.GetApplianceId() != appliance {
		return nil, fmt.Errorf("policy is for appliance %d, this is %d", p.GetApplianceId(), appliance)
	}
	return p, nil
}

func decodeSignatures(content []byte) (*signaturev1.Signatures, error) {
	s := &signaturev1.Signatures{}
	if err := proto.Unmarshal(content, s); err != nil {
		return nil, fmt.Errorf("decode signatures: %w", err)
	}
	return s, nil
}
