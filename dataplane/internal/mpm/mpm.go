// Package mpm looks for many literals at once through libhs (Hyperscan or Vectorscan). Package rule builds one database
// per group of rules and buffer and scans with a Scanner per worker. Matches are collected in C and read afterwards, several
// buffers a call, since a callback into Go costs more than the scan. The trap: ids returned by Scan lie in C memory and
// are valid until the Scanner's next scan.
package mpm

/*
#cgo pkg-config: libhs
#cgo noescape kd_scan
#cgo nocallback kd_scan
#cgo noescape kd_scan4
#cgo nocallback kd_scan4
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <hs.h>

#define KD_IDS 4096

typedef struct {
	hs_scratch_t *scratch;
	uint32_t n;
	uint32_t lost;
	uint32_t base;
	uint32_t ids[KD_IDS];
} kd_scanner;

static int kd_hit(unsigned int id, unsigned long long from, unsigned long long to, unsigned int flags, void *ctx) {
	kd_scanner *s = ctx;
	if (s->n == KD_IDS) {
		s->lost++;
		return 1;
	}
	s->ids[s->n++] = s->base + id;
	return 0;
}

static int kd_one(kd_scanner *s, const hs_database_t *db, uint32_t base, uintptr_t p, size_t len) {
	if (db == NULL || len == 0)
		return 0;
	s->base = base;
	int rc = hs_scan(db, (const char *)p, (unsigned int)len, 0, s->scratch, kd_hit, s);
	return rc == HS_SCAN_TERMINATED ? 0 : rc;
}

// kd_scan scans one buffer. It returns 0 or an error of hs_scan.
static int kd_scan(kd_scanner *s, const hs_database_t *db, uint32_t base, uintptr_t p, size_t len) {
	s->n = 0;
	return kd_one(s, db, base, p, len);
}

// kd_scan4 scans up to four buffers; a NULL database is skipped.
static int kd_scan4(kd_scanner *s, const hs_database_t *d0, uint32_t b0, uintptr_t p0, size_t l0,
                    const hs_database_t *d1, uint32_t b1, uintptr_t p1, size_t l1, const hs_database_t *d2,
                    uint32_t b2, uintptr_t p2, size_t l2, const hs_database_t *d3, uint32_t b3, uintptr_t p3,
                    size_t l3) {
	s->n = 0;
	int rc = kd_one(s, d0, b0, p0, l0);
	rc |= kd_one(s, d1, b1, p1, l1);
	rc |= kd_one(s, d2, b2, p2, l2);
	return rc | kd_one(s, d3, b3, p3, l3);
}

static kd_scanner *kd_new(void) { return calloc(1, sizeof(kd_scanner)); }
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// Pattern is one literal.
type Pattern struct {
	ID     uint32
	Bytes  []byte
	NoCase bool
}

// DB is a compiled, read-only set of patterns.
type DB struct {
	db   *C.hs_database_t
	size int
}

// Version names the library and the processor that databases are compiled for; a database is good for one version only.
func Version() string {
	var p C.hs_platform_info_t
	C.hs_populate_platform(&p)
	return fmt.Sprintf("%s tune %d features %x", C.GoString(C.hs_version()), p.tune, uint64(p.cpu_features))
}

// Compile builds a database. Each pattern is reported at most once per scan.
func Compile(patterns []Pattern) (*DB, error) {
	n := len(patterns)
	if n == 0 {
		return nil, errors.New("no patterns")
	}
	total := 0
	for i := range patterns {
		if len(patterns[i].Bytes) == 0 {
			return nil, fmt.Errorf("pattern %d is empty", patterns[i].ID)
		}
		total += len(patterns[i].Bytes)
	}
	text := C.malloc(C.size_t(total))
	exprs := C.malloc(C.size_t(n) * C.size_t(unsafe.Sizeof(uintptr(0))))
	lens := C.malloc(C.size_t(n) * C.size_t(unsafe.Sizeof(C.size_t(0))))
	flags := C.malloc(C.size_t(n) * 4)
	ids := C.malloc(C.size_t(n) * 4)
	for _, m := range []unsafe.Pointer{text, exprs, lens, flags, ids} {
		defer C.free(m)
	}
	all := unsafe.Slice((*byte)(text), total)
	ex := unsafe.Slice((**C.char)(exprs), n)
	ln := unsafe.Slice((*C.size_t)(lens), n)
	fl := unsafe.Slice((*C.uint)(flags), n)
	id := unsafe.Slice((*C.uint)(ids), n)
	at := 0
	for i := range patterns {
		p := &patterns[i]
		copy(all[at:], p.Bytes)
		ex[i] = (*C.char)(unsafe.Add(text, at))
		ln[i] = C.size_t(len(p.Bytes))
		fl[i] = C.HS_FLAG_SINGLEMATCH
		if p.NoCase {
			fl[i] |= C.HS_FLAG_CASELESS
		}
		id[i] = C.uint(p.ID)
		at += len(p.Bytes)
	}
	var (
		db   *C.hs_database_t
		cerr *C.hs_compile_error_t
	)
	rc := C.hs_compile_lit_multi((**C.char)(exprs), (*C.uint)(flags), (*C.uint)(ids), (*C.size_t)(lens), C.uint(n), C.HS_MODE_BLOCK, nil, &db, &cerr)
	if rc != C.HS_SUCCESS {
		msg, which := "error", -1
		if cerr != nil {
			msg, which = C.GoString(cerr.message), int(cerr.expression)
			C.hs_free_compile_error(cerr)
		}
		return nil, fmt.Errorf("compile patterns: %s (pattern %d)", msg, which)
	}
	return wrap(db), nil
}

func wrap(db *C.hs_database_t) *DB {
	d := &DB{db: db}
	var n C.size_t
	C.hs_database_size(db, &n)
	d.size = int(n)
	runtime.SetFinalizer(d, (*DB).free)
	return d
}

func (d *DB) free() {
	if d.db != nil {
		C.hs_free_database(d.db)
		d.db = nil
	}
}

// Size is the database's memory in bytes.
func (d *DB) Size() int { return d.size }

// Marshal gives bytes from which Unmarshal makes the database again, on the same Version.
func (d *DB) Marshal() ([]byte, error) {
	var (
		p *C.char
		n C.size_t
	)
	if rc := C.hs_serialize_database(d.db, &p, &n); rc != C.HS_SUCCESS {
		return nil, fmt.Errorf("serialize database: error %d", int(rc))
	}
	defer C.free(unsafe.Pointer(p))
	runtime.KeepAlive(d)
	return C.GoBytes(unsafe.Pointer(p), C.int(n)), nil
}

// Unmarshal makes a database from the bytes of Marshal. The caller has checked that they are unharmed: the library
// trusts them.
func Unmarshal(b []byte) (*DB, error) {
	if len(b) == 0 {
		return nil, errors.New("deserialize database: no bytes")
	}
	var db *C.hs_database_t
	if rc := C.hs_deserialize_database((*C.char)(unsafe.Pointer(&b[0])), C.size_t(len(b)), &db); rc != C.HS_SUCCESS {
		return nil, fmt.Errorf("deserialize database: error %d", int(rc))
	}
	return wrap(db), nil
}

// Scanner is the memory that scans of one goroutine use.
type Scanner struct {
	s *C.kd_scanner
}

// NewScanner makes a Scanner that can scan with the databases given. Close frees it.
func NewScanner(dbs []*DB) (*Scanner, error) {
	s := &Scanner{s: C.kd_new()}
	if s.s == nil {
		return nil, errors.New("make scanner: out of memory")
	}
	for _, d := range dbs {
		if rc := C.hs_alloc_scratch(d.db, &s.s.scratch); rc != C.HS_SUCCESS {
			s.Close()
			return nil, fmt.Errorf("make scanner: error %d", int(rc))
		}
	}
	return s, nil
}

// Close frees the Scanner.
func (s *Scanner) Close() {
	if s.s == nil {
		return
	}
	if s.s.scratch != nil {
		C.hs_free_scratch(s.s.scratch)
	}
	C.free(unsafe.Pointer(s.s))
	s.s = nil
}

// Lost is how often a scan was cut short because more than 4096 patterns matched.
func (s *Scanner) Lost() uint64 { return uint64(s.s.lost) }

// Job is one buffer to scan. A nil DB or empty Data is skipped. Base is added to the ids found.
type Job struct {
	DB   *DB
	Base uint32
	Data []byte
}

// Scan looks for d's patterns in b and returns base plus the ids found, each once.
func (s *Scanner) Scan(d *DB, base uint32, b []byte) []uint32 {
	if len(b) == 0 {
		return nil
	}
	C.kd_scan(s.s, d.db, C.uint32_t(base), address(b), C.size_t(len(b)))
	runtime.KeepAlive(b)
	return unsafe.Slice((*uint32)(unsafe.Pointer(&s.s.ids[0])), int(s.s.n))
}

// address passes a buffer as a number: a buffer may be part of a larger value with pointers of its own, which the checks
// on pointer arguments refuse although C only reads the bytes and keeps nothing. The caller keeps b alive over the call.
func address(b []byte) C.uintptr_t { return C.uintptr_t(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func (j *Job) args() (*C.hs_database_t, C.uint32_t, C.uintptr_t, C.size_t) {
	if j.DB == nil || len(j.Data) == 0 {
		return nil, 0, 0, 0
	}
	return j.DB.db, C.uint32_t(j.Base), address(j.Data), C.size_t(len(j.Data))
}

// Scan4 does four scans in one call and returns the ids of all of them.
func (s *Scanner) Scan4(j *[4]Job) []uint32 {
	d0, b0, p0, l0 := j[0].args()
	d1, b1, p1, l1 := j[1].args()
	d2, b2, p2, l2 := j[2].args()
	d3, b3, p3, l3 := j[3].args()
	C.kd_scan4(s.s, d0, b0, p0, l0, d1, b1, p1, l1, d2, b2, p2, l2, d3, b3, p3, l3)
	runtime.KeepAlive(j)
	return unsafe.Slice((*uint32)(unsafe.Pointer(&s.s.ids[0])), int(s.s.n))
}
