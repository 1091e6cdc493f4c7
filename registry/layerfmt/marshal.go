package layerfmt

import (
	"errors"
	"math"
)

// marshal writes the index. The same entries, frames and DiffID always give
// the same bytes.
func (b *builder) marshal(frames []FrameInfo, diffID [32]byte) ([]byte, error) {
	dirents := b.placeNames()
	size := headLen + len(b.inodes)*inodeLen + len(frames)*frameLen + len(b.bodies)*digestLen +
		len(b.xattrs)*xattrLen + len(dirents) + len(b.heap)
	if size > math.MaxUint32-skippableHead || len(b.heap) > math.MaxUint32 {
		return nil, errors.New("the layer's tree index would pass 4 GiB, the most that a skippable frame holds")
	}
	out := make([]byte, headLen, size)
	copy(out, indexName)
	le.PutUint32(out[headVersion:], indexVersion)
	le.PutUint64(out[headLength:], uint64(size))
	le.PutUint32(out[headInodes:], uint32(len(b.inodes)))
	le.PutUint32(out[headDirents:], uint32(len(dirents)/direntLen))
	le.PutUint32(out[headFrames:], uint32(len(frames)))
	le.PutUint32(out[headXattrs:], uint32(len(b.xattrs)))
	le.PutUint32(out[headBodies:], uint32(len(b.bodies)))
	le.PutUint32(out[headEntries:], b.tars)
	le.PutUint64(out[headHeap:], uint64(len(b.heap)))
	le.PutUint64(out[headStream:], uint64(streamSize(frames)))
	copy(out[headDiffID:], diffID[:])
	le.PutUint64(out[headBytes:], b.bodyBytes())
	out = b.appendArrays(out, frames, dirents)
	le.PutUint32(out[headCRC:], indexCRC(out))
	return out, nil
}

func streamSize(frames []FrameInfo) int64 {
	if len(frames) == 0 {
		return 0
	}
	last := frames[len(frames)-1]
	return last.Stream + int64(last.Plain)
}

// placeNames sorts every directory, puts its names into the heap and says in
// its inode where they are.
func (b *builder) placeNames() []byte {
	var out []byte
	for i := range b.inodes {
		dir := Inode(i + 1)
		n := b.at(dir)
		if n.kind != Dir {
			continue
		}
		names := b.sortedNames(dir)
		n.a = uint64(len(out)/direntLen) | uint64(len(names))<<32
		for _, name := range names {
			child := b.dirs[dir][name]
			out = le.AppendUint32(out, b.put(name))
			out = le.AppendUint32(out, uint32(child))
			out = le.AppendUint16(out, uint16(len(name)))
			out = append(out, byte(b.at(child).kind), 0)
		}
	}
	return out
}

func (b *builder) bodyBytes() uint64 {
	var sum uint64
	for i := range b.inodes {
		if b.inodes[i].kind == File {
			sum += b.inodes[i].size
		}
	}
	return sum
}

func (b *builder) appendArrays(out []byte, frames []FrameInfo, dirents []byte) []byte {
	for i := range b.inodes {
		out = b.inodes[i].append(out)
	}
	for _, f := range frames {
		out = f.append(out)
	}
	for _, d := range b.bodies {
		out = append(out, d[:]...)
	}
	for _, x := range b.xattrs {
		out = le.AppendUint32(out, x.name)
		out = le.AppendUint32(out, x.nameLen)
		out = le.AppendUint32(out, x.val)
		out = le.AppendUint32(out, x.valLen)
	}
	out = append(out, dirents...)
	return append(out, b.heap...)
}

func (n *inode) append(out []byte) []byte {
	out = append(out, byte(n.kind), n.bits)
	out = le.AppendUint16(out, n.mode)
	out = le.AppendUint32(out, n.uid)
	out = le.AppendUint32(out, n.gid)
	out = le.AppendUint32(out, n.nlink)
	out = le.AppendUint64(out, n.size)
	out = le.AppendUint64(out, uint64(n.sec))
	out = le.AppendUint32(out, n.nsec)
	out = le.AppendUint32(out, n.flags)
	out = le.AppendUint64(out, n.a)
	out = le.AppendUint32(out, n.b)
	out = append(out, 0, 0, 0, 0)
	out = le.AppendUint32(out, n.firstXattr)
	return le.AppendUint32(out, n.nXat)
}

func (f FrameInfo) append(out []byte) []byte {
	out = le.AppendUint64(out, uint64(f.Offset))
	out = le.AppendUint64(out, uint64(f.Stream))
	out = le.AppendUint32(out, uint32(f.Length))
	out = le.AppendUint32(out, uint32(f.Plain))
	return append(out, f.Digest[:]...)
}
