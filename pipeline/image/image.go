// Package image writes the JSON of a cluster image: for each node an OCI image
// config and manifest, and over them the index. It decides bytes and stores
// nothing (image-spec v1.1: config.md, manifest.md, image-index.md).
package image

import (
	"encoding/json"
	"fmt"
	"time"

	"rhizome/registry/imagefmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ManifestLimit is the size that registries take a manifest or an index up to
// (distribution's default: 4 MiB).
const ManifestLimit = 4 << 20

// Layer is one layer of a node's root, with where it came from.
type Layer struct {
	Descriptor ocispec.Descriptor
	DiffID     digest.Digest
	// Role is "base", "kernel", "files", "node"; Stage the step's name; Source
	// the place in the recipe, "web.yaml:12".
	Role, Stage, Source string
}

// Platform is what an image runs on, as OCI names it.
type Platform struct{ OS, Arch string }

// Blob is a document with its descriptor.
type Blob struct {
	Descriptor ocispec.Descriptor
	Data       []byte
}

// Node is a node's part of a cluster image: two documents to store.
type Node struct {
	Config   Blob
	Manifest Blob
}

// ForNode writes the config and the manifest of one node. Layers are given
// lowest first.
func ForNode(p Platform, epoch time.Time, c imagefmt.Cluster, n imagefmt.Node, layers []Layer) (Node, error) {
	labels, err := imagefmt.Labels(c, n)
	if err != nil {
		return Node{}, err
	}
	config, err := blob(ocispec.MediaTypeImageConfig, config(p, epoch, labels, layers))
	if err != nil {
		return Node{}, fmt.Errorf("writing the config of node %q: %w", n.Name, err)
	}
	manifest, err := blob(ocispec.MediaTypeImageManifest, manifest(config.Descriptor, layers))
	if err != nil {
		return Node{}, fmt.Errorf("writing the manifest of node %q: %w", n.Name, err)
	}
	manifest.Descriptor.Annotations = map[string]string{imagefmt.AnnotationNode: n.Name}
	manifest.Descriptor.Platform = &ocispec.Platform{OS: p.OS, Architecture: p.Arch}
	return Node{Config: config, Manifest: manifest}, nil
}

func config(p Platform, epoch time.Time, labels map[string]string, layers []Layer) ocispec.Image {
	when := epoch.UTC()
	img := ocispec.Image{
		Created:  &when,
		Platform: ocispec.Platform{OS: p.OS, Architecture: p.Arch},
		Config:   ocispec.ImageConfig{Labels: labels},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	for _, l := range layers {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, l.DiffID)
		img.History = append(img.History, ocispec.History{Created: &when, CreatedBy: "rhizome stage " + l.Stage})
	}
	return img
}

func manifest(config ocispec.Descriptor, layers []Layer) ocispec.Manifest {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, annotated(l))
	}
	return m
}

// annotated is the layer's descriptor with its origin beside what the layer
// format needs. The stored descriptor is left alone: others share it.
func annotated(l Layer) ocispec.Descriptor {
	d := l.Descriptor
	d.Annotations = map[string]string{
		imagefmt.AnnotationRole:  l.Role,
		imagefmt.AnnotationStage: l.Stage,
	}
	if l.Source != "" {
		d.Annotations[imagefmt.AnnotationSource] = l.Source
	}
	for k, v := range l.Descriptor.Annotations {
		d.Annotations[k] = v
	}
	return d
}

// Index writes the cluster image's index over the nodes' manifests, in the
// order given. It refuses one that registries would not take.
func Index(manifests []ocispec.Descriptor) (Blob, error) {
	b, err := blob(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: manifests,
	})
	if err != nil {
		return Blob{}, fmt.Errorf("writing the index: %w", err)
	}
	if len(b.Data) > ManifestLimit {
		return Blob{}, fmt.Errorf("the index of %d nodes is %d bytes; registries take at most %d: split the cluster into several recipes", len(manifests), len(b.Data), ManifestLimit)
	}
	return b, nil
}

// blob marshals a document; encoding/json sorts map keys, so equal values give
// equal bytes.
func blob(mediaType string, v any) (Blob, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return Blob{}, err
	}
	return Blob{
		Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))},
		Data:       data,
	}, nil
}
