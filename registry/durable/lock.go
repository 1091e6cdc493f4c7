package durable

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mode says whether a lock is shared with other readers.
type Mode int

// The modes of flock(2).
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// Lock waits for the lock on the file at path, which it makes when it is
// missing, and returns what gives it back. flock(2) goes with the open file, so
// it holds between goroutines as between processes, and ends with its process
// whatever way that ends.
func Lock(ctx context.Context, path string, mode Mode) (release func(), err error) {
	for {
		f, err := wait(ctx, path, mode)
		if err != nil {
			return nil, err
		}
		if current(f, path) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

// wait opens the lock file and waits until it is ours.
func wait(ctx context.Context, path string, mode Mode) (*os.File, error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if flock(f, mode|unix.LOCK_NB) == nil {
		return f, nil
	}
	done := make(chan struct{})
	go func() { err = flock(f, mode); close(done) }()
	select {
	case <-done:
		return lockResult(f, path, err)
	case <-ctx.Done():
		// flock cannot be interrupted from here; whoever gives the lock up
		// next hands it to nobody.
		go func() { <-done; f.Close() }()
		return nil, fmt.Errorf("waiting for the lock %q: %w", path, context.Cause(ctx))
	}
}

// TryLock takes the lock if nobody has it.
func TryLock(path string, mode Mode) (release func(), ok bool, err error) {
	f, err := openLock(path)
	if err != nil {
		return nil, false, err
	}
	err = flock(f, mode|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, false, nil
	}
	if f, err = lockResult(f, path, err); err != nil {
		return nil, false, err
	}
	if !current(f, path) {
		f.Close()
		return nil, false, nil
	}
	return func() { f.Close() }, true, nil
}

// current says whether the file we locked is still the one at path: whoever
// sweeps old lock files removes them while holding them.
func current(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(ours, named)
}

func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock %q: %w", path, Hint(err))
	}
	return f, nil
}

func lockResult(f *os.File, path string, err error) (*os.File, error) {
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %q: %w", path, err)
	}
	return f, nil
}

func flock(f *os.File, how Mode) error {
	for {
		err := unix.Flock(int(f.Fd()), int(how))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
