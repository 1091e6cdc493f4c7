package rootfs

// fileTable finds a number by a File: open addressing, compact, and read
// without allocating. It is filled once and then only read.
type fileTable struct {
	keys []uint64 // the File's id; 0, which no File has, is free
	vals []uint32
	n    int
}

func (f File) id() uint64 { return uint64(f.Layer)<<32 | uint64(f.Inode) }

func fileOf(id uint64) File { return File{Layer: uint16(id >> 32), Inode: uint32(id)} }

// slotOf spreads ids by Fibonacci hashing.
func slotOf(id uint64, mask uint64) uint64 { return (id * 0x9E3779B97F4A7C15 >> 32) & mask }

func (t *fileTable) get(f File) (uint32, bool) {
	if t.n == 0 || f.Inode == 0 {
		return 0, false
	}
	id, mask := f.id(), uint64(len(t.keys)-1)
	for at := slotOf(id, mask); ; at = (at + 1) & mask {
		switch t.keys[at] {
		case id:
			return t.vals[at], true
		case 0:
			return 0, false
		}
	}
}

func (t *fileTable) put(f File, v uint32) {
	if 4*(t.n+1) > 3*len(t.keys) {
		t.grow()
	}
	if t.insert(f.id(), v) {
		t.n++
	}
}

func (t *fileTable) grow() {
	old := *t
	size := max(8, 2*len(old.keys))
	t.keys, t.vals = make([]uint64, size), make([]uint32, size)
	for i, id := range old.keys {
		if id != 0 {
			t.insert(id, old.vals[i])
		}
	}
}

// insert says whether the id is new.
func (t *fileTable) insert(id uint64, v uint32) bool {
	mask := uint64(len(t.keys) - 1)
	at := slotOf(id, mask)
	for t.keys[at] != 0 && t.keys[at] != id {
		at = (at + 1) & mask
	}
	isNew := t.keys[at] == 0
	t.keys[at], t.vals[at] = id, v
	return isNew
}

// rootFile is the root of every view: the lowest layer's.
var rootFile = File{Layer: 0, Inode: 1}
