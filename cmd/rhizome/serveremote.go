package main

import (
	"context"
	"errors"

	"rhizome/registry"
	"rhizome/registry/ref"
	"rhizome/serve"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// remoteSource reads layers that are still in a registry, and all else out of
// the store.
type remoteSource struct {
	storeSource
	remotes *remotes
}

func (s remoteSource) Layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (serve.LayerBlob, ocispec.Descriptor, error) {
	if b := s.remotes.layer(d.Digest); b != nil {
		return b, d, nil
	}
	return s.storeSource.Layer(ctx, d, diffID)
}

// loadRemote boots an image that lies in a registry: at once where that gives
// parts of blobs, else after a pull. A registry that does not answer, when serve
// starts, costs nobody a boot: what was pulled before is booted.
func (h *host) loadRemote(ctx context.Context, r ref.Reference) error {
	link, err := h.link(h.registry, h.store)
	if err != nil {
		return err
	}
	h.loader.Source = remoteSource{storeSource{h.store}, &h.remotes}
	h.tag = &tagWatch{source: r, link: link}
	root, err := h.bootRemote(ctx, link, r)
	if isNetwork(err) && !isNotFound(err) {
		var here error
		if root, here = h.bootPulled(ctx, r); here == nil {
			h.term.logger().Warn("the registry does not answer; nodes boot what was pulled before", "image", h.name, "digest", root, "error", err)
			err = nil
		}
	}
	h.tag.booted = root
	return err
}

// bootRemote makes nodes boot what a reference names in its registry. What comes
// of it is kept by a lease of its own until all of it is there.
func (h *host) bootRemote(ctx context.Context, link registry.Link, r ref.Reference) (digest.Digest, error) {
	lease, err := h.store.Lease(ctx, "pull of "+h.name)
	if err != nil {
		return "", err
	}
	z, err := link.Lazy(ctx, r, registry.LazyOptions{Tag: r.Tagged(), Progress: h.remoteProgress, Log: h.term.logger()})
	if err != nil {
		defer lease.Close()
	}
	if errors.Is(err, registry.ErrNotLazy) {
		h.term.note("%v; pulling %s first", err, r)
		return h.pullAndBoot(ctx, link, r)
	}
	if err != nil {
		return "", err
	}
	h.remotes.add(z, lease)
	if err := h.bootImage(ctx, z.Root); err != nil {
		return "", err
	}
	h.fill(z)
	return z.Root.Digest, nil
}

func (h *host) pullAndBoot(ctx context.Context, link registry.Link, r ref.Reference) (digest.Digest, error) {
	index, err := link.Pull(ctx, r, registry.PullOptions{Tag: r.Tagged()})
	if err != nil {
		return "", err
	}
	return index.Digest, h.bootImage(ctx, index)
}

// bootPulled makes nodes boot what the store has by a remote image's name.
func (h *host) bootPulled(ctx context.Context, r ref.Reference) (digest.Digest, error) {
	name := r.Tagged()
	if r.Digest != "" {
		name = r.Digest.String()
	}
	index, err := h.store.Resolve(ctx, name)
	if err != nil {
		return "", err
	}
	if err := h.store.Images().Complete(ctx, index); err != nil {
		return "", err
	}
	return index.Digest, h.bootImage(ctx, index)
}

func (h *host) remoteProgress(done, total int64, layers, of int) {
	h.term.note("pulled   %s of %s, %d of %d layers", bytesText(done), bytesText(total), layers, of)
}

// fill fetches the rest of a remote image in the background, until endFilling.
func (h *host) fill(z *registry.Lazy) {
	h.remotes.fills(z)
	h.filling.Go(func() {
		select {
		case <-h.serving:
		case <-h.fillUntil.Done():
			return
		}
		err := z.Fill(h.fillUntil)
		if h.fillUntil.Err() == nil {
			h.remotes.settle(z)
		}
		switch {
		case err == nil:
			h.term.note("pulled   %s, whole", h.name)
		case h.fillUntil.Err() == nil:
			h.term.logger().Error("the image is served, but not kept in the store", "image", h.name, "digest", z.Root.Digest, "error", err)
		}
	})
}

// awaitBlob waits for a layer that is not here whole: who fetches it whole gets
// verified bytes.
func (h *host) awaitBlob(ctx context.Context, d digest.Digest) error {
	b := h.remotes.layer(d)
	if b == nil {
		return nil
	}
	select {
	case <-b.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *host) closeRemotes() {
	h.stopFilling()
	h.filling.Wait()
	if err := h.remotes.close(); err != nil {
		h.term.logger().Debug("leaving a half-pulled layer, which is swept later", "error", err)
	}
}
