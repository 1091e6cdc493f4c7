package store

import (
	"io/fs"
	"path/filepath"
	"time"

	"rhizome/registry/durable"
)

// Leases lists the leases that somebody holds, and removes none.
func (s *Store) Leases() ([]LeaseInfo, error) {
	files, err := s.Names(dirLeases, ".json")
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
