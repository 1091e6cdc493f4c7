package freebsd

import (
	"io/fs"
	"path/filepath"
)

// syncTree waits until a tree is on the disk, file by file: sync(2) may return
// before it has written anything ("BUGS").
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() && !e.Type().IsRegular() {
			return err
		}
		return syncFile(path)
	})
}
