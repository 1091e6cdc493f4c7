package rootfs

import (
	"fmt"
	"io/fs"
	"runtime"
	"strings"

	"rhizome/registry/layerfmt"
)

// maxLinks is how many symlinks a path may lead through (MAXSYMLINKS of
// Linux's path_resolution(7)).
const maxLinks = 40

// resolver follows paths inside a merge. Nothing leads out of its root.
type resolver struct {
	s     *stack
	links int
}

// walk follows a path from a directory; last says whether a symlink at its
// end is followed too.
func (r *resolver) walk(at File, path string, last bool) (File, error) {
	if strings.HasPrefix(path, "/") {
		at = rootFile
	}
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		next, err := r.step(at, name)
		if err != nil {
			return File{}, err
		}
		if path = strings.TrimLeft(path, "/"); path != "" || last {
			if next, err = r.follow(at, next); err != nil {
				return File{}, err
			}
		}
		at = next
	}
	return at, nil
}

func (r *resolver) step(dir File, name string) (File, error) {
	switch name {
	case "", ".":
		return dir, nil
	case "..":
		return r.s.parent(dir)
	}
	return r.s.lookup(dir, name)
}

// follow goes through a symlink in dir to what it means.
func (r *resolver) follow(dir, f File) (File, error) {
	home := r.s.at(f.Layer)
	if home == nil || home.x.Kind(layerfmt.Inode(f.Inode)) != layerfmt.Symlink {
		return f, nil
	}
	if r.links++; r.links > maxLinks {
		return File{}, ErrLoop
	}
	return r.walk(dir, home.x.Readlink(layerfmt.Inode(f.Inode)), true)
}

// Resolve follows a path, absolute or relative to the root, and the symlinks
// on it. Absolute symlinks and ".." stay inside the view.
func (v *View) Resolve(path string) (File, error) {
	defer runtime.KeepAlive(v)
	if len(path) > layerfmt.MaxPath {
		return File{}, fmt.Errorf("a path of %d bytes: %w", len(path), fs.ErrInvalid)
	}
	r := resolver{s: v.top}
	f, err := r.walk(v.Root(), path, true)
	if err != nil {
		return File{}, fmt.Errorf("%q: %w", path, err)
	}
	return f, nil
}
