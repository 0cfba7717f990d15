// Package pcre runs Perl-compatible expressions through libpcre2-8 with its JIT, bounded in time. Package rule calls it
// for the pcre and pcrexform keywords. The trap: an Expr is shared and read-only, but a Scratch belongs to one goroutine,
// and the offsets a match returns are valid until the Scratch's next match.
package pcre

/*
#cgo pkg-config: libpcre2-8
#cgo noescape kd_match
#cgo nocallback kd_match
#define PCRE2_CODE_UNIT_WIDTH 8
#include <stdint.h>
#include <stdlib.h>
#include <pcre2.h>

// kd_match runs one match and copies at most n pairs of offsets out. It returns pcre2_match's result.
static int kd_match(const pcre2_code *re, uintptr_t s, size_t len, size_t start, uint32_t opt,
                    pcre2_match_data *md, pcre2_match_context *mc, uintptr_t pairs, int n) {
	size_t *out = (size_t *)pairs;
	int rc = pcre2_match(re, (PCRE2_SPTR)s, len, start, opt, md, mc);
	if (rc > 0) {
		PCRE2_SIZE *ov = pcre2_get_ovector_pointer(md);
		int have = rc < n ? rc : n;
		for (int i = 0; i < 2 * have; i++)
			out[i] = ov[i];
	}
	return rc;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// Flags are the options of an expression.
type Flags uint32

// The options, with Perl's letters.
const (
	Caseless  Flags = C.PCRE2_CASELESS       // i
	Multiline Flags = C.PCRE2_MULTILINE      // m
	DotAll    Flags = C.PCRE2_DOTALL         // s
	Extended  Flags = C.PCRE2_EXTENDED       // x
	Anchored  Flags = C.PCRE2_ANCHORED       // A
	DollarEnd Flags = C.PCRE2_DOLLAR_ENDONLY // E
	Ungreedy  Flags = C.PCRE2_UNGREEDY       // G
)

// The limits of one match, as in Suricata's default configuration: steps of the matcher and depth of back-tracking.
const (
	MatchLimit     = 3500
	RecursionLimit = 1500
)

// maxPairs is how many groups' offsets a match can give: the whole and eight groups (Suricata's limit).
const maxPairs = 9

// ErrLimit is returned when a match took more steps than allowed.
var ErrLimit = errors.New("match limit reached")

// Expr is a compiled expression.
type Expr struct {
	code   *C.pcre2_code
	groups int
	jit    bool
}

// Compile compiles pattern. Its bytes are taken as they are (no UTF).
func Compile(pattern string, flags Flags) (*Expr, error) {
	var (
		num C.int
		off C.PCRE2_SIZE
		ptr *C.uchar
	)
	b := []byte(pattern)
	if len(b) > 0 {
		ptr = (*C.uchar)(unsafe.Pointer(&b[0]))
	} else {
		ptr = (*C.uchar)(unsafe.Pointer(&[1]byte{}))
	}
	code := C.pcre2_compile_8(C.PCRE2_SPTR8(ptr), C.PCRE2_SIZE(len(b)), C.uint32_t(flags)|C.PCRE2_NEVER_UTF|C.PCRE2_NEVER_UCP, &num, &off, nil)
	if code == nil {
		var buf [256]C.uchar
		C.pcre2_get_error_message_8(num, &buf[0], C.PCRE2_SIZE(len(buf)))
		return nil, fmt.Errorf("%s at %d", C.GoString((*C.char)(unsafe.Pointer(&buf[0]))), int(off))
	}
	e := &Expr{code: code}
	var n C.uint32_t
	C.pcre2_pattern_info_8(code, C.PCRE2_INFO_CAPTURECOUNT, unsafe.Pointer(&n))
	e.groups = int(n)
	// Without JIT memory the interpreter does the same, slower.
	e.jit = C.pcre2_jit_compile_8(code, C.PCRE2_JIT_COMPLETE) == 0
	runtime.SetFinalizer(e, (*Expr).free)
	return e, nil
}

func (e *Expr) free() {
	if e.code != nil {
		C.pcre2_code_free_8(e.code)
		e.code = nil
	}
}

// Groups is how many capturing groups the expression has.
func (e *Expr) Groups() int { return e.groups }

// Group finds the number of a named group, 0 when there is none.
func (e *Expr) Group(name string) int {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	n := C.pcre2_substring_number_from_name_8(e.code, C.PCRE2_SPTR8(unsafe.Pointer(c)))
	runtime.KeepAlive(e)
	return max(int(n), 0)
}

// Size is the memory of the expression in bytes, its machine code included.
func (e *Expr) Size() int {
	var a, b C.size_t
	C.pcre2_pattern_info_8(e.code, C.PCRE2_INFO_SIZE, unsafe.Pointer(&a))
	C.pcre2_pattern_info_8(e.code, C.PCRE2_INFO_JITSIZE, unsafe.Pointer(&b))
	runtime.KeepAlive(e)
	return int(a + b)
}

// Scratch is the memory that matches of one goroutine use.
type Scratch struct {
	data   *C.pcre2_match_data
	ctx    *C.pcre2_match_context
	stack  *C.pcre2_jit_stack
	pairs  [2 * maxPairs]C.size_t
	limits uint64
}

// NewScratch makes a Scratch with the default limits. Close frees it.
func NewScratch() *Scratch {
	s := &Scratch{
		data:  C.pcre2_match_data_create_8(maxPairs, nil),
		ctx:   C.pcre2_match_context_create_8(nil),
		stack: C.pcre2_jit_stack_create_8(32<<10, 512<<10, nil),
	}
	C.pcre2_set_match_limit_8(s.ctx, MatchLimit)
	C.pcre2_set_depth_limit_8(s.ctx, RecursionLimit)
	C.pcre2_jit_stack_assign_8(s.ctx, nil, unsafe.Pointer(s.stack))
	return s
}

// Close frees the Scratch.
func (s *Scratch) Close() {
	C.pcre2_match_data_free_8(s.data)
	C.pcre2_match_context_free_8(s.ctx)
	C.pcre2_jit_stack_free_8(s.stack)
	s.data, s.ctx, s.stack = nil, nil, nil
}

// Limits is how many matches were given up at their limit.
func (s *Scratch) Limits() uint64 { return s.limits }

var nothing [1]byte

// Match looks for e in b from start on. ok says whether it was found; a match that reached its limit counts as not found.
func (s *Scratch) Match(e *Expr, b []byte, start int) (ok bool) {
	if start < 0 || start > len(b) {
		return false
	}
	// As a number: a buffer may be part of a larger value with pointers of its own, which the checks on pointer arguments
	// refuse although C only reads the bytes. The pairs are C's to fill and hold no pointers.
	p := uintptr(unsafe.Pointer(&nothing))
	if len(b) > 0 {
		p = uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	}
	rc := C.kd_match(e.code, C.uintptr_t(p), C.size_t(len(b)), C.size_t(start), 0, s.data, s.ctx, C.uintptr_t(uintptr(unsafe.Pointer(&s.pairs[0]))), maxPairs)
	runtime.KeepAlive(e)
	runtime.KeepAlive(b)
	runtime.KeepAlive(s)
	if rc < 0 {
		if rc != C.PCRE2_ERROR_NOMATCH {
			s.limits++
		}
		return false
	}
	if rc == 0 {
		// more groups than maxPairs: the pairs that fit are there, but kd_match did not copy them
		ov := unsafe.Slice((*C.size_t)(unsafe.Pointer(C.pcre2_get_ovector_pointer_8(s.data))), 2*maxPairs)
		copy(s.pairs[:], ov)
		return true
	}
	for i := 2 * int(rc); i < len(s.pairs); i++ {
		s.pairs[i] = ^C.size_t(0)
	}
	return true
}

// Span gives where group n (0: the whole) of the last match lies; ok is false when the group took no part.
func (s *Scratch) Span(n int) (from, to int, ok bool) {
	if n >= maxPairs || s.pairs[2*n] == ^C.size_t(0) {
		return 0, 0, false
	}
	return int(s.pairs[2*n]), int(s.pairs[2*n+1]), true
}
