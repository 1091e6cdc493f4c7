package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/registry/durable"
	"rhizome/registry/durable/faultfs"
	"rhizome/registry/registrytest"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scene is a store before the fault: image a is tagged and pinned, image b lies
// there without a name, the layer is foreign and has no copy yet.
type scene struct {
	a, b    ocispec.Descriptor
	foreign registrytest.Layer
}

func setScene(t *testing.T, dir string) scene {
	t.Helper()
	ctx := context.Background()
	s := open(t, dir, store.Options{})
	l := s.Images()
	small := func(seed uint64) ocispec.Descriptor {
		return registrytest.Index(t, l, registrytest.Manifest(t, l, "n1", registrytest.OurLayer(t, l, registrytest.Tar(seed, 1, 100))))
	}
	sc := scene{a: small(1), b: small(2), foreign: registrytest.GzipLayer(t, l, registrytest.Tar(3, 1, 100))}
	tag(t, s, sc.a, "web:1")
	if _, _, err := s.Pin(ctx, store.PinRequest{Cluster: "web", Image: sc.a}); err != nil {
		t.Fatal(err)
	}
	return sc
}

// works are the things done to a store that write to its disk.
func works(sc scene) map[string]func(*store.Store) error {
	ctx := context.Background()
	return map[string]func(*store.Store) error{
		"tag":   func(s *store.Store) error { return s.Tag(ctx, sc.b, "web:1") },
		"untag": func(s *store.Store) error { return s.Untag(ctx, "web:1") },
		"pin": func(s *store.Store) error {
			_, _, err := s.Pin(ctx, store.PinRequest{Cluster: "web", Image: sc.b})
			return err
		},
		"cache": func(s *store.Store) error {
			return s.CachePut(ctx, digest.FromString("key"), "web", "base", []byte(`{}`), []ocispec.Descriptor{sc.foreign.Descriptor})
		},
		"derive": func(s *store.Store) error {
			_, err := s.Derive(ctx, sc.foreign.Descriptor, sc.foreign.DiffID)
			return err
		},
		"collect": func(s *store.Store) error { _, err := s.GC(ctx, store.GCOptions{Grace: -1}); return err },
		"origin":  func(s *store.Store) error { return s.AddOrigin(ctx, store.Origin{Host: "h", Name: "n"}) },
		"mount":   func(s *store.Store) error { return s.SetMounted("web", "n1", sc.a.Digest) },
		"ingest": func(s *store.Store) error {
			_, err := s.Ingest(ctx, "x/y", func(w io.Writer) error { _, err := w.Write([]byte("new")); return err })
			return err
		},
	}
}

// The disk is full, or the machine dies, at every single call of every kind of
// work. What had a name keeps it or has the new one; all that has a name is
// whole to the byte; nothing is believed that is not so.
func TestAnyFaultLeavesTheStoreAsItWasOrRepairable(t *testing.T) {
	template := t.TempDir()
	sc := setScene(t, template)
	for name, work := range works(sc) {
		count := &faultfs.FS{}
		if err := workIn(copyOf(t, template), count, work); err != nil {
			t.Fatalf("%s without a fault: %v", name, err)
		}
		for _, crash := range []bool{false, true} {
			for at := 1; at <= count.Calls(); at++ {
				t.Run(fmt.Sprintf("%s, call %d, crash %v", name, at, crash), func(t *testing.T) {
					dir := copyOf(t, template)
					err := workIn(dir, &faultfs.FS{At: at, Crash: crash}, work)
					checkStore(t, dir, sc, name, err)
				})
			}
		}
	}
}

