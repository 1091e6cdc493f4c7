package rootfs

import (
	"fmt"
	"path"
	"runtime"

	"rhizome/registry/layerfmt"
)

// Locate finds a path's file like Resolve, but a symlink at its end is what is
// found.
func (v *View) Locate(path string) (File, error) {
	defer runtime.KeepAlive(v)
	r := resolver{s: v.top}
	f, err := r.walk(v.Root(), path, false)
	if err != nil {
		return File{}, fmt.Errorf("%q: %w", path, err)
	}
	return f, nil
}

// MadeBy returns the ordinal of the layer, 0 the lowest, that put a path's
// file there: for a directory that several layers hold, the topmost that
// describes it; for a hard link, the one with the link, whose body may be
// another's. A symlink at the path's end is not followed.
func (v *View) MadeBy(p string) (int, error) {
	defer runtime.KeepAlive(v)
	f, err := v.Locate(p)
	if err != nil {
		return 0, err
	}
	a, err := v.Attr(f)
	if err != nil {
		return 0, err
	}
	if a.Kind == Dir {
		return v.top.describedBy(f), nil
	}
	dir, err := v.Resolve(path.Dir(path.Clean("/" + p)))
	if err != nil {
		return 0, err
	}
	return v.top.namedBy(dir, path.Base(p)), nil
}

// describedBy finds the topmost layer that describes a directory.
func (s *stack) describedBy(dir File) int {
	for ; s != nil && s.ord > dir.Layer; s = s.below {
		if at, ok := s.over.get(dir); ok && !s.merged[at].ghost && !s.x.Implied(s.merged[at].inode) {
			return int(s.ord)
		}
	}
	return int(dir.Layer)
}

// namedBy finds the topmost layer that has a name in a directory.
func (s *stack) namedBy(dir File, name string) int {
	for ; s != nil && s.ord > dir.Layer; s = s.below {
		at, ok := s.over.get(dir)
		if !ok {
			continue
		}
		for _, i := range []layerfmt.Inode{s.merged[at].inode, s.merged[at].more} {
			if _, ok := s.x.Lookup(i, name); ok {
				return int(s.ord)
			}
		}
	}
	return int(dir.Layer)
}
