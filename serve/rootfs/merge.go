package rootfs

import (
	"errors"
	"fmt"
	"io/fs"

	"rhizome/registry/layerfmt"
)

// merge lays a layer over a stack by the rules of OCI layers (image-spec,
// layer.md, "Applying Changesets"). It visits what the layer holds, and what
// of the layers below that hides; never the rest.
func merge(below *stack, l *Layer) (*stack, error) {
	s := &stack{below: below, layer: l, x: l.x}
	if below == nil {
		if !s.special() {
			return s, nil
		}
		return s, s.newDir(layerfmt.Root)
	}
	if below.ord == ^uint16(0) {
		return nil, errors.New("an image of more than 65,536 layers")
	}
	s.ord = below.ord + 1
	if err := s.mergeDir(layerfmt.Root, rootFile, false); err != nil {
		return nil, err
	}
	return s, nil
}

// special says whether a lowest layer holds what needs layers below it to mean
// anything: hard links to their files, and whiteouts.
func (s *stack) special() bool {
	for i := layerfmt.Root; int(i) <= s.x.Len(); i++ {
		if k := s.x.Kind(i); k == layerfmt.Link || k == layerfmt.Whiteout || k == layerfmt.Dir && s.x.Opaque(i) {
			return true
		}
	}
	return false
}

