// Package durable writes files so that a crash or a full disk at any instant
// leaves either the old file or the new one, and takes locks that two
// processes respect.
//
// A file is written under a temporary name, synced, renamed over its place, and
// the folder is synced: rename(2) is atomic but promises nothing about data
// that was not synced before it, and the name itself is only on the disk when
// its folder is (see fsync(2), "Notes").
package durable

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// FS is every call that changes the disk. The real one is OS; tests hand in one
// that fails or dies at a chosen call.
type FS interface {
	// CreateTemp makes a new file with a name that nobody else has, mode 0600.
	CreateTemp(dir, pattern string) (File, error)
	// OpenFile is os.OpenFile; it is used for files that grow: logs and
	// half-pulled blobs.
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	Rename(from, to string) error
	Remove(path string) error
	MkdirAll(path string, perm fs.FileMode) error
	// SyncDir makes names in a folder survive a power cut.
	SyncDir(path string) error
}

// File is an open file of an FS; *os.File has all of it.
type File interface {
	io.ReadWriteCloser
	io.ReaderAt
	io.Seeker
	Name() string
	Sync() error
	Truncate(size int64) error
	Chmod(mode fs.FileMode) error
}

// OS is the real file system.
type OS struct{}

// CreateTemp calls os.CreateTemp.
func (OS) CreateTemp(dir, pattern string) (File, error) { return asFile(os.CreateTemp(dir, pattern)) }

// OpenFile calls os.OpenFile.
func (OS) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	return asFile(os.OpenFile(path, flag, perm))
}

// asFile keeps a nil *os.File from becoming a File that is not nil.
func asFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Rename calls os.Rename.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove calls os.Remove.
func (OS) Remove(path string) error { return os.Remove(path) }

// MkdirAll calls os.MkdirAll.
func (OS) MkdirAll(path string, perm fs.FileMode) error { return os.MkdirAll(path, perm) }

// SyncDir opens the folder and syncs it. A file system that cannot sync a
// folder (EINVAL: some network and FUSE ones) has nothing better to offer.
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// Write replaces the file at path by what write writes, or leaves everything as
// it was. The temporary file is made in temp, which must be on path's file
// system; empty is path's own folder.
func Write(fsys FS, temp, path string, perm fs.FileMode, write func(io.Writer) error) error {
	if temp == "" {
		temp = filepath.Dir(path)
	}
	f, err := fsys.CreateTemp(temp, "write-*.tmp")
	if err != nil {
		return fmt.Errorf("making a temporary file for %q: %w", path, Hint(err))
	}
	if err := fill(f, write); err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", path, Hint(err)), Discard(fsys, f))
	}
	return Commit(fsys, f, path, perm)
}

// WriteBytes is Write for what is in memory already.
func WriteBytes(fsys FS, temp, path string, perm fs.FileMode, data []byte) error {
	return Write(fsys, temp, path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func fill(f File, write func(io.Writer) error) error {
	w := bufio.NewWriterSize(f, 256<<10)
	if err := write(w); err != nil {
		return err
	}
	return w.Flush()
}

// Commit syncs a filled file, closes it, renames it to path and syncs the
// folder. On an error the temporary file is removed.
func Commit(fsys FS, f File, path string, perm fs.FileMode) error {
	if err := settle(f, perm); err != nil {
		return errors.Join(fmt.Errorf("writing %q: %w", path, Hint(err)), Discard(fsys, f))
	}
	if err := fsys.Rename(f.Name(), path); err != nil {
		_ = fsys.Remove(f.Name()) // swept later when it stays
		return fmt.Errorf("putting %q in its place: %w", path, Hint(err))
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("making the name %q last: %w", path, err)
	}
	return nil
}

func settle(f File, perm fs.FileMode) error {
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// Discard closes and removes a temporary file. What is left behind on an error
// here is swept when the store is opened next.
func Discard(fsys FS, f File) error {
	f.Close()
	if err := fsys.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the temporary file %q: %w", f.Name(), err)
	}
	return nil
}

// Hint adds the remedy to an error that the disk gave, where one is known.
func Hint(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: free some space (rhizome gc removes what nothing needs) and run it again; the store is as it was", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: run as the store's owner, or name another store with --store", err)
	}
	return err
}
