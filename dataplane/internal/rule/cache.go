package rule

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/kadomori/kadomori/dataplane/internal/mpm"
)

func workers(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// cacheMagic opens a file of the cache; behind it the digest of the key, the digest of the rest, the rest.
const cacheMagic = "KDMHS001"

// cacheSuffix is the ending of the cache's files.
const cacheSuffix = ".hsdb"

// keepUnused is how long a database stays that no set has asked for.
const keepUnused = 14 * 24 * time.Hour

// minCached is the number of patterns below which compiling is faster than reading a file.
const minCached = 16

// dbCache keeps compiled databases by the digest of library version, processor and patterns.
type dbCache struct {
	dir     string
	version string
	mu      sync.Mutex
	used    map[string]bool
}

func openCache(dir string) (*dbCache, error) {
	c := &dbCache{dir: dir, version: mpm.Version(), used: map[string]bool{}}
	if dir == "" {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make cache folder: %w", err)
	}
	return c, nil
}

func (c *dbCache) key(pats []mpm.Pattern) [32]byte {
	h := sha256.New()
	h.Write([]byte(c.version))
	var n [9]byte
	for i := range pats {
		p := &pats[i]
		binary.LittleEndian.PutUint32(n[:], p.ID)
		binary.LittleEndian.PutUint32(n[4:], uint32(len(p.Bytes)))
		n[8] = 0
		if p.NoCase {
			n[8] = 1
		}
		h.Write(n[:])
		h.Write(p.Bytes)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// database gives the database of the patterns. A file that is damaged, or can't be written, costs time and nothing else.
func (c *dbCache) database(pats []mpm.Pattern) (db *mpm.DB, cached bool, err error) {
	if c.dir == "" || len(pats) < minCached {
		db, err = mpm.Compile(pats)
		return db, false, err
	}
	key := c.key(pats)
	name := hex.EncodeToString(key[:]) + cacheSuffix
	c.mu.Lock()
	c.used[name] = true
	c.mu.Unlock()
	path := filepath.Join(c.dir, name)
	if body, ok := readCached(path, key); ok {
		if db, err = mpm.Unmarshal(body); err == nil {
			return db, true, nil
		}
	}
	if db, err = mpm.Compile(pats); err != nil {
		return nil, false, err
	}
	if body, err := db.Marshal(); err == nil {
		writeCached(path, key, body)
	}
	return db, false, nil
}

func readCached(path string, key [32]byte) ([]byte, bool) {
	b, err := os.ReadFile(path)
	const head = len(cacheMagic) + 64
	if err != nil || len(b) <= head || string(b[:len(cacheMagic)]) != cacheMagic || !bytes.Equal(b[len(cacheMagic):len(cacheMagic)+32], key[:]) {
		return nil, false
	}
	body := b[head:]
	sum := sha256.Sum256(body)
	return body, bytes.Equal(sum[:], b[len(cacheMagic)+32:head])
}

// writeCached writes beside the file and renames, so that a torn write is never seen.
func writeCached(path string, key [32]byte, body []byte) {
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return
	}
	sum := sha256.Sum256(body)
	_, e1 := f.Write(append(append([]byte(cacheMagic), key[:]...), sum[:]...))
	_, e2 := f.Write(body)
	e3 := f.Close()
	if e1 != nil || e2 != nil || e3 != nil || os.Rename(f.Name(), path) != nil {
		_ = os.Remove(f.Name())
	}
}

// sweep removes databases that were not asked for in a long time and marks those that were.
func (c *dbCache) sweep() error {
	if c.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("read cache folder: %w", err)
	}
	now := time.Now()
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		info, err := e.Info()
		if err != nil || e.IsDir() {
			continue
		}
		switch {
		case c.used[e.Name()]:
			if now.Sub(info.ModTime()) > keepUnused/4 {
				_ = os.Chtimes(path, now, now)
			}
		case strings.HasSuffix(e.Name(), cacheSuffix) && now.Sub(info.ModTime()) > keepUnused,
			strings.HasPrefix(e.Name(), "new-") && now.Sub(info.ModTime()) > time.Hour:
			_ = os.Remove(path)
		}
	}
	return nil
}