// mergeDir merges a directory of this layer into one below. ghost: the path
// leads there through a symlink below, so the directory itself stays as it is.
func (s *stack) mergeDir(i layerfmt.Inode, dir File, ghost bool) error {
	at, err := s.mergedAt(i, dir, ghost)
	if err != nil {
		return err
	}
	if s.x.Opaque(i) && !s.merged[at].opaque {
		s.merged[at].opaque, s.merged[at].nlink = true, 2
		if err := s.hideChildren(dir); err != nil {
			return err
		}
	}
	opaque := s.merged[at].opaque
	first, n := s.x.Children(i)
	for e := first; e < first+n; e++ {
		d := s.x.Dirent(e)
		old, err := File{}, fs.ErrNotExist
		if !opaque {
			old, err = s.below.lookup(dir, d.Name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = s.addChild(at, d)
		} else if err == nil {
			err = s.replaceChild(at, d, old)
		}
		if err != nil {
			return s.wrap(d.Inode, err)
		}
	}
	return nil
}

// mergedAt makes the record of a directory that both sides have.
func (s *stack) mergedAt(i layerfmt.Inode, dir File, ghost bool) (uint32, error) {
	a, err := s.below.attr(dir)
	if err != nil {
		return 0, err
	}
	at, ok := s.over.get(dir)
	switch {
	case !ok:
		at = uint32(len(s.merged))
		s.merged = append(s.merged, merged{inode: i, nlink: a.Nlink, ghost: ghost})
		s.over.put(dir, at)
	case s.merged[at].more != 0:
		return 0, errors.New("three paths of one layer lead to one directory, through symlinks of the layers below")
	case ghost:
		s.merged[at].more = i
	default:
		s.merged[at].more, s.merged[at].inode, s.merged[at].ghost = s.merged[at].inode, i, false
	}
	if !ghost {
		s.setReal(i, dir)
	}
	return at, nil
}

// addChild takes a name that nothing below has.
func (s *stack) addChild(at uint32, d layerfmt.Dirent) error {
	switch d.Kind {
	case layerfmt.Dir:
		if s.hollow(d.Inode) {
			s.setReal(d.Inode, nothing)
			return nil
		}
		s.merged[at].nlink++
		return s.newDir(d.Inode)
	case layerfmt.Link:
		return s.resolveLink(d.Inode)
	}
	return nil
}

// replaceChild takes a name that lies below as well.
func (s *stack) replaceChild(at uint32, d layerfmt.Dirent, old File) error {
	a, err := s.below.attr(old)
	if err != nil {
		return err
	}
	both := d.Kind == layerfmt.Dir && a.Kind == Dir
	implied := s.x.Implied(d.Inode)
	if both && (implied || !s.x.Opaque(d.Inode)) {
		return s.mergeDir(d.Inode, old, false)
	}
	if d.Kind == layerfmt.Dir && implied && a.Kind == Symlink {
		if done, err := s.follow(d, old); done || err != nil {
			return err
		}
	}
	if err := s.hide(old, a); err != nil {
		return err
	}
	if a.Kind == Dir {
		s.merged[at].nlink--
	}
	return s.addChild(at, d)
}

// follow takes a path of this layer that leads through a symlink below: what
// lies in it belongs where the link leads, as it does for engines that unpack
// one layer over the other. Where it leads nowhere, the directory replaces it.
func (s *stack) follow(d layerfmt.Dirent, link File) (bool, error) {
	parent, err := s.below.linkParent(link)
	if err != nil {
		return false, err
	}
	r := resolver{s: s.below}
	dir, err := r.walk(parent, s.below.at(link.Layer).x.Readlink(layerfmt.Inode(link.Inode)), true)
	if err != nil {
		return false, nil //nolint:nilerr // a dangling link is replaced
	}
	if a, err := s.below.attr(dir); err != nil || a.Kind != Dir {
		return false, err
	}
	s.setReal(d.Inode, link)
	return true, s.mergeDir(d.Inode, dir, true)
}

// linkParent finds the directory that a symlink lies in.
func (s *stack) linkParent(link File) (File, error) {
	home := s.at(link.Layer)
	dir, ok := home.x.DirOf(layerfmt.Inode(link.Inode))
	if !ok {
		return File{}, ErrStale
	}
	return home.realDir(dir), nil
}

// hide takes a file that this layer covers out of the count of its links; of a
// directory, all that lies in it.
func (s *stack) hide(f File, a Attr) error {
	if a.Kind == Dir {
		return s.hideChildren(f)
	}
	if a.Nlink > 1 {
		return s.addLinks(f, -1)
	}
	return nil
}

func (s *stack) hideChildren(dir File) error {
	var failed error
	err := s.below.readDir(dir, 0, func(d Dirent) bool {
		var a Attr
		if a, failed = s.below.attr(d.File); failed == nil {
			failed = s.hide(d.File, a)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// nothing is what a hollow directory really is.
var nothing File

// hollow says whether a directory is there for whiteouts alone: nothing
// described it, and nothing but whiteouts lies in it. Where there is no such
// directory below, they hide nothing, and make none.
func (s *stack) hollow(dir layerfmt.Inode) bool {
	if !s.x.Implied(dir) {
		return false
	}
	first, n := s.x.Children(dir)
	for e := first; e < first+n; e++ {
		d := s.x.Dirent(e)
		if d.Kind != layerfmt.Whiteout && (d.Kind != layerfmt.Dir || !s.hollow(d.Inode)) {
			return false
		}
	}
	return true
}

// newDir takes a directory that is this layer's alone: it resolves the hard
// links in it and leaves out what is hollow.
func (s *stack) newDir(dir layerfmt.Inode) error {
	gone := uint32(0)
	first, n := s.x.Children(dir)
	for e := first; e < first+n; e++ {
		d := s.x.Dirent(e)
		var err error
		switch {
		case d.Kind == layerfmt.Dir && s.hollow(d.Inode):
			s.setReal(d.Inode, nothing)
			gone++
		case d.Kind == layerfmt.Dir:
			err = s.newDir(d.Inode)
		case d.Kind == layerfmt.Link:
			err = s.resolveLink(d.Inode)
		}
		if err != nil {
			return s.wrap(d.Inode, err)
		}
	}
	if gone > 0 {
		s.setLinks(s.own(dir), s.x.Attr(dir).Nlink-gone)
	}
	return nil
}

// resolveLink finds the file below that a hard link of this layer names.
func (s *stack) resolveLink(i layerfmt.Inode) error {
	target := s.x.Readlink(i)
	if s.below == nil {
		return fmt.Errorf("a hard link to %q, which no layer below holds", target)
	}
	r := resolver{s: s.below}
	f, err := r.walk(rootFile, target, false)
	if err != nil {
		return fmt.Errorf("a hard link to %q, which no layer below holds: %w", target, err)
	}
	if a, err := s.below.attr(f); err != nil || a.Kind == Dir {
		return fmt.Errorf("a hard link to %q, which is a directory", target)
	}
	s.setReal(i, f)
	return s.addLinks(f, 1)
}
