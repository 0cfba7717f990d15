package rule

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kadomori/kadomori/dataplane/internal/mpm"
)

// widePorts: rules for more ports than this go into the group of all ports, so that the groups of single ports don't
// each carry a copy of them.
const widePorts = 512

// portGroups are the databases for packets and streams of one protocol class and direction.
type portGroups struct {
	all    *patGroup
	byPort *[65536]uint16 // number in narrow plus 1; 0 for none
	narrow []*patGroup
}

// alwaysList are the rules without a fast pattern, that must be judged for every packet; by server port where narrow.
type alwaysList struct {
	all    []uint32
	byPort *[65536]uint16
	narrow [][]uint32
}

// builder collects patterns of a group before its database exists.
type builder struct {
	pats map[string]*patEntry
}

type patEntry struct {
	bytes  []byte
	nocase bool
	rules  []uint32
}

func (b *builder) add(c *crule) {
	if b.pats == nil {
		b.pats = map[string]*patEntry{}
	}
	pat := c.fast.pattern()
	key := "s" + string(pat)
	if c.fast.nocase {
		key = "i" + strings.ToLower(string(pat))
	}
	e := b.pats[key]
	if e == nil {
		e = &patEntry{bytes: pat, nocase: c.fast.nocase}
		b.pats[key] = e
	}
	if n := len(e.rules); n == 0 || e.rules[n-1] != c.idx {
		e.rules = append(e.rules, c.idx)
	}
}

