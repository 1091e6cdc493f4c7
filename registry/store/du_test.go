//go:build unix

package store_test

import (
	"context"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"rhizome/registry/registrytest"
	"rhizome/registry/store"
)

// TestAStoreIsHardlyLargerThanItsBlobs: what du counts of a store with tagged,
// retagged and pinned images is at most 1% more than the sum of its blobs, and
// a few small files.
func TestAStoreIsHardlyLargerThanItsBlobs(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{Who: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	base := registrytest.OurLayer(t, s.Images(), registrytest.Tar(1, 20, 1_000_000))
	for version := range uint64(5) {
		n1 := registrytest.Manifest(t, s.Images(), "n1", base, registrytest.OurLayer(t, s.Images(), registrytest.Tar(100+version, 1, 50_000)))
		n2 := registrytest.Manifest(t, s.Images(), "n2", base, registrytest.OurLayer(t, s.Images(), registrytest.Tar(200+version, 1, 50_000)))
		image := registrytest.Index(t, s.Images(), n1, n2)
		if err := s.Tag(ctx, image, "web:latest"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Pin(ctx, store.PinRequest{Cluster: "rack", Image: image}); err != nil {
			t.Fatal(err)
		}
	}
	// Small files and folders take a block each.
	const small = 4096
	var blobs, all, files int64
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		files++
		all += info.Sys().(*syscall.Stat_t).Blocks * 512
		if filepath.Base(filepath.Dir(path)) == "sha256" {
			blobs += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if limit := blobs + blobs/100 + files*small; blobs < 20_000_000 || files > 100 || all > limit {
		t.Errorf("the store takes %d bytes in %d files, its blobs %d; at most %d were due", all, files, blobs, limit)
	}
}
