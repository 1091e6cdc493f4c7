package layerfmt

import (
	"fmt"
	"math"
	"path"
	"sort"
	"strings"
)

// builder gathers a tar's entries into an index. Its memory grows with the
// number of entries and the length of their names alone.
type builder struct {
	inodes []inode
	dirs   map[Inode]map[string]Inode
	bodies [][32]byte
	xattrs []xattr
	heap   []byte
	seen   map[string]uint32 // strings in the heap that come often
	tars   uint32            // entries of the tar
}

// inode is a record of the index before it is written.
type inode struct {
	kind             Kind
	bits             uint8
	mode             uint16
	uid, gid, nlink  uint32
	size             uint64
	sec              int64
	nsec, flags      uint32
	a                uint64
	b                uint32
	firstXattr, nXat uint32
}

type xattr struct{ name, nameLen, val, valLen uint32 }

// entry is one entry of a tar, its name clean.
type entry struct {
	path string
	inode
	target      string // of a symlink; of a hard link, clean
	hardLink    bool
	flagText    string
	xattrNames  []string // sorted
	xattrValues map[string]string
	bodyAt      uint64
}

func newBuilder() *builder {
	b := &builder{dirs: map[Inode]map[string]Inode{}, seen: map[string]uint32{}, heap: []byte{0, 0}}
	b.newInode(inode{kind: Dir, bits: bitImplied, mode: 0o755, nlink: 2, b: uint32(Root)})
	return b
}

func (b *builder) newInode(n inode) Inode {
	b.inodes = append(b.inodes, n)
	return Inode(len(b.inodes))
}

func (b *builder) at(i Inode) *inode { return &b.inodes[i-1] }

// add takes one entry. It returns the number of the inode that got the
// entry's body, or 0.
func (b *builder) add(e *entry) (Inode, error) {
	switch {
	case b.tars >= MaxEntries:
		return 0, fmt.Errorf("it is one entry more than the %d that a layer holds", MaxEntries)
	case len(b.inodes) >= math.MaxUint32-MaxPath || len(b.heap) > math.MaxUint32-(4<<20):
		return 0, fmt.Errorf("more than %d paths or 4 GiB of names", len(b.inodes))
	}
	b.tars++
	if e.path == "" {
		return 0, b.addRoot(e)
	}
	dirPath, base := path.Split(e.path)
	dir, err := b.implied(strings.TrimSuffix(dirPath, "/"))
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return 0, b.addWhiteout(dir, base)
	}
	return b.addNamed(dir, base, e)
}

func (b *builder) addRoot(e *entry) error {
	if e.kind != Dir {
		return fmt.Errorf("the root cannot be a %s", e.kind)
	}
	return b.describe(Root, e)
}

// implied finds a directory by its clean path and makes what is missing of it.
func (b *builder) implied(dirPath string) (Inode, error) {
	at := Root
	for dirPath != "" {
		var name string
		name, dirPath, _ = strings.Cut(dirPath, "/")
		next, ok := b.dirs[at][name]
		if !ok || b.at(next).kind == Whiteout {
			opaque := uint8(0)
			if ok {
				opaque = bitOpaque
			}
			next = b.link(at, name, b.newInode(inode{kind: Dir, bits: bitImplied | opaque, mode: 0o755, nlink: 2, b: uint32(at)}))
			b.at(at).nlink++
		}
		if k := b.at(next).kind; k != Dir {
			return 0, fmt.Errorf("it lies in %q, which is a %s", name, k)
		}
		at = next
	}
	return at, nil
}

func (b *builder) link(dir Inode, name string, i Inode) Inode {
	m := b.dirs[dir]
	if m == nil {
		m = make(map[string]Inode)
		b.dirs[dir] = m
	}
	m[name] = i
	return i
}

