package volume

import (
	"errors"
	"golang.org/x/sys/unix"
)

// fileTypes are the file types of modes, by kind, for mknod(2).
var fileTypes = map[kind]uint32{kindBlock: unix.S_IFBLK, kindChar: unix.S_IFCHR, kindSocket: unix.S_IFSOCK, kindFifo: unix.S_IFIFO}

// create makes an object that only root can use, then gives it its owner and
// its mode: nobody gets at it in between.
func (o *diskObject) create(name string, n *newObject) (object, error) {
	if o.hides(name) {
		return nil, unix.EPERM
	}
	if err := o.d.quota.room(1); err != nil {
		return nil, err
	}
	if err := o.mknod(name, n); err != nil {
		return nil, err
	}
	child, err := o.lookup(name)
	if err != nil {
		return nil, err
	}
	s := setAttrs{hasUID: true, uid: n.uid, hasGID: true, gid: n.gid, hasMode: n.kind != kindSymlink, mode: n.mode}
	if n.stamp != nil {
		s.hasAtime, s.atime, s.hasMtime, s.mtime = true, n.stamp[0], true, n.stamp[1]
	}
	if err := child.set(&s); err != nil {
		child.close()
		return nil, err
	}
	if a, err := child.attr(); err == nil {
		o.d.quota.changed(int64(a.used))
	}
	return child, nil
}

func (o *diskObject) mknod(name string, n *newObject) error {
	switch n.kind {
	case kindRegular:
		fd, err := retry(func() (int, error) {
			return unix.Openat(o.f.path, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		if err == nil {
			unix.Close(fd)
		}
		return err
	case kindDir:
		return unix.Mkdirat(o.f.path, name, 0o700)
	case kindSymlink:
		return unix.Symlinkat(n.target, o.f.path, name)
	}
	return unix.Mknodat(o.f.path, name, fileTypes[n.kind]|0o600, int(unix.Mkdev(n.major, n.minor)))
}

// remove takes a name away, and closes what had it: a file that is kept open
// would keep its blocks.
func (o *diskObject) remove(name string, dir bool) error {
	if o.hides(name) {
		return unix.ENOENT
	}
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	gone := o.d.watch(o.f.path, name)
	return gone(unix.Unlinkat(o.f.path, name, flags))
}

func (o *diskObject) rename(name string, to object, toName string) error {
	target, ok := to.(*diskObject)
	if !ok {
		return unix.EXDEV
	}
	if o.hides(name) || target.hides(toName) {
		return unix.EPERM
	}
	gone := o.d.watch(target.f.path, toName)
	return gone(unix.Renameat(o.f.path, name, target.f.path, toName))
}

func (o *diskObject) link(name string, target object) error {
	t, ok := target.(*diskObject)
	if !ok {
		return unix.EXDEV
	}
	if o.hides(name) {
		return unix.EPERM
	}
	return unix.Linkat(t.f.path, "", o.f.path, name, unix.AT_EMPTY_PATH)
}

// watch looks at what a name means before it is taken away. The result must be
// called after, with how that went, which it passes on; it gives the blocks back
// to the quota if that was the last name.
func (d *disk) watch(dir int, name string) (gone func(error) error) {
	pass := func(err error) error { return err }
	fd, err := d.child(dir, name)
	if err != nil {
		return pass
	}
	o, err := d.object(fd)
	if err != nil {
		return pass
	}
	before, unknown := o.attr()
	return func(err error) error {
		defer o.close()
		if _, now := o.attr(); unknown == nil && errors.Is(now, unix.ESTALE) {
			d.quota.changed(-int64(before.used))
			d.files.forget(string(o.(*diskObject).key))
		}
		return err
	}
}
