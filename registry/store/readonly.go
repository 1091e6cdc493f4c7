package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"rhizome/registry/durable"
	"rhizome/registry/layout"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// OpenReadOnly opens a store that is there already, to look into it: nothing in
// it is made, swept, marked as used or locked for longer than a look. Methods
// that would change it fail. A *NotFoundError says that there is no store.
func OpenReadOnly(dir string, o Options) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store %q: %w", dir, err)
	}
	o.FS = durable.ReadOnly{}
	s := newStore(abs, o)
	s.readOnly = true
	marker := s.path(dirImages, ocispec.ImageLayoutFile)
	switch _, err := os.Stat(marker); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &NotFoundError{What: fmt.Sprintf("the file %q", marker), Hint: "no store was made there yet; build and pull make it, and --store names another"}
	case err != nil:
		return nil, fmt.Errorf("opening the store %q: %w", abs, durable.Hint(err))
	}
	if err := s.checkSchema(); err != nil {
		return nil, fmt.Errorf("opening the store %q: %w", abs, err)
	}
	s.images, err = layout.Open(s.path(dirImages), layout.Options{FS: o.FS, Temp: s.path(dirTemp), Lock: s.path("lock"), ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("opening the store %q: %w", abs, err)
	}
	return s, nil
}

// Leases lists the leases that somebody holds, and removes none.
func (s *Store) Leases() ([]LeaseInfo, error) {
	files, err := s.names(dirLeases, ".json")
	if err != nil {
		return nil, err
	}
	var live []LeaseInfo
	for _, name := range files {
		path := s.path(dirLeases, name)
		held, err := durable.Held(path)
		if err != nil {
			return nil, err
		}
		if held {
			live = append(live, readLease(path))
		}
	}
	return live, nil
}

// Leftovers is how many bytes lie in tmp/ that no process has touched since a
// moment: what was interrupted left them, and a later start removes them.
func (s *Store) Leftovers(since time.Time) (bytes int64) {
	_ = filepath.WalkDir(s.path(dirTemp), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // what cannot be looked at does not count
		}
		if info, err := e.Info(); err == nil && info.ModTime().Before(since) {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}
