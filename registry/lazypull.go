package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/registry/lazy"
	"rhizome/registry/ref"
	"rhizome/registry/remote"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNotLazy is matched by the errors of images that can only be served when
// they are here whole.
var ErrNotLazy = errors.New("the image cannot be served before it is here whole")

// LazyOptions say how a lazy pull goes.
type LazyOptions struct {
	// Tag names the image in the store once it is whole; empty gives no name.
	Tag string
	// Progress is told of every layer that is whole: bytes and layers done and
	// all there are. Nil is silence.
	Progress func(done, total int64, layers, of int)
	Log      *slog.Logger
}

// Lazy is an image that can be read while its layers come.
type Lazy struct {
	// Root is the image's index or manifest.
	Root   ocispec.Descriptor
	link   Link
	source ref.Reference
	tag    string
	set    *lazy.Set
	layers []ocispec.Descriptor
	// superseded is set once the name belongs to a newer image.
	superseded atomic.Bool
}

// Lazy brings an image's manifests and configs into the store, and gives access
// to its layers in the registry. An error that matches ErrNotLazy says that
// only a Pull will do: the registry gives no parts of blobs, or a layer that
// is not here was made by others and has no index. ctx bounds all reading
// until Close. The caller holds a lease.
func (l Link) Lazy(ctx context.Context, source ref.Reference, o LazyOptions) (*Lazy, error) {
	root, layers, err := l.Client.PullHead(ctx, source, l.Store.Images(), remote.PullOptions{Partial: l.Store.PartialDir()})
	if err != nil {
		return nil, err
	}
	if err := l.remember(ctx, source); err != nil {
		return nil, err
	}
	z := &Lazy{Root: root, link: l, source: source, tag: o.Tag}
	if z.layers, err = l.missing(ctx, layers); err != nil {
		return nil, err
	}
	hotFirst(z.layers)
	if err := z.check(ctx); err != nil {
		return nil, err
	}
	z.set = lazy.NewSet(ctx, lazy.Options{Dir: l.Store.PartialDir(), Fetch: z.fetch, Adopt: l.Store.Images().Adopt, Progress: o.Progress, Log: o.Log})
	for _, d := range z.layers {
		if err := z.set.Add(d); err != nil {
			return nil, errors.Join(err, z.Close())
		}
	}
	return z, nil
}

func (l Link) missing(ctx context.Context, layers []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, d := range layers {
		here, err := l.Store.Images().Exists(ctx, d)
		if err != nil {
			return nil, err
		}
		if !here {
			out = append(out, d)
		}
	}
	return out, nil
}

// hotFirst puts the layers that nodes hold in memory before the others: they are
// what is read most, and a node waits for the whole of one.
func hotFirst(layers []ocispec.Descriptor) {
	cold := func(d ocispec.Descriptor) int {
		if d.Annotations[imagefmt.AnnotationRole] == imagefmt.RoleBundle {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(layers, func(a, b ocispec.Descriptor) int { return cold(a) - cold(b) })
}

// check finds out whether the layers can be read in parts.
func (z *Lazy) check(ctx context.Context) error {
	for _, d := range z.layers {
		if d.Annotations[layerfmt.AnnotationIndexDigest] == "" {
			return fmt.Errorf("%w: the layer %s was made by another tool, and has no index", ErrNotLazy, d.Digest)
		}
	}
	for _, d := range z.layers {
		if d.Size < 2 {
			continue // a part of it would be the whole
		}
		_, err := z.fetch(ctx, d, d.Size-1, 1)
		if errors.Is(err, remote.ErrNoRange) {
			return fmt.Errorf("%w: %w", ErrNotLazy, err)
		}
		return err
	}
	return nil
}

func (z *Lazy) fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) ([]byte, error) {
	r := z.source
	r.Tag, r.Digest = "", d.Digest
	return z.link.Client.FetchRange(ctx, r, d, off, n)
}

// Layer finds a layer that is not here whole, or was not when the pull began;
// nil is none. Reading it fetches what is missing; the reader verifies.
func (z *Lazy) Layer(d digest.Digest) *lazy.Blob { return z.set.Blob(d) }

// Fill fetches what is missing behind all readers, and names the image when it
// is whole.
func (z *Lazy) Fill(ctx context.Context) error {
	if err := z.set.Fill(ctx, z.layers); err != nil {
		return fmt.Errorf("pulling the rest of %q: %w", z.source, err)
	}
	z.set.Settle()
	if z.tag == "" || z.superseded.Load() {
		return nil
	}
	return z.link.Store.Tag(ctx, z.Root, z.tag)
}

// Supersede leaves the name to a newer image, though this one may become whole
// after it.
func (z *Lazy) Supersede() { z.superseded.Store(true) }

// Close ends all reading. What did not become whole stays for the next Lazy of
// the image.
func (z *Lazy) Close() error { return z.set.Close() }
