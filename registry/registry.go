// Package registry joins the store and the world's registries: a pull that
// ends with an image ready to serve, a push, and the mending of a store from
// where its images came from. It is the only user of oras, through its
// children.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"rhizome/registry/ref"
	"rhizome/registry/remote"
	"rhizome/registry/store"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Link is a store and a client of registries.
type Link struct {
	Store  *store.Store
	Client *remote.Client
	// PlainHTTP is remembered with what is pulled, for repairs.
	PlainHTTP bool
}

// PullOptions say what a pull takes.
type PullOptions struct {
	// Tag names the image in the store; empty gives it no name.
	Tag string
	// Platform chooses one manifest of a multi-platform index; nil takes all.
	Platform *ocispec.Platform
}

// Pull brings an image into the store, whole and verified, makes seekable
// copies of layers that others made, and names it last.
func (l Link) Pull(ctx context.Context, source ref.Reference, o PullOptions) (ocispec.Descriptor, error) {
	lease, err := l.Store.Lease(ctx, "pull "+source.String())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer lease.Close()
	d, err := l.Client.Pull(ctx, source, l.Store.Images(), remote.PullOptions{
		Partial: l.Store.PartialDir(), Platform: o.Platform, Check: store.CheckIndex})
	if err != nil {
		return d, err
	}
	if err := l.Store.DeriveAll(ctx, d); err != nil {
		return d, fmt.Errorf("pulling %q: %w", source, err)
	}
	if err := l.remember(ctx, source); err != nil {
		return d, err
	}
	if o.Tag == "" {
		return d, nil
	}
	return d, l.Store.Tag(ctx, d, o.Tag)
}

func (l Link) remember(ctx context.Context, r ref.Reference) error {
	return l.Store.AddOrigin(ctx, store.Origin{Host: r.Host, Name: r.Name, PlainHTTP: l.PlainHTTP})
}

// Push sends an image of the store to a registry, under the destination's tag
// and the further tags.
func (l Link) Push(ctx context.Context, d ocispec.Descriptor, dest ref.Reference, tags ...string) error {
	lease, err := l.Store.Lease(ctx, "push "+dest.String(), d.Digest)
	if err != nil {
		return err
	}
	defer lease.Close()
	if err := l.Client.Push(ctx, l.Store.Images(), d, dest, remote.PushOptions{Tags: tags}); err != nil {
		return err
	}
	return l.remember(ctx, dest)
}

// Fetch brings a blob from wherever images of this store came from; it is the
// store.Fetcher of a repair. Only registries that are spoken to as this
// link's client does are asked.
func (l Link) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	origins, err := l.Store.Origins()
	if err != nil {
		return nil, err
	}
	errs := errors.New("no registry that is known has it")
	for _, o := range origins {
		if o.PlainHTTP != l.PlainHTTP {
			continue
		}
		rc, err := l.Client.Fetch(ctx, ref.Reference{Host: o.Host, Name: o.Name, Digest: d.Digest}, d)
		if err == nil {
			return rc, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

// Mend verifies an image and fetches again what is missing or damaged, as long
// as that helps: below a manifest that was damaged more may be. It returns
// what was wrong at first, and what still is.
func (l Link) Mend(ctx context.Context, root ocispec.Descriptor, progress func(done int64)) (found, left []store.Finding, err error) {
	for {
		now, err := l.Store.Verify(ctx, root, progress)
		if err != nil || len(now) == 0 {
			return found, nil, err
		}
		found = append(found, now...)
		left, err = l.Store.Repair(ctx, now, l.Fetch)
		if err != nil || len(left) == len(now) {
			return found, left, err
		}
	}
}
