package freebsd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// settle gives a finished tree its name, which is believed from then on. rename(2)
// promises nothing of what was not synced before: after a power cut the name could
// stand for files that are empty.
func settle(part, dir string, sync func(string) error) error {
	if err := sync(part); err != nil {
		return fmt.Errorf("writing %q to the disk: %w", part, err)
	}
	if err := os.Rename(part, dir); err != nil {
		return err
	}
	return syncFile(filepath.Dir(dir))
}

// markDone writes an empty file beside a finished tree, for later builds to go on
// with; the tree is on the disk before.
func markDone(tree, mark string, sync func(string) error) error {
	if err := sync(tree); err != nil {
		return fmt.Errorf("writing %q to the disk: %w", tree, err)
	}
	return os.WriteFile(mark, nil, 0o644)
}

// syncFile waits until a file or a folder's names are on the disk. A file system
// that cannot sync a folder has nothing better to offer.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
