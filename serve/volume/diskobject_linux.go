package volume

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// diskObject is a file of a disk.
type diskObject struct {
	d   *disk
	f   *openFile
	key []byte
	// once keeps close from counting twice.
	once sync.Once
}

func (o *diskObject) id(dst []byte) []byte { return append(dst, o.key...) }

func (o *diskObject) close() { o.once.Do(func() { o.d.files.put(string(o.key), o.f) }) }

// diskKinds are the kinds by the file type of a mode.
var diskKinds = map[uint32]kind{unix.S_IFREG: kindRegular, unix.S_IFDIR: kindDir, unix.S_IFBLK: kindBlock,
	unix.S_IFCHR: kindChar, unix.S_IFLNK: kindSymlink, unix.S_IFSOCK: kindSocket, unix.S_IFIFO: kindFifo}

func (o *diskObject) attr() (attr, error) {
	st, err := stat(o.f.path)
	if err != nil {
		return attr{}, err
	}
	if st.Nlink == 0 || st.Dev != o.d.dev {
		return attr{}, unix.ESTALE
	}
	return attr{
		kind: diskKinds[st.Mode&unix.S_IFMT], mode: st.Mode & modeAll, nlink: uint32(st.Nlink), uid: st.Uid, gid: st.Gid,
		size: uint64(st.Size), used: uint64(st.Blocks) * 512, major: unix.Major(st.Rdev), minor: unix.Minor(st.Rdev),
		fileid: st.Ino, atime: diskMoment(st.Atim), mtime: diskMoment(st.Mtim), ctime: diskMoment(st.Ctim),
	}, nil
}

func diskMoment(t unix.Timespec) moment { return moment{t.Sec, uint32(t.Nsec)} }

// set changes the owner first: chown(2) takes setuid off, and the mode is to
// be what was asked for.
func (o *diskObject) set(s *setAttrs) error {
	if s.hasSize {
		if err := o.truncate(int64(s.size)); err != nil {
			return err
		}
	}
	if s.hasUID || s.hasGID {
		uid, gid := -1, -1
		if s.hasUID {
			uid = int(s.uid)
		}
		if s.hasGID {
			gid = int(s.gid)
		}
		if err := unix.Fchownat(o.f.path, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if s.hasMode {
		if err := unix.Fchmodat(unix.AT_FDCWD, procPath(o.f.path), s.mode, 0); err != nil {
			return err
		}
	}
	if s.hasAtime || s.hasMtime {
		return o.setTimes(s)
	}
	return nil
}

func (o *diskObject) setTimes(s *setAttrs) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if s.hasAtime {
		ts[0] = unix.Timespec{Sec: s.atime.Sec, Nsec: int64(s.atime.Nsec)}
	}
	if s.hasMtime {
		ts[1] = unix.Timespec{Sec: s.mtime.Sec, Nsec: int64(s.mtime.Nsec)}
	}
	return unix.UtimesNanoAt(o.f.path, "", ts, unix.AT_EMPTY_PATH)
}

func (o *diskObject) truncate(size int64) error {
	fd, err := o.data()
	if err != nil {
		return err
	}
	before, err := stat(fd)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	return o.charge(fd, &before)
}

// charge tells the quota what a file takes more than before, or less.
func (o *diskObject) charge(fd int, before *unix.Stat_t) error {
	if o.d.quota == nil {
		return nil
	}
	now, err := stat(fd)
	if err == nil {
		o.d.quota.changed((now.Blocks - before.Blocks) * 512)
	}
	return err
}

// data gives a descriptor to read and write a regular file by.
func (o *diskObject) data() (int, error) {
	return o.f.open(func() (int, error) {
		st, err := stat(o.f.path)
		if err != nil {
			return -1, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return -1, unix.EINVAL
		}
		fd, err := o.d.byHandle(o.key, unix.O_RDWR)
		return fd, staleOr(err)
	})
}

func (o *diskObject) readAt(p []byte, off int64) (int, error) {
	fd, err := o.data()
	if err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pread(fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func (o *diskObject) writeAt(p []byte, off int64) error {
	fd, err := o.data()
	if err != nil {
		return err
	}
	before, err := o.beforeWrite(fd)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := retry(func() (int, error) { return unix.Pwrite(fd, p, off) })
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return o.charge(fd, &before)
}

func (o *diskObject) beforeWrite(fd int) (st unix.Stat_t, err error) {
	if o.d.quota == nil {
		return st, nil
	}
	return stat(fd)
}

func (o *diskObject) readlink() (string, error) {
	buf := make([]byte, maxPath)
	n, err := unix.Readlinkat(o.f.path, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// sync is fsync(2). What cannot be opened, such as a symlink, has nothing to
// sync but its name, which is its directory's.
func (o *diskObject) sync() error {
	if fd := o.f.opened(); fd >= 0 { // only regular files are
		return o.f.syncs.wait(func() error { return o.d.files.told(fsync(fd)) })
	}
	st, err := stat(o.f.path)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := o.data()
		if err != nil {
			return err
		}
		return o.f.syncs.wait(func() error { return o.d.files.told(fsync(fd)) })
	case unix.S_IFDIR:
		fd, err := o.openDir()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return o.f.syncs.wait(func() error { return o.d.files.told(fsync(fd)) })
	}
	return nil
}

func fsync(fd int) error {
	_, err := retry(func() (int, error) { return 0, unix.Fsync(fd) })
	return err
}

func (o *diskObject) openDir() (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(o.f.path, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}

func (o *diskObject) lookup(name string) (object, error) {
	if name == "." {
		return o.d.open(o.key)
	}
	if o.hides(name) {
		return nil, unix.ENOENT
	}
	fd, err := o.d.child(o.f.path, name)
	if err != nil {
		return nil, err
	}
	return o.d.object(fd)
}

func (o *diskObject) parent() (object, error) {
	st, err := stat(o.f.path)
	if err != nil {
		return nil, err
	}
	if st.Ino == o.d.top {
		return o.d.root()
	}
	fd, err := unix.Openat(o.f.path, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if st, err = stat(fd); err != nil || st.Dev != o.d.dev {
		unix.Close(fd)
		return nil, unix.ESTALE
	}
	return o.d.object(fd)
}

// list reads the directory anew from the cookie, which is the position that
// the host's file system gave: it keeps those good over changes, as its own
// readers need it to.
func (o *diskObject) list(cookie uint64, fn func(dirent) bool) error {
	fd, err := o.openDir()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Seek(fd, int64(cookie), io.SeekStart); err != nil {
		return statusBadCookie
	}
	self, err := stat(fd)
	if err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil || n == 0 {
			return err
		}
		if !eachDirent(buf[:n], func(d dirent) bool {
			if d.name == ".." && self.Ino == o.d.top {
				d.fileid = self.Ino
			}
			if d.name == stageName && self.Ino == o.d.top {
				return true
			}
			return fn(d)
		}) {
			return nil
		}
	}
}

// eachDirent reads linux_dirent64 records (getdents64(2)).
func eachDirent(b []byte, fn func(dirent) bool) bool {
	for len(b) > direntFixed {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= direntFixed || size > len(b) {
			return true
		}
		name, _, _ := bytes.Cut(b[direntFixed:size], []byte{0})
		d := dirent{string(name), binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])}
		if d.fileid != 0 && !fn(d) {
			return false
		}
		b = b[size:]
	}
	return true
}