// addWhiteout takes a ".wh." file. Whiteouts hide the layers below and nothing
// of their own layer, whatever the order of the two (OCI image-spec, layer.md):
// beside an entry of that name, a directory is opaque and a file needs none.
func (b *builder) addWhiteout(dir Inode, base string) error {
	if base == opaqueName {
		if dir == Root {
			return fmt.Errorf("a whiteout of the root, which would hide every layer below")
		}
		b.at(dir).bits |= bitOpaque
		return nil
	}
	if strings.HasPrefix(base, aufsPrefix) {
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if !plainName(name) {
		return fmt.Errorf("a whiteout of %q, which is no name", name)
	}
	if i, ok := b.dirs[dir][name]; ok {
		if b.at(i).kind == Dir {
			b.at(i).bits |= bitOpaque
		}
		return nil
	}
	b.link(dir, name, b.newInode(inode{kind: Whiteout}))
	return nil
}

func (b *builder) addNamed(dir Inode, name string, e *entry) (Inode, error) {
	old, exists := b.dirs[dir][name]
	hidden := exists && b.at(old).kind == Whiteout
	switch {
	case exists && !hidden && e.kind == Dir && b.at(old).kind == Dir:
		// A directory may come twice: archivers name one once for every
		// argument that leads to it. The last one counts.
		return 0, b.describe(old, e)
	case exists && !hidden:
		return 0, fmt.Errorf("it comes a second time (first as a %s); which one counts is for whoever made the tar to say", b.at(old).kind)
	case e.hardLink:
		return 0, b.addHardLink(dir, name, e)
	}
	e.nlink = 1
	if e.kind == Dir {
		e.nlink, e.b = 2, uint32(dir)
		if hidden {
			e.bits |= bitOpaque
		}
		b.at(dir).nlink++
	}
	i := b.link(dir, name, b.newInode(e.inode))
	return i, b.fill(i, e)
}

// describe gives an implied or repeated directory its attributes.
func (b *builder) describe(i Inode, e *entry) error {
	n := b.at(i)
	n.bits &^= bitImplied
	n.mode, n.uid, n.gid, n.sec, n.nsec = e.mode, e.uid, e.gid, e.sec, e.nsec
	return b.fill(i, e)
}

// fill puts into the heap what an inode refers to.
func (b *builder) fill(i Inode, e *entry) error {
	n := b.at(i)
	n.flags = b.flags(e.flagText)
	n.firstXattr, n.nXat = uint32(len(b.xattrs)), uint32(len(e.xattrNames))
	for _, name := range e.xattrNames {
		val := e.xattrValues[name]
		b.xattrs = append(b.xattrs, xattr{b.often(name), uint32(len(name)), b.often(val), uint32(len(val))})
	}
	if n.nXat == 0 {
		n.firstXattr = 0
	}
	switch n.kind {
	case Symlink, Link:
		n.size, n.a = uint64(len(e.target)), uint64(b.put(e.target))
	case File:
		n.a, n.b = e.bodyAt, noBody
		if n.size > 0 {
			n.b = uint32(len(b.bodies))
			b.bodies = append(b.bodies, [32]byte{})
		}
	}
	return nil
}

// addHardLink gives a second name to an inode of this layer, or keeps the
// link's text where the file must lie in a layer below.
func (b *builder) addHardLink(dir Inode, name string, e *entry) error {
	i, ok := b.find(e.target)
	if !ok {
		l := b.link(dir, name, b.newInode(inode{kind: Link, nlink: 1}))
		return b.fill(l, e)
	}
	n := b.at(i)
	if n.kind == Dir || n.kind == Whiteout {
		return fmt.Errorf("a hard link to %q, which is a %s", e.target, n.kind)
	}
	n.nlink++
	b.link(dir, name, i)
	return nil
}

func (b *builder) find(p string) (Inode, bool) {
	at := Root
	for p != "" {
		var name string
		name, p, _ = strings.Cut(p, "/")
		next, ok := b.dirs[at][name]
		if !ok {
			return 0, false
		}
		at = next
	}
	return at, true
}

func (b *builder) put(s string) uint32 {
	off := uint32(len(b.heap))
	b.heap = append(b.heap, s...)
	return off
}

// often is put for strings that come again and again.
func (b *builder) often(s string) uint32 {
	off, ok := b.seen[s]
	if !ok {
		off = b.put(s)
		b.seen[strings.Clone(s)] = off
	}
	return off
}

// flags keeps file flags with their length before them; offset 0 is none.
func (b *builder) flags(s string) uint32 {
	if s == "" {
		return 0
	}
	return b.often(string(le.AppendUint16(nil, uint16(len(s)))) + s)
}

// setDigest keeps the digest of the body that inode i got.
func (b *builder) setDigest(i Inode, d [32]byte) { b.bodies[b.at(i).b] = d }

// sortedNames are a directory's names in the order of their bytes.
func (b *builder) sortedNames(dir Inode) []string {
	names := make([]string, 0, len(b.dirs[dir]))
	for n := range b.dirs[dir] {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
