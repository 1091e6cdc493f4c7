package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	"rhizome/registry/layout"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// named finds digests in a document whose format is not known. Whatever its
// fields are called, this is how a descriptor names a blob (image-spec,
// descriptor.md, "Digests").
var named = regexp.MustCompile(`sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}`)

// markStrange marks what an index lists and this program has no word for, an
// artifact manifest say, and all that it names. What is larger than a manifest
// may be is the blob of somebody's, and names nothing.
func (c *collection) markStrange(ctx context.Context, d ocispec.Descriptor, why string) error {
	if c.strange[d.Digest] {
		return nil
	}
	c.strange[d.Digest], c.needed[d.Digest] = true, true
	if d.Size > layout.MaxManifestRead {
		return nil
	}
	data, err := c.s.images.ReadAll(ctx, d)
	if err != nil {
		return unreadable(why, err)
	}
	for _, name := range named.FindAllString(string(data), -1) {
		if err := c.markNamed(ctx, digest.Digest(name), why); err != nil {
			return err
		}
	}
	return nil
}

// markNamed marks a blob that a strange document names, if it is here, and what
// it needs where it is an image itself.
func (c *collection) markNamed(ctx context.Context, d digest.Digest, why string) error {
	b, err := c.s.images.Open(ctx, ocispec.Descriptor{Digest: d})
	if missing := new(layout.NotFoundError); errors.As(err, &missing) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unreadable(why, err)
	}
	defer b.Close()
	desc := ocispec.Descriptor{Digest: d, Size: b.Size()}
	c.needed[d] = true
	if desc.Size > layout.MaxManifestRead {
		return nil
	}
	data, err := c.s.images.ReadAll(ctx, desc)
	if err != nil {
		return unreadable(why, err)
	}
	if desc.MediaType = layout.SniffMediaType(data); desc.MediaType == "" {
		return nil
	}
	return c.mark(ctx, desc, why)
}

// markListed marks what is strange among the entries of an index.
func (c *collection) markListed(ctx context.Context, index ocispec.Descriptor, why string) error {
	if !layout.IsIndex(index.MediaType) {
		return nil
	}
	entries, err := c.s.images.Successors(ctx, index)
	for _, d := range entries {
		if err == nil && !layout.IsManifest(d.MediaType) {
			err = c.markStrange(ctx, d, why)
		}
	}
	return err
}

func unreadable(why string, err error) error {
	return fmt.Errorf("reading what %s needs: %w: mend it (rhizome verify --repair) or give it up (rhizome untag) first", why, err)
}
