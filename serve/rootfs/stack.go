package rootfs

import (
	"fmt"
	"io/fs"
	"runtime"
	"weak"

	"rhizome/registry/layerfmt"
)

// stack is a layer merged over what lies below it. It holds only what the two
// share: the directories that are in both. Everything else falls through to
// the layer that has it. Views with the same layers at the bottom share the
// stacks of those, so a node costs what its own layers touch.
//
// A stack never changes after merge has made it.
type stack struct {
	below *stack // nil under the lowest layer
	layer *Layer
	x     *layerfmt.Index
	ord   uint16 // the layer's ordinal
	// over finds what this layer does to a directory of the layers below.
	over   fileTable
	merged []merged
	// up finds what an inode of this layer really is: a directory that was
	// merged into one below, or a hard link's file. Keys are inodes, in
	// Files of this layer; values stand in files.
	up    fileTable
	files []File
	// nlinks are link counts that differ from those in the indexes: of files
	// below that this layer links to or hides, of directories of its own.
	nlinks    fileTable
	linkCount []uint32
}

// merged is what one layer does to a directory below it.
type merged struct {
	inode layerfmt.Inode // the directory in this layer
	// more is a second directory that leads to the same one below, through a
	// symlink there; 0 is none.
	more   layerfmt.Inode
	opaque bool
	nlink  uint32
	// ghost says that inode only stands for a path through a symlink.
	ghost bool
}

// extend merges a layer over a stack, or returns the stack that did so before
// and that somebody still uses.
func extend(below *stack, l *Layer) (*stack, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := weak.Make(below)
	if s := l.stacks[key].Value(); s != nil {
		return s, nil
	}
	s, err := merge(below, l)
	if err != nil {
		return nil, err
	}
	for k, v := range l.stacks {
		if v.Value() == nil {
			delete(l.stacks, k)
		}
	}
	if l.stacks == nil {
		l.stacks = map[weak.Pointer[stack]]weak.Pointer[stack]{}
	}
	l.stacks[key] = weak.Make(s)
	return s, nil
}

// at returns the stack whose topmost layer has an ordinal, or nil.
func (s *stack) at(ord uint16) *stack {
	for s != nil && s.ord > ord {
		s = s.below
	}
	if s == nil || s.ord != ord {
		return nil
	}
	return s
}

// own is a File of this stack's layer.
func (s *stack) own(i layerfmt.Inode) File { return File{Layer: s.ord, Inode: uint32(i)} }

// real says what an inode of this layer is in the merge.
func (s *stack) real(i layerfmt.Inode) File {
	f := s.own(i)
	if at, ok := s.up.get(f); ok {
		return s.files[at]
	}
	return f
}

// lookup finds a name in a directory of the merge.
func (s *stack) lookup(dir File, name string) (File, error) {
	for ; s != nil; s = s.below {
		if dir.Layer == s.ord {
			return s.lookupOwn(layerfmt.Inode(dir.Inode), name)
		}
		at, ok := s.over.get(dir)
		if !ok {
			continue
		}
		m := &s.merged[at]
		i, kind, found := s.x.Find(m.inode, name)
		if !found && m.more != 0 {
			i, kind, found = s.x.Find(m.more, name)
		}
		switch {
		case found && kind == layerfmt.Whiteout, !found && m.opaque:
			return File{}, fs.ErrNotExist
		case found:
			return s.found(i)
		}
	}
	return File{}, ErrStale
}

// found is real for a name that was looked up.
func (s *stack) found(i layerfmt.Inode) (File, error) {
	f := s.real(i)
	if f == nothing {
		return f, fs.ErrNotExist
	}
	return f, nil
}

func (s *stack) lookupOwn(dir layerfmt.Inode, name string) (File, error) {
	i, kind, ok := s.x.Find(dir, name)
	switch {
	case ok && kind != layerfmt.Whiteout:
		return s.found(i)
	case ok:
		return File{}, fs.ErrNotExist
	}
	k := s.x.Kind(dir)
	runtime.KeepAlive(s)
	switch k {
	case layerfmt.Dir:
		return File{}, fs.ErrNotExist
	case 0:
		return File{}, ErrStale
	}
	return File{}, ErrNotDir
}

