package layerfmt

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// indexCRC is the CRC32C of an index with its own field taken as zero.
func indexCRC(data []byte) uint32 {
	c := crc32.Update(0, castagnoli, data[:headCRC])
	c = crc32.Update(c, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(c, castagnoli, data[headCRC+4:])
}

// OpenIndex takes the payload of a blob's index frame and copies nothing.
// Every number in it is checked here, once, so that an index that lies can
// neither make a method panic nor lead a walk in circles.
func OpenIndex(data []byte) (*Index, error) {
	x := &Index{data: data}
	if err := x.checkHead(); err != nil {
		return nil, err
	}
	if err := x.split(); err != nil {
		return nil, err
	}
	// The two halves read the same bytes and know nothing of each other: a
	// large index is open in the time of the longer one.
	crc := make(chan error, 1)
	go func() { crc <- x.checkCRC() }()
	err := x.checkArrays()
	if bad := <-crc; bad != nil {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (x *Index) checkCRC() error {
	if want, got := le.Uint32(x.data[headCRC:]), indexCRC(x.data); want != got {
		return corrupt("the tree index has CRC %08x and says %08x", got, want)
	}
	return nil
}

func (x *Index) checkArrays() error {
	for _, check := range []func() error{x.checkFrames, x.checkXattrs, x.checkInodes, x.checkDirs} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) checkHead() error {
	if len(x.data) < headLen || string(x.data[headName:headVersion]) != indexName {
		return corrupt("no tree index: %d bytes that do not begin with %q", len(x.data), indexName)
	}
	if v := le.Uint32(x.data[headVersion:]); v != indexVersion {
		return corrupt("the tree index has version %d; this version of rhizome reads %d", v, indexVersion)
	}
	if n := le.Uint64(x.data[headLength:]); n != uint64(len(x.data)) {
		return corrupt("the tree index says it has %d bytes and has %d", n, len(x.data))
	}
	return nil
}

// split finds the arrays. Their lengths follow from the counts, and must add
// up to the index's length to the byte.
func (x *Index) split() error {
	h := x.data
	x.nInodes, x.nDirents = le.Uint32(h[headInodes:]), le.Uint32(h[headDirents:])
	x.nFrames, x.nXattrs, x.nBodies = le.Uint32(h[headFrames:]), le.Uint32(h[headXattrs:]), le.Uint32(h[headBodies:])
	heap := le.Uint64(h[headHeap:])
	fixed := headLen + uint64(x.nInodes)*inodeLen + uint64(x.nDirents)*direntLen + uint64(x.nFrames)*frameLen +
		uint64(x.nXattrs)*xattrLen + uint64(x.nBodies)*digestLen
	if heap > math.MaxUint32 || fixed+heap != uint64(len(h)) {
		return corrupt("the tree index's arrays take %d and %d bytes, and there are %d", fixed, heap, len(h))
	}
	rest := h[headLen:]
	take := func(n, width uint64) []byte {
		part := rest[: n*width : n*width]
		rest = rest[n*width:]
		return part
	}
	x.inodes = take(uint64(x.nInodes), inodeLen)
	x.frames = take(uint64(x.nFrames), frameLen)
	x.digests = take(uint64(x.nBodies), digestLen)
	x.xattrs = take(uint64(x.nXattrs), xattrLen)
	x.dirents = take(uint64(x.nDirents), direntLen)
	x.heap = rest
	if x.nInodes == 0 || heap < 2 {
		return corrupt("the tree index has no root")
	}
	return nil
}

// checkFrames wants the frames to follow each other without a gap, in the
// blob and in the tar, and to hold all of it.
func (x *Index) checkFrames() error {
	var blob, stream uint64
	for n := 0; n < int(x.nFrames); n++ {
		r := x.frames[n*frameLen:][:frameLen]
		length, plain := le.Uint32(r[frLen:]), le.Uint32(r[frPlain:])
		if le.Uint64(r[frOffset:]) != blob || le.Uint64(r[frStream:]) != stream {
			return corrupt("frame %d does not begin where the one before it ends", n)
		}
		if plain == 0 || plain > MaxFrame || length == 0 || length > MaxCompressed {
			return corrupt("frame %d has %d bytes for %d; at most %d are allowed", n, length, plain, MaxFrame)
		}
		blob += uint64(length)
		stream += uint64(plain)
	}
	if total := le.Uint64(x.data[headStream:]); total != stream {
		return corrupt("the frames hold %d bytes and the tar has %d", stream, total)
	}
	return nil
}

func (x *Index) checkXattrs() error {
	for n := 0; n < int(x.nXattrs); n++ {
		r := x.xattrs[n*xattrLen:][:xattrLen]
		if !x.inHeap(le.Uint32(r[xaName:]), le.Uint32(r[xaNameLen:])) || !x.inHeap(le.Uint32(r[xaVal:]), le.Uint32(r[xaValLen:])) {
			return corrupt("extended attribute %d lies outside the index", n)
		}
	}
	return nil
}

func (x *Index) inHeap(off, n uint32) bool {
	return uint64(off)+uint64(n) <= uint64(len(x.heap))
}

func (x *Index) checkInodes() error {
	rest := x.inodes
	for i := Root; len(rest) >= inodeLen; i++ {
		r := rest[:inodeLen:inodeLen]
		rest = rest[inodeLen:]
		if err := x.checkShared(i, r); err != nil {
			return err
		}
		if err := x.checkOwn(i, r); err != nil {
			return err
		}
	}
	if Kind(x.rec(Root)[inKind]) != Dir || x.Parent(Root) != Root {
		return corrupt("the root is no directory of its own")
	}
	return nil
}

// checkShared checks what every kind of inode has.
func (x *Index) checkShared(i Inode, r []byte) error {
	flags := le.Uint32(r[inFlags:])
	// Offset 0 is no flags, and always there: split has seen to it.
	if flags != 0 && !x.inHeap(flags, 2) || !x.inHeap(flags+2, uint32(le.Uint16(x.heap[flags:]))) {
		return corrupt("inode %d: its flags lie outside the index", i)
	}
	first, n := le.Uint32(r[inXattrs:]), le.Uint32(r[inXattrs+4:])
	if uint64(first)+uint64(n) > uint64(x.nXattrs) {
		return corrupt("inode %d: its extended attributes lie outside the index", i)
	}
	if le.Uint16(r[inMode:]) > 0o7777 || le.Uint32(r[inNsec:]) > 999999999 {
		return corrupt("inode %d: mode or time out of range", i)
	}
	return nil
}

// checkOwn checks what the kind brings along.
func (x *Index) checkOwn(i Inode, r []byte) error {
	var ok bool
	size := le.Uint64(r[inSize:])
	switch Kind(r[inKind]) {
	case File:
		ok = x.bodyFits(le.Uint64(r[inA:]), size, le.Uint32(r[inB:]))
	case Symlink, Link:
		ok = size <= MaxPath && x.inHeap(le.Uint32(r[inA:]), uint32(size))
	case Dir:
		parent := le.Uint32(r[inB:])
		ok = parent >= 1 && parent < uint32(i) || i == Root && parent == 1
		ok = ok && uint64(le.Uint32(r[inA:]))+uint64(le.Uint32(r[inA+4:])) <= uint64(x.nDirents)
	case Char, Block, Fifo, Whiteout:
		ok = size == 0
	default:
		return corrupt("inode %d is of unknown kind %d", i, r[inKind])
	}
	if !ok {
		return corrupt("inode %d: a %s whose size or place cannot be", i, Kind(r[inKind]))
	}
	return nil
}

func (x *Index) bodyFits(off, size uint64, digest uint32) bool {
	if size == 0 {
		return digest == noBody
	}
	stream := le.Uint64(x.data[headStream:])
	return off <= stream && size <= stream-off && digest < x.nBodies
}

// checkDirs wants the directories' names to follow each other in the order of
// the directories, every directory's names to be names, in order and once, and
// a directory to lie in the one it calls its parent. Since a parent's number
// is lower than its child's, that leaves no circles.
func (x *Index) checkDirs() error {
	next, clean, lengths := 0, x.cleanFrom(), make([]uint16, x.nInodes)
	for i := Inode(1); uint32(i) <= x.nInodes; i++ {
		if Kind(x.rec(i)[inKind]) != Dir {
			continue
		}
		first, n := x.Children(i)
		if first != next {
			return corrupt("directory %d: its names do not follow those of the one before", i)
		}
		next += n
		if err := x.checkDir(i, first, n, clean); err != nil {
			return err
		}
		if err := x.checkPaths(i, lengths); err != nil {
			return err
		}
	}
	if next != int(x.nDirents) {
		return corrupt("%d names lie in no directory", int(x.nDirents)-next)
	}
	return nil
}

// cleanFrom says from which offset on the heap holds no byte that a name must
// not have. Our writer puts the names last, and so two quick looks at all of
// them spare a slow one at each; elsewhere it is the heap's end.
func (x *Index) cleanFrom() uint32 {
	if x.nDirents > 0 {
		from := le.Uint32(x.dirents[deName:])
		if names := x.heap[min(int(from), len(x.heap)):]; bytes.IndexByte(names, '/') < 0 && bytes.IndexByte(names, 0) < 0 {
			return from
		}
	}
	return uint32(len(x.heap))
}

func (x *Index) checkDir(dir Inode, first, n int, clean uint32) error {
	before, head := "", uint64(0)
	rest := x.dirents[first*direntLen : (first+n)*direntLen]
	for len(rest) >= direntLen {
		r := rest[:direntLen:direntLen]
		rest = rest[direntLen:]
		off, length := le.Uint32(r[deName:]), uint32(le.Uint16(r[deLen:]))
		if !x.inHeap(off, length) {
			return corrupt("directory %d: a name lies outside the index", dir)
		}
		name, was := x.str(off, length), head
		head = x.head(off, length)
		if head < was || head == was && name <= before || !nameShape(name) || off < clean && !plainName(name) {
			return corrupt("directory %d: the name %q is out of order or no name", dir, name)
		}
		before = name
		if inode := Inode(le.Uint32(r[deInode:])); !x.agrees(dir, inode, Kind(r[deKind])) {
			return corrupt("directory %d: %q is not what its inode %d says", dir, name, inode)
		}
	}
	return nil
}

// checkPaths wants no path to be longer than a tar's may be. lengths are those of
// the directories' paths, a slash behind each; a directory's is known when its
// turn comes, for it is numbered higher than its parent. Whoever walks down the
// index goes no deeper than that.
func (x *Index) checkPaths(dir Inode, lengths []uint16) error {
	first, n := x.Children(dir)
	for at := first; at < first+n; at++ {
		r := x.dirents[at*direntLen:][:direntLen]
		length := int(lengths[dir-1]) + int(le.Uint16(r[deLen:]))
		if length > MaxPath {
			return corrupt("directory %d: a path of %d bytes lies in it; at most %d are allowed", dir, length, MaxPath)
		}
		if Kind(r[deKind]) == Dir {
			lengths[le.Uint32(r[deInode:])-1] = uint16(length) + 1
		}
	}
	return nil
}

// head is a name's first eight bytes as a number, filled up with zeros: where
// two names' heads differ, they are ordered as the names are.
func (x *Index) head(off, length uint32) uint64 {
	var b [8]byte
	if uint64(off)+8 <= uint64(len(x.heap)) {
		b = [8]byte(x.heap[off:])
	} else {
		copy(b[:], x.heap[off:])
	}
	return binary.BigEndian.Uint64(b[:]) &^ (^uint64(0) >> (8 * min(length, 8)))
}

// agrees says whether an inode is of the kind that a name in a directory says,
// and a directory's parent the one that holds the name.
func (x *Index) agrees(dir, inode Inode, k Kind) bool {
	r := x.rec(inode)
	if r == nil || Kind(r[inKind]) != k {
		return false
	}
	return k != Dir || le.Uint32(r[inB:]) == uint32(dir) && inode != Root
}
