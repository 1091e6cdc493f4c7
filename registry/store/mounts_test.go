package store_test

import (
	"path/filepath"
	"testing"

	"rhizome/registry/durable"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
)

// syncs notes which folders are synced.
type syncs struct {
	durable.OS
	seen map[string]bool
}

func (s syncs) SyncDir(path string) error {
	s.seen[path] = true
	return s.OS.SyncDir(path)
}

// A record in a folder whose own name a power cut takes away is no record: gc
// would take the root from under the first node of a cluster.
func TestTheFirstMountOfAClusterOutlivesAPowerCut(t *testing.T) {
	dir, fsys := t.TempDir(), syncs{seen: map[string]bool{}}
	s := open(t, dir, store.Options{FS: fsys})
	clear(fsys.seen) // what opening synced
	if err := s.SetMounted("web", "n1", digest.FromString("root")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mounts", "mounts/web"} {
		if !fsys.seen[filepath.Join(dir, name)] {
			t.Errorf("%s was not synced", name)
		}
	}
}
