package export

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rhizome/serve/rootfs"

	"golang.org/x/sys/unix"
)

// Dir writes the root into a folder that it makes. It needs root: files belong
// to the users that they belong to on the node. Flags of FreeBSD's files are
// left out; a tar keeps them.
func Dir(to string, v *rootfs.View) error {
	d := dirWriter{to: to, view: v, first: map[rootfs.File]string{}}
	if err := v.Walk("/", d.add); err != nil {
		return err
	}
	return d.settleDirs()
}

type dirWriter struct {
	to    string
	view  *rootfs.View
	first map[rootfs.File]string
	dirs  []madeDir
}

// madeDir is a folder whose mode and times are set when it is full.
type madeDir struct {
	path string
	attr rootfs.Attr
}

func (d *dirWriter) add(p string, f rootfs.File, a rootfs.Attr) error {
	at := filepath.Join(d.to, p)
	if err := d.place(at, f, a); err != nil {
		return fmt.Errorf("writing %q: %w", p, err)
	}
	return nil
}

func (d *dirWriter) place(at string, f rootfs.File, a rootfs.Attr) error {
	if before, ok := d.first[f]; ok && a.Kind != rootfs.Dir {
		return os.Link(before, at)
	}
	if a.Nlink > 1 && a.Kind != rootfs.Dir {
		d.first[f] = at
	}
	if err := d.create(at, f, a); err != nil {
		return err
	}
	if err := os.Lchown(at, int(a.UID), int(a.GID)); err != nil {
		return fmt.Errorf("%w; owners are kept only for root, or with --format tar", err)
	}
	if err := d.setXattrs(at, f); err != nil || a.Kind == rootfs.Dir {
		return err
	}
	return settle(at, a)
}

func (d *dirWriter) create(at string, f rootfs.File, a rootfs.Attr) error {
	switch a.Kind {
	case rootfs.Dir:
		d.dirs = append(d.dirs, madeDir{at, a})
		return os.Mkdir(at, 0o700)
	case rootfs.Symlink:
		target, err := d.view.Readlink(f)
		if err != nil {
			return err
		}
		return os.Symlink(target, at)
	case rootfs.Regular:
		return d.createFile(at, f)
	}
	return mknod(at, a)
}

func (d *dirWriter) createFile(at string, f rootfs.File) error {
	out, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyBody(out, d.view, f), out.Close())
}

func (d *dirWriter) setXattrs(at string, f rootfs.File) error {
	attrs, err := d.view.Xattrs(f)
	if err != nil {
		return err
	}
	for name, value := range attrs {
		if err := lsetxattr(at, name, []byte(value)); err != nil {
			return fmt.Errorf("setting the attribute %q: %w", name, err)
		}
	}
	return nil
}

// settle sets what writing would change: the mode, which a change of owner cuts,
// and the time.
func settle(at string, a rootfs.Attr) error {
	if a.Kind != rootfs.Symlink {
		if err := unix.Chmod(at, a.Mode); err != nil {
			return err
		}
	}
	when, err := unix.TimeToTimespec(time.Unix(a.Sec, int64(a.Nsec)))
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW)
}

func (d *dirWriter) settleDirs() error {
	for i := len(d.dirs) - 1; i >= 0; i-- {
		if err := settle(d.dirs[i].path, d.dirs[i].attr); err != nil {
			return err
		}
	}
	return nil
}
