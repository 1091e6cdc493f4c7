package prefetch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Memory is what programs can have of it, in bytes (proc_meminfo(5),
// MemAvailable).
func Memory() (int64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo does not say what memory is available")
}

// MountMemory mounts a tmpfs of at most size bytes (tmpfs(5)). Nobody but root
// gets through dir to it.
func MountMemory(dir string, size int64) error {
	if err := unix.Mount("rhizome", dir, "tmpfs", unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0755,nr_inodes=0", size)); err != nil {
		return fmt.Errorf("mounting memory at %q: %w", dir, err)
	}
	return nil
}

// Unmount takes a memory file system away. Programs that still have files of it
// open keep those.
func Unmount(dir string) error {
	err := unix.Unmount(dir, 0)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(dir, unix.MNT_DETACH)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmounting %q: %w", dir, err)
	}
	return nil
}

// InsideName is the hidden subcommand that Inside makes this program run.
const InsideName = "__inside"

// Inside changes a command so that it sees the region in memory in its place,
// and nobody else does: it begins in a mount namespace of its own, where this
// program binds and then becomes the command (mount_namespaces(7)). When the
// last of its processes ends, the mounts are gone.
func Inside(cmd Bound) (path string, args []string, attr *syscall.SysProcAttr, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, nil, err
	}
	args = []string{"rhizome-node", InsideName, cmd.Base, cmd.Dir, strconv.FormatBool(cmd.ReadOnly), strconv.Itoa(len(cmd.Paths))}
	args = append(args, cmd.Paths...)
	args = append(args, cmd.Path)
	args = append(args, cmd.Args...)
	return self, args, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}, nil
}

// Become is the inner side of Inside: it returns only if it fails.
func Become(args []string) error {
	if len(args) < 6 {
		return errors.New("this is for prefetch alone to run")
	}
	n, err := strconv.Atoi(args[3])
	if err != nil || n < 1 || len(args) < 4+n+2 {
		return errors.New("this is for prefetch alone to run")
	}
	base, dir, paths, command := args[0], args[1], args[4:4+n], args[4+n:]
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keeping the mounts to this command: %w", err)
	}
	for _, p := range paths {
		if err := bind(filepath.Join(base, p), p, args[2] == "true"); err != nil {
			return fmt.Errorf("mounting memory over %q: %w", p, err)
		}
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	return fmt.Errorf("running %q: %w", command[0], syscall.Exec(command[0], command[1:], os.Environ()))
}

func bind(from, to string, readOnly bool) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	return unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV, "")
}

// Place does nothing here: Inside does it.
func Place(Bound) (undo func() error, err error) { return func() error { return nil }, nil }
