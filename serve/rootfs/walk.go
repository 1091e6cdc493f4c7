package rootfs

import (
	"errors"
	"io/fs"
	"path"
	"runtime"
	"strings"
)

// Walk calls fn for the file at a path, and for all below it where it is a
// directory, in the order of names. A symlink at the path's end is not
// followed. Paths that fn gets begin with "/". fn may return fs.SkipDir for a
// directory; any other error ends the walk.
func (v *View) Walk(root string, fn func(path string, f File, a Attr) error) error {
	defer runtime.KeepAlive(v)
	root = path.Clean("/" + root)
	r := resolver{s: v.top}
	f, err := r.walk(v.Root(), root, false)
	if err != nil {
		return &fs.PathError{Op: "walk", Path: root, Err: err}
	}
	return v.walk(root, f, fn)
}

func (v *View) walk(p string, f File, fn func(string, File, Attr) error) error {
	a, err := v.Attr(f)
	if err != nil {
		return &fs.PathError{Op: "walk", Path: p, Err: err}
	}
	err = fn(p, f, a)
	if errors.Is(err, fs.SkipDir) && a.Kind == Dir {
		return nil
	}
	if err != nil || a.Kind != Dir {
		return err
	}
	var failed error
	err = v.ReadDir(f, 0, func(d Dirent) bool {
		failed = v.walk(strings.TrimSuffix(p, "/")+"/"+d.Name, d.File, fn)
		return failed == nil
	})
	return errors.Join(failed, err)
}
