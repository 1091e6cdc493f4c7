// Package registrytest makes images and starts real registries for the tests
// of package registry and its children.
package registrytest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/registry/layout"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tar makes a tar of a few files of n bytes each that do not compress.
func Tar(seed uint64, files, n int) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	must(w.WriteHeader(&tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o755}))
	for i := range files {
		must(w.WriteHeader(&tar.Header{Name: fmt.Sprintf("data/file%d-%d", seed, i), Mode: 0o644, Size: int64(n)}))
		_, err := io.CopyN(w, random, int64(n))
		must(err)
	}
	must(w.Close())
	return buf.Bytes()
}

// must panics: writing to memory does not fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Layer is a layer made for a test.
type Layer struct {
	Descriptor ocispec.Descriptor
	DiffID     digest.Digest
}

// OurLayer stores a layer as rhizome writes them.
func OurLayer(t testing.TB, l *layout.Layout, tarball []byte) Layer {
	t.Helper()
	var sum layerfmt.Summary
	d, err := l.Ingest(context.Background(), layerfmt.MediaType, func(w io.Writer) (err error) {
		sum, err = layerfmt.Encode(w, bytes.NewReader(tarball), layerfmt.Options{Jobs: 1})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Annotations = sum.Annotations()
	return Layer{d, sum.DiffID}
}

// GzipLayer stores a layer as other tools write them.
func GzipLayer(t testing.TB, l *layout.Layout, tarball []byte) Layer {
	t.Helper()
	d, err := l.Ingest(context.Background(), ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error {
		z := gzip.NewWriter(w)
		if _, err := z.Write(tarball); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	return Layer{d, digest.FromBytes(tarball)}
}

// Blob stores any bytes.
func Blob(t testing.TB, l *layout.Layout, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d, err := l.Ingest(context.Background(), mediaType, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// JSON stores a value as JSON.
func JSON(t testing.TB, l *layout.Layout, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return Blob(t, l, mediaType, data)
}

// Manifest stores an image manifest over layers, for one node.
func Manifest(t testing.TB, l *layout.Layout, node string, layers ...Layer) ocispec.Descriptor {
	t.Helper()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers"},
		Config: ocispec.ImageConfig{Labels: labels(t, node)}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.DiffID)
		m.Layers = append(m.Layers, layer.Descriptor)
	}
	m.Config = JSON(t, l, ocispec.MediaTypeImageConfig, config)
	d := JSON(t, l, ocispec.MediaTypeImageManifest, m)
	d.Annotations = map[string]string{imagefmt.AnnotationNode: node}
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	return d
}

// labels make a machine of a node, with a card and an address of its own.
func labels(t testing.TB, node string) map[string]string {
	t.Helper()
	id := sha256.Sum256([]byte(node))
	l, err := imagefmt.Labels(
		imagefmt.Cluster{Name: "rack", Network: imagefmt.Network{Subnet: netip.MustParsePrefix("10.0.0.0/8"), Server: netip.MustParseAddr("10.0.0.1")}},
		imagefmt.Node{Name: node, MACs: []string{fmt.Sprintf("52:54:00:%02x:%02x:%02x", id[0], id[1], id[2])},
			Address: netip.AddrFrom4([4]byte{10, id[0] | 1, id[1], id[2]}), Root: "nfs", Boot: imagefmt.Boot{OS: "linux"}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Index stores a cluster image over manifests.
func Index(t testing.TB, l *layout.Layout, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	return JSON(t, l, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
}

// Cluster stores a cluster image of two nodes on one base, each with a layer of
// its own. Another seed is another image.
func Cluster(t testing.TB, l *layout.Layout, seed uint64) ocispec.Descriptor {
	t.Helper()
	base := OurLayer(t, l, Tar(seed, 3, 200_000))
	n1 := Manifest(t, l, "n1", base, OurLayer(t, l, Tar(seed+1000, 1, 1000)))
	n2 := Manifest(t, l, "n2", base, OurLayer(t, l, Tar(seed+2000, 1, 1000)))
	return Index(t, l, n1, n2)
}
