package main

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"rhizome/pipeline"
	"rhizome/recipes"
	"rhizome/registry"
	"rhizome/registry/imagefmt"
	"rhizome/registry/layout"
	"rhizome/registry/ref"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// basePuller brings base images into the store: from a registry, or, where a
// reference names no host, out of the store itself.
type basePuller struct {
	link     registry.Link
	platform ocispec.Platform
}

func newBasePuller(link registry.Link, r *recipes.Recipe) basePuller {
	return basePuller{link: link, platform: ocispec.Platform{OS: r.OS, Architecture: r.Arch}}
}

// Resolve says what a tag means now.
func (p basePuller) Resolve(ctx context.Context, text string) (digest.Digest, error) {
	r, err := ref.Parse(text)
	if err != nil {
		return "", err
	}
	if r.Remote() {
		d, err := p.link.Client.Resolve(ctx, r)
		return d.Digest, err
	}
	d, err := p.link.Store.Resolve(ctx, r.Tagged())
	return d.Digest, err
}

// Pull brings the image of the recipe's platform in.
func (p basePuller) Pull(ctx context.Context, text string) (ocispec.Descriptor, []ocispec.Descriptor, []digest.Digest, error) {
	manifest, err := p.manifest(ctx, text)
	if err != nil {
		return manifest, nil, nil, err
	}
	_, config, err := p.link.Store.ManifestConfig(ctx, manifest)
	if err != nil {
		return manifest, nil, nil, err
	}
	if config.OS != p.platform.OS || config.Architecture != p.platform.Architecture {
		return manifest, nil, nil, fmt.Errorf("the image %q is for %s/%s, and the recipe is for %s/%s: name an image for that, or change the recipe's os and arch",
			text, config.OS, config.Architecture, p.platform.OS, p.platform.Architecture)
	}
	refs, err := p.link.Store.Layers(ctx, manifest)
	var layers []ocispec.Descriptor
	var diffIDs []digest.Digest
	for _, l := range refs {
		l.Descriptor.Annotations = formatOnly(l.Descriptor.Annotations)
		layers, diffIDs = append(layers, l.Descriptor), append(diffIDs, l.DiffID)
	}
	return manifest, layers, diffIDs, err
}

func (p basePuller) manifest(ctx context.Context, text string) (ocispec.Descriptor, error) {
	r, err := ref.Parse(text)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if r.Remote() {
		d, err := p.link.Pull(ctx, r, registry.PullOptions{Platform: &p.platform})
		if err != nil {
			return d, err
		}
		return p.choose(ctx, text, d)
	}
	name := r.Tagged()
	if r.Digest != "" {
		name = r.Digest.String()
	}
	d, err := p.link.Store.Resolve(ctx, name)
	if err != nil {
		return d, fmt.Errorf("finding the base image %q in the store: %w", text, err)
	}
	if d, err = p.choose(ctx, text, d); err != nil {
		return d, err
	}
	return d, p.link.Store.DeriveAll(ctx, d)
}

// choose takes the one manifest for the platform out of an index.
func (p basePuller) choose(ctx context.Context, text string, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !layout.IsIndex(d.MediaType) {
		return d, nil
	}
	next, err := p.link.Store.Images().Successors(ctx, d)
	if err != nil {
		return d, err
	}
	var found []ocispec.Descriptor
	for _, m := range next {
		if m.Platform != nil && m.Platform.OS == p.platform.OS && m.Platform.Architecture == p.platform.Architecture {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		return d, fmt.Errorf("the image %q has %d manifests for %s/%s: name the one that is meant by its own digest (rhizome inspect lists them)",
			text, len(found), p.platform.OS, p.platform.Architecture)
	}
	return found[0], nil
}

// formatOnly drops what an image said of a layer's role in it, and keeps what
// the layer's format needs.
func formatOnly(all map[string]string) map[string]string {
	keep := maps.Clone(all)
	for _, k := range []string{imagefmt.AnnotationRole, imagefmt.AnnotationStage, imagefmt.AnnotationSource} {
		delete(keep, k)
	}
	return keep
}

// readParent reads the version that changed layers become deltas on.
func readParent(ctx context.Context, s *store.Store, name string) (*pipeline.Parent, error) {
	if name == "" {
		return nil, nil
	}
	d, err := s.Resolve(ctx, name)
	var missing *layout.NotFoundError
	var unknown *store.NotFoundError
	if errors.As(err, &missing) || errors.As(err, &unknown) {
		return nil, fmt.Errorf("the recipe's parent %s is not in the store: %w; bring it in with \"rhizome pull HOST/NAME@%s\"", name, err, name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the recipe's parent %s: %w", name, err)
	}
	if err := s.Images().Complete(ctx, d); err != nil {
		return nil, fmt.Errorf("the recipe's parent %s is not whole in the store: %w; bring it in with \"rhizome pull HOST/NAME@%s\"", name, err, name)
	}
	nodes, err := s.Nodes(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("reading the recipe's parent %s: %w", name, err)
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("the recipe's parent %s is no cluster image: name the digest that \"rhizome build\" printed", name)
	}
	p := &pipeline.Parent{Digest: d.Digest, Layers: map[string][]pipeline.Layer{}, Bundles: map[digest.Digest]pipeline.Layer{}}
	for _, n := range nodes {
		if err := addParentLayers(ctx, s, n.Descriptor, p); err != nil {
			return nil, fmt.Errorf("reading the recipe's parent %s: %w", name, err)
		}
	}
	return p, nil
}

// addParentLayers adds the layers of steps that no node before had: one step's
// layers are the same in every node.
func addParentLayers(ctx context.Context, s *store.Store, manifest ocispec.Descriptor, into *pipeline.Parent) error {
	layers, err := s.Layers(ctx, manifest)
	if err != nil {
		return err
	}
	here := map[string][]pipeline.Layer{}
	for _, l := range layers {
		step := l.Descriptor.Annotations[imagefmt.AnnotationStage]
		d := l.Descriptor
		d.Annotations = formatOnly(d.Annotations)
		found := pipeline.Layer{Descriptor: d, DiffID: l.DiffID}
		here[step] = append(here[step], found)
		if l.Descriptor.Annotations[imagefmt.AnnotationRole] == pipeline.RoleBundle {
			into.Bundles[l.DiffID] = found
		}
	}
	for step, found := range here {
		if into.Layers[step] == nil {
			into.Layers[step] = found
		}
	}
	return nil
}