func workIn(dir string, fsys durable.FS, work func(*store.Store) error) error {
	s, err := store.Open(dir, store.Options{FS: fsys, Who: "ada@host"})
	if err != nil {
		return err
	}
	return work(s)
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func checkStore(t *testing.T, dir string, sc scene, work string, workErr error) {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(dir, store.Options{FS: &faultfs.FS{}}) // no more faults, and quick: it syncs nothing
	if err != nil {
		t.Fatalf("after %v: %v", workErr, err)
	}
	images, err := s.List(ctx)
	if err != nil {
		t.Fatalf("after %v: %v", workErr, err)
	}
	if len(images) == 0 && work != "untag" {
		t.Errorf("after %v: the tag is gone", workErr)
	}
	for _, image := range images {
		if image.Descriptor.Digest != sc.a.Digest && image.Descriptor.Digest != sc.b.Digest {
			t.Errorf("after %v: %q is another image", workErr, image.Name)
		}
		findings, err := s.Verify(ctx, image.Descriptor, nil)
		if err != nil || len(findings) > 0 {
			t.Errorf("after %v: %q: %v, %v", workErr, image.Name, findings, err)
		}
	}
	checkPins(t, s, workErr)
	checkBeliefs(t, s, sc, workErr)
	again := works(sc)[work]
	if err := again(s); err != nil && work != "untag" {
		t.Errorf("after %v, doing it again: %v", workErr, err)
	}
}

func checkPins(t *testing.T, s *store.Store, workErr error) {
	t.Helper()
	pins, err := s.Pins("web")
	if err != nil {
		t.Fatalf("after %v: %v", workErr, err)
	}
	d, err := s.Resolve(context.Background(), pins.Boot.String())
	if err != nil || !whole(s, d) {
		t.Errorf("after %v: the pinned image is not whole (%v)", workErr, err)
	}
}

// checkBeliefs: a cached step has its layers, a copy is what its note says.
func checkBeliefs(t *testing.T, s *store.Store, sc scene, workErr error) {
	t.Helper()
	ctx := context.Background()
	if _, ok, err := s.CacheGet(ctx, digest.FromString("key")); err != nil || ok && s.Images().Verify(ctx, sc.foreign.Descriptor) != nil {
		t.Errorf("after %v: the cache gives %v, %v", workErr, ok, err)
	}
	if s.Images().Verify(ctx, sc.foreign.Descriptor) != nil {
		return // collected
	}
	image := registrytest.Manifest(t, s.Images(), "x", sc.foreign)
	if findings, err := s.Verify(ctx, image, nil); err != nil || len(findings) > 0 {
		t.Errorf("after %v: the foreign layer and its copy: %v, %v", workErr, findings, err)
	}
}

// Making keys is slow, so only some of the calls fail.
func TestANodeHasAllItsHostKeysOrNone(t *testing.T) {
	ctx := context.Background()
	for at := 3; ; at += 14 {
		dir := t.TempDir()
		open(t, dir, store.Options{})
		work := func(s *store.Store) error { _, err := s.SSHHostKeys(ctx, "web", "n1"); return err }
		err := workIn(dir, &faultfs.FS{At: at, Crash: true}, work)
		if err == nil {
			return // fewer calls than this
		}
		if !errors.Is(err, faultfs.ErrDead) {
			t.Fatal(err)
		}
		keys, _ := filepath.Glob(filepath.Join(dir, "secrets/web/n1/ssh/*"))
		if len(keys) != 0 && len(keys) != 6 {
			t.Errorf("call %d: the node has %q", at, keys)
		}
		s := open(t, dir, store.Options{})
		made, err := s.SSHHostKeys(ctx, "web", "n1")
		if err != nil {
			t.Fatalf("call %d: the next start: %v", at, err)
		}
		checkKey(t, filepath.Join(made, "ssh_host_rsa_key"))
	}
}

// dying dies between two renames of a collection, just when another process has
// relied on a blob that was moved away.
type dying struct {
	durable.OS
	dead bool
}

func (d *dying) Rename(from, to string) error {
	if d.dead {
		return faultfs.ErrDead
	}
	if strings.Contains(to, "collected-") {
		now := time.Now()
		if err := os.Chtimes(from, now, now); err != nil {
			return err
		}
		d.dead = true
	}
	return d.OS.Rename(from, to)
}

func (d *dying) Remove(path string) error {
	if d.dead {
		return faultfs.ErrDead
	}
	return d.OS.Remove(path)
}

func TestACollectionThatDiesLosesNoBlobThatSomebodyReliedOn(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, store.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	age(t, s, 3*time.Hour)
	_, err := open(t, dir, store.Options{FS: &dying{}}).GC(context.Background(), store.GCOptions{})
	if !errors.Is(err, faultfs.ErrDead) {
		t.Fatalf("the collection ended with %v", err)
	}
	if whole(s, image) {
		t.Fatal("nothing was moved away")
	}
	if s := open(t, dir, store.Options{}); !whole(s, image) {
		t.Error("the next start has lost it")
	}
}
