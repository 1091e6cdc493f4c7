package export

import (
	"rhizome/serve/rootfs"

	"golang.org/x/sys/unix"
)

func mknod(at string, a rootfs.Attr) error {
	kind := map[rootfs.Kind]uint32{rootfs.Char: unix.S_IFCHR, rootfs.Block: unix.S_IFBLK, rootfs.Fifo: unix.S_IFIFO}[a.Kind]
	return unix.Mknod(at, kind|0o600, int(unix.Mkdev(a.Major, a.Minor)))
}

func lsetxattr(at, name string, value []byte) error { return unix.Lsetxattr(at, name, value, 0) }
