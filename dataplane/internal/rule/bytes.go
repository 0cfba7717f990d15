package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// byteOp is the common part of byte_test, byte_jump, byte_extract, byte_math and isdataat.
type byteOp struct {
	bytes   operand
	offset  operand
	value   operand
	oper    byte // < > = & ^ and L (<=), G (>=) for byte_test; + - * / and l (<<), r (>>) for byte_math
	neg     bool
	little  bool
	dce     bool // byte order of the DCE/RPC header
	str     bool
	base    int // 8, 10, 16; 0 from the prefix
	mult    int64
	align   int64 // bytes to round up to
	begin   bool
	fromEnd bool
	post    operand
	mask    uint32
	shift   uint8 // trailing zeroes of mask
	result  int16 // variable
	hasMask bool
}

func init() {
	add(argNeed, (*parser).byteTest, "byte_test")
	add(argNeed, (*parser).byteJump, "byte_jump")
	add(argNeed, (*parser).byteExtract, "byte_extract")
	add(argNeed, (*parser).byteMath, "byte_math")
	add(argNeed, (*parser).isDataAt, "isdataat")
}

func splitArgs(v string) []string {
	parts := strings.Split(v, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// option reads a word that several byte keywords share; used is how many words it took, 0 when it is none.
func (o *byteOp) option(p *parser, it *item, words []string) (used int, err error) {
	w := words[0]
	name, arg, hasArg := strings.Cut(w, " ")
	arg = strings.TrimSpace(arg)
	switch name {
	case "relative":
		it.relative = true
	case "big":
		o.little = false
	case "little":
		o.little = true
	case "dce":
		o.dce = true
	case "string":
		o.str = true
	case "hex":
		o.base = 16
	case "dec":
		o.base = 10
	case "oct":
		o.base = 8
	case "bitmask":
		n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(arg), "0x"), 16, 32)
		if !hasArg || err != nil || n == 0 {
			return 0, fmt.Errorf("bitmask %q is not a number of 1 to 32 bits", arg)
		}
		o.hasMask, o.mask = true, uint32(n)
		for o.mask>>o.shift&1 == 0 {
			o.shift++
		}
	case "multiplier":
		n, err := strconv.ParseUint(arg, 10, 16)
		if !hasArg || err != nil || n == 0 {
			return 0, fmt.Errorf("multiplier %q is not a number from 1 to 65535", arg)
		}
		o.mult = int64(n)
	case "align":
		o.align = 4
		if hasArg {
			n, err := strconv.ParseUint(arg, 10, 8)
			if err != nil || n != 2 && n != 4 {
				return 0, fmt.Errorf("align %q is neither 2 nor 4", arg)
			}
			o.align = int64(n)
		}
	case "from_beginning":
		o.begin = true
	case "from_end":
		o.fromEnd = true
	case "post_offset":
		if o.post, err = p.operand(arg, -65535, 65535); err != nil {
			return 0, fmt.Errorf("post_offset: %w", err)
		}
	default:
		return 0, nil
	}
	return 1, nil
}

func (o *byteOp) options(p *parser, it *item, words []string, allowed string) error {
	for len(words) > 0 {
		name, _, _ := strings.Cut(words[0], " ")
		if !strings.Contains(" "+allowed+" ", " "+name+" ") {
			return fmt.Errorf("unknown option %q", words[0])
		}
		n, err := o.option(p, it, words)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("unknown option %q", words[0])
		}
		words = words[n:]
	}
	if o.dce && o.str {
		return errors.New("dce and string exclude each other")
	}
	return o.checkBytes()
}

func (o *byteOp) checkBytes() error {
	if o.bytes.v >= 0 {
		return nil
	}
	limit := int64(8)
	if o.str {
		limit = 23
		if o.base == 16 {
			limit = 14
		}
	}
	if o.bytes.val < 0 || o.bytes.val > limit {
		return fmt.Errorf("%d bytes: %d is the most", o.bytes.val, limit)
	}
	if o.dce && o.bytes.val != 1 && o.bytes.val != 2 && o.bytes.val != 4 {
		return errors.New("with dce the number of bytes is 1, 2 or 4")
	}
	return nil
}

const shared = "relative big little dce string hex dec oct bitmask"

func (p *parser) byteTest(v string) error {
	w := splitArgs(v)
	if len(w) < 4 {
		return errors.New("expected bytes,operator,value,offset")
	}
	o := &byteOp{mult: 1, post: fixed(0)}
	it := &item{kind: itByteTest, num: o}
	var err error
	if o.bytes, err = p.operand(w[0], 0, 23); err != nil {
		return err
	}
	oper := w[1]
	if strings.HasPrefix(oper, "!") && oper != "!" {
		o.neg = true
		oper = strings.TrimSpace(oper[1:])
	} else if oper == "!" {
		o.neg, oper = true, "="
	}
	switch oper {
	case "<", ">", "=", "&", "^":
		o.oper = oper[0]
	case "<=":
		o.oper = 'L'
	case ">=":
		o.oper = 'G'
	default:
		return fmt.Errorf("unknown operator %q", w[1])
	}
	if n, e := strconv.ParseUint(w[2], 0, 64); e == nil {
		o.value = operand{val: int64(n), v: -1}
	} else if o.value, err = p.operand(w[2], -1<<62, 1<<62); err != nil {
		return err
	}
	if o.offset, err = p.operand(w[3], -65535, 65535); err != nil {
		return err
	}
	if err := o.options(p, it, w[4:], shared); err != nil {
		return err
	}
	p.push(it)
	return nil
}

