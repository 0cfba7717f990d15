package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// flowSpec is the flow keyword.
type flowSpec struct {
	given       bool
	toServer    bool
	toClient    bool
	established bool
	notEst      bool
	onlyStream  bool
	noStream    bool
	onlyFrag    bool
	noFrag      bool
}

// bitTable says where a bit or number is kept.
type bitKind uint8

const (
	flowBit bitKind = iota
	hostBit
	flowIntKind
)

// tracking says whose state it is.
type tracking uint8

const (
	trackSrc tracking = iota
	trackDst
	trackPair
	trackRule
	trackFlow
	trackTx
)

// bitOp is one test or change of flowbits, xbits, hostbits or flowints.
type bitOp struct {
	kind   bitKind
	op     byte // s set, u unset, t toggle, i isset, n isnotset; for flowint also + - = and comparisons < > L G e !
	ids    []uint32
	track  tracking
	expire int64 // nanoseconds
	value  uint32
	other  int64 // flowint compared with another: its id; -1 none
}

func init() {
	add(argNeed, (*parser).flow, "flow")
	add(argNeed, (*parser).flowbits, "flowbits")
	add(argNeed, (*parser).xbits, "xbits")
	add(argNeed, (*parser).hostbits, "hostbits")
	add(argNeed, (*parser).flowint, "flowint")
	add(argNeed, func(p *parser, v string) error { return p.threshold(v, false) }, "threshold")
	add(argNeed, func(p *parser, v string) error { return p.threshold(v, true) }, "detection_filter")
	refuse("use pcre with flow:name", "flowvar", "pktvar", "hostvar")
}

func (p *parser) flow(v string) error {
	f := &p.r.flow
	f.given = true
	for _, w := range splitArgs(v) {
		switch strings.ToLower(w) {
		case "to_server", "from_client":
			f.toServer = true
		case "to_client", "from_server":
			f.toClient = true
		case "established":
			f.established = true
		case "not_established":
			f.notEst = true
		case "stateless":
		case "only_stream":
			f.onlyStream = true
		case "no_stream":
			f.noStream = true
		case "only_frag":
			f.onlyFrag = true
		case "no_frag":
			f.noFrag = true
		default:
			return fmt.Errorf("unknown option %q", w)
		}
	}
	switch {
	case f.toServer && f.toClient:
		return errors.New("to_server and to_client exclude each other")
	case f.established && f.notEst:
		return errors.New("established and not_established exclude each other")
	case f.onlyStream && f.noStream:
		return errors.New("only_stream and no_stream exclude each other")
	case f.onlyFrag && f.noFrag:
		return errors.New("only_frag and no_frag exclude each other")
	}
	return nil
}

// bitWords are the operations that all bit keywords share.
var bitWords = map[string]byte{"set": 's', "unset": 'u', "toggle": 't', "isset": 'i', "isnotset": 'n'}

func (p *parser) addBit(o bitOp) {
	switch o.op {
	case 's', 'u', 't', '+', '-', '=':
		p.r.post = append(p.r.post, o)
	default:
		p.r.bits = append(p.r.bits, o)
	}
}

func bitIDs(prefix, s string) ([]uint32, error) {
	var ids []uint32
	for _, n := range strings.Split(s, "|") {
		n = strings.TrimSpace(n)
		if n == "" || strings.ContainsAny(n, " \t\"") {
			return nil, fmt.Errorf("%q is not a name", n)
		}
		ids = append(ids, names.id(prefix+n))
	}
	return ids, nil
}

func (p *parser) flowbits(v string) error {
	w := splitArgs(v)
	if len(w) == 1 && w[0] == "noalert" {
		p.r.NoAlert = true
		return nil
	}
	op, ok := bitWords[w[0]]
	if !ok {
		return fmt.Errorf("unknown operation %q", w[0])
	}
	if len(w) != 2 {
		return errors.New("expected operation,name")
	}
	ids, err := bitIDs("", w[1])
	if err != nil {
		return err
	}
	if len(ids) > 1 && op != 'i' && op != 'n' {
		return errors.New("several names only with isset and isnotset")
	}
	p.addBit(bitOp{kind: flowBit, op: op, ids: ids})
	return nil
}

func (p *parser) xbits(v string) error {
	w := splitArgs(v)
	if len(w) == 1 && w[0] == "noalert" {
		p.r.NoAlert = true
		return nil
	}
	op, ok := bitWords[w[0]]
	if !ok {
		return fmt.Errorf("unknown operation %q", w[0])
	}
	if len(w) < 3 {
		return errors.New("expected operation,name,track")
	}
	o := bitOp{kind: hostBit, op: op, expire: 30e9}
	var err error
	switch strings.Join(strings.Fields(w[2]), " ") {
	case "track ip_src":
		o.track = trackSrc
	case "track ip_dst":
		o.track = trackDst
	case "track ip_pair":
		o.track = trackPair
	case "track tx":
		return unsupported("track tx")
	default:
		return fmt.Errorf("unknown tracking %q", w[2])
	}
	if o.ids, err = bitIDs("x:", w[1]); err != nil {
		return err
	}
	for _, x := range w[3:] {
		n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(x, "expire")), 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("unknown option %q", x)
		}
		o.expire = int64(n) * 1e9
	}
	p.addBit(o)
	return nil
}

