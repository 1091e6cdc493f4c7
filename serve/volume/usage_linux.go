package volume

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// walkFiles calls fn for everything below a folder. What goes away meanwhile is
// passed over.
func walkFiles(root string, fn func(*syscall.Stat_t)) error {
	return filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			fn(st)
		}
		return nil
	})
}
