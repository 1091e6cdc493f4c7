package remote

import (
	"context"
	"slices"

	"rhizome/registry/durable"
	"rhizome/registry/layout"
	"rhizome/registry/ref"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullHead brings an image's indexes, manifests and configs into the layout,
// and returns the other blobs, its layers, in the manifests' order. They are
// left in the registry.
func (c *Client) PullHead(ctx context.Context, r ref.Reference, l *layout.Layout, o PullOptions) (root ocispec.Descriptor, layers []ocispec.Descriptor, err error) {
	if o.FS == nil {
		o.FS = durable.OS{}
	}
	p := &puller{c: c, r: r, l: l, o: o, meter: newMeter("pulling", r.String(), c.o.Progress), seen: map[digest.Digest]bool{}}
	root, layers, err = p.head(ctx)
	return root, layers, wrap("pulling", r, err)
}

func (p *puller) head(ctx context.Context) (root ocispec.Descriptor, layers []ocispec.Descriptor, err error) {
	root, data, err := p.c.root(ctx, p.r)
	if err != nil {
		return root, nil, err
	}
	if err := p.manifests(ctx, root, data); err != nil {
		return root, nil, err
	}
	layers = slices.DeleteFunc(slices.Clone(p.blobs), isConfig)
	p.blobs = slices.DeleteFunc(p.blobs, func(d ocispec.Descriptor) bool { return !isConfig(d) })
	return root, layers, p.fetchBlobs(ctx)
}

func isConfig(d ocispec.Descriptor) bool {
	return d.MediaType == ocispec.MediaTypeImageConfig || d.MediaType == "application/vnd.docker.container.image.v1+json"
}
