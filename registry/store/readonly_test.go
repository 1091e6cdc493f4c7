package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/registry/layout"
	"rhizome/registry/registrytest"
	"rhizome/registry/store"
)

// state is every file and folder of a store with its mode, size and times.
func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all[p] = info.Mode().String() + " " + info.ModTime().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whoever only looks leaves no trace: no folder, no lock, no time of a blob.
func TestALookLeavesNoTrace(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	image := registrytest.Cluster(t, s.Images(), 1)
	if _, _, err := s.Pin(ctx, store.PinRequest{Cluster: "rack", Image: image}); err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(ctx, "serving rack")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	before := state(t, dir)
	look, err := store.OpenReadOnly(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := look.Images().Complete(ctx, image); err != nil {
		t.Error(err)
	}
	if _, err := look.Pins("rack"); err != nil {
		t.Error(err)
	}
	if _, err := look.SecretsDir("rack", "n1"); err != nil {
		t.Error(err)
	}
	leases, err := look.Leases()
	if err != nil || len(leases) != 1 || leases[0].PID != os.Getpid() || leases[0].Purpose != "serving rack" {
		t.Errorf("leases %+v, %v", leases, err)
	}
	if _, _, err := look.Pin(ctx, store.PinRequest{Cluster: "rack", Image: image}); err == nil {
		t.Error("a pin was written")
	}
	look.Leftovers(time.Now())
	after := state(t, dir)
	for p, was := range before {
		if after[p] != was {
			t.Errorf("%s was %s, is %s", p, was, after[p])
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
}

func TestALookAtNoStoreMakesNone(t *testing.T) {
	for name, open := range map[string]func(string, store.Options) (*store.Store, error){"read-only": store.OpenReadOnly, "existing": store.OpenExisting} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			_, err := open(dir, store.Options{})
			var none *store.NoStoreError
			if !errors.As(err, &none) || none.Empty || none.Holds != "" || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Error("the folder was made")
			}
		})
	}
}

// A name that was mistyped must not fill a home with a store's folders.
func TestAFolderOfOtherThingsIsNoStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir, store.Options{}); err == nil || !strings.Contains(err.Error(), `"thesis.tex"`) {
		t.Errorf("Open gives %v", err)
	}
	var none *store.NoStoreError
	if _, err := store.OpenExisting(dir, store.Options{}); !errors.As(err, &none) || none.Holds != "thesis.tex" {
		t.Errorf("OpenExisting gives %v", err)
	}
	if left := state(t, dir); len(left) != 2 {
		t.Errorf("left %v", left)
	}
}

// The root of a file system of its own is as good as empty.
func TestAStoreIsMadeInAnEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	var none *store.NoStoreError
	if _, err := store.OpenExisting(dir, store.Options{}); !errors.As(err, &none) || !none.Empty {
		t.Errorf("OpenExisting gives %v", err)
	}
	if _, err := store.Open(dir, store.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenExisting(dir, store.Options{}); err != nil {
		t.Error(err)
	}
}

// What a crash left of making a store is one: the next start makes the rest.
func TestAHalfMadeStoreIsOpened(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"pins", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, open := range map[string]func(string, store.Options) (*store.Store, error){
		"read-only": store.OpenReadOnly, "to change": store.OpenToChange, "existing": store.OpenExisting,
	} {
		s, err := open(dir, store.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if images, err := s.List(context.Background()); err != nil || len(images) != 0 {
			t.Errorf("%s: %v, %v", name, images, err)
		}
	}
}

func TestNothingIsInNoStore(t *testing.T) {
	ctx, dir := context.Background(), filepath.Join(t.TempDir(), "store")
	s, err := store.None(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	images, err := s.List(ctx)
	if err != nil || len(images) != 0 {
		t.Errorf("images %v, %v", images, err)
	}
	if clusters, err := s.Clusters(); err != nil || len(clusters) != 0 {
		t.Errorf("clusters %v, %v", clusters, err)
	}
	var missing *layout.NotFoundError
	if _, err := s.Resolve(ctx, "web:1"); !errors.As(err, &missing) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder was made")
	}
}

// What others made needs a seekable copy, which a look does not make.
func TestALookMakesNoCopy(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	foreign := registrytest.GzipLayer(t, s.Images(), registrytest.Tar(1, 3, 100))
	look, err := store.OpenReadOnly(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var missing *store.NotFoundError
	if _, err := look.Layer(ctx, foreign.Descriptor, foreign.DiffID); !errors.As(err, &missing) {
		t.Errorf("got %v", err)
	}
	if l, err := s.Layer(ctx, foreign.Descriptor, foreign.DiffID); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	l, err := look.Layer(ctx, foreign.Descriptor, foreign.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
