package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"rhizome/registry/ref"
	"rhizome/registry/remote"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Mender gets pieces of damaged layers again from where the images of a store
// came from. What it returns is unverified: who asks has the piece's digest.
type Mender struct {
	Store *store.Store
	// Client makes a client that speaks TLS, or plain HTTP for registries that
	// were spoken to so when the image was pulled or pushed.
	Client func(plainHTTP bool) (*remote.Client, error)
}

// Range gets n bytes from off on of the layer with a digest: a seekable copy's
// from the store itself, a blob's from the registries, the last used first.
func (m *Mender) Range(ctx context.Context, layer digest.Digest, off, n int64) ([]byte, error) {
	if data, ok, err := m.Store.CopyRange(ctx, layer, off, n); ok {
		return data, err
	}
	blob, err := m.Store.Images().Open(ctx, ocispec.Descriptor{Digest: layer})
	if err != nil {
		return nil, err
	}
	blob.Close()
	origins, err := m.Store.Origins()
	if err != nil {
		return nil, err
	}
	if len(origins) == 0 {
		return nil, errors.New("no registry is known to have it")
	}
	d := ocispec.Descriptor{Digest: layer, Size: blob.Size()}
	var failed error
	for _, o := range origins {
		data, err := m.from(ctx, o, d, off, n)
		if err == nil {
			return data, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

func (m *Mender) from(ctx context.Context, o store.Origin, d ocispec.Descriptor, off, n int64) ([]byte, error) {
	c, err := m.Client(o.PlainHTTP)
	if err != nil {
		return nil, err
	}
	r := ref.Reference{Host: o.Host, Name: o.Name, Digest: d.Digest}
	data, err := c.FetchRange(ctx, r, d, off, n)
	if errors.Is(err, remote.ErrNoRange) {
		return skipTo(ctx, c, r, d, off, n)
	}
	return data, err
}

// skipTo reads a piece of a blob from a registry that only gives whole ones.
func skipTo(ctx context.Context, c *remote.Client, r ref.Reference, d ocispec.Descriptor, off, n int64) ([]byte, error) {
	rc, err := c.Fetch(ctx, r, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if _, err := io.CopyN(io.Discard, rc, off); err != nil {
		return nil, fmt.Errorf("fetching the blob %s: %w", d.Digest, err)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(rc, data); err != nil {
		return nil, fmt.Errorf("fetching the blob %s: %w", d.Digest, err)
	}
	return data, nil
}

// WriteBack stores a piece that was verified. A seekable copy needs none: it
// was made again as a whole.
func (m *Mender) WriteBack(layer digest.Digest, off int64, b []byte) error {
	if m.Store.HasCopy(layer) {
		return nil
	}
	return m.Store.Images().Patch(layer, off, b)
}
