package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhizome/registry/layout"
	"rhizome/registry/registrytest"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A store may lie in any folder. Brackets in its path once made its pins,
// leases, mounts and cached steps invisible to the collection, which then took
// what a rack boots from.
func TestAStoresPathMayHoldLettersOfAPattern(t *testing.T) {
	ctx := context.Background()
	for name, need := range map[string]func(*testing.T, *store.Store, ocispec.Descriptor){
		"a pin": func(t *testing.T, s *store.Store, d ocispec.Descriptor) { pin(t, s, d) },
		"a process that names it": func(t *testing.T, s *store.Store, d ocispec.Descriptor) {
			lease, err := s.Lease(ctx, "serve", d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(lease.Close)
		},
		"a node that has it mounted": func(t *testing.T, s *store.Store, d ocispec.Descriptor) {
			if err := s.SetMounted("web", "n1", d.Digest); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "rack[1]*"), store.Options{})
			image := registrytest.Cluster(t, s.Images(), 1)
			need(t, s, image)
			collect(t, s, store.GCOptions{})
			if !whole(s, image) {
				t.Error("the image was collected")
			}
		})
	}
}

func TestACachedStepIsKeptWhateverTheStoresPath(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "rack[1]"), store.Options{})
	layer := registrytest.OurLayer(t, s.Images(), registrytest.Tar(1, 1, 100)).Descriptor
	key := digest.FromString("key")
	if err := s.CachePut(ctx, key, "web", "base", []byte(`{}`), []ocispec.Descriptor{layer}); err != nil {
		t.Fatal(err)
	}
	collect(t, s, store.GCOptions{})
	if _, ok, err := s.CacheGet(ctx, key); !ok || err != nil {
		t.Errorf("the step's layer was collected (%v)", err)
	}
}

// A folder that the disk does not give is not an empty one.
func TestCollectionStopsWhereARecordCannotBeListed(t *testing.T) {
	for _, folder := range []string{"pins", "mounts", "tmp/leases", "cache"} {
		s := open(t, t.TempDir(), store.Options{})
		image := registrytest.Cluster(t, s.Images(), 1)
		age(t, s, 3*time.Hour)
		bad := filepath.Join(s.Dir(), folder)
		if err := errors.Join(os.Rename(bad, bad+".away"), os.WriteFile(bad, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := s.GC(context.Background(), store.GCOptions{})
		if !errors.Is(err, syscall.ENOTDIR) || !whole(s, image) {
			t.Errorf("%s cannot be listed: %v, the image is whole: %v", folder, err, whole(s, image))
		}
	}
}

// A DiffID of somebody else's config becomes a file's name in derived/.
func TestADiffIDThatIsNoneIsRefusedAndNotFollowed(t *testing.T) {
	ctx := context.Background()
	for _, bad := range []digest.Digest{"nonsense", "", "sha256:../../../../tmp/x"} {
		s := open(t, t.TempDir(), store.Options{})
		layer := registrytest.OurLayer(t, s.Images(), registrytest.Tar(1, 1, 100))
		layer.DiffID = bad
		image := registrytest.Manifest(t, s.Images(), "n1", layer)
		var corrupt *layout.CorruptError
		if _, err := s.Layers(ctx, image); !errors.As(err, &corrupt) {
			t.Errorf("%q: its layers: %v", bad, err)
		}
		if err := s.DeriveAll(ctx, image); !errors.As(err, &corrupt) {
			t.Errorf("%q: its copies: %v", bad, err)
		}
		found, err := s.Verify(ctx, image, nil)
		if err != nil || len(found) != 1 || found[0].Problem != store.BadIndex {
			t.Errorf("%q: verifying: %+v, %v", bad, found, err)
		}
	}
}

// A name of 255 letters with many slashes is a tag like any other: once its log
// had a name that no disk takes, and the tag was set with an error.
func TestTheLongestNameIsATagWithAHistory(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	name := strings.Repeat("a/", 120) + "web"
	tag(t, s, image, name+":1")
	if log, err := s.History(ctx, name); err != nil || len(log) != 1 || log[0].To != image.Digest {
		t.Errorf("its history is %+v, %v", log, err)
	}
}
