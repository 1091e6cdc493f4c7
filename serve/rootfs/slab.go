package rootfs

import "rhizome/registry/layerfmt"

// An arena is as much memory as the largest frame takes, and is cut into
// slots of one size class, so that a node's own layer of a few kilobytes does
// not take the room of a megabyte.
const (
	// slack behind an arena lets the decoder write its last bytes in strides.
	slack       = 4096
	arenaStride = layerfmt.MaxFrame + slack
)

// slotSizes are the size classes, smallest first.
var slotSizes = [...]int{32 << 10, 256 << 10, layerfmt.MaxFrame}

// classFor is the smallest class that holds n bytes.
func classFor(n int) int {
	for c, size := range slotSizes {
		if n <= size {
			return c
		}
	}
	return len(slotSizes) - 1
}

// arena is one piece of the cache's memory. All but used is guarded by the
// cache's lock.
type arena struct {
	mem   []byte
	class int
	// slots hold the frames that lie here; nil is a free slot.
	slots []*Frame
	free  int
	// listed says in which of the cache's lists of open arenas this one is.
	listed [len(slotSizes)]bool
	used   usedBit
}

// assign cuts an empty arena into slots of a class.
func (a *arena) assign(class int) {
	n := layerfmt.MaxFrame / slotSizes[class]
	a.class, a.slots, a.free = class, make([]*Frame, n), n
}

// take puts a frame into a free slot and gives it the slot's memory.
func (a *arena) take(f *Frame) bool {
	for i, old := range a.slots {
		if old != nil {
			continue
		}
		size := slotSizes[a.class]
		end := (i + 1) * size
		if i == len(a.slots)-1 {
			end += slack
		}
		a.slots[i], f.arena, f.slot = f, a, i
		f.data = a.mem[i*size : i*size : end]
		a.free--
		return true
	}
	return false
}

// drop frees a slot.
func (a *arena) drop(i int) {
	a.slots[i] = nil
	a.free++
}
