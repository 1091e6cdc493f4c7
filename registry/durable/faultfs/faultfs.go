// Package faultfs is a durable.FS that fails on purpose, for tests: it counts
// every call that changes the disk and, at the one chosen, answers like a full
// disk or dies like a machine whose power is cut.
package faultfs

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"rhizome/registry/durable"
)

// ErrDead is what every call gives after the power was cut.
var ErrDead = errors.New("the machine is dead (fault injected)")

// FS counts and fails. Its zero value with At 0 only counts.
type FS struct {
	// At is the number of the call that fails, from 1.
	At int
	// Crash kills the machine at that call instead of failing it once: all
	// later calls fail too, and what was not synced is lost.
	Crash bool

	mu       sync.Mutex
	calls    int
	dead     bool
	unsynced map[string]bool
}

// Calls is how many calls were seen.
func (f *FS) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// step counts a call and says whether it must fail.
func (f *FS) step() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return ErrDead
	}
	f.calls++
	if f.calls != f.At {
		return nil
	}
	if !f.Crash {
		return syscall.ENOSPC
	}
	f.dead = true
	f.loseUnsynced()
	return ErrDead
}

// loseUnsynced cuts every file that was written and not synced: the worst that
// a journalling file system may do to data.
func (f *FS) loseUnsynced() {
	for path := range f.unsynced {
		if info, err := os.Stat(path); err == nil {
			_ = os.Truncate(path, info.Size()/2)
		}
	}
}

func (f *FS) mark(path string, dirty bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unsynced == nil {
		f.unsynced = map[string]bool{}
	}
	if dirty {
		f.unsynced[path] = true
	} else {
		delete(f.unsynced, path)
	}
}

// CreateTemp makes a file whose calls are counted too.
func (f *FS) CreateTemp(dir, pattern string) (durable.File, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	return f.wrap(durable.OS{}.CreateTemp(dir, pattern))
}

// OpenFile opens a file whose calls are counted too.
func (f *FS) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	return f.wrap(durable.OS{}.OpenFile(path, flag, perm))
}

func (f *FS) wrap(file durable.File, err error) (durable.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: file, fs: f}, nil
}

// Rename carries the lack of a sync along with the name.
func (f *FS) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	f.mu.Lock()
	dirty := f.unsynced[from]
	f.mu.Unlock()
	f.mark(from, false)
	f.mark(to, dirty)
	return os.Rename(from, to)
}

// Remove removes.
func (f *FS) Remove(path string) error {
	if err := f.step(); err != nil {
		return err
	}
	return os.Remove(path)
}

// MkdirAll makes folders.
func (f *FS) MkdirAll(path string, perm fs.FileMode) error {
	if err := f.step(); err != nil {
		return err
	}
	return os.MkdirAll(path, perm)
}

// SyncDir syncs nothing: the test's machine is not really switched off.
func (f *FS) SyncDir(string) error { return f.step() }

type faultyFile struct {
	durable.File
	fs *FS
}

// Write writes half of p before it fails, as a full disk does.
func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.fs.step(); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			f.fs.mark(f.Name(), true)
			n, _ := f.File.Write(p[:len(p)/2])
			return n, err
		}
		return 0, err
	}
	f.fs.mark(f.Name(), true)
	return f.File.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.fs.step(); err != nil {
		return err
	}
	f.fs.mark(f.Name(), false)
	return nil
}

func (f *faultyFile) Truncate(n int64) error {
	if err := f.fs.step(); err != nil {
		return err
	}
	return f.File.Truncate(n)
}
