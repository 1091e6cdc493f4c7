package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is a folder of the host. Objects go by the kernel's file handles
// (open_by_handle_at(2)), which hold over renames and restarts; names are
// looked up one at a time by openat2(2), so that no path and no symlink is ever
// followed, and nothing that somebody moves meanwhile leads out.
type disk struct {
	dir    *os.File
	dev    uint64
	top    uint64 // the root's inode
	rootID []byte
	files  *fileCache
	quota  *quota
	// done are commits of leases that a server before this one carried out.
	doneMu sync.Mutex
	done   map[string]string
}

// openDisk opens a folder; it fails where the host cannot open files by handle.
// lost is told of each fsync that failed.
func openDisk(path string, q *quota, lost func()) (*disk, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the writable export %q: %w", path, err)
	}
	d := &disk{dir: dir, quota: q, files: newFileCache(diskFiles, lost)}
	if err := d.begin(path); err != nil {
		dir.Close()
		return nil, fmt.Errorf("opening the writable export %q: %w", path, err)
	}
	return d, nil
}

// diskFiles is how many files of one export are kept open between calls.
const diskFiles = 128

func (d *disk) begin(path string) error {
	st, err := stat(int(d.dir.Fd()))
	if err != nil {
		return err
	}
	d.dev, d.top = st.Dev, st.Ino
	if d.rootID, err = kernelHandle(int(d.dir.Fd())); err != nil {
		return fmt.Errorf("finding files by handle: %w", err)
	}
	fd, err := d.byHandle(d.rootID, unix.O_PATH)
	if err != nil {
		return fmt.Errorf("opening files by handle: %w", err)
	}
	unix.Close(fd)
	if err := d.recoverStages(); err != nil {
		return err
	}
	if d.quota == nil {
		return nil
	}
	used, err := diskUsage(path)
	d.quota.used.Store(used)
	return err
}

func (d *disk) spare() { d.files.forgetIdle() }

func (d *disk) close() error {
	d.files.clear()
	return d.dir.Close()
}

// kernelHandle gives what open_by_handle_at(2) takes: the handle's type, then
// the handle.
func kernelHandle(fd int) ([]byte, error) {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, err
	}
	if h.Size()+4 > maxID {
		return nil, fmt.Errorf("this file system's handles have %d bytes, and no more than %d fit: %w", h.Size(), maxID-4, unix.EOPNOTSUPP)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(h.Type())), h.Bytes()...), nil
}

func (d *disk) byHandle(id []byte, flags int) (int, error) {
	if len(id) < 5 {
		return 0, unix.ESTALE
	}
	h := unix.NewFileHandle(int32(binary.BigEndian.Uint32(id)), id[4:])
	return retry(func() (int, error) {
		return unix.OpenByHandleAt(int(d.dir.Fd()), h, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	})
}

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (d *disk) root() (object, error) { return d.open(d.rootID) }

func (d *disk) open(id []byte) (object, error) {
	f, err := d.files.get(string(id), func() (*openFile, error) {
		fd, err := d.byHandle(id, unix.O_PATH)
		if err != nil {
			return nil, staleOr(err)
		}
		return &openFile{path: fd, data: -1}, nil
	})
	if err != nil {
		return nil, err
	}
	return &diskObject{d: d, f: f, key: id}, nil
}

// staleOr makes ESTALE of what the kernel says of handles whose file is gone.
func staleOr(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ELOOP) {
		return unix.ESTALE
	}
	return err
}

func (d *disk) space() (space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.dir.Fd()), &st); err != nil {
		return space{}, err
	}
	size := uint64(st.Bsize)
	return space{st.Blocks * size, st.Bfree * size, st.Bavail * size, st.Files, st.Ffree}, nil
}

func stat(fd int) (st unix.Stat_t, err error) { return st, unix.Fstat(fd, &st) }

// child opens a name of a directory, as O_PATH: a symlink is itself, and a
// device is not touched.
func (d *disk) child(dir int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	return retry(func() (int, error) {
		fd, err := unix.Openat2(dir, name, &how)
		if err == unix.EAGAIN {
			err = unix.EINTR // a rename somewhere raced with it
		}
		return fd, err
	})
}

// object makes an object of an O_PATH descriptor, which it takes.
func (d *disk) object(fd int) (object, error) {
	id, err := kernelHandle(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	f, err := d.files.get(string(id), func() (*openFile, error) {
		taken := &openFile{path: fd, data: -1}
		fd = -1
		return taken, nil
	})
	if fd >= 0 {
		unix.Close(fd)
	}
	if err != nil {
		return nil, err
	}
	return &diskObject{d: d, f: f, key: id}, nil
}

// diskUsage sums what the files below a folder take, in bytes, each once
// however many names it has.
func diskUsage(root string) (int64, error) {
	var total int64
	seen := map[uint64]bool{}
	err := walkFiles(root, func(st *syscall.Stat_t) {
		if st.Nlink > 1 && seen[st.Ino] {
			return
		}
		if st.Nlink > 1 {
			seen[st.Ino] = true
		}
		total += st.Blocks * 512
	})
	return total, err
}

// procPath is a name for what a descriptor holds, for calls that take no
// O_PATH descriptor.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// direntFixed is the length in bytes of linux_dirent64 before the name
// (getdents64(2)).
const direntFixed = int(unsafe.Offsetof(unix.Dirent{}.Name))
