// Package reads counts what nodes ask of their roots, file by file, for each
// boot and each named job of a node, and works out what a node should hold in
// memory so that it need not ask again.
//
// Counting costs an atomic add for each call and no allocation but the first
// time a file is touched; what is kept, in memory and on disk, is bounded.
package reads

import (
	"sync/atomic"

	"rhizome/serve/rootfs"
)

// Counts are the calls that were made about one file.
type Counts struct {
	// Calls are all but READ, a LOOKUP that found the file among them.
	Calls uint64 `json:"calls,omitempty"`
	// Reads are READ calls, and Bytes what they gave.
	Reads uint64 `json:"reads,omitempty"`
	Bytes uint64 `json:"bytes,omitempty"`
	// Searches are calls that asked a directory for its names, or for a name
	// that it has not.
	Searches uint64 `json:"searches,omitempty"`
}

// All is the number of calls.
func (c Counts) All() uint64 { return c.Calls + c.Reads + c.Searches }

// Add adds the counts of another.
func (c *Counts) Add(o Counts) {
	c.Calls += o.Calls
	c.Reads += o.Reads
	c.Bytes += o.Bytes
	c.Searches += o.Searches
}

// since is what came after an earlier count of the same file.
func (c Counts) since(o Counts) Counts {
	return Counts{c.Calls - o.Calls, c.Reads - o.Reads, c.Bytes - o.Bytes, c.Searches - o.Searches}
}

// Meter counts what one node asks of one root. It is an nfs.Meter.
type Meter struct {
	book  *Book
	owner *node
	root  Root
	// table is that of the boot the node is in; nil before its first call.
	table atomic.Pointer[table]
}

// Called counts a call on a file, or a LOOKUP that found it.
func (m *Meter) Called(f rootfs.File) {
	if c := m.at(f); c != nil {
		c.calls.Add(1)
	}
}

// Read counts a READ of so many bytes.
func (m *Meter) Read(f rootfs.File, bytes int) {
	if c := m.at(f); c != nil {
		c.reads.Add(1)
		c.bytes.Add(uint64(bytes))
	}
}

// Searched counts a call that asked a directory for names.
func (m *Meter) Searched(dir rootfs.File) {
	if c := m.at(dir); c != nil {
		c.searches.Add(1)
	}
}

func (m *Meter) at(f rootfs.File) *cell {
	t := m.table.Load()
	if t == nil {
		t = m.book.begin(m)
	}
	return t.at(f)
}

// cell is a file's counters.
type cell struct {
	calls, reads, searches atomic.Uint32
	bytes                  atomic.Uint64
}

// A chunk is the counters of files that lie side by side in a layer's index:
// the names of one directory, mostly.
const chunkLen = 8

type chunk [chunkLen]cell

// chunkBytes is what a chunk takes of memory.
const chunkBytes = chunkLen * 24

// table is the counters of one boot on one root, made as files are touched.
type table struct {
	layers [][]atomic.Pointer[chunk]
	// room is what is left of the book's memory, shared by all tables.
	room *atomic.Int64
	// full is set when there was none left.
	full *atomic.Bool
}

func newTable(v *rootfs.View, room *atomic.Int64, full *atomic.Bool) *table {
	t := &table{room: room, full: full}
	for _, l := range v.Layers() {
		n := l.Index().Len()/chunkLen + 1
		if room.Add(-int64(n)*8) < 0 {
			room.Add(int64(n) * 8)
			full.Store(true)
			n = 0
		}
		t.layers = append(t.layers, make([]atomic.Pointer[chunk], n))
	}
	return t
}

// at finds a file's counters, or nil where there is no room for them.
func (t *table) at(f rootfs.File) *cell {
	n := f.Inode / chunkLen
	if int(f.Layer) >= len(t.layers) || uint(n) >= uint(len(t.layers[f.Layer])) {
		return nil
	}
	slot := &t.layers[f.Layer][n]
	c := slot.Load()
	if c == nil {
		if c = t.grow(slot); c == nil {
			return nil
		}
	}
	return &c[f.Inode%chunkLen]
}

func (t *table) grow(slot *atomic.Pointer[chunk]) *chunk {
	if t.room.Add(-chunkBytes) < 0 {
		t.room.Add(chunkBytes)
		t.full.Store(true)
		return nil
	}
	if !slot.CompareAndSwap(nil, new(chunk)) {
		t.room.Add(chunkBytes)
	}
	return slot.Load()
}

// free gives the table's memory back.
func (t *table) free() {
	n := int64(0)
	for _, l := range t.layers {
		n += int64(len(l)) * 8
		for i := range l {
			if l[i].Load() != nil {
				n += chunkBytes
			}
		}
	}
	t.room.Add(n)
}

// snapshot is what has been counted so far.
func (t *table) snapshot() map[rootfs.File]Counts {
	out := map[rootfs.File]Counts{}
	for layer, slots := range t.layers {
		for n := range slots {
			if c := slots[n].Load(); c != nil {
				c.collect(out, rootfs.File{Layer: uint16(layer), Inode: uint32(n * chunkLen)})
			}
		}
	}
	return out
}

func (c *chunk) collect(into map[rootfs.File]Counts, first rootfs.File) {
	for i := range c {
		n := Counts{Calls: uint64(c[i].calls.Load()), Reads: uint64(c[i].reads.Load()), Bytes: c[i].bytes.Load(), Searches: uint64(c[i].searches.Load())}
		if n.All() > 0 {
			into[rootfs.File{Layer: first.Layer, Inode: first.Inode + uint32(i)}] = n
		}
	}
}
