package store_test

import (
	"context"
	"testing"

	"rhizome/registry/registrytest"
	"rhizome/registry/store"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Other programs keep in the layout what this one has no word for. A collection
// used to leave the document, and take what it names.
func TestWhatDocumentsOfOthersNameStays(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name, mediaType, field string
		nested                 bool
	}{
		{"an artifact manifest", "application/vnd.oci.artifact.manifest.v1+json", "blobs", false},
		{"an artifact manifest in an index", "application/vnd.oci.artifact.manifest.v1+json", "blobs", true},
		{"docker's first schema", "application/vnd.docker.distribution.manifest.v1+prettyjws", "fsLayers", false},
		{"a type of tomorrow that lists images", "application/vnd.example.list+json", "all", false},
		{"an entry without a type", "", "layers", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir(), store.Options{})
			l := s.Images()
			blob := registrytest.Blob(t, l, "text/plain", []byte("of another program"))
			image := registrytest.Cluster(t, l, 1)
			d := registrytest.JSON(t, l, c.mediaType, map[string]any{c.field: []ocispec.Descriptor{blob, image}})
			if c.nested {
				d = registrytest.Index(t, l, d)
			}
			if err := l.Tag(ctx, d, "theirs"); err != nil {
				t.Fatal(err)
			}
			if r := collect(t, s, store.GCOptions{}); len(r.Blobs) > 0 || !whole(s, d) || !whole(s, blob) || !whole(s, image) {
				t.Errorf("%v went", r.Blobs)
			}
		})
	}
}
