package files

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

type fsFS = fs.FS

func mkfifo(name string) error { return unix.Mkfifo(name, 0o600) }
