package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReadOnly is an FS that changes nothing: whatever would change the disk gets
// EROFS. So a program that only looks cannot leave a trace by mistake.
type ReadOnly struct{}

func refused(op, path string) error { return &fs.PathError{Op: op, Path: path, Err: syscall.EROFS} }

// CreateTemp is refused.
func (ReadOnly) CreateTemp(dir, _ string) (File, error) { return nil, refused("create", dir) }

// OpenFile opens files for reading alone.
func (ReadOnly) OpenFile(path string, flag int, _ fs.FileMode) (File, error) {
	if flag != os.O_RDONLY {
		return nil, refused("open", path)
	}
	return asFile(os.Open(path))
}

// Rename is refused.
func (ReadOnly) Rename(from, _ string) error { return refused("rename", from) }

// Remove is refused.
func (ReadOnly) Remove(path string) error { return refused("remove", path) }

// MkdirAll is refused.
func (ReadOnly) MkdirAll(path string, _ fs.FileMode) error { return refused("mkdir", path) }

// SyncDir is refused.
func (ReadOnly) SyncDir(path string) error { return refused("sync", path) }

// Held says whether somebody holds the lock on the file at path, without
// making the file. It holds a shared lock for a moment to find out.
func Held(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, Shared|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