func (p *parser) byteJump(v string) error {
	w := splitArgs(v)
	if len(w) < 2 {
		return errors.New("expected bytes,offset")
	}
	o := &byteOp{mult: 1, post: fixed(0)}
	it := &item{kind: itByteJump, num: o}
	var err error
	if o.bytes, err = p.operand(w[0], 0, 23); err != nil {
		return err
	}
	if o.offset, err = p.operand(w[1], -65535, 65535); err != nil {
		return err
	}
	if err := o.options(p, it, w[2:], shared+" multiplier align from_beginning from_end post_offset"); err != nil {
		return err
	}
	if o.begin && o.fromEnd {
		return errors.New("from_beginning and from_end exclude each other")
	}
	p.push(it)
	return nil
}

func (p *parser) variable(name string) (int16, error) {
	if name == "" || name[0] >= '0' && name[0] <= '9' || strings.ContainsAny(name, " ,;:") {
		return 0, fmt.Errorf("%q is not a name for a variable", name)
	}
	for i, n := range p.r.varNames {
		if n == name {
			return int16(i), nil
		}
	}
	if len(p.r.varNames) >= 64 {
		return 0, errors.New("more than 64 variables")
	}
	p.r.varNames = append(p.r.varNames, name)
	return int16(len(p.r.varNames) - 1), nil
}

func (p *parser) byteExtract(v string) error {
	w := splitArgs(v)
	if len(w) < 3 {
		return errors.New("expected bytes,offset,name")
	}
	o := &byteOp{mult: 1, post: fixed(0)}
	it := &item{kind: itByteExtract, num: o}
	var err error
	if o.bytes, err = p.operand(w[0], 1, 23); err != nil {
		return err
	}
	if o.offset, err = p.operand(w[1], -65535, 65535); err != nil {
		return err
	}
	if err := o.options(p, it, w[3:], shared+" multiplier align"); err != nil {
		return err
	}
	if o.result, err = p.variable(w[2]); err != nil {
		return err
	}
	p.push(it)
	return nil
}

func (p *parser) byteMath(v string) error {
	o := &byteOp{mult: 1, post: fixed(0), result: -1}
	it := &item{kind: itByteMath, num: o}
	var (
		err  error
		seen = map[string]bool{}
		name string
	)
	for _, w := range splitArgs(v) {
		key, arg, _ := strings.Cut(w, " ")
		arg = strings.TrimSpace(arg)
		if seen[key] {
			return fmt.Errorf("%s given twice", key)
		}
		seen[key] = true
		switch key {
		case "bytes":
			o.bytes, err = p.operand(arg, 1, 10)
		case "offset":
			o.offset, err = p.operand(arg, -65535, 65535)
		case "oper":
			switch arg {
			case "+", "-", "*", "/":
				o.oper = arg[0]
			case "<<":
				o.oper = 'l'
			case ">>":
				o.oper = 'r'
			default:
				err = fmt.Errorf("unknown operator %q", arg)
			}
		case "rvalue":
			o.value, err = p.operand(arg, 0, 1<<32-1)
			if err == nil && o.value.v < 0 && o.value.val == 0 && o.oper == '/' {
				err = errors.New("division by zero")
			}
		case "result":
			name = arg
		case "endian":
			switch arg {
			case "big":
			case "little":
				o.little = true
			default:
				err = fmt.Errorf("endian %q is neither big nor little", arg)
			}
		case "string":
			o.str = true
			switch arg {
			case "hex":
				o.base = 16
			case "dec":
				o.base = 10
			case "oct":
				o.base = 8
			default:
				err = fmt.Errorf("string %q is none of hex, dec, oct", arg)
			}
		case "bitmask", "relative", "dce":
			_, err = o.option(p, it, []string{w})
		default:
			err = fmt.Errorf("unknown option %q", w)
		}
		if err != nil {
			return err
		}
	}
	for _, need := range []string{"bytes", "offset", "oper", "rvalue", "result"} {
		if !seen[need] {
			return fmt.Errorf("%s is missing", need)
		}
	}
	if err := o.checkBytes(); err != nil {
		return err
	}
	if o.oper == '/' && o.value.v < 0 && o.value.val == 0 {
		return errors.New("division by zero")
	}
	if o.result, err = p.variable(name); err != nil {
		return err
	}
	p.push(it)
	return nil
}

func (p *parser) isDataAt(v string) error {
	w := splitArgs(v)
	it := &item{kind: itIsDataAt, num: &byteOp{}}
	if strings.HasPrefix(w[0], "!") {
		it.neg = true
		w[0] = strings.TrimSpace(w[0][1:])
	}
	var err error
	if it.num.value, err = p.operand(w[0], 0, 65535); err != nil {
		return err
	}
	for _, o := range w[1:] {
		switch o {
		case "relative":
			it.relative = true
		case "rawbytes":
		default:
			return fmt.Errorf("unknown option %q", o)
		}
	}
	p.push(it)
	return nil
}
