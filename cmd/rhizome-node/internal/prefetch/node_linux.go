package prefetch

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func makeNode(root *os.Root, name string, e *Entry) error {
	return inParent(root, name, func(fd int, base string) error {
		return unix.Mknodat(fd, base, nodeTypes[e.Type]|0o600, int(unix.Mkdev(uint32(e.Major), uint32(e.Minor))))
	})
}

// setXattr tries: a memory file system has not all that a disk has, and what
// it cannot hold stays as it is at the server.
func setXattr(root *os.Root, name, attr, value string) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Setxattr("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), attr, []byte(value), 0)
}
