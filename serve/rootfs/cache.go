package rootfs

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"rhizome/registry/layerfmt"
)

// minArenas is the smallest cache: with less, a few readers would push out
// each other's frames before they are read.
const minArenas = 8

// damageRetry is how long a frame that could not be mended is refused before
// it is tried again, so that impatient clients do not become the registry's
// load.
const damageRetry = 5 * time.Second

// Hooks tell others of damage and let them mend it. All may be nil; they are
// called from many goroutines.
type Hooks struct {
	// Repair fetches length bytes at offset of a layer's blob from elsewhere.
	Repair func(layer string, offset, length int64) ([]byte, error)
	// WriteBack stores mended bytes in the blob.
	WriteBack func(layer string, offset int64, b []byte) error
	// Damaged hears of every damaged frame, and whether it was mended.
	Damaged func(e *DamagedError, mended bool)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// CacheStats are counters since the cache was made, and its size now.
type CacheStats struct {
	// Loads counts frames that were read and decoded, Evictions those that
	// made room, Overflows those that found every arena held and went to the
	// heap instead.
	Loads, Evictions, Overflows uint64
	// Damaged counts frames that failed their digest, Mended those of them
	// that were fetched again.
	Damaged, Mended uint64
	// Bytes is the memory in use and Limit the most there will be, in bytes.
	Bytes, Limit int64
}

// Cache holds decoded frames of all layers, in memory of its own outside the
// garbage collector's way. It never grows beyond its size. A frame is decoded
// once for all who ask for it at the same time.
type Cache struct {
	hooks   Hooks
	decoder *layerfmt.Decoder
	packed  sync.Pool // *[]byte, for compressed frames

	mu      sync.Mutex
	arenas  []*arena
	mem     []byte // not yet given out
	given   int    // arenas in use: arenas[:given]
	hand    int    // of the clock
	open    [len(slotSizes)][]*arena
	flights map[*home]*flight
	damage  map[*home]damage

	loads, evictions, overflows, damaged, mended atomic.Uint64
}

// flight is a load that others wait for.
type flight struct {
	done  chan struct{}
	frame *Frame
	err   error
}

type damage struct {
	err   *DamagedError
	until time.Time
}

// NewCache makes a cache of about so many bytes; at least 8 MiB are taken.
func NewCache(bytes int64) *Cache {
	n := max(int(bytes/arenaStride), minArenas)
	mem, release := reserve(n * arenaStride)
	d, err := layerfmt.NewDecoder(runtime.GOMAXPROCS(0))
	if err != nil {
		panic("rootfs: " + err.Error()) // its options are constants
	}
	c := &Cache{decoder: d, mem: mem, arenas: make([]*arena, n), flights: map[*home]*flight{}, damage: map[*home]damage{}}
	c.packed.New = func() any { b := make([]byte, layerfmt.MaxCompressed); return &b }
	runtime.AddCleanup(c, func(release func()) { release() }, release)
	return c
}

// SetHooks hands in what mends and reports damage. It is called before the
// cache is used.
func (c *Cache) SetHooks(h Hooks) { c.hooks = h }

// Stats returns the counters.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	given := c.given
	c.mu.Unlock()
	return CacheStats{
		Loads: c.loads.Load(), Evictions: c.evictions.Load(), Overflows: c.overflows.Load(),
		Damaged: c.damaged.Load(), Mended: c.mended.Load(),
		Bytes: int64(given) * arenaStride, Limit: int64(len(c.arenas)) * arenaStride,
	}
}

func (c *Cache) now() time.Time {
	if c.hooks.Now != nil {
		return c.hooks.Now()
	}
	return time.Now()
}

// place finds room for a frame of n bytes: in a slot that is free, in an arena
// not yet used, in one whose frames go; else on the heap. The caller has the
// lock. The frame is held already, so that it stays where it is put.
func (c *Cache) place(f *Frame, n int) {
	class := classFor(n)
	if c.takeOpen(f, class) {
		return
	}
	a := c.freshArena()
	if a == nil {
		a = c.sweep()
	}
	if a != nil {
		a.assign(class)
		c.list(a)
	}
	if c.takeOpen(f, class) {
		return
	}
	c.overflows.Add(1)
	f.data = make([]byte, 0, n)
}

// takeOpen puts a frame into the last open arena of a class.
func (c *Cache) takeOpen(f *Frame, class int) bool {
	for {
		list := c.open[class]
		if len(list) == 0 {
			return false
		}
		a := list[len(list)-1]
		if a.class == class && a.take(f) {
			a.touch()
			return true
		}
		a.listed[class] = false
		c.open[class] = list[:len(list)-1]
	}
}

// list remembers that an arena has free slots.
func (c *Cache) list(a *arena) {
	if !a.listed[a.class] {
		a.listed[a.class] = true
		c.open[a.class] = append(c.open[a.class], a)
	}
}

func (c *Cache) freshArena() *arena {
	if c.given == len(c.arenas) {
		return nil
	}
	at := c.given * arenaStride
	a := &arena{mem: c.mem[at : at+arenaStride : at+arenaStride]}
	c.arenas[c.given] = a
	c.given++
	return a
}

// sweep is CLOCK: the hand passes over arenas used since its last round and
// empties the first one that was not and that nobody holds. After two rounds
// everything that can be had has been had.
func (c *Cache) sweep() *arena {
	for range 2 * c.given {
		a := c.arenas[c.hand]
		c.hand = (c.hand + 1) % c.given
		if a.used.Swap(false) {
			continue
		}
		if c.empty(a) {
			return a
		}
	}
	return nil
}

// empty evicts an arena's frames, as far as nobody holds them.
func (c *Cache) empty(a *arena) bool {
	for i, f := range a.slots {
		if f != nil && f.evict() {
			a.drop(i)
			c.evictions.Add(1)
		}
	}
	if a.free > 0 {
		c.list(a)
	}
	return a.free == len(a.slots)
}

// letGo evicts a layer's frames, as far as nobody holds them.
func (c *Cache) letGo(frames []home) {
	if c == nil {
		return // a layer in memory
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range frames {
		if f := frames[n].Load(); f != nil && f.evict() {
			c.forget(f)
		}
		delete(c.damage, &frames[n])
	}
}

// forget takes back a frame that could not be loaded. The caller has the lock.
func (c *Cache) forget(f *Frame) {
	if f.arena != nil {
		f.arena.drop(f.slot)
		c.list(f.arena)
	}
}
