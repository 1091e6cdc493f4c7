package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageBuilder makes the new state of one unit: folders anew, what did not
// change as hard links to the old files (so that open handles stay good), and
// what did as new files, so that no byte of the old state changes.
type stageBuilder struct {
	*diskStage
	ctx context.Context
	// unit is the export's path, name that in the stage.
	unit, name string
	by         map[string]*regionChange
	// dirs get their owner, mode and time when all is in them.
	dirs []stagedDir
}

type stagedDir struct {
	path           string // in the stage
	mode, uid, gid uint32
	mtime          moment
}

// staged is the place in the stage of a path of the export.
func (b *stageBuilder) staged(p string) string { return b.name + strings.TrimPrefix(p, b.unit) }

func (b *stageBuilder) build(changes []regionChange) (ino uint64, err error) {
	old, err := b.d.beneath(b.unit, unix.O_PATH)
	if err != nil {
		return 0, err
	}
	defer unix.Close(old)
	st, err := stat(old)
	if err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := b.folder(b.unit, &st); err != nil {
			return 0, err
		}
	}
	for i := range changes {
		c := &changes[i]
		if c.removed || !strings.HasPrefix(c.path+"/", b.unit+"/") {
			continue
		}
		if err := b.apply(c); err != nil {
			return 0, fmt.Errorf("%q: %w", c.path, err)
		}
		b.step("built")
	}
	for _, d := range slices.Backward(b.dirs) {
		if err := b.finishDir(d); err != nil {
			return 0, err
		}
	}
	info, err := b.here.Lstat(b.name)
	if err != nil {
		return 0, err
	}
	return inodeOf(info), nil
}

// folder makes a folder anew, with links to all in it that stays.
func (b *stageBuilder) folder(at string, st *unix.Stat_t) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if err := b.here.Mkdir(b.staged(at), 0o700); err != nil {
		return err
	}
	if c := b.by[at]; c == nil {
		b.dirs = append(b.dirs, stagedDir{b.staged(at), st.Mode & modeAll, st.Uid, st.Gid, diskMoment(st.Mtim)})
	}
	old, err := b.d.beneath(at, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(old), at)
	defer from.Close()
	to, err := b.here.Open(b.staged(at))
	if err != nil {
		return err
	}
	defer to.Close()
	if err := copyXattrs(int(from.Fd()), int(to.Fd()), true); err != nil {
		return err
	}
	names, err := from.Readdirnames(-1)
	for _, name := range names {
		if err := b.carry(from, to, at, name); err != nil {
			return err
		}
	}
	return err
}

// carry takes over one name of a folder, unless it changes.
func (b *stageBuilder) carry(from, to *os.File, at, name string) error {
	p := path.Join(at, name)
	c := b.by[p]
	if c != nil && (c.removed || c.kind != kindDir) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return b.folder(p, &st)
	}
	if c != nil {
		return nil // a folder will be in its place
	}
	err := unix.Linkat(int(from.Fd()), name, int(to.Fd()), name, 0)
	if errors.Is(err, unix.EMLINK) && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return b.copyOld(&regionChange{path: p, mode: st.Mode & modeAll, uid: st.Uid, gid: st.Gid, mtime: diskMoment(st.Mtim), meta: true})
	}
	return err
}

// apply makes what a change says.
func (b *stageBuilder) apply(c *regionChange) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	at := b.staged(c.path)
	switch {
	case c.kind == kindDir:
		err := b.here.Mkdir(at, 0o700)
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		b.dirs = append(b.dirs, stagedDir{at, c.mode, c.uid, c.gid, c.mtime})
		return err
	case c.link != "":
		return b.here.Link(b.staged(c.link), at)
	case c.kind == kindRegular && c.meta:
		return b.copyOld(c)
	case c.kind == kindRegular:
		return b.write(c)
	}
	return b.special(c, at)
}

