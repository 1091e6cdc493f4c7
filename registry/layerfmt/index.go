package layerfmt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// ErrCorrupt is matched by every error that says that a blob, an index, a
// seek table or a frame is not what it should be.
var ErrCorrupt = errors.New("corrupt layer")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

var le = binary.LittleEndian

// Index is a layer's tree index, used where it lies: every method reads the
// bytes that OpenIndex was given. It is safe for use by many goroutines.
//
// Strings that methods return share those bytes. Where the bytes are a mapped
// file, clone a string (strings.Clone) that shall outlive the mapping.
type Index struct {
	data []byte
	// The arrays inside data, and how many records each holds.
	inodes, dirents, frames, xattrs, digests, heap []byte

	nInodes, nDirents, nFrames, nXattrs, nBodies uint32
}

// Attr is what the index says of an inode.
type Attr struct {
	Kind Kind
	// Mode holds the permission bits with setuid, setgid and sticky (07777).
	Mode, UID, GID, Nlink uint32
	// Size is the length of the body, or of a symlink's text, in bytes.
	Size uint64
	// Sec and Nsec are the modification time since 1970.
	Sec  int64
	Nsec uint32
	// Major and Minor number a device.
	Major, Minor uint32
	// Opaque directories hide what lies in them in the layers below.
	Opaque bool
	// Implied directories are described by nothing: something lies in them.
	Implied bool
}

// Dirent is one name of a directory.
type Dirent struct {
	Name  string
	Inode Inode
	Kind  Kind
}

// FrameInfo is one frame of the blob.
type FrameInfo struct {
	// Offset and Length are the frame's place in the blob.
	Offset int64
	Length int
	// Stream and Plain are its place in the uncompressed tar.
	Stream int64
	Plain  int
	// Digest is the sha256 of the compressed bytes.
	Digest [32]byte
}

// Len counts the inodes; they are numbered 1 to Len.
func (x *Index) Len() int { return int(x.nInodes) }

// Bytes is the index as it lies in the blob.
func (x *Index) Bytes() []byte { return x.data }

// Entries counts the tar's entries.
func (x *Index) Entries() int { return int(le.Uint32(x.data[headEntries:])) }

// StreamSize is the length of the uncompressed tar in bytes.
func (x *Index) StreamSize() int64 { return int64(le.Uint64(x.data[headStream:])) }

// BodyBytes sums the sizes of the layer's files.
func (x *Index) BodyBytes() uint64 { return le.Uint64(x.data[headBytes:]) }

// DiffID is the sha256 of the uncompressed tar.
func (x *Index) DiffID() [32]byte { return [32]byte(x.data[headDiffID:]) }

// rec returns an inode's record, or nil where there is no such inode.
func (x *Index) rec(i Inode) []byte {
	at := uint32(i) - 1
	if at >= x.nInodes {
		return nil
	}
	off := int(at) * inodeLen
	return x.inodes[off : off+inodeLen : off+inodeLen]
}

// Kind is an inode's kind; 0 where there is no such inode.
func (x *Index) Kind(i Inode) Kind {
	r := x.rec(i)
	if r == nil {
		return 0
	}
	return Kind(r[inKind])
}

// Attr returns an inode's attributes; Kind is 0 where there is no such inode.
func (x *Index) Attr(i Inode) Attr {
	r := x.rec(i)
	if r == nil {
		return Attr{}
	}
	a := Attr{
		Kind: Kind(r[inKind]), Mode: uint32(le.Uint16(r[inMode:])),
		UID: le.Uint32(r[inUID:]), GID: le.Uint32(r[inGID:]), Nlink: le.Uint32(r[inNlink:]),
		Size: le.Uint64(r[inSize:]), Sec: int64(le.Uint64(r[inSec:])), Nsec: le.Uint32(r[inNsec:]),
		Opaque: r[inBits]&bitOpaque != 0, Implied: r[inBits]&bitImplied != 0,
	}
	if a.Kind == Char || a.Kind == Block {
		a.Major, a.Minor = le.Uint32(r[inA:]), le.Uint32(r[inA+4:])
	}
	return a
}

// Opaque says whether a directory hides what lies in it in the layers below.
func (x *Index) Opaque(dir Inode) bool {
	r := x.rec(dir)
	return r != nil && r[inBits]&bitOpaque != 0
}

// Implied says whether nothing described a directory.
func (x *Index) Implied(dir Inode) bool {
	r := x.rec(dir)
	return r != nil && r[inBits]&bitImplied != 0
}

// Parent returns the directory that a directory lies in; the root's is the
// root. For anything else it is 0.
func (x *Index) Parent(dir Inode) Inode {
	r := x.rec(dir)
	if r == nil || Kind(r[inKind]) != Dir {
		return 0
	}
	return Inode(le.Uint32(r[inB:]))
}

// Readlink returns the text of a Symlink, or the path that a Link names.
func (x *Index) Readlink(i Inode) string {
	r := x.rec(i)
	if r == nil || Kind(r[inKind]) != Symlink && Kind(r[inKind]) != Link {
		return ""
	}
	return x.str(le.Uint32(r[inA:]), uint32(le.Uint64(r[inSize:])))
}

// Flags returns the FreeBSD file flags, "schg,uarch", or "".
func (x *Index) Flags(i Inode) string {
	r := x.rec(i)
	if r == nil {
		return ""
	}
	off := le.Uint32(r[inFlags:])
	return x.str(off+2, uint32(le.Uint16(x.heap[off:])))
}

