package prefetch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Memory is what programs can have of it, in bytes: free and inactive pages
// (sysctl(3), vm.stats.vm).
func Memory() (int64, error) {
	var pages uint64
	for _, name := range []string{"vm.stats.vm.v_free_count", "vm.stats.vm.v_inactive_count"} {
		n, err := unix.SysctlUint32(name)
		if err != nil {
			return 0, fmt.Errorf("asking for %s: %w", name, err)
		}
		pages += uint64(n)
	}
	return int64(pages) * int64(os.Getpagesize()), nil
}

// mount runs mount(8) or umount(8), which know all file systems' options.
func mount(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

// MountMemory mounts a tmpfs of at most size bytes (tmpfs(5)).
func MountMemory(dir string, size int64) error {
	return mount("/sbin/mount", "-t", "tmpfs", "-o", "size="+strconv.FormatInt(size, 10)+",mode=755", "tmpfs", dir)
}

// Unmount takes a memory file system away.
func Unmount(dir string) error { return mount("/sbin/umount", dir) }

// InsideName is for Linux alone.
const InsideName = "__inside"

// Inside leaves the command as it is: there are no mount namespaces, and Place
// mounts for everybody.
func Inside(cmd Bound) (path string, args []string, attr *syscall.SysProcAttr, err error) {
	return cmd.Path, cmd.Args, &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}, nil
}

// Become is for Linux alone.
func Become([]string) error { return errors.New("this is for prefetch alone to run") }

// Place mounts the region in memory over its paths (nullfs(5)); undo ends it.
func Place(cmd Bound) (undo func() error, err error) {
	var done []string
	undo = func() error {
		var err error
		for i := len(done) - 1; i >= 0; i-- {
			err = errors.Join(err, mount("/sbin/umount", done[i]))
		}
		return err
	}
	mode := "rw"
	if cmd.ReadOnly {
		mode = "ro"
	}
	for _, p := range cmd.Paths {
		if err := mount("/sbin/mount", "-t", "nullfs", "-o", mode, filepath.Join(cmd.Base, p), p); err != nil {
			return nil, errors.Join(err, undo())
		}
		done = append(done, p)
	}
	return undo, nil
}
