package rule

import (
	"bufio"
	"bytes"
	"crypto/md5" //nolint:gosec // the rule language names it
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// maxSet bounds the entries of a data set or hash list that is read from a file.
const maxSet = 4_000_000

// datasetOp is dataset, datarep, or a list of file hashes.
type datasetOp struct {
	kind byte // i isset, n isnotset, s set, u unset; r datarep
	set  *dataset
	rep  cmpOp
}

// dataset is a set of values; those of a rule file's name are shared by all sets of rules.
type dataset struct {
	mu    sync.RWMutex
	kind  string // string, md5, sha256, ipv4, ip
	data  map[string]uint16
	limit int
}

// datasetTable keeps data sets by name.
type datasetTable struct{}

func (*datasetTable) init() {}

// allSets are the data sets of the process by kind and name: a set that rules fill must survive a change of rules.
var allSets = struct {
	sync.Mutex
	byName map[string]*dataset
}{byName: map[string]*dataset{}}

func namedSet(kind, name string, limit int) *dataset {
	allSets.Lock()
	defer allSets.Unlock()
	k := kind + " " + name
	d := allSets.byName[k]
	if d == nil {
		d = &dataset{kind: kind, data: map[string]uint16{}, limit: limit}
		allSets.byName[k] = d
	}
	return d
}

func init() {
	add(argNeed, (*parser).dataset, "dataset")
	add(argNeed, (*parser).datarep, "datarep")
	add(argNeed, func(p *parser, v string) error { return p.hashList(BufFileMD5, 32, v) }, "filemd5")
	add(argNeed, func(p *parser, v string) error { return p.hashList(BufFileSHA1, 40, v) }, "filesha1")
	add(argNeed, func(p *parser, v string) error { return p.hashList(BufFileSHA256, 64, v) }, "filesha256")
	refuse("no such keyword here", "entropy")
	refuse("no country table is given", "geoip")
}

// open opens a file that a rule names, beside the rule file. Names that lead out of the folder are refused: a rule file
// comes from elsewhere and may not read what it likes.
func (p *parser) open(name string) (*os.File, error) {
	if filepath.IsAbs(name) || !filepath.IsLocal(name) {
		return nil, fmt.Errorf("file %q is not below the folder of the rules", name)
	}
	f, err := os.Open(filepath.Join(p.opt.Dir, name))
	if err != nil {
		if os.IsNotExist(err) {
			return nil, fmt.Errorf("file %q is not there", name)
		}
		return nil, err
	}
	return f, nil
}

// hashList reads filemd5, filesha1, filesha256: a file with one hash a line.
func (p *parser) hashList(b Buffer, digits int, v string) error {
	neg := strings.HasPrefix(v, "!")
	name := strings.TrimSpace(strings.TrimPrefix(v, "!"))
	f, err := p.open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	d := &dataset{data: map[string]uint16{}, limit: maxSet}
	sc := bufio.NewScanner(f)
	line := 0
	for sc.Scan() {
		line++
		h, _, _ := strings.Cut(strings.TrimSpace(sc.Text()), " ")
		if h == "" || h[0] == '#' {
			continue
		}
		if _, err := hex.DecodeString(h); err != nil || len(h) != digits {
			return fmt.Errorf("%s:%d: %q is not %d hex digits", name, line, h, digits)
		}
		if len(d.data) >= maxSet {
			return fmt.Errorf("%s has more than %d entries", name, maxSet)
		}
		d.data[strings.ToLower(h)] = 0
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	op := &datasetOp{kind: 'i', set: d}
	if neg {
		op.kind = 'n'
	}
	stay, last := p.section, p.last
	p.newSection(b, 0)
	p.section.items = append(p.section.items, &item{kind: itDataset, data: op, at: p.at})
	p.section, p.last = stay, last
	return nil
}

// dataset reads dataset:isset,name[,type T][,load F][,state F][,save F][,hashsize N][,memcap N].
func (p *parser) dataset(v string) error {
	w := splitArgs(v)
	if len(w) < 2 {
		return errors.New("expected operation,name")
	}
	op := &datasetOp{}
	switch w[0] {
	case "isset":
		op.kind = 'i'
	case "isnotset":
		op.kind = 'n'
	case "set":
		op.kind = 's'
	case "unset":
		op.kind = 'u'
	default:
		return fmt.Errorf("unknown operation %q", w[0])
	}
	kind, load, err := datasetOptions(w[2:])
	if err != nil {
		return err
	}
	op.set = namedSet(kind, w[1], maxSet)
	if load != "" {
		if err := p.load(op.set, load, false); err != nil {
			return err
		}
	}
	return p.pushData(op)
}

// datarep reads datarep:name,operator,value[,type T][,load F].
func (p *parser) datarep(v string) error {
	w := splitArgs(v)
	if len(w) < 3 {
		return errors.New("expected name,operator,value")
	}
	op := &datasetOp{kind: 'r'}
	var err error
	if op.rep, err = parseCmp(strings.TrimPrefix(w[1], "=")+w[2], 65535, nil); err != nil {
		return err
	}
	kind, load, err := datasetOptions(w[3:])
	if err != nil {
		return err
	}
	op.set = namedSet(kind, w[0], maxSet)
	if load != "" {
		if err := p.load(op.set, load, true); err != nil {
			return err
		}
	}
	return p.pushData(op)
}

func (p *parser) pushData(op *datasetOp) error {
	if p.section == nil || p.section.buf == BufPayload {
		return errors.New("needs a sticky buffer before it")
	}
	p.push(&item{kind: itDataset, data: op})
	return nil
}

func datasetOptions(words []string) (kind, load string, err error) {
	kind = "string"
	for _, o := range words {
		key, arg, _ := strings.Cut(o, " ")
		arg = strings.TrimSpace(arg)
		switch key {
		case "type":
			switch arg {
			case "string", "md5", "sha256", "ipv4", "ip":
				kind = arg
			default:
				return "", "", fmt.Errorf("unknown type %q", arg)
			}
		case "load":
			load = arg
		case "hashsize", "memcap":
		case "state", "save":
			return "", "", unsupported(key + ": data sets are not written back")
		case "format":
			if arg != "csv" {
				return "", "", unsupported("format " + arg)
			}
		default:
			return "", "", fmt.Errorf("unknown option %q", o)
		}
	}
	return kind, load, nil
}

// load reads a set's file: strings in base64, hashes in hex, addresses as text; with rep a number behind a comma.
func (p *parser) load(d *dataset, name string, rep bool) error {
	f, err := p.open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	d.mu.Lock()
	defer d.mu.Unlock()
	br := bufio.NewReader(f)
	for line := 1; ; line++ {
		text, err := br.ReadString('\n')
		if t := strings.TrimSpace(text); t != "" && t[0] != '#' {
			value := uint64(0)
			if rep {
				var num string
				t, num, _ = strings.Cut(t, ",")
				if value, err = parseRep(num, err); err != nil {
					return fmt.Errorf("%s:%d: %w", name, line, err)
				}
			}
			key, kerr := d.parse(strings.TrimSpace(t))
			if kerr != nil {
				return fmt.Errorf("%s:%d: %w", name, line, kerr)
			}
			if len(d.data) >= d.limit {
				return fmt.Errorf("%s has more than %d entries", name, d.limit)
			}
			d.data[key] = uint16(value)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
}

func parseRep(s string, readErr error) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a reputation from 0 to 65535", s)
	}
	return n, readErr
}

// parse turns a line into the key that match looks for.
func (d *dataset) parse(t string) (string, error) {
	switch d.kind {
	case "md5", "sha256":
		b, err := hex.DecodeString(t)
		if want := map[string]int{"md5": 16, "sha256": 32}[d.kind]; err != nil || len(b) != want {
			return "", fmt.Errorf("%q is not a %s in hex", t, d.kind)
		}
		return string(b), nil
	case "ipv4", "ip":
		a, err := netip.ParseAddr(t)
		if err != nil {
			return "", fmt.Errorf("%q is not an address", t)
		}
		return string(a.Unmap().AsSlice()), nil
	}
	b, err := base64.StdEncoding.DecodeString(t)
	if err != nil {
		return "", fmt.Errorf("%q is not base64", t)
	}
	return string(b), nil
}

// match judges a buffer. set and unset change the set and hold when they changed something.
func (o *datasetOp) match(_ *Matcher, b []byte) bool {
	var sum [32]byte
	key := b
	switch o.set.kind {
	case "md5":
		if len(b) != 16 {
			s := md5.Sum(b) //nolint:gosec // the rule language names it
			key = append(sum[:0], s[:]...)
		}
	case "sha256":
		if len(b) != 32 {
			sum = sha256.Sum256(b)
			key = sum[:]
		}
	case "":
		key = bytes.TrimSpace(b)
	}
	d := o.set
	switch o.kind {
	case 's', 'u':
		d.mu.Lock()
		defer d.mu.Unlock()
		_, has := d.data[string(key)]
		if o.kind == 's' {
			if has || len(d.data) >= d.limit {
				return false
			}
			d.data[string(key)] = 0
			return true
		}
		delete(d.data, string(key))
		return has
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	rep, has := d.data[string(key)]
	switch o.kind {
	case 'i':
		return has
	case 'n':
		return !has
	}
	return has && o.rep.match(uint64(rep))
}