// Xattrs returns an inode's extended attributes by their full names, or nil.
func (x *Index) Xattrs(i Inode) map[string]string {
	r := x.rec(i)
	if r == nil || le.Uint32(r[inXattrs+4:]) == 0 {
		return nil
	}
	first, n := le.Uint32(r[inXattrs:]), le.Uint32(r[inXattrs+4:])
	m := make(map[string]string, n)
	for at := first; at < first+n; at++ {
		e := x.xattrs[int(at)*xattrLen:]
		m[x.str(le.Uint32(e[xaName:]), le.Uint32(e[xaNameLen:]))] = x.str(le.Uint32(e[xaVal:]), le.Uint32(e[xaValLen:]))
	}
	return m
}

// Body returns where a file's body lies in the uncompressed tar. ok is false
// for what is not a file.
func (x *Index) Body(i Inode) (offset, size int64, ok bool) {
	r := x.rec(i)
	if r == nil || Kind(r[inKind]) != File {
		return 0, 0, false
	}
	return int64(le.Uint64(r[inA:])), int64(le.Uint64(r[inSize:])), true
}

// emptyDigest is the sha256 of nothing.
var emptyDigest = [32]byte{
	0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
	0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
}

// BodyDigest returns the sha256 of a file's body; ok is false for what is not
// a file.
func (x *Index) BodyDigest(i Inode) (d [32]byte, ok bool) {
	r := x.rec(i)
	if r == nil || Kind(r[inKind]) != File {
		return d, false
	}
	at := le.Uint32(r[inB:])
	if at == noBody {
		return emptyDigest, true
	}
	return [32]byte(x.digests[int(at)*digestLen:]), true
}

// Children returns a directory's names as a range of entries for Dirent, in
// the order of the names' bytes.
func (x *Index) Children(dir Inode) (first, count int) {
	r := x.rec(dir)
	if r == nil || Kind(r[inKind]) != Dir {
		return 0, 0
	}
	return int(le.Uint32(r[inA:])), int(le.Uint32(r[inA+4:]))
}

// Dirent returns one entry of the range that Children gave.
func (x *Index) Dirent(at int) Dirent {
	if uint(at) >= uint(x.nDirents) {
		return Dirent{}
	}
	e := x.dirents[at*direntLen:][:direntLen]
	return Dirent{
		Name:  x.str(le.Uint32(e[deName:]), uint32(le.Uint16(e[deLen:]))),
		Inode: Inode(le.Uint32(e[deInode:])), Kind: Kind(e[deKind]),
	}
}

// Lookup finds a name in a directory. It finds whiteouts and links too.
func (x *Index) Lookup(dir Inode, name string) (Inode, bool) {
	i, _, ok := x.Find(dir, name)
	return i, ok
}

// Find is Lookup with the kind of what it finds.
func (x *Index) Find(dir Inode, name string) (Inode, Kind, bool) {
	at, ok := x.Search(dir, name)
	if !ok {
		return 0, 0, false
	}
	e := x.dirents[at*direntLen:][:direntLen]
	return Inode(le.Uint32(e[deInode:])), Kind(e[deKind]), true
}

// Search returns the place of a name among a directory's entries, or the
// place of the first name after it.
func (x *Index) Search(dir Inode, name string) (at int, found bool) {
	first, n := x.Children(dir)
	lo, hi := first, first+n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if x.nameAt(mid) < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < first+n && x.nameAt(lo) == name
}

func (x *Index) nameAt(at int) string {
	e := x.dirents[at*direntLen:][:direntLen]
	return x.str(le.Uint32(e[deName:]), uint32(le.Uint16(e[deLen:])))
}

// str is a string in the heap, not copied. OpenIndex has checked the bounds
// of every reference; slicing checks them again.
func (x *Index) str(off, n uint32) string {
	b := x.heap[off : uint64(off)+uint64(n)]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// Frames counts the frames that hold the tar.
func (x *Index) Frames() int { return int(x.nFrames) }

// Frame returns one frame, 0 to Frames()-1.
func (x *Index) Frame(n int) FrameInfo {
	r := x.frames[n*frameLen:][:frameLen]
	return FrameInfo{
		Offset: int64(le.Uint64(r[frOffset:])), Length: int(le.Uint32(r[frLen:])),
		Stream: int64(le.Uint64(r[frStream:])), Plain: int(le.Uint32(r[frPlain:])),
		Digest: [32]byte(r[frDigest:]),
	}
}

// FrameFor returns the number of the frame that holds a byte of the
// uncompressed tar, or -1 where the offset lies outside.
func (x *Index) FrameFor(offset int64) int {
	if offset < 0 || offset >= x.StreamSize() {
		return -1
	}
	lo, hi := 0, int(x.nFrames)
	for hi-lo > 1 {
		mid := int(uint(lo+hi) >> 1)
		if int64(le.Uint64(x.frames[mid*frameLen+frStream:])) <= offset {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// Path finds a path that leads to an inode, without a slash before it; the
// root's is ".". It looks through the whole index: it is for messages.
func (x *Index) Path(i Inode) string {
	dir, name := x.nameOf(i)
	if i == Root || dir == 0 {
		return "."
	}
	if dir == Root {
		return name
	}
	return x.Path(dir) + "/" + name
}

// nameOf finds the first directory that holds an inode, and the name.
func (x *Index) nameOf(i Inode) (dir Inode, name string) {
	for d := Root; uint32(d) <= x.nInodes; d++ {
		first, n := x.Children(d)
		for at := first; at < first+n; at++ {
			if e := x.Dirent(at); e.Inode == i {
				return d, e.Name
			}
		}
	}
	return 0, ""
}

// DirOf finds a directory that holds an inode. It looks through the whole
// index for what is not a directory itself.
func (x *Index) DirOf(i Inode) (Inode, bool) {
	if p := x.Parent(i); p != 0 {
		return p, true
	}
	dir, _ := x.nameOf(i)
	return dir, dir != 0
}
