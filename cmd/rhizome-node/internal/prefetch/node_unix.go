package prefetch

import (
	"archive/tar"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inParent calls fn with the folder of a name, open, and the last of its parts.
func inParent(root *os.Root, name string, fn func(fd int, base string) error) error {
	d, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return fn(int(d.Fd()), path.Base(name))
}

func setTime(root *os.Root, name string, at time.Time) error {
	return inParent(root, name, func(fd int, base string) error {
		t, err := unix.TimeToTimespec(at)
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(fd, base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

var nodeTypes = map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}

// dress gives an object owner, mode, attributes and time, in this order: each
// can undo the one after.
func dress(root *os.Root, name string, e *Entry, pax map[string]string) error {
	err := inParent(root, name, func(fd int, base string) error {
		if err := unix.Fchownat(fd, base, e.UID, e.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if e.Type == tar.TypeSymlink {
			return nil
		}
		return unix.Fchmodat(fd, base, e.Mode, 0)
	})
	if err != nil {
		return err
	}
	for k, v := range pax {
		if attr, ok := strings.CutPrefix(k, xattrPrefix); ok && e.Type != tar.TypeSymlink {
			setXattr(root, name, attr, v)
		}
	}
	return setTime(root, name, e.MTime)
}

const xattrPrefix = "SCHILY.xattr."

// statOf makes an entry of what is there now, but for the digest, and gives its
// inode and count of links.
func statOf(root *os.Root, name string) (e Entry, ino uint64, links uint64, err error) {
	err = inParent(root, name, func(fd int, base string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		e = Entry{Mode: uint32(st.Mode) & 0o7777, UID: int(st.Uid), GID: int(st.Gid), MTime: time.Unix(st.Mtim.Unix()), Size: st.Size}
		ino, links = st.Ino, uint64(st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			e.Type, e.Size = tar.TypeDir, 0
		case unix.S_IFREG:
			e.Type = tar.TypeReg
		case unix.S_IFLNK:
			e.Type, e.Size = tar.TypeSymlink, 0
		case unix.S_IFIFO:
			e.Type = tar.TypeFifo
		case unix.S_IFCHR, unix.S_IFBLK:
			e.Type = tar.TypeChar
			if st.Mode&unix.S_IFMT == unix.S_IFBLK {
				e.Type = tar.TypeBlock
			}
			e.Major, e.Minor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
		}
		return nil
	})
	return e, ino, links, err
}
