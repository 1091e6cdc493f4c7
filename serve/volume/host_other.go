//go:build !linux

package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// syncFileSystem puts a folder and the files in it on the disk.
func syncFileSystem(dir string) error {
	names, err := os.ReadDir(dir)
	for _, n := range names {
		if one := syncFile(filepath.Join(dir, n.Name())); !errors.Is(one, fs.ErrNotExist) {
			err = errors.Join(err, one)
		}
	}
	return errors.Join(err, syncDir(dir))
}

func hostTimes(info fs.FileInfo) hostTimed {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		m := momentOf(info.ModTime())
		return hostTimed{m, m, m}
	}
	return hostTimed{hostMoment(st.Atimespec), hostMoment(st.Mtimespec), hostMoment(st.Ctimespec)}
}

func hostMoment(t syscall.Timespec) moment { return moment{int64(t.Sec), uint32(t.Nsec)} }
