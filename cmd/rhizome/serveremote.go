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
	remote *registry.Lazy
}

func (s remoteSource) Layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (serve.LayerBlob, ocispec.Descriptor, error) {
	if b := s.remote.Layer(d.Digest); b != nil {
		return b, d, nil
	}
	return s.storeSource.Layer(ctx, d, diffID)
}

// loadRemote boots an image that lies in a registry: at once where that gives
// parts of blobs, else after a pull.
func (h *host) loadRemote(ctx context.Context, r ref.Reference) error {
	link, err := h.link(h.registry, h.store)
	if err != nil {
		return err
	}
	h.remote, err = link.Lazy(ctx, r, registry.LazyOptions{Tag: r.Tagged(), Progress: h.remoteProgress, Log: h.term.logger()})
	if errors.Is(err, registry.ErrNotLazy) {
		h.term.note("%v; pulling %s first", err, r)
		index, err := link.Pull(ctx, r, registry.PullOptions{Tag: r.Tagged()})
		if err != nil {
			return err
		}
		return h.bootImage(ctx, index)
	}
	if err != nil {
		return err
	}
	h.loader.Source = remoteSource{storeSource{h.store}, h.remote}
	return h.bootImage(ctx, h.remote.Root)
}

func (h *host) remoteProgress(done, total int64, layers, of int) {
	h.term.note("pulled   %s of %s, %d of %d layers", bytesText(done), bytesText(total), layers, of)
}

// fill fetches the rest of a remote image in the background. The function that
// it returns waits for the end of that.
func (h *host) fill(ctx context.Context) (wait func()) {
	if h.remote == nil {
		return func() {}
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.remote.Fill(ctx); err == nil {
			h.term.note("pulled   %s, whole", h.name)
		} else if ctx.Err() == nil {
			h.term.logger().Error("the image is served, but not kept in the store", "image", h.name, "error", err)
		}
	}()
	return func() {
		stop()
		<-ended
	}
}

// awaitBlob waits for a layer that is not here whole: who fetches it whole gets
// verified bytes.
func (h *host) awaitBlob(ctx context.Context, d digest.Digest) error {
	if h.remote == nil {
		return nil
	}
	b := h.remote.Layer(d)
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

func (h *host) closeRemote() {
	if h.remote == nil {
		return
	}
	if err := h.remote.Close(); err != nil {
		h.term.logger().Debug("leaving a half-pulled layer, which is swept later", "error", err)
	}
}
