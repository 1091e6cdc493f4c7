package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

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
	dir := filepath.Join(t.TempDir(), "store")
	_, err := store.OpenReadOnly(dir, store.Options{})
	var missing *store.NotFoundError
	if !errors.As(err, &missing) {
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