// finish gives the group of the builder; equal groups are one.
func (s *Set) finish(b *builder, seen map[[32]byte]*patGroup) *patGroup {
	if len(b.pats) == 0 {
		return nil
	}
	keys := make([]string, 0, len(b.pats))
	for k := range b.pats {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	h := sha256.New()
	var n [4]byte
	for _, k := range keys {
		binary.LittleEndian.PutUint32(n[:], uint32(len(k)))
		h.Write(n[:])
		h.Write([]byte(k))
		for _, r := range b.pats[k].rules {
			binary.LittleEndian.PutUint32(n[:], r)
			h.Write(n[:])
		}
		h.Write([]byte{255, 255, 255, 255})
	}
	var sum [32]byte
	h.Sum(sum[:0])
	if g, ok := seen[sum]; ok {
		return g
	}
	g := &patGroup{base: uint32(len(s.pats))}
	for i, k := range keys {
		e := b.pats[k]
		g.pats = append(g.pats, mpm.Pattern{ID: uint32(i), Bytes: e.bytes, NoCase: e.nocase})
		s.pats = append(s.pats, e.rules)
	}
	seen[sum] = g
	s.groups = append(s.groups, g)
	return g
}

// serverPorts is the port set of the server's side in a direction; nil when any.
func (c *crule) serverPorts(dir int) *portSet {
	ps := c.dp
	if dir == dirClient {
		ps = c.sp
	}
	if c.r.head.both || c.r.head.txBoth || ps.any || ps.size > widePorts {
		return nil
	}
	return ps
}

// group sorts the rules into groups.
func (s *Set) group() {
	seen := map[[32]byte]*patGroup{}
	protos := [protoClasses][]uint8{classTCP: {protoTCP}, classUDP: {protoUDP}, classICMP: {protoICMP, protoICMPv6}}
	for class := range protoClasses {
		for dir := range 2 {
			var (
				wide   builder
				narrow []*crule
				lists  []*crule
			)
			al := &s.always[class][dir]
			for _, c := range s.crules {
				if len(c.parts) > 0 || c.dirs&(1<<dir) == 0 || !c.inClass(class, protos[class]) {
					continue
				}
				if c.fast == nil {
					if c.serverPorts(dir) == nil || class != classTCP && class != classUDP {
						al.all = append(al.all, c.idx)
					} else {
						lists = append(lists, c)
					}
					continue
				}
				if c.serverPorts(dir) == nil || class != classTCP && class != classUDP {
					wide.add(c)
				} else {
					narrow = append(narrow, c)
				}
			}
			pg := &s.payload[class][dir]
			pg.all = s.finish(&wide, seen)
			byPorts(narrow, dir, func(rules []*crule) int {
				var b builder
				for _, c := range rules {
					b.add(c)
				}
				pg.narrow = append(pg.narrow, s.finish(&b, seen))
				return len(pg.narrow)
			}, &pg.byPort)
			byPorts(lists, dir, func(rules []*crule) int {
				var l []uint32
				for _, c := range rules {
					l = append(l, c.idx)
				}
				al.narrow = append(al.narrow, l)
				return len(al.narrow)
			}, &al.byPort)
		}
	}
	s.groupTx(seen)
}

// byPorts calls make for each distinct set of rules that share a port and notes its number per port.
func byPorts(rules []*crule, dir int, mk func([]*crule) int, table **[65536]uint16) {
	if len(rules) == 0 {
		return
	}
	per := make(map[uint16][]*crule)
	for _, c := range rules {
		for _, r := range c.serverPorts(dir).ranges {
			for p := int(r.lo); p <= int(r.hi); p++ {
				per[uint16(p)] = append(per[uint16(p)], c)
			}
		}
	}
	*table = new([65536]uint16)
	known := map[string]uint16{}
	ports := make([]uint16, 0, len(per))
	for p := range per {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	var key []byte
	for _, p := range ports {
		key = key[:0]
		for _, c := range per[p] {
			key = binary.LittleEndian.AppendUint32(key, c.idx)
		}
		n, ok := known[string(key)]
		if !ok {
			n = uint16(mk(per[p]))
			known[string(key)] = n
		}
		(*table)[p] = n
	}
}

func (c *crule) inClass(class int, protos []uint8) bool {
	p := &c.r.head.proto
	if p.any {
		return true
	}
	if class != classOther {
		for _, n := range protos {
			if p.has(n) {
				return true
			}
		}
		return false
	}
	q := *p
	for _, n := range []uint8{protoTCP, protoUDP, protoICMP, protoICMPv6} {
		q.transport[n>>6] &^= 1 << (n & 63)
	}
	return q.transport != [4]uint64{}
}

// groupTx sorts the transaction rules by protocol, direction and buffer.
func (s *Set) groupTx(seen map[[32]byte]*patGroup) {
	type key struct {
		app App
		dir int
		buf string // buffer and transforms
	}
	builders := map[key]*builder{}
	info := map[string]txBuf{}
	var order []key
	for _, c := range s.crules {
		if len(c.parts) == 0 {
			continue
		}
		for app := App(0); app < appCount; app++ {
			if !c.apps.Has(app) {
				continue
			}
			for dir := range 2 {
				if c.dirs&(1<<dir) == 0 {
					continue
				}
				if s.tx[app][dir] == nil {
					s.tx[app][dir] = &txGroup{}
				}
				if c.fast == nil {
					s.tx[app][dir].always = append(s.tx[app][dir].always, c.idx)
					continue
				}
				b := &buffers[c.fastSec.buf]
				if dir == dirServer && (!b.server || c.fastSec.dir == maskClient) || dir == dirClient && (!b.client || c.fastSec.dir == maskServer) {
					continue // with =>: the other direction brings it in
				}
				name := bufKey(c.fastSec)
				info[name] = txBuf{buf: c.fastSec.buf, trans: c.fastSec.trans}
				k := key{app, dir, name}
				if builders[k] == nil {
					builders[k] = &builder{}
					order = append(order, k)
				}
				builders[k].add(c)
			}
		}
	}
	slices.SortFunc(order, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.app, b.app), cmp.Compare(a.dir, b.dir), cmp.Compare(info[a.buf].buf, info[b.buf].buf), cmp.Compare(a.buf, b.buf))
	})
	for _, k := range order {
		t := info[k.buf]
		t.group = s.finish(builders[k], seen)
		g := s.tx[k.app][k.dir]
		g.bufs = append(g.bufs, t)
	}
}

func bufKey(sec *section) string {
	var b strings.Builder
	b.WriteString(sec.buf.String())
	for _, t := range sec.trans {
		fmt.Fprintf(&b, "|%s(%s)", t.name, t.arg)
	}
	return b.String()
}

// build compiles the databases, several at a time, from the cache where it has them.
func (s *Set) build(opt CompileOptions) error {
	cache, err := openCache(opt.CacheDir)
	if err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	slots := make(chan struct{}, max(workers(opt.Workers), 1))
	// the largest first, so that none is left alone at the end
	byDuty := slices.Clone(s.groups)
	slices.SortFunc(byDuty, func(a, b *patGroup) int { return cmp.Compare(len(b.pats), len(a.pats)) })
	for _, g := range byDuty {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			db, cached, err := cache.database(g.pats)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				first = cmp.Or(first, err)
				return
			}
			g.db = db
			if cached {
				s.stats.Cached++
			}
		})
	}
	wg.Wait()
	if first != nil {
		return fmt.Errorf("compile patterns: %w", first)
	}
	return cache.sweep()
}
