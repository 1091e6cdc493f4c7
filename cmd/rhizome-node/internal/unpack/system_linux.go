package unpack

import (
	"archive/tar"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

var kinds = map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}

// special makes a device or a fifo. A character device 0:0 would be a whiteout
// of overlayfs.
func special(at string, h *tar.Header) error {
	if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
		return errors.New("a character device 0:0, which no layer has")
	}
	return unix.Mknod(at, kinds[h.Typeflag]|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// setXattr sets an attribute that layers carry. overlayfs's own are not theirs
// to set, and those that this file system does not keep (user.* in a tmpfs of
// Linux before 6.6) change nothing that a read-only root needs.
func setXattr(at, name, value string) error {
	if strings.HasPrefix(name, "trusted.overlay.") {
		return nil
	}
	err := unix.Lsetxattr(at, name, []byte(value), 0)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// markOpaque says to overlayfs that nothing below shines through a folder
// (Linux, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
// directories").
func markOpaque(dir string) error {
	return unix.Lsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0)
}
