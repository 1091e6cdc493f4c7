package volume

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
)

// listing is a directory of an overlay, ready to be read from any cookie.
type listing struct{ entries []listed } // by cookie

type listed struct {
	name   string
	id     uint64
	cookie uint64
}

// Cookies of "." and ".."; those of names follow.
const (
	cookieSelf   = 1
	cookieParent = 2
	cookieNames  = 1 << 61
)

// cookieOf is the place of a name in its directory: a hash of the name, so that
// it stays whatever becomes of the other names, over restarts and images.
func cookieOf(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])>>3 | cookieNames
}

// listings keeps the directories that were read last, and how many directories
// lie in each of those that were asked for: counting anew with every name made
// in a large one would take ever longer.
type listings struct {
	mu     sync.Mutex
	dirs   map[uint64]*listing
	counts map[uint64]int
}

func (l *listings) count(dir uint64) (n int, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, known = l.counts[dir]
	return n, known
}

func (l *listings) setCount(dir uint64, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[uint64]int{}
	}
	l.counts[dir] = n
}

// moreDirs notes that a directory has so many directories more, or less.
func (l *listings) moreDirs(dir uint64, by int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, known := l.counts[dir]; known {
		l.counts[dir] = n + by
	}
}

// maxListings is how many directories are kept.
const maxListings = 64

func (l *listings) get(dir uint64) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirs[dir]
}

func (l *listings) put(dir uint64, made *listing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dirs == nil || len(l.dirs) >= maxListings {
		l.dirs = map[uint64]*listing{}
	}
	l.dirs[dir] = made
}

// forget drops the directories whose names a transaction changes.
func (l *listings) forget(tx []change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range tx {
		if c.Dir != 0 {
			delete(l.dirs, c.Dir)
		}
		if c.Drop {
			delete(l.dirs, c.ID)
			delete(l.counts, c.ID)
		}
	}
}

func (l *listings) forgetAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirs, l.counts = nil, nil
}

// list gives a directory's names; o.mu is held, so that nothing changes
// meanwhile.
func (o *overlay) list(dir uint64) *listing {
	if l := o.lists.get(dir); l != nil {
		return l
	}
	l := &listing{}
	o.eachName(dir, func(name string, id uint64, _ kind) {
		l.entries = append(l.entries, listed{name, id, cookieOf(name)})
	})
	slices.SortFunc(l.entries, func(a, b listed) int { return cmp.Compare(a.cookie, b.cookie) })
	o.lists.put(dir, l)
	return l
}

// eachName calls fn for all names of a directory, in no order; o.mu is held.
func (o *overlay) eachName(dir uint64, fn func(name string, id uint64, k kind)) {
	own := o.names[dir]
	if s, err := o.state(dir); err == nil && s.inImage {
		o.base.each(dir, func(name string, id uint64, k kind) {
			if _, changed := own[name]; !changed {
				fn(name, id, o.kindOf(id, k))
			}
		})
	}
	for name, e := range own {
		if e.ID != 0 {
			fn(name, e.ID, o.kindOf(e.ID, 0))
		}
	}
}

// subdirs counts the directories in a directory; o.mu is held.
func (o *overlay) subdirs(dir uint64) int {
	if n, known := o.lists.count(dir); known {
		return n
	}
	n := 0
	o.eachName(dir, func(_ string, _ uint64, k kind) {
		if k == kindDir {
			n++
		}
	})
	o.lists.setCount(dir, n)
	return n
}

// empty tells whether a directory has no name in it; o.mu is held.
func (o *overlay) empty(dir uint64) bool {
	none := true
	o.eachName(dir, func(string, uint64, kind) { none = false })
	return none
}

func (o *overlay) kindOf(id uint64, k kind) kind {
	if rec := o.objects[id]; rec != nil {
		return rec.Kind
	}
	return k
}

// after gives the entries behind a cookie.
func (l *listing) after(cookie uint64) []listed {
	i, _ := slices.BinarySearchFunc(l.entries, cookie, func(e listed, c uint64) int {
		if e.cookie <= c {
			return -1
		}
		return 1
	})
	return l.entries[i:]
}
