//go:build !linux

package export

import (
	"errors"

	"rhizome/serve/rootfs"
)

func mknod(string, rootfs.Attr) error {
	return errors.New("device files are made on Linux alone; --format tar holds them")
}

func lsetxattr(string, string, []byte) error {
	return errors.New("extended attributes are set on Linux alone; --format tar holds them")
}
