package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhizome/registry/durable"
)

// How old leftovers must be before they are swept: nothing writes to one file
// for so long without touching it.
const (
	tempAge    = 24 * time.Hour
	partialAge = 7 * 24 * time.Hour
	// workAge is for folders in which a build that was stopped would go on: one of
	// a step whose inputs changed is never asked for again.
	workAge = 30 * 24 * time.Hour
)

// sweep removes what processes that died left in tmp/. It is housekeeping: what
// it cannot remove, it leaves to the next start.
func (s *Store) sweep() {
	if err := s.images.PutBack(); err != nil {
		s.log.Warn("a blob may be missing", "error", err)
	}
	root := s.path(dirTemp)
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == root || e.IsDir() && keepFolder(root, path) {
			return nil
		}
		if info, err := e.Info(); err == nil && s.now().Sub(info.ModTime()) > maxAge(root, path) {
			s.sweepOne(path, e)
		}
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// keepFolder says whether a folder is one of the store's own.
func keepFolder(root, path string) bool {
	name, _ := filepath.Rel(root, path)
	return name == "partial" || name == "leases" || name == "locks"
}

func maxAge(root, path string) time.Duration {
	if filepath.Dir(path) == filepath.Join(root, "partial") {
		return partialAge
	}
	if strings.HasPrefix(filepath.Base(path), workPrefix) {
		return workAge
	}
	return tempAge
}

// sweepOne removes a leftover, unless somebody holds its lock.
func (s *Store) sweepOne(path string, e fs.DirEntry) {
	if e.IsDir() {
		s.sweepWork(path)
		return
	}
	if lock := lockOf(path); lock != "" {
		release, ok, err := durable.TryLock(lock, durable.Exclusive)
		if err != nil || !ok {
			return
		}
		defer release()
	}
	if err := s.fs.Remove(path); err != nil {
		s.log.Debug("leaving an old temporary file", "file", path, "error", err)
	}
}

// sweepWork removes the folder of a step's work, unless the step is being built.
// Any other folder is not ours.
func (s *Store) sweepWork(dir string) {
	key, ok := strings.CutPrefix(filepath.Base(dir), workPrefix)
	if !ok {
		return
	}
	locks, err := s.Names(dirLocks, ".lock")
	if err != nil {
		return
	}
	if i := slices.IndexFunc(locks, func(name string) bool { return strings.HasPrefix(name, key) }); i >= 0 {
		release, free, err := durable.TryLock(s.path(dirLocks, locks[i]), durable.Exclusive)
		if err != nil || !free {
			return
		}
		defer release()
	}
	if err := os.RemoveAll(dir); err != nil {
		s.log.Debug("leaving the work of an old build", "folder", dir, "error", err)
	}
}

// lockOf names the lock of a leftover: a lock and a lease are their own, and a
// half-pulled blob, NAME or NAME.map, has NAME.lock beside it.
func lockOf(path string) string {
	switch dir := filepath.Base(filepath.Dir(path)); {
	case strings.HasSuffix(path, ".lock") || dir == "leases":
		return path
	case dir == "partial":
		return strings.TrimSuffix(path, ".map") + ".lock"
	}
	return ""
}