func (p *parser) hostbits(v string) error {
	w := splitArgs(v)
	if len(w) == 1 && w[0] == "noalert" {
		p.r.NoAlert = true
		return nil
	}
	op, ok := bitWords[w[0]]
	if !ok {
		return fmt.Errorf("unknown operation %q", w[0])
	}
	if len(w) < 2 {
		return errors.New("expected operation,name")
	}
	o := bitOp{kind: hostBit, op: op, expire: 300e9}
	var err error
	if o.ids, err = bitIDs("h:", w[1]); err != nil {
		return err
	}
	if len(w) > 2 {
		switch strings.TrimSpace(strings.TrimPrefix(w[2], "track")) {
		case "src", "ip_src":
		case "dst", "ip_dst":
			o.track = trackDst
		case "both":
			return unsupported("tracking of both hosts")
		default:
			return fmt.Errorf("unknown direction %q", w[2])
		}
	}
	p.addBit(o)
	return nil
}

func (p *parser) flowint(v string) error {
	w := splitArgs(v)
	if len(w) < 2 {
		return errors.New("expected name,operation[,value]")
	}
	ids, err := bitIDs("i:", w[0])
	if err != nil || len(ids) != 1 {
		return fmt.Errorf("%q is not a name", w[0])
	}
	o := bitOp{kind: flowIntKind, ids: ids, other: -1}
	switch w[1] {
	case "isset":
		o.op = 'i'
	case "notset", "isnotset":
		o.op = 'n'
	case "+", "-", "=", "<", ">":
		o.op = w[1][0]
	case "<=":
		o.op = 'L'
	case ">=":
		o.op = 'G'
	case "==":
		o.op = 'e'
	case "!=":
		o.op = '!'
	default:
		return fmt.Errorf("unknown operation %q", w[1])
	}
	if o.op == 'i' || o.op == 'n' {
		p.addBit(o)
		return nil
	}
	if len(w) < 3 {
		return errors.New("needs a value")
	}
	if n, err := strconv.ParseUint(w[2], 10, 32); err == nil {
		o.value = uint32(n)
	} else {
		id, err := bitIDs("i:", w[2])
		if err != nil || len(id) != 1 {
			return fmt.Errorf("%q is neither a number nor a name", w[2])
		}
		o.other = int64(id[0])
	}
	p.addBit(o)
	return nil
}

// limitType is the kind of a threshold.
type limitType uint8

const (
	limitLimit limitType = iota
	limitThreshold
	limitBoth
	limitBackoff
	limitFilter // detection_filter
)

// limitSpec is a threshold or detection_filter.
type limitSpec struct {
	kind       limitType
	track      tracking
	count      uint32
	window     int64 // nanoseconds
	multiplier uint32
	unique     byte // count only distinct: s source ports, d destination ports, 0 all
}

func (p *parser) threshold(v string, filter bool) error {
	if len(p.r.limits) >= 4 {
		return errors.New("more than 4 thresholds")
	}
	l := &limitSpec{kind: limitFilter}
	seen := map[string]bool{}
	for _, w := range splitArgs(v) {
		key, arg, _ := strings.Cut(w, " ")
		arg = strings.TrimSpace(arg)
		if seen[key] {
			return fmt.Errorf("%s given twice", key)
		}
		seen[key] = true
		n, numErr := strconv.ParseUint(arg, 10, 32)
		switch key {
		case "type":
			if filter {
				return errors.New("unknown option type")
			}
			var ok bool
			if l.kind, ok = limitTypes[arg]; !ok {
				return fmt.Errorf("unknown type %q", arg)
			}
		case "track":
			var ok bool
			if l.track, ok = limitTracks[arg]; !ok {
				return fmt.Errorf("unknown tracking %q", arg)
			}
		case "count":
			if numErr != nil || n == 0 {
				return fmt.Errorf("count %q is not a number from 1", arg)
			}
			l.count = uint32(n)
		case "seconds":
			if numErr != nil || n == 0 {
				return fmt.Errorf("seconds %q is not a number from 1", arg)
			}
			l.window = int64(n) * 1e9
		case "multiplier":
			if numErr != nil || n < 2 {
				return fmt.Errorf("multiplier %q is not a number from 2", arg)
			}
			l.multiplier = uint32(n)
		case "unique_on":
			switch arg {
			case "src_port":
				l.unique = 's'
			case "dst_port":
				l.unique = 'd'
			default:
				return fmt.Errorf("unknown unique_on %q", arg)
			}
		default:
			return fmt.Errorf("unknown option %q", w)
		}
	}
	need := []string{"track", "count"}
	if l.kind != limitBackoff {
		need = append(need, "seconds")
	} else if l.multiplier == 0 {
		l.multiplier = 10
	}
	if !filter {
		need = append(need, "type")
	}
	for _, k := range need {
		if !seen[k] {
			return fmt.Errorf("%s is missing", k)
		}
	}
	p.r.limits = append(p.r.limits, l)
	return nil
}

var limitTypes = map[string]limitType{"limit": limitLimit, "threshold": limitThreshold, "both": limitBoth, "backoff": limitBackoff}

var limitTracks = map[string]tracking{
	"by_src": trackSrc, "by_dst": trackDst, "by_both": trackPair, "by_rule": trackRule, "by_flow": trackFlow,
}