// write makes a file with the bytes that came.
func (b *stageBuilder) write(c *regionChange) error {
	f, err := b.here.OpenFile(b.staged(c.path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := b.spool.Seek(c.offset, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(f, b.spool, c.size); err != nil {
		return err
	}
	return b.dress(f, c, false)
}

// copyOld makes a file with the bytes of the old one.
func (b *stageBuilder) copyOld(c *regionChange) error {
	fd, err := b.d.beneath(c.path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	old := os.NewFile(uintptr(fd), c.path)
	defer old.Close()
	info, err := old.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return wrong("%q is no file whose bytes could stay", c.path)
	}
	f, err := b.here.OpenFile(b.staged(c.path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, old); err != nil {
		return err
	}
	return b.dress(f, c, true)
}

// dress gives a new file its owner, mode, attributes and time. Extended
// attributes that the node does not know of stay, but for capabilities of other
// bytes than those they were given to.
func (b *stageBuilder) dress(f *os.File, c *regionChange, sameBytes bool) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(c.uid), int(c.gid)); err != nil {
		return err
	}
	if c.xattrs == nil {
		if old, err := b.d.beneath(c.path, unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
			err = copyXattrs(old, fd, sameBytes)
			unix.Close(old)
			if err != nil {
				return err
			}
		}
	}
	for name, value := range c.xattrs {
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return fmt.Errorf("setting its attribute %q: %w", name, err)
		}
	}
	if err := unix.Fchmod(fd, c.mode); err != nil {
		return err
	}
	if st, err := stat(fd); err == nil {
		b.added += st.Blocks * 512
	}
	return setMtime(fd, "", c.mtime, unix.AT_EMPTY_PATH)
}

func setMtime(dir int, name string, m moment, flags int) error {
	t := unix.Timespec{Sec: m.Sec, Nsec: int64(m.Nsec)}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, flags)
}

// special makes what is neither file nor folder.
func (b *stageBuilder) special(c *regionChange, at string) error {
	dir, err := b.here.Open(path.Dir(at))
	if err != nil {
		return err
	}
	defer dir.Close()
	fd, name := int(dir.Fd()), path.Base(at)
	if c.kind == kindSymlink {
		err = unix.Symlinkat(c.target, fd, name)
	} else if err = unix.Mknodat(fd, name, fileTypes[c.kind]|0o600, int(unix.Mkdev(c.major, c.minor))); err == nil {
		err = unix.Fchmodat(fd, name, c.mode, 0)
	}
	if err == nil {
		err = unix.Fchownat(fd, name, int(c.uid), int(c.gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return err
	}
	return setMtime(fd, name, c.mtime, unix.AT_SYMLINK_NOFOLLOW)
}

func (b *stageBuilder) finishDir(d stagedDir) error {
	f, err := b.here.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(d.uid), int(d.gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, d.mode); err != nil {
		return err
	}
	if st, err := stat(fd); err == nil {
		b.added += st.Blocks * 512
	}
	return setMtime(fd, "", d.mtime, unix.AT_EMPTY_PATH)
}

// copyXattrs copies extended attributes, as far as both sides have them.
func copyXattrs(from, to int, capabilities bool) error {
	all, err := readXattrs(procPath(from))
	if err != nil {
		return err
	}
	for name, value := range all {
		if name == "security.capability" && !capabilities {
			continue
		}
		if err := unix.Fsetxattr(to, name, []byte(value), 0); err != nil {
			return fmt.Errorf("copying the attribute %q: %w", name, err)
		}
	}
	return nil
}

// readXattrs reads all extended attributes of a file; none where the file
// system has none.
func readXattrs(p string) (map[string]string, error) {
	size, err := unix.Listxattr(p, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]byte, size+1024)
	if size, err = unix.Listxattr(p, names); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for name := range bytes.SplitSeq(names[:size], []byte{0}) {
		// SELinux's label is the host's, and not the file's.
		if len(name) == 0 || string(name) == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Getxattr(p, string(name), value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[string(name)] = string(value[:n])
	}
	return all, nil
}

func (o *diskObject) xattrs() (map[string]string, error) { return readXattrs(procPath(o.f.path)) }

// stageBlocks sums what goes away with a stage, in bytes: files with no other
// name, and folders.
func stageBlocks(r *os.Root) int64 {
	f, err := r.Open(".")
	if err != nil {
		return 0
	}
	defer f.Close()
	var sum int64
	_ = walkFiles(procPath(int(f.Fd()))+"/.", func(st *syscall.Stat_t) {
		if st.Nlink == 1 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			sum += st.Blocks * 512
		}
	})
	return sum
}

func inodeOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