// attr returns a file's attributes, its own layer's and what the layers above
// make of them.
func (s *stack) attr(f File) (Attr, error) {
	home := s.at(f.Layer)
	if home == nil {
		return Attr{}, ErrStale
	}
	a := home.x.Attr(layerfmt.Inode(f.Inode))
	switch a.Kind {
	case 0, layerfmt.Whiteout, layerfmt.Link:
		return Attr{}, ErrStale
	case layerfmt.Dir:
		a.Nlink = home.linksOf(f, a.Nlink)
		s.dirAttr(f, &a)
	default:
		a.Nlink = s.linksOf(f, a.Nlink)
	}
	runtime.KeepAlive(s) // here, and not in View.Attr, which would copy the answer
	return Attr{
		Kind: a.Kind, Mode: a.Mode, Nlink: a.Nlink, UID: a.UID, GID: a.GID, Size: a.Size,
		Major: a.Major, Minor: a.Minor, Sec: a.Sec, Nsec: a.Nsec, FileID: f.id(),
	}, nil
}

// dirAttr lays the attributes of the topmost layer that describes a directory
// over a. The link count is that of the topmost layer that touches it.
func (s *stack) dirAttr(f File, a *layerfmt.Attr) {
	counted := false
	for ; s != nil && s.ord > f.Layer; s = s.below {
		at, ok := s.over.get(f)
		if !ok {
			continue
		}
		m := &s.merged[at]
		if !counted {
			a.Nlink, counted = m.nlink, true
		}
		if m.ghost {
			continue
		}
		if u := s.x.Attr(m.inode); !u.Implied {
			nlink := a.Nlink
			*a = u
			a.Nlink = nlink
			return
		}
	}
}

// linksOf is a file's link count in this merge.
func (s *stack) linksOf(f File, n uint32) uint32 {
	for ; s != nil && s.ord >= f.Layer; s = s.below {
		if at, ok := s.nlinks.get(f); ok {
			return s.linkCount[at]
		}
	}
	return n
}

// describer is the layer and inode that describe a file: for a directory, the
// topmost layer's that does.
func (s *stack) describer(f File) (*layerfmt.Index, layerfmt.Inode) {
	for ; s != nil && s.ord > f.Layer; s = s.below {
		if at, ok := s.over.get(f); ok && !s.merged[at].ghost && !s.x.Implied(s.merged[at].inode) {
			return s.x, s.merged[at].inode
		}
	}
	if s == nil || s.ord != f.Layer {
		return nil, 0
	}
	return s.x, layerfmt.Inode(f.Inode)
}

// parent returns the directory that a directory lies in.
func (s *stack) parent(dir File) (File, error) {
	home := s.at(dir.Layer)
	if home == nil {
		return File{}, ErrStale
	}
	i := layerfmt.Inode(dir.Inode)
	switch home.x.Kind(i) {
	case layerfmt.Dir:
		return home.realDir(home.x.Parent(i)), nil
	case 0:
		return File{}, ErrStale
	}
	return File{}, ErrNotDir
}

// realDir is real for a directory that has entries: where the layer's path
// leads through a symlink below, it is the directory behind that.
func (s *stack) realDir(i layerfmt.Inode) File {
	f := s.own(i)
	at, ok := s.up.get(f)
	if !ok {
		return f
	}
	real := s.files[at]
	if a, err := s.attr(real); err == nil && a.Kind == Dir {
		return real
	}
	for n := range s.merged {
		if s.merged[n].more == i || s.merged[n].ghost && s.merged[n].inode == i {
			return s.dirOfMerged(uint32(n))
		}
	}
	return real
}

// dirOfMerged finds the directory below that a merge belongs to.
func (s *stack) dirOfMerged(n uint32) File {
	for at, id := range s.over.keys {
		if id != 0 && s.over.vals[at] == n {
			return fileOf(id)
		}
	}
	return File{}
}

func (s *stack) setReal(i layerfmt.Inode, f File) {
	s.up.put(s.own(i), uint32(len(s.files)))
	s.files = append(s.files, f)
}

// addLinks changes the link count of a file below.
func (s *stack) addLinks(f File, delta int) error {
	a, err := s.below.attr(f)
	if err != nil {
		return err
	}
	s.setLinks(f, uint32(int(s.linksOf(f, a.Nlink))+delta))
	return nil
}

func (s *stack) setLinks(f File, n uint32) {
	at, ok := s.nlinks.get(f)
	if !ok {
		at = uint32(len(s.linkCount))
		s.linkCount = append(s.linkCount, 0)
		s.nlinks.put(f, at)
	}
	s.linkCount[at] = n
}

func (s *stack) wrap(i layerfmt.Inode, err error) error {
	return fmt.Errorf("layer %s, %q: %w", s.layer.digest, s.x.Path(i), err)
}
