package rootfs

import (
	"sync"
	"sync/atomic"
)

// Frame is a decoded frame in the cache, or a piece of a blob that lies in
// none. Whoever holds one keeps it from being evicted, and must Release it once.
type Frame struct {
	// home is the frame's place among its layer's. It does not keep the layer.
	home *home
	// holds counts the holders; it is negative once the frame is evicted.
	holds atomic.Int64
	data  []byte
	// arena and slot say where data lies; arena is nil for the heap.
	arena *arena
	slot  int
	// pool takes a piece of a blob back; nil for all else.
	pool *sync.Pool
}

const evicted = -1 << 40

// home is where a layer finds one of its frames while that is in the cache. The
// cache knows a frame by it, and not by the layer: a layer whose views are gone
// must not stay, open, until the last of its frames is evicted.
type home = atomic.Pointer[Frame]

// hold keeps the frame from being evicted; false means that it is too late.
func (f *Frame) hold() bool {
	for {
		n := f.holds.Load()
		if n < 0 {
			return false
		}
		if f.holds.CompareAndSwap(n, n+1) {
			f.arena.touch()
			return true
		}
	}
}

// Release ends a hold. The frame's bytes must not be looked at afterwards.
// Releasing a nil Frame does nothing.
func (f *Frame) Release() {
	if f != nil && f.holds.Add(-1) == 0 && f.pool != nil {
		f.pool.Put(f)
	}
}

// evict makes the frame unusable, unless somebody holds it. The caller has
// the cache's lock.
func (f *Frame) evict() bool {
	if !f.holds.CompareAndSwap(0, evicted) {
		return false
	}
	f.home.CompareAndSwap(f, nil)
	return true
}

// usedBit is the CLOCK algorithm's bit: used since the hand last passed.
type usedBit struct{ atomic.Bool }

func (a *arena) touch() {
	// Reading first keeps the cache line shared between processors.
	if a != nil && !a.used.Load() {
		a.used.Store(true)
	}
}

// Loan is a piece of a cached frame, not copied. Data is good until Frame is
// released, once for every loan. Frame is nil where the bytes lie elsewhere
// for good; Release knows.
type Loan struct {
	Data  []byte
	Frame *Frame
}
