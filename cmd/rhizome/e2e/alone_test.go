package e2e

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// alone gives a test of one machine a store of its own, so that it runs beside
// another such test: an emulated machine keeps one core busy, and two serves on
// one store would share what they know of a node.
func alone(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	own := *need(t)
	from := own.store
	own.store = filepath.Join(t.TempDir(), "store")
	if err := copyStore(from, own.store); err != nil {
		t.Fatal(err)
	}
	return &own
}

// copyStore copies a store. Blobs, which nobody changes, are the same files.
func copyStore(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch at := filepath.Join(to, rel); {
		case d.IsDir():
			return os.MkdirAll(at, info.Mode().Perm())
		case strings.HasPrefix(rel, "oci/blobs/"), strings.HasPrefix(rel, "derived/"):
			return os.Link(name, at)
		case info.Mode().IsRegular() && !strings.HasPrefix(rel, "tmp/"):
			return copyFile(name, at, info.Mode().Perm())
		}
		return nil
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
