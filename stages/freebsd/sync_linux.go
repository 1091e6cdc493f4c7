package freebsd

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncTree waits until a tree is on the disk: with its whole file system
// (syncfs(2)), for a source tree has 100,000 files.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
